/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/aml.h - just enough of an AML writer for our DSDT.
 *
 * Follows the ACPI Specification, "ACPI Machine Language (AML) Specification" and "Resource Data
 * Types for ACPI". Every function appends to a wbuf, which latches failures; packages nest by
 * begin and end. */
#ifndef VMM_BOOT_AML_H
#define VMM_BOOT_AML_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* A term with a PkgLength: the length is written by aml_end, given what begin returned. Names are
 * one segment of four characters, with an optional leading backslash. */
size_t aml_scope(struct wbuf *b, const char *name);
size_t aml_device(struct wbuf *b, const char *name);
size_t aml_package(struct wbuf *b, uint8_t elements);
void aml_end(struct wbuf *b, size_t begun);

void aml_name(struct wbuf *b, const char *name); /* Name(name, ...): the value follows */
void aml_int(struct wbuf *b, uint64_t v);
void aml_eisa_id(struct wbuf *b, const char id[static 7]); /* as in "PNP0A03" */

/* A resource template: resources between begin and end. */
struct aml_resources {
    size_t buffer, size_at, start;
};
void aml_resources_begin(struct wbuf *b, struct aml_resources *r);
void aml_resources_end(struct wbuf *b, const struct aml_resources *r);
void aml_io(struct wbuf *b, uint16_t base, uint8_t len);
void aml_irq(struct wbuf *b, unsigned irq); /* edge, active high */
void aml_bus_range(struct wbuf *b, uint16_t first, uint16_t last);
void aml_io_range(struct wbuf *b, uint16_t first, uint16_t last);
void aml_memory_range(struct wbuf *b, uint32_t first, uint32_t last);

#endif
