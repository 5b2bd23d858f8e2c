#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The drill: a protected VM runs redis on two of three nodes (network namespaces on this machine); a
# client outside keeps one TCP connection and writes an ever-growing sequence; the primary's node is
# killed; the same connection goes on, and every acknowledged write is read back at the end.
#
#   REPEAT=n      drills, each on a fresh cluster (1)
#   SECONDS_BEFORE, SECONDS_AFTER   of writing around the death (4, 4)
#   TAKEOVER=no   the backup may not take over: the drill must then fail
#
# Exit 0 only if nothing acknowledged was lost, the connection went on, the takeover left its event, and
# the digests compared until the death were equal and not none.
cd "$(dirname "$0")/../.." || exit 1
: "${REPEAT:=1}" "${SECONDS_BEFORE:=4}" "${SECONDS_AFTER:=4}" "${TAKEOVER:=yes}" "${BUILD:=build}"
LAB_PREFIX=${LAB_PREFIX:-plxdemo}
LAB_REPLICA_CONF="takeover = $TAKEOVER"
. tests/net/lab.sh

ip=10.0.2.15
writer=$BUILD/tests/tools/seqwriter
say() { printf '%s  %s\n' "$(date +%T.%3N)" "$*"; }
lost() { say "FAILED: $*"; exit 1; }
field() { lab_cli "$1" info demo --json | tr -d ' \n' | grep -o "\"$2\":[^,}]*" | head -n 1 | cut -d: -f2- | tr -d '"'; }
ms() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", (b - a) / 1e6 }'; }

start_cluster() {
    lab_up
    lab_ns c ip addr add 10.0.2.100/24 dev gu0
    for n in 1 2 3; do lab_start $n; done
    for n in 1 2 3; do lab_wait 10 lab_cli $n list || lost "node $n does not join"; done
    say "three nodes up: n1 and n2 will run the VM, n3 is the witness"
}

start_vm() {
    cat >"$LAB/vm.xml" <<X
<domain><name>demo</name><memory unit='MiB'>256</memory>
<devices><interface type='bridge'><source bridge='br0'/><mac address='52:54:00:70:78:01'/></interface></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect>
<p:state>$PWD/build/guest/redis.state</p:state></p:vm></metadata></domain>
X
    lab_cli 1 define "$LAB/vm.xml" >/dev/null || lost "define"
    lab_cli 1 start demo --primary n1 --backup n2 || lost "start"
    lab_wait 15 lab_ns c timeout 2 redis-cli -h $ip ping || lost "redis does not answer"
    say "redis answers at $ip; protection: $(field 3 protection), epoch $(field 3 epoch)"
}

kill_node() { # N: everything on it dies, its links go down
    local p
    lab_ns sw ip link set "c$1" down
    lab_ns sw ip link set "g$1" down
    for p in $(ip netns pids "$LAB_PREFIX-$1"); do kill -KILL "$p" 2>/dev/null; done
    wait "${LAB_PID[$1]}" 2>/dev/null
}

judge() { # COMPARED DIFFERING: the digests of the pair while it was one
    [[ $1 =~ ^[0-9]+$ && $2 =~ ^[0-9]+$ ]] || lost "the backup did not say how many digests it compared"
    [ "$1" -gt 0 ] || lost "no digest was compared"
    [ "$2" -eq 0 ] || lost "$2 of $1 digests differ"
}

# takeover_time TEXT: sets won, the time of the event in what `pollux info` says
takeover_time() {
    won=$(grep -m1 ' demo takeover: ' <<<"$1" | cut -d' ' -f1)
    [ -n "$won" ] && won=$(date -d "$won" +%s%N 2>/dev/null) || lost "there is no takeover among the events"
}

report() { # KILLED_AT: the timeline of the log around the death
    local gap before after won info
    read -r _ gap _ before _ after < <("$writer" gap "$LAB/log")
    info=$(lab_cli 3 info demo)
    takeover_time "$info"
    echo
    echo "  last reply before   $(ms "$1" "$before") ms"
    echo "  node n1 killed        0.0 ms"
    echo "  takeover won       +$(ms "$1" "$won") ms"
    echo "  first reply after  +$(ms "$1" "$after") ms   (longest silence $gap ms)"
    echo
    echo "  $(grep '^primary' <<<"$info")"
    echo "  before the death, on n1: $before_stats"
}

drill() {
    local killed writer_pid compared differing
    start_cluster
    start_vm
    lab_ns c "$writer" write $ip:6379 "$LAB/log" $((SECONDS_BEFORE + SECONDS_AFTER)) >"$LAB/writer" 2>&1 &
    writer_pid=$!
    sleep "$SECONDS_BEFORE"
    say "client: $(head -n 1 "$LAB/writer"); $(wc -l <"$LAB/log") writes acknowledged so far"
    compared=$(field 2 digests_compared) differing=$(field 2 digests_differing)
    before_stats="log $(field 1 log_bytes) bytes in $(field 1 virtual_ns) virtual ns, mean commit delay $(field 1 commit_delay_ns) ns, digests $compared compared, $differing differ"
    killed=$(date +%s%N)
    kill_node 1
    say "node n1 killed"
    wait $writer_pid || lost "the client's connection: $(tail -n 2 "$LAB/writer")"
    say "client: same connection, $(tail -n 1 "$LAB/writer")"
    lab_ns c "$writer" verify $ip:6379 "$LAB/log" >"$LAB/verify" || lost "$(cat "$LAB/verify")"
    say "over a new connection: $(tail -n 1 "$LAB/verify")"
    [ "$(field 3 protection)" = unprotected ] || lost "protection: $(field 3 protection)"
    judge "$compared" "$differing"
    report "$killed"
    lab_down
    trap - EXIT
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0 # a test reads the judging
for i in $(seq "$REPEAT"); do
    [ "$REPEAT" -gt 1 ] && say "drill $i of $REPEAT"
    drill
done
say "nothing acknowledged was lost"
