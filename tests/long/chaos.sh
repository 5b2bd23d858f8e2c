#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Chaos, five seeds: a run with its replays, a pair under load, and a guest that writes a disk.
set -u
. "$(dirname "$0")/../guests/chaos_lib.sh"
first=${SEED:-$((RANDOM + 1))}
for seed in $(seq "$first" $((first + 4))); do
    chaos_run "$seed" 20
    chaos_pair "$seed" 1000
    rm -rf "$tmp/disk" "$tmp/rec"
    truncate -s 8M "$tmp/disk"
    "$pollux" run --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
        --append "console=ttyS0 panic=-1 pollux.test=blk" --console "$tmp/console" --timeout 600 \
        --disk "$tmp/disk" --chaos "$seed" --record "$tmp/rec" 2>"$tmp/err" </dev/null ||
        fail "blk: exit code $?"
    passed blk
    slept "$tmp/err" DISK_START DISK_DONE
    "$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay of blk: exit code $?"
    cat "$tmp/out"
done
