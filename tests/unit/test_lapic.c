/* SPDX-License-Identifier: Apache-2.0
 * Hunts: an interrupt delivered past the priority, a message to the wrong CPU, a level interrupt
 * that never comes again after its EOI, a timer that is early or loses a tick, a register let
 * through in the wrong mode. LAPICs of four vCPUs and the IOAPIC. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/ioapic.h"
#include "vmm/dev/lapic.h"
#include "vmm/tunables.h"

enum { CPUS = 4 };
enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR2 = 0x310,
    LVT_TIMER = 0x320,
    LVT_LINT0 = 0x350,
    LVT_ERROR = 0x370,
    INIT_COUNT = 0x380,
    COUNT = 0x390,
    DIVIDE = 0x3e0
};
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0, X2 = 0x800 };

static struct board b;
static struct vcpu cpus[CPUS];
static struct lapic *lapics[CPUS];
static struct apic_bus bus;
static struct ioapic *io;
static unsigned inits[CPUS], sipis[CPUS], taken_from_pic;
static uint8_t sipi_vector;

static int extint(void *ctx)
{
    (void)ctx;
    taken_from_pic++;
    return 0x37;
}

static void init(void *ctx)
{
    inits[(struct vcpu *)ctx - cpus]++;
}

static void sipi(void *ctx, uint8_t vector)
{
    sipis[(struct vcpu *)ctx - cpus]++;
    sipi_vector = vector;
}

static uint32_t get(unsigned cpu, unsigned reg)
{
    return (uint32_t)lapic_mmio_read(lapics[cpu], LAPIC_BASE + reg, 4);
}

static void set(unsigned cpu, unsigned reg, uint32_t value)
{
    lapic_mmio_write(lapics[cpu], LAPIC_BASE + reg, 4, value);
}

static int wrmsr(unsigned cpu, uint32_t msr, uint64_t value)
{
    return lapic_msr_write(lapics[cpu], msr, value);
}

static uint64_t rdmsr(unsigned cpu, uint32_t msr)
{
    uint64_t v = 0;

    assert_int_equal(lapic_msr_read(lapics[cpu], msr, &v), 0);
    return v;
}

static void to_x2(unsigned cpu)
{
    assert_int_equal(wrmsr(cpu, MSR_BASE, rdmsr(cpu, MSR_BASE) | 0x400), 0);
}

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    memset(cpus, 0, sizeof cpus);
    memset(inits, 0, sizeof inits);
    memset(sipis, 0, sizeof sipis);
    bus = (struct apic_bus){0};
    taken_from_pic = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        const struct lapic_wires wires = {
            .extint_take = extint, .init = init, .sipi = sipi, .ctx = &cpus[i]};

        cpus[i].id = i;
        assert_int_equal(lapic_create(&b.m, &bus, &cpus[i], &wires, &lapics[i], NULL), 0);
        set(i, SVR, 0x1ff);
        set(i, LDR, UINT32_C(1) << (24 + i));
    }
    assert_int_equal(ioapic_create(&b.m, &bus, &io, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ioapic_destroy(io);
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_destroy(lapics[i]);
    }
    board_close(&b);
    return 0;
}

static void msi(uint32_t low, uint32_t data)
{
    apic_msi_send(&bus, 0xfee00000 | low, data);
}

static int take(unsigned cpu)
{
    assert_true(cpus[cpu].irq_pending);
    return lapic_irq_take(lapics[cpu]);
}

static void redirect(unsigned pin, uint64_t entry)
{
    for (unsigned half = 0; half < 2; half++) {
        bus_write(b.m.bus, BUS_MMIO, IOAPIC_BASE, 4, 0x10 + 2 * pin + half);
        bus_write(b.m.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4, entry >> (32 * half));
    }
}

static uint64_t redirection(unsigned pin)
{
    uint64_t v = 0;

    for (unsigned half = 0; half < 2; half++) {
        bus_write(b.m.bus, BUS_MMIO, IOAPIC_BASE, 4, 0x10 + 2 * pin + half);
        v |= bus_read(b.m.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4) << (32 * half);
    }
    return v;
}

static void priorities_nest(void **state)
{
    (void)state;
    msi(0, 0x41);
    assert_true(cpus[0].attention);
    msi(0, 0x45);
    assert_int_equal(take(0), 0x45);
    assert_false(cpus[0].irq_pending); /* 0x41 is of the same class */
    msi(0, 0x52);
    assert_int_equal(take(0), 0x52);
    assert_int_equal(get(0, PPR), 0x50);
    assert_int_equal(get(0, ISR + 0x20), 1 << 5 | 1 << 18);
    set(0, EOI, 0);
    assert_int_equal(get(0, PPR), 0x40);
    set(0, EOI, 0);
    assert_int_equal(take(0), 0x41);
    set(0, EOI, 0);
    assert_int_equal(get(0, PPR), 0);
    assert_int_equal(lapic_irq_take(lapics[0]), -1);
}

