/* SPDX-License-Identifier: Apache-2.0
 * storage/segment.h - segments: pieces of disk images, named by the SHA-256 of their contents, and
 * the operations a place that keeps them offers (a *backend*).
 *
 * A backend moves segments in their *stored form* (compressed or not) and never looks inside;
 * storage/store.h makes and opens that form, and checks every segment it reads against its name.
 * A backend also keeps *names*: small records that are replaced atomically. What no name leads to
 * is garbage. Backends: a local directory (store_dir.c) and memory (store_mem.c); every test of the
 * store runs over both.
 *
 * Threading: every operation may be called from any thread, at the same time. */
#ifndef STORAGE_SEGMENT_H
#define STORAGE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

struct seg_id {
    uint8_t sha[SHA256_LEN]; /* of the contents, not of the stored form */
};

enum {
    SEG_MAX = 1 << 20,        /* longest contents, bytes */
    SEG_STORED_MAX = SEG_MAX, /* a stored form is never longer than its contents */
};

enum seg_codec { SEG_PLAIN = 0, SEG_ZSTD = 1 };

/* A segment as it is stored and sent. */
struct seg_form {
    enum seg_codec codec;
    uint32_t raw_len;    /* of the contents, 1..SEG_MAX */
    uint32_t stored_len; /* of @data, 1..raw_len */
    const uint8_t *data; /* borrowed */
};

/* Whether a form may have these, as bytes from elsewhere say; whether the contents are the name's
 * is another question. */
static inline bool seg_form_possible(uint32_t codec, uint64_t raw_len, uint64_t stored_len)
{
    return codec <= SEG_ZSTD && raw_len > 0 && raw_len <= SEG_MAX && stored_len > 0 &&
           stored_len <= raw_len && (codec != SEG_PLAIN || stored_len == raw_len);
}

static inline bool seg_id_eq(const struct seg_id *a, const struct seg_id *b)
{
    return memcmp(a->sha, b->sha, sizeof a->sha) == 0;
}

/* The names are uniformly distributed: their first bytes are a good hash. */
static inline uint64_t seg_id_hash(const struct seg_id *id)
{
    uint64_t h;

    memcpy(&h, id->sha, sizeof h);
    return h;
}

/* A set of names, for sweeps. Zeroed is empty. Not thread-safe. */
struct seg_set {
    struct seg_id *slots;
    uint8_t *used;
    size_t n, cap; /* cap is a power of two */
};

/* Errors: PLX_ENOMEM. */
int seg_set_add(struct seg_set *s, const struct seg_id *id);
bool seg_set_has(const struct seg_set *s, const struct seg_id *id);
void seg_set_free(struct seg_set *s);

struct seg_sweep {
    uint64_t live, dropped;             /* segments */
    uint64_t live_bytes, dropped_bytes; /* stored */
    uint64_t freed_bytes;               /* given back to the file system */
};

struct seg_totals {
    uint64_t segments, raw_bytes, stored_bytes; /* without what no sweep has dropped yet */
    uint64_t used_bytes;                        /* of the file system or memory, all in all */
};

/* One damage found by check: @where names file and offset, @id the segment, if it is known. */
typedef void (*seg_damage_fn)(void *ctx, const char *where, const struct seg_id *id,
                              const char *what);

/* What is known of a segment that one is about to put. */
enum seg_state { SEG_ABSENT = 0, SEG_THERE = 1, SEG_COMING = 2 /* another handle is putting it */ };

struct seg_ops {
    const char *kind; /* "directory" */

    /* 1: committed or put by this handle; 0: not there; negative: error. */
    int (*has)(void *self, const struct seg_id *id, struct plx_err *err);
    /* Keep a segment: 1 when it was new, 0 when it was there. Durable after the next commit. */
    int (*put)(void *self, const struct seg_id *id, const struct seg_form *form,
               struct plx_err *err);
    /* Append the stored form to @out (cleared first); form->data points into it. Errors:
     * PLX_ENOENT, PLX_ECORRUPT (the backend's own checksum), PLX_EIO. */
    int (*get)(void *self, const struct seg_id *id, struct wbuf *out, struct seg_form *form,
               struct plx_err *err);
    /* Make everything put so far durable. */
    int (*commit)(void *self, struct plx_err *err);
    /* Commit; nothing will be put for a while: let go of what sweeps spare for this handle's sake,
     * unless it is little. NULL: there is no such thing. */
    int (*rest)(void *self, struct plx_err *err);

    /* Announce that this handle is about to put @id. 0: go on; PLX_EBUSY: another live handle has
     * announced it and not committed yet. Only a hint; NULL where there are no other handles. */
    int (*claim)(void *self, const struct seg_id *id);
    /* What has and claim say of @n segments (enum seg_state), where asking for each takes long.
     * NULL: it does not. */
    int (*look)(void *self, const struct seg_id *ids, size_t n, uint8_t *states,
                struct plx_err *err);

    /* Names, as in "base:1". Values are small (NAME_VALUE_MAX) and checked when read. */
    /* Set @name once all of @ids are there, atomically with respect to sweeps. 0 done; 1: at least
     * one is not there (a sweep took it), its place in @ids is *missing: put it again, then again.
     * Commits first. */
    int (*name_put)(void *self, const char *name, const void *value, size_t len,
                    const struct seg_id *ids, size_t n, size_t *missing, struct plx_err *err);
    int (*name_get)(void *self, const char *name, struct wbuf *value, struct plx_err *err);
    int (*name_del)(void *self, const char *name, struct plx_err *err);
    /* Each name in order; stops when @each returns non-zero, which is returned. A damaged one is
     * given with NULL. */
    int (*name_each)(void *self,
                     int (*each)(void *ctx, const char *name, const void *value, size_t len),
                     void *ctx, struct plx_err *err);

    /* Drop every segment that is not in the set which @mark fills. @mark runs while no name can be
     * set, and is given the names and what leases hold. Segments that live writers put are kept. */
    int (*sweep)(void *self, int (*mark)(void *ctx, struct seg_set *live, struct plx_err *err),
                 void *ctx, struct seg_sweep *out, struct plx_err *err);
    /* Keep @ids' owner value alive through sweeps until released or this process dies: @value is
     * what lease_each gives. */
    int (*lease)(void *self, const void *value, size_t len, void **lease, struct plx_err *err);
    void (*lease_end)(void *self, void *lease);
    int (*lease_each)(void *self, int (*each)(void *ctx, const void *value, size_t len), void *ctx,
                      struct plx_err *err);

    /* Take hold of segments: from now on held_get reads the @i-th of @ids, which the caller gives
     * again, whatever sweeps do, and without opening a file (a sandbox may forbid that). Errors:
     * PLX_ENOENT, PLX_ERANGE (too many files). */
    int (*hold)(void *self, const struct seg_id *ids, size_t n, void **hold, struct plx_err *err);
    int (*held_get)(void *self, void *hold, size_t i, const struct seg_id *id, struct wbuf *out,
                    struct seg_form *form, struct plx_err *err); /* as get */
    void (*hold_end)(void *self, void *hold);                    /* NULL is a no-op */

    /* Each segment, in the backend's order of storage; NULL @bad: do not check, only list. */
    int (*each)(void *self,
                int (*each)(void *ctx, const struct seg_id *id, const struct seg_form *form,
                            const char *where),
                seg_damage_fn bad, void *ctx, struct plx_err *err);
    int (*totals)(void *self, struct seg_totals *out, struct plx_err *err);
    void (*close)(void *self); /* what was put and not committed is lost */
};

enum { NAME_MAX_LEN = 127, NAME_VALUE_MAX = 1 << 20 };

#endif
