#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every form of either CPU model is checked against the host, refused, or privileged; none differs.
# A host without AVX2 can only tell of pollux-v2.
cd "$(dirname "$0")/../.." || exit 1
seed=${SEED:-$(date +%Y%m%d)}
b=${BUILD:-build}
echo "seed $seed"
"$b/tests/isa/isa" --seed "$seed" --trials 12 --table "$b/isa-table.txt" || exit
"$b/tests/isa/isa" --v3 --seed "$seed" --trials 12 --table "$b/isa-table-v3.txt"
rc=$?
[ $rc = 77 ] || exit $rc
