/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/shadow.h - shadow page tables of one vCPU: what walks of the guest's tables found, ready
 * for the inline lookup of vmm/cpu/mem.h.
 *
 * A space is one set of page tables under one set of control bits. Each has a table of entries for
 * each kind of access (enum shadow_kind). With `tagged' several spaces are kept and a load of CR3
 * selects among them; else there is one, emptied by each change.
 *
 * With `tagged' supervisor accesses to the upper half of the linear addresses go to tables that
 * spaces share (a *half*), as the tables of a kernel do below the top one: their entries are those
 * of every space whose top table has, for the addresses in use, the same entries as that of the
 * space that filled them. That is looked at whenever a space becomes the current one; from then on
 * the space depends on its top table, as for entries of its own.
 *
 * Never stale (ARCHITECTURE.md, "Memory"). An entry is linked to the page it maps, to the guest's
 * table entry that maps it and to the one above; tables further up are known per space. So a store
 * to a table, a page taken away and a page that must not be written behind our back find what
 * depends on them without a search. What is here implies the right to read every table page it
 * came from; the tags of an entry imply the right to use its page that way.
 *
 * Ownership: one per vCPU; ram and attention are borrowed. Threading: the vCPU's thread; any other
 * only while the vCPU is parked. Determinism: in no section, dropping anything changes no result;
 * but owed flags are part of what a parallel part did and are stored before it ends (R7). */
#ifndef VMM_MMU_SHADOW_H
#define VMM_MMU_SHADOW_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/abi/types.h"
#include "vmm/mmu/ram.h"
#include "vmm/mmu/walk.h"

/* What an entry is for: data or (CODE) fetches, which would push one another out, since kernels
 * have their text and the same pages of RAM once more at addresses that differ in few low bits. */
enum shadow_kind {
    SHADOW_SUPER, /* data, but for what EFLAGS.AC lets pass SMAP */
    SHADOW_SUPER_CODE,
    SHADOW_HALF_KINDS, /* halves have those above */
    SHADOW_USER = SHADOW_HALF_KINDS,
    SHADOW_USER_CODE,
    SHADOW_SUPER_AC, /* that */
    SHADOW_KINDS
};

/* What the inline lookup sees of an entry. A tag is the linear page, or something that is no page
 * of this entry (shadow_no_tag); wtag is set only where a store needs nothing else: D and RAM_DIRTY
 * are set, the page is ours alone (or USE_NOW) and nothing of ours was derived from it. xtag:
 * fetch. */
struct tlb_entry {
    gva_t rtag, wtag, xtag;
    uint8_t *hva; /* of the page */
};

#define TLB_NONE    UINT64_MAX
#define SHADOW_NONE UINT64_MAX

/* The rest of it. Links are numbers of entries plus 1, over all spaces; 0 ends a list. */
struct shadow_link {
    uint32_t next, prev;
};
struct shadow_entry {
    gva_t tag;       /* linear page, or TLB_NONE: free */
    gpa_t page;      /* mapped */
    gpa_t leaf, dir; /* the guest's entry that maps it, and the one above, or SHADOW_NONE */
    struct shadow_link by_page, by_leaf, by_dir;
    uint8_t perm; /* WALK_*; W also where a store must take the slow path */
    bool listed;  /* in its space's list of used entries */
    bool waiting; /* filled in a batch, without tags, not used yet */
};

/* What a translation depends on beside the tables. */
struct shadow_key {
    uint64_t cr0, cr3, cr4, efer, pdpte[4];
};

struct shadow_space {
    struct shadow_key key;
    bool live;
    bool alone;            /* has what no half may have: see shadow_half_takes */
    uint64_t used_at;      /* of shadow.clock */
    uint32_t first, slots; /* its entries */
    uint32_t *used;        /* entries filled since the space was emptied */
    uint32_t nused;
    uint64_t *tops; /* pages of tables above the last two levels */
    unsigned ntops;
};

/* Entries of a top table that those of a half rest on. */
enum { SHADOW_HALF_TOPS = 32 };
struct shadow_half {
    struct {
        uint64_t value;
        uint16_t index;
    } top[SHADOW_HALF_TOPS];
    unsigned n;
};

