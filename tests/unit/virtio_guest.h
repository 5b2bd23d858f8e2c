/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/virtio_guest.h - a machine with PCI, and the driver's half of virtio in it: finds the
 * capabilities in configuration space, negotiates, sets queues up in RAM, adds requests. */
#ifndef TESTS_UNIT_VIRTIO_GUEST_H
#define TESTS_UNIT_VIRTIO_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/unit/section_checks.h"
#include "vmm/dev/pci.h"
#include "vmm/dev/virtio.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/machine.h"

enum { VIRTIO_RAM = 8 << 20, GUEST_SLOT = 3, GUEST_QSIZE = 8, GUEST_DISK_SECTORS = 2048 };
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct guest {
    struct machine m;
    struct output_list out;
    unsigned msis;
    uint32_t last_msi;
    bool gsi_level[24];
    /* what disk_result gives */
    uint8_t fill;
    unsigned results;
};

struct driver_queue {
    gpa_t desc, avail, used;
    uint16_t size, next_desc, avail_idx, seen;
};

struct driver {
    struct guest *g;
    unsigned slot;
    gpa_t rings; /* 64 KiB for each queue */
    uint64_t common, isr, device, notify;
    unsigned multiplier;
    uint64_t msix;
    struct driver_queue q[VIRTIO_QUEUES_MAX];
};

/* --- the machine --- */

static inline void guest_msi(void *ctx, uint64_t addr, uint32_t data)
{
    struct guest *g = ctx;
    assert_int_equal(addr, 0xfee00000);
    g->msis++;
    g->last_msi = data;
}

static inline void guest_gsi(void *ctx, unsigned line, bool level)
{
    struct guest *g = ctx;
    g->gsi_level[line] = level;
}

static inline int guest_disk_result(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                                    uint8_t *status, struct plx_err *err)
{
    struct guest *g = ctx;
    (void)disk;
    (void)id;
    (void)err;
    if (len != 0) {
        memset(data, g->fill, len);
    }
    *status = DISK_OK;
    g->results++;
    return 0;
}

static inline void guest_open(struct guest *g)
{
    struct machine_config cfg = {.memory = VIRTIO_RAM, .vcpus = 1, .ndisks = 1, .nnics = 1};
    struct machine_host host = {guest_disk_result, g};
    struct plx_err err = {{0}};

    memset(g, 0, sizeof *g);
    cfg.disks[0].sectors = GUEST_DISK_SECTORS;
    memcpy(cfg.nics[0].mac, "\x52\x54\x00\x11\x22\x33", 6);
    assert_int_equal(machine_init(&g->m, &cfg, &host, &err), 0);
    g->m.msi = (struct msi_sink){guest_msi, g};
    for (unsigned i = 0; i < 24; i++) {
        g->m.gsi[i] = (struct irq_line){guest_gsi, g, i};
    }
    output_list_init(&g->out);
    g->m.out = &g->out;
    assert_int_equal(pci_create(&g->m, &g->m.pci, &err), 0);
}

static inline void guest_close(struct guest *g)
{
    pci_destroy(g->m.pci);
    machine_fini(&g->m);
    output_list_free(&g->out);
}

static inline uint32_t guest_cfg_read(struct guest *g, unsigned slot, unsigned off, unsigned size)
{
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0x80000000u | slot << 11 | (off & 0xfc));
    return (uint32_t)bus_read(g->m.bus, BUS_PIO, 0xcfc + (off & 3), size);
}

static inline void guest_cfg_write(struct guest *g, unsigned slot, unsigned off, unsigned size,
                                   uint32_t v)
{
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0x80000000u | slot << 11 | (off & 0xfc));
    bus_write(g->m.bus, BUS_PIO, 0xcfc + (off & 3), size, v);
}

static inline uint64_t guest_mmio_read(struct guest *g, uint64_t at, unsigned size)
{
    return bus_read(g->m.bus, BUS_MMIO, at, size);
}

static inline void guest_mmio_write(struct guest *g, uint64_t at, unsigned size, uint64_t v)
{
    bus_write(g->m.bus, BUS_MMIO, at, size, v);
}

static inline void guest_put(struct guest *g, gpa_t at, const void *data, uint64_t len)
{
    assert_int_equal(ram_write(g->m.ram, at, data, len), 0);
}

static inline void guest_get(struct guest *g, gpa_t at, void *data, uint64_t len)
{
    assert_int_equal(ram_read(g->m.ram, at, data, len), 0);
}

static inline uint16_t guest_u16(struct guest *g, gpa_t at)
{
    uint16_t v;
    guest_get(g, at, &v, sizeof v);
    return v;
}

static inline void guest_put16(struct guest *g, gpa_t at, uint16_t v)
{
    guest_put(g, at, &v, sizeof v);
}

