/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_fp.c - packed and scalar floating-point arithmetic, comparison and rounding, and the
 * rules by which SIMD floating-point exceptions reach the guest (SDM Vol. 1, "SIMD
 * Floating-Point Exceptions").
 *
 * Arithmetic is the host's, as sse.h says. Done in software: RCPxx and RSQRTxx (one algorithm,
 * below), and the order in which HADDxx, HSUBxx and DPxx meet their operands, which decides whose
 * NaN survives. Threading: the vCPU's thread. Determinism: a function of operands and MXCSR. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

typedef void (*vec_fn)(union vec *d, const union vec *s);

/* Whether any of the lanes is a nonzero denormal. */
static bool is_tiny(const union vec *r, enum fp_lanes lanes)
{
    static const uint8_t count[] = {0, 4, 1, 2, 1, 8, 4};
    bool tiny = false;

    for (unsigned i = 0; i < count[lanes]; i++) {
        if (lanes == FP_PS || lanes == FP_SS || lanes == FP_PS8) {
            uint32_t d = r[i / 4].d[i % 4];
            tiny |= (d & 0x7f800000) == 0 && (d & 0x7fffff) != 0;
        } else {
            uint64_t q = r[i / 2].q[i % 2];
            tiny |= (q & UINT64_C(0x7ff0000000000000)) == 0 && q << 1 != 0;
        }
    }
    return tiny;
}

void fp_flags_slow(struct vcpu *v, uint32_t flags, const union vec *result, enum fp_lanes lanes)
{
    uint32_t unmasked = ~(v->c.fpu.mxcsr >> MXCSR_MASK_SHIFT) & MXCSR_FLAGS;

    if ((unmasked & MXCSR_UE) != 0 && is_tiny(result, lanes)) {
        flags |= MXCSR_UE;
    }
    if ((flags & MXCSR_PRE & unmasked) != 0) {
        flags &= MXCSR_PRE;
    }
    v->c.fpu.mxcsr |= flags;
    if ((flags & unmasked) != 0) {
        cpu_raise(v, (v->c.cr4 & CR4_OSXMMEXCPT) != 0 ? VEC_XM : VEC_UD);
    }
}

static inline __attribute__((always_inline)) void run_fp(struct vcpu *v, const struct insn *in,
                                                         vec_fn f, enum fp_lanes lanes)
{
    union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);
    const union vec *s;
    uint32_t flags;

    sse_check(v);
    s = sse_src(v, in, 1, &tmp, true);
    r = *d;
    fp_enter(v);
    f(&r, s);
    flags = fp_leave();
    fp_flags(v, flags, &r, lanes);
    *d = r;
}

/* (mnemonic, assembler name, lanes that an underflow shows in) */
/* clang-format off */
#define FP_OPS(X)                                                                                \
    X(ADDPS, addps, FP_PS) X(ADDPD, addpd, FP_PD) X(ADDSS, addss, FP_SS) X(ADDSD, addsd, FP_SD)  \
    X(SUBPS, subps, FP_PS) X(SUBPD, subpd, FP_PD) X(SUBSS, subss, FP_SS) X(SUBSD, subsd, FP_SD)  \
    X(MULPS, mulps, FP_PS) X(MULPD, mulpd, FP_PD) X(MULSS, mulss, FP_SS) X(MULSD, mulsd, FP_SD)  \
    X(DIVPS, divps, FP_PS) X(DIVPD, divpd, FP_PD) X(DIVSS, divss, FP_SS) X(DIVSD, divsd, FP_SD)  \
    X(ADDSUBPS, addsubps, FP_PS) X(ADDSUBPD, addsubpd, FP_PD)                                    \
    X(MINPS, minps, FP_NONE) X(MINPD, minpd, FP_NONE)                                            \
    X(MINSS, minss, FP_NONE) X(MINSD, minsd, FP_NONE)                                            \
    X(MAXPS, maxps, FP_NONE) X(MAXPD, maxpd, FP_NONE)                                            \
    X(MAXSS, maxss, FP_NONE) X(MAXSD, maxsd, FP_NONE)                                            \
    X(SQRTPS, sqrtps, FP_NONE) X(SQRTPD, sqrtpd, FP_NONE)                                        \
    X(SQRTSS, sqrtss, FP_NONE) X(SQRTSD, sqrtsd, FP_NONE)
