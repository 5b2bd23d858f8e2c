#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a replica that goes on without a majority; a pair that does not find together again, or not
# under a new epoch; a request whose reply is lost and that is carried out twice, or by the asker
# before it has read the record.
LAB_PREFIX=plxwit
LAB_ELECTION_MS=1000 # a follower that hears nothing for a moment is not the subject here
LAB_HEARTBEAT_MS=100
. "$(dirname "$0")/drill.sh"
drill_up

drill_start "the reply to the takeover lost"
drill_oneway $W $B
drill_oneway $A $B
kill -KILL "$(drill_replica $A)"
t0=$(now)
drill_expect epoch $((E + 1)) # applied: node W has it
drill_expect primary "n$B"
t1=$(now)
drill_stands_still 0.3
t2=$(now)
drill_silent "$t0" "$t2" $B # but B could not read it
drill_heal
drill_goes_on
drill_event takeover
drill_unprotected $B
echo "$drill: applied after $(((t1 - t0) / 1000000)) ms, read only after the link healed"
drill_end

drill_start "witness lost together with the pair's link"
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
