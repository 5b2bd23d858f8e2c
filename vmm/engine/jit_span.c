/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_span.c - an instruction that spans two pages, as the last of a translation. No
 * decoded block has it. Its bytes are compared each time before it is executed, if its second page
 * may be fetched from where it was when it was translated: so whatever becomes of either page, what
 * is executed is what stands there (R7). Else the translation ends before it. See jit_work.h. */
#include "base/alloc.h"
#include "vmm/cpu/seg.h"
#include "vmm/engine/jit_work.h"

/* The memory of linear page @page, if it may be fetched from without any effect; else NULL. */
static const uint8_t *fetchable(const struct vcpu *v, gva_t page)
{
    const struct tlb_entry *e = &v->tlb_code[page >> PAGE_SHIFT & v->tlb_mask];

    return e->xtag == page ? e->hva : NULL;
}

static bool decode(const struct vcpu *v, struct jit_span *s, const uint8_t *first, uint64_t rip)
{
    const uint8_t *second = fetchable(v, PAGE_BASE(rip) + PAGE_SIZE);
    struct insn *in = &s->insn;

    s->first = first;
    s->have = (uint8_t)(PAGE_SIZE - PAGE_OFFSET(rip));
    if (second == NULL || s->have >= INSN_BYTES_MAX ||
        decode_insn(v->model, DECODE_64, first, s->have, in) == 0) {
        return false;
    }
    memcpy(s->bytes, first, s->have);
    memcpy(s->bytes + s->have, second, (size_t)INSN_BYTES_MAX - s->have);
    return decode_insn(v->model, DECODE_64, s->bytes, INSN_BYTES_MAX, in) == 0 &&
           (in->flags & (INSN_BAD | INSN_ENDS_BLOCK)) == 0 && in->len > s->have &&
           ((in->flags & INSN_BRANCH) == 0 || in->opd[0].kind != OPD_IMM ||
            cpu_canonical(rip + in->len + in->imm));
}

struct jit_span *jit_span_find(const struct vcpu *v, const uint8_t *first, uint64_t rip)
{
    struct jit_span *s =
        PAGE_SIZE - PAGE_OFFSET(rip) < INSN_BYTES_MAX ? plx_calloc(1, sizeof *s) : NULL;

    if (s != NULL && !decode(v, s, first, rip)) {
        plx_free(s);
        return NULL;
    }
    return s;
}

/* On to @x unless the @n bytes at host register @reg plus @off are @bytes; uses T0. */
static void compare(struct jit_code *c, struct jit_exit *x, unsigned reg, const uint8_t *bytes,
                    unsigned n)
{
    unsigned step = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;

    for (unsigned at = 0;;) {
        uint64_t want = 0;
        memcpy(&want, bytes + at, step);
        emit_mov_imm(c, HOST_T0, want);
        emit_op(c,
                (struct op){.op = step == 1 ? 0x3a : 0x3b, /* cmp */
                            .w = step == 8,
                            .p66 = step == 2},
                HOST_T0, rm_at(reg, (int32_t)at));
        x->from[x->n++] = emit_jump(c, 0x85, 0);
        if (at + step == n) {
            return;
        }
        at = at + 2 * step <= n ? at + step : n - step; /* perhaps some bytes again */
    }
}

void jit_span_check(struct jit_work *w)
{
    struct jit_code *c = w->c;
    const struct jit_span *s = w->span;
    gva_t page = PAGE_BASE(w->at[w->i]) + PAGE_SIZE;
    int32_t entry = (int32_t)((page >> PAGE_SHIFT & w->v->tlb_mask) << 5);
    struct jit_exit *x = &w->exit[w->nexits++];

    *x = (struct jit_exit){.rip = w->at[w->i], .insn = w->i - 1};
    if (w->in_host) {
        jit_save_flags(w, false);
        w->in_host = false;
    }
    emit_mov_imm(c, HOST_T1, (uint64_t)(uintptr_t)s->first);
    compare(c, x, HOST_T1, s->bytes, s->have);
    emit_mov_imm(c, HOST_T0, page);
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(offsetof(struct vcpu, tlb_code)));
    emit_q(c, 0x3b, HOST_T0,
           rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, xtag))); /* cmp */
    x->from[x->n++] = emit_jump(c, 0x85, 0);
    emit_q(c, OP_MOV_LOAD, HOST_T1,
           rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, hva)));
    compare(c, x, HOST_T1, s->bytes + s->have, s->insn.len - s->have);
}
