#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Torture of Linux from its first instruction on, with 2 and with 4 vCPUs: as long as all other torture.
cd "$(dirname "$0")/../.." || exit 1
for vcpus in 2 4; do
    make --no-print-directory torture VCPUS=$vcpus RUNS=1 GUESTS=linux SEED="${SEED:-$((RANDOM + 1))}" || exit 1
done
