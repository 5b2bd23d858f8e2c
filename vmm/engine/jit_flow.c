/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_flow.c - jumps, calls and returns; out of translated code and to the interpreter.
 * See jit_work.h. */
#include "vmm/engine/interp.h"
#include "vmm/engine/jit_work.h"

void jit_set_rip(struct jit_code *c, uint64_t rip)
{
    emit_mov_imm(c, HOST_T1, rip);
    emit_q(c, OP_MOV_STORE, HOST_T1, rm_vcpu(offsetof(struct vcpu, c.rip)));
}

void jit_leave(struct jit_work *w, const struct jit_edge *e)
{
    emit_mov_imm(w->c, HOST_T0, (uint64_t)(uintptr_t)e);
    emit_jump(w->c, JUMP, w->j->leave);
}

void jit_charge(struct jit_code *c, bool more, uint32_t n)
{
    emit_q(c, 0x81, more ? 0 : 5, rm_reg(HOST_BUDGET)); /* add, sub */
    emit_4(c, n);
}

void jit_call_out(struct jit_work *w, unsigned i)
{
    struct jit_code *c = w->c;

    jit_x87_fip(w, i);
    jit_give_back(w);
    if (i > 0 && w->form[i - 1].kind == FORM_STI) {
        emit_op(c, (struct op){.op = 0xc6}, 0, rm_vcpu(offsetof(struct vcpu, c.sti_shadow)));
        emit_1(c, SHADOW_EXPIRES);
    }
    jit_set_rip(c, w->at[i]);
    emit_mov_imm(c, HOST_T0, (uint64_t)(uintptr_t)w->insn[i]);
    emit_mov_imm(c, HOST_T1, w->n - 1 - i);
    emit_jump(c, CALL, w->j->call[w->t->vectors][w->x87]);
}

void jit_count_called(struct jit_work *w, const struct insn *in)
{
    emit_mov_imm(w->c, HOST_T0, (uint64_t)(uintptr_t)&w->j->called[in->mnemonic]);
    emit_q(w->c, 0xff, 0, rm_at(HOST_T0, 0)); /* inc */
}

static bool same_page(const struct jit_work *w, uint64_t rip)
{
    return PAGE_BASE(rip) == PAGE_BASE(w->t->rip);
}

/* Leave for the page of @rip only if its fetch tag leads to memory whose address is filled in when
 * the edge is linked. */
static void look_at_page(struct jit_work *w, struct jit_edge *e)
{
    struct jit_code *c = w->c;
    int32_t entry = (int32_t)((e->rip >> PAGE_SHIFT & w->v->tlb_mask) << 5);

    e->look = c->at;
    emit_mov_imm(c, HOST_T0, PAGE_BASE(e->rip));
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(offsetof(struct vcpu, tlb_code)));
    emit_q(c, 0x3b, HOST_T0,
           rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, xtag))); /* cmp */
    w->unlike[0] = emit_jump(c, 0x85, 0);
    emit_1(c, 0x49); /* mov t0, imm64 */
    emit_1(c, 0xb8 | (HOST_T0 & 7));
    e->hva = c->at;
    emit_8(c, 0);
    emit_q(c, 0x3b, HOST_T0, rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, hva)));
    w->unlike[1] = emit_jump(c, 0x85, 0);
}

static void charge_within(struct jit_work *w, uint32_t n)
{
    emit_q(w->c, 0x81, 5, jit_budget(w)); /* sub */
    emit_4(w->c, n);
}

/* The budget does not last for all of it once more. */
static void leave_at_beginning(struct jit_work *w)
{
    jit_give_back(w);
    jit_charge(w->c, true, w->t->n);
    jit_set_rip(w->c, w->t->rip);
    jit_leave(w, NULL);
}

/* From the end of the planned way, where the budget has been charged, to its beginning. */
static void go_around(struct jit_work *w)
{
    unsigned last = w->i;

    w->i = 0;
    jit_check_again(w);
    emit_jump(w->c, JUMP, w->body);
    w->i = last;
}

