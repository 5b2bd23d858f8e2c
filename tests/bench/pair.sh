#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What protection costs a busy redis. Protected: primary on node 1, backup on node 2. Control: the
# same VM unprotected on node 1, while an unconnected copy on node 2 runs the same load. Primary and
# control run on one core of the host, backup and copy on another. All of them stand all the time,
# and the two are loaded in short turns (TURNS), so that what else the host does meets both alike.
# Also what an idle pair costs, what processor time a request takes (looking for the next one
# included), and what this host takes for a bare message and its answer between the two nodes: no
# output can leave earlier than that after its record was shipped. The floor that latencies are
# compared with is the control's and one such round trip of two processes that look for it.
. "$(dirname "$0")/lib.sh"
. tests/net/lab.sh
LAB_PREFIX=plxbench
LAB_REPLICA_CONF="peer_lost_ms = 1000"
command -v redis-benchmark >/dev/null || die "no redis-benchmark"
lab_up >&2
trap 'lab_down; bench_cleanup' EXIT
turns=${TURNS:-$((4 * repeat))}
requests=${REQUESTS:-2000} # of ten clients, in one turn; one client sends a quarter

lab_ns c ip addr add 10.0.2.100/24 dev gu0
# The control's world: like the pair's, one bridge at the node, one at the switch; its client stands
# at node 3.
lab_ns sw ip link add brx type bridge
lab_ns sw ip link set brx up
ip -n "$LAB_PREFIX-sw" link add d1 type veth peer name dd0 netns "$LAB_PREFIX-1"
ip -n "$LAB_PREFIX-sw" link add d3 type veth peer name dd0 netns "$LAB_PREFIX-3"
lab_ns sw ip link set d1 master brx up
lab_ns sw ip link set d3 master brx up
lab_ns 1 ip link add br1 type bridge
lab_ns 1 ip link set dd0 master br1 up
lab_ns 1 ip link set br1 up
lab_ns 3 ip addr add 10.0.2.100/24 dev dd0
lab_ns 3 ip link set dd0 up
lab_ns 2 ip link add br1 type bridge # the copy's: its guest and its client, nobody else
lab_ns 2 ip addr add 10.0.2.100/24 dev br1
lab_ns 2 ip link set br1 up
for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || die "node $n does not join"; done

define() { # NAME PROTECT BRIDGE
    cat >"$LAB/$1.xml" <<X
<domain><name>$1</name><memory unit='MiB'>256</memory>
<devices><interface type='bridge'><source bridge='$3'/><mac address='52:54:00:70:78:01'/></interface></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>$2</p:protect>
<p:state>$PWD/$guest/redis.state</p:state></p:vm></metadata></domain>
X
    lab_cli 1 define "$LAB/$1.xml" >/dev/null || die "define $1"
}
define pair yes br0
define control no br1
define copy no br1

replica() { for p in $(ip netns pids "$LAB_PREFIX-$1"); do grep -q pollux-replica "/proc/$p/comm" && echo "$p"; done; }
pin() { # NODE CORE
    local p
    [ "$(nproc)" -gt 1 ] || return 0
    for p in $(replica "$1"); do taskset -acp "$2" "$p" >/dev/null; done
}
answers() { lab_ns "$1" timeout 2 redis-cli -h 10.0.2.15 ping; }

lab_ns 2 taskset -c $(($(nproc) > 1)) "$BUILD/tests/tools/roundtrip" serve 10.77.0.2 7399 >&2 &
bench_pids+=($!)
sleep 0.5
read -r trip sending looked look_sending < <(lab_ns 1 taskset -c 0 "$BUILD/tests/tools/roundtrip" 10.77.0.2 7399)
[ -n "$looked" ] || die "no bare round trip"

lab_cli 1 start pair --primary n1 --backup n2 >&2 || die "the pair does not start"
lab_wait 10 answers c || die "no answer from the pair"
p1=$(replica 1) p2=$(replica 2)
pin 1 0
pin 2 1
sleep 3
a=$(cpu_ms "$p1") b=$(cpu_ms "$p2") d=$(cpu_ms "${LAB_PID[1]}")
sleep 10
idle_p=$(calc "print ($(cpu_ms "$p1") - $a) / 100")
idle_b=$(calc "print ($(cpu_ms "$p2") - $b) / 100")
idle_d=$(calc "print ($(cpu_ms "${LAB_PID[1]}") - $d) / 100")
lab_cli 1 start control --primary n1 >&2 || die "the control does not start"
lab_cli 1 start copy --primary n2 >&2 || die "the copy does not start"
lab_wait 10 answers 3 || die "no answer from the control"
for pc in $(replica 1); do [ "$pc" = "$p1" ] || break; done
lab_wait 10 answers 2 || die "no answer from the copy"
pin 1 0
pin 2 1

