#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every form against the host's processor, with many more operands than tests/unit/isa.sh.
cd "$(dirname "$0")/../.." || exit 1
seed=${SEED:-$(date +%s)}
echo "seed $seed"
"${BUILD:-build}/tests/isa/isa" --seed "$seed" --trials "${TRIALS:-1000}"
