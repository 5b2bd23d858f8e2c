/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/32/protected.c - protected mode without paging: exceptions and their frames in rings
 * 0 and 3, segment limits, descriptor tables, gates, far transfers, SYSENTER (SDM Vol. 3A,
 * "Protection" and "Interrupt and Exception Handling"). */
#include "guest32.h"

static void exceptions(void)
{
    TRY("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $1, %%eax; div %%ecx");
    check_trap("divide by zero", 0, 0);
    TRY("ud2");
    check_trap("ud2", 6, 0);
    TRY("int3");
    check_trap("breakpoint", 3, 0);
    TRY("int $0x21");
    check_trap("int n", 0x21, 0);
    TRY("mov $0x7fffffff, %%eax; inc %%eax; into");
    check_trap("into with OF", 4, 0);
    TRY("xor %%eax, %%eax; into");
    check_trap("into without OF", -1, trapped.error);
    static const int32_t bounds[2] = {3, 5};
    TRY("mov $6, %%eax; bound %%eax, (%0)", "r"(bounds));
    check_trap("bound, above", 5, 0);
    TRY("mov $5, %%eax; bound %%eax, (%0)", "r"(bounds));
    check_trap("bound, inside", -1, trapped.error);
    TRY("pushf; orl $0x100, (%%esp); popf; nop; nop");
    check_trap("single step", 1, 0);
    TRY(".byte 0xf0, 0x40"); /* LOCK INC EAX */
    check_trap("lock where not permitted", 6, 0);
    TRY(".byte 0x0f, 0x05");
    check_trap("syscall with SCE off", 6, 0);
    TRY(".byte 0x0f, 0x01, 0xf8"); /* SWAPGS */
    check_trap("swapgs outside of 64-bit mode", 6, 0);
    TRY("ud2");
    check("neither ESP nor SS is pushed from ring 0", trap_frame_end == trap_esp);
}

static void segments(void)
{
    TRY("mov $0x1003, %%eax; mov %%eax, %%ds");
    check_trap("selector beyond the GDT", 13, 0x1000);
    TRY("mov $0x28, %%eax; mov %%eax, %%ds");
    check_trap("segment not present", 11, 0x28);
    TRY("mov $0x28, %%eax; mov %%eax, %%ss");
    check_trap("stack segment not present", 12, 0x28);
    TRY("mov $0x48, %%eax; mov %%eax, %%ss");
    check_trap("read-only stack segment", 13, 0x48);
    TRY("xor %%eax, %%eax; mov %%eax, %%ss");
    check_trap("null stack segment", 13, 0);
    TRY("mov $0x50, %%eax; mov %%eax, %%fs");
    check_trap("execute-only code as data", 13, 0x50);
    gdt[SEL_FREE / 8] = segment(0x200000, 0xff, 0x93, 4);
    TRY("mov $0x88, %%eax; mov %%eax, %%ss; mov $0x80, %%esp; push $0x1234;"
        "mov $0x10, %%eax; mov %%eax, %%ss; mov trap_esp, %%esp");
    check_eq("a push through a stack segment with a base", *(volatile uint32_t *)0x20007c, 0x1234);
    gdt[SEL_FREE / 8] = segment(0x200000, 0xff, 0x92, 4);
    TRY("mov $0x88, %%eax; mov %%eax, %%fs");
    check_eq("a load sets the accessed bit", gdt[SEL_FREE / 8] >> 40 & 1, 1);
}

