/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pci.c - see pci.h. Configuration accesses, BAR mapping, INTx, the section "pci". MSI-X is
 * in pci_msix.c. */
#include "vmm/dev/pci.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/pci_internal.h"

/* Both ports in one range, relative to PCI_CONFIG_ADDRESS_PORT. */
enum {
    PCI_PORTS_LEN = 8,
    PCI_PORT_RESET = RESET_CONTROL_PORT - PCI_CONFIG_ADDRESS_PORT,
    PCI_PORT_DATA = PCI_CONFIG_DATA_PORT - PCI_CONFIG_ADDRESS_PORT
};
enum { PCI_SECTION_VERSION = 1 };
/* Reset control register, as PIIX3 and its successors have it at 0xcf9. */
enum { RCR_SYSTEM_RESET = 0x02, RCR_GO = 0x04 };
enum { STATUS_INTERRUPT = 0x08, STATUS_CAPABILITIES = 0x10 };
enum { BAR_IO = 1 };
enum { HOST_PAM0 = 0x59 }; /* of 7 registers of the host bridge */

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

/* --- mapping ------------------------------------------------------------------------------ */

static uint32_t bar_register(const struct pci_function *fn, unsigned bar)
{
    return get32(fn->config + PCI_BAR0 + 4 * bar);
}

/* Where the BAR should answer now; false: nowhere. */
static bool bar_wanted(const struct pci_function *fn, unsigned bar, uint64_t *base)
{
    const struct pci_bar *b = &fn->bars[bar];
    unsigned enable = b->space == BUS_PIO ? PCI_CMD_IO : PCI_CMD_MEM;

    if (b->size == 0 || (fn->config[PCI_COMMAND] & enable) == 0) {
        return false;
    }
    *base = bar_register(fn, bar) & ~(uint32_t)(b->size - 1);
    return *base != 0 && (b->space == BUS_MMIO || *base + b->size <= PCI_IO_END + 1);
}

static void bar_unmap(struct pci_function *fn, unsigned bar)
{
    struct pci_bar *b = &fn->bars[bar];

    if (b->mapped) {
        bus_release(fn->bus->m->bus, b->space, b->base, b->ctx);
        b->mapped = false;
        b->base = 0;
    }
}

static bool bar_map(struct pci_function *fn, unsigned bar, uint64_t base)
{
    struct pci_bar *b = &fn->bars[bar];

    int rc = bus_claim(fn->bus->m->bus, b->space, base, b->size, fn->name, b->ops, b->ctx, NULL);
    PLX_CHECK(rc != PLX_ENOMEM); /* or replicas would differ by it */
    if (rc != 0) {
        return false;
    }
    b->mapped = true;
    b->base = base;
    return true;
}

/* Make the bus follow the registers of every function. A BAR moved onto someone else's range stays
 * unmapped until that range is free: who was there first keeps it. */
static void remap(struct pci_bus *bus)
{
    uint64_t base;

    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned bar = 0; bus->slots[slot] != NULL && bar < PCI_BARS; bar++) {
            struct pci_function *fn = bus->slots[slot];
            if (!bar_wanted(fn, bar, &base) || base != fn->bars[bar].base) {
                bar_unmap(fn, bar);
            }
        }
    }
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned bar = 0; bus->slots[slot] != NULL && bar < PCI_BARS; bar++) {
            struct pci_function *fn = bus->slots[slot];
            if (!fn->bars[bar].mapped && bar_wanted(fn, bar, &base) && !bar_map(fn, bar, base)) {
                log_debug("%s: BAR %u at %#llx overlaps another range", fn->name, bar,
                          (unsigned long long)base);
            }
        }
    }
}

