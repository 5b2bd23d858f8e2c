/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem.c - guest memory as one vCPU sees it: translation caches that are never stale, and
 * every checked path behind mem.h.
 *
 * Three caches of equal size, one per kind of access: supervisor, user, and supervisor data
 * accesses that EFLAGS.AC lets pass SMAP. What they hold was read from table pages, which carry
 * RAM_TABLE; a store that changes a present entry there drops what came from it, so CR3 loads and
 * INVLPG have nothing to flush (R7). Owned by one vCPU and run by its thread; no state. */
#include "vmm/cpu/mem.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/block.h"
#include "vmm/mmu/walk.h"

enum { CTX_SUPER, CTX_USER, CTX_SUPER_AC, CTX_COUNT };
enum { ENTRIES_DEFAULT = 2048, ENTRIES_MIN = 16, TABLES_MAX = 4096 };
enum { USE_LEAF = 1, USE_UPPER = 2 }; /* how walks used a table page */

/* The cold half of a cache entry. */
struct fill {
    gva_t tag; /* linear page, or TLB_NONE */
    gpa_t page;
    gpa_t leaf;   /* of the entry that maps it; 0 without paging */
    uint8_t *hva; /* of the page; NULL: MMIO */
    uint8_t perm; /* MEM_*; W also where a store must take the slow path */
    bool listed;
};

struct vcpu_mem {
    unsigned entries; /* per cache, a power of two */
    struct tlb_entry *tlb;
    struct fill *fill;
    uint32_t *used; /* slots filled since the last drop */
    uint32_t nused;
    uint8_t *use;     /* per page of RAM: USE_* */
    uint64_t *tables; /* pages with use != 0 */
    unsigned ntables;
    /* What the translations depend on. */
    uint64_t cr0, cr3, cr4, efer, pdpte[4];
    bool is64;
    struct tlb_entry none; /* what v->tlb points to while breakpoints watch data */
};

/* --- creation and dropping ------------------------------------------------------------------ */

static void clear_slot(struct vcpu_mem *m, uint32_t slot)
{
    m->tlb[slot] = (struct tlb_entry){TLB_NONE, TLB_NONE, TLB_NONE, 0};
    m->fill[slot].tag = TLB_NONE;
}

int vcpu_mem_create(struct vcpu *v, unsigned entries)
{
    struct vcpu_mem *m = plx_calloc(1, sizeof *m);

    if (m == NULL) {
        return PLX_ENOMEM;
    }
    m->entries = ENTRIES_MIN;
    while (m->entries < (entries == 0 ? (unsigned)ENTRIES_DEFAULT : entries) &&
           m->entries < ENTRIES_DEFAULT) {
        m->entries *= 2;
    }
    v->mem = m;
    m->tlb = plx_calloc((size_t)m->entries * CTX_COUNT, sizeof *m->tlb);
    m->fill = plx_calloc((size_t)m->entries * CTX_COUNT, sizeof *m->fill);
    m->used = plx_calloc((size_t)m->entries * CTX_COUNT, sizeof *m->used);
    m->use = plx_calloc(ram_pages(v->ram), 1);
    m->tables = plx_calloc(TABLES_MAX, sizeof *m->tables);
    if (m->tlb == NULL || m->fill == NULL || m->used == NULL || m->use == NULL ||
        m->tables == NULL) {
        vcpu_mem_destroy(v);
        return PLX_ENOMEM;
    }
    for (uint32_t slot = 0; slot < m->entries * CTX_COUNT; slot++) {
        clear_slot(m, slot);
    }
    m->none = m->tlb[0];
    vcpu_context_changed(v);
    return 0;
}

void vcpu_mem_destroy(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;

    if (m != NULL) {
        plx_free(m->tlb);
        plx_free(m->fill);
        plx_free(m->used);
        plx_free(m->use);
        plx_free(m->tables);
        plx_free(m);
        v->mem = NULL;
    }
}

