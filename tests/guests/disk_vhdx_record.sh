#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A recording of a guest on a chain of VHDX files leaves the chain alone, and replays over it.
set -u
. "$(dirname "$0")/lib.sh"

dd if=/dev/urandom of="$tmp/base.raw" bs=1M count=8 status=none
"$pollux" disk convert "$tmp/base.raw" "$tmp/base.vhdx" || fail convert
"$pollux" disk create --parent "$tmp/base.vhdx" "$tmp/mid.vhdx" || fail create
"$pollux" disk create --parent "$tmp/mid.vhdx" "$tmp/top.vhdx" || fail create
sums=$(sha256sum "$tmp"/*.vhdx)

boot "pollux.test=blk" --disk "$tmp/top.vhdx" --record "$tmp/rec"
[ $rc -eq 0 ] || fail "recorded: exit code $rc"
passed blk
[ "$(sha256sum "$tmp"/*.vhdx)" = "$sums" ] || fail "a recording changed the chain"
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail replay
grep ', 0 differ' "$tmp/out" || fail "replay: $(cat "$tmp/out")"

