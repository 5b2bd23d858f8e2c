#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a host slowed 20 times (the VM's process is stopped for 95 of every 100 ms) the guest still
# boots with the TSC as its clock, calibrated within 500 ppm, a clean dmesg and nothing to notice;
# and a program that measures the TSC by the PM timer finds them alike. (It may oversleep.)
set -u
. "$(dirname "$0")/../guests/lib.sh"

# slowed OPTION...: pollux run, slowed; sets rc.
slowed() {
    "$pollux" run "$@" --console "$tmp/console" --timeout 1500 2>"$tmp/err" </dev/null &
    local vm=$!
    pids+=($vm)
    while kill -STOP $vm 2>/dev/null; do
        sleep 0.095
        kill -CONT $vm 2>/dev/null || break
        sleep 0.005
    done
    wait $vm
    rc=$?
}

slowed --kernel build/tests/guest/timers.elf --memory 64
for line in "a second of TSC is one of PM timer" "and while nothing sleeps"; do
    grep "^ok $line" "$tmp/console" || fail "timers: not '$line'"
done
slowed --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
    --append "console=ttyS0 panic=-1 pollux.test=clock"
[ $rc -eq 0 ] || fail "exit code $rc"
passed clock
calibrated
grep '^pollux: clocksource' "$tmp/console"
echo "tsc $mhz MHz ${refined:+(refined $refined)}"
