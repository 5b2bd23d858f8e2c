/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/walk.c - see walk.h. */
#include "vmm/mmu/walk.h"

#include <string.h>

#define PTE_P         UINT64_C(0x1)
#define PTE_RW        UINT64_C(0x2)
#define PTE_US        UINT64_C(0x4)
#define PTE_PS        UINT64_C(0x80)
#define PTE_NX        (UINT64_C(1) << 63)
#define BITS(hi, lo)  ((UINT64_MAX >> (63 - (hi))) & ~((UINT64_C(1) << (lo)) - 1))
#define PTE_ADDR      BITS(CPU_PHYS_BITS - 1, 12)
#define PTE_HIGH_RSVD BITS(51, CPU_PHYS_BITS)
#define PAE_HIGH_RSVD BITS(62, CPU_PHYS_BITS)

/* What an entry at one level looks like. A page is mapped where shift bits of offset remain. */
struct level {
    uint8_t shift;      /* bits below the index */
    bool may_map;       /* PS maps a page here; else PS is reserved (rsvd_table) or absent */
    uint64_t rsvd;      /* always reserved */
    uint64_t rsvd_page; /* reserved when the entry maps a large page */
};

static const struct level levels_4[] = {
    {39, false, PTE_HIGH_RSVD | PTE_PS, 0},
    {30, true, PTE_HIGH_RSVD, BITS(29, 13)},
    {21, true, PTE_HIGH_RSVD, BITS(20, 13)},
    {12, false, PTE_HIGH_RSVD, 0},
};
static const struct level levels_pae[] = {
    {21, true, PAE_HIGH_RSVD, BITS(20, 13)},
    {12, false, PAE_HIGH_RSVD, 0},
};
static const struct level levels_32[] = {
    {22, true, 0, BITS(21, 21)},
    {12, false, 0, 0},
};

struct mode {
    const struct level *levels;
    unsigned nlevels;
    unsigned index_bits;
    uint8_t entry_size;
    bool large;
    bool nx; /* bit 63 is NX, not reserved */
    gpa_t root;
};

static struct mode mode_of(const struct cpu *c, gva_t lin, bool *present)
{
    bool nx = (c->efer & EFER_NX) != 0;

    *present = true;
    if ((c->efer & EFER_LMA) != 0) {
        return (struct mode){levels_4, 4, 9, 8, true, nx, c->cr3 & PTE_ADDR};
    }
    if ((c->cr4 & CR4_PAE) != 0) {
        uint64_t pdpte = c->pdpte[(lin >> 30) & 3];
        *present = (pdpte & PTE_P) != 0;
        return (struct mode){levels_pae, 2, 9, 8, true, nx, pdpte & PTE_ADDR};
    }
    return (struct mode){
        levels_32, 2, 10, 4, (c->cr4 & CR4_PSE) != 0, false, c->cr3 & BITS(31, 12)};
}

static uint64_t load(const uint8_t *at, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, at, size);
    return v;
}

/* Where a large 32-bit page is: bits 39:32 come from bits 20:13 (PSE-36). */
static gpa_t base_of(const struct mode *m, uint64_t e, unsigned shift)
{
    if (m->entry_size == 4 && shift == 22) {
        return (e & BITS(31, 22)) | ((e & BITS(20, 13)) << 19);
    }
    return e & PTE_ADDR & ~((UINT64_C(1) << shift) - 1);
}

/* SDM Vol. 3A, "Determination of Access Rights": what this kind of access may do, D apart. */
static unsigned rights(const struct cpu *c, struct walk_want want, uint64_t rw_us, bool nx)
{
    bool user_page = (rw_us & PTE_US) != 0;
    unsigned perm = 0;

    if (want.user) {
        if (user_page) {
            perm = WALK_R | WALK_X | ((rw_us & PTE_RW) != 0 ? (unsigned)WALK_W : 0);
        }
    } else {
        if (!user_page || (c->cr4 & CR4_SMAP) == 0 || want.ac) {
            perm = WALK_R;
            if ((rw_us & PTE_RW) != 0 || (c->cr0 & CR0_WP) == 0) {
                perm |= WALK_W;
            }
        }
        if (!user_page || (c->cr4 & CR4_SMEP) == 0) {
            perm |= WALK_X;
        }
    }
    return nx ? perm & ~(unsigned)WALK_X : perm;
}

/* Bits that must be clear in an entry at this level. */
static uint64_t reserved(const struct mode *m, const struct level *l, bool page)
{
    return l->rsvd | (page && l->shift != 12 ? l->rsvd_page : 0) |
           (m->nx || m->entry_size == 4 ? 0 : PTE_NX);
}

