/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem_translate.c - linear addresses as one vCPU sees them: its address spaces, the
 * translations kept in its shadow tables (vmm/mmu/shadow.h), what drops them, the rights to pages
 * (vmm/mmu/owner.h), and the accessed and dirty flags.
 *
 * With several vCPUs each access asks for the right to every table page its walk reads and to its
 * own page, on a miss; what is cached implies those rights. In a parallel part a right that is not
 * there stops the run, in a serial part owner_serial gives it. Flags that a walk sets in a table
 * page that the vCPU may only read are owed (R7).
 *
 * Owned by one vCPU and run by its thread, by another only while it is parked; no state. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/block.h"
#include "vmm/cpu/mem_internal.h"
#include "vmm/cpu/seg.h"
#include "vmm/mmu/walk.h"

/* --- creation, address spaces ---------------------------------------------------------------- */

int vcpu_mem_create(struct vcpu *v, unsigned entries, const struct shadow_config *cfg)
{
    struct vcpu_mem *m = plx_calloc(1, sizeof *m);

    if (m == NULL) {
        return PLX_ENOMEM;
    }
    v->mem = m;
    if (shadow_create(cfg != NULL ? cfg : &SHADOW_DEFAULT, v->ram, &v->attention, entries, &m->s) !=
        0) {
        vcpu_mem_destroy(v);
        return PLX_ENOMEM;
    }
    m->none = (struct tlb_entry){TLB_NONE, TLB_NONE, TLB_NONE, NULL};
    v->use = m->s->use;
    undo_reset(&m->undo);
    vcpu_context_changed(v);
    return 0;
}

void vcpu_mem_destroy(struct vcpu *v)
{
    if (v->mem != NULL) {
        shadow_destroy(v->mem->s);
        plx_free(v->mem);
        v->mem = NULL;
        v->use = NULL;
    }
}

const struct shadow_counters *vcpu_mem_counters(const struct vcpu *v)
{
    return &v->mem->s->counters;
}

static enum shadow_kind data_kind(const struct cpu *c, bool user)
{
    bool ac = (c->cr4 & CR4_SMAP) != 0 && (c->rflags & FLAG_AC) != 0;

    return user ? SHADOW_USER : ac ? SHADOW_SUPER_AC : SHADOW_SUPER;
}

static enum shadow_kind code_kind_of(bool user)
{
    return user ? SHADOW_USER_CODE : SHADOW_SUPER_CODE;
}

static struct tlb_entry *tlb_of(const struct vcpu_mem *m, enum shadow_kind kind)
{
    return m->s->tlb + shadow_slot(m->s, kind, 0);
}

void vcpu_mem_select(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;
    bool user = cpu_cpl(&v->c) == 3;

    v->code_key -= code_kind(v);
    v->code_key += !m->is64 ? CODE_NOT_64 : user ? CODE_USER : CODE_SUPER;
    if (v->debug) {
        v->tlb = v->tlb_code = &m->none;
        v->tlb_mask = 0;
    } else {
        v->tlb_user = tlb_of(m, SHADOW_USER);
        v->tlb_user_code = tlb_of(m, SHADOW_USER_CODE);
        v->tlb_super = tlb_of(m, SHADOW_SUPER);
        v->tlb_super_code = tlb_of(m, SHADOW_SUPER_CODE);
        v->tlb_super_ac = (v->c.cr4 & CR4_SMAP) != 0 ? tlb_of(m, SHADOW_SUPER_AC) : v->tlb_super;
        v->tlb_code = tlb_of(m, code_kind_of(user));
        v->tlb = tlb_of(m, data_kind(&v->c, user));
        v->tlb_mask = m->s->entries - 1;
    }
}

/* The current space shares a half from now on, if it did not and may: what is shared implies the
 * right to read its top table, as every entry does. */
static bool share(struct vcpu *v)
{
    struct shadow *s = v->mem->s;
    uint64_t page;

    if (!shadow_may_share(s) || !ram_page_of(v->ram, v->mem->key.cr3, &page) ||
        (v->owner != NULL && !owner_may_read(v->owner, page, v->id)) || !shadow_share(s)) {
        return false;
    }
    mem_settle_space(v);
    return true;
}