/* To the beginning of the translation itself: what is lent stays so. Where there is a plain way,
 * only the end of the planned one leads there from it: ways out in the middle are emitted later. */
static void again(struct jit_work *w, unsigned refund)
{
    charge_within(w, w->t->n - refund);
    if (w->way == JIT_PLANNED) {
        uint32_t out = emit_jump(w->c, 0x8c, 0); /* jl */
        go_around(w);
        emit_aim(w->c, out, w->c->at);
    } else {
        emit_jump(w->c, 0x8d, w->inner); /* jge */
    }
    leave_at_beginning(w);
}

void jit_edge(struct jit_work *w, uint64_t rip, unsigned refund)
{
    struct jit_code *c = w->c;
    struct jit_edge *e = &w->t->edge[w->t->nedges];

    if (rip == w->t->rip) {
        again(w, refund);
        return;
    }
    *e = (struct jit_edge){.from = w->t, .rip = rip, .refund = refund};
    w->t->nedges++;
    jit_give_back(w);
    if (!same_page(w, rip)) {
        look_at_page(w, e);
    }
    e->jump = c->at;
    jit_charge(c, false, 0);
    emit_jump(c, 0x88, 0); /* js */
    emit_jump(c, JUMP, 0);
    e->undo = c->at;
    jit_charge(c, true, 0);
    e->leave = c->at;
    if (refund != 0) {
        jit_charge(c, true, refund);
    }
    if (e->look != 0) {
        emit_aim(c, w->unlike[0], e->leave);
        emit_aim(c, w->unlike[1], e->leave);
    }
    jit_set_rip(c, rip);
    jit_leave(w, e);
    jit_link(w->j, e, NULL, NULL);
}

void jit_look_up_jump(struct jit_code *c, uint32_t unlike[2])
{
    uint32_t other;

    _Static_assert(sizeof(struct jit_jump) == 32, "1 << 5");
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_shift(c, true, SHIFT_RIGHT, HOST_T1, JIT_JUMPS_FOLD);
    emit_d(c, OP_XOR_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_d(c, 0x81, 4, rm_reg(HOST_T1)); /* and */
    emit_4(c, JIT_JUMPS - 1);
    emit_shift(c, true, SHIFT_LEFT, HOST_T1, 5);
    emit_q(c, OP_ADD_LOAD, HOST_T1, rm_vcpu(offsetof(struct vcpu, jit_run.jumps)));
    emit_q(c, 0x3b, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, rip)));
    unlike[0] = emit_jump(c, 0x85, 0);
    emit_d(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, slot)));
    emit_q(c, OP_ADD_LOAD, HOST_T0, rm_vcpu(offsetof(struct vcpu, tlb_code)));
    emit_1(c, 0x50); /* push rax */
    c->pushed += 8;
    emit_q(c, OP_MOV_LOAD, RAX, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, rip)));
    emit_q(c, 0x81, 4, rm_reg(RAX)); /* and */
    emit_4(c, (uint32_t)-PAGE_SIZE);
    emit_q(c, 0x3b, RAX, rm_at(HOST_T0, (int32_t)offsetof(struct tlb_entry, xtag)));
    other = emit_jump(c, 0x85, 0);
    emit_q(c, OP_MOV_LOAD, RAX, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, hva)));
    emit_q(c, 0x3b, RAX, rm_at(HOST_T0, (int32_t)offsetof(struct tlb_entry, hva)));
    emit_aim(c, other, c->at);
    c->pushed -= 8;
    emit_1(c, 0x58); /* pop rax: the flags stay */
    unlike[1] = emit_jump(c, 0x85, 0);
}

/* The same; the interpreter has the rest. */
static void look_up_jump(struct jit_work *w)
{
    uint32_t unlike[2];

    jit_look_up_jump(w->c, unlike);
    jit_slow_from(w, unlike[0]);
    jit_slow_from(w, unlike[1]);
}