bool pci_bar_access(struct pci_function *fn, unsigned bar, uint64_t off, unsigned size, bool write,
                    uint64_t *value)
{
    if (bar >= PCI_BARS || off >= fn->bars[bar].size || size > fn->bars[bar].size - off) {
        return false;
    }
    const struct pci_bar *b = &fn->bars[bar];
    if (write) {
        b->ops->write(b->ctx, off, size, *value);
    } else {
        *value = b->ops->read(b->ctx, off, size);
    }
    return true;
}

void pci_assign_bars(struct pci_bus *bus)
{
    uint64_t mmio = PCI_MMIO_FIRST;
    uint64_t pio = PCI_IO_BASE;

    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *fn = bus->slots[slot];
        if (fn == NULL) {
            continue;
        }
        uint8_t enable = fn->wmask[PCI_COMMAND] & PCI_CMD_MASTER;
        for (unsigned bar = 0; bar < PCI_BARS; bar++) {
            const struct pci_bar *b = &fn->bars[bar];
            uint64_t *next = b->space == BUS_PIO ? &pio : &mmio;
            if (b->size == 0) {
                continue;
            }
            *next = (*next + b->size - 1) & ~(b->size - 1);
            PLX_CHECK(*next + b->size <= (b->space == BUS_PIO ? PCI_IO_END + 1 : PCI_HOLE_END + 1));
            put32(fn->config + PCI_BAR0 + 4 * bar,
                  (uint32_t)*next | (b->space == BUS_PIO ? BAR_IO : 0));
            *next += b->size;
            enable |= b->space == BUS_PIO ? PCI_CMD_IO : PCI_CMD_MEM;
        }
        fn->config[PCI_COMMAND] |= enable;
    }
    remap(bus);
}

/* --- INTx --------------------------------------------------------------------------------- */

static void intx_update(struct pci_function *fn)
{
    struct pci_bus *bus = fn->bus;
    bool off = (fn->config[PCI_COMMAND + 1] & (PCI_CMD_INTX_OFF >> 8)) != 0;
    unsigned gsi = pci_slot_gsi(fn->slot);
    bool level = false;

    fn->intx_out = fn->intx && !off;
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        if (bus->slots[slot] != NULL && pci_slot_gsi(slot) == gsi) {
            level = level || bus->slots[slot]->intx_out;
        }
    }
    irq_set(&bus->m->gsi[gsi], level);
}

void pci_intx(struct pci_function *fn, bool level)
{
    fn->intx = level;
    fn->config[PCI_STATUS] =
        (uint8_t)((fn->config[PCI_STATUS] & ~STATUS_INTERRUPT) | (level ? STATUS_INTERRUPT : 0));
    intx_update(fn);
}

/* --- configuration accesses --------------------------------------------------------------- */

static uint32_t config_read(struct pci_function *fn, unsigned off, unsigned size)
{
    uint32_t v = 0;

    if (fn->config_read != NULL) {
        fn->config_read(fn->config_ctx, off, size);
    }
    memcpy(&v, fn->config + off, size);
    return v;
}

static bool touches(unsigned off, unsigned size, unsigned from, unsigned len)
{
    return off < from + len && from < off + size;
}

static void config_write(struct pci_function *fn, unsigned off, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(value >> (8 * i));
        uint8_t mask = fn->wmask[off + i];
        uint8_t *c = &fn->config[off + i];
        *c = (uint8_t)((*c & ~mask) | (v & mask));
        *c &= (uint8_t) ~(v & fn->w1c[off + i]);
    }
    if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, PCI_BAR0, 4 * PCI_BARS)) {
        remap(fn->bus);
        intx_update(fn);
    }
    if (fn->msix.vectors != 0 && touches(off, size, fn->msix.cap, 4)) {
        pci_msix_deliver(fn);
    }
    if (fn->config_written != NULL) {
        fn->config_written(fn->config_ctx, off, size);
    }
}

/* The function and register that the address register selects; NULL: nobody answers. */
static struct pci_function *selected(const struct pci_bus *bus, uint64_t port, unsigned *off)
{
    uint32_t a = bus->address; /* 31 enable, 23:16 bus, 15:11 device, 10:8 function, 7:2 register */

