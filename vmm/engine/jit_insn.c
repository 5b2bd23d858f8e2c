/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_insn.c - instructions that go on to the next one. See jit_work.h. */
#include "vmm/engine/jit_work.h"

void jit_do_modrm(struct jit_work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;
    struct op op = {f->map, f->op, f->p66, f->w, f->rep, false};
    unsigned reg = f->reg & 7U;
    unsigned rm_guest = f->rm, rm_host = 0;
    bool rm_temp = false, reg_temp = false;
    struct rm rm;

    if (f->vex) {
        jit_do_vex(w, f, bytes);
        return;
    }
    if (f->mem) {
        rm = jit_access(w);
    } else if (f->rm_xmm || jit_high_byte(f, f->rm, f->rm_size)) {
        rm = rm_reg(f->rm);
    } else {
        rm_temp = jit_host_of(w, rm_guest) < 0;
        rm_host = rm_temp ? HOST_T0 : (unsigned)jit_host_of(w, rm_guest);
        rm = rm_reg(rm_host);
        op.low_byte = jit_low_byte(rm_host, f->rm_size);
    }
    if (f->reads != 0) {
        jit_want_host_flags(w);
    }
    if (rm_temp && ((f->rm_use & USE_READ) != 0 || f->rm_size < 4)) {
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_vcpu(JIT_GPR(rm_guest)));
    }
    if (f->reg_xmm) {
        reg = f->reg;
    } else if (f->reg_use != USE_NONE) {
        if (jit_high_byte(f, f->reg, f->reg_size)) {
            reg = f->reg;
        } else {
            reg_temp = jit_host_of(w, f->reg) < 0;
            reg = reg_temp ? HOST_T1 : (unsigned)jit_host_of(w, f->reg);
            op.low_byte |= jit_low_byte(reg, f->reg_size);
            if (reg_temp && ((f->reg_use & USE_READ) != 0 || f->reg_size < 4)) {
                emit_q(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(JIT_GPR(f->reg)));
            }
        }
    }
    emit_op(c, op, reg, rm);
    jit_emit_imm(w, f, bytes);
    if (rm_temp && (f->rm_use & USE_WRITE) != 0) {
        jit_store_reg(w, rm_guest, HOST_T0);
    }
    if (reg_temp && (f->reg_use & USE_WRITE) != 0) {
        jit_store_reg(w, f->reg, HOST_T1);
    }
}

void jit_do_fixed(struct jit_work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;

    if (f->reads != 0) {
        jit_want_host_flags(w);
    }
    if (f->p66) {
        emit_1(c, 0x66);
    }
    if (f->w) {
        emit_1(c, 0x48);
    }
    emit_1(c, f->op);
    jit_emit_imm(w, f, bytes);
}

void jit_do_low3(struct jit_work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;
    bool high = f->map == 0 && jit_high_byte(f, f->reg, f->reg_size);
    bool temp = !high && jit_host_of(w, f->reg) < 0;
    unsigned host = high ? f->reg : temp ? HOST_T0 : (unsigned)jit_host_of(w, f->reg);
    unsigned rex = (f->w ? 8U : 0U) | (host >= 8 ? 1U : 0U);

    if (temp && ((f->reg_use & USE_READ) != 0 || f->reg_size < 4)) {
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_vcpu(JIT_GPR(f->reg)));
    }
    if (f->p66) {
        emit_1(c, 0x66);
    }
    if (rex != 0 || (!high && jit_low_byte(host, f->reg_size))) {
        emit_1(c, 0x40 | rex);
    }
    if (f->map == 1) {
        emit_1(c, 0x0f);
    }
    emit_1(c, (f->op & 0xf8U) | (host & 7));
    jit_emit_imm(w, f, bytes);
    if (temp) {
        jit_store_reg(w, f->reg, HOST_T0);
    }
}

void jit_do_lea(struct jit_work *w, const struct insn *in)
{
    unsigned reg = in->opd[0].reg, size = in->opd[0].size;
    int host = jit_host_of(w, reg);

    jit_address(w, in, false);
    if (host < 0) {
        if (size == 4) {
            emit_d(w->c, OP_MOV_LOAD, HOST_T0, rm_reg(HOST_T0));
        }
        emit_q(w->c, OP_MOV_STORE, HOST_T0, rm_vcpu(JIT_GPR(reg)));
    } else {
        emit_op(w->c, (struct op){.op = OP_MOV_LOAD, .w = size == 8}, (unsigned)host,
                rm_reg(HOST_T0));
    }
}