void vcpu_mem_drop_all(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;

    v->code_gen++;
    for (uint32_t i = 0; i < m->nused; i++) {
        clear_slot(m, m->used[i]);
        m->fill[m->used[i]].listed = false;
    }
    m->nused = 0;
    for (unsigned i = 0; i < m->ntables; i++) {
        m->use[m->tables[i]] = 0;
        if (v->ram->nwatchers <= 1) {
            v->ram->flags[m->tables[i]] &= (uint8_t)~RAM_TABLE;
        }
    }
    m->ntables = 0;
    v->attention = true; /* the code that runs may be mapped no longer */
}

void vcpu_mem_drop_writes(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;

    for (uint32_t i = 0; i < m->nused; i++) {
        m->tlb[m->used[i]].wtag = TLB_NONE;
    }
}

void vcpu_mem_protect(struct vcpu *v, gpa_t gpa)
{
    struct vcpu_mem *m = v->mem;

    for (uint32_t i = 0; i < m->nused; i++) {
        if (m->fill[m->used[i]].page == PAGE_BASE(gpa)) {
            m->tlb[m->used[i]].wtag = TLB_NONE;
        }
    }
    for (unsigned i = 0; i < v->ram->nwatchers; i++) {
        if (v->ram->watchers[i].ctx != v) {
            v->ram->watchers[i].cleaned(v->ram->watchers[i].ctx);
        }
    }
}

/* Entries in [gpa, gpa + len) of a table page changed: drop what was derived from them. */
static void tables_changed(struct vcpu *v, gpa_t gpa, uint64_t len)
{
    struct vcpu_mem *m = v->mem;
    uint64_t page;

    if (!ram_page_of(v->ram, gpa, &page) || m->use[page] == 0) {
        return;
    }
    v->code_gen++;
    v->attention = true; /* as above, also when the code's own entry was evicted already */
    if ((m->use[page] & USE_UPPER) != 0) {
        vcpu_mem_drop_all(v);
        return;
    }
    for (uint32_t i = 0; i < m->nused; i++) {
        struct fill *f = &m->fill[m->used[i]];
        if (f->leaf + 8 > gpa && f->leaf < gpa + len) {
            clear_slot(m, m->used[i]);
        }
    }
}

void vcpu_mem_written(struct vcpu *v, gpa_t gpa, uint64_t len)
{
    tables_changed(v, gpa, len);
}

/* Until the caches know which of them came from which page, everything goes. */
void vcpu_mem_revoke(struct vcpu *v, uint64_t page, bool all)
{
    (void)page;
    if (all) {
        vcpu_mem_drop_all(v);
        vcpu_blocks_drop(v);
    } else {
        vcpu_mem_drop_writes(v);
    }
}

void vcpu_mem_settle(struct vcpu *v)
{
    (void)v; /* owes nothing: setting a flag takes the table page */
}

void vcpu_mem_select(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;
    bool user = cpu_cpl(&v->c) == 3;

    v->code_ctx = !m->is64 ? CODE_NOT_64 : user ? CODE_USER : CODE_SUPER;
    if (v->debug) {
        v->tlb = &m->none;
        v->tlb_mask = 0;
    } else {
        v->tlb = m->tlb + (user ? CTX_USER : CTX_SUPER) * m->entries;
        v->tlb_mask = m->entries - 1;
    }
}

void vcpu_context_changed(struct vcpu *v)
{
    struct vcpu_mem *m = v->mem;
    const struct cpu *c = &v->c;
    uint64_t cr0 = c->cr0 & (CR0_PG | CR0_WP);
    uint64_t cr4 = c->cr4 & (CR4_PAE | CR4_PSE | CR4_SMEP | CR4_SMAP);
    uint64_t efer = c->efer & (EFER_LMA | EFER_NX);
    uint64_t cr3 = c->cr3 & ~(PAGE_SIZE - 1);

    if (cr0 != m->cr0 || cr3 != m->cr3 || cr4 != m->cr4 || efer != m->efer ||
        memcmp(m->pdpte, c->pdpte, sizeof m->pdpte) != 0) {
        vcpu_mem_drop_all(v);
        m->cr0 = cr0;
        m->cr3 = cr3;
        m->cr4 = cr4;
        m->efer = efer;
        memcpy(m->pdpte, c->pdpte, sizeof m->pdpte);
    }
    m->is64 = cpu_is64(c);
    vcpu_mem_select(v);
    v->attention = true;
}

