/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_meta.c - changes of metadata: parent, size, notes. Each is one entry of the log, so
 * that a crash leaves the old or the new. The caller is alone with the file. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/vhdx_int.h"

enum { PATCHES_MAX = 96, NOTES_MAX = 32 << 10 };

/* Pages of the file as they are to be; each read once, then changed. */
struct edit {
    struct vhdx *v;
    struct vhdx_patch p[PATCHES_MAX];
    unsigned n;
    int rc;
    struct plx_err *err;
};

static uint8_t *edit_page(struct edit *e, uint64_t off)
{
    for (unsigned i = 0; i < e->n; i++) {
        if (e->p[i].off == off) {
            return e->p[i].data;
        }
    }
    uint8_t *data = e->n == PATCHES_MAX ? NULL : plx_calloc(1, VHDX_PAGE);
    if (data == NULL) {
        e->rc = plx_fail(e->err, PLX_ENOMEM, "%s: too large a change", e->v->f->path);
        return NULL;
    }
    e->rc = io_read(e->v->f, data, VHDX_PAGE, off, e->err);
    e->p[e->n++] = (struct vhdx_patch){off, data};
    return e->rc == 0 ? data : NULL;
}

static void edit_put(struct edit *e, uint64_t off, const uint8_t *data, uint64_t len)
{
    while (len > 0 && e->rc == 0) {
        uint64_t at = off % VHDX_PAGE, part = VHDX_PAGE - at < len ? VHDX_PAGE - at : len;
        uint8_t *page = edit_page(e, off - at);
        if (page != NULL) {
            memcpy(page + at, data, part);
        }
        off += part;
        data += part;
        len -= part;
    }
}

/* Everything before it durable, then this through the log, then durable in place. */
static int edit_commit(struct edit *e)
{
    struct vhdx *v = e->v;
    uint64_t size = 0;

    if (e->rc == 0) {
        e->rc = vhdx_flush(v, e->err);
    }
    (void)pthread_mutex_lock(&v->flush_lock);
    if (e->rc == 0) {
        e->rc = io_size(v->f, &size, e->err);
    }
    if (e->rc == 0) {
        e->rc = io_sync(v->f, e->err);
    }
    if (e->rc == 0) {
        e->rc = vhdx_log_commit(v, e->p, e->n, size, e->err);
    }
    if (e->rc == 0) {
        e->rc = io_sync(v->f, e->err);
    }
    (void)pthread_mutex_unlock(&v->flush_lock);
    for (unsigned i = 0; i < e->n; i++) {
        plx_free(e->p[i].data);
    }
    return e->rc;
}

/* --- items ---------------------------------------------------------------------------------- */

static struct vhdx_item *item_of(struct vhdx *v, const struct disk_guid *id)
{
    for (unsigned i = 0; i < v->nitems; i++) {
        if (disk_guid_eq(&v->items[i].id, id)) {
            return &v->items[i];
        }
    }
    return NULL;
}

/* A place of @len bytes in the region that touches no item but @own; 0: none. */
static uint32_t find_place(const struct vhdx *v, const struct vhdx_item *own, uint32_t len)
{
    uint64_t at = VHDX_TABLE;

    for (unsigned i = 0; i < v->nitems; i++) { /* again from the first after every move */
        const struct vhdx_item *it = &v->items[i];
        if (it != own && it->len != 0 && at < (uint64_t)it->off + it->len && it->off < at + len) {
            at = ((uint64_t)it->off + it->len + VHDX_PAGE - 1) / VHDX_PAGE * VHDX_PAGE;
            i = UINT32_MAX;
        }
    }
    return at + len <= v->meta_at.len ? (uint32_t)at : 0;
}

