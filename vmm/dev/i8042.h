/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/i8042.h - the keyboard controller with a keyboard nobody types on, and no mouse.
 *
 * Answers every command at once, so that no guest waits for a time-out; a pulse of the reset line
 * resets the machine. Follows the 8042 part of the IBM PS/2 Hardware Interface Technical
 * Reference. Owned by the PC. Threading: the serial part. Determinism: section "i8042". */
#ifndef VMM_DEV_I8042_H
#define VMM_DEV_I8042_H

#include "vmm/machine.h"

struct i8042; /* opaque */

/* Uses m->gsi[I8042_IRQ]. Errors: PLX_ENOMEM, those of bus_claim. */
int i8042_create(struct machine *m, struct i8042 **out, struct plx_err *err);
void i8042_destroy(struct i8042 *k); /* NULL is a no-op */

#endif
