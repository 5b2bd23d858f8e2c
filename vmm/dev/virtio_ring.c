/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_ring.c - split virtqueues (VIRTIO 1.2, "Split Virtqueues"); see virtio.h.
 *
 *     descriptor: +0 address, +8 length, +12 flags, +14 next
 *     available:  +0 flags, +2 index, +4 ring[size], then used_event
 *     used:       +0 flags, +2 index, +4 {id, length}[size], then avail_event
 *
 * The three areas were checked to be RAM when the queue was enabled, and RAM never goes away. */
#include <string.h>

#include "base/check.h"
#include "vmm/dev/virtio.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_SIZE = 16 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

bool virtio_range_ok(const struct ram *ram, gpa_t gpa, uint64_t len)
{
    uint64_t page;

    if (len == 0) {
        return true;
    }
    gpa_t last = gpa + (len - 1);
    return last >= gpa && ram_page_of(ram, gpa, &page) && ram_page_of(ram, last, &page) &&
           (gpa >= RAM_HIGH_BASE || last < RAM_HIGH_BASE);
}

static uint16_t ring_u16(const struct virtio *v, gpa_t at)
{
    uint16_t x;
    PLX_CHECK(ram_read(v->m->ram, at, &x, sizeof x) == 0);
    return x;
}

static void ring_put(struct virtio *v, gpa_t at, const void *data, uint32_t len)
{
    PLX_CHECK(ram_write(v->m->ram, at, data, len) == 0);
}

static gpa_t used_event_at(const struct virtq *q)
{
    return q->avail + 4 + 2 * (uint64_t)q->size;
}

static gpa_t avail_event_at(const struct virtq *q)
{
    return q->used + 4 + 8 * (uint64_t)q->size;
}

/* Append one descriptor to the chain; false: the driver broke the rules. */
static bool take_segment(struct virtio *v, struct virtq_chain *c, const struct desc *d)
{
    unsigned n = c->nout + c->nin;

    if (n == VIRTQ_SIZE_MAX) {
        virtio_broken(v, "chain longer than the queue");
        return false;
    }
    if (!virtio_range_ok(v->m->ram, d->addr, d->len)) {
        virtio_broken(v, "buffer outside memory");
        return false;
    }
    c->seg[n] = (struct virtq_segment){d->addr, d->len};
    if ((d->flags & DESC_WRITE) != 0) {
        c->nin++;
        c->in_len += d->len;
    } else if (c->nin != 0) {
        virtio_broken(v, "readable buffer after a writable one");
        return false;
    } else {
        c->nout++;
        c->out_len += d->len;
    }
    return true;
}

/* Walk a table of @n descriptors from entry @i. */
static bool walk(struct virtio *v, gpa_t table, uint32_t n, uint32_t i, bool indirect,
                 struct virtq_chain *c)
{
    struct desc d;

    for (uint32_t steps = 0;; steps++) {
        if (i >= n || steps >= n) {
            virtio_broken(v, i >= n ? "descriptor index out of range" : "descriptor loop");
            return false;
        }
        PLX_CHECK(ram_read(v->m->ram, table + (uint64_t)i * DESC_SIZE, &d, sizeof d) == 0);
        if ((d.flags & DESC_INDIRECT) != 0) {
            /* In the ring itself only, offered and accepted, and it ends the chain ("Indirect
             * Descriptors": a table refers to no other table, and NEXT does not go with it). */
            if (indirect || !virtio_has(v, VIRTIO_F_INDIRECT_DESC) || (d.flags & DESC_NEXT) != 0 ||
                d.len == 0 || d.len % DESC_SIZE != 0 ||
                !virtio_range_ok(v->m->ram, d.addr, d.len)) {
                virtio_broken(v, "bad indirect descriptor");
                return false;
            }
            return walk(v, d.addr, d.len / DESC_SIZE, 0, true, c);
        }
        if (!take_segment(v, c, &d)) {
            return false;
        }
        if ((d.flags & DESC_NEXT) == 0) {
            return true;
        }
        i = d.next;
    }
}

