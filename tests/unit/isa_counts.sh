#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Retired counts equal the host's, and budgets of any size lead to the same digest.
cd "$(dirname "$0")/../.." || exit 1
"${BUILD:-build}/tests/isa/counts/counts" build/tests/isa/mixed
