/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_int.c - packed integer arithmetic, logic and shifts on XMM and MMX registers, and
 * the bitwise and unpacking instructions on packed floats, which are integers too.
 *
 * Each is the host's own instruction on the guest's operands: exact, without flags, the same on
 * every processor that has it. The MMX forms leave the host's x87 unit empty (EMMS).
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/sse.h"

typedef void (*vec_fn)(union vec *d, const union vec *s);
typedef uint64_t (*mm_fn)(uint64_t d, uint64_t s);

static inline __attribute__((always_inline)) void run_xmm(struct vcpu *v, const struct insn *in,
                                                          vec_fn f)
{
    union vec tmp;

    sse_check(v);
    f(sse_xmm(v, in->opd[0].reg), sse_src(v, in, 1, &tmp, true));
}

static inline __attribute__((always_inline)) void run_mmx(struct vcpu *v, const struct insn *in,
                                                          mm_fn f)
{
    uint64_t s;

    mmx_check(v);
    s = mmx_src(v, in, 1);
    mmx_enter(v);
    mmx_write(v, in->opd[0].reg, f(mmx_read(v, in->opd[0].reg), s));
}

/* Instructions of the shape OP dst, src/m, as (mnemonic, assembler name). */
/* clang-format off */
#define BOTH_OPS(X)                                                                              \
    X(PADDB, paddb) X(PADDW, paddw) X(PADDD, paddd) X(PADDQ, paddq) X(PADDSB, paddsb)            \
    X(PADDSW, paddsw) X(PADDUSB, paddusb) X(PADDUSW, paddusw) X(PSUBB, psubb) X(PSUBW, psubw)    \
    X(PSUBD, psubd) X(PSUBQ, psubq) X(PSUBSB, psubsb) X(PSUBSW, psubsw) X(PSUBUSB, psubusb)      \
    X(PSUBUSW, psubusw) X(PAND, pand) X(PANDN, pandn) X(POR, por) X(PXOR, pxor)                  \
    X(PCMPEQB, pcmpeqb) X(PCMPEQW, pcmpeqw) X(PCMPEQD, pcmpeqd) X(PCMPGTB, pcmpgtb)              \
    X(PCMPGTW, pcmpgtw) X(PCMPGTD, pcmpgtd) X(PMULLW, pmullw) X(PMULHW, pmulhw)                  \
    X(PMULHUW, pmulhuw) X(PMULUDQ, pmuludq) X(PMADDWD, pmaddwd) X(PAVGB, pavgb) X(PAVGW, pavgw)  \
    X(PMAXUB, pmaxub) X(PMINUB, pminub) X(PMAXSW, pmaxsw) X(PMINSW, pminsw) X(PSADBW, psadbw)    \
    X(PACKSSWB, packsswb) X(PACKSSDW, packssdw) X(PACKUSWB, packuswb)                            \
    X(PUNPCKLBW, punpcklbw) X(PUNPCKLWD, punpcklwd) X(PUNPCKLDQ, punpckldq)                      \
    X(PUNPCKHBW, punpckhbw) X(PUNPCKHWD, punpckhwd) X(PUNPCKHDQ, punpckhdq)                      \
    X(PSHUFB, pshufb) X(PHADDW, phaddw) X(PHADDD, phaddd) X(PHADDSW, phaddsw)                    \
    X(PHSUBW, phsubw) X(PHSUBD, phsubd) X(PHSUBSW, phsubsw) X(PMADDUBSW, pmaddubsw)              \
    X(PMULHRSW, pmulhrsw) X(PSIGNB, psignb) X(PSIGNW, psignw) X(PSIGND, psignd)                  \
    X(PABSB, pabsb) X(PABSW, pabsw) X(PABSD, pabsd)
/* clang-format on */

