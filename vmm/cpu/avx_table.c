/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/avx_table.c - the mnemonics that the model pollux-v3 has beside those of pollux-v2, and
 * who serves them: AVX and AVX2 (twins of SSE instructions in the files of their families), FMA,
 * F16C, BMI1, BMI2, LZCNT, MOVBE. Threading: none. Determinism: constant. */
#include "vmm/cpu/avx.h"
#include "vmm/cpu/int.h"

/* clang-format off */
#define INT_MNEMONICS(X)                                                                         \
    X(VANDNPD) X(VANDNPS) X(VANDPD) X(VANDPS) X(VBLENDVPD) X(VBLENDVPS) X(VMOVDDUP)              \
    X(VMOVSHDUP) X(VMOVSLDUP) X(VORPD) X(VORPS) X(VPABSB) X(VPABSD) X(VPABSW) X(VPACKSSDW)       \
    X(VPACKSSWB) X(VPACKUSDW) X(VPACKUSWB) X(VPADDB) X(VPADDD) X(VPADDQ) X(VPADDSB) X(VPADDSW)   \
    X(VPADDUSB) X(VPADDUSW) X(VPADDW) X(VPAND) X(VPANDN) X(VPAVGB) X(VPAVGW) X(VPBLENDVB)        \
    X(VPCMPEQB) X(VPCMPEQD) X(VPCMPEQQ) X(VPCMPEQW) X(VPCMPGTB) X(VPCMPGTD) X(VPCMPGTQ)          \
    X(VPCMPGTW) X(VPHADDD) X(VPHADDSW) X(VPHADDW) X(VPHMINPOSUW) X(VPHSUBD) X(VPHSUBSW)          \
    X(VPHSUBW) X(VPMADDUBSW) X(VPMADDWD) X(VPMAXSB) X(VPMAXSD) X(VPMAXSW) X(VPMAXUB) X(VPMAXUD)  \
    X(VPMAXUW) X(VPMINSB) X(VPMINSD) X(VPMINSW) X(VPMINUB) X(VPMINUD) X(VPMINUW) X(VPMOVSXBD)    \
    X(VPMOVSXBQ) X(VPMOVSXBW) X(VPMOVSXDQ) X(VPMOVSXWD) X(VPMOVSXWQ) X(VPMOVZXBD) X(VPMOVZXBQ)   \
    X(VPMOVZXBW) X(VPMOVZXDQ) X(VPMOVZXWD) X(VPMOVZXWQ) X(VPMULDQ) X(VPMULHRSW) X(VPMULHUW)      \
    X(VPMULHW) X(VPMULLD) X(VPMULLW) X(VPMULUDQ) X(VPOR) X(VPSADBW) X(VPSHUFB) X(VPSIGNB)        \
    X(VPSIGND) X(VPSIGNW) X(VPSLLD) X(VPSLLDQ) X(VPSLLQ) X(VPSLLW) X(VPSRAD) X(VPSRAW)           \
    X(VPSRLD) X(VPSRLDQ) X(VPSRLQ) X(VPSRLW) X(VPSUBB) X(VPSUBD) X(VPSUBQ) X(VPSUBSB)            \
    X(VPSUBSW) X(VPSUBUSB) X(VPSUBUSW) X(VPSUBW) X(VPTEST) X(VPUNPCKHBW) X(VPUNPCKHDQ)           \
    X(VPUNPCKHQDQ) X(VPUNPCKHWD) X(VPUNPCKLBW) X(VPUNPCKLDQ) X(VPUNPCKLQDQ) X(VPUNPCKLWD)        \
    X(VPXOR) X(VUNPCKHPD) X(VUNPCKHPS) X(VUNPCKLPD) X(VUNPCKLPS) X(VXORPD) X(VXORPS) X(VTESTPD)  \
    X(VTESTPS)
/* clang-format on */

/* clang-format off */
#define SHUFFLE_MNEMONICS(X)                                                                     \
    X(VBLENDPD) X(VBLENDPS) X(VEXTRACTPS) X(VINSERTPS) X(VMPSADBW) X(VPALIGNR) X(VPBLENDW)       \
    X(VPEXTRB) X(VPEXTRD) X(VPEXTRQ) X(VPEXTRW) X(VPINSRB) X(VPINSRD) X(VPINSRQ) X(VPINSRW)      \
    X(VPSHUFD) X(VPSHUFHW) X(VPSHUFLW) X(VSHUFPD) X(VSHUFPS) X(VPBLENDD)
/* clang-format on */

