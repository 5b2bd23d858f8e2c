#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# --perf-map names translated code by the guest's addresses: pieces that do not overlap.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "${map:-}"' EXIT
"$BUILD/pollux" run --engine jit --perf-map --kernel build/tests/guest/paging.elf --memory 64 \
    --console "$tmp/console" --timeout 30 </dev/null >"$tmp/out" 2>&1 &
pid=$!
map=/tmp/perf-$pid.map
wait $pid
rc=$?
[ $rc -eq 33 ] || { echo "exit code $rc"; cat "$tmp/out"; exit 1; }
[ -s "$map" ] || { echo "no $map"; exit 1; }
grep -qvE '^[0-9a-f]+ [0-9a-f]+ (guest|vcpu)_[0-9a-f]+$' "$map" && { echo "odd lines:"; cat "$map"; exit 1; }
guest=$(grep -c guest_ "$map")
[ "$guest" -gt 5 ] || { echo "$guest pieces named"; exit 1; }
sort "$map" | while read -r at size name; do
    [ $((16#$at)) -ge "${end:-0}" ] || { echo "$name overlaps what is before it"; exit 1; }
    end=$((16#$at + 16#$size))
done || exit 1
echo "$guest pieces named"
