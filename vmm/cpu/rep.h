/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/rep.h - how REP string instructions count, shared by every string family.
 *
 * A unit is 32 bytes of elements, cut where the remaining count is a multiple of E = 32 / size.
 * Progress is 1 per unit started (and 1 for a count of 0); retired is 1 per iteration. Leaving
 * between two units and coming back is free: the instruction stays at rip with its registers
 * updated. So the budget, pending interrupts and overwritten code are looked at between units
 * only, and any split of a budget ends in the same state. A fault in the middle of a unit ends it
 * and costs nothing more, so that it fits the budget; the rest is charged as a new unit.
 *
 * Between the first iteration and the last RF is set (SDM Vol. 3B, "Instruction-Breakpoint
 * Exception Condition"): an instruction breakpoint is not met again by going on. */
#ifndef VMM_CPU_REP_H
#define VMM_CPU_REP_H

#include "vmm/cpu/vcpu.h"

struct rep {
    uint64_t progress0, retired0; /* at the start of this execution */
    uint64_t first;               /* units the count at the start stands for */
    unsigned shift;               /* E = 1 << shift */
    uint64_t count;               /* remaining iterations */
    uint64_t done;                /* iterations of this execution */
};

static inline uint64_t rep_units(const struct rep *r, uint64_t count)
{
    return (count >> r->shift) + ((count & ((UINT64_C(1) << r->shift) - 1)) != 0);
}

/* Start with the count register of in->asz. False: the count is 0, nothing to do. */
bool rep_begin(struct vcpu *v, const struct insn *in, unsigned size, struct rep *r);
/* Before an iteration: may it start now? Accounts for those before it, so that a fault in it
 * leaves true counts. False: leave, done or not. */
bool rep_next(struct vcpu *v, const struct insn *in, struct rep *r);
/* @n iterations (1 to those asked of rep_room) completed: updates the count register. */
void rep_done(struct vcpu *v, const struct insn *in, struct rep *r, uint64_t n);
/* How many iterations may run before rep_next must be asked again; > 0 after rep_next. */
uint64_t rep_room(const struct vcpu *v, const struct insn *in, const struct rep *r);
/* Leave: fixes the counts; @ended: a REPE/REPNE condition ended it. Else, if iterations
 * remain, the instruction stays at rip. */
void rep_end(struct vcpu *v, struct rep *r, bool ended);

#endif