/* clang-format off */
#define FP_MNEMONICS(X)                                                                          \
    X(VADDPD) X(VADDPS) X(VADDSD) X(VADDSS) X(VADDSUBPD) X(VADDSUBPS) X(VCMPPD) X(VCMPPS)        \
    X(VCMPSD) X(VCMPSS) X(VCOMISD) X(VCOMISS) X(VDIVPD) X(VDIVPS) X(VDIVSD) X(VDIVSS) X(VDPPD)   \
    X(VDPPS) X(VHADDPD) X(VHADDPS) X(VHSUBPD) X(VHSUBPS) X(VMAXPD) X(VMAXPS) X(VMAXSD)           \
    X(VMAXSS) X(VMINPD) X(VMINPS) X(VMINSD) X(VMINSS) X(VMULPD) X(VMULPS) X(VMULSD) X(VMULSS)    \
    X(VRCPPS) X(VRCPSS) X(VROUNDPD) X(VROUNDPS) X(VROUNDSD) X(VROUNDSS) X(VRSQRTPS) X(VRSQRTSS)  \
    X(VSQRTPD) X(VSQRTPS) X(VSQRTSD) X(VSQRTSS) X(VSUBPD) X(VSUBPS) X(VSUBSD) X(VSUBSS)          \
    X(VUCOMISD) X(VUCOMISS)
/* clang-format on */

/* clang-format off */
#define CVT_MNEMONICS(X)                                                                         \
    X(VCVTDQ2PD) X(VCVTDQ2PS) X(VCVTPD2DQ) X(VCVTPD2PS) X(VCVTPS2DQ) X(VCVTPS2PD) X(VCVTSD2SI)   \
    X(VCVTSD2SS) X(VCVTSI2SD) X(VCVTSI2SS) X(VCVTSS2SD) X(VCVTSS2SI) X(VCVTTPD2DQ)               \
    X(VCVTTPS2DQ) X(VCVTTSD2SI) X(VCVTTSS2SI)
/* clang-format on */

/* clang-format off */
#define STR_MNEMONICS(X)                                                                         \
    X(VPCMPESTRI) X(VPCMPESTRM) X(VPCMPISTRI) X(VPCMPISTRM)
/* clang-format on */

/* clang-format off */
#define SHARED_MOVE_MNEMONICS(X)                                                                 \
    X(VLDMXCSR) X(VMASKMOVDQU) X(VSTMXCSR)
/* clang-format on */

/* clang-format off */
#define MOVE_MNEMONICS(X)                                                                        \
    X(VMOVAPS) X(VMOVAPD) X(VMOVDQA) X(VMOVNTPS) X(VMOVNTPD) X(VMOVNTDQ) X(VMOVNTDQA)            \
    X(VMOVUPS) X(VMOVUPD) X(VMOVDQU) X(VLDDQU) X(VMOVSS) X(VMOVSD) X(VMOVD) X(VMOVQ) X(VMOVLPS)  \
    X(VMOVLPD) X(VMOVHLPS) X(VMOVHPS) X(VMOVHPD) X(VMOVLHPS) X(VMOVMSKPS) X(VMOVMSKPD)           \
    X(VPMOVMSKB) X(VINSERTF128) X(VINSERTI128) X(VEXTRACTF128) X(VEXTRACTI128) X(VZEROUPPER)     \
    X(VZEROALL) X(VBROADCASTSS) X(VBROADCASTSD) X(VBROADCASTF128) X(VBROADCASTI128)              \
    X(VPBROADCASTB) X(VPBROADCASTW) X(VPBROADCASTD) X(VPBROADCASTQ)
/* clang-format on */

/* clang-format off */
#define PERM_MNEMONICS(X)                                                                        \
    X(VPERMD) X(VPERMPS) X(VPERMQ) X(VPERMPD) X(VPERM2F128) X(VPERM2I128) X(VPERMILPS)           \
    X(VPERMILPD) X(VPSLLVD) X(VPSRLVD) X(VPSRAVD) X(VPSLLVQ) X(VPSRLVQ)
/* clang-format on */

/* clang-format off */
#define MEM_MNEMONICS(X)                                                                         \
    X(VMASKMOVPS) X(VMASKMOVPD) X(VPMASKMOVD) X(VPMASKMOVQ) X(VGATHERDPS) X(VGATHERDPD)          \
    X(VGATHERQPS) X(VGATHERQPD) X(VPGATHERDD) X(VPGATHERDQ) X(VPGATHERQD) X(VPGATHERQQ)
/* clang-format on */

