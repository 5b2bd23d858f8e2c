#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Torture with 2 and with 4 vCPUs, Linux included.
cd "$(dirname "$0")/../.." || exit 1
make --no-print-directory torture VCPUS=2 RUNS=2 && make --no-print-directory torture VCPUS=4 RUNS=1
