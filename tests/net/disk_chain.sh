#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# A protected VM whose disk is a chain of VHDX files: each replica writes an overlay of its own over
# the chain, which stays as it is. Hunts: a parent that differs between the nodes, or that was changed
# since its child was made, and is not noticed; overlays that differ after a run.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
pollux=$lab_dirs/$BUILD/pollux
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -8 "$LAB/$n/polluxd.log"; tail -n 5 "$LAB/$n"/run/*/log; done; exit 1; }
refuses() { # TEXT
    local out
    out=$(lab_cli 1 start vm --primary n1 --backup n2 2>&1) && fail "started: $1"
    [[ $out == *"$1"* ]] || fail "said '$out', not '$1'"
}
for n in 1 2 3; do lab_start $n; done
dd if=/dev/urandom of="$LAB/raw" bs=1M count=8 status=none
mkdir "$LAB/made" # and moved: from then on the parent is where the relative path says, only
"$pollux" disk convert "$LAB/raw" "$LAB/made/base.vhdx" || fail convert
"$pollux" disk create --parent "$LAB/made/base.vhdx" "$LAB/made/top.vhdx" || fail create
mv "$LAB/made"/* "$LAB/1/data/"
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
refuses "n2: $LAB/data/top.vhdx: its parent"
# The same identifier and other bytes, which only reading all of it shows.
cp "$LAB/1/data/base.vhdx" "$LAB/2/data/"
printf x | dd of="$LAB/2/data/base.vhdx" bs=1 seek=6000000 conv=notrunc status=none
refuses "$LAB/data/top.vhdx differs between the nodes n1 and n2"
cp "$LAB/1/data/base.vhdx" "$LAB/2/data/"
sums=$(cd "$LAB/1/data" && sha256sum ./*.vhdx)
lab_cli 1 start vm --primary n1 --backup n2 || fail start
ended() { lab_cli 1 info vm | grep -q '^last stop *power'; }
lab_wait 50 ended || { lab_cli 1 info vm; fail "the VM does not end"; }
lab_cli 1 info vm | grep -q 'divergence' && fail "the replicas diverged"
[ "$(cd "$LAB/1/data" && sha256sum ./*.vhdx)" = "$sums" ] || fail "node 1 wrote its chain"
[ "$(cd "$LAB/2/data" && sha256sum ./*.vhdx)" = "$sums" ] || fail "node 2 wrote its chain"
for n in 1 2; do
    [ "$(du -k "$LAB/$n"/state/overlay/*-0 | cut -f1)" -ge 1024 ] || fail "nothing in the overlay of node $n"
done
# Somebody writes the base: the child is refused on that node.
"$pollux" disk serve --socket "$LAB/s" "$LAB/2/data/base.vhdx" &
p=$!
lab_wait 5 test -S "$LAB/s"
qemu-io -f raw -c "write 0 4k" "nbd+unix:///?socket=$LAB/s" >/dev/null || fail qemu-io
kill $p && wait $p
refuses "relink --force"
echo "a pair over a chain"
