#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three similar Debian images (a base, with nginx and redis, with small changes; 800 MiB each) into a
# fresh store, against casync, borg and restic at their defaults (borg with zstd), in turns: all on one
# core, warm cache, the same file system. Throughput is of processor time (user and system), which
# other work on the machine disturbs least. IMAGES="A B C" takes others.
. "$(dirname "$0")/lib.sh"
[ -n "${IMAGES:-}" ] || make --no-print-directory guest-debian >&2 || die "no images"
read -r -a images <<<"${IMAGES:-build/cache/debian-base.img build/cache/debian-server.img build/cache/debian-edited.img}"
[ ${#images[@]} -ge 2 ] || die "two images at least"
for peer in casync borg restic; do command -v $peer >/dev/null || die "no $peer"; done
work=$(mktemp -d build/bench-store.XXXXXX)
trap 'rm -rf "$work"; bench_cleanup' EXIT
export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes RESTIC_PASSWORD=x BORG_BASE_DIR=$PWD/$work/borg-base
export RESTIC_CACHE_DIR=$PWD/$work/restic-cache
mib=$(du -cm --apparent-size "${images[@]}" | tail -n 1 | cut -f1)
cat "${images[@]}" >/dev/null
TIMEFORMAT='%R %U %S'
cores=$(taskset -pc $$ | sed 's/.*: //')
one="taskset -c ${cores%%[,-]*}"

# timed COMMAND...: sets wall and cpu, seconds
timed() {
    local r u s
    { time "$@" >"$work/out" 2>&1; } 2>"$work/time" || die "$* failed: $(tail -n 2 "$work/out")"
    read -r r u s <"$work/time"
    wall=$r
    cpu=$(calc "print $u + $s")
}
kept() { du -sm --apparent-size "$@" | awk '{ s += $1 } END { print s }'; } # MiB
sum() { calc "print $1 + $2"; }

# push_all NAME: every image; sets total (cpu), walls, second (cpu of the second image), bytes (MiB), added
push_all() {
    local i n=0
    total=0 walls=0
    for i in "${images[@]}"; do
        n=$((n + 1))
        case $1 in
        pollux) timed $one "$pollux" image push --quiet --store "$work/pollux" "$i" "i:$n" ;;
        both) timed "$pollux" image push --quiet --store "$work/both" "$i" "i:$n" ;;
        borg) timed $one borg create -C zstd "$work/borg::$n" "$i" ;;
        restic) GOMAXPROCS=1 timed $one restic -q -r "$work/restic" backup "$i" ;;
        casync) timed $one casync make --store="$work/casync/x.castr" "$work/casync/$n.caibx" "$i" ;;
        esac
        total=$(sum "$total" "$cpu")
        walls=$(sum "$walls" "$wall")
        [ $n -eq 1 ] && first=$(kept "$work/$1")
        [ $n -eq 2 ] && second=$cpu && added=$(($(kept "$work/$1") - first))
    done
    bytes=$(kept "$work/$1")
}
fresh() {
    rm -rf "$work/$1"
    case $1 in
    borg) borg init -e none "$work/borg" >/dev/null 2>&1 ;;
    restic) restic init -r "$work/restic" >/dev/null 2>&1 ;;
    casync) mkdir -p "$work/casync" ;;
    esac
}

declare -A rate size two more
for ((k = 0; k < ${REPEAT:-3}; k++)); do
    for name in pollux borg restic casync both; do
        fresh $name
        push_all $name
        rate[$name]+=" $(calc "print $mib / $total")"
        [ $name = both ] && rate[$name]="${rate[$name]% *} $(calc "print $mib / $walls")"
        size[$name]=$bytes
        two[$name]+=" $second"
        more[$name]=$added
        note "$name: $total s of processor, $walls s, $bytes MiB kept; the second image $second s, $added MiB"
    done
