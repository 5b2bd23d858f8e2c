/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_pci.h - virtio over a PCI function: vendor capabilities and one BAR (VIRTIO 1.2,
 * "Virtio Over PCI Bus"). Modern interface only. The function may be any: a plain virtio device
 * made by virtio_pci_create, or a bimodal one that virtio_pci_attach adds its fast mode to. */
#ifndef VMM_DEV_VIRTIO_PCI_H
#define VMM_DEV_VIRTIO_PCI_H

#include "vmm/dev/pci.h"
#include "vmm/dev/virtio.h"

/* Layout of the BAR: a page for each structure. */
enum {
    VIRTIO_BAR_COMMON = 0x0000,
    VIRTIO_BAR_ISR = 0x1000,
    VIRTIO_BAR_DEVICE = 0x2000,
    VIRTIO_BAR_NOTIFY = 0x3000,
    VIRTIO_BAR_SIZE = 0x4000,
    VIRTIO_NOTIFY_MULTIPLIER = 4
};

struct virtio_pci {
    struct virtio *v;
    struct pci_function *fn;
    unsigned bar;
    unsigned cfg_cap; /* offset of the PCI configuration access capability */
};

/* Add the capabilities and BAR @bar to @fn (which has MSI-X already, if it is to have it) and
 * become @v's transport. @p lives as long as the function. */
void virtio_pci_attach(struct virtio_pci *p, struct virtio *v, struct pci_function *fn,
                       unsigned bar);
/* A plain virtio function in @slot with MSI-X (a vector a queue and one for configuration): BAR 0
 * is virtio's, BAR 1 MSI-X's. @class_code as in the class register. */
int virtio_pci_create(struct virtio_pci *p, struct virtio *v, unsigned slot, uint32_t class_code,
                      struct plx_err *err);

#endif
