/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/hpet.c - see hpet.h.
 *
 * When a comparator matches next is computed when anything it depends on changes, and kept as the
 * virtual time `due`; matches that nobody hears about are caught up with when somebody looks. */
#include "vmm/dev/hpet.h"

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"

enum { HPET_VERSION = 1 };
enum { CAPABILITIES = 0x000, CONFIG = 0x010, STATUS = 0x020, COUNTER = 0x0f0, TIMER0 = 0x100 };
enum { TIMER_STEP = 0x20, TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08 };
enum { CFG_ENABLE = 1, CFG_LEGACY = 2 };
enum {
    T_LEVEL = 0x0002,
    T_ENABLE = 0x0004,
    T_PERIODIC = 0x0008,
    T_CAN_PERIODIC = 0x0010,
    T_64_BITS = 0x0020,
    T_VAL_SET = 0x0040,
    T_32_BITS = 0x0100,
    T_ROUTE = 0x3e00,
    T_ROUTE_SHIFT = 9,
    T_WRITABLE = T_LEVEL | T_ENABLE | T_PERIODIC | T_VAL_SET | T_32_BITS | T_ROUTE
};

#define PERIOD_FS (UINT64_C(1000000) * HPET_TICK_NS)

struct timer {
    struct hpet *hpet;
    struct vtimer timer;

    /* --- state --- */
    uint16_t config;     /* T_WRITABLE bits */
    uint64_t comparator; /* in periodic mode: the next match */
    uint64_t period;     /* periodic mode; 0: none was written */
    uint64_t due;        /* virtual ns of the next match; VTIMER_NEVER: none */
};

struct hpet {
    struct machine *m;
    struct irq_line legacy[2];
    struct timer timers[HPET_TIMERS];

    /* --- state --- */
    uint8_t config;
    uint8_t status; /* of level-triggered timers */
    uint64_t value; /* the counter was this ... */
    uint64_t start; /* ... at this virtual ns, if it runs */
};

bool hpet_legacy(const struct hpet *h)
{
    return h != NULL && (h->config & CFG_LEGACY) != 0;
}

static bool running(const struct hpet *h)
{
    return (h->config & CFG_ENABLE) != 0;
}

static uint64_t counter(const struct hpet *h, uint64_t now)
{
    return running(h) ? h->value + (now - h->start) / HPET_TICK_NS : h->value;
}

static uint64_t width_mask(const struct timer *t)
{
    return (t->config & T_32_BITS) != 0 ? UINT32_MAX : UINT64_MAX;
}

/* --- lines -------------------------------------------------------------------------------- */

static const struct irq_line *line_of(const struct timer *t)
{
    const struct hpet *h = t->hpet;
    unsigned n = (unsigned)(t - h->timers), route = (t->config & T_ROUTE) >> T_ROUTE_SHIFT;

    if (hpet_legacy(h) && n < 2) {
        return &h->legacy[n];
    }
    return (HPET_ROUTES >> route & 1) != 0 ? &h->m->gsi[route] : NULL;
}

static void set_line(const struct timer *t, bool level)
{
    const struct irq_line *line = line_of(t);

    if (line != NULL) {
        irq_set(line, level);
    }
}

/* Level-triggered: the line follows the status bit. */
static void show_level(const struct timer *t)
{
    if ((t->config & T_LEVEL) != 0) {
        set_line(t, (t->config & T_ENABLE) != 0 &&
                        (t->hpet->status >> (t - t->hpet->timers) & 1) != 0);
    }
}

static void match(struct timer *t)
{
    if ((t->config & T_LEVEL) != 0) {
        t->hpet->status |= (uint8_t)(1U << (t - t->hpet->timers));
        show_level(t);
    } else if ((t->config & T_ENABLE) != 0) {
        set_line(t, false);
        set_line(t, true);
    }
}

/* --- matches ------------------------------------------------------------------------------ */

/* The next match at or after @now's tick (@fresh), or after it. */
static void compute_due(struct timer *t, uint64_t now, bool fresh)
{
    const struct hpet *h = t->hpet;
    unsigned __int128 due;
    uint64_t c, delta;

    t->due = VTIMER_NEVER;
    if (!running(h)) {
        return;
    }
    c = counter(h, now);
    delta = (t->comparator - c) & width_mask(t);
    due = h->start + ((unsigned __int128)(c - h->value) + delta) * HPET_TICK_NS;
    if (delta == 0 && !fresh) {
        due += ((unsigned __int128)width_mask(t) + 1) * HPET_TICK_NS;
    }
    t->due = due <= SECTION_TIME_MAX ? (uint64_t)due : VTIMER_NEVER;
}

/* Somebody hears of a match only through a line or a status bit. */
static void arm(struct timer *t)
{
    bool heard = (t->config & (T_ENABLE | T_LEVEL)) != 0;

    vtimer_arm(&t->timer, heard ? t->due : VTIMER_NEVER);
}

