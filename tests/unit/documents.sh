#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is there stands in the documents: each option of `pollux run` and `pollux replay` in its own
# section of the manual page, each key of the daemon's configuration in its own, each folder of code in
# "The tree" of ARCHITECTURE.md. And what the documents name is there: files and functions, sections that
# the sources cite. And a port may be forwarded by either protocol, as all of them say.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
n=0 bad=0
wrong() { echo "$*"; bad=1; }

section() { # PAGE NAME: its text, without the escapes of hyphens
    awk -v name="$2" '/^\.SH / { on = $0 == ".SH " name || $0 == ".SH \"" name "\"" } on' "$1" | sed 's/\\-/-/g'
}
for verb in run replay; do
    text=$(section ops/pollux.1 "OPTIONS OF ${verb^^}")
    for o in $("$pollux" $verb --help | grep -o '^ *--[a-z-]*'); do
        n=$((n + 1))
        [ "$o" = --help ] || grep -qE "^\.B[IR]?( \"?)$o([ \"]|\$)" <<<"$text" ||
            wrong "pollux.1: 'pollux $verb' has $o, its section does not"
    done
done
text=$(section ops/polluxd.8 CONFIGURATION)
for key in $(sed -n 's/^#\?\([a-z_]*\) =.*/\1/p' ops/pollux.conf | sort -u); do
    n=$((n + 1))
    grep -qw "$key" <<<"$text" || wrong "polluxd.8: pollux.conf has $key, CONFIGURATION does not"
done
tree=$(sed -n '/^## The tree/,/^Include directions/p' ARCHITECTURE.md)
for d in base vmm vmm/*/ vmm/dev/backend replica storage consensus proto ops tests; do
    n=$((n + 1))
    grep -qE "^ +$(basename "$d")/ " <<<"$tree" || wrong "ARCHITECTURE.md: $d is not in the tree"
done
folders="base vmm replica storage consensus proto ops tests"
for path in $(grep -ohE "\\b(${folders// /|})(/[A-Za-z0-9_.*-]+)+" ARCHITECTURE.md README.md | sed 's/\.$//' | sort -u); do
    n=$((n + 1))
    compgen -G "$path" >/dev/null || [ -e "$path.c" ] || wrong "the documents name $path"
done
words=$(grep -rIhoE '[a-z0-9_]+' $folders | sort -u)
for name in $(grep -ohE '`[a-z0-9]+(_[a-z0-9]+)+`' ARCHITECTURE.md README.md | tr -d '`' | sort -u); do
    n=$((n + 1))
    grep -qx "$name" <<<"$words" || wrong "the documents name $name"
done
while read -r title; do
    n=$((n + 1))
    grep -qxE "##+ $title" ARCHITECTURE.md || wrong "ARCHITECTURE.md has no section \"$title\""
done < <(grep -rIhoE 'ARCHITECTURE\.md, "[^"]+"' $folders make Makefile | cut -d'"' -f2 | sort -u)
"$pollux" run --help | grep -q 'hostfwd=tcp|udp:' || wrong "pollux run --help: no hostfwd=udp"
section ops/pollux.1 "OPTIONS OF RUN" | grep -q 'hostfwd= { tcp | udp }' || wrong "pollux.1: no hostfwd=udp"
said=$(timeout 20 "$pollux" run --kernel Makefile --console /dev/null --net user,hostfwd=udp:1x-:1 2>&1)
[[ $said == *"tcp:PORT-:PORT or udp:PORT-:PORT"* ]] || wrong "hostfwd=udp is refused: $said"
echo "$n names looked for"
[ $n -gt 160 ] || wrong "too few"
exit $bad
