/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_ipi.c - interrupts between processors: every destination and shorthand, NMI, a
 * halted target, INIT and start-up again; the destinations in the flat model, in that of clusters
 * and in x2APIC mode. */
#include "smp.h"

enum { VECTOR = 0x60, LOGICAL_VECTOR = 0x61, PING = 0x62, SPURIOUS = 0xff };
enum {
    ICR_LOGICAL = 0x800,
    ICR_ASSERT = 0x4000,
    ICR_SELF = 0x40000,
    ICR_ALL = 0x80000,
    ICR_OTHERS = 0xc0000,
    ICR_LOWEST = 0x100,
    ICR_NMI = 0x400,
    ICR_INIT = 0x500,
    ICR_SIPI = 0x600
};
enum { APIC_LDR = 0xd0, APIC_DFR = 0xe0, PINGS = 500 };
enum { PATIENCE = 100000000, AFTERWARDS = 20000 };

/* SDM Vol. 3A, "x2APIC Register Address Space". */
enum { MSR_APIC_BASE = 0x1b, BASE_X2 = 0x400, X2_ID = 0x802, X2_EOI = 0x80b, X2_ICR = 0x830 };

static enum { FLAT, CLUSTER, X2 } model; /* of all */
static const char *const model_names[] = {"flat", "clusters", "x2APIC"};
static uint32_t strangers; /* that have another id than their number */
static volatile uint32_t got[SMP_MAX], nmis[SMP_MAX];
static volatile bool done;
static uint32_t enabled;

static void eoi(void)
{
    if (model == X2) {
        wrmsr(X2_EOI, 0);
    } else {
        *apic(APIC_EOI) = 0;
    }
}

/* @high: as in xAPIC mode; flat bits are those of cluster 0. */
static void send(uint32_t high, uint32_t low)
{
    uint64_t dest = high >> 24;

    if (model != X2) {
        apic_send(high, low);
        return;
    }
    if (dest == 0xff && (low & ICR_LOGICAL) == 0) {
        dest = 0xffffffff;
    }
    wrmsr(X2_ICR, dest << 32 | low);
}

static void on_vector(struct trap_frame *f)
{
    (void)f;
    got[smp_cpu()]++;
    eoi();
}

static void on_nmi(struct trap_frame *f)
{
    (void)f;
    nmis[smp_cpu()]++;
}

static void on_spurious(struct trap_frame *f)
{
    (void)f;
}

/* The logical id of @cpu; 0: it has none. Of x2APIC mode, the bit within its cluster. */
static uint32_t logical(unsigned cpu)
{
    return model == CLUSTER ? (cpu / 4) << 28 | 1U << (24 + cpu % 4)
           : cpu < 8        ? 1U << (24 + cpu)
                            : 0;
}

static void enable(unsigned cpu)
{
    uint32_t one[4], topology[4], id;

    if (model == X2) {
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_X2); /* brings its own logical id */
        id = (uint32_t)rdmsr(X2_ID);
    } else {
        *apic(APIC_DFR) = model == FLAT ? 0xffffffff : 0x0fffffff;
        *apic(APIC_LDR) = logical(cpu);
        id = *apic(APIC_ID) >> 24;
    }
    cpuid(1, 0, one);
    cpuid(0xb, 1, topology);
    if (id != cpu || one[1] >> 24 != cpu || topology[3] != cpu) {
        __atomic_fetch_add(&strangers, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_fetch_add(&enabled, 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("sti");
}

static uint32_t sum(volatile uint32_t *counts)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < smp_cpus; i++) {
        n += counts[i];
    }
    return n;
}

/* So many come, and no more after them. */
static bool await(volatile uint32_t *counts, uint32_t n)
{
    for (unsigned i = 0; i < PATIENCE && sum(counts) < n; i++) {
        pause_cpu();
    }
    spin(AFTERWARDS);
    return sum(counts) == n;
}

static void forget(void)
{
    for (unsigned i = 0; i < SMP_MAX; i++) {
        got[i] = nmis[i] = 0;
    }
}

