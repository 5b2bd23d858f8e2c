#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a cluster that does not form, commands that work on the leader only, a dead leader that
# takes the cluster with it, a daemon that comes back with old records, a node let in with a wrong key.
. "$(dirname "$0")/lab.sh"
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -5 "$LAB/$n/polluxd.log"; done; exit 1; }
expect_refusal() { # TEXT COMMAND...: fails and says TEXT
    local text=$1 out
    shift
    if out=$("$@" 2>&1); then fail "$* succeeded"; fi
    [[ $out == *"$text"* ]] || fail "$*: said '$out', not '$text'"
}
xml() { # NAME [PROTECT]
    printf "<domain><name>%s</name><memory unit='MiB'>64</memory><os><kernel>%s</kernel></os>
<metadata><p:vm xmlns:p='urn:pollux:domain:1'><p:protect>%s</p:protect></p:vm></metadata></domain>\n" \
        "$1" "$LAB/kernel" "${2:-no}" >"$LAB/$1.xml"
}
sees() { lab_cli "$1" list | grep -q "^$2 "; }
all_up() { [ "$(lab_cli "$1" info | grep -c ' up  ')" = "$2" ]; }

for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
lab_wait 5 all_up 1 3 || fail "node 1 does not see three nodes"

# Every verb on any node, seen on any other.
for n in 1 2 3; do
    xml vm$n
    lab_cli $n define "$LAB/vm$n.xml" >/dev/null || fail "define on node $n"
    for m in 1 2 3; do sees $m vm$n || fail "node $m does not list vm$n"; done
done
lab_cli 2 protect vm1 | grep -q 'vm1 will be protected' || fail "protect"
lab_cli 3 info vm1 | grep -q '^protection *stopped' || fail "info after protect"
lab_cli 3 info vm1 --json | tr -d ' \n' | grep -q '"protect":true' || fail "info --json"
lab_cli 1 unprotect vm1 >/dev/null || fail "unprotect"
lab_cli 1 dumpxml vm2 | cmp -s - "$LAB/vm2.xml" || fail "dumpxml gives another definition"
lab_cli 3 undefine vm3 >/dev/null || fail "undefine"
sees 1 vm3 && fail "vm3 is still defined"
expect_refusal "no VM called 'vm3'" lab_cli 2 info vm3
expect_refusal "is not running" lab_cli 2 destroy vm1
printf '<domain><name>vm1</name></domain>' >"$LAB/bad.xml"
expect_refusal "has no <memory>" lab_cli 1 define "$LAB/bad.xml"
expect_refusal "cannot open $LAB/kernel" lab_cli 1 start vm1
expect_refusal "there is no node 'n9'" lab_cli 1 start vm1 --primary n9

# Disks that were left behind are not started from: by mistake, that is.
xml disky
sed -i "s|$LAB/kernel|$lab_dirs/build/tests/guest/hello.elf|; s|</domain>|<devices><disk type='file'><source file='$LAB/data/disk'/></disk></devices></domain>|" "$LAB/disky.xml"
for n in 1 2 3; do head -c 1M /dev/zero >"$LAB/$n/data/disk"; done
lab_cli 1 define "$LAB/disky.xml" >/dev/null || fail "define disky"
lab_cli 1 start disky --primary n1 >/dev/null || fail "start disky"
ended() { lab_cli 1 info disky | grep -q '^last stop *debug exit'; }
lab_wait 10 ended || fail "disky does not end"
# Its overlay on node 1 gets something that node 2 does not have.
ls "$LAB"/1/state/overlay/*-0 >/dev/null || fail "no overlay"
stamped=$(od -An -tu8 -j4120 -N8 "$LAB"/1/state/overlay/*-0) # epoch of the slot stamped first
[ "$stamped" -eq 1 ] || fail "the overlay's stamp names epoch$stamped, not 1"
printf x | dd of="$(ls "$LAB"/1/state/overlay/*-0)" bs=1 seek=20000 conv=notrunc status=none
expect_refusal "its disks are older than those of n1" lab_cli 3 start disky --primary n2
lab_cli 3 start disky --primary n2 --old-disks >/dev/null || fail "start with --old-disks"
lab_cli 1 info disky | grep -q 'old-disks: started on n2' || fail "--old-disks leaves no event"
lab_wait 10 ended

# The leader dies; the others go on within a second; it comes back and catches up.
leader=$(lab_leader 1)
[ -n "$leader" ] || fail "nobody leads"
lab_kill "$leader"
a=$((leader % 3 + 1)) b=$((a % 3 + 1))
xml vm4
lab_wait 3 lab_cli $a define "$LAB/vm4.xml" || fail "define without the old leader"
sees $b vm4 || fail "node $b does not list vm4"
lab_start "$leader"
lab_wait 10 sees "$leader" vm4 || fail "node $leader came back without vm4"
lab_wait 5 all_up "$leader" 3 || fail "node $leader does not see all"

# Without a majority nothing is decided, and that is said.
lab_kill $a
lab_kill $b
expect_refusal "no majority" lab_cli "$leader" list
lab_cli "$leader" info | grep -q "NO MAJORITY" || fail "info does not say that there is no majority"
lab_start $a
lab_wait 10 sees $a vm4 || fail "two of three do not work"

# A node with a key that the others do not know is refused.
rm "$LAB/$b/key"
"$lab_dirs/$BUILD/polluxd" --keygen --key "$LAB/$b/key" >/dev/null
lab_start $b
refused() { lab_ns "$a" curl -s http://127.0.0.1:9100/metrics | grep -q 'connections_refused_total.* [1-9]'; }
lab_wait 10 grep -q 'unknown CURVE key' "$LAB/$a/polluxd.log" || fail "a wrong key was not refused"
lab_cli "$a" info --json | tr -d ' \n' | grep -q "\"name\":\"n$b\",\"id\":$b,\"address\":\"[^\"]*\",\"up\":false" ||
    fail "node $b counts as up"
expect_refusal "no majority" lab_cli "$b" list
if command -v curl >/dev/null; then lab_wait 5 refused || fail "the metric does not count it"; fi
expect_refusal "another polluxd uses" lab_ns "$a" "$lab_dirs/$BUILD/polluxd" --config "$LAB/$a/conf"

# A daemon ends cleanly.
kill -TERM "${LAB_PID[$a]}"
wait "${LAB_PID[$a]}" || fail "polluxd did not end well: $?"
LAB_PID[$a]=
echo "cluster forms, survives and refuses as it should"
