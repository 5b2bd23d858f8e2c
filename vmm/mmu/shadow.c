/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/shadow.c - see shadow.h. */
#include "vmm/mmu/shadow.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/mmu/owner.h"

/* Of a space and kind: 64 MiB in reach, as a processor has. What is never used costs no memory. */
enum { ENTRIES_DEFAULT = 16384, ENTRIES_MIN = 1, BUCKET_BITS = 14, BUCKETS = 1 << BUCKET_BITS };
/* Changes of the space after which a half that none of them shared may be given up. */
enum { HALF_AGE = 64 };

/* --- life ------------------------------------------------------------------------------------ */

/* Halves are spaces behind the others. */
static unsigned all_spaces(const struct shadow *s)
{
    return s->nspaces + s->nhalves;
}

static int open_space(struct shadow *s, unsigned i)
{
    struct shadow_space *sp = &s->space[i];

    sp->first = s->all_slots;
    sp->slots = i < s->nspaces ? s->slots : s->entries * SHADOW_HALF_KINDS;
    s->all_slots += sp->slots;
    sp->used = plx_calloc(sp->slots, sizeof *sp->used);
    sp->tops = plx_calloc(SHADOW_TOPS, sizeof *sp->tops);
    return sp->used == NULL || sp->tops == NULL ? PLX_ENOMEM : 0;
}

int shadow_create(const struct shadow_config *cfg, struct ram *ram, bool *attention,
                  unsigned entries, struct shadow **out)
{
    struct shadow *s = plx_calloc(1, sizeof *s);
    int rc = 0;

    *out = NULL;
    if (s == NULL) {
        return PLX_ENOMEM;
    }
    s->cfg = *cfg;
    s->ram = ram;
    s->attention = attention;
    s->nspaces = cfg->tagged ? SHADOW_SPACES : 1;
    s->nhalves = cfg->tagged ? SHADOW_HALVES : 0;
    s->entries = ENTRIES_MIN;
    while (s->entries < (entries == 0 ? (unsigned)ENTRIES_DEFAULT : entries) &&
           s->entries < ENTRIES_DEFAULT) {
        s->entries *= 2;
    }
    s->slots = s->entries * SHADOW_KINDS;
    for (unsigned i = 0; i < all_spaces(s) && rc == 0; i++) {
        rc = open_space(s, i);
    }
    s->tlb = plx_pages(s->all_slots * sizeof *s->tlb);
    s->entry = plx_pages(s->all_slots * sizeof *s->entry);
    s->use = plx_calloc(ram_pages(ram), sizeof *s->use);
    s->page = plx_calloc(ram_pages(ram), sizeof *s->page);
    s->by_leaf = plx_calloc(BUCKETS, sizeof *s->by_leaf);
    s->by_dir = plx_calloc(BUCKETS, sizeof *s->by_dir);
    if (rc != 0 || s->tlb == NULL || s->entry == NULL || s->use == NULL || s->page == NULL ||
        s->by_leaf == NULL || s->by_dir == NULL) {
        shadow_destroy(s);
        return PLX_ENOMEM;
    }
    shadow_select(s, &(struct shadow_key){0});
    memset(&s->counters, 0, sizeof s->counters);
    *out = s;
    return 0;
}

void shadow_destroy(struct shadow *s)
{
    if (s != NULL) {
        for (unsigned i = 0; i < all_spaces(s); i++) {
            plx_free(s->space[i].used);
            plx_free(s->space[i].tops);
        }
        plx_pages_free(s->tlb, s->all_slots * sizeof *s->tlb);
        plx_pages_free(s->entry, s->all_slots * sizeof *s->entry);
        plx_free(s->use);
        plx_free(s->page);
        plx_free(s->by_leaf);
        plx_free(s->by_dir);
        plx_free(s);
    }
}

/* --- links: page, leaf and directory to entries --------------------------------------------------
 */

