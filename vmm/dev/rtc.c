/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/rtc.c - see rtc.h. */
#include "vmm/dev/rtc.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"

enum { RTC_VERSION = 1, CMOS_SIZE = 128 };
enum {
    SECONDS = 0,
    ALARM_SECONDS = 1,
    MINUTES = 2,
    ALARM_MINUTES = 3,
    HOURS = 4,
    ALARM_HOURS = 5,
    WEEKDAY = 6,
    DAY = 7,
    MONTH = 8,
    YEAR = 9,
    REG_A = 10,
    REG_B = 11,
    REG_C = 12,
    REG_D = 13,
    CENTURY = 0x32
};
enum { A_UIP = 0x80, A_RATE = 0x0f, B_SET = 0x80, B_BINARY = 0x04, B_24H = 0x02 };
/* Flags in C are enabled by the same bits of B. */
enum {
    IRQ_ANY = 0x80,
    IRQ_PERIODIC = 0x40,
    IRQ_ALARM = 0x20,
    IRQ_UPDATE = 0x10,
    IRQ_SOURCES = 0x70
};
enum { D_VALID = 0x80, PM_BIT = 0x80, ALARM_ANY = 0xc0 };

#define NS        UINT64_C(1000000000)
#define UPDATE_NS UINT64_C(244000) /* UIP is set this long before the update */
#define DAY_S     UINT64_C(86400)
#define BASE_HZ   32768U

struct rtc {
    struct machine *m;
    struct vtimer timer;

    /* --- state --- */
    uint8_t index;
    uint8_t cmos[CMOS_SIZE]; /* time and C as last computed; the rest as written */
    uint64_t wall;           /* ns since 1970 at virtual time @wall_at */
    uint64_t wall_at;
    uint64_t seen; /* virtual time up to which flags were looked for */
};

/* --- time ------------------------------------------------------------------------------------- */

static uint64_t wall_time(const struct rtc *r, uint64_t now)
{
    return r->wall + (now > r->wall_at ? now - r->wall_at : 0);
}

/* Days since 1970-01-01 of a proleptic Gregorian date; @month 1-12. */
static uint64_t days_of(uint64_t year, unsigned month, unsigned day)
{
    uint64_t y = month <= 2 ? year - 1 : year; /* years begin in March */
    unsigned yday = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return y * 365 + y / 4 - y / 100 + y / 400 + yday - 719468;
}

