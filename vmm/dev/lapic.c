/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/lapic.c - see lapic.h: acceptance, priority, messages, state. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/lapic_internal.h"
#include "vmm/dev/section.h"

enum { LAPIC_VERSION = 2 };

static void bit_set(uint32_t *bits, unsigned i)
{
    bits[i >> 5] |= UINT32_C(1) << (i & 31);
}

static void bit_clear(uint32_t *bits, unsigned i)
{
    bits[i >> 5] &= ~(UINT32_C(1) << (i & 31));
}

static bool bit_test(const uint32_t *bits, unsigned i)
{
    return (bits[i >> 5] >> (i & 31) & 1) != 0;
}

/* The highest vector set, 0 if none (vectors below 16 are never set). */
static unsigned highest(const uint32_t *bits)
{
    for (unsigned i = 8; i-- > 0;) {
        if (bits[i] != 0) {
            return i * 32 + 31 - (unsigned)__builtin_clz(bits[i]);
        }
    }
    return 0;
}

/* SDM, "Task and Processor Priorities". */
uint8_t lapic_ppr(const struct lapic *l)
{
    unsigned isrv = highest(l->isr);

    return (uint8_t)(l->tpr >> 4 >= isrv >> 4 ? l->tpr : isrv & 0xf0);
}

/* The vector to deliver now, 0 if none. */
static unsigned deliverable(const struct lapic *l)
{
    unsigned v = lapic_on(l) && (l->svr & SVR_ENABLE) != 0 ? highest(l->irr) : 0;

    return v >> 4 > lapic_ppr(l) >> 4 ? v : 0;
}

/* The PIC reaches the processor through LINT0; past a disabled APIC the pin is INTR itself. */
static bool extint(const struct lapic *l)
{
    if (!l->lint0) {
        return false;
    }
    if (!lapic_on(l)) {
        return (l->base & APIC_BASE_BSP) != 0;
    }
    return (l->lvt[LVT_LINT0] & LVT_MASKED) == 0 && (l->lvt[LVT_LINT0] >> 8 & 7) == APIC_EXTINT;
}

static void rouse(struct lapic *l)
{
    l->v->attention = true;
    if (l->wires.wake != NULL) {
        l->wires.wake(l->wires.ctx);
    }
}

void lapic_update(struct lapic *l)
{
    bool pending = deliverable(l) != 0 || extint(l), rose = pending && !l->v->irq_pending;

    l->v->irq_pending = pending;
    if (rose) {
        rouse(l);
    }
}

int lapic_irq_peek(const struct lapic *l)
{
    return extint(l) ? 0 : (int)deliverable(l);
}

int lapic_irq_take(struct lapic *l)
{
    unsigned v;

    if (extint(l)) { /* external: ahead of the local APIC's own */
        int vector = l->wires.extint_take(l->wires.ctx);

        lapic_update(l);
        return vector;
    }
    v = deliverable(l);
    if (v == 0) {
        lapic_update(l);
        return -1;
    }
    bit_clear(l->irr, v);
    bit_set(l->isr, v);
    lapic_update(l);
    return (int)v;
}

bool lapic_eoi_is_own(const struct lapic *l)
{
    unsigned v = highest(l->isr);

    return v == 0 || !bit_test(l->tmr, v);
}

void lapic_eoi(struct lapic *l)
{
    unsigned v = highest(l->isr);

    if (v == 0) {
        return;
    }
    bit_clear(l->isr, v);
    if (bit_test(l->tmr, v) && l->bus->eoi != NULL) {
        l->bus->eoi(l->bus->eoi_ctx, (uint8_t)v);
    }
    lapic_update(l);
}

/* Set error bits; they reach the ESR when it is written. The LVT entry cannot recurse: an illegal
 * vector in it raises no second interrupt. */
