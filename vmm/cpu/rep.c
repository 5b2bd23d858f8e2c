/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/rep.c - see rep.h. */
#include "vmm/cpu/rep.h"

#include "vmm/cpu/operand.h"

enum { UNIT_BYTES = 32 };

/* Progress of the units started by the r->done iterations so far. */
static uint64_t started(const struct rep *r)
{
    return r->done == 0 ? 0 : r->first - rep_units(r, r->count + 1) + 1;
}

static void account(struct vcpu *v, const struct rep *r)
{
    v->c.progress = r->progress0 + started(r);
    v->c.retired = r->retired0 + r->done;
}

bool rep_begin(struct vcpu *v, const struct insn *in, unsigned size, struct rep *r)
{
    r->progress0 = v->c.progress;
    r->retired0 = v->c.retired;
    r->shift = (unsigned)__builtin_ctz(UNIT_BYTES / size);
    r->count = reg_read(v, RCX, in->asz);
    r->first = rep_units(r, r->count);
    r->done = 0;
    return r->count != 0;
}

static bool look_up(const struct vcpu *v, const struct insn *in)
{
    return v->attention || (v->irq_pending && (v->c.rflags & FLAG_IF) != 0) || v->c.nmi_pending ||
           v->stopping || v->yield || (in->flags & INSN_SINGLE) != 0;
}

/* Iterations left in the unit under way; 0: the count stands between two units. */
static uint64_t part(const struct rep *r)
{
    return r->count & ((UINT64_C(1) << r->shift) - 1);
}

bool rep_next(struct vcpu *v, const struct insn *in, struct rep *r)
{
    account(v, r);
    if (r->count == 0) {
        return false;
    }
    if (r->done == 0) {
        return true;
    }
    if (v->step_tf || v->debug) {
        return false; /* a trap follows each iteration */
    }
    if (part(r) != 0) {
        v->c.progress--; /* a unit is charged when it is over, or by the fault that ends it */
        return true;
    }
    return v->c.progress < v->stop_progress && !look_up(v, in);
}

uint64_t rep_room(const struct vcpu *v, const struct insn *in, const struct rep *r)
{
    if (v->step_tf || v->debug) {
        return 1;
    }
    /* To the end of the unit under way, and whole units as far as the budget goes. */
    uint64_t partial = part(r) == 0 ? UINT64_C(1) << r->shift : part(r);
    uint64_t used = v->c.progress;
    uint64_t left = v->stop_progress - used - 1; /* this unit is still to be charged */

    if (look_up(v, in) || left == 0 || v->stop_progress <= used) {
        return partial;
    }
    uint64_t more = (r->count - partial) >> r->shift;
    return partial + ((more < left ? more : left) << r->shift);
}

void rep_done(struct vcpu *v, const struct insn *in, struct rep *r, uint64_t n)
{
    r->count -= n;
    r->done += n;
    reg_write(v, RCX, in->asz, r->count);
    if (r->count != 0) { /* whatever comes between two iterations saves RF as set */
        v->c.rflags |= FLAG_RF;
        v->step_rf = false;
    }
}

void rep_end(struct vcpu *v, struct rep *r, bool ended)
{
    account(v, r);
    if (!ended && r->count != 0) {
        v->next_rip = v->c.rip;
    } else {
        v->c.rflags &= ~FLAG_RF;
    }
    /* The run loop counts one instruction itself. */
    if (r->done != 0) {
        v->c.progress--;
        v->c.retired--;
    }
}
