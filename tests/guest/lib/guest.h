/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest.h - what a guest program of 64-bit mode stands on: traps, page tables. */
#ifndef TESTS_GUEST_LIB_GUEST_H
#define TESTS_GUEST_LIB_GUEST_H

#include "checks.h"

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

extern uint64_t trap_resume, trap_rsp; /* where an exception in ring 0 goes on; 0: nowhere */
extern void (*irq_handler[256])(struct trap_frame *);

extern uint64_t pml4[512], pdpt[512], pd[2048], gdt[11];
extern uint8_t user_stack[4096];
extern uint32_t boot_magic, boot_info;

/* Runs @fn in ring 3 until it traps; the code segment is SEL_USER_CODE or as given. A handler of
 * irq_handler comes back by returning to user_leave in ring 0. */
void user_enter(void (*fn)(void), uint64_t rflags);
void user_enter_at(void (*fn)(void), uint64_t rflags, unsigned sel);
void user_leave(void);

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
uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags);

#endif
