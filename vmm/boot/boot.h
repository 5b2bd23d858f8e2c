/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/boot.h - put a kernel into an empty machine, as firmware and boot loader would have.
 *
 * Linux bzImage by its 64-bit boot protocol, ELF32 or flat images by multiboot 1; for both, ACPI
 * tables and a memory map. Pure: bytes in, RAM and registers out. Images come from users and are
 * hostile: every length is checked against the bytes that are there before anything is written.
 *
 * Guest-physical layout below 1 MiB (the memory map calls the last two reserved):
 *
 *     0x07000  zero page        0x08000  GDT            0x09000  identity page tables, 6 pages
 *     0x20000  command line     0x80000  multiboot information
 *     0x9fc00  as on a PC       0xe0000  RSDP and the other ACPI tables
 *
 * Threading and ownership: nothing is kept. Determinism: a function of its arguments. */
#ifndef VMM_BOOT_BOOT_H
#define VMM_BOOT_BOOT_H

#include <stddef.h>

#include "base/err.h"
#include "vmm/cpu/cpu.h"
#include "vmm/machine.h"

struct boot_image {
    const void *data; /* borrowed; NULL: none */
    size_t len;
};

struct boot_module {
    struct boot_image image;
    const char *cmdline; /* NULL: empty */
};

enum { BOOT_MODULES_MAX = 16 };

struct boot_config {
    struct boot_image kernel;
    struct boot_image initrd;          /* Linux: the initrd; multiboot: the first module */
    const char *cmdline;               /* NULL: empty */
    const struct boot_module *modules; /* multiboot only */
    unsigned nmodules;
};

/* Load into @m, whose RAM is zero, and set @c, which is as after reset, to the kernel's entry.
 * Errors, with one line that says what is wrong and with which image: PLX_ETRUNCATED, PLX_ECORRUPT,
 * PLX_ENOTSUP (a kernel we cannot start), PLX_ERANGE (does not fit into RAM or a limit of the
 * protocol), PLX_ENOMEM. On error RAM and @c may be half written. */
int boot_load(struct machine *m, struct cpu *c, const struct boot_config *cfg, struct plx_err *err);

#endif