/* The entries of one table lie in a row. */
static uint32_t bucket_of(gpa_t entry)
{
    uint64_t page = entry >> PAGE_SHIFT, n = PAGE_OFFSET(entry) >> 3;

    return ((uint32_t)(page * UINT64_C(0x9e3779b97f4a7c15) >> (64 - BUCKET_BITS)) + (uint32_t)n) &
           (BUCKETS - 1);
}

/* One of the three links of an entry, by its offset. */
static struct shadow_link *link_of(struct shadow *s, uint32_t number, size_t off)
{
    return (struct shadow_link *)(void *)((char *)&s->entry[number - 1] + off);
}

#define BY_PAGE offsetof(struct shadow_entry, by_page)
#define BY_LEAF offsetof(struct shadow_entry, by_leaf)
#define BY_DIR  offsetof(struct shadow_entry, by_dir)

static void push(struct shadow *s, uint32_t *head, uint32_t slot, size_t off)
{
    *link_of(s, slot + 1, off) = (struct shadow_link){*head, 0};
    if (*head != 0) {
        link_of(s, *head, off)->prev = slot + 1;
    }
    *head = slot + 1;
}

static void pull(struct shadow *s, uint32_t *head, uint32_t slot, size_t off)
{
    struct shadow_link l = *link_of(s, slot + 1, off);

    if (l.prev != 0) {
        link_of(s, l.prev, off)->next = l.next;
    } else {
        *head = l.next;
    }
    if (l.next != 0) {
        link_of(s, l.next, off)->prev = l.prev;
    }
}

void shadow_guard(struct shadow *s, uint64_t page, bool reads)
{
    for (uint32_t n = s->page[page].entries; n != 0; n = s->entry[n - 1].by_page.next) {
        struct tlb_entry *t = &s->tlb[n - 1];
        t->wtag = shadow_no_tag(n - 1);
        if (reads) {
            *s->attention = *s->attention || shadow_is_tag(t->xtag);
            t->rtag = shadow_no_tag(n - 1);
            t->xtag = shadow_no_tag(n - 1);
        }
    }
}

/* @page gains a use for which stores to it must be seen. */
static void add_use(struct shadow *s, uint64_t page, uint8_t use)
{
    if ((s->use[page] & USE_GUARDED) == 0) {
        shadow_guard(s, page, false);
    }
    if ((s->use[page] & USE_TABLE) == 0 && s->serial != NULL) {
        ram_tell_deriving(s->ram, s->serial, page);
    }
    s->use[page] |= use;
}

/* Table entries are in RAM, or there would have been no translation. */
static uint64_t page_of(const struct shadow *s, gpa_t entry)
{
    uint64_t page;

    PLX_CHECK(ram_page_of(s->ram, entry, &page));
    return page;
}

static void link_leaf(struct shadow *s, uint32_t slot, gpa_t leaf)
{
    uint64_t page = page_of(s, leaf);

    push(s, &s->by_leaf[bucket_of(leaf)], slot, BY_LEAF);
    if (s->page[page].nleaf++ == 0) {
        add_use(s, page, USE_LEAF);
    }
}

static void link_dir(struct shadow *s, uint32_t slot, gpa_t dir)
{
    uint64_t page = page_of(s, dir);

    push(s, &s->by_dir[bucket_of(dir)], slot, BY_DIR);
    if (s->page[page].ndir++ == 0) {
        add_use(s, page, USE_DIR);
    }
}

static void unlink_entry(struct shadow *s, uint32_t slot)
{
    struct shadow_entry *e = &s->entry[slot];
    uint64_t page;

    if (ram_page_of(s->ram, e->page, &page)) {
        pull(s, &s->page[page].entries, slot, BY_PAGE);
        if (s->page[page].entries == 0) {
            s->use[page] &= (uint8_t)~USE_DATA;
        }
    }
    if (e->leaf != SHADOW_NONE) {
        page = page_of(s, e->leaf);
        pull(s, &s->by_leaf[bucket_of(e->leaf)], slot, BY_LEAF);
        if (--s->page[page].nleaf == 0) {
            s->use[page] &= (uint8_t)~USE_LEAF;
        }
    }
    if (e->dir != SHADOW_NONE) {
        page = page_of(s, e->dir);
        pull(s, &s->by_dir[bucket_of(e->dir)], slot, BY_DIR);
        if (--s->page[page].ndir == 0) {
            s->use[page] &= (uint8_t)~USE_DIR;
        }
    }
}

