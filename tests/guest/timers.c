/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/timers.c - PIT, PM timer, LAPIC timer and TSC tell the same time; their interrupts
 * come through PIC, IOAPIC and LAPIC. */
#include "guest.h"

enum { PM_TIMER = 0x608, PM_HZ = 3579545, PIT_HZ = 1193182, MS10_PIT = 11932, MS10_PM = 35795 };
enum { PIC_VECTOR = 0x20, IOAPIC_VECTOR = 0x40, LAPIC_VECTOR = 0x50, SPURIOUS_VECTOR = 0xff };
enum {
    LAPIC_EOI = 0xb0,
    LAPIC_SVR = 0xf0,
    LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_LINT0 = 0x350,
    LAPIC_INITIAL = 0x380,
    LAPIC_CURRENT = 0x390,
    LAPIC_DIVIDE = 0x3e0
};

static volatile uint32_t *const lapic = (volatile uint32_t *)0xfee00000;
static volatile uint32_t *const ioapic = (volatile uint32_t *)0xfec00000;
static volatile unsigned ticks;

static uint32_t pm(void)
{
    return inl(PM_TIMER);
}

/* @a within @percent of @b. */
static bool near(uint64_t a, uint64_t b, unsigned percent)
{
    uint64_t d = a > b ? a - b : b - a;

    return d * 100 <= b * percent;
}

static void pit_wait_10ms(void)
{
    outb(0x61, (inb(0x61) & 0xfc) | 1); /* gate on, speaker off */
    outb(0x43, 0xb0);                   /* channel 2, mode 0 */
    outb(0x42, MS10_PIT & 0xff);
    outb(0x42, MS10_PIT >> 8);
    while ((inb(0x61) & 0x20) == 0) {
    }
}

static void same_time(void)
{
    uint32_t pm0 = pm();
    uint64_t tsc0 = rdtsc(), tsc1, tsc2, last;
    uint32_t pm1, pm2;
    bool monotonic = true;

    pit_wait_10ms();
    pm1 = pm();
    tsc1 = rdtsc();
    check("10 ms of PIT are 10 ms of PM timer", near(pm1 - pm0, MS10_PM, 3));
    do {
        pm2 = pm();
    } while (pm2 - pm1 < MS10_PM);
    tsc2 = rdtsc();
    check("TSC advances alike", near(tsc2 - tsc1, tsc1 - tsc0, 3));
    last = rdtsc();
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t now = rdtsc();

        monotonic = monotonic && now > last;
        last = now;
    }
    check("TSC only grows", monotonic);
}

static void on_pic(struct trap_frame *f)
{
    (void)f;
    ticks++;
    outb(0x20, 0x20);
}

static void on_lapic(struct trap_frame *f)
{
    (void)f;
    ticks++;
    lapic[LAPIC_EOI / 4] = 0;
}

static void on_spurious(struct trap_frame *f)
{
    (void)f;
}

/* Sleeps until @n interrupts came; returns the PM ticks that took. */
static uint32_t sleep_until(unsigned n)
{
    uint32_t t0 = pm();

    ticks = 0;
    while (ticks < n) {
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    }
    return pm() - t0;
}

static void pit_channel0(uint16_t count)
{
    outb(0x43, 0x34); /* channel 0, mode 2 */
    outb(0x40, (uint8_t)count);
    outb(0x40, (uint8_t)(count >> 8));
}

static void through_pic(void)
{
    static const uint8_t init[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, PIC_VECTOR}, {0xa1, 0x28},
                                      {0x21, 4},    {0xa1, 2},    {0x21, 1},          {0xa1, 1},
                                      {0x21, 0xfe}, {0xa1, 0xff}};

    for (unsigned i = 0; i < sizeof init / sizeof init[0]; i++) {
        outb(init[i][0], init[i][1]);
    }
    irq_handler[PIC_VECTOR] = on_pic;
    /* As firmware leaves it: LINT0 takes the PIC's interrupt. */
    lapic[LAPIC_SVR / 4] = 0x100 | SPURIOUS_VECTOR;
    lapic[LAPIC_LVT_LINT0 / 4] = 0x700;
    pit_channel0(PIT_HZ / 1000);
    (void)sleep_until(1);
    check("10 PIT ticks through the PIC take 10 ms", near(sleep_until(10), MS10_PM, 8));
    outb(0x21, 0xff);
    lapic[LAPIC_LVT_LINT0 / 4] = 0x10000;
}

