#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nodes of a cluster serve images: a polluxd with a section [images] does what `pollux image serve` does.
# Hunts: a daemon that serves strangers, whose metrics do not count, or that dies with its image server.
. "$(dirname "$0")/lab.sh"
cd "$(dirname "$0")/../.." || exit 1
for n in promtool curl; do command -v $n >/dev/null || { echo "$n is missing: make deps"; exit 77; }; done
pollux=$lab_dirs/$BUILD/pollux
LAB_PREFIX=plximc
lab_up
fail() { echo "FAIL: $*"; for n in 1 2 3; do tail -n 8 "$LAB/$n/polluxd.log"; done; exit 1; }
value() { lab_ns "$1" curl -sf http://127.0.0.1:9100/metrics | sed -n "s/^$2{.*} //p"; }
above() { [ "$(value "$1" "$2")" -gt "$3" ]; }
image() { timeout 60 ip netns exec "$LAB_PREFIX-$1" "$pollux" image "${@:2}"; } # NODE VERB...

# --- nodes 1 and 2 have a store each; node 3 is a client ---
for k in client stranger; do "$lab_dirs/$BUILD/polluxd" --keygen --key "$LAB/$k.key" >/dev/null || fail "no key"; done
sed -n 's/^public = \(.*\)/\1 builder push/p' "$LAB/client.key" >"$LAB/clients"
head -c 6000000 /dev/urandom >"$LAB/a.img" && truncate -s 8M "$LAB/a.img"
for n in 1 2; do
    "$pollux" image push --store "$LAB/$n/images" --quiet "$LAB/a.img" a:1 >/dev/null || fail "push to node $n"
    LAB_NODE_CONF[$n]=$(printf '[images]\nlisten = tcp://10.77.0.%s:7373\nstore = %s\nclients = %s\n' \
        "$n" "$LAB/$n/images" "$LAB/clients")$'\n'
    lab_conf $n
done
for n in 1 2 3; do lab_start $n; done
for n in 1 2 3; do lab_wait 10 lab_cli $n list || fail "node $n does not join"; done
servers=(--server "tcp://10.77.0.1:7373,${LAB_KEY[1]}" --server "tcp://10.77.0.2:7373,${LAB_KEY[2]}" --key "$LAB/client.key")

# --- from either node, from the other when one is gone ---
image 3 list "${servers[@]}" | grep -q '^a:1 ' || fail "list"
image 3 pull a:1 --store "$LAB/3/images" "${servers[@]}" || fail "pull"
image 3 export a:1 "$LAB/out" --store "$LAB/3/images" && cmp "$LAB/out" "$LAB/a.img" || fail "other contents"
lab_wait 3 above 1 pollux_node_image_bytes_sent_total 5999999 || fail "node 1 counts $(value 1 pollux_node_image_bytes_sent_total) bytes"
lab_ns 1 curl -sf http://127.0.0.1:9100/metrics | promtool check metrics >"$LAB/promtool" 2>&1 || fail "$(cat "$LAB/promtool")"
[ "$(value 3 pollux_node_image_bytes_sent_total)" = 0 ] || fail "node 3 serves"

# --- pushed to a node: what it has is not sent ---
cp "$LAB/a.img" "$LAB/b.img" && head -c 1000000 /dev/urandom | dd of="$LAB/b.img" conv=notrunc bs=4096 seek=200 status=none
image 3 push "$LAB/b.img" b:1 "${servers[@]:0:2}" --key "$LAB/client.key" || fail "push"
above 1 pollux_node_image_bytes_pushed_total 900000 || sleep 1.1
pushed=$(value 1 pollux_node_image_bytes_pushed_total)
[ "$pushed" -ge 1000000 ] && [ "$pushed" -lt 1300000 ] || fail "$pushed bytes were pushed"
[ "$(value 1 pollux_node_image_names_pushed_total)" = 1 ] || fail "no name is counted"
image 2 export b:1 "$LAB/out2" --store "$LAB/1/images" && cmp "$LAB/out2" "$LAB/b.img" || fail "pushed: other contents"
lab_kill 1
rm -rf "$LAB/3/images"
image 3 pull a:1 --store "$LAB/3/images" "${servers[@]}" || fail "pull from node 2"
lab_start 1
lab_wait 10 image 3 list "${servers[@]:0:2}" --key "$LAB/client.key" || fail "node 1 does not serve again"

# --- strangers, and configurations that make no sense ---
timeout 3 ip netns exec "$LAB_PREFIX-3" "$pollux" image list "${servers[@]:0:2}" --key "$LAB/stranger.key" >/dev/null 2>&1 && fail "a stranger was let in"
lab_wait 3 above 1 pollux_node_image_refused_total 0 || fail "the stranger is not counted"
lab_kill 2 TERM
refuses() { # SED TEXT: node 2 with a line changed says TEXT and ends
    sed "$1" "$LAB/2/conf" >"$LAB/2/conf.bad"
    timeout 10 ip netns exec "$LAB_PREFIX-2" "$lab_dirs/$BUILD/polluxd" --config "$LAB/2/conf.bad" >"$LAB/out" 2>&1
    [ $? = 1 ] && grep -q "$2" "$LAB/out" || fail "'$1': wanted '$2': $(cat "$LAB/out")"
}
refuses 's/^listen = tcp/listen = udp/' 'listen must be tcp://'
refuses 's/^store = .*/store = here/' 'store must be an absolute path'
sed 's/ push$//' "$LAB/clients" >"$LAB/readers" # for those who push a store would be made
refuses "s|^store = .*|store = $LAB/nowhere|;s|^clients = .*|clients = $LAB/readers|" "\[images\].*nowhere is not a store"
refuses "s|^clients = .*|clients = $LAB/client.key|" 'is no public key'
echo "two nodes serve a third"
