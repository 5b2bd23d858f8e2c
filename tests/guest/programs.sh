#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every guest program under `pollux run`: it must pass, and print line for line what it prints on
# QEMU. strict*.c hold what QEMU is known to do otherwise; they run on Pollux alone.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for elf in build/tests/guest/*.elf; do
    name=$(basename "$elf" .elf)
    case $name in smp_*) continue ;; esac # smp.sh
    timeout 20 build/pollux run --kernel "$elf" --memory 64 --console "$tmp/$name" --timeout 15 \
        >"$tmp/err" 2>&1 </dev/null
    rc=$?
    if [ $rc -ne 33 ]; then
        echo "$name: exit code $rc, not 33"
        grep -v '^ok ' "$tmp/$name"
        cat "$tmp/err"
        bad=1
    else
        tail -n 1 "$tmp/$name"
    fi
    [[ $name = strict* ]] && continue
    command -v qemu-system-x86_64 >/dev/null || continue
    timeout 20 qemu-system-x86_64 -M pc -accel tcg -cpu max -m 64 -display none -monitor none \
        -serial "file:$tmp/$name.qemu" -no-reboot -icount shift=0,sleep=off \
        -device isa-debug-exit,iobase=0xf4,iosize=1 -kernel "$elf" >/dev/null 2>&1 </dev/null
    diff "$tmp/$name.qemu" "$tmp/$name" >"$tmp/diff" || {
        echo "$name: differs from QEMU:"
        cat "$tmp/diff"
        bad=1
    }
done
exit $bad
