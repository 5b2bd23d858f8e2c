#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Torture with 2 and with 4 vCPUs, of small programs and of a Linux that has booted.
cd "$(dirname "$0")/../.." || exit 1
programs="locks tables code blk litmus ipi warp saved"
make --no-print-directory torture VCPUS=2 RUNS=2 GUESTS="$programs" SEED="${SEED:-$((RANDOM + 1))}" &&
    make --no-print-directory torture VCPUS=4 RUNS=1 GUESTS="$programs" SEED="${SEED:-$((RANDOM + 1))}"
