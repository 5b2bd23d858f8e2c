/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/lapic_timer.c - the LAPIC timer (SDM Vol. 3A, "APIC Timer") as a function of virtual
 * time: counts are computed when they are read, and only interrupts need a virtual timer. A timer
 * fires at a round start, so a register access that sees a later time delivers what is due first.
 */
#include "vmm/dev/lapic_internal.h"

static uint32_t mode_of(const struct lapic *l)
{
    return l->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

static bool counting(const struct lapic *l)
{
    return l->timer_init != 0 && mode_of(l) != LVT_DEADLINE;
}

/* Virtual ns of one count: the divide configuration is in bits 0, 1 and 3, 0 means 2, 7 means 1. */
static uint64_t count_ns(const struct lapic *l)
{
    unsigned code = (l->timer_div & 3) | ((l->timer_div >> 1) & 4);

    return TIMER_TICK_NS << ((code + 1) & 7);
}

uint32_t lapic_timer_count(const struct lapic *l)
{
    uint64_t elapsed;

    if (!counting(l)) {
        return 0;
    }
    elapsed = (machine_now(l->m) - l->timer_start) / count_ns(l);
    if (elapsed < l->timer_count) {
        return l->timer_count - (uint32_t)elapsed;
    }
    if (mode_of(l) != LVT_PERIODIC) {
        return 0;
    }
    return l->timer_init - (uint32_t)((elapsed - l->timer_count) % l->timer_init);
}

/* IA32_TSC as the guest reads it: 1 tick per ns (TSC_HZ) plus IA32_TSC_ADJUST. */
static uint64_t tsc_at(const struct lapic *l, uint64_t now)
{
    return now + l->v->c.tsc_adjust;
}
_Static_assert(TSC_HZ == UINT64_C(1000000000), "TSC ticks are virtual ns");

/* The first time after @now at which the counter reaches zero. */
static uint64_t next_zero(const struct lapic *l, uint64_t now)
{
    uint64_t first = l->timer_start + l->timer_count * count_ns(l);
    uint64_t period = l->timer_init * count_ns(l);

    if (first > now) {
        return first;
    }
    return mode_of(l) == LVT_PERIODIC ? first + ((now - first) / period + 1) * period
                                      : VTIMER_NEVER;
}

void lapic_timer_rearm(struct lapic *l)
{
    uint64_t now = machine_now(l->m), deadline = VTIMER_NEVER;

    if (mode_of(l) == LVT_DEADLINE) {
        uint64_t tsc = tsc_at(l, now);

        if (l->tsc_deadline != 0) {
            uint64_t left = l->tsc_deadline > tsc ? l->tsc_deadline - tsc : 0;

            deadline = left < VTIMER_NEVER - now ? now + left : VTIMER_NEVER;
        }
    } else if (counting(l) && (l->lvt[LVT_TIMER] & LVT_MASKED) == 0) {
        deadline = next_zero(l, now);
    }
    vtimer_arm(&l->timer, deadline);
}

void lapic_timer_fire(void *ctx, uint64_t now)
{
    struct lapic *l = ctx;

    if (mode_of(l) == LVT_DEADLINE) {
        if (l->tsc_deadline == 0 || tsc_at(l, now) < l->tsc_deadline) {
            lapic_timer_rearm(l); /* IA32_TSC_ADJUST was lowered meanwhile */
            return;
        }
        l->tsc_deadline = 0;
    }
    lapic_local(l, LVT_TIMER);
    lapic_timer_rearm(l);
}

void lapic_timer_sync(struct lapic *l)
{
    uint64_t now = machine_now(l->m);

    if (l->timer.deadline <= now) {
        vtimer_disarm(&l->timer);
        lapic_timer_fire(l, now);
    } else if (mode_of(l) == LVT_DEADLINE && l->tsc_deadline != 0 &&
               tsc_at(l, now) >= l->tsc_deadline) { /* IA32_TSC_ADJUST was raised meanwhile */
        vtimer_disarm(&l->timer);
        lapic_timer_fire(l, now);
    }
}

void lapic_timer_set_init(struct lapic *l, uint32_t count)
{
    if (mode_of(l) == LVT_DEADLINE) {
        return; /* "writes to the initial-count register are ignored" in this mode */
    }
    lapic_timer_sync(l);
    l->timer_init = l->timer_count = count;
    l->timer_start = machine_now(l->m);
    lapic_timer_rearm(l);
}

void lapic_timer_set_div(struct lapic *l, uint32_t div)
{
    lapic_timer_sync(l);
    l->timer_count = lapic_timer_count(l);
    l->timer_start = machine_now(l->m);
    l->timer_div = div;
    lapic_timer_rearm(l);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt)
{
    lapic_timer_sync(l);
    if (((lvt ^ l->lvt[LVT_TIMER]) & LVT_TIMER_MODE) != 0) {
        if ((lvt & LVT_TIMER_MODE) == LVT_DEADLINE || mode_of(l) == LVT_DEADLINE) {
            l->tsc_deadline = 0; /* to or from TSC-deadline mode: disarmed */
            l->timer_init = l->timer_count = 0;
        } else { /* one-shot and periodic: goes on counting from where it is */
            l->timer_count = lapic_timer_count(l);
            l->timer_start = machine_now(l->m);
        }
    }
    l->lvt[LVT_TIMER] = lvt;
    lapic_timer_rearm(l);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    if (mode_of(l) != LVT_DEADLINE) {
        return; /* "in other timer modes, WRMSR is ignored" */
    }
    lapic_timer_sync(l);
    l->tsc_deadline = tsc;
    vtimer_disarm(&l->timer);
    if (tsc != 0 && tsc_at(l, machine_now(l->m)) >= tsc) {
        lapic_timer_fire(l, machine_now(l->m)); /* in the past: at once */
    } else {
        lapic_timer_rearm(l);
    }
}
