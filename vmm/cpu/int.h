/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int.h - what the files of the integer family share: typed register access, host flags,
 * destinations in registers or memory, and their pick functions for the table in int_table.c. What
 * each instruction does is what its page of the SDM says (Vol. 2); see undefined.h for the rest. */
#ifndef VMM_CPU_INT_H
#define VMM_CPU_INT_H

#include "base/check.h"
#include "vmm/cpu/operand.h"

/* Typed general registers. A byte register may be AH CH DH BH. */
static inline uint8_t *reg8(struct vcpu *v, const struct opd *o)
{
    return (uint8_t *)&v->c.gpr[o->reg] + (o->kind == OPD_REG_HIGH ? 1 : 0);
}

static inline uint8_t get_1(struct vcpu *v, const struct opd *o)
{
    return *reg8(v, o);
}

static inline uint16_t get_2(struct vcpu *v, const struct opd *o)
{
    return (uint16_t)v->c.gpr[o->reg];
}

static inline uint32_t get_4(struct vcpu *v, const struct opd *o)
{
    return (uint32_t)v->c.gpr[o->reg];
}

static inline uint64_t get_8(struct vcpu *v, const struct opd *o)
{
    return v->c.gpr[o->reg];
}

static inline void put_1(struct vcpu *v, const struct opd *o, uint8_t value)
{
    *reg8(v, o) = value;
}

static inline void put_2(struct vcpu *v, const struct opd *o, uint16_t value)
{
    v->c.gpr[o->reg] = (v->c.gpr[o->reg] & ~UINT64_C(0xffff)) | value;
}

static inline void put_4(struct vcpu *v, const struct opd *o, uint32_t value)
{
    v->c.gpr[o->reg] = value;
}

static inline void put_8(struct vcpu *v, const struct opd *o, uint64_t value)
{
    v->c.gpr[o->reg] = value;
}

static inline void set_arith(struct vcpu *v, uint64_t flags)
{
    v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | flags;
}

/* What "lahf; seto %al" leaves in EAX, as EFLAGS bits. */
static inline uint64_t host_flags(uint32_t eax)
{
    return ((eax >> 8) & 0xd5) | ((uint64_t)(eax & 1) << 11);
}

/* ZF, SF and PF of a result. */
static inline uint64_t flags_zsp(uint64_t r, unsigned size)
{
    r &= size_mask(size);
    return (r == 0 ? FLAG_ZF : 0) | ((r >> (size * 8 - 1)) != 0 ? FLAG_SF : 0) |
           (__builtin_parity((unsigned)(r & 0xff)) == 0 ? FLAG_PF : 0);
}

static inline uint64_t msb(uint64_t r, unsigned size)
{
    return (r >> (size * 8 - 1)) & 1;
}

/* A destination that is read, then written: register or memory. */
static inline uint64_t dst_begin(struct vcpu *v, const struct insn *in, struct mem_rmw *m)
{
    return in->opd[0].kind == OPD_MEM ? mem_rmw_begin(v, in->seg, mem_ea(v, in), in->opd[0].size, m)
                                      : opd_read(v, in, 0);
}

static inline void dst_end(struct vcpu *v, const struct insn *in, struct mem_rmw *m, uint64_t value)
{
    if (in->opd[0].kind == OPD_MEM) {
        mem_rmw_end(v, m, value & size_mask(in->opd[0].size));
    } else {
        opd_write(v, in, 0, value);
    }
}

/* Conditions by the low four bits of the opcode (SDM Vol. 2, "Condition Test Field"). */
static inline bool condition(uint64_t f, unsigned cc)
{
    bool t;

    switch (cc >> 1) {
    case 0:
        t = (f & FLAG_OF) != 0;
        break;
    case 1:
        t = (f & FLAG_CF) != 0;
        break;
    case 2:
        t = (f & FLAG_ZF) != 0;
        break;
    case 3:
        t = (f & (FLAG_CF | FLAG_ZF)) != 0;
        break;
    case 4:
        t = (f & FLAG_SF) != 0;
        break;
    case 5:
        t = (f & FLAG_PF) != 0;
        break;
    case 6:
        t = ((f >> 4 ^ f) & FLAG_SF) != 0;
        break;
    default:
        t = ((f >> 4 ^ f) & FLAG_SF) != 0 || (f & FLAG_ZF) != 0;
        break;
    }
    return t != (cc & 1);
}

/* clang-format off */
#define FOR_EACH_CC(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
/* clang-format on */

