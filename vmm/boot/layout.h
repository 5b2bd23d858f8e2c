/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/layout.h - what the loaders share: addresses of boot.h's layout, memory map, flat
 * segments. Private to vmm/boot. */
#ifndef VMM_BOOT_LAYOUT_H
#define VMM_BOOT_LAYOUT_H

#include "vmm/boot/boot.h"

#define BOOT_ZERO_PAGE   UINT64_C(0x7000)
#define BOOT_GDT         UINT64_C(0x8000)
#define BOOT_PAGE_TABLES UINT64_C(0x9000)
#define BOOT_CMDLINE     UINT64_C(0x20000)
#define BOOT_CMDLINE_END UINT64_C(0x30000)
#define BOOT_MB_INFO     UINT64_C(0x80000)
#define BOOT_MB_INFO_END UINT64_C(0x90000)
#define BOOT_EBDA        UINT64_C(0x9fc00)
#define BOOT_ACPI        UINT64_C(0xe0000)
#define BOOT_ACPI_END    UINT64_C(0x100000)
#define BOOT_HIGH        UINT64_C(0x100000)

/* Selectors that Linux's boot protocol names; multiboot takes any. */
enum { BOOT_CS = 0x10, BOOT_DS = 0x18 };

/* Types of the BIOS function "Query System Address Map"; multiboot uses the same numbers. */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };

struct e820_entry {
    uint64_t base, len;
    uint32_t type;
};

enum { E820_MAX = 8 };

/* The memory map, sorted; returns the number of entries. */
unsigned boot_e820(const struct ram *ram, struct e820_entry out[E820_MAX]);

/* Writes the GDT and loads all segment registers flat: code 64 or 32 bits wide, data 4 GiB, an
 * empty LDT and IDT, interrupts off. */
int boot_flat_segments(struct machine *m, struct cpu *c, bool code64, struct plx_err *err);

/* ram_write with a message that names @what. */
int boot_put(struct machine *m, gpa_t gpa, const void *data, uint64_t len, const char *what,
             struct plx_err *err);

bool linux_recognise(const struct boot_image *kernel);
int linux_load(struct machine *m, struct cpu *c, const struct boot_config *cfg, gpa_t rsdp,
               struct plx_err *err);
bool multiboot_recognise(const struct boot_image *kernel);
int multiboot_load(struct machine *m, struct cpu *c, const struct boot_config *cfg,
                   struct plx_err *err);

static inline uint16_t get_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)get_le16(p) | (uint32_t)get_le16(p + 2) << 16;
}

static inline uint64_t get_le64(const uint8_t *p)
{
    return get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

static inline void put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(uint8_t *p, uint32_t v)
{
    put_le16(p, (uint16_t)v);
    put_le16(p + 2, (uint16_t)(v >> 16));
}

static inline void put_le64(uint8_t *p, uint64_t v)
{
    put_le32(p, (uint32_t)v);
    put_le32(p + 4, (uint32_t)(v >> 32));
}

#endif
