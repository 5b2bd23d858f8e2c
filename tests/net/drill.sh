# SPDX-License-Identifier: Apache-2.0
# A protected VM that runs redis, a client that writes to it, and what a drill asks of them. Not a
# test: sourced by death_*.sh, which set LAB_PREFIX to a prefix of their own.
#
# The VM 'vm' starts from the state "redis ready" with $A as primary and $B as backup; $W, the node
# that leads the Raft group then, is the witness. One line of the client's log is one acknowledged
# write; at the end each is read back. Every frame that enters the switch from a node is captured.
#
#   drill_up              the cluster            drill_start         the VM, the client, the captures
#   drill_end             the client ends well, nothing is lost, frames never interleave and came from
#                         the first primary and from the last; stops the VM
#   drill_fault           what comes next is the fault: $E is the epoch it meets
#   drill_event KIND      an event of the VM     drill_is FIELD VALUE   a field of pollux info --json
#   drill_goes_on [S]     the client's writes are acknowledged (again)
#   drill_silent FROM TO NODE...      no frame of the VM from these nodes between two times
#   drill_cut N M / drill_heal        packets between the cluster links of two nodes are dropped
#   drill_oneway N M      those from N to M only

. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
cd "$lab_dirs" || exit 1

DRILL_STATE=${DRILL_STATE:-build/guest/redis.state}
DRILL_MAC=52:54:00:70:78:01 # of the machine in that state
DRILL_ADDR=10.0.2.15:6379
DRILL_PIDS=()
DRILL_KIB=${DRILL_KIB:-2048} # of a capture, for frames that it has yet to write: it may wait for a processor
# Roles are written durably before they count: on a disk that others keep busy that can take seconds.
[ -w /dev/shm ] && LAB_TMP=${LAB_TMP:-/dev/shm}

