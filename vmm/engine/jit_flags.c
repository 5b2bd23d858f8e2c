/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_flags.c - the guest's arithmetic flags between host flags and memory. See
 * jit_work.h. */
#include "vmm/cpu/undefined.h"
#include "vmm/engine/jit_work.h"

/* RAX to T1, and the host's flags to AH, OF to memory. They stay. */
static void take_flags(struct jit_code *c)
{
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_1(c, 0x9f);                                                /* lahf */
    emit_op(c, (struct op){.map = 1, .op = 0x90}, 0, JIT_OVERFLOW); /* seto */
}

/* The host's flags from AH, OF from memory; uses AL. */
static void put_flags(struct jit_code *c)
{
    emit_op(c, (struct op){.op = OP_MOV8_LOAD}, RAX, JIT_OVERFLOW);
    emit_bytes(c, "\x04\x7f\x9e", 3); /* add al, 127: OF; sahf */
}

void jit_store_ah(struct jit_code *c, bool no_af)
{
    if (no_af) {
        emit_bytes(c, "\x80\xe4\xef", 3); /* and ah, ~AF */
    }
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, AH, JIT_RFLAGS);
}

void jit_save_flags(struct jit_work *w, bool keep)
{
    struct jit_code *c = w->c;

    take_flags(c);
    jit_store_ah(c, w->no_af);
    if (w->no_af && keep) {
        put_flags(c);
    }
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
    w->in_host = false;
}

void jit_load_flags(struct jit_code *c)
{
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_op(c, (struct op){.op = OP_MOV8_LOAD}, AH, JIT_RFLAGS);
    put_flags(c);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

/* The flags in memory but for those of @keep get lost, and byte register @from is or-ed in. */
static void merge_flags(struct jit_code *c, uint8_t keep, unsigned from)
{
    emit_op(c, (struct op){.op = 0x80}, 4, JIT_RFLAGS); /* and */
    emit_1(c, keep);
    emit_op(c, (struct op){.op = OP_OR8_STORE}, from, JIT_RFLAGS);
}

void jit_save_but_cf(struct jit_code *c)
{
    take_flags(c);
    emit_bytes(c, "\x80\xe4\xfe", 3); /* and ah, ~CF */
    merge_flags(c, FLAG_CF, AH);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

void jit_save_rotated(struct jit_code *c, const struct form *f, unsigned r)
{
    unsigned top = f->rm_size * 8U - 1;
    bool left = f->flags == FLAGS_ROL;

    if (left) { /* CF is bit 0 */
        emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(r));
        emit_d(c, 0x83, 4, rm_reg(HOST_T1)); /* and */
        emit_1(c, 1);
    }
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(r));
    emit_shift(c, true, SHIFT_RIGHT, HOST_T0, left ? top : top - 1);
    if (!left) { /* CF is the highest bit, OF where the one below differs */
        emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
        emit_d(c, 0xd1, 5, rm_reg(HOST_T1));
        emit_d(c, 0x83, 4, rm_reg(HOST_T0));
        emit_1(c, 1);
    }
    emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T1));
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T0, JIT_OVERFLOW);
    merge_flags(c, (uint8_t)~FLAG_CF, HOST_T1);
}

void jit_save_some(struct jit_code *c, const struct form *f)
{
    if (f->flags == FLAGS_SOME) {
        emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
        emit_bytes(c, "\x9f\x80\xe4", 3); /* lahf; and ah, imm8 */
        emit_1(c, f->defined | (unsigned)FLAG_ONE);
        jit_store_ah(c, false);
        emit_op(c, (struct op){.op = 0xc6}, 0, JIT_OVERFLOW); /* mov */
        emit_1(c, 0);
        emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
        return;
    }
    if (f->flags == FLAGS_CF_OF) {
        emit_op(c, (struct op){.map = 1, .op = 0x90}, 0, JIT_OVERFLOW); /* seto */
    }
    emit_op(c, (struct op){.map = 1, .op = 0x92}, 0, rm_reg(HOST_T1)); /* setc */
    merge_flags(c, (uint8_t)~FLAG_CF, HOST_T1);
}

/* T0 = @result of @f, with zeros above it. */
static void result_to_t0(struct jit_code *c, const struct form *f, struct rm result)
{
    struct op op = {.map = f->rm_size < 4, .w = f->rm_size == 8, .low_byte = f->rm_size == 1};

    op.op = f->rm_size >= 4 ? OP_MOV_LOAD : f->rm_size == 2 ? OP_MOVZX2 : OP_MOVZX1;
    emit_op(c, op, HOST_T0, result);
}