static struct tlb_entry no_entry(uint32_t slot)
{
    gva_t none = shadow_no_tag(slot);

    return (struct tlb_entry){none, none, none, NULL};
}

void shadow_drop(struct shadow *s, uint32_t slot)
{
    if (s->entry[slot].tag == TLB_NONE) {
        return;
    }
    unlink_entry(s, slot);
    if (shadow_is_tag(s->tlb[slot].xtag)) {
        *s->attention = true;
    }
    s->entry[slot].tag = TLB_NONE;
    s->tlb[slot] = no_entry(slot);
}

/* --- spaces ------------------------------------------------------------------------------------
 */

static unsigned half_space(const struct shadow *s, const struct shadow_half *h)
{
    return s->nspaces + (unsigned)(h - s->halves);
}

/* The current space shares @half, or (NULL) nothing. */
static void set_half(struct shadow *s, struct shadow_half *half)
{
    s->half = half;
    for (unsigned kind = 0; kind < SHADOW_KINDS; kind++) {
        bool shared = half != NULL && kind < SHADOW_HALF_KINDS;
        unsigned space = shared ? half_space(s, half) : s->current;
        s->base[kind] = s->space[space].first + kind * s->entries;
    }
    s->moved = true;
    *s->attention = true;
}

static void empty_space(struct shadow *s, unsigned i)
{
    struct shadow_space *sp = &s->space[i];

    for (uint32_t k = 0; k < sp->nused; k++) {
        s->counters.drops_space += s->entry[sp->used[k]].tag != TLB_NONE;
        shadow_drop(s, sp->used[k]);
        s->entry[sp->used[k]].listed = false;
    }
    sp->nused = 0;
    for (unsigned k = 0; k < sp->ntops; k++) {
        struct shadow_page *p = &s->page[sp->tops[k]];
        p->tops &= (uint16_t) ~(1U << i);
        if (p->tops == 0) {
            s->use[sp->tops[k]] &= (uint8_t)~USE_TOP;
        }
    }
    sp->ntops = 0;
    sp->alone = false;
    if (i >= s->nspaces) {
        s->halves[i - s->nspaces].n = 0;
    } else if (i == s->current && s->half != NULL) {
        set_half(s, NULL); /* it is not known any more that its top table is like others' */
    }
}

static unsigned choose_space(struct shadow *s)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < s->nspaces; i++) {
        if (!s->space[i].live) {
            return i;
        }
        if (s->space[i].used_at < s->space[oldest].used_at) {
            oldest = i;
        }
    }
    s->counters.space_evictions++;
    return oldest;
}

static void claim_space(struct shadow *s, unsigned i, const struct shadow_key *key)
{
    struct shadow_space *sp = &s->space[i];

    if (sp->live) {
        empty_space(s, i);
    } else {
        for (uint32_t slot = sp->first; slot < sp->first + sp->slots; slot++) {
            s->entry[slot].tag = TLB_NONE;
            s->tlb[slot] = no_entry(slot);
        }
        sp->live = true;
    }
    sp->key = *key;
}

void shadow_select(struct shadow *s, const struct shadow_key *key)
{
    unsigned i = 0;

    s->counters.switches++;
    while (i < s->nspaces &&
           (!s->space[i].live || memcmp(&s->space[i].key, key, sizeof *key) != 0)) {
        i++;
    }
    if (i == s->nspaces) {
        i = choose_space(s);
        claim_space(s, i, key);
    } else {
        s->counters.switch_hits++;
    }
    s->current = i;
    s->space[i].used_at = ++s->clock;
    set_half(s, NULL);
}