static void the_task_priority_holds_back(void **state)
{
    (void)state;
    lapic_cr8_write(lapics[0], 4);
    assert_int_equal(get(0, TPR), 0x40);
    msi(0, 0x4f);
    assert_false(cpus[0].irq_pending);
    assert_int_equal(get(0, IRR + 0x20), 1 << 15);
    msi(0, 0x50);
    assert_true(cpus[0].irq_pending);
    assert_int_equal(take(0), 0x50);
    set(0, EOI, 0);
    cpus[0].attention = false;
    set(0, TPR, 0x30);
    assert_true(cpus[0].attention);
    assert_int_equal(lapic_cr8_read(lapics[0]), 3);
    assert_int_equal(take(0), 0x4f);
}

/* Who gets what: MSI address bits and xAPIC logical ids. */
static void messages_find_their_targets(void **state)
{
    static const struct {
        uint32_t addr, data;
        uint32_t dfr, ldr_base; /* LDR of cpu i: ldr_base + i as cluster model, 0: flat */
        unsigned who;           /* bit mask */
    } cases[] = {
        {0x01000, 0x61, 0, 0, 2},    {0xff000, 0x61, 0, 0, 15},   {0x07000, 0x61, 0, 0, 0},
        {0x05004, 0x61, 0, 0, 5},    {0xff004, 0x61, 0, 0, 15},   {0x10004, 0x61, 0, 0, 0},
        {0x0e004, 0x161, 0, 0, 2},   {0x0e00c, 0x161, 0, 0, 2},   {0x21004, 0x61, 1, 0x20, 1},
        {0x24004, 0x61, 1, 0x20, 4}, {0x31004, 0x61, 1, 0x20, 0},
    };

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        unsigned who = 0;

        for (unsigned i = 0; i < CPUS; i++) {
            set(i, DFR, cases[k].dfr != 0 ? 0x0fffffff : 0xffffffff);
            set(i, LDR, (cases[k].ldr_base | 1U << i) << 24);
        }
        msi(cases[k].addr, cases[k].data);
        for (unsigned i = 0; i < CPUS; i++) {
            if (cpus[i].irq_pending) {
                who |= 1U << i;
                assert_int_equal(take(i), 0x61);
                set(i, EOI, 0);
            }
        }
        assert_int_equal(who, cases[k].who);
    }
    apic_msi_send(&bus, 0xfed00000, 0x61);
    assert_false(cpus[0].irq_pending);
    set(0, DFR, 0xffffffff);
    set(0, LDR, 0x81000000); /* one of its bits is enough */
    msi(0x80004, 0x61);
    assert_int_equal(take(0), 0x61);
}

static void lowest_priority_prefers_the_idle(void **state)
{
    (void)state;
    set(0, TPR, 0x20);
    set(1, TPR, 0x10);
    msi(0x07004, 0x161);
    assert_int_equal(take(2), 0x61);
    msi(0x07004, 0x162);
    assert_int_equal(take(1), 0x62); /* 2 is busy with class 6 */
}

static void ipis(void **state)
{
    (void)state;
    set(0, ICR2, 2 << 24);
    set(0, ICR, 0x4051);
    assert_int_equal(take(2), 0x51);
    set(2, EOI, 0);
    set(0, ICR, 0xc051); /* as a level: an edge all the same */
    assert_int_equal(take(2), 0x51);
    assert_int_equal(get(2, TMR + 0x20), 0);
    set(0, ICR, 0x40000 | 0x52); /* self */
    assert_int_equal(take(0), 0x52);
    set(3, ICR, 0xc0000 | 0x53); /* all others */
    assert_false(cpus[3].irq_pending);
    assert_int_equal(take(1), 0x53);
    set(3, ICR, 0x80000 | 0x64); /* all */
    assert_int_equal(take(3), 0x64);
    assert_int_equal(take(0), 0x64);
    set(1, ICR2, 0);
    cpus[0].attention = false;
    set(1, ICR, 0x400);
    assert_int_equal(cpus[0].c.nmi_pending, 1);
    assert_true(cpus[0].attention);
    set(0, ICR2, 1 << 24);
    set(0, ICR, 0x4500); /* INIT, SIPI */
    set(0, ICR, 0x8500); /* INIT level de-assert: nothing */
    set(0, ICR, 0x4609);
    assert_int_equal(inits[1], 1);
    assert_int_equal(sipis[1], 1);
    assert_int_equal(sipi_vector, 9);
    set(0, ICR, 0xc4500);
    assert_int_equal(inits[0] + inits[1] * 10 + inits[2] * 100 + inits[3] * 1000, 1120);
    set(0, ICR2, 0);
    set(0, ICR, 0x4500);
    assert_int_equal(inits[0], 1);
}

