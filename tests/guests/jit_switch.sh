#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Which engine ran which part changes nothing (R9): a boot of the stock kernel, recorded while both
# ran it by turns, changed at random between runs, is equal as far as the interpreter runs it again.
set -u
. "$(dirname "$0")/lib.sh"

boot "pollux.test=poweroff" --engine switch --record "$tmp/rec"
[ $rc -eq 0 ] || fail "switch: exit code $rc"
"$pollux" replay "$tmp/rec" --under engine=interp --until 6000 >"$tmp/out" 2>"$tmp/err" || fail "engine=interp: $(cat "$tmp/err")"
grep ', 0 differ' "$tmp/out" || fail "engine=interp: $(cat "$tmp/out")"