/* --- translation ------------------------------------------------------------------------------ */

static void note_table(struct vcpu *v, gpa_t entry, uint8_t use)
{
    struct vcpu_mem *m = v->mem;
    uint64_t page;

    if (!ram_page_of(v->ram, entry, &page)) {
        return;
    }
    if (m->use[page] == 0) {
        PLX_CHECK(m->ntables < TABLES_MAX);
        m->tables[m->ntables++] = page;
    }
    m->use[page] |= use;
    if ((v->ram->flags[page] & RAM_TABLE) == 0) {
        v->ram->flags[page] |= RAM_TABLE;
        vcpu_mem_protect(v, entry);
    }
}

static void notify_others(struct vcpu *v, gpa_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < v->ram->nwatchers; i++) {
        if (v->ram->watchers[i].ctx != v) {
            v->ram->watchers[i].written(v->ram->watchers[i].ctx, gpa, len);
        }
    }
}

/* The walk set accessed or dirty flags: stores to RAM that change no translation. */
static void note_flags_set(struct vcpu *v, const struct walk_result *r)
{
    for (unsigned i = 0; i < r->nset; i++) {
        uint64_t page;
        if (!ram_page_of(v->ram, r->set[i], &page)) {
            continue;
        }
        v->ram->flags[page] |= RAM_DIRTY;
        if ((v->ram->flags[page] & RAM_CODE) != 0) {
            blocks_written(v, r->set[i], r->entry_size);
            notify_others(v, r->set[i], r->entry_size);
        }
    }
}

static void set_tags(struct vcpu *v, uint32_t slot)
{
    struct tlb_entry *e = &v->mem->tlb[slot];
    const struct fill *f = &v->mem->fill[slot];

    *e = (struct tlb_entry){TLB_NONE, TLB_NONE, TLB_NONE, 0};
    if (f->hva == NULL) {
        return;
    }
    uint64_t page = (uint64_t)(f->hva - v->ram->hva) >> PAGE_SHIFT;
    e->addend = (uintptr_t)f->hva - f->tag;
    if ((f->perm & MEM_R) != 0) {
        e->rtag = f->tag;
    }
    if ((f->perm & MEM_X) != 0) {
        e->xtag = f->tag;
    }
    if ((f->perm & MEM_W) != 0 &&
        (v->ram->flags[page] & (RAM_DIRTY | RAM_TABLE | RAM_CODE)) == RAM_DIRTY) {
        e->wtag = f->tag;
    }
}

/* Translate one page's access as SDM Vol. 3A, "Paging"; raises #PF. @implicit: an access to a
 * system structure, which EFLAGS.AC does not let pass SMAP. The result is valid until the next
 * translation or drop. */
static const struct fill *translate(struct vcpu *v, gva_t lin, unsigned access, bool user,
                                    bool implicit)
{
    struct vcpu_mem *m = v->mem;
    bool ac = !user && !implicit && (v->c.cr4 & CR4_SMAP) != 0 && (v->c.rflags & FLAG_AC) != 0;
    unsigned ctx = user ? CTX_USER : ac ? CTX_SUPER_AC : CTX_SUPER;
    uint32_t slot = ctx * m->entries + (uint32_t)((lin >> PAGE_SHIFT) & (m->entries - 1));
    struct fill *f = &m->fill[slot];

    if (f->tag != PAGE_BASE(lin) || (f->perm & access) == 0) {
        struct walk_result r;
        struct walk_want want = {.access = access, .user = user, .ac = ac};
        if (walk(v->ram, &v->c, lin, want, &r) != 0) {
            cpu_raise_pf(v, lin, r.error);
        }
        if (m->ntables + WALK_LEVELS > TABLES_MAX) {
            vcpu_mem_drop_all(v);
        }
        for (unsigned i = 0; i < r.nentries; i++) {
            note_table(v, r.entry[i], i + 1 == r.nentries ? USE_LEAF : USE_UPPER);
        }
        note_flags_set(v, &r);
        if (!f->listed) {
            f->listed = true;
            m->used[m->nused++] = slot;
        }
        f->tag = PAGE_BASE(lin);
        f->page = r.page;
        f->leaf = r.nentries == 0 ? 0 : r.entry[r.nentries - 1];
        f->hva = ram_page_hva(v->ram, r.page);
        f->perm = (uint8_t)r.perm;
        set_tags(v, slot);
    }
    if (access == MEM_W && f->hva != NULL && m->tlb[slot].wtag == TLB_NONE) {
        v->ram->flags[(uint64_t)(f->hva - v->ram->hva) >> PAGE_SHIFT] |= RAM_DIRTY;
        set_tags(v, slot);
    }
    return f;
}

