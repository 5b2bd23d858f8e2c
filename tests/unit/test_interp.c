/* SPDX-License-Identifier: Apache-2.0
 * The interpreter's loop. Bugs hunted: a budget that ends anywhere but at its end or changes a
 * result; code that was overwritten and still runs; REP that miscounts, or loses iterations at a
 * fault; interrupts taken too early, too late, or in a shadow; caches whose size matters. */
#include <stdio.h>

#include "tests/unit/cpu_guest.h"
#include "vmm/tunables.h"

static void runs_and_halts(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    G_EXEC(&g, 0xb8, 5, 0, 0, 0,      /* mov eax, 5 */
           0x48, 0x83, 0xc0, 0x03,    /* add rax, 3 */
           0x50, 0x5b,                /* push rax; pop rbx */
           0xe8, 2, 0, 0, 0, 0xeb, 4, /* call +2; jmp +4 */
           0x48, 0xff, 0xc3, 0xc3);   /* inc rbx; ret */
    assert_int_equal(g.v->c.gpr[RAX], 8);
    assert_int_equal(g.v->c.gpr[RBX], 9);
    assert_int_equal(g.v->c.gpr[RSP], G_STACK);
    assert_int_equal(g.v->c.retired, 9);
    assert_int_equal(g.v->c.progress, 9);
    g_close(&g);
}

/* A busy program: loops, memory, calls, REP of all kinds, self-modification. Ends in HLT. */
static const uint8_t program[] = {
    0xbe, 0x00, 0x00, 0x03, 0x00,       /* mov esi, 0x30000 */
    0xbf, 0x05, 0x10, 0x03, 0x00,       /* mov edi, 0x31005 */
    0xb9, 0xe8, 0x03, 0x00, 0x00,       /* mov ecx, 1000 */
    0xb8, 0x78, 0x56, 0x34, 0x12,       /* mov eax, 0x12345678 */
    0x57, 0x51,                         /* push rdi; push rcx */
    0xf3, 0xab,                         /* rep stosd */
    0x59, 0x5f,                         /* pop rcx; pop rdi */
    0x48, 0x89, 0xfe,                   /* mov rsi, rdi */
    0x48, 0x83, 0xc7, 0x03,             /* add rdi, 3 (overlap) */
    0xf3, 0xa4,                         /* rep movsb */
    0xb9, 0xc8, 0x00, 0x00, 0x00,       /* mov ecx, 200 */
    0xbf, 0x05, 0x10, 0x03, 0x00,       /* mov edi, 0x31005 */
    0xb0, 0x34,                         /* mov al, 0x34 */
    0xf2, 0xae,                         /* repne scasb */
    0xb9, 0x32, 0x00, 0x00, 0x00,       /* mov ecx, 50 */
    0x01, 0xc8,                         /* L: add eax, ecx */
    0xd1, 0xc0,                         /* rol eax, 1 */
    0x88, 0x05, 0x01, 0x00, 0x00, 0x00, /* mov [rip+1], al (the imm below) */
    0xb2, 0x00,                         /* mov dl, 0 (overwritten each time) */
    0x00, 0xd3,                         /* add bl, dl */
    0xe2, 0xf0,                         /* loop L */
    0xfd,                               /* std */
    0xb9, 0x21, 0x00, 0x00, 0x00,       /* mov ecx, 33 */
    0xf3, 0x48, 0xa5,                   /* rep movsq, downwards */
    0xfc,                               /* cld */
    0xf4,
};

static struct hash128 run_program(uint64_t budget, unsigned cache_entries, uint64_t *retired)
{
    struct guest g;
    struct hash128 h;
    unsigned runs = 0;

    g_open_with(&g, cache_entries);
    g_code(&g, G_CODE, program, sizeof program);
    enum vcpu_stop stop;
    do {
        uint64_t before = g.v->c.progress;
        stop = g_run(&g, budget);
        if (stop == VCPU_BUDGET) {
            assert_int_equal(g.v->c.progress - before, budget);
        }
        assert_true(++runs < 100000);
    } while (stop == VCPU_BUDGET);
    assert_int_equal(stop, VCPU_HALT);
    *retired = g.v->c.retired;
    h = g_hash(&g);
    g_close(&g);
    return h;
}

