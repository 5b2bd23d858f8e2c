#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each mistake of a user gives exit code 1 and one line on stderr that says what is wrong.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
. tests/unit/mistakes.sh
bad=0

echo "not a kernel" >"$tmp/text"
: >"$tmp/empty"
head -c 1000 /dev/zero >"$tmp/odd"
printf 'short' >"$tmp/state"
mkdir "$tmp/full" && : >"$tmp/full/file"

mistake "no command 'frobnicate'" frobnicate
mistake "unknown option --frob" run --frob
mistake "give one of --kernel, --firmware and --load" run
mistake "give one of --kernel, --firmware and --load" run --kernel "$tmp/text" --load "$tmp/state"
mistake "do not go with --firmware" run --firmware "$tmp/text" --append quiet
mistake "unexpected argument 'x'" run --kernel "$tmp/text" x
mistake "cannot open $tmp/none" run --kernel "$tmp/none"
mistake "not a regular file" run --kernel "$tmp"
mistake "neither a Linux bzImage nor a multiboot" run --kernel "$tmp/text" --console "$tmp/c"
mistake "kernel: the file is empty" run --kernel "$tmp/empty" --console "$tmp/c"
mistake "--memory: the memory in MiB must be from" run --kernel "$tmp/text" --memory 0
mistake "--memory: the memory in MiB must be a number" run --kernel "$tmp/text" --memory 1G
mistake "no engine 'warp'" run --kernel "$tmp/text" --engine warp
mistake "stdio:ttyS0 or stdio:hvc0, not 'stdio:com1'" run --kernel "$tmp/text" --console stdio:com1
mistake "--net: must be none, tap=IF or user" run --kernel "$tmp/text" --net bridge
mistake "--net: unknown part" run --kernel "$tmp/text" --net none,hostfwd=tcp:1-:2
mistake "cannot open disk $tmp/none" run --kernel "$tmp/text" --disk "$tmp/none"
mistake "odd" run --kernel "$tmp/text" --disk "$tmp/odd"
mistake "--save-at needs two values" run --kernel "$tmp/text" --save-at mark
mistake "state" run --load "$tmp/state"
mistake "do not go with --load" run --load "$tmp/state" --memory 64
mistake "$tmp/full" run --kernel "$tmp/text" --record "$tmp/full" --console "$tmp/c"
for verb in undefine start info protect unprotect console destroy dumpxml; do
    mistake "cannot reach polluxd at $tmp/none (is it running?" $verb --socket "$tmp/none" vm
    mistake "unexpected argument 'more'" $verb --socket "$tmp/none" vm more
done
mistake "cannot reach polluxd at $tmp/none (is it running?" list --socket "$tmp/none"
mistake "cannot reach polluxd at $tmp/none (is it running?" define --socket "$tmp/none" "$tmp/text"
mistake "cannot open $tmp/none" define "$tmp/none"
mistake "is not a regular file" define "$tmp"
mistake "no command 'frob'" help frob
mistake "an argument is missing" replay
mistake "$tmp/none" replay "$tmp/none"
mistake "the slice must be from 1" replay --until 0 "$tmp"

if [ -s build/tests/guest/hello.elf ]; then
    head -c 5000 build/tests/guest/hello.elf >"$tmp/cut"
    mistake "truncated" run --kernel "$tmp/cut" --memory 64 --console "$tmp/c"
    mistake "/nowhere/c" run --kernel build/tests/guest/hello.elf --memory 64 --console /nowhere/c
fi
"$pollux" --version | grep -q '^pollux [0-9]' || { echo "no version"; bad=1; }
"$pollux" --help | grep -q 'replay' || { echo "no help"; bad=1; }
"$pollux" help | grep -q 'replay' || { echo "no help by the command help"; bad=1; }
"$pollux" help start | grep -q -- '--old-disks' || { echo "no help of start by the command help"; bad=1; }
"$pollux" help frob 2>/dev/null && { echo "help of a command that is not there"; bad=1; }
"$pollux" run --help | grep -q -- '--save-at MARK|SLICE FILE' || { echo "no help of run"; bad=1; }
mistakes_told && exit $bad
