/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_create.c - a new, empty VHDX file, laid out as vhdx_int.h draws it. */
#include <string.h>

#include "base/alloc.h"
#include "storage/vhdx_int.h"

static const uint64_t log_at = VHDX_MIB, meta_at = 2 * VHDX_MIB, bat_at = 3 * VHDX_MIB;
enum { LOG_MIB = 1 };

/* Small blocks where they hold the differences to a parent, larger ones where few entries should
 * do; the table stays below 16 MiB. */
static uint32_t choose_block(const struct vhdx_create *c)
{
    uint64_t block = (c->type == VHDX_DIFFERENCING ? 2 : 32) * VHDX_MIB;

    while (c->bytes / block > (1 << 21) && block < 256 * VHDX_MIB) {
        block *= 2;
    }
    return (uint32_t)block;
}

static int judge(const struct vhdx_create *c, const struct disk_geometry *g, const char *path,
                 struct plx_err *err)
{
    if ((g->logical_sector != 512 && g->logical_sector != 4096) ||
        (g->physical_sector != 512 && g->physical_sector != 4096)) {
        return plx_fail(err, PLX_EINVAL, "%s: sectors have 512 or 4096 bytes", path);
    }
    if (g->bytes == 0 || g->bytes > VHDX_BYTES_MAX || g->bytes % g->logical_sector != 0) {
        return plx_fail(err, PLX_ERANGE,
                        "%s: a disk has 1 sector to 64 TiB, in whole sectors of %u bytes", path,
                        g->logical_sector);
    }
    if (g->block < VHDX_MIB || g->block > 256 * VHDX_MIB || (g->block & (g->block - 1)) != 0) {
        return plx_fail(err, PLX_ERANGE, "%s: a block has 1 to 256 MiB, a power of two", path);
    }
    if ((c->type == VHDX_DIFFERENCING) != (c->parent != NULL)) {
        return plx_fail(err, PLX_EINVAL, "%s: a differencing disk, and no other, has a parent",
                        path);
    }
    return 0;
}

static void add_item(struct vhdx_item *items, unsigned *n, struct wbuf *values,
                     const struct disk_guid *id, uint32_t flags, const void *value, size_t len)
{
    items[(*n)++] = (struct vhdx_item){.id = *id,
                                       .off = (uint32_t)(VHDX_TABLE + values->len),
                                       .len = (uint32_t)len,
                                       .flags = flags | VHDX_ITEM_REQUIRED};
    wbuf_put(values, value, len);
}

/* The metadata region: the table, then the values. */
static int write_metadata(struct io_file *f, const struct vhdx_create *c,
                          const struct disk_geometry *g, struct plx_err *err)
{
    struct vhdx_item items[8];
    unsigned n = 0;
    struct wbuf values, locator;
    uint32_t params[2] = {g->block, c->type == VHDX_FIXED          ? 1
                                    : c->type == VHDX_DIFFERENCING ? 2
                                                                   : 0};
    struct disk_guid page83 = disk_guid_new();
    uint8_t *table = plx_calloc(1, VHDX_TABLE);
    int rc = table == NULL ? PLX_ENOMEM : 0;

    wbuf_init(&values);
    wbuf_init(&locator);
    add_item(items, &n, &values, &vhdx_id_file_parameters, 0, params, sizeof params);
    add_item(items, &n, &values, &vhdx_id_size, VHDX_ITEM_DISK, &g->bytes, 8);
    add_item(items, &n, &values, &vhdx_id_page83, VHDX_ITEM_DISK, &page83, 16);
    add_item(items, &n, &values, &vhdx_id_logical, VHDX_ITEM_DISK, &g->logical_sector, 4);
    add_item(items, &n, &values, &vhdx_id_physical, VHDX_ITEM_DISK, &g->physical_sector, 4);
    if (rc == 0 && c->parent != NULL) {
        rc = vhdx_locator_encode(c->parent, &locator);
        while (values.len < VHDX_PAGE && !values.failed) { /* by itself, as it may change */
            wbuf_u8(&values, 0);
        }
        add_item(items, &n, &values, &vhdx_id_locator, 0, locator.data, locator.len);
    }
    if (rc != 0 || values.failed) {
        rc = io_no_memory(f->path, err);
    } else {
        vhdx_items_encode(items, n, table);
        rc = io_write(f, table, VHDX_TABLE, meta_at, err);
    }
    if (rc == 0) {
        rc = io_write(f, values.data, values.len, meta_at + VHDX_TABLE, err);
    }
    wbuf_free(&values);
    wbuf_free(&locator);
    plx_free(table);
    return rc;
}

