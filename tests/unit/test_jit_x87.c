/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_x87.c - x87 in translated code against the interpreter: random programs
 * (tests/isa/sequence.h) that go around loops until they are hot, with every control word, unmasked
 * exceptions, stack faults, faults of memory, MMX and FXSAVE among them; and a loop of which every
 * register is known. RUNS= programs, SEED=. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/ours.h"
#include "tests/isa/sequence.h"
#include "tests/unit/amount.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

enum { ITEMS = 16, START = 0x400, TIMES = 4, BUDGET = 4000 };
enum { WORDS = 0x800, WORDS_N = 32 }; /* in the data: control words */

static struct ours interp, jit;
static struct sequence program;
static struct isa_state in;

static void setup_engines(void)
{
    ours_open(&interp, &engine_interp, 0);
    ours_open(&jit, &engine_jit, 0);
}

static void close_engines(void)
{
    ours_close(&interp);
    ours_close(&jit);
}

static void print_x87(const struct cpu *c)
{
    const struct cpu_fpu *f = &c->fpu;

    printf("rip %llx fcw %x fsw %x ftw %x fip %llx fdp %llx fop %x\n", (unsigned long long)c->rip,
           f->fcw, f->fsw, f->ftw, (unsigned long long)f->fip, (unsigned long long)f->fdp, f->fop);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t m;
        uint16_t se;
        memcpy(&m, f->st[i], 8);
        memcpy(&se, f->st[i] + 8, 2);
        printf("r%u %04x %016llx%s", i, se, (unsigned long long)m, i % 4 == 3 ? "\n" : "  ");
    }
}

/* Both run and end alike. Why they stopped. */
static int run(uint64_t budget, uint64_t seed)
{
    int stop = ours_run(&interp, budget);

    assert_int_equal(ours_run(&jit, budget), stop);
    if (!ours_equal(&interp, &jit)) {
        printf("seed %#llx; ", (unsigned long long)seed);
        sequence_print(&program, &in);
        print_x87(&interp.vcpu->c);
        print_x87(&jit.vcpu->c);
        fail();
    }
    return stop;
}

static void begin(struct prng *g, bool edges)
{
    uint64_t cr0 = prng_below(g, 24) == 0 ? CR0_TS : prng_below(g, 24) == 0 ? CR0_EM : 0;

    sequence_registers(g, &program, edges, &in);
    in.gpr[R12] = DATA_AT + WORDS; /* of make_loop */
    if (edges) {                   /* the end of the data is about ten bytes behind [RBP + 112] */
        in.gpr[RBP] = DATA_AT + DATA_SIZE - 112 - 7 - prng_below(g, 6);
    }
    if (prng_below(g, 2) == 0) { /* masked, any rounding and precision */
        uint16_t cw = (uint16_t)(0x7f | prng_below(g, 16) << 8 | prng_below(g, 2) << 12);
        memcpy(in.fx, &cw, 2);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct ours *o = i == 0 ? &interp : &jit;
        ours_begin(o, program.code, &in);
        o->vcpu->c.cr0 |= cr0;
        o->engine->state_changed(o->vcpu);
    }
}

/* The programs of a seed, @times each, in budgets that end anywhere, so that all of it is seen in
 * the middle. */
static void run_programs(void (*make)(struct prng *g, uint64_t seed), uint64_t seed,
                         uint64_t programs, uint64_t *ran)
{
    setup_engines();
    *ran = 0;
    for (uint64_t k = 0; k < programs; k++, seed++) {
        struct prng g;
        jit.vcpu->jit->x87_always = k % 2 == 0;
        prng_seed(&g, seed);
        sequence_memory(&g, &in);
        make(&g, seed);
        for (unsigned i = 0; i < TIMES; i++) {
            begin(&g, i == TIMES - 1);
            while (ours_at(&interp).progress < BUDGET &&
                   run(1 + prng_below(&g, BUDGET), seed) == VCPU_BUDGET) {
            }
            *ran += ours_at(&interp).retired;
        }
    }
}

static void make_random(struct prng *g, uint64_t seed)
{
    struct choices c = {.bytes = NULL};

    (void)g;
    prng_seed(&c.g, seed);
    sequence_make(&c, (seed % 4 == 0 ? SEQUENCE_ANY : SEQUENCE_HOST) | SEQUENCE_X87, START, ITEMS,
                  &program);
}

static void random_programs_end_alike(void **state)
{
    uint64_t ran;

    (void)state;
    run_programs(make_random, from_env("SEED", 0x783837), from_env("RUNS", AMOUNT(6000, 10)), &ran);
    printf("%llu instructions\n", (unsigned long long)ran);
    close_engines();
}