static int put_item(struct vhdx *v, const struct disk_guid *id, uint32_t flags, const uint8_t *data,
                    uint32_t len, struct plx_err *err)
{
    struct edit e = {.v = v, .err = err};
    struct vhdx_item *it = item_of(v, id), before;
    uint32_t place = find_place(v, it, len);
    uint8_t *table = plx_calloc(1, VHDX_TABLE);

    if (place == 0 || (it == NULL && v->nitems == VHDX_ENTRIES_MAX)) {
        plx_free(table);
        return plx_fail(err, PLX_ENOTSUP, "%s: its metadata region has no room for %u bytes more",
                        v->f->path, len);
    }
    if (table == NULL) {
        return io_no_memory(v->f->path, err);
    }
    PLX_CHECK(v->items != NULL); /* since it was opened */
    bool added = it == NULL;
    size_t nr = added ? v->nitems++ : (size_t)(it - v->items);
    it = &v->items[nr];
    before = *it;
    *it = (struct vhdx_item){.id = *id, .off = place, .len = len, .flags = flags};
    vhdx_items_encode(v->items, v->nitems, table);
    edit_put(&e, v->meta_at.off + place, data, len);
    /* Only the pages of the table that hold this item and the count. */
    uint64_t page = (32 + 32 * (uint64_t)nr) / VHDX_PAGE * VHDX_PAGE;
    edit_put(&e, v->meta_at.off, table, VHDX_PAGE);
    if (page != 0) {
        edit_put(&e, v->meta_at.off + page, table + page, VHDX_PAGE);
    }
    plx_free(table);
    int rc = edit_commit(&e);
    if (rc != 0) {
        *it = before;
        v->nitems -= added;
    }
    return rc;
}

int vhdx_set_parent(struct vhdx *v, const struct vhdx_parent *p, struct plx_err *err)
{
    struct wbuf blob;

    if (!v->has_parent) {
        return plx_fail(err, PLX_EINVAL, "%s is no differencing disk", v->f->path);
    }
    wbuf_init(&blob);
    int rc = vhdx_locator_encode(p, &blob);
    rc = rc != 0 ? plx_fail(err, rc, "%s: out of memory", v->f->path)
                 : put_item(v, &vhdx_id_locator, VHDX_ITEM_REQUIRED, blob.data, (uint32_t)blob.len,
                            err);
    wbuf_free(&blob);
    if (rc == 0) {
        *v->parent = *p;
    }
    return rc;
}

int vhdx_notes(struct vhdx *v, struct wbuf *out, struct plx_err *err)
{
    const struct vhdx_item *it = item_of(v, &vhdx_id_notes);

    wbuf_init(out);
    if (it == NULL || it->len == 0) {
        return 0;
    }
    uint8_t *p = wbuf_grow(out, it->len);
    if (p == NULL) {
        return io_no_memory(v->f->path, err);
    }
    return io_read(v->f, p, it->len, v->meta_at.off + it->off, err);
}

int vhdx_note(struct vhdx *v, const char *line, struct plx_err *err)
{
    struct wbuf text;
    size_t skip = 0;
    int rc = vhdx_notes(v, &text, err);

    if (rc == 0) {
        wbuf_put(&text, line, strlen(line));
        wbuf_u8(&text, '\n');
        while (text.len - skip > NOTES_MAX) { /* the oldest go */
            const uint8_t *nl = memchr(text.data + skip, '\n', text.len - skip - 1);
            skip = nl == NULL ? text.len - NOTES_MAX : (size_t)(nl - text.data) + 1;
        }
        rc = text.failed ? io_no_memory(v->f->path, err)
                         : put_item(v, &vhdx_id_notes, VHDX_ITEM_USER, text.data + skip,
                                    (uint32_t)(text.len - skip), err);
    }
    wbuf_free(&text);
    return rc;
}

/* --- size ----------------------------------------------------------------------------------- */

