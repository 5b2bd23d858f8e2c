/* SPDX-License-Identifier: Apache-2.0
 * storage/image_push_priv.h - a push under way, shared by the files of image_push.c. */
#ifndef STORAGE_IMAGE_PUSH_PRIV_H
#define STORAGE_IMAGE_PUSH_PRIV_H

#include <pthread.h>

#include "storage/image.h"

enum { PUSH_FILE_MAX = 1 << 30 }; /* of a kernel or initial RAM disk */

/* What is cut: a disk, or bytes in memory. */
struct push_source {
    struct disk *disk;
    const uint8_t *mem;
    uint64_t bytes;
};

struct push_region;
struct push_late;

struct push {
    struct store *store;
    const struct image_push *cfg;
    struct push_source src;
    struct push_region *regions;
    uint64_t nregions;
    pthread_mutex_t lock; /* of all below */
    uint64_t next;        /* region */
    struct push_late *late;
    size_t nlate, late_cap;
    struct image_progress *totals;
    uint64_t committed_ns;
    int rc;
    struct plx_err err;
};

static inline int push_no_memory(struct plx_err *err)
{
    return plx_fail(err, PLX_ENOMEM, "push: out of memory");
}

/* Put a segment from the source (p->src) again. */
int push_again(struct push *p, const struct manifest_segment *g, struct plx_err *err);

/* The encoded @m goes into the store, and @ref, which gets its place and hash, under its name.
 * Everything was read from @disk and the files of p->cfg. Errors: those of the store; PLX_ERANGE
 * (too many segments), PLX_ESTALE (a source has changed), PLX_EBUSY (sweeps keep winning). */
int push_name(struct push *p, const struct manifest *m, struct disk *disk, struct image_ref *ref,
              struct plx_err *err);

#endif
