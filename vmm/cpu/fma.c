/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/fma.c - fused multiply-add (SDM Vol. 2C, "VFMADD132PD" and its family), and the
 * conversions of half precision (F16C).
 *
 * The host's unit multiplies and adds where it has one, and where no NaN comes out: which of
 * several NaNs survives is decided here, once for all hosts (R6). Otherwise, and half precision
 * always, vec_soft.c. Threading: the vCPU's thread. Determinism: a function of operands and MXCSR.
 */
#include "base/check.h"
#include "vmm/cpu/avx.h"
#include "vmm/cpu/vec_soft.h"

/* What is negated: the product, the addend, the addend of even elements, of odd ones. */
enum { NEGATE_PRODUCT = 1, NEGATE_EVEN = 2, NEGATE_ODD = 4 };

struct fma_type {
    const struct fp_format *format;
    unsigned size;
    bool scalar;
    enum fp_lanes lanes;
    void (*host)(union vec *a, const union vec *b, const union vec *c);
};

/* a = a * b + c, in every element: those above a scalar are put back afterwards. */
static void host_ps(union vec *a, const union vec *b, const union vec *c)
{
    __asm__ volatile("vfmadd213ps %2, %1, %0" : "+x"(a->x) : "x"(b->x), "x"(c->x));
}

static void host_pd(union vec *a, const union vec *b, const union vec *c)
{
    __asm__ volatile("vfmadd213pd %2, %1, %0" : "+x"(a->x) : "x"(b->x), "x"(c->x));
}

static void host_ss(union vec *a, const union vec *b, const union vec *c)
{
    __asm__ volatile("vfmadd213ss %2, %1, %0" : "+x"(a->x) : "x"(b->x), "x"(c->x));
}

static void host_sd(union vec *a, const union vec *b, const union vec *c)
{
    __asm__ volatile("vfmadd213sd %2, %1, %0" : "+x"(a->x) : "x"(b->x), "x"(c->x));
}

static const struct fma_type type_ps = {&fp_single, 4, false, FP_PS, host_ps},
                             type_pd = {&fp_double, 8, false, FP_PD, host_pd},
                             type_ss = {&fp_single, 4, true, FP_SS, host_ss},
                             type_sd = {&fp_double, 8, true, FP_SD, host_sd};

static uint64_t element(const struct ymm *y, unsigned i, unsigned size)
{
    uint64_t x = 0;

    memcpy(&x, (const uint8_t *)y + i * size, size);
    return x;
}

static bool negates_addend(unsigned negate, unsigned i)
{
    return (negate & ((i & 1) != 0 ? NEGATE_ODD : NEGATE_EVEN)) != 0;
}

/* False: some element is a NaN, or the host has no such unit. */
static bool by_host(const struct vcpu *v, const struct fma_type *t, unsigned negate, unsigned n,
                    const struct ymm *a, const struct ymm *b, const struct ymm *c, struct ymm *r,
                    uint32_t *flags)
{
    struct ymm addend = *c;
    unsigned top = t->size - 1;

    if (!__builtin_cpu_supports("fma")) {
        return false;
    }
    *r = *a;
    for (unsigned i = 0; i < n; i++) {
        if ((negate & NEGATE_PRODUCT) != 0) {
            ((uint8_t *)r)[i * t->size + top] ^= 0x80;
        }
        if (negates_addend(negate, i)) {
            ((uint8_t *)&addend)[i * t->size + top] ^= 0x80;
        }
    }
    fp_enter(v);
    t->host(&r->lane[0], &b->lane[0], &addend.lane[0]);
    if (n * t->size == 32) {
        t->host(&r->lane[1], &b->lane[1], &addend.lane[1]);
    }
    *flags = fp_leave();
    for (unsigned i = 0; i < n; i++) {
        uint64_t x = element(r, i, t->size) << 1;
        if (t->size == 4 ? (uint32_t)x > 0xff000000 : x > UINT64_C(0xffe0000000000000)) {
            return false;
        }
    }
    return true;
}

/* @order: 132, 213 or 231: which operands are multiplied, and which is added. */
static inline __attribute__((always_inline)) void run_fma(struct vcpu *v, const struct insn *in,
                                                          unsigned order, unsigned negate,
                                                          const struct fma_type *t)
{
    unsigned n = t->scalar ? 1 : in->opd[0].size / t->size;
    struct ymm o[3], r;
    uint32_t flags = 0;

    avx_check(v);
    avx_src(v, in, 2, &o[2]);
    avx_get(v, in->opd[0].reg, in->opd[0].size, &o[0]);
    avx_get(v, in->opd[1].reg, in->opd[0].size, &o[1]);
    const struct ymm *a = &o[order / 100 - 1], *b = &o[order / 10 % 10 - 1],
                     *c = &o[order % 10 - 1];
    if (!by_host(v, t, negate, n, a, b, c, &r, &flags)) {
        flags = 0;
        for (unsigned i = 0; i < n; i++) {
            struct fma_operands f = {
                element(a, i, t->size),
                element(b, i, t->size),
                element(c, i, t->size),
                (negate & NEGATE_PRODUCT) != 0,
                negates_addend(negate, i),
                {element(a, i, t->size), element(b, i, t->size), element(c, i, t->size)}};
            uint64_t x = soft_fma(t->format, &f, v->c.fpu.mxcsr, &flags);
            memcpy((uint8_t *)&r + i * t->size, &x, t->size);
        }
    }
    if (t->scalar) {
        memcpy((uint8_t *)&o[0], &r, t->size);
        r = o[0];
    }
    fp_flags(v, flags, r.lane, in->opd[0].size == 32 ? fp_both(t->lanes) : t->lanes);
    avx_put(v, in, &r);
}

