/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_access.c - see jit_access.h.
 *
 * A register's value is known as one that something before in the block gave it, which has a
 * number, plus a distance: pushes, pops, additions of constants and copies keep the number. The
 * addresses of two accesses with the same numbers differ by a distance known now. The numbers below
 * 16 are what registers hold where the translation begins. */
#include "vmm/engine/jit_access.h"

#include <string.h>

#include "vmm/cpu/cpu.h"

/* A group that spans so much is seldom cut by the end of a page. */
enum { SPAN_MAX = 512, REGS = 16, ID_NONE = 0xffff };

struct value {
    uint16_t id;
    bool late; /* it comes from memory */
    int64_t off;
};

struct known {
    struct value reg[REGS];
    uint16_t ids;
};

static bool fits(int64_t x)
{
    return x == (int32_t)x;
}

/* --- accesses --------------------------------------------------------------------------------- */

static struct jit_access at_register(unsigned base, int64_t disp, bool write)
{
    return (struct jit_access){.place = {.base = (uint8_t)base, .index = REG_NONE, .disp = disp},
                               .size = 8,
                               .write = write};
}

static struct jit_access operand(const struct insn *in, const struct form *f, uint64_t next,
                                 unsigned size, bool write)
{
    struct jit_place p = {.base = in->base,
                          .index = in->index,
                          .scale = in->scale_shift,
                          .seg_off = in->seg >= SEG_FS ? in->seg_off : 0,
                          .disp = in->disp};

    if (in->rip_relative) {
        p.base = REG_NONE;
        p.disp = (int64_t)(next + (uint64_t)in->disp);
    }
    p.fixed = p.base == REG_NONE && p.index == REG_NONE && p.seg_off == 0;
    p.narrow = in->asz != 8 || (!p.fixed && !fits(p.disp));
    return (struct jit_access){
        .place = p, .size = (uint8_t)size, .write = write, .aligned = f->aligned};
}

/* Of @in, which ends at @next. Returns how many. */
static unsigned accesses_of(const struct insn *in, const struct form *f, uint64_t next,
                            struct jit_access *out)
{
    unsigned n = 0;

    switch (f->kind) {
    case FORM_MODRM:
    case FORM_DIV:
    case FORM_X87_CW:
    case FORM_SCAN:
        if (f->mem) {
            out[n++] = operand(in, f, next, f->rm_size, (f->rm_use & USE_WRITE) != 0);
        }
        break;
    case FORM_JMP_TO:
    case FORM_CALL_TO:
    case FORM_PUSH_MEM:
        if (f->mem) {
            out[n++] = operand(in, f, next, 8, false);
        }
        if (f->kind != FORM_JMP_TO) {
            out[n++] = at_register(RSP, -8, true);
        }
        break;
    case FORM_PUSH:
    case FORM_PUSH_IMM:
    case FORM_CALL_NEAR:
        out[n++] = at_register(RSP, -8, true);
        break;
    case FORM_POP:
    case FORM_RET:
        out[n++] = at_register(RSP, 0, false);
        break;
    case FORM_LEAVE:
        out[n++] = at_register(RBP, 0, false);
        break;
    default:
        break;
    }
    return n;
}

/* --- registers -------------------------------------------------------------------------------- */

static void forget(struct known *k, unsigned reg, bool late)
{
    k->reg[reg] = (struct value){k->ids++, late, 0};
}

static void add(struct known *k, unsigned reg, int64_t n)
{
    k->reg[reg].off = (int64_t)((uint64_t)k->reg[reg].off + (uint64_t)n);
}

/* An addition to a whole register, or a copy of one: true. */
static bool moves(struct known *k, const struct insn *in, const struct form *f)
{
    unsigned op = f->op, n = f->reg & 7U;

    if (f->map != 0 || !f->w || f->mem || f->sse) {
        return false;
    }
    if (op == 0x89) {
        k->reg[f->rm] = k->reg[f->reg];
    } else if (op == 0x8b) {
        k->reg[f->reg] = k->reg[f->rm];
    } else if ((op == 0x81 || op == 0x83) && (n == 0 || n == 5)) {
        add(k, f->rm, n == 0 ? (int64_t)in->imm : -(int64_t)in->imm);
    } else if (op == 0xff && n < 2) {
        add(k, f->rm, n == 0 ? 1 : -1);
    } else {
        return false;
    }
    return true;
}

