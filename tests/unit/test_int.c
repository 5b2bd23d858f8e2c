/* SPDX-License-Identifier: Apache-2.0
 * Integer instructions where a comparison with a host's processor does not reach: what a fault
 * leaves behind, stacks, bit offsets into memory, REP among pages, budgets and its own code. */
#include <stdio.h>

#include "tests/unit/cpu_guest.h"

/* RSP as the handler's frame saved it. */
static uint64_t old_rsp(struct guest *g, bool has_error)
{
    return g_get(g, g->v->c.gpr[RSP] + (has_error ? 32 : 24));
}

/* Handlers run on IST 1, so that a broken stack can be tested. */
static void open_with_ist(struct guest *g)
{
    g_open(g);
    g_put(g, G_TSS + 36, G_STACK0, 8);
    for (uint64_t vec = 0; vec < 32; vec++) {
        g_put(g, G_IDT + vec * 16 + 4, 1, 1);
    }
}

static void faults_leave_the_stack_pointer(void **state)
{
    static const struct {
        uint8_t code[8];
        gva_t cr2;
        unsigned error;
    } cases[] = {
        {{0x50}, G_UNMAPPED + 0x1000 - 8, PF_W},             /* push rax */
        {{0xe8, 0, 0, 0, 0}, G_UNMAPPED + 0x1000 - 8, PF_W}, /* call */
        {{0xc8, 0x10, 0, 0}, G_UNMAPPED + 0x1000 - 8, PF_W}, /* enter 16, 0 */
        {{0xc8, 0x10, 0, 3}, G_UNMAPPED + 0x1000 - 8, PF_W}, /* enter 16, 3 */
        {{0x8f, 0x03}, G_UNMAPPED, PF_W},                    /* pop [rbx] */
    };
    struct guest g;

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_with_ist(&g);
        g.v->c.gpr[RSP] = G_UNMAPPED + 0x1000;
        g.v->c.gpr[RBP] = 0x1234;
        g.v->c.gpr[RBX] = G_UNMAPPED;
        g_exec(&g, cases[i].code, sizeof cases[i].code);
        assert_int_equal(g_vector(&g), VEC_PF);
        assert_int_equal(g.v->c.cr2, cases[i].cr2);
        assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), cases[i].error);
        assert_int_equal(old_rsp(&g, true), G_UNMAPPED + 0x1000);
        assert_int_equal(g.v->c.gpr[RBP], 0x1234);
        g_close(&g);
    }
    /* RET and LEAVE read */
    open_with_ist(&g);
    g.v->c.gpr[RSP] = G_UNMAPPED;
    G_EXEC(&g, 0xc3);
    assert_int_equal(old_rsp(&g, true), G_UNMAPPED);
    g.v->c.gpr[RSP] = G_STACK;
    g.v->c.gpr[RBP] = G_UNMAPPED;
    G_EXEC(&g, 0xc9);
    assert_int_equal(old_rsp(&g, true), G_STACK);
    assert_int_equal(g.v->c.gpr[RBP], G_UNMAPPED);
    g_close(&g);
}

/* ENTER's last check is a write of a whole word at the new RSP, even when only its end faults. */
static void enter_probes_a_word(void **state)
{
    struct guest g;

    (void)state;
    open_with_ist(&g);
    g.v->c.gpr[RSP] = G_UNMAPPED + 0x1008;
    g.v->c.gpr[RBP] = 0x1122334455667788;
    G_EXEC(&g, 0xc8, 0x01, 0x10, 0); /* enter 0x1001, 0 */
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g.v->c.cr2, G_UNMAPPED);
    assert_int_equal(old_rsp(&g, true), G_UNMAPPED + 0x1008);
    /* and what was pushed before stays where it was pushed */
    uint64_t pushed = 0;
    assert_int_equal(ram_read(g.ram, G_UNMAPPED + 0x1000, &pushed, sizeof pushed), 0);
    assert_int_equal(pushed, 0x1122334455667788);
    g_close(&g);
}

