/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/smp.S - the way of an application processor from its start-up IPI to smp_main() in
 * 64-bit mode, on the tables the first processor runs on. Copied to SMP_TRAMPOLINE (smp.h). */
    .set TRAMPOLINE, 0x8000
    .text
    .globl smp_trampoline, smp_trampoline_end
    .code16
smp_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + (trampoline_gdt - smp_trampoline)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x48, $TRAMPOLINE + (trampoline32 - smp_trampoline)
    .code32
trampoline32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x901, %eax            /* EFER: NXE, LME, SCE */
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax       /* PG, WP, NE, ET, MP, PE */
    mov %eax, %cr0
    ljmp $0x08, $smp_start64
    .balign 4
trampoline_gdt:
    .word 87
    .long gdt
smp_trampoline_end:

    .code64
smp_start64:
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $1, %eax                /* the stack of this APIC id */
    cpuid
    shr $24, %ebx
    mov %ebx, %edi
    inc %ebx
    shl $13, %ebx
    lea smp_stacks(%rbx), %rsp
    lidt idt_pointer
    call smp_main

    .bss
    .balign 4096
    .globl smp_stacks
smp_stacks: .skip 8192 * 16

    .section .note.GNU-stack, "", @progbits
