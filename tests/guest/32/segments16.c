/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/segments16.c - 16-bit code and stack segments in protected mode: operand and
 * address sizes, wrap-around of IP and SP, gates and far transfers of both sizes. */
#include "guest32.h"

enum { BASE = 0x400000, STACK_BASE = 0x500000 }; /* of the 16-bit code and stack segments */

/* Far-called from 32-bit code: DS:SI and ES:DI are flat, results in registers. */
extern uint8_t code16[], code16_end[];
extern uint16_t at_sizes[], at_wrap[], at_strings[], at_far[], at_enter[], at_int[];
__asm__(".code16\n.balign 16\ncode16:\n"
        /* operand size: 16 by default, 32 with 66 */
        "at_sizes: xor %eax, %eax\n mov $0xffff, %ax\n add $1, %ax\n pushfl\n popl %ecx\n"
        "mov $0x12345678, %ebx\n pushw %bx\n popw %dx\n movzwl %dx, %edx\n lretl\n"
        /* addresses wrap at 64 KiB: BX + SI; and [EBX + ESI] with 67 does not */
        "at_wrap: mov $0xfff0, %bx\n mov $0x30, %si\n mov %fs:(%bx,%si), %ax\n"
        "movzwl %ax, %eax\n mov $0xfff0, %ebx\n mov $0x30, %esi\n mov %fs:(%ebx,%esi), %cx\n"
        "movzwl %cx, %ecx\n lretl\n"
        /* string instructions count in CX and move SI, DI only */
        "at_strings: mov $0x1234fffe, %edi\n mov $0xabcd0003, %ecx\n mov $0x5a, %al\n cld\n"
        "push %es\n push %fs\n pop %es\n rep stosb\n pop %es\n lretl\n"
        /* a 16-bit far call inside, and near calls */
        "at_far: mov %sp, %bx\n lcallw $0x58, $(1f - code16)\n call 2f\n sub %sp, %bx\n"
        "movzwl %bx, %ebx\n lretl\n1: inc %cx\n lretw\n2: inc %cx\n ret $0\n"
        /* ENTER, LEAVE and PUSHA with words */
        "at_enter: mov %sp, %bx\n enter $8, $2\n mov %bp, %cx\n sub %sp, %bx\n leave\n"
        "mov %sp, %dx\n pushaw\n mov %sp, %ax\n add $16, %sp\n sub %ax, %dx\n"
        "movzwl %bx, %ebx\n lretl\n"
        "at_int: int $0x30\n lretl\n"
        "code16_end:\n.code32");

struct result {
    uint32_t eax, ecx, edx, ebx, esi, edi;
};

static struct result call16(const void *at)
{
    struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) target = {(uint32_t)((const uint8_t *)at - code16), SEL_CODE16};
    struct result r = {0};

    __asm__ volatile("lcall *%6"
                     : "=a"(r.eax), "=c"(r.ecx), "=d"(r.edx), "=b"(r.ebx), "=S"(r.esi), "=D"(r.edi)
                     : "m"(target), "a"(0), "c"(0), "d"(0), "b"(0)
                     : "memory", "cc");
    return r;
}

/* The same, on the 16-bit stack with SP = @sp. */
static struct result call16_on(const void *at, uint16_t sp)
{
    static struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) target;
    static uint32_t saved;
    struct result r = {0};

    target.off = (uint32_t)((const uint8_t *)at - code16);
    target.sel = SEL_CODE16;
    __asm__ volatile("mov %%esp, %7; mov $0x60, %%ecx; mov %%ecx, %%ss; movzwl %%ax, %%esp;"
                     "xor %%ecx, %%ecx; lcall *%6;"
                     "push %%ecx; mov %%esp, %%esi; mov $0x10, %%ecx; mov %%ecx, %%ss;"
                     "mov %7, %%esp; movzwl %%si, %%esi; mov 0x500000(%%esi), %%ecx"
                     : "=a"(r.eax), "=&c"(r.ecx), "=d"(r.edx), "=b"(r.ebx), "=&S"(r.esi),
                       "=D"(r.edi)
                     : "m"(target), "m"(saved), "a"(sp), "d"(0), "b"(0)
                     : "memory", "cc");
    r.esi = (r.esi + 4) & 0xffff; /* SP before the push */
    return r;
}

