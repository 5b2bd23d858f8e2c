#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest keeps the TSC as its clock, calibrated within 500 ppm of virtual time (1000 MHz), and
# its date is the host's.
set -u
. "$(dirname "$0")/lib.sh"

before=$(date +%s)
boot "pollux.test=clock"
[ $rc -eq 0 ] || fail "exit code $rc"
passed clock
grep '^pollux: clocksource' "$tmp/console"
mhz=$(sed -n 's/.*tsc: Detected \([0-9.]*\) MHz processor.*/\1/p' "$tmp/console" | head -n 1)
refined=$(sed -n 's/.*tsc: Refined TSC clocksource calibration: \([0-9.]*\) MHz.*/\1/p' "$tmp/console" | head -n 1)
for f in "$mhz" ${refined:+"$refined"}; do
    awk -v f="$f" 'BEGIN { d = f - 1000; exit !(d < 0.5 && d > -0.5) }' || fail "calibrated to $f MHz"
done
guest_date=$(date -u -d "$(sed -n 's/^pollux: date //p' "$tmp/console" | tr -d '\r')" +%s) || fail "no date"
after=$(date +%s)
# A host slower than the guest's time makes a guest that is behind: never ahead.
[ "$guest_date" -ge "$before" ] && [ "$guest_date" -le $((after + 1)) ] ||
    fail "the guest's date is $guest_date, the host's $before to $after"
echo "tsc $mhz MHz ${refined:+(refined $refined)}, date between $before and $after"
