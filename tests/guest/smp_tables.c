/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_tables.c - page tables that one processor edits while others walk them.
 *
 * Hunts: a translation that outlives the entry it came from, a dirty flag that is lost between
 * the processor that sets it and the one that takes it, an entry seen half-written. */
#include "smp.h"

enum { RUNS = 300, PAGES = 4 };
#define WINDOW UINT64_C(0x300000000)

static uint64_t frame[PAGES][512] __attribute__((aligned(4096)));
static volatile uint64_t *entry;
static volatile uint32_t told, heard;
static uint64_t stale, lost, half;

static void move(unsigned cpu)
{
    volatile uint64_t *const at = (volatile uint64_t *)WINDOW;

    for (uint32_t i = 1; cpu < 2 && i <= RUNS; i++) {
        if (cpu == 0) {
            *entry = (uint64_t)frame[i % PAGES] | PTE_P | PTE_W | (i % 3 == 0 ? PTE_A : 0);
            told = i;
            while (heard != i) {
            }
        } else {
            while (told != i) {
            }
            invlpg(WINDOW);
            stale += *at != i % PAGES;
            heard = i;
        }
    }
}

/* Processor 0 takes the dirty flag away; whoever wrote since must have set it again. */
static void harvest(unsigned cpu)
{
    volatile uint64_t *const at = (volatile uint64_t *)(WINDOW + 8);

    for (uint32_t i = 1; cpu < 2 && i <= RUNS; i++) {
        if (cpu == 0) {
            uint64_t was = __atomic_fetch_and(entry, ~(uint64_t)(PTE_D | PTE_A), __ATOMIC_SEQ_CST);

            (void)was;
            told = i;
            while (heard != i) {
            }
            lost += (i % 2 == 0) != ((*entry & PTE_D) != 0);
            lost += (*entry & PTE_A) == 0;
        } else {
            while (told != i) {
            }
            invlpg(WINDOW);
            if (i % 2 == 0) {
                *at = i;
            } else {
                (void)*at;
            }
            heard = i;
        }
    }
}

/* All look through a window that processor 0 keeps moving, without any agreement. */
static void look_on(unsigned cpu)
{
    volatile uint64_t *const at = (volatile uint64_t *)WINDOW;

    for (uint32_t i = 0; i < RUNS; i++) {
        if (cpu == 0) {
            *entry = (uint64_t)frame[i % PAGES] | PTE_P | PTE_W;
        } else {
            invlpg(WINDOW);
            if (*at >= PAGES) {
                __atomic_fetch_add(&half, 1, __ATOMIC_SEQ_CST);
            }
        }
        spin(i % 17 * (cpu + 1));
    }
}

/* Each processor maps, writes, reads and unmaps pages of its own in one shared table. */
static void own_slots(unsigned cpu)
{
    volatile uint64_t *const slot = entry + 16 + cpu;
    volatile uint64_t *const at = (volatile uint64_t *)(WINDOW + (16 + cpu) * 4096);

    for (uint32_t i = 0; i < RUNS; i++) {
        *slot = (uint64_t)frame[(i + cpu) % PAGES] | PTE_P | PTE_W;
        if (*at != (i + cpu) % PAGES) {
            __atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
        }
        *slot = 0;
        invlpg((uint64_t)at);
    }
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_tables");
    }
    for (unsigned i = 0; i < PAGES; i++) {
        frame[i][0] = i;
    }
    entry = map_page(WINDOW, (uint64_t)frame[0], PTE_P | PTE_W);
    smp_run(move);
    check_eq("a moved page is found where it is", stale, 0);
    *entry = (uint64_t)frame[0] | PTE_P | PTE_W;
    told = heard = 0;
    smp_run(harvest);
    check_eq("accessed and dirty flags are set by who walks", lost, 0);
    smp_run(look_on);
    check_eq("an entry is the old or the new one", half, 0);
    stale = 0;
    smp_run(own_slots);
    check_eq("slots of one table, a processor each", stale, 0);
    return checks_done("smp_tables");
}