/* Without paging, or where a register has no say, it is left out. */
static struct shadow_key key_of(const struct cpu *c)
{
    struct shadow_key k = {0};

    if ((c->cr0 & CR0_PG) == 0) {
        return k;
    }
    k.cr0 = c->cr0 & (CR0_PG | CR0_WP);
    k.cr4 = c->cr4 & (CR4_PAE | CR4_PSE | CR4_SMEP | CR4_SMAP);
    k.efer = c->efer & (EFER_LMA | EFER_NX);
    if ((c->efer & EFER_LMA) == 0 && (c->cr4 & CR4_PAE) != 0) {
        memcpy(k.pdpte, c->pdpte, sizeof k.pdpte);
    } else {
        k.cr3 = c->cr3 & ~(PAGE_SIZE - 1);
    }
    return k;
}

void vcpu_context_changed(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;
    struct shadow_key k = key_of(&v->c);

    if (memcmp(&k, &m->key, sizeof k) != 0) {
        m->key = k;
        shadow_select(m->s, &k);
        m->s->moved = false; /* what follows looks */
        (void)share(v);
    }
    m->is64 = cpu_is64(&v->c);
    vcpu_mem_select(v);
    v->attention = true;
}

/* --- dropping -------------------------------------------------------------------------------- */

void vcpu_mem_drop_all(struct vcpu *v)
{
    shadow_drop_all(v->mem->s);
    mem_settle_space(v);
}

void vcpu_mem_drop_writes(struct vcpu *v)
{
    shadow_drop_writes(v->mem->s);
}

void vcpu_mem_protect(struct vcpu *v, uint64_t page)
{
    v->use[page] &= (uint8_t)~USE_NOW;
    shadow_guard(v->mem->s, page, false);
}

void vcpu_mem_written(struct vcpu *v, gpa_t gpa, uint64_t len, bool flags)
{
    uint64_t page;

    if (!flags && ram_page_of(v->ram, gpa, &page)) {
        shadow_table_written(v->mem->s, page, gpa, len);
        mem_settle_space(v);
    }
}

static void revoke_now(struct vcpu *v, uint64_t page, bool all)
{
#ifndef BREAK_R7 /* make/rules.mk: code that outlives the right to read it */
    if (all) {
        blocks_revoked(v, page);
    }
#endif
    shadow_revoke(v->mem->s, page, all);
    mem_settle_space(v);
}

static void revoke_queued(struct vcpu *v)
{
    struct shadow *s = v->mem->s;

    for (unsigned i = 0; i < s->nqueue; i++) {
        revoke_now(v, s->queue[i].page, s->queue[i].all);
    }
    s->nqueue = 0;
}

void vcpu_mem_revoke(struct vcpu *v, uint64_t page, bool all)
{
    struct shadow *s = v->mem->s;

    if (v->use[page] == 0) {
        return;
    }
    s->counters.shootdowns++;
    if (!s->cfg.batch_shootdown) {
        revoke_now(v, page, all);
        return;
    }
    s->counters.shootdowns_batched++;
    for (unsigned i = s->nqueue; i-- > 0;) {
        if (s->queue[i].page == page) {
            s->queue[i].all |= all;
            return;
        }
    }
    if (s->nqueue == SHADOW_QUEUE) {
        revoke_queued(v);
    }
    s->queue[s->nqueue].page = page;
    s->queue[s->nqueue++].all = all;
}

/* --- accessed and dirty flags ---------------------------------------------------------------- */

/* A store that changes no translation; code may have been decoded from there all the same. */
static void store_flags(struct vcpu *v, gpa_t entry, uint64_t page, uint8_t flags)
{
    uint8_t *hva = v->ram->hva + (page << PAGE_SHIFT) + PAGE_OFFSET(entry);

    mem_note_bytes(v, entry, hva, 1);
    if (!mem_exclusive(v, page)) {
        ram_tell(v->ram, v, entry, 1, true);
    }
    if ((v->use[page] & USE_ANY_CODE) != 0) {
        blocks_written(v, entry, 1);
    }
    v->ram->flags[page] |= RAM_DIRTY;
    *hva |= flags;
}

