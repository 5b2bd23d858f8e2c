#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair of a translator and an interpreter (R9) on pollux-v3: the C library and redis use what it has
# beside pollux-v2, under load, and no digest differs.
set -u
. "$(dirname "$0")/lib.sh"

boot "" --cpu pollux-v3 --engine jit --net user --save-at "pollux: redis ready" "$tmp/state"
[ $rc -eq 0 ] && [ -s "$tmp/state" ] || fail "no state: exit code $rc"
loaded_pair 1000 --state "$tmp/state" --cpu pollux-v3 --engines jit,interp --digest 8 --timeout 28
grep '^\[' "$tmp/err"
grep -q '^\[1\].* 0 differ' "$tmp/err" && ! grep -q '^\[1\].* 0 digests compared' "$tmp/err" ||
    fail "$(grep '^\[1\]' "$tmp/err")"
