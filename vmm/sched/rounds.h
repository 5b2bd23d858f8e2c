/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/rounds.h - rounds: which vCPU runs when, for how long and in which part (R2-R5).
 * ARCHITECTURE.md, "Rounds", says what the policies are and why.
 *
 * Ownership: struct vm embeds it. Threading: the VM thread. Determinism: struct rounds is state,
 * part of section "sched": every decision is a function of it, of the vCPUs and of the record. */
#ifndef VMM_SCHED_ROUNDS_H
#define VMM_SCHED_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/machine.h"

struct vcpu;
struct vm;

struct rounds {
    uint32_t turn;             /* counts rounds with several runnable vCPUs: who is served first */
    uint32_t quantum;          /* progress that a parallel part may make */
    int32_t score;             /* average of what a parallel part gains over running serially */
    uint32_t shared_left;      /* rounds of time sharing before the next parallel part */
    uint32_t shared_next;      /* length of the next spell of time sharing */
    uint8_t next;              /* time sharing: the vCPU whose turn it is ... */
    uint32_t next_left;        /* ... and what is left of it, as a slice or timer cut it short */
    uint8_t probing;           /* parallel parts before the score counts */
    uint8_t calm;              /* 1: nobody blocked in the last parallel part */
    uint32_t burst[VCPUS_MAX]; /* progress that a vCPU may make alone once it was served */
    uint8_t relay[VCPUS_MAX];  /* wake-ups by this vCPU after which the other follows at once */
};

void rounds_reset(struct rounds *r);
void rounds_save(const struct rounds *r, struct wbuf *out);
/* Reads what save wrote; every value is checked. Truncation is the caller's to see. */
int rounds_load(struct rounds *r, struct rbuf *in, struct plx_err *err);

/* One round, from the VM's clock to @until at the latest; timers that are due have fired.
 * False: no vCPU can run, nothing happened. */
bool round_run(struct vm *vm, uint64_t until, uint32_t rate);

/* Told by the PC: @target may be able to run from now on (struct pc). */
void round_wake(void *vm, struct vcpu *target);

#endif
