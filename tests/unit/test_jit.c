/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit.c - the translator, and both engines by turns, against the interpreter:
 * random programs of the forms that it translates, in loops that end in faults or with the budget,
 * run until they are hot; registers, flags, counts and all of RAM must be equal after each run.
 * RUNS= programs, SEED=. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "vmm/engine/engine.h"

enum { TABLES = 0x10000, CODE = 0x20000, DATA = 0x40000, STACK = 0x60000, RAM_SIZE = 2 << 20 };
enum { INSNS = 14, HOT = 12, BUDGET = 230 };

struct world {
    const struct engine_ops *engine;
    struct ram *ram;
    struct vcpu *v;
};

static void no_pio_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    (void)ctx, (void)port, (void)size, (void)value;
}

static uint64_t no_pio_read(void *ctx, uint16_t port, unsigned size)
{
    (void)ctx, (void)port, (void)size;
    return 0;
}

static uint64_t no_mmio_read(void *ctx, gpa_t gpa, unsigned size)
{
    (void)ctx, (void)gpa, (void)size;
    return 0;
}

static void no_mmio_write(void *ctx, gpa_t gpa, unsigned size, uint64_t value)
{
    (void)ctx, (void)gpa, (void)size, (void)value;
}

static int no_msr_read(void *ctx, uint32_t msr, uint64_t *value)
{
    (void)ctx, (void)msr, (void)value;
    return PLX_GUEST_FAULT;
}

static int no_msr_write(void *ctx, uint32_t msr, uint64_t value)
{
    (void)ctx, (void)msr, (void)value;
    return PLX_GUEST_FAULT;
}

static uint64_t no_cr8_read(void *ctx)
{
    (void)ctx;
    return 0;
}

static void no_cr8_write(void *ctx, uint64_t value)
{
    (void)ctx, (void)value;
}

static int no_irq(void *ctx)
{
    (void)ctx;
    return -1;
}

static const struct vcpu_ops ops = {.pio_read = no_pio_read,
                                    .pio_write = no_pio_write,
                                    .mmio_read = no_mmio_read,
                                    .mmio_write = no_mmio_write,
                                    .msr_read = no_msr_read,
                                    .msr_write = no_msr_write,
                                    .cr8_read = no_cr8_read,
                                    .cr8_write = no_cr8_write,
                                    .irq_take = no_irq};

static void open_world(struct world *w, const struct engine_ops *engine)
{
    struct engine_config cfg = {.vcpus = 1, .bsp = true, .ops = &ops};

    w->engine = engine;
    assert_int_equal(ram_create(RAM_SIZE, &w->ram, NULL), 0);
    cfg.ram = w->ram;
    assert_int_equal(engine->create(&cfg, &w->v, NULL), 0);
}

static void close_world(struct world *w)
{
    w->engine->destroy(w->v);
    ram_destroy(w->ram);
}

static uint64_t pick(struct prng *r, uint64_t n)
{
    return prng_below(r, n);
}

static unsigned opcode(struct prng *r, uint8_t *out)
{
    static const uint8_t one[] = {
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x09, 0x0b, 0x10, 0x11, 0x13, 0x19, 0x1b, 0x21, 0x23,
        0x29, 0x2b, 0x28, 0x30, 0x31, 0x33, 0x39, 0x3b, 0x38, 0x3c, 0x3d, 0x50, 0x53, 0x56, 0x5b,
        0x58, 0x5f, 0x63, 0x69, 0x6b, 0x72, 0x74, 0x75, 0x7c, 0x7f, 0x78, 0x7a, 0x70, 0x80, 0x81,
        0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x98, 0x99, 0xa8, 0xa9, 0xb0,
        0xb4, 0xb8, 0xbd, 0xc0, 0xc1, 0xc1, 0xc6, 0xc7, 0xd0, 0xd1, 0xd2, 0xd3, 0xf6, 0xf7, 0xfe,
        0xff, 0x68, 0x6a, 0xc9, 0xff, 0x01, 0x29, 0x39, 0x85, 0x89};
    static const uint8_t two[] = {0x42, 0x44, 0x4c, 0x4f, 0x92, 0x95, 0x9e, 0x90, 0xa3, 0xab,
                                  0xb3, 0xbb, 0xba, 0xa4, 0xad, 0xaf, 0xb0, 0xb1, 0xb6, 0xb7,
                                  0xbe, 0xbf, 0xbc, 0xbd, 0xc0, 0xc1, 0xc8, 0xcd, 0xb8, 0xac};
    unsigned n = 0;

    if (pick(r, 6) == 0) {
        out[n++] = 0x66;
    }
    bool wide = pick(r, 3) == 0;
    uint8_t op = two[pick(r, sizeof two)];
    if (wide && (op == 0xb8 || ((op & 0xfe) == 0xbc && pick(r, 2) == 0))) {
        out[n++] = 0xf3;
    }
    if (pick(r, 2) == 0) {
        out[n++] = (uint8_t)(0x40 | pick(r, 16));
    }
    if (wide) {
        out[n++] = 0x0f;
        out[n++] = op;
    } else {
        out[n++] = one[pick(r, sizeof one)];
    }
    return n;
}

