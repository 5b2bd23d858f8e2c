/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_access.c - the translator's checks of memory accesses
 * (vmm/engine/jit_access.h) against the interpreter: programs of which nearly every instruction
 * accesses memory by few registers, which move by constants, are pushed, popped and copied. Their
 * operands lie across ends of pages, in pages that may not be read or written, in the program
 * itself; and they store to the table that maps what they access. Many go around because of flags
 * that the accesses of the next turn may lose. RUNS= programs, SEED=. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/ours.h"
#include "tests/unit/amount.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

enum { ITEMS = 24, START = 0x400, HOT = 12, BUDGET = 300, PAGES = DATA_SIZE / 4096 };
/* As in tests/isa/ours.c. */
enum { GPA_PT = 0x4000, GPA_DATA = 0x20000, TABLE_AT = 0x10018000 };

static const uint8_t pointers[] = {RBX, RBP, RSI, RDI, RSP, R12, R13, RDX, RAX};
static const uint8_t values[] = {RAX, RCX, R8, R11, R15};

struct program {
    struct prng g;
    uint8_t code[CODE_SIZE];
    unsigned n;
    uint8_t base[3]; /* the pointers it uses, R14 beside them: to the entry of a data page */
};

static uint64_t below(struct program *p, uint64_t n)
{
    return prng_below(&p->g, n);
}

static void byte(struct program *p, unsigned b)
{
    p->code[p->n++] = (uint8_t)b;
}

static unsigned pointer(struct program *p)
{
    return p->base[below(p, sizeof p->base)];
}

static unsigned value(struct program *p)
{
    unsigned reg = values[below(p, sizeof values)];

    return memchr(p->base, (int)reg, sizeof p->base) != NULL ? R8 : reg; /* RAX may be either */
}

static void rex(struct program *p, bool w, unsigned reg, unsigned index, unsigned rm)
{
    byte(p, 0x40 | (w ? 8U : 0U) | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3);
}

/* ModRM and what follows for [pointer + disp], sometimes with RCX as an index. */
static void operand(struct program *p, unsigned reg, unsigned base, bool indexed, int disp)
{
    bool small = disp >= -128 && disp < 128;

    byte(p, (small ? 0x40U : 0x80U) | (reg & 7) << 3 | (indexed || (base & 7) == 4 ? 4 : base & 7));
    if (indexed || (base & 7) == 4) {
        byte(p, (indexed ? (unsigned)below(p, 4) << 6 | RCX << 3 : 0x20U) | (base & 7));
    }
    for (unsigned i = 0; i < (small ? 1U : 4U); i++) {
        byte(p, (unsigned)disp >> 8 * i & 0xff);
    }
}

static void memory_at(struct program *p, unsigned op, bool w, unsigned reg)
{
    unsigned base = pointer(p);
    bool indexed = below(p, 6) == 0;
    int disp = 8 * (int)below(p, 16) - 64;

    disp += below(p, 8) == 0 ? (int)below(p, 8) : 0;
    disp += below(p, 60) == 0 ? 4000 : below(p, 8) == 0 ? 0x400 * (int)below(p, 4) : 0;
    rex(p, w, reg, 0, base);
    if (op > 0xff) {
        byte(p, op >> 8);
    }
    byte(p, op & 0xff);
    operand(p, reg, base, indexed, disp);
}

static void sse(struct program *p)
{
    static const uint8_t ops[] = {0x28, 0x29, 0x10, 0x11, 0x10, 0x11, 0x10, 0x58};
    unsigned base = pointer(p), reg = (unsigned)below(p, 16);

    rex(p, false, reg, 0, base);
    byte(p, 0x0f);
    byte(p, ops[below(p, sizeof ops)]);
    operand(p, reg, base, false, 16 * (int)below(p, 8) - 64 + (below(p, 60) == 0 ? 4 : 0));
}

/* Of 16 or 32 bytes, some aligned to that. */
static void avx(struct program *p)
{
    static const uint8_t ops[] = {0x28, 0x29, 0x28, 0x11, 0x10, 0x11, 0x10, 0x58};
    unsigned base = pointer(p), reg = (unsigned)below(p, 16), op = ops[below(p, sizeof ops)];
    unsigned vvvv = op == 0x58 ? (unsigned)below(p, 16) : 0;

    byte(p, 0xc4);
    byte(p, (reg < 8 ? 0x80U : 0) | 0x40 | (base < 8 ? 0x20U : 0) | 1);
    byte(p, (~vvvv & 15) << 3 | (unsigned)below(p, 2) << 2);
    byte(p, op);
    operand(p, reg, base, false, 32 * (int)below(p, 5) - 64 + (below(p, 60) == 0 ? 16 : 0));
}

