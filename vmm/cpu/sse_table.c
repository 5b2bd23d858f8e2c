/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_table.c - which mnemonics are MMX and SSE to SSE4.2, and what all families share.
 *
 * VEX forms decode to other mnemonics (avx_table.c). No model has AES, PCLMULQDQ, SHA or SSE4A.
 * Threading: none. Determinism: constant. */
#include "vmm/cpu/sse.h"

void sse_unavailable(struct vcpu *v)
{
    if ((v->c.cr0 & CR0_EM) != 0 || (v->c.cr4 & CR4_OSFXSR) == 0) {
        cpu_ud(v);
    }
    cpu_raise(v, VEC_NM);
}

void avx_unavailable(struct vcpu *v)
{
    if ((v->c.cr0 & CR0_PE) == 0 || (v->c.rflags & FLAG_VM) != 0 || (v->c.cr4 & CR4_OSXSAVE) == 0 ||
        (~v->c.xcr0 & (XCR0_SSE | XCR0_AVX)) != 0) {
        cpu_ud(v);
    }
    cpu_raise(v, VEC_NM);
}

uint64_t ea_aligned(struct vcpu *v, const struct insn *in, unsigned align)
{
    uint64_t off = mem_ea(v, in);
    /* In 64-bit mode only FS and GS have a base. */
    uint64_t base = in->seg >= SEG_FS || !cpu_is64(&v->c) ? v->c.seg[in->seg].base : 0;

    if (((base + off) & (align - 1)) != 0) {
        cpu_gp0(v);
    }
    return off;
}

insn_fn sse_op_find(const struct sse_op *ops, size_t n, const struct insn *in)
{
    bool mmx = in->opd[0].kind == OPD_MM || in->opd[1].kind == OPD_MM;

    for (size_t i = 0; i < n; i++) {
        if (ops[i].mnemonic == in->mnemonic) {
            return mmx ? ops[i].mmx : ops[i].xmm;
        }
    }
    return NULL;
}

/* clang-format off */
#define INT_MNEMONICS(X)                                                                         \
    X(ANDNPD) X(ANDNPS) X(ANDPD) X(ANDPS) X(BLENDVPD) X(BLENDVPS) X(MOVDDUP) X(MOVSHDUP)         \
    X(MOVSLDUP) X(ORPD) X(ORPS) X(PABSB) X(PABSD) X(PABSW) X(PACKSSDW) X(PACKSSWB) X(PACKUSDW)   \
    X(PACKUSWB) X(PADDB) X(PADDD) X(PADDQ) X(PADDSB) X(PADDSW) X(PADDUSB) X(PADDUSW) X(PADDW)    \
    X(PAND) X(PANDN) X(PAVGB) X(PAVGW) X(PBLENDVB) X(PCMPEQB) X(PCMPEQD) X(PCMPEQQ) X(PCMPEQW)   \
    X(PCMPGTB) X(PCMPGTD) X(PCMPGTQ) X(PCMPGTW) X(PHADDD) X(PHADDSW) X(PHADDW) X(PHMINPOSUW)     \
    X(PHSUBD) X(PHSUBSW) X(PHSUBW) X(PMADDUBSW) X(PMADDWD) X(PMAXSB) X(PMAXSD) X(PMAXSW)         \
    X(PMAXUB) X(PMAXUD) X(PMAXUW) X(PMINSB) X(PMINSD) X(PMINSW) X(PMINUB) X(PMINUD) X(PMINUW)    \
    X(PMOVSXBD) X(PMOVSXBQ) X(PMOVSXBW) X(PMOVSXDQ) X(PMOVSXWD) X(PMOVSXWQ) X(PMOVZXBD)          \
    X(PMOVZXBQ) X(PMOVZXBW) X(PMOVZXDQ) X(PMOVZXWD) X(PMOVZXWQ) X(PMULDQ) X(PMULHRSW) X(PMULHUW) \
    X(PMULHW) X(PMULLD) X(PMULLW) X(PMULUDQ) X(POR) X(PSADBW) X(PSHUFB) X(PSIGNB) X(PSIGND)      \
    X(PSIGNW) X(PSLLD) X(PSLLDQ) X(PSLLQ) X(PSLLW) X(PSRAD) X(PSRAW) X(PSRLD) X(PSRLDQ) X(PSRLQ) \
    X(PSRLW) X(PSUBB) X(PSUBD) X(PSUBQ) X(PSUBSB) X(PSUBSW) X(PSUBUSB) X(PSUBUSW) X(PSUBW)       \
    X(PTEST) X(PUNPCKHBW) X(PUNPCKHDQ) X(PUNPCKHQDQ) X(PUNPCKHWD) X(PUNPCKLBW) X(PUNPCKLDQ)      \
    X(PUNPCKLQDQ) X(PUNPCKLWD) X(PXOR) X(UNPCKHPD) X(UNPCKHPS) X(UNPCKLPD) X(UNPCKLPS) X(XORPD)  \
    X(XORPS)
/* clang-format on */