    *off = (a & 0xfc) + (unsigned)(port - PCI_PORT_DATA);
    if ((a & 0x80000000u) == 0 || (a & 0x00ffff00u & ~0xf800u) != 0) {
        return NULL;
    }
    return bus->slots[(a >> 11) & 31];
}

static uint64_t ports_read(void *ctx, uint64_t addr, unsigned size)
{
    struct pci_bus *bus = ctx;
    unsigned off;

    if (addr >= PCI_PORT_DATA) {
        struct pci_function *fn = selected(bus, addr, &off);
        return fn != NULL ? config_read(fn, off, size) : UINT32_MAX >> (32 - 8 * size);
    }
    if (addr == PCI_PORT_RESET && size == 1) {
        return bus->reset_control;
    }
    return size == 4 ? bus->address : UINT32_MAX >> (32 - 8 * size);
}

static void ports_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct pci_bus *bus = ctx;
    unsigned off;

    if (addr >= PCI_PORT_DATA) {
        struct pci_function *fn = selected(bus, addr, &off);
        if (fn != NULL) {
            config_write(fn, off, size, (uint32_t)value);
        }
    } else if (addr == 0 && size == 4) {
        bus->address = (uint32_t)value & 0x80fffffcu;
    } else if (addr == PCI_PORT_RESET && size == 1) {
        bus->reset_control = (uint8_t)(value & RCR_SYSTEM_RESET);
        if ((value & RCR_GO) != 0) {
            machine_stop(bus->m, POWER_RESET, 0);
        }
    }
}

static const struct bus_range_ops ports_ops = {ports_read, ports_write};

/* --- building ----------------------------------------------------------------------------- */

int pci_add_function(struct pci_bus *bus, unsigned slot, const char *name,
                     const struct pci_ids *ids, struct pci_function **out, struct plx_err *err)
{
    *out = NULL;
    if (slot >= PCI_SLOTS || bus->slots[slot] != NULL) {
        return plx_fail(err, PLX_EBUSY, "%s: PCI slot %u is not free", name, slot);
    }
    struct pci_function *fn = plx_calloc(1, sizeof *fn);
    if (fn == NULL) {
        return plx_fail(err, PLX_ENOMEM, "%s: out of memory", name);
    }
    (void)snprintf(fn->name, sizeof fn->name, "%s", name);
    fn->bus = bus;
    fn->slot = slot;
    fn->cap_next = PCI_CAP_FIRST;
    put16(fn->initial + PCI_VENDOR_ID, ids->vendor);
    put16(fn->initial + PCI_DEVICE_ID, ids->device);
    put16(fn->initial + PCI_SUBSYS_VENDOR, ids->subsys_vendor);
    put16(fn->initial + PCI_SUBSYS_ID, ids->subsys);
    fn->initial[PCI_REVISION] = ids->revision;
    for (unsigned i = 0; i < 3; i++) {
        fn->initial[PCI_CLASS + i] = (uint8_t)(ids->class_code >> (8 * i));
    }
    put16(fn->wmask + PCI_COMMAND, PCI_CMD_MASTER | PCI_CMD_INTX_OFF);
    fn->wmask[PCI_INT_LINE] = 0xff;
    bus->slots[slot] = fn;
    *out = fn;
    return 0;
}

void pci_add_bar(struct pci_function *fn, unsigned bar, enum bus_space space, uint64_t size,
                 const struct bus_range_ops *ops, void *ctx)
{
    uint8_t *reg = fn->initial + PCI_BAR0 + 4 * bar;

    PLX_CHECK(bar < PCI_BARS && fn->bars[bar].size == 0);
    PLX_CHECK(size >= 16 && size <= 0x10000000 && (size & (size - 1)) == 0);
    fn->bars[bar] = (struct pci_bar){.size = size, .space = space, .ops = ops, .ctx = ctx};
    put32(reg, space == BUS_PIO ? BAR_IO : 0);
    put32(fn->wmask + PCI_BAR0 + 4 * bar, ~(uint32_t)(size - 1));
    fn->wmask[PCI_COMMAND] |= space == BUS_PIO ? PCI_CMD_IO : PCI_CMD_MEM;
}

