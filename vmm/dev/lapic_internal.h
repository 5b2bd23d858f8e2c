/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/lapic_internal.h - shared by lapic.c (delivery, state), lapic_regs.c (registers) and
 * lapic_timer.c. */
#ifndef VMM_DEV_LAPIC_INTERNAL_H
#define VMM_DEV_LAPIC_INTERNAL_H

#include "vmm/cpu/msr.h"
#include "vmm/dev/lapic.h"
#include "vmm/tunables.h"

#define APIC_BASE_BSP  UINT64_C(0x100)
#define APIC_BASE_EXTD UINT64_C(0x400)
#define APIC_BASE_EN   UINT64_C(0x800)
#define APIC_BASE_ADDR ((UINT64_C(1) << CPU_PHYS_BITS) - PAGE_SIZE)

/* Registers by their offset / 16, which is also their x2APIC MSR number. */
enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR2 = 0x31,
    REG_LVT = 0x32 /* the first of LVTS */,
    REG_TIMER_INIT = 0x38,
    REG_TIMER_COUNT = 0x39,
    REG_TIMER_DIV = 0x3e,
    REG_SELF_IPI = 0x3f,
    REG_END = 0x40
};

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVTS };
enum {
    LVT_MASKED = 0x10000,
    LVT_TIMER_MODE = 0x60000,
    LVT_ONE_SHOT = 0,
    LVT_PERIODIC = 0x20000,
    LVT_DEADLINE = 0x40000
};
enum { SVR_ENABLE = 0x100 };
enum { ESR_SEND_ILLEGAL = 0x20, ESR_RECEIVE_ILLEGAL = 0x40, ESR_ILLEGAL_REGISTER = 0x80 };

/* Virtual ns of one tick of the timer's input clock. */
#define TIMER_TICK_NS (UINT64_C(1000000000) / CRYSTAL_HZ)
_Static_assert(UINT64_C(1000000000) % CRYSTAL_HZ == 0, "the LAPIC timer's tick is whole ns");

struct lapic {
    struct machine *m;
    struct apic_bus *bus;
    struct vcpu *v;
    struct lapic_wires wires;
    char name[16];

    /* --- state --- */
    uint64_t base; /* IA32_APIC_BASE */
    uint32_t irr[8], isr[8], tmr[8];
    uint32_t ldr, dfr; /* of xAPIC mode */
    uint32_t svr, esr, esr_pending;
    uint64_t icr;
    uint32_t lvt[LVTS];
    uint8_t tpr;
    bool lint0; /* level from the PIC */
    uint32_t timer_init, timer_div;
    /* One-shot and periodic: the count was timer_count at timer_start. */
    uint32_t timer_count;
    uint64_t timer_start;
    uint64_t tsc_deadline; /* 0: disarmed */
    /* --- armed from the state --- */
    struct vtimer timer;
};

static inline bool lapic_on(const struct lapic *l)
{
    return (l->base & APIC_BASE_EN) != 0;
}

static inline bool lapic_x2(const struct lapic *l)
{
    return (l->base & APIC_BASE_EXTD) != 0;
}

/* lapic.c */
void lapic_update(struct lapic *l); /* irq_pending of the vCPU, after any change */
void lapic_accept(struct lapic *l, uint8_t mode, uint8_t vector, bool level);
void lapic_error(struct lapic *l, uint32_t esr);
void lapic_local(struct lapic *l, enum lvt n); /* the local source @n fires */
void lapic_eoi(struct lapic *l);
bool lapic_eoi_is_own(const struct lapic *l); /* no one is told of it */
void lapic_ipi(struct lapic *l, uint64_t icr);
uint8_t lapic_ppr(const struct lapic *l);
uint32_t lapic_x2_ldr(const struct lapic *l);

/* lapic_timer.c. sync delivers what is due; rearm computes when the timer fires next. */
void lapic_timer_fire(void *ctx, uint64_t now);
void lapic_timer_sync(struct lapic *l);
void lapic_timer_rearm(struct lapic *l);
uint32_t lapic_timer_count(const struct lapic *l);
void lapic_timer_set_init(struct lapic *l, uint32_t count);
void lapic_timer_set_div(struct lapic *l, uint32_t div);
void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);

#endif
