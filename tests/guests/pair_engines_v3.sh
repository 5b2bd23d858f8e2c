#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair of a translator and an interpreter (R9) on pollux-v3: the C library and redis use what it has
# beside pollux-v2, under load, and no digest differs.
set -u
. "$(dirname "$0")/lib.sh"

boot "" --cpu pollux-v3 --engine jit --net user --save-at "pollux: redis ready" "$tmp/state"
[ $rc -eq 0 ] && [ -s "$tmp/state" ] || fail "no state: exit code $rc"
engines_pair jit,interp 1000 --state "$tmp/state" --cpu pollux-v3
