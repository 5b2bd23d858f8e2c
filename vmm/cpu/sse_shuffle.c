/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_shuffle.c - shuffles, blends, insertions and extractions steered by an immediate.
 *
 * The host would want the immediate in its instruction, so these move bytes in C.
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

typedef void (*shuffle_fn)(union vec *r, const union vec *d, const union vec *s, unsigned imm);

/* dst = f(dst, src/m, imm8); the result is built beside the operands. */
static inline __attribute__((always_inline)) void run_shuffle(struct vcpu *v, const struct insn *in,
                                                              shuffle_fn f)
{
    union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);
    const union vec *s;

    sse_check(v);
    s = sse_src(v, in, 1, &tmp, true);
    f(&r, d, s, (unsigned)(in->imm & 0xff));
    *d = r;
}

static inline __attribute__((always_inline)) void run_vex(struct vcpu *v, const struct insn *in,
                                                          shuffle_fn f, unsigned shift)
{
    struct ymm r = {0}, d, s;

    avx_check(v);
    avx_src(v, in, avx_last(in), &s);
    avx_get(v, in->opd[1].reg, in->opd[0].size, &d);
    f(&r.lane[0], &d.lane[0], &s.lane[0], (unsigned)(in->imm & 0xff));
    if (in->opd[0].size == 32) {
        f(&r.lane[1], &d.lane[1], &s.lane[1], (unsigned)(in->imm & 0xff) >> shift);
    }
    avx_put(v, in, &r);
}

static void f_pshufd(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    (void)d;
    for (unsigned i = 0; i < 4; i++) {
        r->d[i] = s->d[imm >> (2 * i) & 3];
    }
}

static void f_pshuflw(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    (void)d;
    r->q[1] = s->q[1];
    for (unsigned i = 0; i < 4; i++) {
        r->w[i] = s->w[imm >> (2 * i) & 3];
    }
}

static void f_pshufhw(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    (void)d;
    r->q[0] = s->q[0];
    for (unsigned i = 0; i < 4; i++) {
        r->w[4 + i] = s->w[4 + (imm >> (2 * i) & 3)];
    }
}

static void f_shufps(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    r->d[0] = d->d[imm & 3];
    r->d[1] = d->d[imm >> 2 & 3];
    r->d[2] = s->d[imm >> 4 & 3];
    r->d[3] = s->d[imm >> 6 & 3];
}

static void f_shufpd(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    r->q[0] = d->q[imm & 1];
    r->q[1] = s->q[imm >> 1 & 1];
}

static void f_blendps(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    for (unsigned i = 0; i < 4; i++) {
        r->d[i] = (imm >> i & 1) != 0 ? s->d[i] : d->d[i];
    }
}

static void f_blendpd(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    for (unsigned i = 0; i < 2; i++) {
        r->q[i] = (imm >> i & 1) != 0 ? s->q[i] : d->q[i];
    }
}

static void f_pblendw(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    for (unsigned i = 0; i < 8; i++) {
        r->w[i] = (imm >> i & 1) != 0 ? s->w[i] : d->w[i];
    }
}

/* The bytes from @imm on of source (low) and destination (high) taken as one string of 2n. */
static void align_right(uint8_t *r, const uint8_t *d, const uint8_t *s, unsigned imm, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned at = i + imm;
        r[i] = at < n ? s[at] : at < 2 * n ? d[at - n] : 0;
    }
}

static void f_palignr(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    align_right(r->b, d->b, s->b, imm, 16);
}

/* Eight sums of four absolute differences: four bytes of the source against a sliding window. */
static void f_mpsadbw(union vec *r, const union vec *d, const union vec *s, unsigned imm)
{
    unsigned so = (imm & 3) * 4, dof = (imm >> 2 & 1) * 4;

    for (unsigned i = 0; i < 8; i++) {
        unsigned sum = 0;

        for (unsigned k = 0; k < 4; k++) {
            unsigned a = d->b[dof + i + k], b = s->b[so + k];
            sum += a > b ? a - b : b - a;
        }
        r->w[i] = (uint16_t)sum;
    }
}

/* With the bits of the immediate that belong to the first lane of a 256-bit form, the second lane
 * has the next ones; 0: both have the same. */
/* clang-format off */
#define SHUFFLE_OPS(X)                                                                           \
    X(PSHUFD, pshufd, 0) X(PSHUFLW, pshuflw, 0) X(PSHUFHW, pshufhw, 0) X(SHUFPS, shufps, 0)      \
    X(SHUFPD, shufpd, 2) X(BLENDPS, blendps, 4) X(BLENDPD, blendpd, 2) X(PBLENDW, pblendw, 0)    \
    X(PALIGNR, palignr, 0) X(MPSADBW, mpsadbw, 3)
/* clang-format on */

