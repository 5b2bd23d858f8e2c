/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_net.c - virtio network card (VIRTIO 1.2, "Network Device"): MAC, link status,
 * mergeable receive buffers, no offloads.
 *
 * A frame the guest sends is copied when it is taken from the ring and is an output; what is no
 * frame, or too much for one slice, is dropped and counted. A frame that
 * arrives (INPUT_NET_RX) is placed at once, or waits in a bounded queue for buffers, or is dropped
 * and counted. Section: the common part, waiting frames, counters. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "vmm/dev/virtio.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/dev/virtio_pci.h"

#define VIRTIO_NET_F_MAC       (UINT64_C(1) << 5)
#define VIRTIO_NET_F_MRG_RXBUF (UINT64_C(1) << 15)
#define VIRTIO_NET_F_STATUS    (UINT64_C(1) << 16)

enum { NET_TYPE = 1, NET_CLASS = 0x020000, NET_VERSION = 1 };
enum { QUEUE_RX, QUEUE_TX, QUEUES };
enum { HDR_LEN = 12, HDR_NUM_BUFFERS = 10 }; /* struct virtio_net_hdr */
enum {
    FRAME_MIN = 14,
    FRAME_MAX = 65550,    /* Ethernet header to 64 KiB of payload */
    CHAINS_MAX = 32,      /* receive buffers merged for one frame */
    WAITING_MAX = 1 << 19 /* bytes, lengths included */
};

struct virtio_net {
    struct virtio v;
    struct virtio_pci pci;
    unsigned nic;
    char name[32];
    uint8_t config[8]; /* mac, status */
    /* state: frames that wait for buffers, each a 32-bit length and its bytes, oldest first, at
     * waiting[start..end) */
    uint32_t start, end;
    uint8_t waiting[WAITING_MAX];
    uint64_t rx_dropped, tx_dropped;
    /* scratch */
    struct virtq_chain chains[CHAINS_MAX];
    uint8_t frame[HDR_LEN + FRAME_MAX];
};

static void net_driver_reset(void *dev)
{
    struct virtio_net *n = dev;
    n->start = 0;
    n->end = 0;
}

static void transmit(struct virtio_net *n)
{
    struct virtq_chain *c = &n->chains[0];

    while (virtq_pop(&n->v, QUEUE_TX, c)) {
        if (c->out_len < HDR_LEN + FRAME_MIN || c->out_len > sizeof n->frame ||
            !machine_net_room(n->v.m, c->out_len)) {
            n->tx_dropped++;
        } else {
            uint32_t len = virtq_read(&n->v, c, 0, n->frame, sizeof n->frame);
            machine_net_tx(n->v.m, n->nic, n->frame + HDR_LEN, len - HDR_LEN);
        }
        virtq_push(&n->v, QUEUE_TX, c->head, 0);
    }
    virtq_want_notify(&n->v, QUEUE_TX, true);
    virtq_signal(&n->v, QUEUE_TX);
}

/* Place n->frame (header and frame, @len bytes). False: not enough buffers yet. What no number of
 * buffers can hold is dropped. */
static bool place(struct virtio_net *n, uint32_t len)
{
    unsigned max = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF) ? CHAINS_MAX : 1;
    uint64_t room = 0;
    uint16_t used = 0;
    uint32_t off = 0;

    while (room < len && used < max) {
        struct virtq_chain *c = &n->chains[used];
        if (!virtq_pop(&n->v, QUEUE_RX, c)) {
            virtq_unpop(&n->v, QUEUE_RX, used);
            return false;
        }
        room += c->in_len;
        used++;
    }
    if (room < len) {
        virtq_unpop(&n->v, QUEUE_RX, used);
        n->rx_dropped++;
        return true;
    }
    memcpy(n->frame + HDR_NUM_BUFFERS, &used, sizeof used);
    for (unsigned i = 0; i < used; i++) {
        const struct virtq_chain *c = &n->chains[i];
        uint32_t part = virtq_write(&n->v, c->seg + c->nout, c->nin, 0, n->frame + off, len - off);
        virtq_push(&n->v, QUEUE_RX, c->head, part);
        off += part;
    }
    return true;
}

/* Place one frame that arrived or waited. */
static bool place_frame(struct virtio_net *n, const uint8_t *data, uint32_t len)
{
    memset(n->frame, 0, HDR_LEN);
    memcpy(n->frame + HDR_LEN, data, len);
    return place(n, HDR_LEN + len);
}

