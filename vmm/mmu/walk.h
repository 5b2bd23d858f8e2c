/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/walk.h - the guest's page tables, walked as the SDM says (Vol. 3A, "Paging").
 *
 * 4-level, PAE and 32-bit paging, and none. Accessed flags are set at every level and the dirty
 * flag at the leaf when, and only when, the access is allowed. A table that is not in RAM reads as
 * an entry with reserved bits set: a defined reaction where hardware would read a bus.
 *
 * Pure but for those flags: the caller keeps the rules of ram.h for what was written. */
#ifndef VMM_MMU_WALK_H
#define VMM_MMU_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/cpu.h"
#include "vmm/mmu/ram.h"

enum walk_access { WALK_R = 1, WALK_W = 2, WALK_X = 4 };

struct walk_want {
    unsigned access; /* one of WALK_* */
    bool user;       /* a user-mode access */
    bool ac;         /* supervisor data access that SMAP lets pass: explicit, EFLAGS.AC set */
};

enum { WALK_LEVELS = 4 };

struct walk_result {
    gpa_t page;        /* of the 4 KiB page that holds the address */
    unsigned perm;     /* WALK_*: all that the same kind of access may do; W only if D is set */
    unsigned nentries; /* entries used, root first; 0 without paging */
    gpa_t entry[WALK_LEVELS]; /* the address of each */
    unsigned nset;            /* the first nset of set[] were written (accessed, dirty) */
    gpa_t set[WALK_LEVELS];
    uint8_t entry_size; /* 4 or 8 bytes */
    uint32_t error;     /* PLX_GUEST_FAULT: the page-fault error code */
};

/* Returns 0, or PLX_GUEST_FAULT with only r->error valid. */
int walk(struct ram *ram, const struct cpu *c, gva_t lin, struct walk_want want,
         struct walk_result *r);

#endif
