/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pic.h - the pair of 8259A interrupt controllers with their edge/level registers.
 *
 * Follows the Intel 8259A data sheet; 0x4d0/0x4d1 as in the PIIX data sheets. Owned by the PC.
 * Threading: the serial part. Determinism: section "pic". */
#ifndef VMM_DEV_PIC_H
#define VMM_DEV_PIC_H

#include <stdbool.h>

#include "vmm/machine.h"

struct pic; /* opaque */

/* @intr is the master's INT output. Errors: PLX_ENOMEM, those of bus_claim. */
int pic_create(struct machine *m, const struct irq_line *intr, struct pic **out,
               struct plx_err *err);
void pic_destroy(struct pic *pic); /* NULL is a no-op */

void pic_set_line(struct pic *pic, unsigned irq, bool level); /* 0-15 except 2 */
/* The INTA cycle: the vector of the interrupt that is now in service; IRQ 7's (of the chip that
 * found nothing) when the request has gone meanwhile. */
int pic_take(struct pic *pic);

#endif