/* On to the instruction behind, by an address: jumps, calls and returns. */
static unsigned go_on(struct prng *r, uint8_t *out)
{
    static const struct {
        uint8_t n, bytes[8];
    } how[] = {
        {2, {0xff, 0xe0}},                               /* jmp rax */
        {2, {0xff, 0xd0}},                               /* call rax */
        {2, {0x50, 0xc3}},                               /* push rax; ret */
        {3, {0x50, 0xf3, 0xc3}},                         /* push rax; rep ret */
        {7, {0x48, 0x89, 0x43, 8, 0xff, 0x63, 8}},       /* mov [rbx + 8], rax; jmp [rbx + 8] */
        {7, {0x48, 0x89, 0x43, 8, 0xff, 0x53, 8}},       /* ...; call [rbx + 8] */
        {8, {0x48, 0x89, 0x43, 8, 0xff, 0x73, 8, 0xc3}}, /* ...; push [rbx + 8]; ret */
        {6, {0x49, 0x89, 0xc3, 0x41, 0xff, 0xd3}},       /* mov r11, rax; call r11 */
    };
    unsigned k = (unsigned)pick(r, sizeof how / sizeof how[0]);

    memcpy(out, (const uint8_t[]){0x48, 0x8d, 0x05, how[k].n, 0, 0, 0}, 7); /* lea rax, [rip + n] */
    memcpy(out + 7, how[k].bytes, how[k].n);
    return 7U + how[k].n;
}

/* A division that often does not fault. */
static unsigned divide(struct prng *r, uint8_t *out)
{
    uint8_t rex = (uint8_t)(0x40 | pick(r, 2) << 3), modrm = (uint8_t)(0xf0 | pick(r, 16));
    unsigned n = 0;

    if (modrm >= 0xf8) {
        out[n++] = rex;
        out[n++] = 0x99; /* cdq, cqo */
    } else if (pick(r, 3) != 0) {
        out[n++] = 0x31; /* xor edx, edx */
        out[n++] = 0xd2;
    }
    if (pick(r, 3) == 0) {
        rex |= 1;
    } else if (pick(r, 2) == 0) {
        modrm = (uint8_t)((modrm & 0x38) | 0x43); /* [rbx + n] */
    }
    out[n++] = rex;
    out[n++] = 0xf7;
    out[n++] = modrm;
    if (modrm < 0xc0) {
        out[n++] = (uint8_t)pick(r, 128);
    }
    return n;
}

/* Anything of the maps that hold SSE; what is no instruction ends the run. */
static unsigned sse_opcode(struct prng *r, uint8_t *out)
{
    static const uint8_t prefix[] = {0, 0x66, 0x66, 0xf2, 0xf3};
    static const uint8_t two[] = {0x10, 0x50, 0x60, 0x70, 0xd0, 0xe0, 0xf0};
    static const uint8_t others[] = {0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e,
                                     0x2f, 0xc2, 0xc4, 0xc5, 0xc6, 0xae};
    uint8_t p = prefix[pick(r, sizeof prefix)];
    unsigned n = 0, map = (unsigned)pick(r, 8);

    if (p != 0) {
        out[n++] = p;
    }
    if (pick(r, 2) == 0) {
        out[n++] = (uint8_t)(0x40 | pick(r, 16));
    }
    out[n++] = 0x0f;
    if (map == 0) {
        out[n++] = 0x38;
        out[n++] = (uint8_t)pick(r, 0x42);
    } else if (map == 1) {
        out[n++] = 0x3a;
        out[n++] = (uint8_t)(8 + pick(r, 0x1b));
    } else if (pick(r, 4) == 0) {
        out[n++] = others[pick(r, sizeof others)];
    } else {
        out[n++] = (uint8_t)(two[pick(r, sizeof two)] + pick(r, 16));
    }
    return n;
}