bool virtq_pop(struct virtio *v, unsigned qi, struct virtq_chain *c)
{
    struct virtq *q = &v->q[qi];

    if (!virtio_running(v) || !q->enabled) {
        return false;
    }
    uint16_t waiting = (uint16_t)(ring_u16(v, q->avail + 2) - q->last_avail);
    if (waiting == 0) {
        return false;
    }
    if (waiting > q->size) {
        virtio_broken(v, "available index moved too far");
        return false;
    }
    c->head = ring_u16(v, q->avail + 4 + 2 * (uint64_t)(q->last_avail & (q->size - 1)));
    c->nout = 0;
    c->nin = 0;
    c->out_len = 0;
    c->in_len = 0;
    if (!walk(v, q->desc, q->size, c->head, false, c)) {
        return false;
    }
    q->last_avail++;
    return true;
}

void virtq_unpop(struct virtio *v, unsigned q, unsigned n)
{
    v->q[q].last_avail = (uint16_t)(v->q[q].last_avail - n);
}

void virtq_push(struct virtio *v, unsigned qi, uint16_t head, uint32_t len)
{
    struct virtq *q = &v->q[qi];
    uint32_t elem[2] = {head, len};

    ring_put(v, q->used + 4 + 8 * (uint64_t)(q->used_idx & (q->size - 1)), elem, sizeof elem);
    q->used_idx++;
}

void virtq_signal(struct virtio *v, unsigned qi)
{
    struct virtq *q = &v->q[qi];
    uint16_t fresh = (uint16_t)(q->used_idx - q->signalled);
    bool wanted;

    if (fresh == 0) {
        return;
    }
    ring_put(v, q->used + 2, &q->used_idx, sizeof q->used_idx);
    if (virtio_has(v, VIRTIO_F_EVENT_IDX)) {
        /* "Used Buffer Notification Suppression": is used_event among the entries just added? */
        uint16_t event = ring_u16(v, used_event_at(q));
        wanted = (uint16_t)(q->used_idx - event - 1) < fresh;
    } else {
        wanted = (ring_u16(v, q->avail) & AVAIL_NO_INTERRUPT) == 0;
    }
    q->signalled = q->used_idx;
    if (wanted && v->transport.queue_interrupt != NULL) {
        v->transport.queue_interrupt(v->transport.ctx, q->vector);
    }
}

void virtq_want_notify(struct virtio *v, unsigned qi, bool want)
{
    struct virtq *q = &v->q[qi];

    if (!virtio_running(v) || !q->enabled) {
        return;
    }
    if (virtio_has(v, VIRTIO_F_EVENT_IDX)) {
        /* The doorbell is due when the index passes avail_event; a stale one mutes it. */
        if (want) {
            uint16_t event = ring_u16(v, q->avail + 2);
            ring_put(v, avail_event_at(q), &event, sizeof event);
        }
    } else if (q->muted == want) {
        uint16_t flags = want ? 0 : USED_NO_NOTIFY;
        ring_put(v, q->used, &flags, sizeof flags);
    }
    q->muted = !want;
}

/* Copy between @data and bytes [off, off + len) of @n segments. */
static uint32_t copy(struct virtio *v, const struct virtq_segment *seg, unsigned n, uint64_t off,
                     uint8_t *out, const uint8_t *data, uint32_t len)
{
    uint32_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        if (off >= seg[i].len) {
            off -= seg[i].len;
            continue;
        }
        uint32_t part = seg[i].len - (uint32_t)off;
        if (part > len - done) {
            part = len - done;
        }
        if (out != NULL) {
            PLX_CHECK(ram_read(v->m->ram, seg[i].gpa + off, out + done, part) == 0);
        } else {
            PLX_CHECK(ram_write(v->m->ram, seg[i].gpa + off, data + done, part) == 0);
        }
        done += part;
        off = 0;
    }
    return done;
}

uint32_t virtq_read(struct virtio *v, const struct virtq_chain *c, uint64_t off, void *data,
                    uint32_t len)
{
    return copy(v, c->seg, c->nout, off, data, NULL, len);
}

uint32_t virtq_write(struct virtio *v, const struct virtq_segment *in, unsigned nin, uint64_t off,
                     const void *data, uint32_t len)
{
    return copy(v, in, nin, off, NULL, data, len);
}
