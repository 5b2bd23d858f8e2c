/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/timer.h - virtual timers (R4, R5): armed by devices, fired at round starts.
 *
 * A device owns its struct vtimer, links it once at creation and saves the deadline in its own
 * section (the queue itself is in none: after load the device arms again). Timers due at the same
 * round start fire in order of (deadline, order of vtimer_init): never of arming.
 * Threading: the serial part. Times are virtual nanoseconds since power-on. */
#ifndef VMM_DEV_TIMER_H
#define VMM_DEV_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#define VTIMER_NEVER UINT64_MAX

struct vtimer_queue;

struct vtimer {
    uint64_t deadline; /* VTIMER_NEVER: not armed */
    void (*fire)(void *ctx, uint64_t now);
    void *ctx;
    struct vtimer_queue *queue;
    struct vtimer *next; /* in the queue, by order of vtimer_init */
};

struct vtimer_queue {
    struct vtimer *first, **last;
    uint64_t earliest; /* <= every deadline; kept exact by vtimers_next */
    /* Called when a timer is armed earlier than every other, so that a running round can end in
     * time for it. May be NULL. */
    void (*sooner)(void *ctx, uint64_t deadline);
    void *sooner_ctx;
};

void vtimer_queue_init(struct vtimer_queue *q);
/* For the life of the machine: timers are never unlinked. */
void vtimer_init(struct vtimer *t, struct vtimer_queue *q, void (*fire)(void *ctx, uint64_t now),
                 void *ctx);
void vtimer_arm(struct vtimer *t, uint64_t deadline); /* VTIMER_NEVER disarms */
void vtimer_disarm(struct vtimer *t);
/* The earliest deadline, VTIMER_NEVER if none is armed. */
uint64_t vtimers_next(struct vtimer_queue *q);
/* Fire all that are due at @now, each disarmed before its callback (which may arm again: what it
 * arms for a time <= now fires in this same call). */
void vtimers_fire(struct vtimer_queue *q, uint64_t now);

#endif
