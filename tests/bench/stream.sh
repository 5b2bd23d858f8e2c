#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Time to the login prompt of Debian when its image streams over a link of 100 Mbit/s and of 1 Gbit/s
# (tbf between two network namespaces), beyond a boot from a local store; and the time of the full
# download. IMAGE=FILE takes another disk.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || die "needs root for network namespaces"
[ -n "${IMAGE:-}" ] || make --no-print-directory guest-debian >&2 || die "no images"
image=${IMAGE:-build/cache/debian-base.img}
ns=plxstream$$
work=$(mktemp -d build/bench-stream.XXXXXX)
down() {
    bench_cleanup
    ip netns del $ns-s 2>/dev/null
    ip netns del $ns-c 2>/dev/null
    rm -rf "$work"
}
trap down EXIT
ip netns add $ns-s && ip netns add $ns-c && ip link add v0 netns $ns-s type veth peer name v1 netns $ns-c || die "no namespaces"
for side in "s v0 1" "c v1 2"; do
    read -r host dev n <<<"$side"
    ip -n $ns-"$host" addr add "10.79.1.$n/24" dev "$dev"
    ip -n $ns-"$host" link set "$dev" up
done
link() { # MBIT
    local d
    for d in "s v0" "c v1"; do
        set -- "$1" $d
        ip netns exec $ns-"$2" tc qdisc replace dev "$3" root tbf rate "$1mbit" burst $((16 + $1))kb latency 50ms || die "no tbf"
    done
}

store=$work/store
"$pollux" image push --quiet --store "$store" --os debian --kernel $guest/vmlinuz --initrd $guest/disk-initrd.img \
    --append "console=ttyS0 panic=-1" "$image" debian:1 >&2 || die "no push"
boot=(--memory 512 --timeout 1000)
"$pollux" image run --store "$store" debian:1 "${boot[@]}" --console "$tmp/console" --profile-until "login:" \
    </dev/null 2>"$tmp/err" || die "no boot: $(tail -n 1 "$tmp/err")"
for k in server client; do "$BUILD/polluxd" --keygen --key "$tmp/$k.key" >/dev/null || die "no key"; done
sed -n 's/^public = //p' "$tmp/client.key" >"$tmp/clients"
ip netns exec $ns-s "$pollux" image serve --store "$store" --listen tcp://10.79.1.1:7373 --key "$tmp/server.key" \
    --clients "$tmp/clients" >"$tmp/serve.log" 2>&1 &
bench_pids+=($!)
until grep -q serving "$tmp/serve.log"; do sleep 0.05; done
from=(--server "tcp://10.79.1.1:7373,$tmp/server.key" --key "$tmp/client.key")

# to_login WHERE...: seconds from the command to the prompt
to_login() {
    local t0
    rm -f "$tmp/console" "$tmp/state"
    t0=$(now_ms)
    ip netns exec $ns-c "$pollux" image run debian:1 "$@" "${boot[@]}" --console "$tmp/console" </dev/null 2>"$tmp/err" &
    local pid=$!
    bench_pids+=("$pid")
    until_line "login:" "$tmp/console" 1000 $pid || die "no prompt: $(tail -n 1 "$tmp/err")"
    calc "printf \"%.2f\", ($(now_ms) - $t0) / 1000"
    stop $pid
    tail -n 1 "$tmp/err" >&2
}

repeat=${REPEAT:-3}
for ((k = 0; k < repeat; k++)); do
    local_s+=("$(to_login --store "$store")")
    for mbit in 100 1000; do
        link $mbit
        rm -rf "$work/cache"
        eval "stream_$mbit+=(\"\$(to_login \"\${from[@]}\" --cache \"$work/cache\")\")"
        rm -rf "$work/pulled"
        t0=$(now_ms)
        ip netns exec $ns-c "$pollux" image pull debian:1 --quiet --store "$work/pulled" "${from[@]}" >&2 || die "no pull"
        eval "full_$mbit+=(\"$(calc "printf \"%.2f\", ($(now_ms) - $t0) / 1000")\")"
    done
    note "local ${local_s[k]} s; 100 Mbit/s ${stream_100[k]} s (all ${full_100[k]} s); 1 Gbit/s ${stream_1000[k]} s (all ${full_1000[k]} s)"
done
l=$(median "${local_s[@]}")
s=$(median "${stream_100[@]}") f=$(median "${full_100[@]}")
share=$(calc "printf \"%.0f\", ($s - $l) * 100 / $f")
emit "login prompt, 100 Mbit/s, beyond local" "$(calc "printf \"%.2f s\", $s - $l") ($share % of all)" "<= 25 % of all" "$(met "$share <= 25")" \
    "local boot $l s, full download $f s"
s=$(median "${stream_1000[@]}") f=$(median "${full_1000[@]}")
emit "login prompt, 1 Gbit/s, beyond local" "$(calc "printf \"%.2f s\", $s - $l")" "<= 2 s" "$(met "$s - $l <= 2")" \
    "local boot $l s, full download $f s"