static void set_flags(struct vcpu *v, const struct walk_result *r)
{
    struct shadow *s = v->mem->s;

    for (unsigned i = 0; i < r->nset; i++) {
        const struct walk_set *set = &r->set[i];
        uint64_t page;
        PLX_CHECK(ram_page_of(v->ram, set->entry, &page));
        if (v->parallel) {
            undo_begin(&v->mem->undo, v, s->nowed);
            v->mem->undo.flags = true;
        }
        if (!v->parallel || mem_exclusive(v, page)) {
            store_flags(v, set->entry, page, set->flags);
        } else if (v->owner->eager || !shadow_owe(s, set->entry, set->flags)) {
            s->counters.lack_table_write++;
            vcpu_lacks_page(v, page, true);
        }
    }
}

void vcpu_mem_settle(struct vcpu *v)
{
    struct shadow *s = v->mem->s;

    v->parallel = false;
    for (unsigned i = 0; i < s->nowed; i++) {
        uint64_t page;
        PLX_CHECK(ram_page_of(v->ram, s->owed[i].entry, &page));
        store_flags(v, s->owed[i].entry, page, s->owed[i].flags);
    }
    shadow_owe_forget(s, 0);
    blocks_settle(v);
}

void vcpu_mem_not_now(struct vcpu *v, uint64_t page)
{
    if ((v->use[page] & USE_NOW) != 0) {
        vcpu_mem_protect(v, page);
    }
}

/* Contended pages stay fast from one run to the next of a spell, unless somebody else derives
 * something from them. */
static void keep_now(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;

    if (v->parallel || m->spell != v->owner->spell) {
        for (unsigned i = 0; i < m->nnow; i++) {
            vcpu_mem_not_now(v, m->now[i]);
        }
        m->nnow = 0;
        m->spell = v->owner->spell;
    }
}

void vcpu_mem_begin(struct vcpu *v)
{
    v->mem->s->serial = v->parallel ? NULL : v;
    revoke_queued(v);
    if (v->owner != NULL) {
        keep_now(v);
    }
    undo_reset(&v->mem->undo);
    PLX_CHECK(v->parallel || v->mem->s->nowed == 0);
}

void vcpu_mem_undo(struct vcpu *v)
{
    struct undo *u = &v->mem->undo;
    struct shadow *s = v->mem->s;

    if (!undo_is_current(u, v)) {
        return;
    }
    s->counters.undone += u->nwrites != 0 || u->flags;
    for (unsigned i = u->nwrites; i-- > 0;) {
        gpa_t gpa = u->write[i].gpa;
        unsigned len = u->write[i].len;
        uint64_t page;
        PLX_CHECK(ram_page_of(v->ram, gpa, &page));
        blocks_written(v, gpa, len);
        memcpy(v->ram->hva + (page << PAGE_SHIFT) + PAGE_OFFSET(gpa), u->bytes + u->write[i].at,
               len);
        shadow_table_written(s, page, gpa, len);
    }
    shadow_owe_forget(s, u->nowed);
    if (u->flags && u->fills_lost) {
        shadow_drop_all(s);
    } else if (u->flags) {
        for (unsigned i = 0; i < u->nfills; i++) {
            shadow_drop(s, u->fill[i]);
        }
    }
    mem_settle_space(v);
    undo_reset(u);
}

/* --- translation ------------------------------------------------------------------------------ */

/* walk_tables.see with several vCPUs. */
static uint64_t see_table(void *ctx, uint64_t page, gpa_t entry)
{
    struct vcpu *v = ctx;
    struct shadow *s = v->mem->s;

    if (!v->parallel) {
        (void)owner_serial(v->owner, page, v->id, OWNER_R);
        return 0;
    }
    if (!owner_may_read(v->owner, page, v->id)) {
        s->counters.lack_table_read++;
        vcpu_lacks_page(v, page, false);
    }
    return (v->use[page] & USE_OWED) != 0 ? shadow_owed_flags(s, entry) : 0;
}