static void modrm_changes(struct known *k, const struct insn *in, const struct form *f)
{
    bool late = f->mem && (f->rm_use & USE_READ) != 0;

    if (moves(k, in, f)) {
        return;
    }
    if ((f->reg_use & USE_READ) != 0 && !f->reg_xmm) {
        late |= k->reg[form_register(f, f->reg, f->reg_size)].late;
    }
    if ((f->rm_use & USE_READ) != 0 && !f->mem && !f->rm_xmm) {
        late |= k->reg[form_register(f, f->rm, f->rm_size)].late;
    }
    if ((f->reg_use & USE_WRITE) != 0 && !f->reg_xmm) {
        forget(k, form_register(f, f->reg, f->reg_size), late);
    }
    if ((f->rm_use & USE_WRITE) != 0 && !f->mem && !f->rm_xmm) {
        forget(k, form_register(f, f->rm, f->rm_size), late);
    }
}

static bool is_late(const struct known *k, uint8_t reg)
{
    return reg != REG_NONE && k->reg[reg].late;
}

/* Additions to RAX, other arithmetic on it, its sign to all of it or to RDX; TEST and CMP. */
static void fixed_changes(struct known *k, const struct insn *in, const struct form *f)
{
    if (f->w && (f->op == 0x05 || f->op == 0x2d)) {
        add(k, RAX, f->op == 0x05 ? (int64_t)in->imm : -(int64_t)in->imm);
    } else if (f->op == 0x99) {
        forget(k, RDX, k->reg[RAX].late);
    } else if (f->op < 0xa8 && (f->op & 0xf8) != 0x38) {
        forget(k, RAX, k->reg[RAX].late);
    }
}

static void changes(struct known *k, const struct insn *in, const struct form *f)
{
    switch (f->kind) {
    case FORM_MODRM:
        modrm_changes(k, in, f);
        break;
    case FORM_FIXED:
        fixed_changes(k, in, f);
        break;
    case FORM_DIV:
        forget(k, RAX, k->reg[RAX].late);
        forget(k, RDX, k->reg[RAX].late);
        break;
    case FORM_LOW3:
        forget(k, f->map == 0 ? form_register(f, f->reg, f->reg_size) : f->reg, false);
        break;
    case FORM_LEA:
        if (in->opd[0].size == 8 && in->asz == 8 && !in->rip_relative && in->base != REG_NONE &&
            in->index == REG_NONE) {
            k->reg[in->opd[0].reg] = k->reg[in->base];
            add(k, in->opd[0].reg, in->disp);
        } else {
            forget(k, in->opd[0].reg, is_late(k, in->base) || is_late(k, in->index));
        }
        break;
    case FORM_PUSH:
    case FORM_PUSH_IMM:
    case FORM_PUSH_MEM:
    case FORM_CALL_NEAR:
        add(k, RSP, -8);
        break;
    case FORM_POP:
        add(k, RSP, 8);
        forget(k, f->reg, true);
        break;
    case FORM_LEAVE:
        k->reg[RSP] = k->reg[RBP];
        add(k, RSP, 8);
        forget(k, RBP, true);
        break;
    case FORM_SCAN:
        forget(k, f->reg, f->mem || k->reg[f->rm].late);
        break;
    default:
        break;
    }
    for (unsigned r = 0; r < REGS; r++) {
        if ((f->also >> r & 1) != 0) {
            forget(k, r, k->reg[r].late);
        }
    }
}

/* --- groups ----------------------------------------------------------------------------------- */

static uint16_t id_of(const struct known *k, uint8_t reg)
{
    return reg == REG_NONE ? ID_NONE : k->reg[reg].id;
}

