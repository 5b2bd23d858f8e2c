/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_remake.c - flags that are made again where they are wanted, which is on slow paths
 * most of the time, instead of being saved before what loses them. An instruction's flags can be
 * as long as the registers that tell them are as it left them: a comparison is made again, the
 * flags of AND, OR and XOR follow from the result, those of additions and subtractions from result
 * and addend. See jit_work.h. */
#include "base/check.h"
#include "vmm/engine/jit_work.h"

enum how {
    HOW_NOT,
    HOW_AGAIN,  /* it changes nothing but flags */
    HOW_RESULT, /* they are those of TEST of @dst */
    HOW_ADD,    /* @dst less the addend, and the addend once more */
    HOW_SUB,
};

struct recipe {
    enum how how;
    unsigned size;
    unsigned dst, src; /* src: REG_NONE: an immediate */
};

/* Of ADD OR ADC SBB AND SUB XOR CMP by number, whose @dst is a register. */
static enum how how_of(unsigned n, const struct recipe *r)
{
    switch (n) {
    case 7:
        return HOW_AGAIN;
    case 1:
    case 4:
    case 6:
        return HOW_RESULT;
    case 0:
    case 5:
        return r->size < 4 || r->src == r->dst ? HOW_NOT : n == 0 ? HOW_ADD : HOW_SUB;
    default:
        return HOW_NOT;
    }
}

static struct recipe recipe_of(const struct form *f)
{
    unsigned op = f->op, n = f->reg & 7U;
    struct recipe r = {.size = f->rm_size, .dst = f->rm, .src = REG_NONE};

    if (f->map != 0 || f->sse || (f->kind != FORM_MODRM && f->kind != FORM_FIXED)) {
        return r;
    }
    if (f->kind == FORM_FIXED) {
        r.size = (op & 1) == 0 ? 1 : f->w ? 8 : f->p66 ? 2 : 4;
        r.dst = RAX;
        if (op < 0x40) {
            r.how = how_of(op >> 3, &r);
        } else if (op == 0xa8 || op == 0xa9) {
            r.how = HOW_AGAIN;
        }
        return r;
    }
    if (op < 0x40) {
        bool to_reg = (op & 2) != 0;
        r.dst = to_reg ? f->reg : f->rm;
        r.src = to_reg ? f->rm : f->reg;
        r.how = how_of(op >> 3, &r);
        if (f->mem && (r.how != HOW_RESULT || !to_reg)) {
            r.how = HOW_NOT;
        }
    } else if (f->mem) {
        return r;
    } else if (op == 0x80 || op == 0x81 || op == 0x83) {
        r.how = how_of(n, &r);
    } else if (op == 0x84 || op == 0x85) {
        r.src = f->reg;
        r.how = HOW_AGAIN;
    } else if ((op == 0xf6 || op == 0xf7) && n < 2) {
        r.how = HOW_AGAIN;
    }
    if (r.how == HOW_RESULT && jit_high_byte(f, r.dst, r.size)) {
        r.how = HOW_NOT;
    }
    return r;
}

/* The registers that tell its flags. */
static uint32_t registers_of(const struct form *f, const struct recipe *r)
{
    uint32_t regs = 1U << form_register(f, r->dst, r->size);

    if (r->src != REG_NONE && r->how != HOW_RESULT) {
        regs |= 1U << form_register(f, r->src, r->size);
    }
    return regs;
}

/* Which general registers it changes. */
static uint32_t changed(const struct insn *in, const struct form *f)
{
    uint32_t regs = f->also;

    switch (f->kind) {
    case FORM_NOTHING:
    case FORM_ZERO_YMM:
    case FORM_JCC:
    case FORM_JMP:
    case FORM_X87_CW:
        return regs;
    case FORM_MODRM:
        if ((f->reg_use & USE_WRITE) != 0 && !f->reg_xmm) {
            regs |= 1U << form_register(f, f->reg, f->reg_size);
        }
        if ((f->rm_use & USE_WRITE) != 0 && !f->mem && !f->rm_xmm) {
            regs |= 1U << form_register(f, f->rm, f->rm_size);
        }
        return regs;
    case FORM_FIXED: /* CDQ and the like; not CMP and TEST, else RAX */
        return f->op == 0x99 ? 1U << RDX : f->op >= 0xa8 || f->op >> 3 == 7 ? 0 : 1U << RAX;
    case FORM_DIV:
        return regs | 1U << RAX | 1U << RDX;
    case FORM_LEA:
        return regs | 1U << in->opd[0].reg;
    case FORM_PUSH:
    case FORM_PUSH_IMM:
    case FORM_PUSH_MEM:
    case FORM_CALL_NEAR:
        return regs | 1U << RSP;
    case FORM_POP:
        return regs | 1U << RSP | 1U << f->reg;
    default:
        return UINT32_MAX;
    }
}