/* Pointers are in RBX RSI R11 R13 R15 at first; what an instruction makes of them is its affair. */
static unsigned program(struct prng *r, uint8_t *out)
{
    static const uint8_t base[] = {3, 6, 3, 5, 7};
    unsigned n = 0, percent_sse = pick(r, 2) == 0 ? 70 : 0;

    for (unsigned i = 0; i < INSNS; i++) {
        if (pick(r, 12) == 0) {
            n += go_on(r, out + n);
        }
        if (pick(r, 16) == 0) {
            n += divide(r, out + n);
        }
        bool sse = pick(r, 100) < percent_sse;
        n += sse ? sse_opcode(r, out + n) : opcode(r, out + n);
        uint8_t modrm = (uint8_t)prng_u64(r);
        if ((modrm & 0xc0) != 0xc0) {
            modrm = (uint8_t)(0x40 | (modrm & 0x38) | base[pick(r, sizeof base)]);
        }
        out[n++] = modrm;
        if (sse && (modrm & 0xc0) != 0xc0) {
            out[n++] = (uint8_t)(pick(r, 8) * 16 + (pick(r, 12) == 0 ? pick(r, 16) : 0));
            if (pick(r, 3) == 0) {
                continue; /* most have no immediate */
            }
        }
        for (unsigned k = (unsigned)pick(r, 6); k > 0; k--) {
            out[n++] = (uint8_t)pick(r, 128);
        }
    }
    out[n++] = 0xe9; /* jmp to the beginning */
    int32_t back = -(int32_t)(n + 4);
    memcpy(out + n, &back, 4);
    return n + 4;
}

static void begin(struct world *w, const uint8_t *code, unsigned n, uint64_t seed)
{
    struct cpu *c = &w->v->c;
    struct prng r;
    static uint8_t zero[RAM_SIZE];
    uint64_t tables[3] = {TABLES + 0x1003, TABLES + 0x2003, 0x83};

    prng_seed(&r, seed);
    if (memcmp(w->ram->hva + CODE, code, n) != 0) {
        assert_int_equal(ram_write(w->ram, CODE, zero, 4096), 0);
        assert_int_equal(ram_write(w->ram, CODE, code, n), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ram_write(w->ram, TABLES + i * 0x1000, &tables[i], 8), 0);
    }
    for (unsigned i = 0; i < 512; i++) {
        uint64_t x = prng_u64(&r);
        assert_int_equal(ram_write(w->ram, DATA + i * 8, &x, 8), 0);
    }
    assert_int_equal(ram_write(w->ram, STACK - 4096, zero, 8192), 0);
    cpu_reset(c, 0);
    for (unsigned i = 0; i < 16; i++) {
        c->gpr[i] = pick(&r, 3) == 0 ? pick(&r, 70) : prng_u64(&r);
    }
    c->gpr[RBX] = DATA + 0x200;
    c->gpr[RSI] = DATA + 0x305;
    c->gpr[R11] = DATA + 0x400;
    c->gpr[R13] = DATA + 0x4f8;
    c->gpr[R15] = DATA + 0xfa0;
    c->gpr[RBP] = DATA + 0x600;
    c->gpr[RDI] = DATA + 0x700;
    c->gpr[RSP] = STACK;
    for (unsigned i = 0; i < sizeof c->fpu.xmm; i += 8) {
        static const uint64_t special[] = {0, 0x7ff0000000000000, 0x7ff8000000000001,
                                           1, 0x3ff00000bf800000, 0x7f8000017f7fffff};
        uint64_t x = pick(&r, 4) == 0 ? special[pick(&r, PLX_COUNT(special))] : prng_u64(&r);
        memcpy((uint8_t *)c->fpu.xmm + i, &x, 8);
    }
    c->fpu.mxcsr = 0x1f80 | (uint32_t)(pick(&r, 2) == 0 ? prng_u64(&r) & 0xe07f : 0);
    if (pick(&r, 16) == 0) {
        c->fpu.mxcsr &= (uint32_t)prng_u64(&r);
    }
    c->rip = CODE;
    c->rflags = FLAG_ONE | (prng_u64(&r) & FLAGS_ARITH);
    c->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP | (pick(&r, 32) == 0 ? CR0_TS : 0);
    c->cr4 = CR4_PAE | (pick(&r, 32) == 0 ? 0 : CR4_OSFXSR);
    c->efer = EFER_LME | EFER_LMA | EFER_NX;
    c->cr3 = TABLES;
    c->seg[SEG_CS].attr = SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_ACCESSED | SEG_L | SEG_G;
    c->seg[SEG_CS].base = 0;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (i != SEG_CS) {
            c->seg[i].attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | SEG_DB | SEG_G;
            c->seg[i].limit = UINT32_MAX;
        }
    }
    c->idtr.limit = 0; /* what faults ends the run */
    w->engine->state_changed(w->v);
}

