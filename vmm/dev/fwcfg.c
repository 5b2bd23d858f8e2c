/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/fwcfg.c - see fwcfg.h. */
#include "vmm/dev/fwcfg.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/rom.h"
#include "vmm/dev/section.h"

enum { FWCFG_VERSION = 1, ITEMS_MAX = 16, FILES_MAX = 8, NAME_SIZE = 56 };
enum { DEBUG_PRESENT = 0xe9, DEBUG_LINE = 160 };
/* The directory: a big-endian count, then entries {size, key, reserved, name}. */
enum { DIR_HEADER = 4, DIR_ENTRY = 8 + NAME_SIZE };

struct item {
    uint16_t key;
    uint8_t *data;
    size_t len;
};

struct fwcfg {
    struct machine *m;
    struct item items[ITEMS_MAX];
    unsigned nitems, nfiles;
    uint8_t directory[DIR_HEADER + FILES_MAX * DIR_ENTRY];
    char line[DEBUG_LINE]; /* being written to the debug port; no guest reads it back: no state */
    unsigned line_len;

    /* --- state --- */
    uint16_t key;
    uint32_t at;
};

static void put_be(uint8_t *p, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        p[i] = (uint8_t)(value >> ((size - 1 - i) * 8));
    }
}

static bool there(const struct fwcfg *fw)
{
    return rom_len(fw->m->rom) != 0;
}

/* Keys that do not exist, and what is beyond an item's end, read as zero. */
static uint8_t next_byte(struct fwcfg *fw)
{
    const uint8_t *data = NULL;
    size_t len = 0;

    if (fw->key == FWCFG_FILE_DIR) {
        data = fw->directory;
        len = sizeof fw->directory;
    }
    for (unsigned i = 0; i < fw->nitems; i++) {
        if (fw->items[i].key == fw->key) {
            data = fw->items[i].data;
            len = fw->items[i].len;
        }
    }
    if (fw->at >= len) {
        return 0;
    }
    return data[fw->at++];
}

static uint64_t port_read(void *ctx, uint64_t addr, unsigned size)
{
    return addr == 1 && size == 1 && there(ctx) ? next_byte(ctx) : UINT64_MAX;
}

static void port_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct fwcfg *fw = ctx;

    if (addr == 0 && size == 2 && there(fw)) {
        fw->key = (uint16_t)value;
        fw->at = 0;
    }
}

static const struct bus_range_ops port_ops = {port_read, port_write};

static uint64_t debug_read(void *ctx, uint64_t addr, unsigned size)
{
    (void)addr;
    (void)size;
    return there(ctx) ? DEBUG_PRESENT : UINT64_MAX;
}

static void debug_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct fwcfg *fw = ctx;
    char c = (char)(value & 0x7f);

    (void)addr;
    (void)size;
    if (c >= ' ' && c < 0x7f) {
        fw->line[fw->line_len++] = c;
    }
    if (fw->line_len != 0 && (c == '\n' || fw->line_len == DEBUG_LINE - 1)) {
        fw->line[fw->line_len] = '\0';
        if (there(fw)) {
            log_debug("firmware: %s", fw->line);
        }
        fw->line_len = 0;
    }
}

static const struct bus_range_ops debug_ops = {debug_read, debug_write};

int fwcfg_add(struct fwcfg *fw, uint16_t key, const void *data, size_t len, struct plx_err *err)
{
    struct item *item = &fw->items[fw->nitems];

    PLX_CHECK(fw->nitems < ITEMS_MAX && len != 0 && len <= UINT32_MAX);
    item->data = plx_calloc(1, len);
    if (item->data == NULL) {
        return plx_fail(err, PLX_ENOMEM, "fwcfg: out of memory");
    }
    memcpy(item->data, data, len);
    item->len = len;
    item->key = key;
    fw->nitems++;
    return 0;
}

int fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t len,
                   struct plx_err *err)
{
    uint16_t key = (uint16_t)(FWCFG_FILE_FIRST + fw->nfiles);
    uint8_t *entry = fw->directory + DIR_HEADER + fw->nfiles * DIR_ENTRY;
    int rc;

    PLX_CHECK(fw->nfiles < FILES_MAX && strlen(name) < NAME_SIZE);
    rc = fwcfg_add(fw, key, data, len, err);
    if (rc == 0) {
        put_be(entry, 4, (uint32_t)len);
        put_be(entry + 4, 2, key);
        memcpy(entry + 8, name, strlen(name));
        put_be(fw->directory, 4, ++fw->nfiles);
    }
    return rc;
}

/* --- state --------------------------------------------------------------------------------- */

static void fwcfg_reset(void *dev)
{
    struct fwcfg *fw = dev;

    fw->key = 0;
    fw->at = 0;
}

static void fwcfg_save(const void *dev, struct wbuf *out)
{
    const struct fwcfg *fw = dev;

    wbuf_u16(out, fw->key);
    wbuf_u32(out, fw->at);
}

/* Any position is one that some guest can have reached. */
static int fwcfg_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct fwcfg *fw = dev;
    int rc = section_version("fwcfg", version, FWCFG_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    fw->key = rbuf_u16(in);
    fw->at = rbuf_u32(in);
    return section_complete("fwcfg", in, err);
}

static const struct device_ops fwcfg_device = {fwcfg_reset, fwcfg_save, fwcfg_load};

int fwcfg_create(struct machine *m, struct fwcfg **out, struct plx_err *err)
{
    struct fwcfg *fw = plx_calloc(1, sizeof *fw);
    int rc;

    *out = NULL;
    if (fw == NULL) {
        return plx_fail(err, PLX_ENOMEM, "fwcfg: out of memory");
    }
    fw->m = m;
    rc = bus_claim(m->bus, BUS_PIO, FWCFG_PORT, 2, "fwcfg", &port_ops, fw, err);
    if (rc == 0) {
        rc = bus_claim(m->bus, BUS_PIO, FIRMWARE_DEBUG_PORT, 1, "firmware debug", &debug_ops, fw,
                       err);
    }
    if (rc != 0) {
        plx_free(fw);
        return rc;
    }
    machine_add_device(m, "fwcfg", FWCFG_VERSION, &fwcfg_device, fw);
    fwcfg_reset(fw);
    *out = fw;
    return 0;
}

void fwcfg_destroy(struct fwcfg *fw)
{
    if (fw != NULL) {
        for (unsigned i = 0; i < fw->nitems; i++) {
            plx_free(fw->items[i].data);
        }
        plx_free(fw);
    }
}