static void bad_targets(void **state)
{
    struct guest g;

    (void)state;
    open_with_ist(&g);
    g.v->c.gpr[RAX] = UINT64_C(0x0000900000000000);
    G_EXEC(&g, 0xff, 0xd0); /* call rax */
    assert_int_equal(g_vector(&g), VEC_GP);
    assert_int_equal(old_rsp(&g, true), G_STACK);
    g.v->c.gpr[RSP] = G_STACK;
    G_EXEC(&g, 0x50, 0xc3); /* push rax; ret */
    assert_int_equal(g_vector(&g), VEC_GP);
    assert_int_equal(old_rsp(&g, true), G_STACK - 8);
    g.v->c.gpr[RSP] = G_STACK;
    g.v->c.gpr[RBX] = UINT64_C(0x8000000000000000);
    G_EXEC(&g, 0x8b, 0x03); /* mov eax, [rbx] */
    assert_int_equal(g_vector(&g), VEC_GP);
    g.v->c.gpr[RSP] = G_STACK;
    g.v->c.gpr[RBP] = UINT64_C(0x00007fffffffffff);
    G_EXEC(&g, 0x8b, 0x45, 0x00); /* mov eax, [rbp] */
    assert_int_equal(g_vector(&g), VEC_SS);
    g_close(&g);
}

/* A refused RMW changes neither memory nor flags nor registers. */
static void refused_rmw_changes_nothing(void **state)
{
    static const uint8_t code[][8] = {
        {0xf0, 0x48, 0x01, 0x0b}, /* lock add [rbx], rcx */
        {0x48, 0x0f, 0xc1, 0x0b}, /* xadd [rbx], rcx */
        {0x48, 0x0f, 0xb1, 0x0b}, /* cmpxchg [rbx], rcx */
        {0x48, 0x87, 0x0b},       /* xchg [rbx], rcx */
        {0x48, 0xc1, 0x23, 0x03}, /* shl qword [rbx], 3 */
        {0x48, 0x0f, 0xab, 0x0b}, /* bts [rbx], rcx */
        {0x0f, 0xc7, 0x0b},       /* cmpxchg8b [rbx] */
        {0x48, 0x0f, 0xc7, 0x0b}, /* cmpxchg16b [rbx] */
        {0x48, 0xff, 0x03},       /* inc qword [rbx] */
    };
    struct guest g;

    (void)state;
    for (unsigned i = 0; i < sizeof code / sizeof code[0]; i++) {
        g_open(&g);
        g_put(&g, G_PT + (G_DATA >> 12) * 8, G_DATA | 5, 8); /* read-only */
        g_put(&g, G_DATA, 77, 8);
        g.v->c.gpr[RBX] = G_DATA;
        g.v->c.gpr[RCX] = 9;
        g.v->c.rflags = FLAG_ONE | FLAG_CF | FLAG_OF;
        uint64_t flags = g.v->c.rflags | FLAG_RF;
        g_exec(&g, code[i], sizeof code[i]);
        assert_int_equal(g_vector(&g), VEC_PF);
        assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), PF_P | PF_W);
        assert_int_equal(g_get(&g, g.v->c.gpr[RSP] + 24), flags);
        assert_int_equal(g_get(&g, G_DATA), 77);
        assert_int_equal(g.v->c.gpr[RCX], 9);
        assert_int_equal(g.v->c.gpr[RAX], 0);
        g_close(&g);
    }
}

static void bit_offsets_reach_far(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RBX] = G_DATA + 0x1000;
    g.v->c.gpr[RCX] = (uint64_t)-9; /* byte -2, bit 7 */
    G_EXEC(&g, 0x0f, 0xab, 0x0b);   /* bts [rbx], ecx */
    assert_int_equal(g_get(&g, G_DATA + 0xff8), UINT64_C(0x0080000000000000));
    g.v->c.gpr[RCX] = 64 * 100 + 3;
    G_EXEC(&g, 0x48, 0x0f, 0xab, 0x0b, 0x48, 0x0f, 0xab, 0x0b);
    assert_int_equal(g_get(&g, G_DATA + 0x1000 + 800), 8);
    assert_true((g.v->c.rflags & FLAG_CF) != 0);
    g_close(&g);
}

