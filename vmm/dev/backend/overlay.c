/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay.c - blocks and their checksums while an overlay is open (overlay.h), and
 * what of it reaches the file when. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "vmm/dev/backend/overlay_priv.h"

bool overlay_has(struct overlay *o, uint64_t block)
{
    (void)pthread_mutex_lock(&o->lock);
    bool has = overlay_bit(o, block);
    (void)pthread_mutex_unlock(&o->lock);
    return has;
}

uint64_t overlay_next(struct overlay *o, uint64_t from)
{
    (void)pthread_mutex_lock(&o->lock);
    while (from < o->blocks && !overlay_bit(o, from)) {
        from += o->bitmap[from / 8] >> (from % 8) == 0 ? 8 - from % 8 : 1;
    }
    (void)pthread_mutex_unlock(&o->lock);
    return from < o->blocks ? from : o->blocks;
}

/* Never 0. Seeded by the place, so that blocks are not mistaken for one another. */
static uint64_t sum_of(uint64_t block, const uint8_t data[OVERLAY_BLOCK])
{
    uint64_t h = hash128(data, OVERLAY_BLOCK, block).lo;

    return h != 0 ? h : 1;
}

static void set_sum_locked(struct overlay *o, uint64_t block, uint64_t sum)
{
    if (o->sums[block] != sum) {
        o->sums[block] = sum;
        o->sums_dirty[block / SUMS_PAGE] = 1;
    }
}

void overlay_mark(struct overlay *o, uint64_t block, const uint8_t data[OVERLAY_BLOCK])
{
    uint64_t sum = sum_of(block, data);

    (void)pthread_mutex_lock(&o->lock);
    set_sum_locked(o, block, sum);
    if (!overlay_bit(o, block)) {
        o->bitmap[block / 8] |= (uint8_t)(1u << (block % 8));
        o->dirty[block / 8 / PAGE] = 1;
        o->allocated++;
    }
    (void)pthread_mutex_unlock(&o->lock);
}

bool overlay_verify(struct overlay *o, uint64_t block, const uint8_t data[OVERLAY_BLOCK])
{
    uint64_t sum = sum_of(block, data);
    bool equal;

    (void)pthread_mutex_lock(&o->lock);
    if (o->sums[block] == 0) {
        set_sum_locked(o, block, sum);
    }
    equal = o->sums[block] == sum;
    (void)pthread_mutex_unlock(&o->lock);
    return equal;
}

uint64_t overlay_allocated(struct overlay *o)
{
    (void)pthread_mutex_lock(&o->lock);
    uint64_t n = o->allocated;
    (void)pthread_mutex_unlock(&o->lock);
    return n;
}

/* --- what reaches the file, and when -------------------------------------------------------- */

/* Pages of an array that are not in the file yet, as they were at one moment. */
struct pages {
    uint8_t *dirty; /* of the array: what is copied is no longer dirty, until restored */
    const uint8_t *from;
    uint64_t count, off; /* pages of the array; its place in the file */
    uint8_t (*copies)[PAGE];
    uint64_t *index, n;
};

/* 0 or -1 with errno ENOMEM; nothing changed then. */
static int pages_copy_locked(struct pages *p)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < p->count; i++) {
        n += p->dirty[i];
    }
    if (n == 0) {
        return 0;
    }
    p->copies = plx_calloc(n, PAGE);
    p->index = plx_calloc(n, sizeof *p->index);
    if (p->copies == NULL || p->index == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (uint64_t i = 0; i < p->count; i++) {
        if (p->dirty[i] != 0) {
            p->dirty[i] = 0;
            p->index[p->n] = i;
            memcpy(p->copies[p->n++], p->from + i * PAGE, PAGE);
        }
    }
    return 0;
}

static int pages_write(int fd, const struct pages *p)
{
    for (uint64_t i = 0; i < p->n; i++) {
        if (io_pwrite_full(fd, p->copies[i], PAGE, p->off + p->index[i] * PAGE) != 0) {
            return -1;
        }
    }
    return 0;
}

static void pages_restore_locked(struct pages *p)
{
    for (uint64_t i = 0; i < p->n; i++) {
        p->dirty[p->index[i]] = 1;
    }
}

static void pages_free(struct pages *p)
{
    plx_free(p->copies);
    plx_free(p->index);
}

/* Holding flush_lock and lock; gives lock back. A bit is set only after its data were written, so
 * bits copied now belong to data that the first fdatasync covers; they go to the file after it.
 * Bits set meanwhile wait for the next time. Checksums are copied together with the bits, so that
 * they agree where no write is under way. */
