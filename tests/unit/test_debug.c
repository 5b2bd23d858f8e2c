/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_debug.c - single steps and breakpoints over code that is hot, by either engine
 * (SDM Vol. 3B, "Debug Exceptions"): what a guest turns on is met from the next instruction on, and
 * where #DB says so.
 *
 * Hunts: a breakpoint or TF that code translated before, or an access whose translation is cached,
 * does not see; one that is seen too late, or still when it is off; RF that outlives its
 * instruction. Expected values are written down: both engines share what they could have wrong. */
#include "tests/unit/cpu_guest.h"

#include "base/check.h"

enum { TURNS = 400, WRITES_OF_4 = 0xd, DATA_AT = G_DATA + 0x100 };

static const struct engine_ops *const engines[] = {&engine_interp, &engine_jit};

/* At G_CODE: stores to DATA_AT, TURNS times in a row. */
static const uint8_t hot[] = {
    0xb9, TURNS & 0xff, TURNS >> 8, 0, 0, /* mov ecx, TURNS */
    0x89, 0x0e,                           /* mov [rsi], ecx */
    0xff, 0xc9,                           /* dec ecx */
    0x75, 0xfa,                           /* jnz to the store */
};
enum { STORE = G_CODE + 5, DECREMENT = G_CODE + 7, BEHIND = G_CODE + sizeof hot };

/* Runs it and then @code, of @n bytes, with @dr7 in RAX and CR3 in RDX, until it halts. */
static void run_behind(struct guest *g, const void *code, size_t n, uint64_t dr7)
{
    struct cpu *c = &g->v->c;

    g_code(g, G_CODE, hot, sizeof hot);
    g_code(g, BEHIND, code, n);
    g_put(g, BEHIND + n, 0xf4, 1);
    c->gpr[RSI] = DATA_AT;
    c->gpr[RAX] = dr7;
    c->gpr[RDX] = c->cr3;
    c->rip = G_CODE;
    assert_int_equal(g_run(g, 100000), VCPU_HALT);
}

/* It halted in the handler of #DB, which came at @rip. */
static void assert_debug(struct guest *g, uint64_t rip, uint64_t dr6)
{
    assert_int_equal(g_vector(g), VEC_DB);
    assert_int_equal(g_get(g, g->v->c.gpr[RSP]), rip);
    assert_int_equal(g->v->c.dr[6] & 0xe00f, dr6);
}

/* The page's translation is cached; a load of CR3 and a change of AC do not bring it back. */
static void a_store_meets_a_new_breakpoint(void **state)
{
    static const struct {
        uint8_t n, bytes[10];
    } cases[] = {
        {5, {0x0f, 0x23, 0xf8, 0x89, 0x0e}},                                /* mov dr7, rax */
        {8, {0x0f, 0x23, 0xf8, 0x0f, 0x22, 0xda, 0x89, 0x0e}},              /* mov cr3, rdx */
        {8, {0x0f, 0x22, 0xda, 0x0f, 0x23, 0xf8, 0x89, 0x0e}},              /* before */
        {8, {0x0f, 0x23, 0xf8, 0x0f, 0x01, 0xca, 0x89, 0x0e}},              /* clac */
        {9, {0x0f, 0x23, 0xf8, 0x89, 0x4e, 0x04, 0x90, 0x89, 0x0e}},        /* beside it */
        {10, {0x0f, 0x23, 0xf8, 0x8b, 0x3e, 0x90, 0x90, 0x90, 0x89, 0x0e}}, /* a load */
    };
    struct guest g;

    (void)state;
    for (unsigned e = 0; e < PLX_COUNT(engines); e++) {
        for (unsigned i = 0; i < PLX_COUNT(cases); i++) {
            g_open_engine(&g, engines[e], NULL, 0);
            g.v->c.dr[0] = DATA_AT;
            run_behind(&g, cases[i].bytes, cases[i].n, 1 | WRITES_OF_4 << 16);
            assert_debug(&g, BEHIND + cases[i].n, 1);
            assert_int_equal(g_get(&g, DATA_AT) & UINT32_MAX, 0); /* it is a trap */
            g_close(&g);
        }
    }
}

