/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a frame with a wrong word, a wrong stack, a missed privilege check on the way to a
 * handler, faults during delivery that do not fold as the SDM's table says. */
#include "tests/unit/cpu_fixture.h"

#include "vmm/cpu/vcpu.h"

/* Deliver @vector as if the instruction at rip had raised it. */
static int fault(struct fixture *f, unsigned vector, bool has_error, uint32_t error)
{
    f->v.fault_kind = FAULT_EXCEPTION;
    f->v.fault_vector = (uint8_t)vector;
    f->v.fault_has_error = has_error;
    f->v.fault_error = error;
    return exc_deliver_fault(&f->v);
}

static void set_gate64(struct fixture *f, unsigned vector, uint64_t raw)
{
    put64(f, IDT + vector * 16, raw);
}

static void a_fault_in_user_code_switches_to_rsp0(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_long(f, 3);
    c->rflags = FLAG_ONE | FLAG_IF | FLAG_TF | FLAG_NT | FLAG_CF;
    put64(f, TSS + 4, STACK0 + 4); /* aligned down to 16 */
    f->v.cr2 = 0x1234;
    assert_int_equal(fault(f, VEC_PF, true, PF_W | PF_U), 0);
    assert_true(c->rip == HANDLER + VEC_PF);
    assert_true(c->cr2 == 0x1234);
    assert_int_equal(cpu_cpl(c), 0);
    assert_int_equal(c->seg[SEG_CS].sel, CS64);
    assert_int_equal(c->seg[SEG_SS].sel, 0);
    assert_true(c->gpr[RSP] == STACK0 - 48);
    const uint64_t frame[] = {
        PF_W | PF_U, CODE,   UCS64 | 3, FLAG_ONE | FLAG_IF | FLAG_TF | FLAG_NT | FLAG_CF | FLAG_RF,
        STACK3,      UDS | 3};
    for (unsigned i = 0; i < PLX_COUNT(frame); i++) {
        assert_true(get64(f, STACK0 - 48 + i * 8) == frame[i]);
    }
    assert_true(c->rflags == (FLAG_ONE | FLAG_CF));
}

static void same_privilege_keeps_the_stack_but_aligns_it(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->gpr[RSP] = STACK0 - 3;
    c->rflags = FLAG_ONE | FLAG_IF;
    set_gate64(f, 0x80, gate(0x8f, CS64, HANDLER + 0x80, 0)); /* a trap gate */
    assert_int_equal(exc_deliver_interrupt(&f->v, 0x80), 0);
    assert_true(c->gpr[RSP] == STACK0 - 16 - 40);
    assert_true(get64(f, STACK0 - 16 - 16) == STACK0 - 3);
    assert_true(get64(f, STACK0 - 16 - 24) == (FLAG_ONE | FLAG_IF)); /* no RF: an interrupt */
    assert_int_equal(c->seg[SEG_SS].sel, DS32);
    assert_true((c->rflags & FLAG_IF) != 0);
}

static void an_ist_replaces_any_stack(void **state)
{
    struct fixture *f = *state;

    set_gate64(f, VEC_NMI, gate(0x8e, CS64, HANDLER + 2, 1));
    f->v.c.halted = 1;
    f->v.c.nmi_pending = 1;
    assert_int_equal(exc_deliver_nmi(&f->v), 0);
    assert_true(f->v.c.gpr[RSP] == STACK_IST - 40);
    assert_int_equal(f->v.c.nmi_blocked, 1);
    assert_int_equal(f->v.c.nmi_pending, 0);
    assert_int_equal(f->v.c.halted, 0);
    assert_int_equal(RUN(f, 0x48, 0xcf), NO_FAULT); /* iretq */
    assert_int_equal(f->v.c.nmi_blocked, 0);
    assert_true(f->v.c.gpr[RSP] == STACK0);
    assert_true(f->v.c.rip == CODE);
}

