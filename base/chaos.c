/* SPDX-License-Identifier: Apache-2.0
 * base/chaos.c - see chaos.h. */
#include "base/chaos.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"

bool chaos_on;

static const struct {
    const char *name;
    unsigned one_in, max_us;
} points[] = {
#define X(name, one_in, max_us) {#name, one_in, max_us},
    CHAOS_POINTS(X)
#undef X
};

static uint64_t seed_of_run;
static _Atomic uint64_t passed[CHAOS_POINT_END], slept[CHAOS_POINT_END];
static _Atomic uint64_t done[CHAOS_DEED_END];

void chaos_start(uint64_t seed)
{
    seed_of_run = seed;
    chaos_on = seed != 0;
}

void chaos_sleep(enum chaos_point point)
{
    /* The n-th passage of a point draws the same whatever thread comes by. */
    uint64_t n = atomic_fetch_add_explicit(&passed[point], 1, memory_order_relaxed);
    const uint64_t key[] = {(uint64_t)point, n};
    struct hash128 h = hash128(key, sizeof key, seed_of_run);

    if (h.lo % points[point].one_in == 0) {
        atomic_fetch_add_explicit(&slept[point], 1, memory_order_relaxed);
        clock_sleep_ns(h.hi % (points[point].max_us * UINT64_C(1000)));
    }
}

void chaos_did(enum chaos_deed deed)
{
    atomic_fetch_add_explicit(&done[deed], 1, memory_order_relaxed);
}

const char *chaos_summary(char out[CHAOS_SUMMARY])
{
    int n = snprintf(out, CHAOS_SUMMARY, "drops %" PRIu64 ", reloads %" PRIu64,
                     atomic_load_explicit(&done[CHAOS_DROPPED], memory_order_relaxed),
                     atomic_load_explicit(&done[CHAOS_RELOADED], memory_order_relaxed));

    for (unsigned i = 0; i < CHAOS_POINT_END; i++) {
        n += snprintf(out + n, (size_t)(CHAOS_SUMMARY - n), ", %s %" PRIu64 "/%" PRIu64,
                      points[i].name, atomic_load_explicit(&slept[i], memory_order_relaxed),
                      atomic_load_explicit(&passed[i], memory_order_relaxed));
        PLX_CHECK(n < CHAOS_SUMMARY);
    }
    return out;
}
