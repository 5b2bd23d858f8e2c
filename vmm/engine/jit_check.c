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
 * Around a loop a check need not look into the shadow tables as long as the page stays the same
 * (jit_check_again): nothing there changes without a call of C, and behind one the plain way goes
 * on.
 *
 * An entry without a tag is told by the low byte of what stands for it (shadow_no_tag), since its
 * page may be the one looked for: the distance's low byte is not 0, and has odd parity. */
#include "vmm/engine/jit_work.h"

#include <stdlib.h>

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
        emit_q(c, OP_ADD_LOAD, HOST_T0, rm_vcpu(p->seg_off));
    }
}

enum { NEAR = PAGE_SIZE / 2 /* so far apart, two places are in one page often enough */ };

static struct rm slot_of(unsigned group)
{
    return rm_vcpu(offsetof(struct vcpu, jit_run.found) + group * sizeof(uint64_t));
}

static unsigned span_of(const struct jit_group *g)
{
    return (unsigned)((uint64_t)g->high - (uint64_t)g->low);
}

/* Of which byte of @g the address is kept, of a fixed one that of the page. */
static int64_t kept_byte(const struct jit_group *g)
{
    return g->steady ? g->high - 1 : g->low;
}

/* A check of group @n has found T0. */
static void keep_found(struct jit_work *w, unsigned n)
{
    const struct jit_group *g = &w->plan.group[n];
    int32_t on = g->steady && !g->place.fixed ? (int32_t)span_of(g) - 1 : 0;
    unsigned to = w->found[n] != 0 ? w->found[n] : (unsigned)HOST_T0;

    if (on != 0) {
        emit_lea(w->c, true, to, HOST_T0, -1, 0, on);
    } else if (to != HOST_T0) {
        emit_q(w->c, OP_MOV_LOAD, to, rm_reg(HOST_T0));
    }
    if (to == HOST_T0) {
        emit_q(w->c, OP_MOV_STORE, to, slot_of(n));
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
        emit_q(w->c, OP_ADD_LOAD, HOST_T0, rm_vcpu(p->seg_off));
    }
}

/* T0 = the host's address of the page of a fixed address. */
static void check_fixed(struct jit_work *w, uint64_t lin, bool write, bool skip)
{
    struct jit_code *c = w->c;
    int32_t entry = (int32_t)((lin >> PAGE_SHIFT & w->v->tlb_mask) << 5);
    int64_t page = (int64_t)PAGE_BASE(lin);

    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(offsetof(struct vcpu, tlb)));
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

static struct jit_miss *new_miss(struct jit_work *w, const struct jit_miss *what)
{
    PLX_CHECK(w->nmiss < JIT_MISS_MAX);
    struct jit_miss *m = &w->miss[w->nmiss++];

    *m = *what;
    m->insn = w->i;
    m->maker = jit_lost(w);
    return m;
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
    struct jit_miss *m = new_miss(w, what);
    m->site = emit_site(c);
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_site(m->site));
    m->from[0] = compare(w, m);
    m->from[1] = emit_jump(c, 0x8b, 0); /* jnp */
    add_segment(w, &m->place);
    m->back = c->at;
}

/* A late one: the entry that the address leads to, from now on; its page is that of no entry
 * without a tag. The others were in another page the turn before. */
static void emit_miss(struct jit_work *w, const struct jit_miss *m)
{
    struct jit_code *c = w->c;

    w->i = m->insn;
    w->lost = m->maker != 0;
    w->maker = m->maker;
    emit_aim(c, m->from[0], c->at);
    if (m->late) {
        emit_aim(c, m->from[1], c->at);
    }
    linear(w, &m->place, m->disp);
    jit_hash(w);
    if (m->late) {
        emit_d(c, OP_MOV_STORE, HOST_T1, rm_site(m->site));
    }
    fail_from(w, compare(w, m), m->skip);
    if (m->late) {
        add_segment(w, &m->place);
    } else {
        keep_found(w, m->group);
    }
    emit_jump(c, JUMP, m->back);
}

void jit_emit_misses(struct jit_work *w)
{
    for (unsigned k = 0; k < w->nmiss; k++) {
        emit_miss(w, &w->miss[k]);
    }
    w->nmiss = 0;
}

/* The check of group @n at @place, whose displacement stands for @at of the group. */
static struct jit_miss check_of(const struct jit_work *w, unsigned n, const struct jit_place *place,
                                int64_t at)
{
    const struct jit_group *g = &w->plan.group[n];
    uint64_t disp = (uint64_t)place->disp + (uint64_t)g->low - (uint64_t)at;

    return (struct jit_miss){.place = *place,
                             .disp = (int64_t)disp,
                             .span = span_of(g),
                             .group = (uint8_t)n,
                             .write = g->write,
                             .aligned = g->aligned,
                             .late = g->late,
                             .skip = true};
}

static void check_group(struct jit_work *w, unsigned n, const struct jit_place *place, int64_t at)
{
    struct jit_miss m = check_of(w, n, place, at);

    check(w, &m);
    w->checked |= 1U << n;
    keep_found(w, n);
}

void jit_check_early(struct jit_work *w)
{
    for (unsigned n = 0; n < w->plan.ngroups; n++) {
        if (w->plan.group[n].early) {
            check_group(w, n, &w->plan.group[n].place, 0);
        }
    }
}

