/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/guest.c - console, traps and checks of guest programs (guest.h). */
#include "guest.h"

struct trapped trapped;
uint64_t trap_resume, trap_rsp;
void (*irq_handler[256])(struct trap_frame *);
extern uint8_t trap_stubs[];
void user_leave(void);
void idt_init(void);
void trap(struct trap_frame *f);
void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);

static struct {
    uint16_t off0, sel;
    uint8_t ist, attr;
    uint16_t off1;
    uint32_t off2, zero;
} idt[256];

static unsigned checks, failures;

void *memset(void *p, int c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile uint8_t *)p)[i] = (uint8_t)c;
    }
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
    return to;
}

void put(const char *s)
{
    for (; *s != 0; s++) {
        while ((inb(COM1 + 5) & 0x20) == 0) {
        }
        outb(COM1, (uint8_t)*s);
    }
}

void put_hex(uint64_t v)
{
    char text[17] = {0};
    int at = 16;

    do {
        text[--at] = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v != 0);
    put("0x");
    put(text + at);
}

void guest_exit(int code)
{
    outb(EXIT_PORT, (uint8_t)code);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void check_eq(const char *name, uint64_t got, uint64_t want)
{
    checks++;
    if (got == want) {
        put("ok ");
        put(name);
    } else {
        failures++;
        put("FAIL ");
        put(name);
        put(": got ");
        put_hex(got);
        put(", want ");
        put_hex(want);
    }
    put("\n");
}

void check(const char *name, bool ok)
{
    check_eq(name, ok, 1);
}

void check_trap(const char *name, int vector, uint64_t error)
{
    /* One number, so that one line shows both. */
    check_eq(name, (uint64_t)(int64_t)trapped.vector << 32 | trapped.error,
             (uint64_t)(int64_t)vector << 32 | error);
}

int checks_done(const char *program)
{
    put(program);
    put(": ");
    put_hex(checks);
    put(" checks, ");
    put_hex(failures);
    put(" failed\n");
    return failures == 0 ? GUEST_PASS : GUEST_FAIL;
}

void idt_init(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof idt - 1, (uint64_t)idt};

    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = (uint64_t)trap_stubs + 16 * v;

        idt[v].off0 = (uint16_t)at;
        idt[v].off1 = (uint16_t)(at >> 16);
        idt[v].off2 = (uint32_t)(at >> 32);
        idt[v].sel = SEL_CODE;
        idt[v].ist = v == 8; /* #DF on a stack of its own */
        idt[v].attr = v == 0x80 ? 0xee : 0x8e;
    }
    __asm__ volatile("lidt %0" ::"m"(pointer));
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
        put("FAIL unexpected trap ");
        put_hex(f->vector);
        put(" error ");
        put_hex(f->error);
        put(" at ");
        put_hex(f->rip);
        put(" cr2 ");
        put_hex(cr2);
        put("\n");
        guest_exit(GUEST_FAIL);
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
