#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial: loop devices and mounts are the machine's
#
# The kernel's ext4 on a differencing disk that is served by NBD (nbdfuse, a loop device), with
# files that are synced one after the other. Then crashes at POINTS points of the recorded writes: of what is
# left, the journal is replayed, fsck finds nothing wrong, and every file that was synced before the
# crash is there with its contents. SEED=n replays the kinds of crash.
set -u
cd "$(dirname "$0")/../.." || exit 1
tool=$PWD/${BUILD:-build}/tests/tools/crashdisk
: "${POINTS:=9}" "${SEED:=$((1 + $$ % 30000))}"
for t in nbdfuse mkfs.ext4 e2fsck debugfs losetup; do
    command -v $t >/dev/null || { echo "no $t"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "needs root and FUSE"; exit 77; }
tmp=$(mktemp -d)
pids=() loop=
cleanup() {
    umount "$tmp/m" 2>/dev/null
    [ -n "$loop" ] && losetup -d "$loop" 2>/dev/null
    umount "$tmp/f" 2>/dev/null
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
fail() { echo "FAILED: $*"; exit 1; }
echo "SEED=$SEED POINTS=$POINTS"

mkfifo "$tmp/in" "$tmp/out"
"$tool" "$tmp/s" 48 "$SEED" <"$tmp/in" >"$tmp/out" 2>"$tmp/err" &
pids+=($!)
exec 8>"$tmp/in" 9<"$tmp/out"
ask() { # COMMAND: the answer in $answer
    echo "$1" >&8
    read -r -t 50 answer <&9 || { cat "$tmp/err"; fail "no answer to: $1"; }
}
mark() { ask mark; echo "${answer#mark }"; }
ask mark
mkdir "$tmp/m" "$tmp/f"
nbdfuse "$tmp/f" "nbd+unix:///?socket=$tmp/s" 2>"$tmp/fuse.err" &
pids+=($!)
for _ in $(seq 100); do [ -e "$tmp/f/nbd" ] && break; sleep 0.05; done
[ -e "$tmp/f/nbd" ] || { cat "$tmp/fuse.err"; echo "no FUSE here"; exit 77; }
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$tmp/f/nbd" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail mkfs; }
loop=$(losetup -f --show "$tmp/f/nbd") || { echo "no loop device"; exit 77; }
mount -o commit=1 "$loop" "$tmp/m" || { echo "cannot mount"; exit 77; }
first=$(mark)
points=()
for i in $(seq 12); do
    mkdir "$tmp/m/d$i"
    yes "line $i" | head -c $((i * 30011)) >"$tmp/m/d$i/file"
    [ "$i" -gt 3 ] && rm -r "$tmp/m/d$((i - 3))"
    [ "$i" -gt 4 ] && mv "$tmp/m/d$((i - 1))/file" "$tmp/m/d$((i - 1))/moved"
    sync -f "$tmp/m"
    points+=("$(mark)")
done
umount "$tmp/m"
losetup -d "$loop"
loop=
last=$(mark)
echo "$((last - first)) changes of files between mounting and unmounting"

bad=0
for ((k = 0; k < POINTS; k++)); do
    n=$((first + (last - first) * k / POINTS + (RANDOM % 7)))
    [ $n -gt "$last" ] && n=$last
    ask "crash $n $((k % 3)) $tmp/image"
    [ "$answer" = ok ] || fail "crash $n: $answer"
    e2fsck -fy -E journal_only "$tmp/image" >"$tmp/log" 2>&1
    if ! e2fsck -fn "$tmp/image" >"$tmp/log" 2>&1; then
        cat "$tmp/log"
        echo "fsck after $n changes, kind $((k % 3))"
        bad=1
    fi
    done_=0
    for i in "${!points[@]}"; do [ "${points[i]}" -le $n ] && done_=$((i + 1)); done
    if [ $done_ -gt 0 ]; then # what was synced last, under its name of then or the later one
        debugfs -R "dump /d$done_/file $tmp/got" "$tmp/image" >/dev/null 2>&1
        [ -s "$tmp/got" ] || debugfs -R "dump /d$done_/moved $tmp/got" "$tmp/image" >/dev/null 2>&1
        if ! yes "line $done_" | head -c $((done_ * 30011)) | cmp -s - "$tmp/got"; then
            echo "after $n changes, kind $((k % 3)): d$done_/file was synced and is not there"
            bad=1
        fi
        rm -f "$tmp/got"
    fi
done
echo end >&8
exit $bad
