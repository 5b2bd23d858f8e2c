#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzz target over its corpus, each input whole, cut and changed; as many targets at once as there
# are processors.
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
replay() { # TARGET
    local said
    said=$("$BUILD/tests/fuzz/replay_$1" "tests/fuzz/corpus/$1/"* 2>&1)
    local rc=$?
    echo "$1: $said"
    return $rc
}
export -f replay
ls tests/fuzz/corpus | xargs -P "$(nproc)" -I{} bash -c 'replay {}'
