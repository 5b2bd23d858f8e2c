/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/smp.h - several processors in a guest program: starting them, giving them work,
 * meeting again. Processors are numbered by APIC id, from 0 without gaps. */
#ifndef TESTS_GUEST_LIB_SMP_H
#define TESTS_GUEST_LIB_SMP_H

#include "guest.h"

enum { SMP_MAX = 16, SMP_TRAMPOLINE = 0x8000 };
enum { APIC_ID = 0x20, APIC_EOI = 0xb0, APIC_SVR = 0xf0, APIC_ICR = 0x300, APIC_ICR_HIGH = 0x310 };

extern unsigned smp_cpus; /* how many run */

/* Wakes all other processors; each then waits for work. Called once, by processor 0. False, and a
 * failed check: there are none, or some did not come. */
bool smp_start(void);
/* Every processor runs @fn(its number); returns when all have. By processor 0. */
void smp_run(void (*fn)(unsigned cpu));
/* Inside of smp_run: nobody passes before the first @n processors have arrived. */
void smp_barrier(unsigned cpu, unsigned n);

/* As smp_run for all other processors, without waiting: one of them is to be lost by INIT. Then
 * end starts @cpu again, which waits for work like the rest. True: it came. */
void smp_restart_begin(void (*fn)(unsigned cpu));
bool smp_restart_end(unsigned cpu);

unsigned smp_cpu(void); /* the caller's number */

/* The local APIC; @high: the destination for SMP_ICR_HIGH, id << 24. */
static inline volatile uint32_t *apic(unsigned reg)
{
    return (volatile uint32_t *)(UINT64_C(0xfee00000) + reg);
}
void apic_send(uint32_t high, uint32_t low); /* waits until it is sent */

static inline void pause_cpu(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* @n rounds of nothing, without touching memory. */
static inline void spin(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        __asm__ volatile("" ::"r"(i));
    }
}

#define LOAD(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

#endif