static void budgets_and_caches_change_nothing(void **state)
{
    static const uint64_t budgets[] = {1, 2, 3, 5, 7, 13, 64, 1000};
    uint64_t retired, r;
    struct hash128 want = run_program(1000000, 0, &retired);

    (void)state;
    for (unsigned i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
        struct hash128 h = run_program(budgets[i], i % 2 == 0 ? 0 : 16, &r);
        assert_int_equal(r, retired);
        assert_true(hash128_eq(h, want));
    }
}

static void rep_counts(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RCX] = 100;
    G_EXEC(&g, 0xf3, 0xaa); /* rep stosb: 4 units, 100 iterations */
    assert_int_equal(g.v->c.retired, 101);
    assert_int_equal(g.v->c.progress, 5);
    assert_int_equal(g.v->c.gpr[RCX], 0);
    G_EXEC(&g, 0xf3, 0xaa); /* none: 1 and 1 */
    assert_int_equal(g.v->c.retired, 103);
    assert_int_equal(g.v->c.progress, 7);
    g_close(&g);
}

/* A fault in the middle of REP MOVS: what was done stays done, the registers say where. */
static void rep_fault_in_the_middle(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RSI] = G_DATA;
    g.v->c.gpr[RDI] = G_UNMAPPED - 40;
    g.v->c.gpr[RCX] = 100;
    memset(g_at(&g, G_DATA), 0x5a, 100);
    G_EXEC(&g, 0xf3, 0xa4);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g.v->c.cr2, G_UNMAPPED);
    assert_int_equal(g.v->c.gpr[RCX], 60);
    assert_int_equal(g.v->c.gpr[RDI], G_UNMAPPED);
    assert_int_equal(g.v->c.gpr[RSI], G_DATA + 40);
    assert_int_equal(g_get(&g, G_UNMAPPED - 8), 0x5a5a5a5a5a5a5a5a);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP] + 8), G_CODE); /* pushed: error, RIP */
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), PF_W);
    g_close(&g);
}

/* A store to the next instruction, directly and through another linear address. */
static void overwritten_code_is_seen_at_once(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    /* alias: linear 0x100000 maps G_CODE */
    g_put(&g, G_PT + 0x100 * 8, G_CODE | 7, 8);
    for (unsigned pass = 0; pass < 3; pass++) {
        uint32_t base = pass == 1 ? 0x100000 : G_CODE;
        g.v->c.gpr[RBX] = base + 5;
        g.v->c.gpr[RAX] = 0;
        G_EXEC(&g, 0xc6, 0x43, 0x00, 0x42, 0x90, /* mov byte [rbx], 0x42; nop */
               0x90, 0x90);                      /* becomes 42 90: rex.x nop */
        assert_int_equal(g.v->c.gpr[RAX], 0);
        G_EXEC(&g, 0x66, 0xc7, 0x03, 0xb0, 0x77, /* mov word [rbx], 0x77b0 */
               0x90, 0x90);                      /* becomes mov al, 0x77 */
        assert_int_equal(g.v->c.gpr[RAX], 0x77);
    }
    g_close(&g);
}

static void instruction_across_pages(void **state)
{
    struct guest g;
    uint64_t at = G_CODE + 0x1000 - 3;

    (void)state;
    g_open(&g);
    for (unsigned i = 0; i < 3; i++) {
        G_CODE_AT(&g, at, 0xb8, 0x01, 0x02, (uint8_t)(3 + i), 0x04, 0xf4);
        g.v->c.rip = at;
        g.v->c.halted = 0;
        assert_int_equal(g_run(&g, 10), VCPU_HALT);
        assert_int_equal(g.v->c.gpr[RAX], 0x04030201 + (i << 16));
    }
    /* the second page is absent: the fault names it, the code did not run */
    g_put(&g, G_PT + ((at >> 12) + 1) * 8, 0, 8);
    g.v->c.rip = at;
    g.v->c.halted = 0;
    assert_int_equal(g_run(&g, 10), VCPU_HALT);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g.v->c.cr2, PAGE_BASE(at) + 0x1000);
    g_close(&g);
}

