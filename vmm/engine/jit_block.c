/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_block.c - a translation, from what jit_trace.c has found. The rules are in jit.h.
 */

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/seg.h"
#include "vmm/engine/jit_work.h"

enum { ALL = FLAGS_ARITH };

static bool accesses(const struct form *f)
{
    return (f->kind >= FORM_PUSH && f->kind <= FORM_BIT) || f->kind >= FORM_CALL_NEAR ||
           ((f->kind == FORM_MODRM || f->kind == FORM_SCAN) && f->mem);
}

/* It may be interpreted after all: it accesses memory that no check has seen, or can fail. */
static bool may_leave(const struct jit_work *w, unsigned i)
{
    const struct form *f = &w->form[i];
    bool covered = w->way == JIT_PLANNED && w->plan.covered[i] && f->kind != FORM_DIV &&
                   f->kind != FORM_X87_CW && (f->kind < FORM_JCC || f->kind == FORM_CALL_NEAR);

    return accesses(f) && !covered;
}

/* Which flags of the first @n instructions are wanted where, and what form that leaves them. A slow
 * path wants all: it may fault. So does a way out. */
static void find_live(struct jit_work *w, unsigned n)
{
    w->live[n] = ALL;
    for (unsigned i = n; i-- > 0;) {
        struct form *f = &w->form[i];
        *f = w->forms[i];
        if ((w->live[i + 1] & w->uncertain[i]) != 0) {
            f->kind = f->careful ? FORM_SHIFT : FORM_CALL;
        } else if (w->uncertain[i] == ALL) {
            f->reads = 0;
        }
        bool whole = f->kind == FORM_CALL || may_leave(w, i) || jit_spans(w, i);
        w->live[i] = whole ? ALL : (w->live[i + 1] & ~f->writes) | f->reads;
    }
}

/* It accesses memory, if any, without regard to a plan. */
static bool by_itself(const struct form *f)
{
    return f->kind == FORM_CALL || (f->kind == FORM_SHIFT && f->mem);
}

/* How far the planned way goes: all of the block if it is the only way, else as long as nothing
 * must be interpreted. */
static void plan(struct jit_work *w)
{
    w->way = JIT_PLANNED;
    w->reach = jit_plan_reach(w->forms, w->n);
    for (;;) {
        unsigned calls = 0;
        jit_plan_make(&w->plan, w->insn, w->forms, w->n, w->reach, w->at, w->loops);
        if (!w->plan.two_ways) {
            w->reach = w->n;
        }
        find_live(w, w->reach);
        while (calls < w->reach && !by_itself(&w->form[calls])) {
            calls++;
        }
        if (!w->plan.two_ways || calls == w->reach) {
            return;
        }
        w->reach = calls;
    }
}

/* Host flags that nobody may rely on behind the instruction under way become others. */
static void poison(struct jit_work *w)
{
    const struct form *f = &w->form[w->i];
    uint32_t mask = ALL;

    if (w->in_host) {
        mask = (w->no_af ? (uint32_t)FLAG_AF : 0) | w->uncertain[w->i];
        mask |= f->flags >= FLAGS_SHL ? (uint32_t)FLAG_OF : 0;
        mask |= f->flags == FLAGS_ROL || f->flags == FLAGS_ROR ? f->writes : 0;
    }
    jit_poison(w, mask);
}