/* The entries of blocks that are no more, and of the one that is cut. */
static int drop_beyond(struct vhdx *v, uint64_t bytes, struct plx_err *err)
{
    uint64_t keep = (bytes + v->geo.block - 1) / v->geo.block;
    int rc = 0;

    if (bytes % v->geo.block != 0) { /* what comes back by growing again is zeros */
        uint64_t end = keep * v->geo.block < v->geo.bytes ? keep * v->geo.block : v->geo.bytes;
        rc = vhdx_zero(v, bytes, end - bytes, false, err);
    }
    (void)pthread_mutex_lock(&v->lock);
    for (uint64_t b = keep; rc == 0 && b < v->nblocks; b++) {
        uint64_t e = v->bat[vhdx_index(v, b)];
        if (VHDX_STATE(e) >= VHDX_FULL) {
            vhdx_release(v, VHDX_OFFSET(e) / VHDX_MIB, v->geo.block / VHDX_MIB);
        }
        if (e != 0) {
            vhdx_set_entry(v, vhdx_index(v, b), 0);
        }
    }
    (void)pthread_mutex_unlock(&v->lock);
    return rc;
}

/* A block table of @entries in memory, with the same contents. */
static int grow_table(struct vhdx *v, uint64_t entries, uint64_t chunks, struct plx_err *err)
{
    uint64_t old = (v->nbat * 8 + VHDX_PAGE - 1) / VHDX_PAGE;
    uint64_t pages = (entries * 8 + VHDX_PAGE - 1) / VHDX_PAGE;

    if (pages > old) {
        uint64_t *bat = plx_realloc(v->bat, pages * VHDX_PAGE);
        if (bat != NULL) {
            memset((uint8_t *)bat + old * VHDX_PAGE, 0, (pages - old) * VHDX_PAGE);
            v->bat = bat;
        }
        uint8_t *dirty = plx_realloc(v->bat_dirty, pages);
        if (dirty != NULL) {
            memset(dirty + old, 0, pages - old);
            v->bat_dirty = dirty;
        }
        if (bat == NULL || dirty == NULL) {
            return io_no_memory(v->f->path, err);
        }
    }
    if (v->has_parent && chunks > v->nchunks) {
        void *grown = plx_realloc(v->bitmaps, chunks * sizeof *v->bitmaps);
        if (grown == NULL) {
            return io_no_memory(v->f->path, err);
        }
        v->bitmaps = grown;
        memset(v->bitmaps + v->nchunks, 0, (chunks - v->nchunks) * sizeof *v->bitmaps);
    }
    return 0;
}

/* A fixed disk has space for every block. */
static int fill_fixed(struct vhdx *v, uint64_t from, uint64_t to, struct plx_err *err)
{
    int rc = 0;

    for (uint64_t b = from; b < to && rc == 0; b++) {
        uint64_t unit;
        rc = vhdx_alloc(v, v->geo.block / VHDX_MIB, &unit, err);
        if (rc == 0) {
            rc = io_punch(v->f, unit * VHDX_MIB, v->geo.block, true, err);
            v->bat[vhdx_index(v, b)] = unit * VHDX_MIB | VHDX_FULL;
        }
    }
    return rc;
}

