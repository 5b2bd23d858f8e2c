/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/paging.c - accessed and dirty flags, NX, WP, U/S, SMEP, SMAP, 1 GiB
 * pages, aliases (SDM Vol. 3A, "Paging"). */
#include "guest.h"

#define VA UINT64_C(0x8000000000) /* PML4 entry 1, ours alone */
#define PA UINT64_C(0x800000)
enum { CR4_SMEP_BIT = 1 << 20, CR4_SMAP_BIT = 1 << 21, CR4_PGE_BIT = 1 << 7 };

static uint64_t flags_of(const uint64_t *pte)
{
    return *(const volatile uint64_t *)pte & (PTE_A | PTE_D);
}

static void accessed_dirty(void)
{
    uint64_t *pte = map_page(VA, PA, PTE_P | PTE_W);
    volatile uint32_t *page = (volatile uint32_t *)VA;

    check_eq("no flags before an access", flags_of(pte), 0);
    (void)*page;
    check_eq("a read sets A", flags_of(pte), PTE_A);
    *page = 1;
    check_eq("a write sets D", flags_of(pte), PTE_A | PTE_D);
    *pte = PA | PTE_P | PTE_W;
    invlpg(VA);
    __asm__ volatile("lock; addl $0, (%0)" ::"r"(VA) : "memory");
    check_eq("a locked add of 0 sets both", flags_of(pte), PTE_A | PTE_D);
    *pte = PA | PTE_P | PTE_W;
    invlpg(VA);
    __asm__ volatile("cmpxchg %%ecx, (%0)" ::"r"(VA), "a"(12345), "c"(1) : "memory", "cc");
    check_eq("a failed cmpxchg sets both", flags_of(pte), PTE_A | PTE_D);
    *pte = PA | PTE_P;
    invlpg(VA);
    TRY("movl $1, (%0)", "r"(VA));
    check_trap("write to a read-only page (WP)", 14, 3);
    check_eq("which leaves D clear", flags_of(pte) & PTE_D, 0);
    *pte = PA | PTE_P | PTE_W;
    invlpg(VA);
    __asm__ volatile("prefetcht0 (%0)" ::"r"(VA + 0x2000));
    check("prefetch of nothing does nothing", true);
    __asm__ volatile("mov $0, %%ecx; rep stosb" ::"D"(VA), "a"(0) : "rcx", "memory");
    check_eq("rep stos of 0 bytes touches nothing", flags_of(pte), 0);
}

/* What was read under AC is out of reach once AC is gone, however it goes; often enough to be run
 * from caches. */
static void ac_goes(uint64_t user)
{
    for (unsigned i = 0; i < 20; i++) {
        TRY("stac; mov (%0), %%ecx; clac; mov (%0), %%ecx", "r"(user));
        check_trap("SMAP: read after CLAC", 14, 1);
        TRY("stac; mov (%0), %%ecx; pushfq; andl $~0x40000, (%%rsp); popfq; mov (%0), %%ecx",
            "r"(user));
        check_trap("SMAP: read after POPF", 14, 1);
        TRY("stac; mov (%0), %%ecx; mov %%rsp, %%rax; mov %%ss, %%ecx; push %%rcx; push %%rax\n"
            "pushfq; andl $~0x40000, (%%rsp); mov %%cs, %%ecx; push %%rcx; lea 1f(%%rip), %%rax\n"
            "push %%rax; iretq; 1: mov (%0), %%ecx",
            "r"(user));
        check_trap("SMAP: read after IRET", 14, 1);
        TRY("clac; pushfq; orl $0x40000, (%%rsp); popfq; mov (%0), %%ecx; clac", "r"(user));
        check_trap("SMAP: read with AC from POPF", -1, trapped.error);
    }
}