/* REX bits that change nothing, and one that outranks a prefix. */
static void rex_beside_other_prefixes(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g_put(&g, G_DATA + 8, 0x1234567890, 8);
    g.v->c.gpr[R13] = 0x100;
    uint64_t at = G_DATA + 8;
    G_EXEC(&g, 0x67, 0x49, 0x8b, 0x04, 0x25, (uint8_t)at, (uint8_t)(at >> 8), (uint8_t)(at >> 16),
           0); /* mov rax, [at]: no base, so that REX.B has no meaning */
    assert_int_equal(g.v->c.gpr[RAX], 0x1234567890);
    g.v->c.gpr[RSP] = G_STACK;
    G_EXEC(&g, 0x66, 0x48, 0x6a, 0xfe); /* push -2: 8 bytes */
    assert_int_equal(g.v->c.gpr[RSP], G_STACK - 8);
    assert_int_equal(g_get(&g, G_STACK - 8), (uint64_t)-2);
    G_EXEC(&g, 0x66, 0x6a, 0xfe); /* 2 */
    assert_int_equal(g.v->c.gpr[RSP], G_STACK - 10);
    g_close(&g);
}

static void divide_errors(void **state)
{
    static const struct {
        uint64_t rax, rdx, rcx;
        uint8_t code[4];
    } cases[] = {
        {1, 0, 0, {0x48, 0xf7, 0xf1}}, /* div rcx */
        {0, 5, 5, {0x48, 0xf7, 0xf1}},
        {0, UINT64_C(1) << 63, UINT64_MAX, {0x48, 0xf7, 0xf9}}, /* idiv rcx */
        {UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX, {0x48, 0xf7, 0xf9}},
        {0x8000, 0, 0xff, {0xf6, 0xf9}}, /* idiv cl */
    };
    struct guest g;

    (void)state;
    g_open(&g);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        g.v->c.gpr[RSP] = G_STACK;
        g.v->c.gpr[RAX] = cases[i].rax;
        g.v->c.gpr[RDX] = cases[i].rdx;
        g.v->c.gpr[RCX] = cases[i].rcx;
        g_exec(&g, cases[i].code, sizeof cases[i].code);
        assert_int_equal(g_vector(&g), VEC_DE);
        assert_int_equal(g.v->c.gpr[RAX], cases[i].rax);
    }
    g.v->c.gpr[RSP] = G_STACK;
    g.v->c.gpr[RAX] = 1;
    g.v->c.gpr[RDX] = UINT64_C(0x4000000000000000);
    g.v->c.gpr[RCX] = UINT64_C(0x8000000000000001);
    G_EXEC(&g, 0x48, 0xf7, 0xf1);
    assert_int_equal(g_vector(&g), -1);
    g_close(&g);
}

static void misaligned_cmpxchg16b(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RBX] = G_DATA + 8;
    G_EXEC(&g, 0x48, 0x0f, 0xc7, 0x0b);
    assert_int_equal(g_vector(&g), VEC_GP);
    g_close(&g);
}

/* --- REP ----------------------------------------------------------------------------------- */

