/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/linux.c - Linux bzImage by the 64-bit boot protocol.
 *
 * Follows the kernel's documentation "The Linux/x86 Boot Protocol", sections "The Real-Mode Kernel
 * Header" and "64-bit Boot Protocol". Pure; nothing is kept. */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "vmm/boot/layout.h"

/* Offsets in the image and, for the header from HDR_START on, in the zero page too. */
enum {
    HDR_START = 0x1f1,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4, /* in 16-byte paragraphs */
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x201, /* second byte of a short jump: the header ends at 0x202 + this */
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END_MIN = 0x264, /* of protocol 2.12 */
    HDR_END_MAX = 0x290, /* where the zero page goes on with other things */
};

/* Fields of the zero page outside the header. */
enum { ZP_ACPI_RSDP = 0x070, ZP_E820_ENTRIES = 0x1e8, ZP_E820_TABLE = 0x2d0, ZP_E820_SIZE = 20 };

enum { VERSION_MIN = 0x020c, XLF_KERNEL_64 = 1, LOADER_UNDEFINED = 0xff, VID_MODE_NORMAL = 0xffff };
enum { LOADED_HIGH = 1, SECTOR = 512, ENTRY_64 = 0x200 };
enum { PAGE_TABLE_PAGES = 6, GIB_MAPPED = 4 };
#define PTE_PRESENT_RW UINT64_C(3)
#define PTE_LARGE      UINT64_C(0x80)

struct linux_image {
    const uint8_t *setup; /* whole image; the header is checked to be inside */
    unsigned header_end;
    const uint8_t *payload;
    uint64_t payload_len;
    uint64_t load;      /* where the payload goes */
    uint64_t init_size; /* from there, RAM the kernel uses before it looks at the memory map */
    uint64_t cmdline_max;
    uint64_t initrd_max; /* highest address of an initrd's last byte */
};

bool linux_recognise(const struct boot_image *kernel)
{
    const uint8_t *p = kernel->data;

    return kernel->len >= HDR_MAGIC + 4 && get_le16(p + HDR_BOOT_FLAG) == 0xaa55 &&
           memcmp(p + HDR_MAGIC, "HdrS", 4) == 0;
}

/* All checks of the image itself, against the bytes there are and the RAM there is. */
static int parse(const struct boot_image *kernel, const struct ram *ram, struct linux_image *out,
                 struct plx_err *err)
{
    const uint8_t *p = kernel->data;
    uint64_t setup_len, align;

    if (kernel->len < HDR_END_MIN) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: bzImage ends inside its header (%zu bytes)",
                        kernel->len);
    }
    if (get_le16(p + HDR_VERSION) < VERSION_MIN) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: boot protocol %u.%02u, need 2.12 or later",
                        p[HDR_VERSION + 1], p[HDR_VERSION]);
    }
    if ((get_le16(p + HDR_XLOADFLAGS) & XLF_KERNEL_64) == 0) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: bzImage without a 64-bit entry point");
    }
    if ((p[HDR_LOADFLAGS] & LOADED_HIGH) == 0) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: a zImage, not a bzImage");
    }
    out->setup = p;
    out->header_end = HDR_MAGIC + p[HDR_JUMP];
    if (out->header_end < HDR_END_MIN || out->header_end > HDR_END_MAX ||
        out->header_end > kernel->len) {
        return plx_fail(err, PLX_ECORRUPT, "kernel: bzImage header ends at 0x%x", out->header_end);
    }
    setup_len = ((uint64_t)(p[HDR_SETUP_SECTS] == 0 ? 4 : p[HDR_SETUP_SECTS]) + 1) * SECTOR;
    out->payload_len = (uint64_t)get_le32(p + HDR_SYSSIZE) * 16;
    if (out->payload_len <= ENTRY_64) {
        return plx_fail(err, PLX_ECORRUPT, "kernel: bzImage holds no code (%" PRIu64 " bytes)",
                        out->payload_len);
    }
    if (setup_len + out->payload_len > kernel->len) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: bzImage is truncated: %zu bytes of %" PRIu64,
                        kernel->len, setup_len + out->payload_len);
    }
    out->payload = p + setup_len;
    out->init_size = get_le32(p + HDR_INIT_SIZE);
    if (out->init_size < out->payload_len) {
        out->init_size = out->payload_len;
    }
    out->cmdline_max = get_le32(p + HDR_CMDLINE_SIZE);
    out->initrd_max = get_le32(p + HDR_INITRD_ADDR_MAX);

    out->load = get_le64(p + HDR_PREF_ADDRESS);
    if (out->load < BOOT_HIGH || out->load > ram->low || ram->low - out->load < out->init_size) {
        align = get_le32(p + HDR_KERNEL_ALIGNMENT);
        if (p[HDR_RELOCATABLE] == 0 || align < PAGE_SIZE || (align & (align - 1)) != 0) {
            return plx_fail(err, PLX_ERANGE,
                            "kernel: must be at 0x%" PRIx64 " and needs %" PRIu64
                            " MiB from there; the VM has %" PRIu64 " MiB",
                            out->load, (out->init_size + (1 << 20) - 1) >> 20, ram->size >> 20);
        }
        out->load = align > BOOT_HIGH ? align : BOOT_HIGH;
        if (out->load > ram->low || ram->low - out->load < out->init_size) {
            return plx_fail(err, PLX_ERANGE,
                            "kernel: needs %" PRIu64 " MiB from 0x%" PRIx64 "; the VM has %" PRIu64
                            " MiB",
                            (out->init_size + (1 << 20) - 1) >> 20, out->load, ram->size >> 20);
        }
    }
    return 0;
}

