/* SPDX-License-Identifier: Apache-2.0
 * Page walks and the caches above them. Bugs hunted: a stale translation after a table entry
 * changed in any way, code that was linked included; accessed and dirty flags that come too late,
 * too early or not at all; wrong error codes; a store that half-happened. */
#include <stdio.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/unit/cpu_guest.h"
#include "vmm/mmu/walk.h"

static uint64_t pte(struct guest *g, gva_t lin)
{
    return g_get(g, G_PT + (lin >> 12) * 8);
}

/* Store through the guest itself: mov [rbx], rax. */
static void guest_store(struct guest *g, gva_t lin, uint64_t value)
{
    g->v->c.gpr[RBX] = lin;
    g->v->c.gpr[RAX] = value;
    G_EXEC(g, 0x48, 0x89, 0x03);
}

static uint64_t guest_load(struct guest *g, gva_t lin)
{
    g->v->c.gpr[RBX] = lin;
    g->v->c.gpr[RAX] = 0;
    G_EXEC(g, 0x48, 0x8b, 0x03);
    return g->v->c.gpr[RAX];
}

static void never_stale(void **state)
{
    struct guest g;
    gva_t a = 0x50000, b = 0x60000;

    (void)state;
    g_open(&g);
    g_put(&g, a, 0xaaaa, 8);
    g_put(&g, b, 0xbbbb, 8);
    assert_int_equal(guest_load(&g, a), 0xaaaa);
    guest_store(&g, G_PT + (a >> 12) * 8, b | 7); /* the guest edits its table: seen at once */
    assert_int_equal(guest_load(&g, a), 0xbbbb);
    g_put(&g, G_PT + (a >> 12) * 8, a | 7, 8); /* a device does */
    assert_int_equal(guest_load(&g, a), 0xaaaa);
    guest_store(&g, a, 1); /* writable, dirty, fast */
    guest_store(&g, G_PT + (a >> 12) * 8, a | 5);
    guest_store(&g, a, 2);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), PF_P | PF_W);
    g.v->c.gpr[RSP] = G_STACK;
    guest_store(&g, G_PT + (a >> 12) * 8, 0);
    (void)guest_load(&g, a);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), 0);
    assert_int_equal(g.v->c.cr2, a);
    /* an upper level */
    g.v->c.gpr[RSP] = G_STACK;
    memcpy(g_at(&g, 0x70000), g_at(&g, G_PT), 4096);
    g_put(&g, 0x70000 + (a >> 12) * 8, b | 7, 8);
    guest_store(&g, G_PD, 0x70000 | 7);
    assert_int_equal(guest_load(&g, a), 0xbbbb);
    g_close(&g);
}

/* Two functions, of which one returns 1 in EAX, the other in EBX; from another page, which is
 * mapped there in turns, 2. The first call after a change finds the page, so that the second has
 * nothing to look up. Called by address, or through a register; all of it hot, so that engines that
 * link code have linked. */
enum { FUNCTION = 0x50000, ITS_OTHER = 0x60000, ROUNDS = 12, CALLS = 200 };

static const uint8_t direct[] = {
    0xe8, 0xf0, 0xff, 0x03, 0x00, /* call FUNCTION */
    0xe8, 0x2b, 0x00, 0x04, 0x00, /* call FUNCTION + 64 */
};
static const uint8_t indirect[] = {
    0x90, 0xff, 0xd5, 0x90, 0x90, /* call rbp */
    0x90, 0xff, 0xd7, 0x90, 0x90, /* call rdi */
};
static const struct {
    const struct engine_ops *engine;
    const uint8_t *calls;
} callers[] = {{&engine_interp, direct},
               {&engine_interp, indirect},
               {&engine_jit, direct},
               {&engine_jit, indirect}};

