/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_trace.c - which instructions make a translation: those of a decoded block, then
 * on along the way that is hot, through jumps and calls within the page; and a short loop several
 * times. See jit_work.h. */
#include "vmm/cpu/seg.h"
#include "vmm/engine/jit_work.h"

enum { LOOP_MAX = 72 /* instructions of all times around it */ };

/* Where the last instruction leads: *on is behind it, *to is its target or equals *on. False: it is
 * not known here. */
static bool ways_on(const struct jit_work *w, uint64_t *on, uint64_t *to)
{
    unsigned last = w->n - 1;
    const struct insn *in = w->insn[last];
    enum form_kind kind = w->forms[last].kind;

    *on = *to = w->at[last] + in->len;
    if (kind == FORM_JCC || kind == FORM_JMP || kind == FORM_CALL_NEAR) {
        *to += in->imm;
        *on = kind == FORM_JCC ? *on : *to;
        return cpu_canonical(*to);
    }
    return !jit_ends(in);
}

/* No jump of @block, which is at @rip, leads where RIP cannot. */
static bool stays_canonical(const struct block *block, uint64_t rip)
{
    const struct insn *last = &block->insns[block->n - 1];
    uint64_t end = rip;

    for (unsigned i = 0; i < block->n; i++) {
        end += block->insns[i].len;
    }
    return cpu_canonical(rip) && cpu_canonical(end) &&
           ((last->flags & INSN_BRANCH) == 0 || last->opd[0].kind != OPD_IMM ||
            cpu_canonical(end + last->imm));
}

static void append_one(struct jit_work *w, const struct insn *in, const uint8_t *bytes,
                       uint64_t rip)
{
    struct form *f = &w->forms[w->n];

    w->insn[w->n] = in;
    w->at[w->n] = rip;
    w->bytes[w->n] = bytes;
    form_of(in, bytes, w->j->v3, f, &w->uncertain[w->n]);
    uint8_t vectors = !f->sse ? JIT_NO_VECTORS : f->vex ? JIT_YMM : JIT_XMM;
    w->vectors = vectors > w->vectors ? vectors : w->vectors;
    w->n++;
}

static void append(struct jit_work *w, struct block *block, uint64_t rip)
{
    const uint8_t *bytes = ram_page_hva(w->v->ram, block->gpa) + PAGE_OFFSET(block->gpa);

    for (unsigned i = 0; i < block->n; i++) {
        const struct insn *in = &block->insns[i];
        append_one(w, in, bytes, rip);
        bytes += in->len;
        rip += in->len;
    }
    w->block[w->nblocks++] = block;
}

/* The block at @rip, if it goes on there: one that ran as often as this one and is not translated,
 * as others reach it too. */
static struct block *hot(const struct jit_work *w, uint64_t rip)
{
    if (PAGE_BASE(rip) != PAGE_BASE(w->at[0]) || w->nblocks == JIT_BLOCKS_MAX) {
        return NULL;
    }
    struct block *b =
        block_known(w->v, PAGE_BASE(w->block[0]->gpa) + PAGE_OFFSET(rip), w->block[0]->mode);
    if (b == NULL || jit_translation_at(b, rip) != NULL || b->heat < JIT_HEAT / 2 ||
        w->n + b->n > JIT_INSNS_MAX || !stays_canonical(b, rip)) {
        return NULL;
    }
    for (unsigned i = 0; i < w->nblocks; i++) {
        if (w->block[i] == b) {
            return NULL;
        }
    }
    return b;
}

/* The instruction at @rip, if it spans two pages; not behind an STI, whose shadow would be lost
 * where the translation ends before it after all. */
static bool append_spanning(struct jit_work *w, uint64_t rip)
{
    const struct block *first = w->block[0];
    const uint8_t *page = ram_page_hva(w->v->ram, first->gpa);

    if (w->span != NULL || w->n == JIT_INSNS_MAX || PAGE_BASE(rip) != PAGE_BASE(w->at[0]) ||
        w->forms[w->n - 1].kind == FORM_STI) {
        return false;
    }
    w->span = jit_span_find(w->v, page + PAGE_OFFSET(rip), rip);
    if (w->span == NULL) {
        return false;
    }
    append_one(w, &w->span->insn, w->span->bytes, rip);
    return true;
}

/* The whole of it again, as often as worth it. */
static void unroll(struct jit_work *w)
{
    unsigned once = w->n;

    for (unsigned k = 1; k < JIT_TIMES_MAX && w->n + once <= LOOP_MAX; k++) {
        for (unsigned i = 0; i < once; i++, w->n++) {
            w->insn[w->n] = w->insn[i];
            w->at[w->n] = w->at[i];
            w->bytes[w->n] = w->bytes[i];
            w->forms[w->n] = w->forms[i];
            w->uncertain[w->n] = w->uncertain[i];
        }
    }
}

bool jit_trace(struct jit_work *w, struct block *first, uint64_t rip)
{
    uint64_t on, to;

    if (ram_page_hva(w->v->ram, first->gpa) == NULL || !stays_canonical(first, rip)) {
        return false;
    }
    append(w, first, rip);
    while (ways_on(w, &on, &to)) {
        if (on == rip || to == rip) {
            w->loops = true;
            unroll(w);
            break;
        }
        struct block *a = hot(w, to), *b = on == to ? NULL : hot(w, on);
        struct block *next = a == NULL || (b != NULL && b->heat >= a->heat) ? b : a;
        if (next != NULL) {
            append(w, next, next == a ? to : on);
        } else if (!append_spanning(w, on) && !append_spanning(w, to)) {
            break;
        }
    }
    if (w->forms[w->n - 1].kind == FORM_STI) { /* what its shadow is over is not here */
        w->forms[w->n - 1].kind = FORM_CALL;
    }
    return true;
}