/* The initrd as high as the kernel's limit and RAM permit, clear of the kernel. */
static int place_initrd(struct machine *m, const struct linux_image *img,
                        const struct boot_image *initrd, uint8_t *zero_page, struct plx_err *err)
{
    uint64_t floor = img->load + img->init_size, ceiling = m->ram->low, at;

    if (initrd->data == NULL) {
        return 0;
    }
    if (initrd->len == 0) {
        return plx_fail(err, PLX_ETRUNCATED, "initrd: the file is empty");
    }
    if (ceiling > img->initrd_max) {
        ceiling = PAGE_BASE(img->initrd_max + 1);
    }
    if (floor > ceiling || ceiling - floor < initrd->len ||
        PAGE_BASE(ceiling - initrd->len) < floor) {
        return plx_fail(err, PLX_ERANGE,
                        "initrd: %zu bytes do not fit between the kernel's end at 0x%" PRIx64
                        " and 0x%" PRIx64 "; give the VM more memory",
                        initrd->len, floor, ceiling);
    }
    at = PAGE_BASE(ceiling - initrd->len);
    put_le32(zero_page + HDR_RAMDISK_IMAGE, (uint32_t)at);
    put_le32(zero_page + HDR_RAMDISK_SIZE, (uint32_t)initrd->len);
    return boot_put(m, at, initrd->data, initrd->len, "the initrd", err);
}

static int place_cmdline(struct machine *m, const struct linux_image *img, const char *cmdline,
                         struct plx_err *err)
{
    size_t len = strlen(cmdline);

    if (len > img->cmdline_max || len >= BOOT_CMDLINE_END - BOOT_CMDLINE) {
        return plx_fail(err, PLX_ERANGE,
                        "kernel: command line of %zu characters, the kernel takes %" PRIu64, len,
                        img->cmdline_max);
    }
    return boot_put(m, BOOT_CMDLINE, cmdline, len + 1, "the command line", err);
}

/* The first GIB_MAPPED GiB at their own addresses, in 2 MiB pages: a PML4, a PDPT, the rest PDs. */
static int identity_map(struct machine *m, struct plx_err *err)
{
    uint8_t tables[PAGE_TABLE_PAGES * PAGE_SIZE] = {0};
    uint8_t *pdpt = tables + PAGE_SIZE, *pd = tables + 2 * PAGE_SIZE;

    put_le64(tables, (BOOT_PAGE_TABLES + PAGE_SIZE) | PTE_PRESENT_RW);
    for (uint64_t i = 0; i < GIB_MAPPED; i++) {
        put_le64(pdpt + 8 * i, (BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | PTE_PRESENT_RW);
    }
    for (uint64_t i = 0; i < GIB_MAPPED * 512; i++) {
        put_le64(pd + 8 * i, i << 21 | PTE_LARGE | PTE_PRESENT_RW);
    }
    return boot_put(m, BOOT_PAGE_TABLES, tables, sizeof tables, "page tables", err);
}

static int enter_64(struct machine *m, struct cpu *c, uint64_t entry, struct plx_err *err)
{
    int rc = boot_flat_segments(m, c, true, err);

    c->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    c->cr2 = 0;
    c->cr3 = BOOT_PAGE_TABLES;
    c->cr4 = CR4_PAE;
    c->efer = EFER_LME | EFER_LMA;
    c->gpr[RSI] = BOOT_ZERO_PAGE;
    c->rip = entry;
    return rc != 0 ? rc : identity_map(m, err);
}

int linux_load(struct machine *m, struct cpu *c, const struct boot_config *cfg, gpa_t rsdp,
               struct plx_err *err)
{
    struct linux_image img = {0};
    struct e820_entry map[E820_MAX];
    uint8_t zp[PAGE_SIZE] = {0};
    unsigned n;
    int rc;

    rc = parse(&cfg->kernel, m->ram, &img, err);
    if (rc != 0) {
        return rc;
    }
    if (cfg->nmodules != 0) {
        return plx_fail(err, PLX_EINVAL, "kernel: a Linux kernel takes an initrd, not modules");
    }
    memcpy(zp + HDR_START, img.setup + HDR_START, img.header_end - HDR_START);
    zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    put_le16(zp + HDR_VID_MODE, VID_MODE_NORMAL);
    put_le32(zp + HDR_CODE32_START, (uint32_t)img.load);
    put_le32(zp + HDR_CMD_LINE_PTR, (uint32_t)BOOT_CMDLINE);
    put_le32(zp + HDR_RAMDISK_IMAGE, 0);
    put_le32(zp + HDR_RAMDISK_SIZE, 0);
    put_le64(zp + ZP_ACPI_RSDP, rsdp);
    n = boot_e820(m->ram, map);
    zp[ZP_E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = zp + ZP_E820_TABLE + i * ZP_E820_SIZE;

        put_le64(e, map[i].base);
        put_le64(e + 8, map[i].len);
        put_le32(e + 16, map[i].type);
    }
    rc = place_cmdline(m, &img, cfg->cmdline == NULL ? "" : cfg->cmdline, err);
    if (rc == 0) {
        rc = place_initrd(m, &img, &cfg->initrd, zp, err);
    }
    if (rc == 0) {
        rc = boot_put(m, img.load, img.payload, img.payload_len, "the kernel", err);
    }
    if (rc == 0) {
        rc = boot_put(m, BOOT_ZERO_PAGE, zp, sizeof zp, "the zero page", err);
    }
    return rc != 0 ? rc : enter_64(m, c, img.load + ENTRY_64, err);
}
