/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_warp.c - the TSC never goes back, whichever two processors look at it. */
#include "smp.h"

enum { LOOKS = 1500 };

static uint32_t lock;
static uint64_t last, warps, most;
static unsigned a, b;

static void look(unsigned cpu)
{
    if (cpu != a && cpu != b) {
        return;
    }
    for (unsigned i = 0; i < LOOKS; i++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST) != 0) {
            pause_cpu();
        }
        uint64_t now = rdtsc();

        if (now < last) {
            warps++;
            most = last - now > most ? last - now : most;
        }
        last = now;
        STORE(&lock, 0);
        spin(i % 7);
    }
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_warp");
    }
    for (a = 0; a < smp_cpus; a++) {
        for (b = a + 1; b < smp_cpus; b++) {
            smp_run(look);
        }
    }
    check_eq("no pair of processors sees the TSC go back", warps, 0);
    check_eq("by how much at most", most, 0);
    return checks_done("smp_warp");
}
