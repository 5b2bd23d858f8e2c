#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every form is checked against the host, refused, or privileged; none differs.
cd "$(dirname "$0")/../.." || exit 1
seed=${SEED:-$(date +%Y%m%d)}
echo "seed $seed"
"${BUILD:-build}/tests/isa/isa" --seed "$seed" --trials 12 --table "${BUILD:-build}/isa-table.txt"
