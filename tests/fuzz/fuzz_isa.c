/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_isa.c - a program (tests/isa/sequence.h) on the host's processor, the interpreter
 * and the translator: registers, flags, memory and exception must be equal, and between the engines
 * every register and count there is. It runs from several states, so that the translator comes to
 * translate it and meets what it has not seen yet. Flags that the SDM leaves undefined are not
 * compared with the host. NO_HOST=1 does without the host where it does not let us run programs.
 *
 *   byte 0     what kind of program, and where in its pages it begins; F0-F3, F8-FB: much of x87
 *   byte 1, 2  seed of registers and memory
 *   byte 3     bit 0: for pollux-v3
 *              bit 1: translated code spoils the flags that the host leaves undefined (R6)
 *   the rest   choices of the program's maker */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/isa/ours.h"
#include "tests/isa/sequence.h"
#include "vmm/engine/jit.h"

enum { HEADER = 4, SEED_LEN = 3, MODEL_V3 = 1, POISON = 2 };
enum { ITEMS = 40, ANY_BUDGET = 260, NATIVE_BUDGET = 20000 };
enum { RUNS = 11, EDGES_FROM = RUNS - 2, PORTIONS_AT = RUNS - 3 };

/* Of each model. */
static struct side {
    struct ours interp, jit;
    bool host;
} sides[2], *now;

static _Noreturn void differs(void)
{
    (void)fflush(stdout);
    abort();
}

/* A host that lacks what the model has is exempt, and any under NO_HOST=1; else a run that compares
 * nothing with the host must not pass for one that does. */
static bool open_host(void)
{
    const char *without = getenv("NO_HOST");

    if (native_has_model() && native_open() == 0) {
        return true;
    }
    printf("programs of %s are not compared with this host\n", isa_v3 ? "pollux-v3" : "pollux-v2");
    if (native_has_model() && (without == NULL || strcmp(without, "1") != 0)) {
        printf("it does not run them in a child; NO_HOST=1 goes on without\n");
        differs();
    }
    return false;
}

/* A host that has pollux-v3 serves for both. */
static void open_sides(void)
{
    isa_v3 = true;
    sides[1].host = open_host();
    isa_v3 = false;
    sides[0].host = sides[1].host || open_host();
    for (unsigned i = 0; i < PLX_COUNT(sides); i++) {
        isa_v3 = i == 1;
        ours_open(&sides[i].interp, &engine_interp, 0);
        ours_open(&sides[i].jit, &engine_jit, 0);
    }
}

static void report(const uint8_t *data, size_t size, const struct sequence *s,
                   const struct isa_state *in, unsigned run)
{
    printf("run %u of input:", run);
    for (size_t i = 0; i < size; i++) {
        printf(" %02x", data[i]);
    }
    printf("\n");
    sequence_print(s, in);
    (void)fflush(stdout);
}

static void print_both(const struct isa_outcome *a, const struct isa_outcome *b)
{
    for (unsigned i = 0; i < 16; i++) {
        if (a->s.gpr[i] != b->s.gpr[i]) {
            printf("r%u: %llx, here %llx\n", i, (unsigned long long)a->s.gpr[i],
                   (unsigned long long)b->s.gpr[i]);
        }
        const uint8_t *x = a->s.fx + 160 + i * 16, *y = b->s.fx + 160 + i * 16;
        if (memcmp(x, y, 16) != 0) {
            printf("xmm%u:", i);
            for (unsigned k = 16; k-- > 0;) {
                printf("%s%02x", k == 15 ? " " : "", x[k]);
            }
            for (unsigned k = 16; k-- > 0;) {
                printf("%s%02x", k == 15 ? ", here " : "", y[k]);
            }
            printf("\n");
        }
    }
    for (unsigned i = 0; i < 160; i++) {
        if (a->s.fx[i] != b->s.fx[i]) {
            printf("fxsave+%u: %02x, here %02x\n", i, a->s.fx[i], b->s.fx[i]);
        }
    }
    for (unsigned i = 0; i < DATA_SIZE; i++) {
        if (a->s.data[i] != b->s.data[i]) {
            printf("data+%#x: %02x, here %02x\n", i, a->s.data[i], b->s.data[i]);
        }
    }
    for (unsigned i = 0; i < STACK_SIZE; i++) {
        if (a->s.stack[i] != b->s.stack[i]) {
            printf("stack+%#x: %02x, here %02x\n", i, a->s.stack[i], b->s.stack[i]);
        }
    }
    printf("rip %llx flags %llx signal %d address %llx; here %llx %llx %d %llx\n",
           (unsigned long long)a->s.rip, (unsigned long long)a->s.rflags, a->signal,
           (unsigned long long)a->address, (unsigned long long)b->s.rip,
           (unsigned long long)b->s.rflags, b->signal, (unsigned long long)b->address);
}

