/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_check.c - memory accesses as they were planned (jit_access.h). See jit_work.h.
 *
 * A check of an address that comes from memory looks into the entry of the shadow tables that it
 * found last; only if the address is not of that page it looks where the address leads. So nothing
 * it loads waits for the address. What such a check finds is the distance from linear to host
 * addresses in the page, which is added to the operand's registers; other checks find the host's
 * address of the first byte. It is kept for the accesses that need no check of their own, in a
 * register that was lent for it (jit_lend.c) or in memory.
 *
 * An entry without a tag is told by the low byte of what stands for it (shadow_no_tag), since its
 * page may be the one looked for: the distance's low byte is not 0, and has odd parity. */
#include "vmm/engine/jit_work.h"

#include "base/check.h"

_Static_assert(sizeof((struct vcpu){0}.jit_run.found) / sizeof(uint64_t) == JIT_GROUPS, "one each");

/* T0 = the linear address of @p, with @disp for p->disp; uses T1. */
static void linear(struct jit_work *w, const struct jit_place *p, int64_t disp)
{
    struct jit_code *c = w->c;

    if (p->fixed) {
        emit_mov_imm(c, HOST_T0, (uint64_t)disp);
        return;
    }
    PLX_CHECK(disp == (int32_t)disp);
    int base = p->base == REG_NONE ? -1 : (int)jit_load_reg(w, p->base, HOST_T0);
    int index = p->index == REG_NONE ? -1 : (int)jit_load_reg(w, p->index, HOST_T1);
    emit_lea(c, true, HOST_T0, base, index, p->scale, (int32_t)disp);
    if (p->seg_off != 0) {
        emit_q(c, OP_ADD_LOAD, HOST_T0, rm_gs(p->seg_off));
    }
}

/* A check fails; @skip: before the instruction is executed, the plain way. */
static void fail_from(struct jit_work *w, uint32_t from, bool skip)
{
    if (skip) {
        jit_plain_from(w, from);
    } else {
        jit_slow_from(w, from);
    }
}

/* The operand's address, in T0, must have none of the bits @aligned. */
static void check_aligned(struct jit_work *w, uint8_t aligned, bool skip)
{
    emit_op(w->c, (struct op){.op = 0xf6}, 0, rm_reg(HOST_T0)); /* test */
    emit_1(w->c, aligned);
    fail_from(w, emit_jump(w->c, 0x85, 0), skip);
}

/* T0 is compared with what the entry at offset T1 says of pages, and becomes the host's address, or
 * (late) the distance from linear to host addresses there; returns the jump if it is not there. */
static uint32_t compare(struct jit_work *w, const struct jit_miss *m)
{
    struct jit_code *c = w->c;
    uint32_t miss = jit_compare(w, m->span, m->write);

    if (m->aligned != 0) {
        check_aligned(w, m->aligned, m->skip);
    }
    if (!m->late) {
        emit_q(c, OP_ADD_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct tlb_entry, hva)));
        return miss;
    }
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct tlb_entry, hva)));
    emit_q(c, 0x2b, HOST_T0, rm_at(HOST_T1, jit_tag_of(m->write))); /* sub */
    return miss;
}

static void add_segment(struct jit_work *w, const struct jit_place *p)
{
    if (p->seg_off != 0) {
        emit_q(w->c, OP_ADD_LOAD, HOST_T0, rm_gs(p->seg_off));
    }
}

/* T0 = the host's address of the page of a fixed address. */
static void check_fixed(struct jit_work *w, uint64_t lin, bool write, bool skip)
{
    struct jit_code *c = w->c;
    int32_t entry = (int32_t)((lin >> PAGE_SHIFT & w->v->tlb_mask) << 5);
    int64_t page = (int64_t)PAGE_BASE(lin);

    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_gs(offsetof(struct vcpu, tlb)));
    if (page == (int32_t)page) {
        emit_q(c, 0x81, 7, rm_at(HOST_T1, entry + jit_tag_of(write))); /* cmp */
        emit_4(c, (uint32_t)page);
    } else {
        emit_mov_imm(c, HOST_T0, (uint64_t)page);
        emit_q(c, 0x3b, HOST_T0, rm_at(HOST_T1, entry + jit_tag_of(write))); /* cmp */
    }
    fail_from(w, emit_jump(c, 0x85, 0), skip);
    emit_q(c, OP_MOV_LOAD, HOST_T0,
           rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, hva)));
}

/* T0 = the host's address of the place with @what->disp, or, if that comes from memory, what is
 * added to its registers and displacement for it; of a fixed place that of its page. Only if the
 * bytes are there. */
static void check(struct jit_work *w, const struct jit_miss *what)
{
    struct jit_code *c = w->c;

    if (what->place.fixed) {
        check_fixed(w, (uint64_t)what->disp, what->write, what->skip);
        return;
    }
    linear(w, &what->place, what->disp);
    if (!what->late) { /* no entry without a tag has its page */
        jit_hash(w);
        fail_from(w, compare(w, what), what->skip);
        return;
    }
    struct jit_miss *m = &w->miss[w->nmiss++];
    *m = *what;
    m->insn = w->i;
    m->maker = jit_lost(w);
    m->site = emit_site(c);
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_site(m->site));
    m->from[0] = compare(w, m);
    m->from[1] = emit_jump(c, 0x8b, 0); /* jnp */
    add_segment(w, &m->place);
    m->back = c->at;
}