/* All blocks of a fixed disk, one after the other. */
static int write_blocks(struct io_file *f, const struct disk_geometry *g, uint64_t first,
                        struct plx_err *err)
{
    uint64_t blocks = (g->bytes + g->block - 1) / g->block, ratio = vhdx_ratio(g);
    uint64_t n = vhdx_entries(g, false);
    uint64_t *bat = plx_calloc(n, 8);

    if (bat == NULL) {
        return io_no_memory(f->path, err);
    }
    for (uint64_t b = 0; b < blocks; b++) {
        bat[b + b / ratio] = (first + b * g->block) | VHDX_FULL;
    }
    int rc = io_write(f, bat, n * 8, bat_at, err);
    plx_free(bat);
    if (rc == 0) {
        rc = io_truncate(f, first + blocks * g->block, err);
    }
    /* Its space is there from now on. */
    return rc == 0 ? io_punch(f, first, blocks * g->block, true, err) : rc;
}

static int write_tables(struct io_file *f, const struct vhdx_region *bat, struct plx_err *err)
{
    const struct vhdx_region meta = {meta_at, VHDX_MIB};
    uint8_t *table = plx_calloc(1, VHDX_TABLE), page[VHDX_PAGE];
    struct vhdx_header h = {.file_write = disk_guid_new(),
                            .data_write = disk_guid_new(),
                            .log_length = LOG_MIB * VHDX_MIB,
                            .log_offset = log_at};
    int rc;

    if (table == NULL) {
        return io_no_memory(f->path, err);
    }
    vhdx_regions_encode(bat, &meta, table);
    rc = io_write(f, table, VHDX_TABLE, VHDX_REGIONS_1, err);
    if (rc == 0) {
        rc = io_write(f, table, VHDX_TABLE, VHDX_REGIONS_2, err);
    }
    plx_free(table);
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        h.seq = i + 1;
        vhdx_header_encode(&h, page);
        rc = io_write(f, page, sizeof page, i == 0 ? VHDX_HEADER_1 : VHDX_HEADER_2, err);
    }
    return rc;
}

int vhdx_create(struct io_file *f, const struct vhdx_create *c, struct plx_err *err)
{
    static const char name[] = "pollux 1.0";
    struct disk_geometry g = {.bytes = c->bytes,
                              .block = c->block != 0 ? c->block : choose_block(c),
                              .logical_sector = c->logical_sector != 0 ? c->logical_sector : 512,
                              .physical_sector =
                                  c->physical_sector != 0 ? c->physical_sector : 4096};
    uint8_t id[8 + 512] = "vhdxfile";
    int rc = judge(c, &g, f->path, err);

    if (rc != 0) {
        return rc;
    }
    uint64_t entries = vhdx_entries(&g, c->type == VHDX_DIFFERENCING);
    struct vhdx_region bat = {bat_at, (entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB};
    rc = io_truncate(f, bat.off + bat.len, err);
    if (rc == 0) {
        rc = write_metadata(f, c, &g, err);
    }
    if (rc == 0 && c->type == VHDX_FIXED) {
        rc = write_blocks(f, &g, bat.off + bat.len, err);
    }
    if (rc == 0) {
        rc = write_tables(f, &bat, err);
    }
    if (rc == 0) {
        rc = io_sync(f, err);
    }
    if (rc == 0) { /* what makes it one comes last */
        for (unsigned i = 0; name[i] != 0; i++) {
            id[8 + 2 * i] = (uint8_t)name[i];
        }
        rc = io_write(f, id, sizeof id, 0, err);
    }
    return rc == 0 ? io_sync(f, err) : rc;
}