static void sizes(void)
{
    struct result r = call16(at_sizes);

    check_eq("16-bit add wraps AX", r.eax, 0);
    check_eq("and carries", r.ecx & 1, 1);
    check_eq("a word through the stack", r.edx, 0x5678);
    *(volatile uint16_t *)(BASE + 0x20) = 0x1111;
    *(volatile uint16_t *)(BASE + 0x10020) = 0x2222;
    r = call16(at_wrap);
    check_eq("BX + SI wraps", r.eax, 0x1111);
    check_eq("EBX + ESI does not", r.ecx, 0x2222);
    *(volatile uint32_t *)(BASE + 0xfffc) = 0;
    *(volatile uint32_t *)(BASE + 0) = 0;
    uint8_t *byte = (uint8_t *)BASE, first = byte[0];
    r = call16(at_strings);
    check_eq("rep stosb wraps DI", r.edi, 0x12340001);
    check_eq("and counts CX", r.ecx, 0xabcd0000);
    check_eq("bytes at the end", *(volatile uint16_t *)(BASE + 0xfffe), 0x5a5a);
    check_eq("and at the beginning", *(volatile uint8_t *)BASE, 0x5a);
    byte[0] = first;
    r = call16(at_far);
    check_eq("far and near calls of 16 bits", r.ecx, 2);
    check_eq("leave the stack as it was", r.ebx, 0);
}

static void stacks(void)
{
    struct result r = call16_on(at_enter, 0x1000);

    check_eq("enter 8, 2 takes", r.ebx, 2 + 4 + 8);
    check_eq("pusha of words", r.edx & 0xffff, 16);
    check_eq("SP afterwards", r.esi, 0x1000);
    r = call16_on(at_far, 4);
    check_eq("SP wraps at 64 KiB", r.ecx, 2);
    check_eq("and comes back", r.esi, 4);
}

/* Reached through gates of 16 bits, in a 32-bit segment: what they pushed are words. */
extern uint8_t handler16[], gate16[], low_stub[], low_stub_end[];
__asm__("handler16: mov (%esp), %ecx\n iretw\n"
        "gate16: mov (%esp), %eax\n lretw\n"
        "low_stub: lcall $0x78, $0\n ret\n low_stub_end:");

static uint64_t gate(const uint8_t *to, unsigned type)
{
    uint32_t base = (uint32_t)handler16 & ~0xffffu;

    return ((uint32_t)to - base) | (uint64_t)SEL_FREE << 16 | (uint64_t)type << 40;
}

static void gates(void)
{
    uint32_t seen;
    static uint32_t before, after;

    gdt[SEL_FREE / 8] = segment((uint32_t)handler16 & ~0xffffu, 0x1ffff, 0x9b, 4);
    idt[0x30] = gate(handler16, 0x86);
    check_eq("a 16-bit interrupt gate", call16(at_int).ecx,
             (uint32_t)((uint8_t *)at_int - code16 + 2) | (uint32_t)SEL_CODE16 << 16);
    idt[0x30] = gate(handler16, 0x87);
    check_eq("a 16-bit trap gate", call16(at_int).ecx,
             (uint32_t)((uint8_t *)at_int - code16 + 2) | (uint32_t)SEL_CODE16 << 16);

    /* Called from the first 64 KiB, where a word can return to. */
    for (unsigned i = 0; i < (unsigned)(low_stub_end - low_stub); i++) {
        ((volatile uint8_t *)0x8000)[i] = low_stub[i];
    }
    gdt[SEL_GATE / 8] = gate(gate16, 0x84);
    __asm__ volatile("mov %%esp, %1; mov $0x8000, %%eax; call *%%eax; mov %%esp, %2"
                     : "=&a"(seen), "=m"(before), "=m"(after)::"ecx", "edx", "memory");
    check_eq("a 16-bit call gate", seen, 0x8007 | (uint32_t)SEL_CODE << 16);
    check_eq("and its return", after, before);
}

int guest_main(void)
{
    gdt[SEL_CODE16 / 8] = segment((uint32_t)code16, 0xffff, 0x9b, 0);
    gdt[SEL_DATA16 / 8] = segment(STACK_BASE, 0xffff, 0x93, 0);
    gdt[SEL_SMALL / 8] = segment(BASE, 0xfffff, 0x93, 4);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SMALL));
    sizes();
    stacks();
    gates();
    return checks_done("segments16");
}
