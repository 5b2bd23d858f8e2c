/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_sys.c - the translator against the interpreter where a system has a say:
 * random programs of system instructions at both privilege levels, through SYSCALL and SYSRET;
 * stops in an STI's shadow; breakpoints over translated code; one page run at two linear
 * addresses. RUNS= programs, SEED=. And programs that once ended otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/unit/amount.h"
#include "vmm/cpu/decode.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

/* Linear addresses from 0 are memory for user and supervisor, those from ALIAS the same memory for
 * the supervisor alone. What faults ends the run: there is no IDT. */
enum { TABLES = 0x10000, CODE = 0x20000, DATA = 0x40000, STACK = 0x60000, RAM_SIZE = 2 << 20 };
enum { ALIAS = 0x200000, CODE_MAX = 4096, HOT = 12 };

struct world {
    const struct engine_ops *engine;
    struct ram *ram;
    struct vcpu *v;
};

struct program {
    uint8_t bytes[CODE_MAX];
    unsigned n;
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

static void open_world_of(struct world *w, const struct engine_ops *engine, unsigned cache_entries)
{
    struct engine_config cfg = {
        .vcpus = 1, .bsp = true, .ops = &ops, .cache_entries = cache_entries};

    w->engine = engine;
    assert_int_equal(ram_create(RAM_SIZE, &w->ram, NULL), 0);
    cfg.ram = w->ram;
    assert_int_equal(engine->create(&cfg, &w->v, NULL), 0);
}

static void open_world(struct world *w, const struct engine_ops *engine)
{
    open_world_of(w, engine, 0);
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

/* An instruction that exists, goes on to the next one and mostly spares the pointers; @opcode
 * writes its prefixes and opcode. */
static void add_insn(struct program *p, struct prng *r,
                     unsigned (*opcode)(struct prng *r, uint8_t *out))
{
    static const uint8_t base[] = {3, 6, 3, 5, 7};
    struct insn in;
    uint8_t b[32];

    for (;;) {
        unsigned n = opcode(r, b);
        uint8_t modrm = (uint8_t)prng_u64(r);
        bool mem = (modrm & 0xc0) != 0xc0;
        if (mem) {
            modrm = (uint8_t)(0x40 | (modrm & 0x38) | base[pick(r, sizeof base)]);
        }
        b[n++] = modrm;
        if (mem) {
            b[n++] = (uint8_t)(pick(r, 8) * 16 + (pick(r, 4) == 0 ? pick(r, 16) : 0));
        }
        while (n < INSN_BYTES_MAX) {
            b[n++] = (uint8_t)pick(r, 128);
        }
        if (decode_insn(CPU_POLLUX_V2, DECODE_64, b, INSN_BYTES_MAX, &in) != 0 ||
            (in.flags & (INSN_BAD | INSN_BRANCH | INSN_ENDS_BLOCK)) != 0) {
            continue;
        }
        bool pointer = in.opd[0].kind == OPD_REG && (in.opd[0].reg == RBX || in.opd[0].reg == RSP ||
                                                     in.opd[0].reg == RSI || in.opd[0].reg == R13);
        if (!pointer || pick(r, 10) == 0) {
            memcpy(p->bytes + p->n, b, in.len);
            p->n += in.len;
            return;
        }
    }
}

static void add_bytes(struct program *p, const uint8_t *bytes, unsigned n)
{
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

/* A conditional jump over what will be added until land_jump; returns where it stands. */
static unsigned add_jump(struct program *p, struct prng *r)
{
    p->bytes[p->n++] = (uint8_t)(0x70 | pick(r, 16));
    return p->n++;
}

static void land_jump(struct program *p, unsigned at)
{
    p->bytes[at] = (uint8_t)(p->n - (at + 1));
}

/* Back to the beginning. */
static void add_loop(struct program *p)
{
    int32_t back = -(int32_t)(p->n + 5);

    p->bytes[p->n++] = 0xe9;
    memcpy(p->bytes + p->n, &back, 4);
    p->n += 4;
}

/* @p in place, everything else random from @seed: CPL 0, few control bits set. */
static void begin(struct world *w, const struct program *p, uint64_t seed)
{
    struct cpu *c = &w->v->c;
    struct prng r;
    static uint8_t zero[RAM_SIZE];
    const uint64_t alias = 0x83;
    uint64_t tables[3] = {TABLES + 0x1007, TABLES + 0x2007, 0x87};

    prng_seed(&r, seed);
    if (memcmp(w->ram->hva + CODE, p->bytes, p->n) != 0) {
        assert_int_equal(ram_write(w->ram, CODE, zero, CODE_MAX), 0);
        assert_int_equal(ram_write(w->ram, CODE, p->bytes, p->n), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ram_write(w->ram, TABLES + i * 0x1000, &tables[i], 8), 0);
    }
    assert_int_equal(ram_write(w->ram, TABLES + 0x2008, &alias, 8), 0);
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

/* @run: what matters beside the budget; the rest is set. */
static enum vcpu_stop run_with(struct world *w, struct engine_run run, uint64_t budget)
{
    run.budget = budget;
    w->v->stopping = false;
    w->engine->run(w->v, &run);
    return run.stop;
}

static void same(const struct world *a, const struct world *b, const struct program *p,
                 uint64_t seed)
{
    bool equal = memcmp(&a->v->c, &b->v->c, sizeof a->v->c) == 0 &&
                 memcmp(a->ram->hva, b->ram->hva, RAM_SIZE) == 0;

    if (!equal) {
        printf("seed %#llx; program:", (unsigned long long)seed);
        for (unsigned i = 0; i < p->n; i++) {
            printf(" %02x", p->bytes[i]);
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

enum { INSNS = 16, BUDGET = 300, KERNEL = 0x180 };

static unsigned plain_opcode(struct prng *r, uint8_t *out)
{
    static const uint8_t one[] = {0x01, 0x03, 0x09, 0x0b, 0x11, 0x13, 0x21, 0x23, 0x29, 0x2b,
                                  0x31, 0x33, 0x39, 0x3b, 0x50, 0x58, 0x68, 0x81, 0x83, 0x85,
                                  0x87, 0x89, 0x8b, 0x8d, 0xb8, 0xc1, 0xc7, 0xd1, 0xf7, 0xff};
    unsigned n = 0;

    if (pick(r, 12) == 0) {
        out[n++] = 0x65; /* GS */
    }
    if (pick(r, 2) == 0) {
        out[n++] = (uint8_t)(0x40 | pick(r, 16));
    }
    out[n++] = one[pick(r, sizeof one)];
    return n;
}

struct bytes {
    uint8_t n, bytes[9];
};

static const struct bytes user[] = {
    {1, {0x9c}},                                        /* pushfq */
    {2, {0x9c, 0x9d}},                                  /* pushfq; popfq */
    {9, {0x9c, 0x48, 0x81, 0x34, 0x24, 0xd5, 0, 0, 0}}, /* pushfq; xor qword [rsp], flags */
    {1, {0x9d}},                                        /* popfq, of whatever is there */
    {1, {0xfc}},                                        /* cld */
    {1, {0xfd}},                                        /* std */
    {2, {0x0f, 0x31}},                                  /* rdtsc */
    {3, {0x0f, 0x01, 0xf9}},                            /* rdtscp */
    {2, {0xf3, 0x90}},                                  /* pause */
    {8, {0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90}},
    {3, {0x0f, 0xae, 0xe8}}, /* lfence */
    {3, {0x0f, 0xae, 0xf0}}, /* mfence */
    {3, {0x0f, 0xae, 0xf8}}, /* sfence */
    {2, {0x0f, 0x05}},       /* syscall */
    {2, {0x0f, 0x05}},
};

static const struct bytes super[] = {
    {1, {0xfa}},             /* cli */
    {1, {0xfb}},             /* sti */
    {2, {0xfa, 0xfb}},       /* cli; sti */
    {2, {0xfb, 0x9d}},       /* sti; popfq */
    {2, {0xfb, 0xfb}},       /* sti; sti */
    {3, {0x0f, 0x01, 0xca}}, /* clac */
    {3, {0x0f, 0x01, 0xcb}}, /* stac */
    {3, {0x0f, 0x01, 0xf8}}, /* swapgs */
    {3, {0x0f, 0x01, 0x3b}}, /* invlpg [rbx] */
    {2, {0xfb, 0xec}},       /* sti; in al, dx */
    {2, {0xfb, 0xee}},       /* sti; out dx, al */
    {3, {0x48, 0x0f, 0x07}}, /* sysretq */
};

static void add_one_of(struct program *p, struct prng *r, const struct bytes *b, unsigned n)
{
    unsigned k = (unsigned)pick(r, n);

    add_bytes(p, b[k].bytes, b[k].n);
}

/* A mask of flags for "and" and "or" of what PUSHF left. */
static void add_change_flags(struct program *p, struct prng *r)
{
    static const uint32_t masks[] = {FLAG_IF, FLAG_DF,           FLAG_AC,  FLAG_NT,
                                     FLAG_ID, FLAG_CF | FLAG_OF, FLAG_IOPL};
    uint32_t mask = masks[pick(r, PLX_COUNT(masks))];

    add_bytes(p, (const uint8_t[]){0x9c, 0x48, 0x81, 0x34, 0x24}, 5); /* pushfq; xor [rsp], mask */
    add_bytes(p, (const uint8_t *)&mask, 4);
    add_bytes(p, (const uint8_t[]){0x9d}, 1); /* popfq */
}

static void add_some(struct program *p, struct prng *r, bool kernel)
{
    for (unsigned i = 0; i < INSNS; i++) {
        unsigned what = (unsigned)pick(r, 12), jump = 0;
        bool skip = pick(r, 10) == 0;
        if (skip) {
            jump = add_jump(p, r);
        }
        if (what < 3) {
            add_one_of(p, r, user, PLX_COUNT(user));
        } else if (what < 6 && (kernel || pick(r, 20) == 0)) {
            add_one_of(p, r, super, PLX_COUNT(super));
        } else if (what < 7) {
            add_change_flags(p, r);
        } else {
            add_insn(p, r, plain_opcode);
        }
        if (skip) {
            land_jump(p, jump);
        }
    }
}

/* User's code at CODE, a kernel's at KERNEL behind it, which often returns by SYSRET. */
static void make_program(struct prng *r, struct program *p)
{
    p->n = 0;
    add_some(p, r, pick(r, 2) == 0);
    add_loop(p);
    assert_true(p->n < KERNEL);
    memset(p->bytes + p->n, 0x90, KERNEL - p->n);
    p->n = KERNEL;
    add_bytes(p, (const uint8_t[]){0x49, 0x89, 0xcc}, 3);       /* mov r12, rcx */
    add_bytes(p, (const uint8_t[]){0x4c, 0x89, 0xd8, 0x50}, 4); /* mov rax, r11; push rax */
    add_some(p, r, true);
    add_bytes(p, (const uint8_t[]){0x4c, 0x89, 0xe1, 0x41, 0x5b}, 5); /* mov rcx, r12; pop r11 */
    add_bytes(p, (const uint8_t[]){0x48, 0x0f, 0x07}, 3);             /* sysretq */
}

static void set_cpl(struct cpu *c, unsigned cpl)
{
    c->seg[SEG_CS].sel = (uint16_t)(0x10 | cpl);
    c->seg[SEG_SS].sel = (uint16_t)(0x18 | cpl);
    for (unsigned i = SEG_CS; i <= SEG_SS; i++) {
        c->seg[i].attr = (uint16_t)((c->seg[i].attr & ~(unsigned)SEG_DPL) | cpl << SEG_DPL_SHIFT);
        c->seg[i].limit = UINT32_MAX;
    }
}

/* As begin, with all that a system may have set up. The supervisor often has pointers of its own,
 * so that SMAP can be on. */
static void begin_system(struct world *w, const struct program *p, uint64_t seed)
{
    static const uint64_t masks[] = {0x47700, 0x47700, 0x700, 0, 0x257fd5};
    struct cpu *c = &w->v->c;
    struct prng r;

    prng_seed(&r, seed ^ 0x737973);
    begin(w, p, seed);
    bool smap = pick(&r, 3) == 0, own = smap || pick(&r, 2) == 0;
    c->cr4 |= (smap ? CR4_SMAP : 0) | (pick(&r, 8) == 0 ? CR4_TSD : 0);
    c->cr0 |= pick(&r, 4) == 0 ? CR0_AM : 0;
    c->efer |= pick(&r, 16) == 0 ? 0 : EFER_SCE;
    c->rflags |= prng_u64(&r) & (FLAG_IF | FLAG_DF | FLAG_ID);
    c->rflags |= pick(&r, 8) == 0 ? FLAG_AC : 0;
    c->star = prng_u64(&r);
    c->sfmask = masks[pick(&r, PLX_COUNT(masks))];
    c->lstar = CODE + KERNEL;
    c->kernel_gs_base = pick(&r, 4) == 0 ? prng_u64(&r) >> 17 : 0x100;
    c->seg[SEG_GS].base = 0x80;
    c->tsc_adjust = prng_u64(&r);
    c->tsc_aux = prng_u64(&r) & UINT32_MAX;
    c->pause_run = (uint32_t)pick(&r, 16);
    set_cpl(c, pick(&r, 2) == 0 ? 3 : 0);
    if (own && cpu_cpl(c) == 0) {
        static const enum cpu_reg pointers[] = {RBX, RSI, R11, R13, R15, RBP, RDI, RSP};
        for (unsigned i = 0; i < PLX_COUNT(pointers); i++) {
            c->gpr[pointers[i]] += pick(&r, 12) == 0 ? 0 : ALIAS;
        }
    }
    if (cpu_cpl(c) == 0) { /* one page of code at two addresses */
        c->rip += pick(&r, 3) == 0 ? ALIAS : 0;
        c->lstar += pick(&r, 3) == 0 ? ALIAS : 0;
    }
    w->engine->state_changed(w->v);
    w->v->irq_pending = pick(&r, 4) == 0;
}

static struct engine_run some_run(struct prng *r)
{
    uint64_t t0 = prng_u64(r) >> 20;

    return (struct engine_run){
        .part = pick(r, 4) == 0 ? PART_PARALLEL : PART_SERIAL,
        .t0 = t0,
        .t_end = t0 + (pick(r, 3) == 0 ? pick(r, 300) : UINT64_C(1) << 40),
        .rate = (uint32_t)(prng_u64(r) >> (32 + pick(r, 24))),
        .alone = pick(r, 2) == 0,
        .until_user = pick(r, 2) == 0,
    };
}

static void system_programs_end_alike(void **state)
{
    uint64_t seed = from_env("SEED", 0x737973), runs = from_env("RUNS", AMOUNT(1500, 20)), ran = 0,
             levels[4] = {0};
    unsigned stops[VCPU_STOPPED + 1] = {0}, shadows = 0, returned = 0;
    struct world a, b;

    open_world(&a, &engine_interp);
    open_world(&b, *state);
    for (uint64_t k = 0; k < runs; k++, seed++) {
        struct program p;
        struct prng r;
        prng_seed(&r, seed);
        make_program(&r, &p);
        for (unsigned i = 0; i < HOT; i++) {
            begin_system(&a, &p, seed + i);
            begin_system(&b, &p, seed + i);
            for (unsigned part = 0; part < 3; part++) {
                struct engine_run how = some_run(&r);
                uint64_t budget = BUDGET - pick(&r, 40), from = a.v->c.progress;
                enum vcpu_stop stop = run_with(&a, how, budget);
                if (stop == VCPU_BUDGET && a.v->c.progress != from + budget) {
                    assert_true(how.until_user && cpu_cpl(&a.v->c) == 3);
                    returned++;
                }
                assert_int_equal(run_with(&b, how, budget), stop);
                same(&a, &b, &p, seed);
                assert_true((a.v->c.sti_shadow | b.v->c.sti_shadow) <= 1);
                stops[stop]++;
                shadows += a.v->c.sti_shadow;
                levels[cpu_cpl(&a.v->c)]++;
                if (stop == VCPU_SHUTDOWN) {
                    break;
                }
            }
            ran += a.v->c.retired;
        }
    }
    printf("%llu programs, %llu instructions; stops: %u budget, %u yield, %u serial, %u shutdown; "
           "%u in a shadow\n",
           (unsigned long long)runs, (unsigned long long)ran, stops[VCPU_BUDGET], stops[VCPU_YIELD],
           stops[VCPU_SERIAL], stops[VCPU_SHUTDOWN], shadows);
    assert_true(ran > runs * HOT * 10 && stops[VCPU_BUDGET] != 0 && stops[VCPU_YIELD] != 0 &&
                stops[VCPU_SERIAL] != 0 && shadows != 0 && levels[0] != 0 && levels[3] != 0 &&
                returned != 0);
    close_world(&a);
    close_world(&b);
}

/* Breakpoints on code that is translated already, and on what it reads and writes (SDM Vol. 3B,
 * "Debug Registers"): the #DB ends the run. */
static void breakpoints_end_alike(void **state)
{
    uint64_t seed = from_env("SEED", 0x647230), runs = from_env("RUNS", AMOUNT(1500, 5)) / 4;
    unsigned hits[4] = {0};
    struct world a, b;

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    for (uint64_t k = 0; k < runs; k++, seed++) {
        struct program p;
        struct prng r;
        prng_seed(&r, seed);
        make_program(&r, &p);
        for (unsigned i = 0; i < HOT + 4; i++) {
            struct world *both[] = {&a, &b};
            uint64_t dr[8];
            for (unsigned n = 0; n < 4; n++) {
                dr[n] = pick(&r, 2) == 0 ? CODE + pick(&r, 24) : STACK - 8 * (1 + pick(&r, 3));
            }
            dr[7] = i < HOT || i % 2 == 0 ? DR7_FIXED
                                          : DR7_FIXED | (prng_u64(&r) & UINT64_C(0xffff00ff));
            for (unsigned n = 0; n < 2; n++) {
                begin_system(both[n], &p, seed + i);
                memcpy(both[n]->v->c.dr, dr, 4 * sizeof dr[0]);
                both[n]->v->c.dr[7] = dr[7];
                both[n]->engine->state_changed(both[n]->v);
            }
            struct engine_run how = some_run(&r);
            assert_int_equal(run_with(&a, how, BUDGET), run_with(&b, how, BUDGET));
            same(&a, &b, &p, seed);
            for (unsigned n = 0; n < 4; n++) {
                hits[n] += a.v->c.dr[6] >> n & 1;
            }
        }
    }
    printf("%u %u %u %u hits\n", hits[0], hits[1], hits[2], hits[3]);
    assert_true(hits[0] != 0 && hits[1] != 0 && hits[2] != 0 && hits[3] != 0);
    close_world(&a);
    close_world(&b);
}

/* @p at CPL 0 with 1000 in RCX. */
static void begin_loop(struct world *w, const struct program *p)
{
    begin(w, p, 1);
    w->v->c.gpr[RCX] = 1000;
    w->v->c.fpu.mxcsr = 0x1f80;
    w->v->c.cr0 &= ~CR0_TS;
    w->v->c.cr4 |= CR4_OSFXSR;
}

static void end_alike(struct world *a, struct world *b, const struct program *p, uint64_t budget)
{
    const struct engine_run how = {.part = PART_SERIAL, .t_end = UINT64_C(1) << 40, .rate = 65536};

    a->engine->state_changed(a->v);
    b->engine->state_changed(b->v);
    assert_int_equal(run_with(a, how, budget), run_with(b, how, budget));
    same(a, b, p, 0);
    close_world(a);
    close_world(b);
}

/* BH is a use of RBX, whose host register must not be lent then. */
static void high_bytes_are_of_their_registers(void **state)
{
    static const struct program p = {
        .bytes = "\x4d\x89\xe2\x4d\x89\xc1\x50\x58" /* mov r10, r12; mov r9, r8; push, pop rax */
                 "\x49\x83\xc5\x01\x49\x83\xc5\x01\x49\x83\xc5\x01" /* add r13, 1 */
                 "\x49\x83\xc5\x01\x49\x83\xc5\x01"
                 "\xb7\x55\x49\x83\xc5\x01" /* mov bh, 85; add r13, 1 */
                 "\xff\xc9\x75\xda",        /* dec ecx; jnz */
        .n = 38};
    struct world a, b;

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    begin_loop(&a, &p);
    begin_loop(&b, &p);
    end_alike(&a, &b, &p, 300);
}

/* Displacements near the least there is, of accesses that one check serves: it must not look 4 GiB
 * higher, where the page of the same place in the tables is. */
static void distances_beyond_32_bits_are_no_group(void **state)
{
    static const struct program p = {.bytes =
                                         "\x48\x8d\x98\x00\x10\x00\x00" /* lea rbx, [rax + 4096] */
                                         "\x48\x03\x93\x00\x00\x00\x80" /* add rdx, [rbx - 2^31] */
                                         "\x48\x8d\x9b\x00\xff\xff\xff" /* lea rbx, [rbx - 256] */
                                         "\x48\x03\xb3\x00\x00\x00\x80" /* add rsi, [rbx - 2^31] */
                                         "\x4d\x8b\x01"                 /* mov r8, [r9] */
                                         "\xff\xc9\x75\xdd",            /* dec ecx; jnz */
                                     .n = 35};
    struct world a, b, *both[] = {&a, &b};

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    for (unsigned i = 0; i < 2; i++) {
        struct ram *ram = both[i]->ram;
        begin_loop(both[i], &p);
        /* 4 GiB further the same memory */
        assert_int_equal(ram_write(ram, TABLES + 0x1000 + 4 * 8, ram->hva + TABLES + 0x1000, 8), 0);
        both[i]->v->c.gpr[RAX] = UINT64_C(0x80000000) + DATA + 0x800 - 0x1000;
        both[i]->v->c.gpr[R9] = UINT64_C(0x100000000) + DATA;
    }
    end_alike(&a, &b, &p, 300);
}

/* Fetches do not see the table of data that EFLAGS.AC opens: with caches of one entry what was last
 * read there stood for the page that runs. */
static void fetches_pass_no_smap_table(void **state)
{
    static const struct program p = {
        .bytes = "\x49\x8b\x01\xeb\x00"              /* mov rax, [r9]; jmp +0 */
                 "\xba\x01\x00\x00\x00\x41\xff\xe0", /* mov edx, 1; jmp r8 */
        .n = 13};
    static const uint8_t other[] = {0x90, 0x90, 0x90, 0x90, 0x90, 0xba, 2, 0, 0, 0, 0xeb, 0xfe};
    static const uint64_t tables[][2] = {{TABLES + 0x1000 + 4 * 8, 0x14000 | 3},
                                         {0x14000 + 8, 0x15000 | 3},
                                         {0x15000 + 0x20 * 8, 0x50000 | 3}};
    const uint64_t other_at = UINT64_C(0x100220000);

    for (unsigned small = 0; small < 2; small++) {
        struct world a, b, *both[] = {&a, &b};

        open_world_of(&a, &engine_interp, small);
        open_world(&b, *state);
        for (unsigned i = 0; i < 2; i++) {
            struct cpu *c = &both[i]->v->c;
            begin_loop(both[i], &p);
            for (unsigned k = 0; k < PLX_COUNT(tables); k++) {
                assert_int_equal(ram_write(both[i]->ram, tables[k][0], &tables[k][1], 8), 0);
            }
            assert_int_equal(ram_write(both[i]->ram, 0x50000, other, sizeof other), 0);
            c->cr4 |= CR4_SMAP;
            c->rflags |= FLAG_AC;
            set_cpl(c, 0);
            c->rip = ALIAS + CODE;
            c->gpr[R9] = other_at;
            c->gpr[R8] = other_at + 5;
        }
        end_alike(&a, &b, &p, 20);
    }
}

/* What does not fit into the code cache makes room for the next: it does not end translation. */
static void a_full_cache_is_emptied(void **state)
{
    static const struct program p = {.bytes = "\x48\xff\xc0\xeb\xfb", .n = 5}; /* inc rax; jmp */
    const struct engine_run how = {.part = PART_SERIAL, .t_end = UINT64_C(1) << 40, .rate = 65536};
    struct world w;

    (void)state;
    open_world(&w, &engine_jit);
    begin_loop(&w, &p);
    w.v->jit->code.full = true; /* as if it had not */
    w.v->jit->code.at = w.v->jit->code.size - (256 << 10);
    (void)run_with(&w, how, 1000);
    uint64_t interpreted = w.v->jit->interpreted;
    (void)run_with(&w, how, 1000);
    assert_in_range(w.v->jit->interpreted - interpreted, 0, 100);
    close_world(&w);
}

/* Memory executed at two addresses in turns, as programs have a library, is translated for both. */
static void a_page_is_translated_at_each_address(void **state)
{
    static const struct program p = {.bytes = "\x48\xff\xc0\xeb\xfb", .n = 5}; /* inc rax; jmp */
    const struct engine_run how = {.part = PART_SERIAL, .t_end = UINT64_C(1) << 40, .rate = 65536};
    struct world w;
    uint64_t drops = 0, interpreted = 0;

    (void)state;
    open_world(&w, &engine_jit);
    begin_loop(&w, &p);
    set_cpl(&w.v->c, 0);
    w.v->c.gpr[RAX] = 0;
    for (unsigned i = 0; i < 100; i++) {
        w.v->c.rip = (i % 2 == 0 ? 0 : ALIAS) + CODE;
        w.engine->state_changed(w.v);
        (void)run_with(&w, how, 100);
        if (i == 20) {
            drops = w.v->jit->drops;
            interpreted = w.v->jit->interpreted;
        }
    }
    assert_int_equal(w.v->jit->drops, drops);
    assert_int_equal(w.v->c.gpr[RAX], 100 * 50);
    assert_in_range(w.v->jit->interpreted - interpreted, 0, 400);
    close_world(&w);
}

/* An STI before an instruction that spans two pages: if that is not what was translated any more,
 * it is executed all the same in the STI's shadow, and may stop there. */
static void a_shadow_reaches_the_next_page(void **state)
{
    static const uint8_t code[] = {
        0xfa,                         /* cli */
        0x48, 0xff, 0xc0,             /* inc rax */
        0xfb,                         /* sti */
        0x41, 0x8b, 0x90, 0, 0, 0, 0, /* mov edx, [r8 + 0]: spans two pages */
        0xeb, 0xf2,                   /* jmp back */
    };
    enum { PAGE_2 = CODE + 4096, AT = PAGE_2 - 9, DISP = AT + 8 };
    static const struct program p = {.bytes = {0x90}, .n = 1};
    static const uint64_t foreign = (2 << 20) | 0x83; /* at 4 MiB what is behind RAM */
    static const uint8_t disp = 8;
    struct engine_run how = {.part = PART_SERIAL, .t_end = UINT64_C(1) << 40, .rate = 65536};
    struct world a, b, *both[] = {&a, &b};

    (void)state;
    open_world(&a, &engine_interp);
    open_world(&b, &engine_jit);
    for (unsigned i = 0; i < 2; i++) {
        struct world *w = both[i];
        begin_loop(w, &p);
        assert_int_equal(ram_write(w->ram, TABLES + 0x2010, &foreign, 8), 0);
        assert_int_equal(ram_write(w->ram, AT, code, sizeof code), 0);
        w->v->c.rip = AT;
        w->v->c.gpr[R8] = DATA;
        w->engine->state_changed(w->v);
        how.part = PART_SERIAL;
        assert_int_equal(run_with(w, how, 1000), VCPU_BUDGET);
        assert_int_equal(w->v->c.rip, AT);
        assert_int_equal(ram_write(w->ram, DISP + 1, &disp, 1), 0);
        w->v->c.gpr[R8] = 4 << 20;
        w->engine->state_changed(w->v);
        how.part = PART_PARALLEL;
        assert_int_equal(run_with(w, how, 1000), VCPU_SERIAL);
        assert_int_equal(w->v->c.rip, AT + 5);
        assert_int_equal(w->v->c.sti_shadow, 1);
    }
    same(&a, &b, &p, 0);
    close_world(&a);
    close_world(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(system_programs_end_alike, (void *)(uintptr_t)&engine_jit),
        cmocka_unit_test_prestate(system_programs_end_alike, (void *)(uintptr_t)&engine_switch),
        cmocka_unit_test(breakpoints_end_alike),
        cmocka_unit_test(high_bytes_are_of_their_registers),
        cmocka_unit_test(distances_beyond_32_bits_are_no_group),
        cmocka_unit_test_prestate(fetches_pass_no_smap_table, (void *)(uintptr_t)&engine_interp),
        cmocka_unit_test_prestate(fetches_pass_no_smap_table, (void *)(uintptr_t)&engine_jit),
        cmocka_unit_test(a_full_cache_is_emptied),
        cmocka_unit_test(a_shadow_reaches_the_next_page),
        cmocka_unit_test(a_page_is_translated_at_each_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