/* The table elsewhere, larger: written whole and durable before the region tables name it. */
static int move_table(struct edit *e, uint64_t entries, struct vhdx_region *at)
{
    static const uint64_t tables[] = {VHDX_REGIONS_1, VHDX_REGIONS_2};
    struct vhdx *v = e->v;
    uint64_t bytes = (entries * 8 + VHDX_PAGE - 1) / VHDX_PAGE * VHDX_PAGE, unit;
    uint8_t *table = plx_calloc(1, VHDX_TABLE);

    *at = (struct vhdx_region){.len = (bytes + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB};
    if (table == NULL) {
        e->rc = io_no_memory(v->f->path, e->err);
    }
    if (e->rc == 0) {
        e->rc = vhdx_alloc(v, at->len / VHDX_MIB, &unit, e->err);
    }
    if (e->rc == 0) {
        at->off = unit * VHDX_MIB;
        e->rc = io_write(v->f, v->bat, bytes, at->off, e->err);
        vhdx_regions_encode(at, &v->meta_at, table);
    }
    for (unsigned i = 0; i < PLX_COUNT(tables) && e->rc == 0; i++) {
        edit_put(e, tables[i], table, VHDX_TABLE);
    }
    plx_free(table);
    return e->rc;
}

int vhdx_resize(struct vhdx *v, uint64_t bytes, struct plx_err *err)
{
    struct edit e = {.v = v, .err = err};
    struct disk_geometry geo = v->geo;
    const struct vhdx_item *it = item_of(v, &vhdx_id_size);
    struct vhdx_region at = v->bat_at;
    bool fixed = v->leave_allocated && !v->has_parent;

    if (bytes == 0 || bytes > VHDX_BYTES_MAX || bytes % v->geo.logical_sector != 0) {
        return plx_fail(err, PLX_ERANGE,
                        "%s: a disk has 1 sector to 64 TiB, in whole sectors of %u bytes",
                        v->f->path, v->geo.logical_sector);
    }
    if (bytes == v->geo.bytes) {
        return 0;
    }
    geo.bytes = bytes;
    uint64_t entries = vhdx_entries(&geo, v->has_parent);
    uint64_t blocks = (bytes + geo.block - 1) / geo.block;
    uint64_t chunks = (blocks + v->ratio - 1) / v->ratio;
    e.rc = vhdx_touch(v, err);
    if (e.rc == 0 && bytes < v->geo.bytes) {
        e.rc = drop_beyond(v, bytes, err);
    }
    if (e.rc == 0) {
        e.rc = vhdx_flush(v, err);
    }
    if (e.rc == 0 && bytes > v->geo.bytes) {
        e.rc = grow_table(v, entries, chunks, err);
        if (e.rc == 0 && fixed) {
            e.rc = fill_fixed(v, v->nblocks, blocks, err);
        }
        if (e.rc == 0 && entries * 8 > v->bat_at.len) {
            e.rc = move_table(&e, entries, &at);
        } else {
            /* Entries beyond the old end may hold anything: all of their pages anew. */
            for (uint64_t p = v->nbat * 8 / VHDX_PAGE; e.rc == 0 && p * VHDX_PAGE < entries * 8;
                 p++) {
                v->bat_dirty[p] = 1;
                v->any_dirty = true;
            }
            uint64_t nbat = v->nbat;
            v->nbat = entries;
            e.rc = e.rc != 0 ? e.rc : vhdx_flush(v, err);
            v->nbat = e.rc == 0 ? v->nbat : nbat;
        }
    }
    if (e.rc == 0) {
        edit_put(&e, v->meta_at.off + it->off, (const uint8_t *)&bytes, sizeof bytes);
    }
    int rc = edit_commit(&e);
    if (rc != 0) {
        return vhdx_lost(v, rc); /* memory and file may differ: open it again */
    }
    if (at.off != v->bat_at.off) {
        vhdx_release(v, v->bat_at.off / VHDX_MIB, v->bat_at.len / VHDX_MIB);
        v->bat_at = at;
    }
    uint64_t before = v->geo.bytes;
    v->geo.bytes = bytes;
    v->nblocks = blocks;
    v->nbat = entries > v->nbat ? entries : v->nbat;
    v->nchunks = chunks > v->nchunks ? chunks : v->nchunks;
    /* A parent that is larger does not show through: what is new is zeros. */
    return v->has_parent && bytes > before ? vhdx_zero(v, before, bytes - before, true, err) : 0;
}

int vhdx_renew(struct vhdx *v, const struct disk_guid *id, struct plx_err *err)
{
    (void)pthread_mutex_lock(&v->head_lock);
    struct disk_guid before = v->h.data_write;
    v->h.data_write = *id;
    int rc = vhdx_header_write(v, err);
    if (rc == 0) {
        atomic_store(&v->touched, true);
    } else {
        v->h.data_write = before;
    }
    (void)pthread_mutex_unlock(&v->head_lock);
    return rc;
}

int vhdx_empty(struct vhdx *v, struct plx_err *err)
{
    int rc = v->has_parent ? vhdx_touch(v, err)
                           : plx_fail(err, PLX_EINVAL, "%s is no differencing disk", v->f->path);

    if (rc != 0) {
        return rc;
    }
    (void)pthread_mutex_lock(&v->lock);
    for (uint64_t b = 0; b < v->nblocks; b++) {
        uint64_t e = v->bat[vhdx_index(v, b)];
        if (VHDX_STATE(e) >= VHDX_FULL) {
            vhdx_release(v, VHDX_OFFSET(e) / VHDX_MIB, v->geo.block / VHDX_MIB);
        }
        if (e != 0) {
            vhdx_set_entry(v, vhdx_index(v, b), VHDX_NOT_PRESENT);
        }
    }
    (void)pthread_mutex_unlock(&v->lock);
    return vhdx_flush(v, err);
}

/* --- judging -------------------------------------------------------------------------------- */

static void warn(struct vhdx_report *r, const char *path, const char *what)
{
    struct plx_err e;

    r->warnings++;
    (void)plx_fail(&e, 0, "%s: %s", path, what);
    memcpy(r->warning, e.msg, sizeof r->warning);
}

int vhdx_check(struct vhdx *v, struct vhdx_report *out, struct plx_err *err)
{
    static const uint64_t tables[] = {VHDX_REGIONS_1, VHDX_REGIONS_2};
    uint8_t page[VHDX_PAGE], *table = plx_calloc(2, VHDX_TABLE);
    struct vhdx_header h;
    int rc = table == NULL ? io_no_memory(v->f->path, err) : 0;

    *out = (struct vhdx_report){.blocks = v->nblocks, .leaked_units = v->free_units};
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        rc = io_read(v->f, page, sizeof page, i == 0 ? VHDX_HEADER_1 : VHDX_HEADER_2, err);
        if (rc == 0 && !vhdx_header_decode(page, &h)) {
            warn(out, v->f->path, "one of its headers is not whole");
        }
        if (rc == 0) {
            rc = io_read(v->f, table + (size_t)i * VHDX_TABLE, VHDX_TABLE, tables[i], err);
        }
        if (rc == 0 && !vhdx_regions_valid(table + (size_t)i * VHDX_TABLE)) {
            warn(out, v->f->path, "one of its region tables is not whole");
        }
    }
    if (rc == 0 && out->warnings == 0 && memcmp(table, table + VHDX_TABLE, VHDX_TABLE) != 0) {
        warn(out, v->f->path, "its region tables differ");
    }
    plx_free(table);
    for (uint64_t b = 0; b < v->nblocks && rc == 0; b++) {
        uint64_t off = b << v->shift, len;
        enum vhdx_state s = VHDX_STATE(v->bat[vhdx_index(v, b)]);
        out->allocated += s >= VHDX_FULL;
        for (len = v->geo.block; s == VHDX_PARTIAL && len > 0 && off < v->geo.bytes && rc == 0;) {
            struct vhdx_run run; /* every page of its bits can be read */
            rc = vhdx_map(v, off, len, &run, err);
            off += run.len;
            len -= run.len < len ? run.len : len;
        }
    }
    return rc;
}

int vhdx_repair(struct vhdx *v, struct plx_err *err)
{
    static const uint64_t tables[] = {VHDX_REGIONS_1, VHDX_REGIONS_2};
    uint8_t *table = plx_calloc(2, VHDX_TABLE);
    bool valid[2] = {false, false};
    int rc = table == NULL ? io_no_memory(v->f->path, err) : 0;

    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        rc = io_read(v->f, table + (size_t)i * VHDX_TABLE, VHDX_TABLE, tables[i], err);
        valid[i] = rc == 0 && vhdx_regions_valid(table + (size_t)i * VHDX_TABLE);
    }
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        if (!valid[i] && valid[i ^ 1]) {
            rc = io_write(v->f, table + (size_t)(i ^ 1) * VHDX_TABLE, VHDX_TABLE, tables[i], err);
        }
    }
    plx_free(table);
    (void)pthread_mutex_lock(&v->head_lock);
    for (unsigned i = 0; i < 2 && rc == 0; i++) { /* one after the other, into both places */
        rc = vhdx_header_write(v, err);
    }
    (void)pthread_mutex_unlock(&v->head_lock);
    return rc;
}