/* The entry that the address leads to, from now on; its page is that of no entry without a tag. */
static void emit_miss(struct jit_work *w, const struct jit_miss *m)
{
    struct jit_code *c = w->c;

    w->i = m->insn;
    w->lost = m->maker != 0;
    w->maker = m->maker;
    emit_aim(c, m->from[0], c->at);
    emit_aim(c, m->from[1], c->at);
    linear(w, &m->place, m->disp);
    jit_hash(w);
    emit_d(c, OP_MOV_STORE, HOST_T1, rm_site(m->site));
    fail_from(w, compare(w, m), m->skip);
    add_segment(w, &m->place);
    emit_jump(c, JUMP, m->back);
}

void jit_emit_misses(struct jit_work *w)
{
    for (unsigned k = 0; k < w->nmiss; k++) {
        emit_miss(w, &w->miss[k]);
    }
    w->nmiss = 0;
}

static struct rm slot_of(unsigned group)
{
    return rm_gs(offsetof(struct vcpu, jit_run.found) + group * sizeof(uint64_t));
}

/* Check group @n at @place, whose displacement stands for @at of the group. */
static void check_group(struct jit_work *w, unsigned n, const struct jit_place *place, int64_t at)
{
    const struct jit_group *g = &w->plan.group[n];
    uint64_t disp = (uint64_t)place->disp + (uint64_t)g->low - (uint64_t)at;

    check(w, &(struct jit_miss){.place = *place,
                                .disp = (int64_t)disp,
                                .span = (unsigned)((uint64_t)g->high - (uint64_t)g->low),
                                .write = g->write,
                                .aligned = g->aligned,
                                .late = g->late,
                                .skip = true});
    w->checked |= 1U << n;
    if (w->found[n] != 0) {
        emit_q(w->c, OP_MOV_LOAD, w->found[n], rm_reg(HOST_T0));
    } else {
        emit_q(w->c, OP_MOV_STORE, HOST_T0, slot_of(n));
    }
}

void jit_check_early(struct jit_work *w)
{
    for (unsigned n = 0; n < w->plan.ngroups; n++) {
        if (w->plan.group[n].early) {
            check_group(w, n, &w->plan.group[n].place, 0);
        }
    }
}

/* The operand at @a->place, @found being the distance that check gives, or of a fixed one the page.
 * Changes no flag; uses T0 and T1. */
static struct rm operand_of(struct jit_work *w, const struct jit_access *a, unsigned found)
{
    struct jit_code *c = w->c;
    const struct jit_place *p = &a->place;
    int32_t disp = (int32_t)p->disp;
    bool indexed = p->index != REG_NONE;

    if (p->fixed) {
        return rm_at(found, (int32_t)PAGE_OFFSET((uint64_t)p->disp));
    }
    if (p->base != REG_NONE) {
        int base = (int)jit_load_reg(w, p->base, HOST_T1);
        if (!indexed && base != HOST_T1) {
            return rm_sum((unsigned)base, found, 0, disp);
        }
        emit_lea(c, true, HOST_T0, (int)found, base, 0, 0);
        found = HOST_T0;
    }
    if (!indexed) {
        return rm_at(found, disp);
    }
    int index = (int)jit_load_reg(w, p->index, HOST_T1);
    if (index == HOST_T1) {
        emit_lea(c, true, HOST_T0, (int)found, index, p->scale, 0);
        return rm_at(HOST_T0, disp);
    }
    return rm_sum(found, (unsigned)index, p->scale, disp);
}

/* Each looks for itself, where its address leads. */
static struct rm look_up(struct jit_work *w, const struct jit_access *a)
{
    if (a->place.narrow) {
        jit_address(w, w->insn[w->i], true);
    } else {
        linear(w, &a->place, a->place.disp);
    }
    jit_lookup(w, a->size, a->write);
    if (a->aligned != 0) {
        check_aligned(w, a->aligned, false);
    }
    return rm_at(HOST_T0, 0);
}

struct rm jit_access(struct jit_work *w)
{
    const struct jit_access *a = &w->plan.access[w->i][w->nth++];
    unsigned n = a->group;

    PLX_CHECK(a->size != 0);
    bool alone = n == JIT_ALONE || (n < JIT_GROUPS && !w->plan.group[n].slot);
    if (w->way == JIT_PLAIN || n == JIT_ODD || (alone && !a->late && !a->place.fixed)) {
        w->rm = look_up(w, a);
        return w->rm;
    }
    if (alone) {
        check(w, &(struct jit_miss){.place = a->place,
                                    .disp = a->place.disp,
                                    .span = a->size,
                                    .write = a->write,
                                    .aligned = a->aligned,
                                    .late = a->late});
        w->rm = operand_of(w, a, HOST_T0);
        return w->rm;
    }
    if ((w->checked >> n & 1) == 0) {
        check_group(w, n, &a->place, a->at);
    } else if (w->found[n] == 0) {
        emit_q(w->c, OP_MOV_LOAD, HOST_T0, slot_of(n));
    }
    const struct jit_group *g = &w->plan.group[n];
    unsigned found = w->found[n] != 0 ? w->found[n] : (unsigned)HOST_T0;
    w->rm = g->late || a->place.fixed ? operand_of(w, a, found)
                                      : rm_at(found, (int32_t)((uint64_t)a->at - (uint64_t)g->low));
    return w->rm;
}
