/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/smp.c - see smp.h. */
#include "smp.h"

enum { PM_TIMER = 0x608, PM_MS = 3580, START_MS = 2000 };
enum { ICR_INIT_ALL = 0xc4500, ICR_SIPI_ALL = 0xc4600, ICR_SIPI = 0x4600, ICR_PENDING = 0x1000 };

extern uint8_t smp_trampoline[], smp_trampoline_end[];
void smp_main(void);

unsigned smp_cpus;
static uint32_t arrived[SMP_MAX];
static void (*work)(unsigned);
static uint32_t round_no, finished;

static void wait_ms(unsigned ms)
{
    uint32_t t0 = inl(PM_TIMER);

    while (((inl(PM_TIMER) - t0) & 0xffffff) < ms * PM_MS) {
    }
}

unsigned smp_cpu(void)
{
    uint32_t r[4];

    cpuid(1, 0, r);
    return r[1] >> 24;
}

void apic_send(uint32_t high, uint32_t low)
{
    *apic(APIC_ICR_HIGH) = high;
    *apic(APIC_ICR) = low;
    while ((*apic(APIC_ICR) & ICR_PENDING) != 0) {
    }
}

void smp_main(void)
{
    unsigned cpu = smp_cpu();
    uint32_t seen = LOAD(&round_no);

    *apic(APIC_SVR) = 0x1ff;
    STORE(&arrived[cpu], 1);
    for (;;) {
        while (LOAD(&round_no) == seen) {
            pause_cpu();
        }
        seen++;
        work(cpu);
        __atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
    }
}

bool smp_start(void)
{
    uint32_t r[4];
    unsigned want;

    cpuid(0xb, 1, r); /* SDM Vol. 2A, "CPUID": logical processors at the core level */
    want = r[1] < SMP_MAX ? r[1] : SMP_MAX;
    __builtin_memcpy((void *)(uintptr_t)SMP_TRAMPOLINE, smp_trampoline,
                     (size_t)(smp_trampoline_end - smp_trampoline));
    *apic(APIC_SVR) = 0x1ff;
    arrived[0] = 1;
    apic_send(0, ICR_INIT_ALL);
    wait_ms(10);
    apic_send(0, ICR_SIPI_ALL | SMP_TRAMPOLINE >> 12);
    wait_ms(1);
    apic_send(0, ICR_SIPI_ALL | SMP_TRAMPOLINE >> 12);
    for (unsigned ms = 0; ms < START_MS && smp_cpus < want; ms++) {
        wait_ms(1);
        while (smp_cpus < SMP_MAX && LOAD(&arrived[smp_cpus]) != 0) {
            smp_cpus++;
        }
    }
    check("all processors have started", smp_cpus == want && want > 1);
    return smp_cpus == want && want > 1;
}

void smp_run(void (*fn)(unsigned cpu))
{
    work = fn;
    STORE(&finished, 0);
    __atomic_fetch_add(&round_no, 1, __ATOMIC_SEQ_CST);
    fn(0);
    while (LOAD(&finished) != smp_cpus - 1) {
        pause_cpu();
    }
}

void smp_restart_begin(void (*fn)(unsigned cpu))
{
    work = fn;
    STORE(&finished, 0);
    __atomic_fetch_add(&round_no, 1, __ATOMIC_SEQ_CST);
}

bool smp_restart_end(unsigned cpu)
{
    STORE(&arrived[cpu], 0);
    apic_send(cpu << 24, ICR_SIPI | SMP_TRAMPOLINE >> 12);
    for (unsigned ms = 0; ms < START_MS && LOAD(&arrived[cpu]) == 0; ms++) {
        wait_ms(1);
    }
    return LOAD(&arrived[cpu]) != 0;
}

void smp_barrier(unsigned cpu, unsigned n)
{
    static uint32_t count, generation;
    uint32_t mine = LOAD(&generation);

    (void)cpu;
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == n) {
        STORE(&count, 0);
        __atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
        return;
    }
    while (LOAD(&generation) == mine) {
        pause_cpu();
    }
}
