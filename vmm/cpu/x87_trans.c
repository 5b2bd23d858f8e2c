/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_trans.c - FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1: stack handling
 * around the functions of x87_math.c, in the shape described in x87_ops.c.
 *
 * Threading: the vCPU's thread. Determinism: a function of state. */
#include "vmm/cpu/x87_math.h"
#include "vmm/cpu/x87_ops.h"

enum { SINE = 1, COSINE = 2, TANGENT = 4 };

/* C2 says that the operand was out of range and is still there. */
static void set_c2(struct vcpu *v, bool out_of_range)
{
    v->c.fpu.fsw = (uint16_t)((v->c.fpu.fsw & ~(unsigned)X87_C2) | (out_of_range ? X87_C2 : 0U));
}

static void trig(struct vcpu *v, const struct insn *in, unsigned what)
{
    struct f80_env env;
    struct f80 first = F80_INDEFINITE, second = F80_INDEFINITE;
    bool push = what != SINE && what != COSINE, done = true;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0)) {
        x87_underflow(&env);
    } else if (push && !x87_is_empty(v, 7)) {
        x87_overflow(&env);
    } else if (what == TANGENT) {
        done = f80_tan(&env, x87_st(v, 0), &first);
        second = f80_class(first) >= F80_QNAN ? first : f80_make(false, F80_BIAS, F80_INT);
    } else {
        struct f80 s, c;

        done = f80_sincos(&env, x87_st(v, 0), (what & SINE) != 0 ? &s : NULL,
                          (what & COSINE) != 0 ? &c : NULL);
        if (done) {
            first = (what & SINE) != 0 ? s : c;
            second = push ? c : second;
        }
    }
    if (done && f80_blocked(&env) == 0) {
        x87_set_st(v, 0, first);
        if (push) {
            x87_push_raw(v, second);
        }
    }
    x87_commit(v, in, &env);
    set_c2(v, !done);
}

static void do_fsin(struct vcpu *v, const struct insn *in)
{
    trig(v, in, SINE);
}

static void do_fcos(struct vcpu *v, const struct insn *in)
{
    trig(v, in, COSINE);
}

static void do_fsincos(struct vcpu *v, const struct insn *in)
{
    trig(v, in, SINE | COSINE);
}

static void do_fptan(struct vcpu *v, const struct insn *in)
{
    trig(v, in, TANGENT);
}

static void do_f2xm1(struct vcpu *v, const struct insn *in)
{
    x87_unary(v, in, f80_exp2m1);
}

/* ST(1) = f(ST(1), ST(0)), and pop. */
static void binary(struct vcpu *v, const struct insn *in,
                   struct f80 (*f)(struct f80_env *, struct f80, struct f80))
{
    struct f80_env env;
    struct f80 r = F80_INDEFINITE;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0) || x87_is_empty(v, 1)) {
        x87_underflow(&env);
    } else {
        r = f(&env, x87_st(v, 1), x87_st(v, 0));
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 1, r);
        x87_pop(v);
    }
    x87_commit(v, in, &env);
}

static void do_fpatan(struct vcpu *v, const struct insn *in)
{
    binary(v, in, f80_atan2);
}

static void do_fyl2x(struct vcpu *v, const struct insn *in)
{
    binary(v, in, f80_ylog2);
}

static void do_fyl2xp1(struct vcpu *v, const struct insn *in)
{
    binary(v, in, f80_ylog2p1);
}

static const struct x87_op ops[] = {
    {ZYDIS_MNEMONIC_FSIN, do_fsin},       {ZYDIS_MNEMONIC_FCOS, do_fcos},
    {ZYDIS_MNEMONIC_FSINCOS, do_fsincos}, {ZYDIS_MNEMONIC_FPTAN, do_fptan},
    {ZYDIS_MNEMONIC_FPATAN, do_fpatan},   {ZYDIS_MNEMONIC_F2XM1, do_f2xm1},
    {ZYDIS_MNEMONIC_FYL2X, do_fyl2x},     {ZYDIS_MNEMONIC_FYL2XP1, do_fyl2xp1},
};

insn_fn x87_trans_pick(const struct insn *in)
{
    return X87_OP_FIND(ops, in);
}
