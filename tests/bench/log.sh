#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bytes of the log per 1000 guest instructions, idle and while a client does SET and GET as fast as
# it can through the forwarded port.
. "$(dirname "$0")/lib.sh"
command -v redis-benchmark >/dev/null || die "no redis-benchmark"

per_thousand() { # SECONDS: sets rate (bytes per 1000 instructions) and second (bytes a second)
    local n0 l0 v0
    monitored_info
    n0=$insns l0=$log_bytes v0=$virt_ms
    sleep "$1"
    monitored_info
    rate=$(calc "print ($log_bytes - $l0) * 1000 / ($insns - $n0)")
    second=$(calc "print ($log_bytes - $l0) * 1000 / ($virt_ms - $v0)")
}

for ((i = 0; i < repeat; i++)); do
    rm -rf "$tmp/rec"
    port=$(free_port)
    monitored_start --net "user,hostfwd=tcp:$port-:6379" --record "$tmp/rec"
    sleep 3
    per_thousand 8
    idle+=("$rate")
    timeout 60 redis-benchmark -p "$port" -t set,get -n 100000000 -c 10 -q >/dev/null 2>&1 &
    load=$!
    bench_pids+=($load)
    sleep 2
    per_thousand 6
    loaded+=("$rate") loaded_s+=("$second")
    stop $load
    monitored_stop
    note "log: idle ${idle[i]}, loaded ${loaded[i]} bytes per 1000 instructions"
done
emit "log, idle" "$(calc "printf \"%.2f bytes/1000 insns\", $(median "${idle[@]}")")"
emit "log, redis loaded (10 clients)" "$(calc "printf \"%.2f bytes/1000 insns\", $(median "${loaded[@]}")")" "" "" \
    "$(calc "printf \"%.0f KiB/s\", $(median "${loaded_s[@]}") / 1024")"
