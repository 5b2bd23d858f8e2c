/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_cvt.c - conversions between integers and floats, in XMM, MMX and general registers.
 *
 * The MMX forms are done with their XMM cousins on the low half: the zeros in the other half raise
 * nothing. Threading: the vCPU's thread. Determinism: a function of operands and MXCSR. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

/* XMM to XMM; memory operands of half the size come zero-extended. Elements keep their size, or
 * scalars; become twice as wide; become half as wide. */
/* clang-format off */
#define SAME_OPS(X)                                                                              \
    X(CVTDQ2PS, cvtdq2ps, FP_NONE) X(CVTPS2DQ, cvtps2dq, FP_NONE)                                \
    X(CVTTPS2DQ, cvttps2dq, FP_NONE)                                                             \
    X(CVTSS2SD, cvtss2sd, FP_NONE) X(CVTSD2SS, cvtsd2ss, FP_SS)
#define WIDEN_OPS(X) X(CVTDQ2PD, cvtdq2pd, FP_NONE) X(CVTPS2PD, cvtps2pd, FP_NONE)
#define NARROW_OPS(X)                                                                            \
    X(CVTPD2DQ, cvtpd2dq, FP_NONE) X(CVTTPD2DQ, cvttpd2dq, FP_NONE) X(CVTPD2PS, cvtpd2ps, FP_PS)
#define XMM_OPS(X) SAME_OPS(X) WIDEN_OPS(X) NARROW_OPS(X)
/* clang-format on */

#define DEFINE_XMM(M, name, lanes)                                  \
    static inline void cvt_##name(union vec *d, const union vec *s) \
    {                                                               \
        __asm__ volatile(#name " %1, %0" : "+x"(d->x) : "x"(s->x)); \
    }                                                               \
    static void do_##name(struct vcpu *v, const struct insn *in)    \
    {                                                               \
        union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);          \
        const union vec *s;                                         \
        uint32_t flags;                                             \
                                                                    \
        sse_check(v);                                               \
        s = sse_src(v, in, 1, &tmp, true);                          \
        r = *d;                                                     \
        fp_enter(v);                                                \
        cvt_##name(&r, s);                                          \
        flags = fp_leave();                                         \
        fp_flags(v, flags, &r, lanes);                              \
        *d = r;                                                     \
    }

#define DEFINE_SAME(M, name, lanes)                               \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        avx_run_fp(v, in, cvt_##name, lanes);                     \
    }

/* The upper lane of the result comes from the upper half of a 128-bit source, ... */
#define DEFINE_WIDEN(M, name, lanes)                              \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        struct ymm r = {0}, s;                                    \
        uint32_t flags;                                           \
                                                                  \
        avx_check(v);                                             \
        avx_src(v, in, 1, &s);                                    \
        s.lane[1].q[0] = s.lane[0].q[1];                          \
        fp_enter(v);                                              \
        cvt_##name(&r.lane[0], &s.lane[0]);                       \
        if (in->opd[0].size == 32) {                              \
            cvt_##name(&r.lane[1], &s.lane[1]);                   \
        }                                                         \
        flags = fp_leave();                                       \
        fp_flags(v, flags, r.lane, lanes);                        \
        avx_put(v, in, &r);                                       \
    }

/* ... and that of a 256-bit source goes to the upper half of the result. */
#define DEFINE_NARROW(M, name, lanes)                             \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        struct ymm r = {0}, s;                                    \
        uint32_t flags;                                           \
                                                                  \
        avx_check(v);                                             \
        avx_src(v, in, 1, &s);                                    \
        fp_enter(v);                                              \
        cvt_##name(&r.lane[0], &s.lane[0]);                       \
        if (in->opd[1].size == 32) {                              \
            cvt_##name(&r.lane[1], &s.lane[1]);                   \
        }                                                         \
        flags = fp_leave();                                       \
        r.lane[0].q[1] = r.lane[1].q[0];                          \
        fp_flags(v, flags, r.lane, lanes);                        \
        avx_put(v, in, &r);                                       \
    }

XMM_OPS(DEFINE_XMM)
SAME_OPS(DEFINE_SAME)
WIDEN_OPS(DEFINE_WIDEN)
NARROW_OPS(DEFINE_NARROW)

/* General register or memory integer to scalar. */
#define FROM_INT_OPS(X) X(CVTSI2SS, cvtsi2ss) X(CVTSI2SD, cvtsi2sd)

