/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay.h - the file format of an overlay: header, stamps, allocation bitmap,
 * data.
 *
 *     0        header: magic[8] "PLXOVL1\n", u32 version, u32 block size, u64 base bytes,
 *              u8 base_sha256[32], u64 hash of the bytes before
 *     4096     stamp slot 0   u64 sequence, u8 vm[16], u64 epoch, u64 incarnation, u64 last record,
 *     8192     stamp slot 1   u64 hash of the bytes before; the valid one with the higher
 *                             sequence counts, so a torn write loses nothing
 *     12288    bitmap: bit n = block n of 4 KiB is in the overlay
 *     data     rounded up to 64 KiB: block n at data + n * 4 KiB (sparse)
 *
 * All little-endian. Threading: the caller locks; overlay_flush may run beside reads and writes of
 * blocks (see there). */
#ifndef VMM_DEV_BACKEND_OVERLAY_H
#define VMM_DEV_BACKEND_OVERLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "vmm/dev/backend/diskfile.h"

enum { OVERLAY_BLOCK = 4096 };

struct overlay {
    int fd;
    char *path;
    uint64_t base_bytes, blocks;
    uint64_t data_off;
    pthread_mutex_t lock; /* of all below */
    uint8_t *bitmap;      /* what reads see */
    uint8_t *dirty;       /* one byte per 4 KiB of bitmap that is not in the file yet */
    uint64_t bitmap_bytes, allocated;
    struct disk_stamp stamp;
    uint64_t stamp_seq;
    /* Only one flush at a time writes the bitmap. */
    pthread_mutex_t flush_lock;
};

/* Create an empty one for a base of @base_bytes; must not exist. Durable when it returns. */
int overlay_create(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                   struct plx_err *err);
/* Errors: as diskfile_open. @base_sha256 all zero: not compared. */
int overlay_open(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                 struct overlay **out, struct plx_err *err);
void overlay_close(struct overlay *o); /* does not flush; NULL is a no-op */

bool overlay_has(struct overlay *o, uint64_t block);
void overlay_mark(struct overlay *o, uint64_t block); /* after its data were written */
uint64_t overlay_allocated(struct overlay *o);        /* blocks */
/* Everything marked before the call becomes durable, data before bits. 0 or -1 with errno. */
int overlay_flush(struct overlay *o);
int overlay_write_stamp(struct overlay *o, const struct disk_stamp *stamp, struct plx_err *err);

static inline uint64_t overlay_offset(const struct overlay *o, uint64_t block)
{
    return o->data_off + block * OVERLAY_BLOCK;
}

#endif
