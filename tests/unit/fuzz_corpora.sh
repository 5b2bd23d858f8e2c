#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzz target over its corpus, each input whole, cut and changed.
cd "$(dirname "$0")/../.." || exit 1
bad=0
for dir in tests/fuzz/corpus/*/; do
    name=$(basename "$dir")
    echo -n "$name: "
    "${BUILD:-build}/tests/fuzz/replay_$name" "$dir"* || bad=1
done
exit $bad
