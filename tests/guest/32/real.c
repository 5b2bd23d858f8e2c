/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/real.c - real-address mode: from protected mode and back, segments, far transfers,
 * interrupts through a vector table that IDTR points to, what does not exist there, the timer. */
#include "guest32.h"

enum { REAL_SEG = 0x1000, REAL = REAL_SEG << 4, VECTORS = 0x28000, VECTOR_LIMIT = 0x3f * 4 + 3 };

/* One segment of 16-bit code and data, copied to REAL. A test is called near, with DS = ES = SS =
 * REAL_SEG, and leaves its results in registers. */
extern uint8_t real16[], real16_end[], real_enter[];
extern uint16_t real_resume, real_fault[6], real_test; /* inside: addresses in the copy are below */
__asm__(".code16\n.balign 16\nreal16:\n"
        /* Entered in a 16-bit code segment of protected mode, BX: what DS is loaded with first. */
        "real_enter: mov $0x60, %ax\n mov %ax, %es\n mov %ax, %ss\n mov %ax, %fs\n mov %ax, %gs\n"
        "mov %bx, %ds\n mov %cr0, %eax\n and $0xfffffffe, %eax\n mov %eax, %cr0\n"
        "ljmpw $0x1000, $(1f - real16)\n"
        "1: mov %cs, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov $0xf000, %sp\n"
        "xor %eax, %eax\n xor %ebx, %ebx\n xor %ecx, %ecx\n xor %edx, %edx\n"
        "xor %esi, %esi\n xor %edi, %edi\n"
        "call *(real_test - real16)\n"
        "cli\n push %cs\n pop %ds\n mov %eax, (real_regs - real16)\n"
        "mov %cr0, %eax\n or $1, %eax\n mov %eax, %cr0\n ljmpl $0x08, $real_back\n"
        ".balign 4\nreal_regs: .long 0\nreal_test: .word 0\n"
        "real_resume: .word 0\n"               /* where a fault goes on */
        "real_fault: .word 0, 0, 0, 0, 0, 0\n" /* vector, IP, CS, FLAGS, SP before, FLAGS inside */
        /* 64 handlers of 8 bytes */
        ".balign 16\nreal_handlers:\n"
        ".set v, 0\n.rept 64\n.balign 8\n push $v\n jmp real_common\n.set v, v + 1\n.endr\n"
        "real_common: push %bp\n mov %sp, %bp\n push %ax\n push %ds\n push %cs\n pop %ds\n"
        "pushfw\n pop (real_fault + 10 - real16)\n"
        "mov 2(%bp), %ax\n mov %ax, (real_fault - real16)\n"
        "mov 4(%bp), %ax\n mov %ax, (real_fault + 2 - real16)\n"
        "mov 6(%bp), %ax\n mov %ax, (real_fault + 4 - real16)\n"
        "mov 8(%bp), %ax\n mov %ax, (real_fault + 6 - real16)\n"
        "lea 10(%bp), %ax\n mov %ax, (real_fault + 8 - real16)\n"
        "mov (real_resume - real16), %ax\n test %ax, %ax\n jz 1f\n mov %ax, 4(%bp)\n"
        "1: pop %ds\n pop %ax\n pop %bp\n add $2, %sp\n iretw\n"
        /* --- tests --- */
        "t_segment: mov $0x2345, %ax\n mov %ax, %fs\n movw $0x55aa, %fs:6\n mov %fs, %bx\n"
        "mov $0xffff, %ax\n mov %ax, %gs\n mov %gs:0x10, %ecx\n ret\n"
        "t_far: mov %sp, %si\n lcallw $0x1000, $(1f - real16)\n pushl $0x11223344\n push %cs\n"
        "call 2f\n mov %sp, %di\n ret\n"
        "1: mov %sp, %bp\n mov (%bp), %ax\n mov 2(%bp), %bx\n lretw\n"
        "2: inc %cx\n lretw $4\n"
        "t_far32: mov %sp, %si\n lcalll $0x1000, $(1f - real16)\n mov %sp, %di\n ret\n"
        "1: mov %sp, %bp\n mov (%bp), %eax\n mov 4(%bp), %bx\n lretl\n"
        "t_jmp: ljmpw $0x0f00, $(1f - real16 + 0x1000)\n"
        "1: mov %cs, %ax\n ljmpw *%cs:(2f - real16 + 0x1000)\n2: .word 3f - real16, 0x1000\n"
        "3: mov %cs, %bx\n ret\n"
        "t_int: cli\n pushfl\n popl %eax\n or $0x200, %eax\n pushl %eax\n popfl\n"
        "int $0x30\n pushfl\n popl %ebx\n cli\n ret\n"
        "t_iret32: pushfl\n pushl $0x1000\n pushl $(1f - real16)\n iretl\n mov $1, %al\n"
        "1: inc %bl\n ret\n"
        "t_popf: cli\n pushl $0x247fd7\n popfl\n pushfl\n popl %eax\n pushl $2\n popfl\n"
        "pushfl\n popl %ebx\n ret\n"
        "t_msw: smsw %ax\n mov $0, %cx\n lmsw %cx\n smsw %bx\n mov %cr0, %edx\n ret\n"
        "t_tables: sgdtl (9f - real16)\n sidt (8f - real16)\n lgdtw (7f - real16)\n"
        "sgdtl (7f - real16)\n mov (7f + 2 - real16), %eax\n lgdtl (9f - real16)\n"
        "mov (8f - real16), %bx\n mov (8f + 2 - real16), %ecx\n ret\n"
        "7: .word 0x77\n .long 0xff123456\n8: .word 0\n .long 0\n9: .word 0\n .long 0\n"
        "t_lds: lds (1f - real16), %ax\n mov %ds, %bx\n push %cs\n pop %ds\n"
        "les (1f - real16), %ecx\n mov %es, %dx\n push %cs\n pop %es\n ret\n"
        "1: .word 0x1234, 0x2345, 0x3456\n"
        "t_loop: mov $0x10003, %ecx\n1: inc %ax\n loop 1b\n mov $3, %ecx\n"
        "2: inc %bx\n addr32 loop 2b\n ret\n"
        "t_string: mov $0xfffe, %di\n mov $0x2000, %ax\n mov %ax, %es\n mov $0x5a, %al\n"
        "mov $3, %cx\n cld\n rep stosb\n push %cs\n pop %es\n ret\n"
        "t_timer: sti\n hlt\n cli\n ret\n"
        "t_step: pushfw\n pop %ax\n or $0x100, %ax\n push %ax\n popfw\n nop\n"
        "pushfw\n pop %ax\n and $0xfeff, %ax\n push %ax\n popfw\n ret\n"
        "t_cpuid: mov $0, %eax\n cpuid\n mov %ebx, %eax\n ret\n"
        /* faults: resume is the instruction behind */
        "f_sldt: sldt %ax\n ret\n f_str: str %ax\n ret\n f_lldt: lldt %ax\n ret\n"
        "f_ltr: ltr %ax\n ret\n f_verr: verr %ax\n ret\n f_verw: verw %ax\n ret\n"
        "f_lar: lar %ax, %bx\n ret\n f_lsl: lsl %ax, %bx\n ret\n f_arpl: .byte 0x63, 0xc0\n ret\n"
        "f_syscall: syscall\n ret\n f_sysexit: sysexit\n ret\n f_ud: ud2\n ret\n"
        "f_int3: int3\n f_into: mov $0x7f, %al\n add $1, %al\n into\n ret\n"
        "f_div: div %cl\n ret\n f_bound: mov $9, %ax\n bound %ax, (1f - real16)\n ret\n"
        "1: .word 1, 8\n f_limit: int $0x41\n ret\n"
        "real16_end:\n.code32\n"
        ".globl real_back\nreal_back: mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n"
        "mov %eax, %ss\n mov real_saved_esp, %esp\n mov %ebx, real_saved\n"
        "mov %ecx, real_saved + 4\n mov %edx, real_saved + 8\n mov %esi, real_saved + 12\n"
        "mov %edi, real_saved + 16\n xor %eax, %eax\n mov %eax, %fs\n mov %eax, %gs\n"
        "popa\n ret\n"
        /* void real_go(unsigned first_ds) */
        ".globl real_go\nreal_go: pusha\n mov 36(%esp), %ebx\n mov %esp, real_saved_esp\n"
        "ljmp $0x58, $(real_enter - real16)\n"
        ".data\n.balign 4\nreal_saved_esp: .long 0\nreal_saved: .long 0, 0, 0, 0, 0\n.text\n");