/* Each round reads the page before it calls; behind it @other becomes the page's entry. */
static void call_in_rounds(struct guest *g, unsigned caller, uint64_t other, unsigned rounds)
{
    struct cpu *c;

    g_open_engine(g, callers[caller].engine, NULL, 0);
    c = &g->v->c;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = i == 0 ? FUNCTION : ITS_OTHER;
        G_CODE_AT(g, at, 0xb8, (uint8_t)(1 + i), 0, 0, 0, 0xc3);      /* mov eax, 1; ret */
        G_CODE_AT(g, at + 64, 0xbb, (uint8_t)(1 + i), 0, 0, 0, 0xc3); /* mov ebx, 1; ret */
    }
    G_CODE_AT(g, G_CODE, 0x48, 0x8b, 0x45, 0, /* mov rax, [rbp] */
              0xb9, CALLS, 0, 0, 0, 0xeb, 0); /* mov ecx, CALLS; jmp: the calls are hot */
    g_code(g, G_CODE + 11, callers[caller].calls, sizeof direct);
    G_CODE_AT(g, G_CODE + 21, 0x49, 0x01, 0xc5, 0x49, 0x01, 0xde, /* add r13, rax; add r14, rbx */
              0xff, 0xc9, 0x75, 0xec,                             /* dec ecx; jnz to the calls */
              0x4d, 0x87, 0xc8, 0x4c, 0x89, 0x06,                 /* xchg r8, r9; mov [rsi], r8 */
              0x41, 0xff, 0xcf, 0x75, 0xd6, 0xf4);                /* dec r15d; jnz; hlt */
    c->gpr[RSI] = G_PT + FUNCTION / PAGE_SIZE * 8;
    c->gpr[RBP] = FUNCTION;
    c->gpr[RDI] = FUNCTION + 64;
    c->gpr[R8] = FUNCTION | 7;
    c->gpr[R9] = other;
    c->gpr[R15] = rounds;
    assert_int_equal(g_run(g, 1000000), VCPU_HALT);
}

static void code_moves_with_its_page(void **state)
{
    struct guest g;

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(callers); i++) {
        call_in_rounds(&g, i, ITS_OTHER | 7, ROUNDS);
        assert_int_equal(g_vector(&g), -1);
        assert_int_equal(g.v->c.gpr[R13], ROUNDS / 2 * 3 * CALLS);
        assert_int_equal(g.v->c.gpr[R14], ROUNDS / 2 * 3 * CALLS);
        g_close(&g);
    }
}

/* The page is as it was, and may be read, but no longer be executed. */
static void code_loses_its_right(void **state)
{
    struct guest g;

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(callers); i++) {
        call_in_rounds(&g, i, FUNCTION | 7 | UINT64_C(1) << 63, 2);
        assert_int_equal(g_vector(&g), VEC_PF);
        assert_int_equal(g.v->c.cr2, FUNCTION);
        assert_int_equal(g.v->c.gpr[R13], CALLS);
        g_close(&g);
    }
}

/* So does the second half of an instruction that spans two pages, in a loop. */
static void half_an_instruction_loses_its_right(void **state)
{
    enum { LOOP = 0x50ffa, SPANS = 0x50ffd, SECOND = 0x51000 };
    static const struct engine_ops *const engines[] = {&engine_interp, &engine_jit};
    struct guest g;

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(engines); i++) {
        struct cpu *c;
        g_open_engine(&g, engines[i], NULL, 0);
        c = &g.v->c;
        G_CODE_AT(&g, LOOP, 0x48, 0xff, 0xc0, 0xba, 1, 0, 0, 0, /* inc rax; mov edx, 1 */
                  0xff, 0xc9, 0x75, 0xf4, 0xc3);                /* dec ecx; jnz LOOP; ret */
        G_CODE_AT(&g, G_CODE, 0xb9, CALLS, 0, 0, 0,             /* mov ecx, CALLS */
                  0xe8, 0xf0, 0x0f, 0x04, 0,                    /* call LOOP */
                  0x4c, 0x89, 0x06, 0x48, 0x8b, 0x55, 0,        /* mov [rsi], r8; mov rdx, [rbp] */
                  0xeb, 0xed);                                  /* jmp back */
        c->gpr[RSI] = G_PT + SECOND / PAGE_SIZE * 8;
        c->gpr[R8] = SECOND | 7 | UINT64_C(1) << 63;
        c->gpr[RBP] = SECOND;
        assert_int_equal(g_run(&g, 1000000), VCPU_HALT);
        assert_int_equal(g_vector(&g), VEC_PF);
        assert_int_equal(c->cr2, SECOND);
        assert_int_equal(g_get(&g, c->gpr[RSP] + 8), SPANS);
        assert_int_equal(c->gpr[RAX], CALLS + 1);
        g_close(&g);
    }
}

