#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What digests cost an idle VM and a loaded redis: the processor time they take, over the time of
# the host.
. "$(dirname "$0")/lib.sh"
command -v redis-benchmark >/dev/null || die "no redis-benchmark"

for kind in idle loaded; do
    shares=() counts=()
    for ((i = 0; i < repeat; i++)); do
        rm -rf "$tmp/rec"
        port=$(free_port)
        monitored_start --net "user,hostfwd=tcp:$port-:6379" --record "$tmp/rec" --digest 64
        sleep 2
        if [ $kind = loaded ]; then
            timeout 60 redis-benchmark -p "$port" -t set,get -n 100000000 -c 10 -r 10000 -q >/dev/null 2>&1 &
            load=$!
            bench_pids+=($load)
        fi
        monitored_info
        n0=$digests us0=$digest_us t0=$EPOCHREALTIME
        sleep 10
        monitored_info
        shares+=("$(calc "print ($digest_us - $us0) / ($EPOCHREALTIME - $t0) / 10000")")
        counts+=($((digests - n0)))
        note "digest $kind: ${counts[i]} digests, $((digest_us - us0)) us"
        [ $kind = loaded ] && stop $load
        monitored_stop
    done
    emit "digests, $kind" "$(calc "printf \"%.2f %% of a core\", $(median "${shares[@]}")")" "" "" \
        "$(median "${counts[@]}") digests in 10 s"
done