/* Index of a size in tables: 1 2 4 8 to 0 1 2 3. */
static inline unsigned size_index(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* int_alu.c */
insn_fn int_pick_alu(const struct insn *in);   /* ADD OR ADC SBB AND SUB XOR CMP TEST */
insn_fn int_pick_unary(const struct insn *in); /* INC DEC NEG NOT */
/* int_mov.c */
insn_fn int_pick_mov(const struct insn *in);
insn_fn int_pick_extend(const struct insn *in); /* MOVZX MOVSX MOVSXD */
insn_fn int_pick_lea(const struct insn *in);
insn_fn int_pick_cmov(const struct insn *in);
insn_fn int_pick_setcc(const struct insn *in);
void int_xchg(struct vcpu *v, const struct insn *in);
void int_xadd(struct vcpu *v, const struct insn *in);
void int_cmpxchg(struct vcpu *v, const struct insn *in);
void int_cmpxchg8b(struct vcpu *v, const struct insn *in);
void int_cmpxchg16b(struct vcpu *v, const struct insn *in);
void int_bswap(struct vcpu *v, const struct insn *in);
void int_xlat(struct vcpu *v, const struct insn *in);
insn_fn int_pick_flags(const struct insn *in); /* LAHF SAHF CLC STC CMC CLD STD */
/* int_stack.c */
insn_fn int_pick_push(const struct insn *in);
insn_fn int_pick_pop(const struct insn *in);
void int_pusha(struct vcpu *v, const struct insn *in);
void int_popa(struct vcpu *v, const struct insn *in);
void int_enter(struct vcpu *v, const struct insn *in);
void int_leave(struct vcpu *v, const struct insn *in);
/* int_shift.c */
insn_fn int_pick_shift(const struct insn *in); /* SHL SHR SAR ROL ROR RCL RCR SHLD SHRD */
/* int_bit.c */
insn_fn int_pick_bt(const struct insn *in); /* BT BTS BTR BTC */
void int_bsf(struct vcpu *v, const struct insn *in);
void int_bsr(struct vcpu *v, const struct insn *in);
void int_popcnt(struct vcpu *v, const struct insn *in);
void int_crc32(struct vcpu *v, const struct insn *in);
/* int_bmi.c */
void bmi_andn(struct vcpu *v, const struct insn *in);
void bmi_bextr(struct vcpu *v, const struct insn *in);
void bmi_blsi(struct vcpu *v, const struct insn *in);
void bmi_blsmsk(struct vcpu *v, const struct insn *in);
void bmi_blsr(struct vcpu *v, const struct insn *in);
void bmi_bzhi(struct vcpu *v, const struct insn *in);
void bmi_mulx(struct vcpu *v, const struct insn *in);
void bmi_pdep(struct vcpu *v, const struct insn *in);
void bmi_pext(struct vcpu *v, const struct insn *in);
void bmi_rorx(struct vcpu *v, const struct insn *in);
void bmi_sarx(struct vcpu *v, const struct insn *in);
void bmi_shlx(struct vcpu *v, const struct insn *in);
void bmi_shrx(struct vcpu *v, const struct insn *in);
void bmi_lzcnt(struct vcpu *v, const struct insn *in);
void bmi_tzcnt(struct vcpu *v, const struct insn *in);
void bmi_movbe(struct vcpu *v, const struct insn *in);
/* int_mul.c */
void int_mul(struct vcpu *v, const struct insn *in);
insn_fn int_pick_imul(const struct insn *in);
void int_div(struct vcpu *v, const struct insn *in);
void int_idiv(struct vcpu *v, const struct insn *in);
insn_fn int_pick_convert(const struct insn *in); /* CBW CWDE CDQE CWD CDQ CQO */
insn_fn int_pick_bcd(const struct insn *in);     /* DAA DAS AAA AAS AAM AAD */
/* int_flow.c */
insn_fn int_pick_jcc(const struct insn *in);
insn_fn int_pick_jmp(const struct insn *in);
insn_fn int_pick_call(const struct insn *in);
insn_fn int_pick_ret(const struct insn *in);
insn_fn int_pick_loop(const struct insn *in); /* LOOP LOOPE LOOPNE JCXZ JECXZ JRCXZ */
void int_nop(struct vcpu *v, const struct insn *in);
void int_pause(struct vcpu *v, const struct insn *in);
void int_ud(struct vcpu *v, const struct insn *in);
void int_bound(struct vcpu *v, const struct insn *in);
/* int_string.c */
insn_fn int_pick_string(const struct insn *in); /* MOVS STOS LODS SCAS CMPS */

#endif
