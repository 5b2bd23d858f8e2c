#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `pollux image` from the outside: raw, qcow2 and a VHDX chain in and out again, concurrent and killed pushes,
# gc beside a push, disks over an image, flipped bits named, each mistake one line.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=$PWD/${BUILD:-build}/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
. tests/unit/mistakes.sh
cd "$tmp" || exit 1
export POLLUX_STORE=$tmp/store
fail() { echo "$*"; exit 1; }
image() { timeout 60 "$pollux" image "$@"; }

# A file system with files, as guests leave them.
mkdir files && cp "$pollux" files/program && seq 200000 >files/numbers
truncate -s 48M a.img && mkfs.ext4 -q -F -d files a.img || fail "no mkfs.ext4"

# --- in and out ---
image push a.img a:1 --os debian --app "nginx,redis" --quiet | grep -q "0 % *)\|(0 %)" || fail "the first push shares nothing"
image export a:1 out.img && cmp a.img out.img || fail "raw: other contents"
qemu-img convert -f raw -O qcow2 a.img a.qcow2
image push a.qcow2 a:qcow2 | grep -q "100 %" || fail "qcow2: not the same contents"
"$pollux" disk convert a.img a.vhdx >/dev/null 2>&1 && "$pollux" disk create child.vhdx --parent a.vhdx >/dev/null 2>&1 &&
    image push child.vhdx a:chain | grep -q "100 %" || fail "a VHDX chain: not the same contents"
image list --json | grep -c '"name"' | grep -qx 3 || fail "list"
image search --app redis --os Debian --json | grep -c '"name"' | grep -qx 1 || fail "search"
image show a:1 --json | grep -q '"logical_sector": 512' || fail "show"
image tag a:1 b:2 && image show b:2 >/dev/null || fail "tag"

