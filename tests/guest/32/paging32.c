/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/paging32.c - 32-bit paging with PSE, then PAE paging: flags, error codes, large
 * pages, reserved bits (SDM Vol. 3A, "32-Bit Paging" and "PAE Paging"). */
#include "guest32.h"

enum { CR0_PG_WP = (int)0x80010000, CR0_WP_BIT = 0x10000, CR4_PSE_BIT = 0x10, CR4_PAE_BIT = 0x20 };
enum { VA = 0x40000000, PA = 0x800000, ENTRIES32 = 1024, ENTRIES_PAE = 512 };

static uint32_t dir[1024] __attribute__((aligned(4096)));
static uint32_t low[1024] __attribute__((aligned(4096))); /* the first 4 MiB, in small pages */
static uint32_t table[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pae_dirs[4][512] __attribute__((aligned(4096)));
static uint64_t ptab[512] __attribute__((aligned(4096)));

static uint32_t flags_of(const void *entry)
{
    return *(const volatile uint32_t *)entry & (PTE_A | PTE_D);
}

static void user_read(void)
{
    __asm__ volatile("mov 0x40002000, %eax; int $0x80");
}
static void user_write(void)
{
    __asm__ volatile("mov %eax, 0x40002000; int $0x80");
}

/* What both formats share; @entry is the one of VA, @next of the page after, @two of the third. */
static void common(void *entry, unsigned size, const char *format)
{
    uint32_t *pte = entry, *next = (uint32_t *)((char *)entry + size),
             *third = (uint32_t *)((char *)entry + 2 * size);
    volatile uint32_t *page = (volatile uint32_t *)VA;
    uint32_t cr0;

    put(format);
    put(":\n");
    check_eq("no flags before an access", flags_of(pte), 0);
    (void)*page;
    check_eq("a read sets A", flags_of(pte), PTE_A);
    *page = 0x11223344;
    check_eq("a write sets D", flags_of(pte), PTE_A | PTE_D);
    check_eq("it is where the entry says", *(volatile uint32_t *)PA, 0x11223344);
    *pte = PA | PTE_P;
    invlpg(VA);
    TRY("movl $1, (%0)", "r"(VA));
    check_trap("write to a read-only page", 14, 3);
    check_eq("which leaves D clear", flags_of(pte) & PTE_D, 0);
    READ_CR(0, cr0);
    WRITE_CR(0, cr0 & ~(uint32_t)CR0_WP_BIT);
    TRY("movl $1, (%0)", "r"(VA));
    check_trap("ring 0 writes it with WP off", -1, trapped.error);
    WRITE_CR(0, cr0);
    *next = 0;
    invlpg(VA + 0x1000);
    TRY("mov (%0), %%ecx", "r"(VA + 0xffe));
    check_trap("read over an edge", 14, 0);
    check_eq("at the second page", trapped.cr2, VA + 0x1000);
    TRY("jmp *%0", "r"(VA + 0x1000));
    check_eq("fetch of nothing", trapped.vector, 14);
    check_eq("its eip", trapped.rip, VA + 0x1000);
    *third = (PA + 0x2000) | PTE_P | PTE_W;
    user_enter(user_read, 0x2);
    check_trap("read of a supervisor page from ring 3", 14, 5);
    user_enter(user_write, 0x2);
    check_trap("write to it", 14, 7);
    *third = (PA + 0x2000) | PTE_P | PTE_U;
    invlpg(VA + 0x2000);
    user_enter(user_read, 0x2);
    check_trap("read of a user page", 0x80, 0);
    user_enter(user_write, 0x2);
    check_trap("write to a read-only user page", 14, 7);
}

static void legacy(void)
{
    uint32_t cr0, cr4;

    READ_CR(0, cr0);
    READ_CR(4, cr4);
    WRITE_CR(4, cr4 | CR4_PSE_BIT);
    for (uint32_t i = 0; i < ENTRIES32; i++) { /* all of it identity-mapped */
        dir[i] = i << 22 | PTE_P | PTE_W | PTE_U | PTE_PS;
        low[i] = i << 12 | PTE_P | PTE_W | PTE_U;
    }
    dir[0] = (uint32_t)low | PTE_P | PTE_W | PTE_U;
    dir[VA >> 22] = (uint32_t)table | PTE_P | PTE_W | PTE_U;
    table[0] = PA | PTE_P | PTE_W;
    WRITE_CR(3, dir);
    WRITE_CR(0, cr0 | (uint32_t)CR0_PG_WP);
    common(table, sizeof table[0], "32-bit paging");

    uint32_t *large = &dir[0x50000000 >> 22];
    *large = PA | PTE_P | PTE_W | PTE_PS;
    check_eq("a 4 MiB page", *(volatile uint32_t *)(0x50000000), *(volatile uint32_t *)PA);
    check_eq("sets A in its entry", flags_of(large), PTE_A);
    *(volatile uint32_t *)(0x50001000) = 1;
    check_eq("and D", flags_of(large), PTE_A | PTE_D);
    dir[0x60000000 >> 22] = (uint32_t)table | PTE_P | PTE_W | PTE_PS;
    *(volatile uint32_t *)PA = 0x55667788;
    table[1] = PA | PTE_P | PTE_W;
    WRITE_CR(4, cr4);
    WRITE_CR(3, dir);
    check_eq("without PSE bit 7 means nothing", *(volatile uint32_t *)0x60001000, 0x55667788);
    WRITE_CR(4, cr4 | CR4_PSE_BIT);
    WRITE_CR(3, dir);
    dir[VA >> 22] &= ~(uint32_t)PTE_W;
    invlpg(VA);
    TRY("movl $1, (%0)", "r"(VA));
    check_trap("the directory forbids writes", 14, 3);
    WRITE_CR(0, cr0);
    check("paging off again", true);
}

static void pae(void)
{
    uint32_t cr0, cr4;

    READ_CR(0, cr0);
    READ_CR(4, cr4);
    WRITE_CR(4, (cr4 | CR4_PAE_BIT) & ~(uint32_t)CR4_PSE_BIT); /* 2 MiB pages need no PSE */
    for (uint32_t i = 0; i < 4; i++) {
        pdpt[i] = (uint32_t)pae_dirs[i] | PTE_P;
        for (uint32_t k = 0; k < ENTRIES_PAE; k++) {
            pae_dirs[i][k] = (i << 30 | k << 21) | PTE_P | PTE_W | PTE_U | PTE_PS;
        }
    }
    pae_dirs[VA >> 30][0] = (uint32_t)ptab | PTE_P | PTE_W | PTE_U;
    ptab[0] = PA | PTE_P | PTE_W;
    TRY("mov %0, %%cr3", "r"(pdpt)); /* PG is off: not looked at */
    check_trap("cr3 with paging off", -1, trapped.error);
    WRITE_CR(0, cr0 | (uint32_t)CR0_PG_WP);
    common(ptab, sizeof ptab[0], "PAE paging");

    wrmsr(0xc0000080, 0x800); /* NXE */
    ptab[0] = PA | PTE_P | PTE_W | PTE_NX;
    invlpg(VA);
    *(volatile uint8_t *)VA = 0xc3; /* RET */
    TRY("call *%0", "r"(VA));
    check_trap("fetch from an NX page", 14, 0x11);
    ptab[0] = PA | PTE_P | PTE_W;
    invlpg(VA);
    TRY("call *%0", "r"(VA));
    check_trap("fetch without NX", -1, trapped.error);
    pae_dirs[1][8] = PA | PTE_P | PTE_W | PTE_PS;
    check_eq("a 2 MiB page", *(volatile uint32_t *)(VA + 0x1000000), *(volatile uint32_t *)PA);
    check_eq("sets A in its entry", flags_of(&pae_dirs[1][8]), PTE_A);
    pdpt[2] = 0;
    WRITE_CR(3, pdpt);
    TRY("mov (%0), %%ecx", "r"(0x80000000));
    check_trap("through an absent pointer", 14, 0);
    pdpt[2] = (uint32_t)pae_dirs[2] | PTE_P;
    WRITE_CR(3, pdpt);
    TRY("mov (%0), %%ecx", "r"(0x80000000 + PA));
    check_trap("and through it when it is there", -1, trapped.error);
    WRITE_CR(0, cr0);
    WRITE_CR(4, cr4);
}

int guest_main(void)
{
    legacy();
    pae();
    return checks_done("paging32");
}
