/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay.h - the file format of an overlay: header, stamps, intents, allocation
 * bitmap, checksums, data.
 *
 *     0        header: magic[8] "PLXOVL1\n", u32 version, u32 block size, u64 base bytes,
 *              u8 base_sha256[32], u64 hash of the bytes before
 *     4096     stamp slot 0   u64 sequence, u8 vm[16], u64 epoch, u64 incarnation, u64 last record,
 *     8192     stamp slot 1   u64 hash of the bytes before; the valid one with the higher
 *                             sequence counts, so a torn write loses nothing
 *     12288    intents: bit n = checksums of region n need not match (below)
 *     16384    bitmap: bit n = block n of 4 KiB is in the overlay
 *     sums     at the next 4 KiB: u64 n = checksum of block n, 0: none
 *     data     rounded up to 64 KiB: block n at data + n * 4 KiB (sparse)
 *
 * All little-endian.
 *
 * Checksums are kept in memory with every write and compared with every read; diskfile.c also reads
 * the blocks nobody asks for. In the file they lag behind: before the first write into a region
 * (OVERLAY_REGION blocks, more on a disk too large for one page of intents) its intent is set,
 * durably; overlay_settle clears it once data, bitmap and checksums of a region that is not written
 * any more are durable. So what a crash leaves half-written is never taken for damage: blocks of
 * a region with its intent set have an unknown checksum when the file is opened, and get the one of
 * what they hold when they are first read. In every other region bitmap, checksums and data must
 * agree.
 *
 * Threading: any thread; whoever writes a block must keep others from reading or writing it
 * meanwhile. overlay_flush and overlay_settle may run beside reads and writes (see there). */
#ifndef VMM_DEV_BACKEND_OVERLAY_H
#define VMM_DEV_BACKEND_OVERLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "vmm/dev/backend/diskfile.h"

enum {
    OVERLAY_BLOCK = 4096,
    OVERLAY_REGION = 16384,        /* blocks, at least: 64 MiB */
    OVERLAY_REGIONS_MAX = 8 * 4096 /* one page of bits */
};

struct overlay {
    int fd;
    char *path;
    uint64_t base_bytes, blocks;
    uint64_t sums_off, data_off;
    uint64_t region_blocks, regions;
    pthread_mutex_t lock; /* of all below */
    uint8_t *bitmap;      /* what reads see */
    uint8_t *dirty;       /* one byte per 4 KiB of bitmap that is not in the file yet */
    uint64_t bitmap_bytes, allocated;
    uint64_t *sums;      /* of blocks; 0: not in the overlay, or unknown */
    uint8_t *sums_dirty; /* one byte per 4 KiB of sums that is not in the file yet */
    uint64_t sums_bytes;
    uint8_t *intents;  /* as in the file */
    uint8_t *written;  /* one byte per region: since overlay_settle last looked */
    uint8_t *unknown;  /* likewise: may hold blocks with unknown checksums */
    unsigned *writers; /* likewise: between overlay_begin_write and overlay_end_write */
    struct disk_stamp stamp;
    uint64_t stamp_seq;
    /* Only one at a time writes bitmap, checksums and intents. */
    pthread_mutex_t flush_lock;
};

/* Create an empty one for a base of @base_bytes; must not exist. Durable when it returns. */
int overlay_create(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                   struct plx_err *err);
/* Errors: as diskfile_open. @base_sha256 all zero: not compared. */
int overlay_open(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                 struct overlay **out, struct plx_err *err);
void overlay_close(struct overlay *o); /* neither flushes nor settles; NULL is a no-op */

bool overlay_has(struct overlay *o, uint64_t block);
/* The first block in the overlay at or after @from; o->blocks: none. */
uint64_t overlay_next(struct overlay *o, uint64_t from);
uint64_t overlay_allocated(struct overlay *o); /* blocks */

/* Around every write to @blocks from @first; in between, overlay_mark says what each of them holds
 * now, all of it. 0, or -1 with errno (and the write must not be). */
int overlay_begin_write(struct overlay *o, uint64_t first, uint64_t blocks);
void overlay_end_write(struct overlay *o, uint64_t first, uint64_t blocks);
void overlay_mark(struct overlay *o, uint64_t block, const uint8_t data[OVERLAY_BLOCK]);
/* Is @data, just read, what was written? An unknown checksum becomes known. */
bool overlay_verify(struct overlay *o, uint64_t block, const uint8_t data[OVERLAY_BLOCK]);

/* Everything marked before the call becomes durable, data before bits. 0 or -1 with errno. */
int overlay_flush(struct overlay *o);
/* Without @closing: every block that was in the overlay when the file was opened has been verified.
 * The checksums of regions not written since the last call (with @closing: of all) become durable,
 * and trusted after a crash. 0 or -1 with errno. */
int overlay_settle(struct overlay *o, bool closing);
int overlay_write_stamp(struct overlay *o, const struct disk_stamp *stamp, struct plx_err *err);

/* SHA-256 of what the guest sees of the file at @path: the bitmap and the blocks it names. Errors:
 * PLX_ENOENT (no such file, without a message), PLX_EIO, PLX_ECORRUPT. Any process. */
int overlay_sha256(const char *path, uint8_t sha[SHA256_LEN], struct plx_err *err);

static inline uint64_t overlay_offset(const struct overlay *o, uint64_t block)
{
    return o->data_off + block * OVERLAY_BLOCK;
}

#endif
