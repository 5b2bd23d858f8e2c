#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs for several processors (smp_*.c), with 2 and 4 vCPUs on two threads: each must pass, and
# its log run on one thread must end in the same states. VCPUS="8 16" takes others.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for elf in build/tests/guest/smp_*.elf; do
    name=$(basename "$elf" .elf)
    for vcpus in ${VCPUS:-2 4}; do
        rm -rf "$tmp/rec"
        disk=()
        [ "$name" = smp_blk ] && disk=(--disk "$tmp/disk") && truncate -s 1M "$tmp/disk"
        timeout 60 build/pollux run --kernel "$elf" --memory 64 --vcpus "$vcpus" --threads 2 \
            --record "$tmp/rec" --digest 16 "${disk[@]}" --console "$tmp/console" --timeout 55 \
            >"$tmp/err" 2>&1 </dev/null
        rc=$?
        if [ $rc -ne 33 ]; then
            echo "$name, $vcpus vCPUs: exit code $rc, not 33"
            grep -v '^ok ' "$tmp/console"
            cat "$tmp/err"
            bad=1
            continue
        fi
        timeout 60 build/pollux replay --threads 1 "$tmp/rec" >"$tmp/replay" 2>&1 || {
            echo "$name, $vcpus vCPUs: one thread ends in other states than two"
            build/pollux replay "$tmp/rec" --against threads=1 2>&1 | head -n 40
            bad=1
        }
        echo "$vcpus vCPUs: $(tail -n 1 "$tmp/console"); $(tail -n 1 "$tmp/replay")"
    done
done
exit $bad
