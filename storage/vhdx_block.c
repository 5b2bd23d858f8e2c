/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_block.c - blocks and sectors: where they are, and what a change makes of them
 * (rules 1 to 4 of vhdx.h). */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/vhdx_int.h"

/* --- sector bitmaps ------------------------------------------------------------------------- */

static void drop_clean_pages(struct vhdx *v)
{
    for (uint64_t c = 0; c < v->nchunks; c++) {
        for (unsigned i = 0; v->bitmaps[c] != NULL && i < VHDX_BITMAP_PAGES; i++) {
            if (v->bitmaps[c][i] != NULL && !v->bitmaps[c][i]->dirty) {
                plx_free(v->bitmaps[c][i]);
                v->bitmaps[c][i] = NULL;
                v->bitmap_pages--;
            }
        }
    }
}

struct vhdx_bitmap_page *vhdx_bitmap(struct vhdx *v, uint64_t chunk, unsigned page,
                                     struct plx_err *err)
{
    uint64_t e = v->bat[vhdx_bitmap_index(v, chunk)];

    if (v->bitmaps[chunk] != NULL && v->bitmaps[chunk][page] != NULL) {
        return v->bitmaps[chunk][page];
    }
    if (v->bitmap_pages >= VHDX_BITMAP_CACHE) {
        drop_clean_pages(v);
    }
    if (v->bitmaps[chunk] == NULL) {
        v->bitmaps[chunk] = plx_calloc(VHDX_BITMAP_PAGES, sizeof(struct vhdx_bitmap_page *));
    }
    struct vhdx_bitmap_page *p = plx_calloc(1, sizeof *p);
    if (v->bitmaps[chunk] == NULL || p == NULL) {
        plx_free(p);
        (void)io_no_memory(v->f->path, err);
        return NULL;
    }
    if (VHDX_STATE(e) != VHDX_FULL) { /* judged at open, but for a file somebody is writing */
        plx_free(p);
        (void)plx_fail(err, PLX_ECORRUPT, "%s: sector bitmap %llu is not there", v->f->path,
                       (unsigned long long)chunk);
        return NULL;
    }
    if (io_read(v->f, p->bits, VHDX_PAGE, VHDX_OFFSET(e) + (uint64_t)page * VHDX_PAGE, err) != 0) {
        plx_free(p);
        return NULL;
    }
    v->bitmaps[chunk][page] = p;
    v->bitmap_pages++;
    return p;
}

void vhdx_bitmaps_free(struct vhdx *v)
{
    for (uint64_t c = 0; v->bitmaps != NULL && c < v->nchunks; c++) {
        for (unsigned i = 0; v->bitmaps[c] != NULL && i < VHDX_BITMAP_PAGES; i++) {
            plx_free(v->bitmaps[c][i]);
        }
        plx_free(v->bitmaps[c]);
    }
    plx_free(v->bitmaps);
}

/* Where the bit of the sector at @off is. */
struct bit {
    uint64_t chunk;
    unsigned page, at; /* at: bit of the page */
};

enum { PAGE_BITS = VHDX_PAGE * 8 };

static struct bit bit_of(const struct vhdx *v, uint64_t off)
{
    uint64_t sector = off / v->geo.logical_sector;

    return (struct bit){.chunk = sector >> 23,
                        .page = (unsigned)((sector & ((1 << 23) - 1)) / PAGE_BITS),
                        .at = (unsigned)(sector % PAGE_BITS)};
}

/* How many bits from @at on, at most @max, equal the first. */
static unsigned run_of_bits(const uint8_t *bits, unsigned at, unsigned max, bool *set)
{
    unsigned n = 0;

    *set = (bits[at / 8] >> at % 8 & 1) != 0;
    while (n < max) {
        uint64_t word;
        if ((at + n) % 64 == 0 && max - n >= 64) {
            memcpy(&word, bits + (at + n) / 8, 8);
            word = *set ? ~word : word;
            if (word == 0) {
                n += 64;
                continue;
            }
            return n + (unsigned)__builtin_ctzll(word);
        }
        if (((bits[(at + n) / 8] >> (at + n) % 8 & 1) != 0) != *set) {
            return n;
        }
        n++;
    }
    return n;
}

