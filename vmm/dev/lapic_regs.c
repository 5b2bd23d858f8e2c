/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/lapic_regs.c - the LAPIC's registers as memory (xAPIC) and as MSRs (x2APIC). Both modes
 * share one table (SDM Vol. 3A, "The Local APIC Block Diagram", "x2APIC Register Address Space").
 */
#include "base/check.h"
#include "vmm/dev/lapic_internal.h"

enum { ACCESS_R = 1, ACCESS_W = 2, ACCESS_RW = 3 };

/* Version 0x14, LVT entries 0-5, no EOI-broadcast suppression. */
enum { VERSION = (LVTS - 1) << 16 | 0x14 };

struct reg {
    uint8_t x1, x2; /* ACCESS_* in xAPIC and x2APIC mode; 0: reserved */
    uint32_t mask;  /* bits a write may change ... */
    uint32_t fixed; /* ... and those it may set without effect (status bits) */
};

static const struct reg regs[REG_END] = {
    [REG_ID] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_VERSION] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_TPR] = {ACCESS_RW, ACCESS_RW, 0xff, 0},
    [REG_APR] = {ACCESS_R, 0, 0, 0},
    [REG_PPR] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_EOI] = {ACCESS_W, ACCESS_W, 0, 0},
    [REG_RRD] = {ACCESS_R, 0, 0, 0},
    [REG_LDR] = {ACCESS_RW, ACCESS_R, 0xff000000, 0},
    [REG_DFR] = {ACCESS_RW, 0, 0xf0000000, 0},
    [REG_SVR] = {ACCESS_RW, ACCESS_RW, 0x3ff, 0},
    [REG_ISR... REG_ISR + 7] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_TMR... REG_TMR + 7] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_IRR... REG_IRR + 7] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_ESR] = {ACCESS_RW, ACCESS_RW, 0, 0},
    [REG_ICR] = {ACCESS_RW, ACCESS_RW, 0xccfff, 0x1000},
    [REG_ICR2] = {ACCESS_RW, 0, 0xff000000, 0},
    [REG_LVT + LVT_TIMER] = {ACCESS_RW, ACCESS_RW, 0x700ff, 0x1000},
    [REG_LVT + LVT_THERMAL] = {ACCESS_RW, ACCESS_RW, 0x107ff, 0x1000},
    [REG_LVT + LVT_PERF] = {ACCESS_RW, ACCESS_RW, 0x107ff, 0x1000},
    [REG_LVT + LVT_LINT0] = {ACCESS_RW, ACCESS_RW, 0x1a7ff, 0x5000},
    [REG_LVT + LVT_LINT1] = {ACCESS_RW, ACCESS_RW, 0x1a7ff, 0x5000},
    [REG_LVT + LVT_ERROR] = {ACCESS_RW, ACCESS_RW, 0x100ff, 0x1000},
    [REG_TIMER_INIT] = {ACCESS_RW, ACCESS_RW, UINT32_MAX, 0},
    [REG_TIMER_COUNT] = {ACCESS_R, ACCESS_R, 0, 0},
    [REG_TIMER_DIV] = {ACCESS_RW, ACCESS_RW, 0xb, 0},
    [REG_SELF_IPI] = {0, ACCESS_W, 0xff, 0},
};

static uint32_t reg_read(struct lapic *l, unsigned r)
{
    switch (r) {
    case REG_ID:
        return lapic_x2(l) ? l->v->id : l->v->id << 24;
    case REG_VERSION:
        return VERSION;
    case REG_TPR:
        return l->tpr;
    case REG_APR:
    case REG_PPR:
        return lapic_ppr(l);
    case REG_LDR:
        return lapic_x2(l) ? lapic_x2_ldr(l) : l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ISR ... REG_ISR + 7:
        return l->isr[r - REG_ISR];
    case REG_TMR ... REG_TMR + 7:
        return l->tmr[r - REG_TMR];
    case REG_IRR ... REG_IRR + 7:
        return l->irr[r - REG_IRR];
    case REG_ESR:
        return l->esr;
    case REG_ICR:
        return (uint32_t)l->icr;
    case REG_ICR2:
        return (uint32_t)(l->icr >> 32);
    case REG_LVT ... REG_LVT + LVTS - 1:
        return l->lvt[r - REG_LVT];
    case REG_TIMER_INIT:
        return l->timer_init;
    case REG_TIMER_COUNT:
        lapic_timer_sync(l);
        return lapic_timer_count(l);
    case REG_TIMER_DIV:
        return l->timer_div;
    default: /* RRD */
        return 0;
    }
}

