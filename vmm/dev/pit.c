/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pit.c - see pit.h.
 *
 * A channel counts from a start tick; where it is now follows from that. Simplifications: a count
 * written while modes 2 and 3 run is taken over at the end of the period (mode 3: not at half), and
 * IRQ 0 rises once a period without the low phase in between. */
#include "vmm/dev/pit.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"
#include "vmm/tunables.h"

enum { PIT_VERSION = 1, CHANNELS = 3, CONTROL = 3 };
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_WORD };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { PORT61_GATE2 = 0x01, PORT61_SPEAKER = 0x02, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };

#define NS UINT64_C(1000000000)

struct channel {
    uint8_t mode; /* 0-5 */
    uint8_t access;
    bool bcd, gate;
    bool loaded;     /* a count was written since the control word */
    bool started;    /* counting began (modes 1 and 5 wait for a trigger) */
    bool write_high; /* ACCESS_WORD: the high byte comes next */
    bool read_high;
    bool count_latched, status_latched;
    uint8_t write_low; /* the low byte waiting for its high byte */
    uint8_t status;    /* latched */
    uint16_t latch;    /* latched count as read by the guest */
    uint32_t count;    /* 1-0x10000 */
    uint32_t next;     /* count to take over at the end of the period; 0: none */
    uint64_t start;    /* tick at which counting began */
    uint64_t held;     /* modes 0 and 4 with the gate low: ticks counted so far */
};

struct pit {
    struct machine *m;
    struct vtimer timer;
    struct channel ch[CHANNELS];
    uint8_t port61; /* GATE2 and SPEAKER as written */
};

static uint64_t ticks_of(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS);
}

/* The first ns at which @tick is reached. */
static uint64_t ns_of(uint64_t tick)
{
    unsigned __int128 ns = ((unsigned __int128)tick * NS + PIT_HZ - 1) / PIT_HZ;

    return ns < VTIMER_NEVER ? (uint64_t)ns : VTIMER_NEVER;
}

static uint64_t tick_now(const struct pit *pit)
{
    return ticks_of(machine_now(pit->m));
}

static bool periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Gate low stops modes 0, 2, 3 and 4; in 1 and 5 only its rise matters. */
static bool stopped(const struct channel *c)
{
    return !c->gate && c->mode != 1 && c->mode != 5;
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
    return stopped(c) ? c->held : now > c->start ? now - c->start : 0;
}

/* Take over a new count whose period has come. */
static void settle(struct channel *c, uint64_t now)
{
    if (periodic(c) && c->next != 0 && elapsed(c, now) >= c->count) {
        c->start += c->count;
        c->count = c->next;
        c->next = 0;
    }
}

static bool output(const struct channel *c, uint64_t now)
{
    uint64_t e = elapsed(c, now);

    if (!c->loaded || !c->started) {
        return c->mode != 0;
    }
    switch (c->mode) {
    case 0:
    case 1:
        return e >= c->count;
    case 2:
        return stopped(c) || e % c->count != c->count - 1;
    case 3:
        return stopped(c) || e % c->count < (c->count + 1) / 2;
    default: /* 4, 5: low for the one tick at which the count runs out */
        return e != c->count;
    }
}

/* The counting element, in binary. */
static uint32_t counter(const struct channel *c, uint64_t now)
{
    uint64_t e = elapsed(c, now), wrap = c->bcd ? 10000 : 0x10000;

    if (!c->loaded || !c->started) {
        return c->count;
    }
    switch (c->mode) {
    case 2:
        return c->count - (uint32_t)(e % c->count);
    case 3: /* counts down by two, twice a period */
        return c->count - (uint32_t)(e * 2 % c->count & ~UINT64_C(1));
    default:
        return (uint32_t)((c->count + wrap - e % wrap) % wrap);
    }
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint16_t v)
{
    return (v & 15U) + (v >> 4 & 15U) * 10 + (v >> 8 & 15U) * 100 + (v >> 12 & 15U) * 1000;
}

