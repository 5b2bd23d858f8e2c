/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/smp_guest.h - small programs for several vCPUs on the real PC and the real engine.
 *
 * One multiboot image with a program at each entry. Every vCPU starts at the same entry in flat
 * 32-bit protected mode with paging (16 MiB one to one, 4 KiB pages, and the LAPIC's page), or in
 * 64-bit mode (2 MiB pages); no firmware and no start-up IPI is involved. At entry: EBX the vCPU,
 * ESI how many there are, EDI how often to do what the program does, ESP a stack of its own. A
 * program ends with `jmp done`: the last one to get there ends the VM by the debug-exit port. */
#ifndef TESTS_UNIT_SMP_GUEST_H
#define TESTS_UNIT_SMP_GUEST_H

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "vmm/boot/boot.h"
#include "vmm/sched/vm.h"
#include "vmm/tunables.h"

extern const uint8_t smp_image[], smp_image_end[];
/* Entries, in the image. */
extern const uint8_t smp_locked[], smp_racing[], smp_compute[], smp_message[], smp_tas[],
    smp_tas_pause[], smp_ticket[], smp_ipi[], smp_warp[], smp_store_buffer[], smp_dekker[],
    smp_strings[], smp_derived[], smp_token[], smp_errand[];
/* For 64-bit mode. */
extern const uint8_t smp_compute64[], smp_rewrite64[];
/* An instruction of smp_compute: addl $12345, %eax. */
extern const uint8_t smp_addend[];

/* Guest-physical. Words of the shared page: see the programs. */
enum {
    SMP_RAM = 16 << 20,
    SMP_SHARED = 0x300000,
    SMP_OTHER = 0x301000,    /* a second shared page */
    SMP_PRIVATE = 0x400000,  /* 64 KiB of each vCPU */
    SMP_TABLES = 0x280000,   /* page directory, then page tables */
    SMP_TABLES64 = 0x290000, /* one of each level */
    SMP_DONE = 0x30f000,
};

__asm__(
    ".pushsection .rodata\n"
    ".global smp_image, smp_image_end\n"
    ".global smp_locked, smp_racing, smp_compute, smp_message, smp_tas, smp_tas_pause\n"
    ".global smp_ticket, smp_ipi, smp_warp, smp_store_buffer, smp_dekker, smp_strings\n"
    ".global smp_token, smp_errand, smp_derived, smp_addend, smp_compute64, smp_rewrite64\n"
    "smp_image:\n"
    ".code32\n"
    ".set SMP_BASE, 0x200000\n"
    ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)\n"
    ".long SMP_BASE, SMP_BASE, SMP_BASE + smp_image_end - smp_image, 0\n"
    ".long SMP_BASE + smp_done - smp_image\n"
    "smp_done:\n"
    "    movl $1, %eax\n lock xaddl %eax, 0x30f000\n incl %eax\n cmpl %esi, %eax\n jne 1f\n"
    "    movb $1, %al\n outb %al, $0xf4\n"
    "1:  cli\n hlt\n jmp 1b\n"

    /* 0x300000: incremented by all, with LOCK. */
    "smp_locked:\n"
    "1:  lock incl 0x300000\n"
    "    movl %edi, %eax\n imull %eax, %eax\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* 0x300000: incremented without; 0x300004 by load, work enough for the others to do the same,
     * store. */
    "smp_racing:\n"
    "1:  incl 0x300000\n"
    "    movl 0x300004, %eax\n incl %eax\n movl $40, %ecx\n 2: loop 2b\n"
    "    movl %eax, 0x300004\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* 4096 words of its own pages, over and over; nothing shared but the code. */
    "smp_compute:\n"
    "    shll $16, %ebx\n leal 0x400000(%ebx), %ebx\n"
    "1:  movl $64, %ecx\n"
    "2:  imull $1103515245, %eax, %eax\n"
    "smp_addend:\n"
    "    addl $12345, %eax\n"
    "    movl %eax, %edx\n shrl $8, %edx\n andl $0x3ffc, %edx\n"
    "    addl %eax, (%ebx,%edx)\n"
    "    loop 2b\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* vCPU 0 writes data (0x301000) then its number (0x300000); vCPU 1 waits for the number and
     * looks at the data, then answers at 0x300040. 0x300080 counts what was wrong. Others end. */
    "smp_message:\n"
    "    cmpl $1, %ebx\n ja smp_done\n je 4f\n"
    "    movl $1, %ecx\n"
    "1:  movl %ecx, 0x301000\n movl %ecx, 0x301ffc\n movl %ecx, 0x300000\n"
    "2:  cmpl %ecx, 0x300040\n jne 2b\n"
    "    incl %ecx\n decl %edi\n jnz 1b\n jmp smp_done\n"
    "4:  movl $1, %ecx\n"
    "5:  cmpl %ecx, 0x300000\n jne 5b\n"
    "    cmpl %ecx, 0x301000\n je 6f\n incl 0x300080\n"
    "6:  cmpl %ecx, 0x301ffc\n je 7f\n incl 0x300080\n"
    "7:  movl %ecx, 0x300040\n"
    "    incl %ecx\n decl %edi\n jnz 5b\n jmp smp_done\n"

    /* Test-and-set lock at 0x300000 around 0x301000 and 0x301004; without and with PAUSE. */
    "smp_tas:\n"
    "1:  movl $1, %eax\n xchgl %eax, 0x300000\n testl %eax, %eax\n jnz 1b\n"
    "    movl 0x301000, %eax\n incl %eax\n movl %eax, 0x301000\n addl $2, 0x301004\n"
    "    movl $0, 0x300000\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"
    "smp_tas_pause:\n"
    "1:  movl $1, %eax\n xchgl %eax, 0x300000\n testl %eax, %eax\n jz 3f\n"
    "2:  pause\n cmpl $0, 0x300000\n jne 2b\n jmp 1b\n"
    "3:  movl 0x301000, %eax\n incl %eax\n movl %eax, 0x301000\n addl $2, 0x301004\n"
    "    movl $0, 0x300000\n"
    "    movl $200, %ecx\n 4: loop 4b\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* Ticket lock: next at 0x300000, serving at 0x300040. */
    "smp_ticket:\n"
    "1:  movl $1, %eax\n lock xaddl %eax, 0x300000\n"
    "2:  cmpl %eax, 0x300040\n je 3f\n pause\n jmp 2b\n"
    "3:  incl 0x301000\n addl $2, 0x301004\n incl 0x300040\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* vCPU 0 and 1 send each other vector 0x40 in turn; each handler answers until it has had
     * EDI of them. Counts at 0x300000 + 4 * vCPU. Others end. */
    "smp_ipi:\n"
    "    cmpl $1, %ebx\n ja smp_done\n"
    "    movl $0x2a0000 + 0x40 * 8, %edx\n"
    "    movl $0x100000 + smp_ipi_handler - smp_image, (%edx)\n"
    "    movl $0x00208e00, 4(%edx)\n"
    "    lidt SMP_BASE + smp_idtr - smp_image\n"
    "    movl $0x1ff, 0xfee000f0\n"
    "    movl $1, 0x300080(,%ebx,4)\n"
    "1:  cmpl $1, 0x300080\n jne 1b\n cmpl $1, 0x300084\n jne 1b\n" /* both are ready */
    "    movl %ebx, %edx\n xorl $1, %edx\n shll $24, %edx\n"
    "    testl %ebx, %ebx\n jnz 2f\n"
    "    movl %edx, 0xfee00310\n movl $0x4040, 0xfee00300\n"
    "2:  sti\n hlt\n cli\n"
    "    cmpl %edi, 0x300000(,%ebx,4)\n jb 2b\n"
    "    jmp smp_done\n"
    "smp_ipi_handler:\n"
    "    incl 0x300000(,%ebx,4)\n"
    "    movl $0, 0xfee000b0\n"
    "    movl %edx, 0xfee00310\n movl $0x4040, 0xfee00300\n"
    "    iret\n"

    /* vCPU 0 asks EDI times by an IPI, does some work, and halts if vCPU 1 has not answered by
     * then; that halts until it is asked, works, answers, and sends an IPI only to one that waits.
     * The work of vCPU 0 is short, or (smp_errand) long. 0x300000: asked, 0x300040: answered,
     * 0x303000: how often vCPU 0 halted. Others end. */
    "smp_errand:\n"
    "    movl $20000, %ebp\n jmp 1f\n"
    "smp_token:\n"
    "    movl $1000, %ebp\n"
    "1:  cmpl $1, %ebx\n ja smp_done\n"
    "    movl $0x2a0000 + 0x40 * 8, %edx\n"
    "    movl $0x100000 + smp_token_handler - smp_image, (%edx)\n"
    "    movl $0x00208e00, 4(%edx)\n"
    "    lidt SMP_BASE + smp_idtr - smp_image\n"
    "    movl $0x1ff, 0xfee000f0\n"
    "    testl %ebx, %ebx\n jnz 5f\n"
    "    movl $0x1000000, 0xfee00310\n"
    "2:  incl 0x300000\n movl $0x4040, 0xfee00300\n"
    "    movl %ebp, %ecx\n 1: loop 1b\n"
    "3:  cli\n movl $1, 0x301000\n"
    "    movl 0x300040, %eax\n cmpl 0x300000, %eax\n je 4f\n"
    "    incl 0x303000\n sti\n hlt\n jmp 3b\n"
    "4:  movl $0, 0x301000\n sti\n"
    "    decl %edi\n jnz 2b\n jmp smp_done\n"
    "5:  movl $0, 0xfee00310\n"
    "6:  sti\n hlt\n cli\n"
    "    movl 0x300000, %eax\n cmpl 0x300040, %eax\n je 6b\n"
    "    movl $1000, %ecx\n 1: loop 1b\n"
    "    movl %eax, 0x300040\n"
    "    cmpl $0, 0x301000\n je 7f\n movl $0x4040, 0xfee00300\n"
    "7:  cmpl %edi, %eax\n jb 6b\n jmp smp_done\n"
    "smp_token_handler:\n"
    "    movl $0, 0xfee000b0\n iret\n"

    /* Under a lock, the TSC must never be less than the one another vCPU read before.
     * 0x301000: the last, 64 bits; 0x301010 counts warps. */
    "smp_warp:\n"
    "1:  movl $1, %eax\n xchgl %eax, 0x300000\n testl %eax, %eax\n jz 3f\n pause\n jmp 1b\n"
    "3:  rdtsc\n"
    "    movl %eax, %ecx\n movl %edx, %ebp\n"
    "    subl 0x301000, %ecx\n sbbl 0x301004, %ebp\n jnc 4f\n incl 0x301010\n"
    "4:  movl %eax, 0x301000\n movl %edx, 0x301004\n movl $0, 0x300000\n"
    "    movl %ebx, %ecx\n shll $4, %ecx\n addl $20, %ecx\n 5: loop 5b\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* Store buffer litmus of vCPUs 0 and 1: x at 0x300000, y at 0x301000; both may not read the
     * old value. Rounds are kept apart by a barrier at 0x302000. 0x303000 counts violations,
     * 0x303004 and 0x303008 how often each read the new one. Others end. */
    "smp_store_buffer:\n"
    "    cmpl $1, %ebx\n ja smp_done\n"
    "    xorl %ebp, %ebp\n"
    "1:  incl %ebp\n"
    "    testl %ebx, %ebx\n jnz 2f\n"
    "    movl %ebp, 0x300000\n movl 0x301000, %eax\n movl %eax, 0x304000\n jmp 3f\n"
    "2:  movl %ebp, 0x301000\n movl 0x300000, %eax\n movl %eax, 0x305000\n"
    "3:  leal (%ebp,%ebp), %ecx\n lock incl 0x302000\n"
    "4:  cmpl %ecx, 0x302000\n jb 4b\n"
    "    testl %ebx, %ebx\n jnz 6f\n"
    "    cmpl %ebp, 0x304000\n jae 5f\n cmpl %ebp, 0x305000\n jae 5f\n incl 0x303000\n"
    "5:  cmpl %ebp, 0x304000\n jne 5f\n incl 0x303004\n"
    "5:  cmpl %ebp, 0x305000\n jne 5f\n incl 0x303008\n"
    "5:\n"
    "6:  lock incl 0x302040\n"
    "7:  cmpl %ecx, 0x302040\n jb 7b\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* Dekker with retry of vCPUs 0 and 1: flags at 0x300000 + 64 * vCPU; without PAUSE. Others
     * end. */
    "smp_dekker:\n"
    "    cmpl $1, %ebx\n ja smp_done\n"
    "    movl %ebx, %ecx\n shll $6, %ecx\n movl %ecx, %edx\n xorl $64, %edx\n"
    "1:  movl $1, 0x300000(%ecx)\n"
    "    cmpl $0, 0x300000(%edx)\n je 2f\n"
    "    movl $0, 0x300000(%ecx)\n jmp 1b\n"
    "2:  incl 0x301000\n"
    "    movl $0, 0x300000(%ecx)\n"
    "    decl %edi\n jnz 1b\n jmp smp_done\n"

    /* Everyone fills and copies the same pages with REP, each with its own number. */
    "smp_strings:\n"
    "    movl %edi, %ebp\n cld\n"
    "1:  movl $0x301f00, %edi\n movl %ebx, %eax\n movl $1024, %ecx\n rep stosl\n"
    "    movl $0x301f00, %esi\n movl $0x305100, %edi\n movl $1024, %ecx\n rep movsl\n"
    "    decl %ebp\n jnz 1b\n movl 0x30f800, %esi\n jmp smp_done\n"

    /* vCPU 0 changes where 0xe00000 is mapped (0x500000 and 0x501000 in turn, which hold 0 and 1)
     * and an instruction; vCPU 1 is told at 0x300000, looks at both, answers at 0x300040. 0x300080
     * and 0x300084 count what it found stale. Others end. */
    "smp_derived:\n"
    "    cmpl $1, %ebx\n ja smp_done\n je 4f\n"
    "    movl $0, 0x500000\n movl $1, 0x501000\n"
    "    movl $1, %ecx\n"
    "1:  movl %ecx, %eax\n andl $1, %eax\n shll $12, %eax\n addl $0x500003, %eax\n"
    "    movl %eax, 0x281000 + 0xe00 * 4\n"
    "    movl %ecx, SMP_BASE + smp_patched - smp_image + 1\n"
    "    movl %ecx, 0x300000\n"
    "2:  cmpl %ecx, 0x300040\n jne 2b\n"
    "    incl %ecx\n decl %edi\n jnz 1b\n jmp smp_done\n"
    "4:  movl $1, %ecx\n"
    "5:  cmpl %ecx, 0x300000\n jne 5b\n"
    "    invlpg 0xe00000\n"
    "    movl %ecx, %eax\n andl $1, %eax\n cmpl %eax, 0xe00000\n je 6f\n incl 0x300080\n"
    "6:  jmp smp_patched\n"
    "7:  cmpl %ecx, %eax\n je 8f\n incl 0x300084\n"
    "8:  movl %ecx, 0x300040\n"
    "    incl %ecx\n decl %edi\n jnz 5b\n jmp smp_done\n"
    "    .balign 4096\n"
    "smp_patched:\n"
    "    movl $0, %eax\n jmp 7b\n"
    "    .balign 4096\n"

    ".code64\n"
    "smp_done64:\n"
    "    movl $1, %eax\n lock xaddl %eax, 0x30f000\n incl %eax\n cmpl %esi, %eax\n jne 1f\n"
    "    movb $1, %al\n outb %al, $0xf4\n"
    "1:  cli\n hlt\n jmp 1b\n"

    /* As smp_compute. */
    "smp_compute64:\n"
    "    shll $16, %ebx\n leal 0x400000(%rbx), %ebx\n"
    "1:  movl $64, %ecx\n"
    "2:  imull $1103515245, %eax, %eax\n addl $12345, %eax\n"
    "    movl %eax, %edx\n shrl $8, %edx\n andl $0x3ffc, %edx\n"
    "    addl %eax, (%rbx,%rdx)\n"
    "    decl %ecx\n jnz 2b\n"
    "    decl %edi\n jnz 1b\n jmp smp_done64\n"

    /* Each vCPU has two functions of its own, all in one page. It calls the first often, changes
     * the number in it, calls it again; calls the second, which changes its own next instruction;
     * then calls the next vCPU's first, whose number may be any, but not less than the last time.
     * 0x300080 counts what was stale; 0x300000 is a lock around it all every fourth time, so that
     * they meet. */
    "smp_rewrite64:\n"
    "    movl %ebx, %ebp\n shll $5, %ebp\n addl $SMP_BASE + smp_function64 - smp_image, %ebp\n"
    "    leal 1(%rbx), %ecx\n xorl %edx, %edx\n cmpl %esi, %ecx\n cmovael %edx, %ecx\n"
    "    shll $5, %ecx\n addl $SMP_BASE + smp_function64 - smp_image, %ecx\n"
    "    xorl %r12d, %r12d\n xorl %r13d, %r13d\n"
    "1:  movl $200, %edx\n"
    "2:  call *%rbp\n cmpl %r12d, %eax\n je 3f\n lock incl 0x300080\n"
    "3:  decl %edx\n jnz 2b\n"
    "    testl $3, %edi\n jnz 5f\n"
    "4:  movl $1, %eax\n xchgl %eax, 0x300000\n testl %eax, %eax\n jnz 4b\n"
    "5:  incl %r12d\n movl %r12d, 1(%rbp)\n"
    "    call *%rbp\n cmpl %r12d, %eax\n je 6f\n lock incl 0x300080\n"
    "6:  leal 16(%rbp), %eax\n call *%rax\n cmpl %r12d, %eax\n je 7f\n lock incl 0x300080\n"
    "7:  call *%rcx\n cmpl %r13d, %eax\n jae 8f\n lock incl 0x300080\n"
    "8:  movl %eax, %r13d\n"
    "    testl $3, %edi\n jnz 9f\n movl $0, 0x300000\n"
    "9:  decl %edi\n jnz 1b\n jmp smp_done64\n"
    "    .balign 4096\n"
    "smp_function64:\n"
    "    .rept 16\n .balign 32\n movl $0, %eax\n ret\n"
    "    .balign 16\n movl %r12d, 1f+1(%rip)\n 1: movl $0, %eax\n ret\n .endr\n"
    "    .balign 4096\n"

    "smp_idtr: .word 0x7ff\n .long 0x2a0000\n"
    "smp_image_end:\n"
    ".code64\n"
    ".popsection\n");