/* --- programs of what is translated ----------------------------------------------------------- */

static void put(const void *bytes, unsigned n)
{
    PLX_CHECK(program.end + n <= CODE_SIZE);
    memcpy(program.code + program.end, bytes, n);
    program.end += n;
}
#define PUT(...) put((const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

/* [base + disp8], of a pointer: RBX, RSI, RDI, or RBP. */
static void put_memory(struct prng *g, uint8_t op, unsigned reg)
{
    static const uint8_t bases[] = {3, 6, 7, 5};

    PUT(op, (uint8_t)(0x40 | reg << 3 | bases[prng_below(g, sizeof bases)]),
        (uint8_t)(prng_below(g, 8) * 16 + (prng_below(g, 8) == 0 ? prng_below(g, 16) : 0)));
}

/* Without those that leave the program in a state it does not get out of, or are always called. */
static void put_x87(struct prng *g)
{
    static const uint8_t calls[8][2] = {{0, 0},    {0x72, 0x9c}, {0, 0xd0}, {0x50, 0x90},
                                        {0, 0x0c}, {0x70, 0xc3}, {0, 0x0c}, {0x50, 0x8f}};
    uint8_t op = (uint8_t)(0xd8 + prng_below(g, 8));
    unsigned reg = (unsigned)prng_below(g, 8);

    if (prng_below(g, 2) == 0) {
        if ((calls[op & 7][0] >> reg & 1) == 0) {
            put_memory(g, op, reg);
        }
    } else if ((calls[op & 7][1] >> reg & 1) == 0 && !(op == 0xd9 && reg > 5)) {
        PUT(op, (uint8_t)(0xc0 | reg << 3 | prng_below(g, 8)));
    }
}

static void put_item(struct prng *g)
{
    uint8_t word = (uint8_t)(prng_below(g, WORDS_N) * 2);

    switch (prng_below(g, 20)) {
    case 0:
        PUT(0x41, 0xd9, 0x6c, 0x24, word); /* fldcw [r12 + word] */
        break;
    case 1:
        PUT(0xd9, 0x7b, 0x10); /* fnstcw [rbx + 16] */
        break;
    case 2: /* mov edx, [rsi + rax]; fnstsw ax; mov edx, [rsi + rax] */
        if (prng_below(g, 8) == 0) {
            PUT(0x31, 0xc0, 0x8b, 0x14, 0x06, 0xdf, 0xe0, 0x8b, 0x14, 0x06); /* xor eax, eax */
        } else {
            PUT(0xdf, 0xe0, 0xa8, 0x45); /* fnstsw ax; test al, 0x45 */
        }
        break;
    case 3:
        put_memory(g, 0xdd, 7); /* fnstsw */
        break;
    case 4:
        put_memory(g, 0xdb, 5 + (unsigned)prng_below(g, 2) * 2); /* of 80 bits */
        break;
    case 5:
        PUT(0x39, 0xc8, 0xda, (uint8_t)(0xc1 | prng_below(g, 4) << 3)); /* cmp eax, ecx; fcmovcc */
        break;
    case 6:
        PUT(0xdb, 0xf1, 0x41, 0x0f, 0x92, 0xc0, 0x41, 0x0f, 0x9a, 0xc1); /* fcomi; setc; setp */
        break;
    case 7:
        if (prng_below(g, 8) == 0) {
            put_memory(g, 0xd9, 6);      /* fnstenv */
            PUT(0x41, 0xd9, 0x2c, 0x24); /* fldcw [r12] */
        }
        break;
    case 8:
        PUT(0x01, 0xc8, 0x7a, 2, 0xd9, 0xe8); /* add eax, ecx; jp over the next; fld1 */
        break;
    case 9:
        PUT(0xd9, (uint8_t)(0xf6 | prng_below(g, 2))); /* fdecstp, fincstp */
        break;
    case 10:
        PUT(0xd9, 0xe0, 0xd9, 0xfa, 0xd9, 0xfc, 0x9b); /* fchs; fsqrt; frndint; fwait */
        break;
    case 11: /* add r13, r14; xor r11, r13; 8 times add r13, 3 */
        PUT(0x4d, 0x01, 0xf5, 0x4d, 0x31, 0xeb);
        for (unsigned i = prng_below(g, 8) == 0 ? 0 : 8; i < 8; i++) {
            PUT(0x49, 0x83, 0xc5, 3);
        }
        break;
    default:
        put_x87(g);
        break;
    }
}

