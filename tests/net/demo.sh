#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# The drill of `make demo` passes, and with takeover disabled it fails and says so.
cd "$(dirname "$0")/../.." || exit 1
[ "$(id -u)" = 0 ] || { echo "needs root for network namespaces"; exit 77; }
[ -s build/guest/redis.state ] || { echo "build/guest/redis.state is missing: make guest"; exit 77; }
export SECONDS_BEFORE=2 SECONDS_AFTER=3 LAB_PREFIX=plxdmt
ops/demo/demo.sh || exit 1
if out=$(TAKEOVER=no SECONDS_BEFORE=1 SECONDS_AFTER=1 ops/demo/demo.sh 2>&1); then
    echo "$out"
    echo "the drill passed although nobody took over"
    exit 1
fi
grep -q "FAILED: the client's connection" <<<"$out" || { echo "$out"; exit 1; }
echo "with takeover disabled the drill fails, as it must"
