/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/rom.c - see rom.h. */
#include "vmm/dev/rom.h"

#include <string.h>

#include "base/alloc.h"
#include "vmm/dev/section.h"

enum { ROM_VERSION = 1 };

struct rom {
    struct machine *m;
    uint8_t *data;
    size_t len;
};

static uint64_t mmio_read(void *ctx, uint64_t addr, unsigned size)
{
    const struct rom *rom = ctx;
    uint64_t value = 0;

    memcpy(&value, rom->data + addr, size); /* the bus keeps it inside */
    return value;
}

static void mmio_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    (void)ctx;
    (void)addr;
    (void)size;
    (void)value;
}

static const struct bus_range_ops mmio_ops = {mmio_read, mmio_write};

static void empty(struct rom *rom)
{
    if (rom->len != 0) {
        bus_release(rom->m->bus, BUS_MMIO, ROM_END - rom->len, rom);
        plx_free(rom->data);
        rom->data = NULL;
        rom->len = 0;
    }
}

int rom_set(struct rom *rom, const void *data, size_t len, struct plx_err *err)
{
    int rc;

    if (rom->len != 0) {
        return plx_fail(err, PLX_ESTATE, "rom: there is one already");
    }
    if (len == 0 || len > ROM_MAX || len % PAGE_SIZE != 0) {
        return plx_fail(err, PLX_ERANGE, "rom: %zu bytes: use whole pages up to %d MiB", len,
                        ROM_MAX >> 20);
    }
    rom->data = plx_calloc(1, len);
    if (rom->data == NULL) {
        return plx_fail(err, PLX_ENOMEM, "rom: out of memory");
    }
    memcpy(rom->data, data, len);
    rc = bus_claim(rom->m->bus, BUS_MMIO, ROM_END - len, len, "rom", &mmio_ops, rom, err);
    if (rc != 0) {
        plx_free(rom->data);
        rom->data = NULL;
        return rc;
    }
    rom->len = len;
    return 0;
}

size_t rom_len(const struct rom *rom)
{
    return rom->len;
}

bool rom_read(const struct rom *rom, gpa_t gpa, uint8_t *out, unsigned len)
{
    gpa_t base = ROM_END - rom->len;

    if (gpa < base || gpa >= ROM_END || ROM_END - gpa < len) {
        return false;
    }
    memcpy(out, rom->data + (gpa - base), len);
    return true;
}

/* --- state --------------------------------------------------------------------------------- */

static void rom_reset(void *dev)
{
    (void)dev;
}

static void rom_save(const void *dev, struct wbuf *out)
{
    const struct rom *rom = dev;

    wbuf_u32(out, (uint32_t)rom->len);
    wbuf_put(out, rom->data, rom->len);
}

static int rom_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct rom *rom = dev;
    int rc = section_version("rom", version, ROM_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    uint32_t len = rbuf_u32(in);
    if (in->failed || len > rbuf_left(in)) {
        return plx_fail(err, PLX_ETRUNCATED, "rom: section too short");
    }
    empty(rom);
    rc = len == 0 ? 0 : rom_set(rom, rbuf_take(in, len), len, err);
    return rc == PLX_ERANGE ? PLX_ECORRUPT : rc;
}

static const struct device_ops rom_device = {rom_reset, rom_save, rom_load};

int rom_create(struct machine *m, struct rom **out, struct plx_err *err)
{
    struct rom *rom = plx_calloc(1, sizeof *rom);

    *out = NULL;
    if (rom == NULL) {
        return plx_fail(err, PLX_ENOMEM, "rom: out of memory");
    }
    rom->m = m;
    m->rom = rom;
    machine_add_device(m, "rom", ROM_VERSION, &rom_device, rom);
    *out = rom;
    return 0;
}

void rom_destroy(struct rom *rom)
{
    if (rom != NULL) {
        empty(rom);
        plx_free(rom);
    }
}
