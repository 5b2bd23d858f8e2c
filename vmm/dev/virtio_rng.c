/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_rng.c - virtio entropy device (VIRTIO 1.2, "Entropy Device").
 *
 * Gives bytes of the machine's generator, whose seed is an input (R6). Section: the common part
 * only; the generator is in "machine". */
#include <string.h>

#include "base/alloc.h"
#include "vmm/dev/virtio.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/dev/virtio_pci.h"

enum { RNG_TYPE = 4, RNG_CLASS = 0x00ff00, RNG_VERSION = 1, RNG_BYTES_MAX = 4096 };

struct virtio_rng {
    struct virtio v;
    struct virtio_pci pci;
    struct virtq_chain chain; /* scratch */
};

static void rng_driver_reset(void *dev)
{
    (void)dev;
}

static void rng_notify(void *dev, unsigned q)
{
    struct virtio_rng *r = dev;
    uint8_t bytes[RNG_BYTES_MAX];

    while (virtq_pop(&r->v, q, &r->chain)) {
        uint32_t len = r->chain.in_len < sizeof bytes ? (uint32_t)r->chain.in_len : sizeof bytes;
        prng_fill(&r->v.m->rng, bytes, len);
        (void)virtq_write(&r->v, r->chain.seg + r->chain.nout, r->chain.nin, 0, bytes, len);
        virtq_push(&r->v, q, r->chain.head, len);
    }
    virtq_want_notify(&r->v, q, true);
    virtq_signal(&r->v, q);
}

static const struct virtio_ops rng_ops = {rng_driver_reset, rng_notify};

static void rng_reset(void *dev)
{
    struct virtio_rng *r = dev;
    virtio_reset(&r->v);
}

static void rng_save(const void *dev, struct wbuf *out)
{
    const struct virtio_rng *r = dev;
    virtio_save(&r->v, out);
}

static int rng_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct virtio_rng *r = dev;

    if (version != RNG_VERSION) {
        return plx_fail(err, PLX_EVERSION, "%s: version %u", r->v.name, version);
    }
    return virtio_load(&r->v, in, err);
}

static const struct device_ops rng_device = {rng_reset, rng_save, rng_load};

int virtio_rng_create(struct machine *m, unsigned slot, struct plx_err *err)
{
    int rc;
    struct virtio_rng *r = plx_calloc(1, sizeof *r);

    if (r == NULL) {
        return plx_fail(err, PLX_ENOMEM, "virtio-rng0: out of memory");
    }
    virtio_init(&r->v, m, "virtio-rng0", RNG_TYPE, &rng_ops, r, VIRTIO_F_RING, 1);
    rc = virtio_pci_create(&r->pci, &r->v, slot, RNG_CLASS, err);
    if (rc != 0) {
        plx_free(r);
        return rc;
    }
    r->pci.fn->destroy = plx_free;
    r->pci.fn->destroy_ctx = r;
    machine_add_device(m, r->v.name, RNG_VERSION, &rng_device, r);
    return 0;
}
