#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial: clients boot the same and a similar image from servers over 100 Mbit/s.
#
# What comes is counted: a cold client reaches the login prompt having fetched what it read and the boot
# profile, each once, and no more; a warm one fetches the difference between two images. Servers are
# killed in the middle of boots: one comes again, for another there is a second one; guests see nothing
# but time. A client that may push records a boot profile on the server, which the next one uses.
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

# --- the images: one, and one with a few files more; on three servers ---
push() { # FILE NAME
    "$pollux" image push --store "$tmp/store1" --os pollux --app redis --kernel "$guest/vmlinuz" --json \
        --initrd "$guest/disk-initrd.img" --append "console=ttyS0 panic=-1" "$1" "$2" || fail "cannot push $2"
}
of() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$2" | head -n 1; } # NAME FILE: a number of JSON
cp -r "$guest/images" "$tmp/store1"
cp --sparse=always "$guest/disk.img" "$tmp/similar.img"
head -c 3000000 /dev/urandom >"$tmp/blob"
debugfs -w -R "write $tmp/blob blob" "$tmp/similar.img" 2>/dev/null
push "$tmp/similar.img" similar:1 >"$tmp/similar.json"
cp -r "$tmp/store1" "$tmp/store2" && cp -r "$tmp/store1" "$tmp/store3"

for k in server a b c; do "$polluxd" --keygen --key "$tmp/$k.key" >/dev/null || fail "no key"; done
sed -n 's/^public = //p' "$tmp/a.key" "$tmp/b.key" >"$tmp/clients"
sed -n 's/^public = \(.*\)/\1 builder push/p' "$tmp/c.key" >>"$tmp/clients"
server=()
serve() { # N: at port 7372 + N
    ip netns exec "$ns-s" "$pollux" image serve --store "$tmp/store$1" --listen tcp://10.79.0.1:$((7372 + $1)) \
        --key "$tmp/server.key" --clients "$tmp/clients" >"$tmp/serve$1.log" 2>"$tmp/serve$1.err" &
    server[$1]=$!
    pids+=($!)
}
from() { # N...: options that name these servers
    for n in "$@"; do echo "--server tcp://10.79.0.1:$((7372 + n)),$tmp/server.key"; done
}
start() { # CLIENT IMAGE OPTION...: its VM, until the login prompt
    local client=$1 image=$2
    shift 2
    ip netns exec "$ns-c" "$pollux" image run "$image" --key "$tmp/$client.key" --cache "$tmp/cache-$client" \
        --memory 128 --console "$tmp/$client.console" --progress "$tmp/$client.progress" \
        --timeout "${BOOT_SECONDS:-50}" "$@" </dev/null >"$tmp/$client.out" 2>"$tmp/$client.err" &
    pids+=($!)
    started=$!
}
# CLIENT WORDS: the number behind these words in the last line of progress
field() { tail -n 1 "$tmp/$1.progress" | sed -n "s/.*[ ;]$2 \([0-9]*\).*/\1/p"; }
received() { tail -n 1 "$tmp/$1.progress" | sed -n 's/.*; \([0-9]*\) bytes received.*/\1/p'; }
profiled() { tail -n 1 "$tmp/$1.progress" | sed -n 's/.*profile [0-9]* ([^)]*) of \([0-9]*\),.*/\1/p'; }
fetched() { echo $(($(field "$1" foreground) + $(field "$1" profile) + $(field "$1" background))); }
booted() { # CLIENT: at its prompt, without a word about a disk
    grep -q "login:" "$tmp/$1.console" || fail "client $1: no prompt"
    grep -qiE "I/O error|Buffer I/O|EXT4-fs error" "$tmp/$1.console" && fail "client $1 saw an error"
    echo "$1: $(tail -n 1 "$tmp/$1.progress")"
}
midway() { # CLIENT: when it has fetched something of its disk
    for _ in $(seq 1000); do
        [ "$(fetched "$1" 2>/dev/null)" -gt 20 ] 2>/dev/null && return
        sleep 0.02
    done
    fail "client $1 does not get on"
}
until=(--save-at "login:")

# --- two cold clients; their servers die in the middle; one comes again, for the other there is another ---
for n in 1 2 3; do serve $n; done
kill_server() { kill -KILL "${server[$1]}" && wait "${server[$1]}" 2>/dev/null; }
start a small:1 $(from 1) --no-background --no-profile "${until[@]}" "$tmp/a.state"
a=$started
start b small:1 $(from 3 2) --no-background "${until[@]}" "$tmp/b.state"
b=$started
midway b
kill_server 3
midway a
kill_server 1
sleep 2
serve 1
wait "$a" || fail "client a did not reach the prompt"
wait "$b" || fail "client b did not reach the prompt"
booted a
booted b
# a: what it read, each segment once. b: that or the profile, and it was the other server that gave it.
[ "$(field a profile)" = 0 ] && [ "$(field a background)" = 0 ] || fail "client a fetched ahead"
[ "$(field a foreground)" -gt 20 ] && [ "$(field a foreground)" -le "$(field a read)" ] || fail "client a fetched more than it read"
longest=$(tail -n 1 "$tmp/a.progress" | sed -n 's/.*longest wait \([0-9]*\) ms.*/\1/p')
[ "$longest" -ge 1000 ] || fail "no read waited for the server ($longest ms)"
tail -n 1 "$tmp/b.progress" | grep -q "; server 2 of 2" || fail "client b was not served by the other server"
[ "$(field b profile)" -gt 20 ] && [ "$(field b background)" = 0 ] || fail "client b did not use the profile, or more"
[ "$(fetched b)" -le $(($(profiled b) + $(field b unforeseen))) ] || fail "client b fetched more than it read and its profile"

# --- all of it, then the similar image: the difference comes, whatever is read ---
start c small:1 $(from 1 2) "${until[@]}" "$tmp/c.state"
wait "$started" || fail "client c did not reach the prompt"
booted c
lacking=$(tail -n 1 "$tmp/c.progress" | sed -n 's/.* here, \([0-9]*\) of \([0-9]*\) segments.*/\2 \1/p')
lacking=$((${lacking% *} - ${lacking#* }))
# It records a boot profile on the server, as it may push; who may only read is told before anything runs.
start a similar:1 $(from 1) --profile-until "login:"
wait "$started" && fail "one who may only read recorded a profile"
grep -q "may not push" "$tmp/a.err" || fail "a reader is told: $(cat "$tmp/a.err")"
start c similar:1 $(from 1) --profile-until "login:"
wait "$started" || fail "the similar image did not boot, or its profile was not recorded"
booted c
recorded=$("$pollux" image show similar:1 --store "$tmp/store1" --json | sed -n 's/.*"profile_segments": \([0-9]*\).*/\1/p')
[ "$recorded" = "$(field c read)" ] || fail "the profile has $recorded segments, $(field c read) were read"
differ=$(($(of segments "$tmp/similar.json") - $(of shared_segments "$tmp/similar.json")))
[ "$(fetched c)" -gt 50 ] && [ "$(fetched c)" -le $((differ + lacking)) ] || fail "$(fetched c) segments came, $differ differ, $lacking were lacking"
# The manifest besides, 40 bytes a segment at most; what was lacking has at most 1 MiB.
most=$(($(of stored_bytes "$tmp/similar.json") + 40 * $(of segments "$tmp/similar.json") + 4096 + lacking * 1048576))
[ "$(received c)" -gt 3000000 ] && [ "$(received c)" -le "$most" ] || fail "the similar image came as $(received c) bytes, not $most"

"$pollux" image verify --store "$tmp/store1" || fail "the store is damaged"