static void accessed_and_dirty(void **state)
{
    struct guest g;
    gva_t a = 0x50000;

    (void)state;
    g_open(&g);
    assert_int_equal(pte(&g, a) & 0x60, 0);
    (void)guest_load(&g, a);
    assert_int_equal(pte(&g, a) & 0x60, 0x20);
    assert_int_equal(g_get(&g, G_PML4) & 0x60, 0x20);
    guest_store(&g, a, 1);
    assert_int_equal(pte(&g, a) & 0x60, 0x60);
    guest_store(&g, G_PT + (a >> 12) * 8, a | 7); /* cleared: set anew */
    assert_int_equal(pte(&g, a) & 0x60, 0);
    guest_store(&g, a, 2);
    assert_int_equal(pte(&g, a) & 0x60, 0x60);
    /* a refused access sets nothing */
    guest_store(&g, G_PT + (a >> 12) * 8, a | 5);
    guest_store(&g, a, 3);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(pte(&g, a) & 0x60, 0);
    g_close(&g);
}

static int do_walk(struct guest *g, gva_t lin, unsigned access, bool user, bool ac,
                   struct walk_result *r)
{
    const struct walk_tables t = {.ram = g->ram};
    int rc =
        walk(&t, &g->v->c, lin, (struct walk_want){.access = access, .user = user, .ac = ac}, r);

    for (unsigned i = 0; rc == 0 && i < r->nset; i++) {
        *(uint8_t *)g_at(g, r->set[i].entry) |= r->set[i].flags;
    }
    return rc;
}

static void rights_and_error_codes(void **state)
{
    struct guest g;
    struct walk_result r;
    gva_t a = 0x50000;
    uint64_t *e;

    (void)state;
    g_open(&g);
    e = (uint64_t *)g_at(&g, G_PT + (a >> 12) * 8);
#define REFUSED(access, user, ac, code)                                          \
    do {                                                                         \
        assert_int_equal(do_walk(&g, a, access, user, ac, &r), PLX_GUEST_FAULT); \
        assert_int_equal(r.error, code);                                         \
    } while (0)
#define GRANTED(access, user, ac) assert_int_equal(do_walk(&g, a, access, user, ac, &r), 0)
    *e = a | 3; /* supervisor page */
    REFUSED(WALK_R, true, false, PF_P | PF_U);
    REFUSED(WALK_W, true, false, PF_P | PF_U | PF_W);
    GRANTED(WALK_W, false, false);
    *e = a | 1;
    REFUSED(WALK_W, false, false, PF_P | PF_W);
    g.v->c.cr0 &= ~CR0_WP;
    GRANTED(WALK_W, false, false);
    g.v->c.cr0 |= CR0_WP;
    *e = a | 7 | UINT64_C(1) << 63;
    REFUSED(WALK_X, true, false, PF_P | PF_U | PF_I);
    GRANTED(WALK_R, true, false);
    g.v->c.efer &= ~EFER_NX;
    REFUSED(WALK_R, true, false, PF_P | PF_U | PF_RSVD);
    g.v->c.efer |= EFER_NX;
    *e = a | 7;
    g.v->c.cr4 |= CR4_SMEP | CR4_SMAP;
    REFUSED(WALK_X, false, false, PF_P | PF_I);
    REFUSED(WALK_R, false, false, PF_P);
    GRANTED(WALK_R, false, true);
    *e = a | 7 | UINT64_C(1) << CPU_PHYS_BITS;
    REFUSED(WALK_R, true, false, PF_P | PF_U | PF_RSVD);
    *e = 0;
    REFUSED(WALK_X, true, false, PF_U | PF_I);
    /* a table outside RAM */
    g_put(&g, G_PD, 0x90000000 | 7, 8);
    REFUSED(WALK_R, false, true, PF_P | PF_RSVD);
    g_close(&g);
}