void lapic_error(struct lapic *l, uint32_t esr)
{
    uint32_t lvt = l->lvt[LVT_ERROR];
    bool fresh = (l->esr_pending & esr) != esr;

    l->esr_pending |= esr;
    if (fresh && (lvt & LVT_MASKED) == 0 && (lvt & 0xff) >= 16) {
        lapic_accept(l, APIC_FIXED, (uint8_t)lvt, false);
    }
}

void lapic_local(struct lapic *l, enum lvt n)
{
    uint32_t lvt = l->lvt[n];

    if ((lvt & LVT_MASKED) == 0) {
        lapic_accept(l, n == LVT_TIMER ? APIC_FIXED : (uint8_t)(lvt >> 8 & 7), (uint8_t)lvt, false);
    }
}

static void accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
    if ((l->svr & SVR_ENABLE) == 0) {
        return;
    }
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
        return;
    }
    bit_set(l->irr, vector);
    if (level) {
        bit_set(l->tmr, vector);
    } else {
        bit_clear(l->tmr, vector);
    }
    lapic_update(l);
}

void lapic_accept(struct lapic *l, uint8_t mode, uint8_t vector, bool level)
{
    if (!lapic_on(l)) {
        return;
    }
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        accept_fixed(l, vector, level);
        break;
    case APIC_NMI:
        l->v->c.nmi_pending = 1;
        rouse(l);
        break;
    case APIC_INIT:
        l->wires.init(l->wires.ctx);
        l->v->attention = true;
        break;
    case APIC_SIPI:
        l->wires.sipi(l->wires.ctx, vector);
        rouse(l);
        break;
    default: /* SMI, ExtINT, reserved: lapic.h */
        break;
    }
}

/* --- messages (SDM, "Determining IPI Destination") ------------------------------------------ */

uint32_t lapic_x2_ldr(const struct lapic *l)
{
    return (l->v->id >> 4) << 16 | UINT32_C(1) << (l->v->id & 15);
}

static bool addressed(const struct lapic *l, const struct apic_msg *msg)
{
    if (msg->dest == (msg->wide ? UINT32_MAX : 0xff)) {
        return true;
    }
    if (!msg->logical) {
        return msg->dest == l->v->id;
    }
    if (lapic_x2(l)) {
        uint32_t ldr = lapic_x2_ldr(l);

        return ldr >> 16 == msg->dest >> 16 && (ldr & msg->dest & 0xffff) != 0;
    }
    uint32_t id = l->ldr >> 24;

    if (l->dfr >> 28 == 0xf) { /* flat */
        return (id & msg->dest) != 0;
    }
    return id >> 4 == (msg->dest >> 4 & 0xf) && (id & msg->dest & 0xf) != 0;
}

/* Deliver to @l, or for lowest priority remember whom it will be: the least PPR, and among equals
 * whoever was asked first. */
static void offer(struct lapic *l, const struct apic_msg *msg, struct lapic **least)
{
    if (msg->mode != APIC_LOWEST) {
        lapic_accept(l, msg->mode, msg->vector, msg->level);
    } else if (lapic_on(l) && (l->svr & SVR_ENABLE) != 0 &&
               (*least == NULL || lapic_ppr(l) < lapic_ppr(*least))) {
        *least = l;
    }
}

bool apic_send(struct apic_bus *bus, const struct apic_msg *msg)
{
    struct lapic *least = NULL;
    bool any = false;

    for (unsigned i = 0; i < bus->n; i++) {
        struct lapic *l = bus->lapics[i];

        if (!lapic_on(l) || !addressed(l, msg)) {
            continue;
        }
        any = true;
        offer(l, msg, &least);
    }
    if (least != NULL) {
        lapic_accept(least, APIC_FIXED, msg->vector, msg->level);
    }
    return any;
}

enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

