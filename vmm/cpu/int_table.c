/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_table.c - the integer mnemonics of the model and who serves them. */
#include "vmm/cpu/int.h"

/* clang-format off */
#define FN(name, fn) {ZYDIS_MNEMONIC_##name, fn, NULL, 0}
#define PICK(name, pick) {ZYDIS_MNEMONIC_##name, NULL, pick, 0}
#define FLOW(name, pick) {ZYDIS_MNEMONIC_##name, NULL, pick, INSN_BRANCH}
#define ENDS(name, fn) {ZYDIS_MNEMONIC_##name, fn, NULL, INSN_ENDS_BLOCK}

const struct insn_bind insn_bind_int[] = {
    PICK(ADD, int_pick_alu), PICK(OR, int_pick_alu), PICK(ADC, int_pick_alu),
    PICK(SBB, int_pick_alu), PICK(AND, int_pick_alu), PICK(SUB, int_pick_alu),
    PICK(XOR, int_pick_alu), PICK(CMP, int_pick_alu), PICK(TEST, int_pick_alu),
    PICK(INC, int_pick_unary), PICK(DEC, int_pick_unary), PICK(NEG, int_pick_unary),
    PICK(NOT, int_pick_unary),

    PICK(MOV, int_pick_mov), PICK(MOVZX, int_pick_extend), PICK(MOVSX, int_pick_extend),
    PICK(MOVSXD, int_pick_extend), PICK(LEA, int_pick_lea),
    PICK(CMOVO, int_pick_cmov), PICK(CMOVNO, int_pick_cmov), PICK(CMOVB, int_pick_cmov),
    PICK(CMOVNB, int_pick_cmov), PICK(CMOVZ, int_pick_cmov), PICK(CMOVNZ, int_pick_cmov),
    PICK(CMOVBE, int_pick_cmov), PICK(CMOVNBE, int_pick_cmov), PICK(CMOVS, int_pick_cmov),
    PICK(CMOVNS, int_pick_cmov), PICK(CMOVP, int_pick_cmov), PICK(CMOVNP, int_pick_cmov),
    PICK(CMOVL, int_pick_cmov), PICK(CMOVNL, int_pick_cmov), PICK(CMOVLE, int_pick_cmov),
    PICK(CMOVNLE, int_pick_cmov),
    PICK(SETO, int_pick_setcc), PICK(SETNO, int_pick_setcc), PICK(SETB, int_pick_setcc),
    PICK(SETNB, int_pick_setcc), PICK(SETZ, int_pick_setcc), PICK(SETNZ, int_pick_setcc),
    PICK(SETBE, int_pick_setcc), PICK(SETNBE, int_pick_setcc), PICK(SETS, int_pick_setcc),
    PICK(SETNS, int_pick_setcc), PICK(SETP, int_pick_setcc), PICK(SETNP, int_pick_setcc),
    PICK(SETL, int_pick_setcc), PICK(SETNL, int_pick_setcc), PICK(SETLE, int_pick_setcc),
    PICK(SETNLE, int_pick_setcc),
    FN(XCHG, int_xchg), FN(XADD, int_xadd), FN(CMPXCHG, int_cmpxchg),
    FN(CMPXCHG8B, int_cmpxchg8b), FN(CMPXCHG16B, int_cmpxchg16b), FN(BSWAP, int_bswap),
    FN(XLAT, int_xlat),
    PICK(LAHF, int_pick_flags), PICK(SAHF, int_pick_flags), PICK(CLC, int_pick_flags),
    PICK(STC, int_pick_flags), PICK(CMC, int_pick_flags), PICK(CLD, int_pick_flags),
    PICK(STD, int_pick_flags),

    PICK(PUSH, int_pick_push), {ZYDIS_MNEMONIC_POP, NULL, int_pick_pop, 0},
    FN(PUSHA, int_pusha), FN(PUSHAD, int_pusha), FN(POPA, int_popa), FN(POPAD, int_popa),
    FN(ENTER, int_enter), FN(LEAVE, int_leave),

    PICK(SHL, int_pick_shift), PICK(SHR, int_pick_shift), PICK(SAR, int_pick_shift),
    PICK(ROL, int_pick_shift), PICK(ROR, int_pick_shift), PICK(RCL, int_pick_shift),
    PICK(RCR, int_pick_shift), PICK(SHLD, int_pick_shift), PICK(SHRD, int_pick_shift),

    PICK(BT, int_pick_bt), PICK(BTS, int_pick_bt), PICK(BTR, int_pick_bt),
    PICK(BTC, int_pick_bt), FN(BSF, int_bsf), FN(BSR, int_bsr), FN(POPCNT, int_popcnt),
    FN(CRC32, int_crc32),

    FN(MUL, int_mul), PICK(IMUL, int_pick_imul), FN(DIV, int_div), FN(IDIV, int_idiv),
    PICK(CBW, int_pick_convert), PICK(CWDE, int_pick_convert), PICK(CDQE, int_pick_convert),
    PICK(CWD, int_pick_convert), PICK(CDQ, int_pick_convert), PICK(CQO, int_pick_convert),
    PICK(DAA, int_pick_bcd), PICK(DAS, int_pick_bcd), PICK(AAA, int_pick_bcd),
    PICK(AAS, int_pick_bcd), PICK(AAM, int_pick_bcd), PICK(AAD, int_pick_bcd),

    FLOW(JO, int_pick_jcc), FLOW(JNO, int_pick_jcc), FLOW(JB, int_pick_jcc),
    FLOW(JNB, int_pick_jcc), FLOW(JZ, int_pick_jcc), FLOW(JNZ, int_pick_jcc),
    FLOW(JBE, int_pick_jcc), FLOW(JNBE, int_pick_jcc), FLOW(JS, int_pick_jcc),
    FLOW(JNS, int_pick_jcc), FLOW(JP, int_pick_jcc), FLOW(JNP, int_pick_jcc),
    FLOW(JL, int_pick_jcc), FLOW(JNL, int_pick_jcc), FLOW(JLE, int_pick_jcc),
    FLOW(JNLE, int_pick_jcc),
    FLOW(JMP, int_pick_jmp), FLOW(CALL, int_pick_call), FLOW(RET, int_pick_ret),
    FLOW(LOOP, int_pick_loop), FLOW(LOOPE, int_pick_loop), FLOW(LOOPNE, int_pick_loop),
    FLOW(JCXZ, int_pick_loop), FLOW(JECXZ, int_pick_loop), FLOW(JRCXZ, int_pick_loop),
    FN(BOUND, int_bound), FN(NOP, int_nop), FN(PREFETCH, int_nop), FN(PREFETCHW, int_nop),
    FN(PREFETCHNTA, int_nop), FN(PREFETCHT0, int_nop), FN(PREFETCHT1, int_nop),
    FN(PREFETCHT2, int_nop), FN(PREFETCHWT1, int_nop), FN(PAUSE, int_pause),
    ENDS(UD0, int_ud), ENDS(UD1, int_ud), ENDS(UD2, int_ud),

    PICK(MOVSB, int_pick_string), PICK(MOVSW, int_pick_string), PICK(MOVSD, int_pick_string),
    PICK(MOVSQ, int_pick_string), PICK(STOSB, int_pick_string), PICK(STOSW, int_pick_string),
    PICK(STOSD, int_pick_string), PICK(STOSQ, int_pick_string), PICK(LODSB, int_pick_string),
    PICK(LODSW, int_pick_string), PICK(LODSD, int_pick_string), PICK(LODSQ, int_pick_string),
    PICK(SCASB, int_pick_string), PICK(SCASW, int_pick_string), PICK(SCASD, int_pick_string),
    PICK(SCASQ, int_pick_string), PICK(CMPSB, int_pick_string), PICK(CMPSW, int_pick_string),
    PICK(CMPSD, int_pick_string), PICK(CMPSQ, int_pick_string),

    {ZYDIS_MNEMONIC_INVALID, NULL, NULL, 0},
};
/* clang-format on */