# --- two pushes of the same at once store it once ---
before=$(cat store/packs/* | wc -c)
head -c 30000000 /dev/urandom >r.img && truncate -s 30001152 r.img
image push r.img r:1 --quiet >/dev/null & one=$!
image push r.img r:2 --quiet >/dev/null & two=$!
wait $one && wait $two || fail "concurrent pushes"
used=$(cat store/packs/* | wc -c)
[ "$used" -lt 50000000 ] || fail "concurrent pushes stored $used bytes"

# --- a push killed again and again, with gc beside it, ends whole ---
head -c 20000000 /dev/urandom >k.img && truncate -s 20000256 k.img && truncate -s 20000768 k.img
for delay in 0.005 0.01 0.02 0.04 0.08; do
    { timeout -s KILL $delay "$pollux" image push k.img k:1 --quiet; } >/dev/null 2>&1
    image gc >/dev/null || fail "gc after a killed push"
done
(while [ ! -e stop ]; do image gc >/dev/null || echo "gc failed" >gc.failed; done) & sweeper=$!
image push k.img k:1 --quiet >/dev/null || fail "the push after the killed ones"
: >stop
wait $sweeper
[ ! -e gc.failed ] || fail "gc beside a push"
rm -f out.img && image export k:1 out.img && cmp k.img out.img || fail "killed pushes: other contents"
image verify >/dev/null || fail "verify"

# --- gc gives back what no image shares ---
image rm r:1 r:2 && image gc >/dev/null || fail "gc"
[ "$(cat store/packs/* | wc -c)" -lt $((before + 20100000)) ] || fail "gc kept $(cat store/packs/* | wc -c) bytes"

# --- a disk over an image: reads it through its own writes, keeps it from gc, refuses another one ---
disk() { timeout 60 "$pollux" disk "$@" >out 2>err; }
listening() {
    for _ in $(seq 200); do
        grep -q "00010000 .* $tmp/s\$" /proc/net/unix && return
        sleep 0.05
    done
    fail "nobody listens"
}
head -c 4194304 /dev/urandom >p.img && image push p.img p:1 --quiet >/dev/null || fail "push of a parent"
disk create child2.vhdx --parent image:p:1 || fail "create: $(cat err)"
disk chain child2.vhdx && grep -q "^image .* image:$tmp/store#p:1\$" out || fail "chain: $(cat out err)"
"$pollux" disk serve --socket "$tmp/s" child2.vhdx & server=$!
listening
url="nbd+unix:///?socket=$tmp/s"
cp p.img want.img && image rm p:1 && image gc >/dev/null || fail "gc below a served child"
for target in want.img "$url"; do
    qemu-io -f raw -c "write -P 7 1M 64k" -c "write -z 3M 4k" -c flush "$target" >out || fail "qemu-io: $(cat out)"
done
qemu-img compare -f raw -F raw "$url" want.img >out || fail "served: $(cat out)"
kill $server && wait $server || fail "the server ended badly"
image gc | grep -q " 0 (0 B) dropped" && fail "gc kept the image of a server that ended"
disk chain child2.vhdx && fail "a missing parent was not refused"
grep -q "image:$tmp/store#p:1.* is missing: no image p:1" err || fail "missing: $(cat err)"
tail -c 2097152 p.img >q.img && truncate -s 4M q.img && image push q.img p:1 --quiet >/dev/null || fail "push of another parent"
disk convert child2.vhdx out2.img && fail "another parent was not refused"
cp err err.other
image push p.img p:1 --quiet >/dev/null && disk convert child2.vhdx out2.img && cmp out2.img want.img || fail "the same parent, pushed again: $(cat err)"
image push q.img p:1 --quiet >/dev/null && rm out2.img && cp err.other err || fail "push of another parent, again"
grep -q "was changed and is .*relink --force" err || fail "another parent: $(cat err)"
image push p.img p:2 --quiet >/dev/null && disk relink --force --parent image:p:2 child2.vhdx || fail "relink: $(cat err)"
disk convert child2.vhdx out2.img && cmp out2.img want.img || fail "relinked: other contents"
disk check image:p:2 && fail "an image was checked as a file"
grep -q "image verify" err || fail "check: $(cat err)"
"$pollux" run --kernel a.img --disk image:p:2 --record rec >out 2>err && fail "an image was recorded"
grep -q "record does not go with image:p:2: make a disk over it" err || fail "record: $(cat err)"
disk commit child2.vhdx && fail "an image was committed into"
"$pollux" disk serve --socket "$tmp/s" image:p:2 & server=$!
listening
qemu-io -f raw -c "write 0 4k" "$url" >out 2>&1 && fail "an image was written"
qemu-img compare -f raw -F raw "$url" p.img >out || fail "an image served: $(cat out)"
kill $server; wait $server
disk convert image:p:2 p.vhdx && disk convert image:p:2 p.qcow2 && qemu-img compare p.vhdx p.qcow2 >out || fail "convert: $(cat out err)"
qemu-img compare -F raw p.qcow2 p.img >out || fail "an image converted: $(cat out)"
disk convert p.img image:p:3 && fail "converted into a store"
grep -q "pollux image push" err || fail "no hint: $(cat err)"
image rm p:1 p:2 && rm -f out2.img || fail "rm of the parents"

# --- flipped bits are named (in a store without what killed pushes leave at the ends of packs) ---
POLLUX_STORE=$tmp/clean
image push a.img a:1 --quiet >/dev/null || fail "push to a fresh store"
pack=$(ls -S clean/packs/* | head -n 1)
size=$(stat -c %s "$pack")
for at in 3 100 $((size / 2)) $((size - 5)); do
    cp "$pack" saved
    byte=$(od -An -tu1 -j "$at" -N 1 "$pack" | tr -d ' ')
    printf "\\$(printf %03o $((byte ^ 16)))" | dd of="$pack" bs=1 seek="$at" conv=notrunc 2>/dev/null
    image verify >/dev/null 2>err && fail "a flipped bit at $at of $pack was not found"
    grep -q "$(basename "$pack")" err || fail "a flipped bit at $at: not named: $(cat err)"
    cat saved >"$pack"
done
POLLUX_STORE=$tmp/store

# --- the index can be made again ---
rm store/index.mdb
image verify --repair >/dev/null 2>&1 || fail "repair"
rm -f out.img && image export a:1 out.img && cmp a.img out.img || fail "after the repair: other contents"

# --- mistakes ---
printf 'odd' >odd
mistake "no verb 'frob'" image frob
mistake "an argument is missing" image push a.img
mistake "is not NAME[:TAG]" image push a.img ../x
mistake "none.img" image push none.img x:1
mistake "odd" image push odd x:1
mistake "--chunks is blocks, bytes or fixed" image push a.img x:1 --chunks some
mistake "a power of two" image push a.img x:1 --average 33
mistake "no image x:1" image export x:1 out2.img
mistake "out.img" image export a:1 out.img
mistake "no image x:1" image rm x:1
mistake "is not a store" image list --store "$tmp/files"
mistake "no image x:1" image run x:1
mistake "image a:1 has no kernel" image run a:1
mistake "give --listen" image serve
mistake "give --server" image pull a:1
mistake "give --key" image pull a:1 --server tcp://127.0.0.1:1,00
"${pollux}d" --keygen --key key >/dev/null || fail "no key"
mistake "must be tcp://HOST:PORT,KEY" image list --server somewhere --key key
image push --help | grep -q -- "--append TEXT" || fail "no help"
mistakes_told