static int set_bits(struct vhdx *v, uint64_t off, uint64_t len, bool on, struct plx_err *err)
{
    uint64_t end = off + len;

    while (off < end) {
        struct bit b = bit_of(v, off);
        uint64_t n = (end - off + v->geo.logical_sector - 1) / v->geo.logical_sector;
        struct vhdx_bitmap_page *p = vhdx_bitmap(v, b.chunk, b.page, err);
        if (p == NULL) {
            return PLX_EIO;
        }
        n = n < PAGE_BITS - b.at ? n : PAGE_BITS - b.at;
        for (unsigned i = b.at; i < b.at + n; i++) {
            uint8_t bit = (uint8_t)(1 << i % 8);
            bool is = (p->bits[i / 8] & bit) != 0;
            if (is != on) {
                p->bits[i / 8] ^= bit;
                p->dirty = true;
                v->any_dirty = true;
            }
        }
        off += n * v->geo.logical_sector;
    }
    return 0;
}

/* --- looking -------------------------------------------------------------------------------- */

static int map_partial(struct vhdx *v, uint64_t off, uint64_t entry, struct vhdx_run *out,
                       struct plx_err *err)
{
    struct bit b = bit_of(v, off);
    uint64_t skip = off % v->geo.logical_sector, sector = v->geo.logical_sector;
    uint64_t n = (skip + out->len + sector - 1) / sector;
    struct vhdx_bitmap_page *p = vhdx_bitmap(v, b.chunk, b.page, err);
    bool set;

    if (p == NULL) {
        return PLX_EIO;
    }
    n = n < PAGE_BITS - b.at ? n : PAGE_BITS - b.at;
    n = run_of_bits(p->bits, b.at, (unsigned)n, &set);
    out->len = n * sector - skip < out->len ? n * sector - skip : out->len;
    out->where = set ? VHDX_HERE : VHDX_PARENT;
    out->file_off = VHDX_OFFSET(entry) + (off & (v->geo.block - 1));
    return 0;
}

int vhdx_map(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_run *out, struct plx_err *err)
{
    int rc = 0;

    *out = (struct vhdx_run){.where = VHDX_ZEROS, .len = len};
    if (off >= v->geo.bytes) { /* a child may be larger */
        return 0;
    }
    uint64_t in = off & (v->geo.block - 1);
    out->len = len < v->geo.block - in ? len : v->geo.block - in;
    out->len = out->len < v->geo.bytes - off ? out->len : v->geo.bytes - off;
    (void)pthread_mutex_lock(&v->lock);
    uint64_t e = v->bat[vhdx_index(v, off >> v->shift)];
    switch (VHDX_STATE(e)) {
    case VHDX_FULL:
        out->where = VHDX_HERE;
        out->file_off = VHDX_OFFSET(e) + in;
        break;
    case VHDX_PARTIAL:
        rc = map_partial(v, off, e, out, err);
        break;
    case VHDX_NOT_PRESENT:
        out->where = v->has_parent ? VHDX_PARENT : VHDX_ZEROS;
        break;
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        break;
    }
    (void)pthread_mutex_unlock(&v->lock);
    return rc;
}

/* --- writing -------------------------------------------------------------------------------- */

void vhdx_set_entry(struct vhdx *v, uint64_t index, uint64_t entry)
{
    v->bat[index] = entry;
    v->bat_dirty[index * 8 / VHDX_PAGE] = 1;
    v->any_dirty = true;
}

static int refuse_failed(const struct vhdx *v, struct plx_err *err)
{
    return plx_fail(err, PLX_EIO,
                    "%s: an earlier change could not be made durable, none is taken any more "
                    "(close it, look at its file system, open it again)",
                    v->f->path);
}

static uint64_t block_bytes(const struct vhdx *v, uint64_t block)
{
    uint64_t start = block << v->shift;
    return v->geo.bytes - start < v->geo.block ? v->geo.bytes - start : v->geo.block;
}

/* Give @block space. With a parent, none of its sectors counts as written yet. */
static int allocate(struct vhdx *v, uint64_t block, struct plx_err *err)
{
    uint64_t index = vhdx_index(v, block), unit, chunk = block / v->ratio;
    bool partial = v->has_parent && VHDX_STATE(v->bat[index]) == VHDX_NOT_PRESENT;
    int rc = 0;

    if (partial && VHDX_STATE(v->bat[vhdx_bitmap_index(v, chunk)]) != VHDX_FULL) {
        rc = vhdx_alloc(v, 1, &unit, err);
        if (rc == 0) {
            vhdx_set_entry(v, vhdx_bitmap_index(v, chunk), unit * VHDX_MIB | VHDX_FULL);
        }
    }
    if (rc == 0 && partial) { /* bits of an earlier life mean nothing */
        rc = set_bits(v, block << v->shift, block_bytes(v, block), false, err);
    }
    if (rc == 0) {
        rc = vhdx_alloc(v, v->geo.block / VHDX_MIB, &unit, err);
    }
    if (rc == 0) {
        vhdx_set_entry(v, index, unit * VHDX_MIB | (partial ? VHDX_PARTIAL : VHDX_FULL));
    }
    return rc;
}

