#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# As pair_takeover.sh, with 2 vCPUs (VCPUS=n for others): two replicas boot the stock kernel to redis in
# lockstep on all of them; the primary is killed; the backup goes on.
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$BUILD/tests/tools/duo" build/guest/vmlinuz build/guest/initrd.img "console=ttyS0 quiet" \
    --vcpus "${VCPUS:-2}" --kill primary --after-ms 500 --timeout "${LIMIT:-58}" 2>"$out"
rc=$?
cat "$out"
[ $rc -eq 0 ] || exit 1
grep -q ' 0 differ' "$out" && ! grep -q ' 0 digests compared' "$out"