/* What was due until now has happened. Several matches at once are one interrupt. */
static void settle(struct timer *t, uint64_t now)
{
    if (t->due > now) {
        return;
    }
    if ((t->config & T_PERIODIC) != 0 && t->period != 0) {
        uint64_t ticks = (now - t->due) / HPET_TICK_NS;

        t->comparator = (t->comparator + (ticks / t->period + 1) * t->period) & width_mask(t);
    }
    match(t);
    compute_due(t, now, false);
    arm(t);
}

static void settle_all(struct hpet *h)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        settle(&h->timers[i], machine_now(h->m));
    }
}

static void restart(struct timer *t)
{
    compute_due(t, machine_now(t->hpet->m), true);
    arm(t);
}

static void fire(void *ctx, uint64_t now)
{
    settle(ctx, now);
}

/* --- registers ---------------------------------------------------------------------------- */

static uint64_t timer_read(const struct timer *t, unsigned reg)
{
    switch (reg) {
    case TIMER_CONFIG:
        return (uint64_t)HPET_ROUTES << 32 | T_64_BITS | T_CAN_PERIODIC |
               (t->config & ~(unsigned)T_VAL_SET);
    case TIMER_COMPARATOR:
        return t->comparator;
    default: /* FSB route: none */
        return 0;
    }
}

static uint64_t reg_read(struct hpet *h, unsigned reg)
{
    switch (reg) {
    case CAPABILITIES:
        return PERIOD_FS << 32 | HPET_BLOCK_ID;
    case CONFIG:
        return h->config;
    case STATUS:
        return h->status;
    case COUNTER:
        return counter(h, machine_now(h->m));
    default:
        break;
    }
    if (reg >= TIMER0 && reg < TIMER0 + HPET_TIMERS * TIMER_STEP) {
        return timer_read(&h->timers[(reg - TIMER0) / TIMER_STEP], reg % TIMER_STEP);
    }
    return 0;
}

static void write_config(struct hpet *h, uint8_t value)
{
    uint8_t changed = (uint8_t)((value ^ h->config) & (CFG_ENABLE | CFG_LEGACY));
    uint64_t now = machine_now(h->m);

    if ((changed & CFG_LEGACY) != 0) {
        for (unsigned i = 0; i < 2; i++) { /* the lines are let go, and shown where they are now */
            set_line(&h->timers[i], false);
        }
        h->config ^= CFG_LEGACY;
        for (unsigned i = 0; i < 2; i++) {
            set_line(&h->timers[i], false);
            show_level(&h->timers[i]);
        }
    }
    if ((changed & CFG_ENABLE) != 0) {
        h->value = counter(h, now);
        h->start = now;
        h->config ^= CFG_ENABLE;
        for (unsigned i = 0; i < HPET_TIMERS; i++) {
            restart(&h->timers[i]);
        }
    }
}

static void write_status(struct hpet *h, uint8_t value)
{
    h->status &= (uint8_t)~value;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        show_level(&h->timers[i]);
    }
}

static void write_timer_config(struct timer *t, uint16_t value)
{
    uint16_t route = (value & T_ROUTE) >> T_ROUTE_SHIFT;

    if ((HPET_ROUTES >> route & 1) == 0) { /* "will not be accepted": reads back as it was */
        value = (uint16_t)((value & ~T_ROUTE) | (t->config & T_ROUTE));
    }
    set_line(t, false);
    t->config = value & T_WRITABLE;
    if ((t->config & T_LEVEL) == 0) {
        t->hpet->status &= (uint8_t) ~(1U << (t - t->hpet->timers));
    }
    t->comparator &= width_mask(t);
    t->period &= width_mask(t);
    show_level(t);
    restart(t);
}

static uint64_t merge(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

/* In periodic mode a write gives the period, and with VAL_SET the next match as well. */
static void write_comparator(struct timer *t, uint64_t value, uint64_t mask)
{
    bool periodic = (t->config & T_PERIODIC) != 0;

    if (!periodic || (t->config & T_VAL_SET) != 0) {
        t->comparator = merge(t->comparator, value, mask) & width_mask(t);
    }
    if (periodic) {
        t->period = merge(t->period, value, mask) & width_mask(t);
    }
    t->config &= (uint16_t)~T_VAL_SET;
    restart(t);
}

static void reg_write(struct hpet *h, unsigned reg, uint64_t value, uint64_t mask)
{
    bool low = (mask & UINT32_MAX) != 0; /* the upper halves of most registers are reserved */

    if (reg == CONFIG && low) {
        write_config(h, (uint8_t)value);
    } else if (reg == STATUS && low) {
        write_status(h, (uint8_t)value);
    } else if (reg == COUNTER && !running(h)) { /* "while the counter is halted" */
        h->value = merge(h->value, value, mask);
    } else if (reg >= TIMER0 && reg < TIMER0 + HPET_TIMERS * TIMER_STEP) {
        struct timer *t = &h->timers[(reg - TIMER0) / TIMER_STEP];

        if (reg % TIMER_STEP == TIMER_CONFIG && low) {
            write_timer_config(t, (uint16_t)value);
        } else if (reg % TIMER_STEP == TIMER_COMPARATOR) {
            write_comparator(t, value, mask);
        }
    }
}

static uint64_t mmio_read(void *ctx, uint64_t addr, unsigned size)
{
    struct hpet *h = ctx;

    if ((addr & 7) + size > 8) {
        return 0;
    }
    settle_all(h);
    return reg_read(h, (unsigned)addr & ~7U) >> ((addr & 7) * 8);
}

/* "Accesses must be aligned, of 32 or 64 bits": others vanish. */
static void mmio_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct hpet *h = ctx;
    unsigned shift = (addr & 4) != 0 ? 32 : 0;

    if (size < 4 || (addr & (size - 1)) != 0) {
        return;
    }
    settle_all(h);
    reg_write(h, (unsigned)addr & ~7U, value << shift,
              size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << shift);
}

