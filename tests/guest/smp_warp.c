/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_warp.c - the TSC never goes back, whichever two processors look at it,
 * by turns in every pair. */
#include "smp.h"

enum { LOOKS = 150, TURNS_MIN = LOOKS / 10, YIELD = 17 };

static uint32_t lock;
static uint64_t last, warps, most;
static unsigned a, b, looker;
static uint64_t turns; /* how often it was another than the last time */

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
        turns += looker != cpu;
        looker = cpu;
        STORE(&lock, 0);
        for (unsigned k = 0; k < i % 3 * YIELD; k++) {
            pause_cpu(); /* the other gets its turn */
        }
        spin(i % 7 * 100);
    }
}

int guest_main(void)
{
    bool in_turn = true;

    if (!smp_start()) {
        return checks_done("smp_warp");
    }
    for (a = 0; a < smp_cpus; a++) {
        for (b = a + 1; b < smp_cpus; b++) {
            turns = 0;
            smp_run(look);
            in_turn = in_turn && turns >= TURNS_MIN;
        }
    }
    check_eq("no pair of processors sees the TSC go back", warps, 0);
    check_eq("by how much at most", most, 0);
    check("the two of each pair took turns", in_turn);
    return checks_done("smp_warp");
}