void shadow_drop_all(struct shadow *s)
{
    for (unsigned i = 0; i < all_spaces(s); i++) {
        empty_space(s, i);
    }
    *s->attention = true;
}

void shadow_drop_writes(struct shadow *s)
{
    for (unsigned i = 0; i < all_spaces(s); i++) {
        for (uint32_t k = 0; k < s->space[i].nused; k++) {
            s->tlb[s->space[i].used[k]].wtag = shadow_no_tag(s->space[i].used[k]);
        }
    }
}

static void note_top(struct shadow *s, unsigned space, uint64_t page)
{
    struct shadow_space *sp = &s->space[space];
    struct shadow_page *p = &s->page[page];

    if ((p->tops >> space & 1) == 0) {
        add_use(s, page, USE_TOP);
        p->tops |= (uint16_t)(1U << space);
        sp->tops[sp->ntops++] = page;
    }
}

static void make_room_for_tops(struct shadow *s, unsigned space)
{
    if (s->space[space].ntops + WALK_LEVELS > SHADOW_TOPS) {
        empty_space(s, space);
        *s->attention = true;
    }
}

/* --- halves -------------------------------------------------------------------------------------
 */

static uint64_t top_entry(const struct shadow *s, unsigned index)
{
    uint64_t value;

    memcpy(&value, ram_page_hva(s->ram, s->space[s->current].key.cr3) + index * sizeof value,
           sizeof value);
    return value;
}

bool shadow_may_share(const struct shadow *s)
{
    const struct shadow_space *sp = &s->space[s->current];

    /* Without SMAP supervisors access what is users', in the lower half. */
    return s->half == NULL && s->nhalves != 0 && !sp->alone && (sp->key.efer & EFER_LMA) != 0 &&
           (sp->key.cr4 & CR4_SMAP) != 0;
}

/* Does the current space have what @h was filled with? */
static bool agrees(const struct shadow *s, const struct shadow_half *h)
{
    const struct shadow_space *of = &s->space[half_space(s, h)];
    struct shadow_key key = s->space[s->current].key;
    unsigned i = 0;

    key.cr3 = 0;
    if (!of->live || memcmp(&of->key, &key, sizeof key) != 0) {
        return false;
    }
    while (i < h->n && top_entry(s, h->top[i].index) == h->top[i].value) {
        i++;
    }
    return i == h->n;
}

/* One that is free, or the one unused longest, if that is long. */
static struct shadow_half *claim_half(struct shadow *s)
{
    unsigned i = s->nspaces;

    for (unsigned k = i + 1; k < all_spaces(s); k++) {
        if (s->space[i].live && (!s->space[k].live || s->space[k].used_at < s->space[i].used_at)) {
            i = k;
        }
    }
    if (s->space[i].live && s->clock - s->space[i].used_at < HALF_AGE) {
        return NULL;
    }
    struct shadow_key key = s->space[s->current].key;
    key.cr3 = 0;
    claim_space(s, i, &key);
    return &s->halves[i - s->nspaces];
}

bool shadow_share(struct shadow *s)
{
    struct shadow_half *h = NULL;
    uint64_t root = page_of(s, s->space[s->current].key.cr3);

    for (unsigned i = 0; i < s->nhalves && h == NULL; i++) {
        h = agrees(s, &s->halves[i]) ? &s->halves[i] : NULL;
    }
    s->counters.half_hits += h != NULL;
    if (h == NULL && (h = claim_half(s)) == NULL) {
        return false;
    }
    make_room_for_tops(s, s->current);
    note_top(s, s->current, root);
    s->space[half_space(s, h)].used_at = s->clock;
    set_half(s, h);
    return true;
}

bool shadow_half_takes(struct shadow *s, gva_t lin, const struct walk_result *r)
{
    struct shadow_half *h = s->half;
    unsigned index = (unsigned)(PAGE_OFFSET(r->entry[0]) / sizeof(uint64_t)), i = 0;
    uint64_t value = top_entry(s, index);

    make_room_for_tops(s, half_space(s, h));
    while (i < h->n && h->top[i].index != index) {
        i++;
    }
    if (i == SHADOW_HALF_TOPS || (int64_t)lin >= 0 || (value & WALK_A) == 0 ||
        (i < h->n && h->top[i].value != value)) {
        s->space[s->current].alone = true;
        set_half(s, NULL);
        return false;
    }
    if (i == h->n) {
        h->top[h->n].value = value;
        h->top[h->n++].index = (uint16_t)index;
    }
    return true;
}