/* clang-format off */
#define XMM_OPS(X)                                                                               \
    X(PUNPCKLQDQ, punpcklqdq) X(PUNPCKHQDQ, punpckhqdq) X(PMULDQ, pmuldq) X(PMULLD, pmulld)      \
    X(PMINSB, pminsb) X(PMAXSB, pmaxsb) X(PMINUW, pminuw) X(PMAXUW, pmaxuw) X(PMINSD, pminsd)    \
    X(PMAXSD, pmaxsd) X(PMINUD, pminud) X(PMAXUD, pmaxud) X(PACKUSDW, packusdw)                  \
    X(PCMPEQQ, pcmpeqq) X(PCMPGTQ, pcmpgtq) X(PHMINPOSUW, phminposuw)                            \
    X(ANDPS, andps) X(ANDNPS, andnps) X(ORPS, orps) X(XORPS, xorps) X(ANDPD, andpd)              \
    X(ANDNPD, andnpd) X(ORPD, orpd) X(XORPD, xorpd) X(UNPCKLPS, unpcklps)                        \
    X(UNPCKHPS, unpckhps) X(UNPCKLPD, unpcklpd) X(UNPCKHPD, unpckhpd)                            \
    X(PMOVSXBW, pmovsxbw) X(PMOVSXBD, pmovsxbd) X(PMOVSXBQ, pmovsxbq) X(PMOVSXWD, pmovsxwd)      \
    X(PMOVSXWQ, pmovsxwq) X(PMOVSXDQ, pmovsxdq) X(PMOVZXBW, pmovzxbw) X(PMOVZXBD, pmovzxbd)      \
    X(PMOVZXBQ, pmovzxbq) X(PMOVZXWD, pmovzxwd) X(PMOVZXWQ, pmovzxwq) X(PMOVZXDQ, pmovzxdq)      \
    X(MOVDDUP, movddup) X(MOVSHDUP, movshdup) X(MOVSLDUP, movsldup)
/* clang-format on */

/* The third operand of these is XMM0. */
#define BLENDV_OPS(X) X(PBLENDVB, pblendvb) X(BLENDVPS, blendvps) X(BLENDVPD, blendvpd)

/* The count is the second operand: register, memory, or an immediate. */
/* clang-format off */
#define SHIFT_OPS(X)                                                                             \
    X(PSLLW, psllw) X(PSLLD, pslld) X(PSLLQ, psllq) X(PSRLW, psrlw) X(PSRLD, psrld)              \
    X(PSRLQ, psrlq) X(PSRAW, psraw) X(PSRAD, psrad)
/* clang-format on */

