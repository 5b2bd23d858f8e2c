/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/strict32.c - of protected mode, what the SDM states and QEMU's TCG does otherwise:
 * it checks neither limits nor types of segments on access, and keeps no PDPTE registers. */
#include "guest32.h"

static void limits(void)
{
    TRY("xor %%eax, %%eax; mov %%eax, %%fs; mov %%fs:(%0), %%ecx", "r"(gdt));
    check_trap("read through a null selector", 13, 0);
    TRY("mov $0x48, %%eax; mov %%eax, %%fs; movl $1, %%fs:(%0)", "r"(gdt));
    check_trap("write through a read-only segment", 13, 0);
    TRY("movl $1, %%cs:(%0)", "r"(gdt));
    check_trap("write through CS", 13, 0);
    TRY("mov $0x38, %%eax; mov %%eax, %%fs; mov %%fs:0xfc, %%ecx");
    check_trap("the last word below a limit", -1, trapped.error);
    TRY("mov %%fs:0xfd, %%ecx");
    check_trap("one byte beyond a limit", 13, 0);
    TRY("mov %%fs:0xff, %%cl");
    check_trap("the last byte", -1, trapped.error);
    TRY("mov $0x40, %%eax; mov %%eax, %%fs; mov %%fs:0x1000, %%ecx");
    check_trap("expand-down, the first byte inside", -1, trapped.error);
    TRY("mov %%fs:0xfff, %%ecx");
    check_trap("expand-down, below", 13, 0);
    TRY("mov $0x80, %%eax; mov %%eax, %%fs; mov %%fs:0xfffc, %%ecx");
    check_trap("expand-down of 64 KiB, its end", -1, trapped.error);
    TRY("mov %%fs:0xfffd, %%ecx");
    check_trap("expand-down of 64 KiB, beyond", 13, 0);
}

enum { CR4_PAE_BIT = 0x20 };
static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t dirs[5][512] __attribute__((aligned(4096)));

/* SDM Vol. 3A, "PDPTE Registers". */
static void pointers(void)
{
    uint32_t cr0, cr4;

    READ_CR(0, cr0);
    READ_CR(4, cr4);
    for (uint64_t i = 0; i < 5; i++) {
        pdpt[i & 3] = (uint32_t)dirs[i & 3] | PTE_P;
        for (uint64_t k = 0; k < 512; k++) {
            dirs[i][k] = (i & 3) << 30 | k << 21 | PTE_P | PTE_W | PTE_PS;
        }
    }
    dirs[4][0] = 0x1000000 | PTE_P | PTE_W | PTE_PS;
    WRITE_CR(4, cr4 | CR4_PAE_BIT);
    WRITE_CR(3, pdpt);
    pdpt[3] |= PTE_W; /* reserved */
    TRY("mov %0, %%cr0", "r"(cr0 | 0x80000000));
    check_trap("paging with a reserved bit in a pointer", 13, 0);
    pdpt[3] &= ~(uint64_t)PTE_W;
    WRITE_CR(0, cr0 | 0x80000000);
    *(volatile uint32_t *)0x40000000 = 1; /* beyond RAM: nowhere */
    check_eq("no flag is set in a pointer", (uint32_t)pdpt[1] & (PTE_A | PTE_D), 0);
    *(volatile uint32_t *)0x1000000 = 0x1357;
    pdpt[1] = (uint32_t)dirs[4] | PTE_P;
    check("a changed pointer is not seen", *(volatile uint32_t *)0x40000000 != 0x1357);
    TRY("mov %0, %%cr3", "r"(pdpt));
    check_trap("until CR3 is loaded", -1, trapped.error);
    check_eq("then it is", *(volatile uint32_t *)0x40000000, 0x1357);
    pdpt[2] |= UINT64_C(1) << 63;
    TRY("mov %0, %%cr3", "r"(pdpt));
    check_trap("cr3 with a reserved bit in a pointer", 13, 0);
    WRITE_CR(0, cr0);
    WRITE_CR(4, cr4);
}

int guest_main(void)
{
    limits();
    pointers();
    return checks_done("strict32");
}
