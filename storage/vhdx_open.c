/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_open.c - opening and closing a VHDX file: everything in it is judged before
 * anything of it is used. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/vhdx_int.h"

static const char *path_of(const struct vhdx *v)
{
    return v->f->path;
}

bool vhdx_probe(struct io_file *f)
{
    char signature[8];
    return io_read(f, signature, sizeof signature, 0, NULL) == 0 &&
           memcmp(signature, "vhdxfile", 8) == 0;
}

static int open_headers(struct vhdx *v, struct plx_err *err)
{
    uint8_t page[VHDX_PAGE];
    struct vhdx_header h[2];
    bool valid[2];

    for (unsigned i = 0; i < 2; i++) {
        int rc = io_read(v->f, page, sizeof page, i == 0 ? VHDX_HEADER_1 : VHDX_HEADER_2, err);
        if (rc != 0) {
            return rc;
        }
        valid[i] = vhdx_header_decode(page, &h[i]);
    }
    if (!valid[0] && !valid[1]) {
        return plx_fail(err, PLX_ECORRUPT, "%s: neither of its two headers is whole", path_of(v));
    }
    v->slot = !valid[0] || (valid[1] && h[1].seq > h[0].seq);
    v->h = h[v->slot];
    return 0;
}

static int open_regions(struct vhdx *v, struct plx_err *err)
{
    static const uint64_t at[] = {VHDX_REGIONS_1, VHDX_REGIONS_2};
    uint8_t *table = plx_calloc(1, VHDX_TABLE);
    uint64_t size = 0;
    int rc = table == NULL ? io_no_memory(path_of(v), err) : io_size(v->f, &size, err);

    for (unsigned i = 0; rc == 0 && i < 2; i++) {
        rc = io_read(v->f, table, VHDX_TABLE, at[i], err);
        if (rc == 0 && vhdx_regions_valid(table)) {
            rc = vhdx_regions_decode(table, path_of(v), size, &v->bat_at, &v->meta_at, err);
            break;
        }
    }
    if (rc == 0 && v->bat_at.len == 0) {
        rc = plx_fail(err, PLX_ECORRUPT, "%s: neither of its two region tables is whole",
                      path_of(v));
    }
    plx_free(table);
    return rc;
}

/* --- metadata ------------------------------------------------------------------------------- */

static bool known_item(const struct disk_guid *id)
{
    static const struct disk_guid *const known[] = {
        &vhdx_id_file_parameters, &vhdx_id_size,     &vhdx_id_page83,
        &vhdx_id_logical,         &vhdx_id_physical, &vhdx_id_locator,
    };
    for (unsigned i = 0; i < PLX_COUNT(known); i++) {
        if (disk_guid_eq(id, known[i])) {
            return true;
        }
    }
    return false;
}

static int open_items(struct vhdx *v, struct plx_err *err)
{
    uint8_t *table = plx_calloc(1, VHDX_TABLE);
    int rc = table == NULL ? io_no_memory(path_of(v), err)
                           : io_read(v->f, table, VHDX_TABLE, v->meta_at.off, err);

    if (rc == 0) {
        v->nitems = (unsigned)(table[10] | table[11] << 8);
        if (memcmp(table, "metadata", 8) != 0 || v->nitems > VHDX_ENTRIES_MAX) {
            rc = plx_fail(err, PLX_ECORRUPT, "%s: its metadata table is malformed", path_of(v));
        }
    }
    if (rc == 0) {
        v->items = plx_calloc(VHDX_ENTRIES_MAX, sizeof *v->items);
        rc = v->items == NULL ? io_no_memory(path_of(v), err) : 0;
    }
    for (unsigned i = 0; rc == 0 && i < v->nitems; i++) {
        struct vhdx_item *it = &v->items[i];
        const uint8_t *p = table + 32 + 32 * i;
        char text[DISK_GUID_TEXT];
        memcpy(&it->id, p, 16);
        memcpy(&it->off, p + 16, 4);
        memcpy(&it->len, p + 20, 4);
        memcpy(&it->flags, p + 24, 4);
        if (it->len > VHDX_ITEM_MAX || (it->len != 0 && it->off < VHDX_TABLE) ||
            it->off > v->meta_at.len || it->len > v->meta_at.len - it->off) {
            rc = plx_fail(err, PLX_ECORRUPT, "%s: metadata item %s is not within its region",
                          path_of(v), disk_guid_text(&it->id, text));
        } else if ((it->flags & VHDX_ITEM_REQUIRED) != 0 && !known_item(&it->id)) {
            rc = plx_fail(err, PLX_EVERSION, "%s needs a metadata item %s that we do not know",
                          path_of(v), disk_guid_text(&it->id, text));
        }
    }
    plx_free(table);
    return rc;
}

