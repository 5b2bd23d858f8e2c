/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/start.S - from multiboot's 32-bit entry to guest_main() in 64-bit mode: 4 GiB
 * identity-mapped in 2 MiB supervisor pages, NX and WP on, an IDT with all 256 vectors, a TSS. */
    .section .multiboot, "a"
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl start
start:
    cli
    mov $stack_top, %esp
    mov %eax, boot_magic
    mov %ebx, boot_info

    /* The tables are in .bss, zero. Upper levels allow everything; the last one decides. */
    movl $pdpt + 7, pml4
    mov $pd + 7, %eax
    mov $pdpt, %edi
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    cmp $pdpt + 32, %edi
    jne 1b
    mov $0x83, %eax
    mov $pd, %edi
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    cmp $pd + 0x4000, %edi
    jne 2b

    mov $tss, %eax
    mov %ax, gdt + 0x32
    shr $16, %eax
    mov %al, gdt + 0x34
    mov %ah, gdt + 0x37
    mov $ist_top, %eax          /* RSP0 and IST1: not the stack that a trap must leave alone */
    mov %eax, tss + 4
    mov %eax, tss + 36
    movw $104, tss + 102       /* no I/O bitmap */
    lgdt gdt_pointer
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
    ljmp $0x08, $start64

    .code64
start64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %rsp
    mov $0x30, %eax
    ltr %ax
    xor %eax, %eax
    lldt %ax
    call idt_init
    call guest_main
    mov %eax, %edi
    call guest_exit

/* One stub of 16 bytes a vector: error code or 0, vector, then the common path. */
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set v, 0
    .rept 256
    .balign 16
    .if v != 8 && (v < 10 || v > 14) && v != 17 && v != 21
    push $0
    .endif
    push $v
    jmp trap_common
    .set v, v + 1
    .endr

trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    cld
    call trap
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

/* guest.h; the trap handler comes back through user_leave. */
    .globl user_enter, user_enter_at, user_leave
user_enter:
    mov $0x2b, %edx
user_enter_at:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, user_saved_rsp
    pushq $0x23
    lea user_stack_top, %rax
    push %rax
    push %rsi
    push %rdx
    push %rdi
    iretq
user_leave:
    mov user_saved_rsp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 08 code, 64-bit */
    .quad 0x00cf93000000ffff    /* 10 data */
    .quad 0x00cffb000000ffff    /* 18 user code, 32-bit */
    .quad 0x00cff3000000ffff    /* 20 user data */
    .quad 0x00affb000000ffff    /* 28 user code, 64-bit */
    .quad 0x0000890000000067    /* 30 TSS */
    .quad 0
    .quad 0x00cf13000000ffff    /* 40 data, not present */
    .quad 0x00cf9b000000ffff    /* 48 code, 32-bit */
    .quad 0x00cf99000000ffff    /* 50 code, 64 and 32 bits both off, execute only */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .balign 4096
    .globl pml4, pdpt, pd
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 16384
    .skip 16384
stack_top:
    .skip 4096
ist_top:
    .globl user_stack, user_stack_top
user_stack: .skip 4096
user_stack_top:
    .balign 16
    .globl tss
tss: .skip 104
    .globl boot_magic, boot_info
boot_magic: .skip 4
boot_info: .skip 4
user_saved_rsp: .skip 8

    .section .note.GNU-stack, "", @progbits
