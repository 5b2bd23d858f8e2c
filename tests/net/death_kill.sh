#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# serial
# Hunts: an acknowledged write or the connection lost, or a takeover that is not the record's, when
# the primary's process, its process and its daemon, or the backup's process is killed.
LAB_PREFIX=plxkill
. "$(dirname "$0")/drill.sh"
drill_up

drill_start "primary killed"
drill_fault
kill -KILL "$(lab_replica $A)"
drill_goes_on
drill_event takeover
drill_unprotected $B
drill_end

drill_start "backup killed"
drill_fault
kill -KILL "$(lab_replica $B)"
drill_goes_on
drill_event alone
drill_unprotected $A
drill_end

drill_start "primary and its daemon killed"
drill_fault
kill -KILL "$(lab_replica $A)" "${LAB_PID[$A]}"
lab_kill $A
drill_goes_on
drill_event takeover
drill_unprotected $B
drill_end
