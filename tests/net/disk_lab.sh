# SPDX-License-Identifier: Apache-2.0
# A protected VM that writes its disk, $LAB/data/top.vhdx on nodes 1 and 2 of a lab. Not a test: sourced.
#
#   refuses TEXT      starting the VM is refused, with TEXT
#   disk_vm_define    the VM, and node 1's disk on node 2 too
#   disk_vm_runs      it starts on both and runs to its end, which leaves the same in both overlays
. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -8 "$LAB/$n/polluxd.log"; tail -n 5 "$LAB/$n"/run/*/log; done; exit 1; }
refuses() { # TEXT
    local out
    out=$(lab_cli 1 start vm --primary n1 --backup n2 2>&1) && fail "started: $1"
    [[ $out == *"$1"* ]] || fail "said '$out', not '$1'"
}
disk_vm_define() {
    cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>
<os><kernel>$PWD/build/guest/vmlinuz</kernel><initrd>$PWD/build/guest/initrd.img</initrd>
<cmdline>console=ttyS0 panic=-1 pollux.test=blk</cmdline></os>
<devices><disk type='file'><source file='$LAB/data/top.vhdx'/></disk></devices>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect></p:vm></metadata></domain>
X
    lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail define
    cp "$LAB/1/data/top.vhdx" "$LAB/2/data/"
}
disk_vm_ended() { lab_cli 1 info vm | grep -q '^last stop *power'; }
disk_vm_runs() {
    local n
    lab_cli 1 start vm --primary n1 --backup n2 || fail start
    lab_wait 50 disk_vm_ended || { lab_cli 1 info vm; fail "the VM does not end"; }
    lab_cli 1 info vm | grep -q 'divergence' && fail "the replicas diverged"
    for n in 1 2; do
        [ "$(du -k "$LAB/$n"/state/overlay/*-0 | cut -f1)" -ge 1024 ] || fail "nothing in the overlay of node $n"
    done
}