struct smp_config {
    const uint8_t *program;
    unsigned vcpus;
    uint32_t times;
    unsigned threads, cache_entries;
    const struct shadow_config *shadow; /* NULL: the default */
    uint64_t chaos;
    bool long_mode;
    const struct engine_ops *engine; /* NULL: the interpreter */
};

static inline void smp_put(struct vm *vm, gpa_t gpa, uint32_t value)
{
    PLX_CHECK(ram_write(vm_machine(vm)->ram, gpa, &value, sizeof value) == 0);
}

static inline uint32_t smp_get(struct vm *vm, gpa_t gpa)
{
    uint32_t value;

    PLX_CHECK(ram_read(vm_machine(vm)->ram, gpa, &value, sizeof value) == 0);
    return value;
}

static inline void smp_map(struct vm *vm)
{
    for (uint32_t i = 0; i < SMP_RAM >> 12; i++) {
        smp_put(vm, SMP_TABLES + 0x1000 + i * 4, i << 12 | 3);
    }
    for (uint32_t i = 0; i < SMP_RAM >> 22; i++) {
        smp_put(vm, SMP_TABLES + i * 4, (SMP_TABLES + 0x1000 + i * 0x1000) | 3);
    }
    smp_put(vm, SMP_TABLES + (0xfee00000U >> 22) * 4, 0xfec00083); /* a large page */
}

