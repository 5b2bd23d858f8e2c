/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/ioapic.c - see ioapic.h.
 *
 * A redirection entry:
 *
 *   63..56   16    15    14   13   12   11   10..8  7..0
 *   dest    mask  level  RIRR low  pend log  mode   vector */
#include "vmm/dev/ioapic.h"

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"

enum { IOAPIC_VERSION = 1, HARDWARE_VERSION = 0x20 };
enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40 };
enum { IO_ID = 0, IO_VERSION = 1, IO_ARBITRATION = 2, IO_REDIR = 0x10 };

#define REDIR_MASKED   UINT64_C(0x10000)
#define REDIR_LEVEL    UINT64_C(0x8000)
#define REDIR_RIRR     UINT64_C(0x4000) /* level interrupt delivered, EOI awaited */
#define REDIR_WRITABLE UINT64_C(0xff0000000001afff)

struct ioapic {
    struct apic_bus *bus;
    uint8_t select, id;
    uint32_t lines; /* input levels */
    uint64_t redir[IOAPIC_PINS];
};

static void deliver(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->redir[pin];
    struct apic_msg msg = {.dest = (uint32_t)(e >> 56),
                           .logical = (e >> 11 & 1) != 0,
                           .level = (e & REDIR_LEVEL) != 0,
                           .mode = e >> 8 & 7,
                           .vector = (uint8_t)e};

    if (msg.level) {
        io->redir[pin] |= REDIR_RIRR;
    }
    apic_send(io->bus, &msg);
}

/* A level pin is delivered whenever it is asserted, not masked and no EOI is awaited. */
static void level_check(struct ioapic *io, unsigned pin)
{
    if ((io->lines >> pin & 1) != 0 &&
        (io->redir[pin] & (REDIR_LEVEL | REDIR_MASKED | REDIR_RIRR)) == REDIR_LEVEL) {
        deliver(io, pin);
    }
}

void ioapic_set_line(struct ioapic *io, unsigned pin, bool level)
{
    uint32_t bit;
    bool rose;

    PLX_CHECK(pin < IOAPIC_PINS);
    bit = UINT32_C(1) << pin;
    rose = level && (io->lines & bit) == 0;
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    if (rose && (io->redir[pin] & (REDIR_LEVEL | REDIR_MASKED)) == 0) {
        deliver(io, pin);
    } else {
        level_check(io, pin);
    }
}

static void ioapic_eoi(void *ctx, uint8_t vector)
{
    struct ioapic *io = ctx;

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((io->redir[pin] & 0xff) == vector && (io->redir[pin] & REDIR_LEVEL) != 0) {
            io->redir[pin] &= ~REDIR_RIRR;
            level_check(io, pin);
        }
    }
}

static uint32_t reg_read(const struct ioapic *io)
{
    unsigned r = io->select;

    if (r >= IO_REDIR && r < IO_REDIR + 2 * IOAPIC_PINS) {
        return (uint32_t)(io->redir[(r - IO_REDIR) / 2] >> ((r & 1) * 32));
    }
    switch (r) {
    case IO_ID:
    case IO_ARBITRATION:
        return (uint32_t)io->id << 24;
    case IO_VERSION:
        return (IOAPIC_PINS - 1) << 16 | HARDWARE_VERSION;
    default:
        return 0;
    }
}

static void reg_write(struct ioapic *io, uint32_t value)
{
    unsigned r = io->select, pin = (r - IO_REDIR) / 2, shift = (r & 1) * 32;
    uint64_t mask;

    if (r == IO_ID) {
        io->id = (uint8_t)(value >> 24);
        return;
    }
    if (r < IO_REDIR || pin >= IOAPIC_PINS) {
        return;
    }
    mask = REDIR_WRITABLE & (UINT64_C(0xffffffff) << shift);
    io->redir[pin] = (io->redir[pin] & ~mask) | ((uint64_t)value << shift & mask);
    if ((io->redir[pin] & REDIR_LEVEL) == 0) {
        io->redir[pin] &= ~REDIR_RIRR; /* an edge awaits no EOI */
    }
    level_check(io, pin);
}

