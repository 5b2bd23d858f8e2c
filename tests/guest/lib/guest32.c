/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest32.c - traps of guest programs of protected mode (guest32.h). */
#include "guest32.h"

uint32_t trap_resume, trap_esp, trap_frame_end;
struct trap_frame trap_seen;
uint64_t idt[256];
extern uint8_t trap_stubs[];
extern uint32_t user_saved_esp;
void user_leave(void);
_Noreturn void trap_leave(const struct trap_frame *f, uint32_t eip, uint32_t esp, uint32_t eflags);
void idt_init(void);
void trap(struct trap_frame *f);

void set_gate(unsigned vector, uint32_t offset, unsigned sel, unsigned attr)
{
    idt[vector] = (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)attr << 40 |
                  (uint64_t)(offset >> 16) << 48;
}

uint64_t segment(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}

void idt_init(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) pointer = {sizeof idt - 1, (uint32_t)idt};

    for (unsigned v = 0; v < 256; v++) {
        set_gate(v, (uint32_t)trap_stubs + 16 * v, SEL_CODE, v == 0x80 ? 0xee : 0x8e);
    }
    __asm__ volatile("lidt %0" ::"m"(pointer));
}

void trap(struct trap_frame *f)
{
    uint32_t cr2;

    READ_CR(2, cr2);
    for (unsigned i = 0; i < ((f->cs & 3) != 0 ? 17 : 15); i++) {
        ((uint32_t *)&trap_seen)[i] = ((uint32_t *)f)[i];
    }
    trap_frame_end = (uint32_t)&f->esp;
    trapped.vector = (int)f->vector;
    trapped.error = f->error;
    trapped.rip = f->eip;
    trapped.cr2 = cr2;
    trapped.rflags = f->eflags;
    trapped.cs = f->cs & 0xffff;
    if ((f->cs & 3) == 3) { /* leave ring 3 for good */
        trap_leave(f, (uint32_t)user_leave, user_saved_esp, 2);
    }
    if (trap_resume == 0) {
        unexpected_trap();
    }
    uint32_t eip = trap_resume;
    trap_resume = 0;
    trap_leave(f, eip, trap_esp, f->eflags & ~0x40100u); /* TF, AC */
}
