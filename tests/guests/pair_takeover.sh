#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two replicas boot the stock kernel to redis in lockstep; the primary is killed; the backup goes on.
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$BUILD/tests/tools/duo" build/guest/vmlinuz build/guest/initrd.img "console=ttyS0 quiet" \
    --kill primary --after-ms 500 --timeout 55 2>"$out"
rc=$?
cat "$out"
[ $rc -eq 0 ] || exit 1
grep -q ' 0 differ' "$out" && ! grep -q ' 0 digests compared' "$out"
