# SPDX-License-Identifier: Apache-2.0
# A cluster of three nodes and a client on this machine, in network namespaces. Not a test: sourced.
#
#   plxlab-1..3   nodes: cl0 on the cluster link (10.77.0.N), bridge br0 with gu0 on the guest side
#   plxlab-sw     the two switches: brc (cluster link) and brg (guests)
#   plxlab-c      the client: 10.78.0.100 on the guest side
#
# LAB_PREFIX makes several labs possible at once: of one prefix there is one, and who wants a second
# is told so and exits. What the lab of a killed script left is removed first. Everything is removed
# by lab_down, which the caller's EXIT trap (set here) runs. Daemons log to $LAB/N/polluxd.log; $LAB/data is $LAB/N/data to
# node N, so that a path can hold different files on each.
#
#   lab_up            namespaces, keys, configuration
#   lab_start N       the daemon of node N            lab_kill N [SIG]   end it
#   lab_cli N ...     pollux on node N                lab_wait SECONDS COMMAND...
#   lab_ns N CMD...   in the namespace of node N (c: the client, sw: the switches)
#   lab_replica N     the pid of the replica on node N
#   lab_field NAME, lab_is NAME VALUE   of the VM vm, as node $AT, or the third, says

LAB_PREFIX=${LAB_PREFIX:-plxlab}
BUILD=${BUILD:-build}
lab_dirs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
declare -A LAB_PID
declare -A LAB_NODE_CONF # more sections for node N: set, then lab_conf N again

lab_claim_file() { echo "/run/pollux-lab.$LAB_PREFIX"; }

lab_began() { # PID: when, if it still runs; its number may be used again
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
}

# Ours from now on, or exit. The file says whose it is and where its lab is; the lock is held only
# while it is looked at: descriptors go on to daemons, which may outlive their script.
lab_claim() {
    local fd owner= began= dir=
    exec {fd}>>"$(lab_claim_file)" || { echo "cannot open $(lab_claim_file)"; exit 1; }
    flock "$fd"
    read -r owner began dir <"$(lab_claim_file)"
    if [ -n "$owner" ] && [ "$(lab_began "$owner")" = "$began" ]; then
        echo "a lab '$LAB_PREFIX' is up already, of process $owner ($(tr '\0' ' ' <"/proc/$owner/cmdline" | cut -c 1-80))"
        exit 1
    fi
    lab_remove
    [ -z "$dir" ] || [ -n "${LAB_KEEP:-}" ] || rm -rf "$dir"
    LAB=$(mktemp -d "${LAB_TMP:-/tmp}/$LAB_PREFIX.XXXXXX") || exit 1
    echo "$$ $(lab_began $$) $LAB" >"$(lab_claim_file)"
    exec {fd}>&-
}

lab_remove() { # the namespaces and all that runs in them
    local n p
    for n in 1 2 3 c sw; do
        for p in $(ip netns pids "$LAB_PREFIX-$n" 2>/dev/null); do kill -KILL "$p" 2>/dev/null; done
    done
    wait 2>/dev/null
    for n in 1 2 3 c sw probe; do ip netns del "$LAB_PREFIX-$n" 2>/dev/null; done
    return 0
}

lab_need() { # skip where namespaces cannot be made
    [ "$(id -u)" = 0 ] || { echo "needs root for network namespaces"; exit 77; }
    lab_claim
    trap lab_down EXIT
    ip netns add "$LAB_PREFIX-probe" 2>/dev/null || { echo "cannot make network namespaces"; exit 77; }
    ip netns del "$LAB_PREFIX-probe"
    for p in polluxd pollux; do
        [ -x "$lab_dirs/$BUILD/$p" ] || { echo "$BUILD/$p is not built"; exit 1; }
    done
}

lab_ns() {
    local n=$1
    shift
    ip netns exec "$LAB_PREFIX-$n" "$@"
}