void jit_do_push(struct jit_work *w, const struct form *f)
{
    struct jit_code *c = w->c;

    struct rm rm = jit_access(w);
    emit_q(c, OP_MOV_STORE, jit_load_reg(w, f->reg, HOST_T1), rm);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

void jit_do_pop(struct jit_work *w, const struct form *f)
{
    struct jit_code *c = w->c;
    int host = jit_host_of(w, f->reg);

    struct rm rm = jit_access(w);
    emit_q(c, OP_MOV_LOAD, host < 0 ? HOST_T1 : (unsigned)host, rm);
    if (f->reg != RSP) {
        emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8);
    }
    jit_store_reg(w, f->reg, HOST_T1);
}

void jit_do_div(struct jit_work *w, const struct insn *in, const struct form *f)
{
    struct jit_code *c = w->c;
    const struct op mov = {.op = OP_MOV_LOAD, .w = f->w}, cmp = {.op = 0x3b, .w = f->w};
    unsigned d = HOST_T0;
    bool sign = (in->mnemonic == ZYDIS_MNEMONIC_IDIV);

    if (f->mem) {
        emit_op(c, mov, HOST_T0, jit_access(w));
    } else {
        d = jit_load_reg(w, f->rm, HOST_T0);
    }
    if (sign) { /* the dividend is a sign-extended rAX, the divisor neither 0 nor -1 */
        emit_op(c, mov, HOST_T1, rm_reg(RAX));
        emit_shift(c, f->w, SHIFT_ARITHMETIC, HOST_T1, f->w ? 63 : 31);
        emit_op(c, cmp, HOST_T1, rm_reg(RDX));
        jit_slow_from(w, emit_jump(c, 0x85, 0));
        emit_lea(c, f->w, HOST_T1, (int)d, -1, 0, 1);
        emit_op(c, (struct op){.op = 0x83, .w = f->w}, 7, rm_reg(HOST_T1)); /* cmp */
        emit_1(c, 1);
        jit_slow_from(w, emit_jump(c, 0x86, 0)); /* jbe */
    } else {
        emit_op(c, cmp, RDX, rm_reg(d));
        jit_slow_from(w, emit_jump(c, 0x83, 0)); /* jae */
    }
    emit_op(c, (struct op){.op = 0xf7, .w = f->w}, sign ? 7 : 6, rm_reg(d));
}

void jit_do_scan(struct jit_work *w, const struct insn *in, const struct form *f, bool wanted)
{
    struct jit_code *c = w->c;
    struct rm rm = f->mem ? jit_access(w) : rm_reg(jit_load_reg(w, f->rm, HOST_T0));

    emit_op(c, (struct op){.map = 1, .op = f->op, .w = f->w}, HOST_T1, rm);
    jit_poison_undefined(w, in, rm_reg(HOST_T1));
    uint32_t none = emit_jump(c, 0x84, 0);
    if (jit_host_of(w, f->reg) >= 0) {
        emit_q(c, OP_MOV_LOAD, (unsigned)jit_host_of(w, f->reg), rm_reg(HOST_T1));
    } else {
        jit_store_reg(w, f->reg, HOST_T1);
    }
    emit_aim(c, none, c->at);
    if (wanted) {
        emit_op(c, (struct op){.map = 1, .op = 0x94}, 0, rm_reg(HOST_T1)); /* setz */
        emit_op(c, (struct op){.op = 0xc0}, 4, rm_reg(HOST_T1));           /* shl */
        emit_1(c, 6);
        emit_op(c, (struct op){.op = 0x80}, 1, rm_reg(HOST_T1)); /* or */
        emit_1(c, FLAG_ONE);
        emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T1, JIT_RFLAGS);
        emit_op(c, (struct op){.op = 0xc6}, 0, JIT_OVERFLOW); /* mov */
        emit_1(c, 0);
    }
}

void jit_push_kept(struct jit_work *w, bool kept, uint64_t imm)
{
    struct jit_code *c = w->c;

    struct rm rm = jit_access(w);
    if (kept) {
        emit_q(c, OP_MOV_LOAD, HOST_T1, JIT_KEPT);
    } else {
        emit_mov_imm(c, HOST_T1, imm);
    }
    emit_q(c, OP_MOV_STORE, HOST_T1, rm);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

void jit_do_push_mem(struct jit_work *w, const struct form *f)
{
    jit_load_rm(w, f);
    emit_q(w->c, OP_MOV_STORE, HOST_T0, JIT_KEPT);
    jit_push_kept(w, true, 0);
}

void jit_do_leave(struct jit_work *w)
{
    struct jit_code *c = w->c;

    struct rm rm = jit_access(w);
    emit_lea(c, true, HOST_GUEST_RSP, RBP, -1, 0, 8);
    emit_q(c, OP_MOV_LOAD, RBP, rm);
}