static enum vcpu_stop run(struct world *w, uint64_t budget)
{
    struct engine_run run = {
        .budget = budget, .part = PART_SERIAL, .t_end = 1 << 30, .rate = 1 << 16, .alone = true};

    w->v->stopping = false;
    w->engine->run(w->v, &run);
    return run.stop;
}

static void same(const struct world *a, const struct world *b, const uint8_t *code, unsigned n,
                 uint64_t seed)
{
    bool equal = memcmp(&a->v->c, &b->v->c, sizeof a->v->c) == 0 &&
                 memcmp(a->ram->hva, b->ram->hva, RAM_SIZE) == 0;

    if (!equal) {
        printf("seed %#llx; program:", (unsigned long long)seed);
        for (unsigned i = 0; i < n; i++) {
            printf(" %02x", code[i]);
        }
        printf("\n");
        for (unsigned i = 0; i < 16; i++) {
            printf("r%u %llx %llx\n", i, (unsigned long long)a->v->c.gpr[i],
                   (unsigned long long)b->v->c.gpr[i]);
        }
        for (unsigned i = 0; i < 16; i++) {
            uint64_t x[2], y[2];
            memcpy(x, a->v->c.fpu.xmm[i], sizeof x);
            memcpy(y, b->v->c.fpu.xmm[i], sizeof y);
            printf("xmm%u %016llx%016llx %016llx%016llx\n", i, (unsigned long long)x[1],
                   (unsigned long long)x[0], (unsigned long long)y[1], (unsigned long long)y[0]);
        }
        printf("mxcsr %x %x\n", a->v->c.fpu.mxcsr, b->v->c.fpu.mxcsr);
        printf("rip %llx %llx flags %llx %llx retired %llu %llu\n", (unsigned long long)a->v->c.rip,
               (unsigned long long)b->v->c.rip, (unsigned long long)a->v->c.rflags,
               (unsigned long long)b->v->c.rflags, (unsigned long long)a->v->c.retired,
               (unsigned long long)b->v->c.retired);
    }
    assert_true(equal);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

static void random_programs_end_alike(void **state)
{
    uint64_t seed = number("SEED", 0x6a6974), runs = number("RUNS", 1500), ran = 0;
    struct world a, b;

    open_world(&a, &engine_interp);
    open_world(&b, *state);
    for (uint64_t k = 0; k < runs; k++, seed++) {
        uint8_t code[INSNS * 40 + 16];
        struct prng r;
        prng_seed(&r, seed);
        unsigned n = program(&r, code);
        for (unsigned i = 0; i < HOT; i++) {
            begin(&a, code, n, seed + i);
            begin(&b, code, n, seed + i);
            uint64_t budget = i == HOT - 1 ? BUDGET - pick(&r, 40) : BUDGET;
            assert_int_equal(run(&a, budget), run(&b, budget));
            ran += a.v->c.retired;
            same(&a, &b, code, n, seed);
        }
    }
    printf("%llu programs, %llu instructions\n", (unsigned long long)runs, (unsigned long long)ran);
    assert_true(ran > runs * HOT);
    struct jit_counters left, none;
    jit_count(&b.v, 1, &left);
    jit_count(&a.v, 1, &none);
    uint64_t top = 0;
    for (unsigned i = 0; i < JIT_FORMS_TOP && left.top[i].mnemonic != NULL; i++) {
        assert_true(i == 0 || left.top[i].called <= left.top[i - 1].called);
        top += left.top[i].called;
    }
    assert_true(top != 0 && top <= left.called && left.missed != 0);
    assert_true(left.called + left.missed + left.interpreted < ran);
    assert_true(none.called + none.missed + none.interpreted == 0 && none.top[0].mnemonic == NULL);
    close_world(&a);
    close_world(&b);
}

/* A budget that ends within a translation ends exactly (R1), and the run goes on from there. */
static void budgets_of_a_few_end_alike(void **state)
{
    static const uint64_t few[] = {1, 2, 3, 7};
    uint64_t seed = number("SEED", 0x627564), runs = number("RUNS", 1500) / 8;
    struct world a, b;

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    for (uint64_t k = 0; k < runs; k++, seed++) {
        uint8_t code[INSNS * 32 + 16];
        struct prng r;
        prng_seed(&r, seed);
        unsigned n = program(&r, code);
        for (unsigned i = 0; i < HOT; i++) { /* until it is translated */
            begin(&a, code, n, seed + i);
            begin(&b, code, n, seed + i);
            assert_int_equal(run(&a, BUDGET), run(&b, BUDGET));
        }
        begin(&a, code, n, seed);
        begin(&b, code, n, seed);
        for (enum vcpu_stop stop = VCPU_BUDGET; stop == VCPU_BUDGET && a.v->c.progress < BUDGET;) {
            uint64_t budget = few[pick(&r, sizeof few / sizeof few[0])], from = a.v->c.progress;
            stop = run(&a, budget);
            assert_int_equal(run(&b, budget), stop);
            assert_true(stop != VCPU_BUDGET || a.v->c.progress - from >= budget);
            same(&a, &b, code, n, seed);
        }
    }
    close_world(&a);
    close_world(&b);
}

/* TF in code that is translated already: a trap after the very next instruction. */
static void single_steps_end_alike(void **state)
{
    static const uint64_t flags[] = {FLAG_TF, 0};
    uint64_t seed = number("SEED", 0x7374), runs = number("RUNS", 1500) / 8, traps = 0;
    struct world a, b;

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    for (uint64_t k = 0; k < runs; k++, seed++) {
        uint8_t code[INSNS * 32 + 16];
        struct prng r;
        prng_seed(&r, seed);
        unsigned n = program(&r, code);
        for (unsigned i = 0; i < HOT + 2; i++) {
            uint64_t tf = i < HOT ? 0 : flags[i - HOT];
            begin(&a, code, n, seed + i);
            begin(&b, code, n, seed + i);
            a.v->c.rflags |= tf;
            b.v->c.rflags |= tf;
            assert_int_equal(run(&a, BUDGET), run(&b, BUDGET));
            traps += tf != 0 && (a.v->c.dr[6] & 1u << 14) != 0 /* BS */;
            same(&a, &b, code, n, seed);
        }
    }
    printf("%llu traps\n", (unsigned long long)traps);
    assert_true(traps > runs / 2);
    close_world(&a);
    close_world(&b);
}

/* Both ways are taken, else the comparison above would be of one with itself. */
static void switch_runs_both(void **state)
{
    static const uint8_t nops[] = {0x90, 0x90, 0xeb, 0xfc};
    unsigned changes = 0;
    struct world w;

    (void)state;
    open_world(&w, &engine_switch);
    begin(&w, nops, sizeof nops, 1);
    for (unsigned i = 0; i < 100; i++) {
        void (*before)(struct vcpu *) = w.v->run_blocks;
        assert_int_equal(run(&w, 10), VCPU_BUDGET);
        changes += w.v->run_blocks != before;
    }
    assert_in_range(changes, 10, 50);
    assert_int_equal(w.v->c.retired, 1000);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(random_programs_end_alike, (void *)(uintptr_t)&engine_jit),
        cmocka_unit_test_prestate(random_programs_end_alike, (void *)(uintptr_t)&engine_switch),
        cmocka_unit_test(budgets_of_a_few_end_alike),
        cmocka_unit_test(single_steps_end_alike),
        cmocka_unit_test(switch_runs_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
