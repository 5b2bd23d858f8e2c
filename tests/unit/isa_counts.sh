#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Retired counts equal the host's, and budgets of any size lead to the same digest, by either engine.
# A host without AVX2 can only tell of pollux-v2.
cd "$(dirname "$0")/../.." || exit 1
counts=${BUILD:-build}/tests/isa/counts/counts
"$counts" build/tests/isa/mixed || exit
"$counts" --v3 build/tests/isa/vector
rc=$?
[ $rc = 77 ] || exit $rc