static void count_lack(struct shadow_counters *n, unsigned access)
{
    uint64_t *counter = access == MEM_W   ? &n->lack_data_write
                        : access == MEM_X ? &n->lack_code
                                          : &n->lack_data_read;
    ++*counter;
}

/* The rights to @page that this access finds or gets: OWNER_*. */
static unsigned right_to(struct vcpu *v, uint64_t page, unsigned access)
{
    enum owner_right want = access == MEM_W ? OWNER_W : OWNER_R;

    if (v->owner == NULL) {
        return OWNER_R | OWNER_W;
    }
    if (!v->parallel) {
        bool asked = want == OWNER_W && (v->use[page] & USE_NOW) != 0;
        return asked ? OWNER_R | OWNER_NOW : owner_serial(v->owner, page, v->id, want);
    }
    unsigned rights = (owner_may_read(v->owner, page, v->id) ? (unsigned)OWNER_R : 0) |
                      (owner_may_write(v->owner, page, v->id) ? (unsigned)OWNER_W : 0);
    if ((rights & want) == 0) {
        count_lack(&v->mem->s->counters, access);
        vcpu_lacks_page(v, page, want == OWNER_W);
    }
    return rights;
}

/* A contended page that nobody else derived anything from may be written fast, until somebody does
 * (vcpu_mem_not_now) or the spell ends (keep_now). */
static bool may_write_now(struct vcpu *v, uint64_t page)
{
    struct vcpu_mem *m = v->mem;

    if ((v->use[page] & USE_NOW) != 0) {
        return true;
    }
    if (m->nnow == NOW_MAX || ram_derived(v->ram, v, page)) {
        return false;
    }
    v->use[page] |= USE_NOW;
    m->now[m->nnow++] = page;
    return true;
}

/* More from the same table, while it is at hand: what needs no flag set and takes no room. Its tags
 * wait for its first use, if that has to ask for a right. */
static void fill_batch(struct vcpu *v, enum shadow_kind kind, gva_t lin, struct walk_want want,
                       const struct walk_result *r)
{
    struct shadow *s = v->mem->s;
    gva_t base = PAGE_BASE(lin) & ~((gva_t)s->cfg.batch * PAGE_SIZE - 1);
    uint64_t before = s->counters.batch_filled, index;

    for (unsigned i = 0; i < s->cfg.batch; i++) {
        gva_t at = base + i * PAGE_SIZE;
        gpa_t leaf = r->entry[r->nentries - 1], page;
        unsigned perm = r->perm;
        if (at == PAGE_BASE(lin)) {
            continue;
        }
        if (r->shift > PAGE_SHIFT) {
            page = r->page + (at - PAGE_BASE(lin));
        } else {
            uint64_t value = 0;
            leaf += (uint64_t)((int64_t)(at - PAGE_BASE(lin)) / (int64_t)PAGE_SIZE) * r->entry_size;
            memcpy(&value, ram_page_hva(v->ram, leaf) + PAGE_OFFSET(leaf), r->entry_size);
            perm = walk_near(&v->c, want, r, value, &page);
        }
        uint32_t slot = shadow_slot(s, kind, at);
        if (perm != 0 && shadow_fill_near(s, slot, at, r, leaf, page, perm) && v->owner == NULL &&
            ram_page_of(v->ram, page, &index)) {
            s->entry[slot].waiting = false;
            shadow_tag(s, slot, want.access == MEM_X, index, OWNER_R | OWNER_W);
        }
    }
    s->counters.batches += s->counters.batch_filled != before;
}

/* Does what @r found rest on a flag that may be taken back, on which pages beside its own depend as
 * well: one that it sets, or one that the instruction has set before? */
