/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/exceptions.c - vectors, error codes, CR2, saved RIP and flags of exceptions in rings
 * 0 and 3 (SDM Vol. 3A, "Exception and Interrupt Reference"). */
#include "guest.h"

#define UNMAPPED UINT64_C(0x4000000000) /* no PML4 entry */

static void user_nothing(void)
{
    __asm__ volatile("int $0x80");
}
static void user_hlt(void)
{
    __asm__ volatile("hlt");
}
static void user_out(void)
{
    __asm__ volatile("outb %al, $0x80; int $0x80");
}
static void user_kernel_read(void)
{
    __asm__ volatile("mov 0x200000, %eax");
}
static void user_kernel_write(void)
{
    __asm__ volatile("mov %eax, 0x200000");
}
static void user_load_kernel_selector(void)
{
    __asm__ volatile("mov $0x10, %eax; mov %eax, %ds");
}
static void user_wrmsr(void)
{
    __asm__ volatile("wrmsr");
}
static void user_fetch_kernel(void)
{
    __asm__ volatile("mov $0x300000, %eax; jmp *%rax");
}

static void ring0(void)
{
    uint64_t cr0;

    TRY("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $1, %%eax; div %%ecx");
    check_trap("divide by zero", 0, 0);
    TRY("mov $1, %%ecx; mov $1, %%edx; xor %%eax, %%eax; div %%ecx");
    check_trap("divide overflow", 0, 0);
    TRY("mov $-1, %%ecx; mov $0x80000000, %%eax; cltd; idiv %%ecx");
    check_trap("signed divide overflow", 0, 0);
    TRY("ud2");
    check_trap("ud2", 6, 0);
    TRY(".byte 0xf0, 0x90"); /* LOCK NOP */
    check_trap("lock where not permitted", 6, 0);
    TRY(".byte 0x06"); /* PUSH ES */
    check_trap("push es in 64-bit mode", 6, 0);
    TRY("int3");
    check_trap("breakpoint", 3, 0);
    TRY("int $0x21");
    check_trap("int n", 0x21, 0);
    TRY("pushfq; orq $0x100, (%%rsp); popfq; nop; nop");
    check_trap("single step", 1, 0);

    TRY("mov (%0), %%ecx", "r"(UNMAPPED + 0x123));
    check_trap("read of nothing", 14, 0);
    check_eq("cr2 of it", trapped.cr2, UNMAPPED + 0x123);
    TRY("movl $1, (%0)", "r"(UNMAPPED + 0xffd));
    check_trap("write to nothing", 14, 2);
    check_eq("cr2 of a split write", trapped.cr2, UNMAPPED + 0xffd);
    TRY("jmp *%0", "r"(UNMAPPED));
    check_trap("fetch of nothing", 14, 0x10);
    check_eq("rip of it", trapped.rip, UNMAPPED);
    TRY("mov (%0), %%ecx", "r"(UINT64_C(0x800000000000)));
    check_trap("read of a non-canonical address", 13, 0);

    TRY("mov $0x1003, %%eax; mov %%eax, %%ds");
    check_trap("selector beyond the GDT", 13, 0x1000);
    TRY("mov $0x40, %%eax; mov %%eax, %%ds");
    check_trap("segment not present", 11, 0x40);
    TRY("mov $0x40, %%eax; mov %%eax, %%ss");
    check_trap("stack segment not present", 12, 0x40);
    TRY("mov $0x08, %%eax; mov %%eax, %%ss");
    check_trap("code as stack segment", 13, 0x08);
    TRY("mov $0x50, %%eax; mov %%eax, %%ds");
    check_trap("execute-only code as data", 13, 0x50);
    TRY("mov $0x14, %%eax; mov %%eax, %%ds");
    check_trap("selector into an empty LDT", 13, 0x14);
    TRY("pushq $0x10; lea 7777f(%%rip), %%rax; push %%rax; lretq");
    check_trap("far return to data", 13, 0x10);
    __asm__ volatile("mov %0, %%ss; mov %0, %%ds" ::"r"(SEL_DATA));

    READ_CR(0, cr0);

    WRITE_CR(0, cr0 | 8); /* TS */
    TRY("fninit");
    check_trap("x87 with TS", 7, 0);
    TRY("movaps %%xmm0, %%xmm1");
    check_trap("SSE with TS", 7, 0);
    WRITE_CR(0, (cr0 & ~UINT64_C(2)) | 4); /* EM */
    TRY("movaps %%xmm0, %%xmm1");
    check_trap("SSE with EM", 6, 0);
    WRITE_CR(0, cr0);
    TRY("movaps 1(%0), %%xmm0", "r"((uint64_t)pd));
    check_trap("unaligned movaps", 13, 0);
    TRY("fninit; pushq $0x37b; fldcw (%%rsp); pop %%rax; fld1; fldz; fdivrp; fwait");
    check_trap("x87 division by zero", 16, 0);
    __asm__ volatile("fninit");

    /* A fault while delivering: the gate of #GP points to a bad selector. */
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr, small;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    small = idtr;
    small.limit = 16 * 13 - 1; /* vectors up to 12: #GP cannot be delivered */
    small.base = idtr.base;
    __asm__ volatile("lidt %0" ::"m"(small));
    TRY("mov $0x1003, %%eax; mov %%eax, %%ds");
    __asm__ volatile("lidt %0" ::"m"(idtr));
    check_trap("a fault in delivering a fault", 8, 0);
}

static void ring3(void)
{
    for (uint64_t at = 0x100000; at < 0x140000; at += 4096) {
        map_page(at, at, PTE_P | PTE_W | PTE_U);
    }
    user_enter(user_nothing, 0x2);
    check_trap("int 0x80 from ring 3", 0x80, 0);
    check_eq("cs of ring 3", trapped.cs, SEL_USER_CODE);
    user_enter(user_hlt, 0x2);
    check_trap("hlt", 13, 0);
    check_eq("rip of it", trapped.rip, (uint64_t)user_hlt);
    user_enter(user_out, 0x2);
    check_trap("out without I/O permission", 13, 0);
    user_enter(user_out, 0x3002);
    check_trap("out with IOPL 3", 0x80, 0);
    user_enter(user_kernel_read, 0x2);
    check_trap("read of a supervisor page", 14, 5);
    check_eq("cr2", trapped.cr2, 0x200000);
    user_enter(user_kernel_write, 0x2);
    check_trap("write to a supervisor page", 14, 7);
    user_enter(user_fetch_kernel, 0x2);
    check_trap("fetch of a supervisor page", 14, 0x15);
    user_enter(user_load_kernel_selector, 0x2);
    check_trap("kernel data selector", 13, 0x10);
    user_enter(user_wrmsr, 0x2);
    check_trap("wrmsr", 13, 0);
}

int guest_main(void)
{
    ring0();
    ring3();
    return checks_done("exceptions");
}