static void move_pointer(struct program *p)
{
    static const uint8_t by[] = {8, 16, 0xf0, 0xf8, 32, 4};
    unsigned reg = pointer(p);

    switch (below(p, 6)) {
    case 0:
        rex(p, true, 0, 0, reg);
        if (reg == RAX && below(p, 2) == 0) {
            uint32_t n = by[below(p, sizeof by)];
            n |= n >= 0x80 ? UINT32_C(0xffffff00) : 0;
            byte(p, below(p, 2) == 0 ? 0x05 : 0x2d); /* add, sub */
            memcpy(p->code + p->n, &n, 4);
            p->n += 4;
            break;
        }
        byte(p, 0x83);
        byte(p, (below(p, 2) == 0 ? 0xc0 : 0xe8) | (reg & 7)); /* add, sub */
        byte(p, by[below(p, sizeof by)]);
        break;
    case 1:
        rex(p, true, 0, 0, reg);
        byte(p, 0xff);
        byte(p, (below(p, 2) == 0 ? 0xc0 : 0xc8) | (reg & 7)); /* inc, dec */
        break;
    case 2:
        rex(p, true, reg, 0, reg);
        byte(p, 0x8d); /* lea */
        operand(p, reg, reg, false, (int8_t)by[below(p, sizeof by)]);
        break;
    case 3: {
        unsigned from = pointer(p);
        rex(p, true, from, 0, reg);
        byte(p, 0x89);
        byte(p, 0xc0 | (from & 7) << 3 | (reg & 7));
        break;
    }
    case 4:
        rex(p, false, 0, 0, value(p));
        byte(p, 0x50 | (p->code[p->n - 1] & 1 ? R9 & 7 : RAX)); /* push */
        break;
    default:
        rex(p, false, 0, 0, R8);
        byte(p, 0x58 | (R8 & 7)); /* pop */
        break;
    }
}

static void registers_only(struct program *p)
{
    static const uint8_t ops[] = {0x01, 0x11, 0x19, 0x29, 0x31, 0x39, 0x85};
    unsigned a = value(p), b = value(p);

    switch (below(p, 7)) {
    case 0:
        byte(p, 0x83); /* and ecx, 15: a small index */
        byte(p, 0xe1);
        byte(p, 15);
        break;
    case 1:
        rex(p, true, 0, 0, a);
        byte(p, 0xc1);
        byte(p, (below(p, 2) == 0 ? 0xe0 : 0xc8) | (a & 7)); /* shl, ror */
        byte(p, (unsigned)below(p, 40));
        break;
    case 2:
        byte(p, 0x0f); /* setcc cl */
        byte(p, 0x90 | (unsigned)below(p, 16));
        byte(p, 0xc1);
        break;
    case 3: /* cwde, cdq and wider */
        rex(p, below(p, 2) == 0, 0, 0, 0);
        byte(p, 0x98 | (unsigned)below(p, 2));
        break;
    default:
        rex(p, below(p, 2) == 0, b, 0, a);
        byte(p, ops[below(p, sizeof ops)]);
        byte(p, 0xc0 | (b & 7) << 3 | (a & 7));
        break;
    }
}

static void item(struct program *p)
{
    static const uint16_t ops[] = {0x8b, 0x8b, 0x89, 0x89, 0x88, 0x8a, 0x01,  0x03,  0x11,
                                   0x29, 0x33, 0x39, 0x3b, 0x85, 0x87, 0xfc1, 0xfb1, 0xfb6};
    uint64_t kind = below(p, 20);

    if (kind < 9) {
        memory_at(p, ops[below(p, PLX_COUNT(ops))], below(p, 2) == 0, value(p));
    } else if (kind < 12) {
        if (isa_v3 && below(p, 3) != 0) {
            avx(p);
        } else {
            sse(p);
        }
    } else if (kind < 15) {
        move_pointer(p);
    } else if (kind < 18) {
        registers_only(p);
    } else if (kind == 18) { /* mov eax, [rip + so that it is in the data] */
        byte(p, 0x8b);
        byte(p, 0x05);
        uint32_t rel = (uint32_t)(DATA_AT + 8 * below(p, 600) - (CODE_AT + p->n + 4));
        memcpy(p->code + p->n, &rel, 4);
        p->n += 4;
    } else if (below(p, 2) == 0) {
        unsigned entry = below(p, 2) == 0 ? R9 : R10;
        rex(p, true, entry, 0, R14); /* mov [r14], entry */
        byte(p, 0x89);
        byte(p, 0x06 | (entry & 7) << 3);
    } else {
        byte(p, 0x70 | (unsigned)below(p, 16)); /* jcc +0 */
        byte(p, 0);
    }
}