/* --- filling ------------------------------------------------------------------------------------
 */

static unsigned space_of(const struct shadow *s, uint32_t slot)
{
    uint32_t own = s->nspaces * s->slots;

    return slot < own ? slot / s->slots
                      : s->nspaces + (slot - own) / (s->entries * SHADOW_HALF_KINDS);
}

/* The first entry of a walk that those of @space depend on as such: halves know the values of those
 * of top tables. */
static unsigned first_of(const struct shadow *s, unsigned space)
{
    return space < s->nspaces ? 0 : 1;
}

static void put(struct shadow *s, uint32_t slot, gva_t lin, gpa_t page, unsigned perm, gpa_t leaf,
                const struct walk_result *r)
{
    unsigned space = space_of(s, slot);
    struct shadow_space *sp = &s->space[space];
    struct shadow_entry *e = &s->entry[slot];
    gpa_t dir = r->nentries < 2 + first_of(s, space) ? SHADOW_NONE : r->entry[r->nentries - 2];
    uint64_t index;

    if (!e->listed) {
        e->listed = true;
        sp->used[sp->nused++] = slot;
    }
    e->tag = PAGE_BASE(lin);
    e->page = page;
    e->leaf = leaf;
    e->dir = dir;
    e->perm = (uint8_t)perm;
    if (ram_page_of(s->ram, page, &index)) {
        push(s, &s->page[index].entries, slot, BY_PAGE);
        s->use[index] |= USE_DATA;
    }
    if (leaf != SHADOW_NONE) {
        link_leaf(s, slot, leaf);
    }
    if (dir != SHADOW_NONE) {
        link_dir(s, slot, dir);
    }
}

void shadow_fill(struct shadow *s, uint32_t slot, gva_t lin, const struct walk_result *r)
{
    unsigned n = r->nentries, space = space_of(s, slot);

    if (s->entry[slot].tag != TLB_NONE) {
        s->counters.evictions += s->entry[slot].tag != PAGE_BASE(lin);
        shadow_drop(s, slot);
    }
    make_room_for_tops(s, space);
    for (unsigned i = first_of(s, space); i + 2 < n; i++) {
        note_top(s, space, page_of(s, r->entry[i]));
    }
    put(s, slot, lin, r->page, r->perm, n == 0 ? SHADOW_NONE : r->entry[n - 1], r);
    s->entry[slot].waiting = false;
    s->counters.fills++;
}

bool shadow_fill_near(struct shadow *s, uint32_t slot, gva_t lin, const struct walk_result *r,
                      gpa_t leaf, gpa_t page, unsigned perm)
{
    if (s->entry[slot].tag != TLB_NONE) {
        return false;
    }
    put(s, slot, lin, page, perm, leaf, r);
    s->entry[slot].waiting = true;
    s->counters.batch_filled++;
    return true;
}

void shadow_tag(struct shadow *s, uint32_t slot, bool code, uint64_t page, unsigned rights)
{
    struct tlb_entry *t = &s->tlb[slot];
    const struct shadow_entry *e = &s->entry[slot];
    uint8_t use = s->use[page];

    t->hva = s->ram->hva + (page << PAGE_SHIFT);
    if ((rights & OWNER_R) != 0 && (use & USE_OWED) == 0) {
        t->rtag = !code && (e->perm & WALK_R) != 0 ? e->tag : shadow_no_tag(slot);
        t->xtag = code && (e->perm & WALK_X) != 0 ? e->tag : shadow_no_tag(slot);
    }
    if (!code && (rights & OWNER_W) != 0 && (e->perm & WALK_W) != 0 && (use & USE_GUARDED) == 0 &&
        (s->ram->flags[page] & RAM_DIRTY) != 0) {
        t->wtag = e->tag;
    }
}

