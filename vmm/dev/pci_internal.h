/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pci_internal.h - what pci.c and pci_msix.c share. */
#ifndef VMM_DEV_PCI_INTERNAL_H
#define VMM_DEV_PCI_INTERNAL_H

#include "vmm/dev/pci.h"

struct pci_bus {
    struct machine *m;
    struct pci_function *slots[PCI_SLOTS];
    uint32_t address;      /* 0xcf8 */
    uint8_t reset_control; /* 0xcf9 */
};

/* Send what is pending and no longer masked. */
void pci_msix_deliver(struct pci_function *fn);
void pci_msix_reset(struct pci_function *fn);
/* Table and pending bits of the section "pci". */
int pci_msix_load(struct pci_function *fn, struct rbuf *in, struct plx_err *err);

#endif