/* Every start, length and distance around pages and overlaps, against bytes moved one by one. */
static void rep_movs_of_all_shapes(void **state)
{
    static uint8_t want[0x4000];
    struct guest g;

    (void)state;
    g_open(&g);
    for (unsigned i = 0; i < 400; i++) {
        static const uint8_t ops[4][4] = {
            {0xf3, 0xa4, 0x90}, {0xf3, 0x66, 0xa5}, {0xf3, 0xa5, 0x90}, {0xf3, 0x48, 0xa5}};
        unsigned size = 1U << i % 4;
        unsigned src = 0x1000 + (i * 37) % 0x1000, count = (i * 53) % 700;
        unsigned dst = i % 3 == 0 ? src + i % 80 : i % 3 == 1 ? src - i % 80 : 0x2fc0 + i % 64;
        bool down = i % 5 == 0;
        if (dst + count * size > sizeof want || src + count * size > sizeof want) {
            count = 8;
        }
        for (unsigned k = 0; k < sizeof want; k++) {
            want[k] = (uint8_t)(k * 7 + i);
        }
        assert_int_equal(ram_write(g.ram, G_DATA, want, sizeof want), 0);
        uint64_t si = down ? src + 0x800 : src, di = down ? dst + 0x800 : dst;
        if (down && count * size > 0x1000) {
            count = 0x800 / size;
        }
        if (di + size > sizeof want) {
            continue;
        }
        for (unsigned k = 0; k < count; k++) {
            int64_t off = (down ? -1 : 1) * (int64_t)(k * size);
            memmove(want + (int64_t)di + off, want + (int64_t)si + off, size);
        }
        g.v->c.gpr[RSI] = G_DATA + si;
        g.v->c.gpr[RDI] = G_DATA + di;
        g.v->c.gpr[RCX] = count;
        g.v->c.rflags = FLAG_ONE | (down ? FLAG_DF : 0);
        uint64_t retired = g.v->c.retired, progress = g.v->c.progress;
        uint64_t units = (count * size + 31) / 32;
        g_exec(&g, ops[i % 4], 3);
        unsigned nop = ops[i % 4][2] == 0x90;
        assert_int_equal(g.v->c.retired - retired, (count > 0 ? count : 1) + nop + 1);
        assert_int_equal(g.v->c.progress - progress, (units > 0 ? units : 1) + nop + 1);
        assert_memory_equal(g_at(&g, G_DATA), want, sizeof want);
        assert_int_equal(g.v->c.gpr[RCX], 0);
    }
    g_close(&g);
}

static void single_step_stops_each_iteration(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RCX] = 3;
    g.v->c.rflags |= FLAG_TF;
    G_EXEC(&g, 0xf3, 0xaa);
    assert_int_equal(g_vector(&g), VEC_DB);
    assert_int_equal(g.v->c.gpr[RCX], 2);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE);
    assert_true((g_get(&g, g.v->c.gpr[RSP] + 16) & FLAG_RF) != 0);
    g.v->c.gpr[RCX] = 1; /* after the last iteration RF is clear */
    g.v->c.rflags |= FLAG_TF;
    G_EXEC(&g, 0xf3, 0xaa);
    assert_int_equal(g_vector(&g), VEC_DB);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), G_CODE + 2);
    assert_true((g_get(&g, g.v->c.gpr[RSP] + 16) & FLAG_RF) == 0);
    g_close(&g);
}

static void an_interrupt_inside_rep_saves_rf(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    G_CODE_AT(&g, G_CODE, 0xf3, 0xaa, 0xf4); /* rep stosb; hlt */
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RCX] = 100;
    g.v->c.rflags |= FLAG_IF;
    assert_int_equal(g_run(&g, 2), VCPU_BUDGET);
    assert_true(g.v->c.gpr[RCX] > 0 && g.v->c.rip == G_CODE);
    assert_true((g.v->c.rflags & FLAG_RF) != 0);
    g.vector = 40;
    g.v->irq_pending = true;
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(g.v->c.rip, G_STUBS + 40 * 16);
    assert_true((g_get(&g, g.v->c.gpr[RSP] + 16) & FLAG_RF) != 0);
    assert_true((g.v->c.rflags & FLAG_RF) == 0);
    g.v->c.rip = G_CODE;
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_true(g.v->c.gpr[RCX] == 0 && (g.v->c.rflags & FLAG_RF) == 0);
    g_close(&g);
}

/* A breakpoint on the instruction, passed with RF as a debugger does, is not met again. */
static void a_breakpoint_on_rep_is_met_once(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RCX] = 3;
    g.v->c.dr[0] = G_CODE;
    g.v->c.dr[7] |= 1;
    engine_interp.state_changed(g.v);
    G_EXEC(&g, 0xf3, 0xaa);
    assert_int_equal(g_vector(&g), VEC_DB);
    assert_int_equal(g.v->c.gpr[RCX], 3);
    g.v->c.rflags |= FLAG_RF;
    G_EXEC(&g, 0xf3, 0xaa);
    assert_int_equal(g_vector(&g), -1);
    assert_int_equal(g.v->c.gpr[RCX], 0);
    assert_true((g.v->c.rflags & FLAG_RF) == 0);
    g_close(&g);
}

