/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_int.h - what the files vhdx_*.c share: the format's numbers (MS-VHDX), decoded
 * structures, and the open file.
 *
 *      0        file identifier            1 MiB   log
 *     64 KiB    header 1                   2 MiB   metadata region: table of 64 KiB, items
 *    128 KiB    header 2                   3 MiB   BAT: u64 an entry, state in bits 0-2, MiB of
 *    192 KiB    region table 1                     the file in bits 20-63; after each @ratio
 *    256 KiB    region table 2                     payload entries one of a sector bitmap block
 *
 * (the right column as vhdx_create lays it out). Everything is little-endian, as is the host. */
#ifndef STORAGE_VHDX_INT_H
#define STORAGE_VHDX_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "storage/vhdx.h"

#define VHDX_MIB UINT64_C(1048576)

enum {
    VHDX_PAGE = 4096, /* sector of the log; unit of changes of metadata */
    VHDX_HEADER_1 = 64 << 10,
    VHDX_HEADER_2 = 128 << 10,
    VHDX_REGIONS_1 = 192 << 10,
    VHDX_REGIONS_2 = 256 << 10,
    VHDX_TABLE = 64 << 10, /* region table, metadata table */
    VHDX_ENTRIES_MAX = 2047,
    VHDX_LOG_MAX = 64 << 20,
    VHDX_ITEM_MAX = 1 << 20,
    VHDX_BITMAP_PAGES = 256, /* in a sector bitmap block of 1 MiB */
    VHDX_BITMAP_CACHE = 16384,
};

enum vhdx_state {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_FULL = 6, /* of bitmap blocks: present */
    VHDX_PARTIAL = 7,
};
#define VHDX_STATE(entry)  ((enum vhdx_state)((entry)&7))
#define VHDX_OFFSET(entry) ((entry) & ~(VHDX_MIB - 1))

enum { VHDX_ITEM_USER = 1, VHDX_ITEM_DISK = 2, VHDX_ITEM_REQUIRED = 4 };

extern const struct disk_guid vhdx_id_bat, vhdx_id_metadata, vhdx_id_file_parameters, vhdx_id_size,
    vhdx_id_page83, vhdx_id_logical, vhdx_id_physical, vhdx_id_locator, vhdx_id_locator_type,
    vhdx_id_notes;

struct vhdx_header {
    uint64_t seq;
    struct disk_guid file_write, data_write, log;
    uint32_t log_length;
    uint64_t log_offset;
};

struct vhdx_region {
    uint64_t off, len; /* len 0: none */
};

struct vhdx_item {
    struct disk_guid id;
    uint32_t off, len, flags; /* off: from the start of the metadata region */
};

/* 4 KiB of metadata, for the log and then in place. */
struct vhdx_patch {
    uint64_t off;
    uint8_t *data;
};

struct vhdx_bitmap_page {
    bool dirty;
    uint8_t bits[VHDX_PAGE];
};

struct vhdx_free {
    uint64_t unit, count;
    struct vhdx_free *next;
};

struct vhdx {
    struct io_file *f;
    bool writable, peek;
    /* of the tables; constant while others use it */
    struct vhdx_region bat_at, meta_at;
    struct vhdx_item *items;
    unsigned nitems;
    struct disk_geometry geo;
    struct disk_guid page83;
    unsigned shift; /* of a block */
    uint64_t nblocks, ratio, nbat;
    bool has_parent, leave_allocated;
    struct vhdx_parent *parent;
    char creator[256];

    pthread_mutex_t head_lock; /* of the header and of writing it */
    struct vhdx_header h;
    unsigned slot;       /* which header is current: 0 or 1 */
    bool file_touched;   /* FileWriteGuid is new since the open */
    atomic_bool touched; /* and so is DataWriteGuid */
    atomic_bool failed;  /* something could not be made durable: no change is taken any more */

    pthread_mutex_t flush_lock; /* one flush at a time; of the log */
    uint64_t log_seq;
    uint64_t log_head; /* offset in the log where the next entry goes */
    uint64_t flush_done;

