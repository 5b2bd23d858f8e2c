#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial: two clients boot the same and a similar image from a server over 100 Mbit/s.
#
# A cold client reaches the login prompt having fetched only what it read and the boot profile; the
# server is killed in the middle of the other client's boot and comes again: the guest sees nothing but
# time; and what one image shares with the other does not come twice.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=$PWD/${BUILD:-build}/pollux
polluxd=$PWD/${BUILD:-build}/polluxd
guest=$PWD/build/guest
[ "$(id -u)" = 0 ] || { echo "needs root for network namespaces"; exit 77; }
[ -e "$guest/images/sessions" ] || { echo "no disk image (make guest)"; exit 77; }
ns=plximg$$
ip netns add "$ns-s" 2>/dev/null || { echo "cannot make network namespaces"; exit 77; }
tmp=$(mktemp -d)
pids=()

cleanup() {
    local p
    for p in "${pids[@]}"; do kill -KILL "$p" 2>/dev/null; done
    wait 2>/dev/null
    ip netns del "$ns-s" 2>/dev/null
    ip netns del "$ns-c" 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
fail() { echo "$*"; tail -n 3 "$tmp"/*.progress "$tmp"/*.err 2>/dev/null; exit 1; }

# --- two hosts and 100 Mbit/s each way ---
ip netns add "$ns-c"
ip link add v0 netns "$ns-s" type veth peer name v1 netns "$ns-c"
for side in "s v0 1" "c v1 2"; do
    read -r host dev n <<<"$side"
    ip -n "$ns-$host" addr add "10.79.0.$n/24" dev "$dev"
    ip -n "$ns-$host" link set "$dev" up
    ip -n "$ns-$host" link set lo up
    ip netns exec "$ns-$host" tc qdisc add dev "$dev" root tbf rate 100mbit burst 64kb latency 100ms || fail "no tbf"
done

# --- the images: one, and one with a few files more ---
store=$tmp/store
push() { # FILE NAME
    "$pollux" image push --store "$store" --os pollux --app redis --kernel "$guest/vmlinuz" \
        --initrd "$guest/disk-initrd.img" --append "console=ttyS0 panic=-1" "$1" "$2" || fail "cannot push $2"
}
cp -r "$guest/images" "$store"
cp --sparse=always "$guest/disk.img" "$tmp/similar.img"
head -c 3000000 /dev/urandom >"$tmp/blob"
debugfs -w -R "write $tmp/blob blob" "$tmp/similar.img" 2>/dev/null
push "$tmp/similar.img" similar:1

for k in server a b; do "$polluxd" --keygen --key "$tmp/$k.key" >/dev/null || fail "no key"; done
sed -n 's/^public = //p' "$tmp/a.key" "$tmp/b.key" >"$tmp/clients"
serve() {
    ip netns exec "$ns-s" "$pollux" image serve --store "$store" --listen tcp://10.79.0.1:7373 \
        --key "$tmp/server.key" --clients "$tmp/clients" >"$tmp/serve.log" 2>"$tmp/serve.err" &
    server=$!
    pids+=("$server")
}
start() { # CLIENT IMAGE OPTION...: its VM, until the login prompt
    local client=$1 image=$2
    shift 2
    ip netns exec "$ns-c" "$pollux" image run "$image" --server "tcp://10.79.0.1:7373,$tmp/server.key" \
        --key "$tmp/$client.key" --cache "$tmp/cache-$client" --memory 128 \
        --console "$tmp/$client.console" --progress "$tmp/$client.progress" \
        --save-at "login:" "$tmp/$client.state" --timeout "${BOOT_SECONDS:-50}" "$@" </dev/null >"$tmp/$client.out" 2>"$tmp/$client.err" &
    pids+=($!)
    started=$!
}
field() { # CLIENT NAME: from the last line of progress: profile, foreground, background, segments read
    tail -n 1 "$tmp/$1.progress" | sed -n "s/.*$2 \([0-9]*\).*/\1/p"
}
received() { tail -n 1 "$tmp/$1.progress" | sed -n 's/.*; \([0-9]*\) bytes received.*/\1/p'; }

# --- a cold client, without the background: what it read and its profile, no more ---
serve
start a small:1 --no-background
a=$started
start b small:1
b=$started
# The server dies when a is reading its disk, and comes again.
for _ in $(seq 1000); do
    [ "$(field a foreground)" -gt 20 ] 2>/dev/null && break
    sleep 0.05
done
kill -KILL "$server" && wait "$server" 2>/dev/null
sleep 2
serve
wait "$a" || fail "client a did not reach the prompt"
wait "$b" || fail "client b did not reach the prompt"
grep -q "login:" "$tmp/a.console" && grep -q "login:" "$tmp/b.console" || fail "no prompt"
grep -qiE "I/O error|Buffer I/O|EXT4-fs error" "$tmp/a.console" "$tmp/b.console" && fail "a guest saw an error"
echo "a: $(tail -n 1 "$tmp/a.progress")"
echo "b: $(tail -n 1 "$tmp/b.progress")"
[ "$(field a profile)" = 0 ] && [ "$(field a background)" = 0 ] || fail "client a fetched ahead"
[ "$(field a foreground)" -gt 0 ] && [ "$(field a foreground)" -le "$(field a read)" ] || fail "client a fetched more than it read"
longest=$(tail -n 1 "$tmp/a.progress" | sed -n 's/.*longest wait \([0-9]*\) ms.*/\1/p')
[ "$longest" -ge 1000 ] || fail "no read waited for the server ($longest ms)"
[ "$(field b profile)" -gt 0 ] || fail "client b did not use the profile"

# --- the similar image on client b: what it has does not come again ---
before=$(received b)
start b similar:1
wait "$started" || fail "the similar image did not boot"
echo "similar: $(tail -n 1 "$tmp/b.progress")"
[ "$(received b)" -lt $((before / 2 + 3500000)) ] || fail "the similar image came whole: $(received b) of $before bytes"
"$pollux" image verify --store "$store" || fail "the store is damaged"