/* Its flags tell whether the program goes on, often with a pointer in it. */
static void compare(struct program *p)
{
    static const uint8_t ops[] = {0x39, 0x39, 0x3b, 0x85, 0x29, 0x01};
    unsigned a = below(p, 2) == 0 ? pointer(p) : value(p), b = value(p);

    rex(p, true, b, 0, a);
    byte(p, ops[below(p, sizeof ops)]);
    byte(p, 0xc0 | (b & 7) << 3 | (a & 7));
}

static void go_back(struct program *p)
{
    uint32_t back = START - (p->n + 4);

    memcpy(p->code + p->n, &back, 4);
    p->n += 4;
}

static void make(struct program *p, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    prng_seed(&p->g, seed);
    p->n = START;
    for (unsigned i = 0; i < sizeof p->base; i++) {
        p->base[i] = pointers[below(p, sizeof pointers)];
    }
    unsigned items = below(p, 2) == 0 ? ITEMS : 3 + (unsigned)below(p, 6);
    for (unsigned i = 0; i < items; i++) {
        item(p);
    }
    if (below(p, 2) == 0) {
        if (below(p, 2) == 0) {
            compare(p);
        }
        byte(p, 0x0f); /* jcc */
        byte(p, 0x80 | (unsigned)below(p, 16));
        go_back(p);
    }
    byte(p, 0xe9);
    go_back(p);
}

/* Not to be executed: what takes it away then need not end translated code. */
static uint64_t entry_of(unsigned page, unsigned rights)
{
    return (GPA_DATA + page * 4096U) | rights | UINT64_C(1) << 63;
}

/* Pointers into data, many near the ends of pages; entries of one page in R9 and R10. */
static void registers(struct program *p, struct isa_state *in)
{
    memset(in, 0, sizeof *in);
    for (unsigned i = 0; i < DATA_SIZE; i++) {
        in->data[i] = (uint8_t)prng_u64(&p->g);
    }
    for (unsigned i = 0; i < 16; i++) {
        in->gpr[i] = below(p, 2) == 0 ? below(p, 32) : prng_u64(&p->g);
    }
    for (unsigned i = 0; i < PLX_COUNT(pointers); i++) {
        uint64_t off = below(p, 2) == 0 ? 4096 * (1 + below(p, PAGES)) - 96 + 16 * below(p, 12)
                                        : 256 + 16 * below(p, DATA_SIZE / 16 - 64);
        off &= isa_v3 && below(p, 4) != 0 ? ~UINT64_C(16) : UINT64_MAX;
        in->gpr[pointers[i]] = DATA_AT + off + (below(p, 8) == 0 ? below(p, 16) : 0);
    }
    if (below(p, 8) == 0) { /* the program, what it will run next too */
        in->gpr[p->base[0]] = CODE_AT + START + below(p, p->n - START);
    }
    in->gpr[RCX] = below(p, 16);
    in->gpr[R9] = entry_of((unsigned)below(p, PAGES), below(p, 4) == 0 ? 5 : 7);
    in->gpr[R10] = entry_of((unsigned)below(p, PAGES), below(p, 6) == 0 ? 0 : 7);
    in->gpr[R14] = TABLE_AT + (DATA_AT >> 12 & 511) * 8 + 8 * below(p, PAGES);
    in->rip = CODE_AT + START;
    in->rflags = 2 | (prng_u64(&p->g) & 0x8d5);
    isa_fx_reset(in);
}

static void put(struct ours *o, uint64_t gpa, uint64_t x)
{
    PLX_CHECK(ram_write(o->ram, gpa, &x, 8) == 0);
}

