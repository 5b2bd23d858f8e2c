#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Translated and interpreted runs of one log are equal (R9): the stock kernel's boot recorded by the
# translator and run again by the interpreter, and under chaos with small caches, where translations
# come and go all the time. The other way round, with two vCPUs: jit_smp.sh.
set -u
. "$(dirname "$0")/lib.sh"

# same DIR CONDITIONS [OPTION...]
same() {
    local dir=$1 under=$2
    shift 2
    "$pollux" replay "$dir" --under "$under" "$@" >"$tmp/out" 2>"$tmp/err" || fail "$dir under $under"
    grep ', 0 differ' "$tmp/out" || fail "$dir under $under: $(cat "$tmp/out")"
}

boot "pollux.test=poweroff" --engine jit --record "$tmp/one"
[ $rc -eq 0 ] || fail "jit: exit code $rc"
same "$tmp/one" engine=interp
same "$tmp/one" engine=jit,chaos=11,cache=16 --until 400
