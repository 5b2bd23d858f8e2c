/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest.c - traps and page tables of 64-bit guest programs (guest.h). */
#include "guest.h"

uint64_t trap_resume, trap_rsp;
void (*irq_handler[256])(struct trap_frame *);
extern uint8_t trap_stubs[];
void idt_init(void);
void trap(struct trap_frame *f);

static struct {
    uint16_t off0, sel;
    uint8_t ist, attr;
    uint16_t off1;
    uint32_t off2, zero;
} idt[256];

extern struct idt_pointer { /* what every processor loads */
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) idt_pointer;
struct idt_pointer idt_pointer;

void idt_init(void)
{
    idt_pointer = (struct idt_pointer){sizeof idt - 1, (uint64_t)idt};
    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = (uint64_t)trap_stubs + 16 * v;

        idt[v].off0 = (uint16_t)at;
        idt[v].off1 = (uint16_t)(at >> 16);
        idt[v].off2 = (uint32_t)(at >> 32);
        idt[v].sel = SEL_CODE;
        idt[v].ist = v == 8; /* #DF on a stack of its own */
        idt[v].attr = v == 0x80 ? 0xee : 0x8e;
    }
    __asm__ volatile("lidt %0" ::"m"(idt_pointer));
}

void trap(struct trap_frame *f)
{
    uint64_t cr2;

    if (irq_handler[f->vector] != NULL) {
        irq_handler[f->vector](f);
        return;
    }
    READ_CR(2, cr2);
    trapped.vector = (int)f->vector;
    trapped.error = f->error;
    trapped.rip = f->rip;
    trapped.cr2 = cr2;
    trapped.rflags = f->rflags;
    trapped.cs = f->cs;
    if ((f->cs & 3) == 3) { /* leave ring 3 for good */
        f->cs = SEL_CODE;
        f->ss = SEL_DATA;
        f->rip = (uint64_t)user_leave;
        f->rflags = 2;
        return;
    }
    if (trap_resume == 0) {
        unexpected_trap();
    }
    f->rip = trap_resume;
    f->rsp = trap_rsp;
    f->rflags &= ~(uint64_t)0x40100; /* TF, AC */
    trap_resume = 0;
}

uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags)
{
    static uint64_t pool[16][512] __attribute__((aligned(4096)));
    static unsigned used;
    uint64_t *table = pml4, *entry = NULL;

    for (int shift = 39; shift >= 12; shift -= 9) {
        entry = &table[va >> shift & 511];
        if (shift == 12) {
            break;
        }
        if ((*entry & PTE_P) == 0 || (*entry & PTE_PS) != 0) {
            uint64_t *next = pool[used++ % 16];

            for (unsigned i = 0; i < 512; i++) { /* a 2 MiB page becomes 512 small ones */
                next[i] =
                    (*entry & PTE_PS) != 0 ? ((*entry & ~UINT64_C(0x1fffff)) + i * 4096) | 3 : 0;
            }
            *entry = (uint64_t)next | PTE_P | PTE_W | PTE_U;
        }
        table = (uint64_t *)(*entry & UINT64_C(0xffffffffff000));
    }
    *entry = pa | flags;
    invlpg(va);
    return entry;
}
