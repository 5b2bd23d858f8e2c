/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_alu.c - two-operand arithmetic and logic, INC DEC NEG NOT.
 *
 * Flags come from the host's own instruction; what the SDM leaves undefined there (AF of the
 * logical ones) is cleared (undefined.h). One function per operation, size and operand kinds. */
#include "vmm/cpu/int.h"

/* The operation on values: result returned, flags set. cmp and test return what is not stored. */
#define DEF_HOST_OP(op, text, size, type, keep)                                             \
    static inline type op##_##size(struct vcpu *v, type a, type b)                          \
    {                                                                                       \
        uint32_t eax;                                                                       \
        __asm__(text " %2, %0\n\tlahf\n\tseto %%al" : "+q"(a), "=&a"(eax) : "q"(b) : "cc"); \
        set_arith(v, host_flags(eax) & (keep));                                             \
        return a;                                                                           \
    }
#define DEF_HOST_CARRY_OP(op, text, size, type)                      \
    static inline type op##_##size(struct vcpu *v, type a, type b)   \
    {                                                                \
        uint32_t eax;                                                \
        __asm__("btl $0, %3\n\t" text " %2, %0\n\tlahf\n\tseto %%al" \
                : "+q"(a), "=&a"(eax)                                \
                : "q"(b), "r"((uint32_t)v->c.rflags)                 \
                : "cc");                                             \
        set_arith(v, host_flags(eax));                               \
        return a;                                                    \
    }

/* r: register, i: immediate, m: memory; destination first. */
#define DEF_FORMS(op, size, type)                                                                  \
    static void op##_rr_##size(struct vcpu *v, const struct insn *in)                              \
    {                                                                                              \
        put_##size(v, &in->opd[0],                                                                 \
                   op##_##size(v, get_##size(v, &in->opd[0]), get_##size(v, &in->opd[1])));        \
    }                                                                                              \
    static void op##_ri_##size(struct vcpu *v, const struct insn *in)                              \
    {                                                                                              \
        put_##size(v, &in->opd[0], op##_##size(v, get_##size(v, &in->opd[0]), (type)in->imm));     \
    }                                                                                              \
    static void op##_rm_##size(struct vcpu *v, const struct insn *in)                              \
    {                                                                                              \
        type b = (type)mem_load(v, in, size);                                                      \
        put_##size(v, &in->opd[0], op##_##size(v, get_##size(v, &in->opd[0]), b));                 \
    }                                                                                              \
    static inline void op##_m_##size(struct vcpu *v, const struct insn *in, type b)                \
    {                                                                                              \
        uint64_t ea = mem_ea(v, in);                                                               \
        struct mem_rmw m;                                                                          \
        if ((in->flags & INSN_LIN64) != 0) {                                                       \
            type *p = tlb_write(v, ea + *(const uint64_t *)((const char *)v + in->seg_off), size); \
            if (__builtin_expect(p != NULL, 1)) {                                                  \
                *p = op##_##size(v, *p, b);                                                        \
                return;                                                                            \
            }                                                                                      \
        }                                                                                          \
        type a = (type)mem_rmw_begin(v, in->seg, ea, size, &m);                                    \
        mem_rmw_end(v, &m, op##_##size(v, a, b));                                                  \
    }                                                                                              \
    static void op##_mr_##size(struct vcpu *v, const struct insn *in)                              \
    {                                                                                              \
        op##_m_##size(v, in, get_##size(v, &in->opd[1]));                                          \
    }                                                                                              \
    static void op##_mi_##size(struct vcpu *v, const struct insn *in)                              \
    {                                                                                              \
        op##_m_##size(v, in, (type)in->imm);                                                       \
    }

#define DEF_FORMS_READ(op, size, type)                                                \
    static void op##_rr_##size(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        (void)op##_##size(v, get_##size(v, &in->opd[0]), get_##size(v, &in->opd[1])); \
    }                                                                                 \
    static void op##_ri_##size(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        (void)op##_##size(v, get_##size(v, &in->opd[0]), (type)in->imm);              \
    }                                                                                 \
    static void op##_rm_##size(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        type b = (type)mem_load(v, in, size);                                         \
        (void)op##_##size(v, get_##size(v, &in->opd[0]), b);                          \
    }                                                                                 \
    static void op##_mr_##size(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        type a = (type)mem_load(v, in, size);                                         \
        (void)op##_##size(v, a, get_##size(v, &in->opd[1]));                          \
    }                                                                                 \
    static void op##_mi_##size(struct vcpu *v, const struct insn *in)                 \
    {                                                                                 \
        (void)op##_##size(v, (type)mem_load(v, in, size), (type)in->imm);             \
    }

#define FOR_EACH_SIZE(X, ...)   \
    X(__VA_ARGS__, 1, uint8_t)  \
    X(__VA_ARGS__, 2, uint16_t) \
    X(__VA_ARGS__, 4, uint32_t) \
    X(__VA_ARGS__, 8, uint64_t)

#define DEF_ADDING(op, text, size, type) \
    DEF_HOST_OP(op, text, size, type, FLAGS_ARITH) DEF_FORMS(op, size, type)
#define DEF_LOGICAL(op, text, size, type) \
    DEF_HOST_OP(op, text, size, type, FLAGS_ARITH & ~FLAG_AF) DEF_FORMS(op, size, type)
#define DEF_CARRYING(op, text, size, type) \
    DEF_HOST_CARRY_OP(op, text, size, type) DEF_FORMS(op, size, type)
