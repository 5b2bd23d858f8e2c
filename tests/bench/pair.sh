#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What protection costs a busy redis. Protected: primary on node 1, backup on node 2. Control: the
# same VM unprotected on node 1, while an unconnected copy on node 2 runs the same load. Primary and
# control run on one core of the host, backup and copy on another; the two are taken in turns.
# Also what an idle pair costs.
. "$(dirname "$0")/lib.sh"
. tests/net/lab.sh
LAB_PREFIX=plxbench
LAB_REPLICA_CONF="peer_lost_ms = 1000"
command -v redis-benchmark >/dev/null || die "no redis-benchmark"
lab_up >&2
trap 'lab_down; bench_cleanup' EXIT
requests=${REQUESTS:-6000}

lab_ns c ip addr add 10.0.2.100/24 dev gu0
lab_ns 2 ip link add br1 type bridge # the copy's world: its guest and its client, nobody else
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
define control no br0
define copy no br1

replica() { for p in $(ip netns pids "$LAB_PREFIX-$1"); do grep -q pollux-replica "/proc/$p/comm" && echo "$p"; done; }
pin() { # NODE CORE
    [ "$(nproc)" -gt 1 ] && taskset -acp "$2" "$(replica "$1")" >/dev/null
}
answers() { lab_ns "$1" timeout 2 redis-cli -h 10.0.2.15 ping; }
none() { [ -z "$(replica 1)$(replica 2)" ]; }
end() {
    local v
    for v in "$@"; do lab_cli 3 destroy "$v" >/dev/null; done
    lab_wait 10 none || die "replicas are still there"
}

# load NODE CLIENTS REQUESTS: the CSV lines of SET and GET
load() { lab_ns "$1" timeout 120 redis-benchmark -h 10.0.2.15 -t set,get -c "$2" -n "$3" --csv 2>/dev/null | grep -E '"(SET|GET)"' | tr -d '"'; }

# measure KEY: appends to the arrays of KEY: throughput with 10 clients, median latency with one
declare -A got
measure() {
    local line name rps p50
    load c 10 500 >/dev/null
    while IFS=, read -r name rps _ _ _ _ _ _; do
        got[$1.rps.$name]+=" $rps"
    done < <(load c 10 "$requests")
    while IFS=, read -r name _ _ _ p50 _ _ _; do
        got[$1.lat.$name]+=" $p50"
    done < <(load c 1 $((requests / 4)))
    note "$1: SET ${got[$1.rps.SET]} /s ${got[$1.lat.SET]} ms, GET ${got[$1.rps.GET]} /s ${got[$1.lat.GET]} ms"
}

for ((i = 0; i < repeat; i++)); do
    lab_cli 1 start pair --primary n1 --backup n2 >&2 || die "the pair does not start"
    lab_wait 10 answers c || die "no answer from the pair"
    pin 1 0
    pin 2 1
    sleep 3
    p1=$(replica 1) p2=$(replica 2)
    a=$(cpu_ms "$p1") b=$(cpu_ms "$p2") d=$(cpu_ms "${LAB_PID[1]}")
    sleep 10
    idle_p+=("$(calc "print ($(cpu_ms "$p1") - $a) / 100")")
    idle_b+=("$(calc "print ($(cpu_ms "$p2") - $b) / 100")")
    idle_d+=("$(calc "print ($(cpu_ms "${LAB_PID[1]}") - $d) / 100")")
    note "idle pair: ${idle_p[i]} % ${idle_b[i]} % daemon ${idle_d[i]} %"
    measure pair
    lab_cli 3 info pair --json | tr -d ' \n' | grep -q '"protection":"protected"' || die "the pair was lost: $(lab_cli 3 info pair)"
    end pair

    lab_cli 1 start control --primary n1 >&2 || die "the control does not start"
    lab_cli 1 start copy --primary n2 >&2 || die "the copy does not start"
    lab_wait 10 answers c || die "no answer from the control"
    lab_wait 10 answers 2 || die "no answer from the copy"
    pin 1 0
    pin 2 1
    while :; do load 2 10 1000 >/dev/null; done &
    copy_load=$!
    bench_pids+=($copy_load)
    measure control
    kill $copy_load
    wait $copy_load 2>/dev/null
    end control copy
done

ratio() { # WHAT KEY UNIT GOOD: GOOD is 1 if more is better, -1 if less is
    local p c
    p=$(median ${got[pair.$2]}) c=$(median ${got[control.$2]})
    emit "$1" "$p $3" "within 10 %" "$(met "$4 > 0 ? $p >= 0.9 * $c : $p <= 1.1 * $c")" \
        "$(calc "printf \"control %s %s, ratio %.2f\", \"$c\", \"$3\", $p / $c")"
}
ratio "redis SET, pair, 10 clients" rps.SET "/s" 1
ratio "redis GET, pair, 10 clients" rps.GET "/s" 1
ratio "redis SET, pair, latency of one client" lat.SET ms -1
ratio "redis GET, pair, latency of one client" lat.GET ms -1
emit "idle pair, primary" "$(median "${idle_p[@]}") % of a core" "" "" "backup $(median "${idle_b[@]}") %, daemon $(median "${idle_d[@]}") %"
