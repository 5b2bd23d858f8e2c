#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stock guest has booted to redis without a complaint of its kernel; it goes on from the state
# saved there, answers through a forwarded port, and its run from that state can be replayed.
set -u
. "$(dirname "$0")/lib.sh"

[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }
grep -q 'pollux: redis ready' $guest/redis.console || fail "no mark on the console"
grep -iE 'WARNING:|BUG:|Oops|Call Trace|unstable' $guest/redis.console && fail "the kernel complains"

port=$(free_port)
"$pollux" run --load $guest/redis.state --console "$tmp/console" --timeout 50 --record "$tmp/rec" \
    --net "user,hostfwd=tcp:$port-:6379" 2>"$tmp/err" </dev/null &
pids+=($!)
for _ in $(seq 100); do
    answer=$(redis "$port" "SET key lockstep" "GET key" 2>/dev/null)
    [ -n "$answer" ] && break
    sleep 0.1
done
[ "$answer" = '+OK $8 lockstep +OK ' ] || fail "redis answered: $answer"
kill "${pids[0]}"
wait "${pids[0]}"
rc=$?
[ $rc -eq 0 ] || fail "exit code $rc after SIGTERM"
"$pollux" replay "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay: exit code $?"
cat "$tmp/out"
grep -qE '^[0-9]+ slices, [1-9][0-9]* digests compared, 0 differ' "$tmp/out" || fail "replay"