/* A fault, before the store that has been run so often; off again, it is not met. */
static void hot_code_meets_a_new_breakpoint(void **state)
{
    static const uint8_t on[] = {0x0f, 0x23, 0xf8,              /* mov dr7, rax */
                                 0xb9, 3,    0,    0,    0,     /* mov ecx, 3 */
                                 0xe9, 0xed, 0xff, 0xff, 0xff}; /* jmp to the store */
    static const uint8_t off[] = {0x0f, 0x23, 0xf8, 0x31, 0xc0, 0x0f, 0x23, 0xf8, /* xor eax, eax */
                                  0x89, 0x0e};
    struct guest g;

    (void)state;
    for (unsigned e = 0; e < PLX_COUNT(engines); e++) {
        g_open_engine(&g, engines[e], NULL, 0);
        g.v->c.dr[1] = DECREMENT;
        run_behind(&g, on, sizeof on, 1 << 2);
        assert_debug(&g, DECREMENT, 2);
        assert_int_equal(g_get(&g, DATA_AT) & UINT32_MAX, 3);
        g_close(&g);
        g_open_engine(&g, engines[e], NULL, 0);
        g.v->c.dr[0] = DATA_AT;
        run_behind(&g, off, sizeof off, 1 | WRITES_OF_4 << 16);
        assert_int_equal(g.v->c.rip, BEHIND + sizeof off + 1);
        g_close(&g);
    }
}

/* POPF in a loop that is translated: the trap comes after the instruction behind it. */
static void a_new_single_step_is_taken(void **state)
{
    static const uint8_t loop[] = {
        0x52, 0x9d,       /* push rdx; popfq */
        0x48, 0xff, 0xc3, /* inc rbx */
        0x48, 0xff, 0xc7, /* inc rdi */
        0xeb, 0xf6,       /* jmp back */
    };
    struct guest g;

    (void)state;
    for (unsigned e = 0; e < PLX_COUNT(engines); e++) {
        for (unsigned stop = 0; stop < 5; stop++) { /* anywhere in it */
            struct cpu *c;
            g_open_engine(&g, engines[e], NULL, 0);
            c = &g.v->c;
            g_code(&g, G_CODE, loop, sizeof loop);
            c->gpr[RDX] = FLAG_ONE;
            assert_int_equal(g_run(&g, 5 * TURNS + stop), VCPU_BUDGET);
            if (stop == 1) {
                g_put(&g, c->gpr[RSP], FLAG_ONE | FLAG_TF, 8);
            }
            c->gpr[RDX] = FLAG_ONE | FLAG_TF;
            c->gpr[RBX] = c->gpr[RDI] = 0;
            assert_int_equal(g_run(&g, 1000), VCPU_HALT);
            assert_debug(&g, G_CODE + 5, 0x4000);
            assert_int_equal(c->gpr[RBX], stop == 2 ? 2 : 1);
            assert_int_equal(c->gpr[RDI], stop == 2 || stop == 3 ? 1 : 0);
            g_close(&g);
        }
    }
}

/* With no breakpoint, too. */
static void rf_ends_with_its_instruction(void **state)
{
    struct guest g;

    (void)state;
    for (unsigned e = 0; e < PLX_COUNT(engines); e++) {
        g_open_engine(&g, engines[e], NULL, 0);
        G_CODE_AT(&g, G_CODE, 0x90, 0x90);
        g.v->c.rflags |= FLAG_RF;
        assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
        assert_int_equal(g.v->c.rip, G_CODE + 1);
        assert_int_equal(g.v->c.rflags & FLAG_RF, 0);
        g_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_meets_a_new_breakpoint),
        cmocka_unit_test(hot_code_meets_a_new_breakpoint),
        cmocka_unit_test(a_new_single_step_is_taken),
        cmocka_unit_test(rf_ends_with_its_instruction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
