#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs for several processors (smp_*.c), with 2 and 4 vCPUs on two threads: each must pass, and
# its log run on one thread must end in the same states. VCPUS="8 16" takes others. One of them is also
# saved on its way: what is loaded has the digest of what was saved, passes, and replays.
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

# digest DIR LINE: slice and digest of the first or last line (1 or $).
digest() {
    timeout 60 build/pollux replay --threads 1 --digest-log "$tmp/digests" "$1" >"$tmp/replay" 2>&1 || {
        echo "$1: one thread ends in other states than two"
        cat "$tmp/replay"
        bad=1
    }
    sed -n "$2p" "$tmp/digests"
}
saved_and_loaded() { # VCPUS
    local run=(timeout 60 build/pollux run --threads 2 --digest 1 --console "$tmp/console" --timeout 55)
    local elf=build/tests/guest/smp_locks.elf
    rm -rf "$tmp/before" "$tmp/after"
    "${run[@]}" --kernel $elf --memory 64 --vcpus "$1" --record "$tmp/before" --save-at "ok tickets" "$tmp/state" \
        >"$tmp/err" 2>&1 </dev/null || { cat "$tmp/err"; return 1; }
    "${run[@]}" --load "$tmp/state" --record "$tmp/after" >"$tmp/err" 2>&1 </dev/null
    [ $? -eq 33 ] || { cat "$tmp/console" "$tmp/err"; return 1; }
    local was now
    was=$(digest "$tmp/before" '$')
    now=$(digest "$tmp/after" 1)
    [ -n "$was" ] && [ "$was" = "$now" ] || { echo "saved '$was', loaded '$now'"; return 1; }
    echo "$1 vCPUs, saved and loaded: $was; $(tail -n 1 "$tmp/console")"
}
for vcpus in ${VCPUS:-2 4}; do
    saved_and_loaded "$vcpus" || {
        echo "$vcpus vCPUs: a state file does not go on as what was saved"
        bad=1
    }
done
exit $bad