static void through_ioapic(void)
{
    irq_handler[IOAPIC_VECTOR] = on_lapic;
    ioapic[0] = 0x10 + 2 * 2 + 1;
    ioapic[4] = 0; /* to APIC id 0 */
    ioapic[0] = 0x10 + 2 * 2;
    ioapic[4] = IOAPIC_VECTOR;
    (void)sleep_until(1);
    check("10 PIT ticks through the IOAPIC take 10 ms", near(sleep_until(10), MS10_PM, 8));
    ioapic[4] = 0x10000 | IOAPIC_VECTOR;
}

/* The PM timer, of 24 bits, counted @have where it should have counted @want, within @ppm. */
static bool same_count(uint32_t have, uint64_t want, unsigned ppm)
{
    uint32_t more = (have - (uint32_t)want) & 0xffffff, less = ((uint32_t)want - have) & 0xffffff;

    return (uint64_t)(more < less ? more : less) * 1000000 <= want * ppm;
}

/* The PM timer at its next tick, and the TSC beside it. What comes between the two (on a host that
 * stands still, the time it stood) is a reading to take again, as kernels do. */
static uint32_t pm_edge(uint64_t *tsc)
{
    enum { TIGHT = 20000 };
    uint32_t before, now;
    uint64_t from;

    do {
        before = pm();
        do {
            from = rdtsc();
            now = pm();
        } while (now == before);
        *tsc = rdtsc();
    } while (*tsc - from > TIGHT);
    return now;
}

/* Over a second, asleep and then awake: what a kernel calibrates its clock by. The TSC counts
 * nanoseconds. */
static void same_rates(void)
{
    enum { SECOND = 1000000000, PIT_COUNT = PIT_HZ / 1000, RATE_PPM = 50 };
    uint64_t tsc0, tsc1, tsc2;
    uint32_t pm0, pm1, pm2, from, slept;

    ioapic[0] = 0x10 + 2 * 2;
    ioapic[4] = IOAPIC_VECTOR;
    pm0 = pm_edge(&tsc0);
    (void)sleep_until(1);
    from = pm();
    ticks = 0;
    while (rdtsc() - tsc0 < SECOND) {
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    }
    slept = pm() - from;
    pm1 = pm_edge(&tsc1);
    ioapic[4] = 0x10000 | IOAPIC_VECTOR;
    while (rdtsc() - tsc1 < SECOND / 5) {
    }
    pm2 = pm_edge(&tsc2);
    check("a second of TSC is one of PM timer",
          same_count(pm1 - pm0, (tsc1 - tsc0) * PM_HZ / SECOND, RATE_PPM));
    check("and while nothing sleeps",
          same_count(pm2 - pm1, (tsc2 - tsc1) * PM_HZ / SECOND, RATE_PPM));
    check("PIT ticks take as long by the PM timer",
          same_count(slept, (uint64_t)ticks * PIT_COUNT * PM_HZ / PIT_HZ, 500));
}

static void lapic_timer(void)
{
    uint32_t per_10ms, t0, start;

    irq_handler[LAPIC_VECTOR] = on_lapic;
    irq_handler[SPURIOUS_VECTOR] = on_spurious;
    lapic[LAPIC_DIVIDE / 4] = 3; /* by 16 */
    lapic[LAPIC_LVT_TIMER / 4] = 0x10000 | LAPIC_VECTOR;
    lapic[LAPIC_INITIAL / 4] = 0xffffffff;
    t0 = pm();
    start = lapic[LAPIC_CURRENT / 4];
    while (pm() - t0 < MS10_PM) {
    }
    per_10ms = start - lapic[LAPIC_CURRENT / 4];
    check("the LAPIC timer counts", per_10ms > 1000);
    lapic[LAPIC_LVT_TIMER / 4] = LAPIC_VECTOR;
    lapic[LAPIC_INITIAL / 4] = per_10ms;
    check("one shot", near(sleep_until(1), MS10_PM, 5));
    check_eq("stays at 0", lapic[LAPIC_CURRENT / 4], 0);
    lapic[LAPIC_LVT_TIMER / 4] = 0x20000 | LAPIC_VECTOR;
    lapic[LAPIC_INITIAL / 4] = per_10ms / 10;
    check("periodic", near(sleep_until(10), MS10_PM, 5));
    lapic[LAPIC_LVT_TIMER / 4] = 0x10000 | LAPIC_VECTOR;
    lapic[LAPIC_INITIAL / 4] = 0;
}

int guest_main(void)
{
    same_time();
    through_pic();
    through_ioapic();
    same_rates();
    lapic_timer();
    return checks_done("timers");
}
