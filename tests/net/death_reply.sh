#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a takeover that is carried out twice, or by the asker before it has read the applied record,
# when the reply to its request is lost.
LAB_PREFIX=plxrep
LAB_ELECTION_MS=1000 # a follower that hears nothing for a moment is not the subject here
LAB_HEARTBEAT_MS=100
. "$(dirname "$0")/drill.sh"
drill_up

drill_start "the reply to the takeover lost"
drill_fault
drill_oneway $W $B
drill_oneway $A $B
kill -KILL "$(lab_replica $A)"
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
