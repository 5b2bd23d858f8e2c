#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every form of either CPU model in 64-bit mode (MODES: as the checker takes them) is checked against
# the host, refused, or privileged; none differs. Both at once: each is two processes that wait for
# one another. A host without AVX2 can only tell of pollux-v2.
cd "$(dirname "$0")/../.." || exit 1
seed=${SEED:-$(date +%Y%m%d)}
b=${BUILD:-build}
read -ra modes <<<"${MODES:---mode 64}"
v3=$(mktemp)
trap 'kill $! 2>/dev/null; rm -f "$v3"' EXIT
echo "seed $seed"
"$b/tests/isa/isa" --v3 "${modes[@]}" --seed "$seed" --trials "${TRIALS:-12}" >"$v3" 2>&1 &
"$b/tests/isa/isa" "${modes[@]}" --seed "$seed" --trials "${TRIALS:-12}" || exit
wait $!
rc=$?
cat "$v3"
[ $rc = 77 ] || exit $rc