static uint16_t visible(const struct channel *c, uint64_t now)
{
    uint32_t v = counter(c, now);

    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

/* --- IRQ 0 ------------------------------------------------------------------------------------ */

/* When OUT of channel 0 rises next after @now; VTIMER_NEVER if it does not. */
static uint64_t next_rise(const struct channel *c, uint64_t now)
{
    uint64_t e = elapsed(c, now);

    if (!c->loaded || !c->started || stopped(c)) {
        return VTIMER_NEVER;
    }
    if (periodic(c)) {
        return c->start + (e / c->count + 1) * c->count;
    }
    /* 0 and 1 rise when the count runs out, 4 and 5 a tick later. */
    uint64_t end = c->count + (c->mode >= 4 ? 1U : 0U);

    return e < end ? c->start + end : VTIMER_NEVER;
}

static void rearm(struct pit *pit)
{
    uint64_t rise = next_rise(&pit->ch[0], tick_now(pit));

    vtimer_arm(&pit->timer, rise == VTIMER_NEVER ? VTIMER_NEVER : ns_of(rise));
}

static void fire(void *ctx, uint64_t now)
{
    struct pit *pit = ctx;

    settle(&pit->ch[0], ticks_of(now));
    irq_set(&pit->m->gsi[PIT_IRQ], false);
    irq_set(&pit->m->gsi[PIT_IRQ], true);
    rearm(pit);
}

/* Before a register access: what is due at the access's time has happened. */
static void sync_all(struct pit *pit)
{
    uint64_t now = machine_now(pit->m);

    if (pit->timer.deadline <= now) {
        vtimer_disarm(&pit->timer);
        fire(pit, now);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        settle(&pit->ch[i], ticks_of(now));
    }
}

/* Channel 0 was programmed: its pin shows OUT, and rises when OUT does next. */
static void irq_restart(struct pit *pit)
{
    irq_set(&pit->m->gsi[PIT_IRQ], output(&pit->ch[0], tick_now(pit)));
    rearm(pit);
}

/* --- programming ------------------------------------------------------------------------------ */

static void set_gate(struct channel *c, bool gate, uint64_t now)
{
    if (gate == c->gate) {
        return;
    }
    if (!gate) {
        if (c->mode == 0 || c->mode == 4) {
            c->held = elapsed(c, now);
        } else {
            c->held = 0;
        }
    } else if (c->mode == 0 || c->mode == 4) {
        c->start = now - (c->held < now ? c->held : now);
    } else { /* the rise starts (or restarts) counting */
        c->start = now;
        if (c->next != 0) {
            c->count = c->next;
            c->next = 0;
        }
        c->started = c->loaded;
    }
    c->gate = gate;
}

static void load_count(struct channel *c, uint16_t raw, uint64_t now)
{
    uint32_t count = c->bcd ? from_bcd(raw) : raw;

    if (count == 0) {
        count = c->bcd ? 10000 : 0x10000;
    }
    if (c->started && (periodic(c) || c->mode == 1 || c->mode == 5)) {
        c->next = count;   /* at the end of the period, or at the next trigger */
        if (periodic(c)) { /* start: of the period that runs now */
            uint64_t e = elapsed(c, now);

            c->start += e - e % c->count;
        }
        return;
    }
    c->count = count;
    c->next = 0;
    c->loaded = true;
    c->started = c->mode != 1 && c->mode != 5;
    c->start = now;
    c->held = 0;
}

static void write_count(struct pit *pit, unsigned n, uint8_t value)
{
    struct channel *c = &pit->ch[n];
    uint64_t now = tick_now(pit);

    switch (c->access) {
    case ACCESS_LOW:
        load_count(c, value, now);
        break;
    case ACCESS_HIGH:
        load_count(c, (uint16_t)(value << 8), now);
        break;
    default:
        if (!c->write_high) {
            c->write_low = value;
            c->write_high = true;
            return;
        }
        c->write_high = false;
        load_count(c, (uint16_t)(c->write_low | value << 8), now);
    }
    if (n == 0) {
        irq_restart(pit);
    }
}

static void latch_count(struct channel *c, uint64_t now)
{
    if (!c->count_latched) {
        c->count_latched = true;
        c->latch = visible(c, now);
    }
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (!c->status_latched) {
        c->status_latched = true;
        c->status = (uint8_t)((output(c, now) ? STATUS_OUT : 0) |
                              (!c->loaded || c->next != 0 ? STATUS_NULL : 0) | c->access << 4 |
                              c->mode << 1 | c->bcd);
    }
}

static void write_control(struct pit *pit, uint8_t value)
{
    unsigned n = value >> 6;
    uint64_t now = tick_now(pit);
    struct channel *c;

    if (n == 3) { /* read-back: bit 5 low: counts, bit 4 low: status, bits 3-1: channels */
        for (unsigned i = 0; i < CHANNELS; i++) {
            if ((value >> (i + 1) & 1) != 0) {
                if ((value & 0x20) == 0) {
                    latch_count(&pit->ch[i], now);
                }
                if ((value & 0x10) == 0) {
                    latch_status(&pit->ch[i], now);
                }
            }
        }
        return;
    }
    c = &pit->ch[n];
    if ((value >> 4 & 3) == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    *c = (struct channel){.mode = value >> 1 & 7,
                          .access = value >> 4 & 3,
                          .bcd = value & 1,
                          .gate = c->gate,
                          .count = c->count};
    if (c->mode > 5) {
        c->mode -= 4; /* 6 and 7 are 2 and 3 */
    }
    if (n == 0) {
        irq_restart(pit);
    }
}

static uint8_t read_count(struct pit *pit, unsigned n)
{
    struct channel *c = &pit->ch[n];
    uint16_t value;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    value = c->count_latched ? c->latch : visible(c, tick_now(pit));
    high = c->access == ACCESS_HIGH || (c->access == ACCESS_WORD && c->read_high);
    if (c->access == ACCESS_WORD) {
        c->read_high = !c->read_high;
    }
    if (c->access != ACCESS_WORD || high) {
        c->count_latched = false; /* read as a whole */
    }
    return (uint8_t)(high ? value >> 8 : value);
}

static uint64_t port_read(void *ctx, uint64_t addr, unsigned size)
{
    struct pit *pit = ctx;
    uint64_t value = 0;

    sync_all(pit);
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = addr + i == CONTROL ? 0xff : read_count(pit, (unsigned)addr + i);

        value |= (uint64_t)byte << (i * 8);
    }
    return value;
}

static void port_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct pit *pit = ctx;

    sync_all(pit);
    for (unsigned i = 0; i < size; i++) {
        if (addr + i == CONTROL) {
            write_control(pit, (uint8_t)(value >> (i * 8)));
        } else {
            write_count(pit, (unsigned)addr + i, (uint8_t)(value >> (i * 8)));
        }
    }
}

