#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial: processor time is measured
# An idle guest costs less than 1 % of a host core and its log less than 2 KiB/s: the difference
# between a run of 5 s and one of 25 s, both from the state with redis up.
set -u
. "$(dirname "$0")/lib.sh"
[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }

run_for() { # SECONDS; prints CPU milliseconds and log bytes
    local TIMEFORMAT='%U %S' spent
    spent=$({ time "$pollux" run --load $guest/redis.state --console /dev/null --net user \
        --record "$tmp/rec$1" --timeout "$1" >/dev/null 2>"$tmp/err" </dev/null; } 2>&1)
    echo "$(awk '{printf "%d", ($1 + $2) * 1000}' <<<"$spent") $(stat -c %s "$tmp/rec$1/log.mdb")"
}
read -r cpu0 log0 < <(run_for 5)
read -r cpu1 log1 < <(run_for 25)
awk -v c=$((cpu1 - cpu0)) -v l=$((log1 - log0)) 'BEGIN {
    printf "%.2f %% of a core, %d log bytes/s\n", c / 200, l / 20
    exit !(c / 200 < 1 && l / 20 < 2048) }' || fail "too much"
