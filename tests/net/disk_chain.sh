#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# A protected VM whose disk is a chain of VHDX files: each replica writes an overlay of its own over
# the chain, which stays as it is. Hunts: a parent that differs between the nodes, or that was changed
# since its child was made, and is not noticed; overlays that differ after a run.
. "$(dirname "$0")/disk_lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
pollux=$lab_dirs/$BUILD/pollux
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
for n in 1 2 3; do lab_start $n; done
dd if=/dev/urandom of="$LAB/raw" bs=1M count=8 status=none
mkdir "$LAB/made" # and moved: from then on the parent is where the relative path says, only
"$pollux" disk convert "$LAB/raw" "$LAB/made/base.vhdx" || fail convert
"$pollux" disk create --parent "$LAB/made/base.vhdx" "$LAB/made/top.vhdx" || fail create
mv "$LAB/made"/* "$LAB/1/data/"
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
disk_vm_define
refuses "n2: $LAB/data/top.vhdx: its parent"
# The same identifier and other bytes, which only reading all of it shows.
cp "$LAB/1/data/base.vhdx" "$LAB/2/data/"
printf x | dd of="$LAB/2/data/base.vhdx" bs=1 seek=6000000 conv=notrunc status=none
refuses "$LAB/data/top.vhdx differs between the nodes n1 and n2"
cp "$LAB/1/data/base.vhdx" "$LAB/2/data/"
sums=$(cd "$LAB/1/data" && sha256sum ./*.vhdx)
disk_vm_runs
[ "$(cd "$LAB/1/data" && sha256sum ./*.vhdx)" = "$sums" ] || fail "node 1 wrote its chain"
[ "$(cd "$LAB/2/data" && sha256sum ./*.vhdx)" = "$sums" ] || fail "node 2 wrote its chain"
# Somebody writes the base: the child is refused on that node.
"$pollux" disk serve --socket "$LAB/s" "$LAB/2/data/base.vhdx" &
p=$!
lab_wait 5 test -S "$LAB/s"
qemu-io -f raw -c "write 0 4k" "nbd+unix:///?socket=$LAB/s" >/dev/null || fail qemu-io
kill $p && wait $p
refuses "relink --force"
echo "a pair over a chain"
