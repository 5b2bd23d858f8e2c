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
calibrated
guest_date=$(date -u -d "$(sed -n 's/^pollux: date //p' "$tmp/console" | tr -d '\r')" +%s) || fail "no date"
after=$(date +%s)
# A host slower than the guest's time makes a guest that is behind: never ahead.
[ "$guest_date" -ge "$before" ] && [ "$guest_date" -le $((after + 1)) ] ||
    fail "the guest's date is $guest_date, the host's $before to $after"
echo "tsc $mhz MHz ${refined:+(refined $refined)}, date between $before and $after"
