/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit.c - the translator, and both engines by turns, against the interpreter:
 * random programs (tests/isa/sequence.h) that end in faults or with the budget, run until they are
 * hot; registers, flags, counts and memory must be equal after each run. RUNS= programs, SEED=. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tests/isa/ours.h"
#include "tests/isa/sequence.h"
#include "tests/unit/amount.h"
#include "vmm/cpu/mem.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

enum { ITEMS = 14, START = 0x400, HOT = 12, BUDGET = 230, FEW = UNDER_TSAN ? 10 : 1 };

/* The interpreter and what is compared with it, on the programs of one seed after another. */
struct pair {
    struct ours a, b;
    uint64_t seed, programs;
    struct prng g;
    struct sequence s;
    struct isa_state in;
};

/* One in @share of the programs that RUNS asks for. Most tests take @share times FEW. */
static void open_pair(struct pair *p, const struct engine_ops *engine, unsigned cache_entries,
                      uint64_t seed, unsigned share)
{
    ours_open(&p->a, &engine_interp, 0);
    ours_open(&p->b, engine, cache_entries);
    p->seed = from_env("SEED", seed);
    p->programs = from_env("RUNS", 1500) / share;
}

static void close_pair(struct pair *p)
{
    ours_close(&p->a);
    ours_close(&p->b);
}

static void next_program(struct pair *p)
{
    struct choices c = {.bytes = NULL};
    /* one in eight over the boundary of two pages */
    unsigned start = p->seed % 8 != 5 ? START : (unsigned)(CODE_SIZE / 2 - 1 - p->seed / 8 % 60);

    prng_seed(&p->g, p->seed);
    prng_seed(&c.g, p->seed);
    sequence_make(&c, p->seed++ % 4 == 0 ? SEQUENCE_HOST : SEQUENCE_ANY, start, ITEMS, &p->s);
    sequence_memory(&p->g, &p->in);
}

static void place(struct pair *p, unsigned start, const uint8_t *code, unsigned len)
{
    p->s = (struct sequence){.start = start, .end = start + len};
    memcpy(p->s.code + start, code, len);
}

static void change(struct ours *o, uint64_t cr0, uint64_t cr4, uint64_t rflags)
{
    struct cpu *c = &o->vcpu->c;

    c->cr0 ^= cr0;
    c->cr4 ^= cr4;
    c->rflags |= rflags;
    o->engine->state_changed(o->vcpu);
}

/* From the program's beginning, with other registers each time; now and then without SSE. */
static void begin(struct pair *p, uint64_t rflags)
{
    uint64_t cr0 = prng_below(&p->g, 32) == 0 ? CR0_TS : 0;
    uint64_t cr4 = prng_below(&p->g, 32) == 0 ? CR4_OSFXSR : 0;

    sequence_registers(&p->g, &p->s, prng_below(&p->g, 4) == 0, &p->in);
    ours_begin(&p->a, p->s.code, &p->in);
    ours_begin(&p->b, p->s.code, &p->in);
    change(&p->a, cr0, cr4, rflags);
    change(&p->b, cr0, cr4, rflags);
}

/* Both run and end alike. Why they stopped. */
static int run(struct pair *p, uint64_t budget)
{
    const struct cpu *a = &p->a.vcpu->c, *b = &p->b.vcpu->c;
    int stop = ours_run(&p->a, budget);

    assert_int_equal(ours_run(&p->b, budget), stop);
    if (!ours_equal(&p->a, &p->b)) {
        printf("seed %#llx; ", (unsigned long long)(p->seed - 1));
        sequence_print(&p->s, &p->in);
        for (unsigned i = 0; i < 16; i++) {
            printf("r%u %llx %llx\n", i, (unsigned long long)a->gpr[i],
                   (unsigned long long)b->gpr[i]);
        }
        for (unsigned i = 0; i < 16; i++) {
            uint64_t x[2], y[2];
            memcpy(x, a->fpu.xmm[i], sizeof x);
            memcpy(y, b->fpu.xmm[i], sizeof y);
            printf("xmm%u %016llx%016llx %016llx%016llx\n", i, (unsigned long long)x[1],
                   (unsigned long long)x[0], (unsigned long long)y[1], (unsigned long long)y[0]);
        }
        for (unsigned i = 0; i < 16; i++) {
            if (memcmp(a->fpu.ymm_high[i], b->fpu.ymm_high[i], 16) != 0) {
                printf("the upper halves of ymm%u differ\n", i);
            }
        }
        printf("mxcsr %x %x\n", a->fpu.mxcsr, b->fpu.mxcsr);
        printf("rip %llx %llx flags %llx %llx retired %llu %llu\n", (unsigned long long)a->rip,
               (unsigned long long)b->rip, (unsigned long long)a->rflags,
               (unsigned long long)b->rflags, (unsigned long long)a->retired,
               (unsigned long long)b->retired);
        fail();
    }
    return stop;
}

