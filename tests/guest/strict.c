/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/strict.c - what the SDM states and QEMU's TCG does otherwise; so these checks have no
 * second opinion and stand apart from the programs that are compared. */
#include "guest.h"

#define VA UINT64_C(0x8000000000)
#define PA UINT64_C(0x800000)

static unsigned steps;

static void on_step(struct trap_frame *f)
{
    (void)f;
    steps++;
}

static void user_int_kernel_gate(void)
{
    __asm__ volatile("int $0x21");
}
static void user_align(void)
{
    __asm__ volatile("mov %rsp, %rax; mov -15(%rax), %ecx");
}

int guest_main(void)
{
    uint64_t *pte = map_page(VA, PA, PTE_P | PTE_W), rdi, rcx, cr0;

    TRY("mov (%%rsp,%0), %%ecx", "r"(UINT64_C(0x800000000000)));
    check_trap("non-canonical address through the stack segment", 12, 0);
    TRY("mov $0x3, %%eax; mov %%eax, %%ss");
    check_trap("null stack segment with RPL 3", 13, 0);
    __asm__ volatile("mov %0, %%ss" ::"r"(SEL_DATA));
    TRY("mov %0, %%cr3", "r"((uint64_t)pml4 | UINT64_C(1) << 60));
    check_trap("reserved bits of CR3", 13, 0);

    READ_CR(0, cr0);
    TRY("mov %0, %%cr0", "r"(cr0 & ~UINT64_C(1)));
    check_trap("PG without PE", 13, 0);
    TRY("mov %0, %%cr0", "r"(cr0 | UINT64_C(1) << 32));
    check_trap("upper half of CR0", 13, 0);
    TRY("mov %0, %%cr4", "r"(UINT64_C(0x600)));
    check_trap("PAE off in long mode", 13, 0);
    TRY("mov $0xc0000080, %%ecx; xor %%edx, %%edx; mov $2, %%eax; wrmsr");
    check_trap("reserved bits of EFER", 13, 0);
    TRY("mov $0x12345678, %%ecx; rdmsr");
    check_trap("unknown MSR", 13, 0);
    TRY("mov $0xc0000082, %%ecx; mov $0x00008000, %%edx; xor %%eax, %%eax; wrmsr");
    check_trap("non-canonical LSTAR", 13, 0);
    static const uint32_t mxcsr_bad = 0x10000, mxcsr_zero_divide = 0x1d80, mxcsr = 0x1f80;
    TRY("ldmxcsr (%0)", "r"(&mxcsr_bad));
    check_trap("reserved bits of MXCSR", 13, 0);
    TRY("ldmxcsr (%0); mov $1, %%eax; cvtsi2sd %%eax, %%xmm0; xorpd %%xmm1, %%xmm1;"
        "divsd %%xmm1, %%xmm0",
        "r"(&mxcsr_zero_divide));
    check_trap("SIMD division by zero", 19, 0);
    __asm__ volatile("ldmxcsr (%0)" ::"r"(&mxcsr));

    *pte |= UINT64_C(1) << 51;
    invlpg(VA);
    TRY("mov (%0), %%ecx", "r"(VA));
    check_trap("reserved bit of a PTE", 14, 9);
    *pte = PA | PTE_P | PTE_W;
    pdpt[5] = PTE_P | PTE_W | PTE_PS | UINT64_C(1) << 13;
    TRY("mov (%0), %%ecx", "r"(UINT64_C(0x140000000)));
    check_trap("reserved bit of a 1 GiB entry", 14, 9);

    irq_handler[1] = on_step;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; rep stosb; pushfq;"
                     "andq $~0x100, (%%rsp); popfq"
                     : "=D"(rdi), "=c"(rcx)
                     : "D"(VA), "c"(5), "a"(1)
                     : "memory", "cc");
    irq_handler[1] = NULL;
    check_eq("single steps stop after every iteration", steps, 8);

    for (uint64_t at = 0x100000; at < 0x140000; at += 4096) {
        map_page(at, at, PTE_P | PTE_W | PTE_U);
    }
    user_enter(user_int_kernel_gate, 0x2);
    check_trap("int through a kernel gate", 13, 0x21 * 8 + 2);
    READ_CR(0, cr0);
    WRITE_CR(0, cr0 | 0x40000);
    user_enter(user_align, 0x40002);
    check_trap("alignment check", 17, 0);
    WRITE_CR(0, cr0);
    return checks_done("strict");
}