static bool date_exists(uint64_t year, unsigned month, unsigned day)
{
    static const uint8_t length[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month >= 1 && month <= 12 && day >= 1 && day <= length[month - 1] &&
           (month != 2 || day <= 28 || leap);
}

struct date {
    unsigned year, month, day;
};

static struct date date_of(uint64_t days)
{
    struct date d = {.year = (unsigned)(1970 + days / 366), .month = 1};

    while (days_of(d.year + 1, 1, 1) <= days) {
        d.year++;
    }
    while (d.month < 12 && days_of(d.year, d.month + 1, 1) <= days) {
        d.month++;
    }
    d.day = (unsigned)(days - days_of(d.year, d.month, 1)) + 1;
    return d;
}

static uint8_t encode(const struct rtc *r, unsigned value)
{
    return (uint8_t)((r->cmos[REG_B] & B_BINARY) != 0 ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *r, uint8_t byte)
{
    return (r->cmos[REG_B] & B_BINARY) != 0 ? byte : (byte >> 4) * 10U + (byte & 15U);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
    if ((r->cmos[REG_B] & B_24H) != 0) {
        return encode(r, hour);
    }
    return (uint8_t)(encode(r, hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? PM_BIT : 0));
}

static unsigned decode_hour(const struct rtc *r, uint8_t byte)
{
    unsigned hour;

    if ((r->cmos[REG_B] & B_24H) != 0) {
        return decode(r, byte);
    }
    hour = decode(r, byte & ~PM_BIT & 0xff);
    return hour % 12 + ((byte & PM_BIT) != 0 ? 12 : 0);
}

/* The time registers at @now; they stand still while SET. */
static void show_time(struct rtc *r, uint64_t now)
{
    uint64_t s = wall_time(r, now) / NS, days = s / DAY_S;
    struct date d;

    if ((r->cmos[REG_B] & B_SET) != 0) {
        return;
    }
    d = date_of(days);
    r->cmos[SECONDS] = encode(r, (unsigned)(s % 60));
    r->cmos[MINUTES] = encode(r, (unsigned)(s / 60 % 60));
    r->cmos[HOURS] = encode_hour(r, (unsigned)(s / 3600 % 24));
    /* 1970-01-01 was a Thursday; Sunday is 1. */
    r->cmos[WEEKDAY] = encode(r, (unsigned)((days + 4) % 7 + 1));
    r->cmos[DAY] = encode(r, d.day);
    r->cmos[MONTH] = encode(r, d.month);
    r->cmos[YEAR] = encode(r, d.year % 100);
    r->cmos[CENTURY] = encode(r, d.year / 100);
}

/* The guest changed the time registers: the clock goes on from them, with the fraction of the
 * second that it has. Impossible dates, and those before 1970, leave the clock as it was. */
static void take_time(struct rtc *r, uint64_t now)
{
    uint64_t year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]);
    unsigned month = decode(r, r->cmos[MONTH]), day = decode(r, r->cmos[DAY]);
    unsigned hour = decode_hour(r, r->cmos[HOURS]), minute = decode(r, r->cmos[MINUTES]);
    unsigned second = decode(r, r->cmos[SECONDS]);

    if (year >= 1970 && year < 2200 && date_exists(year, month, day) && hour < 24 && minute < 60 &&
        second < 60) {
        uint64_t s = days_of(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second;

        r->wall = s * NS + wall_time(r, now) % NS;
        r->wall_at = now;
    }
}

/* --- flags ------------------------------------------------------------------------------------ */

/* The first periodic tick after @now: the k-th is at k / 32768 s shifted left by the rate - 1,
 * counted from power-on. Rates 1 and 2 are those of 8 and 9 with a 32.768 kHz base. */
static uint64_t next_tick(const struct rtc *r, uint64_t now)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;
    unsigned __int128 scaled, period;

    if (rate == 0) {
        return VTIMER_NEVER;
    }
    period = (unsigned __int128)NS << ((rate < 3 ? rate + 7 : rate) - 1); /* in ns / 32768 */
    scaled = ((unsigned __int128)now * BASE_HZ / period + 1) * period;
    return (uint64_t)((scaled + BASE_HZ - 1) / BASE_HZ);
}

/* The first wall-clock second after @s that the alarm matches; UINT64_MAX if it never does. With
 * each field possible the search takes at most 23 + 59 + 59 steps. */
static uint64_t next_alarm(const struct rtc *r, uint64_t s)
{
    const uint8_t *c = r->cmos;
    uint64_t end = s + DAY_S;

    if ((c[ALARM_HOURS] < ALARM_ANY && decode_hour(r, c[ALARM_HOURS]) > 23) ||
        (c[ALARM_MINUTES] < ALARM_ANY && decode(r, c[ALARM_MINUTES]) > 59) ||
        (c[ALARM_SECONDS] < ALARM_ANY && decode(r, c[ALARM_SECONDS]) > 59)) {
        return UINT64_MAX;
    }
    for (s++; s <= end;) {
        if (c[ALARM_HOURS] < ALARM_ANY && decode_hour(r, c[ALARM_HOURS]) != s / 3600 % 24) {
            s += 3600 - s % 3600;
        } else if (c[ALARM_MINUTES] < ALARM_ANY && decode(r, c[ALARM_MINUTES]) != s / 60 % 60) {
            s += 60 - s % 60;
        } else if (c[ALARM_SECONDS] < ALARM_ANY && decode(r, c[ALARM_SECONDS]) != s % 60) {
            s++;
        } else {
            return s;
        }
    }
    return UINT64_MAX;
}

/* What an interrupt source does next after @now, in virtual time. */
static uint64_t next_event(const struct rtc *r, unsigned source, uint64_t now)
{
    uint64_t wall = wall_time(r, now), s;

    if (source == IRQ_PERIODIC) {
        return next_tick(r, now);
    }
    if ((r->cmos[REG_B] & B_SET) != 0) {
        return VTIMER_NEVER; /* no updates, hence no alarms */
    }
    s = source == IRQ_UPDATE ? wall / NS + 1 : next_alarm(r, wall / NS);
    return s == UINT64_MAX ? VTIMER_NEVER : now + (s * NS - wall);
}

