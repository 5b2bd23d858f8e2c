#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Flipped bits in the backup's RAM are found; seeds 11 to 15. See flips.sh.
. "$(dirname "$0")/flips.sh"
flips 11 15