lab_conf() { # N: write the configuration of node N
    local n=$1 m
    {
        printf '[cluster]\nname = %s\n' "$LAB_PREFIX"
        printf 'election_ms = %s\nheartbeat_ms = %s\n' "${LAB_ELECTION_MS:-150}" "${LAB_HEARTBEAT_MS:-30}"
        printf '[node]\nname = n%s\nkey = %s\nrun_dir = %s\nstate_dir = %s\n' "$n" \
            "$LAB/$n/key" "$LAB/$n/run" "$LAB/$n/state"
        printf 'socket = %s\nbridge = br0\nmetrics = 127.0.0.1:9100\n' "$LAB/$n/sock"
        printf '[replica]\nprogram = %s\n%s\n' \
            "${LAB_REPLICA:-$lab_dirs/$BUILD/pollux-replica}" "${LAB_REPLICA_CONF:-}"
        printf '%s' "${LAB_NODE_CONF[$n]:-}"
        for m in 1 2 3; do
            printf '[member n%s]\nid = %s\naddress = tcp://10.77.0.%s:7300\npublic_key = %s\n' \
                "$m" "$m" "$m" "${LAB_KEY[$m]}"
        done
    } >"$LAB/$n/conf"
}

lab_up() {
    local n
    lab_need
    mkdir "$LAB/data"
    ip netns add "$LAB_PREFIX-sw"
    lab_ns sw ip link set lo up
    for n in brc brg; do
        lab_ns sw ip link add $n type bridge
        lab_ns sw ip link set $n up
    done
    for n in 1 2 3 c; do
        ip netns add "$LAB_PREFIX-$n"
        lab_ns $n ip link set lo up
        lab_ns $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
        # The guest side: gu0 of the node, g$n at the switch.
        ip -n "$LAB_PREFIX-sw" link add g$n type veth peer name gu0 netns "$LAB_PREFIX-$n"
        lab_ns sw ip link set g$n master brg up
        if [ $n = c ]; then
            lab_ns c ip link set gu0 up
            lab_ns c ip addr add 10.78.0.100/24 dev gu0
            continue
        fi
        ip -n "$LAB_PREFIX-sw" link add c$n type veth peer name cl0 netns "$LAB_PREFIX-$n"
        lab_ns sw ip link set c$n master brc up
        lab_ns $n ip addr add 10.77.0.$n/24 dev cl0
        lab_ns $n ip link set cl0 up
        lab_ns $n ip link add br0 type bridge
        lab_ns $n ip link set gu0 master br0 up
        lab_ns $n ip link set br0 up
        mkdir -p "$LAB/$n/data"
        LAB_KEY[n]=$("$lab_dirs/$BUILD/polluxd" --keygen --key "$LAB/$n/key" | sed 's/.*= //')
    done
    for n in 1 2 3; do lab_conf $n; done
}

lab_start() {
    local n=$1
    ip netns exec "$LAB_PREFIX-$n" env POLLUX_LOG="${POLLUX_LOG:-info}" sh -c \
        "mount --bind '$LAB/$n/data' '$LAB/data' && exec '$lab_dirs/$BUILD/polluxd' --config '$LAB/$n/conf'" \
        >>"$LAB/$n/polluxd.log" 2>&1 &
    LAB_PID[$n]=$!
}

lab_kill() {
    kill "-${2:-KILL}" "${LAB_PID[$1]}" 2>/dev/null
    wait "${LAB_PID[$1]}" 2>/dev/null
    LAB_PID[$1]=
}

lab_cli() {
    local n=$1 verb=$2
    shift 2
    POLLUX_SOCKET=$LAB/$n/sock "$lab_dirs/$BUILD/pollux" "$verb" "$@"
}

lab_wait() { # SECONDS COMMAND...: until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

lab_info() { lab_cli "${AT:-3}" info vm --json | tr -d ' \n'; }
lab_field() { lab_info | grep -o "\"$1\":[^,}]*" | head -1 | cut -d: -f2 | tr -d '"'; }
lab_is() { [ "$(lab_field "$1")" = "$2" ]; }

lab_replica() { # processes of one node's namespace, not of its mounts
    local p
    for p in $(ip netns pids "$LAB_PREFIX-$1"); do
        grep -q pollux-replica "/proc/$p/comm" 2>/dev/null && echo "$p"
    done
}

lab_leader() { # the node that says it leads, as seen from node N; its number
    lab_cli "$1" info --json | tr -d ' \n' | grep -o '"name":"n[0-9]","id":[0-9]*,"address":"[^"]*","up":true,"leader":true' |
        sed 's/"name":"n\([0-9]\).*/\1/'
}

lab_down() {
    lab_remove
    [ -z "${LAB_KEEP:-}" ] && rm -rf "$LAB"
    : >"$(lab_claim_file)" # not removed: somebody may have opened it to look
    return 0
}
