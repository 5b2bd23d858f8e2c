#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A test of a rule that passes whatever the code does is worth nothing: each of them must fail once
# its rule is broken (make/rules.mk), and pass otherwise. Rules that several vCPUs can break have a
# test of their own for that, which must be among those that fail.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
limit=${LIMIT:-60} # on a slow host a test is given more time: one cut short has not noticed either
bad=0
declare -A smp=([R2]=r2_pages_have_owners [R3]=r3_the_serial_order_is_state [R5]=r5_clocks_agree_with_memory
    [R7]=r7_nor_on_another_vcpu [R8]=r8_and_of_every_vcpu)

make -s -j"$(nproc)" broken-rules "$build/tests/unit/test_rules" >"$build/broken-rules.log" 2>&1 || {
    tail -n 20 "$build/broken-rules.log"
    echo "the variants do not build"
    exit 1
}
for rule in R1 R2 R3 R4 R5 R6 R7 R8 R9; do
    timeout "$limit" "$build/tests/unit/test_rules" "$rule" >/dev/null 2>&1 || {
        echo "$rule: its test fails on the code as it is"
        bad=1
    }
    timeout "$limit" "$build/break/$rule/test_rules" "$rule" >"$build/break/$rule/output" 2>&1
    rc=$?
    if [ $rc -ge 1 ] && [ $rc -le 9 ] && grep -q '^\[  FAILED  \] r[1-9]_' "$build/break/$rule/output"; then
        echo "$rule broken: $(grep -o 'FAILED  \] r[1-9]_[a-z_]*' "$build/break/$rule/output" | cut -c 11- | sort -u | paste -sd " ") fails, as it must"
    else
        echo "$rule broken: its test does not notice (exit code $rc)"
        bad=1
    fi
    [ -z "${smp[$rule]:-}" ] || grep -q "^\[  FAILED  \] ${smp[$rule]}\$" "$build/break/$rule/output" || {
        echo "$rule broken: ${smp[$rule]} does not notice"
        bad=1
    }
done
exit $bad