unsigned pci_add_capability(struct pci_function *fn, uint8_t id, const void *body, unsigned len)
{
    unsigned at = fn->cap_next;

    PLX_CHECK(len >= 2 && at + len <= PCI_CONFIG_SIZE);
    memcpy(fn->initial + at, body, len);
    fn->initial[at] = id;
    fn->initial[at + 1] = 0;
    if (fn->cap_last == 0) {
        fn->initial[PCI_CAP_PTR] = (uint8_t)at;
        fn->initial[PCI_STATUS] |= STATUS_CAPABILITIES;
    } else {
        fn->initial[fn->cap_last + 1] = (uint8_t)at;
    }
    fn->cap_last = at;
    fn->cap_next = (at + len + 3) & ~3u;
    return at;
}

void pci_set_intx_pin(struct pci_function *fn)
{
    fn->initial[PCI_INT_PIN] = 1;
    fn->initial[PCI_INT_LINE] = (uint8_t)pci_slot_gsi(fn->slot);
}

/* --- the section "pci" -------------------------------------------------------------------- */

static void pci_reset(void *dev)
{
    struct pci_bus *bus = dev;

    bus->address = 0;
    bus->reset_control = 0;
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *fn = bus->slots[slot];
        if (fn == NULL) {
            continue;
        }
        for (unsigned bar = 0; bar < PCI_BARS; bar++) {
            bar_unmap(fn, bar);
        }
        memcpy(fn->config, fn->initial, sizeof fn->config);
        pci_msix_reset(fn);
        pci_intx(fn, false);
    }
    pci_assign_bars(bus);
}

static void pci_save(const void *dev, struct wbuf *out)
{
    const struct pci_bus *bus = dev;

    wbuf_u32(out, bus->address);
    wbuf_u8(out, bus->reset_control);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        const struct pci_function *fn = bus->slots[slot];
        uint8_t mapped = 0;
        if (fn == NULL) {
            continue;
        }
        for (unsigned bar = 0; bar < PCI_BARS; bar++) {
            mapped |= (uint8_t)(fn->bars[bar].mapped ? 1u << bar : 0);
        }
        wbuf_u8(out, (uint8_t)slot);
        wbuf_put(out, fn->config, sizeof fn->config);
        wbuf_u8(out, mapped);
        wbuf_u8(out, fn->intx);
        wbuf_u8(out, (uint8_t)fn->msix.vectors);
        wbuf_put(out, fn->msix.table, (size_t)fn->msix.vectors * 16);
        wbuf_u32(out, fn->msix.pending);
    }
}

static int load_function(struct pci_function *fn, struct rbuf *in, struct plx_err *err)
{
    uint8_t slot = rbuf_u8(in);
    uint8_t config[PCI_CONFIG_SIZE];

    rbuf_get(in, config, sizeof config);
    uint8_t mapped = rbuf_u8(in);
    uint8_t intx = rbuf_u8(in);
    uint8_t vectors = rbuf_u8(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "pci: truncated in %s", fn->name);
    }
    if (slot != fn->slot || vectors != fn->msix.vectors) {
        return plx_fail(err, PLX_ECORRUPT, "pci: slot %u is not the %s of this machine", slot,
                        fn->name);
    }
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t free_bits = fn->wmask[i] | fn->w1c[i];
        if (i == PCI_STATUS) {
            free_bits |= STATUS_INTERRUPT;
        }
        if (((config[i] ^ fn->initial[i]) & ~free_bits) != 0) {
            return plx_fail(err, PLX_ECORRUPT, "pci: %s: config byte %#x", fn->name, i);
        }
    }
    if (intx > 1 || intx != ((config[PCI_STATUS] & STATUS_INTERRUPT) != 0)) {
        return plx_fail(err, PLX_ECORRUPT, "pci: %s: intx", fn->name);
    }
    memcpy(fn->config, config, sizeof config);
    fn->intx = intx;
    fn->intx_out = intx && (config[PCI_COMMAND + 1] & (PCI_CMD_INTX_OFF >> 8)) == 0;
    for (unsigned bar = 0; bar < 8; bar++) {
        uint64_t base;
        if ((mapped >> bar & 1) != 0 &&
            (bar >= PCI_BARS || !bar_wanted(fn, bar, &base) || !bar_map(fn, bar, base))) {
            return plx_fail(err, PLX_ECORRUPT, "pci: %s: mapping of BAR %u", fn->name, bar);
        }
    }
    return pci_msix_load(fn, in, err);
}

