#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One log, many ways to run it: guests of several vCPUs are recorded under chaos, then replayed on 1, 2
# and 4 threads, on one core, with caches of a few entries, on an engine chosen at random, under other chaos
# (delays at every barrier and when pages change hands, everything that may be dropped dropped, saved and loaded in place). Every
# digest must be equal. Whatever was chosen, one replay is of translated code with small caches, and
# one changes engines as it runs.
#
#   VCPUS=n (2)  RUNS=n (1)  SEED=n (the day's)  GUESTS="locks tables linux" (programs)
#   ENGINES="interp jit switch" (those to choose from; switch changes between runs)  CACHE=n (entries of the small caches, 16; 1 is slow)
#
# Two of the programs are Linux: `linux` from its first instruction on, whose caches have never less than 16
# entries, for a boot takes hours with one; and `saved`, which goes on from a boot that is over.
#
# A failure prints the seed, and what `pollux replay --against` says of it.
set -u
. "$(dirname "$0")/lib.sh"

vcpus=${VCPUS:-2}
runs=${RUNS:-1}
seed=${SEED:-$(date +%Y%m%d)}
guests=${GUESTS:-locks tables code blk}
read -ra engines <<<"${ENGINES:-interp jit switch}"
echo "seed $seed, $vcpus vCPUs, $runs runs of: $guests"
RANDOM=$((seed % 32768))
replays=0 compared=0
limit=1800 # seconds of one replay
loads="work,futex,$vcpus,4000+work,faults,$vcpus,4+work,fork,$vcpus,8"

record() { # GUEST CHAOS DIR
    local args=(--kernel "build/tests/guest/smp_$1.elf" --memory 64 --vcpus "$vcpus")
    if [ "$1" = linux ] || [ "$1" = saved ]; then
        [ -s build/guest-work/initrd.img ] || make --no-print-directory guest PROFILE=work >/dev/null ||
            fail "no guest (make guest PROFILE=work)"
        args=(--kernel build/guest-work/vmlinuz --initrd build/guest-work/initrd.img --memory 256
            --append "console=ttyS0 panic=-1 quiet pollux.run=$loads" --vcpus "$vcpus")
    fi
    if [ "$1" = saved ]; then
        "$pollux" run "${args[@]}" --console "$tmp/console" --save-at "pollux: no network card" "$tmp/saved" \
            --timeout 300 >"$tmp/out" 2>"$tmp/err" </dev/null || fail "$1: the boot: exit code $?"
        args=(--load "$tmp/saved")
    fi
    [ "$1" = blk ] && truncate -s 1M "$tmp/disk" && args+=(--disk "$tmp/disk")
    "$pollux" run "${args[@]}" --threads 2 --chaos "$2" --record "$3" \
        --digest 16 --console "$tmp/console" --timeout 1200 >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
    grep '^chaos: ' "$tmp/err" >>"$tmp/chaos"
    if [ "$1" = linux ] || [ "$1" = saved ]; then
        [ $rc -eq 0 ] && [ "$(grep -c 'pollux: work ended with 0' "$tmp/console")" = 3 ] && return
    fi
    [ $rc -eq 33 ] || fail "seed $seed: $1 under chaos $2: exit code $rc"
}

replay_as() { # DIR CONDITIONS COMMAND...
    replay_with "${engines[RANDOM % ${#engines[@]}]}" "$@"
}

replay_with() { # ENGINE DIR CONDITIONS COMMAND...
    local dir=$2 conditions="engine=$1,$3"
    shift 3
    timeout $limit "$@" "$pollux" replay --under "$conditions" "$dir" >"$tmp/out" 2>"$tmp/err"
    rc=$?
    [ $rc -ne 124 ] || fail "seed $seed: replay under $conditions of $guest takes more than $limit s"
    [ $rc -eq 0 ] || {
        cat "$tmp/out"
        "$pollux" replay "$dir" --against "threads=1" 2>&1 | head -n 40
        fail "seed $seed: replay under $conditions of $guest differs from its recording"
    }
    replays=$((replays + 1))
    compared=$((compared + $(sed -n 's/.* \([0-9]*\) digests compared.*/\1/p' "$tmp/out")))
    grep '^chaos: ' "$tmp/err" >>"$tmp/chaos"
}

for ((run = 0; run < runs; run++)); do
    for guest in $guests; do
        dir=$tmp/rec
        rm -rf "$dir"
        began=$SECONDS
        record "$guest" $((1 + RANDOM)) "$dir"
        for threads in 1 2 4; do
            [ $threads -le "$vcpus" ] && replay_as "$dir" "threads=$threads" env
        done
        replay_as "$dir" "threads=2" taskset -c 0
        replay_as "$dir" "threads=2,chaos=$((1 + RANDOM))" env
        entries=${CACHE:-16}
        [ "$guest" = linux ] && [ "$entries" -lt 16 ] && entries=16
        replay_as "$dir" "threads=1,cache=$entries,chaos=$((1 + RANDOM))" env
        # With one entry nothing is translated: two is the least that translated code looks up in.
        [ "$entries" -lt 2 ] && entries=2
        replay_with jit "$dir" "threads=2,cache=$entries,chaos=$((1 + RANDOM))" env
        replay_with switch "$dir" "threads=2" env
        echo "$guest: $((SECONDS - began)) s, $compared digests compared"
    done
done
echo "$replays replays, $compared digests compared, 0 differ"
[ $compared -gt 0 ] || fail "nothing was compared"
for point in BARRIER OWNER; do
    grep -q "$point [1-9][0-9]*/" "$tmp/chaos" || fail "no delay at $point"
done