static const struct vhdx_item *find_item(const struct vhdx *v, const struct disk_guid *id)
{
    for (unsigned i = 0; i < v->nitems; i++) {
        if (disk_guid_eq(&v->items[i].id, id)) {
            return &v->items[i];
        }
    }
    return NULL;
}

static int read_item(struct vhdx *v, const struct disk_guid *id, const char *name, void *out,
                     uint32_t len, struct plx_err *err)
{
    const struct vhdx_item *it = find_item(v, id);

    if (it == NULL || it->len < len) {
        return plx_fail(err, PLX_ECORRUPT, "%s does not say its %s", path_of(v), name);
    }
    return io_read(v->f, out, len, v->meta_at.off + it->off, err);
}

static int open_locator(struct vhdx *v, struct plx_err *err)
{
    const struct vhdx_item *it = find_item(v, &vhdx_id_locator);

    if (it == NULL || it->len == 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s has a parent and does not say which", path_of(v));
    }
    uint8_t *data = plx_calloc(1, it->len);
    v->parent = plx_calloc(1, sizeof *v->parent);
    int rc = data == NULL || v->parent == NULL
                 ? io_no_memory(path_of(v), err)
                 : io_read(v->f, data, it->len, v->meta_at.off + it->off, err);
    if (rc == 0) {
        rc = vhdx_locator_decode(data, it->len, path_of(v), v->parent, err);
    }
    plx_free(data);
    return rc;
}

static int open_parameters(struct vhdx *v, struct plx_err *err)
{
    uint32_t params[2] = {0, 0};
    struct disk_geometry *g = &v->geo;
    int rc = read_item(v, &vhdx_id_file_parameters, "parameters", params, 8, err);

    if (rc == 0) {
        rc = read_item(v, &vhdx_id_size, "size", &g->bytes, 8, err);
    }
    if (rc == 0) {
        rc = read_item(v, &vhdx_id_page83, "identity", &v->page83, 16, err);
    }
    if (rc == 0) {
        rc = read_item(v, &vhdx_id_logical, "logical sector size", &g->logical_sector, 4, err);
    }
    if (rc == 0) {
        rc = read_item(v, &vhdx_id_physical, "physical sector size", &g->physical_sector, 4, err);
    }
    if (rc != 0) {
        return rc;
    }
    g->block = params[0];
    v->leave_allocated = (params[1] & 1) != 0;
    v->has_parent = (params[1] & 2) != 0;
    if (g->block < VHDX_MIB || g->block > 256 * VHDX_MIB || (g->block & (g->block - 1)) != 0 ||
        (g->logical_sector != 512 && g->logical_sector != 4096) ||
        (g->physical_sector != 512 && g->physical_sector != 4096) || g->bytes == 0 ||
        g->bytes > VHDX_BYTES_MAX || g->bytes % g->logical_sector != 0) {
        return plx_fail(err, PLX_ECORRUPT,
                        "%s: %llu bytes in blocks of %u and sectors of %u, %u are no disk",
                        path_of(v), (unsigned long long)g->bytes, g->block, g->logical_sector,
                        g->physical_sector);
    }
    v->shift = (unsigned)__builtin_ctz(g->block);
    v->nblocks = (g->bytes + g->block - 1) / g->block;
    v->ratio = vhdx_ratio(g);
    v->nbat = vhdx_entries(g, v->has_parent);
    v->nchunks = (v->nblocks + v->ratio - 1) / v->ratio;
    if (v->nbat > v->bat_at.len / 8) {
        return plx_fail(err, PLX_ECORRUPT, "%s: its block table has no room for %llu entries",
                        path_of(v), (unsigned long long)v->nbat);
    }
    return v->has_parent ? open_locator(v, err) : 0;
}

