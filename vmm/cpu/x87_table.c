/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_table.c - which mnemonics are x87 and state saving.
 *
 * Threading: none. Determinism: constant. */
#include "vmm/cpu/x87.h"

#define CTL_MNEMONICS(X)                                                                         \
    X(FDECSTP) X(FDISI8087_NOP) X(FENI8087_NOP) X(FFREE) X(FFREEP) X(FINCSTP) X(FLDCW) X(FLDENV) \
    X(FNCLEX) X(FNINIT) X(FNOP) X(FNSAVE) X(FNSTCW) X(FNSTENV) X(FNSTSW) X(FRSTOR)               \
    X(FSETPM287_NOP) X(FWAIT)

#define XSAVE_MNEMONICS(X)                                                                       \
    X(FXRSTOR) X(FXRSTOR64) X(FXSAVE) X(FXSAVE64) X(XRSTOR) X(XRSTOR64) X(XSAVE) X(XSAVE64)      \
    X(XSAVEOPT) X(XSAVEOPT64)

#define ROW_CTL(M) {ZYDIS_MNEMONIC_##M, NULL, x87_ctl_pick, 0},
#define ROW_XSAVE(M) {ZYDIS_MNEMONIC_##M, NULL, xsave_pick, 0},

const struct insn_bind insn_bind_x87[] = {
    CTL_MNEMONICS(ROW_CTL)
    XSAVE_MNEMONICS(ROW_XSAVE)
    {ZYDIS_MNEMONIC_INVALID, NULL, NULL, 0},
};
