#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# A protected VM on a disk over an image of a store: node 1 has the image by a push, node 2 from node 1,
# and then by a push of its own. Hunts: another image under the same name that is not noticed; an image
# that is another one because it was pushed later; replicas that differ over it.
. "$(dirname "$0")/disk_lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
pollux=$lab_dirs/$BUILD/pollux
LAB_PREFIX=plximp
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
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
disk_vm_define

# --- node 2 lacks it, has another one of that name, has it ---
refuses "n2: $LAB/data/top.vhdx: its parent"
tr '\000-\377' '\001-\377\000' <"$LAB/raw" >"$LAB/other"
image 2 push "$LAB/other" base:1 --quiet >/dev/null || fail "push of another"
refuses "relink --force"
image 2 pull base:1 --server "tcp://10.77.0.1:7373,${LAB_KEY[1]}" --key "$LAB/2/key" --quiet >/dev/null || fail pull
disk_vm_runs
for n in 1 2; do
    image $n verify >/dev/null || fail "the store of node $n is damaged"
done

# --- pushed again, on the other node: still the same image ---
image 2 rm base:1 && image 2 push "$LAB/raw" base:1 --quiet >/dev/null || fail "push on node 2"
id() { image "$1" show base:1 --json | sed -n 's/.*"id": "\([0-9a-f]*\)".*/\1/p'; }
[ -n "$(id 1)" ] && [ "$(id 1)" = "$(id 2)" ] || fail "the same disk is another image on node 2"
on 2 "$pollux" disk chain "$LAB/data/top.vhdx" >/dev/null || fail "the child does not know its parent"
echo "a pair over an image"