static void run_until_hot(struct pair *p)
{
    next_program(p);
    for (unsigned i = 0; i < HOT; i++) {
        begin(p, 0);
        (void)run(p, BUDGET);
    }
}

static void random_programs_end_alike(void **state)
{
    static struct pair p;
    uint64_t ran = 0;

    open_pair(&p, *state, 0, 0x6a6974, FEW);
    for (uint64_t k = 0; k < p.programs; k++) {
        next_program(&p);
        for (unsigned i = 0; i < HOT; i++) {
            begin(&p, 0);
            (void)run(&p, i == HOT - 1 ? BUDGET - prng_below(&p.g, 40) : BUDGET);
            ran += ours_at(&p.a).retired;
        }
    }
    printf("%llu programs, %llu instructions\n", (unsigned long long)p.programs,
           (unsigned long long)ran);
    assert_true(ran > p.programs * HOT);
    struct jit_counters left, none;
    jit_count(&p.b.vcpu, 1, &left);
    jit_count(&p.a.vcpu, 1, &none);
    uint64_t top = 0;
    for (unsigned i = 0; i < JIT_FORMS_TOP && left.top[i].mnemonic != NULL; i++) {
        assert_true(i == 0 || left.top[i].called <= left.top[i - 1].called);
        top += left.top[i].called;
    }
    assert_true(top != 0 && top <= left.called && left.missed != 0);
    assert_true(left.called + left.missed + left.interpreted < ran);
    assert_true(none.called + none.missed + none.interpreted == 0 && none.top[0].mnemonic == NULL);
    close_pair(&p);
}

/* With the instructions of pollux-v3 among them. */
static void random_programs_of_v3_end_alike(void **state)
{
    isa_v3 = true;
    random_programs_end_alike(state);
    isa_v3 = false;
}

/* Flags that the host leaves undefined are others at each instruction (R6). */
static void undefined_flags_of_the_host_do_not_show(void **state)
{
    static struct pair p;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x706f69, FEW);
    p.b.vcpu->jit->poison = true;
    for (uint64_t k = 0; k < p.programs; k++) {
        run_until_hot(&p);
    }
    close_pair(&p);
}

static void nor_do_those_of_v3(void **state)
{
    isa_v3 = true;
    undefined_flags_of_the_host_do_not_show(state);
    isa_v3 = false;
}

/* How often VEX was left to the interpreter, of what a host with AVX2 has. */
static uint64_t called_for(const struct jit *j)
{
    return j->called[ZYDIS_MNEMONIC_VPADDB] + j->called[ZYDIS_MNEMONIC_VPUNPCKLBW] +
           j->called[ZYDIS_MNEMONIC_VPXOR] + j->called[ZYDIS_MNEMONIC_SHLX] +
           j->called[ZYDIS_MNEMONIC_LZCNT] + j->called[ZYDIS_MNEMONIC_MOVBE] +
           j->called[ZYDIS_MNEMONIC_VZEROUPPER];
}

/* A guest of pollux-v3 on a host that has less is interpreted where it uses that, and on others
 * hardly anywhere: instructions across pages, prefixes in odd order. */
static void a_host_without_avx2_interprets(void **state)
{
    static struct pair p;

    (void)state;
    isa_v3 = true;
    uint64_t called[2];
    for (unsigned pass = 0; pass < 2; pass++) {
        open_pair(&p, &engine_jit, 0, 0x6f6c64, 4);
        p.b.vcpu->jit->v3 &= pass == 0;
        for (uint64_t k = 0; k < p.programs; k++) {
            run_until_hot(&p);
        }
        called[pass] = called_for(p.b.vcpu->jit);
        close_pair(&p);
    }
    printf("called %llu and %llu times\n", (unsigned long long)called[0],
           (unsigned long long)called[1]);
    assert_true(called[1] > p.programs / 4);
    assert_true(called[0] < called[1] / 16 || called[0] == called[1]); /* this host */
    isa_v3 = false;
}