/* One instruction. True: the block's end has been emitted. */
static bool translate_one(struct jit_work *w)
{
    const struct insn *in = w->insn[w->i];
    const uint8_t *bytes = w->bytes[w->i];
    struct form *f = &w->form[w->i];
    struct jit_code *c = w->c;
    bool keep_cf =
        f->flags == FLAGS_KEEP_CF && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_CF) != 0;
    bool rotated = (f->flags == FLAGS_ROL || f->flags == FLAGS_ROR) && f->kind == FORM_MODRM;
    bool merge = rotated && (w->live[w->i + 1] & (FLAG_CF | FLAG_OF)) != 0;
    bool shifted =
        f->flags >= FLAGS_SHL && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_OF) != 0;
    bool last = w->i + 1 == w->n;
    bool branch = last && (f->kind >= FORM_JCC || jit_ends(in));
    if (jit_spans(w, w->i)) {
        jit_span_check(w);
    }
    bool in_memory = f->flags == FLAGS_CF_OF || f->flags == FLAGS_CF || f->flags == FLAGS_SOME ||
                     (f->kind >= FORM_SHIFT && f->kind <= FORM_SCAN);

    if (w->live[w->i] == 0) { /* nobody wants them */
        w->in_host &= !in_memory;
        w->lost = false;
    }
    if (branch) {
        jit_x87_fip(w, w->i);
    }
    if (w->lost && branch) {
        jit_remake(w, w->maker);
    }
    if (branch && jit_goes_around(w)) {
        jit_do_loop(w, in);
        return true;
    }
    bool was_in_host = w->in_host;
    if (w->in_host && may_leave(w, w->i) &&
        jit_may_lose(w, w->way == JIT_PLANNED ? w->reach : w->n)) {
        w->in_host = false;
        w->lost = true;
    } else if (w->in_host && (in_memory || f->kind == FORM_CALL || may_leave(w, w->i) || keep_cf ||
                              merge || branch)) {
        jit_save_flags(w, f->kind == FORM_JCC);
    }
    bool keep_no_af = f->flags == FLAGS_ZF && w->in_host && w->no_af;
    switch (f->kind) {
    case FORM_NOTHING:
        break;
    case FORM_ZERO_YMM:
        jit_do_vex(w, f, bytes);
        break;
    case FORM_MODRM:
        jit_do_modrm(w, f, bytes);
        break;
    case FORM_FIXED:
        jit_do_fixed(w, f, bytes);
        break;
    case FORM_LOW3:
        jit_do_low3(w, f, bytes);
        break;
    case FORM_LEA:
        jit_do_lea(w, in);
        break;
    case FORM_PUSH:
        jit_do_push(w, f);
        break;
    case FORM_PUSH_IMM:
        jit_push_kept(w, false, in->imm);
        break;
    case FORM_PUSH_MEM:
        jit_do_push_mem(w, f);
        break;
    case FORM_POP:
        jit_do_pop(w, f);
        break;
    case FORM_LEAVE:
        jit_do_leave(w);
        break;
    case FORM_DIV:
        jit_do_div(w, in, f);
        break;
    case FORM_X87_CW:
        jit_do_x87_cw(w);
        break;
    case FORM_X87_FLAGS:
        jit_do_x87_flags(w, f);
        break;
    case FORM_SYS:
    case FORM_STI:
        jit_do_sys(w, in);
        break;
    case FORM_SHIFT:
        jit_do_shift(w, in, f);
        break;
    case FORM_BIT:
        jit_do_bit(w, in, f, (w->live[w->i + 1] & FLAG_CF) != 0);
        break;
    case FORM_SCAN:
        jit_do_scan(w, in, f, w->live[w->i + 1] != 0);
        break;
    case FORM_JCC:
        if (!last) {
            jit_do_inner_jcc(w, in);
            break;
        }
        jit_do_jcc(w, in, was_in_host);
        return true;
    case FORM_JMP:
        if (!last) {
            break;
        }
        jit_edge(w, w->next + in->imm, 0);
        return true;
    case FORM_CALL_NEAR:
        jit_do_call(w, in);
        if (!last) {
            break;
        }
        return true;
    case FORM_JMP_TO:
    case FORM_CALL_TO:
        jit_do_jump_to(w, f);
        return true;
    case FORM_RET:
        jit_do_ret(w, in);
        return true;
    case FORM_SYS_GO:
        jit_do_sys(w, in);
        return true;
    default:
        jit_count_called(w, in);
        jit_call_out(w, w->i);
        if (jit_ends(in)) {
            jit_leave(w, NULL);
            return true;
        }
        jit_lend(w);
        return false;
    }
    if (f->kind == FORM_MODRM || f->kind == FORM_FIXED) {
        int host = f->mem ? -1 : jit_host_of(w, f->rm);
        jit_poison_undefined(w, in,
                             f->mem      ? w->rm
                             : host >= 0 ? rm_reg((unsigned)host)
                                         : rm_vcpu(JIT_GPR(f->rm)));
    }
    if (keep_cf) {
        jit_save_but_cf(c);
    } else if (merge) {
        jit_save_rotated(c, f, jit_result_host(w, f));
    } else if (shifted) {
        jit_save_shifted(c, f, f->mem ? w->rm : rm_reg(jit_result_host(w, f)));
        w->in_host = false;
    } else if (in_memory) {
        if (f->kind == FORM_MODRM && (w->live[w->i + 1] & f->writes) != 0) {
            jit_save_some(c, f);
        }
    } else if (f->writes != 0 && !rotated) {
        w->in_host = true;
        w->no_af = f->flags == FLAGS_NO_AF || f->flags >= FLAGS_SHL || keep_no_af;
    }
    if (f->writes != 0) {
        w->lost = false;
        jit_note_flags(w);
    } else {
        jit_note_registers(w);
    }
    poison(w);
    w->after[w->way][w->i] = (struct jit_point){f->kind == FORM_STI ? 0 : c->at, w->in_host};
    return false;
}

