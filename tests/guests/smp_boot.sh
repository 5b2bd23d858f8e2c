#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stock kernel starts its other processors by INIT and SIPI and finds in ACPI and CPUID what there
# is: one package, clocks that agree, nothing to complain of. VCPUS=2 4 8 16 says how many.
set -u
. "$(dirname "$0")/lib.sh"

for n in ${VCPUS:-2}; do
    boot "pollux.test=poweroff" --vcpus "$n"
    [ $rc -eq 0 ] || fail "$n vCPUs: exit code $rc"
    grep -q 'pollux: dmesg clean' "$tmp/console" || fail "$n vCPUs: dmesg is not clean"
    for line in "smpboot: Allowing $n CPUs, 0 hotplug CPUs" "smp: Brought up 1 node, $n CPUs" \
        "smpboot: Max logical packages: 1" "smpboot: Total of $n processors activated" \
        "clocksource: Switched to clocksource tsc"; do
        grep -aqF "$line" "$tmp/console" || fail "$n vCPUs: no line '$line'"
    done
    for line in 'firmware bug' 'TSC warp' 'Measured .* cycles' 'unstable' 'lockup' 'did not respond' \
        'APIC id mismatch' 'mtrr: your CPUs'; do
        grep -aiq "$line" "$tmp/console" && fail "$n vCPUs: $(grep -ai "$line" "$tmp/console")"
    done
    echo "$n vCPUs: brought up, dmesg clean"
done
