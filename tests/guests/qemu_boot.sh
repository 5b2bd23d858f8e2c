#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stock guest itself, under QEMU (an independent machine): boots to redis, which answers
# through a forwarded port. What fails here is the guest builder's fault, not Pollux's.
set -u
cd "$(dirname "$0")/../.." || exit 1
guest=build/guest
[ -s $guest/initrd.img ] || { echo "no guest (make guest)"; exit 77; }
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64"; exit 77; }

tmp=$(mktemp -d)
trap 'kill "$qemu" 2>/dev/null; wait 2>/dev/null; rm -rf "$tmp"' EXIT
port=$((20000 + RANDOM % 20000))
t0=$(date +%s%N)
timeout 55 qemu-system-x86_64 -M pc -accel tcg -cpu max -m 512 -nographic -no-reboot -monitor none \
    -serial "file:$tmp/console" -kernel $guest/vmlinuz -initrd $guest/initrd.img \
    -append "console=ttyS0 panic=-1" -device virtio-rng-pci \
    -netdev "user,id=n,hostfwd=tcp:127.0.0.1:$port-:6379" -device virtio-net-pci,netdev=n \
    >"$tmp/qemu" 2>&1 </dev/null &
qemu=$!
until grep -q 'pollux: redis ready' "$tmp/console" 2>/dev/null; do
    kill -0 $qemu 2>/dev/null || { cat "$tmp/qemu"; tail -n 30 "$tmp/console"; exit 1; }
    sleep 0.2
done
echo "redis ready after $((($(date +%s%N) - t0) / 1000000)) ms"
answer=$(printf 'SET key lockstep\r\nGET key\r\nQUIT\r\n' | timeout 10 bash -c \
    "exec 3<>/dev/tcp/127.0.0.1/$port; cat >&3; cat <&3" | tr -d '\r' | tr '\n' ' ')
echo "answer: $answer"
[ "$answer" = '+OK $8 lockstep +OK ' ]
