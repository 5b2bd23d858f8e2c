#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a replica, or a whole host, that was stopped for 3 s and goes on where it was: a frame of
# the VM from a node that has applied the new epoch, or one that the survivor never had.
LAB_PREFIX=plxstp
POLLUX_LOG=debug # which says when a record is applied
. "$(dirname "$0")/drill.sh"
drill_up
ns() { # TIME: of a line of a log
    [ -n "$1" ] && date -u -d "$1" +%s%N
}
# When its daemon applied the takeover: a frame later than that, and the node did what is forbidden.
applied() { # NODE
    ns "$(grep 'applied takeover in epoch' "$LAB/$1/polluxd.log" | tail -n 1 | cut -d' ' -f1)"
}
taps_down() { # NODE: when its daemon took the TAP off the bridge for the last time (ns)
    ns "$(grep 'TAPs down' "$LAB/$1/polluxd.log" | tail -n 1 | cut -d' ' -f1)"
}
# Sets $applied. The fence is looked for after it and within a second of it.
fenced_in_time() { # NODE SINCE
    local fenced
    applied=$(applied "$1")
    [ -n "$applied" ] && [ "$applied" -gt "$2" ] || fail "node $1 does not say that it applied the takeover"
    fenced=$(taps_down "$1")
    [ -n "$fenced" ] && [ "$fenced" -ge "$applied" ] || fail "the old primary's TAP was not taken down"
    [ $((fenced - applied)) -le 1000000000 ] ||
        fail "the TAP was taken down $(((fenced - applied) / 1000000)) ms after the new epoch was applied"
    echo "$drill: fenced $(((fenced - applied) / 1000)) us after the new epoch was applied"
}
held() {
    local out
    out=$("$BUILD/tests/tools/capture" held $DRILL_MAC "$1" "$LAB/g$2.pcap" "$LAB/g$3.pcap") || fail "$out"
    echo "$drill: $out"
}

drill_start "primary stopped for 3 s"
p=$(lab_replica $A)
drill_fault
kill -STOP "$p"
t0=$(now)
drill_goes_on
drill_event takeover
drill_unprotected $B
while [ $(($(now) - t0)) -lt 3000000000 ]; do sleep 0.1; done
kill -CONT "$p" 2>/dev/null
lab_wait 5 drill_gone $A || fail "the old primary did not end"
fenced_in_time $A "$t0"
drill_silent "$applied" 0 $A
held "$t0" $A $B
drill_end

# Both processes of the node stand still, as if its host did. The replica comes back first: no daemon
# can tell it anything, and its TAP is still up.
drill_start "the primary's host stopped for 3 s"
p=$(lab_replica $A)
drill_fault
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
fenced_in_time $A "$t1"
drill_silent "$applied" 0 $A
held "$t1" $A $B
drill_goes_on
drill_end

drill_start "backup stopped for 3 s"
p=$(lab_replica $B)
drill_fault
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
