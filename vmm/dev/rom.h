/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/rom.h - the firmware's ROM, ending at 4 GiB. Empty unless the machine boots firmware.
 *
 * Instructions are fetched from it, reads see it, writes vanish. Owned by the PC. Threading: set
 * and load between slices, reads anywhere: its bytes never change while vCPUs run. Determinism:
 * section "rom" holds the bytes; a reset keeps them. */
#ifndef VMM_DEV_ROM_H
#define VMM_DEV_ROM_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/machine.h"

struct rom; /* opaque */

#define ROM_END UINT64_C(0x100000000)
enum { ROM_MAX = 16 << 20 }; /* below it are the LAPICs */

/* Sets m->rom. Errors: PLX_ENOMEM. */
int rom_create(struct machine *m, struct rom **out, struct plx_err *err);
void rom_destroy(struct rom *rom); /* NULL is a no-op */

/* Copy @len bytes (whole pages, at most ROM_MAX) into an empty ROM. Errors: PLX_ERANGE, PLX_ESTATE
 * (there is one), PLX_ENOMEM. */
int rom_set(struct rom *rom, const void *data, size_t len, struct plx_err *err);
size_t rom_len(const struct rom *rom);

/* The @len bytes from @gpa on, if all of them are in the ROM. */
bool rom_read(const struct rom *rom, gpa_t gpa, uint8_t *out, unsigned len);

#endif
