/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/boot.c - recognise a kernel, and what all loaders share. */
#include "vmm/boot/boot.h"

#include <string.h>

#include "vmm/boot/acpi.h"
#include "vmm/boot/firmware.h"
#include "vmm/boot/layout.h"

unsigned boot_e820(const struct ram *ram, struct e820_entry out[E820_MAX])
{
    unsigned n = 0;

    out[n++] = (struct e820_entry){0, BOOT_EBDA, E820_RAM};
    out[n++] = (struct e820_entry){BOOT_EBDA, 0xa0000 - BOOT_EBDA, E820_RESERVED};
    out[n++] = (struct e820_entry){BOOT_ACPI, BOOT_ACPI_END - BOOT_ACPI, E820_RESERVED};
    if (ram->low > BOOT_HIGH) {
        out[n++] = (struct e820_entry){BOOT_HIGH, ram->low - BOOT_HIGH, E820_RAM};
    }
    if (ram->size > ram->low) {
        out[n++] = (struct e820_entry){RAM_HIGH_BASE, ram->size - ram->low, E820_RAM};
    }
    return n;
}

int boot_put(struct machine *m, gpa_t gpa, const void *data, uint64_t len, const char *what,
             struct plx_err *err)
{
    if (ram_write(m->ram, gpa, data, len) != 0) {
        return plx_fail(err, PLX_ERANGE,
                        "%s (%llu bytes at 0x%llx) does not fit into %llu MiB of RAM", what,
                        (unsigned long long)len, (unsigned long long)gpa,
                        (unsigned long long)(m->ram->size >> 20));
    }
    return 0;
}

/* Descriptor of a flat 4 GiB segment (SDM Vol. 3A, "Segment Descriptors"). */
static uint64_t flat_descriptor(uint16_t attr)
{
    return UINT64_C(0x000f00000000ffff) | (uint64_t)(attr & 0xff) << 40 |
           (uint64_t)(attr >> 12) << 52;
}

int boot_flat_segments(struct machine *m, struct cpu *c, bool code64, struct plx_err *err)
{
    uint16_t code = SEG_G | SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_ACCESSED;
    uint16_t data = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_RW | SEG_ACCESSED;
    uint8_t gdt[BOOT_DS + 8] = {0};

    code |= code64 ? SEG_L : SEG_DB;
    put_le64(gdt + BOOT_CS, flat_descriptor(code));
    put_le64(gdt + BOOT_DS, flat_descriptor(data));
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        c->seg[s] = (struct cpu_seg){.sel = BOOT_DS, .attr = data, .limit = UINT32_MAX};
    }
    c->seg[SEG_CS] = (struct cpu_seg){.sel = BOOT_CS, .attr = code, .limit = UINT32_MAX};
    c->ldtr = (struct cpu_seg){.attr = SEG_NULL};
    c->tr = (struct cpu_seg){.attr = SEG_P | 0xb, .limit = 0xffff}; /* as after reset: busy TSS */
    c->gdtr = (struct cpu_dtable){.base = BOOT_GDT, .limit = sizeof gdt - 1};
    c->idtr = (struct cpu_dtable){.base = 0, .limit = 0};
    c->rflags = FLAG_ONE;
    memset(c->gpr, 0, sizeof c->gpr);
    return boot_put(m, BOOT_GDT, gdt, sizeof gdt, "the GDT", err);
}

int boot_load(struct machine *m, struct cpu *c, const struct boot_config *cfg, struct plx_err *err)
{
    bool linux_image = linux_recognise(&cfg->kernel);
    gpa_t rsdp;
    int rc;

    if (cfg->kernel.data == NULL || cfg->kernel.len == 0) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: the file is empty");
    }
    if (!linux_image && !multiboot_recognise(&cfg->kernel)) {
        if (firmware_recognise(&cfg->kernel)) {
            return firmware_load(m, cfg, err);
        }
        return plx_fail(err, PLX_ENOTSUP,
                        "kernel: neither a Linux bzImage nor a multiboot 1 image nor firmware "
                        "(%zu bytes)",
                        cfg->kernel.len);
    }
    rc = acpi_install(m, &rsdp, err);
    if (rc != 0) {
        return rc;
    }
    return linux_image ? linux_load(m, c, cfg, rsdp, err) : multiboot_load(m, c, cfg, err);
}
