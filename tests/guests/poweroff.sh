#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stock guest powers off (exit code 0) with a clean dmesg; its recording replays to the same
# digests, also with everything droppable dropped; a damaged recording is refused.
set -u
. "$(dirname "$0")/lib.sh"

boot "pollux.test=poweroff" --record "$tmp/rec"
[ $rc -eq 0 ] || fail "exit code $rc"
grep -q 'pollux: dmesg clean' "$tmp/console" || fail "dmesg is not clean"
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay: exit code $?"
cat "$tmp/out"
grep -qE '^[0-9]+ slices, [1-9][0-9]* digests compared, 0 differ' "$tmp/out" || fail "replay"

size=$(stat -c %s "$tmp/rec/log.mdb")
printf '\xff' | dd of="$tmp/rec/log.mdb" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err"
rc=$?
[ $rc -eq 1 ] || fail "a damaged log: exit code $rc"
[ "$(wc -l <"$tmp/err")" -eq 1 ] || fail "not one line"
cat "$tmp/err"
