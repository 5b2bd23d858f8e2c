#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `pollux image push --server` from the outside: either side killed again and again, gc beside it, two at
# once, who may not, each mistake one line.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=$PWD/${BUILD:-build}/pollux
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL $server 2>/dev/null; rm -rf "$tmp"' EXIT
. tests/unit/mistakes.sh
cd "$tmp" || exit 1
unset POLLUX_STORE
fail() { echo "$*"; cat serve.log err 2>/dev/null; exit 1; }
image() { timeout 60 "$pollux" image "$@"; }
for k in server writer reader stranger; do "${pollux}d" --keygen --key $k.key >/dev/null || fail "no key"; done
{
    echo "# who may what"
    echo "$(sed -n 's/^public = //p' writer.key) builder push"
    sed -n 's/^public = //p' reader.key
} >clients
port=$((20000 + $$ % 30000))
at() { echo --server "tcp://127.0.0.1:$port,server.key" --key "$1.key"; }
serve() {
    "$pollux" image serve --store store --listen tcp://127.0.0.1:$port --key server.key --clients clients >serve.log 2>&1 &
    server=$!
    for _ in $(seq 200); do
        grep -q ^serving serve.log && return
        sleep 0.02
    done
    fail "nobody serves"
}
die() { kill -KILL $server; wait $server 2>/dev/null; }

# --- in by one host, out by another ---
serve
head -c 40000000 /dev/urandom >a.img && truncate -s 48M a.img
image push a.img a:1 $(at writer) --os debian --app nginx | grep -q "38 MiB added" || fail "the first push"
image push a.img a:2 $(at writer) --json | grep -q '"shared_bytes": 4000' || fail "the second push shares nothing"
image pull a:2 --store pulled $(at reader) >/dev/null && image export a:2 out.img --store pulled && cmp a.img out.img || fail "other contents"
image search --app nginx $(at reader) | grep -q "^a:1 .*debian" || fail "search"