static const struct bus_range_ops port_ops = {port_read, port_write};

/* The refresh bit toggles every 18 ticks, about 15 us. */
static uint64_t port61_read(void *ctx, uint64_t addr, unsigned size)
{
    struct pit *pit = ctx;
    uint64_t now;

    (void)addr;
    (void)size;
    sync_all(pit);
    now = tick_now(pit);
    return (uint64_t)(pit->port61 | ((now / 18 & 1) != 0 ? PORT61_REFRESH : 0) |
                      (output(&pit->ch[2], now) ? PORT61_OUT2 : 0));
}

static void port61_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct pit *pit = ctx;

    (void)addr;
    (void)size;
    sync_all(pit);
    pit->port61 = value & (PORT61_GATE2 | PORT61_SPEAKER);
    set_gate(&pit->ch[2], (value & PORT61_GATE2) != 0, tick_now(pit));
}

static const struct bus_range_ops port61_ops = {port61_read, port61_write};

/* --- state --------------------------------------------------------------------------------- */

static void pit_reset(void *dev)
{
    struct pit *pit = dev;

    for (unsigned i = 0; i < CHANNELS; i++) {
        pit->ch[i] =
            (struct channel){.mode = 3, .access = ACCESS_WORD, .gate = i != 2, .count = 0x10000};
    }
    pit->port61 = 0;
    vtimer_disarm(&pit->timer);
    irq_set(&pit->m->gsi[PIT_IRQ], false);
}

