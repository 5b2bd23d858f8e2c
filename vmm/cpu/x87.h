/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87.h - the x87 unit's registers and the 80-bit arithmetic behind them.
 *
 * All x87 arithmetic is done in integers (x87_soft.c, x87_math.c): one result on every host, with
 * no host x87 state to save or restore. Threading: the vCPU's thread. */
#ifndef VMM_CPU_X87_H
#define VMM_CPU_X87_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "vmm/cpu/vcpu.h"

/* Status word (SDM Vol. 1, "x87 FPU Status Register"):
 *
 *   15 14 13..11 10 9  8  7  6  5..0
 *    B C3  TOP   C2 C1 C0 ES SF  PE UE OE ZE DE IE
 *
 * The control word has the six masks at 5..0, precision control at 9..8, rounding at 11..10. */
enum {
    X87_IE = 0x01,
    X87_DE = 0x02,
    X87_ZE = 0x04,
    X87_OE = 0x08,
    X87_UE = 0x10,
    X87_PE = 0x20,
    X87_EXC = 0x3f,
    X87_SF = 0x40,
    X87_ES = 0x80,
    X87_C0 = 0x100,
    X87_C1 = 0x200,
    X87_C2 = 0x400,
    X87_SW_TOP = 0x3800,
    X87_TOP_SHIFT = 11,
    X87_C3 = 0x4000,
    X87_B = 0x8000,
    X87_CC = 0x4700,
    X87_PC_SHIFT = 8,
    X87_PC = 0x300,
    X87_PC_RESERVED = 0x100,
    X87_RC_SHIFT = 10,
    X87_CW_INIT = 0x037f,
    X87_CW_VALID = 0x1f3f,
    X87_CW_ONE = 0x0040
};

/* A register's value: sign and exponent, and the significand with its explicit integer bit. */
struct f80 {
    uint64_t m;
    uint16_t se;
};

/* A pending unmasked exception raises #MF before a waiting instruction does anything. */
static inline void x87_check_pending(struct vcpu *v)
{
    if (__builtin_expect((v->c.fpu.fsw & X87_ES) != 0, 0)) {
        cpu_raise(v, VEC_MF);
    }
}

/* Every x87 instruction but WAIT starts here: CR0.EM or CR0.TS: #NM. */
static inline void x87_check(struct vcpu *v)
{
    if (__builtin_expect((v->c.cr0 & (CR0_EM | CR0_TS)) != 0, 0)) {
        cpu_raise(v, VEC_NM);
    }
}

static inline unsigned x87_top(const struct vcpu *v)
{
    return (v->c.fpu.fsw & X87_SW_TOP) >> X87_TOP_SHIFT;
}

static inline void x87_set_top(struct vcpu *v, unsigned top)
{
    v->c.fpu.fsw = (uint16_t)((v->c.fpu.fsw & ~(unsigned)X87_SW_TOP) | (top & 7) << X87_TOP_SHIFT);
}

/* The physical register of ST(i). */
static inline unsigned x87_phys(const struct vcpu *v, unsigned i)
{
    return (x87_top(v) + i) & 7;
}

static inline bool x87_is_empty(const struct vcpu *v, unsigned i)
{
    return (v->c.fpu.ftw >> x87_phys(v, i) & 1) == 0;
}

static inline struct f80 x87_st(const struct vcpu *v, unsigned i)
{
    struct f80 f;
    const uint8_t *p = v->c.fpu.st[x87_phys(v, i)];

    memcpy(&f.m, p, 8);
    memcpy(&f.se, p + 8, 2);
    return f;
}

/* Store into ST(i) and mark it full. */
static inline void x87_set_st(struct vcpu *v, unsigned i, struct f80 f)
{
    unsigned r = x87_phys(v, i);

    memcpy(v->c.fpu.st[r], &f.m, 8);
    memcpy(v->c.fpu.st[r] + 8, &f.se, 2);
    v->c.fpu.ftw |= (uint8_t)(1U << r);
}

/* ES and B follow from flags and masks; after anything that changed either. */
static inline void x87_update_es(struct vcpu *v)
{
    v->c.fpu.fsw &= (uint16_t) ~(X87_ES | X87_B);
    if ((v->c.fpu.fsw & ~v->c.fpu.fcw & X87_EXC) != 0) {
        v->c.fpu.fsw |= X87_ES | X87_B;
    }
}

static inline void x87_set_cw(struct vcpu *v, uint16_t cw)
{
    v->c.fpu.fcw = (uint16_t)((cw & X87_CW_VALID) | X87_CW_ONE);
}

/* FNINIT, and the initial configuration of XRSTOR; registers keep their contents unless @clear. */
void x87_init(struct vcpu *v, bool clear);

/* --- families, as in sse.h ------------------------------------------------------------------ */
struct x87_op {
    ZydisMnemonic mnemonic;
    insn_fn fn;
};

insn_fn x87_ctl_pick(const struct insn *in);
insn_fn x87_ops_pick(const struct insn *in);
insn_fn x87_trans_pick(const struct insn *in);
insn_fn xsave_pick(const struct insn *in);

static inline insn_fn x87_op_find(const struct x87_op *ops, size_t n, const struct insn *in)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i].mnemonic == in->mnemonic) {
            return ops[i].fn;
        }
    }
    return NULL;
}
#define X87_OP_FIND(ops, in) x87_op_find((ops), sizeof(ops) / sizeof((ops)[0]), (in))

#endif
