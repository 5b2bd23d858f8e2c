#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: a second lab of the same prefix that spoils the first, or fails without saying why; one
# that cannot be made because a killed script left its own.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
LAB_PREFIX=${LAB_TWICE_PREFIX:-plxtwo}
out=$(mktemp)
first=
fail() { echo "FAIL: $*"; cat "$out"; exit 1; }
done_here() { # before the third lab is up, the claim is the first's
    [ -z "$first" ] || kill -KILL "$first" 2>/dev/null
    rm -f "$out"
}
trap done_here EXIT
lab() { # COMMAND...: a script with a lab
    LAB_PREFIX=$LAB_PREFIX exec bash -c '. tests/net/lab.sh; lab_up; eval "$1"' lab "$1"
}

(lab 'ip netns exec "$LAB_PREFIX-1" sleep 300 & touch "$LAB/mark"; echo "up $LAB $!"; wait') >"$out" 2>&1 &
first=$!
lab_wait 30 grep -q '^up\|needs\|cannot' "$out"
grep -q '^up' "$out" || { tail -n 1 "$out"; wait $first; rc=$?; first=; exit $rc; }
read -r _ dir left <"$out"

second=$( (lab 'echo up') 2>&1) && fail "a second lab came up: $second"
[[ $second == *"lab '$LAB_PREFIX' is up already, of process $first"* ]] || fail "the second said: $second"
[ "$(wc -l <<<"$second")" = 1 ] || fail "the second said more: $second"
[ -e "$dir/mark" ] && kill -0 "$left" && ip netns exec "$LAB_PREFIX-3" ip link show cl0 >>"$out" ||
    fail "the second spoiled the first"

kill -KILL $first
wait $first 2>/dev/null
first=
[ -e "$dir/mark" ] && kill -0 "$left" || fail "the first left nothing"
third=$( (lab 'echo up') 2>&1) || fail "no lab after a killed one: $third"
[ "$third" = up ] || fail "the third said: $third"
[ -z "$(lab_began "$left")" ] || fail "what ran in the first lab still does" # it may wait to be reaped
[ ! -e "$dir" ] || fail "the first's files are still there"
[ ! -e "/run/netns/$LAB_PREFIX-1" ] || fail "the third's namespaces are still there"
