/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio.c - see virtio.h. Status, features, queue set-up, save and load. The rings are in
 * virtio_ring.c. */
#include "vmm/dev/virtio.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"

/* Bits a driver may set. */
enum {
    STATUS_WRITABLE = VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_DRIVER_OK |
                      VIRTIO_S_FEATURES_OK | VIRTIO_S_FAILED
};

void virtio_init(struct virtio *v, struct machine *m, const char *name, uint16_t type,
                 const struct virtio_ops *ops, void *dev, uint64_t features, unsigned nqueues)
{
    PLX_CHECK(nqueues <= VIRTIO_QUEUES_MAX);
    v->m = m;
    v->name = name;
    v->type = type;
    v->ops = ops;
    v->dev = dev;
    v->offered = features;
    v->nqueues = nqueues;
}

void virtio_reset(struct virtio *v)
{
    v->status = 0;
    v->accepted = 0;
    v->device_feature_select = 0;
    v->driver_feature_select = 0;
    v->queue_select = 0;
    v->config_vector = VIRTIO_NO_VECTOR;
    v->isr = 0;
    for (unsigned q = 0; q < v->nqueues; q++) {
        v->q[q] = (struct virtq){.size = VIRTQ_SIZE_MAX, .vector = VIRTIO_NO_VECTOR};
    }
    if (v->transport.quiet != NULL) {
        v->transport.quiet(v->transport.ctx);
    }
    v->ops->reset(v->dev);
}

void virtio_write_features(struct virtio *v, unsigned half, uint32_t bits)
{
    if (half < 2 && (v->status & VIRTIO_S_FEATURES_OK) == 0) {
        v->accepted &= ~(UINT64_C(0xffffffff) << (32 * half));
        v->accepted |= (uint64_t)bits << (32 * half);
    }
}

static bool features_acceptable(const struct virtio *v)
{
    return (v->accepted & ~v->offered) == 0 && virtio_has(v, VIRTIO_F_VERSION_1);
}

/* 0 resets; otherwise bits are only ever added ("Device Status Field"). FEATURES_OK stays clear
 * when the features do not fit, DRIVER_OK before FEATURES_OK is not taken. */
void virtio_write_status(struct virtio *v, uint8_t status)
{
    uint8_t add = (uint8_t)(status & STATUS_WRITABLE & ~v->status);

    if (status == 0) {
        virtio_reset(v);
        return;
    }
    if ((add & VIRTIO_S_FEATURES_OK) != 0 && !features_acceptable(v)) {
        add &= (uint8_t)~VIRTIO_S_FEATURES_OK;
    }
    if (((v->status | add) & VIRTIO_S_FEATURES_OK) == 0) {
        add &= (uint8_t)~VIRTIO_S_DRIVER_OK;
    }
    v->status |= add;
    if ((add & VIRTIO_S_DRIVER_OK) != 0 && virtio_running(v)) {
        /* Buffers made available before DRIVER_OK need no doorbell of their own. */
        for (unsigned q = 0; q < v->nqueues; q++) {
            virtio_notify(v, q);
        }
    }
}

static bool queue_usable(const struct virtio *v, const struct virtq *q)
{
    uint64_t n = q->size;

    return n != 0 && n <= VIRTQ_SIZE_MAX && (n & (n - 1)) == 0 && (q->desc & 15) == 0 &&
           (q->avail & 1) == 0 && (q->used & 3) == 0 &&
           virtio_range_ok(v->m->ram, q->desc, 16 * n) &&
           virtio_range_ok(v->m->ram, q->avail, 6 + 2 * n) &&
           virtio_range_ok(v->m->ram, q->used, 6 + 8 * n);
}

void virtio_enable_queue(struct virtio *v, unsigned q)
{
    if (v->q[q].enabled) {
        return;
    }
    if (!queue_usable(v, &v->q[q])) {
        virtio_broken(v, "queue enabled with a bad size or address");
        return;
    }
    v->q[q].enabled = true;
}