/* All others sleep, and count what wakes them. */
static void targets(unsigned cpu)
{
    enable(cpu);
    if (cpu != 0) {
        while (!done) {
            __asm__ volatile("cli");
            if (!done) {
                __asm__ volatile("sti; hlt");
            }
            __asm__ volatile("sti");
        }
        __asm__ volatile("cli");
        return;
    }
    bool each = true;

    while (LOAD(&enabled) != smp_cpus) {
        pause_cpu();
    }
    put(model_names[model]);
    put("\n");
    check_eq("the local APIC, CPUID 1 and 0BH: the same id for each", strangers, 0);
    for (unsigned i = 0; i < smp_cpus; i++) {
        forget();
        send(i << 24, VECTOR | ICR_ASSERT);
        each = each && await(got, 1) && got[i] == 1;
    }
    check("physical destination: each by its id", each);
    each = true;
    for (unsigned i = 0; i < smp_cpus && logical(i) != 0; i++) {
        forget();
        send(logical(i), LOGICAL_VECTOR | ICR_LOGICAL | ICR_ASSERT);
        each = each && await(got, 1) && got[i] == 1;
    }
    check("logical destination: each by its bit", each);
    forget();
    send(3U << 24, LOGICAL_VECTOR | ICR_LOGICAL | ICR_ASSERT);
    check("logical destination: two bits, two get it", await(got, 2) && got[0] == 1 && got[1] == 1);
    forget();
    send(0, VECTOR | ICR_SELF | ICR_ASSERT);
    check("self", await(got, 1) && got[0] == 1);
    forget();
    send(0, VECTOR | ICR_ALL | ICR_ASSERT);
    check("all, self included", await(got, smp_cpus) && got[0] == 1);
    forget();
    send(0, VECTOR | ICR_OTHERS | ICR_ASSERT);
    check("all but self", await(got, smp_cpus - 1) && got[0] == 0);
    forget();
    send(0xff000000, VECTOR | ICR_ASSERT);
    check("broadcast destination", await(got, smp_cpus));
    forget();
    send(0xff000000, LOGICAL_VECTOR | ICR_LOGICAL | ICR_LOWEST | ICR_ASSERT);
    check("lowest priority: one of them", await(got, 1));
    forget();
    send(0, ICR_NMI | ICR_OTHERS | ICR_ASSERT);
    check("NMI to all but self", await(nmis, smp_cpus - 1) && nmis[0] == 0);
    done = true;
    send(0, VECTOR | ICR_OTHERS | ICR_ASSERT);
}

static void on_ping(struct trap_frame *f)
{
    unsigned cpu = smp_cpu();

    (void)f;
    got[cpu]++;
    *apic(APIC_EOI) = 0;
    if (cpu != 0 || got[0] < PINGS) {
        apic_send((cpu == 0 ? 1U : 0U) << 24, PING | ICR_ASSERT);
    }
}

static void ping_pong(unsigned cpu)
{
    if (cpu > 1) {
        return;
    }
    enable(cpu);
    if (cpu == 0) {
        apic_send(1U << 24, PING | ICR_ASSERT);
    }
    while (got[cpu] < PINGS) {
        __asm__ volatile("cli");
        if (got[cpu] < PINGS) {
            __asm__ volatile("sti; hlt");
        }
        __asm__ volatile("sti");
    }
    __asm__ volatile("cli");
}

static void targets_once_more(unsigned with)
{
    done = false;
    enabled = 0;
    model = with;
    smp_run(targets);
    __asm__ volatile("cli");
}

static volatile uint32_t running;

static void count_up(unsigned cpu)
{
    while (cpu == 1) {
        running++;
    }
}

int guest_main(void)
{
    irq_handler[VECTOR] = irq_handler[LOGICAL_VECTOR] = on_vector;
    irq_handler[PING] = on_ping;
    irq_handler[2] = on_nmi;
    irq_handler[SPURIOUS] = on_spurious;
    outb(0x21, 0xff); /* the PICs keep quiet */
    outb(0xa1, 0xff);
    if (!smp_start()) {
        return checks_done("smp_ipi");
    }
    smp_run(targets);
    __asm__ volatile("cli");
    forget();
    smp_run(ping_pong);
    __asm__ volatile("cli");
    check("interrupts to and fro between halted processors", got[0] >= PINGS && got[1] >= PINGS);
    smp_restart_begin(count_up);
    while (running == 0) {
        pause_cpu();
    }
    apic_send(1U << 24, ICR_INIT | ICR_ASSERT);
    spin(100000);
    uint32_t at = running;

    spin(100000);
    check_eq("INIT stops a processor that runs", running, at);
    check("a start-up interrupt starts it anew", smp_restart_end(1));
    targets_once_more(CLUSTER);
    targets_once_more(X2);
    return checks_done("smp_ipi");
}