/* --- what takes entries away
 * ---------------------------------------------------------------------- */

/* Drop the entries that came from the guest's entries in [from, to) of one table. */
static void drop_range(struct shadow *s, uint32_t *heads, size_t off, gpa_t from, gpa_t to,
                       const uint32_t *left, uint64_t *counter)
{
    size_t field =
        off == BY_LEAF ? offsetof(struct shadow_entry, leaf) : offsetof(struct shadow_entry, dir);

    for (gpa_t at = from & ~UINT64_C(7); at < to && *left != 0; at += 8) {
        for (uint32_t n = heads[bucket_of(at)], next; n != 0; n = next) {
            gpa_t entry;
            memcpy(&entry, (const char *)&s->entry[n - 1] + field, sizeof entry);
            next = link_of(s, n, off)->next;
            if ((entry & ~UINT64_C(7)) == at) {
                shadow_drop(s, n - 1);
                ++*counter;
            }
        }
    }
}

static void drop_tables(struct shadow *s, uint64_t page, gpa_t from, gpa_t to, uint64_t *counter)
{
    struct shadow_page *p = &s->page[page];

    if ((s->use[page] & USE_TOP) != 0) {
        for (unsigned i = 0; i < all_spaces(s); i++) {
            if ((p->tops >> i & 1) != 0) {
                empty_space(s, i);
            }
        }
    }
    if ((s->use[page] & USE_DIR) != 0) {
        drop_range(s, s->by_dir, BY_DIR, from, to, &p->ndir, counter);
    }
    if ((s->use[page] & USE_LEAF) != 0) {
        drop_range(s, s->by_leaf, BY_LEAF, from, to, &p->nleaf, counter);
    }
}

void shadow_table_written(struct shadow *s, uint64_t page, gpa_t gpa, uint64_t len)
{
    if ((s->use[page] & USE_TABLE) != 0) {
        drop_tables(s, page, gpa, gpa + len, &s->counters.drops_store);
    }
}

void shadow_revoke(struct shadow *s, uint64_t page, bool all)
{
    uint8_t use = s->use[page];

    if ((use & USE_DATA) != 0) {
        shadow_guard(s, page, all);
    }
#ifndef BREAK_R7 /* make/rules.mk: translations that outlive the right to read their tables */
    if (all && (use & USE_TABLE) != 0) {
        gpa_t base = ram_gpa_of_page(s->ram, page);
        drop_tables(s, page, base, base + PAGE_SIZE, &s->counters.drops_revoke);
    }
#endif
}

/* --- flags owed
 * ------------------------------------------------------------------------------------ */

bool shadow_owe(struct shadow *s, gpa_t entry, uint8_t flags)
{
    uint64_t page = page_of(s, entry);

    if (s->nowed == SHADOW_OWED) {
        return false;
    }
    s->owed[s->nowed++] = (struct shadow_owed){entry, flags};
    s->counters.owed++;
    if ((s->use[page] & USE_OWED) == 0) {
        s->use[page] |= USE_OWED;
        shadow_guard(s, page, true); /* what is read there is not in RAM yet */
    }
    return true;
}

uint8_t shadow_owed_flags(const struct shadow *s, gpa_t entry)
{
    uint8_t flags = 0;

    for (unsigned i = 0; i < s->nowed; i++) {
        if (s->owed[i].entry == entry) {
            flags |= s->owed[i].flags;
        }
    }
    return flags;
}

void shadow_owe_forget(struct shadow *s, unsigned n)
{
    for (unsigned i = n; i < s->nowed; i++) {
        s->use[page_of(s, s->owed[i].entry)] &= (uint8_t)~USE_OWED;
    }
    s->nowed = n;
    for (unsigned i = 0; i < n; i++) { /* pages that still owe something */
        s->use[page_of(s, s->owed[i].entry)] |= USE_OWED;
    }
}
