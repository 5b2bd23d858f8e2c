#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest programs for several processors on 8 and 16 vCPUs; and Debian's own: stress-ng, pigz, xz,
# redis with I/O threads and nginx (tests/long/smp_load) on 2 and 4 vCPUs, recorded on two threads and
# run again on one.
set -u
VCPUS="8 16" "$(dirname "$0")/../guest/smp.sh" || exit 1
. "$(dirname "$0")/../guests/lib.sh"
make --no-print-directory guest PROFILE=smp >"$tmp/make" 2>&1 || fail "$(tail -n 3 "$tmp/make")"
mkdir -p "$tmp/extra/usr/bin"
cp tests/long/smp_load "$tmp/extra/usr/bin"
(cd "$tmp/extra" && find . -mindepth 1 | cpio -o -H newc --quiet) | cat build/guest-smp/initrd.img - >"$tmp/initrd"

for vcpus in 2 4; do
    rm -rf "$tmp/rec"
    timeout 600 "$pollux" run --kernel build/guest-smp/vmlinuz --initrd "$tmp/initrd" --memory 512 --vcpus $vcpus \
        --threads 2 --append "console=ttyS0 panic=-1 quiet pollux.run=smp_load" --console "$tmp/console" \
        --record "$tmp/rec" --timeout 580 >"$tmp/out" 2>"$tmp/err" </dev/null || fail "$vcpus vCPUs: exit code $?"
    grep -a 'smp_load:' "$tmp/console"
    grep -aq 'smp_load: all worked' "$tmp/console" || fail "$vcpus vCPUs: not everything worked"
    timeout 900 "$pollux" replay --threads 1 "$tmp/rec" || fail "$vcpus vCPUs: one thread ends in other states"
done