void jit_do_ret(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    emit_q(c, OP_MOV_LOAD, HOST_T0, jit_access(w));
    look_up_jump(w);
    jit_give_back(w);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8 + (int32_t)(in->imm & 0xffff));
    emit_d(c, 0xff, 4, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, code))); /* jmp */
}

void jit_do_jump_to(struct jit_work *w, const struct form *f)
{
    struct jit_code *c = w->c;
    int32_t code = (int32_t)offsetof(struct jit_jump, code);

    jit_load_rm(w, f);
    look_up_jump(w);
    if (f->kind == FORM_CALL_TO) {
        emit_q(c, OP_MOV_LOAD, HOST_T1, rm_at(HOST_T1, code));
        emit_q(c, OP_MOV_STORE, HOST_T1, JIT_KEPT);
        jit_push_kept(w, false, w->next);
        jit_give_back(w);
        emit_d(c, 0xff, 4, JIT_KEPT); /* jmp */
    } else {
        jit_give_back(w);
        emit_d(c, 0xff, 4, rm_at(HOST_T1, code)); /* jmp */
    }
}

void jit_do_jcc(struct jit_work *w, const struct insn *in, bool in_host)
{
    if (!in_host) {
        jit_load_flags(w->c);
    }
    uint32_t taken = emit_jump(w->c, 0x80 | (in->opcode & 15U), 0);
    jit_edge(w, w->next, 0);
    emit_aim(w->c, taken, w->c->at);
    jit_edge(w, w->next + in->imm, 0);
}

bool jit_goes_around(const struct jit_work *w)
{
    return w->way == JIT_PLANNED && w->form[w->i].kind == FORM_JCC && w->in_host && w->maker != 0 &&
           w->live[0] == 0 && w->next + w->insn[w->i]->imm == w->t->rip;
}

void jit_do_loop(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;
    bool no_af = w->no_af;
    uint32_t done = emit_jump(c, 0x80 | ((in->opcode & 15U) ^ 1), 0);

    charge_within(w, w->t->n);
    uint32_t out = emit_jump(c, 0x8c, 0); /* jl, with sub one to the processor */
    w->lost = true;
    go_around(w);
    emit_aim(c, out, c->at);
    jit_remake(w, w->maker);
    jit_save_flags(w, false);
    leave_at_beginning(w);
    emit_aim(c, done, c->at);
    w->no_af = no_af;
    jit_save_flags(w, false);
    jit_edge(w, w->next, 0);
}

void jit_do_inner_jcc(struct jit_work *w, const struct insn *in)
{
    bool taken = w->at[w->i + 1] != w->next;
    unsigned cc = (in->opcode & 15U) ^ (taken ? 1U : 0U);

    jit_want_host_flags(w);
    w->exit[w->nexits++] = (struct jit_exit){.from = {emit_jump(w->c, 0x80 | cc, 0)},
                                             .n = 1,
                                             .rip = w->next + (taken ? 0 : in->imm),
                                             .insn = w->i,
                                             .in_host = w->in_host,
                                             .no_af = w->no_af};
}

void jit_emit_exits(struct jit_work *w)
{
    for (unsigned k = 0; k < w->nexits; k++) {
        const struct jit_exit *x = &w->exit[k];
        for (unsigned i = 0; i < x->n; i++) {
            emit_aim(w->c, x->from[i], w->c->at);
        }
        if (x->in_host) {
            w->no_af = x->no_af;
            jit_save_flags(w, false);
        }
        jit_x87_fip(w, x->insn + 1);
        jit_edge(w, x->rip, w->n - 1 - x->insn);
    }
}

void jit_do_call(struct jit_work *w, const struct insn *in)
{
    jit_push_kept(w, false, w->next);
    if (w->i + 1 == w->n) {
        jit_edge(w, w->next + in->imm, 0);
    }
}
