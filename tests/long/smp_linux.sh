#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian's kernels with 1 to 16 vCPUs: the cloud kernel and the one for real hardware come up with all
# of them, keep the TSC, and complain of nothing.
set -u
. "$(dirname "$0")/../guests/lib.sh"

for profile in work generic; do
    make --no-print-directory guest PROFILE=$profile >"$tmp/make" 2>&1 || fail "$(tail -n 3 "$tmp/make")"
    for vcpus in 1 2 4 8 16; do
        timeout 1500 "$pollux" run --kernel build/guest-$profile/vmlinuz \
            --initrd build/guest-$profile/initrd.img --memory 512 --vcpus $vcpus \
            --append "console=ttyS0 panic=-1 pollux.test=clock" --console "$tmp/console" \
            --timeout 1400 >"$tmp/out" 2>"$tmp/err" </dev/null || fail "$profile, $vcpus: exit code $?"
        passed clock
        up=$(sed -n 's/.*smp: Brought up 1 node, \([0-9]*\) CPU.*/\1/p' "$tmp/console")
        [ "$up" = $vcpus ] || fail "$profile: $up of $vcpus vCPUs came up"
        grep -iE 'soft lockup|warp|unstable|WARNING:|Call Trace' "$tmp/console" && fail "$profile, $vcpus"
        echo "$profile kernel, $vcpus vCPUs: tsc kept"
    done
done
