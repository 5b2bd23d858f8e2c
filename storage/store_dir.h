/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir.h - the backend of segments in a local directory:
 *
 *     index.mdb     where each segment stands (store_index.h); can be made again from the packs
 *     packs/N       the segments (pack.h), N in eight hexadecimal digits
 *     names/NAME    the values of names, each with its SHA-256
 *     leases/       one file a lease, locked by its holder
 *     claims, sessions (store_claims.h), sweep.lock
 *
 * Order of a commit: pack synced, then index, then name. So what a name leads to is there after any
 * crash; what an interrupted writer left is used again when the same contents are put again, or
 * dropped by a sweep. Sweeps never touch a pack its writer holds locked.
 *
 * With a limit it is a cache: the oldest packs go when it is full, what is read from the older half
 * is written again at the front; names and leases are not used. */
#ifndef STORAGE_STORE_DIR_H
#define STORAGE_STORE_DIR_H

#include "storage/segment.h"

struct store_dir_config {
    const char *path;
    bool create;    /* make it if it is not there */
    uint64_t limit; /* bytes of packs; 0: not a cache */
};

/* Errors: PLX_ENOENT (no store there), PLX_EACCES, PLX_ECORRUPT, PLX_EVERSION. */
int store_dir_open(const struct store_dir_config *cfg, const struct seg_ops **ops, void **self,
                   struct plx_err *err);
/* Make the index again from what the packs hold. Nobody may have the store open. */
int store_dir_reindex(const char *path, uint64_t *segments, struct plx_err *err);

#endif