/* clang-format off */
#define MOVE_MNEMONICS(X)                                                                        \
    X(EMMS) X(LDDQU) X(LDMXCSR) X(LFENCE) X(MASKMOVDQU) X(MASKMOVQ) X(MFENCE) X(MOVAPD)          \
    X(MOVAPS) X(MOVD) X(MOVDQ2Q) X(MOVDQA) X(MOVDQU) X(MOVHLPS) X(MOVHPD) X(MOVHPS) X(MOVLHPS)   \
    X(MOVLPD) X(MOVLPS) X(MOVMSKPD) X(MOVMSKPS) X(MOVNTDQ) X(MOVNTDQA) X(MOVNTI) X(MOVNTPD)      \
    X(MOVNTPS) X(MOVNTQ) X(MOVQ) X(MOVQ2DQ) X(MOVSD) X(MOVSS) X(MOVUPD) X(MOVUPS) X(PMOVMSKB)    \
    X(SFENCE) X(STMXCSR)
/* clang-format on */

/* clang-format off */
#define SHUFFLE_MNEMONICS(X)                                                                     \
    X(BLENDPD) X(BLENDPS) X(EXTRACTPS) X(INSERTPS) X(MPSADBW) X(PALIGNR) X(PBLENDW) X(PEXTRB)    \
    X(PEXTRD) X(PEXTRQ) X(PEXTRW) X(PINSRB) X(PINSRD) X(PINSRQ) X(PINSRW) X(PSHUFD) X(PSHUFHW)   \
    X(PSHUFLW) X(PSHUFW) X(SHUFPD) X(SHUFPS)
/* clang-format on */

/* clang-format off */
#define FP_MNEMONICS(X)                                                                          \
    X(ADDPD) X(ADDPS) X(ADDSD) X(ADDSS) X(ADDSUBPD) X(ADDSUBPS) X(CMPPD) X(CMPPS) X(CMPSD)       \
    X(CMPSS) X(COMISD) X(COMISS) X(DIVPD) X(DIVPS) X(DIVSD) X(DIVSS) X(DPPD) X(DPPS) X(HADDPD)   \
    X(HADDPS) X(HSUBPD) X(HSUBPS) X(MAXPD) X(MAXPS) X(MAXSD) X(MAXSS) X(MINPD) X(MINPS) X(MINSD) \
    X(MINSS) X(MULPD) X(MULPS) X(MULSD) X(MULSS) X(RCPPS) X(RCPSS) X(ROUNDPD) X(ROUNDPS)         \
    X(ROUNDSD) X(ROUNDSS) X(RSQRTPS) X(RSQRTSS) X(SQRTPD) X(SQRTPS) X(SQRTSD) X(SQRTSS) X(SUBPD) \
    X(SUBPS) X(SUBSD) X(SUBSS) X(UCOMISD) X(UCOMISS)
/* clang-format on */

/* clang-format off */
#define CVT_MNEMONICS(X)                                                                         \
    X(CVTDQ2PD) X(CVTDQ2PS) X(CVTPD2DQ) X(CVTPD2PI) X(CVTPD2PS) X(CVTPI2PD) X(CVTPI2PS)          \
    X(CVTPS2DQ) X(CVTPS2PD) X(CVTPS2PI) X(CVTSD2SI) X(CVTSD2SS) X(CVTSI2SD) X(CVTSI2SS)          \
    X(CVTSS2SD) X(CVTSS2SI) X(CVTTPD2DQ) X(CVTTPD2PI) X(CVTTPS2DQ) X(CVTTPS2PI) X(CVTTSD2SI)     \
    X(CVTTSS2SI)
/* clang-format on */

/* clang-format off */
#define STR_MNEMONICS(X)                                                                         \
    X(PCMPESTRI) X(PCMPESTRM) X(PCMPISTRI) X(PCMPISTRM)
/* clang-format on */

#define ROW_INT(M)     {ZYDIS_MNEMONIC_##M, NULL, sse_int_pick, 0},
#define ROW_MOVE(M)    {ZYDIS_MNEMONIC_##M, NULL, sse_move_pick, 0},
#define ROW_SHUFFLE(M) {ZYDIS_MNEMONIC_##M, NULL, sse_shuffle_pick, 0},
#define ROW_FP(M)      {ZYDIS_MNEMONIC_##M, NULL, sse_fp_pick, 0},
#define ROW_CVT(M)     {ZYDIS_MNEMONIC_##M, NULL, sse_cvt_pick, 0},
#define ROW_STR(M)     {ZYDIS_MNEMONIC_##M, NULL, sse_str_pick, 0},

const struct insn_bind insn_bind_sse[] = {
    INT_MNEMONICS(ROW_INT) MOVE_MNEMONICS(ROW_MOVE) SHUFFLE_MNEMONICS(ROW_SHUFFLE)
        FP_MNEMONICS(ROW_FP) CVT_MNEMONICS(ROW_CVT)
            STR_MNEMONICS(ROW_STR){ZYDIS_MNEMONIC_INVALID, NULL, NULL, 0},
};
