/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_int.c - packed integer arithmetic, logic and shifts on XMM and MMX registers, and
 * the bitwise and unpacking instructions on packed floats, which are integers too.
 *
 * Each is the host's own instruction on the guest's operands: exact, without flags, the same on
 * every processor that has it. The MMX forms leave the host's x87 unit empty (EMMS).
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

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
    X(MOVDDUP, movddup) X(MOVSHDUP, movshdup) X(MOVSLDUP, movsldup)
/* clang-format on */

/* Elements become wider by this factor. */
/* clang-format off */
#define WIDEN_OPS(X)                                                                             \
    X(PMOVSXBW, pmovsxbw, 2) X(PMOVSXBD, pmovsxbd, 4) X(PMOVSXBQ, pmovsxbq, 8)                   \
    X(PMOVSXWD, pmovsxwd, 2) X(PMOVSXWQ, pmovsxwq, 4) X(PMOVSXDQ, pmovsxdq, 2)                   \
    X(PMOVZXBW, pmovzxbw, 2) X(PMOVZXBD, pmovzxbd, 4) X(PMOVZXBQ, pmovzxbq, 8)                   \
    X(PMOVZXWD, pmovzxwd, 2) X(PMOVZXWQ, pmovzxwq, 4) X(PMOVZXDQ, pmovzxdq, 2)
/* clang-format on */

/* The third operand of these is XMM0; of the VEX forms, the fourth is the mask. */
#define BLENDV_OPS(X) X(PBLENDVB, pblendvb) X(BLENDVPS, blendvps) X(BLENDVPD, blendvpd)

/* The count is the second operand: register, memory, or an immediate. */
/* clang-format off */
#define SHIFT_OPS(X)                                                                             \
    X(PSLLW, psllw) X(PSLLD, pslld) X(PSLLQ, psllq) X(PSRLW, psrlw) X(PSRLD, psrld)              \
    X(PSRLQ, psrlq) X(PSRAW, psraw) X(PSRAD, psrad)
/* clang-format on */

#define DEFINE_XMM(M, name, ...)                                 \
    static void xmm_##name(union vec *d, const union vec *s)     \
    {                                                            \
        __asm__(#name " %1, %0" : "+x"(d->x) : "x"(s->x));       \
    }                                                            \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        run_xmm(v, in, xmm_##name);                              \
    }

#define DEFINE_VEX(M, name)                                       \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        avx_run(v, in, xmm_##name);                               \
    }

/* The upper lane of the result comes from the next elements of the source. */
#define DEFINE_VEX_WIDEN(M, name, factor)                              \
    static void do_v##name(struct vcpu *v, const struct insn *in)      \
    {                                                                  \
        struct ymm r = {0}, s;                                         \
        union vec next = {0};                                          \
                                                                       \
        avx_check(v);                                                  \
        avx_src(v, in, 1, &s);                                         \
        xmm_##name(&r.lane[0], &s.lane[0]);                            \
        if (in->opd[0].size == 32) {                                   \
            memcpy(&next, &s.lane[0].b[16 / (factor)], 16 / (factor)); \
            xmm_##name(&r.lane[1], &next);                             \
        }                                                              \
        avx_put(v, in, &r);                                            \
    }

/* One count for both lanes: an immediate, or the low quadword of XMM or memory. */
#define DEFINE_VEX_SHIFT(M, name)                                 \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        struct ymm r, count = {.lane[0].q = {in->imm & 0xff, 0}}; \
                                                                  \
        avx_check(v);                                             \
        if (in->opd[2].kind != OPD_IMM) {                         \
            avx_src(v, in, 2, &count);                            \
        }                                                         \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);          \
        xmm_##name(&r.lane[0], &count.lane[0]);                   \
        xmm_##name(&r.lane[1], &count.lane[0]);                   \
        avx_put(v, in, &r);                                       \
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