/* To @p, with the flags in memory. */
static void go_to(struct jit_work *w, const struct jit_point *p)
{
    if (p->in_host) {
        jit_load_flags(w->c);
    }
    emit_jump(w->c, JUMP, p->at);
}

static void emit_slow_paths(struct jit_work *w)
{
    for (unsigned k = 0; k < w->nslow; k++) {
        const struct jit_slow *s = &w->slow[k];
        const struct jit_point *back = &w->after[s->way][s->insn];
        emit_aim(w->c, s->from, w->c->at);
        if (s->maker != 0) {
            jit_remake(w, s->maker);
            jit_save_flags(w, false);
        }
        if (s->skip) {
            go_to(w, &w->before[s->insn]);
            continue;
        }
        jit_call_out(w, s->insn);
        if (back->at == 0) { /* the function has set RIP */
            jit_charge(w->c, true, w->n - 1 - s->insn);
            jit_leave(w, NULL);
        } else {
            jit_lend(w);
            go_to(w, s->way == JIT_PLANNED && w->plan.two_ways ? &w->before[s->insn + 1] : back);
        }
    }
}

/* As much of the guest's XMM registers as it uses is in the host's, or the block is left to the
 * interpreter by @undo. */
static void want_xmm(struct jit_work *w, uint32_t undo)
{
    struct jit_code *c = w->c;

    emit_op(c, (struct op){.op = 0x80}, 7,
            rm_vcpu(offsetof(struct vcpu, jit_run.vectors))); /* cmp */
    emit_1(c, w->t->vectors - 1U);
    uint32_t live = emit_jump(c, 0x87, 0); /* ja */
    emit_jump(c, CALL, w->j->load[w->t->vectors]);
    emit_jump(c, 0x84, undo);
    emit_aim(c, live, c->at);
}

/* The same of x87. XMM registers that the host has are stored. */
static void want_x87(struct jit_work *w, uint32_t undo)
{
    struct jit_code *c = w->c;

    emit_op(c, (struct op){.op = 0x80}, 7,
            rm_vcpu(offsetof(struct vcpu, jit_run.x87_live))); /* cmp */
    emit_1(c, 0);
    uint32_t live = emit_jump(c, 0x85, 0);
    emit_jump(c, CALL, w->j->load_x87);
    emit_jump(c, 0x84, undo);
    emit_aim(c, live, c->at);
}

