#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make tidy` gives every source file to clang-format, also without git, and fails when that does:
# with tools that only write down what they are given.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
stub() { printf '#!/bin/bash\n%s\n' "$2" >"$tmp/$1"; chmod +x "$tmp/$1"; }
stub git 'exit 127'
stub dpkg-query 'echo install ok installed'
stub cppcheck 'exit 0'
stub clang-tidy 'exit 0'
stub clang-format 'printf "%s\n" "$@" >>"$GIVEN"'
tidy() { env -u MAKEFLAGS -u MAKELEVEL GIVEN="$tmp/given" PATH="$tmp:$PATH" make -s tidy T=none-of-them >"$tmp/said" 2>&1; }
tidy || { cat "$tmp/said"; exit 1; }
find . -name build -prune -o -path './.*' -prune -o -name '*.[ch]' -print | sed 's|^\./||' | sort >"$tmp/all"
grep '\.[ch]$' "$tmp/given" | sort | diff "$tmp/all" - >"$tmp/diff" || { cat "$tmp/diff"; echo "not all was looked at"; exit 1; }
[ "$(wc -l <"$tmp/all")" -gt 300 ] || { echo "too few files"; exit 1; }
stub clang-format 'exit 1'
! tidy || { echo "clang-format fails, tidy does not"; exit 1; }
echo "$(wc -l <"$tmp/all") files"
