/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/interp.h - what an engine that runs most code in another way takes from the
 * interpreter: all of engine_interp but v->run_blocks, and these. Threading: the vCPU's. */
#ifndef VMM_ENGINE_INTERP_H
#define VMM_ENGINE_INTERP_H

#include "vmm/engine/engine.h"

/* Execute the @n instructions at @in, which block_at gave, as far as the budget goes and until
 * v->attention. Returns the last one executed. May raise. */
const struct insn *interp_block(struct vcpu *v, const struct insn *in, unsigned n);

/* What v->run_blocks is under it: blocks one after the other, until something may have to be looked
 * at between two of them. */
void interp_run_blocks(struct vcpu *v);

/* sti_shadow or movss_shadow during the instruction it is over; what sets one anew sets 1. */
enum { SHADOW_EXPIRES = 2 };

/* The ops of these names. */
void interp_run(struct vcpu *v, struct engine_run *run);
void interp_drop(struct vcpu *v);
void interp_state_changed(struct vcpu *v);
void interp_revoke(struct vcpu *v, uint64_t page, bool all);
void interp_settle(struct vcpu *v);

/* After @last: may the next block run without a look at anything else? */
static inline bool interp_goes_on(const struct vcpu *v, const struct insn *last)
{
    return !v->attention && !v->irq_pending && (last->flags & INSN_ENDS_BLOCK) == 0 &&
           v->c.progress < v->stop_progress;
}

#endif
