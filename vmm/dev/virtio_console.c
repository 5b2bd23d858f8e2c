/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_console.c - virtio console with one port (VIRTIO 1.2, "Console Device").
 *
 * What the guest writes leaves at once, each byte with its position, so that a takeover neither
 * loses nor repeats any; what is too much for one slice is dropped. What is typed waits in a
 * bounded queue for a buffer of the guest; beyond that it is dropped and counted. Section: the
 * common part, position, queue, counter. */
#include <string.h>

#include "base/alloc.h"
#include "vmm/dev/virtio.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/dev/virtio_pci.h"

enum { CONSOLE_TYPE = 3, CONSOLE_CLASS = 0x078000, CONSOLE_VERSION = 1 };
enum { QUEUE_RX, QUEUE_TX, QUEUES };
enum { RX_MAX = 4096 /* bytes typed and not yet read */, TX_PART = 4096 };

struct virtio_console {
    struct virtio v;
    struct virtio_pci pci;
    /* state */
    uint64_t position; /* of the next byte that leaves */
    uint32_t rx_len;
    uint8_t rx[RX_MAX];
    uint64_t rx_dropped;
    struct virtq_chain chain; /* scratch */
};

static void console_driver_reset(void *dev)
{
    struct virtio_console *c = dev;
    c->rx_len = 0;
}

static void transmit(struct virtio_console *c)
{
    uint8_t part[TX_PART];

    while (virtq_pop(&c->v, QUEUE_TX, &c->chain)) {
        for (uint64_t off = 0; off < c->chain.out_len && machine_console_room(c->v.m, TX_PART);) {
            uint32_t n = virtq_read(&c->v, &c->chain, off, part, sizeof part);
            machine_console_out(c->v.m, CONSOLE_VIRTIO0, c->position, part, n);
            c->position += n;
            off += n;
        }
        virtq_push(&c->v, QUEUE_TX, c->chain.head, 0);
    }
    virtq_want_notify(&c->v, QUEUE_TX, true);
    virtq_signal(&c->v, QUEUE_TX);
}

static void receive(struct virtio_console *c)
{
    uint32_t done = 0;

    while (done < c->rx_len && virtq_pop(&c->v, QUEUE_RX, &c->chain)) {
        uint32_t n = virtq_write(&c->v, c->chain.seg + c->chain.nout, c->chain.nin, 0, c->rx + done,
                                 c->rx_len - done);
        virtq_push(&c->v, QUEUE_RX, c->chain.head, n);
        done += n;
    }
    c->rx_len -= done;
    memmove(c->rx, c->rx + done, c->rx_len);
    virtq_want_notify(&c->v, QUEUE_RX, c->rx_len != 0);
    virtq_signal(&c->v, QUEUE_RX);
}

static void console_notify(void *dev, unsigned q)
{
    struct virtio_console *c = dev;

    if (q == QUEUE_TX) {
        transmit(c);
    } else if (q == QUEUE_RX) {
        receive(c);
    }
}

static const struct virtio_ops console_ops = {console_driver_reset, console_notify};

static int console_input(void *ctx, const struct input *in, struct plx_err *err)
{
    struct virtio_console *c = ctx;
    uint32_t room = RX_MAX - c->rx_len;
    uint32_t n = in->len < room ? in->len : room;

    (void)err;
    if (!virtio_running(&c->v)) {
        n = 0;
    }
    if (n != 0) {
        memcpy(c->rx + c->rx_len, in->data, n);
    }
    c->rx_len += n;
    c->rx_dropped += in->len - n;
    receive(c);
    return 0;
}

static void console_reset(void *dev)
{
    struct virtio_console *c = dev;

    virtio_reset(&c->v);
    c->position = 0;
    c->rx_dropped = 0;
}

static void console_save(const void *dev, struct wbuf *out)
{
    const struct virtio_console *c = dev;

    virtio_save(&c->v, out);
    wbuf_u64(out, c->position);
    wbuf_u64(out, c->rx_dropped);
    wbuf_u32(out, c->rx_len);
    wbuf_put(out, c->rx, c->rx_len);
}

static int console_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct virtio_console *c = dev;

    if (version != CONSOLE_VERSION) {
        return plx_fail(err, PLX_EVERSION, "%s: version %u", c->v.name, version);
    }
    int rc = virtio_load(&c->v, in, err);
    if (rc != 0) {
        return rc;
    }
    c->position = rbuf_u64(in);
    c->rx_dropped = rbuf_u64(in);
    c->rx_len = rbuf_u32(in);
    if (c->rx_len > RX_MAX) {
        return plx_fail(err, PLX_ECORRUPT, "%s: %u bytes typed", c->v.name, c->rx_len);
    }
    rbuf_get(in, c->rx, c->rx_len);
    return in->failed ? plx_fail(err, PLX_ETRUNCATED, "%s: truncated", c->v.name) : 0;
}

static const struct device_ops console_device = {console_reset, console_save, console_load};

int virtio_console_create(struct machine *m, unsigned slot, struct plx_err *err)
{
    int rc;
    struct virtio_console *c = plx_calloc(1, sizeof *c);

    if (c == NULL) {
        return plx_fail(err, PLX_ENOMEM, "virtio-console0: out of memory");
    }
    virtio_init(&c->v, m, "virtio-console0", CONSOLE_TYPE, &console_ops, c, VIRTIO_F_RING, QUEUES);
    rc = virtio_pci_create(&c->pci, &c->v, slot, CONSOLE_CLASS, err);
    if (rc != 0) {
        plx_free(c);
        return rc;
    }
    c->pci.fn->destroy = plx_free;
    c->pci.fn->destroy_ctx = c;
    m->console[CONSOLE_VIRTIO0] = (struct input_port){console_input, c};
    machine_add_device(m, c->v.name, CONSOLE_VERSION, &console_device, c);
    return 0;
}
