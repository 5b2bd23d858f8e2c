/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/hpet.h - the high precision event timer: a 64-bit counter of 10 ns ticks, three
 * comparators, periodic mode, legacy replacement; no FSB (MSI) delivery.
 *
 * Follows the IA-PC HPET Specification 1.0a. The counter is a view of virtual time; comparators
 * fire at round starts, and a register access that sees a later time first does what was due.
 * Owned by the PC. Threading: the serial part. Determinism: section "hpet". */
#ifndef VMM_DEV_HPET_H
#define VMM_DEV_HPET_H

#include "vmm/machine.h"

struct hpet; /* opaque */

enum { HPET_TICK_NS = 10, HPET_TIMERS = 3 };

/* General capabilities, lower half: Intel, legacy replacement, 64 bits, three timers, revision 1.
 * ACPI calls it the event timer block id. */
#define HPET_BLOCK_ID (UINT32_C(0x8086a001) | (HPET_TIMERS - 1) << 8)
/* IOAPIC pins that comparators may use: those no PCI slot is wired to. */
#define HPET_ROUTES   UINT32_C(0x00f00000)

/* Drives m->gsi[] and, while it replaces them, the lines of PIT and RTC (@legacy, in this order).
 * Errors: PLX_ENOMEM, those of bus_claim. */
int hpet_create(struct machine *m, const struct irq_line legacy[2], struct hpet **out,
                struct plx_err *err);
void hpet_destroy(struct hpet *h); /* NULL is a no-op */

/* Are the lines of PIT and RTC replaced? NULL: no. */
bool hpet_legacy(const struct hpet *h);

#endif