static int write_out(struct overlay *o, bool sums)
{
    struct pages set[2] = {
        {.dirty = o->dirty, .from = o->bitmap, .count = o->bitmap_bytes / PAGE, .off = BITMAP_OFF},
        {.dirty = o->sums_dirty,
         .from = (const uint8_t *)o->sums,
         .count = sums ? o->sums_bytes / PAGE : 0,
         .off = o->sums_off},
    };
    int rc = 0;

    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        rc = pages_copy_locked(&set[i]);
    }
    (void)pthread_mutex_unlock(&o->lock);
    rc = rc == 0 ? fdatasync(o->fd) : rc;
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        rc = pages_write(o->fd, &set[i]);
    }
    if (rc == 0 && set[0].n + set[1].n != 0) {
        rc = fdatasync(o->fd);
    }
    if (rc != 0) {
        int error = errno;
        (void)pthread_mutex_lock(&o->lock);
        pages_restore_locked(&set[0]);
        pages_restore_locked(&set[1]);
        (void)pthread_mutex_unlock(&o->lock);
        errno = error;
    }
    pages_free(&set[0]);
    pages_free(&set[1]);
    return rc;
}

int overlay_flush(struct overlay *o)
{
    int rc;

    (void)pthread_mutex_lock(&o->flush_lock);
    (void)pthread_mutex_lock(&o->lock);
    rc = write_out(o, false);
    (void)pthread_mutex_unlock(&o->flush_lock);
    return rc;
}

/* Note the writer; true if it may write to all of the regions already. */
static bool note_writer(struct overlay *o, uint64_t from, uint64_t to)
{
    bool all = true;

    (void)pthread_mutex_lock(&o->lock);
    for (uint64_t i = from; i <= to; i++) {
        all = all && overlay_intent(o, i);
        o->written[i] = 1;
        o->writers[i]++;
    }
    (void)pthread_mutex_unlock(&o->lock);
    return all;
}

void overlay_end_write(struct overlay *o, uint64_t first, uint64_t blocks)
{
    (void)pthread_mutex_lock(&o->lock);
    for (uint64_t i = first / o->region_blocks; i <= (first + blocks - 1) / o->region_blocks; i++) {
        o->writers[i]--;
    }
    (void)pthread_mutex_unlock(&o->lock);
}

/* An intent is cleared only by overlay_settle, and only while nobody is noted as a writer. */
int overlay_begin_write(struct overlay *o, uint64_t first, uint64_t blocks)
{
    uint64_t from = first / o->region_blocks, to = (first + blocks - 1) / o->region_blocks;
    uint8_t page[PAGE];
    int rc;

    if (note_writer(o, from, to)) {
        return 0;
    }
    (void)pthread_mutex_lock(&o->flush_lock);
    memcpy(page, o->intents, PAGE); /* changed under flush_lock only */
    for (uint64_t i = from; i <= to; i++) {
        page[i / 8] |= (uint8_t)(1u << (i % 8));
    }
    rc = io_pwrite_full(o->fd, page, PAGE, INTENT_OFF);
    rc = rc == 0 ? fdatasync(o->fd) : rc;
    if (rc == 0) {
        (void)pthread_mutex_lock(&o->lock);
        memcpy(o->intents, page, PAGE);
        (void)pthread_mutex_unlock(&o->lock);
    } else {
        int error = errno;
        overlay_end_write(o, first, blocks);
        errno = error;
    }
    (void)pthread_mutex_unlock(&o->flush_lock);
    return rc;
}

/* Clear the intents of regions that are at rest, or (with @look) only say whether there are any. */
static bool settle_locked(struct overlay *o, bool closing, bool look)
{
    bool any = false;

    for (uint64_t i = 0; i < o->regions; i++) {
        if (overlay_intent(o, i) && o->unknown[i] == 0 && o->writers[i] == 0 &&
            (closing || o->written[i] == 0)) {
            any = true;
            o->intents[i / 8] &= (uint8_t)(look ? 0xff : ~(1u << (i % 8)));
        }
    }
    return any;
}

/* A writer noted between the two looks keeps its region's intent; one that comes after the second
 * finds it cleared, and waits in overlay_begin_write for flush_lock to set it again. */
int overlay_settle(struct overlay *o, bool closing)
{
    uint8_t page[PAGE];
    bool any;
    int rc = 0;

    (void)pthread_mutex_lock(&o->flush_lock);
    (void)pthread_mutex_lock(&o->lock);
    if (!closing) { /* all that was there has been looked at */
        memset(o->unknown, 0, o->regions);
    }
    any = settle_locked(o, closing, true);
    if (any) {
        rc = write_out(o, true);
        (void)pthread_mutex_lock(&o->lock);
        any = rc == 0 && settle_locked(o, closing, false);
        memcpy(page, o->intents, PAGE);
    }
    memset(o->written, 0, o->regions);
    (void)pthread_mutex_unlock(&o->lock);
    if (any) {
        rc = io_pwrite_full(o->fd, page, PAGE, INTENT_OFF);
    }
    (void)pthread_mutex_unlock(&o->flush_lock);
    return rc;
}
