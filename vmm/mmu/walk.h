/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/walk.h - the guest's page tables, walked as the SDM says (Vol. 3A, "Paging").
 *
 * 4-level, PAE and 32-bit paging, and none. An access that is allowed sets accessed flags at every
 * level and the dirty flag at the leaf: the walk says which are to be set, the caller stores them
 * (and keeps the rules of ram.h and owner.h). A table that is not in RAM reads as an entry with
 * reserved bits set: a defined reaction where hardware would read a bus.
 *
 * Threading, determinism: reads only; what it may read is the caller's affair (walk_tables.see). */
#ifndef VMM_MMU_WALK_H
#define VMM_MMU_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/cpu.h"
#include "vmm/mmu/ram.h"

enum walk_access { WALK_R = 1, WALK_W = 2, WALK_X = 4 };

/* Accessed and dirty flags, at the same place in entries of every size. */
enum { WALK_A = 0x20, WALK_D = 0x40 };

struct walk_want {
    unsigned access; /* one of WALK_* */
    bool user;       /* a user-mode access */
    bool ac;         /* supervisor data access that SMAP lets pass: explicit, EFLAGS.AC set */
};

/* Where tables are read. */
struct walk_tables {
    const struct ram *ram;
    /* Called before the entry at @entry, in @page of RAM, is read; what it returns is taken for
     * set in the entry. May leave by longjmp. NULL: anything may be read as it is. */
    uint64_t (*see)(void *ctx, uint64_t page, gpa_t entry);
    void *ctx;
};

enum { WALK_LEVELS = 4 };

struct walk_result {
    gpa_t page;        /* of the 4 KiB page that holds the address */
    unsigned perm;     /* WALK_*: all that the same kind of access may do; W only if D is set */
    unsigned nentries; /* entries used, root first; 0 without paging */
    gpa_t entry[WALK_LEVELS]; /* the address of each */
    unsigned nset;            /* flags to be set before the access happens */
    struct walk_set {
        gpa_t entry;
        uint8_t flags; /* WALK_A, WALK_D */
    } set[WALK_LEVELS];
    uint8_t entry_size; /* 4 or 8 bytes */
    uint32_t error;     /* PLX_GUEST_FAULT: the page-fault error code */
    /* For walk_near: what the levels above the leaf leave. */
    uint64_t above;      /* R/W and U/S, as in an entry */
    bool nx_above, nx;   /* execution disabled there; bit 63 means that */
    uint8_t shift;       /* log2 of the size the leaf maps */
    uint64_t leaf_value; /* with the flags of set[] */
};

/* The entries for an access of @want to @lin, under the control registers of @c. Returns 0, or
 * PLX_GUEST_FAULT (a #PF to raise) with only r->error valid. Does not return if t->see does not. */
int walk(const struct walk_tables *t, const struct cpu *c, gva_t lin, struct walk_want want,
         struct walk_result *r);

/* What the same kind of access could do through @entry, which stands in the same table as the leaf
 * of @r, without any flag to be set: WALK_*, and the page; 0: nothing. */
unsigned walk_near(const struct cpu *c, struct walk_want want, const struct walk_result *r,
                   uint64_t entry, gpa_t *page);

#endif
