#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every form of either CPU model in 64-bit mode (MODES: as the checker takes them) against the host's
# processor, with many more operands than tests/unit/isa.sh. TRIALS= of pollux-v2, a quarter of that of pollux-v3, most of which is the same.
# SEED=. A host without AVX2 can only tell of pollux-v2.
cd "$(dirname "$0")/../.." || exit 1
seed=${SEED:-$(date +%s)}
trials=${TRIALS:-1000}
isa=${BUILD:-build}/tests/isa/isa
read -ra modes <<<"${MODES:---mode 64}"
echo "seed $seed"
"$isa" "${modes[@]}" --seed "$seed" --trials "$trials" || exit
"$isa" --v3 "${modes[@]}" --seed "$seed" --trials $(((trials + 3) / 4))
rc=$?
[ $rc = 77 ] || exit $rc
