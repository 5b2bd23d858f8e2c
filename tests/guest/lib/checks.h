/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/checks.h - what guest programs of every mode share: ports, console, checks.
 *
 * A program defines guest_main(), prints one line a check on COM1 and ends through port 0xf4 with
 * GUEST_PASS or GUEST_FAIL. Its lines must be the same on every machine: no measured numbers. */
#ifndef TESTS_GUEST_LIB_CHECKS_H
#define TESTS_GUEST_LIB_CHECKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUEST_PASS = 16, GUEST_FAIL = 17 }; /* exit codes 33 and 35 */
enum { COM1 = 0x3f8, EXIT_PORT = 0xf4 };

/* The last trap; vector is -1 after TRY until one came. */
extern struct trapped {
    int vector;
    uint64_t error, rip, cr2, rflags, cs;
} trapped;

int guest_main(void);
_Noreturn void guest_exit(int code);

void put(const char *s);
void put_hex(uint64_t v);

/* Counts and prints "ok NAME" or "FAIL NAME: got ..., want ...". */
void check_eq(const char *name, uint64_t got, uint64_t want);
void check(const char *name, bool ok);
/* The last trap was @vector with @error. */
void check_trap(const char *name, int vector, uint64_t error);
/* The closing line, and the code for guest_main to return. */
int checks_done(const char *program);
/* An exception nobody waited for: says so and ends the program. */
_Noreturn void unexpected_trap(void);

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (UINT64_C(1) << 63)

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}

static inline void invlpg(uintptr_t va)
{
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

#define READ_CR(n, v)  __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v))
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((uintptr_t)(v)) : "memory")

#endif