static uint64_t mmio_read(void *ctx, uint64_t addr, unsigned size)
{
    const struct ioapic *io = ctx;
    uint32_t v;

    switch (addr & ~UINT64_C(3)) {
    case IOREGSEL:
        v = io->select;
        break;
    case IOWIN:
        v = reg_read(io);
        break;
    default:
        return 0;
    }
    (void)size; /* the bus cuts the value */
    return v >> ((addr & 3) * 8);
}

static void mmio_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct ioapic *io = ctx;

    if (addr == IOREGSEL) {
        io->select = (uint8_t)value;
    } else if (addr == IOWIN && size >= 4) {
        reg_write(io, (uint32_t)value);
    } else if (addr == IOEOI) {
        ioapic_eoi(io, (uint8_t)value);
    }
}

static const struct bus_range_ops mmio_ops = {mmio_read, mmio_write};

/* The address: 0xfee, destination in bits 19-12, redirection hint 3, destination mode 2. The data:
 * trigger 15, level 14, delivery mode 10-8, vector. A message has no line to look at again, so it
 * is an edge; a level message that de-asserts is nothing. */
void apic_msi_send(void *bus, uint64_t addr, uint32_t data)
{
    struct apic_msg msg = {.dest = (uint32_t)(addr >> 12 & 0xff),
                           .logical = (addr >> 2 & 1) != 0,
                           .mode = data >> 8 & 7,
                           .vector = (uint8_t)data};

    if (addr >> 20 == 0xfee && (data >> 14 & 3) != 2) {
        apic_send(bus, &msg);
    }
}

/* --- state --------------------------------------------------------------------------------- */

static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;

    io->select = 0;
    io->id = IOAPIC_ID;
    io->lines = 0;
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        io->redir[i] = REDIR_MASKED;
    }
}

static void ioapic_save(const void *dev, struct wbuf *out)
{
    const struct ioapic *io = dev;

    wbuf_u8(out, io->select);
    wbuf_u8(out, io->id);
    wbuf_u32(out, io->lines);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        wbuf_u64(out, io->redir[i]);
    }
}

static int ioapic_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct ioapic *io = dev;
    int rc = section_version("ioapic", version, IOAPIC_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    io->select = rbuf_u8(in);
    io->id = rbuf_u8(in);
    io->lines = rbuf_u32(in);
    rc = section_field("ioapic: lines", io->lines >> IOAPIC_PINS == 0, io->lines, err);
    for (unsigned i = 0; rc == 0 && i < IOAPIC_PINS; i++) {
        uint64_t e = rbuf_u64(in);

        io->redir[i] = e;
        rc = section_field("ioapic: a redirection entry",
                           (e & ~(REDIR_WRITABLE | REDIR_RIRR)) == 0 &&
                               (e & (REDIR_LEVEL | REDIR_RIRR)) != REDIR_RIRR,
                           e, err);
    }
    return rc != 0 ? rc : section_complete("ioapic", in, err);
}

static const struct device_ops ioapic_device = {ioapic_reset, ioapic_save, ioapic_load};

int ioapic_create(struct machine *m, struct apic_bus *bus, struct ioapic **out, struct plx_err *err)
{
    struct ioapic *io = plx_calloc(1, sizeof *io);
    int rc;

    *out = NULL;
    if (io == NULL) {
        return plx_fail(err, PLX_ENOMEM, "ioapic: out of memory");
    }
    io->bus = bus;
    rc = bus_claim(m->bus, BUS_MMIO, IOAPIC_BASE, IOAPIC_LEN, "ioapic", &mmio_ops, io, err);
    if (rc != 0) {
        plx_free(io);
        return rc;
    }
    bus->eoi = ioapic_eoi;
    bus->eoi_ctx = io;
    machine_add_device(m, "ioapic", IOAPIC_VERSION, &ioapic_device, io);
    ioapic_reset(io);
    *out = io;
    return 0;
}

void ioapic_destroy(struct ioapic *io)
{
    plx_free(io);
}
