/* SPDX-License-Identifier: Apache-2.0
 * storage/chain_int.h - what chain*.c share: the open chain. */
#ifndef STORAGE_CHAIN_INT_H
#define STORAGE_CHAIN_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "storage/chain.h"

enum {
    CHAIN_MIXED = 1,
    CHAIN_ANSWER = 2,
    CHAIN_UNIT_SHIFT = 16,
    CHAIN_UNITS_MAX = 1 << 20, /* of a larger disk they are larger */
    CHAIN_UNITS_RUN = 64       /* looked at together */
};

struct chain {
    struct disk d; /* first */
    char *path;
    struct vhdx **layers; /* owned; 0 is the top, the only one that may be written */
    unsigned n;
    /* Of the layers that nobody writes, from @fixed on, the one that answers for all of a unit: its
     * number + CHAIN_ANSWER, or CHAIN_MIXED, or 0 as long as nobody asked. NULL: one such layer. */
    _Atomic uint8_t *answers;
    uint64_t units;
    unsigned unit_shift, fixed;
    struct disk *base;         /* the parent of the last layer, if that is an image of a store */
    pthread_mutex_t part_lock; /* one change of part of a sector at a time */
};

/* No layers yet; disk_close frees it. NULL: out of memory. */
struct chain *chain_new(const char *path);

/* One file as a layer, locked as @flags (DISK_*) ask; with @write for changes. One that was not
 * closed is replayed first, where it may be written. */
int chain_open_layer(struct io_space *s, const char *path, unsigned flags, bool write,
                     struct vhdx **out, struct plx_err *err);

/* What may be a parent, a VHDX chain or an image, and its identifier. */
int chain_open_parent(struct io_space *s, const char *path, struct disk **out,
                      struct disk_guid *identity, struct plx_err *err);

#endif