static void interrupts_and_shadows(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    /* STI; NOP; NOP: the first NOP is in the shadow */
    g.vector = 40;
    g.v->irq_pending = true;
    G_EXEC(&g, 0xfb, 0x90, 0x90);
    assert_int_equal(g_vector(&g), 40);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE + 2);
    /* HLT with IF set is woken */
    g.v->c.gpr[RSP] = G_STACK;
    G_EXEC(&g, 0xfb, 0xf4);
    g.vector = 41;
    g.v->irq_pending = true;
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(g.v->c.rip, G_STUBS + 41 * 16);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE + 2);
    g_close(&g);
}

static void pause_yields(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.run.alone = false;
    G_CODE_AT(&g, G_CODE, 0xf3, 0x90, 0xeb, 0xfc); /* pause; jmp */
    assert_int_equal(g_run(&g, 1000), VCPU_YIELD);
    assert_int_equal(g.v->c.retired, 2 * PAUSE_YIELD - 1);
    g.run.alone = true;
    assert_int_equal(g_run(&g, 1000), VCPU_BUDGET);
    g_close(&g);
}

static void parallel_part_stops_before_mmio(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    G_CODE_AT(&g, G_CODE, 0x83, 0x04, 0x25, 0x10, 0x00, 0x40, 0x00, 0x01,
              0xf4); /* add [0x400010], 1 */
    g.run.part = PART_PARALLEL;
    assert_int_equal(g_run(&g, 10), VCPU_SERIAL);
    assert_int_equal(g.v->c.rip, G_CODE);
    assert_int_equal(g.v->c.progress, 0);
    assert_int_equal(g.nmmio, 0);
    g.run.part = PART_SERIAL;
    assert_int_equal(g_run(&g, 10), VCPU_HALT);
    assert_int_equal(g.nmmio, 2);
    assert_int_equal(g.mmio[0], 0x80000010);
    assert_int_equal(g.mmio[1], 4);
    assert_int_equal(g.mmio[2], 0x80000012);
    g_close(&g);
}

static void undefined_instructions(void **state)
{
    static const uint8_t bad[][8] = {
        {0x0f, 0x0b},
        {0x06},
        {0xf0, 0x90},
        {0xc5, 0xf8, 0x58, 0xc0},
        {0x66, 0x0f, 0x38, 0xdc, 0xc0},
        {0xd6},
        {0x0f, 0x38, 0xf0, 0x00},
        {0xf3, 0x0f, 0xc7, 0xf8},
        {0x8d, 0xc0},
    };
    struct guest g;

    (void)state;
    g_open(&g);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        g.v->c.gpr[RSP] = G_STACK;
        g_exec(&g, bad[i], sizeof bad[i]);
        assert_int_equal(g_vector(&g), VEC_UD);
        assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE);
    }
    g.v->c.gpr[RSP] = G_STACK;
    G_EXEC(&g, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
           0x66, 0x90);
    assert_int_equal(g_vector(&g), VEC_GP);
    g_close(&g);
}

/* F3 0F BC/BD are BSF/BSR on a model without BMI. */
static void tzcnt_is_bsf(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RCX] = 0x1000;
    G_EXEC(&g, 0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0xd1); /* eax, ecx; edx, ecx */
    assert_int_equal(g.v->c.gpr[RAX], 12);
    assert_int_equal(g.v->c.gpr[RDX], 12);
    g.v->c.gpr[RAX] = UINT64_C(0xffffffff00000007);
    G_EXEC(&g, 0x31, 0xc9, 0xf3, 0x0f, 0xbc, 0xc1);
    assert_int_equal(g.v->c.gpr[RAX], UINT64_C(0xffffffff00000007));
    assert_true((g.v->c.rflags & FLAG_ZF) != 0);
    g_close(&g);
}