static int64_t distance(const struct known *k, const struct jit_place *p)
{
    uint64_t off = (uint64_t)p->disp;

    off += p->base == REG_NONE ? 0 : (uint64_t)k->reg[p->base].off;
    off += p->index == REG_NONE ? 0 : (uint64_t)k->reg[p->index].off << p->scale;
    return (int64_t)off;
}

static bool known_at_entry(uint16_t id)
{
    return id < REGS || id == ID_NONE;
}

/* Its place by the registers where the block begins, if @a is told by them. */
static struct jit_group group_of(const struct known *k, const struct jit_access *a, unsigned i)
{
    const struct jit_place *p = &a->place;
    uint16_t base = id_of(k, p->base), index = id_of(k, p->index);

    return (struct jit_group){
        .place = {.base = base == ID_NONE ? (uint8_t)REG_NONE : (uint8_t)base,
                  .index = index == ID_NONE ? (uint8_t)REG_NONE : (uint8_t)index,
                  .scale = p->scale,
                  .fixed = p->fixed,
                  .seg_off = p->seg_off},
        .entry = known_at_entry(base) && known_at_entry(index),
        .first = (uint8_t)i,
        .base_id = base,
        .index_id = index,
        .low = a->at,
        .high = a->at + a->size,
        .aligned = a->aligned,
        .off = (uint8_t)((uint64_t)a->at & a->aligned)};
}

static bool joins(const struct jit_group *g, const struct jit_group *h)
{
    int64_t low = h->low < g->low ? h->low : g->low;
    int64_t high = h->high > g->high ? h->high : g->high;

    if (g->base_id != h->base_id || g->index_id != h->index_id ||
        g->place.scale != h->place.scale || g->place.seg_off != h->place.seg_off ||
        g->place.fixed != h->place.fixed || ((g->off ^ h->off) & g->aligned & h->aligned) != 0) {
        return false;
    }
    if (h->place.fixed) { /* the page is known */
        return PAGE_BASE((uint64_t)low) == PAGE_BASE((uint64_t)high - 1);
    }
    return (uint64_t)high - (uint64_t)low <= SPAN_MAX;
}

/* It cannot be checked as others are. */
static bool is_odd(const struct jit_access *a)
{
    const struct jit_place *p = &a->place;
    uint64_t off = PAGE_OFFSET((uint64_t)p->disp);

    return p->narrow || (p->fixed && (off + a->size > PAGE_SIZE || (off & a->aligned) != 0));
}

/* Put access @a of instruction @i into a group; perhaps a new one. */
static void enter(struct jit_plan *p, const struct known *k, struct jit_access *a, unsigned i)
{
    a->at = distance(k, &a->place);
    struct jit_group new = group_of(k, a, i), *g = p->group;
    /* Wherever it is checked, by what registers hold there or at the beginning, the displacement of
     * the group's low end fits. */
    if (!a->place.fixed &&
        !(fits(new.low - 32) && fits(new.high + SPAN_MAX) && fits(a->place.disp - SPAN_MAX - 32))) {
        return;
    }
    while (g < p->group + p->ngroups && !joins(g, &new)) {
        g++;
    }
    if (g == p->group + p->ngroups) {
        if (p->ngroups == JIT_GROUPS) {
            return; /* alone */
        }
        p->ngroups++;
        *g = new;
    }
    g->low = new.low < g->low ? new.low : g->low;
    g->high = new.high > g->high ? new.high : g->high;
    g->write |= a->write;
    g->late |= a->late;
    if (new.aligned > g->aligned) {
        g->aligned = new.aligned;
        g->off = new.off;
    }
    g->n++;
    g->last = (uint8_t)i;
    a->group = (uint8_t)(g - p->group);
}

/* Where @g is checked: where the block begins, if flags need not be saved for that and would have
 * to be at its first access, or where it @loops, so that none are wanted there (jit_flow.c). */
static void settle(struct jit_group *g, const bool *after_flags, bool loops)
{
    g->early = g->entry && (loops || after_flags[g->first]);
    g->slot = g->early || g->n > 1;
    if (!g->place.fixed) { /* so that the low end is to be aligned */
        g->low -= (g->low - g->off) & g->aligned;
    }
}