/* FCW, FSW and tag word, registers; FIP and FDP have one chosen value. */
static bool same_fx(const uint8_t *a, const uint8_t *b)
{
    uint32_t mx[2];

    memcpy(&mx[0], a + 24, 4);
    memcpy(&mx[1], b + 24, 4);
    for (unsigned i = 0; i < 8; i++) {
        if (memcmp(a + 32 + i * 16, b + 32 + i * 16, 10) != 0) {
            return false;
        }
    }
    return memcmp(a, b, 5) == 0 && same_mxcsr(mx[0], mx[1]) && memcmp(a + 160, b + 160, 256) == 0;
}

static bool bad_address(const struct isa_outcome *o)
{
    return o->signal == SIGSEGV || o->signal == SIGBUS;
}

static bool same_fault(const struct sequence *s, const struct isa_outcome *a,
                       const struct isa_outcome *b)
{
    uint64_t at = a->s.rip - CODE_AT;

    if (a->s.rip != b->s.rip) {
        return false;
    }
    if (at < CODE_SIZE && s->any_order[at]) {
        return a->signal == b->signal || (bad_address(a) && bad_address(b));
    }
    return a->signal == b->signal && a->page_fault == b->page_fault && a->present == b->present &&
           a->address == b->address;
}

/* The instruction at which the engine stopped. false: it is no instruction, or not in the program.
 */
static bool last_insn(const struct sequence *s, const struct isa_outcome *here, struct form *f,
                      struct isa_code *code)
{
    uint64_t at = here->s.rip - CODE_AT;

    if (at >= CODE_SIZE - sizeof f->bytes || !form_of_bytes(ISA_64, s->code + at, f)) {
        return false;
    }
    *code = (struct isa_code){.len = f->len, .imm_at = f->imm_at[0]};
    memcpy(code->bytes, f->bytes, f->len);
    return true;
}

/* What vendors do differently at the last instruction (exempt.c) is made equal in @there, or, for
 * true, needs no comparison: the host may have gone on behind it. */
static bool exempt(const struct sequence *s, struct isa_outcome *there,
                   const struct isa_outcome *here)
{
    static struct isa_outcome passed;
    struct isa_code code;
    struct form f;

    if (!last_insn(s, here, &f, &code)) {
        return false;
    }
    passed = *there;
    if (there->s.rip != here->s.rip) {
        passed.signal = 0;
    }
    if (exempt_fault(&f, &here->s, &code, &passed, here)) {
        return true;
    }
    if (passed.signal != 0) {
        exempt_results(&f, &code, there, here);
    }
    return false;
}

/* The host has stopped at an access that only some vendor's processors make whole. */
static bool host_alone_faults(const struct sequence *s, const struct isa_outcome *there)
{
    static struct isa_outcome none;
    struct isa_code code;
    struct form f;

    return last_insn(s, there, &f, &code) && f.mnemonic == ZYDIS_MNEMONIC_MOVSXD &&
           exempt_fault(&f, &there->s, &code, there, &none);
}

static bool same_as_host(const struct sequence *s, const struct isa_outcome *a,
                         const struct isa_outcome *b)
{
    uint64_t at = a->s.rip - CODE_AT;
    uint64_t flags = (FLAGS_ARITH | FLAG_DF) & ~(uint64_t)(at < CODE_SIZE ? s->unknown[at] : 0);

    return same_fault(s, a, b) && ((a->s.rflags ^ b->s.rflags) & flags) == 0 &&
           memcmp(a->s.gpr, b->s.gpr, sizeof a->s.gpr) == 0 && same_fx(a->s.fx, b->s.fx) &&
           memcmp(a->s.ymm_high, b->s.ymm_high, sizeof a->s.ymm_high) == 0 &&
           memcmp(a->s.data, b->s.data, DATA_SIZE) == 0 &&
           memcmp(a->s.stack, b->s.stack, STACK_SIZE) == 0;
}

