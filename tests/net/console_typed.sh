#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: what is typed at `pollux console` while the primary is dead, or before its backup has it,
# and a takeover loses, doubles or puts out of order; a console that takes more than it can keep.
LAB_PREFIX=plxtyp
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
[ -s build/guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
LAB_REPLICA_CONF="peer_lost_ms = 1000"
lab_up
fail() { echo "FAIL: $*"; tail -n 20 "$LAB/console"; for n in 1 2 3; do tail -n 8 "$LAB/$n/polluxd.log"; done; exit 1; }

for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
cat >"$LAB/vm.xml" <<X
<domain><name>vm</name><memory unit='MiB'>256</memory>
<os><kernel>$PWD/build/guest/vmlinuz</kernel><initrd>$PWD/build/guest/initrd.img</initrd>
<cmdline>console=ttyS0 panic=-1 quiet pollux.test=shell</cmdline></os>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect></p:vm></metadata></domain>
X
lab_cli 1 define "$LAB/vm.xml" >/dev/null || fail define

begin() { # NODE: the VM, and a console on that node; its guest says each line that it hears.
         # Sets p, the primary's pid, and epoch, the one after a takeover
    lab_cli 3 start vm --primary n1 --backup n2 >/dev/null || fail start
    mkfifo "$LAB/keys"
    : >"$LAB/typed"
    lab_cli "$1" console vm <"$LAB/keys" >"$LAB/console" 2>&1 &
    console=$!
    exec 4>"$LAB/keys"
    lab_wait 30 grep -qF '~ # ' "$LAB/console" || fail "no prompt"
    # shellcheck disable=SC2016 # for the guest
    printf '%s\r' 'stty -echo; PS1=; echo "so: on"; while read -r l; do echo "heard $l"; done' >&4
    lab_wait 20 grep -q '^so: on' "$LAB/console" || fail "the guest does not listen"
    line=0
    epoch=$(($(lab_field epoch) + 1))
    p=$(lab_replica 1)
}
type_line() { # TEXT
    line=$((line + 1))
    echo "heard $line $1" >>"$LAB/typed"
    printf '%s %s\r' $line "$1" >&4
}
type_on() { # COMMAND...: a line after the other until it has succeeded, and some more
    until "$@" >/dev/null 2>&1; do sleep 0.1; done &
    local waits=$! end=$((SECONDS + 15))
    while kill -0 $waits 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "not within 15 s: $*"
        type_line "and on"
        sleep 0.01
    done
    for i in $(seq 20); do type_line "and on"; done
}
heard() { tr -d '\r' <"$LAB/console" | grep -a '^heard ' | cmp -s - "$LAB/typed"; }
finish() { # WHAT
    type_line end
    lab_wait 20 heard || fail "$1: the guest heard otherwise than was typed: $(tr -d '\r' <"$LAB/console" | grep -a '^heard ' | diff - "$LAB/typed" | head -n 5)"
    lab_is epoch "$epoch" && lab_is primary n2 || fail "$1: $(lab_cli 3 info vm)"
    lab_cli 3 info vm | grep -q ' vm divergence: ' && fail "$1: the replicas differed"
    lab_cli 3 destroy vm >/dev/null || fail destroy
    exec 4>&-
    wait "$console"
    rm "$LAB/keys"
    echo "$1: $line lines were heard as they were typed"
}

# The console is on a third node. More is typed than the daemon keeps.
begin 3
type_on sleep 1
kill -KILL "$p"
for i in $(seq 40); do type_line "while nobody hears it, though it is a rather long line"; done
type_on lab_is primary n2
finish "primary killed"

# The console is on the primary's node, and so is the replica that comes back.
begin 1
type_on sleep 1
kill -STOP "$p"
type_on lab_is primary n2
kill -CONT "$p"
type_on sleep 1
finish "primary stopped"
