/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio.h - the part common to all virtio 1.x devices: status, features, split rings.
 *
 * Follows Virtual I/O Device (VIRTIO) Version 1.2, "Basic Facilities of a Virtio Device". A struct
 * virtio knows neither PCI nor what its device does: the transport (virtio_pci.h) reaches it by
 * the functions below and is told of interrupts by ops; the device behind it gets doorbells.
 *
 * Rings are written by a guest that may be hostile: every index, address and length is read once,
 * checked, and used as read. A broken ring puts the device into DEVICE_NEEDS_RESET; nothing is
 * touched outside RAM, and nothing more is done until the driver resets the device.
 *
 * Ownership: embedded in its device. Threading: the serial part (R8). Determinism: all fields
 * except the constant ones are state, saved by virtio_save in the device's section. */
#ifndef VMM_DEV_VIRTIO_H
#define VMM_DEV_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/machine.h"

enum { VIRTIO_QUEUES_MAX = 4, VIRTQ_SIZE_MAX = 256, VIRTIO_NO_VECTOR = 0xffff };

enum {
    VIRTIO_S_ACKNOWLEDGE = 1,
    VIRTIO_S_DRIVER = 2,
    VIRTIO_S_DRIVER_OK = 4,
    VIRTIO_S_FEATURES_OK = 8,
    VIRTIO_S_NEEDS_RESET = 64,
    VIRTIO_S_FAILED = 128
};

#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
/* Offered by every device here. */
#define VIRTIO_F_RING          (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

struct virtq {
    uint16_t size;   /* a power of two, <= VIRTQ_SIZE_MAX */
    uint16_t vector; /* MSI-X, or VIRTIO_NO_VECTOR */
    bool enabled;
    uint64_t desc, avail, used; /* GPAs of the three areas */
    uint16_t last_avail;        /* next entry of the available ring to take */
    uint16_t used_idx;          /* next entry of the used ring to fill */
    uint16_t signalled;         /* used_idx when the driver was last asked about an interrupt */
    bool muted;                 /* the driver was told not to ring the doorbell */
};

/* A request as the driver made it: @nout readable segments, then @nin writable ones. */
struct virtq_segment {
    gpa_t gpa;
    uint32_t len;
};
struct virtq_chain {
    uint16_t head;
    unsigned nout, nin;
    uint64_t out_len, in_len; /* bytes */
    struct virtq_segment seg[VIRTQ_SIZE_MAX];
};

struct virtio_ops {
    void (*reset)(void *dev);              /* by the driver: forget what the rings held */
    void (*notify)(void *dev, unsigned q); /* doorbell of an enabled queue, device running */
};

struct virtio_transport {
    void (*queue_interrupt)(void *ctx, uint16_t vector);
    void (*config_interrupt)(void *ctx, uint16_t vector);
    void (*quiet)(void *ctx); /* reset: take back a pending interrupt */
    void *ctx;
};

struct virtio {
    /* constant */
    struct machine *m;
    const char *name;
    uint16_t type; /* virtio device type, e.g. 1: network */
    const struct virtio_ops *ops;
    void *dev;
    struct virtio_transport transport;
    uint64_t offered; /* features */
    unsigned nqueues;
    const uint8_t *config; /* device-specific configuration, constant */
    unsigned config_len;
    /* state */
    uint8_t status;
    uint64_t accepted; /* features the driver wrote */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint8_t isr; /* bit 0: queue, bit 1: configuration */
    struct virtq q[VIRTIO_QUEUES_MAX];
};

/* Fills the constant part; the device sets config afterwards. */
void virtio_init(struct virtio *v, struct machine *m, const char *name, uint16_t type,
                 const struct virtio_ops *ops, void *dev, uint64_t features, unsigned nqueues);
/* Power-on or driver reset; calls ops->reset. */
void virtio_reset(struct virtio *v);
void virtio_save(const struct virtio *v, struct wbuf *out);
int virtio_load(struct virtio *v, struct rbuf *in, struct plx_err *err);

static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return (v->accepted & feature) != 0;
}
/* The driver is ready and nothing is broken. */
static inline bool virtio_running(const struct virtio *v)
{
    return (v->status & (VIRTIO_S_DRIVER_OK | VIRTIO_S_NEEDS_RESET)) == VIRTIO_S_DRIVER_OK;
}

/* --- the transport's side (virtio.c) --- */
void virtio_write_status(struct virtio *v, uint8_t status);
void virtio_write_features(struct virtio *v, unsigned half, uint32_t bits);
/* Checks size and addresses; a queue that cannot work breaks the device. */
void virtio_enable_queue(struct virtio *v, unsigned q);
void virtio_notify(struct virtio *v, unsigned q);

/* --- the device's side (virtio_ring.c) --- */
/* Set DEVICE_NEEDS_RESET and tell the driver. @why goes to the debug log. */
void virtio_broken(struct virtio *v, const char *why);
/* Take the next request into @c. False: there is none, or the ring turned out broken. */
bool virtq_pop(struct virtio *v, unsigned q, struct virtq_chain *c);
/* Put the last @n taken requests back. */
void virtq_unpop(struct virtio *v, unsigned q, unsigned n);
/* Give a request back with @len bytes written into it. virtq_signal shows it to the driver. */
void virtq_push(struct virtio *v, unsigned q, uint16_t head, uint32_t len);
/* Publish what was pushed and interrupt if the driver wants that. */
void virtq_signal(struct virtio *v, unsigned q);
/* Ask for a doorbell when the driver adds to the queue from now on, or not. */
void virtq_want_notify(struct virtio *v, unsigned q, bool want);

/* Copy out of the readable part from byte @off, at most @len bytes; returns how many. */
uint32_t virtq_read(struct virtio *v, const struct virtq_chain *c, uint64_t off, void *data,
                    uint32_t len);
/* Copy into the writable part from byte @off. Segments were checked when the request was taken. */
uint32_t virtq_write(struct virtio *v, const struct virtq_segment *in, unsigned nin, uint64_t off,
                     const void *data, uint32_t len);
/* All bytes are RAM and do not wrap. */
bool virtio_range_ok(const struct ram *ram, gpa_t gpa, uint64_t len);

#endif