/* How far @reg, as @k has it at the end of a loop, is from what it was at its beginning. */
static bool steps(const struct known *k, uint8_t reg, unsigned scale, int64_t *by)
{
    if (reg == REG_NONE) {
        return true;
    }
    *by = (int64_t)((uint64_t)*by + ((uint64_t)k->reg[reg].off << scale));
    return k->reg[reg].id == reg;
}

/* Where the next turn has @g, which is early, @k being known at the end of a loop. A register that
 * only moves by steps is not late. */
static void follow(struct jit_group *g, const struct known *k)
{
    g->steady = g->early && steps(k, g->place.base, 0, &g->step) &&
                steps(k, g->place.index, g->place.scale, &g->step);
}

/* What registers hold has their numbers; whether it is late stays. */
static void start(struct known *k)
{
    for (unsigned i = 0; i < REGS; i++) {
        k->reg[i].id = (uint8_t)i;
        k->reg[i].off = 0;
    }
    k->ids = REGS;
}

/* Of loops: what is late at the end is so at the beginning. */
static struct known known_at_end(const struct insn *const *insns, const struct form *forms,
                                 unsigned n)
{
    struct known k = {0};

    start(&k);
    for (unsigned i = 0; i < n; i++) {
        changes(&k, insns[i], &forms[i]);
    }
    return k;
}

/* What it does to registers is known here. */
static bool is_followed(enum form_kind kind)
{
    switch (kind) {
    case FORM_NOTHING:
    case FORM_ZERO_YMM:
    case FORM_MODRM:
    case FORM_FIXED:
    case FORM_LOW3:
    case FORM_LEA:
    case FORM_PUSH:
    case FORM_PUSH_IMM:
    case FORM_PUSH_MEM:
    case FORM_POP:
    case FORM_LEAVE:
    case FORM_DIV:
    case FORM_X87_CW:
    case FORM_SCAN:
    case FORM_X87_FLAGS:
    case FORM_JCC:
    case FORM_JMP:
    case FORM_CALL_NEAR:
    case FORM_JMP_TO:
    case FORM_CALL_TO:
    case FORM_RET:
        return true;
    default:
        return false;
    }
}

unsigned jit_plan_reach(const struct form *forms, unsigned n)
{
    unsigned i = 0;

    while (i < n && is_followed(forms[i].kind)) {
        i++;
    }
    return i;
}

void jit_plan_make(struct jit_plan *p, const struct insn *const *insns, const struct form *forms,
                   unsigned n, unsigned reach, const uint64_t *at, bool loops)
{
    struct known k = known_at_end(insns, forms, reach);
    bool after_flags[JIT_INSNS_MAX] = {false}, flags = false;
    unsigned count[JIT_INSNS_MAX];

    memset(p, 0, sizeof *p);
    start(&k);
    for (unsigned i = 0; i < n; i++) {
        after_flags[i] = flags;
        flags |= forms[i].writes != 0;
        count[i] = accesses_of(insns[i], &forms[i], at[i] + insns[i]->len, p->access[i]);
        for (unsigned a = 0; a < count[i]; a++) {
            struct jit_access *access = &p->access[i][a];
            access->group = is_odd(access) ? JIT_ODD : JIT_ALONE;
            access->late = is_late(&k, access->place.base) || is_late(&k, access->place.index);
            if (i < reach && access->group == JIT_ALONE) {
                enter(p, &k, access, i);
            }
        }
        if (i < reach) {
            changes(&k, insns[i], &forms[i]);
        }
    }
    for (unsigned g = 0; g < p->ngroups; g++) {
        settle(&p->group[g], after_flags, loops && reach == n);
        p->two_ways |= p->group[g].slot;
        if (loops && reach == n) {
            follow(&p->group[g], &k);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        p->covered[i] = count[i] != 0;
        for (unsigned a = 0; a < count[i]; a++) {
            uint8_t id = p->access[i][a].group;
            p->covered[i] &= id < JIT_GROUPS && p->group[id].slot &&
                             (p->group[id].early || p->group[id].first != i);
        }
    }
}
