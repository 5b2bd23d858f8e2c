/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_cvt.c - conversions between integers and floats, in XMM, MMX and general registers.
 *
 * The MMX forms are done with their XMM cousins on the low half: the zeros in the other half raise
 * nothing. Threading: the vCPU's thread. Determinism: a function of operands and MXCSR. */
#include "base/check.h"
#include "vmm/cpu/sse.h"

/* XMM to XMM; memory operands of half the size come zero-extended. */
/* clang-format off */
#define XMM_OPS(X)                                                                               \
    X(CVTDQ2PS, cvtdq2ps, FP_NONE) X(CVTPS2DQ, cvtps2dq, FP_NONE)                                \
    X(CVTTPS2DQ, cvttps2dq, FP_NONE) X(CVTDQ2PD, cvtdq2pd, FP_NONE)                              \
    X(CVTPD2DQ, cvtpd2dq, FP_NONE) X(CVTTPD2DQ, cvttpd2dq, FP_NONE)                              \
    X(CVTPS2PD, cvtps2pd, FP_NONE) X(CVTPD2PS, cvtpd2ps, FP_PS)                                  \
    X(CVTSS2SD, cvtss2sd, FP_NONE) X(CVTSD2SS, cvtsd2ss, FP_SS)
/* clang-format on */

#define DEFINE_XMM(M, name, lanes)                                 \
    static void do_##name(struct vcpu *v, const struct insn *in)   \
    {                                                              \
        union vec tmp, r, *d = sse_xmm(v, in->opd[0].reg);         \
        const union vec *s;                                        \
        uint32_t flags;                                            \
                                                                   \
        sse_check(v);                                              \
        s = sse_src(v, in, 1, &tmp, true);                         \
        r = *d;                                                    \
        fp_enter(v);                                               \
        __asm__ volatile(#name " %1, %0" : "+x"(r.x) : "x"(s->x)); \
        flags = fp_leave();                                        \
        fp_flags(v, flags, &r, lanes);                             \
        *d = r;                                                    \
    }

XMM_OPS(DEFINE_XMM)

/* General register or memory integer to scalar. */
#define FROM_INT_OPS(X) X(CVTSI2SS, cvtsi2ss) X(CVTSI2SD, cvtsi2sd)

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
        sse_check(v);                                                 \
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

#define ROW_MMX(M, name, host) {ZYDIS_MNEMONIC_##M, NULL, do_##name},

static const struct sse_op ops[] = {
    XMM_OPS(SSE_ROW) FROM_INT_OPS(SSE_ROW) TO_INT_OPS(SSE_ROW)
        TO_MMX_OPS(ROW_MMX){ZYDIS_MNEMONIC_CVTPI2PS, do_cvtpi2ps, do_cvtpi2ps},
    {ZYDIS_MNEMONIC_CVTPI2PD, do_cvtpi2pd, do_cvtpi2pd},
};

insn_fn sse_cvt_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