    pthread_mutex_t lock; /* of all below */
    uint64_t flush_started;
    uint64_t *bat;
    uint8_t *bat_dirty; /* a byte a page */
    bool any_dirty;
    struct vhdx_bitmap_page ***bitmaps; /* by chunk, then by page */
    uint64_t nchunks, bitmap_pages;
    uint8_t *used;  /* bit a MiB of the file */
    uint64_t units; /* where the file ends, in MiB */
    uint64_t used_cap, free_units, hint;
    /* Freed space on its way back: fresh (its freeing is not in the log yet), logged, waiting
     * (for what was under way to end). */
    struct vhdx_free *fresh, *logged, *waiting;
    unsigned under_way[2], parity;
};

/* vhdx_format.c */
uint32_t vhdx_crc32c(const void *data, size_t len, uint32_t crc); /* begin with 0 */
/* Of a structure whose own checksum stands at byte 4. */
uint32_t vhdx_checksum(const uint8_t *data, size_t len);
void vhdx_header_encode(const struct vhdx_header *h, uint8_t out[VHDX_PAGE]);
bool vhdx_header_decode(const uint8_t in[VHDX_PAGE], struct vhdx_header *out);
void vhdx_regions_encode(const struct vhdx_region *bat, const struct vhdx_region *meta,
                         uint8_t out[VHDX_TABLE]);
/* Checked as a whole against the size of the file. */
int vhdx_regions_decode(const uint8_t in[VHDX_TABLE], const char *path, uint64_t file_bytes,
                        struct vhdx_region *bat, struct vhdx_region *meta, struct plx_err *err);
bool vhdx_regions_valid(const uint8_t in[VHDX_TABLE]);
void vhdx_items_encode(const struct vhdx_item *items, unsigned n, uint8_t out[VHDX_TABLE]);
int vhdx_locator_encode(const struct vhdx_parent *p, struct wbuf *out);
int vhdx_locator_decode(const uint8_t *data, size_t len, const char *path, struct vhdx_parent *out,
                        struct plx_err *err);
uint64_t vhdx_ratio(const struct disk_geometry *geo);
uint64_t vhdx_entries(const struct disk_geometry *geo, bool has_parent); /* of the BAT */

/* vhdx_log.c */
int vhdx_log_replay(struct vhdx *v, struct plx_err *err);
/* Durable in the log, then written in place (not yet durable there: the next sync of the file
 * does that). Holds flush_lock; everything the patches vouch for is durable. @flushed: size of the
 * file when it was. */
int vhdx_log_commit(struct vhdx *v, const struct vhdx_patch *p, unsigned n, uint64_t flushed,
                    struct plx_err *err);
/* Everything in place is durable: the log need not be replayed. Holds flush_lock. */
int vhdx_log_retire(struct vhdx *v, struct plx_err *err);
/* Holds head_lock. The new header is durable when it returns. */
int vhdx_header_write(struct vhdx *v, struct plx_err *err);
/* Before a change of data. */
int vhdx_touch(struct vhdx *v, struct plx_err *err);
int vhdx_lost(struct vhdx *v, int rc); /* remembers that a change was lost; returns @rc */

/* vhdx_alloc.c; all hold lock */
int vhdx_units_init(struct vhdx *v, struct plx_err *err);
int vhdx_alloc(struct vhdx *v, uint64_t count, uint64_t *unit, struct plx_err *err);
void vhdx_release(struct vhdx *v, uint64_t unit, uint64_t count); /* rule 3 */
/* What was fresh when a flush began is in the log now. */
void vhdx_release_logged(struct vhdx *v, struct vhdx_free **list);
void vhdx_release_ready(struct vhdx *v);
void vhdx_units_free(struct vhdx *v);

/* vhdx_block.c */
static inline uint64_t vhdx_index(const struct vhdx *v, uint64_t block)
{
    return block + block / v->ratio;
}
static inline uint64_t vhdx_bitmap_index(const struct vhdx *v, uint64_t chunk)
{
    return chunk * (v->ratio + 1) + v->ratio;
}
/* The page of bits, read if it must be; NULL with an error. The pointer is good until the next
 * call. Holds lock. */
struct vhdx_bitmap_page *vhdx_bitmap(struct vhdx *v, uint64_t chunk, unsigned page,
                                     struct plx_err *err);
void vhdx_bitmaps_free(struct vhdx *v);
void vhdx_set_entry(struct vhdx *v, uint64_t index, uint64_t entry); /* holds lock */

#endif