/* A budget that ends within a translation ends exactly (R1), and the run goes on from there. */
static void budgets_of_a_few_end_alike(void **state)
{
    static const uint64_t few[] = {1, 2, 3, 7};
    static struct pair p;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x627564, 8 * FEW);
    for (uint64_t k = 0; k < p.programs; k++) {
        run_until_hot(&p);
        begin(&p, 0);
        for (int stop = VCPU_BUDGET; stop == VCPU_BUDGET && ours_at(&p.a).progress < BUDGET;) {
            uint64_t budget = few[prng_below(&p.g, PLX_COUNT(few))], from = ours_at(&p.a).progress;
            if (prng_below(&p.g, 64) == 0) { /* and all is made anew, in the middle */
                p.b.engine->drop(p.b.vcpu);
            }
            stop = run(&p, budget);
            assert_true(stop != VCPU_BUDGET || ours_at(&p.a).progress - from >= budget);
        }
    }
    close_pair(&p);
}

/* Caches of a few entries, and room for a few dozen programs, which is emptied whenever it is full.
 */
static void small_caches_end_alike(void **state)
{
    static struct pair p;
    unsigned emptied = 0;

    (void)state;
    open_pair(&p, &engine_jit, 16, 0x666c75, 4);
    for (uint64_t k = 0; k < p.programs; k++) {
        uint32_t at = p.b.vcpu->jit->code.at;
        run_until_hot(&p);
        emptied += p.b.vcpu->jit->code.at < at;
    }
    printf("emptied %u times\n", emptied);
    assert_true(emptied > 3);
    close_pair(&p);
}

/* TF in code that is translated already: a trap after the very next instruction. */
static void single_steps_end_alike(void **state)
{
    static struct pair p;
    uint64_t traps = 0;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x7374, 8 * FEW);
    for (uint64_t k = 0; k < p.programs; k++) {
        run_until_hot(&p);
        begin(&p, FLAG_TF);
        (void)run(&p, BUDGET);
        traps += (p.a.vcpu->c.dr[6] & 1u << 14) != 0; /* BS */
        begin(&p, 0);
        (void)run(&p, BUDGET);
    }
    printf("%llu traps\n", (unsigned long long)traps);
    assert_true(traps > p.programs / 2);
    close_pair(&p);
}

/* A loop of several blocks, translated as one. Now and then it changes an instruction of the next
 * block, and of the one under way; budgets end anywhere in it; at last it is single-stepped. */
static void code_changes_inside_a_translation(void **state)
{
    /* clang-format off */
    static const uint8_t loop[] = {
        0xb9, 0x90, 1, 0, 0,   /* mov ecx, 400 */
        0x83, 0xc0, 1,         /* add eax, 1 */
        0xf6, 0xc1, 31,        /* test cl, 31 */
        0x75, 6,               /* jnz behind the store */
        0x88, 0x0d, 6, 0, 0, 0, /* mov [rip + 6], cl: the 0x22 */
        0xeb, 2, 0x0f, 0x0b,   /* jmp over it; ud2 */
        0x81, 0xc2, 0x22, 0, 0, 0, /* add edx, 0x22 */
        0xf6, 0xc1, 63,        /* test cl, 63 */
        0x75, 6,               /* jnz behind the addition */
        0x00, 0x0d, 2, 0, 0, 0, /* add [rip + 2], cl: the 0x33 */
        0x80, 0xc3, 0x33,      /* add bl, 0x33 */
        0xff, 0xc9,            /* dec ecx */
        0x75, 0xd6,            /* jnz to the first addition */
        0x0f, 0x0b,            /* ud2 */
    };
    /* clang-format on */
    static const uint64_t budgets[] = {1, 2, 3, 7, 33, 100000};
    static struct pair p;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x736d63, FEW);
    place(&p, START, loop, sizeof loop);
    for (unsigned k = 0; k < PLX_COUNT(budgets); k++) {
        for (unsigned pass = 0; pass < 3; pass++) {
            unsigned runs = 0;
            begin(&p, 0);
            while (run(&p, budgets[k]) == VCPU_BUDGET) {
                if (pass == 2 && ++runs == 60) {
                    change(&p.a, 0, 0, FLAG_TF);
                    change(&p.b, 0, 0, FLAG_TF);
                }
            }
        }
    }
    assert_true(ours_at(&p.a).retired > 400 * 9);
    /* Each of its instructions spans two pages once. */
    for (unsigned before = 1; before < sizeof loop; before++) {
        place(&p, CODE_SIZE / 2 - before, loop, sizeof loop);
        for (unsigned pass = 0; pass < 3; pass++) {
            begin(&p, 0);
            (void)run(&p, 100000);
        }
    }
    close_pair(&p);
}

