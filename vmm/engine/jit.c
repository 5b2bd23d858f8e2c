/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit.c - the engine: enters translations, makes and links them, forgets them. */
#include "vmm/engine/jit.h"

#include <cpuid.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/mem.h"
#include "vmm/cpu/sse.h"
#include "vmm/engine/interp.h"
#include "vmm/engine/jit_work.h"

enum { CODE_SIZE = 64 << 20, CODE_RESERVE = 128 << 10, CODE_SMALL = 2 * CODE_RESERVE };

/* --- translations ----------------------------------------------------------------------------- */

void jit_link(struct jit *j, struct jit_edge *e, struct translation *t, const uint8_t *hva)
{
    struct jit_code *c = &j->code;
    uint32_t at = e->jump;

    e->to = t;
    if (t == NULL) {
        if (at + 5 <= c->size) {
            c->rw[at] = JUMP;
            emit_aim(c, at + 1, e->leave);
        }
        return;
    }
    if (e->look != 0) {
        memcpy(c->rw + e->hva, &hva, sizeof hva);
    }
    e->next_in = t->in;
    t->in = e;
    memcpy(c->rw + at, (const uint8_t[]){0x49, 0x81, 0xed}, 3); /* sub budget, n */
    patch_4(c, at + 3, t->n - e->refund);
    emit_aim(c, at + 9, e->undo);
    emit_aim(c, at + 14, t->body);
    patch_4(c, e->undo + 3, t->n - e->refund);
}

/* e->to loses it; the code is as before it was linked, or goes. */
static void take_from_target(struct jit_edge *e)
{
    for (struct jit_edge **at = &e->to->in; *at != NULL; at = &(*at)->next_in) {
        if (*at == e) {
            *at = e->next_in;
            return;
        }
    }
}

static struct jit_jump *jump_of(const struct jit *j, uint64_t rip)
{
    return &j->jumps[(rip ^ rip >> JIT_JUMPS_FOLD) % JIT_JUMPS];
}

/* It is none of its blocks' any more. */
static void take_from_blocks(struct translation *t)
{
    struct translation *before = t->block->translation;

    if (before == t) {
        t->block->translation = t->places;
    } else {
        while (before->places != t) {
            before = before->places;
        }
        before->places = t->places;
    }
    for (unsigned i = 0; i < t->nparts; i++) {
        struct jit_part *first = t->part[i].block->within;
        if (first == &t->part[i]) {
            t->part[i].block->within = first->next;
            continue;
        }
        while (first->next != &t->part[i]) {
            first = first->next;
        }
        first->next = t->part[i].next;
    }
}

static void drop(struct jit *j, struct translation *t)
{
    struct jit_jump *jump = jump_of(j, t->rip);

    j->drops++;
    if (jump->code == j->code.rx + t->entry) {
        *jump = (struct jit_jump){0};
    }
    while (t->in != NULL) {
        struct jit_edge *e = t->in;
        t->in = e->next_in;
        jit_link(j, e, NULL, NULL);
    }
    for (unsigned i = 0; i < t->nedges; i++) {
        if (t->edge[i].to != NULL) {
            take_from_target(&t->edge[i]);
        }
    }
    take_from_blocks(t);
    if (t->span != NULL) {
        t->span->next = j->spans_gone;
        j->spans_gone = t->span;
    }
    plx_free(t);
}

void jit_spans_free(struct jit *j)
{
    while (j->spans_gone != NULL) {
        struct jit_span *next = j->spans_gone->next;
        plx_free(j->spans_gone);
        j->spans_gone = next;
    }
}

static void translation_drop(struct jit *j, struct block *block)
{
    while (block->within != NULL) {
        drop(j, ((struct jit_part *)block->within)->t);
    }
}

/* The translation to enter at RIP; makes one of what has been run often. */
static struct translation *find(struct vcpu *v, struct block *block)
{
    struct jit *j = v->jit;
    struct translation *t = jit_translation_at(block, v->c.rip);
    unsigned n = 0;

    if (t != NULL) {
        return t;
    }
    if (++block->heat < JIT_HEAT) {
        return NULL;
    }
    block->heat = 0;
    jit_code_reserve(&j->code, CODE_RESERVE);
    for (t = block->translation; t != NULL && ++n < JIT_PLACES;) {
        t = t->places;
    }
    if (t != NULL) { /* the oldest */
        drop(j, t);
    }
    return jit_translate(v, j, block);
}

/* Blocks are forgotten with the code: their memory is used again. */
static void make_room(struct vcpu *v)
{
    struct jit *j = v->jit;

    vcpu_blocks_drop(v);
    j->code.at = j->shared_end;
    j->code.nsites = 0;
    j->code.full = false;
}