/* clang-format off */
#define FMA_MNEMONICS(X)                                                                         \
    X(VFMADD132PS) X(VFMADD213PS) X(VFMADD231PS) X(VFMADD132PD) X(VFMADD213PD) X(VFMADD231PD)    \
    X(VFMADD132SS) X(VFMADD213SS) X(VFMADD231SS) X(VFMADD132SD) X(VFMADD213SD) X(VFMADD231SD)    \
    X(VFMSUB132PS) X(VFMSUB213PS) X(VFMSUB231PS) X(VFMSUB132PD) X(VFMSUB213PD) X(VFMSUB231PD)    \
    X(VFMSUB132SS) X(VFMSUB213SS) X(VFMSUB231SS) X(VFMSUB132SD) X(VFMSUB213SD) X(VFMSUB231SD)    \
    X(VFNMADD132PS) X(VFNMADD213PS) X(VFNMADD231PS) X(VFNMADD132PD) X(VFNMADD213PD)              \
    X(VFNMADD231PD) X(VFNMADD132SS) X(VFNMADD213SS) X(VFNMADD231SS) X(VFNMADD132SD)              \
    X(VFNMADD213SD) X(VFNMADD231SD) X(VFNMSUB132PS) X(VFNMSUB213PS) X(VFNMSUB231PS)              \
    X(VFNMSUB132PD) X(VFNMSUB213PD) X(VFNMSUB231PD) X(VFNMSUB132SS) X(VFNMSUB213SS)              \
    X(VFNMSUB231SS) X(VFNMSUB132SD) X(VFNMSUB213SD) X(VFNMSUB231SD) X(VFMADDSUB132PS)            \
    X(VFMADDSUB213PS) X(VFMADDSUB231PS) X(VFMADDSUB132PD) X(VFMADDSUB213PD) X(VFMADDSUB231PD)    \
    X(VFMSUBADD132PS) X(VFMSUBADD213PS) X(VFMSUBADD231PS) X(VFMSUBADD132PD) X(VFMSUBADD213PD)    \
    X(VFMSUBADD231PD) X(VCVTPH2PS) X(VCVTPS2PH)
/* clang-format on */

#define ROW_INT(M)         {ZYDIS_MNEMONIC_##M, NULL, sse_int_pick, 0},
#define ROW_SHUFFLE(M)     {ZYDIS_MNEMONIC_##M, NULL, sse_shuffle_pick, 0},
#define ROW_FP(M)          {ZYDIS_MNEMONIC_##M, NULL, sse_fp_pick, 0},
#define ROW_CVT(M)         {ZYDIS_MNEMONIC_##M, NULL, sse_cvt_pick, 0},
#define ROW_STR(M)         {ZYDIS_MNEMONIC_##M, NULL, sse_str_pick, 0},
#define ROW_SHARED_MOVE(M) {ZYDIS_MNEMONIC_##M, NULL, sse_move_pick, 0},
#define ROW_MOVE(M)        {ZYDIS_MNEMONIC_##M, NULL, avx_move_pick, 0},
#define ROW_PERM(M)        {ZYDIS_MNEMONIC_##M, NULL, avx_perm_pick, 0},
#define ROW_MEM(M)         {ZYDIS_MNEMONIC_##M, NULL, avx_mem_pick, 0},
#define ROW_FMA(M)         {ZYDIS_MNEMONIC_##M, NULL, fma_pick, 0},
#define FN(M, fn)          {ZYDIS_MNEMONIC_##M, fn, NULL, 0},

/* clang-format off */
const struct insn_bind insn_bind_v3[] = {
    INT_MNEMONICS(ROW_INT)
    SHUFFLE_MNEMONICS(ROW_SHUFFLE)
    FP_MNEMONICS(ROW_FP)
    CVT_MNEMONICS(ROW_CVT)
    STR_MNEMONICS(ROW_STR)
    SHARED_MOVE_MNEMONICS(ROW_SHARED_MOVE)
    MOVE_MNEMONICS(ROW_MOVE)
    PERM_MNEMONICS(ROW_PERM)
    MEM_MNEMONICS(ROW_MEM)
    FMA_MNEMONICS(ROW_FMA)
    FN(ANDN, bmi_andn) FN(BEXTR, bmi_bextr) FN(BLSI, bmi_blsi) FN(BLSMSK, bmi_blsmsk)
    FN(BLSR, bmi_blsr) FN(BZHI, bmi_bzhi) FN(MULX, bmi_mulx) FN(PDEP, bmi_pdep) FN(PEXT, bmi_pext)
    FN(RORX, bmi_rorx) FN(SARX, bmi_sarx) FN(SHLX, bmi_shlx) FN(SHRX, bmi_shrx)
    FN(LZCNT, bmi_lzcnt) FN(TZCNT, bmi_tzcnt) FN(MOVBE, bmi_movbe)
    {ZYDIS_MNEMONIC_INVALID, NULL, NULL, 0},
};
/* clang-format on */