/* clang-format on */

#define DEFINE_FP(M, name, lanes)                                   \
    static inline void fp_##name(union vec *d, const union vec *s)  \
    {                                                               \
        __asm__ volatile(#name " %1, %0" : "+x"(d->x) : "x"(s->x)); \
    }                                                               \
    static void do_##name(struct vcpu *v, const struct insn *in)    \
    {                                                               \
        run_fp(v, in, fp_##name, lanes);                            \
    }                                                               \
    static void do_v##name(struct vcpu *v, const struct insn *in)   \
    {                                                               \
        avx_run_fp(v, in, fp_##name, lanes);                        \
    }

FP_OPS(DEFINE_FP)

/* --- horizontal sums: the lower lane is the first operand ------------------------------------ */

static inline void split_ps(const union vec *d, const union vec *s, union vec *even, union vec *odd)
{
    *even = (union vec){.d = {d->d[0], d->d[2], s->d[0], s->d[2]}};
    *odd = (union vec){.d = {d->d[1], d->d[3], s->d[1], s->d[3]}};
}

static inline void split_pd(const union vec *d, const union vec *s, union vec *even, union vec *odd)
{
    *even = (union vec){.q = {d->q[0], s->q[0]}};
    *odd = (union vec){.q = {d->q[1], s->q[1]}};
}

#define HORIZONTAL_OPS(X)                        \
    X(HADDPS, haddps, split_ps, fp_addps, FP_PS) \
    X(HADDPD, haddpd, split_pd, fp_addpd, FP_PD) \
    X(HSUBPS, hsubps, split_ps, fp_subps, FP_PS) X(HSUBPD, hsubpd, split_pd, fp_subpd, FP_PD)

#define DEFINE_HORIZONTAL(M, name, split, op, lanes)               \
    static inline void fp_##name(union vec *d, const union vec *s) \
    {                                                              \
        union vec even, odd;                                       \
                                                                   \
        split(d, s, &even, &odd);                                  \
        op(&even, &odd);                                           \
        *d = even;                                                 \
    }                                                              \
    static void do_##name(struct vcpu *v, const struct insn *in)   \
    {                                                              \
        run_fp(v, in, fp_##name, lanes);                           \
    }                                                              \
    static void do_v##name(struct vcpu *v, const struct insn *in)  \
    {                                                              \
        avx_run_fp(v, in, fp_##name, lanes);                       \
    }

HORIZONTAL_OPS(DEFINE_HORIZONTAL)

/* One step of a dot product in @n lanes; an unmasked exception ends the instruction here (SDM
 * Vol. 2, "DPPS"). */
static void dp_step(struct vcpu *v, vec_fn f, union vec *d, const union vec *s, enum fp_lanes lanes,
                    unsigned n)
{
    uint32_t flags;

    fp_enter(v);
    for (unsigned i = 0; i < n; i++) {
        f(&d[i], &s[i]);
    }
    flags = fp_leave();
    fp_flags(v, flags, d, n == 2 ? fp_both(lanes) : lanes);
}

static void dot_ps(struct vcpu *v, union vec *d, const union vec *s, unsigned imm, unsigned n)
{
    union vec a[2] = {0}, b[2] = {0}, even[2], odd[2];

    for (unsigned k = 0; k < n; k++) {
        for (unsigned i = 0; i < 4; i++) {
            a[k].d[i] = (imm >> (4 + i) & 1) != 0 ? d[k].d[i] : 0;
            b[k].d[i] = (imm >> (4 + i) & 1) != 0 ? s[k].d[i] : 0;
        }
    }
    dp_step(v, fp_mulps, a, b, FP_PS, n);
    for (unsigned k = 0; k < n; k++) {
        even[k] = (union vec){.d = {a[k].d[0], a[k].d[2], 0, 0}};
        odd[k] = (union vec){.d = {a[k].d[1], a[k].d[3], 0, 0}};
    }
    dp_step(v, fp_addps, even, odd, FP_PS, n);
    for (unsigned k = 0; k < n; k++) {
        odd[k] = (union vec){.d = {even[k].d[1], 0, 0, 0}};
        even[k].d[1] = 0;
    }
    dp_step(v, fp_addps, even, odd, FP_PS, n);
    for (unsigned k = 0; k < n; k++) {
        for (unsigned i = 0; i < 4; i++) {
            d[k].d[i] = (imm >> i & 1) != 0 ? even[k].d[0] : 0;
        }
    }
}

static void dot_pd(struct vcpu *v, union vec *d, const union vec *s, unsigned imm, unsigned n)
{
    union vec a = {0}, b = {0};

    PLX_CHECK(n == 1);
    for (unsigned i = 0; i < 2; i++) {
        a.q[i] = (imm >> (4 + i) & 1) != 0 ? d->q[i] : 0;
        b.q[i] = (imm >> (4 + i) & 1) != 0 ? s->q[i] : 0;
    }
    dp_step(v, fp_mulpd, &a, &b, FP_PD, 1);
    b = (union vec){.q = {a.q[1], 0}};
    a.q[1] = 0;
    dp_step(v, fp_addpd, &a, &b, FP_PD, 1);
    for (unsigned i = 0; i < 2; i++) {
        d->q[i] = (imm >> i & 1) != 0 ? a.q[0] : 0;
    }
}

#define DEFINE_DOT(name, dot)                                                     \
    static void do_##name(struct vcpu *v, const struct insn *in)                  \
    {                                                                             \
        union vec tmp, r = *sse_xmm(v, in->opd[0].reg);                           \
                                                                                  \
        sse_check(v);                                                             \
        dot(v, &r, sse_src(v, in, 1, &tmp, true), (unsigned)in->imm, 1);          \
        *sse_xmm(v, in->opd[0].reg) = r;                                          \
    }                                                                             \
    static void do_v##name(struct vcpu *v, const struct insn *in)                 \
    {                                                                             \
        struct ymm r, s;                                                          \
                                                                                  \
        avx_check(v);                                                             \
        avx_src(v, in, 2, &s);                                                    \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);                          \
        dot(v, r.lane, s.lane, (unsigned)in->imm, in->opd[0].size == 32 ? 2 : 1); \
        avx_put(v, in, &r);                                                       \
    }

DEFINE_DOT(dpps, dot_ps)
DEFINE_DOT(dppd, dot_pd)

/* --- comparison ------------------------------------------------------------------------------ */

#define CMP_CASE(name, n)                                                   \
    case n:                                                                 \
        __asm__ volatile(#name " $" #n ", %1, %0" : "+x"(r.x) : "x"(s->x)); \
        break;

#define DEFINE_CMP(name)                                         \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);       \
        const union vec *s;                                      \
        uint32_t flags;                                          \
                                                                 \
        sse_check(v);                                            \
        s = sse_src(v, in, 1, &tmp, true);                       \
        r = *d;                                                  \
        fp_enter(v);                                             \
        switch (in->imm & 7) {                                   \
            CMP_CASE(name, 0)                                    \
            CMP_CASE(name, 1)                                    \
            CMP_CASE(name, 2)                                    \
            CMP_CASE(name, 3)                                    \
            CMP_CASE(name, 4)                                    \
            CMP_CASE(name, 5)                                    \
            CMP_CASE(name, 6)                                    \
            CMP_CASE(name, 7)                                    \
        }                                                        \
        flags = fp_leave();                                      \
        fp_flags(v, flags, &r, FP_NONE);                         \
        *d = r;                                                  \
    }

DEFINE_CMP(cmpps)
DEFINE_CMP(cmppd)
DEFINE_CMP(cmpss)
DEFINE_CMP(cmpsd)

/* The VEX forms know 32 predicates (SDM Vol. 2A, "CMPPS"): which of the four relations hold, and
 * whether a quiet NaN is an invalid operation. Put together from the three that SSE has. */
enum { REL_EQ = 1, REL_LT = 2, REL_GT = 4, REL_UNORDERED = 8 };

static const uint8_t relations[16] = {
    REL_EQ,
    REL_LT,
    REL_LT | REL_EQ,
    REL_UNORDERED,
    REL_LT | REL_GT | REL_UNORDERED,
    REL_GT | REL_EQ | REL_UNORDERED,
    REL_GT | REL_UNORDERED,
    REL_LT | REL_EQ | REL_GT,
    REL_EQ | REL_UNORDERED,
    REL_LT | REL_UNORDERED,
    REL_LT | REL_EQ | REL_UNORDERED,
    0,
    REL_LT | REL_GT,
    REL_GT | REL_EQ,
    REL_GT,
    REL_LT | REL_EQ | REL_GT | REL_UNORDERED,
};

static inline bool is_signaling(unsigned predicate)
{
    bool low = (predicate & 3) == 1 || (predicate & 3) == 2;

    return low != (predicate >= 16);
}

/* The predicate of @relation on the first @len bytes; the rest of @d stays. */
#define DEFINE_VCMP(name, len)                                                               \
    static inline union vec rel_##name(const union vec *d, const union vec *s, unsigned rel) \
    {                                                                                        \
        union vec r = *d;                                                                    \
                                                                                             \
        switch (rel) {                                                                       \
            CMP_CASE(name, 0)                                                                \
            CMP_CASE(name, 1)                                                                \
        default:                                                                             \
            __asm__ volatile(#name " $3, %1, %0" : "+x"(r.x) : "x"(s->x));                   \
        }                                                                                    \
        return r;                                                                            \
    }                                                                                        \
    static void do_v##name(struct vcpu *v, const struct insn *in)                            \
    {                                                                                        \
        unsigned predicate = (unsigned)in->imm & 31, n = in->opd[0].size / 16;               \
        unsigned want = relations[predicate & 15];                                           \
        struct ymm r, s;                                                                     \
        uint32_t flags;                                                                      \
                                                                                             \
        avx_check(v);                                                                        \
        avx_src(v, in, 2, &s);                                                               \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);                                     \
        fp_enter(v);                                                                         \
        for (unsigned k = 0; k < n; k++) {                                                   \
            (void)rel_##name(&r.lane[k], &s.lane[k], is_signaling(predicate) ? 1 : 0);       \
        }                                                                                    \
        flags = fp_leave();                                                                  \
        fp_flags(v, flags, r.lane, FP_NONE);                                                 \
        fp_enter(v);                                                                         \
        for (unsigned k = 0; k < n; k++) {                                                   \
            union vec eq = rel_##name(&r.lane[k], &s.lane[k], 0);                            \
            union vec lt = rel_##name(&r.lane[k], &s.lane[k], 1);                            \
            union vec un = rel_##name(&r.lane[k], &s.lane[k], 3), m;                         \
            for (unsigned i = 0; i < 2; i++) {                                               \
                m.q[i] = ((want & REL_EQ) != 0 ? eq.q[i] : 0) |                              \
                         ((want & REL_LT) != 0 ? lt.q[i] : 0) |                              \
                         ((want & REL_UNORDERED) != 0 ? un.q[i] : 0) |                       \
                         ((want & REL_GT) != 0 ? ~(eq.q[i] | lt.q[i] | un.q[i]) : 0);        \
            }                                                                                \
            memcpy(&r.lane[k], &m, len);                                                     \
        }                                                                                    \
        (void)fp_leave();                                                                    \
        avx_put(v, in, &r);                                                                  \
    }

DEFINE_VCMP(cmpps, 16)
DEFINE_VCMP(cmppd, 16)
DEFINE_VCMP(cmpss, 4)
DEFINE_VCMP(cmpsd, 8)

/* ZF, PF and CF from the comparison; OF, AF and SF cleared. */
#define DEFINE_COMI(name)                                                                      \
    static void do_##name(struct vcpu *v, const struct insn *in)                               \
    {                                                                                          \
        union vec tmp;                                                                         \
        const union vec *s, *d = sse_xmm(v, in->opd[0].reg);                                   \
        bool zf, pf, cf;                                                                       \
        uint32_t flags;                                                                        \
                                                                                               \
        simd_check(v, in);                                                                     \
        s = sse_src(v, in, 1, &tmp, false);                                                    \
        fp_enter(v);                                                                           \
        __asm__ volatile(#name " %4, %3"                                                       \
                         : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf)                               \
                         : "x"(d->x), "x"(s->x));                                              \
        flags = fp_leave();                                                                    \
        fp_flags(v, flags, s, FP_NONE);                                                        \
        v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | (zf ? FLAG_ZF : 0) | (pf ? FLAG_PF : 0) | \
                      (cf ? FLAG_CF : 0);                                                      \
    }

DEFINE_COMI(comiss)
DEFINE_COMI(comisd)
DEFINE_COMI(ucomiss)
DEFINE_COMI(ucomisd)

/* --- ROUNDxx --------------------------------------------------------------------------------- */

/* The immediate: bit 3 suppresses the precision exception, bit 2 takes the mode from MXCSR instead
 * of bits 1:0. The mode is put into MXCSR, so one host instruction serves all. */
#define DEFINE_ROUND(name)                                                                   \
    static void do_##name(struct vcpu *v, const struct insn *in)                             \
    {                                                                                        \
        union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);                                   \
        const union vec *s;                                                                  \
        uint32_t flags, mode = v->c.fpu.mxcsr;                                               \
                                                                                             \
        sse_check(v);                                                                        \
        s = sse_src(v, in, 1, &tmp, true);                                                   \
        r = *d;                                                                              \
        if ((in->imm & 4) == 0) {                                                            \
            mode = (mode & ~(uint32_t)MXCSR_RC) | (uint32_t)(in->imm & 3) << MXCSR_RC_SHIFT; \
        }                                                                                    \
        fp_enter_mode(mode);                                                                 \
        __asm__ volatile(#name " $4, %1, %0" : "+x"(r.x) : "x"(s->x));                       \
        flags = fp_leave();                                                                  \
        if ((in->imm & 8) != 0) {                                                            \
            flags &= ~(uint32_t)MXCSR_PE;                                                    \
        }                                                                                    \
        fp_flags(v, flags, &r, FP_NONE);                                                     \
        *d = r;                                                                              \
    }                                                                                        \
    static void do_v##name(struct vcpu *v, const struct insn *in)                            \
    {                                                                                        \
        uint32_t flags, mode = v->c.fpu.mxcsr;                                               \
        struct ymm r, s;                                                                     \
                                                                                             \
        avx_check(v);                                                                        \
        avx_src(v, in, avx_last(in), &s);                                                    \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);                                     \
        if ((in->imm & 4) == 0) {                                                            \
            mode = (mode & ~(uint32_t)MXCSR_RC) | (uint32_t)(in->imm & 3) << MXCSR_RC_SHIFT; \
        }                                                                                    \
        fp_enter_mode(mode);                                                                 \
        for (unsigned k = 0; k < in->opd[0].size / 16; k++) {                                \
            __asm__ volatile(#name " $4, %1, %0" : "+x"(r.lane[k].x) : "x"(s.lane[k].x));    \
        }                                                                                    \
        flags = fp_leave();                                                                  \
        if ((in->imm & 8) != 0) {                                                            \
            flags &= ~(uint32_t)MXCSR_PE;                                                    \
        }                                                                                    \
        fp_flags(v, flags, r.lane, FP_NONE);                                                 \
        avx_put(v, in, &r);                                                                  \
    }

DEFINE_ROUND(roundps)
DEFINE_ROUND(roundpd)
DEFINE_ROUND(roundss)
DEFINE_ROUND(roundsd)

/* --- approximations ---------------------------------------------------------------------------
 * The SDM bounds the relative error by 1.5 * 2^-12 and leaves the value open. Ours: the true value
 * rounded to nearest at 12 fraction bits. Denormal operands count as zeros of their sign, tiny
 * results become zeros, and MXCSR is neither read nor written. */

enum { F32_QUIET = 0x00400000, F32_INF = 0x7f800000 };
#define F32_SIGN       UINT32_C(0x80000000)
#define F32_INDEFINITE UINT32_C(0xffc00000)

static uint32_t rcp32(uint32_t x)
{
    uint32_t sign = x & F32_SIGN, e = (x >> 23) & 0xff, m = (x & 0x7fffff) | 0x800000, q;
    int32_t re;

    if (e == 0xff) {
        return (x & 0x7fffff) != 0 ? x | F32_QUIET : sign;
    }
    if (e == 0) {
        return sign | F32_INF;
    }
    /* m / 2^23 is in [1, 2), so 2^13 / that is in (2^12, 2^13]: 13 significant bits. */
    q = (uint32_t)(((UINT64_C(1) << 37) / m + 1) >> 1);
    re = 253 - (int32_t)e;
    if (q >= 0x2000) {
        q >>= 1;
        re++;
    }
    if (re <= 0) {
        return sign;
    }
    return sign | (uint32_t)re << 23 | (q & 0xfff) << 11;
}

static uint32_t rsqrt32(uint32_t x)
{
    uint32_t sign = x & F32_SIGN, e = (x >> 23) & 0xff, q = 0;
    uint64_t m = (x & 0x7fffff) | 0x800000;
    int32_t k, re;

    if (e == 0xff && (x & 0x7fffff) != 0) {
        return x | F32_QUIET;
    }
    if (e == 0) {
        return sign | F32_INF;
    }
    if (sign != 0) {
        return F32_INDEFINITE;
    }
    if (e == 0xff) {
        return 0;
    }
    k = (int32_t)e - 127;
    if ((k & 1) != 0) { /* x = m / 2^23 * 2^k with k even and m / 2^23 in [1, 4) */
        m <<= 1;
        k--;
    }
    /* The largest q with (q * 2^-13)^2 * m / 2^23 <= 1, that is q^2 * m <= 2^49; in (2^12, 2^13];
     * then to nearest: up if (q + 1/2)^2 * m <= 2^49. */
    for (uint32_t bit = 0x2000; bit != 0; bit >>= 1) {
        uint64_t t = q | bit;
        if (t * t * m <= UINT64_C(1) << 49) {
            q |= bit;
        }
    }
    if ((2 * (uint64_t)q + 1) * (2 * (uint64_t)q + 1) * m <= UINT64_C(1) << 51) {
        q++;
    }
    re = 126 - k / 2;
    if (q >= 0x2000) {
        q >>= 1;
        re++;
    }
    return (uint32_t)re << 23 | (q & 0xfff) << 11;
}

#define APPROX_OPS(X)         \
    X(RCPPS, rcpps, rcp32, 4) \
    X(RCPSS, rcpss, rcp32, 1) X(RSQRTPS, rsqrtps, rsqrt32, 4) X(RSQRTSS, rsqrtss, rsqrt32, 1)

#define DEFINE_APPROX(M, name, f, n)                                            \
    static void lane_##name(union vec *d, const union vec *s)                   \
    {                                                                           \
        for (unsigned i = 0; i < (n); i++) {                                    \
            d->d[i] = f(s->d[i]);                                               \
        }                                                                       \
    }                                                                           \
    static void do_##name(struct vcpu *v, const struct insn *in)                \
    {                                                                           \
        union vec tmp;                                                          \
                                                                                \
        sse_check(v);                                                           \
        lane_##name(sse_xmm(v, in->opd[0].reg), sse_src(v, in, 1, &tmp, true)); \
    }                                                                           \
    static void do_v##name(struct vcpu *v, const struct insn *in)               \
    {                                                                           \
        avx_run(v, in, lane_##name);                                            \
    }

APPROX_OPS(DEFINE_APPROX)

static const struct sse_op ops[] = {
    /* clang-format off */
    FP_OPS(AVX_ROW) HORIZONTAL_OPS(AVX_ROW) APPROX_OPS(AVX_ROW)
    AVX_ROW(DPPS, dpps) AVX_ROW(DPPD, dppd)
    AVX_ROW(CMPPS, cmpps) AVX_ROW(CMPPD, cmppd) AVX_ROW(CMPSS, cmpss) AVX_ROW(CMPSD, cmpsd)
    BOTH_ROW(COMISS, do_comiss) BOTH_ROW(COMISD, do_comisd)
    BOTH_ROW(UCOMISS, do_ucomiss) BOTH_ROW(UCOMISD, do_ucomisd)
    AVX_ROW(ROUNDPS, roundps) AVX_ROW(ROUNDPD, roundpd)
    AVX_ROW(ROUNDSS, roundss) AVX_ROW(ROUNDSD, roundsd)
    /* clang-format on */
};

insn_fn sse_fp_pick(const struct insn *in)
{
    /* CMPSD is also a string instruction. */
    return in->opd[0].kind == OPD_XMM ? SSE_OP_FIND(ops, in) : NULL;
}
