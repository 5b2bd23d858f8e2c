/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/ram.h - guest RAM: one memfd, two ranges (below 3 GiB, and from 4 GiB up), flags per
 * page.
 *
 * Ownership: the VM owns it; engines and devices borrow. Threading: in a parallel part a page is
 * written, and flagged, only by the vCPU that owns it (owner.h); everything else happens in serial
 * parts or between slices. Determinism: contents are state; the flags are derived, in no section.
 *
 * Who writes RAM: vCPUs through vmm/cpu/mem.h, everyone else through ram_write. A page that changes
 * gets RAM_DIRTY. What vCPUs derived from a page (translations, decoded code) each of them keeps
 * account of; a write that a vCPU may not know of by itself tells it before the bytes change:
 * those of devices tell all, those of a vCPU all others, unless the page is exclusive to it. */
#ifndef VMM_MMU_RAM_H
#define VMM_MMU_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/abi/types.h"

enum { RAM_DIRTY = 1 }; /* written since ram_clean; set before or with the write */

#define RAM_LOW_END   UINT64_C(0xc0000000)  /* RAM below here ... */
#define RAM_HIGH_BASE UINT64_C(0x100000000) /* ... and the rest from here */
#define RAM_MIN       (UINT64_C(1) << 20)
#define RAM_MAX       (UINT64_C(64) << 30)

struct ram_watcher {
    /* Bytes within one page are about to be changed by someone who is not the watcher's own vCPU:
     * drop everything derived from them. @flags: they are the accessed and dirty flags of an entry
     * of a page table, which change no translation. Called for every page written: look up first.
     */
    void (*written)(void *ctx, gpa_t gpa, uint64_t len, bool flags);
    /* RAM_DIRTY was cleared on some or all pages: drop every cached permission to write without
     * passing a slow path. */
    void (*cleaned)(void *ctx);
    /* Did the watcher derive anything from the page of RAM? May be NULL: no. */
    bool (*derived)(void *ctx, uint64_t page);
    /* Another one is about to, in a serial part: the first of its kind from that page. May be NULL.
     */
    void (*deriving)(void *ctx, uint64_t page);
    void *ctx;
};

enum { RAM_WATCHERS_MAX = 16 };

struct ram {
    uint8_t *hva;  /* the whole memfd, mapped read-write; page i of RAM is at hva + i * PAGE_SIZE */
    uint64_t size; /* bytes, a multiple of PAGE_SIZE */
    uint64_t low;  /* bytes below RAM_LOW_END; the rest is at RAM_HIGH_BASE */
    uint8_t *flags; /* one byte a page, RAM_* */
    int fd;
    struct ram_watcher watchers[RAM_WATCHERS_MAX];
    unsigned nwatchers;
};

/* All zero at first, nothing dirty. Errors: PLX_ERANGE (size), PLX_ENOMEM. */
int ram_create(uint64_t size, struct ram **out, struct plx_err *err);
void ram_destroy(struct ram *ram); /* NULL is a no-op */

/* @w is copied, its ctx borrowed until ram_unwatch. More than RAM_WATCHERS_MAX is a PLX_CHECK. */
void ram_watch(struct ram *ram, const struct ram_watcher *w);
void ram_unwatch(struct ram *ram, void *ctx);
/* Tell every watcher but @ctx's (NULL: every one) that bytes within one page are about to change.
 */
void ram_tell(struct ram *ram, const void *ctx, gpa_t gpa, uint64_t len, bool flags);
/* Tell them that @ctx is about to derive something from @page. */
void ram_tell_deriving(struct ram *ram, const void *ctx, uint64_t page);
/* Would any of them have to be told of a change? */
bool ram_derived(const struct ram *ram, const void *ctx, uint64_t page);

static inline uint64_t ram_pages(const struct ram *ram)
{
    return ram->size >> PAGE_SHIFT;
}

/* The one gate from GPA to RAM: the index of the page that holds @gpa, or false: not RAM. */
static inline bool ram_page_of(const struct ram *ram, gpa_t gpa, uint64_t *page)
{
    if (gpa < ram->low) {
        *page = gpa >> PAGE_SHIFT;
        return true;
    }
    if (gpa >= RAM_HIGH_BASE && gpa - RAM_HIGH_BASE < ram->size - ram->low) {
        *page = (gpa - RAM_HIGH_BASE + ram->low) >> PAGE_SHIFT;
        return true;
    }
    return false;
}

static inline gpa_t ram_gpa_of_page(const struct ram *ram, uint64_t page)
{
    gpa_t off = page << PAGE_SHIFT;
    return off < ram->low ? off : off - ram->low + RAM_HIGH_BASE;
}

/* The page's bytes, for reading (or for writing by who keeps the rules above); NULL: not RAM. */
static inline uint8_t *ram_page_hva(const struct ram *ram, gpa_t gpa)
{
    uint64_t page;
    return ram_page_of(ram, gpa, &page) ? ram->hva + (page << PAGE_SHIFT) : NULL;
}

/* Copy in and out for devices, loaders and saved states. PLX_ERANGE when any byte is not RAM, and
 * then nothing is copied. ram_write keeps the rules above. */
int ram_read(const struct ram *ram, gpa_t gpa, void *out, uint64_t len);
int ram_write(struct ram *ram, gpa_t gpa, const void *data, uint64_t len);
int ram_fill(struct ram *ram, gpa_t gpa, uint8_t byte, uint64_t len);

/* Clear RAM_DIRTY on all pages, calling visit(ctx, page index) for each that had it, in order. */
void ram_clean(struct ram *ram, void (*visit)(void *ctx, uint64_t page), void *ctx);

#endif
