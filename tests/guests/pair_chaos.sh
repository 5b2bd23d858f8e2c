#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair with chaos on both sides serves a counting benchmark: nothing lost, nothing doubled, digests
# equal. More seeds in tests/long/chaos.sh.
set -u
. "$(dirname "$0")/chaos_lib.sh"
chaos_pair "${SEED:-$((RANDOM + 1))}" 150