void jit_note_flags(struct jit_work *w)
{
    struct recipe r = recipe_of(&w->form[w->i]);

    w->maker = r.how == HOW_NOT ? 0 : (uint8_t)(w->i + 1);
    w->told_by = registers_of(&w->form[w->i], &r);
}

void jit_note_registers(struct jit_work *w)
{
    if (w->maker != 0 && (changed(w->insn[w->i], &w->form[w->i]) & w->told_by) != 0) {
        PLX_CHECK(!w->lost);
        w->maker = 0;
    }
}

/* It has its flags in memory before. */
static bool wants_memory(const struct jit_work *w, unsigned i)
{
    const struct form *f = &w->form[i];

    return f->kind == FORM_CALL || f->flags == FLAGS_SOME || jit_spans(w, i) ||
           (f->kind >= FORM_SYS && f->kind <= FORM_SCAN) ||
           (f->writes != 0 && f->writes != FLAGS_ARITH);
}

bool jit_may_lose(const struct jit_work *w, unsigned n)
{
    if (w->maker == 0) {
        return false;
    }
    for (unsigned i = w->i; i < n; i++) {
        const struct form *f = &w->form[i];
        if (i > w->i && w->live[i] == 0) {
            return true;
        }
        if (wants_memory(w, i) || (f->reads != 0 && f->kind == FORM_MODRM && f->mem)) {
            return false;
        }
        if (f->writes != 0) {
            return true;
        }
        if (i + 1 == w->n) {
            return f->kind == FORM_JCC;
        }
        if ((changed(w->insn[i], f) & w->told_by) != 0) {
            return false;
        }
    }
    return false;
}

void jit_remake(struct jit_work *w, unsigned maker)
{
    struct jit_code *c = w->c;
    const struct form *f = &w->forms[maker - 1];
    const struct insn *in = w->insn[maker - 1];
    struct recipe r = recipe_of(f);
    struct op op = {.p66 = r.size == 2, .w = r.size == 8};

    switch (r.how) {
    case HOW_AGAIN:
        if (f->kind == FORM_FIXED) {
            jit_do_fixed(w, f, w->bytes[maker - 1]);
        } else {
            jit_do_modrm(w, f, w->bytes[maker - 1]);
        }
        break;
    case HOW_RESULT: {
        unsigned reg = jit_load_reg(w, r.dst, HOST_T0);
        op.op = r.size == 1 ? 0x84 : 0x85; /* test */
        op.low_byte = jit_low_byte(reg, r.size);
        emit_op(c, op, reg, rm_reg(reg));
        break;
    }
    default: {
        static const uint8_t add = OP_ADD_LOAD, sub = 0x2b;
        bool adds = r.how == HOW_ADD;
        unsigned dst = jit_load_reg(w, r.dst, HOST_T0);
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(dst));
        if (r.src == REG_NONE) {
            op.op = 0x81;
            emit_op(c, op, adds ? 5 : 0, rm_reg(HOST_T0));
            emit_4(c, (uint32_t)in->imm);
            emit_op(c, op, adds ? 0 : 5, rm_reg(HOST_T0));
            emit_4(c, (uint32_t)in->imm);
            break;
        }
        unsigned src = jit_load_reg(w, r.src, HOST_T1);
        op.op = adds ? sub : add;
        emit_op(c, op, HOST_T0, rm_reg(src));
        op.op = adds ? add : sub;
        emit_op(c, op, HOST_T0, rm_reg(src));
        break;
    }
    }
    w->in_host = true;
    w->lost = false;
    w->no_af = f->flags == FLAGS_NO_AF;
    jit_poison(w, f->flags == FLAGS_NO_AF ? FLAG_AF : 0);
}
