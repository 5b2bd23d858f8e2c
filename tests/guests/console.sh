#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is typed reaches the virtio console when it is the one chosen: short lines, and one about as
# long as a terminal takes.
set -u
. "$(dirname "$0")/lib.sh"

mkfifo "$tmp/keys"
"$pollux" run --kernel $guest/vmlinuz --initrd $guest/initrd.img --memory 256 \
    --append "console=ttyS0 panic=-1 quiet pollux.test=console" --console stdio:hvc0 --timeout 58 \
    >"$tmp/console" 2>"$tmp/err" <"$tmp/keys" &
pids+=($!)
exec 4>"$tmp/keys"
long=$(printf 'x%.0s' $(seq 4000))
n=0
for line in "a line" "$long" "end." "done"; do
    n=$((n + 1))
    wait_for "pollux: type line $n" "$tmp/console" 50 || fail "line $n was not asked for"
    printf '%s\r' "$line" >&4
    sum=$(echo "$line" | md5sum | cut -c1-8)
    wait_for "pollux: line $n has ${#line} characters, $sum" "$tmp/console" 20 ||
        fail "line $n was not heard"
done
wait "${pids[0]}"
rc=$?
[ $rc -eq 0 ] || fail "exit code $rc"
passed console
grep -o "pollux: line .*" "$tmp/console"
