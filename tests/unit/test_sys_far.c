/* SPDX-License-Identifier: Apache-2.0
 * Hunts: far transfers that skip a check, change a register before the last fault, or return to
 * the wrong privilege level; system calls whose segments or flags are not the SDM's. */
#include "tests/unit/cpu_fixture.h"

#define NONCANONICAL UINT64_C(0x800000000000)

/* JMP m16:32 through [rdi]. */
static int jump(struct fixture *f, uint16_t sel, uint32_t off)
{
    put64(f, DATA, off | (uint64_t)sel << 32);
    f->v.c.gpr[RDI] = DATA;
    return RUN(f, 0xff, 0x2f);
}

static const struct jmp {
    uint16_t sel;
    int vector;
    uint32_t error;
} jumps[] = {
    {CS64, NO_FAULT, 0},
    {CS32, NO_FAULT, 0},
    {0, VEC_GP, 0},
    {UCS64, VEC_GP, UCS64},
    {CS64 | 1, VEC_GP, CS64},
    {DS32, VEC_GP, DS32},
    {CS_LD, VEC_GP, CS_LD},
    {CS_ABSENT, VEC_NP, CS_ABSENT},
    {CS_CONFORMING | 3, NO_FAULT, 0},
    {CS_OUTSIDE, VEC_GP, CS_OUTSIDE},
    {TSS_SEL, VEC_GP, TSS_SEL},
    {GATE64, NO_FAULT, 0},
    {LDT_SEL, VEC_GP, LDT_SEL},
};

static void far_jumps_check_the_target(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(jumps); i++) {
        const struct jmp *j = &jumps[i];
        fx_long(f, 0);
        int vector = jump(f, j->sel, CODE + 0x100);
        if (vector != j->vector || (vector >= 0 && f->v.fault_error != j->error)) {
            fail_msg("row %zu: vector %d error %x", i, vector, f->v.fault_error);
        }
        if (vector == NO_FAULT) {
            assert_true(f->v.c.rip == (j->sel == GATE64 ? HANDLER + 0xc00 : CODE + 0x100));
            assert_int_equal(f->v.c.seg[SEG_CS].sel & 3, 0); /* RPL becomes the CPL */
        } else {
            assert_true(f->v.c.rip == CODE && f->v.c.seg[SEG_CS].sel == CS64);
        }
    }
}

static void far_call_and_return(void **state)
{
    struct fixture *f = *state;

    put64(f, DATA, (CODE + 0x100) | (uint64_t)CS64 << 32);
    f->v.c.gpr[RDI] = DATA;
    assert_int_equal(RUN(f, 0xff, 0x1f), NO_FAULT); /* call far m16:32 */
    assert_true(f->v.c.gpr[RSP] == STACK0 - 8);
    assert_true(get64(f, STACK0 - 8) == ((CODE + 2) | (uint64_t)CS64 << 32));
    assert_int_equal(RUN(f, 0xca, 0x10, 0x00), NO_FAULT); /* retf 16 */
    assert_true(f->v.c.rip == CODE + 2);
    assert_true(f->v.c.gpr[RSP] == STACK0 + 16);
}

static void a_call_gate_raises_privilege(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_long(f, 3);
    put64(f, DATA, (uint64_t)(GATE64 | 3) << 32);
    c->gpr[RDI] = DATA;
    assert_int_equal(RUN(f, 0xff, 0x1f), NO_FAULT);
    assert_int_equal(cpu_cpl(c), 0);
    assert_true(c->rip == HANDLER + 0xc00);
    const uint64_t frame[] = {CODE + 2, UCS64 | 3, STACK3, UDS | 3};
    assert_true(c->gpr[RSP] == STACK0 - sizeof frame);
    for (unsigned i = 0; i < PLX_COUNT(frame); i++) {
        assert_true(get64(f, STACK0 - sizeof frame + i * 8) == frame[i]);
    }
    c->seg[SEG_DS] = fx_seg(f, DS32); /* a kernel's segment must not be left to user code */
    assert_int_equal(RUN(f, 0x48, 0xcb), NO_FAULT); /* retfq */
    assert_int_equal(cpu_cpl(c), 3);
    assert_true(c->rip == CODE + 2 && c->gpr[RSP] == STACK3);
    assert_int_equal(c->seg[SEG_DS].attr, SEG_NULL);
    assert_int_equal(c->seg[SEG_ES].sel, UDS | 3);
}

/* The 32-bit gate copies two parameters to the inner stack. */
static void a_32_bit_call_gate_copies_parameters(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_prot32(f, 3);
    put64(f, STACK3, UINT64_C(0x2222222211111111));
    assert_int_equal(RUN(f, 0x9a, 0, 0, 0, 0, GATE32 | 3, 0), NO_FAULT);
    const uint32_t frame[] = {CODE + 7, UCS32 | 3, 0x11111111, 0x22222222, STACK3, UDS | 3};
    assert_true(c->gpr[RSP] == STACK0 - sizeof frame);
    for (unsigned i = 0; i < PLX_COUNT(frame); i++) {
        assert_int_equal(get32(f, STACK0 - sizeof frame + i * 4), frame[i]);
    }
    assert_int_equal(RUN(f, 0xca, 8, 0), NO_FAULT); /* retf 8: from both stacks */
    assert_true(c->gpr[RSP] == STACK3 + 8);
    assert_int_equal(cpu_cpl(c), 3);
}

