#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A busy redis under --chaos (delays at every queue, tiny caches, everything droppable dropped, the
# state saved and loaded in place) answers rightly, and its recording replays to the same digests
# without chaos and under another seed.
set -u
. "$(dirname "$0")/lib.sh"
[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }

seed=${SEED:-$((RANDOM + 1))}
echo "seed $seed"
port=$(free_port)
"$pollux" run --load $guest/redis.state --console "$tmp/console" --timeout 40 --record "$tmp/rec" \
    --chaos "$seed" --digest 8 --net "user,hostfwd=tcp:$port-:6379" 2>"$tmp/err" </dev/null &
pids+=($!)
commands=()
for i in $(seq 50); do
    commands+=("INCR n" "SET key$i value$i" "GET key$i")
done
for _ in $(seq 100); do
    answer=$(redis "$port" "${commands[@]}" 2>/dev/null)
    [ -n "$answer" ] && break
    sleep 0.1
done
for _ in $(seq 20); do
    answer=$(redis "$port" "${commands[@]}")
done
kill "${pids[0]}"
wait "${pids[0]}"
rc=$?
[ $rc -eq 0 ] || fail "exit code $rc"
[[ $answer == *':1050 +OK $7 value50 +OK ' ]] || fail "redis answered: $answer"
for how in "" "--chaos $((seed + 1))"; do
    # shellcheck disable=SC2086
    "$pollux" replay $how "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay $how: exit code $?"
    cat "$tmp/out"
done
