#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An idle guest (redis up, nobody asks) under `pollux run --record`: processor time of the host and
# bytes of the log. Peer: the same guest under QEMU without instruction counter, which sleeps when
# idle (with sleep=off it never does).
. "$(dirname "$0")/lib.sh"
span=20

for ((i = 0; i < repeat; i++)); do
    rm -rf "$tmp/rec"
    monitored_start --net user --record "$tmp/rec"
    sleep 4
    monitored_info
    c0=$(cpu_ms "$vm_pid") l0=$log_bytes n0=$insns v0=$virt_ms
    sleep $span
    c1=$(cpu_ms "$vm_pid")
    monitored_info
    monitored_stop
    cpu+=("$(calc "print ($c1 - $c0) / $span / 10")")
    log+=("$(calc "print ($log_bytes - $l0) * 1000 / ($virt_ms - $v0)")")
    ips+=("$(calc "print ($insns - $n0) * 1000 / ($virt_ms - $v0)")")
    note "idle: ${cpu[i]} %, ${log[i]} B/s, ${ips[i]} instructions/s"
done
if command -v qemu-system-x86_64 >/dev/null; then
    qemu-system-x86_64 -M pc -accel tcg -cpu max -m 256 -display none -no-reboot -monitor none \
        -serial "file:$tmp/console" -kernel $guest/vmlinuz -initrd $guest/initrd.img \
        -append "$append" -netdev user,id=n -device virtio-net-pci,netdev=n </dev/null >"$tmp/err" 2>&1 &
    q=$!
    bench_pids+=($q)
    until_line "$mark" "$tmp/console" 110 $q || die "qemu does not boot"
    sleep 4
    c0=$(cpu_ms $q)
    sleep $span
    peer=$(calc "print ($(cpu_ms $q) - $c0) / $span / 10")
    stop $q
fi
c=$(median "${cpu[@]}") l=$(median "${log[@]}")
emit "idle guest, processor of the host" "$(calc "printf \"%.2f %% of a core\", $c")" "< 1 %" "$(met "$c < 1")" \
    "${peer:+$(calc "printf \"qemu %.2f %%, ratio %.2f\", $peer, $c / ($peer > 0 ? $peer : 0.01)")}"
emit "idle guest, log" "$(calc "printf \"%.0f bytes/s\", $l")" "< 2 KiB/s" "$(met "$l < 2048")" \
    "$(calc "printf \"%.2f M instructions/s\", $(median "${ips[@]}") / 1e6")"