/* The last level of tables as it was, programs may have stored anything there; the data's entries,
 * as rights go by @rights, neighbours being none on the host if @turned is 1 or 3; and the table
 * itself where programs reach it. */
static void map(struct ours *o, const uint8_t table[4096], const unsigned rights[PAGES],
                unsigned turned)
{
    PLX_CHECK(ram_write(o->ram, GPA_PT, table, 4096) == 0);
    for (unsigned i = 0; i < PAGES; i++) {
        put(o, GPA_PT + (DATA_AT >> 12 & 511) * 8 + 8 * i, entry_of(i ^ turned, rights[i]));
    }
    put(o, GPA_PT + (TABLE_AT >> 12 & 511) * 8, GPA_PT | 7);
}

/* Where there is no RAM. */
static uint64_t read_nothing(void *ctx, gpa_t gpa, unsigned size)
{
    (void)ctx, (void)gpa, (void)size;
    return 0;
}

static void write_nothing(void *ctx, gpa_t gpa, unsigned size, uint64_t x)
{
    (void)ctx, (void)gpa, (void)size, (void)x;
}

static const struct vcpu_ops nothing = {.mmio_read = read_nothing, .mmio_write = write_nothing};

static void open_with(struct ours *o, const struct engine_ops *engine, unsigned entries)
{
    ours_open(o, engine, entries);
    o->vcpu->ops = &nothing;
}

static void end_alike(struct ours *a, struct ours *b, uint64_t seed, uint64_t programs)
{
    static struct program p;
    static struct isa_state in;
    static uint8_t table[4096];
    uint64_t faults = 0, ran = 0;

    PLX_CHECK(ram_read(a->ram, GPA_PT, table, sizeof table) == 0);
    for (uint64_t k = 0; k < programs; k++, seed++) {
        make(&p, seed);
        for (unsigned i = 0; i < HOT; i++) {
            unsigned rights[PAGES];
            for (unsigned page = 0; page < PAGES; page++) {
                uint64_t x = below(&p, 60);
                rights[page] = x == 0 ? 0 : x == 1 ? 5 : 7;
            }
            registers(&p, &in);
            unsigned turned = (unsigned)below(&p, PAGES);
            map(a, table, rights, turned);
            map(b, table, rights, turned);
            ours_begin(a, p.code, &in);
            ours_begin(b, p.code, &in);
            uint64_t budget = BUDGET - below(&p, 40);
            assert_int_equal(ours_run(a, budget), ours_run(b, budget));
            if (!ours_equal(a, b)) {
                printf("seed %#llx, run %u; program:", (unsigned long long)seed, i);
                for (unsigned n = START; n < p.n; n++) {
                    printf(" %02x", p.code[n]);
                }
                printf("\nrip %llx %llx\n", (unsigned long long)ours_at(a).rip,
                       (unsigned long long)ours_at(b).rip);
                fail();
            }
            faults += ours_ended(a);
            ran += ours_at(a).retired;
        }
    }
    printf("%llu runs, %llu instructions, %llu faults\n", (unsigned long long)(programs * HOT),
           (unsigned long long)ran, (unsigned long long)faults);
    assert_true(faults > programs && faults < programs * HOT && ran > 40 * programs * HOT);
}

static void accesses_end_alike(void **state)
{
    struct ours a, b;

    (void)state;
    open_with(&a, &engine_interp, 0);
    open_with(&b, &engine_jit, 0);
    end_alike(&a, &b, from_env("SEED", 0x616363), from_env("RUNS", AMOUNT(1000, 10)));
    ours_close(&a);
    ours_close(&b);
}

static void so_they_do_of_32_bytes(void **state)
{
    isa_v3 = true;
    accesses_end_alike(state);
    isa_v3 = false;
}

/* Entries of the shadow tables come and go with every second access. */
static void so_they_do_with_two_entries(void **state)
{
    struct ours a, b;

    (void)state;
    open_with(&a, &engine_interp, 2);
    open_with(&b, &engine_jit, 2);
    end_alike(&a, &b, from_env("SEED", 0x74776f), from_env("RUNS", AMOUNT(1000, 10)) / 4);
    ours_close(&a);
    ours_close(&b);
}

/* Host flags that nobody may rely on are others after each instruction. */
static void so_they_do_with_flags_poisoned(void **state)
{
    struct ours a, b;

    (void)state;
    open_with(&a, &engine_interp, 0);
    open_with(&b, &engine_jit, 0);
    b.vcpu->jit->poison = true;
    end_alike(&a, &b, from_env("SEED", 0x706f69), from_env("RUNS", AMOUNT(1000, 10)) / 2);
    ours_close(&a);
    ours_close(&b);
}