/* What is translated assumes this beside 64-bit mode: no #AC, tables of more than one entry. */
static bool translates(const struct vcpu *v)
{
    return cpu_is64(&v->c) && v->tlb_mask != 0 &&
           ((v->c.rflags & FLAG_AC) == 0 || (v->c.cr0 & CR0_AM) == 0 || cpu_cpl(&v->c) != 3);
}

/* May what counts for @n and wants @vectors and (@x87) x87 registers be entered now? */
static bool enterable(const struct vcpu *v, unsigned n, enum jit_vectors vectors, bool x87)
{
    return n <= v->stop_progress - v->c.progress && jit_vectors_usable(v, vectors) &&
           (!x87 || jit_x87_usable(v));
}

/* What has been entered at RIP before, if it can be now; else NULL. May raise what a fetch does. */
static const struct jit_jump *entered(struct vcpu *v)
{
    const struct jit_jump *to = jump_of(v->jit, v->c.rip);
    const struct tlb_entry *e = &v->tlb_code[v->c.rip >> PAGE_SHIFT & v->tlb_mask];

    if (v->attention || !translates(v) || to->rip != v->c.rip) {
        return NULL;
    }
    if (e->xtag != PAGE_BASE(v->c.rip)) {
        (void)mem_fetch(v, v->c.rip); /* which may have dropped it */
    }
    return !v->attention && e->xtag == PAGE_BASE(to->rip) && e->hva == to->hva &&
                   enterable(v, to->n, to->vectors, to->x87)
               ? to
               : NULL;
}

static const struct jit_jump *enter_from_now_on(struct jit *j, const struct vcpu *v,
                                                const struct translation *t, const uint8_t *hva)
{
    struct jit_jump *to = jump_of(j, t->rip);

    *to = (struct jit_jump){
        .rip = t->rip,
        .code = j->code.rx + t->entry,
        .hva = hva,
        .slot = (uint32_t)((t->rip >> PAGE_SHIFT & v->tlb_mask) * sizeof(struct tlb_entry)),
        .n = (uint16_t)t->n,
        .vectors = t->vectors,
        .x87 = t->x87};
    return to;
}

/* For a trace: what comes next is a translation, once, or an instruction. They stay linked to one
 * another, so it is the budget that ends what is run. */
static void withhold(struct vcpu *v)
{
    unsigned n;
    struct block *block = block_of(block_at(v, &n));
    const struct translation *t =
        block == NULL || !translates(v) ? NULL : jit_translation_at(block, v->c.rip);
    uint64_t left = v->stop_progress - v->c.progress;
    uint64_t most = t == NULL || !enterable(v, t->n, t->vectors, t->x87) ? 1 : t->n;

    v->withheld = left - (most < left ? most : left);
    v->stop_progress -= v->withheld;
}

void jit_run_blocks(struct vcpu *v)
{
    static const struct insn nothing;
    struct jit *j = v->jit;
    struct jit_edge *from = NULL;
    uint64_t drops = 0;
    const struct insn *last;

    v->jit_run.jumps = j->jumps;
    if (PLX_UNLIKELY(v->trace != NULL)) {
        withhold(v);
    }
    do {
        unsigned n;
        if (j->code.size - j->code.at < CODE_RESERVE) {
            make_room(v);
        }
        bool link = from != NULL && drops == j->drops && from->to == NULL;
        const struct jit_jump *to = link ? NULL : entered(v);
        if (to == NULL) {
            const struct insn *first = block_at(v, &n);
            struct block *block = v->attention || !translates(v) ? NULL : block_of(first);
            struct translation *t = block == NULL ? NULL : find(v, block);
            if (t == NULL || !enterable(v, t->n, t->vectors, t->x87)) {
                uint64_t before = v->c.retired;
                last = interp_block(v, first, n);
                j->interpreted += v->c.retired - before;
                from = NULL;
                continue;
            }
            const uint8_t *hva = ram_page_hva(v->ram, block->gpa);
            if (link && drops == j->drops && from->rip == t->rip &&
                (from->look != 0 || PAGE_BASE(from->from->block->gpa) == PAGE_BASE(block->gpa))) {
                jit_link(j, from, t, hva);
            }
            to = enter_from_now_on(j, v, t, hva);
        }
        drops = j->drops;
        v->cur = NULL;
        v->jit_run.overflow = (v->c.rflags & FLAG_OF) != 0;
        v->jit_run.bias = v->c.retired - v->c.progress;
        from = j->enter(v, to->code);
        if (v->jit_run.x87_live) {
            jit_x87_store(v);
        }
        v->c.rflags = (v->c.rflags & ~FLAG_OF) | (uint64_t)v->jit_run.overflow << 11;
        /* What was called and ended it; what is not called sets attention if need be. */
        last = v->cur != NULL ? v->cur : &nothing;
    } while (interp_goes_on(v, last) && v->trace == NULL);
}