static void pit_save(const void *dev, struct wbuf *out)
{
    const struct pit *pit = dev;

    for (unsigned i = 0; i < CHANNELS; i++) {
        const struct channel *c = &pit->ch[i];
        const uint8_t bytes[] = {c->mode,          c->access,         c->bcd,        c->gate,
                                 c->loaded,        c->started,        c->write_high, c->read_high,
                                 c->count_latched, c->status_latched, c->write_low,  c->status};

        wbuf_put(out, bytes, sizeof bytes);
        wbuf_u16(out, c->latch);
        wbuf_u32(out, c->count);
        wbuf_u32(out, c->next);
        wbuf_u64(out, c->start);
        wbuf_u64(out, c->held);
    }
    wbuf_u8(out, pit->port61);
    wbuf_u64(out, pit->timer.deadline);
}

static int channel_load(struct channel *c, struct rbuf *in, struct plx_err *err)
{
    uint8_t b[12];
    int rc = 0;

    rbuf_get(in, b, sizeof b);
    *c = (struct channel){.mode = b[0],
                          .access = b[1],
                          .bcd = b[2] != 0,
                          .gate = b[3] != 0,
                          .loaded = b[4] != 0,
                          .started = b[5] != 0,
                          .write_high = b[6] != 0,
                          .read_high = b[7] != 0,
                          .count_latched = b[8] != 0,
                          .status_latched = b[9] != 0,
                          .write_low = b[10],
                          .status = b[11]};
    c->latch = rbuf_u16(in);
    c->count = rbuf_u32(in);
    c->next = rbuf_u32(in);
    c->start = rbuf_u64(in);
    c->held = rbuf_u64(in);
    for (unsigned i = 2; rc == 0 && i < 10; i++) {
        rc = section_field("pit: a flag", b[i] <= 1, b[i], err);
    }
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"pit: mode", c->mode <= 5, c->mode},
        {"pit: access", c->access >= ACCESS_LOW && c->access <= ACCESS_WORD, c->access},
        {"pit: count", c->count >= 1 && c->count <= 0x10000, c->count},
        {"pit: next count", c->next <= 0x10000, c->next},
        {"pit: start", c->start <= SECTION_TIME_MAX, c->start},
        {"pit: ticks held", c->held <= SECTION_TIME_MAX, c->held},
        {"pit: started without a count", c->loaded || !c->started, c->started},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    return rc;
}

static int pit_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct pit *pit = dev;
    uint64_t deadline;
    int rc = section_version("pit", version, PIT_VERSION, err);

    for (unsigned i = 0; rc == 0 && i < CHANNELS; i++) {
        rc = in->failed ? 0 : channel_load(&pit->ch[i], in, err);
    }
    if (rc != 0) {
        return in->failed ? section_complete("pit", in, err) : rc;
    }
    pit->port61 = rbuf_u8(in);
    deadline = rbuf_u64(in);
    rc = section_field("pit: port 0x61", (pit->port61 & ~(PORT61_GATE2 | PORT61_SPEAKER)) == 0,
                       pit->port61, err);
    if (rc == 0) {
        rc = section_complete("pit", in, err);
    }
    if (rc == 0) {
        vtimer_arm(&pit->timer, deadline);
    }
    return rc;
}

static const struct device_ops pit_device = {pit_reset, pit_save, pit_load};

int pit_create(struct machine *m, struct pit **out, struct plx_err *err)
{
    struct pit *pit = plx_calloc(1, sizeof *pit);
    int rc;

    *out = NULL;
    if (pit == NULL) {
        return plx_fail(err, PLX_ENOMEM, "pit: out of memory");
    }
    pit->m = m;
    vtimer_init(&pit->timer, &m->timers, fire, pit);
    rc = bus_claim(m->bus, BUS_PIO, PIT_PORT, 4, "pit", &port_ops, pit, err);
    if (rc == 0) {
        rc = bus_claim(m->bus, BUS_PIO, SYSTEM_CONTROL_B_PORT, 1, "port 0x61", &port61_ops, pit,
                       err);
    }
    if (rc != 0) {
        plx_free(pit); /* creation failed: the machine and its timer queue are given up */
        return rc;
    }
    machine_add_device(m, "pit", PIT_VERSION, &pit_device, pit);
    pit_reset(pit);
    *out = pit;
    return 0;
}

void pit_destroy(struct pit *pit)
{
    plx_free(pit);
}