/* @n bytes of @code, again and again, with RBX at @at and a bit further; perhaps they end in a
 * fault. */
static void ends_alike(const char *code, unsigned n, uint64_t at, bool faults)
{
    static struct program p;
    static struct isa_state in;
    struct ours a, b;

    open_with(&a, &engine_interp, 0);
    open_with(&b, &engine_jit, 0);
    memset(&p, 0, sizeof p);
    memcpy(p.code + START, code, n);
    for (unsigned i = 0; i < HOT; i++) {
        memset(&in, 0, sizeof in);
        in.gpr[RBX] = at + 8 * i;
        for (unsigned k = 0; k < DATA_SIZE; k++) {
            in.data[k] = (uint8_t)(k ^ k >> 8);
        }
        in.rip = CODE_AT + START;
        in.rflags = FLAG_ONE | FLAGS_ARITH;
        ours_begin(&a, p.code, &in);
        ours_begin(&b, p.code, &in);
        assert_int_equal(ours_run(&a, BUDGET), ours_run(&b, BUDGET));
        assert_int_equal(ours_ended(&a), faults);
        assert_true(ours_equal(&a, &b));
    }
    ours_close(&a);
    ours_close(&b);
}

/* The first access of a turn faults: the flags are those of the last turn. */
static void a_turn_has_the_flags_of_the_last(void **state)
{
    static const char code[] = "\x48\x8b\x03\x48\x83\xc3\x08" /* mov rax, [rbx]; add rbx, 8 */
                               "\x48\x39\xcb\x75\xf4";        /* cmp rbx, rcx; jne */

    (void)state;
    ends_alike(code, sizeof code - 1, DATA_AT + DATA_SIZE - UINT64_C(8) * 60, true);
}

/* CQO gives RDX another value: no check from before it serves. */
static void cqo_moves_what_rdx_leads_to(void **state)
{
    static const char code[] =
        "\xba\x08\x00\x00\x00\x48\x8b\x3c\x13" /* mov edx, 8; mov rdi, [rbx + rdx] */
        "\x48\x99\x48\x8b\x74\x13\x08"         /* cqo; mov rsi, [rbx + rdx + 8] */
        "\xeb\xee";                            /* jmp */

    (void)state;
    ends_alike(code, sizeof code - 1, DATA_AT, false);
}

/* By the SDM; AMD's processors read 32 bits, and fault by the two bytes that follow. */
static void movsxd_of_16_bits_reads_16(void **state)
{
    static const struct engine_ops *const engines[] = {&engine_interp, &engine_jit};
    static const uint8_t code[] = {0x66, 0x63, 0x03, 0x0f, 0x0b}; /* movsxd ax, [rbx]; ud2 */
    static struct program p;
    static struct isa_state in;
    static struct isa_outcome out;
    struct ours o;

    (void)state;
    memcpy(p.code + START, code, sizeof code);
    in = (struct isa_state){.rip = CODE_AT + START, .rflags = FLAG_ONE};
    in.gpr[RAX] = UINT64_C(0x1122334455667788);
    in.gpr[RBX] = DATA_AT + DATA_SIZE - 2;
    memcpy(in.data + DATA_SIZE - 2, "\xcd\xab", 2);
    for (unsigned e = 0; e < PLX_COUNT(engines); e++) {
        open_with(&o, engines[e], 0);
        for (unsigned i = 0; i < HOT; i++) {
            ours_begin(&o, p.code, &in);
            (void)ours_run(&o, BUDGET);
            ours_outcome(&o, &out);
            assert_int_equal(out.signal, SIGILL);
            assert_int_equal(out.s.gpr[RAX], UINT64_C(0x112233445566abcd));
        }
        ours_close(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accesses_end_alike),
        cmocka_unit_test(so_they_do_of_32_bytes),
        cmocka_unit_test(so_they_do_with_two_entries),
        cmocka_unit_test(so_they_do_with_flags_poisoned),
        cmocka_unit_test(a_turn_has_the_flags_of_the_last),
        cmocka_unit_test(cqo_moves_what_rdx_leads_to),
        cmocka_unit_test(movsxd_of_16_bits_reads_16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
