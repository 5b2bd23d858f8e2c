/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_shift.c - shifts and rotates. Counts are masked to 5 bits (6 with 64-bit operands);
 * a masked count of 0 changes no flag. The SDM defines OF for a count of 1 only and leaves AF of
 * shifts undefined: here OF follows the formula of count 1 for all, AF is 0 (undefined.h). */
#include "vmm/cpu/int.h"

struct shifted {
    uint64_t r;
    bool cf, of;
};

static struct shifted op_shl(uint64_t a, unsigned n, unsigned size)
{
    unsigned bits = size * 8;
    uint64_t r = a << n;
    bool cf = n <= bits && ((a >> (bits - n)) & 1) != 0;

    return (struct shifted){r, cf, (msb(r, size) != 0) != cf};
}

static struct shifted op_shr(uint64_t a, unsigned n, unsigned size)
{
    return (struct shifted){a >> n, ((a >> (n - 1)) & 1) != 0, msb(a, size) != 0};
}

static struct shifted op_sar(uint64_t a, unsigned n, unsigned size)
{
    int64_t s = (int64_t)sign_extend(a, size);

    return (struct shifted){(uint64_t)(s >> n), ((s >> (n - 1)) & 1) != 0, false};
}

static struct shifted op_rol(uint64_t a, unsigned n, unsigned size)
{
    unsigned bits = size * 8, k = n & (bits - 1);
    uint64_t r = k == 0 ? a : (a << k | a >> (bits - k)) & size_mask(size);
    bool cf = (r & 1) != 0;

    return (struct shifted){r, cf, (msb(r, size) != 0) != cf};
}

static struct shifted op_ror(uint64_t a, unsigned n, unsigned size)
{
    unsigned bits = size * 8, k = n & (bits - 1);
    uint64_t r = k == 0 ? a : (a >> k | a << (bits - k)) & size_mask(size);

    return (struct shifted){r, msb(r, size) != 0, (msb(r, size) ^ msb(r << 1, size)) != 0};
}

/* Through carry: a rotation of bits + 1 bits; @n is 0 to bits. */
static struct shifted op_rcl(uint64_t a, unsigned n, unsigned size, bool cf)
{
    unsigned __int128 w = (unsigned __int128)cf << (size * 8) | a;
    unsigned total = size * 8 + 1;

    if (n != 0) {
        w = w << n | w >> (total - n);
    }
    uint64_t r = (uint64_t)w & size_mask(size);
    cf = ((w >> (size * 8)) & 1) != 0;
    return (struct shifted){r, cf, (msb(r, size) != 0) != cf};
}

static struct shifted op_rcr(uint64_t a, unsigned n, unsigned size, bool cf)
{
    unsigned total = size * 8 + 1;
    struct shifted s = op_rcl(a, n == 0 ? 0 : total - n, size, cf);

    s.of = (msb(s.r, size) ^ msb(s.r << 1, size)) != 0;
    return s;
}

static unsigned count_of(struct vcpu *v, const struct insn *in, unsigned opd, unsigned size)
{
    return (unsigned)opd_read(v, in, opd) & (size == 8 ? 63 : 31);
}

#define DEF_SHIFT(name, size, get, put)                                                      \
    static inline void name##_flags_##size(struct vcpu *v, const struct shifted *s)          \
    {                                                                                        \
        set_arith(v, flags_zsp(s->r, size) | (s->cf ? FLAG_CF : 0) | (s->of ? FLAG_OF : 0)); \
    }                                                                                        \
    static void name##_ri_##size(struct vcpu *v, const struct insn *in)                      \
    {                                                                                        \
        unsigned n = (unsigned)in->imm & ((size) == 8 ? 63 : 31);                            \
        uint64_t a = get(v, &in->opd[0]);                                                    \
        if (n == 0) {                                                                        \
            put(v, &in->opd[0], a);                                                          \
            return;                                                                          \
        }                                                                                    \
        struct shifted s = op_##name(a, n, size);                                            \
        put(v, &in->opd[0], s.r);                                                            \
        name##_flags_##size(v, &s);                                                          \
    }
static inline void put_low4(struct vcpu *v, const struct opd *o, uint64_t value)
{
    put_4(v, o, (uint32_t)value);
}
DEF_SHIFT(shl, 4, get_4, put_low4)
DEF_SHIFT(shl, 8, get_8, put_8)
DEF_SHIFT(shr, 4, get_4, put_low4)
DEF_SHIFT(shr, 8, get_8, put_8)
DEF_SHIFT(sar, 4, get_4, put_low4)
DEF_SHIFT(sar, 8, get_8, put_8)

/* Rotates touch CF and OF only. */
static void set_cf_of(struct vcpu *v, const struct shifted *s)
{
    v->c.rflags =
        (v->c.rflags & ~(FLAG_CF | FLAG_OF)) | (s->cf ? FLAG_CF : 0) | (s->of ? FLAG_OF : 0);
}

typedef struct shifted (*shift_op)(uint64_t a, unsigned n, unsigned size);