static void protected_mode_frames_have_four_byte_words(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_prot32(f, 3);
    assert_int_equal(fault(f, VEC_GP, true, 0x18), 0);
    const uint32_t frame[] = {0x18,   CODE,   UCS32 | 3, (uint32_t)(FLAG_ONE | FLAG_RF),
                              STACK3, UDS | 3};
    assert_true(c->gpr[RSP] == STACK0 - sizeof frame);
    for (unsigned i = 0; i < PLX_COUNT(frame); i++) {
        assert_int_equal(get32(f, STACK0 - sizeof frame + i * 4), frame[i]);
    }
    assert_int_equal(c->seg[SEG_SS].sel, DS32);
    assert_int_equal(cpu_cpl(c), 0);
    c->gpr[RSP] += 4;
    assert_int_equal(RUN(f, 0xcf), NO_FAULT); /* iretd to the outer level */
    assert_int_equal(cpu_cpl(c), 3);
    assert_true(c->gpr[RSP] == STACK3);
    assert_true(c->rip == CODE);
}

/* What INT n raises when its gate is not right; the same for an interrupt sets EXT. */
static const struct bad_gate {
    uint64_t raw;
    unsigned cpl;
    int vector;
    uint32_t error; /* of INT 0x80 */
} bad_gates[] = {
    {0, 0, VEC_GP, 0x402},                                           /* no gate */
    {(uint64_t)0x8c << 40, 0, VEC_GP, 0x402},                        /* a call gate */
    {(uint64_t)0x86 << 40, 0, VEC_GP, 0x402},                        /* 16-bit, in IA-32e mode */
    {(uint64_t)0x0e << 40 | (uint64_t)CS64 << 16, 0, VEC_NP, 0x402}, /* absent */
    {(uint64_t)0x8e << 40, 0, VEC_GP, 0},                            /* null selector */
    {(uint64_t)0x8e << 40 | (uint64_t)DS32 << 16, 0, VEC_GP, DS32},
    {(uint64_t)0x8e << 40 | (uint64_t)CS32 << 16, 0, VEC_GP, CS32}, /* not 64-bit */
    {(uint64_t)0x8e << 40 | (uint64_t)CS_ABSENT << 16, 0, VEC_NP, CS_ABSENT},
    {(uint64_t)0x8e << 40 | (uint64_t)CS_OUTSIDE << 16, 0, VEC_GP, CS_OUTSIDE},
    {(uint64_t)0x8e << 40 | (uint64_t)UCS64 << 16, 0, VEC_GP, UCS64}, /* less privilege */
    {(uint64_t)0x8e << 40 | (uint64_t)CS64 << 16, 3, VEC_GP, 0x402},  /* gate DPL 0 < CPL 3 */
};

static void bad_gates_name_themselves(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(bad_gates); i++) {
        const struct bad_gate *b = &bad_gates[i];
        fx_long(f, b->cpl);
        set_gate64(f, 0x80, b->raw);
        int vector = RUN(f, 0xcd, 0x80);
        if (vector != b->vector || f->v.fault_error != b->error) {
            fail_msg("row %zu: vector %d error %x", i, vector, f->v.fault_error);
        }
        assert_true(f->v.c.rip == CODE);
        if (b->cpl != 0) {
            continue;
        }
        /* As an interrupt the same problem becomes a fault of its own, with EXT. */
        assert_int_equal(exc_deliver_interrupt(&f->v, 0x80), 0);
        assert_true(f->v.c.rip == (uint64_t)HANDLER + (unsigned)b->vector);
        assert_int_equal(get64(f, f->v.c.gpr[RSP]), b->error | 1);
    }
    f->v.c.idtr.limit = 0x80f - 1;
    assert_int_equal(RUN(f, 0xcd, 0x80), VEC_GP);
}

