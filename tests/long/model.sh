#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The models of barrier and ownership in full.
cd "$(dirname "$0")/../.." || exit 1
exec make --no-print-directory model