/* A loop over the boundary of two pages is translated, whichever instruction spans them; unless
 * only jumps from another page, or from its own end, lead to that. */
static void an_instruction_may_span_pages(void **state)
{
    /* clang-format off */
    static const uint8_t loop[] = {
        0xb9, 0, 0x10, 0, 0,   /* mov ecx, 4096 */
        0x48, 0x8d, 0x44, 0x08, 3, /* lea rax, [rax + rcx + 3] */
        0x48, 0x01, 0x44, 0x24, 8, /* add [rsp + 8], rax */
        0x0f, 0x82, 2, 0, 0, 0, /* jc over the next */
        0x31, 0xc2,            /* xor edx, eax */
        0xe8, 4, 0, 0, 0,      /* call behind the next jump */
        0xff, 0xc9,            /* dec ecx */
        0x75, 0xe5,            /* jnz to the addition */
        0x58,                  /* pop rax */
        0x81, 0xf9, 1, 0, 0, 0, /* cmp ecx, 1 */
        0x0f, 0x87, 0xef, 0xff, 0xff, 0xff, /* ja to the decrement */
        0x0f, 0x0b,            /* ud2 */
    };
    /* clang-format on */
    enum { FIRST = 5, SECOND = 10, DECREMENT = 28 };
    static struct pair p;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x7370616e, FEW);
    for (unsigned before = 1; before < sizeof loop; before++) {
        uint64_t interpreted = p.b.vcpu->jit->interpreted;
        place(&p, CODE_SIZE / 2 - before, loop, sizeof loop);
        begin(&p, 0);
        (void)run(&p, 100000);
        assert_true(ours_at(&p.b).retired > 40000);
        interpreted = p.b.vcpu->jit->interpreted - interpreted;
        bool jumped_to = (before > FIRST && before < SECOND) || before == DECREMENT + 1;
        if (!jumped_to && interpreted > 2000) {
            printf("%u bytes before the boundary: %llu interpreted\n", before,
                   (unsigned long long)interpreted);
            fail();
        }
    }
    close_pair(&p);
}

/* A REP in the middle of what is translated as one: it may use up the budget of what is behind it,
 * or stop half way, with SSE behind it. */
static void budgets_end_inside_a_rep(void **state)
{
    /* clang-format off */
    static const uint8_t loop[] = {
        0xbb, 50, 0, 0, 0,     /* mov ebx, 50 */
        0x69, 0xcb, 5, 1, 0, 0, /* imul ecx, ebx, 261 */
        0x81, 0xe1, 0xff, 1, 0, 0, /* and ecx, 511 */
        0xbf, DATA_AT & 0xff, DATA_AT >> 8 & 0xff, DATA_AT >> 16 & 0xff, DATA_AT >> 24,
        0xf3, 0xaa,            /* rep stosb */
        0x83, 0xc0, 1,         /* add eax, 1 */
        0x83, 0xc2, 2,         /* add edx, 2 */
        0x0f, 0x57, 0xc1,      /* xorps xmm0, xmm1 */
        0x89, 0x17,            /* mov [rdi], edx */
        0xff, 0xcb,            /* dec ebx */
        0x75, 0xde,            /* jnz to the multiplication */
        0x0f, 0x0b,            /* ud2 */
    };
    /* clang-format on */
    static const uint64_t budgets[] = {1, 2, 3, 7, 9, 10, 11, 33, 100000};
    static struct pair p;
    uint64_t ran = 0;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x726570, FEW);
    prng_seed(&p.g, p.seed);
    place(&p, START, loop, sizeof loop);
    for (unsigned k = 0; k < PLX_COUNT(budgets); k++) {
        for (unsigned pass = 0; pass < 3; pass++) {
            begin(&p, 0);
            for (uint64_t from = 0; run(&p, budgets[k]) == VCPU_BUDGET; from += budgets[k]) {
                assert_int_equal(ours_at(&p.b).progress - from, budgets[k]);
            }
            ran += ours_at(&p.a).retired;
        }
    }
    assert_true(ran > UINT64_C(20) * 50 * 200); /* some of them without SSE */
    close_pair(&p);
}

