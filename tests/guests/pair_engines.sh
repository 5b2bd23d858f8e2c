#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair of a translator and an interpreter (R9), either as the primary: both run redis under load, no
# digest differs; the primary is killed and the other engine goes on. tests/long/pair_engines.sh: a
# whole boot.
set -u
. "$(dirname "$0")/lib.sh"
for engines in jit,interp interp,jit; do
    loaded_pair 2000 --engines $engines --digest 8 --kill primary --timeout 28
    grep '^\[' "$tmp/err"
    grep -q 'event takeover' "$tmp/err" || fail "$engines: no takeover"
    grep -q '^\[1\].* 0 differ' "$tmp/err" && ! grep -q '^\[1\].* 0 digests compared' "$tmp/err" ||
        fail "$engines: $(grep '^\[1\]' "$tmp/err")"
done
