/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/diskfile.h - executes disk requests on a raw image, or on an overlay over one.
 *
 * Overlay mode: the base is opened read-only and never modified; blocks of 4 KiB that were written
 * live in the overlay file at their natural offset behind its header and allocation bitmap. Plain
 * mode writes the image itself. A discarded or zeroed range reads as zeros. Blocks of the overlay
 * are compared with their checksums whenever they are read, and read from time to time in any case;
 * one that does not match is a failure of the host like any other.
 *
 * Requests that overlap (in whole 4 KiB blocks, one of them changing) take effect in the order of
 * submission, others run in parallel: so the contents after any set of requests are a function of
 * their order, as on every other replica. A flush covers every request that finished before it was
 * submitted; data become durable before the bitmap bit that makes them visible.
 *
 * Ownership: whoever opens it. Threading: one caller thread, worker threads inside. */
#ifndef VMM_DEV_BACKEND_DISKFILE_H
#define VMM_DEV_BACKEND_DISKFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "vmm/dev/backend/disk_base.h"
#include "vmm/sched/input.h"

struct diskfile; /* opaque */

/* Who wrote the overlay last (ARCHITECTURE.md, "Disks"). All zero in a fresh overlay. */
struct disk_stamp {
    uint8_t vm[16]; /* UUID */
    uint64_t epoch, incarnation;
    uint64_t last_record; /* last record whose disk requests are all in here */
};

/* An open disk that is more than a raw image; its functions are as those of a base. */
struct diskfile_image {
    struct disk_base base;
    int (*write)(void *ctx, const void *buf, uint64_t len, uint64_t off, struct plx_err *err);
    int (*zero)(void *ctx, uint64_t len, uint64_t off, struct plx_err *err);
    int (*flush)(void *ctx, struct plx_err *err);
    void (*close)(void *ctx);
};

/* Formats live outside of vmm/; whoever has them says here, before the first disk is opened, which
 * paths are theirs and how to open those. Without it every path is a raw image. */
struct diskfile_opener {
    bool (*knows)(const char *path);
    int (*open)(const char *path, bool write, struct diskfile_image *out, struct plx_err *err);
};
void diskfile_set_opener(const struct diskfile_opener *opener); /* borrowed for ever */

struct diskfile_config {
    const char *path;             /* with @base: for messages only */
    const struct disk_base *base; /* NULL: the file; else an overlay is needed. Borrowed */
    const char *overlay;          /* NULL: plain mode */
    bool create_overlay;
    bool readonly;
    /* Identity of the base, kept in a fresh overlay and compared when one is opened; all zero: not
     * known, not compared. The size of the base is always compared. */
    uint8_t base_sha256[SHA256_LEN];
    /* All of the overlay is read within this time of the host, at no more than
     * OVERLAY_SCRUB_BYTES_S; 0: OVERLAY_SCRUB_NS. */
    uint64_t scrub_ns;
};

/* Errors: PLX_EINVAL (size not a multiple of 512, or empty), PLX_ECORRUPT, PLX_EVERSION, PLX_ESTALE
 * (the overlay belongs to another base), PLX_EEXIST, PLX_EBUSY (locked by another process), those
 * of open(2). */
int diskfile_open(const struct diskfile_config *cfg, struct diskfile **out, struct plx_err *err);
/* Finishes what was submitted, makes the overlay's bitmap durable, closes. NULL is a no-op. */
void diskfile_close(struct diskfile *d);

uint64_t diskfile_sectors(const struct diskfile *d); /* of 512 bytes */

/* Start a request (OUTPUT_DISK) with a new id; @data is copied. Errors: PLX_EINVAL (range beyond
 * the disk, id in use, change of a read-only disk), PLX_ENOMEM. */
int diskfile_submit(struct diskfile *d, const struct output *o, const void *data,
                    struct plx_err *err);
/* Ids finished well since the last call, in the order in which they finished; at most @cap. */
unsigned diskfile_poll(struct diskfile *d, uint64_t *ids, unsigned cap);
/* Readable while diskfile_poll has something to say. Borrowed. */
int diskfile_fd(const struct diskfile *d);
/* Wait for @id, give its data (@len as submitted, or 0 to ignore) and forget it. Errors: PLX_ENOENT
 * (no such request), PLX_EIO (the host could not do it; message says what), PLX_EINVAL (@len). */
int diskfile_result(struct diskfile *d, uint64_t id, void *data, uint32_t len, struct plx_err *err);
/* 0, or PLX_EIO and what failed when any request (or the scrub) did, for good: it is never reported
 * as finished. */
int diskfile_error(struct diskfile *d, struct plx_err *err);
int diskfile_drain(struct diskfile *d, struct plx_err *err); /* wait until nothing runs */

/* Overlay mode only (plain: no-ops that give zeros). */
int diskfile_stamp(struct diskfile *d, const struct disk_stamp *stamp, struct plx_err *err);
void diskfile_get_stamp(const struct diskfile *d, struct disk_stamp *out);

#endif