void virtio_notify(struct virtio *v, unsigned q)
{
    if (q < v->nqueues && virtio_running(v) && v->q[q].enabled) {
        v->ops->notify(v->dev, q);
    }
}

void virtio_broken(struct virtio *v, const char *why)
{
    if ((v->status & VIRTIO_S_NEEDS_RESET) != 0) {
        return;
    }
    log_debug("%s: needs reset: %s", v->name, why);
    v->status |= VIRTIO_S_NEEDS_RESET;
    if ((v->status & VIRTIO_S_DRIVER_OK) != 0 && v->transport.config_interrupt != NULL) {
        v->transport.config_interrupt(v->transport.ctx, v->config_vector);
    }
}

void virtio_save(const struct virtio *v, struct wbuf *out)
{
    wbuf_u8(out, v->status);
    wbuf_u64(out, v->accepted);
    wbuf_u32(out, v->device_feature_select);
    wbuf_u32(out, v->driver_feature_select);
    wbuf_u16(out, v->queue_select);
    wbuf_u16(out, v->config_vector);
    wbuf_u8(out, v->isr);
    wbuf_u8(out, (uint8_t)v->nqueues);
    for (unsigned i = 0; i < v->nqueues; i++) {
        const struct virtq *q = &v->q[i];
        wbuf_u16(out, q->size);
        wbuf_u16(out, q->vector);
        wbuf_u8(out, q->enabled);
        wbuf_u64(out, q->desc);
        wbuf_u64(out, q->avail);
        wbuf_u64(out, q->used);
        wbuf_u16(out, q->last_avail);
        wbuf_u16(out, q->used_idx);
        wbuf_u16(out, q->signalled);
        wbuf_u8(out, q->muted);
    }
}

static int load_queue(struct virtio *v, unsigned i, struct rbuf *in, struct plx_err *err)
{
    struct virtq *q = &v->q[i];

    q->size = rbuf_u16(in);
    q->vector = rbuf_u16(in);
    uint8_t enabled = rbuf_u8(in);
    q->desc = rbuf_u64(in);
    q->avail = rbuf_u64(in);
    q->used = rbuf_u64(in);
    q->last_avail = rbuf_u16(in);
    q->used_idx = rbuf_u16(in);
    q->signalled = rbuf_u16(in);
    uint8_t muted = rbuf_u8(in);
    q->enabled = enabled == 1;
    q->muted = muted == 1;
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated in queue %u", v->name, i);
    }
    if (enabled > 1 || muted > 1 || (q->enabled && !queue_usable(v, q))) {
        return plx_fail(err, PLX_ECORRUPT, "%s: queue %u", v->name, i);
    }
    return 0;
}

int virtio_load(struct virtio *v, struct rbuf *in, struct plx_err *err)
{
    v->status = rbuf_u8(in);
    v->accepted = rbuf_u64(in);
    v->device_feature_select = rbuf_u32(in);
    v->driver_feature_select = rbuf_u32(in);
    v->queue_select = rbuf_u16(in);
    v->config_vector = rbuf_u16(in);
    v->isr = rbuf_u8(in);
    uint8_t nqueues = rbuf_u8(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated", v->name);
    }
    if ((v->status & ~(STATUS_WRITABLE | VIRTIO_S_NEEDS_RESET)) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s: status %#x", v->name, v->status);
    }
    if ((v->status & VIRTIO_S_FEATURES_OK) != 0 && !features_acceptable(v)) {
        return plx_fail(err, PLX_ECORRUPT, "%s: features", v->name);
    }
    if (v->isr > 3 || nqueues != v->nqueues) {
        return plx_fail(err, PLX_ECORRUPT, "%s: isr or number of queues", v->name);
    }
    for (unsigned i = 0; i < v->nqueues; i++) {
        int rc = load_queue(v, i, in, err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}
