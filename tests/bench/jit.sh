#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The speed of an engine (ENGINE=auto) against QEMU's TCG with an instruction counter on the same
# guest, and against this host running the same static program natively: the workloads of
# tests/bench/work, timed from outside by the lines that say where each begins and ends; the boot to
# init; what a second vCPU brings. The three take turns. Each does a percentage of the counts below
# (SCALE, PEER_SCALE; natively all) and is judged by its time per unit. Instructions are those that
# the peer's counter has for a workload, 1 ns of its clock each; of REP MOVS every iteration is one. x87
# is not in the mean. WORKS="NAME...": only these workloads, and nothing else.
. "$(dirname "$0")/lib.sh"
command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64"
work=build/guest-work
make -s guest PROFILE=work >&2 || die "no guest with the workloads"
engine=${ENGINE:-auto}
names=() # in the order of the table; counts[] of each, group[] decides the aim
declare -A counts group unit_ns insns boots
while read -r name count kind; do
    [[ -z ${WORKS:-} || " $WORKS " == *" $name "* ]] || continue
    names+=("$name")
    counts[$name]=$count
    group[$name]=$kind
done <<'EOT'
sha256 800 int
crc32 2000 int
sieve 100 int
syscall 1000000 os
fork 400 os
pipe 40000 os
faults 150 os
matrix 150 fp
matrix2 600 fp
matrixl 60 x87
copy 12000 copy
copybig 3000 copy
repmovs 12000 copy
chase 2000 chase
EOT
declare -A title=([sha256]="SHA-256" [crc32]="CRC-32 by table" [sieve]="sieve" [syscall]="system calls"
    [fork]="fork and exec" [pipe]="ping-pong over pipes" [faults]="mmap, touch, munmap"
    [matrix]="matrix product, scalar double" [matrix2]="matrix product, packed SSE2"
    [matrixl]="matrix product, long double"
    [copy]="SSE2 copy in L2" [copybig]="SSE2 copy beyond L2" [repmovs]="REP MOVS copy"
    [chase]="chase through 64 MiB")
declare -A native_share=([int]=0.40 [fp]=0.60 [copy]=0.50)

# The interpreter is given little, so that a run stays short.
scale_of() {
    if [ "$1" = interp ] || ! "$pollux" run --help | grep -q '\bjit\b'; then echo 8; else echo 100; fi
}
scale=${SCALE:-$(scale_of "$engine")}
peer_scale=${PEER_SCALE:-25}

stamps() { while IFS= read -r line; do echo "$EPOCHREALTIME ${line%$'\r'}"; done >"$1"; }

# commands PERCENT: the value of pollux.run
commands() {
    local w all="" n
    for w in "${names[@]}"; do
        n=$((counts[$w] * $1 / 100))
        all+="work,$w,1,$((n > 0 ? n : 1))+"
    done
    echo "${all%+}"
}

# evaluate WHO [BEGAN]: from $tmp/lines; unit_ns[NAME,WHO] grows by ns per unit, boots[WHO] by ms to init
evaluate() {
    local name ns guest_ns seen=0
    while read -r name ns guest_ns; do
        unit_ns[$name,$1]+=" $ns"
        insns[$name,$1]=$guest_ns
        seen=$((seen + 1))
    done < <(awk '$2 == "work" && $5 == "begins" { at = $1; n = $6 }
        $2 == "work" && $6 == "ms" { printf "%s %.3f %.3f\n", $3, ($1 - at) * 1e9 / n, $5 * 1e6 / n }' "$tmp/lines")
    [ "$seen" = ${#names[@]} ] || die "$1 ran $seen of ${#names[@]} workloads: $(tail -n 1 "$tmp/lines" "$tmp/err")"
    [ -z "${2:-}" ] || boots[$1]+=" $(awk -v t="$2" '/Run \/init as init/ { printf "%.0f", ($1 - t) * 1000; exit }' "$tmp/lines")"
}

ours() { # WHO ENGINE PERCENT
    local began
    mkfifo "$tmp/console"
    stamps "$tmp/lines" <"$tmp/console" &
    began=$EPOCHREALTIME
    "$pollux" run --engine "$2" --kernel $work/vmlinuz --initrd $work/initrd.img \
        --append "$append pollux.run=$(commands "$3")" --console "$tmp/console" --timeout 400 \
        </dev/null 2>"$tmp/err" || die "the guest failed: $(tail -n 1 "$tmp/err")"
    wait $!
    rm "$tmp/console"
    evaluate "$1" "$began"
}

# peer_start APPEND OPTION...: QEMU with these, the console on stdout
peer_start() {
    local more=$1
    shift
    qemu-system-x86_64 -M pc -accel tcg "$@" -cpu max -m 256 -display none -no-reboot -monitor none \
        -serial stdio -kernel $work/vmlinuz -initrd $work/initrd.img -append "$append $more" \
        </dev/null 2>"$tmp/err"
}
peer() {
    local began=$EPOCHREALTIME
    peer_start "pollux.run=$(commands "$peer_scale")" -icount shift=0,sleep=off | stamps "$tmp/lines"
    evaluate peer "$began"
}
peer_boot() { # without the counter
    local began=$EPOCHREALTIME
    peer_start "pollux.run=true" | stamps "$tmp/lines"
    boots[plain]+=" $(awk -v t="$began" '/Run \/init as init/ { printf "%.0f", ($1 - t) * 1000; exit }' "$tmp/lines")"
}

# One processor, as the guest has.
native() {
    local w pin=()
    command -v taskset >/dev/null && pin=(taskset -c "$(($(nproc) - 1))")
    for w in "${names[@]}"; do
        "${pin[@]}" build/work/work "$w" 1 "${counts[$w]}"
    done 2>"$tmp/err" | stamps "$tmp/lines"
    evaluate native
}

for ((i = 0; i < repeat; i++)); do
    ours us "$engine" "$scale"
    peer
    native
    [ -n "${WORKS:-}" ] || peer_boot
    note "jit: round $((i + 1)) of $repeat"
done

# share A B: how many times as fast B's time is than A's, medians
share() { calc "printf \"%.4g\", $2 / $1"; }
ratios=()
for w in "${names[@]}"; do
    us=$(median ${unit_ns[$w,us]}) them=$(median ${unit_ns[$w,peer]}) host=$(median ${unit_ns[$w,native]})
    peer_ratio=$(share "$us" "$them")
    native_ratio=$(share "$us" "$host")
    [ "${group[$w]}" = x87 ] || ratios+=("$peer_ratio")
    aim="2x peer" ok="$peer_ratio >= 2"
    case ${group[$w]} in
    chase) aim="1.3x native time" ok="$us <= 1.3 * $host" ;;
    os | x87) ;;
    *)
        aim+=", $(calc "print ${native_share[${group[$w]}]} * 100") % native"
        ok+=" && $native_ratio >= ${native_share[${group[$w]}]}"
        ;;
    esac
    emit "${title[$w]}" "$(calc "printf \"%.0f M instructions/s\", ${insns[$w,peer]} * 1000 / $us")" "$aim" "$(met "$ok")" \
        "$(calc "printf \"%.2fx qemu icount, %.1f %% of native (qemu takes %.1fx native time)\", $peer_ratio, 100 * $native_ratio, $them / $host")"