/* Uses of a page of RAM, shadow.use: what this vCPU derived from it. */
enum {
    USE_DATA = 1,     /* an entry maps it */
    USE_LEAF = 2,     /* the last level of tables of an entry */
    USE_DIR = 4,      /* the one above */
    USE_TOP = 8,      /* further up */
    USE_CODE = 16,    /* decoded instructions (vmm/cpu/block.c) */
    USE_OWED = 32,    /* a table with flags that are set but not stored yet */
    USE_NOW = 64,     /* none: written fast in this spell, though not ours (mem_translate.c) */
    USE_COMMON = 128, /* decoded instructions that all vCPUs use: every one has it */
    USE_TABLE = USE_LEAF | USE_DIR | USE_TOP,
    USE_ANY_CODE = USE_CODE | USE_COMMON,
    USE_GUARDED = USE_TABLE | USE_ANY_CODE | USE_OWED /* no wtag */
};

struct shadow_page {      /* the counts behind use */
    uint32_t entries;     /* first that maps it */
    uint32_t nleaf, ndir; /* as many as there are entries, if all came from one table */
    uint16_t tops;        /* bit i: space i has it among its tops */
};

enum { SHADOW_BATCH_MAX = 64 };
enum {
    SHADOW_SPACES = 8,
    SHADOW_HALVES = 2,
    SHADOW_TOPS = 64,
    SHADOW_OWED = 64,
    SHADOW_QUEUE = 64
};
enum { SHADOW_ALL_SPACES = SHADOW_SPACES + SHADOW_HALVES };

struct shadow_config {
    bool tagged;    /* keep spaces across loads of CR3 */
    unsigned batch; /* entries of a table looked at on a miss, a power of two up to 64; 1: one */
    bool lazy_ad;   /* owe accessed and dirty flags in the parallel part */
    bool batch_shootdown; /* keep revocations until the vCPU runs next */
};

#define SHADOW_DEFAULT ((struct shadow_config){true, 8, true, true})

/* No state, no influence. */
#define SHADOW_COUNTERS(X)                                               \
    X(fills, "entries filled on a miss")                                 \
    X(batches, "misses that filled more than one entry")                 \
    X(batch_filled, "entries filled beside the one asked for")           \
    X(batch_hits, "of these, later used, where that asks for a right")   \
    X(switches, "changes of the address space")                          \
    X(switch_hits, "of these, to a space that was kept")                 \
    X(half_hits, "upper halves found again")                             \
    X(space_evictions, "spaces given up for another")                    \
    X(evictions, "entries given up for another")                         \
    X(drops_store, "entries dropped by stores to page tables")           \
    X(drops_revoke, "entries dropped when a page table was taken away")  \
    X(drops_space, "entries dropped with their space")                   \
    X(owed, "accessed and dirty flags owed")                             \
    X(shootdowns, "pages taken away")                                    \
    X(shootdowns_batched, "of these, kept until the vCPU ran")           \
    X(lack_table_read, "stops in a parallel part: a page table to read") \
    X(lack_table_write, "a page table to write")                         \
    X(lack_data_read, "a page to read")                                  \
    X(lack_data_write, "a page to write")                                \
    X(lack_code, "a page to fetch from")                                 \
    X(undone, "instructions undone because a later access lacked something")

struct shadow_counters {
#define X(name, text) uint64_t name;
    SHADOW_COUNTERS(X)
#undef X
};

struct shadow_owed {
    gpa_t entry;
    uint8_t flags;
};

