#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a replica, or a whole host, that was stopped for 3 s and goes on where it was: a frame of
# the VM from a node that has applied the new epoch, or one that the survivor never had.
LAB_PREFIX=plxstp
. "$(dirname "$0")/drill.sh"
drill_up
taps_down() { # NODE: when its daemon took the TAP off the bridge for the last time (ns)
    local t
    t=$(grep 'TAPs down' "$LAB/$1/polluxd.log" | tail -n 1 | cut -d' ' -f1)
    [ -n "$t" ] && date -u -d "$t" +%s%N
}
held() {
    local out
    out=$("$BUILD/tests/tools/capture" held $DRILL_MAC "$1" "$LAB/g$2.pcap" "$LAB/g$3.pcap") || fail "$out"
    echo "$drill: $out"
}

drill_start "primary stopped for 3 s"
p=$(drill_replica $A)
kill -STOP "$p"
t0=$(now)
drill_goes_on
drill_event takeover
drill_unprotected $B
fenced=$(taps_down $A)
[ -n "$fenced" ] && [ "$fenced" -gt "$t0" ] || fail "the old primary's TAP was not taken down"
while [ $(($(now) - t0)) -lt 3000000000 ]; do sleep 0.1; done
kill -CONT "$p" 2>/dev/null
lab_wait 5 drill_gone $A || fail "the old primary did not end"
drill_silent "$fenced" 0 $A
held "$t0" $A $B
drill_end

# Both processes of the node stand still, as if its host did. The replica comes back first: no daemon
# can tell it anything, and its TAP is still up.
drill_start "the primary's host stopped for 3 s"
p=$(drill_replica $A)
kill -STOP "${LAB_PID[$A]}" "$p"
t0=$(now)
drill_goes_on
drill_event takeover
drill_unprotected $B
while [ $(($(now) - t0)) -lt 3000000000 ]; do sleep 0.1; done
t1=$(now)
kill -CONT "$p"
sleep 0.5
kill -CONT "${LAB_PID[$A]}"
lab_wait 5 drill_gone $A || fail "the old primary did not end"
fenced=$(taps_down $A)
[ -n "$fenced" ] && [ "$fenced" -gt "$t1" ] || fail "the old primary's TAP was not taken down"
drill_silent "$fenced" 0 $A
held "$t1" $A $B
drill_goes_on
drill_end

drill_start "backup stopped for 3 s"
p=$(drill_replica $B)
kill -STOP "$p"
t0=$(now)
drill_goes_on
drill_event alone
drill_unprotected $A
while [ $(($(now) - t0)) -lt 3000000000 ]; do sleep 0.1; done
kill -CONT "$p" 2>/dev/null
lab_wait 5 drill_gone $B || fail "the old backup did not end"
drill_goes_on
drill_silent "$t0" 0 $B
drill_end
