/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_bmi.c - BMI1, BMI2, LZCNT and MOVBE (model pollux-v3). Flags the SDM leaves undefined
 * are cleared (undefined.h). */
#include "vmm/cpu/int.h"

/* VEX on general registers does not exist in real and virtual-8086 mode (SDM Vol. 2, "Exceptions
 * Type 13"); CR4.OSXSAVE and CR0.TS do not concern it. */
static void vex_check(struct vcpu *v)
{
    if ((v->c.cr0 & CR0_PE) == 0 || (v->c.rflags & FLAG_VM) != 0) {
        cpu_ud(v);
    }
}

static void put(struct vcpu *v, const struct insn *in, uint64_t r)
{
    reg_write(v, in->opd[0].reg, in->opd[0].size, r);
}

/* ZF and SF of the result, and @more. */
static void put_flags(struct vcpu *v, const struct insn *in, uint64_t r, uint64_t more)
{
    set_arith(v, (flags_zsp(r, in->opd[0].size) & (FLAG_ZF | FLAG_SF)) | more);
    put(v, in, r);
}

void bmi_andn(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t b = opd_read(v, in, 2);
    put_flags(v, in, ~opd_read(v, in, 1) & b, 0);
}

void bmi_bextr(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1), control = opd_read(v, in, 2);
    unsigned start = control & 0xff, len = control >> 8 & 0xff;

    a = start < 64 ? a >> start : 0;
    a = len < 64 ? a & ((UINT64_C(1) << len) - 1) : a;
    set_arith(v, a == 0 ? FLAG_ZF : 0);
    put(v, in, a);
}

void bmi_blsi(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1);
    put_flags(v, in, a & (0 - a), a != 0 ? FLAG_CF : 0);
}

void bmi_blsmsk(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1);
    put_flags(v, in, a ^ (a - 1), a == 0 ? FLAG_CF : 0);
}

void bmi_blsr(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1);
    put_flags(v, in, a & (a - 1), a == 0 ? FLAG_CF : 0);
}

void bmi_bzhi(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    unsigned bits = in->opd[0].size * 8;
    uint64_t a = opd_read(v, in, 1), n = opd_read(v, in, 2) & 0xff;

    put_flags(v, in, n < bits ? a & ((UINT64_C(1) << n) - 1) : a, n >= bits ? FLAG_CF : 0);
}

/* The high half wins if both go to one register. */
void bmi_mulx(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    unsigned size = in->opd[0].size;
    unsigned __int128 p = (unsigned __int128)opd_read(v, in, 2) * reg_read(v, RDX, size);

    reg_write(v, in->opd[1].reg, size, (uint64_t)p);
    put(v, in, (uint64_t)(p >> (size * 8)));
}

void bmi_pdep(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t mask = opd_read(v, in, 2), a = opd_read(v, in, 1), r = 0;

    for (; mask != 0; mask &= mask - 1, a >>= 1) {
        r |= (a & 1) != 0 ? mask & (0 - mask) : 0;
    }
    put(v, in, r);
}

void bmi_pext(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t mask = opd_read(v, in, 2), a = opd_read(v, in, 1), r = 0;

    for (unsigned i = 0; mask != 0; mask &= mask - 1, i++) {
        r |= (a & mask & (0 - mask)) != 0 ? UINT64_C(1) << i : 0;
    }
    put(v, in, r);
}

void bmi_rorx(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    unsigned bits = in->opd[0].size * 8, n = (unsigned)in->imm & (bits - 1);
    uint64_t a = opd_read(v, in, 1);

    put(v, in, n == 0 ? a : a >> n | a << (bits - n));
}

void bmi_sarx(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    unsigned size = in->opd[0].size;
    uint64_t a = sign_extend(opd_read(v, in, 1), size);

    put(v, in, (uint64_t)((int64_t)a >> (opd_read(v, in, 2) & (size * 8 - 1))));
}

void bmi_shlx(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1);
    put(v, in, a << (opd_read(v, in, 2) & (in->opd[0].size * 8U - 1)));
}

void bmi_shrx(struct vcpu *v, const struct insn *in)
{
    vex_check(v);
    uint64_t a = opd_read(v, in, 1);
    put(v, in, a >> (opd_read(v, in, 2) & (in->opd[0].size * 8U - 1)));
}

/* CF: the source is 0, and the count that of the operand's bits; ZF: the count is 0. */
static void put_count(struct vcpu *v, const struct insn *in, uint64_t a, unsigned n)
{
    n = a == 0 ? in->opd[0].size * 8U : n;
    set_arith(v, (a == 0 ? FLAG_CF : 0) | (n == 0 ? FLAG_ZF : 0));
    put(v, in, n);
}

void bmi_lzcnt(struct vcpu *v, const struct insn *in)
{
    uint64_t a = opd_read(v, in, 1);
    put_count(v, in, a, a == 0 ? 0 : (unsigned)__builtin_clzll(a) + in->opd[0].size * 8U - 64);
}

void bmi_tzcnt(struct vcpu *v, const struct insn *in)
{
    uint64_t a = opd_read(v, in, 1);
    put_count(v, in, a, a == 0 ? 0 : (unsigned)__builtin_ctzll(a));
}

void bmi_movbe(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    opd_write(v, in, 0, __builtin_bswap64(opd_read(v, in, 1)) >> (64 - size * 8));
}
