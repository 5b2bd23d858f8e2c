/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/compat.c - compatibility mode of 16 and 32 bits under a 64-bit kernel: sizes and
 * addresses, limits of the modes, exceptions and system calls from ring 3 (SDM Vol. 3A,
 * "Compatibility Mode", "Exception and Interrupt Handling in 64-bit Mode"). */
#include "guest.h"

enum { SEL_USER_CODE32 = 0x1b, SEL_CODE16 = 0x38 };

/* Far-called from 64-bit code in ring 0 through SEL_CODE32 (0x48); results in eax, ecx, edx. */
extern uint8_t at_modes[], at_addresses[], at_high[];
__asm__(".code32\n"
        /* 40 is INC EAX here, no REX; PUSHA exists; PUSH is of four bytes */
        "at_modes: .byte 0x40, 0x40\n mov %esp, %ecx\n pusha\n sub %esp, %ecx\n add $32, %esp\n"
        "push $1\n pop %edx\n lret\n"
        /* addresses and results are of 32 bits */
        "at_addresses: mov $0xffffff00, %ebx\n mov 0x800100(%ebx), %eax\n mov $0x800000, %ebx\n"
        "mov (%ebx), %ecx\n lret\n"
        "at_high: mov $0xffffffff, %ebx\n lea 3(%ebx), %eax\n lret\n"
        ".code64");

struct result {
    uint64_t rax, rcx, rdx;
};

static struct result call_compat(const void *at, unsigned sel)
{
    struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) target = {(uint32_t)(uint64_t)at, (uint16_t)sel};
    struct result r = {0, 0, 0};

    __asm__ volatile("lcall *%3"
                     : "+a"(r.rax), "+c"(r.rcx), "+d"(r.rdx)
                     : "m"(target)
                     : "rbx", "memory", "cc");
    return r;
}

static void kernel_mode(void)
{
    *(volatile uint32_t *)0x800000 = 0x13572468;
    struct result r = call_compat(at_modes, SEL_CODE32);
    check_eq("40 is inc", r.rax, 2);
    check_eq("pusha takes 32 bytes", r.rcx, 32);
    check_eq("push of a constant", r.rdx, 1);
    r = call_compat(at_addresses, SEL_CODE32);
    check_eq("an address wraps at 4 GiB", r.rax, 0x13572468);
    check_eq("and is read as it is", r.rcx, 0x13572468);
    r = call_compat(at_high, SEL_CODE32);
    check_eq("lea is cut to 32 bits", r.rax, 2);

    /* The return is of 32 bits, with 66. */
    static const uint8_t code[] = {0xb8, 0xff, 0xff, 0x40, 0x66, 0xcb}; /* mov ax; inc ax; lretl */
    for (unsigned i = 0; i < sizeof code; i++) {
        ((volatile uint8_t *)0x900000)[i] = code[i];
    }
    gdt[7] = UINT64_C(0x00009b000000ffff) | UINT64_C(0x900000) << 16;
    r = call_compat((void *)0, SEL_CODE16);
    check_eq("16-bit code counts in AX", r.rax & 0xffff, 0);
}

/* In ring 3 and 32 bits; what stands here must assemble alike in both. */
#define USER32(name, text)                            \
    __asm__(".code32\n" #name ": " text "\n.code64"); \
    void name(void)
USER32(u_int, "mov $0x1234, %eax; int $0x80");
USER32(u_wide, "mov %esp, %eax; push %eax; sub %esp, %eax; int $0x80");
USER32(u_ud, "ud2");
USER32(u_read, "mov $0x23, %eax; mov %eax, %ds; mov 0x200000, %eax");
USER32(u_wrap, "mov $0x23, %eax; mov %eax, %ds; mov $0xfffffff0, %ebx; mov 0x200010(%ebx), %eax");
USER32(u_into, "mov $0x7f, %al; inc %al; into");
USER32(u_bound, "push $5; push $3; mov $9, %eax; bound %eax, (%esp)");
USER32(u_kernel_segment, "mov $0x10, %eax; mov %eax, %ds");
USER32(u_ds, "mov $0x23, %eax; mov %eax, %ds; mov %ds, %eax; int $0x80");
USER32(u_far, "ljmp $0x2b, $u_far64; u_far64: .code64; mov $-1, %rax; shr $4, %rax; int $0x80");
USER32(u_jump, "mov $u_jump2, %eax; jmp *%eax; ud2; u_jump2: int $0x80");
USER32(u_swapgs, ".byte 0x0f, 0x01, 0xf8");
USER32(u_limit, "ljmp $0x3b, $0x10");

static struct trap_frame seen;

static void on_user(struct trap_frame *f)
{
    seen = *f;
    trapped.vector = (int)f->vector;
    trapped.error = f->error;
    trapped.cs = f->cs;
    READ_CR(2, trapped.cr2);
    f->cs = SEL_CODE;
    f->ss = SEL_DATA;
    f->rip = (uint64_t)(void *)&user_leave;
    f->rflags = 2;
}

static void run32(void (*fn)(void))
{
    trapped.vector = -1;
    user_enter_at(fn, 0x2, SEL_USER_CODE32);
}

static void user_mode(void)
{
    for (uint64_t at = 0x100000; at < 0x140000; at += 4096) {
        map_page(at, at, PTE_P | PTE_W | PTE_U);
    }
    for (unsigned v = 0; v < 32; v++) {
        irq_handler[v] = on_user;
    }
    irq_handler[0x80] = on_user;

    run32(u_int);
    check_trap("int 0x80", 0x80, 0);
    check_eq("its cs", seen.cs, SEL_USER_CODE32);
    check_eq("its ss", seen.ss, SEL_USER_DATA);
    check_eq("eax", seen.rax, 0x1234);
    check_eq("rip is of 32 bits", seen.rip >> 32, 0);
    run32(u_wide);
    check_eq("push moves esp by four", seen.rax, 4);
    run32(u_ud);
    check_trap("ud2", 6, 0);
    check_eq("at it", seen.rip, (uint64_t)u_ud);
    run32(u_read);
    check_trap("read of a supervisor page", 14, 5);
    check_eq("cr2", trapped.cr2, 0x200000);
    run32(u_wrap);
    check_trap("read through an address that wraps", 14, 5);
    check_eq("cr2 of 32 bits", trapped.cr2, 0x200000);
    run32(u_into);
    check_eq("into, through a gate of ring 0", (uint64_t)trapped.vector, 13);
    run32(u_bound);
    check_trap("bound", 5, 0);
    run32(u_kernel_segment);
    check_trap("kernel data selector", 13, 0x10);
    run32(u_ds);
    check_eq("mov ds", seen.rax, 0x23);
    run32(u_far);
    check_trap("to 64-bit code", 0x80, 0);
    check_eq("cs there", seen.cs, SEL_USER_CODE);
    check_eq("with 64-bit registers", seen.rax, UINT64_MAX >> 4);
    run32(u_jump);
    check_trap("near jump", 0x80, 0);
    run32(u_swapgs);
    check_trap("swapgs", 6, 0);
    gdt[7] = UINT64_C(0x0040fb000000000f) | UINT64_C(0x100000) << 16; /* 16 bytes of code */
    run32(u_limit);
    check_trap("far jump beyond a limit", 13, 0);
    check_eq("leaves cs", seen.cs, SEL_USER_CODE32);
}

int guest_main(void)
{
    kernel_mode();
    user_mode();
    return checks_done("compat");
}