extern void real_go(unsigned first_ds);
extern uint32_t real_saved[5];
extern uint8_t real_regs[], real_handlers[];
extern uint8_t t_segment[], t_far[], t_far32[], t_jmp[], t_int[], t_iret32[], t_popf[], t_msw[],
    t_tables[], t_lds[], t_loop[], t_string[], t_timer[], t_step[], t_cpuid[], f_sldt[], f_str[],
    f_lldt[], f_ltr[], f_verr[], f_verw[], f_lar[], f_lsl[], f_arpl[], f_syscall[], f_sysexit[],
    f_ud[], f_int3[], f_into[], f_div[], f_bound[], f_limit[];

struct result {
    uint32_t eax, ebx, ecx, edx, esi, edi;
};
struct fault {
    uint16_t vector, ip, cs, flags, sp, inside;
};

/* Where something of the segment is in its copy. */
static volatile uint16_t *word(const void *at)
{
    return (volatile uint16_t *)(REAL + ((const uint8_t *)at - real16));
}

static uint16_t offset(const void *at)
{
    return (uint16_t)((const uint8_t *)at - real16);
}

/* @ip is one of the first @n bytes behind the beginning of @test. */
static bool soon_after(uint32_t ip, const void *test, uint32_t n)
{
    return ip > offset(test) && ip - offset(test) < n;
}

