/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/firmware.c - see firmware.h. */
#include "vmm/boot/firmware.h"

#include <string.h>

#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/layout.h"
#include "vmm/dev/rom.h"

enum { UNIT = 64 << 10, ALIAS = 128 << 10, RESET_VECTOR = 16 /* from the end */ };

bool firmware_recognise(const struct boot_image *image)
{
    enum { JMP_FAR = 0xea, JMP_NEAR = 0xe9, JMP_SHORT = 0xeb, NOP = 0x90 };
    const uint8_t *at;

    if (image->data == NULL || image->len == 0 || image->len > ROM_MAX || image->len % UNIT != 0) {
        return false;
    }
    at = (const uint8_t *)image->data + image->len - RESET_VECTOR;
    while (*at == NOP && at < (const uint8_t *)image->data + image->len - 1) {
        at++;
    }
    return *at == JMP_FAR || *at == JMP_NEAR || *at == JMP_SHORT;
}

int firmware_load(struct machine *m, const struct boot_config *cfg, struct plx_err *err)
{
    const uint8_t *data = cfg->kernel.data;
    size_t alias = cfg->kernel.len < ALIAS ? cfg->kernel.len : ALIAS;
    int rc;

    if (m->rom == NULL) {
        return plx_fail(err, PLX_ENOTSUP, "this machine has no place for firmware");
    }
    if (cfg->initrd.data != NULL || cfg->nmodules != 0 ||
        (cfg->cmdline != NULL && cfg->cmdline[0] != 0)) {
        return plx_fail(err, PLX_ENOTSUP, "firmware takes neither initrd nor command line");
    }
    rc = rom_set(m->rom, data, cfg->kernel.len, err);
    if (rc == 0) {
        rc = boot_put(m, BOOT_HIGH - alias, data + cfg->kernel.len - alias, alias, "the firmware",
                      err);
    }
    return rc;
}

/* --- what it asks for --------------------------------------------------------------------- */

static int add_number(struct fwcfg *fw, uint16_t key, unsigned size, uint32_t value,
                      struct plx_err *err)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    return fwcfg_add(fw, key, bytes, size, err);
}

/* "etc/e820": {base u64, length u64, type u32}; what is RAM, before firmware takes its share. */
static int add_memory_map(const struct ram *ram, struct fwcfg *fw, struct plx_err *err)
{
    enum { ENTRY = 20 };
    uint8_t map[2 * ENTRY];
    size_t len = ENTRY;

    put_le64(map, 0);
    put_le64(map + 8, ram->low);
    put_le32(map + 16, E820_RAM);
    if (ram->size > ram->low) {
        put_le64(map + ENTRY, RAM_HIGH_BASE);
        put_le64(map + ENTRY + 8, ram->size - ram->low);
        put_le32(map + ENTRY + 16, E820_RAM);
        len += ENTRY;
    }
    return fwcfg_add_file(fw, "etc/e820", map, len, err);
}

/* The script by which firmware places the ACPI tables: commands of 128 bytes (QEMU documentation,
 * "ACPI tables ... loader script", as firmware reads "etc/table-loader"). */