/* An IRET that faults has ended the NMI's handler all the same. */
static void a_faulting_iret_lets_nmis_in(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.nmi_blocked = 1;
    g.v->c.gpr[RSP] = G_DATA; /* zeros: a null CS */
    G_EXEC(&g, 0x48, 0xcf);
    assert_int_equal(g_vector(&g), VEC_GP);
    assert_int_equal(g.v->c.nmi_blocked, 0);
    g.v->c.nmi_blocked = 1;
    G_EXEC(&g, 0x0f, 0x0b); /* another fault leaves them out */
    assert_int_equal(g_vector(&g), VEC_UD);
    assert_int_equal(g.v->c.nmi_blocked, 1);
    g_close(&g);
}

/* REP STOS runs over the code that holds it: what follows is the new code, at a place that no
 * budget and no cache moves. */
static struct hash128 self_overwriting(uint64_t budget, unsigned entries, uint64_t at)
{
    struct guest g;
    struct hash128 h;

    g_open_with(&g, entries);
    g.v->c.gpr[RDI] = at - 75;
    g.v->c.gpr[RCX] = 4000;
    g.v->c.gpr[RAX] = 0xf4; /* HLTs */
    G_CODE_AT(&g, at, 0xf3, 0xaa, 0x90, 0x90);
    g.v->c.rip = at;
    enum vcpu_stop stop;
    while ((stop = g_run(&g, budget)) == VCPU_BUDGET) {
    }
    assert_int_equal(stop, VCPU_HALT);
    assert_true(g.v->c.gpr[RCX] > 3800 && g.v->c.gpr[RCX] < 4000 - 75);
    h = g_hash(&g);
    g_close(&g);
    return h;
}

static void rep_overwrites_itself(void **state)
{
    static const uint64_t places[] = {G_CODE + 0x200, G_CODE + 0xfff};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct hash128 want = self_overwriting(1000000, 0, places[i]);
        for (uint64_t budget = 1; budget < 8; budget++) {
            struct hash128 h = self_overwriting(budget, budget % 2 == 0 ? 16 : 0, places[i]);
            assert_true(hash128_eq(h, want));
        }
    }
}

static void scas_and_cmps(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    memcpy(g_at(&g, G_DATA), "replicated state", 16);
    memcpy(g_at(&g, G_DATA + 0x100), "replicas of a VM", 16);
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RSI] = G_DATA + 0x100;
    g.v->c.gpr[RCX] = 16;
    G_EXEC(&g, 0xf3, 0xa6);               /* repe cmpsb */
    assert_int_equal(g.v->c.gpr[RCX], 8); /* 's' differs from 't' */
    assert_true((g.v->c.rflags & FLAG_ZF) == 0);
    assert_int_equal(g.v->c.retired, 9);
    g.v->c.gpr[RDI] = G_DATA;
    g.v->c.gpr[RCX] = 16;
    g.v->c.gpr[RAX] = 'd';
    G_EXEC(&g, 0xf2, 0xae); /* repne scasb */
    assert_int_equal(g.v->c.gpr[RDI], G_DATA + 10);
    assert_true((g.v->c.rflags & FLAG_ZF) != 0);
    g_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_leave_the_stack_pointer),
        cmocka_unit_test(enter_probes_a_word),
        cmocka_unit_test(bad_targets),
        cmocka_unit_test(refused_rmw_changes_nothing),
        cmocka_unit_test(bit_offsets_reach_far),
        cmocka_unit_test(rex_beside_other_prefixes),
        cmocka_unit_test(divide_errors),
        cmocka_unit_test(misaligned_cmpxchg16b),
        cmocka_unit_test(rep_movs_of_all_shapes),
        cmocka_unit_test(single_step_stops_each_iteration),
        cmocka_unit_test(an_interrupt_inside_rep_saves_rf),
        cmocka_unit_test(a_breakpoint_on_rep_is_met_once),
        cmocka_unit_test(a_faulting_iret_lets_nmis_in),
        cmocka_unit_test(rep_overwrites_itself),
        cmocka_unit_test(scas_and_cmps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
