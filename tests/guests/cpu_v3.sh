#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stock kernel and its user space boot on pollux-v3 and use what it has beside pollux-v2; their
# recording is run again by the interpreter, and under no other model.
set -u
. "$(dirname "$0")/lib.sh"

boot "pollux.run=/lib64/ld-linux-x86-64.so.2,--help+redis-server,--version" --cpu pollux-v3 --engine jit --record "$tmp/rec"
[ $rc -eq 0 ] || fail "exit code $rc"
grep -q "Supporting XSAVE feature 0x004: 'AVX registers'" "$tmp/console" || fail "no AVX state"
grep -iE 'WARNING:|BUG:|Oops|Call Trace' "$tmp/console" && fail "the kernel complains"
grep 'x86-64-v3 (supported' "$tmp/console" || fail "the C library does not use it"
grep -q 'pollux: redis-server ended with 0' "$tmp/console" || fail "redis does not run"
"$pollux" replay "$tmp/rec" --cpu pollux-v3 --under engine=interp >"$tmp/out" 2>"$tmp/err" ||
    fail "replay"
grep ', 0 differ' "$tmp/out" || fail "replay: $(cat "$tmp/out")"
"$pollux" replay "$tmp/rec" --cpu pollux-v2 >"$tmp/out" 2>"$tmp/err" && fail "replayed as pollux-v2"
grep -q 'was recorded with CPU model pollux-v3, not pollux-v2' "$tmp/err" || fail "not refused by name"

boot "" --cpu pollux-v3 --save-at 40 "$tmp/state"
[ $rc -eq 0 ] || fail "save: exit code $rc"
"$pollux" run --load "$tmp/state" --cpu pollux-v2 >"$tmp/out" 2>"$tmp/err" && fail "loaded as pollux-v2"
grep -q 'was saved with CPU model pollux-v3, --cpu says pollux-v2' "$tmp/err" || fail "not refused"
"$pollux" run --load "$tmp/state" --console "$tmp/console" --save-at 80 "$tmp/again" </dev/null \
    >"$tmp/out" 2>"$tmp/err" || fail "the state does not load"