/* In the order es, cs, ss, ds, fs, gs as wide as the operand: 16-bit pushes move ESP by 2. */
static void segment_registers(void)
{
    uint32_t a, b, c;

    __asm__ volatile("mov %%esp, %%ecx; push %%cs; sub %%esp, %%ecx; pop %%eax" : "=a"(a), "=c"(b));
    check_eq("push cs", a & 0xffff, SEL_CODE);
    check_eq("moves by four", b, 4);
    __asm__ volatile("mov %%esp, %%ecx; pushw %%ss; sub %%esp, %%ecx; popw %%ax; movzwl %%ax, %%eax"
                     : "=a"(a), "=c"(b));
    check_eq("pushw ss", a, SEL_DATA);
    check_eq("moves by two", b, 2);
    __asm__ volatile("push $0x23; pop %%es; mov %%es, %%eax; push %%ds; pop %%es" : "=a"(a));
    check_eq("pop es", a, 0x23);
    __asm__ volatile(
        "push $0x38; pop %%fs; pushw $0x40; popw %%gs; mov %%fs, %%eax; mov %%gs, %%ecx;"
        "pushw %%ds; popw %%ds; push %%ss; pop %%ss; push %%ds; pop %%ds"
        : "=a"(a), "=c"(b));
    check_eq("pop fs", a, SEL_SMALL);
    check_eq("popw gs", b, SEL_DOWN);

    static const struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) far = {0x12345678, SEL_SMALL};
    static const uint16_t near[2] = {0x5678, SEL_DOWN};
    __asm__ volatile("les %2, %%eax; mov %%es, %%ecx; push %%ds; pop %%es"
                     : "=a"(a), "=c"(b)
                     : "m"(far));
    check_eq("les", a, 0x12345678);
    check_eq("its selector", b, SEL_SMALL);
    __asm__ volatile("xor %%eax, %%eax; lfsw %3, %%ax; mov %%fs, %%ecx; lgs %4, %%edx"
                     : "=a"(a), "=c"(b), "=d"(c)
                     : "m"(near), "m"(far));
    check_eq("lfsw", a, 0x5678);
    check_eq("the selector behind a word", b, SEL_DOWN);
    check_eq("lgs", c, 0x12345678);
}

static void inspection(void)
{
    uint32_t r;
    uint8_t z;

    __asm__ volatile("lar %2, %0; setz %1" : "=r"(r), "=q"(z) : "r"(SEL_CODE));
    check_eq("lar of code", r & 0xf0ff00, 0xc09b00);
    __asm__ volatile("lsl %2, %0; setz %1" : "=r"(r), "=q"(z) : "r"(SEL_SMALL));
    check_eq("lsl of a small segment", r, 0xff);
    __asm__ volatile("lsl %2, %0; setz %1" : "=r"(r), "=q"(z) : "r"(SEL_DATA));
    check_eq("lsl in pages", r, 0xffffffff);
    __asm__ volatile("lar %2, %0; setz %1" : "=r"(r), "=q"(z) : "r"(0x1000), "0"(7));
    check_eq("lar beyond the GDT", z << 8 | r, 7);
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(SEL_EXECONLY));
    check_eq("verr of execute-only code", z, 0);
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(SEL_READONLY));
    check_eq("verr of read-only data", z, 1);
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(SEL_READONLY));
    check_eq("verw of read-only data", z, 0);
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(SEL_DATA));
    check_eq("verw of data", z, 1);
    __asm__ volatile("mov $0x21, %%eax; mov $3, %%ecx; arpl %%cx, %%ax; setz %1"
                     : "=&a"(r), "=q"(z)::"ecx");
    check_eq("arpl raises", (uint32_t)z << 8 | r, 0x123);
    __asm__ volatile("str %w0" : "=r"(r) : "0"(0));
    check_eq("str", r, SEL_TSS);
    __asm__ volatile("sldt %w0" : "=r"(r) : "0"(0));
    check_eq("sldt", r, 0);
    __asm__ volatile("smsw %w0" : "=r"(r) : "0"(0));
    check_eq("smsw", r, 0x33);
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table;
    __asm__ volatile("sgdt %0" : "=m"(table));
    check("sgdt", table.limit == sizeof gdt - 1 && table.base == (uint32_t)gdt);
    __asm__ volatile("sidt %0" : "=m"(table));
    check("sidt", table.limit == sizeof idt - 1 && table.base == (uint32_t)idt);
}

