/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest32.h - what a guest program of protected mode stands on: segments, traps.
 * Paging is off until a program turns it on. */
#ifndef TESTS_GUEST_LIB_GUEST32_H
#define TESTS_GUEST_LIB_GUEST32_H

#include "checks.h"

/* Of the GDT in start32.S, RPL 0. */
enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_USER_CODE = 0x1b,
    SEL_USER_DATA = 0x23,
    SEL_NOT_PRESENT = 0x28,
    SEL_TSS = 0x30,
    SEL_SMALL = 0x38,
    SEL_DOWN = 0x40,
    SEL_READONLY = 0x48,
    SEL_EXECONLY = 0x50,
    SEL_CODE16 = 0x58,
    SEL_DATA16 = 0x60,
    SEL_CONFORMING = 0x68,
    SEL_LDT = 0x70,
    SEL_GATE = 0x78,
    SEL_DOWN16 = 0x80,
    SEL_FREE = 0x88
};

struct trap_frame {
    uint32_t es, ds, edi, esi, ebp, esp0, ebx, edx, ecx, eax;
    uint32_t vector, error, eip, cs, eflags;
    uint32_t esp, ss; /* there only when the privilege level changed */
};

extern uint32_t trap_resume, trap_esp; /* where an exception in ring 0 goes on; 0: nowhere */
extern struct trap_frame trap_seen;    /* the last one, as pushed */
extern uint32_t trap_frame_end;        /* the address above its EFLAGS */
extern uint64_t gdt[18], idt[256];
extern uint8_t tss[104], user_stack[4096], user_stack_top[];

void user_enter(void (*fn)(void), uint32_t eflags);
/* Interrupt or trap gate of @vector: @attr is its byte of type, DPL and P. */
void set_gate(unsigned vector, uint32_t offset, unsigned sel, unsigned attr);
/* A descriptor: @access its byte of type, S, DPL and P; @flags G, D/B, L, AVL. */
uint64_t segment(uint32_t base, uint32_t limit, unsigned access, unsigned flags);

/* Runs the instructions of @text (clobbers eax, ecx, edx, memory); a fault goes on after them. */
#define TRY(text, ...)                                                          \
    do {                                                                        \
        trapped.vector = -1;                                                    \
        __asm__ volatile("movl $7777f, trap_resume; mov %%esp, trap_esp; " text \
                         "; 7777: movl $0, trap_resume" ::__VA_ARGS__           \
                         : "eax", "ecx", "edx", "memory", "cc");                \
    } while (0)

#endif
