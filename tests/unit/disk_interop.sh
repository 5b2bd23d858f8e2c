#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VHDX files and NBD against what others make of them: qemu-img reads, checks and compares ours
# after random writes, we read, check and change theirs; libvhdi opens differencing files and finds
# their parent; nbdinfo, nbdcopy and qemu-io work on what is served. SEED=n replays.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=$PWD/${BUILD:-build}/pollux
for t in qemu-img qemu-io nbdinfo nbdcopy vhdiinfo; do
    command -v $t >/dev/null || { echo "no $t"; exit 77; }
done
tmp=$(mktemp -d)
server=
cleanup() { [ -n "$server" ] && kill "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$tmp"; }
trap cleanup EXIT
cd "$tmp" || exit 1
RANDOM=${SEED:=$((1 + $$ % 30000))}
echo "SEED=$SEED"

fail() { echo "FAILED: $*"; exit 1; }
must() { "$@" >out 2>&1 || { cat out; fail "$*"; }; }
refuses() { # TEXT COMMAND...: fails, and says TEXT
    local text=$1
    shift
    if "$@" >out 2>&1; then fail "not refused: $*"; fi
    grep -qF -- "$text" out || { cat out; fail "$* does not say: $text"; }
}
serve() { # OPTION... FILE
    "$pollux" disk serve --socket "$tmp/s" "$@" 2>serve.err &
    server=$!
    for _ in $(seq 200); do
        grep -q "00010000 .* $tmp/s\$" /proc/net/unix && return # listening; a killed one leaves its name
        kill -0 $server 2>/dev/null || break
        sleep 0.05
    done
    cat serve.err
    fail "serve $*"
}
unserve() { kill "$server"; wait "$server" || { cat serve.err; fail "the server ended badly"; }; server=; }
url="nbd+unix:///?socket=$tmp/s"

