#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Chaos, five seeds: a run with its replays, a pair under load, and a guest that writes a disk; for the
# first seed from its first instruction on, for the others from the end of a boot.
set -u
. "$(dirname "$0")/../guests/chaos_lib.sh"
first=${SEED:-$((RANDOM + 1))}
boot=(--kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256
    --append "console=ttyS0 panic=-1 quiet pollux.test=blk")
truncate -s 8M "$tmp/disk"
"$pollux" run "${boot[@]}" --console "$tmp/console" --disk "$tmp/disk" --timeout 100 \
    --save-at "pollux: no network card" "$tmp/saved" 2>"$tmp/err" </dev/null || fail "the boot: exit code $?"

for seed in $(seq "$first" $((first + 4))); do
    chaos_run "$seed" 20
    chaos_pair "$seed" 1000
    rm -rf "$tmp/rec"
    [ "$seed" = "$first" ] && start=("${boot[@]}") || start=(--load "$tmp/saved")
    "$pollux" run "${start[@]}" --console "$tmp/console" --timeout 1200 \
        --disk "$tmp/disk" --chaos "$seed" --record "$tmp/rec" 2>"$tmp/err" </dev/null ||
        fail "blk: exit code $?"
    passed blk
    cat "$tmp/err" >>"$tmp/blk"
    "$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay of blk: exit code $?"
    cat "$tmp/out"
done
# Of all seeds together: one run hands 16 requests on, which may all go without a delay.
slept "$tmp/blk" DISK_START DISK_DONE
