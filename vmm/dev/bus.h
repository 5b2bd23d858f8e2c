/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/bus.h - PIO and MMIO ranges and who answers them.
 *
 * Ownership: the machine owns the bus; devices register a range + callbacks + context.
 * Threading: the serial part. Determinism: a pure dispatch; nothing here is state.
 * Unclaimed reads give all ones, unclaimed writes vanish, as on a PC. */
#ifndef VMM_DEV_BUS_H
#define VMM_DEV_BUS_H

#include <stdint.h>

#include "base/err.h"

struct bus_range_ops {
    /* @addr is relative to the range's base. @size is 1, 2 or 4 for PIO; 1, 2, 4 or 8 for MMIO. An
     * access never reaches beyond the range: the bus splits what would into bytes. */
    uint64_t (*read)(void *ctx, uint64_t addr, unsigned size);
    void (*write)(void *ctx, uint64_t addr, unsigned size, uint64_t value);
};

struct bus; /* two address spaces: BUS_PIO and BUS_MMIO */
enum bus_space { BUS_PIO, BUS_MMIO };

int bus_create(struct bus **out);
void bus_destroy(struct bus *bus);

/* Refuses an overlap, naming both ranges. @name and @ops are borrowed. Errors: PLX_EEXIST
 * (overlap), PLX_EINVAL (empty, or not inside the space), PLX_ENOMEM. */
int bus_claim(struct bus *bus, enum bus_space space, uint64_t base, uint64_t len, const char *name,
              const struct bus_range_ops *ops, void *ctx, struct plx_err *err);
/* Undo a claim (PCI BARs move). No-op when none with this base and ctx exists. */
void bus_release(struct bus *bus, enum bus_space space, uint64_t base, void *ctx);

uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, enum bus_space space, uint64_t addr, unsigned size, uint64_t value);

#endif
