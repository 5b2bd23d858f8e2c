#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Crashes at every point of longer workloads on virtual disks, and of a kernel's ext4 on one.
cd "$(dirname "$0")/../.." || exit 1
exec make --no-print-directory check-crash