/* Their values (undefined.h), whatever some processor makes of them. */
static void undefined_results_have_one_value(void **state)
{
    const uint64_t old = UINT64_C(0xfedcba9812345678);
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RAX] = g.v->c.gpr[RDX] = g.v->c.gpr[RBX] = old;
    g.v->c.gpr[RCX] = 0;
    G_EXEC(&g, 0x0f, 0xbc, 0xc1, 0x0f, 0xbd, 0xd1,          /* bsf eax, ecx; bsr edx, ecx */
           0x66, 0x0f, 0xbc, 0xd9, 0x48, 0x0f, 0xbd, 0xd9); /* bsf bx, cx; bsr rbx, rcx */
    assert_int_equal(g.v->c.gpr[RAX], old);
    assert_int_equal(g.v->c.gpr[RDX], old);
    assert_int_equal(g.v->c.gpr[RBX], old);
    g.v->c.gpr[RBX] = 0x9abc;
    g.v->c.gpr[RCX] = 24;
    G_EXEC(&g, 0x66, 0x0f, 0xa4, 0xd8, 20, 0x66, 0x0f, 0xad, 0xda, /* shld ax, bx, 20 */
           0x66, 0x0f, 0xcb);                                      /* shrd dx, bx, cl; bswap bx */
    assert_int_equal(g.v->c.gpr[RAX], (old & ~UINT64_C(0xffff)) | 0xabc5);
    assert_int_equal(g.v->c.gpr[RDX], (old & ~UINT64_C(0xffff)) | 0x789a);
    assert_int_equal(g.v->c.gpr[RBX], 0);
    g_close(&g);
}

static void single_step_traps_after_each(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.rflags |= FLAG_TF;
    G_EXEC(&g, 0xb8, 1, 0, 0, 0, 0x90);
    assert_int_equal(g_vector(&g), VEC_DB);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE + 5);
    assert_int_equal(g.v->c.gpr[RAX], 1);
    g_close(&g);
}

static void other_modes(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g_select_mode(&g, GUEST32, 0);
    G_EXEC(&g, 0xb8, 0xff, 0xff, 0xff, 0x7f, 0x40, /* mov eax, 0x7fffffff; inc eax */
           0x60, 0x61,                             /* pusha; popa */
           0xa3, 0x00, 0x00, 0x03, 0x00,           /* mov [0x30000], eax */
           0x66, 0x40,                             /* inc ax */
           0x8b, 0x1d, 0x00, 0x00, 0x03, 0x00);    /* mov ebx, [0x30000] */
    assert_int_equal(g.v->c.gpr[RAX], 0x80000001);
    assert_int_equal(g.v->c.gpr[RBX], 0x80000000);
    assert_int_equal(g.v->c.gpr[RSP], G_STACK);
    g_select_mode(&g, GUEST16, 0);
    G_EXEC(&g, 0xb8, 0x34, 0x12, 0x66, 0xbb, 1, 0, 3, 0, /* mov ax, 0x1234; mov ebx, 0x30001 */
           0x67, 0x89, 0x03,                             /* mov [ebx], ax */
           0xd4, 0x0a, 0x27);                            /* aam; daa */
    assert_int_equal(g_get(&g, G_DATA) >> 8 & 0xffff, 0x1234);
    assert_int_equal(g.v->c.gpr[RAX] & 0xffff, 0x0502);
    g_close(&g);
}

