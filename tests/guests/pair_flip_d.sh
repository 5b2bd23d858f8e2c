#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Flipped bits in the backup's RAM are found; seeds 16 to 20. See flips.sh.
. "$(dirname "$0")/flips.sh"
flips 16 20