static inline void do_shift(struct vcpu *v, const struct insn *in, shift_op op, bool rotate)
{
    unsigned size = in->opd[0].size;
    unsigned n = count_of(v, in, 1, size);
    struct mem_rmw m;
    uint64_t a = dst_begin(v, in, &m);

    if (n == 0) {
        dst_end(v, in, &m, a);
        return;
    }
    struct shifted s = op(a, n, size);
    dst_end(v, in, &m, s.r);
    if (rotate) {
        set_cf_of(v, &s);
    } else {
        set_arith(v, flags_zsp(s.r, size) | (s.cf ? FLAG_CF : 0) | (s.of ? FLAG_OF : 0));
    }
}

typedef struct shifted (*carry_op)(uint64_t a, unsigned n, unsigned size, bool cf);

static inline void do_rotate_carry(struct vcpu *v, const struct insn *in, carry_op op)
{
    unsigned size = in->opd[0].size;
    unsigned n = count_of(v, in, 1, size);
    struct mem_rmw m;
    uint64_t a = dst_begin(v, in, &m);

    if (size < 4) {
        n %= size * 8 + 1;
    }
    if (n == 0) {
        dst_end(v, in, &m, a);
        return;
    }
    struct shifted s = op(a, n, size, (v->c.rflags & FLAG_CF) != 0);
    dst_end(v, in, &m, s.r);
    set_cf_of(v, &s);
}

#define DEF_GENERAL(name, how, ...)                               \
    static void name##_any(struct vcpu *v, const struct insn *in) \
    {                                                             \
        how(v, in, op_##name, ##__VA_ARGS__);                     \
    }
DEF_GENERAL(shl, do_shift, false)
DEF_GENERAL(shr, do_shift, false)
DEF_GENERAL(sar, do_shift, false)
DEF_GENERAL(rol, do_shift, true)
DEF_GENERAL(ror, do_shift, true)
DEF_GENERAL(rcl, do_rotate_carry)
DEF_GENERAL(rcr, do_rotate_carry)

/* SHLD and SHRD. A 16-bit count above 16 is undefined; here the shift goes on into the
 * destination once more: dst:src:dst. */
static void double_shift(struct vcpu *v, const struct insn *in, bool left)
{
    unsigned size = in->opd[0].size, bits = size * 8;
    unsigned n = (unsigned)opd_read(v, in, 2) & (size == 8 ? 63 : 31);
    struct mem_rmw m;
    uint64_t a = dst_begin(v, in, &m);
    uint64_t b = opd_read(v, in, 1);
    uint64_t r;
    bool cf;

    if (n == 0) {
        dst_end(v, in, &m, a);
        return;
    }
    if (size == 2) {
        uint64_t w = a << 32 | b << 16 | a;
        r = (left ? w >> (32 - n) : w >> n) & 0xffff;
        cf = ((left ? w >> (48 - n) : w >> (n - 1)) & 1) != 0;
    } else if (left) {
        r = (a << n | b >> (bits - n)) & size_mask(size);
        cf = ((a >> (bits - n)) & 1) != 0;
    } else {
        r = (a >> n | b << (bits - n)) & size_mask(size);
        cf = ((a >> (n - 1)) & 1) != 0;
    }
    dst_end(v, in, &m, r);
    set_arith(v, flags_zsp(r, size) | (cf ? FLAG_CF : 0) | (msb(a ^ r, size) != 0 ? FLAG_OF : 0));
}

static void shld(struct vcpu *v, const struct insn *in)
{
    double_shift(v, in, true);
}

static void shrd(struct vcpu *v, const struct insn *in)
{
    double_shift(v, in, false);
}

insn_fn int_pick_shift(const struct insn *in)
{
    static const struct {
        ZydisMnemonic mnemonic;
        insn_fn any, ri_4, ri_8;
    } table[] = {
        {ZYDIS_MNEMONIC_SHL, shl_any, shl_ri_4, shl_ri_8},
        {ZYDIS_MNEMONIC_SHR, shr_any, shr_ri_4, shr_ri_8},
        {ZYDIS_MNEMONIC_SAR, sar_any, sar_ri_4, sar_ri_8},
        {ZYDIS_MNEMONIC_ROL, rol_any, NULL, NULL},
        {ZYDIS_MNEMONIC_ROR, ror_any, NULL, NULL},
        {ZYDIS_MNEMONIC_RCL, rcl_any, NULL, NULL},
        {ZYDIS_MNEMONIC_RCR, rcr_any, NULL, NULL},
        {ZYDIS_MNEMONIC_SHLD, shld, NULL, NULL},
        {ZYDIS_MNEMONIC_SHRD, shrd, NULL, NULL},
    };

    for (unsigned i = 0; i < PLX_COUNT(table); i++) {
        if (table[i].mnemonic != in->mnemonic) {
            continue;
        }
        if (table[i].ri_4 != NULL && in->opd[0].kind == OPD_REG && in->opd[1].kind == OPD_IMM &&
            in->opd[0].size >= 4) {
            return in->opd[0].size == 4 ? table[i].ri_4 : table[i].ri_8;
        }
        return table[i].any;
    }
    return NULL;
}