/* The program is still what the host may be given: it changed only what it says it does. */
static bool is_own(const struct sequence *s)
{
    const uint8_t *code = ours_code(&now->interp);

    for (unsigned i = 0; i < CODE_SIZE; i++) {
        if (code[i] != s->code[i] && !s->own[i]) {
            return false;
        }
    }
    return true;
}

static void run_in_portions(struct prng *g, uint64_t budget)
{
    static const uint64_t portions[] = {1, 2, 3, 7, 30, 100};

    while (budget > 0) {
        uint64_t n = portions[prng_below(g, PLX_COUNT(portions))];
        uint64_t before = ours_at(&now->jit).progress;
        n = n < budget ? n : budget;
        if (ours_run(&now->jit, n) != 0) {
            break;
        }
        uint64_t went = ours_at(&now->jit).progress - before;
        budget -= went < budget ? went : budget;
    }
}

static void run_host(const uint8_t *data, size_t size, const struct sequence *s,
                     const struct isa_state *in, unsigned run)
{
    static struct isa_outcome there, here;

    if (!is_own(s)) {
        return;
    }
    ours_outcome(&now->interp, &here);
    if (!native_run(s->code, in, &there)) {
        report(data, size, s, in, run);
        printf("the host does not end, at %llx\n", (unsigned long long)there.s.rip);
        differs();
    }
    if (!exempt(s, &there, &here) && !same_as_host(s, &there, &here) &&
        !host_alone_faults(s, &there)) {
        report(data, size, s, in, run);
        printf("the host and (here) the interpreter differ\n");
        print_both(&there, &here);
        differs();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sequence s;
    static struct isa_state in;
    static struct isa_outcome a, b;
    struct choices c = {.bytes = data + HEADER, .left = size - HEADER};
    struct prng g;

    if (size <= HEADER) {
        return 0;
    }
    if (now == NULL) {
        open_sides();
    }
    isa_v3 = (data[3] & MODEL_V3) != 0;
    now = &sides[isa_v3 ? 1 : 0];
    now->jit.vcpu->jit->poison = (data[3] & POISON) != 0;
    enum sequence_kind kind = (data[0] & 3) == 0 ? SEQUENCE_ANY : SEQUENCE_HOST;
    unsigned start = (data[0] & 4) == 0 ? 0x100 : 0x1000U - (data[0] >> 3) * 4;
    uint64_t budget = kind == SEQUENCE_ANY ? ANY_BUDGET : NATIVE_BUDGET;

    prng_seed_bytes(&c.g, data, SEED_LEN);
    bool x87 = (data[0] & 0xf4) == 0xf0;
    sequence_make(&c, kind | (x87 ? SEQUENCE_X87 : 0), start, ITEMS, &s);
    ours_forget(&now->interp);
    ours_forget(&now->jit);
    prng_seed_bytes(&g, data + 1, 2);
    sequence_memory(&g, &in);
    for (unsigned run = 0; run < RUNS; run++) {
        sequence_registers(&g, &s, run >= EDGES_FROM, &in);
        ours_begin(&now->interp, s.code, &in);
        ours_begin(&now->jit, s.code, &in);
        (void)ours_run(&now->interp, budget);
        if (run == PORTIONS_AT) {
            run_in_portions(&g, budget);
        } else {
            (void)ours_run(&now->jit, budget);
        }
        if (!ours_equal(&now->interp, &now->jit)) {
            report(data, size, &s, &in, run);
            ours_outcome(&now->interp, &a);
            ours_outcome(&now->jit, &b);
            printf("the interpreter and (here) the translator differ\n");
            print_both(&a, &b);
            differs();
        }
        bool with_host = now->host && kind == SEQUENCE_HOST && (run == 0 || run >= EDGES_FROM);
        if (with_host && ours_ended(&now->interp)) {
            run_host(data, size, &s, &in, run);
        }
    }
    return 0;
}
