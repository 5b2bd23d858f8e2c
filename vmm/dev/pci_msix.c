/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pci_msix.c - MSI-X: table and pending bits in a BAR of their own (PCI Local Bus
 * Specification 3.0, "MSI-X Capability and Table Structures"). State: in the section "pci".
 *
 *     entry: +0 address low, +4 address high, +8 data, +12 vector control (bit 0: masked) */
#include <string.h>

#include "base/check.h"
#include "vmm/dev/pci.h"
#include "vmm/dev/pci_internal.h"

enum { ENTRY = 16, ENTRY_CONTROL = 12, CONTROL_MASKED = 1 };
enum { CAP_LEN = 12, CAP_CONTROL_HIGH = 3, CONTROL_ENABLE = 0x80, CONTROL_FUNCTION_MASK = 0x40 };

bool pci_msix_enabled(const struct pci_function *fn)
{
    return fn->msix.vectors != 0 &&
           (fn->config[fn->msix.cap + CAP_CONTROL_HIGH] & CONTROL_ENABLE) != 0;
}

static bool masked(const struct pci_function *fn, unsigned v)
{
    return (fn->config[fn->msix.cap + CAP_CONTROL_HIGH] & CONTROL_FUNCTION_MASK) != 0 ||
           (fn->msix.table[v * ENTRY + ENTRY_CONTROL] & CONTROL_MASKED) != 0;
}

void pci_msix_send(struct pci_function *fn, unsigned v)
{
    const struct msi_sink *sink = &fn->bus->m->msi;
    uint64_t addr;
    uint32_t data;

    if (v >= fn->msix.vectors || !pci_msix_enabled(fn)) {
        return;
    }
    if (masked(fn, v)) {
        fn->msix.pending |= 1u << v;
        return;
    }
    fn->msix.pending &= ~(1u << v);
    memcpy(&addr, fn->msix.table + (size_t)v * ENTRY, sizeof addr);
    memcpy(&data, fn->msix.table + (size_t)v * ENTRY + 8, sizeof data);
    if (sink->send != NULL) {
        sink->send(sink->ctx, addr, data);
    }
}

void pci_msix_deliver(struct pci_function *fn)
{
    for (unsigned v = 0; v < fn->msix.vectors; v++) {
        if ((fn->msix.pending >> v & 1) != 0 && !masked(fn, v)) {
            pci_msix_send(fn, v);
        }
    }
}

static uint64_t msix_read(void *ctx, uint64_t addr, unsigned size)
{
    const struct pci_function *fn = ctx;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        uint64_t at = addr + i;
        uint8_t byte = 0;
        if (at < (uint64_t)fn->msix.vectors * ENTRY) {
            byte = fn->msix.table[at];
        } else if (at >= PCI_MSIX_PBA && at < PCI_MSIX_PBA + 4) {
            byte = (uint8_t)(fn->msix.pending >> (8 * (at - PCI_MSIX_PBA)));
        }
        v |= (uint64_t)byte << (8 * i);
    }
    return v;
}

static void msix_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct pci_function *fn = ctx;

    for (unsigned i = 0; i < size; i++) {
        uint64_t at = addr + i;
        uint64_t field = at % ENTRY;
        uint8_t byte = (uint8_t)(value >> (8 * i));
        if (at >= (uint64_t)fn->msix.vectors * ENTRY) {
            break;
        }
        if (field == ENTRY_CONTROL) {
            byte &= CONTROL_MASKED;
        } else if (field > ENTRY_CONTROL) {
            byte = 0; /* reserved */
        }
        fn->msix.table[at] = byte;
    }
    pci_msix_deliver(fn);
}

static const struct bus_range_ops msix_ops = {msix_read, msix_write};

void pci_add_msix(struct pci_function *fn, unsigned bar, unsigned vectors)
{
    uint8_t cap[CAP_LEN] = {0};

    PLX_CHECK(vectors > 0 && vectors <= PCI_MSIX_VECTORS_MAX && fn->msix.vectors == 0);
    cap[2] = (uint8_t)(vectors - 1);
    cap[4] = (uint8_t)bar; /* table: offset 0 */
    cap[8] = (uint8_t)bar;
    cap[9] = PCI_MSIX_PBA >> 8;
    fn->msix.vectors = vectors;
    fn->msix.cap = pci_add_capability(fn, PCI_CAP_MSIX, cap, sizeof cap);
    fn->wmask[fn->msix.cap + CAP_CONTROL_HIGH] = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;
    pci_add_bar(fn, bar, BUS_MMIO, PCI_MSIX_BAR_SIZE, &msix_ops, fn);
}

void pci_msix_reset(struct pci_function *fn)
{
    memset(fn->msix.table, 0, sizeof fn->msix.table);
    for (unsigned v = 0; v < fn->msix.vectors; v++) {
        fn->msix.table[v * ENTRY + ENTRY_CONTROL] = CONTROL_MASKED;
    }
    fn->msix.pending = 0;
}

int pci_msix_load(struct pci_function *fn, struct rbuf *in, struct plx_err *err)
{
    rbuf_get(in, fn->msix.table, (size_t)fn->msix.vectors * ENTRY);
    fn->msix.pending = rbuf_u32(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "pci: truncated in the MSI-X table of %s", fn->name);
    }
    for (unsigned v = 0; v < fn->msix.vectors; v++) {
        uint32_t control;
        memcpy(&control, fn->msix.table + (size_t)v * ENTRY + ENTRY_CONTROL, sizeof control);
        if ((control & ~(uint32_t)CONTROL_MASKED) != 0) {
            return plx_fail(err, PLX_ECORRUPT, "pci: %s: MSI-X vector %u", fn->name, v);
        }
    }
    if ((uint64_t)fn->msix.pending >> fn->msix.vectors != 0) {
        return plx_fail(err, PLX_ECORRUPT, "pci: %s: MSI-X pending bits", fn->name);
    }
    return 0;
}