/* --- block table ---------------------------------------------------------------------------- */

static int check_entry(const struct vhdx *v, uint64_t e, bool bitmap, uint64_t which,
                       struct plx_err *err)
{
    static const uint8_t payload[8] = {1, 1, 1, 1, 0, 0, 1, 2}, bitmaps[8] = {1, 0, 0, 0, 0, 0, 2};
    unsigned ok = (bitmap ? bitmaps : payload)[e & 7];

    if (ok == 0 || (ok == 2 && !v->has_parent)) {
        return plx_fail(err, PLX_ECORRUPT, "%s: %s %llu is in state %u, which it cannot be",
                        path_of(v), bitmap ? "sector bitmap" : "block", (unsigned long long)which,
                        (unsigned)(e & 7));
    }
    return 0;
}

static int open_bat(struct vhdx *v, struct plx_err *err)
{
    /* Whole pages, so that a page of the file is a page here. */
    uint64_t bytes = (v->nbat * 8 + VHDX_PAGE - 1) / VHDX_PAGE * VHDX_PAGE;
    int rc = 0;

    v->bat = plx_calloc(1, bytes);
    v->bat_dirty = plx_calloc(1, bytes / VHDX_PAGE);
    v->bitmaps = v->has_parent ? plx_calloc(v->nchunks, sizeof *v->bitmaps) : NULL;
    if (v->bat == NULL || v->bat_dirty == NULL || (v->has_parent && v->bitmaps == NULL)) {
        return plx_fail(err, PLX_ENOMEM, "%s: no memory for a block table of %llu entries",
                        path_of(v), (unsigned long long)v->nbat);
    }
    rc = io_read(v->f, v->bat, bytes, v->bat_at.off, err);
    for (uint64_t b = 0; b < v->nblocks && rc == 0; b++) {
        uint64_t e = v->bat[vhdx_index(v, b)];
        rc = check_entry(v, e, false, b, err);
        if (rc == 0 && VHDX_STATE(e) == VHDX_PARTIAL && !v->peek &&
            VHDX_STATE(v->bat[vhdx_bitmap_index(v, b / v->ratio)]) != VHDX_FULL) {
            rc = plx_fail(err, PLX_ECORRUPT, "%s: block %llu has no sector bitmap", path_of(v),
                          (unsigned long long)b);
        }
    }
    for (uint64_t c = 0; v->has_parent && c < v->nchunks && rc == 0; c++) {
        rc = check_entry(v, v->bat[vhdx_bitmap_index(v, c)], true, c, err);
    }
    return rc;
}

/* --- life ----------------------------------------------------------------------------------- */

static void vhdx_free(struct vhdx *v)
{
    vhdx_bitmaps_free(v);
    vhdx_units_free(v);
    plx_free(v->bat);
    plx_free(v->bat_dirty);
    plx_free(v->items);
    plx_free(v->parent);
    (void)pthread_mutex_destroy(&v->lock);
    (void)pthread_mutex_destroy(&v->head_lock);
    (void)pthread_mutex_destroy(&v->flush_lock);
    plx_free(v);
}

