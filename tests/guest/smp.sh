#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs for several processors (smp_*.c), with 2 and 4 vCPUs on one and on two threads:
# each must pass, and print the same whatever runs it. VCPUS="8 16" takes others.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for elf in build/tests/guest/smp_*.elf; do
    name=$(basename "$elf" .elf)
    for vcpus in ${VCPUS:-2 4}; do
        for threads in 1 2; do
            at=$tmp/$name.$vcpus.$threads
            timeout 60 build/pollux run --kernel "$elf" --memory 64 --vcpus "$vcpus" \
                --threads "$threads" --console "$at" --timeout 55 >"$tmp/err" 2>&1 </dev/null
            rc=$?
            if [ $rc -ne 33 ]; then
                echo "$name, $vcpus vCPUs, $threads threads: exit code $rc, not 33"
                grep -v '^ok ' "$at"
                cat "$tmp/err"
                bad=1
            fi
        done
        if ! cmp -s "$tmp/$name.$vcpus.1" "$tmp/$name.$vcpus.2"; then
            echo "$name, $vcpus vCPUs: one thread and two do not print the same:"
            diff "$tmp/$name.$vcpus.1" "$tmp/$name.$vcpus.2"
            bad=1
        fi
        echo "$vcpus vCPUs: $(tail -n 1 "$tmp/$name.$vcpus.1")"
    done
done
exit $bad
