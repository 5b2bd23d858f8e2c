/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay_priv.h - where things stand in the file of an overlay; for overlay.c and
 * overlay_file.c. */
#ifndef VMM_DEV_BACKEND_OVERLAY_PRIV_H
#define VMM_DEV_BACKEND_OVERLAY_PRIV_H

#include "vmm/dev/backend/overlay.h"

enum {
    INTENT_OFF = 12288,
    BITMAP_OFF = 16384,
    PAGE = 4096,
    SUM_BYTES = 8,
    SUMS_PAGE = PAGE / SUM_BYTES /* blocks of one page of checksums */
};
_Static_assert(OVERLAY_REGIONS_MAX == 8 * PAGE, "intents are one page");
_Static_assert(OVERLAY_REGION % SUMS_PAGE == 0, "a page of checksums is of one region");

/* Holding the lock, or alone with it. */
static inline bool overlay_bit(const struct overlay *o, uint64_t block)
{
    return (o->bitmap[block / 8] >> (block % 8) & 1) != 0;
}

static inline bool overlay_intent(const struct overlay *o, uint64_t region)
{
    return (o->intents[region / 8] >> (region % 8) & 1) != 0;
}

#endif