/* A loop, twice as many blocks as there is room for, and the loop again, three times. */
static void what_is_translated_stays_when_the_cache_is_full(void **state)
{
    enum { ENTRIES = 16, COLD = 2 * ENTRIES, TURNS = 100, ROUNDS = 3, EACH = 2 * TURNS + COLD + 3 };
    static const uint8_t head[] = {
        0xba, ROUNDS, 0,    0,    0, /* mov edx, ROUNDS */
        0xb9, TURNS,  0,    0,    0, /* mov ecx, TURNS */
        0xff, 0xc9,   0x75, 0xfc,    /* dec ecx; jnz to it */
    };
    static const uint8_t tail[] = {0xff, 0xca, 0x75, (uint8_t) - (13 + 2 * COLD), 0x0f, 0x0b};
    uint8_t code[sizeof head + 2 * COLD + sizeof tail];
    static struct pair p;

    (void)state;
    memcpy(code, head, sizeof head);
    for (unsigned i = 0; i < COLD; i++) {
        memcpy(code + sizeof head + 2 * i, (const uint8_t[]){0xeb, 0}, 2); /* jmp to the next one */
    }
    memcpy(code + sizeof head + 2 * COLD, tail, sizeof tail); /* dec edx; jnz; ud2 */
    open_pair(&p, &engine_jit, ENTRIES, 0x66756c6c, FEW);
    prng_seed(&p.g, p.seed);
    place(&p, START, code, sizeof code);
    begin(&p, 0);
    assert_int_not_equal(run(&p, UINT64_C(10) * ROUNDS * EACH), VCPU_BUDGET);
    assert_true(ours_at(&p.b).retired >= 1 + ROUNDS * EACH);
    assert_true(p.b.vcpu->jit->code.at > p.b.vcpu->jit->shared_end); /* something is translated */
    assert_int_equal(p.b.vcpu->jit->drops, 0);
    close_pair(&p);
}

/* Beyond the page there is none, and there is room for one block: the one before has gone when the
 * fetch faults, which must not look at it (memory that is free: MODE=asan tells). */
static void a_fetch_faults_behind_a_block_that_went(void **state)
{
    static const uint8_t jump[] = {0xe9, (CODE_SIZE - 2 - START - 5) & 0xff,
                                   (CODE_SIZE - 2 - START - 5) >> 8, 0, 0};
    static const struct engine_ops *const engines[] = {&engine_jit, &engine_interp};
    static struct pair p;

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(engines); i++) {
        open_pair(&p, engines[i], 1, 0x737061, FEW);
        prng_seed(&p.g, p.seed);
        place(&p, START, jump, sizeof jump);
        memcpy(p.s.code + CODE_SIZE - 2, (const uint8_t[]){0x48, 0xb8}, 2); /* mov rax, imm64 */
        begin(&p, 0);
        (void)run(&p, BUDGET);
        assert_true(ours_ended(&p.a));
        close_pair(&p);
    }
}

/* A page of code and one of data, which differ in no bit that their place depends on. */
static void code_and_data_do_not_push_one_another_out(void **state)
{
    enum { ENTRIES = 16, TURNS = 100 };
    static const uint8_t loop[] = {
        0xbb, DATA_AT & 0xff, DATA_AT >> 8 & 0xff, DATA_AT >> 16 & 0xff, DATA_AT >> 24,
        0x01, 0x03, /* add [rbx], eax */
        0xeb, 0xfc, /* jmp to it */
    };
    static struct pair p;

    _Static_assert((CODE_AT >> PAGE_SHIFT) % ENTRIES == (DATA_AT >> PAGE_SHIFT) % ENTRIES, "");
    (void)state;
    open_pair(&p, &engine_jit, ENTRIES, 0x70757368, FEW);
    prng_seed(&p.g, p.seed);
    place(&p, START, loop, sizeof loop);
    begin(&p, 0);
    assert_int_equal(run(&p, 2 * TURNS), VCPU_BUDGET);
    assert_int_equal(vcpu_mem_counters(p.b.vcpu)->evictions, 0);
    close_pair(&p);
}

/* Both ways are taken, else the comparison above would be of one with itself. */
static void switch_runs_both(void **state)
{
    static const struct sequence nops = {.code = {[START] = 0x90, 0x90, 0xeb, 0xfc},
                                         .start = START};
    static struct isa_state in;
    struct prng g;
    unsigned changes = 0;
    struct ours o;

    (void)state;
    ours_open(&o, &engine_switch, 0);
    prng_seed(&g, 1);
    sequence_registers(&g, &nops, false, &in);
    ours_begin(&o, nops.code, &in);
    for (unsigned i = 0; i < 100; i++) {
        void (*before)(struct vcpu *) = o.vcpu->run_blocks;
        assert_int_equal(ours_run(&o, 10), VCPU_BUDGET);
        changes += o.vcpu->run_blocks != before;
    }
    assert_in_range(changes, 10, 50);
    assert_int_equal(ours_at(&o).retired, 1000);
    ours_close(&o);
}

