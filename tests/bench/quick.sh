#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# quick.sh WORKLOAD [ENGINE [COUNT]] - one workload of tests/bench/work on one engine, from a state
# saved where it begins (made when first asked for): instructions, processor time, instructions a
# second. The guest is at a constant rate (tests/tools/steady), so two runs execute the same
# instructions, and a busy host disturbs the figure little. Without ENGINE: auto.
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
work=build/guest-work
[ $# -ge 1 ] || { build/work/work; exit 2; }
state=$work/$1${3:+-$3}.state
make -s "$build/tests/tools/steady" "$build/pollux" || exit 1
[ -s $work/initrd.img ] || make -s guest PROFILE=work || exit 1
if [ ! -s "$state" ] || [ $work/initrd.img -nt "$state" ]; then
    "$build/pollux" run --engine interp --kernel $work/vmlinuz --initrd $work/initrd.img \
        --append "console=ttyS0 panic=-1 quiet pollux.run=work,$1,1${3:+,$3}" --console /dev/null \
        --save-at "work $1 1 begins" "$state" --timeout 120 </dev/null || exit 1
fi
"$build/tests/tools/steady" "load=$state" "engine=${2:-auto}" "until=work $1 1:"
