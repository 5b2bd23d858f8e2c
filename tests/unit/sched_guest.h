/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/sched_guest.h - a guest of a few hundred bytes on the real PC and the real interpreter
 * that uses what a rule could be broken in: timers, interrupts, halts, the TSC, its generator, code
 * and page tables that it changes, device clocks, typed input.
 *
 * It is a multiboot image; records for it are a function of their number and of the VM's clock. */
#ifndef TESTS_UNIT_SCHED_GUEST_H
#define TESTS_UNIT_SCHED_GUEST_H

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "vmm/boot/boot.h"
#include "vmm/sched/vm.h"
#include "vmm/tunables.h"

extern const uint8_t guest_image[], guest_image_end[], guest_constant[];

/* Guest-physical: code 0x200000, page directory 0x280000, stack below 0x290000, IDT 0x2a0000, data
 * 0x300000. One 4 MiB page at 0x10000000 is mapped to 0x400000 and 0x800000 in turn. */
enum { GUEST_CODE = 0x200000, GUEST_SUMS = 0x310000, GUEST_RAM = 16 << 20 };

__asm__(".pushsection .rodata\n"
        ".global guest_image, guest_image_end\n"
        "guest_image:\n"
        ".code32\n"
        ".set BASE, 0x200000\n"
        ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)\n"
        ".long BASE, BASE, BASE + guest_image_end - guest_image, 0\n"
        ".long BASE + 3f - guest_image\n"
        "3:  cli\n"
        "    movl $0x290000, %esp\n"
        /* IDT: everything is unexpected but the timer and the serial port. */
        "    movl $0x2a0000, %edi\n"
        "    movl $256, %ecx\n"
        "1:  movl $0x100000 + guest_bad - guest_image, (%edi)\n"
        "    movl $0x00208e00, 4(%edi)\n"
        "    addl $8, %edi\n"
        "    loop 1b\n"
        "    movl $0x100000 + guest_timer - guest_image, 0x2a0000 + 0x20 * 8\n"
        "    movl $0x100000 + guest_serial - guest_image, 0x2a0000 + 0x24 * 8\n"
        "    lidt BASE + guest_idtr - guest_image\n"
        /* PICs at 0x20 and 0x28, IRQ 0 and 4 let through; PIT at 1 kHz; COM1 with interrupts. */
        "    movb $0x11, %al\n outb %al, $0x20\n outb %al, $0xa0\n"
        "    movb $0x20, %al\n outb %al, $0x21\n movb $0x28, %al\n outb %al, $0xa1\n"
        "    movb $4, %al\n outb %al, $0x21\n movb $2, %al\n outb %al, $0xa1\n"
        "    movb $1, %al\n outb %al, $0x21\n outb %al, $0xa1\n"
        "    movb $0xee, %al\n outb %al, $0x21\n movb $0xff, %al\n outb %al, $0xa1\n"
        "    movb $0x34, %al\n outb %al, $0x43\n"
        "    movb $0xa9, %al\n outb %al, $0x40\n movb $0x04, %al\n outb %al, $0x40\n"
        "    movw $0x3fc, %dx\n movb $0x0b, %al\n outb %al, %dx\n"
        "    movw $0x3f9, %dx\n movb $1, %al\n outb %al, %dx\n"
        /* 16 MiB one to one in large pages. */
        "    movl $0x83, 0x280000\n movl $0x400083, 0x280004\n"
        "    movl $0x800083, 0x280008\n movl $0xc00083, 0x28000c\n"
        "    movl %cr4, %eax\n orl $0x10, %eax\n movl %eax, %cr4\n"
        "    movl $0x280000, %eax\n movl %eax, %cr3\n"
        "    movl %cr0, %eax\n orl $0x80000000, %eax\n movl %eax, %cr0\n"
        /* IA32_TSC_ADJUST. */
        "    movl $0x3b, %ecx\n movl $0x1234567, %eax\n xorl %edx, %edx\n wrmsr\n"
        "    xorl %ebp, %ebp\n"
        "    sti\n"
        "guest_loop:\n"
        "    incl %ebp\n"
        "    movl $64, %ecx\n"
        "1:  imull $1103515245, %esi, %esi\n"
        ".global guest_constant\n"
        "guest_constant: addl $12345, %esi\n"
        "    movl %esi, %eax\n shrl $8, %eax\n andl $0xfffc, %eax\n movl %esi, 0x300000(%eax)\n"
        "    loop 1b\n"
        "    rdtsc\n roll $5, 0x310000\n xorl %eax, 0x310000\n"
        "    rdrand %eax\n xorl %eax, 0x310010\n"
        /* The page at 0x10000000, by a changed table and no flush. */
        "    movl %ebp, %eax\n andl $1, %eax\n shll $22, %eax\n addl $0x400083, %eax\n"
        "    movl %eax, 0x280000 + 64 * 4\n"
        "    movl %ebp, 0x10000040\n"
        /* An instruction that was run before, changed. */
        "    movl %ebp, BASE + guest_patched - guest_image + 1\n"
        "guest_patched:\n"
        "    movl $0, %edx\n"
        "    addl %edx, 0x310020\n"
        "    movl %ebp, %ecx\n andl $0xff, %ecx\n movl $0x320000, %edi\n movl %ebp, %eax\n"
        "    rep stosl\n"
        /* The PM timer, a clock of a device. */
        "    movw $0x608, %dx\n inl %dx, %eax\n roll $3, 0x310030\n xorl %eax, 0x310030\n"
        /* Has it stood still for the hundreds of instructions since the last look? */
        "    cmpl %eax, 0x310060\n jne 1f\n incl 0x310064\n"
        "1:  movl %eax, 0x310060\n"
        "    testl $511, %ebp\n"
        "    jnz guest_loop\n"
        "    hlt\n"
        "    jmp guest_loop\n"
        "guest_timer:\n"
        "    pushal\n"
        "    incl 0x310040\n"
        "    rdtsc\n roll $7, 0x310044\n xorl %eax, 0x310044\n addl %ebp, 0x310048\n"
        "    testl $15, 0x310040\n jnz 1f\n"
        "    movw $0x3f8, %dx\n movb $0x2e, %al\n outb %al, %dx\n"
        "1:  movb $0x20, %al\n outb %al, $0x20\n"
        "    popal\n iret\n"
        "guest_serial:\n"
        "    pushal\n"
        "    movw $0x3f8, %dx\n inb %dx, %al\n"
        "    cmpb $0x71, %al\n jne 1f\n outb %al, $0xf4\n"
        "1:  outb %al, %dx\n"
        "    movzbl %al, %eax\n roll $1, 0x310050\n addl %eax, 0x310050\n"
        "    movb $0x20, %al\n outb %al, $0x20\n"
        "    popal\n iret\n"
        "guest_bad:\n"
        "    movb $0x55, %al\n outb %al, $0xf4\n hlt\n"
        "guest_idtr: .word 0x7ff\n .long 0x2a0000\n"
        "guest_image_end:\n"
        ".code64\n"
        ".popsection\n");

