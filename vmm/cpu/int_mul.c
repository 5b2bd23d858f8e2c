/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_mul.c - multiplication, division, sign conversions, decimal adjustment. Flags the
 * SDM leaves undefined keep their value, except where noted (undefined.h). */
#include "vmm/cpu/int.h"

static void set_cf_of(struct vcpu *v, bool both)
{
    v->c.rflags = (v->c.rflags & ~(FLAG_CF | FLAG_OF)) | (both ? FLAG_CF | FLAG_OF : 0);
}

/* The double-width accumulator: AX, or rDX:rAX. */
static unsigned __int128 wide_read(const struct vcpu *v, unsigned size)
{
    if (size == 1) {
        return v->c.gpr[RAX] & 0xffff;
    }
    return (unsigned __int128)reg_read(v, RDX, size) << (size * 8) | reg_read(v, RAX, size);
}

static void wide_write(struct vcpu *v, unsigned size, uint64_t low, uint64_t high)
{
    if (size == 1) {
        reg_write(v, RAX, 2, (high & 0xff) << 8 | (low & 0xff));
    } else {
        reg_write(v, RAX, size, low);
        reg_write(v, RDX, size, high);
    }
}

void int_mul(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    unsigned __int128 p = (unsigned __int128)opd_read(v, in, 0) * reg_read(v, RAX, size);
    uint64_t high = (uint64_t)(p >> (size * 8)) & size_mask(size);

    wide_write(v, size, (uint64_t)p, high);
    set_cf_of(v, high != 0);
}

static __int128 product(uint64_t a, uint64_t b, unsigned size)
{
    return (__int128)(int64_t)sign_extend(a, size) * (int64_t)sign_extend(b, size);
}

static bool fits(__int128 p, unsigned size)
{
    return p == (int64_t)sign_extend((uint64_t)p, size);
}

static void imul_wide(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    __int128 p = product(opd_read(v, in, 0), reg_read(v, RAX, size), size);

    wide_write(v, size, (uint64_t)p, (uint64_t)((unsigned __int128)p >> (size * 8)));
    set_cf_of(v, !fits(p, size));
}

static inline void imul_to(struct vcpu *v, const struct insn *in, uint64_t a, uint64_t b)
{
    unsigned size = in->opd[0].size;
    __int128 p = product(a, b, size);

    reg_write(v, in->opd[0].reg, size, (uint64_t)p);
    set_cf_of(v, !fits(p, size));
}

static void imul_2(struct vcpu *v, const struct insn *in)
{
    uint64_t b = opd_read(v, in, 1);
    imul_to(v, in, opd_read(v, in, 0), b);
}

static void imul_3(struct vcpu *v, const struct insn *in)
{
    imul_to(v, in, opd_read(v, in, 1), in->imm);
}

insn_fn int_pick_imul(const struct insn *in)
{
    return in->nopd == 1 || in->opd[1].kind == OPD_NONE ? imul_wide
           : in->nopd == 3                              ? imul_3
                                                        : imul_2;
}

void int_div(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    uint64_t d = opd_read(v, in, 0);
    unsigned __int128 n = wide_read(v, size);

    if (d == 0 || (uint64_t)(n >> (size * 8)) >= d) {
        cpu_raise(v, VEC_DE);
    }
    if ((uint64_t)(n >> 64) == 0) {
        wide_write(v, size, (uint64_t)n / d, (uint64_t)n % d);
    } else {
        wide_write(v, size, (uint64_t)(n / d), (uint64_t)(n % d));
    }
}

void int_idiv(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    int64_t d = (int64_t)sign_extend(opd_read(v, in, 0), size);
    unsigned shift = 128 - size * 16;
    __int128 n = (__int128)(wide_read(v, size) << shift) >> shift;
    bool neg = (n < 0) != (d < 0);
    unsigned __int128 un = n < 0 ? 0 - (unsigned __int128)n : (unsigned __int128)n;
    uint64_t ud = d < 0 ? 0 - (uint64_t)d : (uint64_t)d;
    uint64_t limit = (UINT64_C(1) << (size * 8 - 1)) - (neg ? 0 : 1);

    if (ud == 0 || un / ud > limit) {
        cpu_raise(v, VEC_DE);
    }
    uint64_t q = (uint64_t)(un / ud), r = (uint64_t)(un % ud);
    wide_write(v, size, neg ? 0 - q : q, n < 0 ? 0 - r : r);
}

/* --- conversions ------------------------------------------------------------------------------ */

