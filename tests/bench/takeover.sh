#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takeover: everything that runs on the primary's node is killed while a client writes to redis over
# one connection; from the kill to the first reply. REPEAT (20) times, median and worst.
REPEAT=${REPEAT:-20}
. "$(dirname "$0")/lib.sh"
. tests/net/lab.sh
LAB_PREFIX=plxbench
lab_up >&2
trap 'lab_down; bench_cleanup' EXIT

lab_ns c ip addr add 10.0.2.100/24 dev gu0
for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || die "node $n does not join"; done
cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>
<devices><interface type='bridge'><source bridge='br0'/><mac address='52:54:00:70:78:01'/></interface></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect>
<p:state>$PWD/$guest/redis.state</p:state></p:vm></metadata></domain>
X
lab_cli 1 define "$LAB/vm.xml" >/dev/null || die define
answers() { lab_ns c timeout 2 redis-cli -h 10.0.2.15 ping; }
protected() { lab_cli 3 info vm --json | tr -d ' \n' | grep -q '"protection":"protected"'; }
failed=0

for ((i = 0; i < repeat; i++)); do
    lab_cli 3 start vm --primary n1 --backup n2 >&2 || die "the VM does not start"
    lab_wait 10 answers || die "redis does not answer"
    lab_wait 5 protected || die "not protected"
    lab_ns c timeout 30 "$BUILD/tests/tools/seqwriter" write 10.0.2.15:6379 "$tmp/seq$i" 5 >&2 &
    writer=$!
    sleep "$(calc "print 1.5 + $RANDOM / 65536")"
    killed=$(date +%s%N)
    kill -KILL $(ip netns pids "$LAB_PREFIX-1")
    if wait $writer && at=$(awk -v k="$killed" '
            # times in ms after the kill, so that they fit a double
            { t = substr($3, 1, 10) * 1000 - substr(k, 1, 10) * 1000 + (substr($3, 11) - substr(k, 11)) / 1e6
              if (NR > 1 && t - last > longest) { longest = t - last; first = t }
              last = t }
            END { printf "%.0f", first }' "$tmp/seq$i"); then
        times+=("$at")
        note "takeover $i: first reply after $at ms"
    else
        failed=$((failed + 1))
        note "takeover $i: the connection was lost"
    fi
    wait "${LAB_PID[1]}" 2>/dev/null
    lab_cli 3 destroy vm >/dev/null
    lab_start 1
    lab_wait 10 lab_cli 1 list || die "node 1 does not come back"
    sleep 1
done
[ ${#times[@]} -gt 0 ] || die "no takeover succeeded"
m=$(median "${times[@]}") w=$(worst "${times[@]}")
emit "takeover, kill of the node to first reply" "$m ms" "< 500 ms" "$(met "$m < 500 && $failed == 0")" \
    "worst of ${#times[@]}: $w ms$([ $failed = 0 ] || echo ", $failed lost the connection")"
