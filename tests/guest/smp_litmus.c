/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_litmus.c - only sequentially consistent outcomes: store buffer, message passing,
 * independent reads of independent writes, and clocks read around a store. Each with its variables
 * on one page and on pages of their own, and with the processors out of step in many ways, so that
 * every outcome that is allowed does occur.
 *
 * Hunts: a parallel part that lets a processor read a page another one writes; a store that
 * becomes visible before an older one; a clock that runs behind what memory tells. */
#include "smp.h"

enum { RUNS = 200, PASSES = 25, ALONE = 6000, YIELD = 17, FAR = 4096 / sizeof(uint64_t) };

static volatile uint64_t arena[4 * FAR] __attribute__((aligned(4096)));
static volatile uint64_t *x, *y;
static uint64_t result[SMP_MAX][RUNS][2];
static unsigned span, pass;

/* Processors are out of step by a different amount each time, and have enough to do for themselves
 * that it is done in parallel. */
static void skew(unsigned cpu, unsigned run)
{
    run += pass * RUNS;
    spin(ALONE + (run * 7919 + cpu * 104729) % 97 * (run % 5 + 1));
}

/* Between the two accesses of one there is nothing, or a while, or the others get their turn. */
static void gap(unsigned cpu, unsigned run)
{
    run += pass * RUNS;
    for (unsigned i = 0; i < run % 3 * YIELD; i++) {
        pause_cpu();
    }
    spin((run * 31 + cpu * 17) % 61 * (run % 3));
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
            gap(cpu, run);
            result[0][run][0] = *y;
        } else {
            *y = 1;
            gap(cpu, run);
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
            gap(cpu, run);
            *y = 1;
        } else {
            result[1][run][0] = *y;
            gap(cpu, run);
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
            gap(cpu, run);
            result[2][run][1] = *y;
            break;
        default:
            result[3][run][0] = *y;
            gap(cpu, run);
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

/* How often the two results @a and @b of these processors were old (0) or new: by 2 * a + b. */
static unsigned outcome[4];

static void count(unsigned cpu_a, unsigned a, unsigned cpu_b, unsigned b)
{
    for (unsigned i = 0; i < RUNS; i++) {
        outcome[result[cpu_a][i][a] * 2 + result[cpu_b][i][b]]++;
    }
}

/* @task, as often as it takes until all but the outcome @never has occurred. */
static bool all_else_occurs(void (*task)(unsigned cpu), unsigned never, unsigned cpu_a, unsigned a,
                            unsigned cpu_b, unsigned b)
{
    bool all = false;

    __builtin_memset(outcome, 0, sizeof outcome);
    for (pass = 0; pass < PASSES && !all; pass++) {
        smp_run(task);
        count(cpu_a, a, cpu_b, b);
        all = true;
        for (unsigned i = 0; i < 4; i++) {
            all = all && (i == never || outcome[i] != 0);
        }
    }
    pass = 0;
    return all;
}

static void judge_independent_reads(void)
{
    unsigned two_orders = 0, first[2] = {0, 0}; /* x before y, y before x */

    span = 4;
    for (pass = 0; pass < PASSES && (first[0] == 0 || first[1] == 0); pass++) {
        smp_run(independent_reads);
        for (unsigned i = 0; i < RUNS; i++) {
            bool x_first = result[2][i][0] == 1 && result[2][i][1] == 0;
            bool y_first = result[3][i][0] == 1 && result[3][i][1] == 0;
            first[0] += x_first;
            first[1] += y_first;
            two_orders += x_first && y_first;
        }
    }
    pass = 0;
    check_eq("independent reads: one order for all", two_orders, 0);
    check("independent reads: the one was first", first[0] != 0);
    check("independent reads: and so was the other", first[1] != 0);
}

static void judge(const char *where)
{
    unsigned behind = 0;

    put(where);
    put("\n");
    span = 2;
    check("store buffer: all else occurs", all_else_occurs(store_buffer, 0, 0, 0, 1, 0));
    check_eq("store buffer: never both old", outcome[0], 0);
    check("message passing: all else occurs", all_else_occurs(message_passing, 2, 1, 0, 1, 1));
    check_eq("message passing: never the message before the data", outcome[2], 0);
    smp_run(clock_after_store);
    for (unsigned i = 0; i < RUNS; i++) {
        behind += result[1][i][1] < result[1][i][0];
    }
    check_eq("a clock read after a store is seen is not behind", behind, 0);
    if (smp_cpus >= 4) {
        judge_independent_reads();
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