void lapic_ipi(struct lapic *l, uint64_t icr)
{
    struct apic_msg msg = {.dest = (uint32_t)(lapic_x2(l) ? icr >> 32 : icr >> 56),
                           .wide = lapic_x2(l),
                           .logical = (icr >> 11 & 1) != 0,
                           .level = (icr >> 15 & 1) != 0,
                           .mode = icr >> 8 & 7,
                           .vector = (uint8_t)icr};
    unsigned shorthand = icr >> 18 & 3;
    struct lapic *least = NULL;

    if (msg.mode == APIC_INIT && msg.level && (icr >> 14 & 1) == 0) {
        return; /* INIT level de-assert: nothing to synchronise */
    }
    if ((msg.mode == APIC_FIXED || msg.mode == APIC_LOWEST) && msg.vector < 16) {
        lapic_error(l, ESR_SEND_ILLEGAL);
        return;
    }
    msg.level = false; /* IPIs are edges, whatever the trigger mode bit says */
    if (shorthand == SHORTHAND_NONE) {
        apic_send(l->bus, &msg);
        return;
    }
    for (unsigned i = 0; i < l->bus->n; i++) {
        bool self = l->bus->lapics[i] == l;

        if (shorthand == SHORTHAND_SELF ? self : shorthand == SHORTHAND_ALL || !self) {
            offer(l->bus->lapics[i], &msg, &least);
        }
    }
    if (least != NULL) {
        lapic_accept(least, APIC_FIXED, msg.vector, false);
    }
}

void lapic_set_lint0(struct lapic *l, bool level)
{
    bool rose = level && !l->lint0;

    l->lint0 = level;
    if (rose && lapic_on(l) && (l->lvt[LVT_LINT0] >> 8 & 7) != APIC_EXTINT) {
        lapic_local(l, LVT_LINT0); /* wired as a fixed interrupt or an NMI */
    }
    lapic_update(l);
}

/* --- state --------------------------------------------------------------------------------- */

void lapic_init_reset(struct lapic *l)
{
    memset(l->irr, 0, sizeof l->irr);
    memset(l->isr, 0, sizeof l->isr);
    memset(l->tmr, 0, sizeof l->tmr);
    l->ldr = 0;
    l->dfr = UINT32_MAX;
    l->svr = 0xff;
    l->esr = l->esr_pending = 0;
    l->icr = 0;
    l->tpr = 0;
    for (unsigned i = 0; i < LVTS; i++) {
        l->lvt[i] = LVT_MASKED;
    }
    l->timer_init = l->timer_div = l->timer_count = 0;
    l->timer_start = 0;
    l->tsc_deadline = 0;
    vtimer_disarm(&l->timer);
    lapic_update(l);
}

static void lapic_reset(void *dev)
{
    struct lapic *l = dev;

    l->base = LAPIC_BASE | APIC_BASE_EN | (l->v->id == 0 ? APIC_BASE_BSP : 0);
    l->lint0 = false;
    lapic_init_reset(l);
    if (l->v->id == 0) {
        l->lvt[LVT_LINT0] = APIC_EXTINT << 8; /* virtual wire mode, as firmware leaves it */
    }
}

static void put_bits(struct wbuf *out, const uint32_t bits[8])
{
    for (unsigned i = 0; i < 8; i++) {
        wbuf_u32(out, bits[i]);
    }
}

static void get_bits(struct rbuf *in, uint32_t bits[8])
{
    for (unsigned i = 0; i < 8; i++) {
        bits[i] = rbuf_u32(in);
    }
}

static void lapic_save(const void *dev, struct wbuf *out)
{
    const struct lapic *l = dev;

    wbuf_u64(out, l->base);
    put_bits(out, l->irr);
    put_bits(out, l->isr);
    put_bits(out, l->tmr);
    wbuf_u32(out, l->ldr);
    wbuf_u32(out, l->dfr);
    wbuf_u32(out, l->svr);
    wbuf_u32(out, l->esr);
    wbuf_u32(out, l->esr_pending);
    wbuf_u64(out, l->icr);
    for (unsigned i = 0; i < LVTS; i++) {
        wbuf_u32(out, l->lvt[i]);
    }
    wbuf_u8(out, l->tpr);
    wbuf_u8(out, l->lint0);
    wbuf_u32(out, l->timer_init);
    wbuf_u32(out, l->timer_div);
    wbuf_u32(out, l->timer_count);
    wbuf_u64(out, l->timer_start);
    wbuf_u64(out, l->tsc_deadline);
    wbuf_u64(out, l->timer.deadline);
}

