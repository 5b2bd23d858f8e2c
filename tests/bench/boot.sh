#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The boot of the stock guest to redis, by the interpreter and by the engine `auto` chooses: guest
# instructions a second of processor time, and the time to the console line against QEMU's TCG with an
# instruction counter, taken in turns.
. "$(dirname "$0")/lib.sh"
command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64"

# boot_time PID CONSOLE: sets ms (wall) and cpu (processor ms) at the line
boot_time() {
    until_line "$mark" "$2" 110 "$1" || die "no boot: $(tail -n 2 "$2")"
    ms=$(($(now_ms) - started))
    cpu=$(cpu_ms "$1")
    stop "$1"
}

ours() { # ENGINE
    rm -f "$tmp/console"
    started=$(now_ms)
    "$pollux" run --engine "$1" --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
        --append "$append" --net user --console "$tmp/console" --timeout 120 </dev/null 2>"$tmp/err" &
    bench_pids+=($!)
    boot_time $! "$tmp/console"
}

peer() {
    rm -f "$tmp/console"
    started=$(now_ms)
    qemu-system-x86_64 -M pc -accel tcg -icount shift=0,sleep=off -cpu max -m 256 -display none \
        -no-reboot -monitor none -serial "file:$tmp/console" -kernel $guest/vmlinuz \
        -initrd $guest/initrd.img -append "$append" -device virtio-rng-pci -netdev user,id=n \
        -device virtio-net-pci,netdev=n </dev/null >"$tmp/err" 2>&1 &
    bench_pids+=($!)
    boot_time $! "$tmp/console"
}

# How many instructions a boot takes: the state saved at the line says so when it is loaded.
count() { # ENGINE
    "$pollux" run --engine "$1" --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
        --append "$append" --net user --console "$tmp/console" --save-at "$mark" "$tmp/state" \
        --timeout 120 </dev/null 2>"$tmp/err" || die "no boot: $(cat "$tmp/err")"
    "$pollux" run --load "$tmp/state" --console /dev/null --timeout 1 </dev/null 2>&1 |
        grep -o '[0-9]* instructions' | cut -d' ' -f1
    rm -f "$tmp/state"
}
declare -A instructions times cpus
for engine in interp auto; do
    instructions[$engine]=$(count $engine) || exit 1
done

for ((i = 0; i < repeat; i++)); do
    said=
    for engine in interp auto; do
        ours $engine
        times[$engine]+=" $ms" cpus[$engine]+=" $cpu"
        said+="$engine $ms ms ($cpu ms of processor), "
    done
    peer
    peer_ms+=("$ms") peer_cpu+=("$cpu")
    note "boot: ${said}peer $ms ms ($cpu)"
done
b=$(median "${peer_ms[@]}") bc=$(median "${peer_cpu[@]}")

report() { # ENGINE WHAT AIM: one line; sets a and ac, wall and processor time
    local mips
    # shellcheck disable=SC2086
    a=$(median ${times[$1]}) ac=$(median ${cpus[$1]})
    mips=$(calc "printf \"%.1f\", ${instructions[$1]} / $ac / 1000")
    emit "$2" "$mips M instructions/s" "${3:+$3 M/s}" "${3:+$(met "$mips >= $3")}" \
        "$(calc "printf \"%.0f M instructions, %.2f s of processor; qemu icount %.2f s, ratio %.2f\", \
            ${instructions[$1]} / 1e6, $ac / 1000, $bc / 1000, $ac / $bc")"
}
report interp "interpreter over the boot" 60
report auto "translator (auto) over the boot" ""
emit "boot to \"$mark\"" "$(calc "printf \"%.2f s\", $a / 1000")" "" "" \
    "$(calc "printf \"qemu icount %.2f s, ratio %.2f\", $b / 1000, $a / $b")"
