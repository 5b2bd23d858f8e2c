#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a daemon whose death ends protection or costs a role; a replica without a daemon that takes
# over or goes on alone all the same; a daemon that comes back and does not find its replica.
LAB_PREFIX=plxdmn
. "$(dirname "$0")/drill.sh"
drill_up
compared() { drill_info | grep -o "\"$1_stats\":{[^}]*" | grep -o '"digests_compared":[0-9]*' | cut -d: -f2; }
compared_more() { [ "$(compared backup)" -gt "$1" ]; }
adopted() { [ "$(grep -c "adopted replica" "$LAB/$1/polluxd.log")" -gt "$2" ]; }
restart() { # NODE: and it adopts
    local n
    n=$(grep -c "adopted replica" "$LAB/$1/polluxd.log")
    lab_start "$1"
    lab_wait 10 adopted "$1" "$n" || fail "the daemon of node $1 did not adopt its replica"
}

drill_start "the primary's daemon killed"
drill_fault
lab_kill $A
digests=$(compared backup)
drill_goes_on
lab_wait 10 compared_more "$digests" || fail "digests are not compared without the daemon"
drill_is primary "n$A" && drill_is epoch "$E" && drill_is protection protected ||
    fail "roles changed: $(drill_field primary) $(drill_field epoch) $(drill_field protection)"
restart $A
drill_goes_on
drill_is epoch "$E" && drill_is protection protected || fail "adoption cost the protection"
drill_end

drill_start "without a daemon the backup does not take over"
drill_fault
lab_kill $B
kill -KILL "$(lab_replica $A)"
t0=$(now)
drill_stands_still 1.5
drill_is epoch "$E" || fail "the epoch moved to $(drill_field epoch)"
t1=$(now)
drill_silent "$t0" "$t1" $B
restart $B
drill_goes_on
drill_event takeover
drill_unprotected $B
drill_end

drill_start "without a daemon the primary does not go on alone"
drill_fault
lab_kill $A
kill -KILL "$(lab_replica $B)"
drill_stands_still 1.5
restart $A
drill_goes_on
drill_event alone
drill_unprotected $A
drill_end
