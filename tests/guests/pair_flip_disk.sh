#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A byte changed in the backup's overlay, in a block that no guest reads, is reported within the
# scrub time, with its block; the backup leaves and the primary goes on alone.
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
out=$(mktemp)
disk=$(mktemp)
trap 'rm -f "$out" "$disk"' EXIT
truncate -s 64M "$disk"
seed=${SEED:-$((RANDOM + 1))}
timeout 30 "$BUILD/tests/tools/duo" build/guest/vmlinuz build/guest/initrd.img "console=ttyS0" \
    --disk "$disk" --scrub-ms 1000 --flip-disk "$seed" --mark "Linux version" --timeout 25 \
    >"$out" 2>&1 || { echo "seed $seed: exit code $?"; cat "$out"; exit 1; }
grep -h '^flip\|^found\|event host-error' "$out"