static void send_to_0(uint8_t vector, bool level)
{
    const struct apic_msg msg = {.mode = APIC_FIXED, .vector = vector, .level = level};

    assert_true(apic_send(&bus, &msg));
}

/* What a vCPU may do with its LAPIC while others run. */
static void what_is_a_lapics_own(void **state)
{
    static const struct {
        unsigned reg;
        bool read, write;
    } cases[] = {
        {0x20, true, false},   {0x30, true, false},  {TPR, true, true},     {0xa0, true, false},
        {0xb0, false, true},   {0xd0, true, false},  {0xf0, true, false},   {0x100, true, false},
        {0x210, true, false},  {ESR, true, false},   {ICR, true, false},    {ICR2, true, true},
        {0x320, true, false},  {0x380, true, false}, {0x390, false, false}, {0x3e0, true, false},
        {0x3f0, false, false}, {0x40, false, false}, {0x84, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gpa_t gpa = LAPIC_BASE + cases[i].reg;

        assert_int_equal(lapic_mmio_own(lapics[0], gpa, 4, false), cases[i].read);
        assert_int_equal(lapic_mmio_own(lapics[0], gpa, 4, true), cases[i].write);
        assert_false(lapic_mmio_own(lapics[0], gpa, 8, false));
        assert_false(lapic_mmio_own(lapics[0], gpa + PAGE_SIZE, 4, false));
    }
    /* The EOI of a level is told to the IOAPIC. */
    assert_int_equal(lapic_irq_peek(lapics[0]), 0);
    set(0, SVR, 0x1ff);
    send_to_0(0x51, true);
    assert_int_equal(lapic_irq_peek(lapics[0]), 0x51);
    assert_int_equal(take(0), 0x51);
    assert_false(lapic_mmio_own(lapics[0], LAPIC_BASE + 0xb0, 4, true));
    send_to_0(0x61, false);
    assert_int_equal(take(0), 0x61);
    assert_true(lapic_mmio_own(lapics[0], LAPIC_BASE + 0xb0, 4, true));
    /* An interrupt of the PIC is not the LAPIC's own. */
    send_to_0(0x71, false);
    set(0, 0x350, APIC_EXTINT << 8);
    lapic_set_lint0(lapics[0], true);
    assert_int_equal(lapic_irq_peek(lapics[0]), 0);
    lapic_set_lint0(lapics[0], false);
    assert_int_equal(lapic_irq_peek(lapics[0]), 0x71);
    /* x2APIC */
    assert_true(lapic_msr_own(lapics[0], MSR_BASE, false));
    assert_false(lapic_msr_own(lapics[0], MSR_BASE, true));
    assert_false(lapic_msr_own(lapics[0], MSR_DEADLINE, false));
    assert_false(lapic_msr_own(lapics[0], X2 + 8, true));
    assert_int_equal(lapic_msr_write(lapics[0], MSR_BASE, LAPIC_BASE | 0xd00), 0);
    assert_true(lapic_msr_own(lapics[0], X2 + 8, true));
    assert_true(lapic_msr_own(lapics[0], X2 + 0xb, true));
    assert_false(lapic_msr_own(lapics[0], X2 + 0x30, true));
    assert_true(lapic_msr_own(lapics[0], X2 + 0x30, false));
    assert_false(lapic_msr_own(lapics[0], X2 + 0x39, false));
    assert_false(lapic_msr_own(lapics[0], X2 + 0x40, false));
    assert_false(lapic_mmio_own(lapics[0], LAPIC_BASE + TPR, 4, false));
}

/* To all others at lowest priority: one of them, and the same one each time. */
static void lowest_priority_goes_to_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        set(i, SVR, 0x1ff);
        set(i, TPR, i == 2 ? 0 : 0x20);
    }
    set(2, ICR, 0xc0131); /* not to itself, though it would be first */
    assert_int_equal(take(0), 0x31);
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(lapic_irq_peek(lapics[i]), 0);
    }
    set(0, ICR, 0xc0141);
    assert_int_equal(lapic_irq_peek(lapics[2]), 0x41);
    assert_int_equal(lapic_irq_peek(lapics[1]), 0);
    set(2, SVR, 0xff); /* disabled by software: not asked */
    set(0, ICR, 0xc0151);
    assert_int_equal(lapic_irq_peek(lapics[1]), 0x51);
}

