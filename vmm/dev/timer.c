/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/timer.c - see timer.h. A machine has a few dozen timers: a list, looked through. */
#include "vmm/dev/timer.h"

#include <stddef.h>

void vtimer_queue_init(struct vtimer_queue *q)
{
    *q = (struct vtimer_queue){.earliest = VTIMER_NEVER};
    q->last = &q->first;
}

void vtimer_init(struct vtimer *t, struct vtimer_queue *q, void (*fire)(void *ctx, uint64_t now),
                 void *ctx)
{
    *t = (struct vtimer){.deadline = VTIMER_NEVER, .fire = fire, .ctx = ctx, .queue = q};
    *q->last = t;
    q->last = &t->next;
}

void vtimer_arm(struct vtimer *t, uint64_t deadline)
{
    struct vtimer_queue *q = t->queue;

    t->deadline = deadline;
    if (deadline < q->earliest) {
        q->earliest = deadline;
        if (q->sooner != NULL) {
            q->sooner(q->sooner_ctx, deadline);
        }
    }
}

void vtimer_disarm(struct vtimer *t)
{
    t->deadline = VTIMER_NEVER;
}

uint64_t vtimers_next(struct vtimer_queue *q)
{
    q->earliest = VTIMER_NEVER;
    for (const struct vtimer *t = q->first; t != NULL; t = t->next) {
        if (t->deadline < q->earliest) {
            q->earliest = t->deadline;
        }
    }
    return q->earliest;
}

void vtimers_fire(struct vtimer_queue *q, uint64_t now)
{
    if (now < q->earliest) {
        return; /* the usual case costs one comparison */
    }
    for (;;) {
        struct vtimer *due = NULL;

        for (struct vtimer *t = q->first; t != NULL; t = t->next) {
            if (t->deadline != VTIMER_NEVER && t->deadline <= now &&
                (due == NULL || t->deadline < due->deadline)) {
                due = t;
            }
        }
        if (due == NULL) {
            break;
        }
        due->deadline = VTIMER_NEVER;
        due->fire(due->ctx, now);
    }
    vtimers_next(q);
}
