/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/team.h - the host threads on which the vCPUs of one VM run in parallel parts.
 *
 * The thread that calls team_run is the first of the team; the others wait for it, spinning for a
 * moment when every thread can have a core of its own, then on a futex. All are created by
 * team_create, so that a process may give up the right to create threads afterwards.
 *
 * Ownership: the VM. Threading: one thread at a time calls team_run, and what it wrote before is
 * seen by every task, what tasks wrote is seen by it afterwards. Determinism: nothing that a task
 * does may depend on which thread runs it, nor when. */
#ifndef VMM_SCHED_TEAM_H
#define VMM_SCHED_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { TEAM_THREADS_MAX = 16 };

struct team; /* opaque */

struct team_config {
    unsigned threads; /* 1 to TEAM_THREADS_MAX, the calling one included */
    bool delays;      /* at random before and after tasks (CHAOS_BARRIER); and nobody spins */
};

struct team_counters {
    uint64_t runs;
    uint64_t together; /* runs in which two threads were inside at the same time */
    uint64_t slept;    /* waits that ended on the futex, of all threads */
};

/* How many threads of this process can run at the same time, at most TEAM_THREADS_MAX. */
unsigned team_cores(void);

/* Errors: PLX_ENOMEM, what pthread_create says. */
int team_create(const struct team_config *cfg, struct team **out, struct plx_err *err);
void team_destroy(struct team *t); /* NULL is a no-op; joins */

/* task(ctx, i) for every i below @n, spread over the threads; returns when all have. */
void team_run(struct team *t, unsigned n, void (*task)(void *ctx, unsigned i), void *ctx);

void team_counters(struct team *t, struct team_counters *out);

#endif