#define DEFINE_VEX_FROM_INT(M, name)                                     \
    static void do_v##name(struct vcpu *v, const struct insn *in)        \
    {                                                                    \
        struct ymm r;                                                    \
        uint64_t s;                                                      \
        uint32_t flags;                                                  \
                                                                         \
        avx_check(v);                                                    \
        s = sign_extend(opd_read(v, in, 2), in->opd[2].size);            \
        avx_get(v, in->opd[1].reg, 16, &r);                              \
        fp_enter(v);                                                     \
        __asm__ volatile(#name "q %1, %0" : "+x"(r.lane[0].x) : "r"(s)); \
        flags = fp_leave();                                              \
        fp_flags(v, flags, r.lane, FP_NONE);                             \
        avx_put(v, in, &r);                                              \
    }

#define DEFINE_FROM_INT(M, name)                                 \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        union vec r, *d = sse_xmm(v, in->opd[0].reg);            \
        uint64_t s;                                              \
        uint32_t flags;                                          \
                                                                 \
        sse_check(v);                                            \
        s = sign_extend(opd_read(v, in, 1), in->opd[1].size);    \
        r = *d;                                                  \
        fp_enter(v);                                             \
        __asm__ volatile(#name "q %1, %0" : "+x"(r.x) : "r"(s)); \
        flags = fp_leave();                                      \
        fp_flags(v, flags, &r, FP_NONE);                         \
        *d = r;                                                  \
    }

FROM_INT_OPS(DEFINE_FROM_INT)
FROM_INT_OPS(DEFINE_VEX_FROM_INT)

/* Scalar to general register; the size of the destination decides what overflows. */
#define TO_INT_OPS(X) \
    X(CVTSS2SI, cvtss2si) X(CVTTSS2SI, cvttss2si) X(CVTSD2SI, cvtsd2si) X(CVTTSD2SI, cvttsd2si)

#define DEFINE_TO_INT(M, name)                                        \
    static void do_##name(struct vcpu *v, const struct insn *in)      \
    {                                                                 \
        union vec tmp;                                                \
        const union vec *s;                                           \
        uint64_t r;                                                   \
        uint32_t flags;                                               \
                                                                      \
        simd_check(v, in);                                            \
        s = sse_src(v, in, 1, &tmp, true);                            \
        fp_enter(v);                                                  \
        if (in->opd[0].size == 8) {                                   \
            __asm__ volatile(#name " %1, %0" : "=r"(r) : "x"(s->x));  \
        } else {                                                      \
            __asm__ volatile(#name " %1, %k0" : "=r"(r) : "x"(s->x)); \
        }                                                             \
        flags = fp_leave();                                           \
        fp_flags(v, flags, s, FP_NONE);                               \
        reg_write(v, in->opd[0].reg, in->opd[0].size, r);             \
    }

TO_INT_OPS(DEFINE_TO_INT)

/* Two floats to two integers in an MMX register, by the instruction named second. */
/* clang-format off */
#define TO_MMX_OPS(X)                                                  \
    X(CVTPS2PI, cvtps2pi, cvtps2dq)                                    \
    X(CVTTPS2PI, cvttps2pi, cvttps2dq) X(CVTPD2PI, cvtpd2pi, cvtpd2dq) \
        X(CVTTPD2PI, cvttpd2pi, cvttpd2dq)
/* clang-format on */

#define DEFINE_TO_MMX(M, name, host)                             \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        union vec s, tmp;                                        \
        uint32_t flags;                                          \
                                                                 \
        sse_check(v);                                            \
        mmx_check(v);                                            \
        s = *sse_src(v, in, 1, &tmp, true);                      \
        if (ZYDIS_MNEMONIC_##M == ZYDIS_MNEMONIC_CVTPS2PI ||     \
            ZYDIS_MNEMONIC_##M == ZYDIS_MNEMONIC_CVTTPS2PI) {    \
            s.q[1] = 0;                                          \
        }                                                        \
        fp_enter(v);                                             \
        __asm__ volatile(#host " %0, %0" : "+x"(s.x));           \
        flags = fp_leave();                                      \
        mmx_enter(v); /* even if the result is an exception */   \
        fp_flags(v, flags, &s, FP_NONE);                         \
        mmx_write(v, in->opd[0].reg, s.q[0]);                    \
    }

TO_MMX_OPS(DEFINE_TO_MMX)

/* The upper half of the destination stays. */
static void do_cvtpi2ps(struct vcpu *v, const struct insn *in)
{
    union vec s = {0}, *d = sse_xmm(v, in->opd[0].reg);
    uint32_t flags;

    sse_check(v);
    mmx_check(v);
    s.q[0] = mmx_src(v, in, 1);
    fp_enter(v);
    __asm__ volatile("cvtdq2ps %0, %0" : "+x"(s.x));
    flags = fp_leave();
    mmx_enter(v);
    fp_flags(v, flags, &s, FP_NONE);
    d->q[0] = s.q[0];
}

/* Exact. From memory it does not concern the x87 unit (SDM Vol. 2, "CVTPI2PD"). */
static void do_cvtpi2pd(struct vcpu *v, const struct insn *in)
{
    union vec s = {0}, *d = sse_xmm(v, in->opd[0].reg);

    sse_check(v);
    if (in->opd[1].kind == OPD_MM) {
        mmx_check(v);
        s.q[0] = mmx_read(v, in->opd[1].reg);
        mmx_enter(v);
    } else {
        s.q[0] = mmx_src(v, in, 1);
    }
    __asm__ volatile("cvtdq2pd %1, %0" : "=x"(d->x) : "x"(s.x));
}

#define ROW_TO_INT(M, name)    BOTH_ROW(M, do_##name)
#define ROW_MMX(M, name, host) {ZYDIS_MNEMONIC_##M, NULL, do_##name},

static const struct sse_op ops[] = {
    XMM_OPS(AVX_ROW) FROM_INT_OPS(AVX_ROW) TO_INT_OPS(ROW_TO_INT)
        TO_MMX_OPS(ROW_MMX){ZYDIS_MNEMONIC_CVTPI2PS, do_cvtpi2ps, do_cvtpi2ps},
    {ZYDIS_MNEMONIC_CVTPI2PD, do_cvtpi2pd, do_cvtpi2pd},
};

insn_fn sse_cvt_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
