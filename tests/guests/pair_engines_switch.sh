#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair of which one side translates and interprets by turns, changed at random between runs
# (vmm/engine/switch.c), and the other interprets (R9): both run redis under load, no digest differs;
# the primary is killed and the interpreter goes on.
set -u
. "$(dirname "$0")/lib.sh"
engines_take_over switch,interp
