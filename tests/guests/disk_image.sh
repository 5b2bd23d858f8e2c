#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest on a VHDX over an image of a store: it writes to the child and reads the image below; a
# recording leaves both alone and replays; another image under the name is refused before the start.
set -u
. "$(dirname "$0")/lib.sh"
export POLLUX_STORE=$tmp/store

dd if=/dev/urandom of="$tmp/base.raw" bs=1M count=8 status=none
"$pollux" image push "$tmp/base.raw" base:1 --quiet >/dev/null || fail push
for child in top recorded; do
    "$pollux" disk create --parent image:base:1 "$tmp/$child.vhdx" || fail create
done

boot "pollux.test=blk" --disk "$tmp/top.vhdx"
[ $rc -eq 0 ] || fail "exit code $rc"
passed blk
"$pollux" disk check "$tmp/top.vhdx" || fail check
"$pollux" disk convert "$tmp/top.vhdx" "$tmp/flat.raw" || fail convert
[ "$(head -c 4 "$tmp/flat.raw" | tail -c 3)" = ELF ] || fail "the child does not hold what was written"
cmp -s <(tail -c 4M "$tmp/flat.raw") <(tail -c 4M "$tmp/base.raw") || fail "the image does not show through"
"$pollux" image export base:1 "$tmp/again.raw" >/dev/null && cmp "$tmp/again.raw" "$tmp/base.raw" || fail "the image was written"

sum=$(sha256sum "$tmp/recorded.vhdx")
boot "pollux.test=blk" --disk "$tmp/recorded.vhdx" --record "$tmp/rec"
[ $rc -eq 0 ] || fail "recorded: exit code $rc"
passed blk
[ "$(sha256sum "$tmp/recorded.vhdx")" = "$sum" ] || fail "a recording changed the child"
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail replay
grep ', 0 differ' "$tmp/out" || fail "replay: $(cat "$tmp/out")"

"$pollux" image push "$tmp/flat.raw" base:1 --quiet >/dev/null || fail push
boot "pollux.test=blk" --disk "$tmp/top.vhdx"
{ [ $rc -eq 1 ] && grep -q "relink --force" "$tmp/err"; } || fail "not refused over another image"
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" && fail "replayed over another image"
grep -q "relink --force" "$tmp/err" || fail "a replay over another image"
echo "another image is refused"
