#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# coverage.sh BUILD - what was built with --coverage under BUILD and has run since: of each folder of
# code the lines executed, without tests and generated code. A file that nothing linked counts too.
set -u
[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: coverage.sh BUILD" >&2; exit 2; }
command -v gcov >/dev/null || { echo "coverage: no gcov" >&2; exit 1; }
find "$1" -name '*.gcno' -not -path '*/tests/*' -not -name '*.pb-c.*' -print0 |
    xargs -0 -r -n 50 gcov -n 2>/dev/null | awk -F"'" '
    /^File / { file = $2; next }
    /^Lines executed:/ && file ~ /^[^\/].*\.c$/ && file !~ /^(tests|build)\// && !(file in seen) {
        seen[file] = 1
        split($0, part, /[:% ]+/) # Lines executed PERCENT of N
        folder = file
        sub(/\/[^\/]*$/, "", folder)
        lines[folder] += part[5]
        run[folder] += int(part[3] * part[5] / 100 + 0.5)
    }
    /^$/ { file = "" }
    END {
        for (f in lines) {
            printf "%-24s %6d of %6d lines  %5.1f %%\n", f, run[f], lines[f], run[f] * 100 / lines[f] | "sort"
            all += lines[f]
            ran += run[f]
        }
        close("sort")
        if (all == 0) {
            print "coverage: nothing was built with --coverage"
            exit 1
        }
        printf "%-24s %6d of %6d lines  %5.1f %%\n", "all", ran, all, ran * 100 / all
    }'