# Random writes, zeroes and discards through qemu-io, the same into a raw file.
scribble() { # COUNT MEGABYTES TARGET-ARGUMENTS... ; appends to ref.raw too
    local n=$1 mb=$2 i off len cmds=()
    shift 2
    for ((i = 0; i < n; i++)); do
        off=$(((RANDOM * 32768 + RANDOM) % (mb * 2048) * 512))
        len=$((((RANDOM % 8 == 0 ? RANDOM % 2048 : RANDOM % 64) + 1) * 512))
        ((off + len > mb * 1048576)) && len=512
        case $((RANDOM % 8)) in
        0) cmds+=(-c "write -z $off $len") ;;
        1) cmds+=(-c "${discard:-discard} $off $len") ;;
        *) cmds+=(-c "write -P $((RANDOM % 255 + 1)) $off $len") ;;
        esac
    done
    qemu-io "$@" "${cmds[@]}" -c flush >out 2>&1 || { tail -3 out; fail "qemu-io $*"; }
    grep -qi 'failed\|error' out && { grep -i 'failed\|error' out | head -3; fail "qemu-io $*"; }
    for ((i = 0; i < ${#cmds[@]}; i++)); do # a raw file's discards may leave anything
        cmds[i]=${cmds[i]/discard/write -z}
    done
    qemu-io -f raw "${cmds[@]}" ref.raw >out 2>&1 || { tail -3 out; fail "qemu-io ref.raw"; }
}
mb=40

# Ours, written through NBD, read by qemu-img as VHDX.
for kind in "dynamic 1M" "dynamic 32M" "fixed 4M"; do
    set -- $kind
    rm -f a.vhdx ref.raw
    truncate -s ${mb}M ref.raw
    must "$pollux" disk create --size ${mb}M --type "$1" --block "$2" a.vhdx
    serve a.vhdx
    scribble 60 $mb -f raw "$url"
    refuses "in use" "$pollux" disk check a.vhdx --repair
    "$pollux" disk info --json a.vhdx | grep -q '"open-or-not-closed"' || fail "info of an open disk"
    unserve
    must "$pollux" disk check a.vhdx
    must qemu-img check -f vhdx a.vhdx
    must qemu-img compare -f vhdx -F raw a.vhdx ref.raw
    must vhdiinfo a.vhdx
    # What is not closed is replayed by qemu-img too.
    serve a.vhdx
    scribble 20 $mb -f raw "$url"
    kill -9 "$server"; wait "$server" 2>/dev/null; server=
    cp a.vhdx b.vhdx
    must qemu-img check -r all -f vhdx b.vhdx
    must qemu-img compare -f vhdx -F raw b.vhdx ref.raw
    must "$pollux" disk check a.vhdx
    must qemu-img compare -f vhdx -F raw a.vhdx ref.raw
done
echo "qemu-img reads ours"

# Theirs, of both kinds and several block sizes, read and changed by us.
for options in subformat=dynamic,block_size=1M subformat=dynamic subformat=fixed; do
    rm -f q.vhdx ref.raw
    truncate -s ${mb}M ref.raw
    must qemu-img create -f vhdx -o $options q.vhdx ${mb}M
    discard="write -z" scribble 40 $mb -f vhdx q.vhdx # qemu-io's discard of a VHDX does nothing
    must "$pollux" disk check q.vhdx
    must "$pollux" disk convert q.vhdx q.raw
    must cmp q.raw ref.raw
    serve q.vhdx
    scribble 40 $mb -f raw "$url"
    unserve
    must qemu-img check -f vhdx q.vhdx
    must qemu-img compare -f vhdx -F raw q.vhdx ref.raw
    rm q.raw
done
echo "we read and change qemu-img's"

# Conversions there and back.
must qemu-img convert -f raw -O qcow2 ref.raw c.qcow2
must "$pollux" disk convert c.qcow2 c.vhdx
must qemu-img compare -f vhdx -F raw c.vhdx ref.raw
must "$pollux" disk convert c.vhdx d.qcow2
must qemu-img compare -f qcow2 -F raw d.qcow2 ref.raw
must qemu-img check -f qcow2 d.qcow2
refuses exists "$pollux" disk convert c.vhdx d.qcow2
refuses qcow2 "$pollux" disk info --format raw2 c.qcow2 || true
cp c.qcow2 c.img
refuses "looks like qcow2" "$pollux" disk convert c.img e.vhdx
echo "qcow2 there and back"

# A chain: base, and two layers of differences.
rm -f ./*.vhdx
truncate -s ${mb}M ref.raw
must "$pollux" disk convert --block 1M ref.raw base.vhdx
for layer in 1 2; do
    must "$pollux" disk create --parent "$([ $layer = 1 ] && echo base || echo l1).vhdx" l$layer.vhdx
    serve l$layer.vhdx
    scribble 40 $mb -f raw "$url"
    unserve
done
must "$pollux" disk check l2.vhdx
must "$pollux" disk chain l2.vhdx
[ "$(wc -l <out)" = 3 ] || fail "a chain of three is not three lines"
must "$pollux" disk convert l2.vhdx flat.raw
must cmp flat.raw ref.raw
# libvhdi: opens each, and says the parent's identifier that we say.
must vhdiinfo base.vhdx
for layer in 1 2; do
    must vhdiinfo l$layer.vhdx
    grep -qi differential out || { cat out; fail "vhdiinfo does not see a differencing disk"; }
    want=$("$pollux" disk info --json l$layer.vhdx | sed -n '/"parent"/,/}/s/.*"identifier": "{\(.*\)}".*/\1/p')
    grep -qi "${want:-none}" out || { cat out; fail "vhdiinfo says another parent than $want"; }
done
if command -v vhdimount >/dev/null && [ -e /dev/fuse ]; then
    mkdir m
    if vhdimount l2.vhdx m >out 2>&1; then
        last=$(ls m | sort -V | tail -n 1)
        cmp "m/$last" ref.raw || fail "vhdimount shows other contents (m/$last)"
        fusermount -u m || umount m
        echo "libvhdi reads the chain"
    else
        cat out
        fail "vhdimount"
    fi
fi

# An image of a store.
must "$pollux" disk convert l2.vhdx l2.raw
must "$pollux" image push --store store l2.raw it:one
serve --store store it:one
must nbdinfo "$url"
grep -q 'is_read_only: true' out || fail "an image can be written"
rm -f copy.raw
must nbdcopy "$url" copy.raw
unserve
must cmp copy.raw l2.raw
refuses "other" "$pollux" disk serve --store store --socket "$tmp/s" other:one
echo "an image of a store"

# Links: a change below is refused, an override is explicit and noted, commit and rebase keep
# contents.
cp l1.vhdx l1.keep; cp l2.vhdx l2.keep
serve l1.vhdx
qemu-io -f raw -c "read 0 512" "$url" >out 2>&1
unserve
must "$pollux" disk check l2.vhdx # reading changed nothing
serve l1.vhdx
refuses "open for writing" "$pollux" disk check l2.vhdx
qemu-io -f raw -c "write 0 512" "$url" >out 2>&1
unserve
refuses "relink --force" "$pollux" disk check l2.vhdx
refuses "relink --force" "$pollux" disk chain l2.vhdx
refuses "--force" "$pollux" disk relink l2.vhdx
must "$pollux" disk relink --force l2.vhdx
must "$pollux" disk check l2.vhdx
"$pollux" disk info l2.vhdx | grep -q '^note.*relink --force' || fail "no note of the force"
mv l1.keep l1.vhdx; mv l2.keep l2.vhdx
mkdir elsewhere; mv base.vhdx elsewhere
refuses missing "$pollux" disk check l2.vhdx
must "$pollux" disk relink --parent elsewhere/base.vhdx l1.vhdx
must "$pollux" disk rebase --parent elsewhere/base.vhdx l2.vhdx
rm flat.raw
must "$pollux" disk convert l2.vhdx flat.raw
must cmp flat.raw ref.raw
must "$pollux" disk commit l2.vhdx
must qemu-img compare -f vhdx -F raw elsewhere/base.vhdx ref.raw
refuses "relink --force" "$pollux" disk check l1.vhdx
must "$pollux" disk resize --size 64M l2.vhdx
must "$pollux" disk resize --size 48M elsewhere/base.vhdx
refuses "relink" "$pollux" disk check l2.vhdx
refuses shrink "$pollux" disk resize --size 1M elsewhere/base.vhdx
must "$pollux" disk resize --size 20M --shrink elsewhere/base.vhdx
must qemu-img check -f vhdx elsewhere/base.vhdx
echo "links, commit, rebase, resize"

# NBD as others see it.
for way in "" --threads; do
    serve --readonly --name disk $way elsewhere/base.vhdx
    must nbdinfo "nbd+unix:///disk?socket=$tmp/s"
    grep -q 'export-size: 20971520' out || { cat out; fail "nbdinfo: size"; }
    grep -q 'is_read_only: true' out || fail "nbdinfo: not read-only"
    must nbdinfo --map "nbd+unix:///disk?socket=$tmp/s"
    grep -q 'hole,zero' out || { cat out; fail "nbdinfo: no holes"; }
    grep -q ' data' out || { cat out; fail "nbdinfo: no data"; }
    must nbdinfo --list "$url"
    refuses "" nbdinfo "nbd+unix:///other?socket=$tmp/s"
    rm -f copy.raw
    must nbdcopy "nbd+unix:///disk?socket=$tmp/s" copy.raw
    head -c 20M ref.raw >head.raw
    must cmp copy.raw head.raw
    refuses "" nbdcopy head.raw "nbd+unix:///disk?socket=$tmp/s"
    unserve
done
must "$pollux" disk create --size 20M w.vhdx
serve w.vhdx
must nbdcopy head.raw "$url"
unserve
must qemu-img compare -f vhdx -F raw w.vhdx head.raw
must "$pollux" disk map w.vhdx
echo "nbdinfo, nbdcopy"
