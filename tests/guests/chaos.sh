#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A busy redis under chaos answers rightly and replays to the same digests: two seeds. More of them
# in tests/long/chaos.sh.
set -u
. "$(dirname "$0")/chaos_lib.sh"
seed=${SEED:-$((RANDOM + 1))}
chaos_run "$seed" 8
chaos_run $((seed + 1000)) 8
