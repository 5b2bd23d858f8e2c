/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/v86.c - virtual-8086 mode: entered by IRET, left by whatever traps; segments as in
 * real mode, privilege 3, and what IOPL decides. */
#include "guest32.h"

enum { SEG = 0x2000, DATA = 0x3000, VM = 0x20000, IOPL3 = 0x3000, UNTIL_TRAP = 0xcd /* int 80h */ };

/* Goes on behind the call when something traps. */
__asm__(".globl v86_enter\nv86_enter: pusha\n mov %esp, trap_esp\n movl $1f, trap_resume\n"
        "mov 36(%esp), %eax\n"                                            /* EFLAGS */
        "pushl $0x3000\n pushl $0x3000\n pushl $0x3000\n pushl $0x3000\n" /* GS FS DS ES */
        "pushl $0x3000\n pushl $0x8000\n pushl %eax\n pushl $0x2000\n pushl $0\n"
        "mov $0x1234, %eax\n mov $0x5678, %ebx\n iret\n"
        "1: popa\n ret\n");
extern void v86_enter(uint32_t eflags);

static void run(const uint8_t *code, unsigned len, uint32_t eflags)
{
    volatile uint8_t *to = (volatile uint8_t *)(SEG << 4);

    for (unsigned i = 0; i < len; i++) {
        to[i] = code[i];
    }
    to[len] = UNTIL_TRAP;
    to[len + 1] = 0x80;
    v86_enter(eflags | VM | 2);
}
#define RUN(eflags, ...) \
    run((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), eflags)

static const struct {
    const char *name;
    uint8_t code[6], len;
    uint32_t eflags;
    uint8_t vector; /* 80h: it ran */
} cases[] = {
    {"nop, IOPL 3", {0x90}, 1, IOPL3, 0x80},
    {"cli, IOPL 3", {0xfa}, 1, IOPL3, 0x80},
    {"cli, IOPL 0", {0xfa}, 1, 0, 13},
    {"sti, IOPL 0", {0xfb}, 1, 0, 13},
    {"pushf, IOPL 0", {0x9c}, 1, 0, 13},
    {"popf, IOPL 0", {0x9d}, 1, 0, 13},
    {"iret, IOPL 0", {0xcf}, 1, 0, 13},
    {"int 80h, IOPL 0", {0x90}, 1, 0, 13},
    {"int 31h, a gate of privilege 0", {0xcd, 0x31}, 2, IOPL3, 13},
    {"hlt", {0xf4}, 1, IOPL3, 13},
    {"mov eax, cr0", {0x0f, 0x20, 0xc0}, 3, IOPL3, 13},
    {"lgdt", {0x0f, 0x01, 0x16, 0, 0}, 5, IOPL3, 13},
    {"clts", {0x0f, 0x06}, 2, IOPL3, 13},
    {"in al, 80h without a bitmap", {0xe4, 0x80}, 2, IOPL3, 13},
    {"sldt does not exist", {0x0f, 0x00, 0xc0}, 3, IOPL3, 6},
    {"ltr does not exist", {0x0f, 0x00, 0xd8}, 3, IOPL3, 6},
    {"lar does not exist", {0x0f, 0x02, 0xc0}, 3, IOPL3, 6},
    {"arpl does not exist", {0x63, 0xc0}, 2, IOPL3, 6},
    {"division by zero", {0x31, 0xc9, 0xf7, 0xf1}, 4, IOPL3, 0},
    {"int3, a gate of privilege 0", {0xcc}, 1, IOPL3, 13},
};

int guest_main(void)
{
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run(cases[i].code, cases[i].len, cases[i].eflags);
        check_eq(cases[i].name, (uint32_t)trapped.vector, cases[i].vector);
        check_eq("  from virtual-8086 mode", trapped.rflags & VM, VM);
        check_eq("  in its code segment", trapped.cs, SEG);
        check_eq("  error code", trapped.error,
                 cases[i].vector == 13 && cases[i].code[0] == 0xcd   ? 0x31 * 8 + 2
                 : cases[i].vector == 13 && cases[i].code[0] == 0xcc ? 3 * 8 + 2
                                                                     : 0);
    }
    /* registers and memory */
    *(volatile uint16_t *)((DATA << 4) + 0x10) = 0;
    RUN(IOPL3, 0xa3, 0x10, 0x00 /* mov [10h], ax */, 0x8c, 0xd9 /* mov cx, ds */, 0xb8, 0x00, 0x28,
        0x8e, 0xc0 /* mov es, 2800h */, 0x26, 0x89, 0x1e, 0x04, 0x00 /* es:[4] */);
    check_eq("DS begins at 16 times its selector", *(volatile uint16_t *)((DATA << 4) + 0x10),
             0x1234);
    check_eq("so does what ES is loaded with", *(volatile uint16_t *)0x28004, 0x5678);
    check_eq("selectors read back", trap_seen.ecx & 0xffff, DATA);
    check_eq("the trap left null selectors", trap_seen.ds | trap_seen.es, 0);
    /* the frame: SS:ESP, then ES, DS, FS, GS */
    const uint32_t *end = (const uint32_t *)trap_frame_end;
    check_eq("ESP in the frame", end[0], 0x8000);
    check_eq("SS in the frame", end[1], DATA);
    check_eq("ES in the frame", end[2], 0x2800);
    check_eq("DS in the frame", end[3], DATA);
    check_eq("FS in the frame", end[4], DATA);
    check_eq("GS in the frame", end[5], DATA);
    /* flags: IOPL and VM cannot be changed */
    RUN(IOPL3, 0x31, 0xc0, 0x50, 0x9d /* popf of 0 */);
    check_eq("popf leaves IOPL", trapped.rflags & IOPL3, IOPL3);
    check_eq("and VM", trapped.rflags & VM, VM);
    return checks_done("v86");
}
