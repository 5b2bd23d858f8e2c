#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Flipped bits in the backup's RAM are found; seeds 1 to 5. See flips.sh.
. "$(dirname "$0")/flips.sh"
flips 1 5
