/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/owner.h - which vCPU may touch which page of RAM while vCPUs run in parallel (R2, R3).
 *
 * A page is shared (every vCPU may read it, none may write it) or exclusive to one vCPU, which may
 * do both. In the parallel part of a round the map stands still: an access beyond it stops the vCPU
 * before the instruction has any effect. In the serial part, when one vCPU runs and all others are
 * parked, every access succeeds, and owner_serial says which rights the vCPU keeps: that is the
 * policy, a function of the map alone. Since no two vCPUs ever hold conflicting rights in a
 * parallel part, its outcome is that of running its vCPUs one after the other: memory is
 * sequentially consistent, and no result depends on the host's timing.
 *
 * What a vCPU caches (a translation, a decoded block) implies the right it was made under; whoever
 * loses a right is told through ops->revoke before anyone can use the right taken from it.
 *
 * Devices need no rights: they touch RAM when every vCPU is parked (R8) and tell those who derived
 * something from the page (ram_write).
 *
 * Ownership: the VM owns it. Threading: owner_may_* by any vCPU thread; everything else in the
 * serial part or between slices. Determinism: the map is state, section "owner". */
#ifndef VMM_MMU_OWNER_H
#define VMM_MMU_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/device.h"

enum owner_right {
    OWNER_R = 1,
    OWNER_W = 2,
    OWNER_NOW = 4, /* may write without asking again, until the spell ends */
};

enum { OWNER_SHARED = 0 }; /* of owner_page.holder; else 1 + the vCPU */

/* What is kept of a page. All zero at first: shared, cold. */
struct owner_page {
    uint8_t holder;
    uint8_t heat;   /* how often it changed hands of late; from OWNER_HOT on it is contended */
    uint8_t writer; /* 1 + the vCPU that alone wrote it, while it was contended, of late */
    uint8_t streak; /* for how many spells in a row */
};

struct owner_ops {
    /* @vcpu lost the right to write @page, and if @all the right to read it too. */
    void (*revoke)(void *ctx, unsigned vcpu, uint64_t page, bool all);
};

struct owner_counters {    /* no state */
    uint64_t to_exclusive; /* moves to one vCPU */
    uint64_t to_shared;    /* moves from one vCPU to all */
    uint64_t in_place;     /* contended pages written, once a vCPU and spell */
    uint64_t cooled;       /* contended pages given to one vCPU again */
};

struct owner {
    struct owner_page *pages;
    /* The spell: serial runs since owner_settle. State, as is the order. */
    uint16_t *wrote;   /* per page: the vCPUs that wrote it in place */
    uint64_t *written; /* pages with wrote != 0; room for all: a guest must not make us allocate */
    uint64_t nwritten;
    uint64_t spell; /* counts them; no state */
    uint64_t npages;
    unsigned vcpus;
    bool eager; /* accessed and dirty flags take their table page instead of being owed (R7) */
    const struct owner_ops *ops;
    void *ctx;
    struct owner_counters counters;
};

/* All pages shared. @ops and @ctx are borrowed. Errors: PLX_ENOMEM. */
int owner_create(uint64_t npages, unsigned vcpus, const struct owner_ops *ops, void *ctx,
                 struct owner **out, struct plx_err *err);
void owner_destroy(struct owner *o); /* NULL is a no-op */

/* May @vcpu do this in a parallel part? */
static inline bool owner_may_read(const struct owner *o, uint64_t page, unsigned vcpu)
{
    uint8_t holder = o->pages[page].holder;

#ifdef BREAK_R2 /* make/rules.mk: a parallel part without ownership */
    return true;
#endif
    return holder == OWNER_SHARED || holder == vcpu + 1;
}

static inline bool owner_may_write(const struct owner *o, uint64_t page, unsigned vcpu)
{
#ifdef BREAK_R2 /* make/rules.mk: as above */
    return true;
#endif
    return o->pages[page].holder == vcpu + 1;
}

/* Serial part: @vcpu reads (@want OWNER_R) or writes (OWNER_W) @page, now. Moves the page if the
 * policy says so and returns the rights, OWNER_*, that @vcpu has from now on: always OWNER_R, and
 * OWNER_W only if the page is exclusive to it. A write to a page that stays shared is done all the
 * same; OWNER_NOW says that others like it may follow unasked until the spell ends. Asking again in
 * the same spell changes nothing, so it does not matter who remembers what. */
unsigned owner_serial(struct owner *o, uint64_t page, unsigned vcpu, enum owner_right want);
/* A spell of serial runs ends: before each parallel part, and with each slice whose number
 * OWNER_SPELL_SLICES divides. */
void owner_settle(struct owner *o);

/* Section "owner" of a machine with several vCPUs: runs of equal pages, then what was written in
 * the spell so far. reset and load leave it to the caller to drop what engines derived. */
enum { OWNER_SECTION_VERSION = 3 };
extern const struct device_ops owner_section_ops; /* dev: struct owner */

#endif