static void local_table(void)
{
    static uint64_t ldt[4];

    TRY("mov $0x0c, %%eax; mov %%eax, %%fs");
    check_trap("a selector without an LDT", 13, 0x0c);
    ldt[1] = segment(0x300000, 0xfff, 0x93, 4);
    gdt[SEL_LDT / 8] = segment((uint32_t)ldt, sizeof ldt - 1, 0x82, 0);
    TRY("mov $0x70, %%eax; lldt %%ax; mov $0x0c, %%eax; mov %%eax, %%fs; movl $77, %%fs:8");
    check_eq("a write through the LDT", *(volatile uint32_t *)0x300008, 77);
    TRY("mov $0x24, %%eax; mov %%eax, %%fs");
    check_trap("a selector beyond the LDT", 13, 0x24);
    TRY("mov $0x08, %%eax; lldt %%ax");
    check_trap("lldt of code", 13, 0x08);
    TRY("mov $0x30, %%eax; ltr %%ax");
    check_trap("ltr of a busy TSS", 13, 0x30);
    TRY("xor %%eax, %%eax; mov %%eax, %%fs; lldt %%ax");
}

/* --- far transfers ------------------------------------------------------------------------- */

void gate_target(void);
extern uint32_t gate_seen[5];
uint32_t gate_seen[5];
/* Notes SS and what the gate pushed, and returns past the parameters. */
__asm__("gate_target:\n"
        "push %eax\n mov %ss, %eax\n mov %eax, gate_seen\n"
        "mov 4(%esp), %eax\n mov %eax, gate_seen + 4\n"
        "mov 8(%esp), %eax\n mov %eax, gate_seen + 8\n"
        "mov 12(%esp), %eax\n mov %eax, gate_seen + 12\n"
        "mov 16(%esp), %eax\n mov %eax, gate_seen + 16\n"
        "pop %eax\n lret $8");

static void far_transfers(void)
{
    uint32_t moved, flags;

    __asm__ volatile("mov %%esp, %%ecx; ljmp $0x68, $1f; 1: mov %%cs, %%eax; ljmp $0x08, $2f; 2:"
                     : "=a"(moved)::"ecx");
    check_eq("ljmp to conforming code", moved, SEL_CONFORMING);
    TRY("ljmp $0x1b, $0");
    check_trap("ljmp to user code", 13, 0x18);
    TRY("ljmp $0x10, $0");
    check_trap("ljmp to data", 13, 0x10);
    TRY("lcall $0x28, $0");
    check_trap("lcall of what is not present", 13, 0x28);
    gdt[SEL_FREE / 8] = segment(0, 0xfff, 0x9b, 4);
    TRY("ljmp $0x88, $0x1000");
    check_trap("ljmp beyond the limit of the target", 13, 0);
    TRY("push $0x10; push $0; lret");
    check_trap("lret to data", 13, 0x10);

    gdt[SEL_GATE / 8] = ((uint32_t)gate_target & 0xffff) | (uint64_t)SEL_CODE << 16 |
                        UINT64_C(0xec02) << 32 | (uint64_t)((uint32_t)gate_target >> 16) << 48;
    __asm__ volatile("mov %%esp, %%ecx; push $0x222; push $0x111; lcall $0x78, $0; sub %%esp, %%ecx"
                     : "=c"(moved)::"memory");
    check_eq("a call gate to the same level leaves the stack", moved, 0);
    check_eq("with the first parameter", gate_seen[3], 0x111);
    check_eq("and the caller's CS", gate_seen[2], SEL_CODE);
    __asm__ volatile("pushf; push %%cs; push $1f; orl $0x400, 8(%%esp); iret; 1: pushf; pop %0; cld"
                     : "=r"(flags));
    check_eq("iret restores DF", flags & 0x400, 0x400);
}

static void user_gate(void)
{
    __asm__ volatile("push $0x444; push $0x333; lcall $0x78, $0; int $0x80");
}
static void user_int(void)
{
    __asm__ volatile("int $0x80");
}
static void user_int_kernel(void)
{
    __asm__ volatile("int $0x21");
}
static void user_hlt(void)
{
    __asm__ volatile("hlt");
}
static void user_cli(void)
{
    __asm__ volatile("cli; int $0x80");
}
static void user_in(void)
{
    __asm__ volatile("in $0x80, %al; int $0x80");
}
static void user_kernel_segment(void)
{
    __asm__ volatile("mov $0x10, %eax; mov %eax, %ds; int $0x80");
}
static void user_iret_up(void)
{
    __asm__ volatile("pushf; push $0x08; push $0; iret");
}
static void user_popf(void)
{
    __asm__ volatile("push $0x3202; popf; pushf; pop %eax; int $0x80");
}

