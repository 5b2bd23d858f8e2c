/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/start32.S - from multiboot's entry to guest_main() in protected mode, without
 * paging: a GDT with segments of 16 and 32 bits, an IDT with all 256 vectors, a TSS. */
    .section .multiboot, "a"
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl start
start:
    cli
    cld
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %esp
    mov $tss, %eax
    mov %ax, gdt + 0x32
    shr $16, %eax
    mov %al, gdt + 0x34
    mov %ah, gdt + 0x37
    movl $trap_stack_top, tss + 4
    movl $0x10, tss + 8
    movw $104, tss + 102        /* no I/O bitmap */
    mov $0x30, %eax
    ltr %ax
    xor %eax, %eax
    lldt %ax
    mov $0x23, %eax             /* NE, MP, PE; paging off */
    or $0x10, %eax
    mov %eax, %cr0
    mov $0x600, %eax            /* OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    call idt_init
    call guest_main
    push %eax
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
    pusha
    push %ds
    push %es
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esp, %eax
    push %eax
    cld
    call trap
    add $4, %esp
    pop %es
    pop %ds
    popa
    add $8, %esp
    iret

/* void trap_leave(const struct trap_frame *f, uint32_t eip, uint32_t esp, uint32_t eflags): goes on
 * there in ring 0, with the registers a callee saves as they were. */
    .globl trap_leave
trap_leave:
    mov 4(%esp), %ebx
    mov 8(%esp), %eax
    mov 12(%esp), %ecx
    mov 16(%esp), %edx
    mov $0x10, %esi
    mov %esi, %ds
    mov %esi, %es
    mov %esi, %ss
    mov %ecx, %esp
    push %edx
    popf
    mov 8(%ebx), %edi
    mov 12(%ebx), %esi
    mov 16(%ebx), %ebp
    mov 24(%ebx), %ebx
    jmp *%eax

/* void user_enter(void (*fn)(void), uint32_t eflags): runs @fn in ring 3 until it traps; the trap
 * handler comes back through user_leave. */
    .globl user_enter, user_leave
user_enter:
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov 20(%esp), %eax
    mov 24(%esp), %edx
    mov %esp, user_saved_esp
    push $0x23
    push $user_stack_top
    push %edx
    push $0x1b
    push %eax
    mov $0x23, %eax
    mov %eax, %ds
    mov %eax, %es
    iret
user_leave:
    mov user_saved_esp, %esp
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    ret

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 08 code */
    .quad 0x00cf93000000ffff    /* 10 data */
    .quad 0x00cffb000000ffff    /* 18 user code */
    .quad 0x00cff3000000ffff    /* 20 user data */
    .quad 0x00cf13000000ffff    /* 28 data, not present */
    .quad 0x0000890000000067    /* 30 TSS */
    .quad 0x00409300000000ff    /* 38 data, 256 bytes */
    .quad 0x0040970000000fff    /* 40 data, expand-down: from 0x1000 to 4 GiB */
    .quad 0x00cf91000000ffff    /* 48 data, read-only */
    .quad 0x00cf99000000ffff    /* 50 code, execute only */
    .quad 0x00009b000000ffff    /* 58 code, 16-bit; the base is a program's to set */
    .quad 0x000093000000ffff    /* 60 data, 16-bit; likewise */
    .quad 0x00cf9f000000ffff    /* 68 code, conforming */
    .quad 0                     /* 70 LDT, a program's to make */
    .quad 0                     /* 78 call gate, likewise */
    .quad 0x0000970000000fff    /* 80 data, 16-bit, expand-down: from 0x1000 to 64 KiB */
    .quad 0                     /* 88 likewise a program's */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .balign 4096
    .skip 16384
stack_top:
    .skip 4096
trap_stack_top:
    .globl user_stack, user_stack_top, trap_stack_top
user_stack: .skip 4096
user_stack_top:
    .balign 16
    .globl tss
tss: .skip 104
    .globl user_saved_esp
user_saved_esp: .skip 4

    .section .note.GNU-stack, "", @progbits
