/* SPDX-License-Identifier: Apache-2.0
 * storage/disk.h - an open virtual disk: its geometry, what is where, reads and changes of it.
 * Implemented by raw images (disk_raw.c), VHDX files (vhdx.h), chains of them (chain.h) and store
 * images; used by the CLI, the NBD server, VMs and the image store.
 *
 * Every range is in bytes and a multiple of DISK_SECTOR; the functions here check it against the
 * size, so that implementations get only what fits. A change is visible to reads from when it
 * returns; it is durable when a later disk_flush has returned. A range that was discarded or
 * zeroed reads as zeros.
 *
 * Ownership: whoever opened it closes it, nothing under way. Threading: any number of threads at
 * once; of changes and reads that overlap in time and place the outcome is one or the other, by
 * sector. */
#ifndef STORAGE_DISK_H
#define STORAGE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/io.h"

enum { DISK_SECTOR = 512 };

/* A GUID as the file holds it (RFC 4122, "Layout and Byte Order", first three fields
 * little-endian). */
struct disk_guid {
    uint8_t b[16];
};
enum { DISK_GUID_TEXT = 39 };
/* "{01234567-89ab-cdef-0123-456789abcdef}" and a NUL. */
const char *disk_guid_text(const struct disk_guid *g, char out[DISK_GUID_TEXT]);
/* With or without braces, either case. Errors: PLX_EINVAL (no message). */
int disk_guid_parse(const char *text, struct disk_guid *out);
struct disk_guid disk_guid_new(void); /* random, version 4 */
bool disk_guid_eq(const struct disk_guid *a, const struct disk_guid *b);
bool disk_guid_zero(const struct disk_guid *g);

struct disk_geometry {
    uint64_t bytes;           /* of the virtual disk */
    uint32_t logical_sector;  /* 512 or 4096 */
    uint32_t physical_sector; /* 512 or 4096 */
    uint32_t block;           /* unit of allocation; 0: none */
};

enum disk_extent_kind {
    DISK_EXTENT_DATA, /* at file_off of file, when that is known */
    DISK_EXTENT_ZERO, /* known to read as zeros */
};
struct disk_extent {
    uint64_t off, len; /* of the disk */
    enum disk_extent_kind kind;
    unsigned depth;       /* 0: the top layer answers for it; 1: its parent; ... */
    struct io_file *file; /* borrowed; NULL: not in one place of one file */
    uint64_t file_off;
};

struct disk {
    const struct disk_ops *ops;
    struct disk_geometry geo;
    const char *path; /* of its top file, for messages; the implementation's */
    bool writable;
};

struct disk_request;

/* What an implementation gives. Ranges were checked and are not empty; changes only come when the
 * disk is writable. */
struct disk_ops {
    const char *format; /* "raw", "vhdx", "chain", ... */
    int (*read)(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err);
    int (*write)(struct disk *d, const void *buf, uint64_t len, uint64_t off, struct plx_err *err);
    /* Read as zeros from now on. @discard: the space need not stay allocated. */
    int (*zero)(struct disk *d, uint64_t len, uint64_t off, bool discard, struct plx_err *err);
    int (*flush)(struct disk *d, struct plx_err *err);
    /* What stands at @off, and how far (at most @len; at least one sector). */
    int (*map)(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
               struct plx_err *err);
    /* Identifier of the contents (ARCHITECTURE.md, "Virtual disks"), for children to hold.
     * PLX_ENOTSUP where the format keeps none. NULL: the same. */
    int (*identity)(struct disk *d, struct disk_guid *out, struct plx_err *err);
    /* Start @r on @q where that needs no blocking work, and later call disk_request_done. false:
     * it does, and nothing happened; the caller runs the blocking op on a thread of the queue.
     * NULL: always false. */
    bool (*submit)(struct disk *d, struct io_queue *q, struct disk_request *r);
    int (*close)(struct disk *d, struct plx_err *err); /* flushes; frees in any case */
};

/* Errors of all: PLX_EINVAL (range not in sectors), PLX_ERANGE (beyond the disk), PLX_EACCES
 * (opened read-only), PLX_EIO, PLX_ENOMEM, PLX_ECORRUPT; the message names the file. */
int disk_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err);
int disk_write(struct disk *d, const void *buf, uint64_t len, uint64_t off, struct plx_err *err);
int disk_zero(struct disk *d, uint64_t len, uint64_t off, bool discard, struct plx_err *err);
int disk_flush(struct disk *d, struct plx_err *err);
int disk_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
             struct plx_err *err);
int disk_identity(struct disk *d, struct disk_guid *out, struct plx_err *err);
/* What could not be made durable is the error of a close. NULL is a no-op and 0. */
int disk_close(struct disk *d, struct plx_err *err);

/* --- without blocking ------------------------------------------------------------------------ */

enum disk_op_kind { DISK_OP_READ, DISK_OP_WRITE, DISK_OP_ZERO, DISK_OP_DISCARD, DISK_OP_FLUSH };

enum { DISK_PIECES = 32 }; /* more than this many pieces: the blocking way */

struct disk_request {
    enum disk_op_kind op;
    uint64_t off, len;
    void *buf;
    bool fua; /* of a change: durable when done */
    /* On the queue's thread, inside io_queue_run. rc and err say how it went. */
    void (*done)(struct disk_request *r);
    void *ctx;
    int rc;
    struct plx_err err;
    /* the disk's */
    struct disk *disk;
    unsigned left;
    void *plan;
    uint64_t plan_words[4 * DISK_PIECES + 2];
    struct io_request io[DISK_PIECES];
};

/* Takes the request; done is called from io_queue_run, never from here. */
void disk_submit(struct disk *d, struct io_queue *q, struct disk_request *r);

/* --- opening --------------------------------------------------------------------------------- */

/* Flags of opening. */
enum {
    DISK_FOR_WRITE = 1,
    DISK_NO_LOCK = 2,    /* read-only: look at it although it may be changing */
    DISK_NO_PARENTS = 4, /* a differencing file by itself: what it lacks reads as zeros */
    DISK_NO_CHECK = 8,   /* links of a chain are not compared; each mismatch is logged */
};

/* A raw image; takes over @f on success. Its size must be a multiple of 512. */
int disk_raw_open(struct io_file *f, struct disk **out, struct plx_err *err);

#endif
