/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/strings.c - REP instructions: over page edges, into faults half-way (registers tell
 * how far they came), backwards, overlapping, and interrupted by single steps. */
#include "guest.h"

#define VA UINT64_C(0x8000000000)
#define PA UINT64_C(0x800000)

static void over_edges(void)
{
    uint8_t *a = (uint8_t *)VA, *b = (uint8_t *)(VA + 0x4000);
    uint64_t rdi, rsi, rcx, bad = 0;

    for (unsigned i = 0; i < 3; i++) { /* physical order reversed: neighbours are not neighbours */
        map_page(VA + i * 4096, PA + (8 - i) * 4096, PTE_P | PTE_W);
        map_page(VA + 0x4000 + i * 4096, PA + (16 - i) * 4096, PTE_P | PTE_W);
    }
    for (unsigned i = 0; i < 3 * 4096; i++) {
        a[i] = (uint8_t)(i * 7 + (i >> 8));
    }
    __asm__ volatile("rep movsb"
                     : "=D"(rdi), "=S"(rsi), "=c"(rcx)
                     : "D"(b + 5), "S"(a + 3), "c"(12000)
                     : "memory");
    for (unsigned i = 0; i < 12000; i++) {
        bad += b[5 + i] != a[3 + i];
    }
    check_eq("rep movsb over edges", bad, 0);
    check_eq("rdi after", rdi, (uint64_t)b + 12005);
    check_eq("rsi after", rsi, (uint64_t)a + 12003);
    check_eq("rcx after", rcx, 0);
    __asm__ volatile("rep stosq"
                     : "=D"(rdi), "=c"(rcx)
                     : "D"(b + 4090), "c"(600), "a"(UINT64_C(0x0102030405060708))
                     : "memory");
    bad = 0;
    for (unsigned i = 0; i < 4800; i++) {
        bad += b[4090 + i] != 8 - i % 8;
    }
    check_eq("rep stosq, unaligned over edges", bad, 0);
    __asm__ volatile("std; rep movsw; cld"
                     : "=D"(rdi), "=S"(rsi), "=c"(rcx)
                     : "D"(b + 9000), "S"(a + 9001), "c"(4000)
                     : "memory");
    bad = 0;
    for (unsigned i = 0; i < 8000; i++) {
        bad += b[1002 + i] != a[1003 + i];
    }
    check_eq("rep movsw backwards", bad, 0);
    check_eq("rdi after it", rdi, (uint64_t)b + 1000);
    for (unsigned i = 0; i < 64; i++) {
        b[4000 + i] = (uint8_t)i;
    }
    __asm__ volatile("rep movsb"
                     : "=D"(rdi), "=S"(rsi), "=c"(rcx)
                     : "D"(b + 4003), "S"(b + 4000), "c"(200)
                     : "memory");
    bad = 0;
    for (unsigned i = 0; i < 203; i++) {
        bad += b[4000 + i] != i % 3;
    }
    check_eq("overlapping rep movsb repeats", bad, 0);
}

static void compares(void)
{
    uint8_t *a = (uint8_t *)VA, *b = (uint8_t *)(VA + 0x4000);
    uint64_t rdi, rsi, rcx;
    bool zf;

    for (unsigned i = 0; i < 8192; i++) {
        b[i] = a[i];
    }
    b[5000] ^= 1;
    __asm__ volatile("repe cmpsb"
                     : "=D"(rdi), "=S"(rsi), "=c"(rcx), "=@ccz"(zf)
                     : "D"(b), "S"(a), "c"(8000)
                     : "memory");
    check_eq("repe cmpsb stops after the difference", rdi, (uint64_t)b + 5001);
    check("with ZF clear", !zf);
    check_eq("and what is left", rcx, 2999);
    for (unsigned i = 0; i < 8192; i++) {
        b[i] = 'x';
    }
    b[4097] = 0;
    __asm__ volatile("repne scasb"
                     : "=D"(rdi), "=c"(rcx), "=@ccz"(zf)
                     : "D"(b), "c"(-1L), "a"(0)
                     : "memory");
    check_eq("repne scasb finds the end", rdi, (uint64_t)b + 4098);
    check_eq("and counted", ~rcx, 4098);
    __asm__ volatile("xor %%eax, %%eax; repe cmpsb"
                     : "=D"(rdi), "=S"(rsi), "=c"(rcx), "=@ccz"(zf)
                     : "D"(UINT64_C(0x4000000000)), "S"(UINT64_C(0x4000000000)), "c"(0)
                     : "rax", "memory");
    check("no iteration, no fault, flags kept", zf);
}

static struct {
    uint64_t rcx, rdi;
} seen;
static unsigned steps;

static void on_fault(struct trap_frame *f)
{
    seen.rcx = f->rcx;
    seen.rdi = f->rdi;
    map_page(VA + 0x8000, PA + 0x20000, PTE_P | PTE_W); /* then the instruction goes on */
    steps++;
}

static void into_faults(void)
{
    uint64_t rdi, rcx;

    map_page(VA + 0x7000, PA + 0x1f000, PTE_P | PTE_W);
    *map_page(VA + 0x8000, 0, 0) = 0;
    irq_handler[14] = on_fault;
    __asm__ volatile("rep stosb"
                     : "=D"(rdi), "=c"(rcx)
                     : "D"(VA + 0x7f00), "c"(512), "a"(0x5a)
                     : "memory");
    irq_handler[14] = NULL;
    check_eq("one fault half-way", steps, 1);
    check_eq("rdi at the fault", seen.rdi, VA + 0x8000);
    check_eq("rcx at the fault", seen.rcx, 256);
    check_eq("it went on to the end", rcx, 0);
    check_eq("first byte", *(volatile uint8_t *)(PA + 0x1ff00), 0x5a);
    check_eq("last byte", *(volatile uint8_t *)(PA + 0x200ff), 0x5a);
    check_eq("not one more", *(volatile uint8_t *)(PA + 0x20100), 0);

    *map_page(VA + 0x8000, 0, 0) = 0;
    steps = 0;
    irq_handler[14] = on_fault;
    *(volatile uint32_t *)(PA + 0x1fffe) = 0;
    __asm__ volatile("rep stosl"
                     : "=D"(rdi), "=c"(rcx)
                     : "D"(VA + 0x7ff6), "c"(8), "a"(-1)
                     : "memory");
    irq_handler[14] = NULL;
    check_eq("an element over the edge faults before it is written", seen.rdi, VA + 0x7ffe);
    check_eq("with this much left", seen.rcx, 6);
}

int guest_main(void)
{
    over_edges();
    compares();
    into_faults();
    return checks_done("strings");
}