#define DEF_COMPARING(op, text, size, type) \
    DEF_HOST_OP(op, text, size, type, FLAGS_ARITH) DEF_FORMS_READ(op, size, type)
#define DEF_TESTING(op, text, size, type) \
    DEF_HOST_OP(op, text, size, type, FLAGS_ARITH & ~FLAG_AF) DEF_FORMS_READ(op, size, type)

FOR_EACH_SIZE(DEF_ADDING, add, "add")
FOR_EACH_SIZE(DEF_ADDING, sub, "sub")
FOR_EACH_SIZE(DEF_CARRYING, adc, "adc")
FOR_EACH_SIZE(DEF_CARRYING, sbb, "sbb")
FOR_EACH_SIZE(DEF_LOGICAL, and, "and")
FOR_EACH_SIZE(DEF_LOGICAL, or, "or")
FOR_EACH_SIZE(DEF_LOGICAL, xor, "xor")
FOR_EACH_SIZE(DEF_COMPARING, cmp, "cmp")
FOR_EACH_SIZE(DEF_TESTING, test, "test")

enum { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORMS };

#define ROW(op, size)                                                                  \
    {                                                                                  \
        op##_rr_##size, op##_ri_##size, op##_rm_##size, op##_mr_##size, op##_mi_##size \
    }
#define ROWS(op)                                       \
    {                                                  \
        ROW(op, 1), ROW(op, 2), ROW(op, 4), ROW(op, 8) \
    }

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn fn[4][FORMS];
} alu[] = {
    {ZYDIS_MNEMONIC_ADD, ROWS(add)},   {ZYDIS_MNEMONIC_SUB, ROWS(sub)},
    {ZYDIS_MNEMONIC_ADC, ROWS(adc)},   {ZYDIS_MNEMONIC_SBB, ROWS(sbb)},
    {ZYDIS_MNEMONIC_AND, ROWS(and)},   {ZYDIS_MNEMONIC_OR, ROWS(or)},
    {ZYDIS_MNEMONIC_XOR, ROWS(xor)},   {ZYDIS_MNEMONIC_CMP, ROWS(cmp)},
    {ZYDIS_MNEMONIC_TEST, ROWS(test)},
};

insn_fn int_pick_alu(const struct insn *in)
{
    bool mem = in->opd[0].kind == OPD_MEM;
    unsigned form = in->opd[1].kind == OPD_IMM   ? (mem ? FORM_MI : FORM_RI)
                    : in->opd[1].kind == OPD_MEM ? FORM_RM
                                                 : (mem ? FORM_MR : FORM_RR);

    for (unsigned i = 0; i < sizeof alu / sizeof alu[0]; i++) {
        if (alu[i].mnemonic == in->mnemonic) {
            return alu[i].fn[size_index(in->opd[0].size)][form];
        }
    }
    return NULL;
}

/* --- one operand ---------------------------------------------------------------------------- */

#define DEF_UNARY(op, text, changes, size, type)                                    \
    static inline type op##_##size(struct vcpu *v, type a)                          \
    {                                                                               \
        uint32_t eax;                                                               \
        __asm__(text "%z0 %0\n\tlahf\n\tseto %%al" : "+q"(a), "=&a"(eax) : : "cc"); \
        v->c.rflags = (v->c.rflags & ~(changes)) | (host_flags(eax) & (changes));   \
        return a;                                                                   \
    }                                                                               \
    static void op##_r_##size(struct vcpu *v, const struct insn *in)                \
    {                                                                               \
        put_##size(v, &in->opd[0], op##_##size(v, get_##size(v, &in->opd[0])));     \
    }                                                                               \
    static void op##_m_##size(struct vcpu *v, const struct insn *in)                \
    {                                                                               \
        struct mem_rmw m;                                                           \
        type a = (type)mem_rmw_begin(v, in->seg, mem_ea(v, in), size, &m);          \
        mem_rmw_end(v, &m, op##_##size(v, a));                                      \
    }

FOR_EACH_SIZE(DEF_UNARY, inc, "inc", FLAGS_ARITH & ~FLAG_CF)
FOR_EACH_SIZE(DEF_UNARY, dec, "dec", FLAGS_ARITH & ~FLAG_CF)
FOR_EACH_SIZE(DEF_UNARY, neg, "neg", FLAGS_ARITH)
FOR_EACH_SIZE(DEF_UNARY, not, "not", UINT64_C(0))

#define UNARY_ROWS(op)                                                                          \
    {                                                                                           \
        {op##_r_1, op##_m_1}, {op##_r_2, op##_m_2}, {op##_r_4, op##_m_4}, {op##_r_8, op##_m_8}, \
    }

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn fn[4][2];
} unary[] = {
    {ZYDIS_MNEMONIC_INC, UNARY_ROWS(inc)},
    {ZYDIS_MNEMONIC_DEC, UNARY_ROWS(dec)},
    {ZYDIS_MNEMONIC_NEG, UNARY_ROWS(neg)},
    {ZYDIS_MNEMONIC_NOT, UNARY_ROWS(not )},
};

insn_fn int_pick_unary(const struct insn *in)
{
    for (unsigned i = 0; i < sizeof unary / sizeof unary[0]; i++) {
        if (unary[i].mnemonic == in->mnemonic) {
            return unary[i].fn[size_index(in->opd[0].size)][in->opd[0].kind == OPD_MEM];
        }
    }
    return NULL;
}