enum { LOAD_COMMAND = 128, LOAD_NAME = 56 };
enum { LOAD_ALLOCATE = 1, LOAD_ADD_POINTER = 2, LOAD_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"

static void command(struct wbuf *script, const uint8_t bytes[LOAD_COMMAND])
{
    wbuf_put(script, bytes, LOAD_COMMAND);
}

static void load_allocate(struct wbuf *script, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t c[LOAD_COMMAND] = {LOAD_ALLOCATE};

    memcpy(c + 4, file, strlen(file));
    put_le32(c + 4 + LOAD_NAME, align);
    c[8 + LOAD_NAME] = zone;
    command(script, c);
}

/* Add where the tables are to the @size bytes at @at of @file. */
static void load_pointer(struct wbuf *script, const char *file, size_t at, uint8_t size)
{
    uint8_t c[LOAD_COMMAND] = {LOAD_ADD_POINTER};

    memcpy(c + 4, file, strlen(file));
    memcpy(c + 4 + LOAD_NAME, TABLES_FILE, strlen(TABLES_FILE));
    put_le32(c + 4 + 2 * LOAD_NAME, (uint32_t)at);
    c[8 + 2 * LOAD_NAME] = size;
    command(script, c);
}

static void load_checksum(struct wbuf *script, const char *file, size_t at, size_t start,
                          size_t len)
{
    uint8_t c[LOAD_COMMAND] = {LOAD_ADD_CHECKSUM};

    memcpy(c + 4, file, strlen(file));
    put_le32(c + 4 + LOAD_NAME, (uint32_t)at);
    put_le32(c + 8 + LOAD_NAME, (uint32_t)start);
    put_le32(c + 12 + LOAD_NAME, (uint32_t)len);
    command(script, c);
}

/* acpi_build for address 0 leaves offsets where pointers will be. */
static void load_tables(struct wbuf *script, const struct wbuf *tables)
{
    enum { SDT_LEN = 4, SDT_SUM = 9, SDT_HEADER = 36, FADT_FACS = 36, FADT_DSDT = 40 };
    enum { FADT_X_DSDT = 140, RSDP_XSDT = 24, RSDP_LEN = 36, RSDP_V1 = 20 };
    size_t xsdt = (size_t)get_le64(tables->data + RSDP_XSDT);
    size_t len = get_le32(tables->data + xsdt + SDT_LEN);

    load_allocate(script, TABLES_FILE, 64, ZONE_HIGH);
    load_allocate(script, RSDP_FILE, 16, ZONE_FSEG);
    for (size_t at = xsdt + SDT_HEADER; at < xsdt + len; at += 8) {
        size_t table = (size_t)get_le64(tables->data + at);

        load_pointer(script, TABLES_FILE, at, 8);
        if (memcmp(tables->data + table, "FACP", 4) == 0) {
            load_pointer(script, TABLES_FILE, table + FADT_FACS, 4);
            load_pointer(script, TABLES_FILE, table + FADT_DSDT, 4);
            load_pointer(script, TABLES_FILE, table + FADT_X_DSDT, 8);
            load_checksum(script, TABLES_FILE, table + SDT_SUM, table,
                          get_le32(tables->data + table + SDT_LEN));
        }
    }
    load_checksum(script, TABLES_FILE, xsdt + SDT_SUM, xsdt, len);
    load_pointer(script, RSDP_FILE, RSDP_XSDT, 8);
    load_checksum(script, RSDP_FILE, 8, 0, RSDP_V1);
    load_checksum(script, RSDP_FILE, 32, 0, RSDP_LEN);
}

static int add_acpi(const struct machine *m, struct fwcfg *fw, struct plx_err *err)
{
    enum { RSDP_LEN = 36 };
    struct wbuf tables, script;
    uint8_t rsdp[RSDP_LEN];
    int rc;

    wbuf_init(&tables);
    wbuf_init(&script);
    rc = acpi_build(&m->cfg, 0, &tables, err);
    if (rc == 0) {
        load_tables(&script, &tables);
        if (script.failed) {
            rc = plx_fail(err, PLX_ENOMEM, "out of memory");
        }
    }
    if (rc == 0) {
        memcpy(rsdp, tables.data, sizeof rsdp);
        memset(tables.data, 0, sizeof rsdp); /* one RSDP is enough */
        rc = fwcfg_add_file(fw, TABLES_FILE, tables.data, tables.len, err);
    }
    if (rc == 0) {
        rc = fwcfg_add_file(fw, RSDP_FILE, rsdp, sizeof rsdp, err);
    }
    if (rc == 0) {
        rc = fwcfg_add_file(fw, "etc/table-loader", script.data, script.len, err);
    }
    wbuf_free(&script);
    wbuf_free(&tables);
    return rc;
}

int firmware_describe(const struct machine *m, struct fwcfg *fw, struct plx_err *err)
{
    static const uint8_t console[] = {COM1_PORT & 0xff, COM1_PORT >> 8};
    int rc = fwcfg_add(fw, FWCFG_SIGNATURE, "QEMU", 4, err);

    if (rc == 0) {
        rc = add_number(fw, FWCFG_ID, 4, 1, err); /* the traditional interface */
    }
    if (rc == 0) {
        rc = add_number(fw, FWCFG_NB_CPUS, 2, m->cfg.vcpus, err);
    }
    if (rc == 0) {
        rc = add_number(fw, FWCFG_MAX_CPUS, 2, m->cfg.vcpus, err);
    }
    if (rc == 0) {
        rc = add_memory_map(m->ram, fw, err);
    }
    if (rc == 0) {
        rc = fwcfg_add_file(fw, "etc/sercon-port", console, sizeof console, err);
    }
    return rc == 0 ? add_acpi(m, fw, err) : rc;
}
