#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest on a differencing VHDX: it writes to the child and its parent stays as it is; a changed
# parent is refused before the start.
set -u
. "$(dirname "$0")/lib.sh"

dd if=/dev/urandom of="$tmp/base.raw" bs=1M count=8 status=none
"$pollux" disk convert "$tmp/base.raw" "$tmp/base.vhdx" || fail convert
"$pollux" disk create --parent "$tmp/base.vhdx" "$tmp/mid.vhdx" || fail create
"$pollux" disk create --parent "$tmp/mid.vhdx" "$tmp/top.vhdx" || fail create
sums=$(sha256sum "$tmp"/*.vhdx)

boot "pollux.test=blk" --disk "$tmp/top.vhdx"
[ $rc -eq 0 ] || fail "exit code $rc"
passed blk
[ "$(sha256sum "$tmp/base.vhdx" "$tmp/mid.vhdx")" = "$(grep -v top <<<"$sums")" ] || fail "a parent was written"
"$pollux" disk check "$tmp/top.vhdx" || fail check
"$pollux" disk convert "$tmp/top.vhdx" "$tmp/flat.raw" || fail convert
[ "$(head -c 4 "$tmp/flat.raw" | tail -c 3)" = ELF ] || fail "the child does not hold what was written"
cmp -s <(tail -c 4M "$tmp/flat.raw") <(tail -c 4M "$tmp/base.raw") || fail "the parent does not show through"

"$pollux" disk serve --socket "$tmp/s" "$tmp/mid.vhdx" &
pids+=($!)
until [ -S "$tmp/s" ]; do sleep 0.05; done
qemu-io -f raw -c "write 0 4k" "nbd+unix:///?socket=$tmp/s" >/dev/null || fail "qemu-io"
boot "pollux.test=blk" --disk "$tmp/top.vhdx"
{ [ $rc -eq 1 ] && grep -q "open for writing elsewhere" "$tmp/err"; } || fail "not refused while the parent is written"
kill "${pids[0]}" && wait "${pids[0]}"
boot "pollux.test=blk" --disk "$tmp/top.vhdx"
{ [ $rc -eq 1 ] && grep -q "relink --force" "$tmp/err"; } || fail "not refused after the parent was written"
echo "a changed parent is refused"
