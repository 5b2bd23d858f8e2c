#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a replica that goes on without a majority; a pair that does not find together again, or not
# under a new epoch, when the witness is lost together with the pair's link.
LAB_PREFIX=plxwit
. "$(dirname "$0")/drill.sh"
drill_up

drill_start "witness lost together with the pair's link"
drill_fault
drill_links $W down
drill_cut $A $B
sleep 0.5
t0=$(now)
drill_stands_still 1.5
t1=$(now)
drill_silent "$t0" "$t1" $A $B
AT=$A
drill_heal
drill_goes_on
drill_event resumed
drill_expect protection protected
drill_expect primary "n$A"
drill_expect backup "n$B"
[ "$(drill_epoch)" -gt "$E" ] || fail "resumed in the old epoch"
digests() { drill_info | grep -o '"digests_compared":[0-9]*' | tail -n 1 | cut -d: -f2; }
more() { [ "$(digests)" -gt "$1" ]; }
lab_wait 5 more "$(digests)" || fail "digests are not compared after the pair resumed"
drill_end