static void errors_latch_on_write(void **state)
{
    (void)state;
    set(0, LVT_ERROR, 0xfe);
    set(0, ICR, 0x40005); /* illegal vector sent */
    assert_int_equal(get(0, ESR), 0);
    set(0, ESR, 0);
    assert_int_equal(get(0, ESR), 0x20);
    assert_int_equal(take(0), 0xfe);
    msi(0, 0x03);
    get(0, 0x40);
    set(0, ESR, 0);
    assert_int_equal(get(0, ESR), 0xc0);
    set(0, ESR, 0);
    assert_int_equal(get(0, ESR), 0);
}

static void x2apic_is_checked(void **state)
{
    static const struct {
        uint32_t msr;
        uint64_t value;
        int rc;
    } writes[] = {
        {X2 + 0x08, 0x20, 0},
        {X2 + 0x08, 0x100, 1},
        {X2 + 0x02, 0, 1},
        {X2 + 0x0d, 0, 1},
        {X2 + 0x0e, 0, 1},
        {X2 + 0x0b, 0, 0},
        {X2 + 0x0b, 1, 1},
        {X2 + 0x28, 0, 0},
        {X2 + 0x28, 1, 1},
        {X2 + 0x31, 0, 1},
        {X2 + 0x2f, 0, 1},
        {X2 + 0x38, 0x100000000, 1},
        {X2 + 0x3f, 0x71, 0},
        {X2 + 0x3f, 0x171, 1},
        {X2 + 0x0f, 0x1ff, 0},
        {X2 + 0x0f, 0x1000, 1},
        {X2 + 0x32, 0x40030, 0},
        {X2 + 0x32, 0x80030, 1},
        {X2 + 0x40, 0, 1},
        {X2 + 0xff, 0, 1},
        {MSR_BASE, LAPIC_BASE | 0x900, 1},
        {MSR_BASE, LAPIC_BASE | 0x500, 1},
        {MSR_BASE, LAPIC_BASE | 0xd01, 1},
        {MSR_BASE, UINT64_C(1) << 40 | LAPIC_BASE | 0xd00, 1},
        {X2 + 0x30, 0x2000, 1},
        {X2 + 0x30, 0x100000, 1},
        {X2 + 0x30, UINT64_C(3) << 32 | 0x72, 0},
    };
    uint64_t v;

    (void)state;
    assert_int_equal(lapic_msr_read(lapics[0], X2 + 2, &v), 1); /* not in xAPIC mode */
    for (unsigned i = 0; i < CPUS; i++) {
        to_x2(i);
    }
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        assert_int_equal(wrmsr(0, writes[i].msr, writes[i].value), writes[i].rc);
    }
    assert_int_equal(take(0), 0x71);
    assert_int_equal(take(3), 0x72);
    assert_int_equal(rdmsr(3, X2 + 2), 3);
    assert_int_equal(rdmsr(3, X2 + 0x0d), 8);
    assert_int_equal(rdmsr(0, X2 + 0x30), UINT64_C(3) << 32 | 0x72);
    assert_int_equal(wrmsr(0, X2 + 0x30, UINT64_C(0x6) << 32 | 0x873), 0); /* logical */
    assert_int_equal(take(1), 0x73);
    assert_int_equal(take(2), 0x73);
    assert_int_equal(lapic_msr_read(lapics[0], X2 + 0x0b, &v), 1); /* write only */
    assert_false(lapic_claims(lapics[0], LAPIC_BASE));
    assert_int_equal(wrmsr(0, MSR_BASE, LAPIC_BASE | 0x100), 0); /* off; and only then xAPIC */
    assert_int_equal(wrmsr(0, MSR_BASE, LAPIC_BASE | 0xd00), 1);
    assert_int_equal(wrmsr(0, MSR_BASE, LAPIC_BASE | 0x900), 0);
    assert_true(lapic_claims(lapics[0], LAPIC_BASE + 0xfff));
    assert_int_equal(get(0, SVR), 0xff);
}