static void ring3(void)
{
    user_enter(user_int, 0x2);
    check_trap("int 0x80 from ring 3", 0x80, 0);
    check_eq("cs of ring 3", trapped.cs, SEL_USER_CODE);
    check_eq("its ss", trap_seen.ss & 0xffff, SEL_USER_DATA);
    check_eq("its esp", trap_seen.esp, (uint32_t)user_stack_top);
    user_enter(user_int_kernel, 0x2);
    check_trap("int through a kernel gate", 13, 0x21 * 8 + 2);
    user_enter(user_hlt, 0x2);
    check_trap("hlt", 13, 0);
    user_enter(user_cli, 0x2);
    check_trap("cli", 13, 0);
    user_enter(user_cli, 0x3002);
    check_trap("cli with IOPL 3", 0x80, 0);
    user_enter(user_in, 0x2);
    check_trap("in without a bitmap", 13, 0);
    user_enter(user_in, 0x3002);
    check_trap("in with IOPL 3", 0x80, 0);
    user_enter(user_kernel_segment, 0x2);
    check_trap("kernel data selector", 13, 0x10);
    user_enter(user_iret_up, 0x2);
    check_trap("iret to an inner level", 13, 0x08);
    user_enter(user_popf, 0x2);
    check_eq("popf changes neither IF nor IOPL", trap_seen.eax & 0x3200, 0);
    gate_seen[0] = 0;
    user_enter(user_gate, 0x2);
    check_trap("a call gate and back", 0x80, 0);
    check_eq("ss inside the gate", gate_seen[0], SEL_DATA);
    check_eq("the copied parameter", gate_seen[3], 0x333);
    check_eq("and the second", gate_seen[4], 0x444);
    check_eq("the stack after it", trap_seen.esp, (uint32_t)user_stack_top);
    gdt[SEL_GATE / 8] &= ~(UINT64_C(0x6000) << 32); /* DPL 0 */
    user_enter(user_gate, 0x2);
    check_trap("a call gate of the kernel", 13, SEL_GATE);
}

static void user_sysenter(void)
{
    __asm__ volatile("mov %esp, %ecx; mov $1f, %edx; sysenter; 1: int $0x80");
}
__asm__("sysenter_target: mov %ss, %eax; mov %eax, gate_seen; mov %cs, %eax;"
        "mov %eax, gate_seen + 4; sysexit");
void sysenter_target(void);

static void system_calls(void)
{
    uint64_t code = gdt[3], data = gdt[4];

    TRY("xor %%eax, %%eax; xor %%edx, %%edx; mov $0x174, %%ecx; wrmsr; sysenter");
    check_trap("sysenter without a segment", 13, 0);
    /* CS, SS, user CS, user SS follow one another from SYSENTER_CS. */
    wrmsr(0x174, SEL_CODE);
    wrmsr(0x175, (uint32_t)(tss + 0)); /* never pushed to */
    wrmsr(0x176, (uint32_t)sysenter_target);
    user_enter(user_sysenter, 0x202);
    check_trap("sysenter and sysexit", 0x80, 0);
    check_eq("ss inside", gate_seen[0], SEL_DATA);
    check_eq("cs inside", gate_seen[1], SEL_CODE);
    check_eq("cs after", trapped.cs, SEL_USER_CODE);
    check_eq("ss after", trap_seen.ss & 0xffff, SEL_USER_DATA);
    check_eq("interrupts are off after", trapped.rflags & 0x200, 0);
    check("the table is as it was", code == gdt[3] && data == gdt[4]);
}

int guest_main(void)
{
    exceptions();
    segments();
    segment_registers();
    inspection();
    local_table();
    far_transfers();
    ring3();
    system_calls();
    return checks_done("protected");
}
