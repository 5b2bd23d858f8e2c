/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_table.c - which mnemonics are x87 and state saving.
 *
 * Threading: none. Determinism: constant. */
#include "vmm/cpu/x87.h"

/* clang-format off */
#define CTL_MNEMONICS(X)                                                                         \
    X(FDECSTP) X(FDISI8087_NOP) X(FENI8087_NOP) X(FFREE) X(FFREEP) X(FINCSTP) X(FLDCW) X(FLDENV) \
    X(FNCLEX) X(FNINIT) X(FNOP) X(FNSAVE) X(FNSTCW) X(FNSTENV) X(FNSTSW) X(FRSTOR)               \
    X(FSETPM287_NOP) X(FWAIT)
/* clang-format on */

/* clang-format off */
#define OPS_MNEMONICS(X)                                                                         \
    X(FABS) X(FADD) X(FADDP) X(FBLD) X(FBSTP) X(FCHS) X(FCMOVB) X(FCMOVBE) X(FCMOVE) X(FCMOVNB)  \
    X(FCMOVNBE) X(FCMOVNE) X(FCMOVNU) X(FCMOVU) X(FCOM) X(FCOMI) X(FCOMIP) X(FCOMP) X(FCOMPP)    \
    X(FDIV) X(FDIVP) X(FDIVR) X(FDIVRP) X(FIADD) X(FICOM) X(FICOMP) X(FIDIV) X(FIDIVR) X(FILD)   \
    X(FIMUL) X(FIST) X(FISTP) X(FISTTP) X(FISUB) X(FISUBR) X(FLD) X(FLD1) X(FLDL2E) X(FLDL2T)    \
    X(FLDLG2) X(FLDLN2) X(FLDPI) X(FLDZ) X(FMUL) X(FMULP) X(FPREM) X(FPREM1) X(FRNDINT)          \
    X(FSCALE) X(FSQRT) X(FST) X(FSTP) X(FSUB) X(FSUBP) X(FSUBR) X(FSUBRP) X(FTST)     \
    X(FUCOM) X(FUCOMI) X(FUCOMIP) X(FUCOMP) X(FUCOMPP) X(FXAM) X(FXCH) X(FXTRACT)
/* clang-format on */

/* clang-format off */
#define TRANS_MNEMONICS(X)                                                                       \
    X(F2XM1) X(FCOS) X(FPATAN) X(FPTAN) X(FSIN) X(FSINCOS) X(FYL2X) X(FYL2XP1)
/* clang-format on */

/* clang-format off */
#define XSAVE_MNEMONICS(X)                                                                       \
    X(FXRSTOR) X(FXRSTOR64) X(FXSAVE) X(FXSAVE64) X(XRSTOR) X(XRSTOR64) X(XSAVE) X(XSAVE64)      \
    X(XSAVEOPT) X(XSAVEOPT64)
/* clang-format on */

#define ROW_CTL(M)   {ZYDIS_MNEMONIC_##M, NULL, x87_ctl_pick, 0},
#define ROW_OPS(M)   {ZYDIS_MNEMONIC_##M, NULL, x87_ops_pick, 0},
#define ROW_TRANS(M) {ZYDIS_MNEMONIC_##M, NULL, x87_trans_pick, 0},
#define ROW_XSAVE(M) {ZYDIS_MNEMONIC_##M, NULL, xsave_pick, 0},

const struct insn_bind insn_bind_x87[] = {
    CTL_MNEMONICS(ROW_CTL) OPS_MNEMONICS(ROW_OPS) TRANS_MNEMONICS(ROW_TRANS)
        XSAVE_MNEMONICS(ROW_XSAVE){ZYDIS_MNEMONIC_INVALID, NULL, NULL, 0},
};
