/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/lapic.h - the local APICs, one per vCPU, and the messages between them.
 *
 * Follows the SDM Vol. 3A, "Advanced Programmable Interrupt Controller (APIC)": xAPIC and x2APIC
 * modes, all delivery modes, the timer in its three modes. Messages arrive at once.
 * Not there: SMI and ExtINT messages (ignored), CMCI, EOI-broadcast suppression.
 *
 * Ownership: the PC owns LAPICs and bus; a LAPIC borrows its vCPU. Threading: the serial part; what
 * lapic_*_own allow, and CR8, also the parallel part, by the vCPU's own thread.
 * Determinism: sections "lapic0"...; vcpu.irq_pending is derived from them and set again by load.
 */
#ifndef VMM_DEV_LAPIC_H
#define VMM_DEV_LAPIC_H

#include <stdbool.h>

#include "vmm/cpu/vcpu.h"
#include "vmm/machine.h"

struct lapic; /* opaque */

enum apic_mode { /* delivery modes, as encoded in ICR, LVTs, IOAPIC and MSI data */
                 APIC_FIXED = 0,
                 APIC_LOWEST = 1,
                 APIC_SMI = 2,
                 APIC_NMI = 4,
                 APIC_INIT = 5,
                 APIC_SIPI = 6,
                 APIC_EXTINT = 7,
};

struct apic_msg {
    uint32_t dest;
    bool wide;    /* dest has 32 bits (from an x2APIC); else 8 */
    bool logical; /* destination mode */
    bool level;   /* trigger mode: the IOAPIC awaits an EOI */
    uint8_t mode; /* enum apic_mode */
    uint8_t vector;
};

/* All LAPICs of a machine, by APIC id. */
struct apic_bus {
    struct lapic *lapics[VCPUS_MAX];
    unsigned n;
    void (*eoi)(void *ctx, uint8_t vector); /* broadcast of a level interrupt's EOI */
    void *eoi_ctx;
};

/* What a LAPIC asks of its vCPU and board. */
struct lapic_wires {
    int (*extint_take)(void *ctx);           /* INTA to the PIC: the vector */
    void (*init)(void *ctx);                 /* INIT: at once, or after the running instruction */
    void (*sipi)(void *ctx, uint8_t vector); /* start-up IPI; acts only while it waits for one */
    void (*wake)(void *ctx);                 /* something came that may wake it; may be NULL */
    void *ctx;
};

/* LAPIC of @v, appended to @bus; its id is v->id. Errors: PLX_ENOMEM. */
int lapic_create(struct machine *m, struct apic_bus *bus, struct vcpu *v,
                 const struct lapic_wires *wires, struct lapic **out, struct plx_err *err);
void lapic_destroy(struct lapic *l); /* NULL is a no-op */

/* Deliver to every destination that matches; lowest priority to the one with the least PPR, the
 * lowest id among equals. True: somebody was addressed. */
bool apic_send(struct apic_bus *bus, const struct apic_msg *msg);

/* vcpu_ops.mmio: is @gpa in this LAPIC's page, as its own vCPU sees it now? */
bool lapic_claims(const struct lapic *l, gpa_t gpa);
uint64_t lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned size);
void lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned size, uint64_t value);

/* vcpu_ops of the same names. */
int lapic_irq_take(struct lapic *l);
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);
uint64_t lapic_cr8_read(struct lapic *l);
void lapic_cr8_write(struct lapic *l, uint64_t value);

/* vcpu_ops of the same names: what touches this LAPIC and nothing else. Reads of all registers but
 * the timer's count; writes of TPR and ICR's upper half, and EOI of an edge. */
int lapic_irq_peek(const struct lapic *l);
bool lapic_mmio_own(const struct lapic *l, gpa_t gpa, unsigned size, bool write);
bool lapic_msr_own(const struct lapic *l, uint32_t msr, bool write);

/* The level at LINT0, where the PIC is (virtual wire mode). */
void lapic_set_lint0(struct lapic *l, bool level);
/* INIT arrived: every register but mode and id to its value after power-up. */
void lapic_init_reset(struct lapic *l);

#endif