/* Set the flags of what happened since the last look; then line and timer. */
static void update(struct rtc *r)
{
    uint64_t now = machine_now(r->m), next = VTIMER_NEVER;
    uint8_t *c = &r->cmos[REG_C];

    for (unsigned source = IRQ_UPDATE; source <= IRQ_PERIODIC; source <<= 1) {
        if ((*c & source) == 0 && next_event(r, source, r->seen) <= now) {
            *c |= (uint8_t)source;
        }
    }
    r->seen = now;
    *c = (uint8_t)((*c & IRQ_SOURCES) | ((*c & r->cmos[REG_B] & IRQ_SOURCES) != 0 ? IRQ_ANY : 0));
    irq_set(&r->m->gsi[RTC_IRQ], (*c & IRQ_ANY) != 0);
    for (unsigned source = IRQ_UPDATE; source <= IRQ_PERIODIC; source <<= 1) {
        if ((r->cmos[REG_B] & source) != 0 && (*c & source) == 0) {
            uint64_t at = next_event(r, source, now);

            next = at < next ? at : next;
        }
    }
    vtimer_arm(&r->timer, next);
}

static void fire(void *ctx, uint64_t now)
{
    (void)now;
    update(ctx);
}

static int set_wallclock(void *ctx, const struct input *in, struct plx_err *err)
{
    struct rtc *r = ctx;

    (void)err;
    update(r);
    r->wall = in->arg <= SECTION_TIME_MAX ? in->arg : SECTION_TIME_MAX;
    r->wall_at = machine_now(r->m);
    update(r);
    return 0;
}

/* --- registers ---------------------------------------------------------------------------------
 */

static bool is_time(unsigned reg)
{
    return reg == SECONDS || reg == MINUTES || reg == HOURS || (reg >= WEEKDAY && reg <= YEAR) ||
           reg == CENTURY;
}

static uint8_t cmos_read(struct rtc *r)
{
    uint64_t now = machine_now(r->m);
    uint8_t value;

    update(r);
    show_time(r, now);
    value = r->cmos[r->index];
    if (r->index == REG_A && (r->cmos[REG_B] & B_SET) == 0 &&
        NS - wall_time(r, now) % NS <= UPDATE_NS) {
        value |= A_UIP;
    } else if (r->index == REG_C) {
        r->cmos[REG_C] = 0; /* reading acknowledges */
        update(r);
    }
    return value;
}

static void cmos_write(struct rtc *r, uint8_t value)
{
    uint64_t now = machine_now(r->m);
    uint8_t before = r->cmos[REG_B];

    update(r);
    show_time(r, now);
    switch (r->index) {
    case REG_A:
        r->cmos[REG_A] = value & ~A_UIP & 0xff;
        break;
    case REG_B:
        if ((before & B_SET) != 0 && (value & B_SET) == 0) {
            r->cmos[REG_B] = value; /* in the format that it ends with */
            take_time(r, now);
        }
        r->cmos[REG_B] = (value & B_SET) != 0 ? value & ~IRQ_UPDATE & 0xff : value;
        break;
    case REG_C: /* read only */
    case REG_D:
        break;
    default:
        r->cmos[r->index] = value;
        if (is_time(r->index) && (before & B_SET) == 0) {
            take_time(r, now);
        }
    }
    show_time(r, now);
    update(r);
}

static uint64_t port_read(void *ctx, uint64_t addr, unsigned size)
{
    struct rtc *r = ctx;

    if (size == 2) {
        return 0xff | (uint64_t)cmos_read(r) << 8;
    }
    return addr == 0 ? 0xff : cmos_read(r); /* the index is write only */
}

static void port_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct rtc *r = ctx;

    if (addr == 0) {
        r->index = value & (CMOS_SIZE - 1); /* bit 7 masks NMIs on a PC; there are none */
        value >>= 8;
    }
    if (addr == 1 || size == 2) {
        cmos_write(r, (uint8_t)value);
    }
}

static const struct bus_range_ops port_ops = {port_read, port_write};

/* --- state --------------------------------------------------------------------------------- */

/* Sizes of memory where firmware leaves them: base in KiB, extended in KiB and in 64 KiB above
 * 16 MiB, and above 4 GiB in 64 KiB. */
