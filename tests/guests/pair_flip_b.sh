#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Flipped bits in the backup's RAM are found; seeds 6 to 10. See flips.sh.
. "$(dirname "$0")/flips.sh"
flips 6 10