static void software_interrupts_return_to_the_next_instruction(void **state)
{
    struct fixture *f = *state;

    fx_long(f, 3);
    set_gate64(f, VEC_BP, gate(0xee, CS64, HANDLER + VEC_BP, 0));
    assert_int_equal(RUN(f, 0xcc), NO_FAULT);
    assert_true(f->v.c.rip == HANDLER + VEC_BP);
    assert_true(get64(f, f->v.c.gpr[RSP]) == CODE + 1);
    fx_long(f, 3);
    assert_int_equal(RUN(f, 0xcc), VEC_GP); /* DPL 0 now */
    assert_int_equal(f->v.fault_error, VEC_BP * 8 | 2);
    assert_int_equal(RUN(f, 0xf1), NO_FAULT); /* INT1 passes any gate */
    assert_true(f->v.c.rip == HANDLER + VEC_DB);
}

/* Make the handler of @vector fail with what its gate's selector gives. */
static void break_gate(struct fixture *f, unsigned vector)
{
    put64(f, IDT + vector * 16, 0);
}

static const struct folding {
    uint8_t first;
    bool first_has_error;
    bool double_fault; /* with a broken gate, which adds a #GP */
} foldings[] = {
    {VEC_UD, false, false}, {VEC_DE, false, true}, {VEC_NP, true, true},   {VEC_GP, true, true},
    {VEC_PF, true, true},   {VEC_AC, true, false}, {VEC_BP, false, false},
};

static void faults_fold_by_class(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(foldings); i++) {
        const struct folding *t = &foldings[i];
        if (t->first == VEC_GP) {
            continue; /* its second fault is delivered through the same gate: below */
        }
        fx_long(f, 0);
        break_gate(f, t->first);
        assert_int_equal(fault(f, t->first, t->first_has_error, 0), 0);
        unsigned got = (unsigned)(f->v.c.rip - HANDLER);
        assert_int_equal(got, t->double_fault ? VEC_DF : VEC_GP);
        assert_int_equal(get64(f, f->v.c.gpr[RSP]), t->double_fault ? 0U : t->first * 8U | 2 | 1);
        assert_true(get64(f, f->v.c.gpr[RSP] + 8) == CODE);
    }
    fx_long(f, 0);
    break_gate(f, VEC_GP);
    assert_int_equal(fault(f, VEC_GP, true, 0), 0);
    assert_true(f->v.c.rip == HANDLER + VEC_DF);
}

/* A page fault while delivering a benign or contributory exception is a page fault; one while
 * delivering a page fault is a double fault. */
static void page_faults_on_the_way(void **state)
{
    struct fixture *f = *state;

    fx_long(f, 3);
    put64(f, TSS + 4, 0x40001000); /* not mapped: only 1 GiB is */
    set_gate64(f, VEC_PF, gate(0x8e, CS64, HANDLER + VEC_PF, 1));
    assert_int_equal(fault(f, VEC_GP, true, 0), 0);
    assert_true(f->v.c.rip == HANDLER + VEC_PF);
    assert_true(f->v.c.cr2 == 0x40001000 - 8);
    fx_long(f, 3);
    put64(f, TSS + 4, 0x40001000);
    set_gate64(f, VEC_DF, gate(0x8e, CS64, HANDLER + VEC_DF, 1));
    f->v.cr2 = 0x777;
    assert_int_equal(fault(f, VEC_PF, true, 0), 0);
    assert_true(f->v.c.rip == HANDLER + VEC_DF);
    assert_true(f->v.c.cr2 == 0x40001000 - 8);
}

static void a_third_fault_shuts_down(void **state)
{
    struct fixture *f = *state;

    f->v.c.idtr.limit = 0;
    assert_int_equal(fault(f, VEC_UD, false, 0), VCPU_SHUTDOWN);
    fx_long(f, 0);
    break_gate(f, VEC_GP);
    break_gate(f, VEC_DF);
    break_gate(f, VEC_PF);
    assert_int_equal(fault(f, VEC_PF, true, 0), VCPU_SHUTDOWN);
    fx_prot32(f, 0);
    f->v.c.idtr.limit = 0;
    assert_int_equal(exc_deliver_interrupt(&f->v, 0x20), VCPU_SHUTDOWN);
}

