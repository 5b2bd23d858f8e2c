/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/acpipm.h - ACPI fixed hardware: PM1 event and control, PM timer, reset register.
 *
 * Follows the ACPI specification, "ACPI Hardware Specification". ACPI mode is always on (SCI_EN
 * reads 1); there are no GPEs. Owned by the PC. Threading: the serial part. Determinism: section
 * "acpi-pm". */
#ifndef VMM_DEV_ACPIPM_H
#define VMM_DEV_ACPIPM_H

#include "vmm/machine.h"

struct acpipm; /* opaque */

/* Takes m->power_button and drives m->gsi[SCI_GSI]. Errors: PLX_ENOMEM, those of bus_claim. */
int acpipm_create(struct machine *m, struct acpipm **out, struct plx_err *err);
void acpipm_destroy(struct acpipm *pm); /* NULL is a no-op */

#endif
