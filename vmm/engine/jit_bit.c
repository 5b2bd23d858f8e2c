/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_bit.c - shifts and rotates whose flags are wanted although the host leaves some of
 * them undefined or their count is known late, and bit tests of memory by a register. The flags are
 * in memory before and after. See jit_work.h. */
#include "vmm/engine/jit_work.h"

enum { OP_SHLD_CL = 0xa5, OP_SHRD_CL = 0xad, ROL = 0, ROR = 1, SHR = 5, SAR = 7 };

static bool is_double(const struct form *f)
{
    return f->map == 1;
}

static unsigned how(const struct form *f)
{
    return f->reg & 7U;
}

static bool by_cl(const struct form *f)
{
    return is_double(f) ? f->op == OP_SHLD_CL || f->op == OP_SHRD_CL
                        : f->op == 0xd2 || f->op == 0xd3;
}

/* T0 = EFLAGS.OF of a shift whose other flags are in AH, with what the operand was in kept. It is
 * that of a shift by 1 (undefined.h). */
static void overflow_of_shift(struct jit_code *c, const struct form *f)
{
    unsigned top = f->rm_size * 8U - 1;

    if (!is_double(f) && how(f) == SAR) {
        emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T0));
        return;
    }
    if (!is_double(f) && how(f) != SHR) {
        jit_left_overflow(c);
        return;
    }
    /* SHR: the highest bit as it was; SHLD, SHRD: where it has changed */
    emit_q(c, OP_MOV_LOAD, HOST_T0, JIT_KEPT);
    emit_shift(c, true, SHIFT_RIGHT, HOST_T0, top);
    if (is_double(f)) {
        emit_shift(c, false, SHIFT_LEFT, HOST_T0, 15);
        emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(RAX));
        emit_shift(c, false, SHIFT_RIGHT, HOST_T0, 15);
    }
    emit_d(c, 0x83, 4, rm_reg(HOST_T0)); /* and */
    emit_1(c, 1);
}

void jit_do_shift(struct jit_work *w, const struct insn *in, const struct form *f)
{
    struct jit_code *c = w->c;
    bool wide = f->rm_size == 8, rotates = !is_double(f) && how(f) <= ROR;
    struct rm rm = rm_at(HOST_T0, 0);
    uint32_t none = 0;

    if (f->mem) {
        jit_address(w, in, true);
        jit_lookup(w, f->rm_size, true);
    } else { /* a count of 0 clears the upper half all the same */
        unsigned host = jit_load_reg(w, f->rm, HOST_T0);
        rm = rm_reg(host);
        if (!wide) {
            emit_d(c, OP_MOV_LOAD, host, rm);
            jit_store_reg(w, f->rm, HOST_T0);
        }
    }
    if (by_cl(f)) {
        emit_op(c, (struct op){.op = 0xf6}, 0, rm_reg(RCX)); /* test */
        emit_1(c, wide ? 63 : 31);
        none = emit_jump(c, 0x84, 0);
    }
    emit_op(c, (struct op){.op = OP_MOV_LOAD, .w = wide}, HOST_T1, rm);
    emit_q(c, OP_MOV_STORE, HOST_T1, JIT_KEPT);
    unsigned reg = is_double(f) ? jit_load_reg(w, f->reg, HOST_T1) : how(f);
    emit_op(c, (struct op){.map = f->map, .op = f->op, .w = wide}, reg, rm);
    if (in->opd[in->nopd - 1].kind == OPD_IMM && f->op != 0xd1) {
        emit_1(c, (uint8_t)in->imm);
    }
    jit_poison_undefined(w, in, rm);
    if (!f->mem) {
        jit_store_reg(w, f->rm, HOST_T0);
    }
    if (rotates) {
        struct form like = *f;
        like.flags = how(f) == ROL ? FLAGS_ROL : FLAGS_ROR;
        if (f->mem) {
            emit_op(c, (struct op){.op = OP_MOV_LOAD, .w = wide}, HOST_T0, rm);
        }
        jit_save_rotated(c, &like, jit_result_host(w, f));
    } else {
        emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
        emit_1(c, 0x9f); /* lahf */
        overflow_of_shift(c, f);
        jit_end_shifted(c);
    }
    if (by_cl(f)) {
        emit_aim(c, none, c->at);
    }
}

void jit_do_bit(struct jit_work *w, const struct insn *in, const struct form *f, bool wanted)
{
    struct jit_code *c = w->c;
    bool wide = f->rm_size == 8, test = f->rm_use == USE_READ;
    struct rm rm = rm_at(HOST_T0, 0);

    jit_address(w, in, true);
    unsigned index = jit_load_reg(w, f->reg, HOST_T1);
    emit_op(c, (struct op){.op = wide ? OP_MOV_LOAD : 0x63 /* movsxd */, .w = true}, HOST_T1,
            rm_reg(index));
    emit_shift(c, true, SHIFT_ARITHMETIC, HOST_T1, wide ? 6 : 5);
    emit_lea(c, true, HOST_T0, HOST_T0, HOST_T1, wide ? 3 : 2, 0);
    jit_lookup(w, f->rm_size, !test);
    index = jit_load_reg(w, f->reg, HOST_T1);
    if (test) {
        emit_op(c, (struct op){.op = OP_MOV_LOAD, .w = wide}, HOST_T0, rm);
        rm = rm_reg(HOST_T0);
    } else { /* within the operand */
        emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(index));
        emit_d(c, 0x83, 4, rm_reg(HOST_T1)); /* and */
        emit_1(c, wide ? 63 : 31);
        index = HOST_T1;
    }
    emit_op(c, (struct op){.map = 1, .op = f->op, .w = wide}, index, rm);
    jit_poison_undefined(w, in, rm);
    if (wanted) {
        jit_save_some(c, f);
    }
}
