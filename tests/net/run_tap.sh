#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `pollux run --net tap=IF`: the guest answers over an existing TAP; an interface that does not
# exist, or is taken, gives one clear line.
set -u
. "$(dirname "$0")/../guests/lib.sh"
[ -s $guest/redis.state ] || { echo "no saved state (make guest)"; exit 77; }
ns=plxtap$$
ip netns add $ns 2>/dev/null || { echo "no network namespaces here"; exit 77; }
trap 'cleanup; ip netns del $ns' EXIT
in_ns() { ip netns exec $ns "$@"; }
in_ns ip tuntap add dev tap0 mode tap && in_ns ip addr add 10.0.2.2/24 dev tap0 &&
    in_ns ip link set tap0 up || fail "cannot create a TAP"

in_ns "$pollux" run --load $guest/redis.state --console /dev/null --net tap=nosuch 2>"$tmp/err" </dev/null
rc=$?
[ $rc -eq 1 ] && [ "$(wc -l <"$tmp/err")" -eq 1 ] && grep -q nosuch "$tmp/err" || fail "nosuch: exit code $rc"
in_ns "$pollux" run --load $guest/redis.state --console "$tmp/console" --timeout 40 --net tap=tap0 \
    2>"$tmp/err" </dev/null &
pids+=($!)
for _ in $(seq 100); do
    answer=$(printf 'SET key lockstep\r\nGET key\r\nQUIT\r\n' | timeout 5 ip netns exec $ns bash -c \
        'exec 3<>/dev/tcp/10.0.2.15/6379; cat >&3; cat <&3' 2>/dev/null | tr -d '\r' | tr '\n' ' ')
    [ -n "$answer" ] && break
    sleep 0.1
done
[ "$answer" = '+OK $8 lockstep +OK ' ] || fail "redis answered: $answer"
in_ns "$pollux" run --load $guest/redis.state --console /dev/null --net tap=tap0 2>"$tmp/err" </dev/null
rc=$?
[ $rc -eq 1 ] && [ "$(wc -l <"$tmp/err")" -eq 1 ] || fail "a TAP in use: exit code $rc"
cat "$tmp/err"
echo "redis answered: $answer"