/* The first @n instructions. */
static void emit_way(struct jit_work *w, unsigned n)
{
    bool ended = false;

    w->in_host = w->lost = false;
    w->maker = 0;
    if (w->way == JIT_PLANNED) {
        w->i = 0;
        jit_check_early(w);
        w->body = w->c->at;
    }
    for (w->i = 0; w->i < n && !ended; w->i++) {
        w->next = w->at[w->i] + w->insn[w->i]->len;
        w->nth = 0;
        if (w->way == JIT_PLAIN) {
            w->before[w->i] = (struct jit_point){w->c->at, w->in_host};
        }
        ended = translate_one(w);
    }
    if (!ended) {
        if (w->way == JIT_PLAIN) {
            w->before[n] = (struct jit_point){w->c->at, w->in_host};
        }
        PLX_CHECK(!w->lost);
        if (w->in_host) {
            jit_save_flags(w, false);
        }
        if (n == w->n) {
            jit_x87_fip(w, n);
            jit_edge(w, w->next, 0);
        } else {
            w->i = n;
            jit_plain_from(w, emit_jump(w->c, JUMP, 0));
        }
    }
    jit_emit_misses(w);
}

/* The blocks of @w have it; it is what begins at the first. */
static void give_to_blocks(struct jit_work *w)
{
    struct translation *t = w->t;

    t->block = w->block[0];
    t->places = t->block->translation;
    t->block->translation = t;
    for (unsigned i = 0; i < w->nblocks; i++) {
        t->part[i] = (struct jit_part){t, w->block[i], w->block[i]->within};
        w->block[i]->within = &t->part[i];
    }
    t->nparts = w->nblocks;
}

struct translation *jit_translate(struct vcpu *v, struct jit *j, struct block *block)
{
    struct jit_work w = {.v = v, .c = &j->code, .j = j};
    uint32_t start = j->code.at;
    uint64_t rip = v->c.rip;
    unsigned edges = 2; /* of each way */

    jit_spans_free(j);
    if (!jit_trace(&w, block, rip)) {
        return NULL;
    }
    jit_x87_settle(&w);
    for (unsigned i = 0; i < w.n; i++) {
        edges += w.forms[i].kind == FORM_JCC;
        edges += jit_spans(&w, i);
    }
    struct translation *t = plx_calloc(1, sizeof *t + JIT_WAYS * edges * sizeof(struct jit_edge));
    if (t == NULL) {
        plx_free(w.span);
        return NULL;
    }
    w.t = t;
    t->span = w.span;
    t->rip = rip;
    t->n = w.n;
    t->vectors = w.vectors;
    t->x87 = w.x87;
    plan(&w);
    jit_lend_choose(&w);
    t->entry = w.c->at;
    jit_charge(w.c, false, t->n);
    uint32_t enough = emit_jump(w.c, 0x89, 0); /* jns */
    uint32_t undo = w.c->at;
    jit_charge(w.c, true, t->n);
    jit_set_rip(w.c, rip);
    jit_leave(&w, NULL);
    emit_aim(w.c, enough, w.c->at);
    t->body = w.c->at;
    if (t->x87) {
        want_x87(&w, undo);
    }
    if (t->vectors != JIT_NO_VECTORS) {
        want_xmm(&w, undo);
    }
    jit_lend(&w);
    w.inner = w.c->at;
    emit_way(&w, w.reach);
    if (w.plan.two_ways) {
        w.way = JIT_PLAIN;
        find_live(&w, w.n);
        emit_way(&w, w.n);
    }
    jit_emit_exits(&w);
    emit_slow_paths(&w);
    if (j->code.full) {
        j->code.at = j->code.size; /* so that the next one makes room */
        plx_free(t->span);
        plx_free(t);
        return NULL;
    }
    give_to_blocks(&w);
    jit_perf_note(w.c, start, "guest", rip);
    return t;
}