static void other_paging_modes(void **state)
{
    struct guest g;
    struct walk_result r;

    (void)state;
    g_open(&g);
    struct cpu *c = &g.v->c;
    c->efer = 0;
    /* 32-bit: page directory at 0x80000, a table at 0x81000, a 4 MiB page with PSE-36 bits */
    c->cr3 = 0x80000;
    c->cr4 = CR4_PSE;
    g_put(&g, 0x80000, 0x81000 | 7, 4);
    g_put(&g, 0x81000 + 4 * 5, 0x123000 | 7, 4);
    g_put(&g, 0x80004, 0xc0000000 | 0x87 | 0x2000, 4);
    assert_int_equal(do_walk(&g, 0x5678, WALK_W, false, false, &r), 0);
    assert_int_equal(r.page, 0x123000);
    assert_int_equal(g_get(&g, 0x81000 + 20) & 0xffffffff, 0x123067);
    assert_int_equal(do_walk(&g, 0x401000, WALK_R, false, false, &r), 0);
    assert_int_equal(r.page, UINT64_C(0x1c0001000));
    g_put(&g, 0x80004, 0xc0000000 | 0x87 | 1 << 21, 4);
    assert_int_equal(do_walk(&g, 0x401000, WALK_R, false, false, &r), PLX_GUEST_FAULT);
    assert_int_equal(r.error, PF_P | PF_RSVD);
    /* PAE */
    c->cr4 = CR4_PAE;
    c->pdpte[1] = G_PD | 1;
    assert_int_equal(do_walk(&g, 0x40005123, WALK_R, false, false, &r), 0);
    assert_int_equal(r.page, 0x5000);
    assert_int_equal(do_walk(&g, 0x80005123, WALK_R, false, false, &r), PLX_GUEST_FAULT);
    assert_int_equal(r.error, 0);
    /* 1 GiB page in 4-level */
    c->efer = EFER_LMA | EFER_LME | EFER_NX;
    c->cr3 = G_PML4;
    g_put(&g, G_PDPT + 8, UINT64_C(0x140000000) | 0x87, 8);
    assert_int_equal(do_walk(&g, 0x40005123, WALK_R, false, false, &r), 0);
    assert_int_equal(r.page, UINT64_C(0x140005000));
    g_close(&g);
}

/* A store across two pages of which the second is read-only changes neither. */
static void split_store_is_all_or_nothing(void **state)
{
    struct guest g;
    gva_t a = 0x51000;

    (void)state;
    g_open(&g);
    g_put(&g, G_PT + (a >> 12) * 8, a | 5, 8);
    guest_store(&g, a - 4, UINT64_MAX);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g.v->c.cr2, a);
    assert_int_equal(g_get(&g, a - 8), 0);
    g_put(&g, G_PT + (a >> 12) * 8, a | 7, 8);
    g.v->c.gpr[RSP] = G_STACK;
    guest_store(&g, a - 4, 0x1122334455667788);
    assert_int_equal(guest_load(&g, a - 4), 0x1122334455667788);
    assert_int_equal(g_get(&g, a) & UINT32_MAX, 0x11223344);
    g_close(&g);
}

static void smap_follows_ac(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    for (uint64_t i = 0; i < 512; i++) { /* all supervisor, but one user page */
        g_put(&g, G_PT + i * 8, i << 12 | (i == 0x50 ? 7 : 3), 8);
    }
    g.v->c.cr4 |= CR4_SMAP;
    engine_interp.state_changed(g.v);
    g.v->c.rflags |= FLAG_AC;
    vcpu_mem_select(g.v);
    guest_store(&g, 0x50000, 5);
    assert_int_equal(guest_load(&g, 0x50000), 5);
    g.v->c.rflags &= ~FLAG_AC;
    vcpu_mem_select(g.v);
    (void)guest_load(&g, 0x50000);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), PF_P);
    g_close(&g);
}

static void dirty_pages_are_flagged(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    for (unsigned pass = 0; pass < 3; pass++) {
        for (uint64_t page = 0; page < ram_pages(g.ram); page++) {
            g.ram->flags[page] &= (uint8_t)~RAM_DIRTY;
        }
        vcpu_mem_drop_writes(g.v);
        guest_store(&g, 0x50000, pass);
        assert_true((g.ram->flags[0x50] & RAM_DIRTY) != 0);
        assert_true((g.ram->flags[0x51] & RAM_DIRTY) == 0);
    }
    g_close(&g);
}

static void alignment_check(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    g.v->c.cr0 |= CR0_AM;
    g_select_mode(&g, GUEST64, 3);
    g.v->c.rflags |= FLAG_AC;
    g.v->c.gpr[RBX] = 0x50001;
    g_put(&g, G_CODE, 0x038b, 2); /* mov eax, [rbx] */
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(g_vector(&g), VEC_AC);
    g_close(&g);
}

