# SPDX-License-Identifier: Apache-2.0
# For chaos.sh, pair_chaos.sh and their long versions. Chaos is: delays wherever something is handed
# on (base/chaos.h), caches of 16 entries, everything droppable dropped and the state saved and
# loaded in place at random.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }

# slept FILE POINT...: chaos did reach each of these; and of all who tell in FILE each dropped
# everything and reloaded its state.
slept() {
    local file=$1 point
    shift
    grep -q 'chaos: drops' "$file" || fail "no word about chaos: $(tail -n 2 "$file")"
    ! grep 'chaos: drops' "$file" | grep -vE 'drops [1-9][0-9]*, reloads [1-9]' || fail "nothing dropped or reloaded"
    for point in "$@"; do
        grep -q "chaos: .*$point [1-9][0-9]*/" "$file" || fail "no delay at $point: $(grep chaos: "$file")"
    done
}

# chaos_run SEED ROUNDS: a busy redis answers rightly, and its recording replays to the same digests
# without chaos and under another seed.
chaos_run() {
    local seed=$1 rounds=$2 port rc answer how commands=()
    echo "seed $seed"
    port=$(free_port)
    rm -rf "$tmp/rec"
    "$pollux" run --load $guest/redis.state --console "$tmp/console" --timeout 600 \
        --record "$tmp/rec" --chaos "$seed" --digest 8 --net "user,hostfwd=tcp:$port-:6379" \
        2>"$tmp/err" </dev/null &
    pids=($!)
    for i in $(seq 50); do
        commands+=("INCR n" "SET key$i value$i" "GET key$i")
    done
    for _ in $(seq 300); do
        answer=$(redis "$port" "${commands[@]}" 2>/dev/null)
        [ -n "$answer" ] && break
        sleep 0.1
    done
    for _ in $(seq "$rounds"); do
        answer=$(redis "$port" "${commands[@]}")
    done
    kill "${pids[0]}"
    wait "${pids[0]}"
    rc=$?
    pids=()
    [ $rc -eq 0 ] || fail "exit code $rc"
    [[ $answer == *":$((50 * (rounds + 1))) +OK \$7 value50 +OK " ]] || fail "redis answered: $answer"
    slept "$tmp/err" GATHER SEALED RAN RELEASE
    for how in "" "--chaos $((seed + 1))"; do
        # shellcheck disable=SC2086
        "$pollux" replay $how "$tmp/rec" >"$tmp/out" 2>"$tmp/err" || fail "replay $how: exit code $?"
        cat "$tmp/out"
    done
}

# chaos_pair SEED REQUESTS: a pair, each with its own chaos, serves a benchmark that counts: every
# reply comes, none is doubled, the digests are equal and nobody leaves.
chaos_pair() {
    local seed=$1 requests=$2
    echo "seed $seed"
    loaded_pair "$requests" --digest 8 --chaos "$seed" --timeout 280
    [ "$(grep -c 'chaos: drops' "$tmp/err")" -eq 2 ] || fail "both have something to say about chaos"
    slept "$tmp/err" GATHER SEALED RAN IO SEND ACK RECEIVE RELEASE
    grep '^\[' "$tmp/err"
}