done
mean() { printf '%s\n' "$@" | awk '{ s += log($1) } END { printf "%.2f", exp(s / NR) }'; }
[ -z "${WORKS:-}" ] || exit 0
m=$(mean "${ratios[@]}")
emit "geometric mean of these" "${m}x qemu icount" "4x" "$(met "$m >= 4")" "engine $engine"

us=$(median ${boots[us]}) them=$(median ${boots[peer]}) plain=$(median ${boots[plain]})
emit "boot to init" "$(calc "printf \"%.2f s\", $us / 1000")" "below qemu's" "$(met "$us < $plain")" \
    "$(calc "printf \"qemu %.2f s, ratio %.2f; qemu icount %.2f s, ratio %.2f\", $plain / 1000, $us / $plain, $them / 1000, $us / $them")"

# Two vCPUs on two idle cores, for some seconds, so that it is not the start of a guest program that
# is measured; beside it the same program on this host itself, which may have less than two to give.
smp_count=$((counts[sha256] * scale * 8 / 100))
smp() { # VCPUS: adds to smp_ms[VCPUS] and smp_ms[host,VCPUS]
    mkfifo "$tmp/console"
    stamps "$tmp/lines" <"$tmp/console" &
    "$pollux" run --engine "$engine" --vcpus "$1" --kernel $work/vmlinuz --initrd $work/initrd.img \
        --append "$append quiet pollux.run=work,sha256,$1,$smp_count" \
        --console "$tmp/console" --timeout 200 </dev/null 2>"$tmp/err" || die "the guest failed: $(tail -n 1 "$tmp/err")"
    wait $!
    rm "$tmp/console"
    smp_ms[$1]+=" $(awk '$2 == "work" && $5 == "begins" { at = $1 }
        $2 == "work" && $6 == "ms" { printf "%.1f", ($1 - at) * 1000 }' "$tmp/lines")"
    smp_ms[host,$1]+=" $(build/work/work sha256 "$1" $smp_count | awk '$5 == "ms" { print $4 }')"
}
if [ "$(nproc)" -ge 2 ]; then
    declare -A smp_ms
    for ((i = 0; i < repeat; i++)); do
        smp 1
        smp 2
    done
    one=$(median ${smp_ms[1]}) two=$(median ${smp_ms[2]})
    x=$(calc "printf \"%.2f\", $one / $two")
    emit "SHA-256, 2 vCPUs against 1" "$x times as fast" "1.8" "$(met "$x >= 1.8")" \
        "$one ms, $two ms; this host $(calc "printf \"%.2f\", $(median ${smp_ms[host,1]}) / $(median ${smp_ms[host,2]})") times"
fi

# The interpreter's figure, for information.
if [ "$engine" != interp ]; then
    ours interp interp "$(scale_of interp)"
    ratios=()
    for w in "${names[@]}"; do
        [ "${group[$w]}" = x87 ] || ratios+=("$(share "$(median ${unit_ns[$w,interp]})" "$(median ${unit_ns[$w,peer]})")")
    done
    emit "geometric mean, interpreter" "$(mean "${ratios[@]}")x qemu icount" "" "" "one run"
fi