/* Who has an interrupt of @vector, as a bit mask; they take it. */
static unsigned takers(int vector)
{
    unsigned who = 0;

    for (unsigned i = 0; i < CPUS; i++) {
        if (cpus[i].irq_pending) {
            who |= 1U << i;
            assert_int_equal(take(i), vector);
            assert_int_equal(wrmsr(i, X2 + 0x0b, 0), 0);
        }
    }
    return who;
}

/* MSR 830H: destination above, the rest as ICR below (SDM Vol. 3A, "ICR Operation in x2APIC Mode").
 */
static void x2apic_sends_every_kind(void **state)
{
    const uint64_t all = UINT64_C(0xffffffff) << 32;
    const unsigned everyone = (1U << CPUS) - 1;

    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        to_x2(i);
    }
    assert_int_equal(wrmsr(1, X2 + 0x30, all | 0x4061), 0);
    assert_int_equal(takers(0x61), everyone);
    assert_int_equal(wrmsr(1, X2 + 0x30, UINT64_C(0xff) << 32 | 0x4061), 0); /* an id nobody has */
    assert_int_equal(takers(0x61), 0);
    assert_int_equal(wrmsr(1, X2 + 0x30, UINT64_C(0x10001) << 32 | 0x4861), 0); /* nor a cluster */
    assert_int_equal(takers(0x61), 0);
    assert_int_equal(wrmsr(1, X2 + 0x30, 0x44062), 0); /* self */
    assert_int_equal(takers(0x62), 1U << 1);
    assert_int_equal(wrmsr(1, X2 + 0x30, 0x84063), 0); /* all */
    assert_int_equal(takers(0x63), everyone);
    assert_int_equal(wrmsr(1, X2 + 0x30, 0xc4064), 0); /* all others */
    assert_int_equal(takers(0x64), everyone & ~(1U << 1));
    assert_int_equal(wrmsr(0, X2 + 0x30, UINT64_C(2) << 32 | 0x4400), 0); /* NMI */
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(cpus[i].c.nmi_pending, i == 2);
    }
    assert_int_equal(wrmsr(0, X2 + 0x30, UINT64_C(3) << 32 | 0x4500), 0); /* INIT */
    assert_int_equal(wrmsr(0, X2 + 0x30, UINT64_C(3) << 32 | 0x4612), 0); /* SIPI */
    assert_int_equal(wrmsr(0, X2 + 0x30, 0xc4500), 0);                    /* to all others */
    assert_int_equal(wrmsr(0, X2 + 0x30, 0xc4634), 0);
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(inits[i], i == 0 ? 0 : i == 3 ? 2 : 1);
        assert_int_equal(sipis[i], inits[i]);
    }
    assert_int_equal(sipi_vector, 0x34);
}

static void timer_modes(void **state)
{
    const uint64_t tick = 1000000000 / CRYSTAL_HZ;

    (void)state;
    board_run_to(&b, 1000);
    set(0, DIVIDE, 3); /* by 16 */
    set(0, LVT_TIMER, 0x31);
    set(0, INIT_COUNT, 100);
    board_run_to(&b, 1000 + 99 * 16 * tick);
    assert_int_equal(get(0, COUNT), 1);
    assert_false(cpus[0].irq_pending);
    board_run_to(&b, 1000 + 100 * 16 * tick);
    assert_int_equal(take(0), 0x31);
    set(0, EOI, 0);
    assert_int_equal(get(0, COUNT), 0);
    assert_true(vtimers_next(&b.m.timers) == VTIMER_NEVER);
    /* Periodic, by 1: late rounds merge ticks but keep the phase. */
    b.now = 1000000;
    set(0, DIVIDE, 0xb);
    set(0, LVT_TIMER, 0x20032);
    set(0, INIT_COUNT, 1000);
    board_run_to(&b, 1000000 + 3500 * tick);
    assert_int_equal(take(0), 0x32);
    set(0, EOI, 0);
    assert_false(cpus[0].irq_pending);
    assert_int_equal(get(0, COUNT), 500);
    assert_int_equal(vtimers_next(&b.m.timers), 1000000 + 4000 * tick);
    set(0, LVT_TIMER, 0x30032); /* masked: goes on counting */
    assert_true(vtimers_next(&b.m.timers) == VTIMER_NEVER);
    b.now = 1000000 + 5250 * tick;
    assert_int_equal(get(0, COUNT), 750);
    set(0, LVT_TIMER, 0x20032);
    assert_int_equal(vtimers_next(&b.m.timers), 1000000 + 6000 * tick);
    set(0, INIT_COUNT, 0);
    assert_true(vtimers_next(&b.m.timers) == VTIMER_NEVER);
}