static void fill(const struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_write *w)
{
    uint64_t in = off & (v->geo.block - 1);

    w->off = off;
    w->len = len < v->geo.block - in ? len : v->geo.block - in;
    w->entry = v->bat[vhdx_index(v, off >> v->shift)];
    w->file_off = VHDX_OFFSET(w->entry) + in;
}

bool vhdx_write_fast(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_write *w)
{
    if (!atomic_load_explicit(&v->touched, memory_order_acquire) || atomic_load(&v->failed)) {
        return false;
    }
    (void)pthread_mutex_lock(&v->lock);
    fill(v, off, len, w);
    (void)pthread_mutex_unlock(&v->lock);
    /* The page of bits of a partial block is there already, or its end may need I/O: that is
     * as good as always, and a page is read at most once. */
    return VHDX_STATE(w->entry) >= VHDX_FULL;
}

int vhdx_write_begin(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_write *w,
                     struct plx_err *err)
{
    uint64_t block = off >> v->shift;
    int rc = atomic_load(&v->failed) ? refuse_failed(v, err) : vhdx_touch(v, err);

    if (rc != 0) {
        return rc;
    }
    (void)pthread_mutex_lock(&v->lock);
    if (VHDX_STATE(v->bat[vhdx_index(v, block)]) < VHDX_FULL) {
        rc = allocate(v, block, err);
    }
    if (rc == 0) {
        fill(v, off, len, w);
    }
    (void)pthread_mutex_unlock(&v->lock);
    return rc;
}

int vhdx_write_end(struct vhdx *v, const struct vhdx_write *w, bool well, struct plx_err *err)
{
    uint64_t block = w->off >> v->shift, index = vhdx_index(v, block);
    int rc = 0;

    if (!well || VHDX_STATE(w->entry) != VHDX_PARTIAL) {
        return 0;
    }
    (void)pthread_mutex_lock(&v->lock);
    /* Else somebody discarded the block meanwhile: as if that had come after. */
    if (v->bat[index] == w->entry) {
        if (w->len == block_bytes(v, block)) {
            vhdx_set_entry(v, index, VHDX_OFFSET(w->entry) | VHDX_FULL);
        } else {
            rc = set_bits(v, w->off, w->len, true, err);
        }
    }
    (void)pthread_mutex_unlock(&v->lock);
    return rc;
}

/* --- zeros ---------------------------------------------------------------------------------- */

/* A whole block, which loses its space. */
static void drop_block(struct vhdx *v, uint64_t block)
{
    uint64_t index = vhdx_index(v, block), e = v->bat[index];

    if (VHDX_STATE(e) >= VHDX_FULL) {
        vhdx_release(v, VHDX_OFFSET(e) / VHDX_MIB, v->geo.block / VHDX_MIB);
    }
    vhdx_set_entry(v, index, VHDX_ZERO);
}

static int zero_part(struct vhdx *v, uint64_t off, uint64_t len, bool keep, struct plx_err *err)
{
    unsigned token = vhdx_enter(v);
    struct vhdx_write w;
    int rc = vhdx_write_begin(v, off, len, &w, err);

    if (rc == 0) {
        PLX_CHECK(w.len == len); /* within one block */
        int done = io_punch(v->f, w.file_off, w.len, keep, err);
        rc = vhdx_write_end(v, &w, done == 0, err);
        rc = done != 0 ? done : rc;
    }
    vhdx_leave(v, token);
    return rc;
}

int vhdx_zero(struct vhdx *v, uint64_t off, uint64_t len, bool discard, struct plx_err *err)
{
    bool fixed = v->leave_allocated && !v->has_parent;
    int rc = atomic_load(&v->failed) ? refuse_failed(v, err) : 0;

    while (len > 0 && rc == 0) {
        uint64_t block = off >> v->shift, in = off & (v->geo.block - 1);
        uint64_t part = len < v->geo.block - in ? len : v->geo.block - in;
        bool whole = in == 0 && part == block_bytes(v, block);
        (void)pthread_mutex_lock(&v->lock);
        enum vhdx_state s = VHDX_STATE(v->bat[vhdx_index(v, block)]);
        (void)pthread_mutex_unlock(&v->lock);
        if (s == VHDX_ZERO || s == VHDX_UNMAPPED || s == VHDX_UNDEFINED ||
            (s == VHDX_NOT_PRESENT && !v->has_parent)) {
            /* zeros already */
        } else if (whole && !fixed) {
            rc = vhdx_touch(v, err);
            if (rc == 0) {
                (void)pthread_mutex_lock(&v->lock);
                drop_block(v, block);
                (void)pthread_mutex_unlock(&v->lock);
            }
        } else {
            rc = zero_part(v, off, part, fixed || !discard, err);
        }
        off += part;
        len -= part;
    }
    return rc;
}