/* Random edits of the tables by the guest against a bare walk, with a tiny cache and a big one. */
static void model_of_a_bare_walk(void **state)
{
    uint64_t seed = 0x5eed;

    (void)state;
    print_message("seed %llx\n", (unsigned long long)seed);
    for (unsigned entries = 16; entries <= 2048; entries *= 128) {
        struct guest g;
        struct prng rng;
        g_open_with(&g, entries);
        prng_seed(&rng, seed);
        for (unsigned i = 0x80; i < 0xc0; i++) {
            g_put(&g, (uint64_t)i << 12, i, 8);
        }
        for (unsigned i = 0; i < 20000; i++) {
            gva_t lin = (0x80 + prng_below(&rng, 64)) << 12;
            gva_t to = (0x80 + prng_below(&rng, 64)) << 12;
            if (prng_below(&rng, 4) == 0) {
                guest_store(&g, G_PT + (lin >> 12) * 8, to | (prng_below(&rng, 8) & 7));
                assert_int_equal(g_vector(&g), -1);
                continue;
            }
            struct walk_result r;
            bool write = prng_below(&rng, 2) != 0;
            uint64_t before = pte(&g, lin);
            int rc = do_walk(&g, lin, write ? WALK_W : WALK_R, false, false, &r);
            uint64_t after = pte(&g, lin);
            memcpy(g_at(&g, G_PT + (lin >> 12) * 8), &before, 8); /* undo A and D */
            g.v->c.gpr[RSP] = G_STACK;
            if (write) {
                guest_store(&g, lin + 8, i);
            } else {
                (void)guest_load(&g, lin);
            }
            assert_int_equal(g_vector(&g), rc == 0 ? -1 : VEC_PF);
            assert_int_equal(pte(&g, lin), after);
            if (rc == 0) {
                assert_int_equal(write ? g_get(&g, r.page + 8) : g.v->c.gpr[RAX],
                                 write ? i : r.page >> 12);
            } else {
                assert_int_equal(g_get(&g, g.v->c.gpr[RSP]), r.error);
            }
        }
        g_close(&g);
    }
}

/* rep stosq of RAX: @n entries of the page table, from the one of page @first on. */
static void store_entries(struct guest *g, uint64_t first, uint64_t n, uint64_t value)
{
    g->v->c.gpr[RDI] = G_PT + first * 8;
    g->v->c.gpr[RCX] = n;
    g->v->c.gpr[RAX] = value;
    G_EXEC(g, 0xf3, 0x48, 0xab);
}

/* What entries lead to is found out anew when a REP has changed them, among others that did not
 * lead anywhere. */
static void rep_stos_over_tables(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    for (uint64_t i = 0x42; i < 0x60; i++) {
        g_put(&g, G_PT + i * 8, 0, 8);
    }
    g_put(&g, 0x60000, 0xaaaa, 8);
    g_put(&g, 0x70000, 0xbbbb, 8);
    assert_int_equal(guest_load(&g, 0x60000), 0xaaaa);
    store_entries(&g, 0x40, 0x40, 0x70000 | 7);
    assert_int_equal(g.v->c.gpr[RCX], 0);
    assert_int_equal(g.v->c.gpr[RDI], G_PT + 0x400);
    assert_int_equal(guest_load(&g, 0x60000), 0xbbbb);
    assert_int_equal(guest_load(&g, 0x40000), 0xbbbb);
    assert_int_equal(guest_load(&g, 0x50000), 0xbbbb);
    store_entries(&g, 0x40, 0x40, 0);
    guest_load(&g, 0x60000);
    assert_int_equal(g_vector(&g), VEC_PF);
    g_close(&g);
}

/* It faults as soon as it has taken away the page it stores to. */
static void rep_stos_over_its_own_table(void **state)
{
    struct guest g;

    (void)state;
    g_open(&g);
    store_entries(&g, 0, 512, 0);
    assert_int_equal(g_vector(&g), VEC_PF);
    assert_int_equal(g.v->c.cr2, G_PT + 5 * 8);
    assert_int_equal(g.v->c.gpr[RDI], G_PT + 5 * 8);
    assert_int_equal(g.v->c.gpr[RCX], 512 - 5);
    assert_int_equal(pte(&g, 0x4000), 0);
    assert_true(pte(&g, 0x5000) != 0);
    g_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_stale),
        cmocka_unit_test(code_moves_with_its_page),
        cmocka_unit_test(code_loses_its_right),
        cmocka_unit_test(half_an_instruction_loses_its_right),
        cmocka_unit_test(accessed_and_dirty),
        cmocka_unit_test(rights_and_error_codes),
        cmocka_unit_test(other_paging_modes),
        cmocka_unit_test(split_store_is_all_or_nothing),
        cmocka_unit_test(smap_follows_ac),
        cmocka_unit_test(dirty_pages_are_flagged),
        cmocka_unit_test(alignment_check),
        cmocka_unit_test(model_of_a_bare_walk),
        cmocka_unit_test(rep_stos_over_tables),
        cmocka_unit_test(rep_stos_over_its_own_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
