#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# As jit.sh, with two vCPUs on two threads: recorded by the interpreter, run again by the translator.
set -u
. "$(dirname "$0")/lib.sh"

boot "pollux.test=poweroff" --engine interp --vcpus 2 --threads 2 --record "$tmp/two"
[ $rc -eq 0 ] || fail "interp: exit code $rc"
"$pollux" replay "$tmp/two" --under engine=jit,threads=2 >"$tmp/out" 2>"$tmp/err" || fail "engine=jit: $(cat "$tmp/err")"
grep ', 0 differ' "$tmp/out" || fail "engine=jit: $(cat "$tmp/out")"