static bool base_valid(const struct lapic *l, uint64_t base)
{
    uint64_t known = APIC_BASE_ADDR | APIC_BASE_EN | APIC_BASE_EXTD | APIC_BASE_BSP;

    return (base & ~known) == 0 && ((base & APIC_BASE_BSP) != 0) == (l->v->id == 0) &&
           (base & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EXTD;
}

static int lapic_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct lapic *l = dev;
    uint8_t lint0;
    uint64_t deadline;
    int rc = section_version("lapic", version, LAPIC_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    l->base = rbuf_u64(in);
    get_bits(in, l->irr);
    get_bits(in, l->isr);
    get_bits(in, l->tmr);
    l->ldr = rbuf_u32(in);
    l->dfr = rbuf_u32(in);
    l->svr = rbuf_u32(in);
    l->esr = rbuf_u32(in);
    l->esr_pending = rbuf_u32(in);
    l->icr = rbuf_u64(in);
    for (unsigned i = 0; i < LVTS; i++) {
        l->lvt[i] = rbuf_u32(in);
    }
    l->tpr = rbuf_u8(in);
    lint0 = rbuf_u8(in);
    l->timer_init = rbuf_u32(in);
    l->timer_div = rbuf_u32(in);
    l->timer_count = rbuf_u32(in);
    l->timer_start = rbuf_u64(in);
    l->tsc_deadline = rbuf_u64(in);
    deadline = rbuf_u64(in);
    rc = section_complete("lapic", in, err);
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"lapic: APIC_BASE", base_valid(l, l->base), l->base},
        {"lapic: IRR 0-15", (l->irr[0] & 0xffff) == 0, l->irr[0]},
        {"lapic: ISR 0-15", (l->isr[0] & 0xffff) == 0, l->isr[0]},
        {"lapic: LDR", (l->ldr & 0xffffff) == 0, l->ldr},
        {"lapic: DFR", (~l->dfr & 0xfffffff) == 0, l->dfr},
        {"lapic: SVR", (l->svr & ~UINT32_C(0x3ff)) == 0, l->svr},
        {"lapic: LINT0 level", lint0 <= 1, lint0},
        {"lapic: divide configuration", (l->timer_div & ~UINT32_C(0xb)) == 0, l->timer_div},
        {"lapic: current count", l->timer_count <= l->timer_init, l->timer_count},
        {"lapic: timer start", l->timer_start <= SECTION_TIME_MAX, l->timer_start},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    if (rc != 0) {
        return rc;
    }
    l->lint0 = lint0 != 0;
    vtimer_arm(&l->timer, deadline);
    lapic_update(l);
    return 0;
}

static const struct device_ops lapic_device = {lapic_reset, lapic_save, lapic_load};

int lapic_create(struct machine *m, struct apic_bus *bus, struct vcpu *v,
                 const struct lapic_wires *wires, struct lapic **out, struct plx_err *err)
{
    struct lapic *l = plx_calloc(1, sizeof *l);

    *out = NULL;
    if (l == NULL) {
        return plx_fail(err, PLX_ENOMEM, "lapic%u: out of memory", v->id);
    }
    PLX_CHECK(bus->n < PLX_COUNT(bus->lapics));
    l->m = m;
    l->bus = bus;
    l->v = v;
    l->wires = *wires;
    snprintf(l->name, sizeof l->name, "lapic%u", v->id);
    vtimer_init(&l->timer, &m->timers, lapic_timer_fire, l);
    bus->lapics[bus->n++] = l;
    machine_add_device(m, l->name, LAPIC_VERSION, &lapic_device, l);
    lapic_reset(l);
    *out = l;
    return 0;
}

void lapic_destroy(struct lapic *l)
{
    plx_free(l);
}
