/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pit.h - the 8254 interval timer: channel 0 on IRQ 0, channel 2 behind port 0x61.
 *
 * Follows the Intel 82C54 data sheet; modes 0-5, binary and BCD, latches and read-back. Counters
 * are functions of virtual time, in ticks of PIT_HZ since power-on. Owned by the PC. Threading:
 * the serial part. Determinism: section "pit". */
#ifndef VMM_DEV_PIT_H
#define VMM_DEV_PIT_H

#include "vmm/machine.h"

struct pit; /* opaque */

/* Uses m->gsi[PIT_IRQ]. Errors: PLX_ENOMEM, those of bus_claim. */
int pit_create(struct machine *m, struct pit **out, struct plx_err *err);
void pit_destroy(struct pit *pit); /* NULL is a no-op */

#endif