struct shadow {
    struct shadow_config cfg;
    struct ram *ram;
    const void *serial; /* which watcher of ram this is, if its last run was serial, else NULL */
    bool *attention;    /* set when what runs may be mapped no longer */
    unsigned entries;   /* per kind, a power of two */
    unsigned nspaces, nhalves, current;
    struct shadow_half *half;    /* of the current space; NULL: it shares nothing */
    bool moved;                  /* base has changed since the vCPU looked (mem_translate.c) */
    uint32_t base[SHADOW_KINDS]; /* the first entry of the current space's, or half's, table */
    uint32_t slots, all_slots;   /* per space, and of all */
    uint64_t clock;
    struct tlb_entry *tlb;                        /* of all spaces */
    struct shadow_entry *entry;                   /* as many */
    struct shadow_space space[SHADOW_ALL_SPACES]; /* halves behind the others, keyed without CR3 */
    struct shadow_half halves[SHADOW_HALVES];
    uint8_t *use;               /* per page of RAM: USE_* */
    struct shadow_page *page;   /* as many */
    uint32_t *by_leaf, *by_dir; /* heads of lists, by a hash of the guest's entry */
    struct shadow_owed owed[SHADOW_OWED];
    unsigned nowed;
    struct {
        uint64_t page;
        bool all;
    } queue[SHADOW_QUEUE]; /* revocations to apply */
    unsigned nqueue;
    struct shadow_counters counters;
};

/* @entries: per kind and space, 0: the default. On error *out is NULL. Errors: PLX_ENOMEM. */
int shadow_create(const struct shadow_config *cfg, struct ram *ram, bool *attention,
                  unsigned entries, struct shadow **out);
void shadow_destroy(struct shadow *s); /* NULL is a no-op */

/* The space of @key becomes the current one. */
void shadow_select(struct shadow *s, const struct shadow_key *key);

/* Where the current space would have @lin. */
static inline uint32_t shadow_slot(const struct shadow *s, enum shadow_kind kind, gva_t lin)
{
    return s->base[kind] + (uint32_t)((lin >> PAGE_SHIFT) & (s->entries - 1));
}

/* May the current space share a half, which it does not yet? */
bool shadow_may_share(const struct shadow *s);
/* It does so from now on, if there is one for it. The vCPU may read its top table. */
bool shadow_share(struct shadow *s);
/* A walk for the half of the current space found @r: the half may have it. Else (an address in the
 * lower half, or a top entry without its accessed flag) the space shares nothing from now on. */
bool shadow_half_takes(struct shadow *s, gva_t lin, const struct walk_result *r);

/* What stands for no tag at @slot: low bits that no page has, and another entry's page, so that a
 * linear address that belongs here differs from it beyond its page, too (translated code compares
 * by difference). With one entry a space there is no other. */
static inline gva_t shadow_no_tag(uint32_t slot)
{
    return (gva_t)(slot ^ 1) << PAGE_SHIFT | (PAGE_SIZE - 1);
}

static inline bool shadow_is_tag(gva_t tag)
{
    return PAGE_OFFSET(tag) == 0;
}

/* Put what a walk found at @slot, without tags. Whatever was there goes. */
void shadow_fill(struct shadow *s, uint32_t slot, gva_t lin, const struct walk_result *r);
/* One entry beside it, if that costs no other (else false): @page through the guest's entry @leaf.
 */
bool shadow_fill_near(struct shadow *s, uint32_t slot, gva_t lin, const struct walk_result *r,
                      gpa_t leaf, gpa_t page, unsigned perm);
void shadow_drop(struct shadow *s, uint32_t slot);

/* Set the tags of a filled entry that maps RAM, as far as @rights (OWNER_*) goes: for fetches if it
 * is one of @code, else those for data. */
void shadow_tag(struct shadow *s, uint32_t slot, bool code, uint64_t page, unsigned rights);

void shadow_drop_all(struct shadow *s);
void shadow_drop_writes(struct shadow *s); /* every wtag */
/* @page got a use: entries may not write it unseen (@reads: nor read it). */
void shadow_guard(struct shadow *s, uint64_t page, bool reads);
/* Bytes in [gpa, gpa + len) of @page changed: drop what came from present entries there. */
void shadow_table_written(struct shadow *s, uint64_t page, gpa_t gpa, uint64_t len);
/* The vCPU may not write @page any more and, with @all, not read it. */
void shadow_revoke(struct shadow *s, uint64_t page, bool all);

/* Flags set by this vCPU and not stored yet. owe: false: no room. forget: the last ones, from @n
 * on, were not owed after all, or are stored. */
bool shadow_owe(struct shadow *s, gpa_t entry, uint8_t flags);
uint8_t shadow_owed_flags(const struct shadow *s, gpa_t entry);
void shadow_owe_forget(struct shadow *s, unsigned n);

#endif