gpa_t mem_fetch(struct vcpu *v, gva_t lin)
{
    struct vcpu_mem *m = v->mem;
    bool user = cpu_cpl(&v->c) == 3;
    uint32_t slot = (user ? CTX_USER : CTX_SUPER) * m->entries +
                    (uint32_t)((lin >> PAGE_SHIFT) & (m->entries - 1));

    if (m->tlb[slot].xtag == PAGE_BASE(lin)) {
        return m->fill[slot].page | PAGE_OFFSET(lin);
    }
    if ((uint64_t)((int64_t)(lin << 16) >> 16) != lin) {
        cpu_gp0(v); /* ran or branched past the canonical addresses */
    }
    return translate(v, lin, MEM_X, user, true)->page | PAGE_OFFSET(lin);
}

/* --- pieces: an access cut at its page boundary ------------------------------------------------
 */

struct piece {
    gpa_t gpa;
    uint8_t *hva; /* NULL: MMIO */
    unsigned len;
};

struct span {
    struct piece piece[2];
    unsigned n;
};

static gva_t next_page(const struct vcpu *v, gva_t lin)
{
    gva_t next = PAGE_BASE(lin) + PAGE_SIZE;
    return v->mem->is64 ? next : (uint32_t)next;
}

/* Parallel part: the access reaches the vCPU's own LAPIC only, and the instruction has no effect
 * after it. */
static bool own_mmio(const struct vcpu *v, gpa_t gpa, unsigned len, bool write)
{
    if (v->ops->mmio_own == NULL ||
        (write && (v->cur == NULL || v->cur->mnemonic != ZYDIS_MNEMONIC_MOV))) {
        return false;
    }
    return v->ops->mmio_own(v->ops_ctx, gpa, len, write);
}

static void span_of(struct vcpu *v, gva_t lin, unsigned len, unsigned access, bool user,
                    bool implicit, struct span *s)
{
    unsigned first = (unsigned)(PAGE_SIZE - PAGE_OFFSET(lin));

    s->n = 0;
    for (gva_t at = lin; len > 0; at = next_page(v, at)) {
        const struct fill *f = translate(v, at, access, user, implicit);
        unsigned part = s->n == 0 && first < len ? first : len;
        s->piece[s->n++] = (struct piece){f->page + PAGE_OFFSET(at),
                                          f->hva == NULL ? NULL : f->hva + PAGE_OFFSET(at), part};
        if (f->hva == NULL && v->parallel &&
            !own_mmio(v, f->page + PAGE_OFFSET(at), len, access == MEM_W)) {
            vcpu_need_serial(v);
        }
        len -= part;
    }
    if (v->debug && !implicit && access != MEM_X) {
        unsigned total = s->piece[0].len + (s->n > 1 ? s->piece[1].len : 0);
        exc_data_access(v, lin, total, access == MEM_W);
    }
}

