/* SPDX-License-Identifier: Apache-2.0
 * storage/image.h - images in a store: pushing, finding, tagging, sweeping, checking, writing out.
 *
 * What a push does is in the store when it returns; what an interrupted one put is found again by
 * the next. Sweeps may run at any time: a push that finds, at its end, that a sweep took something
 * it had counted on puts that again.
 *
 * Threading: any thread; pushes, writes and checks use as many threads as they are told. */
#ifndef STORAGE_IMAGE_H
#define STORAGE_IMAGE_H

#include "storage/disk.h"
#include "storage/manifest.h"

/* What a push, pull or export has done so far. */
struct image_progress {
    uint64_t bytes, total; /* of the disk, zeros included */
    uint64_t data_bytes;   /* in segments */
    uint64_t shared_bytes; /* of these: were in the store already */
    uint64_t stored_bytes; /* added to the store */
    uint64_t segments, shared;
};
/* Called from threads of the operation, one at a time, often. Not zero: stop (PLX_ECANCELED). */
typedef int (*image_progress_fn)(void *ctx, const struct image_progress *p);

struct image_push {
    const char *name, *tag, *os, *app;     /* os and app may be "" */
    const char *kernel, *initrd, *cmdline; /* files and text that boot it; NULL: none */
    struct chunk_params chunks;
    unsigned threads; /* 0: one per processor this process may use */
    uint64_t now_ns;  /* time of the push */
    image_progress_fn progress;
    void *ctx;
};

/* Push @disk under a name, replacing what had it. *out (may be NULL) gets its reference, the caller
 * frees it. Errors: PLX_EIO and others of the source, of the store; PLX_ECANCELED. */
int image_push(struct store *s, const struct image_push *cfg, struct disk *disk,
               struct image_ref *out, struct image_progress *totals, struct plx_err *err);

/* The reference of NAME:TAG. Errors: PLX_ENOENT, PLX_ECORRUPT. */
int image_find(struct store *s, const char *name, const char *tag, struct image_ref *out,
               struct plx_err *err);
int image_manifest(struct store *s, const struct image_ref *ref, struct manifest *out,
                   struct plx_err *err);
/* Check the bytes of a manifest against the reference and decode them. */
int image_manifest_open(const struct image_ref *ref, const void *data, size_t len,
                        struct manifest *out, struct plx_err *err);

/* Every image, by name; @ref is NULL for one whose reference is damaged. Stops when @each returns
 * non-zero, which is returned. */
int image_each(struct store *s,
               int (*each)(void *ctx, const char *name, const struct image_ref *ref), void *ctx,
               struct plx_err *err);
/* NULL or "" matches all. @pattern: a part of the name; @os, @app: equal without case, @app to one
 * of the image's applications. */
bool image_matches(const struct image_ref *ref, const char *pattern, const char *os,
                   const char *app);

/* 0, or PLX_ESTALE: another version is under the name now. */
int image_same(const struct image_ref *was, const struct image_ref *now, struct plx_err *err);
/* Give an image another name as well. */
int image_tag(struct store *s, const struct image_ref *ref, const char *name, const char *tag,
              struct plx_err *err);
int image_remove(struct store *s, const char *name, const char *tag, struct plx_err *err);
/* Keep @order as the boot profile of an image; its manifest must still be under the name. Errors:
 * PLX_ESTALE (another version is now). */
int image_set_profile(struct store *s, const struct image_ref *ref, const uint32_t *order, size_t n,
                      struct plx_err *err);
/* As image_set_profile, into any store, for @now, the reference under the name at present, and its
 * manifest. *now leads to the profile then. */
int image_put_profile(struct store *s, struct image_ref *now, const struct manifest *m,
                      const uint32_t *order, size_t n, struct plx_err *err);
/* *order is the caller's; none: *n is 0. */
int image_profile(struct store *s, const struct image_ref *ref, size_t segments, uint32_t **order,
                  size_t *n, struct plx_err *err);
/* Put a reference whose segments are all in the store (after a pull). Errors: PLX_ENOENT: one is
 * not there, *missing (may be NULL). */
int image_adopt(struct store *s, const struct image_ref *ref, const struct manifest *m,
                struct seg_id *missing, struct plx_err *err);

/* Keep an image through sweeps although its name may go: until released, or the process ends. */
struct image_lease;
int image_lease(struct store *s, const char *name, const char *tag, struct image_ref *ref,
                struct image_lease **out, struct plx_err *err);
void image_lease_end(struct image_lease *l); /* NULL is a no-op */

/* Drop every segment that no image and no lease leads to. Refuses while an image is damaged:
 * what it leads to cannot be known (PLX_ECORRUPT). */
int image_gc(struct store *s, struct seg_sweep *out, struct plx_err *err);

/* Read and check everything. @damage is told of each fault found; *faults counts them. Errors are
 * only those that kept it from looking. */
int image_verify(struct store *s, void (*damage)(void *ctx, const char *text), void *ctx,
                 uint64_t *faults, struct image_progress *totals, struct plx_err *err);

/* Write the contents of a stream to an empty or new file @fd (holes stay holes). */
int image_export(struct store *s, const struct manifest_stream *stream, int fd, unsigned threads,
                 image_progress_fn progress, void *ctx, struct plx_err *err);

unsigned image_threads(unsigned asked); /* @asked, or the processors this process may use */

#endif
