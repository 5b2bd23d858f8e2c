/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/avx_perm.c - permutations that cross lanes or are steered by a register, and shifts by a
 * count for each element: what has no SSE twin.
 *
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

/* Elements of both lanes by number. */
static inline uint32_t *dword(struct ymm *y, unsigned i)
{
    return &y->lane[i / 4].d[i % 4];
}

static inline uint64_t *qword(struct ymm *y, unsigned i)
{
    return &y->lane[i / 2].q[i % 2];
}

/* dst = src2 in the order of src1. */
static void do_permd(struct vcpu *v, const struct insn *in)
{
    struct ymm r, index, s;

    avx_check(v);
    avx_src(v, in, 2, &s);
    avx_get(v, in->opd[1].reg, 32, &index);
    for (unsigned i = 0; i < 8; i++) {
        *dword(&r, i) = *dword(&s, *dword(&index, i) & 7);
    }
    avx_put(v, in, &r);
}

static void do_permq(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s;

    avx_check(v);
    avx_src(v, in, 1, &s);
    for (unsigned i = 0; i < 4; i++) {
        *qword(&r, i) = *qword(&s, in->imm >> (2 * i) & 3);
    }
    avx_put(v, in, &r);
}

/* Each lane: one of the four of both sources, or 0. */
static void do_perm2(struct vcpu *v, const struct insn *in)
{
    struct ymm r = {0}, s[2];

    avx_check(v);
    avx_src(v, in, 2, &s[1]);
    avx_get(v, in->opd[1].reg, 32, &s[0]);
    for (unsigned i = 0; i < 2; i++) {
        unsigned from = (unsigned)(in->imm >> (4 * i));
        if ((from & 8) == 0) {
            r.lane[i] = s[from >> 1 & 1].lane[from & 1];
        }
    }
    avx_put(v, in, &r);
}

/* Within lanes, by the immediate or by a register. */
static void do_permilps(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s, control;

    avx_check(v);
    if (in->opd[2].kind == OPD_IMM) {
        avx_src(v, in, 1, &s);
        for (unsigned i = 0; i < 8; i++) {
            *dword(&control, i) = (uint32_t)(in->imm >> (2 * (i % 4)));
        }
    } else {
        avx_src(v, in, 2, &control);
        avx_get(v, in->opd[1].reg, in->opd[0].size, &s);
    }
    for (unsigned i = 0; i < 8; i++) {
        *dword(&r, i) = s.lane[i / 4].d[*dword(&control, i) & 3];
    }
    avx_put(v, in, &r);
}

static void do_permilpd(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s, control;

    avx_check(v);
    if (in->opd[2].kind == OPD_IMM) {
        avx_src(v, in, 1, &s);
        for (unsigned i = 0; i < 4; i++) {
            *qword(&control, i) = (in->imm >> i) << 1;
        }
    } else {
        avx_src(v, in, 2, &control);
        avx_get(v, in->opd[1].reg, in->opd[0].size, &s);
    }
    for (unsigned i = 0; i < 4; i++) {
        *qword(&r, i) = s.lane[i / 2].q[*qword(&control, i) >> 1 & 1];
    }
    avx_put(v, in, &r);
}

/* A count beyond the element shifts everything out. */
static uint32_t sllv_d(uint32_t a, uint32_t n)
{
    return n < 32 ? a << n : 0;
}

static uint32_t srlv_d(uint32_t a, uint32_t n)
{
    return n < 32 ? a >> n : 0;
}

static uint32_t srav_d(uint32_t a, uint32_t n)
{
    return (uint32_t)((int64_t)(int32_t)a >> (n < 32 ? n : 31));
}

static uint64_t sllv_q(uint64_t a, uint64_t n)
{
    return n < 64 ? a << n : 0;
}

static uint64_t srlv_q(uint64_t a, uint64_t n)
{
    return n < 64 ? a >> n : 0;
}

#define SHIFT_OPS(X)             \
    X(VPSLLVD, sllv_d, dword, 8) \
    X(VPSRLVD, srlv_d, dword, 8) \
    X(VPSRAVD, srav_d, dword, 8) X(VPSLLVQ, sllv_q, qword, 4) X(VPSRLVQ, srlv_q, qword, 4)

#define DEFINE_SHIFT(M, f, element, n)                             \
    static void do_##M(struct vcpu *v, const struct insn *in)      \
    {                                                              \
        struct ymm r, s;                                           \
                                                                   \
        avx_check(v);                                              \
        avx_src(v, in, 2, &s);                                     \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);           \
        for (unsigned i = 0; i < (n); i++) {                       \
            *element(&r, i) = f(*element(&r, i), *element(&s, i)); \
        }                                                          \
        avx_put(v, in, &r);                                        \
    }

SHIFT_OPS(DEFINE_SHIFT)

#define ROW(M, fn)                  {ZYDIS_MNEMONIC_##M, fn, NULL},
#define ROW_SHIFT(M, f, element, n) {ZYDIS_MNEMONIC_##M, do_##M, NULL},

/* clang-format off */
static const struct sse_op ops[] = {
    ROW(VPERMD, do_permd) ROW(VPERMPS, do_permd) ROW(VPERMQ, do_permq) ROW(VPERMPD, do_permq)
    ROW(VPERM2F128, do_perm2) ROW(VPERM2I128, do_perm2)
    ROW(VPERMILPS, do_permilps) ROW(VPERMILPD, do_permilpd)
    SHIFT_OPS(ROW_SHIFT)
};
/* clang-format on */

insn_fn avx_perm_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