/* (name, what is negated) */
#define SCALAR_KINDS(X, ...)                         \
    X(VFMADD, 0, __VA_ARGS__)                        \
    X(VFMSUB, NEGATE_EVEN | NEGATE_ODD, __VA_ARGS__) \
    X(VFNMADD, NEGATE_PRODUCT, __VA_ARGS__)          \
    X(VFNMSUB, NEGATE_PRODUCT | NEGATE_EVEN | NEGATE_ODD, __VA_ARGS__)
#define PACKED_KINDS(X, ...)     \
    SCALAR_KINDS(X, __VA_ARGS__) \
    X(VFMADDSUB, NEGATE_EVEN, __VA_ARGS__) X(VFMSUBADD, NEGATE_ODD, __VA_ARGS__)
#define FMA_OPS(X)               \
    PACKED_KINDS(X, PS, type_ps) \
    PACKED_KINDS(X, PD, type_pd) SCALAR_KINDS(X, SS, type_ss) SCALAR_KINDS(X, SD, type_sd)

#define DEFINE_FMA(K, negate, T, type)                                \
    static void do_##K##132##T(struct vcpu *v, const struct insn *in) \
    {                                                                 \
        run_fma(v, in, 132, negate, &type);                           \
    }                                                                 \
    static void do_##K##213##T(struct vcpu *v, const struct insn *in) \
    {                                                                 \
        run_fma(v, in, 213, negate, &type);                           \
    }                                                                 \
    static void do_##K##231##T(struct vcpu *v, const struct insn *in) \
    {                                                                 \
        run_fma(v, in, 231, negate, &type);                           \
    }

FMA_OPS(DEFINE_FMA)

/* --- half precision ----------------------------------------------------------------------------
 */

static void do_ph2ps(struct vcpu *v, const struct insn *in)
{
    struct ymm r = {0}, s;
    uint32_t flags = 0;

    avx_check(v);
    avx_src(v, in, 1, &s);
    for (unsigned i = 0; i < in->opd[0].size / 4; i++) {
        r.lane[i / 4].d[i % 4] = (uint32_t)soft_half_to_single(s.lane[0].w[i], &flags);
    }
    fp_flags(v, flags, r.lane, FP_NONE);
    avx_put(v, in, &r);
}

/* Bit 2 of the immediate takes the mode from MXCSR, else it is bits 1:0. */
static void do_ps2ph(struct vcpu *v, const struct insn *in)
{
    unsigned n = in->opd[1].size / 4;
    uint32_t flags = 0, mode = v->c.fpu.mxcsr;
    struct ymm r = {0}, s;

    avx_check(v);
    avx_get(v, in->opd[1].reg, in->opd[1].size, &s);
    if ((in->imm & 4) == 0) {
        mode = (mode & ~(uint32_t)MXCSR_RC) | (uint32_t)(in->imm & 3) << MXCSR_RC_SHIFT;
    }
    for (unsigned i = 0; i < n; i++) {
        r.lane[0].w[i] = (uint16_t)soft_single_to_half(s.lane[i / 4].d[i % 4], mode, &flags);
    }
    if (in->opd[0].kind != OPD_MEM) {
        fp_flags(v, flags, r.lane, FP_NONE);
        avx_put(v, in, &r);
        return;
    }
    mem_probe_write(v, in->seg, mem_ea(v, in), n * 2);
    fp_flags(v, flags, r.lane, FP_NONE);
    mem_write_bytes(v, in->seg, mem_ea(v, in), &r, n * 2);
}

#define ROW_FMA(K, negate, T, type)                         \
    {ZYDIS_MNEMONIC_##K##132##T, do_##K##132##T, NULL},     \
        {ZYDIS_MNEMONIC_##K##213##T, do_##K##213##T, NULL}, \
        {ZYDIS_MNEMONIC_##K##231##T, do_##K##231##T, NULL},

static const struct sse_op ops[] = {
    FMA_OPS(ROW_FMA){ZYDIS_MNEMONIC_VCVTPH2PS, do_ph2ps, NULL},
    {ZYDIS_MNEMONIC_VCVTPS2PH, do_ps2ph, NULL},
};

insn_fn fma_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
