/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_devices.h - creating the plain virtio 1.x PCI devices of a machine.
 *
 * Each call adds a function to machine->pci, registers the device ("virtio-net0", ...) and its
 * input port. Owned by the PCI bus. Modern interface only (Virtual I/O Device (VIRTIO) Version 1.2,
 * "Virtio Over PCI Bus"). */
#ifndef VMM_DEV_VIRTIO_DEVICES_H
#define VMM_DEV_VIRTIO_DEVICES_H

#include "base/err.h"
#include "vmm/machine.h"

int virtio_net_create(struct machine *m, unsigned slot, unsigned nic, struct plx_err *err);
int virtio_blk_create(struct machine *m, unsigned slot, unsigned disk, struct plx_err *err);
int virtio_rng_create(struct machine *m, unsigned slot, struct plx_err *err);
int virtio_console_create(struct machine *m, unsigned slot, struct plx_err *err);

/* After a state was loaded into a fresh process: appends the disk requests in flight to @out, with
 * their ids, for the local backends. Reads are asked again; changes were executed before the state
 * was written (a state is saved only when its backends are idle), so they return as flushes. */
void virtio_blk_reissue(struct machine *m, struct output_list *out);

#endif
