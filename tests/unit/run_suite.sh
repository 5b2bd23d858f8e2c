#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/run counts what it ran; what it should have run and did not is a failure, not silence. On a
# tree of its own.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/tests/unit" "$tmp/tests/net" "$tmp/build/tests/unit"
cp tests/run "$tmp/tests/run"
script() { # PATH EXIT_CODE
    printf '#!/bin/sh\nexit %s\n' "$2" >"$tmp/$1"
    chmod +x "$tmp/$1"
}
script build/tests/unit/test_good 0
script tests/unit/good.sh 0
script tests/net/skips.sh 77
echo "helper=1" >"$tmp/tests/net/lib.sh"

tried=0
# suite WHAT PASSED FAILED SKIPPED [VARIABLE=VALUE]... [-- TEXT]: the last line, the exit code, a text
suite() {
    local what=$1 totals="$2 passed, $3 failed, $4 skipped" wanted=$(($3 > 0)) said rc env=()
    shift 4
    while [ $# -gt 0 ] && [ "$1" != -- ]; do env+=("$1"); shift; done
    said=$(env -u T -u REQUIRE -u LIMIT -u MODE BUILD=build JOBS=1 "${env[@]}" "$tmp/tests/run" check \
        build/tests/unit/test_good ${program:-} 2>&1)
    rc=$?
    tried=$((tried + 1))
    if [ $rc -ne $wanted ] || [ "$(tail -n 1 <<<"$said")" != "$totals" ] || [[ $said != *"${2:-}"* ]]; then
        echo "$what: exit code $rc, wanted $wanted and '$totals' ${2:-}:"
        echo "$said"
        exit 1
    fi
}
suite "as it is" 2 0 1
suite "a required test skips" 2 1 0 REQUIRE=net/skips.sh
suite "the same without .sh" 2 1 0 REQUIRE=unit/good,net/skips
suite "required and run" 2 0 1 REQUIRE=unit/good.sh,unit/good,unit/test_good
suite "no such test" 2 1 1 REQUIRE=net/nothing -- "net/nothing: required, but no test"
suite "what others read is no test" 2 1 1 REQUIRE=net/lib -- "net/lib: required, but no test"
suite "half a name" 2 1 1 REQUIRE=skips
suite "T leaves out what is required" 1 0 0 T=good.sh REQUIRE=net/skips
suite "T, and no such test" 1 1 0 T=good.sh REQUIRE=net/nothing
suite "T, and what is required skips" 0 1 0 T=skips REQUIRE=net/skips
program=build/tests/unit/test_gone suite "a program is not there" 2 1 1 -- "unit/test_gone: not there"
chmod -x "$tmp/tests/unit/good.sh"
suite "a script is not executable" 1 1 1 -- "unit/good.sh: not there, or not executable"
suite "T leaves it out" 1 0 0 T=test_good
echo "$tried ways to run a suite"
