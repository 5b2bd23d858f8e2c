/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/fwcfg.h - the firmware configuration device: how firmware learns what the machine is.
 *
 * Follows "QEMU Firmware Configuration (fw_cfg) Device": selector port 0x510, data port 0x511, the
 * file directory; no DMA, nothing can be written. There only if the machine has a ROM (rom.h):
 * without firmware the ports read as all ones. What the items hold is a function of the machine's
 * configuration (vmm/boot/firmware.c), so only the position is state. Beside it is the debug port
 * that firmware finds by reading 0xe9 there: its lines go to the log, at level debug.
 *
 * Owned by the PC. Threading: the serial part. Determinism: section "fwcfg". */
#ifndef VMM_DEV_FWCFG_H
#define VMM_DEV_FWCFG_H

#include "vmm/machine.h"

struct fwcfg; /* opaque */

enum fwcfg_key {
    FWCFG_SIGNATURE = 0x00,
    FWCFG_ID = 0x01,
    FWCFG_NB_CPUS = 0x05,
    FWCFG_MAX_CPUS = 0x0f,
    FWCFG_FILE_DIR = 0x19,
    FWCFG_FILE_FIRST = 0x20,
};

/* Reads m->rom, which must be there. Errors: PLX_ENOMEM, those of bus_claim. */
int fwcfg_create(struct machine *m, struct fwcfg **out, struct plx_err *err);
void fwcfg_destroy(struct fwcfg *fw); /* NULL is a no-op */

/* Before the machine runs: an item (copied), or a file with its entry in the directory. @name has
 * at most 55 characters. PLX_CHECKs that there is room. Errors: PLX_ENOMEM. */
int fwcfg_add(struct fwcfg *fw, uint16_t key, const void *data, size_t len, struct plx_err *err);
int fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t len,
                   struct plx_err *err);

#endif