/* The caller's jump buffer is its own again after a delivery that faulted inside. */
static void delivery_restores_the_jump_buffer(void **state)
{
    struct fixture *f = *state;
    volatile bool came_back = false;

    if (setjmp(f->v.fault_jmp) == 0) {
        break_gate(f, VEC_UD);
        assert_int_equal(fault(f, VEC_UD, false, 0), 0);
        cpu_raise(&f->v, VEC_UD);
    } else {
        came_back = true;
    }
    assert_true(came_back);
}

static void single_steps_trap_after_the_instruction(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->rflags |= FLAG_TF;
    assert_true(exc_must_step(&f->v));
    exc_step_before(&f->v);
    assert_int_equal(RUN(f, 0x90), NO_FAULT);
    assert_int_equal(exc_step_after(&f->v), 0);
    assert_true(c->rip == HANDLER + VEC_DB);
    assert_true((c->dr[6] & 0x4000) != 0);
    assert_true(get64(f, c->gpr[RSP]) == CODE + 1);
    assert_true((c->rflags & FLAG_TF) == 0);
}

static void instruction_breakpoints_respect_rf(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->dr[0] = CODE;
    c->gpr[RAX] = 1;
    assert_int_equal(RUN(f, 0x0f, 0x23, 0xf8), NO_FAULT); /* mov dr7, rax */
    assert_true(f->v.debug);
    c->rip = CODE;
    if (setjmp(f->v.fault_jmp) == 0) {
        exc_step_before(&f->v);
        fail();
    }
    assert_int_equal(f->v.fault_vector, VEC_DB);
    assert_int_equal(exc_deliver_fault(&f->v), 0);
    assert_true(get64(f, c->gpr[RSP]) == CODE);
    assert_true((c->dr[6] & 0xf) == 1);
    c->rip = CODE;
    c->rflags |= FLAG_RF;
    exc_step_before(&f->v);
    assert_int_equal(RUN(f, 0x90), NO_FAULT);
    assert_int_equal(exc_step_after(&f->v), 0);
    assert_true((c->rflags & FLAG_RF) == 0);
    assert_true(c->rip == CODE + 1);
}

static void data_breakpoints_match_their_range(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->dr[1] = DATA;
    c->gpr[RAX] = 1 << 2 | 0xd << 20; /* L1; writes, 4 bytes */
    assert_int_equal(RUN(f, 0x0f, 0x23, 0xf8), NO_FAULT);
    c->gpr[RDI] = DATA + 3;
    exc_step_before(&f->v);
    assert_int_equal(RUN(f, 0x8a, 0x07), NO_FAULT); /* mov al, [rdi]: a read */
    assert_int_equal(f->v.debug_hits, 0);
    exc_step_before(&f->v);
    assert_int_equal(RUN(f, 0x88, 0x07), NO_FAULT); /* mov [rdi], al */
    assert_int_equal(f->v.debug_hits, 2);
    assert_int_equal(exc_step_after(&f->v), 0);
    assert_true(c->rip == HANDLER + VEC_DB);
    assert_true((c->dr[6] & 0xf) == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(a_fault_in_user_code_switches_to_rsp0),
        FX_TEST(same_privilege_keeps_the_stack_but_aligns_it),
        FX_TEST(an_ist_replaces_any_stack),
        FX_TEST(protected_mode_frames_have_four_byte_words),
        FX_TEST(bad_gates_name_themselves),
        FX_TEST(software_interrupts_return_to_the_next_instruction),
        FX_TEST(faults_fold_by_class),
        FX_TEST(page_faults_on_the_way),
        FX_TEST(a_third_fault_shuts_down),
        FX_TEST(delivery_restores_the_jump_buffer),
        FX_TEST(single_steps_trap_after_the_instruction),
        FX_TEST(instruction_breakpoints_respect_rf),
        FX_TEST(data_breakpoints_match_their_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
