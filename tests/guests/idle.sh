#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial: what an idle process is charged depends on what else runs
# An idle guest costs next to nothing: 20 s with redis up and nobody asking, recorded. Bounded are the
# bytes of the log and how often the process wakes. The processor time of that depends on how cold the
# host's caches are after a sleep of 100 ms (0.4 to 2.4 % of a core were seen): the aim of 1 % is
# bench/idle.sh's, and this finds a process that does not sleep.
set -u
. "$(dirname "$0")/lib.sh"
[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }

"$pollux" run --load $guest/redis.state --console /dev/null --net user --record "$tmp/rec" \
    --timeout 40 >/dev/null 2>"$tmp/err" </dev/null &
pids+=($!)

spent() { # prints CPU milliseconds, wake-ups and log bytes so far
    awk -v hz="$(getconf CLK_TCK)" '{ printf "%d ", ($14 + $15) * 1000 / hz }' "/proc/${pids[0]}/stat"
    cat "/proc/${pids[0]}"/task/*/status | awk '/^voluntary_ctxt/ { n += $2 } END { printf "%d ", n }'
    stat -c %s "$tmp/rec/log.mdb"
}
sleep 5
read -r cpu0 wakes0 log0 < <(spent)
sleep 20
read -r cpu1 wakes1 log1 < <(spent)
[ -n "${log1:-}" ] || fail "it does not run"
awk -v c=$((cpu1 - cpu0)) -v w=$((wakes1 - wakes0)) -v l=$((log1 - log0)) 'BEGIN {
    printf "%.2f %% of a core, %.1f wake-ups/s, %d log bytes/s\n", c / 200, w / 20, l / 20
    exit !(c / 200 < 10 && w / 20 < 100 && l / 20 < 2048) }' || fail "too much"
