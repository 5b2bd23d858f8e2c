#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The drill of `make demo` fails unless digests were compared, none differed, and the takeover left its
# event: its judging, without a cluster.
set -u
cd "$(dirname "$0")/../.." || exit 1
. ops/demo/demo.sh
n=0
judged() { # EXIT_CODE TEXT FUNCTION ARGUMENT...
    local wanted=$1 text=$2 said rc
    shift 2
    said=$("$@" 2>&1)
    rc=$?
    n=$((n + 1))
    if [ $rc -ne "$wanted" ] || [[ $said != *"$text"* ]]; then
        echo "$*: exit code $rc, '$said'; wanted $wanted, '$text'"
        exit 1
    fi
}
judged 0 "" judge 12 0
judged 1 "FAILED: no digest was compared" judge 0 0
judged 1 "FAILED: 1 of 12 digests differ" judge 12 1
judged 1 "FAILED: the backup did not say" judge "" ""
events=$'primary n2 (alone)\n2026-01-02T03:04:05.678Z demo takeover: the backup goes on'
judged 0 "" takeover_time "$events"
judged 1 "FAILED: there is no takeover" takeover_time "primary n2 (alone)"
judged 1 "FAILED: there is no takeover" takeover_time ""
takeover_time "$events"
[ "$won" = "$(date -d 2026-01-02T03:04:05.678Z +%s%N)" ] || { echo "time of the takeover: $won"; exit 1; }
echo "$n ends of a drill judged"