void jit_left_overflow(struct jit_code *c)
{
    emit_d(c, OP_MOV_LOAD, HOST_T0, rm_reg(RAX));
    emit_shift(c, false, SHIFT_RIGHT, HOST_T0, 7);
    emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(RAX));
    emit_shift(c, false, SHIFT_RIGHT, HOST_T0, 8);
    emit_d(c, 0x83, 4, rm_reg(HOST_T0)); /* and */
    emit_1(c, 1);
}

void jit_end_shifted(struct jit_code *c)
{
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T0, JIT_OVERFLOW);
    jit_store_ah(c, true);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

void jit_save_shifted(struct jit_code *c, const struct form *f, struct rm result)
{
    result_to_t0(c, f, result);
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_1(c, 0x9f);             /* lahf */
    if (f->flags == FLAGS_SHR) { /* the highest bit of what was shifted */
        emit_shift(c, true, SHIFT_RIGHT, HOST_T0, f->rm_size * 8U - 1 - f->count);
    } else if (f->flags == FLAGS_SHL) {
        jit_left_overflow(c);
    } else {
        emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T0));
    }
    jit_end_shifted(c);
}

void jit_poison(struct jit_work *w, uint32_t flags)
{
    if (w->j->poison) {
        emit_bytes(w->c, "\x9c\x81\x34\x24", 4); /* pushfq; xor dword [rsp], flags; popfq */
        emit_4(w->c, flags);
        emit_1(w->c, 0x9d);
    }
}

static bool is_undefined(enum undefined_when when, bool late, unsigned count, unsigned bits)
{
    switch (when) {
    case WHEN_SHIFTED:
        return late || count != 0;
    case WHEN_COUNT_NOT_1:
        return late || count > 1;
    case WHEN_COUNT_ABOVE_SIZE:
        return !late && count >= bits;
    default:
        return true;
    }
}

/* Where it is undefined, @result becomes another; flags stay. A @count is that of 16-bit operands,
 * the only ones that it can be beyond. */
static void poison_result(struct jit_work *w, enum undefined_when when, struct op not,
                          struct rm result, bool late, unsigned count)
{
    struct jit_code *c = w->c;

    if (when == WHEN_SOURCE_0) {
        uint32_t other = emit_jump(c, 0x85, 0);
        emit_op(c, not, 2, result);
        emit_aim(c, other, c->at);
    } else if (not .p66 && late) {
        uint32_t below[2];
        emit_1(c, 0x9c); /* pushfq */
        c->pushed += 8;
        for (unsigned i = 0; i < 2; i++) {
            emit_op(c, (struct op){.op = 0xf6}, 0, rm_reg(RCX)); /* test */
            emit_1(c, i == 0 ? 16 : 15);
            below[i] = emit_jump(c, 0x84, 0);
        }
        emit_op(c, not, 2, result);
        emit_aim(c, below[0], c->at);
        emit_aim(c, below[1], c->at);
        c->pushed -= 8;
        emit_1(c, 0x9d); /* popfq */
    } else if (not .p66 && count > 16) {
        emit_op(c, not, 2, result);
    }
}

void jit_poison_undefined(struct jit_work *w, const struct insn *in, struct rm result)
{
    bool late = in->nopd == 0 || in->opd[in->nopd - 1].kind != OPD_IMM;
    unsigned bits = in->opd[0].size * 8U, count = (unsigned)in->imm & (bits == 64 ? 63 : 31);
    const struct op not = {.op = 0xf7, .p66 = bits == 16, .w = bits == 64};
    uint32_t flags = 0;

    if (!w->j->poison) {
        return;
    }
    for (const struct undefined_result *u = undefined_results;
         u->mnemonic != ZYDIS_MNEMONIC_INVALID; u++) {
        if (u->mnemonic == in->mnemonic) {
            poison_result(w, u->when, not, result, late, count);
        }
    }
    for (const struct undefined_flags *u = undefined_flags; u->mnemonic != ZYDIS_MNEMONIC_INVALID;
         u++) {
        if (u->mnemonic == in->mnemonic && is_undefined(u->when, late, count, bits)) {
            flags |= u->flags;
        }
    }
    if (flags != 0) {
        jit_poison(w, flags);
    }
}

void jit_want_host_flags(struct jit_work *w)
{
    if (w->lost) {
        jit_remake(w, w->maker);
    } else if (!w->in_host) {
        jit_load_flags(w->c);
    }
}