/* At the end of a turn, what the check of group @n found is still where it was kept. */
static bool is_kept(const struct jit_work *w, unsigned n)
{
    for (unsigned k = 0; k < w->plan.ngroups; k++) {
        if (k != n && w->found[n] != 0 && w->found[k] == w->found[n]) {
            return false;
        }
    }
    return true;
}

/* What was found for a group serves for another one, or for itself a turn later. */
struct kin {
    const struct jit_group *known;
    unsigned from; /* its number */
    int64_t low;   /* how far it is from its first byte to that of the other */
    int64_t kept;  /* so for the kept one */
};

/* Bytes at @k->low may be accessed as those of @k->known if they are in the same page, which one of
 * their ends tells. With the registers of @g, which is steady, so is that. */
static bool serves(const struct jit_group *g, const struct kin *k)
{
    const struct jit_group *h = k->known;

    return h->base_id == g->base_id && h->index_id == g->index_id &&
           h->place.scale == g->place.scale && h->place.seg_off == g->place.seg_off &&
           (h == g || !g->place.fixed) && (h->write || !g->write) && llabs(k->kept) <= NEAR &&
           (k->kept < 0 || k->low >= 0);
}

/* The nearest for group @n, with what is kept of the groups @renewed this turn and of the others
 * the turn before. False: there is none. */
static bool find_kin(const struct jit_work *w, unsigned n, uint32_t renewed, struct kin *out)
{
    const struct jit_group *g = &w->plan.group[n];
    bool any = false;

    for (unsigned i = 0; i < w->plan.ngroups && g->steady; i++) {
        struct kin k = {.known = &w->plan.group[i], .from = i};
        uint64_t step = (renewed >> i & 1) != 0 ? 0 : (uint64_t)g->step;
        k.low = (int64_t)((uint64_t)g->low - (uint64_t)k.known->low + step);
        k.kept = (int64_t)((uint64_t)kept_byte(g) - (uint64_t)kept_byte(k.known) + step);
        if (is_kept(w, i) && serves(g, &k) && (!any || llabs(k.kept) < llabs(out->kept))) {
            *out = k;
            any = true;
        }
    }
    return any;
}

/* On if the byte at @to, which is where @k says from the one at @host, is in the same page, and the
 * first byte of @g too. */
static uint32_t same_page(struct jit_work *w, const struct jit_group *g, const struct kin *k,
                          unsigned host, unsigned to)
{
    struct jit_code *c = w->c;
    int64_t by = k->kept;

    if (by > 0 && (by & (by - 1)) == 0) { /* there its offset is at least that */
        emit_lea(c, true, to, (int)host, -1, 0, (int32_t)by);
        emit_d(c, 0xf7, 0, rm_reg(to)); /* test */
        emit_4(c, PAGE_SIZE - (uint32_t)by);
        return emit_jump(c, 0x84, 0);
    }
    int64_t far = by >= 0 ? by : by - (int64_t)span_of(g) + 1;
    emit_lea(c, true, HOST_T0, (int)host, -1, 0, (int32_t)far);
    emit_q(c, OP_XOR_LOAD, HOST_T0, rm_reg(host));
    emit_lea(c, true, to, (int)host, -1, 0, (int32_t)by);
    emit_q(c, 0x81, 7, rm_reg(HOST_T0)); /* cmp */
    emit_4(c, PAGE_SIZE - 1);
    return emit_jump(c, 0x87, 0);
}

/* Group @n again, a turn later, with what @k says. */
static void renew(struct jit_work *w, unsigned n, const struct kin *k)
{
    struct jit_code *c = w->c;
    const struct jit_group *g = &w->plan.group[n];
    unsigned host = w->found[k->from], to = w->found[n] == 0 ? (unsigned)HOST_T1 : w->found[n];

    if (k->known == g && k->kept == 0) {
        return;
    }
    if (host == 0) {
        host = HOST_T1;
        emit_q(c, OP_MOV_LOAD, host, slot_of(k->from));
    }
    struct jit_miss what = check_of(w, n, &g->place, 0), *m = new_miss(w, &what);
    m->from[0] = same_page(w, g, k, host, to);
    if (((uint64_t)k->low & g->aligned) == 0 && (g->aligned & ~k->known->aligned) == 0) {
        m->aligned = 0; /* known, whatever the page */
    } else {
        emit_lea(c, true, HOST_T0, (int)to, -1, 0, 1 - (int32_t)span_of(g));
        check_aligned(w, g->aligned, true);
    }
    if (to == HOST_T1) {
        emit_q(c, OP_MOV_STORE, to, slot_of(n));
    }
    m->back = c->at;
}

void jit_check_again(struct jit_work *w)
{
    uint32_t renewed = 0;
    struct kin k = {0};

    for (unsigned n = 0; n < w->plan.ngroups; n++) {
        const struct jit_group *g = &w->plan.group[n];
        if (find_kin(w, n, renewed, &k)) {
            renew(w, n, &k);
        } else if (g->early) {
            check_group(w, n, &g->place, 0);
        }
        renewed |= 1U << n;
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
    w->rm = g->late || a->place.fixed
                ? operand_of(w, a, found)
                : rm_at(found, (int32_t)((uint64_t)a->at - (uint64_t)kept_byte(g)));
    return w->rm;
}
