#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair of a translator and an interpreter (R9), either as the primary: both run redis under load, no
# digest differs; the primary is killed and the other engine goes on. pair_engines_switch.sh: both by
# turns; tests/long/pair_engines.sh: a whole boot.
set -u
. "$(dirname "$0")/lib.sh"
for engines in jit,interp interp,jit; do
    engines_take_over $engines
done