/* --- the driver --- */

static inline uint64_t driver_bar(struct driver *d, unsigned bar)
{
    return guest_cfg_read(d->g, d->slot, PCI_BAR0 + 4 * bar, 4) & ~15u;
}

static inline void driver_find(struct driver *d, struct guest *g, unsigned slot)
{
    memset(d, 0, sizeof *d);
    d->g = g;
    d->slot = slot;
    d->rings = 0x100000;
    unsigned at = guest_cfg_read(g, slot, PCI_CAP_PTR, 1);
    while (at != 0) {
        uint8_t id = (uint8_t)guest_cfg_read(g, slot, at, 1);
        if (id == PCI_CAP_MSIX) {
            d->msix = driver_bar(d, guest_cfg_read(g, slot, at + 4, 4) & 7);
        } else if (id == PCI_CAP_VENDOR) {
            uint8_t type = (uint8_t)guest_cfg_read(g, slot, at + 3, 1);
            uint64_t base = driver_bar(d, guest_cfg_read(g, slot, at + 4, 1)) +
                            guest_cfg_read(g, slot, at + 8, 4);
            if (type == 1) {
                d->common = base;
            } else if (type == 2) {
                d->notify = base;
                d->multiplier = guest_cfg_read(g, slot, at + 16, 4);
            } else if (type == 3) {
                d->isr = base;
            } else if (type == 4) {
                d->device = base;
            }
        }
        at = guest_cfg_read(g, slot, at + 1, 1);
    }
    assert_true(d->common != 0 && d->notify != 0 && d->isr != 0 && d->msix != 0);
}

static inline uint8_t driver_status(struct driver *d)
{
    return (uint8_t)guest_mmio_read(d->g, d->common + 20, 1);
}

static inline void driver_set_status(struct driver *d, uint8_t s)
{
    guest_mmio_write(d->g, d->common + 20, 1, s);
}

static inline uint64_t driver_offered(struct driver *d)
{
    guest_mmio_write(d->g, d->common + 0, 4, 0);
    uint64_t lo = guest_mmio_read(d->g, d->common + 4, 4);
    guest_mmio_write(d->g, d->common + 0, 4, 1);
    return lo | guest_mmio_read(d->g, d->common + 4, 4) << 32;
}

static inline void driver_accept(struct driver *d, uint64_t features)
{
    guest_mmio_write(d->g, d->common + 8, 4, 0);
    guest_mmio_write(d->g, d->common + 12, 4, features & 0xffffffff);
    guest_mmio_write(d->g, d->common + 8, 4, 1);
    guest_mmio_write(d->g, d->common + 12, 4, features >> 32);
}

static inline void driver_msix_on(struct driver *d)
{
    unsigned at = guest_cfg_read(d->g, d->slot, PCI_CAP_PTR, 1);
    while (guest_cfg_read(d->g, d->slot, at, 1) != PCI_CAP_MSIX) {
        at = guest_cfg_read(d->g, d->slot, at + 1, 1);
    }
    unsigned n = (guest_cfg_read(d->g, d->slot, at + 2, 2) & 0x7ff) + 1;
    guest_cfg_write(d->g, d->slot, at + 2, 2, 0x8000);
    for (unsigned v = 0; v < n; v++) {
        guest_mmio_write(d->g, d->msix + 16 * v, 4, 0xfee00000);
        guest_mmio_write(d->g, d->msix + 16 * v + 4, 4, 0);
        guest_mmio_write(d->g, d->msix + 16 * v + 8, 4, 0x40 + v);
        guest_mmio_write(d->g, d->msix + 16 * v + 12, 4, 0);
    }
}

static inline void driver_queue_setup(struct driver *d, unsigned i, uint16_t size)
{
    struct driver_queue *q = &d->q[i];
    gpa_t base = d->rings + 0x10000 * (gpa_t)i;

    *q = (struct driver_queue){base, base + 0x2000, base + 0x4000, size, 0, 0, 0};
    assert_int_equal(ram_fill(d->g->m.ram, base, 0, 0x10000), 0);
    guest_mmio_write(d->g, d->common + 22, 2, i);
    guest_mmio_write(d->g, d->common + 24, 2, size);
    guest_mmio_write(d->g, d->common + 26, 2, i + 1);
    guest_mmio_write(d->g, d->common + 32, 4, q->desc);
    guest_mmio_write(d->g, d->common + 36, 4, 0);
    guest_mmio_write(d->g, d->common + 40, 8, q->avail);
    guest_mmio_write(d->g, d->common + 48, 8, q->used);
    guest_mmio_write(d->g, d->common + 28, 2, 1);
}