/* --- counters -------------------------------------------------------------------------------- */

static void enter_top(struct jit_counters *out, unsigned mnemonic, uint64_t called)
{
    unsigned at = JIT_FORMS_TOP;

    while (at > 0 && called > out->top[at - 1].called) {
        if (at < JIT_FORMS_TOP) {
            out->top[at] = out->top[at - 1];
        }
        at--;
    }
    if (at < JIT_FORMS_TOP) {
        out->top[at].mnemonic = ZydisMnemonicGetString((ZydisMnemonic)mnemonic);
        out->top[at].called = called;
    }
}

void jit_count(struct vcpu *const v[], unsigned n, struct jit_counters *out)
{
    const struct jit *all[CODE_USERS_MAX + 1];
    unsigned njits = 0;

    *out = (struct jit_counters){0};
    for (unsigned i = 0; i < n; i++) {
        if (v[i]->own.jit != NULL) {
            all[njits++] = v[i]->own.jit;
        }
    }
    if (njits != 0 && v[0]->common != NULL) {
        all[njits++] = v[0]->common->code.jit;
    }
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        uint64_t called = 0;
        for (unsigned i = 0; i < njits; i++) {
            called += all[i]->called[m];
        }
        out->called += called;
        enter_top(out, m, called);
    }
    for (unsigned i = 0; i < njits; i++) {
        out->missed += all[i]->calls;
        out->interpreted += all[i]->interpreted;
    }
    out->missed -= out->called;
}

char *jit_forms_text(const struct jit_counters *c, char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < JIT_FORMS_TOP && c->top[i].mnemonic != NULL && at < size; i++) {
        int n = snprintf(text + at, size - at, "%s%s=%" PRIu64, i == 0 ? "" : " ",
                         c->top[i].mnemonic, c->top[i].called);
        at += n > 0 ? (size_t)n : 0;
    }
    return text;
}

/* --- the engine ------------------------------------------------------------------------------- */

static void destroy(struct jit *j)
{
    if (j != NULL) {
        jit_spans_free(j);
        jit_code_destroy(&j->code);
        plx_free(j->jumps);
        plx_free(j);
    }
}

/* What pollux-v3 adds and translated code uses. */
static bool host_has_v3(void)
{
    unsigned a, b, basic = 0, extended = 0, d;

    return __get_cpuid(1, &a, &b, &basic, &d) != 0 && (basic & bit_MOVBE) != 0 &&
           __get_cpuid(0x80000001, &a, &b, &extended, &d) != 0 && (extended & bit_LZCNT) != 0 &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

static int create(struct code *code, enum cpu_model model, uint32_t size)
{
    struct jit *j = plx_calloc(1, sizeof *j);

    if (j == NULL || (j->jumps = plx_calloc(JIT_JUMPS, sizeof *j->jumps)) == NULL ||
        jit_code_create(&j->code, size) != 0) {
        destroy(j);
        return PLX_ENOMEM;
    }
    j->v3 = model == CPU_POLLUX_V3 && host_has_v3();
    jit_code_reserve(&j->code, CODE_RESERVE);
    jit_emit_shared(j);
    j->shared_end = j->code.at;
    blocks_translated(code, j, translation_drop);
    return 0;
}

static void jit_destroy(struct vcpu *v)
{
    struct jit *j = v == NULL ? NULL : v->own.jit, *common = NULL;

    if (v != NULL && v->common != NULL && v->common->nusers == 1) {
        common = v->common->code.jit;
        v->common->code.jit = NULL;
    }
    engine_interp.destroy(v); /* drops the translations */
    destroy(j);
    destroy(common);
}

static int jit_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    uint32_t size = cfg->cache_entries == 0 ? CODE_SIZE : CODE_SMALL;
    struct vcpu *v;
    int rc = engine_interp.create(cfg, &v, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    if (create(&v->own, v->model, size) != 0 || (v->common != NULL && v->common->code.jit == NULL &&
                                                 create(&v->common->code, v->model, size) != 0)) {
        jit_destroy(v);
        return plx_fail(err, PLX_ENOMEM, "no memory for translated code");
    }
    jit_perf_note(&v->own.jit->code, 0, "vcpu", v->id);
    v->jit_run.mxcsr_host = MXCSR_HOST;
    v->run_blocks = jit_run_blocks;
    blocks_select(v);
    *out = v;
    return 0;
}

const struct engine_ops engine_jit = {
    .name = "jit",
    .create = jit_create,
    .destroy = jit_destroy,
    .run = interp_run,
    .drop = interp_drop,
    .state_changed = interp_state_changed,
    .revoke = interp_revoke,
    .settle = interp_settle,
};
