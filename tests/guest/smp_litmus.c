/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_litmus.c - only sequentially consistent outcomes: store buffer, message passing,
 * independent reads of independent writes, and clocks read around a store. Each with its variables
 * on one page and on pages of their own, and with the processors out of step in many ways.
 *
 * Hunts: a parallel part that lets a processor read a page another one writes; a store that
 * becomes visible before an older one; a clock that runs behind what memory tells. */
#include "smp.h"

enum { RUNS = 600, FAR = 4096 / sizeof(uint64_t) };

static volatile uint64_t arena[4 * FAR] __attribute__((aligned(4096)));
static volatile uint64_t *x, *y;
static uint64_t result[SMP_MAX][RUNS][2];
static unsigned span;

/* Processors are out of step by a different amount each time. */
static void skew(unsigned cpu, unsigned run)
{
    spin((run * 7919 + cpu * 104729) % 97 * (run % 5 + 1));
}

static void clear(unsigned cpu)
{
    smp_barrier(cpu, span);
    if (cpu == 0) {
        *x = 0;
        *y = 0;
    }
    smp_barrier(cpu, span);
}

static void store_buffer(unsigned cpu)
{
    for (unsigned run = 0; cpu < span && run < RUNS; run++) {
        clear(cpu);
        skew(cpu, run);
        if (cpu == 0) {
            *x = 1;
            result[0][run][0] = *y;
        } else {
            *y = 1;
            result[1][run][0] = *x;
        }
    }
}

static void message_passing(unsigned cpu)
{
    for (unsigned run = 0; cpu < span && run < RUNS; run++) {
        clear(cpu);
        skew(cpu, run);
        if (cpu == 0) {
            *x = 1;
            *y = 1;
        } else {
            result[1][run][0] = *y;
            result[1][run][1] = *x;
        }
    }
}

static void independent_reads(unsigned cpu)
{
    for (unsigned run = 0; cpu < span && run < RUNS; run++) {
        clear(cpu);
        skew(cpu, run);
        switch (cpu) {
        case 0:
            *x = 1;
            break;
        case 1:
            *y = 1;
            break;
        case 2:
            result[2][run][0] = *x;
            result[2][run][1] = *y;
            break;
        default:
            result[3][run][0] = *y;
            result[3][run][1] = *x;
        }
    }
}

static void clock_after_store(unsigned cpu)
{
    for (unsigned run = 0; cpu < span && run < RUNS; run++) {
        clear(cpu);
        skew(cpu, run);
        if (cpu == 0) {
            *y = rdtsc();
            *x = 1;
        } else {
            while (*x == 0) {
            }
            result[1][run][0] = *y;
            result[1][run][1] = rdtsc();
        }
    }
}

static void judge(const char *where)
{
    unsigned sb = 0, mp = 0, iriw = 0, tsc = 0;

    span = 2;
    smp_run(store_buffer);
    for (unsigned i = 0; i < RUNS; i++) {
        sb += result[0][i][0] == 0 && result[1][i][0] == 0;
    }
    smp_run(message_passing);
    for (unsigned i = 0; i < RUNS; i++) {
        mp += result[1][i][0] == 1 && result[1][i][1] == 0;
    }
    smp_run(clock_after_store);
    for (unsigned i = 0; i < RUNS; i++) {
        tsc += result[1][i][1] < result[1][i][0];
    }
    put(where);
    put("\n");
    check_eq("store buffer: never both old", sb, 0);
    check_eq("message passing: never the message before the data", mp, 0);
    check_eq("a clock read after a store is seen is not behind", tsc, 0);
    if (smp_cpus >= 4) {
        span = 4;
        smp_run(independent_reads);
        for (unsigned i = 0; i < RUNS; i++) {
            iriw += result[2][i][0] == 1 && result[2][i][1] == 0 && result[3][i][0] == 1 &&
                    result[3][i][1] == 0;
        }
        check_eq("independent reads: one order for all", iriw, 0);
    }
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_litmus");
    }
    x = &arena[0];
    y = &arena[1];
    judge("on one page");
    y = &arena[FAR];
    judge("on two pages");
    return checks_done("smp_litmus");
}
