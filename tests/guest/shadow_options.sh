#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `pollux run --shadow`: each switch of the shadow tables does switch its feature off (its counter stays
# away), and recordings made with it replay to the same digests with it and without. Of lazy-ad, which is
# state of several vCPUs, a recording and a saved state know their own value; another one is refused by name.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
pollux=$BUILD/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
    echo "FAIL: $*"
    cat "$tmp/out" "$tmp/err"
    exit 1
}
record() { # NAME OPTION...
    local name=$1
    shift
    timeout 55 "$pollux" run --kernel build/tests/guest/smp_tables.elf --memory 64 --vcpus 2 --threads 2 \
        --stats --digest 1 --record "$tmp/$name" "$@" --console "$tmp/console" --timeout 50 \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    local rc=$?
    [ $rc -eq 33 ] || fail "$name: exit code $rc"
    cp "$tmp/err" "$tmp/$name.stats"
}
replay() { # CODE NAME OPTION...
    local want=$1 name=$2
    shift 2
    timeout 55 "$pollux" replay --under engine=jit "$tmp/$name" "$@" >"$tmp/out" 2>"$tmp/err"
    local rc=$?
    [ $rc -eq "$want" ] || fail "replay $* of $name: exit code $rc, not $want"
}
counts() { # NAME COUNTER
    grep -q "^shadow:.* $2=" "$tmp/$1.stats"
}

record on
while read -r option counter; do
    record "$option" --shadow "$option"
    if [ -n "$counter" ]; then # of tagged: tests/unit/test_shadow.c
        counts on "$counter" || fail "$counter is not counted with the default"
        ! counts "$option" "$counter" || fail "$option leaves $counter"
    fi
    replay 0 "$option"
    replay 0 on --shadow "$option"
done <<'END'
tagged=off
batch=1 batch_filled
batch-shootdown=off shootdowns_batched
END

record eager --shadow lazy-ad=off
counts on owed || fail "nothing is owed with lazy-ad=on"
! counts eager owed || fail "lazy-ad=off owes"
replay 0 eager
replay 0 eager --shadow lazy-ad=off,tagged=off
replay 1 on --shadow lazy-ad=off
grep -q 'was recorded with lazy-ad=on, not off' "$tmp/err" || fail "lazy-ad is not named"
replay 1 eager --shadow lazy-ad=on
grep -q 'was recorded with lazy-ad=off, not on' "$tmp/err" || fail "lazy-ad is not named"

load() { # CODE OPTION...
    local want=$1
    shift
    timeout 55 "$pollux" run --load "$tmp/state" "$@" --console "$tmp/console" --timeout 50 \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    local rc=$?
    [ $rc -eq "$want" ] || fail "run --load $*: exit code $rc, not $want"
}
timeout 55 "$pollux" run --kernel build/tests/guest/smp_tables.elf --memory 64 --vcpus 2 --save-at 3 "$tmp/state" \
    --timeout 50 --console "$tmp/console" >"$tmp/out" 2>"$tmp/err" </dev/null || fail "no state"
load 1 --shadow lazy-ad=off
grep -q 'was saved with lazy-ad=on, not off' "$tmp/err" || fail "lazy-ad of a state is not named"
load 33 --shadow lazy-ad=on,tagged=off
echo "each switch of the shadow tables works, and changes no digest"
