/* SPDX-License-Identifier: Apache-2.0
 * storage/store_index.h - where each segment of a store directory stands, in LMDB: name to (pack,
 * offset, lengths).
 *
 * Only what is durable in a pack is entered. One write transaction at a time, among all processes:
 * it also serializes the setting of names with sweeps (segment.h).
 * Threading: lookups from any thread; a write transaction belongs to the thread that began it. */
#ifndef STORAGE_STORE_INDEX_H
#define STORAGE_STORE_INDEX_H

#include "storage/segment.h"

struct index; /* opaque */
struct index_txn;

struct index_entry {
    struct seg_id id;
    uint32_t pack, raw_len, stored_len;
    uint64_t off; /* of its record */
};

/* @path: a file, created if absent (*fresh). Opens of one file in one process share it. */
int index_open(const char *path, struct index **out, bool *fresh, struct plx_err *err);
void index_close(struct index *x); /* NULL is a no-op */

/* 1 found, 0 not, or an error. */
int index_find(struct index *x, const struct seg_id *id, struct index_entry *out,
               struct plx_err *err);
/* Every entry, by name; stops when @each returns non-zero, which is returned. */
int index_each(struct index *x, int (*each)(void *ctx, const struct index_entry *e), void *ctx,
               struct plx_err *err);
uint64_t index_count(struct index *x);

/* Entries kept apart, of whoever made it; all zero: empty. */
struct index_list {
    struct index_entry *items; /* freed with plx_free */
    size_t n, cap;
};

int index_list_add(struct index_list *l, const struct index_entry *e); /* or PLX_ENOMEM */
void index_list_sort(struct index_list *l); /* by pack, then by place in it */

int index_begin(struct index *x, struct index_txn **out, struct plx_err *err); /* waits */
int index_txn_find(struct index_txn *t, const struct seg_id *id, struct index_entry *out,
                   struct plx_err *err);
/* 1 entered, 0 was there (unless @replace). */
int index_txn_put(struct index_txn *t, const struct index_entry *e, bool replace,
                  struct plx_err *err);
/* Drop every entry for which @drop says so. */
int index_txn_filter(struct index_txn *t, bool (*drop)(void *ctx, const struct index_entry *e),
                     void *ctx, struct plx_err *err);
int index_commit(struct index_txn *t, struct plx_err *err); /* durable; ends it in any case */
void index_abort(struct index_txn *t);                      /* NULL is a no-op */

#endif