#define DEFINE_XMM(M, name)                                      \
    static void xmm_##name(union vec *d, const union vec *s)     \
    {                                                            \
        __asm__(#name " %1, %0" : "+x"(d->x) : "x"(s->x));       \
    }                                                            \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        run_xmm(v, in, xmm_##name);                              \
    }

#define DEFINE_MMX(M, name)                                                               \
    static uint64_t mm_##name(uint64_t d, uint64_t s)                                     \
    {                                                                                     \
        __asm__ volatile("movq %0, %%mm0\n\tmovq %1, %%mm1\n\t" #name " %%mm1, %%mm0\n\t" \
                         "movq %%mm0, %0\n\temms"                                         \
                         : "+m"(d)                                                        \
                         : "m"(s)                                                         \
                         : "mm0", "mm1", "st");                                           \
        return d;                                                                         \
    }                                                                                     \
    static void do_mm_##name(struct vcpu *v, const struct insn *in)                       \
    {                                                                                     \
        run_mmx(v, in, mm_##name);                                                        \
    }

#define DEFINE_BLENDV(M, name)                                                \
    static void do_##name(struct vcpu *v, const struct insn *in)              \
    {                                                                         \
        union vec tmp, *d = sse_xmm(v, in->opd[0].reg);                       \
        const union vec *s;                                                   \
        register __m128i mask __asm__("xmm0");                                \
                                                                              \
        sse_check(v);                                                         \
        s = sse_src(v, in, 1, &tmp, true);                                    \
        mask = sse_xmm(v, 0)->x;                                              \
        __asm__(#name " %%xmm0, %1, %0" : "+x"(d->x) : "x"(s->x), "x"(mask)); \
    }

#define DEFINE_SHIFT_IMM(M, name)                                                             \
    static void do_##name##_imm(struct vcpu *v, const struct insn *in)                        \
    {                                                                                         \
        union vec count = {.q = {in->imm & 0xff, 0}};                                         \
                                                                                              \
        sse_check(v);                                                                         \
        xmm_##name(sse_xmm(v, in->opd[0].reg), &count);                                       \
    }                                                                                         \
    static void do_mm_##name##_imm(struct vcpu *v, const struct insn *in)                     \
    {                                                                                         \
        mmx_check(v);                                                                         \
        mmx_enter(v);                                                                         \
        mmx_write(v, in->opd[0].reg, mm_##name(mmx_read(v, in->opd[0].reg), in->imm & 0xff)); \
    }

BOTH_OPS(DEFINE_XMM)
BOTH_OPS(DEFINE_MMX)
XMM_OPS(DEFINE_XMM)
BLENDV_OPS(DEFINE_BLENDV)
SHIFT_OPS(DEFINE_XMM)
SHIFT_OPS(DEFINE_MMX)
SHIFT_OPS(DEFINE_SHIFT_IMM)

static void do_pslldq(struct vcpu *v, const struct insn *in)
{
    union vec *d = sse_xmm(v, in->opd[0].reg), r = {0};
    unsigned n = (unsigned)(in->imm & 0xff);

    sse_check(v);
    for (unsigned i = n; i < 16; i++) {
        r.b[i] = d->b[i - n];
    }
    *d = r;
}

static void do_psrldq(struct vcpu *v, const struct insn *in)
{
    union vec *d = sse_xmm(v, in->opd[0].reg), r = {0};
    unsigned n = (unsigned)(in->imm & 0xff);

    sse_check(v);
    for (unsigned i = n; i < 16; i++) {
        r.b[i - n] = d->b[i];
    }
    *d = r;
}

/* ZF: no bit of the source is in the destination; CF: all are. The others are cleared. */
static void do_ptest(struct vcpu *v, const struct insn *in)
{
    union vec tmp;
    const union vec *d = sse_xmm(v, in->opd[0].reg), *s;
    uint64_t flags = 0;

    sse_check(v);
    s = sse_src(v, in, 1, &tmp, true);
    if (((s->q[0] & d->q[0]) | (s->q[1] & d->q[1])) == 0) {
        flags |= FLAG_ZF;
    }
    if (((s->q[0] & ~d->q[0]) | (s->q[1] & ~d->q[1])) == 0) {
        flags |= FLAG_CF;
    }
    v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | flags;
}

#define ROW_BOTH(M, name) {ZYDIS_MNEMONIC_##M, do_##name, do_mm_##name},
#define ROW_XMM(M, name)  {ZYDIS_MNEMONIC_##M, do_##name, NULL},
#define ROW_IMM(M, name)  {ZYDIS_MNEMONIC_##M, do_##name##_imm, do_mm_##name##_imm},

static const struct sse_op ops[] = {
    BOTH_OPS(ROW_BOTH) XMM_OPS(ROW_XMM) BLENDV_OPS(ROW_XMM)
        SHIFT_OPS(ROW_BOTH){ZYDIS_MNEMONIC_PSLLDQ, do_pslldq, NULL},
    {ZYDIS_MNEMONIC_PSRLDQ, do_psrldq, NULL},
    {ZYDIS_MNEMONIC_PTEST, do_ptest, NULL},
};

static const struct sse_op imm_shifts[] = {SHIFT_OPS(ROW_IMM)};

insn_fn sse_int_pick(const struct insn *in)
{
    insn_fn f = in->opd[1].kind == OPD_IMM ? SSE_OP_FIND(imm_shifts, in) : NULL;

    return f != NULL ? f : SSE_OP_FIND(ops, in);
}