/* mov ecx, n; the items; dec ecx; jnz to the first; ud2 */
static void make_loop(struct prng *g, uint64_t seed)
{
    unsigned items = 4 + (unsigned)prng_below(g, 50);

    memset(&program, 0, sizeof program);
    /* Mostly it goes on in the next page. */
    program.start = program.end = 0x1000 - (unsigned)prng_below(g, 0x200);
    PUT(0xb9, 30, 0, 0, 0);
    unsigned head = program.end;
    for (unsigned i = 0; i < items; i++) {
        put_item(g);
    }
    int32_t back = (int32_t)head - (int32_t)(program.end + 8);
    PUT(0xff, 0xc9, 0x0f, 0x85);
    put(&back, 4);
    PUT(0x0f, 0x0b);
    for (unsigned i = 0; i < WORDS_N; i++) { /* a few unmask an exception */
        uint16_t cw = (uint16_t)(0x7f | (prng_u64(g) & 0xff80));
        cw &= (uint16_t) ~(i == 7 && seed % 4 == 0 ? 1U << prng_below(g, 6) : 0);
        memcpy(in.data + WORDS + 2 * i, &cw, 2);
    }
}

static void loops_end_alike(void **state)
{
    uint64_t ran;

    (void)state;
    run_programs(make_loop, from_env("SEED", 0x6c6f6f), from_env("RUNS", AMOUNT(6000, 10)), &ran);
    printf("%llu instructions\n", (unsigned long long)ran);
    close_engines();
}

/* A loop that sets the control word to @cw each time, translated already: how many of its
 * instructions did not call C, in percent. */
static unsigned translated_percent(uint16_t cw)
{
    /* clang-format off */
    static const uint8_t loop[] = {
        0xb9, 0xe8, 3, 0, 0,    /* mov ecx, 1000 */
        0x41, 0x8b, 0x04, 0x24, /* mov eax, [r12]: the page is known then */
        0xeb, 0,                /* jmp to the next: another block */
        0x41, 0xd9, 0x2c, 0x24, /* fldcw [r12] */
        0xdb, 0x2e,             /* fld tbyte [rsi] */
        0xdc, 0x4e, 0x10,       /* fmul qword [rsi + 16] */
        0xd8, 0xc1,             /* fadd st, st(1) */
        0xdd, 0xd9,             /* fstp st(1) */
        0xff, 0xc9, 0x75, 0xef, /* dec ecx; jnz to fldcw */
        0x0f, 0x0b,             /* ud2 */
    };
    /* clang-format on */
    static const uint8_t one[10] = {[7] = 0x80, [8] = 0xff, [9] = 0x3f};
    const double half = 0.5;
    struct jit_counters left;
    struct prng g;
    uint64_t in_c[2], ran = 0;

    setup_engines();
    prng_seed(&g, 1);
    memset(&program, 0, sizeof program);
    program.start = START;
    program.end = START + sizeof loop;
    memcpy(program.code + START, loop, sizeof loop);
    sequence_memory(&g, &in);
    memcpy(in.data, one, sizeof one);
    memcpy(in.data + 16, &half, sizeof half);
    sequence_registers(&g, &program, false, &in);
    in.gpr[RSI] = DATA_AT;
    in.gpr[R12] = DATA_AT + WORDS;
    memset(in.fx, 0, 32);
    in.fx[0] = 0x7f;
    in.fx[1] = 3;
    in.fx[4] = 1; /* R0, which is ST(0), is not empty */
    in.fx[24] = 0x80;
    in.fx[25] = 0x1f;
    memcpy(in.fx + 32, one, sizeof one);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(in.data + WORDS, i == 0 ? in.fx : (const uint8_t *)&cw, 2);
        ours_begin(&interp, program.code, &in);
        ours_begin(&jit, program.code, &in);
        (void)run(100000, 0);
        ran = ours_at(&interp).retired;
        jit_count(&jit.vcpu, 1, &left);
        in_c[i] = left.called + left.missed + left.interpreted;
    }
    close_engines();
    assert_in_range(ran, 7000, 8000);
    assert_true(in_c[1] - in_c[0] <= ran);
    return (unsigned)(100 * (ran - (in_c[1] - in_c[0])) / ran);
}

/* Masked exceptions are the host's at every rounding and precision the SDM has. */
static void what_may_be_is_translated(void **state)
{
    (void)state;
    assert_in_range(translated_percent(0x37f), 95, 100);
    assert_in_range(translated_percent(0xc7f), 95, 100);
    assert_in_range(translated_percent(0x37e), 0, 25);
    assert_in_range(translated_percent(0x17f), 0, 25); /* a reserved precision */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_programs_end_alike),
        cmocka_unit_test(loops_end_alike),
        cmocka_unit_test(what_may_be_is_translated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