static inline size_t guest_image_len(void)
{
    return (size_t)(guest_image_end - guest_image);
}

static inline struct vm *guest_vm(uint64_t chaos, unsigned cache_entries)
{
    struct vm_config cfg = {.machine = {.memory = GUEST_RAM, .vcpus = 1},
                            .engine = &engine_interp,
                            .cache_entries = cache_entries,
                            .chaos = chaos};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}};
    struct plx_err err = {.msg = ""};
    struct vm *vm;

    if (vm_create(&cfg, &vm, &err) != 0 ||
        boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &err) != 0) {
        log_error("%s", err.msg);
        PLX_CHECK(!"the guest can be started");
    }
    engine_interp.state_changed(vm_vcpu(vm, 0));
    return vm;
}

/* The next record: entropy and a date first, a key now and then, the rate never quite the same.
 * @inputs has room for two. */
static inline struct record guest_record(struct vm *vm, struct input inputs[2])
{
    static const uint8_t keys[] = "abcdefghijklm";
    static const uint8_t entropy[32] = "thirty-two bytes of entropy.....";
    uint64_t timer = vm_next_timer(vm), now = vm_now(vm), seq = vm_seq(vm) + 1;
    struct record r = {.seq = seq,
                       .start_ns = now,
                       .span_ns = SLICE_SPAN_NS / 2 + seq,
                       .rate = RATE_DEFAULT + (uint32_t)(seq % 7) * 1001,
                       .inputs = inputs};

    if (vm_idle(vm) && timer > now) {
        r.start_ns = seq % 5 == 0 ? now + (timer - now) / 2 : timer;
    }
    if (seq == 1) {
        inputs[r.ninputs++] =
            (struct input){.kind = INPUT_ENTROPY, .data = entropy, .len = sizeof entropy};
        inputs[r.ninputs++] = (struct input){.kind = INPUT_WALLCLOCK, .arg = 1700000000000000000};
    } else if (seq % 23 == 0) {
        inputs[r.ninputs++] = (struct input){.kind = INPUT_CONSOLE_RX,
                                             .dev = CONSOLE_SERIAL0,
                                             .data = &keys[seq % (sizeof keys - 1)],
                                             .len = 1};
    }
    return r;
}

#endif
