/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/irq.h - a wire between a device and an interrupt controller. */
#ifndef VMM_DEV_IRQ_H
#define VMM_DEV_IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The receiver's side. Copied by value into the device. Levels, not edges: the controller derives
 * edges. Calling with the level it already has is a no-op. */
struct irq_line {
    void (*set)(void *ctx, unsigned line, bool level);
    void *ctx;
    unsigned line;
};

static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->set != NULL) {
        l->set(l->ctx, l->line, level);
    }
}

/* A message-signalled interrupt: address and data as a PCI device writes them. */
struct msi_sink {
    void (*send)(void *ctx, uint64_t addr, uint32_t data);
    void *ctx;
};

#endif
