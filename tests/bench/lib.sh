# SPDX-License-Identifier: Apache-2.0
# tests/bench/lib.sh - sourced by the measures. A measure prints "what|measured|aim|met|peer" lines on
# stdout and everything else on stderr.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
BUILD=${BUILD:-build}
pollux=$BUILD/pollux
guest=build/guest
repeat=${REPEAT:-5}
append="console=ttyS0 panic=-1"
mark="pollux: redis ready"
tmp=$(mktemp -d)
bench_pids=()

bench_cleanup() {
    local p
    for p in "${bench_pids[@]}"; do kill "$p" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$tmp"
}
trap bench_cleanup EXIT

die() { echo "$*" >&2; exit 1; }
note() { echo "$*" >&2; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
calc() { awk "BEGIN { $1 }"; }

# median N...
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
least() { printf '%s\n' "$@" | sort -g | head -n 1; }
worst() { printf '%s\n' "$@" | sort -g | tail -n 1; }

# yes if the condition (awk) holds
met() { calc "print ($1) ? \"yes\" : \"NO\""; }

# emit WHAT MEASURED AIM MET PEER
emit() { echo "$1|$2|${3:-}|${4:-}|${5:-}"; }

# Processor milliseconds process $1 has used, in user mode and in the kernel, all threads.
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/^.*\) /, ""); print ($12 + $13) * 1000 / hz }' "/proc/$1/stat"; }

# until_line TEXT FILE SECONDS PID: waits for a text in a growing file
until_line() {
    local end=$((SECONDS + $3))
    until grep -qF "$1" "$2" 2>/dev/null; do
        kill -0 "$4" 2>/dev/null || return 1
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

stop() { # PID
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 30000))
        (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || { echo $port; return; }
    done
}

# A VM from the saved state under `pollux run`, its monitor within reach.
#   monitored_start OPTION...   sets vm_pid        monitored_info   sets insns, log_bytes, virt_ms,
#                               digests, digest_us
#   monitored_stop              ends it by itself, so that a recording is whole
monitored_start() {
    rm -f "$tmp/in" "$tmp/screen"
    mkfifo "$tmp/in"
    "$pollux" run --load $guest/redis.state "$@" <"$tmp/in" >"$tmp/screen" 2>"$tmp/err" &
    vm_pid=$!
    bench_pids+=("$vm_pid")
    exec 9>"$tmp/in"
}
monitored_info() {
    local lines end=$((SECONDS + 20))
    lines=$(grep -ac instructions "$tmp/screen")
    printf '\001c' >&9
    sleep 0.1 # what follows the escape in one read would still be the guest's
    printf 'info\rcont\r' >&9
    until [ "$(grep -ac instructions "$tmp/screen")" -gt "$lines" ]; do
        [ $SECONDS -lt "$end" ] || die "the monitor does not answer"
        kill -0 "$vm_pid" 2>/dev/null || die "the VM ended: $(tail -n 1 "$tmp/err")"
        sleep 0.02
    done
    sleep 0.1
    insns=$(grep -ao '[0-9]* instructions' "$tmp/screen" | tail -n 1 | cut -d' ' -f1)
    virt_ms=$(grep -ao 'virtual time [0-9.]*' "$tmp/screen" | tail -n 1 | awk '{ print $3 * 1000 }')
    read -r digests digest_us < <(grep -ao 'digests: [0-9]* in [0-9]*' "$tmp/screen" | tail -n 1 | awk '{ print $2, $4 }')
    log_bytes=$(grep -ao 'log: [0-9]*' "$tmp/screen" | tail -n 1 | cut -d' ' -f2)
}
monitored_stop() {
    printf '\001x' >&9
    exec 9>&-
    wait "$vm_pid"
}