/* Largest access to MMIO at @gpa: naturally aligned parts, whole where it fits. */
static unsigned mmio_part(unsigned len)
{
    return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static void piece_read(struct vcpu *v, const struct piece *p, uint8_t *out)
{
    if (p->hva != NULL) {
        memcpy(out, p->hva, p->len);
        return;
    }
    for (unsigned at = 0; at < p->len;) {
        unsigned part = mmio_part(p->len - at);
        uint64_t value = v->ops->mmio_read(v->ops_ctx, p->gpa + at, part);
        memcpy(out + at, &value, part);
        at += part;
    }
}

/* Does the store change an entry that may be present? Conservative: entries of 4 and 8 bytes. */
static bool changes_entry(const struct piece *p, const uint8_t *data)
{
    unsigned off = (unsigned)PAGE_OFFSET(p->gpa);

    for (unsigned at = off & ~7U; at < off + p->len; at += 8) {
        unsigned from = at > off ? at : off;
        unsigned to = at + 8 < off + p->len ? at + 8 : off + p->len;
        uint64_t old;
        memcpy(&old, p->hva - off + at, sizeof old);
        if ((old & UINT64_C(0x100000001)) != 0 &&
            memcmp(p->hva + (from - off), data + (from - off), to - from) != 0) {
            return true;
        }
    }
    return false;
}

static void piece_write(struct vcpu *v, const struct piece *p, const uint8_t *data)
{
    if (p->hva == NULL) {
        for (unsigned at = 0; at < p->len;) {
            unsigned part = mmio_part(p->len - at);
            uint64_t value = 0;
            memcpy(&value, data + at, part);
            v->ops->mmio_write(v->ops_ctx, p->gpa + at, part, value);
            at += part;
        }
        return;
    }
    uint8_t *flags = &v->ram->flags[(uint64_t)(p->hva - v->ram->hva) >> PAGE_SHIFT];
    bool entry = false;
    *flags |= RAM_DIRTY;
    if ((*flags & (RAM_TABLE | RAM_CODE)) != 0) {
        entry = (*flags & RAM_TABLE) != 0 && changes_entry(p, data);
        notify_others(v, p->gpa, p->len);
#ifndef BREAK_R7 /* make/rules.mk: decoded code that outlives a store */
        if ((*flags & RAM_CODE) != 0) {
            blocks_written(v, p->gpa, p->len);
        }
#endif
    }
    memcpy(p->hva, data, p->len);
    if (entry) {
        tables_changed(v, p->gpa, p->len);
    }
}

static void span_read(struct vcpu *v, const struct span *s, void *out)
{
    piece_read(v, &s->piece[0], out);
    if (s->n > 1) {
        piece_read(v, &s->piece[1], (uint8_t *)out + s->piece[0].len);
    }
}

static void span_write(struct vcpu *v, const struct span *s, const void *data)
{
    piece_write(v, &s->piece[0], data);
    if (s->n > 1) {
        piece_write(v, &s->piece[1], (const uint8_t *)data + s->piece[0].len);
    }
}

/* --- segmented access --------------------------------------------------------------------------
 */

static void check_alignment(struct vcpu *v, gva_t lin, unsigned size)
{
    if ((lin & (size - 1)) != 0 && (v->c.rflags & FLAG_AC) != 0 && (v->c.cr0 & CR0_AM) != 0 &&
        cpu_cpl(&v->c) == 3) {
        cpu_raise_error(v, VEC_AC, 0);
    }
}

/* The linear address where no check can fail but being canonical, which a cache hit implies. */
static inline bool lin_plain(const struct vcpu *v, unsigned seg, uint64_t off, unsigned size,
                             gva_t *lin)
{
    const struct cpu_seg *s = &v->c.seg[seg];

    if (v->mem->is64) {
        *lin = off + (seg >= SEG_FS ? s->base : 0);
        return true;
    }
    *lin = (uint32_t)(s->base + off);
    return s->limit == UINT32_MAX && off <= UINT32_MAX - (size - 1) &&
           (s->attr & (SEG_NULL | SEG_P | SEG_S | SEG_CODE | SEG_EC | SEG_RW)) ==
               (SEG_P | SEG_S | SEG_RW);
}

uint64_t mem_read(struct vcpu *v, unsigned seg, uint64_t off, unsigned size)
{
    struct span s;
    uint64_t value = 0;
    gva_t lin;

    if (lin_plain(v, seg, off, size, &lin)) {
        const void *p = tlb_read(v, lin, size);
        if (p != NULL) {
            return host_load(p, size);
        }
    }
    lin = seg_linear(v, seg, off, size, false);
    check_alignment(v, lin, size);
    span_of(v, lin, size, MEM_R, cpu_cpl(&v->c) == 3, false, &s);
    span_read(v, &s, &value);
    return value;
}

void mem_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, uint64_t value)
{
    struct span s;
    gva_t lin;

    if (lin_plain(v, seg, off, size, &lin)) {
        void *p = tlb_write(v, lin, size);
        if (p != NULL) {
            host_store(p, size, value);
            return;
        }
    }
    lin = seg_linear(v, seg, off, size, true);
    check_alignment(v, lin, size);
    span_of(v, lin, size, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
    span_write(v, &s, &value);
}

void mem_read_bytes(struct vcpu *v, unsigned seg, uint64_t off, void *out, unsigned len)
{
    struct span s;

    span_of(v, seg_linear(v, seg, off, len, false), len, MEM_R, cpu_cpl(&v->c) == 3, false, &s);
    span_read(v, &s, out);
}

void mem_write_bytes(struct vcpu *v, unsigned seg, uint64_t off, const void *data, unsigned len)
{
    struct span s;

    span_of(v, seg_linear(v, seg, off, len, true), len, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
    span_write(v, &s, data);
}

void mem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned len)
{
    struct span s;

    span_of(v, seg_linear(v, seg, off, len, true), len, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
}

uint64_t mem_rmw_begin(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, struct mem_rmw *m)
{
    struct span s;

    m->size = size;
    if (lin_plain(v, seg, off, size, &m->linear)) {
        m->hva = tlb_write(v, m->linear, size);
        if (m->hva != NULL) {
            m->old = host_load(m->hva, size);
            return m->old;
        }
    }
    m->hva = NULL;
    m->linear = seg_linear(v, seg, off, size, true);
    m->user = cpu_cpl(&v->c) == 3;
    m->old = 0;
    check_alignment(v, m->linear, size);
    span_of(v, m->linear, size, MEM_W, m->user, false, &s);
    span_read(v, &s, &m->old);
    return m->old;
}

void mem_rmw_end(struct vcpu *v, struct mem_rmw *m, uint64_t value)
{
    struct span s;

    if (m->hva != NULL) {
        host_store(m->hva, m->size, value);
        return;
    }
    span_of(v, m->linear, m->size, MEM_W, m->user, false, &s);
    span_write(v, &s, &value);
}

uint64_t mem_read_lin(struct vcpu *v, gva_t lin, unsigned size, bool user)
{
    struct span s;
    uint64_t value = 0;

    span_of(v, lin, size, MEM_R, user, !user, &s);
    span_read(v, &s, &value);
    return value;
}

void mem_write_lin(struct vcpu *v, gva_t lin, unsigned size, uint64_t value, bool user)
{
    struct span s;

    span_of(v, lin, size, MEM_W, user, !user, &s);
    span_write(v, &s, &value);
}

unsigned mem_window(struct vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write,
                    uint8_t **hva)
{
    gva_t lin;

    if ((v->c.rflags & FLAG_AC) != 0 || !lin_plain(v, seg, off, len, &lin)) {
        return 0;
    }
    *hva = write ? tlb_write(v, lin, 1) : tlb_read(v, lin, 1);
    if (*hva == NULL) {
        return 0;
    }
    unsigned room = (unsigned)(PAGE_SIZE - PAGE_OFFSET(lin));
    return len < room ? len : room;
}

/* --- stack ------------------------------------------------------------------------------------ */

/* SDM Vol. 1, "Address-Size Attribute for Stack". */
static uint64_t stack_mask(const struct vcpu *v)
{
    return v->mem->is64 ? UINT64_MAX : (v->c.seg[SEG_SS].attr & SEG_DB) != 0 ? UINT32_MAX : 0xffff;
}

static void set_sp(struct vcpu *v, uint64_t mask, uint64_t sp)
{
    v->c.gpr[RSP] = (sp & mask) | (mask == 0xffff ? v->c.gpr[RSP] & ~mask : 0);
}

void mem_push(struct vcpu *v, unsigned size, uint64_t value)
{
    uint64_t mask = stack_mask(v);
    uint64_t sp = (v->c.gpr[RSP] - size) & mask;

    mem_write(v, SEG_SS, sp, size, value);
    set_sp(v, mask, sp);
}

uint64_t mem_pop(struct vcpu *v, unsigned size)
{
    uint64_t mask = stack_mask(v);
    uint64_t value = mem_read(v, SEG_SS, v->c.gpr[RSP] & mask, size);

    set_sp(v, mask, v->c.gpr[RSP] + size);
    return value;
}