#define DEF_WIDEN(name, size)                                            \
    static void name(struct vcpu *v, const struct insn *in)              \
    {                                                                    \
        (void)in;                                                        \
        reg_write(v, RAX, size, sign_extend(v->c.gpr[RAX], (size) / 2)); \
    }
DEF_WIDEN(cbw, 2)
DEF_WIDEN(cwde, 4)
DEF_WIDEN(cdqe, 8)

#define DEF_SPREAD(name, size)                                                            \
    static void name(struct vcpu *v, const struct insn *in)                               \
    {                                                                                     \
        (void)in;                                                                         \
        reg_write(v, RDX, size, msb(reg_read(v, RAX, size), size) != 0 ? UINT64_MAX : 0); \
    }
DEF_SPREAD(cwd, 2)
DEF_SPREAD(cdq, 4)
DEF_SPREAD(cqo, 8)

insn_fn int_pick_convert(const struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_CBW:
        return cbw;
    case ZYDIS_MNEMONIC_CWDE:
        return cwde;
    case ZYDIS_MNEMONIC_CDQE:
        return cdqe;
    case ZYDIS_MNEMONIC_CWD:
        return cwd;
    case ZYDIS_MNEMONIC_CDQ:
        return cdq;
    default:
        return cqo;
    }
}

/* --- decimal (legacy modes; SDM Vol. 2) ------------------------------------------------------- */

static void set_al(struct vcpu *v, unsigned al)
{
    reg_write(v, RAX, 1, al);
}

/* DAA and DAS; OF is undefined and cleared. */
static void decimal_packed(struct vcpu *v, bool subtract)
{
    unsigned old = v->c.gpr[RAX] & 0xff, al = old;
    bool old_cf = (v->c.rflags & FLAG_CF) != 0, cf = false, af = false;

    if ((al & 15) > 9 || (v->c.rflags & FLAG_AF) != 0) {
        cf = old_cf || (subtract ? al < 6 : al > 0xf9);
        al = subtract ? al - 6 : al + 6;
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = subtract ? al - 0x60 : al + 0x60;
        cf = true;
    }
    set_al(v, al);
    set_arith(v, flags_zsp(al, 1) | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0));
}

static void daa(struct vcpu *v, const struct insn *in)
{
    (void)in;
    decimal_packed(v, false);
}

static void das(struct vcpu *v, const struct insn *in)
{
    (void)in;
    decimal_packed(v, true);
}

/* AAA and AAS; OF SF ZF PF are undefined and cleared. */
static void decimal_unpacked(struct vcpu *v, bool subtract)
{
    unsigned ax = v->c.gpr[RAX] & 0xffff;
    bool adjust = (ax & 15) > 9 || (v->c.rflags & FLAG_AF) != 0;

    if (adjust) {
        ax = subtract ? ax - 0x106 : ax + 0x106;
    }
    reg_write(v, RAX, 2, ax & 0xff0f);
    set_arith(v, adjust ? FLAG_CF | FLAG_AF : 0);
}

static void aaa(struct vcpu *v, const struct insn *in)
{
    (void)in;
    decimal_unpacked(v, false);
}

static void aas(struct vcpu *v, const struct insn *in)
{
    (void)in;
    decimal_unpacked(v, true);
}

/* AAM and AAD; OF AF CF are undefined and cleared. */
static void aam(struct vcpu *v, const struct insn *in)
{
    unsigned al = v->c.gpr[RAX] & 0xff, base = in->imm & 0xff;

    if (base == 0) {
        cpu_raise(v, VEC_DE);
    }
    /* cppcheck-suppress zerodivcond ; cpu_raise does not return */
    reg_write(v, RAX, 2, (al / base) << 8 | al % base);
    /* cppcheck-suppress zerodivcond */
    set_arith(v, flags_zsp(al % base, 1));
}

static void aad(struct vcpu *v, const struct insn *in)
{
    unsigned ax = v->c.gpr[RAX] & 0xffff;
    unsigned al = ((ax & 0xff) + (ax >> 8) * (in->imm & 0xff)) & 0xff;

    reg_write(v, RAX, 2, al);
    set_arith(v, flags_zsp(al, 1));
}

insn_fn int_pick_bcd(const struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_DAA:
        return daa;
    case ZYDIS_MNEMONIC_DAS:
        return das;
    case ZYDIS_MNEMONIC_AAA:
        return aaa;
    case ZYDIS_MNEMONIC_AAS:
        return aas;
    case ZYDIS_MNEMONIC_AAM:
        return aam;
    default:
        return aad;
    }
}