static inline void smp_long_mode(struct vm *vm, struct cpu *cpu)
{
    smp_put(vm, SMP_TABLES64, (SMP_TABLES64 + 0x1000) | 3);
    smp_put(vm, SMP_TABLES64 + 0x1000, (SMP_TABLES64 + 0x2000) | 3);
    for (uint32_t i = 0; i < SMP_RAM >> 21; i++) {
        smp_put(vm, SMP_TABLES64 + 0x2000 + i * 8, i << 21 | 0xe3);
    }
    cpu->cr3 = SMP_TABLES64;
    cpu->cr4 |= CR4_PAE;
    cpu->efer |= EFER_LME | EFER_LMA;
    cpu->seg[SEG_CS].attr = (uint16_t)((cpu->seg[SEG_CS].attr & ~SEG_DB) | SEG_L);
}

/* The vCPUs at the entry of their program. */
static inline struct vm *smp_vm(const struct smp_config *c)
{
    struct vm_config cfg = {.machine = {.memory = SMP_RAM, .vcpus = c->vcpus},
                            .engine = c->engine != NULL ? c->engine : &engine_interp,
                            .cache_entries = c->cache_entries,
                            .threads = c->threads,
                            .shadow = c->shadow,
                            .chaos = c->chaos};
    struct boot_config boot = {.kernel = {smp_image, (size_t)(smp_image_end - smp_image)}};
    struct plx_err err = {.msg = ""};
    struct vm *vm;

    if (vm_create(&cfg, &vm, &err) != 0 ||
        boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &err) != 0) {
        log_error("%s", err.msg);
        PLX_CHECK(!"the guest can be started");
    }
    smp_map(vm);
    smp_put(vm, 0x30f800, c->vcpus);
    for (unsigned i = c->vcpus; i-- > 0;) {
        struct cpu *cpu = &vm_vcpu(vm, i)->c;
        struct prng rng = cpu->rng;
        *cpu = vm_vcpu(vm, 0)->c;
        cpu->rng = rng;
        cpu->rip = 0x200000 + (uint64_t)(c->program - smp_image);
        cpu->gpr[RBX] = i;
        cpu->gpr[RSI] = c->vcpus;
        cpu->gpr[RDI] = c->times;
        cpu->gpr[RSP] = 0x2c0000 + i * 0x1000;
        cpu->cr3 = SMP_TABLES;
        cpu->cr4 |= CR4_PSE;
        cpu->cr0 |= CR0_PG;
        if (c->long_mode) {
            smp_long_mode(vm, cpu);
        }
        cfg.engine->state_changed(vm_vcpu(vm, i));
    }
    return vm;
}

/* One more slice; false: the VM has stopped. */
static inline bool smp_slice_at(struct vm *vm, uint32_t rate, struct output_list *out)
{
    struct plx_err err = {.msg = ""};
    uint64_t now = vm_now(vm), timer = vm_next_timer(vm), seq = vm_seq(vm) + 1;
    struct record r = {.seq = seq,
                       .start_ns = vm_idle(vm) && timer > now && timer != UINT64_MAX ? timer : now,
                       .span_ns = SLICE_SPAN_NS / 2 + seq,
                       .rate = rate + (uint32_t)(seq % 7) * 1001};

    if (vm_stopped(vm, NULL, NULL)) {
        return false;
    }
    if (vm_slice(vm, &r, out, &err) != 0) {
        log_error("%s", err.msg);
        PLX_CHECK(!"the slice runs");
    }
    output_list_clear(out);
    return true;
}

static inline bool smp_slice(struct vm *vm, struct output_list *out)
{
    return smp_slice_at(vm, RATE_DEFAULT, out);
}

#endif