static int iretq_frame(struct fixture *f, uint64_t rip, uint16_t cs, uint64_t flags, uint16_t ss)
{
    const uint64_t frame[] = {rip, cs, flags, STACK3, ss};

    for (unsigned i = 0; i < PLX_COUNT(frame); i++) {
        put64(f, STACK0 - sizeof frame + i * 8, frame[i]);
    }
    f->v.c.gpr[RSP] = STACK0 - sizeof frame;
    return RUN(f, 0x48, 0xcf);
}

static const struct iret {
    uint64_t rip;
    uint16_t cs, ss;
    int vector;
    uint32_t error;
} irets[] = {
    {CODE, UCS64 | 3, UDS | 3, NO_FAULT, 0},
    {CODE, UCS32 | 3, UDS | 3, NO_FAULT, 0},
    {CODE, CS64, DS32, NO_FAULT, 0},
    {CODE, CS64, 0, NO_FAULT, 0}, /* a null SS below CPL 3 */
    {CODE, UCS64 | 3, 0, VEC_GP, 0},
    {CODE, UCS64 | 3, 3, VEC_GP, 0},
    {CODE, UCS64 | 3, DS32, VEC_GP, DS32},
    {CODE, UCS64 | 3, DS_ABSENT | 3, VEC_GP, DS_ABSENT},
    {CODE, CS64, DS_ABSENT, VEC_SS, DS_ABSENT},
    {CODE, UCS64, UDS | 3, VEC_GP, UCS64},
    {CODE, 0, UDS | 3, VEC_GP, 0},
    {CODE, CS_ABSENT, DS32, VEC_NP, CS_ABSENT},
    {NONCANONICAL, UCS64 | 3, UDS | 3, VEC_GP, 0},
};

static void iretq_checks_both_segments(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(irets); i++) {
        const struct iret *t = &irets[i];
        fx_long(f, 0);
        int vector = iretq_frame(f, t->rip, t->cs, FLAG_ONE | FLAG_IF, t->ss);
        if (vector != t->vector || (vector >= 0 && f->v.fault_error != t->error)) {
            fail_msg("row %zu: vector %d error %x", i, vector, f->v.fault_error);
        }
        if (vector == NO_FAULT) {
            assert_int_equal(cpu_cpl(&f->v.c), t->cs & 3);
            assert_true(f->v.c.gpr[RSP] == STACK3);
        } else {
            assert_true(f->v.c.gpr[RSP] == STACK0 - 40 && cpu_cpl(&f->v.c) == 0);
        }
    }
}

static void iret_changes_the_flags_it_may(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    assert_int_equal(iretq_frame(f, CODE, CS64, UINT64_MAX & ~FLAG_VM & ~FLAG_NT, DS32), NO_FAULT);
    assert_true(c->rflags == (FLAGS_ARITH | FLAG_ONE | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL |
                              FLAG_RF | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID));
    fx_long(f, 0);
    c->rflags |= FLAG_NT;
    assert_int_equal(iretq_frame(f, CODE, CS64, FLAG_ONE, DS32), VEC_GP);
    fx_long(f, 3);
    put64(f, STACK3 - 40, CODE);
    put64(f, STACK3 - 32, UCS64 | 3);
    put64(f, STACK3 - 24, FLAG_ONE | FLAG_IF | FLAG_IOPL | FLAG_CF);
    put64(f, STACK3 - 16, STACK3);
    put64(f, STACK3 - 8, UDS | 3);
    c->gpr[RSP] = STACK3 - 40;
    assert_int_equal(RUN(f, 0x48, 0xcf), NO_FAULT);
    assert_true(c->rflags == (FLAG_ONE | FLAG_CF)); /* neither IF nor IOPL at CPL 3 */
}

static void into_virtual_8086_mode_and_back(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;
    const uint32_t frame[] = {0x10,   0x2000, (uint32_t)(FLAG_VM | FLAG_ONE | FLAG_IF),
                              0xfff0, 0x900,  0x111,
                              0x222,  0x333,  0x444}; /* eip cs fl esp ss es ds fs gs */

    fx_prot32(f, 0);
    c->gpr[RSP] = STACK0 - sizeof frame;
    assert_int_equal(ram_write(f->ram, STACK0 - sizeof frame, frame, sizeof frame), 0);
    assert_int_equal(RUN(f, 0xcf), NO_FAULT);
    assert_int_equal(cpu_mode_of(c), CPU_V86);
    assert_int_equal(cpu_cpl(c), 3);
    assert_true(c->seg[SEG_GS].base == 0x4440 && c->seg[SEG_CS].base == 0x20000);
    assert_int_equal(RUN(f, 0xfa), VEC_GP); /* cli: IOPL 0 */
    f->v.fault_kind = FAULT_EXCEPTION;
    assert_int_equal(exc_deliver_fault(&f->v), 0);
    assert_int_equal(cpu_mode_of(c), CPU_PROT32);
    assert_int_equal(c->seg[SEG_DS].attr, SEG_NULL);
    const uint32_t pushed[] = {
        0, 0x10, 0x2000, frame[2] | (uint32_t)FLAG_RF, 0xfff0, 0x900, 0x111, 0x222, 0x333, 0x444};
    assert_true(c->gpr[RSP] == STACK0 - sizeof pushed);
    for (unsigned i = 0; i < PLX_COUNT(pushed); i++) {
        assert_int_equal(get32(f, STACK0 - sizeof pushed + i * 4), pushed[i]);
    }
}