static int pci_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct pci_bus *bus = dev;

    if (version != PCI_SECTION_VERSION) {
        return plx_fail(err, PLX_EVERSION, "pci: version %u", version);
    }
    bus->address = rbuf_u32(in);
    bus->reset_control = rbuf_u8(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "pci: truncated");
    }
    if ((bus->address & ~0x80fffffcu) != 0 || (bus->reset_control & ~RCR_SYSTEM_RESET) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "pci: address or reset control");
    }
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned bar = 0; bus->slots[slot] != NULL && bar < PCI_BARS; bar++) {
            bar_unmap(bus->slots[slot], bar);
        }
    }
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        int rc = bus->slots[slot] != NULL ? load_function(bus->slots[slot], in, err) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static const struct device_ops pci_ops = {pci_reset, pci_save, pci_load};

int pci_create(struct machine *m, struct pci_bus **out, struct plx_err *err)
{
    static const struct pci_ids host_bridge = {
        .vendor = 0x8086,
        .device = 0x1237,
        .subsys_vendor = 0x1af4, /* firmware looks for fw_cfg where it finds these */
        .subsys = 0x1100,
        .class_code = 0x060000,
        .revision = 2};
    struct pci_function *fn;
    int rc;

    *out = NULL;
    struct pci_bus *bus = plx_calloc(1, sizeof *bus);
    if (bus == NULL) {
        return plx_fail(err, PLX_ENOMEM, "pci: out of memory");
    }
    bus->m = m;
    rc = pci_add_function(bus, 0, "pci-host", &host_bridge, &fn, err);
    if (rc != 0) {
        goto err_free;
    }
    /* Intel 440FX PCIset, "PAM - Programmable Attribute Map Registers": kept, and without effect,
     * as RAM below 1 MiB can always be read and written. */
    fn->wmask[HOST_PAM0] = 0x30;
    memset(fn->wmask + HOST_PAM0 + 1, 0x33, 6);
    rc = bus_claim(m->bus, BUS_PIO, PCI_CONFIG_ADDRESS_PORT, PCI_PORTS_LEN, "pci", &ports_ops, bus,
                   err);
    if (rc != 0) {
        goto err_function;
    }
    machine_add_device(m, "pci", PCI_SECTION_VERSION, &pci_ops, bus);
    *out = bus;
    return 0;

err_function:
    plx_free(fn);
err_free:
    plx_free(bus);
    return rc;
}

void pci_destroy(struct pci_bus *bus)
{
    if (bus == NULL) {
        return;
    }
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *fn = bus->slots[slot];
        if (fn == NULL) {
            continue;
        }
        for (unsigned bar = 0; bar < PCI_BARS; bar++) {
            bar_unmap(fn, bar);
        }
        if (fn->destroy != NULL) {
            fn->destroy(fn->destroy_ctx);
        }
        plx_free(fn);
    }
    bus_release(bus->m->bus, BUS_PIO, PCI_CONFIG_ADDRESS_PORT, bus);
    plx_free(bus);
}
