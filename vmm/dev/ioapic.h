/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/ioapic.h - the I/O APIC: 24 lines to interrupt messages; and MSIs to the LAPICs.
 *
 * Follows the 82093AA data sheet, with version 0x20's EOI register, and the SDM Vol. 3A, "Message
 * Signalled Interrupts". Lines carry "asserted", so the polarity bit is stored and nothing more.
 * An edge on a masked pin is ignored. Owned by the PC. Threading: the serial part. Determinism:
 * section "ioapic". */
#ifndef VMM_DEV_IOAPIC_H
#define VMM_DEV_IOAPIC_H

#include "vmm/dev/lapic.h"
#include "vmm/machine.h"

struct ioapic; /* opaque */

/* Also becomes the receiver of EOIs on @bus. Errors: PLX_ENOMEM, those of bus_claim. */
int ioapic_create(struct machine *m, struct apic_bus *bus, struct ioapic **out,
                  struct plx_err *err);
void ioapic_destroy(struct ioapic *io); /* NULL is a no-op */

void ioapic_set_line(struct ioapic *io, unsigned pin, bool level);

/* msi_sink.send with the apic_bus as context. Addresses outside 0xfeexxxxx are ignored. */
void apic_msi_send(void *bus, uint64_t addr, uint32_t data);

#endif