static void write_lvt(struct lapic *l, enum lvt n, uint32_t value)
{
    if ((l->svr & SVR_ENABLE) == 0) {
        value |= LVT_MASKED;
    }
    if (n == LVT_TIMER) {
        if ((value & LVT_TIMER_MODE) == LVT_TIMER_MODE) {
            value = (value & ~(uint32_t)LVT_TIMER_MODE) | LVT_MASKED; /* the reserved mode */
        }
        lapic_timer_set_lvt(l, value);
    } else {
        l->lvt[n] = value;
    }
    lapic_update(l);
}

static void write_svr(struct lapic *l, uint32_t value)
{
    l->svr = value;
    if ((value & SVR_ENABLE) == 0) { /* "the mask bits for all the LVT entries are set" */
        for (unsigned n = 0; n < LVTS; n++) {
            write_lvt(l, n, l->lvt[n]);
        }
    }
    lapic_update(l);
}

static void reg_write(struct lapic *l, unsigned r, uint32_t value)
{
    switch (r) {
    case REG_TPR:
        l->tpr = (uint8_t)value;
        lapic_update(l);
        break;
    case REG_EOI:
        lapic_eoi(l);
        break;
    case REG_LDR:
        l->ldr = value;
        break;
    case REG_DFR:
        l->dfr = value | 0xfffffff;
        break;
    case REG_SVR:
        write_svr(l, value);
        break;
    case REG_ESR:
        l->esr = l->esr_pending;
        l->esr_pending = 0;
        break;
    case REG_ICR:
        l->icr = (l->icr & ~UINT64_C(0xffffffff)) | value;
        lapic_ipi(l, l->icr);
        break;
    case REG_ICR2:
        l->icr = (l->icr & 0xffffffff) | (uint64_t)value << 32;
        break;
    case REG_LVT ... REG_LVT + LVTS - 1:
        write_lvt(l, r - REG_LVT, value);
        break;
    case REG_TIMER_INIT:
        lapic_timer_set_init(l, value);
        break;
    case REG_TIMER_DIV:
        lapic_timer_set_div(l, value);
        break;
    default: /* self IPI: the table lets nothing else through */
        lapic_ipi(l, UINT64_C(1) << 18 | value);
    }
}

/* Does an access touch nothing but this LAPIC? It must be one that the mode allows. */
static bool reg_own(const struct lapic *l, unsigned r, bool write)
{
    if (!write) {
        return r != REG_TIMER_COUNT; /* looks at the clock, and may find that it is due */
    }
    return r == REG_TPR || r == REG_ICR2 || (r == REG_EOI && lapic_eoi_is_own(l));
}

/* --- xAPIC ---------------------------------------------------------------------------------- */

bool lapic_claims(const struct lapic *l, gpa_t gpa)
{
    return (l->base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN &&
           PAGE_BASE(gpa) == (l->base & APIC_BASE_ADDR);
}

/* Registers are 32 bits wide at multiples of 16; reads of a part are let through, reads and writes
 * between them give zero and vanish ("must be accessed using aligned 32-bit loads and stores"). */
uint64_t lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned size)
{
    unsigned off = (unsigned)PAGE_OFFSET(gpa), r = off >> 4;

    if ((off & 0xf) + size > 4) {
        return 0;
    }
    if (r >= REG_END || (regs[r].x1 & ACCESS_R) == 0) {
        lapic_error(l, r < REG_END && regs[r].x1 != 0 ? 0 : ESR_ILLEGAL_REGISTER);
        return 0;
    }
    return (reg_read(l, r) >> ((off & 3) * 8)) & (UINT32_MAX >> (32 - size * 8));
}

void lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned size, uint64_t value)
{
    unsigned off = (unsigned)PAGE_OFFSET(gpa), r = off >> 4;

    if ((off & 0xf) != 0 || size != 4) {
        return;
    }
    if (r >= REG_END || (regs[r].x1 & ACCESS_W) == 0) {
        lapic_error(l, r < REG_END && regs[r].x1 != 0 ? 0 : ESR_ILLEGAL_REGISTER);
        return;
    }
    reg_write(l, r, (uint32_t)value & regs[r].mask);
}

bool lapic_mmio_own(const struct lapic *l, gpa_t gpa, unsigned size, bool write)
{
    unsigned off = (unsigned)PAGE_OFFSET(gpa), r = off >> 4;

    return lapic_claims(l, gpa) && (off & 0xf) == 0 && size == 4 && r < REG_END &&
           (regs[r].x1 & (write ? ACCESS_W : ACCESS_R)) != 0 && reg_own(l, r, write);
}

/* --- MSRs ----------------------------------------------------------------------------------- */

/* SDM, "x2APIC State Transitions": disabled -> xAPIC -> x2APIC -> disabled, nothing else. */
static int write_base(struct lapic *l, uint64_t value)
{
    uint64_t modes = APIC_BASE_EN | APIC_BASE_EXTD, from = l->base & modes, to = value & modes;

    if ((value & ~(APIC_BASE_ADDR | APIC_BASE_BSP | modes)) != 0 || to == APIC_BASE_EXTD ||
        (from == 0 && to == modes) || (from == modes && to == APIC_BASE_EN)) {
        return PLX_GUEST_FAULT;
    }
    if (from != 0 && to == 0) {
        lapic_init_reset(l);
    }
    l->base = (value & ~APIC_BASE_BSP) | (l->base & APIC_BASE_BSP);
    lapic_update(l);
    return 0;
}

static const struct reg *x2_reg(const struct lapic *l, uint32_t msr, uint8_t access)
{
    uint32_t r = msr - MSR_X2APIC;

    return lapic_x2(l) && r < REG_END && (regs[r].x2 & access) != 0 ? &regs[r] : NULL;
}

bool lapic_msr_own(const struct lapic *l, uint32_t msr, bool write)
{
    if (msr == MSR_APIC_BASE) {
        return !write;
    }
    return msr >= MSR_X2APIC && x2_reg(l, msr, write ? ACCESS_W : ACCESS_R) != NULL &&
           reg_own(l, msr - MSR_X2APIC, write);
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    if (msr == MSR_APIC_BASE) {
        *value = l->base;
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_sync(l);
        *value = l->tsc_deadline;
        return 0;
    }
    if (msr < MSR_X2APIC || x2_reg(l, msr, ACCESS_R) == NULL) {
        return PLX_GUEST_FAULT;
    }
    *value = msr == MSR_X2APIC + REG_ICR ? l->icr : reg_read(l, msr - MSR_X2APIC);
    return 0;
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    const struct reg *reg;

    if (msr == MSR_APIC_BASE) {
        return write_base(l, value);
    }
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(l, value);
        return 0;
    }
    reg = msr < MSR_X2APIC ? NULL : x2_reg(l, msr, ACCESS_W);
    if (reg == NULL) {
        return PLX_GUEST_FAULT;
    }
    if (msr == MSR_X2APIC + REG_ICR) {
        if (((uint32_t)value & ~(reg->mask | reg->fixed)) != 0) {
            return PLX_GUEST_FAULT;
        }
        l->icr = (value & ~UINT64_C(0xffffffff)) | ((uint32_t)value & reg->mask);
        lapic_ipi(l, l->icr);
        return 0;
    }
    if ((value & ~(uint64_t)(reg->mask | reg->fixed)) != 0) {
        return PLX_GUEST_FAULT;
    }
    reg_write(l, msr - MSR_X2APIC, (uint32_t)value & reg->mask);
    return 0;
}

uint64_t lapic_cr8_read(struct lapic *l)
{
    return l->tpr >> 4;
}

void lapic_cr8_write(struct lapic *l, uint64_t value)
{
    l->tpr = (uint8_t)(value << 4);
    lapic_update(l);
}
