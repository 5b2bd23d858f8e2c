#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: two primaries, a frame of the one that lost, or nobody at all, when the primary's node is
# cut off, when only the pair's link is cut, and when the backup is restarted empty during the cut.
LAB_PREFIX=plxcut
. "$(dirname "$0")/drill.sh"
drill_up

drill_start "the primary's node cut off"
drill_fault
drill_links $A down
t0=$(now)
drill_goes_on
drill_event takeover
drill_unprotected $B
drill_links $A up
lab_wait 6 drill_gone $A || fail "the old primary did not end"
drill_goes_on
drill_silent "$t0" 0 $A
drill_end

drill_start "the pair's link cut"
drill_fault
drill_cut $A $B
drill_goes_on
drill_is epoch $((E + 1)) || fail "epoch $(drill_field epoch)"
winner=$(drill_field primary | tr -d n)
drill_unprotected "$winner"
t1=$(now)
drill_goes_on
drill_heal
loser=$((A + B - winner))
lab_wait 6 drill_gone $loser || fail "the one that lost did not end"
drill_silent "$t1" 0 $loser
drill_end

# The primary cannot reach anybody, and the backup that the record calls in sync is gone: what comes
# up on its node knows nothing. Nobody may go on before the primary is back.
drill_start "the backup restarted empty during the cut"
empty=$(lab_replica $B)
drill_fault
kill -STOP "$empty" "${LAB_PID[$B]}" # or it takes over, rightly, between the cut and its death
drill_links $A down
kill -KILL "$empty" "${LAB_PID[$B]}"
lab_kill $B
rm -rf "$LAB/$B/run"
t0=$(now)
lab_start $B
lab_wait 10 lab_cli $B list || fail "node $B does not come back"
drill_stands_still 1.5
drill_is primary "n$A" || fail "the empty node took over"
t1=$(now)
drill_silent "$t0" "$t1" $A $B
drill_links $A up
drill_goes_on 10
drill_event alone
drill_unprotected $A
drill_end
