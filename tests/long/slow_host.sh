#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a host slowed 20 times (the VM's process is stopped for 95 of every 100 ms) the guest still
# boots with the TSC as its clock, a clean dmesg and nothing to notice.
set -u
. "$(dirname "$0")/../guests/lib.sh"

"$pollux" run --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
    --append "console=ttyS0 panic=-1 pollux.test=clock" --console "$tmp/console" --timeout 1500 \
    2>"$tmp/err" </dev/null &
vm=$!
pids+=($vm)
while kill -STOP $vm 2>/dev/null; do
    sleep 0.095
    kill -CONT $vm 2>/dev/null || break
    sleep 0.005
done
wait $vm
rc=$?
[ $rc -eq 0 ] || fail "exit code $rc"
passed clock
grep '^pollux: clocksource' "$tmp/console"