static void place_waiting(struct virtio_net *n)
{
    while (n->start < n->end) {
        uint32_t len;
        memcpy(&len, n->waiting + n->start, sizeof len);
        if (!place_frame(n, n->waiting + n->start + sizeof len, len)) {
            break;
        }
        n->start += (uint32_t)sizeof len + len;
    }
    if (n->start == n->end) {
        n->start = 0;
        n->end = 0;
    }
    virtq_want_notify(&n->v, QUEUE_RX, n->end != 0);
    virtq_signal(&n->v, QUEUE_RX);
}

static void hold(struct virtio_net *n, const uint8_t *data, uint32_t len)
{
    uint32_t need = (uint32_t)sizeof len + len;

    if (n->end - n->start + need > WAITING_MAX) {
        n->rx_dropped++;
        return;
    }
    if (n->end + need > WAITING_MAX) {
        memmove(n->waiting, n->waiting + n->start, n->end - n->start);
        n->end -= n->start;
        n->start = 0;
    }
    memcpy(n->waiting + n->end, &len, sizeof len);
    memcpy(n->waiting + n->end + sizeof len, data, len);
    n->end += need;
}

static int net_input(void *ctx, const struct input *in, struct plx_err *err)
{
    struct virtio_net *n = ctx;

    (void)err;
    if (!virtio_running(&n->v) || in->len < FRAME_MIN || in->len > FRAME_MAX) {
        n->rx_dropped++;
        return 0;
    }
    if (n->start != n->end || !place_frame(n, in->data, in->len)) {
        hold(n, in->data, in->len);
    }
    place_waiting(n);
    return 0;
}

static void net_notify(void *dev, unsigned q)
{
    struct virtio_net *n = dev;

    if (q == QUEUE_TX) {
        transmit(n);
    } else if (q == QUEUE_RX) {
        place_waiting(n);
    }
}

static const struct virtio_ops net_ops = {net_driver_reset, net_notify};

static void net_reset(void *dev)
{
    struct virtio_net *n = dev;

    virtio_reset(&n->v);
    n->rx_dropped = 0;
    n->tx_dropped = 0;
}

static void net_save(const void *dev, struct wbuf *out)
{
    const struct virtio_net *n = dev;

    virtio_save(&n->v, out);
    wbuf_u64(out, n->rx_dropped);
    wbuf_u64(out, n->tx_dropped);
    wbuf_u32(out, n->end - n->start);
    wbuf_put(out, n->waiting + n->start, n->end - n->start);
}

static int net_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct virtio_net *n = dev;

    if (version != NET_VERSION) {
        return plx_fail(err, PLX_EVERSION, "%s: version %u", n->name, version);
    }
    int rc = virtio_load(&n->v, in, err);
    if (rc != 0) {
        return rc;
    }
    n->rx_dropped = rbuf_u64(in);
    n->tx_dropped = rbuf_u64(in);
    n->start = 0;
    n->end = rbuf_u32(in);
    if (n->end > WAITING_MAX) {
        return plx_fail(err, PLX_ECORRUPT, "%s: %u bytes waiting", n->name, n->end);
    }
    rbuf_get(in, n->waiting, n->end);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated", n->name);
    }
    for (uint32_t at = 0; at < n->end;) {
        uint32_t len = 0;
        if (n->end - at >= sizeof len) {
            memcpy(&len, n->waiting + at, sizeof len);
            at += (uint32_t)sizeof len;
        }
        if (len < FRAME_MIN || len > FRAME_MAX || len > n->end - at) {
            return plx_fail(err, PLX_ECORRUPT, "%s: a waiting frame", n->name);
        }
        at += len;
    }
    return 0;
}

static const struct device_ops net_device = {net_reset, net_save, net_load};

int virtio_net_create(struct machine *m, unsigned slot, unsigned nic, struct plx_err *err)
{
    int rc;
    struct virtio_net *n = plx_calloc(1, sizeof *n);

    if (n == NULL) {
        return plx_fail(err, PLX_ENOMEM, "virtio-net%u: out of memory", nic);
    }
    n->nic = nic;
    (void)snprintf(n->name, sizeof n->name, "virtio-net%u", nic);
    virtio_init(&n->v, m, n->name, NET_TYPE, &net_ops, n,
                VIRTIO_F_RING | VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF,
                QUEUES);
    memcpy(n->config, m->cfg.nics[nic].mac, 6);
    n->config[6] = 1; /* VIRTIO_NET_S_LINK_UP */
    n->v.config = n->config;
    n->v.config_len = sizeof n->config;
    rc = virtio_pci_create(&n->pci, &n->v, slot, NET_CLASS, err);
    if (rc != 0) {
        plx_free(n);
        return rc;
    }
    n->pci.fn->destroy = plx_free;
    n->pci.fn->destroy_ctx = n;
    m->nic[nic] = (struct input_port){net_input, n};
    machine_add_device(m, n->name, NET_VERSION, &net_device, n);
    return 0;
}