/* --- durability ----------------------------------------------------------------------------- */

struct snapshot {
    struct vhdx_patch *patches;
    unsigned n, cap;
    struct vhdx_free *freed;
};

static bool snap(struct snapshot *s, const void *page, uint64_t off)
{
    if (s->n == s->cap) {
        unsigned cap = s->cap == 0 ? 16 : 2 * s->cap;
        struct vhdx_patch *grown = plx_realloc(s->patches, cap * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        s->patches = grown;
        s->cap = cap;
    }
    struct vhdx_patch *p = &s->patches[s->n];
    p->off = off;
    p->data = plx_calloc(1, VHDX_PAGE);
    if (p->data == NULL) {
        return false;
    }
    memcpy(p->data, page, VHDX_PAGE);
    s->n++;
    return true;
}

/* Copies of what changed, bitmaps first: a crash between two log entries may then leave bits of
 * which no block knows yet, and never a block with somebody else's bits. Holds lock. */
static bool take_snapshot(struct vhdx *v, struct snapshot *s)
{
    uint64_t pages = (v->nbat * 8 + VHDX_PAGE - 1) / VHDX_PAGE;
    bool well = true;

    if (!v->any_dirty) {
        return true;
    }
    for (uint64_t c = 0; well && v->bitmaps != NULL && c < v->nchunks; c++) {
        for (unsigned i = 0; well && v->bitmaps[c] != NULL && i < VHDX_BITMAP_PAGES; i++) {
            struct vhdx_bitmap_page *p = v->bitmaps[c][i];
            if (p != NULL && p->dirty) {
                well = snap(s, p->bits,
                            VHDX_OFFSET(v->bat[vhdx_bitmap_index(v, c)]) + (uint64_t)i * VHDX_PAGE);
                p->dirty = !well;
            }
        }
    }
    for (uint64_t i = 0; well && i < pages; i++) {
        if (v->bat_dirty[i] != 0) {
            well = snap(s, (uint8_t *)v->bat + i * VHDX_PAGE, v->bat_at.off + i * VHDX_PAGE);
            v->bat_dirty[i] = !well;
        }
    }
    v->any_dirty = !well;
    s->freed = v->fresh;
    v->fresh = NULL;
    return well;
}

static void free_snapshot(struct snapshot *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        plx_free(s->patches[i].data);
    }
    plx_free(s->patches);
    while (s->freed != NULL) {
        struct vhdx_free *r = s->freed;
        s->freed = r->next;
        plx_free(r);
    }
}

static int flush_once(struct vhdx *v, struct plx_err *err)
{
    struct snapshot s = {0};
    uint64_t size = 0;
    int rc = 0;

    (void)pthread_mutex_lock(&v->lock);
    uint64_t mine = ++v->flush_started;
    if (!take_snapshot(v, &s)) {
        rc = vhdx_lost(v, io_no_memory(v->f->path, err));
    }
    (void)pthread_mutex_unlock(&v->lock);
    if (rc == 0) {
        rc = io_size(v->f, &size, err);
    }
    if (rc == 0) {
        rc = io_sync(v->f, err);
        rc = rc == 0 ? 0 : vhdx_lost(v, rc);
    }
    if (rc == 0 && s.n != 0) {
        rc = vhdx_log_commit(v, s.patches, s.n, size, err);
    }
    if (rc == 0) {
        (void)pthread_mutex_lock(&v->lock);
        vhdx_release_logged(v, &s.freed);
        (void)pthread_mutex_unlock(&v->lock);
        v->flush_done = mine;
    }
    free_snapshot(&s);
    return rc;
}

int vhdx_flush(struct vhdx *v, struct plx_err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&v->lock);
    uint64_t need = v->flush_started + 1; /* one that begins from now on */
    (void)pthread_mutex_unlock(&v->lock);
    (void)pthread_mutex_lock(&v->flush_lock);
    if (v->flush_done < need) { /* else somebody did it while we waited */
        rc = atomic_load(&v->failed) ? refuse_failed(v, err) : flush_once(v, err);
    }
    (void)pthread_mutex_unlock(&v->flush_lock);
    return rc;
}
