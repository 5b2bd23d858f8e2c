/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_ops.h - the steps every x87 computation goes through (x87_ops.c, x87_math.c).
 *
 * Threading: the vCPU's thread. */
#ifndef VMM_CPU_X87_OPS_H
#define VMM_CPU_X87_OPS_H

#include "vmm/cpu/x87_soft.h"

/* Availability and pending exceptions (may raise), then a fresh environment. */
void x87_begin(struct vcpu *v, struct f80_env *env);
/* Record flags, C1 and pointers; the last step: nothing may fault after it. */
void x87_commit(struct vcpu *v, const struct insn *in, const struct f80_env *env);

/* Stack faults: note the exception; true: masked, so the indefinite value is the result. */
bool x87_underflow(struct f80_env *env);
bool x87_overflow(struct f80_env *env);

void x87_pop(struct vcpu *v);
void x87_push_raw(struct vcpu *v, struct f80 x); /* no check for a full stack */

/* ST(0) = f(ST(0)). */
static inline __attribute__((always_inline)) void
x87_unary(struct vcpu *v, const struct insn *in, struct f80 (*f)(struct f80_env *, struct f80))
{
    struct f80_env env;
    struct f80 r = F80_INDEFINITE;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0)) {
        x87_underflow(&env);
    } else {
        r = f(&env, x87_st(v, 0));
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 0, r);
    }
    x87_commit(v, in, &env);
}

#endif
