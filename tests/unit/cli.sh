#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each mistake of a user gives exit code 1 and one line on stderr that says what is wrong.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
n=0

expect() { # TEXT ARGUMENT...
    local text=$1 rc
    shift
    timeout 20 "$pollux" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
    n=$((n + 1))
    if [ $rc -ne 1 ] || [ "$(wc -l <"$tmp/err")" -ne 1 ] || ! grep -qF -- "$text" "$tmp/err"; then
        echo "pollux $*: exit code $rc, wanted 1 and one line with '$text':"
        cat "$tmp/err"
        bad=1
    fi
}

echo "not a kernel" >"$tmp/text"
: >"$tmp/empty"
head -c 1000 /dev/zero >"$tmp/odd"
printf 'short' >"$tmp/state"
mkdir "$tmp/full" && : >"$tmp/full/file"

expect "no command 'frobnicate'" frobnicate
expect "unknown option --frob" run --frob
expect "give one of --kernel, --firmware and --load" run
expect "give one of --kernel, --firmware and --load" run --kernel "$tmp/text" --load "$tmp/state"
expect "do not go with --firmware" run --firmware "$tmp/text" --append quiet
expect "unexpected argument 'x'" run --kernel "$tmp/text" x
expect "cannot open $tmp/none" run --kernel "$tmp/none"
expect "not a regular file" run --kernel "$tmp"
expect "neither a Linux bzImage nor a multiboot" run --kernel "$tmp/text" --console "$tmp/c"
expect "kernel: the file is empty" run --kernel "$tmp/empty" --console "$tmp/c"
expect "--memory: the memory in MiB must be from" run --kernel "$tmp/text" --memory 0
expect "--memory: the memory in MiB must be a number" run --kernel "$tmp/text" --memory 1G
expect "no engine 'warp'" run --kernel "$tmp/text" --engine warp
expect "stdio:ttyS0 or stdio:hvc0, not 'stdio:com1'" run --kernel "$tmp/text" --console stdio:com1
expect "--net: must be none, tap=IF or user" run --kernel "$tmp/text" --net bridge
expect "--net: unknown part" run --kernel "$tmp/text" --net none,hostfwd=tcp:1-:2
expect "cannot open disk $tmp/none" run --kernel "$tmp/text" --disk "$tmp/none"
expect "odd" run --kernel "$tmp/text" --disk "$tmp/odd"
expect "--save-at needs two values" run --kernel "$tmp/text" --save-at mark
expect "state" run --load "$tmp/state"
expect "do not go with --load" run --load "$tmp/state" --memory 64
expect "$tmp/full" run --kernel "$tmp/text" --record "$tmp/full" --console "$tmp/c"
expect "an argument is missing" replay
expect "$tmp/none" replay "$tmp/none"
expect "the slice must be from 1" replay --until 0 "$tmp"

if [ -s build/tests/guest/hello.elf ]; then
    head -c 5000 build/tests/guest/hello.elf >"$tmp/cut"
    expect "truncated" run --kernel "$tmp/cut" --memory 64 --console "$tmp/c"
    expect "/nowhere/c" run --kernel build/tests/guest/hello.elf --memory 64 --console /nowhere/c
fi
"$pollux" --version | grep -q '^pollux [0-9]' || { echo "no version"; bad=1; }
"$pollux" --help | grep -q 'replay' || { echo "no help"; bad=1; }
"$pollux" run --help | grep -q -- '--save-at MARK|SLICE FILE' || { echo "no help of run"; bad=1; }
echo "$n mistakes tried"
exit $bad