static bool neighbours_may_be_undone(const struct vcpu *v, const struct walk_result *r)
{
    const struct undo *u = &v->mem->undo;
    bool leaf_only = r->nset == 1 && r->set[0].entry == r->entry[r->nentries - 1];

    return v->parallel && ((undo_is_current(u, v) && u->flags) ||
                           (r->nset != 0 && (!leaf_only || r->shift > PAGE_SHIFT)));
}

static bool finds(const struct shadow_entry *e, gva_t lin, unsigned access)
{
    return e->tag == PAGE_BASE(lin) && (e->perm & access) != 0;
}

const struct shadow_entry *mem_translate(struct vcpu *v, gva_t lin, unsigned access, bool user,
                                         bool implicit)
{
    struct shadow *s = v->mem->s;
    enum shadow_kind kind = access == MEM_X     ? code_kind_of(user)
                            : !user && implicit ? SHADOW_SUPER
                                                : data_kind(&v->c, user);
    bool ac = kind == SHADOW_SUPER_AC;
    uint32_t slot = shadow_slot(s, kind, lin);
    struct shadow_entry *e = &s->entry[slot];
    bool miss = !finds(e, lin, access);
    struct walk_result r;
    unsigned rights = 0;
    uint64_t page;

    if (miss && kind < SHADOW_HALF_KINDS && (int64_t)lin < 0 && share(v)) {
        slot = shadow_slot(s, kind, lin);
        e = &s->entry[slot];
        miss = !finds(e, lin, access);
    }
    if (miss) {
        const struct walk_tables t = {v->ram, v->owner != NULL ? see_table : NULL, v};
        struct walk_want want = {.access = access, .user = user, .ac = ac};
        if (walk(&t, &v->c, lin, want, &r) != 0) {
            cpu_raise_pf(v, lin, r.error);
        }
        bool alone = neighbours_may_be_undone(v, &r);
        bool ram = ram_page_of(v->ram, r.page, &page);
        rights = ram ? right_to(v, page, access) : 0;
        set_flags(v, &r);
        if (kind < SHADOW_HALF_KINDS && s->half != NULL && !shadow_half_takes(s, lin, &r)) {
            slot = shadow_slot(s, kind, lin);
            e = &s->entry[slot];
        }
        shadow_fill(s, slot, lin, &r);
        mem_settle_space(v);
        if (v->parallel) {
            undo_begin(&v->mem->undo, v, s->nowed);
            undo_fill(&v->mem->undo, slot);
        }
        if (s->cfg.batch > 1 && r.nentries != 0 && !alone) {
            fill_batch(v, kind, lin, want, &r);
        }
        if (!ram) {
            return e;
        }
    } else {
        s->counters.batch_hits += e->waiting;
        e->waiting = false;
        if (!ram_page_of(v->ram, e->page, &page)) {
            return e;
        }
        rights = right_to(v, page, access);
    }
    if (v->parallel && (v->use[page] & USE_OWED) != 0) {
        vcpu_need_serial(v); /* what is to be read is not in RAM yet */
    }
    if (access == MEM_W && (rights & OWNER_NOW) != 0 && may_write_now(v, page)) {
        rights |= OWNER_W;
    }
    if (access == MEM_W && (rights & OWNER_W) != 0) {
        v->ram->flags[page] |= RAM_DIRTY;
    }
    shadow_tag(s, slot, access == MEM_X, page, rights);
    return e;
}

gpa_t mem_fetch(struct vcpu *v, gva_t lin)
{
    struct shadow *s = v->mem->s;
    bool user = cpu_cpl(&v->c) == 3;
    uint32_t slot = shadow_slot(s, code_kind_of(user), lin);

    if (s->tlb[slot].xtag == PAGE_BASE(lin)) {
        return s->entry[slot].page | PAGE_OFFSET(lin);
    }
    if (!cpu_canonical(lin)) {
        cpu_gp0(v); /* ran or branched past the canonical addresses */
    }
    return mem_translate(v, lin, MEM_X, user, true)->page | PAGE_OFFSET(lin);
}