static void tsc_deadline(void **state)
{
    (void)state;
    board_run_to(&b, 5000);
    wrmsr(0, MSR_DEADLINE, 9000);
    assert_int_equal(rdmsr(0, MSR_DEADLINE), 0); /* not in this mode */
    set(0, LVT_TIMER, 0x40033);
    wrmsr(0, MSR_DEADLINE, 9000);
    assert_int_equal(vtimers_next(&b.m.timers), 9000);
    assert_int_equal(rdmsr(0, MSR_DEADLINE), 9000);
    board_run_to(&b, 9000);
    assert_int_equal(rdmsr(0, MSR_DEADLINE), 0);
    assert_int_equal(take(0), 0x33);
    set(0, EOI, 0);
    wrmsr(0, MSR_DEADLINE, 8000); /* in the past: at once */
    assert_int_equal(take(0), 0x33);
    set(0, EOI, 0);
    cpus[0].c.tsc_adjust = 1000000;
    wrmsr(0, MSR_DEADLINE, 1020000);
    assert_int_equal(vtimers_next(&b.m.timers), 20000);
    cpus[0].c.tsc_adjust = 999000; /* the TSC is set back: later */
    board_run_to(&b, 20000);
    assert_false(cpus[0].irq_pending);
    assert_int_equal(vtimers_next(&b.m.timers), 21000);
    wrmsr(0, MSR_DEADLINE, 0);
    assert_true(vtimers_next(&b.m.timers) == VTIMER_NEVER);
    wrmsr(0, MSR_DEADLINE, UINT64_MAX);
    assert_false(cpus[0].irq_pending);
    set(0, LVT_TIMER, 0x33);
    assert_int_equal(rdmsr(0, MSR_DEADLINE), 0);
}

static void the_pic_comes_through_lint0(void **state)
{
    (void)state;
    lapic_set_lint0(lapics[0], true);
    assert_int_equal(take(0), 0x37); /* as firmware leaves it: virtual wire mode */
    assert_int_equal(taken_from_pic, 1);
    lapic_set_lint0(lapics[0], false);
    assert_false(cpus[0].irq_pending);
    lapic_set_lint0(lapics[0], true);
    set(0, LVT_LINT0, 0x10700);
    assert_false(cpus[0].irq_pending);
    wrmsr(0, MSR_BASE, LAPIC_BASE | 0x100); /* no APIC: the pin is INTR */
    assert_true(cpus[0].irq_pending);
    lapic_set_lint0(lapics[1], true); /* of the first vCPU only */
    assert_false(cpus[1].irq_pending);
    set(1, LVT_LINT0, 0x700);
    assert_true(cpus[1].irq_pending);
}

static void ioapic_levels_come_again_until_they_fall(void **state)
{
    (void)state;
    redirect(9, UINT64_C(1) << 56 | 0x8000 | 0x59);
    ioapic_set_line(io, 9, true);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(take(1), 0x59);
        assert_false(cpus[1].irq_pending);
        assert_int_equal(redirection(9) & 0x4000, 0x4000);
        assert_int_equal(get(1, TMR + 0x20), 1 << 25);
        set(1, EOI, 0);
        assert_true(cpus[1].irq_pending);
    }
    assert_int_equal(take(1), 0x59);
    ioapic_set_line(io, 9, false);
    set(1, EOI, 0);
    assert_false(cpus[1].irq_pending);
    assert_int_equal(redirection(9) & 0x4000, 0);
    /* Masked while asserted, then unmasked. */
    redirect(9, UINT64_C(1) << 56 | 0x18059);
    ioapic_set_line(io, 9, true);
    assert_false(cpus[1].irq_pending);
    redirect(9, UINT64_C(1) << 56 | 0x8059);
    assert_int_equal(take(1), 0x59);
    ioapic_set_line(io, 9, false);
    bus_write(b.m.bus, BUS_MMIO, IOAPIC_BASE + 0x40, 4, 0x59); /* directed EOI */
    assert_int_equal(redirection(9) & 0x4000, 0);
}