static struct fault last_fault(void)
{
    const volatile uint16_t *f = word(real_fault);

    return (struct fault){f[0], f[1], f[2], f[3], f[4], f[5]};
}

/* Runs @test; a fault in it goes on at @resume (0: where it says). */
static struct result run(const uint8_t *test, uint16_t resume, unsigned first_ds)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) ivt = {VECTOR_LIMIT, VECTORS}, saved;
    struct result r;

    *word(&real_test) = offset(test);
    *word(&real_resume) = resume;
    word(real_fault)[0] = 0xffff;
    __asm__ volatile("sidt %0; lidt %1" : "=m"(saved) : "m"(ivt) : "memory");
    real_go(first_ds);
    __asm__ volatile("lidt %0" ::"m"(saved) : "memory");
    r.eax = *(volatile uint32_t *)word(real_regs);
    r.ebx = real_saved[0];
    r.ecx = real_saved[1];
    r.edx = real_saved[2];
    r.esi = real_saved[3];
    r.edi = real_saved[4];
    return r;
}

static void prepare(void)
{
    for (unsigned i = 0; i < (unsigned)(real16_end - real16); i++) {
        ((volatile uint8_t *)REAL)[i] = real16[i];
    }
    for (unsigned v = 0; v < 64; v++) {
        ((volatile uint32_t *)VECTORS)[v] =
            (uint32_t)REAL_SEG << 16 | (uint16_t)(offset(real_handlers) + v * 8);
    }
    gdt[SEL_CODE16 / 8] = segment(REAL, 0xffff, 0x9b, 0);
    gdt[SEL_DATA16 / 8] = segment(REAL, 0xffff, 0x93, 0);
}

static void segments(void)
{
    struct result r = run(t_segment, 0, SEL_DATA16);

    check_eq("a segment begins at 16 times its selector", *(volatile uint16_t *)0x23456, 0x55aa);
    check_eq("and reads back", r.ebx, 0x2345);
    check_eq("FFFF:0010 is at 1 MiB", r.ecx, *(volatile uint32_t *)0x100000);
    r = run(t_lds, 0, SEL_DATA16);
    check_eq("lds: offset", r.eax, 0x1234);
    check_eq("lds: DS", r.ebx, 0x2345);
    check_eq("les of 32 bits: offset", r.ecx, 0x23451234);
    check_eq("les: ES", r.edx, 0x3456);
}

static void transfers(void)
{
    struct result r = run(t_far, 0, SEL_DATA16);

    check("far call pushes IP", soon_after(r.eax, t_far, 16));
    check_eq("and CS", r.ebx, REAL_SEG);
    check_eq("retf 4 takes", r.edi, r.esi);
    check_eq("and came by there", r.ecx, 1);
    r = run(t_far32, 0, SEL_DATA16);
    check("far call of 32 bits pushes EIP", soon_after(r.eax, t_far32, 16));
    check_eq("and CS", r.ebx, REAL_SEG);
    check_eq("the stack is level", r.edi, r.esi);
    r = run(t_jmp, 0, SEL_DATA16);
    check_eq("far jmp to another CS", r.eax, 0x0f00);
    check_eq("and back through memory", r.ebx, REAL_SEG);
    r = run(t_iret32, 0, SEL_DATA16);
    check_eq("iretl goes where it says", r.eax << 8 | r.ebx, 1);
}

static void interrupts(void)
{
    struct result r = run(t_int, 0, SEL_DATA16);
    struct fault f = last_fault();

    check_eq("int 30h", f.vector, 0x30);
    check_eq("pushes CS", f.cs, REAL_SEG);
    check("and IP behind it", soon_after(f.ip, t_int, 24));
    check_eq("and FLAGS with IF", f.flags & 0x300, 0x200);
    check_eq("which is clear inside", f.inside & 0x300, 0);
    check_eq("and back after IRET", r.ebx & 0x200, 0x200);
    r = run(t_step, 0, SEL_DATA16);
    f = last_fault();
    check_eq("TF traps", f.vector, 1);
    check_eq("the last time behind the POPF that clears it", f.flags & 0x100, 0);
    r = run(t_popf, 0, SEL_DATA16);
    check_eq("popf sets all but VM and RF", r.eax & 0x247fd7, 0x247fd7);
    check_eq("and clears them", r.ebx, 2);
}

