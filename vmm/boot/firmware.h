/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/firmware.h - a firmware image in the place of a kernel: the machine starts at its reset
 * vector, in real mode.
 *
 * The whole image is ROM below 4 GiB (vmm/dev/rom.h); its last 128 KiB also stand in RAM below
 * 1 MiB, where a PC aliases them. RAM there can always be read and written: the bridge keeps the
 * PAM registers that firmware programs and they switch nothing. A20 is always on. */
#ifndef VMM_BOOT_FIRMWARE_H
#define VMM_BOOT_FIRMWARE_H

#include "vmm/boot/boot.h"
#include "vmm/dev/fwcfg.h"

/* Whole multiples of 64 KiB with a jump at the reset vector. */
bool firmware_recognise(const struct boot_image *image);
/* As boot_load, for an image that was recognised. @c stays as after reset. */
int firmware_load(struct machine *m, const struct boot_config *cfg, struct plx_err *err);

/* Fill @fw with what firmware asks for: memory map, processors, ACPI tables, the serial console.
 * Errors: PLX_ENOMEM. */
int firmware_describe(const struct machine *m, struct fwcfg *fw, struct plx_err *err);

#endif