/* A fault in the middle of a unit of REP that the budget has paid for: the budget still holds. */
static void rep_fault_where_the_budget_ends(void **state)
{
    struct guest g;

    (void)state;
    for (uint64_t budget = 1; budget < 8; budget++) {
        g_open(&g);
        g.v->c.gpr[RSI] = G_DATA;
        g.v->c.gpr[RDI] = G_UNMAPPED - 40;
        g.v->c.gpr[RCX] = 100;
        G_CODE_AT(&g, G_CODE, 0xf3, 0xa4, 0xf4);
        enum vcpu_stop stop;
        do {
            uint64_t before = g.v->c.progress;
            stop = g_run(&g, budget);
            assert_true(g.v->c.progress - before <= budget);
        } while (stop == VCPU_BUDGET);
        assert_int_equal(g_vector(&g), VEC_PF);
        assert_int_equal(g.v->c.gpr[RCX], 60);
        assert_int_equal(g.v->c.progress,
                         4); /* three units, of which the fault ends one; HLT of the handler */
        g_close(&g);
    }
}

/* A store to the entry that maps the code itself holds from the next instruction on, wherever
 * decoded blocks and budgets end. */
static void unmapped_code_stops_at_once(void **state)
{
    struct guest g;

    (void)state;
    for (unsigned level = 0; level < 2; level++) {
        for (uint64_t budget = 1; budget < 5; budget++) {
            g_open(&g);
            g.v->c.gpr[RBX] = level == 0 ? G_PT + (G_CODE >> 12) * 8 : G_PD;
            /* linear 6 MiB stays mapped: handler and stack */
            g_put(&g, G_PD + 24, 0 | 0x87, 8);
            g.v->c.idtr.base += 0x600000;
            g.v->c.gdtr.base += 0x600000;
            g.v->c.gpr[RSP] += 0x600000;
            for (uint64_t vec = 0; vec < 48; vec++) {
                g_put(&g, G_IDT + vec * 16 + 6, (G_STUBS + 0x600000) >> 16, 2);
            }
            g.v->c.gpr[RBX] += 0x600000;
            G_CODE_AT(&g, G_CODE, 0x48, 0xc7, 0x03, 0, 0, 0, 0, /* mov qword [rbx], 0 */
                      0xff, 0xc0, 0xff, 0xc0, 0xf4);            /* inc eax; inc eax; hlt */
            g.v->c.rip = G_CODE;
            while (g_run(&g, budget) == VCPU_BUDGET) {
            }
            assert_int_equal(g.v->c.gpr[RAX], 0);
            assert_int_equal(g.v->c.cr2, G_CODE + 7);
            g_close(&g);
        }
    }
}

/* In 32-bit code the instruction pointer wraps at 4 GiB, also where a budget ends. */
static void rip_wraps_at_4_gib(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g_select_mode(&g, GUEST32, 0);
    g.v->c.seg[SEG_CS].base = 0x10001; /* linear 0x10000 is offset -1 */
    G_CODE_AT(&g, G_CODE, 0x90, 0x40, 0xf4);
    g.v->c.rip = UINT32_MAX;
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(g.v->c.rip, 0);
    assert_int_equal(g_run(&g, 10), VCPU_HALT);
    assert_int_equal(g.v->c.gpr[RAX], 1);
    g_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_and_halts),
        cmocka_unit_test(budgets_and_caches_change_nothing),
        cmocka_unit_test(rep_counts),
        cmocka_unit_test(rep_fault_in_the_middle),
        cmocka_unit_test(overwritten_code_is_seen_at_once),
        cmocka_unit_test(instruction_across_pages),
        cmocka_unit_test(interrupts_and_shadows),
        cmocka_unit_test(pause_yields),
        cmocka_unit_test(parallel_part_stops_before_mmio),
        cmocka_unit_test(undefined_instructions),
        cmocka_unit_test(tzcnt_is_bsf),
        cmocka_unit_test(undefined_results_have_one_value),
        cmocka_unit_test(single_step_traps_after_each),
        cmocka_unit_test(other_modes),
        cmocka_unit_test(rep_fault_where_the_budget_ends),
        cmocka_unit_test(unmapped_code_stops_at_once),
        cmocka_unit_test(rip_wraps_at_4_gib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
