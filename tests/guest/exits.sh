#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Exit codes of `pollux run`, one for each way a VM ends; and its terminal: typed bytes reach the
# guest, Ctrl-A x quits, Ctrl-A c is a monitor that can save, Ctrl-A a is Ctrl-A.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

run() { # APPEND OPTION...; sets rc
    local append=$1
    shift
    timeout 20 "$pollux" run --kernel build/tests/guest/exits.elf --memory 16 --append "$append" \
        --console "$tmp/console" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
}
expect() { # WHAT CODE
    if [ "$rc" -eq "$2" ]; then
        echo "ok $1"
    else
        echo "FAIL $1: exit code $rc, not $2"
        cat "$tmp/err"
        bad=1
    fi
}

run exit; expect "debug exit" 33
run triple; expect "triple fault" 3
run off; expect "power-off" 0
run reset; expect "reset" 0
run spin --timeout 2; expect "timeout of a busy guest" 124
run sleep --timeout 2; expect "timeout of a dead one" 124
run spin --save-at ready "$tmp/state"; expect "save at a mark" 0
run spin --save-at 50 "$tmp/state50"; expect "save at a slice" 0
for state in state state50; do
    timeout 20 "$pollux" run --load "$tmp/$state" --console "$tmp/console" --timeout 1 2>"$tmp/err"
    rc=$?
    expect "a loaded state goes on ($state)" 124
done
head -c 10000 "$tmp/state" >"$tmp/cut"
timeout 20 "$pollux" run --load "$tmp/cut" --console "$tmp/console" 2>"$tmp/err"
rc=$?
expect "a truncated state" 1

command -v script >/dev/null || { echo "no script(1): terminal not tried"; exit $bad; }
terminal() { # what to type, as PAUSE BYTES...; the screen goes to $tmp/screen
    while [ $# -gt 0 ]; do
        sleep "$1"
        printf '%b' "$2"
        shift 2
    done | timeout 20 script -qec "$pollux run --kernel build/tests/guest/exits.elf --memory 16 \
        --append echo --timeout 15" "$tmp/screen" >/dev/null 2>&1
    rc=$?
}
terminal 1 'ab' 0.5 '\001aq' 1 ''
expect "typing" 33
tr -d '\r' <"$tmp/screen" | grep -q '<a><b><'$'\001''><q>' || { echo "FAIL typed bytes"; cat -v "$tmp/screen"; bad=1; }
terminal 1 '\001x' 1 ''
expect "Ctrl-A x" 0
terminal 1 '\001c' 0.5 'info\r' 0.5 "save $tmp/mon\\r" 0.5 'cont\r' 0.5 'z' 0.5 '\001c' 0.5 'quit\r' 1 ''
expect "the monitor's quit" 0
grep -q 'pollux> ' "$tmp/screen" && grep -q 'slice [0-9]*, virtual time' "$tmp/screen" &&
    grep -q 'saved' "$tmp/screen" && grep -q '<z>' "$tmp/screen" && [ -s "$tmp/mon" ] ||
    { echo "FAIL the monitor"; cat -v "$tmp/screen"; bad=1; }
exit $bad
