/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest.h - what a guest program stands on: ports, console, traps, checks.
 *
 * A program defines guest_main(), prints one line a check on COM1 and ends through port 0xf4 with
 * GUEST_PASS or GUEST_FAIL. Its lines must be the same on every machine: no measured numbers. */
#ifndef TESTS_GUEST_LIB_GUEST_H
#define TESTS_GUEST_LIB_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUEST_PASS = 16, GUEST_FAIL = 17 }; /* exit codes 33 and 35 */
enum { COM1 = 0x3f8, EXIT_PORT = 0xf4 };
enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_USER_DATA = 0x23,
    SEL_USER_CODE = 0x2b,
    SEL_NOT_PRESENT = 0x40,
    SEL_CODE32 = 0x48
};

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* The last trap; vector is -1 after try_begin until one came. */
extern struct trapped {
    int vector;
    uint64_t error, rip, cr2, rflags, cs;
} trapped;
extern uint64_t trap_resume, trap_rsp; /* where an exception in ring 0 goes on; 0: nowhere */
extern void (*irq_handler[256])(struct trap_frame *);

extern uint64_t pml4[512], pdpt[512], pd[2048], gdt[11];
extern uint8_t user_stack[4096];
extern uint32_t boot_magic, boot_info;

int guest_main(void);
_Noreturn void guest_exit(int code);
void user_enter(void (*fn)(void), uint64_t rflags);

void put(const char *s);
void put_hex(uint64_t v);

/* Counts and prints "ok NAME" or "FAIL NAME: got ..., want ...". */
void check_eq(const char *name, uint64_t got, uint64_t want);
void check(const char *name, bool ok);
/* The last trap was @vector with @error. */
void check_trap(const char *name, int vector, uint64_t error);
/* The closing line, and the code for guest_main to return. */
int checks_done(const char *program);

/* Runs the instructions of @text (clobbers rax, memory); a fault goes on after them. */
#define TRY(text, ...)                                                                             \
    do {                                                                                           \
        trapped.vector = -1;                                                                       \
        __asm__ volatile("lea 7777f(%%rip), %%rax; mov %%rax, trap_resume;"                        \
                         "mov %%rsp, trap_rsp; " text "; 7777: movq $0, trap_resume" ::__VA_ARGS__ \
                         : "rax", "rcx", "rdx", "memory", "cc");                                   \
    } while (0)

/* Map one 4 KiB page at @va with these low bits and NX (bit 63); splits what it must. The page
 * tables come from a small pool. Returns the entry. */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (UINT64_C(1) << 63)
uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags);

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

static inline void invlpg(uint64_t va)
{
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

#define READ_CR(n, v)  __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v))
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((uint64_t)(v)) : "memory")

#endif
