/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_block.c - one decoded block as host code. The rules are in jit.h. */

#include "base/alloc.h"
#include "vmm/cpu/seg.h"
#include "vmm/engine/jit_work.h"

enum { ALL = FLAGS_ARITH };

static bool accesses(const struct form *f)
{
    return (f->kind >= FORM_PUSH && f->kind <= FORM_DIV) || f->kind >= FORM_CALL_NEAR ||
           ((f->kind == FORM_MODRM || f->kind == FORM_SCAN) && f->mem);
}

/* Which flags are wanted where. A slow path wants them all: it may fault. */
static void find_live(struct jit_work *w, const uint8_t *bytes)
{
    uint32_t uncertain[BLOCK_INSNS_MAX];

    for (unsigned i = 0; i < w->n; i++) {
        form_of(&w->block->insns[i], bytes, &w->form[i], &uncertain[i]);
        bytes += w->block->insns[i].len;
        w->t->sse |= w->form[i].sse;
    }
    w->live[w->n] = ALL;
    for (unsigned i = w->n; i-- > 0;) {
        struct form *f = &w->form[i];
        if ((w->live[i + 1] & uncertain[i]) != 0) {
            f->kind = FORM_CALL;
        } else if (uncertain[i] == ALL) {
            f->reads = 0;
        }
        bool whole = f->kind == FORM_CALL || accesses(f);
        w->live[i] = whole ? ALL : (w->live[i + 1] & ~f->writes) | f->reads;
    }
}

/* One instruction. True: the block's end has been emitted. */
static bool translate_one(struct jit_work *w, const struct insn *in, const uint8_t *bytes)
{
    struct form *f = &w->form[w->i];
    struct jit_code *c = w->c;
    unsigned first_slow = w->nslow;
    bool keep_cf =
        f->flags == FLAGS_KEEP_CF && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_CF) != 0;
    bool rotated = (f->flags == FLAGS_ROL || f->flags == FLAGS_ROR) && f->kind == FORM_MODRM;
    bool merge = rotated && (w->live[w->i + 1] & (FLAG_CF | FLAG_OF)) != 0;
    bool shifted =
        f->flags >= FLAGS_SHL && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_OF) != 0;
    bool branch = f->kind >= FORM_JCC || (in->flags & (INSN_BRANCH | INSN_ENDS_BLOCK)) != 0;
    bool was_in_host = w->in_host;

    bool in_memory = f->flags == FLAGS_CF_OF || f->flags == FLAGS_CF || f->kind == FORM_SCAN;

    if (w->in_host && in_memory && w->live[w->i] == 0) {
        w->in_host = false; /* nobody wants them */
    }
    if (w->in_host &&
        (in_memory || f->kind == FORM_CALL || accesses(f) || keep_cf || merge || branch)) {
        jit_save_flags(w, f->kind == FORM_JCC);
    }
    switch (f->kind) {
    case FORM_NOTHING:
        break;
    case FORM_MODRM:
        jit_do_modrm(w, in, f, bytes);
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
        jit_do_push_mem(w, in, f);
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
    case FORM_SCAN:
        jit_do_scan(w, in, f, w->live[w->i + 1] != 0);
        break;
    case FORM_JCC:
        jit_do_jcc(w, in, was_in_host);
        return true;
    case FORM_JMP:
        jit_edge(w, w->next + in->imm);
        return true;
    case FORM_CALL_NEAR:
        jit_do_call(w, in);
        return true;
    case FORM_JMP_TO:
    case FORM_CALL_TO:
        jit_do_jump_to(w, in, f);
        return true;
    case FORM_RET:
        jit_do_ret(w, in);
        return true;
    default:
        jit_count_called(w, in);
        jit_call_out(w, w->i, w->rip);
        if (branch) {
            jit_leave(w, NULL);
            return true;
        }
        jit_lend(w);
        return false;
    }
    if (keep_cf) {
        jit_save_but_cf(c);
    } else if (merge) {
        jit_save_rotated(c, f, jit_result_host(w, f));
    } else if (shifted) {
        jit_save_shifted(c, f, jit_result_host(w, f));
        w->in_host = false;
    } else if (in_memory) {
        if (f->kind == FORM_MODRM && (w->live[w->i + 1] & f->writes) != 0) {
            jit_save_some(c, f);
        }
    } else if (f->writes != 0 && !rotated) {
        w->in_host = true;
        w->no_af = f->flags == FLAGS_NO_AF || f->flags >= FLAGS_SHL;
    }
    for (unsigned k = first_slow; k < w->nslow; k++) {
        w->slow[k].back = c->at;
        w->slow[k].load = w->in_host;
    }
    return false;
}

