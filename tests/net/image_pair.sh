#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# A protected VM on a disk over an image of a store: node 1 has the image by a push, node 2 from node 1,
# and then by a push of its own. Hunts: another image under the same name that is not noticed; an image
# that is another one because it was pushed later; replicas that differ over it.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
pollux=$lab_dirs/$BUILD/pollux
LAB_PREFIX=plximp
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -8 "$LAB/$n/polluxd.log"; tail -n 5 "$LAB/$n"/run/*/log; done; exit 1; }
refuses() { # TEXT
    local out
    out=$(lab_cli 1 start vm --primary n1 --backup n2 2>&1) && fail "started: $1"
    [[ $out == *"$1"* ]] || fail "said '$out', not '$1'"
}
on() { # NODE COMMAND...: with $LAB/data as that node sees it
    local n=$1
    shift
    lab_ns "$n" sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$LAB/$n/data" "$LAB/data" "$@"
}
image() { on "$1" "$pollux" image "${@:2}" --store "$LAB/data/store"; }

# --- the image on node 1, which serves it ---
echo "${LAB_KEY[2]} n2" >"$LAB/clients"
head -c 8000000 /dev/urandom >"$LAB/raw" && truncate -s 8M "$LAB/raw"
image 1 push "$LAB/raw" base:1 --quiet >/dev/null || fail push
on 1 "$pollux" disk create --parent "image:$LAB/data/store#base:1" "$LAB/data/top.vhdx" >/dev/null || fail create
LAB_NODE_CONF[1]=$(printf '[images]\nlisten = tcp://10.77.0.1:7373\nstore = %s\nclients = %s\n' "$LAB/data/store" "$LAB/clients")$'\n'
lab_conf 1
for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>
<os><kernel>$PWD/build/guest/vmlinuz</kernel><initrd>$PWD/build/guest/initrd.img</initrd>
<cmdline>console=ttyS0 panic=-1 pollux.test=blk</cmdline></os>
<devices><disk type='file'><source file='$LAB/data/top.vhdx'/></disk></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect></p:vm></metadata></domain>
X
lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail define
cp "$LAB/1/data/top.vhdx" "$LAB/2/data/"

# --- node 2 lacks it, has another one of that name, has it ---
refuses "n2: $LAB/data/top.vhdx: its parent"
tr '\000-\377' '\001-\377\000' <"$LAB/raw" >"$LAB/other"
image 2 push "$LAB/other" base:1 --quiet >/dev/null || fail "push of another"
refuses "relink --force"
image 2 pull base:1 --server "tcp://10.77.0.1:7373,${LAB_KEY[1]}" --key "$LAB/2/key" --quiet >/dev/null || fail pull
ended() { lab_cli 1 info vm | grep -q '^last stop *power'; }
lab_cli 1 start vm --primary n1 --backup n2 || fail "start over a pulled image"
lab_wait 50 ended || { lab_cli 1 info vm; fail "the VM does not end"; }
lab_cli 1 info vm | grep -q 'divergence' && fail "the replicas diverged"
for n in 1 2; do
    [ "$(du -k "$LAB/$n"/state/overlay/*-0 | cut -f1)" -ge 1024 ] || fail "nothing in the overlay of node $n"
    image $n verify >/dev/null || fail "the store of node $n is damaged"
done

# --- pushed again, on the other node: still the same image ---
image 2 rm base:1 && image 2 push "$LAB/raw" base:1 --quiet >/dev/null || fail "push on node 2"
id() { image "$1" show base:1 --json | sed -n 's/.*"id": "\([0-9a-f]*\)".*/\1/p'; }
[ -n "$(id 1)" ] && [ "$(id 1)" = "$(id 2)" ] || fail "the same disk is another image on node 2"
on 2 "$pollux" disk chain "$LAB/data/top.vhdx" >/dev/null || fail "the child does not know its parent"
echo "a pair over an image"
