#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pairs of different engines (R9): a translator, an interpreter, both by turns and changed at random.
# Both boot the stock kernel to redis in lockstep, no digest differs, the primary is killed and the
# other engine goes on.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for engines in jit,interp interp,jit switch,jit; do
    "$BUILD/tests/tools/duo" build/guest/vmlinuz build/guest/initrd.img "console=ttyS0 quiet" \
        --engines $engines --kill primary --after-ms 500 --timeout 100 2>"$out"
    rc=$?
    cat "$out"
    [ $rc -eq 0 ] || exit 1
    grep -q ' 0 differ' "$out" && ! grep -q ' 0 digests compared' "$out" || exit 1
done