static void want_flag(struct walk_result *r, gpa_t entry, uint64_t *value, uint64_t flags)
{
    if ((*value & flags) != flags) {
        r->set[r->nset++] = (struct walk_set){entry, (uint8_t)(flags & ~*value)};
        *value |= flags;
    }
}

int walk(const struct walk_tables *t, const struct cpu *c, gva_t lin, struct walk_want want,
         struct walk_result *r)
{
    r->nentries = 0;
    r->nset = 0;
    if ((c->cr0 & CR0_PG) == 0) {
        r->page = PAGE_BASE(lin);
        r->perm = WALK_R | WALK_W | WALK_X;
        return 0;
    }

    bool present;
    struct mode m = mode_of(c, lin, &present);
    bool fetch_bit = m.nx || (c->cr4 & CR4_SMEP) != 0;
    uint32_t error = (want.access == WALK_W ? (uint32_t)PF_W : 0) |
                     (want.user ? (uint32_t)PF_U : 0) |
                     (want.access == WALK_X && fetch_bit ? (uint32_t)PF_I : 0);
    uint64_t rw_us = PTE_RW | PTE_US;
    uint64_t e[WALK_LEVELS];
    gpa_t table = m.root;
    bool nx = false;
    unsigned n = 0;

    r->entry_size = m.entry_size;
    r->nx = m.nx;
    if (!present) {
        r->error = error;
        return PLX_GUEST_FAULT;
    }
    for (;;) {
        const struct level *l = &m.levels[n];
        uint64_t index = (lin >> l->shift) & ((UINT64_C(1) << m.index_bits) - 1);
        uint64_t at, owed = 0;

        if (!ram_page_of(t->ram, table, &at)) {
            r->error = error | PF_P | PF_RSVD;
            return PLX_GUEST_FAULT;
        }
        r->entry[n] = table + index * m.entry_size;
        if (t->see != NULL) {
            owed = t->see(t->ctx, at, r->entry[n]);
        }
        e[n] = load(t->ram->hva + (at << PAGE_SHIFT) + index * m.entry_size, m.entry_size) | owed;
        if ((e[n] & PTE_P) == 0) {
            r->error = error;
            return PLX_GUEST_FAULT;
        }
        bool page = l->shift == 12 || (l->may_map && m.large && (e[n] & PTE_PS) != 0);
        if ((e[n] & reserved(&m, l, page)) != 0) {
            r->error = error | PF_P | PF_RSVD;
            return PLX_GUEST_FAULT;
        }
        r->above = rw_us;
        r->nx_above = nx;
        r->shift = l->shift;
        rw_us &= e[n];
        nx = nx || (m.nx && (e[n] & PTE_NX) != 0);
        n++;
        if (page) {
            uint64_t offset = lin & ((UINT64_C(1) << l->shift) - 1);
            r->page = PAGE_BASE(base_of(&m, e[n - 1], l->shift) + offset);
            break;
        }
        table = e[n - 1] & PTE_ADDR;
    }

    unsigned perm = rights(c, want, rw_us, nx);
    if ((perm & want.access) == 0) {
        r->error = error | PF_P;
        return PLX_GUEST_FAULT;
    }
    for (unsigned i = 0; i + 1 < n; i++) {
        want_flag(r, r->entry[i], &e[i], WALK_A);
    }
    want_flag(r, r->entry[n - 1], &e[n - 1], WALK_A | (want.access == WALK_W ? WALK_D : 0));
    if ((e[n - 1] & WALK_D) == 0) {
        perm &= ~(unsigned)WALK_W;
    }
    r->perm = perm;
    r->nentries = n;
    r->leaf_value = e[n - 1];
    return 0;
}

unsigned walk_near(const struct cpu *c, struct walk_want want, const struct walk_result *r,
                   uint64_t entry, gpa_t *page)
{
    uint64_t rsvd = r->entry_size == 4 ? 0 : PTE_HIGH_RSVD | (r->nx ? 0 : PTE_NX);
    bool nx = r->nx_above || (r->nx && (entry & PTE_NX) != 0);

    if ((c->efer & EFER_LMA) == 0 && r->entry_size == 8) {
        rsvd = PAE_HIGH_RSVD | (r->nx ? 0 : PTE_NX);
    }
    if ((entry & (PTE_P | WALK_A)) != (PTE_P | WALK_A) || (entry & rsvd) != 0) {
        return 0;
    }
    unsigned perm = rights(c, want, r->above & entry, nx);
    *page = entry & (r->entry_size == 4 ? BITS(31, 12) : PTE_ADDR);
    return (entry & WALK_D) != 0 ? perm : perm & ~(unsigned)WALK_W;
}
