/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/acpi.h - the ACPI tables that describe the PC of vmm/abi/pc_layout.h.
 *
 * RSDP, XSDT, FADT, FACS, MADT, HPET and a DSDT written as AML. Pure; nothing is kept. */
#ifndef VMM_BOOT_ACPI_H
#define VMM_BOOT_ACPI_H

#include "base/buf.h"
#include "base/err.h"
#include "vmm/machine.h"

/* Append all tables to @out (empty) as they must stand at guest-physical @base, a multiple of 64:
 * the RSDP comes first. Errors: PLX_ENOMEM. */
int acpi_build(const struct machine_config *cfg, gpa_t base, struct wbuf *out, struct plx_err *err);

/* The DSDT alone, for tests. */
void acpi_dsdt(struct wbuf *out);

/* Build and write them to the area that firmware uses below 1 MiB; *rsdp is where they are. */
int acpi_install(struct machine *m, gpa_t *rsdp, struct plx_err *err);

#endif
