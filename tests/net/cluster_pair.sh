#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a pair that does not start or is not told so; a daemon's death that ends protection; a
# takeover that is not the record's, leaves the old TAP on its bridge, or loses the console; a
# file that differs between the nodes and is not noticed.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/redis.state ] || { echo "build/guest/redis.state is missing: make guest"; exit 77; }
command -v redis-cli >/dev/null || { echo "redis-cli is missing: make deps"; exit 77; }
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -8 "$LAB/$n/polluxd.log"; tail -n 5 "$LAB/$n"/run/*/log; done; exit 1; }
redis() { lab_ns c timeout 10 redis-cli -h 10.0.2.15 "$@"; }
event() { lab_cli 3 info vm | grep -q " vm $1: "; }
taps() { lab_ns "$1" ip -br link show master br0 | grep -c '^px'; }

lab_ns c ip addr add 10.0.2.100/24 dev gu0
for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
define() { # XML: the definition but for name, memory and card
    cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>$1</domain>
X
    lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail "define $1"
}
protected() { # [MORE]: the Pollux part of a definition
    echo "<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect>${1:-}</p:vm></metadata>"
}
nic="<interface type='bridge'><source bridge='br0'/><mac address='52:54:00:70:78:01'/></interface>"
saved="<p:state>$PWD/build/guest/redis.state</p:state>"
# Files that are missing, or differ, refuse the start and are named, each kind of them.
refuses() { # TEXT
    local out
    out=$(lab_cli 1 start vm --primary n1 --backup n2 2>&1) && fail "started: $1"
    [[ $out == *"$1"* ]] || fail "said '$out', not '$1'"
}
differs() { # FILE: in $LAB/data, of the VM; the same on both from then on
    echo one >"$LAB/1/data/$1"
    refuses "n2: cannot open $LAB/data/$1"
    echo two >"$LAB/2/data/$1"
    refuses "$LAB/data/$1 differs between the nodes n1 and n2"
    cp "$LAB/1/data/$1" "$LAB/2/data/"
}
define "<os><kernel>$LAB/data/kernel</kernel><initrd>$LAB/data/initrd</initrd></os>$(protected)"
echo same | tee "$LAB/1/data/initrd" >"$LAB/2/data/initrd"
differs kernel
rm "$LAB/2/data/initrd"
differs initrd
define "$(protected "<p:state>$LAB/data/state</p:state>")"
differs state
define "<devices>$nic<disk type='file'><source file='$LAB/data/disk'/><readonly/></disk></devices>$(protected "$saved")"
differs disk
define "<devices>$nic</devices>$(protected "$saved")"
lab_cli 1 start vm --primary n1 --backup n2 || fail "start"
lab_is protection protected || fail "not protected: $(lab_field protection)"
lab_is epoch 1 || fail "epoch $(lab_field epoch)"
out=$(lab_cli 2 start vm 2>&1) && fail "started twice"
[[ $out == *"is running"* ]] || fail "said: $out"
lab_wait 10 redis set key 1 || fail "redis does not answer"
[ "$(taps 1)" = 1 ] && [ "$(taps 2)" = 0 ] || fail "TAPs on bridges: $(taps 1) and $(taps 2)"

# The daemon of the primary's node dies: replication goes on; the next one adopts the replica.
lab_kill 1
redis set key 2 >/dev/null || fail "redis stopped with the daemon"
lab_start 1
lab_wait 10 grep -q adopted "$LAB/1/polluxd.log" || fail "not adopted"
lab_wait 10 lab_cli 1 list || fail "node 1 does not come back"
sleep 2
lab_is protection protected && lab_is epoch 1 || fail "protection was lost with the daemon"
[ "$(taps 1)" = 1 ] || fail "the TAP went with the daemon"

# The primary dies: the backup takes over in the next epoch.
kill -KILL "$(lab_replica 1)"
[ "$(redis get key)" = 2 ] || fail "an acknowledged write is lost"
lab_is primary n2 && lab_is backup - && lab_is epoch 2 || fail "the record: $(lab_field primary) $(lab_field epoch)"
lab_is protection unprotected || fail "protection: $(lab_field protection)"
lab_wait 3 event takeover || fail "no takeover event on node 3"
[ "$(taps 1)" = 0 ] && [ "$(taps 2)" = 1 ] || fail "TAPs after takeover: $(taps 1) and $(taps 2)"
out=$(lab_cli 1 protect vm 2>&1) && fail "re-protected"
[[ $out == *"cannot be given a backup yet"* ]] || fail "said: $out"

# The operator ends it.
lab_cli 3 destroy vm >/dev/null || fail "destroy"
lab_is state stopped && lab_is last_stop destroyed || fail "after destroy: $(lab_field state)"
gone() { [ -z "$(lab_replica 2)" ]; }
lab_wait 5 gone || fail "the replica is still there"
echo "a pair starts, is adopted, takes over and ends"
