/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pci.h - one PCI bus: configuration mechanism #1, type-0 functions, BARs, INTx, MSI-X.
 *
 * Follows the PCI Local Bus Specification 3.0 ("Configuration Space", "MSI-X Capability and Table
 * Structures"). A struct pci_function is hardware only: what answers its BARs is some device (or
 * two, on a bimodal function) that registers ops per BAR and capability.
 *
 * Ownership: the machine owns the bus, the bus owns its functions and, through their destroy hook,
 * the devices behind them. Threading: the serial part. Determinism: configuration space, MSI-X
 * tables and interrupt levels are state, all in the section "pci". */
#ifndef VMM_DEV_PCI_H
#define VMM_DEV_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/bus.h"
#include "vmm/machine.h"

enum {
    PCI_SLOTS = 32,
    PCI_BARS = 6,
    PCI_CONFIG_SIZE = 256,
    PCI_MSIX_VECTORS_MAX = 32,
    PCI_MSIX_BAR_SIZE = 4096, /* table at 0, pending bits at PCI_MSIX_PBA */
    PCI_MSIX_PBA = 2048,
};

/* pci_assign_bars places memory BARs from here to PCI_HOLE_END, I/O BARs in
 * PCI_IO_BASE..PCI_IO_END. The hole below is left to devices at fixed places. */
#define PCI_MMIO_FIRST UINT64_C(0xe0000000)

/* INTA of slot n is wired to this GSI (the _PRT says the same). */
static inline unsigned pci_slot_gsi(unsigned slot)
{
    return PCI_INTX_GSI + slot % PCI_INTX_COUNT;
}

/* Offsets in configuration space. */
enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYS_VENDOR = 0x2c,
    PCI_SUBSYS_ID = 0x2e,
    PCI_CAP_PTR = 0x34,
    PCI_INT_LINE = 0x3c,
    PCI_INT_PIN = 0x3d,
    PCI_CAP_FIRST = 0x40,
};
enum { PCI_CMD_IO = 1, PCI_CMD_MEM = 2, PCI_CMD_MASTER = 4, PCI_CMD_INTX_OFF = 0x400 };
enum { PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };

struct pci_ids {
    uint16_t vendor, device, subsys_vendor, subsys;
    uint32_t class_code; /* 24 bits: base class, subclass, interface */
    uint8_t revision;
};

struct pci_bar {
    uint64_t size; /* a power of two; 0: not implemented. MMIO BARs are 32 bit, >= 16 bytes. */
    enum bus_space space;
    const struct bus_range_ops *ops;
    void *ctx;
    bool mapped; /* claimed on the bus at @base */
    uint64_t base;
};

struct pci_msix {
    unsigned vectors; /* 0: no MSI-X */
    unsigned cap;     /* offset of the capability */
    uint8_t table[PCI_MSIX_VECTORS_MAX * 16];
    uint32_t pending; /* one bit a vector */
};

struct pci_function {
    char name[32];
    struct pci_bus *bus;
    unsigned slot;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t wmask[PCI_CONFIG_SIZE];   /* bits a write may change */
    uint8_t w1c[PCI_CONFIG_SIZE];     /* bits a written 1 clears */
    uint8_t initial[PCI_CONFIG_SIZE]; /* config at reset */
    struct pci_bar bars[PCI_BARS];
    struct pci_msix msix;
    unsigned cap_last, cap_next; /* while building the capability list */
    bool intx;                   /* the device asserts INTA (whether or not it is let through) */
    bool intx_out;               /* what the wire sees */
    /* May replace a read of @size bytes at @off and see a write after it was stored. Both may be
     * NULL. For capabilities with side effects. */
    void (*config_read)(void *ctx, unsigned off, unsigned size);
    void (*config_written)(void *ctx, unsigned off, unsigned size);
    void *config_ctx;
    void (*destroy)(void *ctx); /* frees the device behind the function; may be NULL */
    void *destroy_ctx;
};

/* The bus with its host bridge at 00:00.0; claims 0xcf8-0xcff and adds device "pci" to @m. Create
 * it before the devices that sit on it. Errors: PLX_ENOMEM, or those of bus_claim. */
int pci_create(struct machine *m, struct pci_bus **out, struct plx_err *err);
void pci_destroy(struct pci_bus *bus); /* with all functions; NULL is a no-op */

/* A new function in an empty slot (0 would be the host bridge's). Owned by the bus. */
int pci_add_function(struct pci_bus *bus, unsigned slot, const char *name,
                     const struct pci_ids *ids, struct pci_function **out, struct plx_err *err);

/* Building a function, before the first reset. */
void pci_add_bar(struct pci_function *fn, unsigned bar, enum bus_space space, uint64_t size,
                 const struct bus_range_ops *ops, void *ctx);
/* Appends a capability of @len bytes in all (its first two are filled here); returns its offset. */
unsigned pci_add_capability(struct pci_function *fn, uint8_t id, const void *body, unsigned len);
/* MSI-X with its own BAR of PCI_MSIX_BAR_SIZE. */
void pci_add_msix(struct pci_function *fn, unsigned bar, unsigned vectors);
void pci_set_intx_pin(struct pci_function *fn); /* the function uses INTA */

/* What firmware leaves behind: every BAR placed, decoding and bus mastering on. Part of the reset
 * of "pci"; exported for tests. Functions in slot order, BARs in index order. */
void pci_assign_bars(struct pci_bus *bus);

/* The device's side. */
bool pci_msix_enabled(const struct pci_function *fn);
/* Send vector @v, or remember it as pending while masked. Out-of-range vectors are ignored. */
void pci_msix_send(struct pci_function *fn, unsigned v);
void pci_intx(struct pci_function *fn, bool level);

/* Plain memory access to a BAR by its offset, as the bus would do it (virtio's PCI access window).
 * False: no such BAR or out of range. */
bool pci_bar_access(struct pci_function *fn, unsigned bar, uint64_t off, unsigned size, bool write,
                    uint64_t *value);

#endif