static const struct bus_range_ops mmio_ops = {mmio_read, mmio_write};

/* --- state -------------------------------------------------------------------------------- */

static void hpet_reset(void *dev)
{
    struct hpet *h = dev;

    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct timer *t = &h->timers[i];

        set_line(t, false);
        t->config = 0;
        t->comparator = UINT64_MAX;
        t->period = 0;
        t->due = VTIMER_NEVER;
        vtimer_disarm(&t->timer);
    }
    h->config = 0;
    h->status = 0;
    h->value = 0;
    h->start = machine_now(h->m);
}

static void hpet_save(const void *dev, struct wbuf *out)
{
    const struct hpet *h = dev;

    wbuf_u8(out, h->config);
    wbuf_u8(out, h->status);
    wbuf_u64(out, h->value);
    wbuf_u64(out, h->start);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        const struct timer *t = &h->timers[i];

        wbuf_u16(out, t->config);
        wbuf_u64(out, t->comparator);
        wbuf_u64(out, t->period);
        wbuf_u64(out, t->due);
    }
}

static int timer_load(struct timer *t, struct rbuf *in, struct plx_err *err)
{
    t->config = rbuf_u16(in);
    t->comparator = rbuf_u64(in);
    t->period = rbuf_u64(in);
    t->due = rbuf_u64(in);
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"hpet: timer configuration", (t->config & ~T_WRITABLE) == 0, t->config},
        {"hpet: comparator", (t->comparator & ~width_mask(t)) == 0, t->comparator},
        {"hpet: period", (t->period & ~width_mask(t)) == 0, t->period},
        {"hpet: next match", t->due <= SECTION_TIME_MAX || t->due == VTIMER_NEVER, t->due},
        {"hpet: next match of a counter that stands", running(t->hpet) || t->due == VTIMER_NEVER,
         t->due},
    };
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    return rc;
}

static int hpet_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct hpet *h = dev;
    int rc = section_version("hpet", version, HPET_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    h->config = rbuf_u8(in);
    h->status = rbuf_u8(in);
    h->value = rbuf_u64(in);
    h->start = rbuf_u64(in);
    rc = section_field("hpet: configuration", h->config <= (CFG_ENABLE | CFG_LEGACY), h->config,
                       err);
    if (rc == 0) {
        rc = section_field("hpet: status", h->status >> HPET_TIMERS == 0, h->status, err);
    }
    if (rc == 0) {
        rc = section_field("hpet: start", h->start <= SECTION_TIME_MAX, h->start, err);
    }
    for (unsigned i = 0; rc == 0 && i < HPET_TIMERS; i++) {
        rc = in->failed ? 0 : timer_load(&h->timers[i], in, err);
    }
    if (rc == 0) {
        rc = section_complete("hpet", in, err);
    }
    for (unsigned i = 0; rc == 0 && i < HPET_TIMERS; i++) {
        arm(&h->timers[i]);
    }
    return rc;
}

static const struct device_ops hpet_device = {hpet_reset, hpet_save, hpet_load};

int hpet_create(struct machine *m, const struct irq_line legacy[2], struct hpet **out,
                struct plx_err *err)
{
    struct hpet *h = plx_calloc(1, sizeof *h);
    int rc;

    *out = NULL;
    if (h == NULL) {
        return plx_fail(err, PLX_ENOMEM, "hpet: out of memory");
    }
    h->m = m;
    h->legacy[0] = legacy[0];
    h->legacy[1] = legacy[1];
    rc = bus_claim(m->bus, BUS_MMIO, HPET_BASE, HPET_LEN, "hpet", &mmio_ops, h, err);
    if (rc != 0) {
        plx_free(h);
        return rc;
    }
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->timers[i].hpet = h;
        vtimer_init(&h->timers[i].timer, &m->timers, fire, &h->timers[i]);
    }
    machine_add_device(m, "hpet", HPET_VERSION, &hpet_device, h);
    hpet_reset(h);
    *out = h;
    return 0;
}

void hpet_destroy(struct hpet *h)
{
    plx_free(h);
}
