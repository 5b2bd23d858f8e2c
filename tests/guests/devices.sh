#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest writes and reads back a disk, and the image holds what it wrote; it draws from its
# entropy device.
set -u
. "$(dirname "$0")/lib.sh"

truncate -s 8M "$tmp/disk"
boot "pollux.test=blk" --disk "$tmp/disk"
[ $rc -eq 0 ] || fail "blk: exit code $rc"
passed blk
grep '^pollux: disk' "$tmp/console" || fail "no report"
[ "$(head -c 4 "$tmp/disk" | tail -c 3)" = ELF ] || fail "the image does not hold what was written"
boot "pollux.test=rng"
[ $rc -eq 0 ] || fail "rng: exit code $rc"
passed rng
grep '^pollux: hwrng' "$tmp/console"
