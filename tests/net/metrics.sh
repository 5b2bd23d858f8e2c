#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a metric that Prometheus refuses or promtool finds fault with, one that stands still, a role
# or an event that is not counted, a counter that `pollux info` does not show, or the instructions that
# the translator leaves to the interpreter.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
for n in promtool curl; do command -v $n >/dev/null || { echo "$n is missing: make deps"; exit 77; }; done
LAB_PREFIX=plxmet
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -n 8 "$LAB/$n/polluxd.log"; done; exit 1; }
metrics() { lab_ns "$1" curl -sf http://127.0.0.1:9100/metrics; }
# value NODE NAME [LABEL]: the metric of that name and label
value() { metrics "$1" | grep "^$2{" | grep -F "${3:-}" | sed 's/.* //' | head -n 1; }
above() { awk -v v="$(value "$1" "$2" "${4:-}")" -v least="$3" 'BEGIN { exit !(v != "" && v > least) }'; }

for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory><vcpu>2</vcpu>
<os><kernel>$PWD/build/guest/vmlinuz</kernel><initrd>$PWD/build/guest/initrd.img</initrd>
<cmdline>console=ttyS0 panic=-1</cmdline></os>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect></p:vm></metadata></domain>
X
lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail define
lab_cli 1 start vm --primary n1 --backup n2 >/dev/null || fail start
for name in rounds_alone rounds_parallel instructions_parallel stops_read stops_write stops_serial pages_to_one \
    pages_to_all shadow_fills shadow_shootdowns shadow_lack_data_read; do
    lab_wait 30 above 1 pollux_vm_${name}_total 0 'role="primary"' || fail "node 1: $name stands at 0"
done
lab_wait 20 above 2 pollux_vm_digests_compared_total 0 'role="backup"' || fail "no digest was compared"
lab_wait 20 above 2 pollux_vm_rounds_parallel_total 0 'role="backup"' || fail "the backup counts no rounds"
[ "$(value 3 pollux_vm_protected)" = 1 ] || fail "node 3 does not know of the protection"
[ "$(value 2 pollux_vm_digests_differing_total 'role="backup"')" = 0 ] || fail "digests differ"
metrics 1 | grep -q '^pollux_vm_lag_seconds{.*role="primary"} ' || fail "no lag"
for n in 1 2 3; do
    metrics $n | promtool check metrics >"$LAB/promtool" 2>&1 || fail "node $n: $(cat "$LAB/promtool")"
    [ -s "$LAB/promtool" ] && fail "node $n: $(cat "$LAB/promtool")"
done

# What is a metric is also in `pollux info`.
counted=$(sed -n 's/^COUNTER(\([a-z_]*\),.*/\1/p' ops/counters.def)
shadow=$(sed -n '/^#define SHADOW_COUNTERS/,/[^\\]$/s/^ *X(\([a-z_]*\),.*/shadow_\1/p' vmm/mmu/shadow.h)
[ "$(grep -c '^COUNTER(\|^SHADOW_COUNTERS(' ops/counters.def)" = $(($(wc -w <<<"$counted") + 1)) ] &&
    [ "$(tail -n 1 <<<"$shadow")" = shadow_undone ] || fail "the lists of counters are not read"
lab_cli 3 info vm --json | tr -d ' \n' >"$LAB/info"
metrics 1 >"$LAB/metrics"
for name in $counted $shadow; do
    grep -q "\"$name\":[0-9]" "$LAB/info" || fail "info --json has no $name"
    grep -q "^pollux_vm_${name}_total{" "$LAB/metrics" || fail "there is no metric $name"
done
lab_cli 3 info vm >"$LAB/info.text"
grep -q '^rounds .*[1-9][0-9]* parallel' "$LAB/info.text" || fail "info shows no rounds"
# The forms that are not translated, most often first.
grep -q '"jit_forms":"[a-z]*=[1-9]' "$LAB/info" || fail "info --json has no jit_forms"
grep -q '^interpreted .*not translated: [a-z]*=[1-9]' "$LAB/info.text" || fail "info shows no forms"

# The primary dies: the takeover is counted where it happened, its event everywhere, the role moves.
before=$(value 3 pollux_node_events_total)
kill -KILL "$(lab_replica 1)"
lab_wait 15 above 2 pollux_node_takeovers_total 0 || fail "node 2 counts no takeover"
lab_wait 5 above 3 pollux_node_events_total "$before" || fail "node 3 counts no event"
[ "$(for n in 1 2 3; do value $n pollux_node_takeovers_total; done | tr '\n' ' ')" = "0 1 0 " ] || fail "one takeover is not counted once"
lab_wait 15 above 2 pollux_vm_slices_total 0 'role="primary"' || fail "node 2 is no primary"
lab_wait 5 above 1 pollux_vm_unprotected 0 || fail "node 1 does not say that the VM is unprotected"
echo "$(metrics 1 | grep -c '^# TYPE') metrics on each node, promtool finds no fault"