static void system_registers(void)
{
    struct result r = run(t_msw, 0, SEL_DATA16);

    check_eq("smsw", r.eax & 0xf, 2);
    check_eq("lmsw clears MP", r.ebx & 0xf, 0);
    check_eq("and CR0 says so", r.edx & 0x80000001, 0);
    WRITE_CR(0, r.edx | 3);
    r = run(t_tables, 0, SEL_DATA16);
    check_eq("lgdt of 16 bits loads 24 of the base", r.eax, 0x123456);
    check_eq("sidt: limit", r.ebx, VECTOR_LIMIT);
    check_eq("sidt: base", r.ecx, VECTORS);
}

static void instructions(void)
{
    struct result r = run(t_loop, 0, SEL_DATA16);

    check_eq("loop counts CX", r.eax, 3);
    check_eq("or ECX with 67", r.ebx, 3);
    *(volatile uint8_t *)0x20000 = 0;
    *(volatile uint16_t *)0x2fffe = 0;
    *(volatile uint8_t *)0x30000 = 0;
    r = run(t_string, 0, SEL_DATA16);
    check_eq("rep stosb wraps DI", r.edi, 1);
    check_eq("bytes at the end of the segment", *(volatile uint16_t *)0x2fffe, 0x5a5a);
    check_eq("and at its beginning", *(volatile uint8_t *)0x20000, 0x5a);
    check_eq("none behind it", *(volatile uint8_t *)0x30000, 0);
    r = run(t_cpuid, 0, SEL_DATA16);
    check("cpuid", r.eax != 0);
}

static const struct {
    const char *name;
    const uint8_t *test;
    uint8_t vector, len; /* of the instruction that faults; 0: a trap, which goes on by itself */
    uint8_t before;      /* bytes ahead of it */
} faults[] = {
    {"sldt does not exist", f_sldt, 6, 3, 0},
    {"str does not exist", f_str, 6, 3, 0},
    {"lldt does not exist", f_lldt, 6, 3, 0},
    {"ltr does not exist", f_ltr, 6, 3, 0},
    {"verr does not exist", f_verr, 6, 3, 0},
    {"verw does not exist", f_verw, 6, 3, 0},
    {"lar does not exist", f_lar, 6, 3, 0},
    {"lsl does not exist", f_lsl, 6, 3, 0},
    {"arpl does not exist", f_arpl, 6, 2, 0},
    {"syscall is off", f_syscall, 6, 2, 0},
    {"sysexit", f_sysexit, 13, 2, 0},
    {"ud2", f_ud, 6, 2, 0},
    {"into", f_into, 4, 0, 5},
    {"division by zero", f_div, 0, 2, 0},
    {"bound", f_bound, 5, 4, 3},
    {"a vector beyond IDTR's limit", f_limit, 13, 2, 0},
};

static void faults_and_traps(void)
{
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        uint16_t at = (uint16_t)(offset(faults[i].test) + faults[i].before);
        uint16_t len = faults[i].len;

        run(faults[i].test, len == 0 ? 0 : (uint16_t)(at + len), SEL_DATA16);
        struct fault f = last_fault();
        check_eq(faults[i].name, f.vector, faults[i].vector);
        check_eq("  at", f.ip, at); /* INTO: the next instruction */
        check_eq("  nothing but FLAGS, CS and IP on the stack", f.sp, 0xf000 - 2);
    }
}

/* IRQ 0 at vector 20H, one tick. */
static void timer(void)
{
    static const uint8_t icw[] = {0x20, 4, 1, 0xfe};

    outb(0x20, 0x11);
    for (unsigned i = 0; i < 4; i++) {
        outb(0x21, icw[i]);
    }
    outb(0x43, 0x30);
    outb(0x40, 0xff);
    outb(0x40, 0x0f);
    run(t_timer, 0, SEL_DATA16);
    check_eq("the timer wakes HLT", last_fault().vector, 0x20);
    outb(0x20, 0x20);
    outb(0x21, 0xff);
}

int guest_main(void)
{
    prepare();
    segments();
    transfers();
    interrupts();
    system_registers();
    instructions();
    faults_and_traps();
    timer();
    return checks_done("real");
}