static void emit_slow_paths(struct jit_work *w)
{
    for (unsigned k = 0; k < w->nslow; k++) {
        struct jit_slow *s = &w->slow[k];
        uint64_t rip = w->t->rip;
        for (unsigned i = 0; i < s->insn; i++) {
            rip += w->block->insns[i].len;
        }
        emit_aim(w->c, s->from, w->c->at);
        jit_call_out(w, s->insn, rip);
        if (s->back == 0) { /* a call, whose function has set RIP */
            jit_leave(w, NULL);
            continue;
        }
        jit_lend(w);
        if (s->load) {
            jit_load_flags(w->c);
        }
        emit_jump(w->c, JUMP, s->back);
    }
}

/* The guest's XMM registers are in the host's, or the block is left to the interpreter by @undo. */
static void want_xmm(struct jit_work *w, uint32_t undo)
{
    struct jit_code *c = w->c;

    emit_op(c, (struct op){.op = 0x80}, 7,
            rm_gs(offsetof(struct vcpu, jit_run.xmm_live))); /* cmp */
    emit_1(c, 0);
    uint32_t live = emit_jump(c, 0x85, 0);
    emit_jump(c, CALL, w->j->load_xmm);
    emit_jump(c, 0x84, undo);
    emit_aim(c, live, c->at);
}

static bool targets_canonical(const struct block *b, uint64_t rip)
{
    const struct insn *last = &b->insns[b->n - 1];
    uint64_t end = rip;

    for (unsigned i = 0; i < b->n; i++) {
        end += b->insns[i].len;
    }
    return cpu_canonical(rip) && cpu_canonical(end) &&
           ((last->flags & INSN_BRANCH) == 0 || last->opd[0].kind != OPD_IMM ||
            cpu_canonical(end + last->imm));
}

/* Does the block's last instruction lead to its first? */
static bool leads_to_itself(const struct jit_work *w)
{
    const struct insn *last = &w->block->insns[w->n - 1];
    enum form_kind kind = w->form[w->n - 1].kind;
    uint64_t end = 0;

    for (unsigned i = 0; i < w->n; i++) {
        end += w->block->insns[i].len;
    }
    return (kind == FORM_JCC || kind == FORM_JMP) && end + last->imm == 0;
}

struct translation *jit_translate(struct vcpu *v, struct jit *j, struct block *block)
{
    struct translation *t = plx_calloc(1, sizeof *t);
    struct jit_work w = {.v = v, .c = &j->code, .block = block, .t = t, .n = block->n, .j = j};
    const uint8_t *bytes = ram_page_hva(v->ram, block->gpa);
    uint32_t start = j->code.at;
    bool ended = false;

    if (t == NULL || bytes == NULL || !targets_canonical(block, v->c.rip)) {
        plx_free(t);
        return NULL;
    }
    bytes += PAGE_OFFSET(block->gpa);
    t->block = block;
    t->rip = v->c.rip;
    t->n = block->n;
    find_live(&w, bytes);
    jit_lend_choose(&w, leads_to_itself(&w));
    t->entry = w.c->at;
    jit_charge(w.c, false, t->n);
    uint32_t enough = emit_jump(w.c, 0x89, 0); /* jns */
    uint32_t undo = w.c->at;
    jit_charge(w.c, true, t->n);
    jit_set_rip(w.c, t->rip);
    jit_leave(&w, NULL);
    emit_aim(w.c, enough, w.c->at);
    t->body = w.c->at;
    w.rip = t->rip;
    if (t->sse) {
        want_xmm(&w, undo);
    }
    jit_lend(&w);
    w.inner = w.c->at;
    for (w.i = 0; w.i < w.n && !ended; w.i++) {
        const struct insn *in = &block->insns[w.i];
        w.next = w.rip + in->len;
        ended = translate_one(&w, in, bytes);
        bytes += in->len;
        w.rip = w.next;
    }
    if (!ended) {
        if (w.in_host) {
            jit_save_flags(&w, false);
        }
        jit_edge(&w, w.rip);
    }
    emit_slow_paths(&w);
    if (j->code.full) {
        j->code.at = start;
        plx_free(t);
        return NULL;
    }
    jit_perf_note(w.c, start, "guest", t->rip);
    return t;
}
