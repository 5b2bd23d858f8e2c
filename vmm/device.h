/* SPDX-License-Identifier: Apache-2.0
 * vmm/device.h - a component of the machine: a name, a version, reset, save, load.
 *
 * Every piece of state has one owner, and every owner writes one named, versioned section. The
 * same bytes serve digest, state file and in-place save and load, so save must be a function of
 * state alone: no pointers, no padding, no order that depends on a host.
 * Threading: called between slices or in the serial part, by the VM thread. */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include "base/buf.h"
#include "base/err.h"

struct device_ops {
    /* To the state after power-on. Also called once after creation. */
    void (*reset)(void *dev);
    void (*save)(const void *dev, struct wbuf *out);
    /* Reads exactly what save of @version wrote and validates every value as if a hostile peer
     * had written it. On error the machine is thrown away, so half-changed state is harmless.
     * Errors: PLX_EVERSION, PLX_ETRUNCATED, PLX_ECORRUPT, with a message that names the field. */
    int (*load)(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err);
};

struct device {
    char name[32];    /* unique in the machine, e.g. "cpu0", "lapic0", "virtio-net0" */
    uint32_t version; /* of the section that save writes */
    const struct device_ops *ops;
    void *dev; /* first argument of every op */
};

#endif