static void syscall_and_sysret(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_long(f, 3);
    c->star = (uint64_t)0x23 << 48 | (uint64_t)0x10 << 32;
    c->lstar = UINT64_C(0xffffffff81000000);
    c->sfmask = FLAG_IF | FLAG_TF | FLAG_DF;
    c->rflags = FLAG_ONE | FLAG_IF | FLAG_DF | FLAG_CF;
    assert_int_equal(RUN(f, 0x0f, 0x05), NO_FAULT);
    assert_true(c->rip == c->lstar && c->gpr[RCX] == CODE + 2);
    assert_true(c->gpr[R11] == (FLAG_ONE | FLAG_IF | FLAG_DF | FLAG_CF));
    assert_true(c->rflags == (FLAG_ONE | FLAG_CF));
    assert_int_equal(c->seg[SEG_CS].sel, 0x10);
    assert_int_equal(c->seg[SEG_SS].sel, 0x18);
    assert_int_equal(cpu_cpl(c), 0);
    assert_int_equal(cpu_mode_of(c), CPU_LONG64);
    c->gpr[RCX] = NONCANONICAL;
    assert_fault(f, VEC_GP, 0, 0x48, 0x0f, 0x07); /* sysretq faults at CPL 0 */
    assert_int_equal(cpu_cpl(c), 0);
    c->gpr[RCX] = CODE;
    c->gpr[R11] = UINT64_MAX;
    assert_int_equal(RUN(f, 0x48, 0x0f, 0x07), NO_FAULT);
    assert_true(c->rip == CODE && c->rflags == 0x3c7fd7);
    assert_int_equal(c->seg[SEG_CS].sel, 0x33);
    assert_int_equal(c->seg[SEG_SS].sel, 0x2b);
    assert_int_equal(cpu_cpl(c), 3);
    assert_fault(f, VEC_GP, 0, 0x48, 0x0f, 0x07); /* CPL 3 */
    fx_long(f, 0);
    c->star = (uint64_t)0x23 << 48;
    c->gpr[RCX] = UINT64_C(0x100001234);
    assert_int_equal(RUN(f, 0x0f, 0x07), NO_FAULT); /* to compatibility mode */
    assert_int_equal(cpu_mode_of(c), CPU_COMPAT32);
    assert_true(c->rip == 0x1234);
    assert_fault(f, VEC_UD, 0, 0x0f, 0x05); /* Intel: SYSCALL in 64-bit mode only */
    c->efer &= ~EFER_SCE;
    fx_long(f, 0);
    c->efer &= ~EFER_SCE;
    assert_fault(f, VEC_UD, 0, 0x0f, 0x05);
}

static void sysenter_and_sysexit(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_prot32(f, 3);
    assert_fault(f, VEC_GP, 0, 0x0f, 0x34); /* no segment set */
    c->sysenter_cs = 0x60;
    c->sysenter_esp = 0x5555;
    c->sysenter_eip = 0x6666;
    c->rflags |= FLAG_IF;
    assert_int_equal(RUN(f, 0x0f, 0x34), NO_FAULT);
    assert_true(c->rip == 0x6666 && c->gpr[RSP] == 0x5555 && (c->rflags & FLAG_IF) == 0);
    assert_int_equal(c->seg[SEG_SS].sel, 0x68);
    c->gpr[RDX] = 0x7777;
    c->gpr[RCX] = 0x8888;
    assert_int_equal(RUN(f, 0x0f, 0x35), NO_FAULT);
    assert_true(c->rip == 0x7777 && c->gpr[RSP] == 0x8888);
    assert_int_equal(c->seg[SEG_CS].sel, 0x73);
    assert_int_equal(c->seg[SEG_SS].sel, 0x7b);
    assert_int_equal(cpu_cpl(c), 3);
    assert_fault(f, VEC_GP, 0, 0x0f, 0x35);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(far_jumps_check_the_target),
        FX_TEST(far_call_and_return),
        FX_TEST(a_call_gate_raises_privilege),
        FX_TEST(a_32_bit_call_gate_copies_parameters),
        FX_TEST(iretq_checks_both_segments),
        FX_TEST(iret_changes_the_flags_it_may),
        FX_TEST(into_virtual_8086_mode_and_back),
        FX_TEST(syscall_and_sysret),
        FX_TEST(sysenter_and_sysexit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