# --- two pushes of the same at once are sent and stored once ---
head -c 30000000 /dev/urandom >r.img && truncate -s 30001152 r.img
before=$(cat store/packs/* | wc -c)
image push r.img r:1 $(at writer) --quiet >one.out & one=$!
image push r.img r:2 $(at writer) --quiet >two.out & two=$!
wait $one && wait $two || fail "concurrent pushes"
used=$(($(cat store/packs/* | wc -c) - before))
[ "$used" -gt 29000000 ] && [ "$used" -lt 32000000 ] || fail "concurrent pushes stored $used bytes"

# --- a pusher killed again and again ends whole ---
head -c 20000000 /dev/urandom >k.img && truncate -s 20000256 k.img && truncate -s 20000768 k.img
for delay in 0.02 0.04 0.06 0.1; do
    { timeout -s KILL $delay "$pollux" image push k.img k:1 $(at writer) --quiet; } >/dev/null 2>&1
done
image push k.img k:1 $(at writer) --quiet >/dev/null || fail "the push after the killed ones"

# --- a server killed again and again while a slow push goes on, with gc beside it ---
head -c 60000000 /dev/urandom >s.img && truncate -s 61440000 s.img
image push s.img s:1 $(at writer) --quiet >slow.out 2>err & slow=$!
kills=0
for delay in 0.05 0.1 0.15 0.1; do
    sleep $delay
    kill -0 $slow 2>/dev/null || break
    die
    kills=$((kills + 1))
    image gc --store store >/dev/null || fail "gc beside a push"
    serve
done
wait $slow || fail "the push did not outlive its servers"
[ $kills -ge 2 ] || fail "the push was over after $kills kills"
rm -f out.img
for i in k s; do image export $i:1 out.img --store store && cmp $i.img out.img && rm out.img || fail "$i: other contents"; done
image verify --store store >/dev/null || fail "verify"
kill $server && wait $server || fail "the server ended badly"
grep -q "took in [1-9][0-9]* segments, [0-9]* bytes, 1 images" serve.log || fail "the server counts wrong"
image gc --store store >/dev/null && image verify --store store >/dev/null || fail "gc after all"
[ "$(cat store/packs/* | wc -c)" -lt 165000000 ] || fail "$(cat store/packs/* | wc -c) bytes are kept"
serve

# --- stopped in between: said so, and goes on ---
head -c 80000000 /dev/urandom >i.img && truncate -s 80M i.img
timeout -s INT 0.1 "$pollux" image push i.img i:1 $(at writer) 2>err >/dev/null
grep -q "stopped; the same push goes on from here" err || fail "not stopped"
die
timeout -s INT 0.5 "$pollux" image push i.img i:1 $(at writer) 2>err >/dev/null
grep -q "stopped" err || fail "a push to a dead server cannot be stopped"
serve

# --- a server at rest keeps no pack from gc, and runs on ---
image push r.img g:1 $(at writer) --quiet && head -c 40000000 /dev/urandom >g.img && truncate -s 40001536 g.img &&
    image push g.img g:2 $(at writer) --quiet || fail "push before gc"
image rm g:2 --store store >/dev/null || fail "rm"
before=$(cat store/packs/* | wc -c)
for _ in $(seq 150); do
    image gc --store store >/dev/null || fail "gc beside a server"
    [ $((before - $(cat store/packs/* | wc -c))) -gt 38000000 ] && break
    sleep 0.2
done
[ $((before - $(cat store/packs/* | wc -c))) -gt 38000000 ] || fail "a server at rest keeps its pack from gc"
image push a.img g:3 $(at writer) --quiet && image verify --store store >/dev/null || fail "after gc beside a server"

# --- mistakes ---
mistake "this key may not push" image push a.img x:1 $(at reader)
mistake "does not answer" image push a.img x:1 $(at stranger)
mistake "what changes images goes to one place" image push a.img x:1 --store store $(at writer)
mistake "what changes images goes to one place" image push a.img x:1 $(at writer) $(at writer)
mistake "give --key" image push a.img x:1 --server tcp://127.0.0.1:1,server.key
mistake "is not NAME[:TAG]" image push a.img ../x $(at writer)
mistake "none.img" image push none.img x:1 $(at writer)
for line in "00 short" "$(printf '%064d' 0) name pull" "$(printf '%064d' 0) name push more" \
    "$(printf '%066d' 0) name" "$(printf '%064d' 0) $(printf 'n%.0s' {1..27})push more"; do
    echo "$line" >bad
    mistake "bad" image serve --store store --listen tcp://127.0.0.1:$((port + 1)) --key server.key --clients bad
done

# --- the file of clients changes under a server ---
saw() { # TEXT: the server has said it
    for _ in $(seq 100); do
        grep -q "$1" serve.log && return
        sleep 0.05
    done
    fail "the server does not say '$1'"
}
cp clients clients.was
echo "nonsense" >>clients
saw "what it said before stays"
image push a.img c:1 $(at writer) --quiet || fail "a file that makes no sense took a right away"
{ grep -v push clients.was && sed -n 's/^public = //p' stranger.key; } >clients.new && mv clients.new clients
saw "names 2 keys now"
image search g: $(at stranger) | grep -q ^g:3 || fail "a key that was added is refused"
timeout 2 "$pollux" image push a.img c:2 $(at writer) --quiet >out 2>err && fail "a right that was taken away still holds"
cp clients.was clients
for _ in $(seq 100); do
    [ "$(grep -c "names 2 keys now" serve.log)" = 2 ] && break
    sleep 0.05
done
image push a.img c:2 $(at writer) --quiet || fail "a right that was given back is missing"
touch -r clients then # a copy of the same length and age, as cp -p makes, is a change too
sed "s/$(sed -n 's/^public = //p' reader.key)/$(sed -n 's/^public = //p' stranger.key)/" clients.was >clients.new
touch -r then clients.new && cp -p clients.new clients
for _ in $(seq 100); do
    [ "$(grep -c "names 2 keys now" serve.log)" = 3 ] && break
    sleep 0.05
done
image search g: $(at stranger) | grep -q ^g:3 || fail "a change that left length and age alone is not seen"

echo "$kills kills"
mistakes_told
