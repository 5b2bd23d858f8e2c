#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `pollux replay` of a recording in which the guest hears something else than it was recorded with
# ends with exit code 4 and names the slice; beside the true one it shows the input; one whose log was
# damaged is refused with 1.
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
replay() { # DIR CODE
    timeout 30 "$pollux" replay "$1" >"$tmp/out" 2>"$tmp/err"
    local rc=$?
    [ $rc -eq "$2" ] || fail "replay of $1: exit code $rc, not $2"
}

timeout 30 "$pollux" run --kernel build/tests/guest/exits.elf --memory 16 --append exit \
    --record "$tmp/rec" --digest 1 --console "$tmp/console" >"$tmp/out" 2>"$tmp/err" </dev/null
rc=$?
[ $rc -eq 33 ] || fail "recording: exit code $rc"
replay "$tmp/rec" 0
grep -q ' 0 differ' "$tmp/out" || fail "no summary"

mkdir "$tmp/forged"
for f in "$tmp"/rec/*; do
    case ${f##*/} in
    log.mdb | log.end) ;;
    *) cp -r "$f" "$tmp/forged/" ;;
    esac
done
"$BUILD/tests/tools/relog" "$tmp/rec" "$tmp/forged" 2>"$tmp/err" || fail "relog"
replay "$tmp/forged" 4
grep -q 'first digest that differs is that of slice [0-9]' "$tmp/err" || fail "the slice is not named"
cat "$tmp/err"

# Beside the first recording: the input is shown, and where it makes a difference.
timeout 50 "$pollux" replay "$tmp/rec" --against "$tmp/forged" >"$tmp/out" 2>"$tmp/err"
rc=$?
[ $rc -eq 4 ] || fail "--against the forged one: exit code $rc, not 4"
grep -q 'Record [0-9]* is not the same in both recordings' "$tmp/out" || fail "the record is not named"
grep -q 'input [0-9]*, .*: entropy, .* bytes' "$tmp/out" || fail "the input is not named"
grep -q '    from byte 0: ' "$tmp/out" || fail "its bytes are not shown"
grep -q 'The first slice that differs is [0-9]' "$tmp/out" || fail "no slice"
cat "$tmp/out"

cp -r "$tmp/rec" "$tmp/damaged"
at=$(($(stat -c %s "$tmp/damaged/log.mdb") / 2))
old=$(od -An -tu1 -j $at -N 1 "$tmp/damaged/log.mdb")
printf "\\x$(printf %x $((old ^ 1)))" |
    dd of="$tmp/damaged/log.mdb" bs=1 seek=$at conv=notrunc 2>/dev/null
replay "$tmp/damaged" 1