fail() {
    local n
    echo "FAIL: ${drill:-}: $*"
    date +%T.%N
    for n in 1 2 3; do
        echo "--- node $n"
        tail -n 12 "$LAB/$n/polluxd.log"
        tail -qn 6 "$LAB/$n"/run/*/log 2>/dev/null
    done
    [ -s "$LAB/writer" ] && tail -n 3 "$LAB/writer" "$LAB/seq"
    exit 1
}

now() { date +%s%N; }

drill_up() {
    local n
    [ -s "$DRILL_STATE" ] || { echo "$DRILL_STATE is missing: make guest"; exit 77; }
    for n in tcpdump nft; do
        command -v $n >/dev/null || { echo "$n is missing: make deps"; exit 77; }
    done
    lab_up
    lab_ns c ip addr add 10.0.2.100/24 dev gu0
    lab_ns sw nft -f - <<X || { echo "nftables cannot filter a bridge here"; exit 77; }
table bridge drill {
    chain cut { type filter hook forward priority 0; policy accept; }
}
X
    for n in 1 2 3; do lab_start $n; done
    for n in 1 2 3; do lab_wait 15 lab_cli $n list || fail "node $n does not join"; done
    cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>
<devices><interface type='bridge'><source bridge='br0'/><mac address='$DRILL_MAC'/></interface></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect>
<p:state>$PWD/$DRILL_STATE</p:state></p:vm></metadata></domain>
X
    lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail "define"
}

drill_info() { AT=${AT:-$W} lab_info; }
drill_field() { AT=${AT:-$W} lab_field "$1"; }
drill_is() { [ "$(drill_field "$1")" = "$2" ]; }
drill_expect() { # FIELD VALUE: at the latest after some seconds
    lab_wait 6 drill_is "$1" "$2" || fail "$1 is '$(drill_field "$1")', not '$2'"
}
drill_has_event() { lab_cli "${AT:-$W}" info vm | grep -q " vm $1: "; }
drill_event() { lab_wait 5 drill_has_event "$1" || fail "there is no event '$1'"; }
drill_epoch() { drill_field epoch; }

drill_gone() { [ -z "$(lab_replica "$1")" ]; }

drill_acked() { wc -l <"$LAB/seq"; }
drill_more() { [ "$(drill_acked)" -ge "$1" ]; }
drill_goes_on() { # SECONDS
    lab_wait "${1:-8}" drill_more $(($(drill_acked) + 20)) || fail "the client's writes are not acknowledged"
}
drill_stands_still() { # SECONDS: no write is acknowledged; the first reply may just have come
    local n
    sleep 0.3
    n=$(drill_acked)
    sleep "$1"
    [ "$(drill_acked)" = "$n" ] || fail "writes were acknowledged where they must not be"
}

# The name of the drill. The leader is the witness, so that no drill waits for an election.
drill_nodes_up() { [ "$(lab_cli 1 info | grep -c ' up  ')" = 3 ]; }
drill_start() {
    local n
    drill=$1
    lab_wait 10 drill_nodes_up || fail "not all nodes are up"
    lab_wait 5 lab_leader 1
    W=$(lab_leader 1)
    [ -n "$W" ] || fail "nobody leads"
    A=$((W % 3 + 1)) B=$((A % 3 + 1))
    lab_cli 1 start vm --primary n$A --backup n$B >/dev/null || fail "start"
    drill_expect protection protected
    DRILL_PIDS=()
    for n in 1 2 3; do
        ip netns exec "$LAB_PREFIX-sw" tcpdump -i g$n -Q in --immediate-mode -U -s 2048 -B $DRILL_KIB \
            --time-stamp-precision=nano -w "$LAB/g$n.pcap" ether src $DRILL_MAC 2>"$LAB/g$n.tcpdump" &
        DRILL_PIDS+=($!)
    done
    for n in 1 2 3; do
        lab_wait 5 grep -q listening "$LAB/g$n.tcpdump" || fail "tcpdump does not start"
    done
    : >"$LAB/seq"
    ip netns exec "$LAB_PREFIX-c" "$BUILD/tests/tools/seqwriter" write $DRILL_ADDR "$LAB/seq" 60 \
        >"$LAB/writer" 2>&1 &
    DRILL_WRITER=$!
    drill_goes_on 10
    echo "$drill: n$A primary, n$B backup, n$W witness"
}

# A pair that lost touch for a moment, as under load, has resumed in a new epoch since it started.
drill_fault() {
    drill_expect protection protected
    E=$(drill_epoch)
    echo "$drill: epoch $E"
}

drill_pcaps() { for n in "$@"; do echo "$LAB/g$n.pcap"; done; }
drill_silent() { # FROM TO NODE...: times of now(), 0 for the end
    local from=$1 to=$2 out
    shift 2
    # shellcheck disable=SC2046
    out=$("$BUILD/tests/tools/capture" silent $DRILL_MAC "$from" "$to" $(drill_pcaps "$@")) ||
        fail "the VM is not silent: $out"
}

drill_unprotected() { # NODE: alone there, in the next epoch; and it cannot be protected again
    local out
    drill_expect primary "n$1"
    drill_expect backup -
    drill_expect epoch $((E + 1))
    drill_expect protection unprotected
    out=$(lab_cli "${AT:-$W}" protect vm 2>&1) && fail "the running VM was protected again"
    [[ $out == *"a running VM cannot be given a backup yet"* ]] || fail "protect said: $out"
}

# Ends the captures, which must have seen all there was: nothing dropped, and frames from each node
# that was the primary. Else what they did not see would pass as what was not sent.
drill_captures_end() { # NODE...: these were
    local n out
    sleep 0.2 # what came last is still to be read
    for n in "${DRILL_PIDS[@]}"; do kill -TERM "$n"; wait "$n"; done
    DRILL_PIDS=()
    for n in 1 2 3; do
        grep -q '^0 packets dropped by kernel' "$LAB/g$n.tcpdump" ||
            fail "the capture of node $n is not whole: $(grep dropped "$LAB/g$n.tcpdump")"
    done
    for n in "$@"; do
        out=$("$BUILD/tests/tools/capture" some $DRILL_MAC 0 0 "$LAB/g$n.pcap") ||
            fail "nothing was captured from node $n, where the VM ran: $(tail -n 3 "$LAB/g$n.tcpdump" | paste -sd ' ')"
    done
    # shellcheck disable=SC2046
    order=$("$BUILD/tests/tools/capture" order $DRILL_MAC $(drill_pcaps 1 2 3)) || fail "$order"
}

drill_end() {
    local out p
    kill -TERM $DRILL_WRITER
    wait $DRILL_WRITER || fail "the client: $(tail -n 1 "$LAB/writer")"
    out=$(lab_ns c "$BUILD/tests/tools/seqwriter" verify $DRILL_ADDR "$LAB/seq" | tail -n 1) || fail "$out"
    drill_captures_end $A "$(drill_field primary | tr -d n)"
    echo "$drill: $out; $order; $("$BUILD/tests/tools/seqwriter" gap "$LAB/seq" | cut -d' ' -f1-2)"
    lab_cli "${AT:-$W}" destroy vm >/dev/null || fail "destroy"
    for p in 1 2 3; do lab_wait 6 drill_gone $p || fail "a replica on node $p does not end"; done
}

drill_cut() { drill_oneway "$1" "$2"; drill_oneway "$2" "$1"; }
drill_oneway() { lab_ns sw nft add rule bridge drill cut iifname "c$1" oifname "c$2" drop; }
drill_heal() { lab_ns sw nft flush chain bridge drill cut; }
drill_links() { # N up|down: every cable of a node
    lab_ns sw ip link set "c$1" "$2"
    lab_ns sw ip link set "g$1" "$2"
}