/* Reset, negotiate @features (VERSION_1 added), set all queues up, DRIVER_OK. */
static inline void driver_start(struct driver *d, uint64_t features)
{
    driver_set_status(d, 0);
    driver_set_status(d, VIRTIO_S_ACKNOWLEDGE);
    driver_set_status(d, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
    driver_accept(d, features | VIRTIO_F_VERSION_1);
    driver_set_status(d, 0x0b);
    assert_int_equal(driver_status(d), 0x0b);
    guest_mmio_write(d->g, d->common + 16, 2, 0);
    unsigned n = (unsigned)guest_mmio_read(d->g, d->common + 18, 2);
    for (unsigned i = 0; i < n; i++) {
        driver_queue_setup(d, i, GUEST_QSIZE);
    }
    driver_set_status(d, 0x0f);
    assert_int_equal(driver_status(d), 0x0f);
}

static inline void driver_desc(struct driver *d, gpa_t table, unsigned i, gpa_t addr, uint32_t len,
                               uint16_t flags, uint16_t next)
{
    gpa_t at = table + 16 * (gpa_t)i;
    guest_put(d->g, at, &addr, 8);
    guest_put(d->g, at + 8, &len, 4);
    guest_put(d->g, at + 12, &flags, 2);
    guest_put(d->g, at + 14, &next, 2);
}

/* Make @head available without ringing. */
static inline void driver_offer(struct driver *d, unsigned i, uint16_t head)
{
    struct driver_queue *q = &d->q[i];
    guest_put16(d->g, q->avail + 4 + 2 * (gpa_t)(q->avail_idx % q->size), head);
    q->avail_idx++;
    guest_put16(d->g, q->avail + 2, q->avail_idx);
}

static inline void driver_ring(struct driver *d, unsigned i)
{
    guest_mmio_write(d->g, d->notify + d->multiplier * i, 2, i);
}

/* A chain of @n descriptors from the ring's next free ones; returns its head. */
struct buffer {
    gpa_t addr;
    uint32_t len;
    bool write;
};
static inline uint16_t driver_chain(struct driver *d, unsigned i, const struct buffer *b,
                                    unsigned n)
{
    struct driver_queue *q = &d->q[i];
    uint16_t head = q->next_desc;
    for (unsigned k = 0; k < n; k++) {
        uint16_t at = q->next_desc;
        q->next_desc = (uint16_t)((q->next_desc + 1) % q->size);
        driver_desc(d, q->desc, at, b[k].addr, b[k].len,
                    (uint16_t)((b[k].write ? D_WRITE : 0) | (k + 1 < n ? D_NEXT : 0)),
                    q->next_desc);
    }
    driver_offer(d, i, head);
    return head;
}

/* The next used element; fails the test when there is none. */
static inline uint32_t driver_used(struct driver *d, unsigned i, uint32_t *len)
{
    struct driver_queue *q = &d->q[i];
    uint32_t e[2];
    assert_int_not_equal(guest_u16(d->g, q->used + 2), q->seen);
    guest_get(d->g, q->used + 4 + 8 * (gpa_t)(q->seen % q->size), e, sizeof e);
    q->seen++;
    if (len != NULL) {
        *len = e[1];
    }
    return e[0];
}

static inline unsigned driver_unseen(struct driver *d, unsigned i)
{
    return (uint16_t)(guest_u16(d->g, d->q[i].used + 2) - d->q[i].seen);
}

/* Save every device, load into @to (same devices), save again: must be equal. Also compares RAM by
 * copying it. */
static inline void guest_clone(struct guest *from, struct guest *to)
{
    struct plx_err err = {{0}};

    memcpy(to->m.ram->hva, from->m.ram->hva, VIRTIO_RAM);
    assert_int_equal(from->m.ndevices, to->m.ndevices);
    for (unsigned i = 0; i < from->m.ndevices; i++) {
        struct device *a = &from->m.devices[i], *b = &to->m.devices[i];
        struct wbuf w, w2;
        struct rbuf r;
        wbuf_init(&w);
        wbuf_init(&w2);
        a->ops->save(a->dev, &w);
        rbuf_init(&r, w.data, w.len);
        assert_int_equal(b->ops->load(b->dev, &r, b->version, &err), 0);
        assert_true(rbuf_done(&r));
        b->ops->save(b->dev, &w2);
        assert_int_equal(w.len, w2.len);
        assert_memory_equal(w.data, w2.data, w.len);
        wbuf_free(&w);
        wbuf_free(&w2);
    }
}

/* Every truncation of every section is refused. */
static inline void guest_truncations(struct guest *from, struct guest *to)
{
    for (unsigned i = 0; i < from->m.ndevices; i++) {
        struct device *a = &from->m.devices[i], *b = &to->m.devices[i];
        struct wbuf w;
        wbuf_init(&w);
        a->ops->save(a->dev, &w);
        check_truncations(b, &w);
        wbuf_free(&w);
    }
}

#endif
