#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# isa.sh in 16- and 32-bit modes, on hosts that have such programs.
MODES="--mode 16 --mode 32" exec "$(dirname "$0")/isa.sh"