# load NODE CLIENTS REQUESTS: the CSV lines of SET and GET
load() { lab_ns "$1" timeout 120 redis-benchmark -h 10.0.2.15 -t set,get -c "$2" -n "$3" --csv 2>/dev/null | grep -E '"(SET|GET)"' | tr -d '"'; }

# turn KEY NODE PID...: one turn of each load; appends to the arrays of KEY: throughput with 10
# clients, median latency with one, the processor time of each process per request of either. The
# copy has the control's load as long as the control has it.
declare -A got
turn() {
    local name rps p50 clients n p copy= before
    for clients in 10 1; do
        n=$((clients == 1 ? requests / 4 : requests))
        before=$(for p in "${@:3}"; do cpu_ms "$p"; done)
        if [ "$1" = control ]; then
            ip netns exec "$LAB_PREFIX-2" redis-benchmark -h 10.0.2.15 -t set,get -c $clients -n $n -l --csv >/dev/null 2>&1 &
            copy=$!
            bench_pids+=($copy)
        fi
        load "$2" $clients "$n" >"$tmp/lines"
        [ -z "$copy" ] || stop $copy
        p=$(paste <(echo "$before") <(for p in "${@:3}"; do cpu_ms "$p"; done) | awk -v n=$n '{ printf "%s%.0f", s, 500 * ($2 - $1) / n; s = "+" }')
        got[$1.cpu.$clients]+=" $p"
        while IFS=, read -r name rps _ _ p50 _ _ _; do
            if [ $clients = 1 ]; then got[$1.lat.$name]+=" $p50"; else got[$1.rps.$name]+=" $rps"; fi
        done <"$tmp/lines"
    done
}

for ((i = 0; i < turns; i++)); do
    turn pair c "$p1" "$p2"
    turn control 3 "$pc"
    [ -z "${TURN_HOOK:-}" ] || . "$TURN_HOOK"
done
lab_cli 3 info pair --json | tr -d ' \n' | grep -q '"protection":"protected"' || die "the pair was lost: $(lab_cli 3 info pair)"
for k in "${!got[@]}"; do note "$k:${got[$k]}"; done

ratio() { # WHAT KEY UNIT GOOD: GOOD is 1 if more is better, -1 if less is
    local p c r more=
    p=$(median ${got[pair.$2]}) c=$(median ${got[control.$2]})
    r=$(median $(paste -d' ' <(printf '%s\n' ${got[pair.$2]}) <(printf '%s\n' ${got[control.$2]}) | awk '{ print $1 / $2 }'))
    [ "$4" -gt 0 ] || more=$(calc "f = $c + $looked / 1000; printf \", floor %.3f ms, ratio to it %.2f\", f, $p / f")
    emit "$1" "$p $3" "within 10 %" "$(met "$4 > 0 ? $r >= 0.9 : $r <= 1.1")" \
        "$(calc "printf \"control %s %s, ratio %.2f\", \"$c\", \"$3\", $r")$more"
}
ratio "redis SET, pair, 10 clients" rps.SET "/s" 1
ratio "redis GET, pair, 10 clients" rps.GET "/s" 1
ratio "redis SET, pair, latency of one client" lat.SET ms -1
ratio "redis GET, pair, latency of one client" lat.GET ms -1
processor() { # CLIENTS: the middle one of what each turn took
    local p b c
    p=$(median $(printf '%s\n' ${got[pair.cpu.$1]} | cut -d+ -f1)) b=$(median $(printf '%s\n' ${got[pair.cpu.$1]} | cut -d+ -f2))
    c=$(median ${got[control.cpu.$1]})
    emit "pair, processor time of a request, clients: $1" "$p us" "" "" "backup $b us, control $c us"
}
processor 10
processor 1
emit "bare round trip between the nodes" "$looked us" "" "" "$look_sending us of it in send; $trip us if both sleep, $sending us in send, which wakes the other"
emit "idle pair, primary" "$idle_p % of a core" "" "" "backup $idle_b %, daemon $idle_d %"