static void ioapic_edges_count_once(void **state)
{
    (void)state;
    ioapic_set_line(io, 4, true); /* masked: ignored */
    redirect(4, 0x44);
    assert_false(cpus[0].irq_pending);
    ioapic_set_line(io, 4, false);
    ioapic_set_line(io, 4, true);
    ioapic_set_line(io, 4, true);
    assert_int_equal(take(0), 0x44);
    set(0, EOI, 0);
    assert_false(cpus[0].irq_pending);
    bus_write(b.m.bus, BUS_MMIO, IOAPIC_BASE, 4, 1);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4), 0x00170020);
    assert_int_equal(get(0, VERSION), 0x00050014);
    assert_int_equal(get(2, ID), 2 << 24);
}

static void random_access(void *ctx)
{
    struct prng *g = ctx;
    unsigned cpu = (unsigned)prng_below(g, CPUS);
    uint64_t value = prng_u64(g) >> prng_below(g, 64), v;

    switch (prng_below(g, 10)) {
    case 0:
    case 1:
        lapic_mmio_write(lapics[cpu], LAPIC_BASE + prng_below(g, 64) * 16, 4, value);
        break;
    case 2:
        lapic_mmio_read(lapics[cpu], LAPIC_BASE + prng_below(g, 4096), 1U << prng_below(g, 4));
        break;
    case 3:
        lapic_msr_write(lapics[cpu], X2 + (uint32_t)prng_below(g, 256), value);
        break;
    case 4:
        lapic_msr_read(lapics[cpu], X2 + (uint32_t)prng_below(g, 256), &v);
        break;
    case 5:
        lapic_msr_write(lapics[cpu], MSR_DEADLINE, value);
        lapic_msr_write(lapics[cpu], MSR_BASE, LAPIC_BASE | (value & 0xd00));
        break;
    case 6:
        redirect((unsigned)prng_below(g, 24), value);
        break;
    case 7:
        ioapic_set_line(io, (unsigned)prng_below(g, 24), prng_below(g, 2) != 0);
        lapic_set_lint0(lapics[cpu], prng_below(g, 2) != 0);
        break;
    case 8:
        apic_msi_send(&bus, 0xfee00000 | (value & 0xfffff), (uint32_t)prng_u64(g));
        break;
    default:
        lapic_irq_take(lapics[cpu]);
        board_run_to(&b, (b.now + prng_below(g, UINT64_C(1) << prng_below(g, 40))) &
                             ((UINT64_C(1) << 50) - 1));
    }
}

static void state_survives_anything(void **state)
{
    struct prng g;

    (void)state;
    seed_open(&g, "lapic");
    for (unsigned i = 0; i < 40; i++) {
        struct device *d = &b.m.devices[1 + i % (b.m.ndevices - 1)];

        for (unsigned k = 0; k < 1000; k++) {
            random_access(&g);
        }
        check_round_trip(d);
        for (unsigned cpu = 0; cpu < CPUS; cpu++) { /* what is derived is derived again */
            bool pending = cpus[cpu].irq_pending;

            cpus[cpu].irq_pending = false;
            check_round_trip(
                board_device(&b.m, (char[]){'l', 'a', 'p', 'i', 'c', (char)('0' + cpu), '\0'}));
            assert_int_equal(cpus[cpu].irq_pending, pending);
        }
        check_hostile(d, &g, random_access, &g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(priorities_nest, setup, teardown),
        cmocka_unit_test_setup_teardown(the_task_priority_holds_back, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_find_their_targets, setup, teardown),
        cmocka_unit_test_setup_teardown(lowest_priority_prefers_the_idle, setup, teardown),
        cmocka_unit_test_setup_teardown(ipis, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_a_lapics_own, setup, teardown),
        cmocka_unit_test_setup_teardown(lowest_priority_goes_to_one, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_latch_on_write, setup, teardown),
        cmocka_unit_test_setup_teardown(x2apic_is_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(x2apic_sends_every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(timer_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(tsc_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(the_pic_comes_through_lint0, setup, teardown),
        cmocka_unit_test_setup_teardown(ioapic_levels_come_again_until_they_fall, setup, teardown),
        cmocka_unit_test_setup_teardown(ioapic_edges_count_once, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
