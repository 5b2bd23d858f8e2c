/* SPDX-License-Identifier: Apache-2.0
 * storage/store.h - a segment store: contents in and out, over any backend of segment.h. Makes the
 * stored form (zstd) and opens it; everything read is checked against the name it was asked by.
 *
 * Ownership: whoever opens it. Threading: any thread, any number at once. */
#ifndef STORAGE_STORE_H
#define STORAGE_STORE_H

#include "storage/segment.h"

struct store; /* opaque */

/* zstd's level, and what of it is other, by measurement (tests/bench/store.sh). Higher levels cost
 * push more than twice the time for 3 % of the bytes. Level 1 with a table that is small, as
 * segments are, with matches of 7 bytes and more, that looks for them at every fourth place, takes
 * a quarter less time and costs 10 % of the bytes. */
enum { STORE_LEVEL = 1, STORE_HASH_LOG = 10, STORE_MIN_MATCH = 7, STORE_STEP = 3 };

/* A directory; @create makes it. Errors: see store_dir_open. */
int store_open(const char *path, bool create, struct store **out, struct plx_err *err);
/* A cache in a directory, of at most about @limit bytes (at least 32 MiB are taken). */
int store_open_cache(const char *path, uint64_t limit, struct store **out, struct plx_err *err);
int store_open_memory(struct store **out, struct plx_err *err);
/* Over any backend, which store_close closes. Errors: PLX_ENOMEM, and *out is NULL. */
int store_open_backend(const struct seg_ops *ops, void *self, struct store **out,
                       struct plx_err *err);
void store_close(struct store *s); /* what is not committed is lost; NULL is a no-op */

/* The backend, for what needs nothing of the stored form. */
const struct seg_ops *store_ops(const struct store *s);
void *store_self(const struct store *s);

enum store_put { STORE_NEW = 1, STORE_SHARED = 0 };

/* Keep @len bytes (1..SEG_MAX) under their name, *id. STORE_NEW or STORE_SHARED, or an error.
 * *stored (may be NULL) gets the bytes that were added. */
int store_put(struct store *s, const void *data, size_t len, struct seg_id *id, uint64_t *stored,
              struct plx_err *err);
/* As store_put, where the name is known and it was found not to be there. */
int store_put_named(struct store *s, const void *data, size_t len, const struct seg_id *id,
                    uint64_t *stored, struct plx_err *err);
/* A stored form from elsewhere: opened and checked first. Errors: PLX_ECORRUPT (it is not @id). */
int store_put_form(struct store *s, const struct seg_id *id, const struct seg_form *form,
                   struct plx_err *err);
/* What is known of segments that one is about to put (enum seg_state); those that are absent are
 * announced to other writers. */
int store_look(struct store *s, const struct seg_id *ids, size_t n, uint8_t *states,
               struct plx_err *err);
int store_has(struct store *s, const struct seg_id *id, struct plx_err *err); /* 1, 0, error */
/* The contents of @id to @out, which has room for @len bytes, its exact length. Errors: PLX_ENOENT,
 * PLX_ECORRUPT (damaged, or of another length). */
int store_get(struct store *s, const struct seg_id *id, void *out, size_t len, struct plx_err *err);
/* Segments that are read from now on whatever sweeps do, and without opening a file (segment.h,
 * hold): the @i-th of the @ids that it was given. */
struct store_hold; /* opaque */
int store_hold(struct store *s, const struct seg_id *ids, size_t n, struct store_hold **out,
               struct plx_err *err);
int store_held_get(struct store *s, struct store_hold *h, size_t i, const struct seg_id *id,
                   void *out, size_t len, struct plx_err *err); /* as store_get */
void store_hold_end(struct store *s, struct store_hold *h);     /* NULL is a no-op */
int store_commit(struct store *s, struct plx_err *err);
/* Commit; nothing will be put for a while: sweeps by others may take what this handle has put. */
int store_rest(struct store *s, struct plx_err *err);

/* Open a stored form into @out of form->raw_len bytes and compare it with its name. Errors:
 * PLX_ECORRUPT. */
int store_open_form(const struct seg_id *id, const struct seg_form *form, void *out,
                    struct plx_err *err);

/* --- blobs: contents of any length, as a list of segments ------------------------------------- */

enum { STORE_BLOB_PART = 128 << 10 };

struct store_blob {
    uint64_t len;
    uint32_t nparts; /* of STORE_BLOB_PART bytes, the last one shorter */
    struct seg_id *parts;
};

int store_put_blob(struct store *s, const void *data, size_t len, struct store_blob *out,
                   struct plx_err *err);
/* Where a segment's contents come from: as store_get. */
typedef int (*store_get_fn)(void *ctx, const struct seg_id *id, void *out, size_t len,
                            struct plx_err *err);
int store_get_here(void *store, const struct seg_id *id, void *out, size_t len,
                   struct plx_err *err); /* store_get */
/* The contents of a blob, each part by @get: store_get_here, image_client_fetch. */
int store_get_blob(const struct store_blob *b, store_get_fn get, void *ctx, struct wbuf *out,
                   struct plx_err *err);
void store_blob_free(struct store_blob *b);

#endif