static void permissions(void)
{
    uint64_t cr0, cr4;
    uint32_t leaf7[4];
    uint64_t *pte = map_page(VA + 0x1000, PA + 0x1000, PTE_P | PTE_W | PTE_NX);

    *(volatile uint8_t *)(VA + 0x1000) = 0xc3; /* RET */
    TRY("call *%0", "r"(VA + 0x1000));
    check_trap("fetch from an NX page", 14, 0x11);
    *pte = (PA + 0x1000) | PTE_P;
    invlpg(VA + 0x1000);
    TRY("call *%0", "r"(VA + 0x1000));
    check_trap("fetch without NX", -1, trapped.error);

    READ_CR(0, cr0);
    WRITE_CR(0, cr0 & ~UINT64_C(0x10000));
    TRY("movb $0xc3, (%0)", "r"(VA + 0x1000));
    check_trap("ring 0 writes read-only pages with WP off", -1, trapped.error);
    WRITE_CR(0, cr0);
    TRY("movb $0xc3, (%0)", "r"(VA + 0x1000));
    check_trap("and not with WP on again", 14, 3);

    cpuid(7, 0, leaf7);
    check("SMEP and SMAP there", (leaf7[1] & (1u << 7 | 1u << 20)) == (1u << 7 | 1u << 20));
    *pte = (PA + 0x1000) | PTE_P | PTE_W | PTE_U;
    invlpg(VA + 0x1000);
    READ_CR(4, cr4);
    WRITE_CR(4, cr4 | CR4_SMEP_BIT);
    TRY("call *%0", "r"(VA + 0x1000));
    check_trap("SMEP: fetch of a user page", 14, 0x11);
    WRITE_CR(4, cr4 | CR4_SMAP_BIT);
    TRY("call *%0", "r"(VA + 0x1000));
    check_trap("SMAP does not forbid fetches", -1, trapped.error);
    TRY("mov (%0), %%ecx", "r"(VA + 0x1000));
    check_trap("SMAP: read of a user page", 14, 1);
    TRY("movb $0xc3, (%0)", "r"(VA + 0x1000));
    check_trap("SMAP: write to a user page", 14, 3);
    TRY("stac; mov (%0), %%ecx; clac", "r"(VA + 0x1000));
    check_trap("SMAP: read with AC", -1, trapped.error);
    ac_goes(VA + 0x1000);
    WRITE_CR(4, cr4);
}

static void stale_never(void)
{
    uint64_t *pte = map_page(VA + 0x2000, PA + 0x2000, PTE_P | PTE_W);
    volatile uint32_t *alias = (volatile uint32_t *)(PA + 0x2000);
    volatile uint32_t *page = (volatile uint32_t *)(VA + 0x2000);

    *page = 0x11223344;
    check_eq("an alias sees a write", *alias, 0x11223344);
    *(volatile uint32_t *)(PA + 0x3000) = 0x55667788;
    *pte = (PA + 0x3000) | PTE_P | PTE_W;
    invlpg(VA + 0x2000);
    check_eq("a moved page", *page, 0x55667788);
    check_eq("a write sets A in the new entry", flags_of(pte), PTE_A);
    *pte = 0;
    invlpg(VA + 0x2000);
    TRY("mov (%0), %%ecx", "r"(VA + 0x2000));
    check_trap("an unmapped page", 14, 0);
    *pte = (PA + 0x2000) | PTE_P | PTE_W;
    check_eq("a mapped page needs no flush", *page, 0x11223344);

    /* Code: written through an alias, run at once. */
    map_page(VA + 0x4000, PA + 0x4000, PTE_P);
    volatile uint8_t *code = (volatile uint8_t *)(PA + 0x4000);
    uint32_t first, second;
    code[0] = 0xb8; /* MOV EAX, 1; RET */
    code[1] = 1;
    code[2] = code[3] = code[4] = 0;
    code[5] = 0xc3;
    __asm__ volatile("call *%1" : "=a"(first) : "r"(VA + 0x4000) : "memory");
    code[1] = 2;
    __asm__ volatile("call *%1" : "=a"(second) : "r"(VA + 0x4000) : "memory");
    check_eq("code runs", first, 1);
    check_eq("changed code runs changed", second, 2);
}

static void large_pages(void)
{
    uint32_t leaf[4];

    cpuid(0x80000001, 0, leaf);
    check("1 GiB pages there", (leaf[3] & 1u << 26) != 0);
    pdpt[5] = PTE_P | PTE_W | PTE_PS; /* 5 GiB -> 0 */
    check_eq("a 1 GiB page reads", *(volatile uint32_t *)(UINT64_C(0x140000000) + PA + 0x2000),
             0x11223344);
    check_eq("its flags", pdpt[5] & (PTE_A | PTE_D), PTE_A);
    pdpt[5] = 0;
}

static void split_accesses(void)
{
    uint64_t *second;
    volatile uint64_t *edge = (volatile uint64_t *)(VA + 0x6ffc);

    map_page(VA + 0x6000, PA + 0x6000, PTE_P | PTE_W);
    second = map_page(VA + 0x7000, PA + 0x9000, PTE_P | PTE_W);
    *edge = UINT64_C(0x1122334455667788);
    check_eq("a write over a page edge, low half", *(volatile uint32_t *)(PA + 0x6ffc), 0x55667788);
    check_eq("and high half", *(volatile uint32_t *)(PA + 0x9000), 0x11223344);
    *second = 0;
    invlpg(VA + 0x7000);
    *(volatile uint32_t *)(PA + 0x6ffc) = 7;
    TRY("movq $0, (%0)", "r"(edge));
    check_trap("half of a write faults", 14, 2);
    check_eq("at the second page", trapped.cr2, VA + 0x7000);
    check_eq("and nothing was written", *(volatile uint32_t *)(PA + 0x6ffc), 7);
}

int guest_main(void)
{
    accessed_dirty();
    permissions();
    stale_never();
    large_pages();
    split_accesses();
    return checks_done("paging");
}