static bool within(const uint8_t *at, uintptr_t from, uintptr_t to)
{
    return (uintptr_t)at >= from && (uintptr_t)at < to;
}

/* The kernel's list of what is mapped: nothing can be written and executed, the code is written in
 * one place and executed in another, each page of it. */
static void assert_protected(const struct jit_code *c)
{
    uintptr_t from, to, writable = 0, executable = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], how[8];

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        assert_int_equal(sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s", &from, &to, how), 3);
        if (how[1] == 'w' && how[2] == 'x') {
            fail_msg("writable and executable: %s", line);
        }
        for (uint32_t at = 0; at < c->size; at += 4096) {
            writable += within(c->rw + at, from, to) && how[1] == 'w' && how[2] == '-';
            executable += within(c->rx + at, from, to) && how[1] == '-' && how[2] == 'x';
        }
    }
    assert_int_equal(fclose(maps), 0);
    assert_int_equal(writable, (c->size + 4095) / 4096);
    assert_int_equal(executable, (c->size + 4095) / 4096);
}

/* What is written through one mapping is executed through the other, whatever pages the host has
 * for them, and stays when it is asked for others; that is asked once for each, never past the end.
 * Neither mapping allows both, nor does one of an engine that has run. */
static void code_is_mapped_twice(void **state)
{
    enum { SIZE = 3 * PLX_HUGE + 4096, N = 4096 };
    static const uint32_t from[] = {0, 100, PLX_HUGE - N, PLX_HUGE - 1, PLX_HUGE, SIZE - 8};
    static const unsigned huge[] = {1, 1, 1, 2, 2, 3};
    static struct pair p;
    struct jit_code c;

    (void)state;
    open_pair(&p, &engine_jit, 0, 0x77786f, FEW);
    run_until_hot(&p);
    assert_protected(&p.b.vcpu->jit->code);
    close_pair(&p);
    assert_int_equal(jit_code_create(&c, SIZE), 0);
    assert_protected(&c);
    for (unsigned i = 0; i < PLX_COUNT(from); i++) {
        c.at = from[i];
        jit_code_reserve(&c, N);
        assert_int_equal(c.huge, huge[i]);
        emit_8(&c, UINT64_C(0xc3c3c3c3c3c3c3c3) + i);
        assert_false(c.full);
        for (unsigned k = 0; k <= i; k++) {
            assert_int_equal(c.rx[from[k]], 0xc3 + k);
            assert_int_equal(c.rx[from[k] + 7], 0xc3);
        }
    }
    c.rw[PLX_HUGE / 2] = 0xc3;
    const void *code = c.rx + PLX_HUGE / 2;
    void (*ret)(void);
    memcpy(&ret, &code, sizeof ret);
    ret();
    assert_protected(&c);
    jit_code_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(random_programs_end_alike, (void *)(uintptr_t)&engine_jit),
        cmocka_unit_test_prestate(random_programs_end_alike, (void *)(uintptr_t)&engine_switch),
        cmocka_unit_test_prestate(random_programs_of_v3_end_alike, (void *)(uintptr_t)&engine_jit),
        cmocka_unit_test(undefined_flags_of_the_host_do_not_show),
        cmocka_unit_test(nor_do_those_of_v3),
        cmocka_unit_test(a_host_without_avx2_interprets),
        cmocka_unit_test(budgets_of_a_few_end_alike),
        cmocka_unit_test(small_caches_end_alike),
        cmocka_unit_test(single_steps_end_alike),
        cmocka_unit_test(code_changes_inside_a_translation),
        cmocka_unit_test(budgets_end_inside_a_rep),
        cmocka_unit_test(an_instruction_may_span_pages),
        cmocka_unit_test(what_is_translated_stays_when_the_cache_is_full),
        cmocka_unit_test(a_fetch_faults_behind_a_block_that_went),
        cmocka_unit_test(code_and_data_do_not_push_one_another_out),
        cmocka_unit_test(switch_runs_both),
        cmocka_unit_test(code_is_mapped_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
