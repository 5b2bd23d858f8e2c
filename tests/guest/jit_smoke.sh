#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# every MODE
# The translator under guests, short enough for sanitizers: guest programs, and the first slices of
# the stock kernel (where there is one), recorded by it and run again by the interpreter with small
# caches.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# run NAME CODE OPTION...: it ends with that exit code, and runs again to the same digests.
run() {
    local name=$1 code=$2 rc
    shift 2
    "$pollux" run --engine jit --digest 8 --record "$tmp/$name" --console "$tmp/console" --timeout 250 "$@" \
        >"$tmp/out" 2>&1 </dev/null
    rc=$?
    [ $rc -eq "$code" ] || { echo "$name: exit code $rc, not $code"; cat "$tmp/out"; exit 1; }
    "$pollux" replay "$tmp/$name" --under engine=interp,cache=64 >"$tmp/out" 2>&1 &&
        grep -q ', 0 differ' "$tmp/out" && ! grep -q ' 0 digests compared' "$tmp/out" ||
        { echo "$name: run again:"; cat "$tmp/out"; exit 1; }
    echo "$name: $(tail -n 1 "$tmp/out")"
}

for name in paging exceptions strings compat; do
    run $name 33 --kernel build/tests/guest/$name.elf --memory 64
done
guest=build/guest
[ -s $guest/initrd.img ] || { echo "no stock guest: programs only"; exit 0; }
run linux 0 --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
    --append "console=ttyS0 panic=-1" --save-at "${SLICES:-150}" "$tmp/state"
