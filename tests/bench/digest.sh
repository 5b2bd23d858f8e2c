#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What digests cost: the same recording (idle, and a loaded redis) replayed with a digest every 64
# slices and without, difference in processor time over the virtual time it covers. Both do the same
# work every time, so the least of the repetitions is what the host's other load disturbed least.
. "$(dirname "$0")/lib.sh"
command -v redis-benchmark >/dev/null || die "no redis-benchmark"

replay_ms() { # OPTION...: user and system time
    local TIMEFORMAT='%U %S'
    { time "$pollux" replay "$tmp/rec" "$@" >"$tmp/out" 2>&1; } 2>&1 | awk '{ print ($1 + $2) * 1000 }'
    grep -q ' 0 differ' "$tmp/out" || die "replay: $(cat "$tmp/out")"
}

for kind in idle loaded; do
    rm -rf "$tmp/rec"
    port=$(free_port)
    monitored_start --net "user,hostfwd=tcp:$port-:6379" --record "$tmp/rec" --digest 1000000000
    sleep 2
    monitored_info
    v0=$virt_ms
    if [ $kind = loaded ]; then
        timeout 60 redis-benchmark -p "$port" -t set,get -n 100000000 -c 10 -r 10000 -q >/dev/null 2>&1 &
        load=$!
        bench_pids+=($load)
    fi
    sleep 10
    [ $kind = loaded ] && stop $load
    monitored_info
    monitored_stop
    span=$(calc "print $virt_ms - $v0")
    with=() without=()
    for ((i = 0; i < repeat; i++)); do
        without+=("$(replay_ms)")
        with+=("$(replay_ms --digest 64 --digest-log "$tmp/digests")")
        note "digest $kind: ${without[i]} ms without, ${with[i]} ms with, $span ms of virtual time"
    done
    emit "digests, $kind" "$(calc "printf \"%.2f %% of a core\", ($(least "${with[@]}") - $(least "${without[@]}")) * 100 / $span")" "" "" \
        "$(wc -l <"$tmp/digests") digests in $(calc "printf \"%.1f s\", $span / 1000")"
done