#define DEFINE_BLENDV(M, name)                                                         \
    static void do_##name(struct vcpu *v, const struct insn *in)                       \
    {                                                                                  \
        union vec tmp, *d = sse_xmm(v, in->opd[0].reg);                                \
        const union vec *s;                                                            \
                                                                                       \
        sse_check(v);                                                                  \
        s = sse_src(v, in, 1, &tmp, true);                                             \
        __asm__(#name " %2, %1, %0" : "+x"(d->x) : "x"(s->x), "Yz"(sse_xmm(v, 0)->x)); \
    }

#define DEFINE_VEX_BLENDV(M, name)                                \
    static void do_v##name(struct vcpu *v, const struct insn *in) \
    {                                                             \
        struct ymm r, s, m;                                       \
                                                                  \
        avx_check(v);                                             \
        avx_src(v, in, 2, &s);                                    \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);          \
        avx_get(v, in->opd[3].reg, in->opd[0].size, &m);          \
        for (unsigned i = 0; i < 2; i++) {                        \
            __asm__(#name " %2, %1, %0"                           \
                    : "+x"(r.lane[i].x)                           \
                    : "x"(s.lane[i].x), "Yz"(m.lane[i].x));       \
        }                                                         \
        avx_put(v, in, &r);                                       \
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
WIDEN_OPS(DEFINE_XMM)
BLENDV_OPS(DEFINE_BLENDV)
SHIFT_OPS(DEFINE_XMM)
SHIFT_OPS(DEFINE_MMX)
SHIFT_OPS(DEFINE_SHIFT_IMM)
BOTH_OPS(DEFINE_VEX)
XMM_OPS(DEFINE_VEX)
WIDEN_OPS(DEFINE_VEX_WIDEN)
BLENDV_OPS(DEFINE_VEX_BLENDV)
SHIFT_OPS(DEFINE_VEX_SHIFT)

/* Whole lanes by bytes. */
static void lane_pslldq(union vec *d, unsigned n)
{
    union vec r = {0};

    for (unsigned i = n; i < 16; i++) {
        r.b[i] = d->b[i - n];
    }
    *d = r;
}

static void lane_psrldq(union vec *d, unsigned n)
{
    union vec r = {0};

    for (unsigned i = n; i < 16; i++) {
        r.b[i - n] = d->b[i];
    }
    *d = r;
}

#define DEFINE_SHIFT_BYTES(name)                                             \
    static void do_##name(struct vcpu *v, const struct insn *in)             \
    {                                                                        \
        sse_check(v);                                                        \
        lane_##name(sse_xmm(v, in->opd[0].reg), (unsigned)(in->imm & 0xff)); \
    }                                                                        \
    static void do_v##name(struct vcpu *v, const struct insn *in)            \
    {                                                                        \
        struct ymm r;                                                        \
                                                                             \
        avx_check(v);                                                        \
        avx_get(v, in->opd[1].reg, in->opd[0].size, &r);                     \
        lane_##name(&r.lane[0], (unsigned)(in->imm & 0xff));                 \
        lane_##name(&r.lane[1], (unsigned)(in->imm & 0xff));                 \
        avx_put(v, in, &r);                                                  \
    }

DEFINE_SHIFT_BYTES(pslldq)
DEFINE_SHIFT_BYTES(psrldq)

/* ZF: no bit of the source is in the destination; CF: all are. The others are cleared. */
static void set_test(struct vcpu *v, uint64_t both, uint64_t beyond)
{
    v->c.rflags =
        (v->c.rflags & ~FLAGS_ARITH) | (both == 0 ? FLAG_ZF : 0) | (beyond == 0 ? FLAG_CF : 0);
}

static void do_ptest(struct vcpu *v, const struct insn *in)
{
    union vec tmp;
    const union vec *d = sse_xmm(v, in->opd[0].reg), *s;

    sse_check(v);
    s = sse_src(v, in, 1, &tmp, true);
    set_test(v, (s->q[0] & d->q[0]) | (s->q[1] & d->q[1]),
             (s->q[0] & ~d->q[0]) | (s->q[1] & ~d->q[1]));
}

/* Of the bits in @mask of each quadword. */
static void vex_test(struct vcpu *v, const struct insn *in, uint64_t mask)
{
    struct ymm d, s;
    uint64_t both = 0, beyond = 0;

    avx_check(v);
    avx_src(v, in, 1, &s);
    avx_get(v, in->opd[0].reg, in->opd[0].size, &d);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 2; k++) {
            both |= s.lane[i].q[k] & d.lane[i].q[k] & mask;
            beyond |= s.lane[i].q[k] & ~d.lane[i].q[k] & mask;
        }
    }
    set_test(v, both, beyond);
}

static void do_vptest(struct vcpu *v, const struct insn *in)
{
    vex_test(v, in, UINT64_MAX);
}

static void do_vtestps(struct vcpu *v, const struct insn *in)
{
    vex_test(v, in, UINT64_C(0x8000000080000000));
}

static void do_vtestpd(struct vcpu *v, const struct insn *in)
{
    vex_test(v, in, UINT64_C(0x8000000000000000));
}

#define ROW_BOTH(M, name) \
    {ZYDIS_MNEMONIC_##M, do_##name, do_mm_##name}, {ZYDIS_MNEMONIC_V##M, do_v##name, NULL},
#define ROW_IMM(M, name) {ZYDIS_MNEMONIC_##M, do_##name##_imm, do_mm_##name##_imm},

static const struct sse_op ops[] = {
    BOTH_OPS(ROW_BOTH) XMM_OPS(AVX_ROW) WIDEN_OPS(AVX_ROW) BLENDV_OPS(AVX_ROW) SHIFT_OPS(ROW_BOTH)
        AVX_ROW(PSLLDQ, pslldq) AVX_ROW(PSRLDQ, psrldq)
            AVX_ROW(PTEST, ptest){ZYDIS_MNEMONIC_VTESTPS, do_vtestps, NULL},
    {ZYDIS_MNEMONIC_VTESTPD, do_vtestpd, NULL},
};

static const struct sse_op imm_shifts[] = {SHIFT_OPS(ROW_IMM)};

insn_fn sse_int_pick(const struct insn *in)
{
    insn_fn f = in->opd[1].kind == OPD_IMM ? SSE_OP_FIND(imm_shifts, in) : NULL;

    return f != NULL ? f : SSE_OP_FIND(ops, in);
}