#define DEFINE_SHUFFLE(M, name, shift)                            \
    static void do_##name(struct vcpu *v, const struct insn *in)  \
    {                                                             \
        run_shuffle(v, in, f_##name);                             \
    }                                                             \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        run_vex(v, in, f_##name, shift);                          \
    }

SHUFFLE_OPS(DEFINE_SHUFFLE)

static void do_palignr_mmx(struct vcpu *v, const struct insn *in)
{
    uint64_t s, d, r;

    mmx_check(v);
    s = mmx_src(v, in, 1);
    d = mmx_read(v, in->opd[0].reg);
    align_right((uint8_t *)&r, (const uint8_t *)&d, (const uint8_t *)&s, (unsigned)in->imm & 0xff,
                8);
    mmx_enter(v);
    mmx_write(v, in->opd[0].reg, r);
}

static void do_pshufw(struct vcpu *v, const struct insn *in)
{
    uint64_t s, r = 0;

    mmx_check(v);
    s = mmx_src(v, in, 1);
    for (unsigned i = 0; i < 4; i++) {
        r |= (s >> (16 * (in->imm >> (2 * i) & 3)) & 0xffff) << (16 * i);
    }
    mmx_enter(v);
    mmx_write(v, in->opd[0].reg, r);
}

/* From a register imm[7:6] chooses the source's lane, from memory there is only one. */
static void insert_ps(union vec *d, const union vec *s, bool from_memory, unsigned imm)
{
    d->d[imm >> 4 & 3] = s->d[from_memory ? 0 : imm >> 6 & 3];
    for (unsigned i = 0; i < 4; i++) {
        if ((imm >> i & 1) != 0) {
            d->d[i] = 0;
        }
    }
}

static void do_insertps(struct vcpu *v, const struct insn *in)
{
    union vec tmp, r = *sse_xmm(v, in->opd[0].reg);

    sse_check(v);
    insert_ps(&r, sse_src(v, in, 1, &tmp, true), in->opd[1].kind == OPD_MEM, (unsigned)in->imm);
    *sse_xmm(v, in->opd[0].reg) = r;
}

static void do_vinsertps(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s;

    avx_check(v);
    avx_src(v, in, 2, &s);
    avx_get(v, in->opd[1].reg, 16, &r);
    insert_ps(&r.lane[0], &s.lane[0], in->opd[2].kind == OPD_MEM, (unsigned)in->imm);
    avx_put(v, in, &r);
}

/* Operand @i as a general register's low bytes or memory of @size bytes. */
static uint64_t lane_read(struct vcpu *v, const struct insn *in, unsigned i, unsigned size)
{
    return in->opd[i].kind == OPD_REG ? reg_read(v, in->opd[i].reg, size)
                                      : mem_read(v, in->seg, mem_ea(v, in), size);
}

/* A lane into a general register, zero-extended to its whole, or to memory. */
static void lane_write(struct vcpu *v, const struct insn *in, unsigned size, uint64_t q)
{
    if (in->opd[0].kind == OPD_REG) {
        reg_write(v, in->opd[0].reg, 8, q);
    } else {
        mem_write(v, in->seg, mem_ea(v, in), size, q);
    }
}

#define LANE_OPS(X) X(B, b, b, 15, 1) X(W, w, w, 7, 2) X(D, d, d, 3, 4) X(Q, q, q, 1, 8)

#define DEFINE_LANE(M, name, field, mask, size)                                       \
    static void do_pinsr##name(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        uint64_t q;                                                                   \
                                                                                      \
        sse_check(v);                                                                 \
        q = lane_read(v, in, 1, size);                                                \
        memcpy(&sse_xmm(v, in->opd[0].reg)->field[in->imm & (mask)], &q, size);       \
    }                                                                                 \
    static void do_vpinsr##name(struct vcpu *v, const struct insn *in)                \
    {                                                                                 \
        struct ymm r;                                                                 \
        uint64_t q;                                                                   \
                                                                                      \
        avx_check(v);                                                                 \
        q = lane_read(v, in, 2, size);                                                \
        avx_get(v, in->opd[1].reg, 16, &r);                                           \
        memcpy(&r.lane[0].field[in->imm & (mask)], &q, size);                         \
        avx_put(v, in, &r);                                                           \
    }                                                                                 \
    static void do_pextr##name(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        simd_check(v, in);                                                            \
        lane_write(v, in, size, sse_xmm(v, in->opd[1].reg)->field[in->imm & (mask)]); \
    }

LANE_OPS(DEFINE_LANE)

static void do_pinsrw_mmx(struct vcpu *v, const struct insn *in)
{
    unsigned shift = 16 * (unsigned)(in->imm & 3);
    uint64_t w, d;

    mmx_check(v);
    w = lane_read(v, in, 1, 2);
    d = mmx_read(v, in->opd[0].reg) & ~(UINT64_C(0xffff) << shift);
    mmx_enter(v);
    mmx_write(v, in->opd[0].reg, d | w << shift);
}

static void do_pextrw_mmx(struct vcpu *v, const struct insn *in)
{
    mmx_check(v);
    mmx_enter(v);
    reg_write(v, in->opd[0].reg, 8, mmx_read(v, in->opd[1].reg) >> (16 * (in->imm & 3)) & 0xffff);
}

#define ROW_LANE(M, name, field, mask, size) \
    AVX_ROW(PINSR##M, pinsr##name) BOTH_ROW(PEXTR##M, do_pextr##name)

static const struct sse_op mmx_ops[] = {
    {ZYDIS_MNEMONIC_PALIGNR, NULL, do_palignr_mmx},
    {ZYDIS_MNEMONIC_PSHUFW, NULL, do_pshufw},
    {ZYDIS_MNEMONIC_PINSRW, NULL, do_pinsrw_mmx},
    {ZYDIS_MNEMONIC_PEXTRW, NULL, do_pextrw_mmx},
};

static const struct sse_op ops[] = {
    SHUFFLE_OPS(AVX_ROW) LANE_OPS(ROW_LANE) AVX_ROW(INSERTPS, insertps)
        BOTH_ROW(EXTRACTPS, do_pextrd){ZYDIS_MNEMONIC_VPBLENDD, do_vblendps, NULL},
};

insn_fn sse_shuffle_pick(const struct insn *in)
{
    insn_fn f = SSE_OP_FIND(mmx_ops, in);

    return f != NULL ? f : SSE_OP_FIND(ops, in);
}
