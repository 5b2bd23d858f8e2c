#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a CPU model that gets lost between a definition, the daemons and the two replicas: the guest
# must see pollux-v3 and use it, also after a takeover; and a name that is none is refused.
LAB_PREFIX=plxcpu
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; tail -n 20 "$LAB/console"; for n in 1 2 3; do tail -n 8 "$LAB/$n/polluxd.log"; done; exit 1; }
definition() { # MODEL
    cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory><cpu mode='custom'><model>$1</model></cpu>
<os><kernel>$PWD/build/guest/vmlinuz</kernel><initrd>$PWD/build/guest/initrd.img</initrd>
<cmdline>console=ttyS0 panic=-1 quiet pollux.test=shell</cmdline></os>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect></p:vm></metadata></domain>
X
}

for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
definition pollux-v4
out=$(lab_cli 1 define "$LAB/vm.xml" 2>&1) && fail "defined with pollux-v4"
[[ $out == *"'pollux-v4'"*pollux-v2*pollux-v3* ]] || fail "said: $out"
out=$(lab_cli 2 info vm 2>&1) && fail "it is there all the same"

definition pollux-v3
lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail define
lab_cli 2 start vm --primary n1 --backup n2 >/dev/null || fail start
lab_is cpu pollux-v3 || fail "info: $(lab_cli 3 info vm)"
mkfifo "$LAB/keys"
lab_cli 3 console vm <"$LAB/keys" >"$LAB/console" 2>&1 &
exec 4>"$LAB/keys"

# asked NAME SECONDS: the guest says that it has the flags, and that its C library would use them
asked() {
    printf 'echo %s: $(for f in avx2 bmi2 fma; do grep -qw $f /proc/cpuinfo && echo $f; done) $(/lib64/ld-linux-x86-64.so.2 --help | grep -c "v3 (supported")\r' "$1" >&4
    lab_wait "$2" grep -q "^$1: avx2 bmi2 fma 1" "$LAB/console" || fail "the guest has no answer $1"
}
lab_wait 30 grep -qF '~ # ' "$LAB/console" || fail "no prompt"
asked before 20
lab_is protection protected || fail "not protected: $(lab_field protection)"
kill -KILL "$(lab_replica 1)"
lab_wait 10 lab_is primary n2 || fail "no takeover: $(lab_cli 3 info vm)"
asked after 20
lab_is epoch 2 && lab_is cpu pollux-v3 || fail "$(lab_cli 3 info vm)"
lab_cli 3 info vm | grep -q ' vm takeover: ' || fail "no takeover"
lab_cli 3 info vm | grep -q ' vm divergence: ' && fail "the replicas differed"
lab_cli 3 destroy vm >/dev/null || fail destroy
grep -a '^before:\|^after:' "$LAB/console"