static void put_memory(struct rtc *r)
{
    const struct ram *ram = r->m->ram;
    uint64_t extended = ram->low > 1 << 20 ? (ram->low >> 10) - 1024 : 0;
    uint64_t above16m = ram->low > 16 << 20 ? (ram->low - (16 << 20)) >> 16 : 0;
    uint64_t high = (ram->size - ram->low) >> 16;

    extended = extended > 0xffff ? 0xffff : extended;
    above16m = above16m > 0xffff ? 0xffff : above16m;
    r->cmos[0x15] = 640 & 0xff;
    r->cmos[0x16] = 640 >> 8;
    r->cmos[0x17] = r->cmos[0x30] = (uint8_t)extended;
    r->cmos[0x18] = r->cmos[0x31] = (uint8_t)(extended >> 8);
    r->cmos[0x34] = (uint8_t)above16m;
    r->cmos[0x35] = (uint8_t)(above16m >> 8);
    r->cmos[0x5b] = (uint8_t)high;
    r->cmos[0x5c] = (uint8_t)(high >> 8);
    r->cmos[0x5d] = (uint8_t)(high >> 16);
}

static void rtc_reset(void *dev)
{
    struct rtc *r = dev;

    memset(r->cmos, 0, sizeof r->cmos);
    r->cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz */
    r->cmos[REG_B] = B_24H;
    r->cmos[REG_D] = D_VALID;
    put_memory(r);
    r->index = 0;
    r->wall = 0;
    r->wall_at = r->seen = machine_now(r->m);
    show_time(r, r->seen);
    update(r);
}

static void rtc_save(const void *dev, struct wbuf *out)
{
    const struct rtc *r = dev;

    wbuf_u8(out, r->index);
    wbuf_put(out, r->cmos, sizeof r->cmos);
    wbuf_u64(out, r->wall);
    wbuf_u64(out, r->wall_at);
    wbuf_u64(out, r->seen);
    wbuf_u64(out, r->timer.deadline);
}

static int rtc_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct rtc *r = dev;
    uint64_t deadline;
    int rc = section_version("rtc", version, RTC_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    r->index = rbuf_u8(in);
    rbuf_get(in, r->cmos, sizeof r->cmos);
    r->wall = rbuf_u64(in);
    r->wall_at = rbuf_u64(in);
    r->seen = rbuf_u64(in);
    deadline = rbuf_u64(in);
    rc = section_complete("rtc", in, err);
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"rtc: index", r->index < CMOS_SIZE, r->index},
        {"rtc: register A", (r->cmos[REG_A] & A_UIP) == 0, r->cmos[REG_A]},
        {"rtc: register C", (r->cmos[REG_C] & 0x0f) == 0, r->cmos[REG_C]},
        {"rtc: register D", r->cmos[REG_D] == D_VALID, r->cmos[REG_D]},
        /* Also bounds the years that date_of() walks through. */
        {"rtc: wall clock", r->wall <= 2 * SECTION_TIME_MAX, r->wall},
        {"rtc: time of the wall clock", r->wall_at <= SECTION_TIME_MAX, r->wall_at},
        {"rtc: time of the flags", r->seen <= SECTION_TIME_MAX, r->seen},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    if (rc == 0) {
        vtimer_arm(&r->timer, deadline);
    }
    return rc;
}

static const struct device_ops rtc_device = {rtc_reset, rtc_save, rtc_load};

int rtc_create(struct machine *m, struct rtc **out, struct plx_err *err)
{
    struct rtc *r = plx_calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (r == NULL) {
        return plx_fail(err, PLX_ENOMEM, "rtc: out of memory");
    }
    r->m = m;
    rc = bus_claim(m->bus, BUS_PIO, CMOS_PORT, 2, "rtc", &port_ops, r, err);
    if (rc != 0) {
        plx_free(r);
        return rc;
    }
    vtimer_init(&r->timer, &m->timers, fire, r);
    m->wallclock = (struct input_port){.take = set_wallclock, .ctx = r};
    machine_add_device(m, "rtc", RTC_VERSION, &rtc_device, r);
    rtc_reset(r);
    *out = r;
    return 0;
}

void rtc_destroy(struct rtc *rtc)
{
    plx_free(rtc);
}
