#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs for several processors on 8 and 16 vCPUs.
cd "$(dirname "$0")/../.." || exit 1
VCPUS="8 16" exec tests/guest/smp.sh
