/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys.h - semantics of segment, system and far control transfer forms whose mnemonics are
 * shared with the integer family (MOV, PUSH, POP, JMP, CALL, RET).
 *
 * The integer tables' pick functions return these for the forms named here; every mnemonic that
 * belongs to the system family alone (IRET, INT n, LGDT, IN, ...) stands in insn_bind_sys. All
 * far transfers end a block. */
#ifndef VMM_CPU_SYS_H
#define VMM_CPU_SYS_H

#include "vmm/cpu/vcpu.h"

/* MOV with an operand of kind OPD_SEG, OPD_CR or OPD_DR; they end a block. */
insn_fn sys_pick_mov(const struct insn *in);
/* PUSH and POP with opd[0] of kind OPD_SEG; POP ends a block. */
void sys_push_seg(struct vcpu *v, const struct insn *in);
void sys_pop_seg(struct vcpu *v, const struct insn *in);

/* Far JMP and CALL: direct (in->far_sel:imm, no memory operand) and indirect (opd[0] is memory:
 * osz bytes of offset, then the selector). Far RET: opd[0], if present, is the immediate. */
void far_jmp(struct vcpu *v, const struct insn *in);
void far_call(struct vcpu *v, const struct insn *in);
void far_ret(struct vcpu *v, const struct insn *in);

#endif