done
m() { median ${rate[$1]}; }
fastest=$(printf '%s\n' "$(m borg)" "$(m restic)" "$(m casync)" | sort -g | tail -n 1)
smallest=$(printf '%s\n' "${size[borg]}" "${size[restic]}" "${size[casync]}" | sort -g | head -n 1)
ours=$(m pollux)
round() { calc "printf \"%.0f\", $1"; }
emit "push, one core" "$(round "$ours") MiB/s" ">= 3x the fastest" "$(met "$ours >= 3 * $fastest")" \
    "borg $(round "$(m borg)"), restic $(round "$(m restic)"), casync $(round "$(m casync)"); ratio $(calc "printf \"%.2f\", $ours / $fastest")"
emit "push, kept" "${size[pollux]} MiB" "<= 1.05x the smallest" "$(met "${size[pollux]} <= 1.05 * $smallest")" \
    "borg ${size[borg]}, restic ${size[restic]}, casync ${size[casync]} MiB; ratio $(calc "printf \"%.2f\", ${size[pollux]} / $smallest")"
emit "push, both cores (wall)" "$(round "$(m both)") MiB/s"
t2=$(median ${two[pollux]})
least_t=$(least "$(median ${two[borg]})" "$(median ${two[restic]})" "$(median ${two[casync]})")
least_b=$(least "${more[borg]}" "${more[restic]}" "${more[casync]}")
emit "a second, similar image" "$(calc "printf \"%.2f s, %d MiB\", $t2, ${more[pollux]}")" "<= the least of each" \
    "$(met "$t2 <= $least_t && ${more[pollux]} <= $least_b")" \
    "borg $(median ${two[borg]}) s ${more[borg]} MiB, restic $(median ${two[restic]}) s ${more[restic]} MiB, casync $(median ${two[casync]}) s ${more[casync]} MiB"

# --- out again: over the loopback with authentication, and to a raw file; casync extracts locally ---
polluxd=$BUILD/polluxd
for k in server client; do "$polluxd" --keygen --key "$tmp/$k.key" >/dev/null || die "no key"; done
sed -n 's/^public = //p' "$tmp/client.key" >"$tmp/clients"
port=$(free_port)
"$pollux" image serve --store "$work/pollux" --listen "tcp://127.0.0.1:$port" --key "$tmp/server.key" \
    --clients "$tmp/clients" >"$tmp/serve.log" 2>&1 &
bench_pids+=($!)
until grep -q serving "$tmp/serve.log"; do sleep 0.05; done
first_mib=$(du -m --apparent-size "${images[0]}" | cut -f1)
for ((k = 0; k < ${REPEAT:-3}; k++)); do
    rm -rf "$work/pulled" "$work/raw" "$work/raw2"
    timed "$pollux" image pull i:1 --quiet --store "$work/pulled" --server "tcp://127.0.0.1:$port,$tmp/server.key" --key "$tmp/client.key"
    pulls+=("$(calc "print $first_mib / $wall")")
    timed $one "$pollux" image export --quiet --store "$work/pollux" i:1 "$work/raw"
    exports+=("$(calc "print $first_mib / $cpu")")
    timed $one casync extract --store="$work/casync/x.castr" "$work/casync/1.caibx" "$work/raw2"
    extracts+=("$(calc "print $first_mib / $cpu")")
    extract_walls+=("$(calc "print $first_mib / $wall")")
    cmp -s "$work/raw" "${images[0]}" || die "what came out is not what went in"
done
x=$(median "${extract_walls[@]}") p=$(median "${pulls[@]}")
emit "pull over the loopback (wall)" "$(round "$p") MiB/s" ">= casync extract" "$(met "$p >= $x")" "casync extract $(round "$x") MiB/s"
x=$(median "${extracts[@]}") p=$(median "${exports[@]}")
emit "write out, one core" "$(round "$p") MiB/s" ">= casync extract" "$(met "$p >= $x")" \
    "casync extract $(round "$x") MiB/s; ratio $(calc "printf \"%.2f\", $p / $x")"
