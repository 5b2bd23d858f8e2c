# SPDX-License-Identifier: Apache-2.0
# tests/guests/lib.sh - sourced by the tests that run the stock guest under `pollux run`.
cd "$(dirname "$0")/../.." || exit 1
guest=build/guest
pollux=${BUILD:-build}/pollux
[ -s $guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
tmp=$(mktemp -d)
pids=()
cleanup() {
    local p
    for p in "${pids[@]:-}"; do
        [ -n "$p" ] && kill "$p" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*"
    [ -s "$tmp/console" ] && tail -n 15 "$tmp/console"
    [ -s "$tmp/err" ] && cat "$tmp/err"
    exit 1
}

# boot APPEND [OPTION...]: the stock guest on 256 MiB, console in $tmp/console; sets rc.
boot() {
    local append=$1
    shift
    "$pollux" run --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
        --append "console=ttyS0 panic=-1 $append" --console "$tmp/console" --timeout 55 "$@" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
}

# The guest's own verdict on test NAME.
passed() {
    grep -q "^pollux: test $1 passed" "$tmp/console" || fail "the guest says: test $1 did not pass"
}

# The guest's kernel takes its TSC for one of 1000 MHz, within 500 ppm, wherever it says so; sets mhz
# and refined, which it says only if it measured.
calibrated() {
    local f
    mhz=$(sed -n 's/.*tsc: Detected \([0-9.]*\) MHz processor.*/\1/p' "$tmp/console" | head -n 1)
    refined=$(sed -n 's/.*tsc: Refined TSC clocksource calibration: \([0-9.]*\) MHz.*/\1/p' "$tmp/console" | head -n 1)
    for f in "$mhz" ${refined:+"$refined"}; do
        awk -v f="$f" 'BEGIN { d = f - 1000; exit !(d < 0.5 && d > -0.5) }' || fail "calibrated to $f MHz"
    done
}

# wait_for TEXT FILE SECONDS
wait_for() {
    local end=$((SECONDS + $3))
    until grep -qF "$1" "$2" 2>/dev/null; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# redis PORT COMMAND...: inline commands on one connection; the replies on one line.
redis() {
    local port=$1
    shift
    printf '%s\r\n' "$@" QUIT | timeout 20 bash -c \
        "exec 3<>/dev/tcp/127.0.0.1/$port; cat >&3; cat <&3" | tr -d '\r' | tr '\n' ' '
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 30000))
        (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || { echo $port; return; }
    done
}

# loaded_pair REQUESTS OPTION...: a pair from the saved guest serves a benchmark that counts; every
# reply comes, none is doubled. What duo says is in $tmp/err.
loaded_pair() {
    local requests=$1
    shift
    [ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }
    [ "$(id -u)" -eq 0 ] || { echo "TAPs need root"; exit 77; }
    # The TAP has the address and the MAC of the gateway that the saved guest knows.
    timeout 300 unshare -n bash -c '
        ip link set lo up && ip tuntap add dev p0 mode tap && ip tuntap add dev b0 mode tap &&
        ip link set p0 address 52:55:0a:00:02:02 && ip addr add 10.0.2.2/24 dev p0 &&
        ip link set p0 up && ip link set b0 up || exit 1
        exec "$0" "$@"' "${BUILD:-build}/tests/tools/duo" - - - --state $guest/redis.state \
        --taps p0,b0 "$@" --exec "
            redis-benchmark -h 10.0.2.15 -c 4 -n $requests -q incr n >'$tmp/bench' 2>&1 &&
            [ \"\$(redis-cli -h 10.0.2.15 get n)\" = $requests ]" >"$tmp/out" 2>"$tmp/err" ||
        fail "the pair: exit code $?, $(cat "$tmp/bench")"
}

# engines_pair NAME,NAME REQUESTS OPTION...: a loaded pair of these engines (R9); digests were compared,
# and none differs.
engines_pair() {
    local engines=$1 requests=$2
    shift 2
    loaded_pair "$requests" --engines "$engines" --digest 8 --timeout 28 "$@"
    grep '^\[' "$tmp/err"
    grep -q '^\[1\].* 0 differ' "$tmp/err" && ! grep -q '^\[1\].* 0 digests compared' "$tmp/err" ||
        fail "$engines: $(grep '^\[1\]' "$tmp/err")"
}

# engines_take_over NAME,NAME: that, then the primary is killed and the other engine goes on.
engines_take_over() {
    engines_pair "$1" 2000 --kill primary
    grep -q 'event takeover' "$tmp/err" || fail "$1: no takeover"
}