static int open_all(struct vhdx *v, struct plx_err *err)
{
    uint8_t creator[512];
    int rc;

    if (!vhdx_probe(v->f)) {
        return plx_fail(err, PLX_ECORRUPT, "%s is not a VHDX file", path_of(v));
    }
    rc = io_read(v->f, creator, sizeof creator, 8, err);
    for (unsigned i = 0; i < 255 && rc == 0 && creator[2 * i] >= 32 && creator[2 * i] < 127; i++) {
        v->creator[i] = (char)creator[2 * i];
    }
    if (rc == 0) {
        rc = open_headers(v, err);
    }
    if (rc == 0 && !disk_guid_zero(&v->h.log) && !v->peek) {
        rc = v->writable ? vhdx_log_replay(v, err)
                         : plx_fail(err, PLX_ESTATE,
                                    "%s was not closed, and its log has to be replayed, which "
                                    "needs leave to write it",
                                    path_of(v));
    }
    if (rc == 0) {
        rc = open_regions(v, err);
    }
    if (rc == 0) {
        rc = open_items(v, err);
    }
    if (rc == 0) {
        rc = open_parameters(v, err);
    }
    if (rc == 0) {
        rc = open_bat(v, err);
    }
    return rc == 0 && !v->peek ? vhdx_units_init(v, err) : rc;
}

int vhdx_open(struct io_file *f, unsigned flags, struct vhdx **out, struct plx_err *err)
{
    struct vhdx *v = plx_calloc(1, sizeof *v);

    *out = NULL;
    if (v == NULL) {
        return io_no_memory(f->path, err);
    }
    v->f = f;
    v->writable = (flags & VHDX_WRITE) != 0;
    v->peek = (flags & VHDX_PEEK) != 0;
    (void)pthread_mutex_init(&v->lock, NULL);
    (void)pthread_mutex_init(&v->head_lock, NULL);
    (void)pthread_mutex_init(&v->flush_lock, NULL);
    int rc = v->writable && !f->writable
                 ? plx_fail(err, PLX_EACCES, "%s was opened read-only", f->path)
                 : open_all(v, err);
    if (rc != 0) {
        vhdx_free(v);
        return rc;
    }
    *out = v;
    return 0;
}

int vhdx_close(struct vhdx *v, struct plx_err *err)
{
    int rc = 0;

    if (v == NULL) {
        return 0;
    }
    if (v->writable) {
        rc = vhdx_flush(v, err);
        if (rc == 0 && !disk_guid_zero(&v->h.log)) {
            rc = io_sync(v->f, err); /* what the log said is in place */
            if (rc == 0) {
                rc = vhdx_log_retire(v, err);
            }
        }
    }
    io_close(v->f);
    vhdx_free(v);
    return rc;
}

struct io_file *vhdx_file(const struct vhdx *v)
{
    return v->f;
}

const char *vhdx_type_name(enum vhdx_type type)
{
    static const char *const names[] = {"fixed", "dynamic", "differencing"};
    return names[type];
}

void vhdx_get_info(struct vhdx *v, struct vhdx_info *out)
{
    *out = (struct vhdx_info){.type = v->has_parent        ? VHDX_DIFFERENCING
                                      : v->leave_allocated ? VHDX_FIXED
                                                           : VHDX_DYNAMIC,
                              .geo = v->geo,
                              .page83 = v->page83,
                              .blocks = v->nblocks};
    (void)snprintf(out->creator, sizeof out->creator, "%s", v->creator);
    (void)pthread_mutex_lock(&v->head_lock);
    out->data_write = v->h.data_write;
    out->file_write = v->h.file_write;
    out->log_active = !disk_guid_zero(&v->h.log);
    (void)pthread_mutex_unlock(&v->head_lock);
    (void)pthread_mutex_lock(&v->lock);
    for (uint64_t b = 0; b < v->nblocks; b++) {
        enum vhdx_state s = VHDX_STATE(v->bat[vhdx_index(v, b)]);
        out->allocated += s >= VHDX_FULL;
        out->partial += s == VHDX_PARTIAL;
        out->zero += s == VHDX_ZERO || s == VHDX_UNMAPPED || s == VHDX_UNDEFINED;
    }
    (void)pthread_mutex_unlock(&v->lock);
    (void)io_size(v->f, &out->file_bytes, NULL);
}

struct disk_guid vhdx_identity(struct vhdx *v)
{
    (void)pthread_mutex_lock(&v->head_lock);
    struct disk_guid id = v->h.data_write;
    (void)pthread_mutex_unlock(&v->head_lock);
    return id;
}

const struct vhdx_parent *vhdx_parent(const struct vhdx *v)
{
    return v->parent;
}
