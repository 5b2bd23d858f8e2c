/* SPDX-License-Identifier: Apache-2.0
 * What an instruction leaves behind when it lacks a page in a parallel part (R2): nothing. Each
 * page of RAM in turn is taken away, wholly or for writing, before an instruction of each kind that
 * touches memory more than once. Bugs hunted: the first of two stores that stays, an accessed flag
 * of a walk whose data page is lacking, an event half delivered, a translation or decoded code that
 * survives what it was derived from, a lacking page that goes unnoticed on a hit or on a miss; and
 * that the instruction then does in the serial part what it does on a machine with one vCPU. */
#include <stdio.h>

#include "tests/unit/cpu_guest.h"
#include "vmm/mmu/owner.h"

enum { ME = 0, OTHER = 1, PAGES = G_RAM >> PAGE_SHIFT };
enum {
    A = 0x100000, /* operands, each at a page of its own and, + EDGE, across its end */
    B = 0x110000,
    C = 0x120000,
    EDGE = 0xffc,
    USER_STACK = 0x130000,
};

/* Every page that the forms touch, and neighbours: first page and how many. */
static const uint16_t ranges[][2] = {
    {0x0, 9},   {0x10, 3},  {0x1f, 4},  {0x27, 4},  {0x100, 3},
    {0x110, 3}, {0x120, 2}, {0x12f, 2}, {0x1ee, 3},
};
enum { TOUCHED_MAX = 64 };

struct image {
    uint8_t ram[TOUCHED_MAX][PAGE_SIZE];
    struct cpu cpu;
};

struct smp {
    struct guest g;
    struct owner *o;
    uint16_t page[TOUCHED_MAX];
    unsigned npages;
    struct image before, want;
    uint8_t rest[G_RAM];
};

static void revoke(void *ctx, unsigned vcpu, uint64_t page, bool all)
{
    struct smp *s = ctx;

    if (vcpu == ME) {
        engine_interp.revoke(s->g.v, page, all);
    }
}

static const struct owner_ops owner_ops = {revoke};

/* --- the instructions ----------------------------------------------------------------------- */

struct form {
    const char *name;
    uint8_t code[16];
    uint8_t len;
    void (*prepare)(struct smp *s);
    bool serial;   /* always needs the serial part */
    uint8_t least; /* pages which must stop it when taken away, beside tables and code */
};

static void at_edges(struct smp *s)
{
    s->g.v->c.gpr[RSP] = G_STACK + 0x1004; /* the next push crosses into the page below */
    s->g.v->c.gpr[RBP] = G_STACK + 0x1004;
}

static void frame_at_edge(struct smp *s)
{
    s->g.v->c.gpr[RSP] = G_STACK + 0x1010;
}

static void as_user(struct smp *s)
{
    g_select_mode(&s->g, GUEST64, 3);
    s->g.v->c.gpr[RSP] = USER_STACK;
    g_put(&s->g, G_TSS + 4, G_STACK0 + 0x1010, 8); /* the frame crosses pages */
}

/* Descriptors whose accessed bits are clear, and frames that use them. */
static void unaccessed(struct smp *s)
{
    g_desc(&s->g, SEL_CODE64, 0xa09a00);
    g_desc(&s->g, SEL_DATA, 0xc09200);
    g_desc(&s->g, SEL_UDATA, 0xc0f200);
    g_desc(&s->g, SEL_UCODE64, 0xa0fa00);
}

static void far_pointer(struct smp *s)
{
    unaccessed(s);
    at_edges(s);
    g_put(&s->g, A + EDGE, G_STUBS, 4);
    g_put(&s->g, A + EDGE + 4, SEL_CODE64, 2);
}

static void iret_frame(struct smp *s)
{
    gpa_t sp = G_STACK + 0xff0;

    unaccessed(s);
    s->g.v->c.gpr[RSP] = sp;
    g_put(&s->g, sp, G_STUBS, 8);
    g_put(&s->g, sp + 8, SEL_UCODE64 | 3, 8);
    g_put(&s->g, sp + 16, FLAG_ONE, 8);
    g_put(&s->g, sp + 24, USER_STACK, 8);
    g_put(&s->g, sp + 32, SEL_UDATA | 3, 8);
}

static void far_ret_frame(struct smp *s)
{
    unaccessed(s);
    s->g.v->c.gpr[RSP] = G_STACK + 0xff8;
    g_put(&s->g, G_STACK + 0xff8, G_STUBS, 8);
    g_put(&s->g, G_STACK + 0x1000, SEL_CODE64, 8);
}

static void stack_selector(struct smp *s)
{
    unaccessed(s);
    g_put(&s->g, B, SEL_DATA, 8);
}

static void user_and_unaccessed(struct smp *s)
{
    as_user(s);
    unaccessed(s);
}

static void bad_stack(struct smp *s)
{
    as_user(s);
    g_put(&s->g, G_TSS + 4, G_UNMAPPED + 0x800, 8); /* delivery faults: #DF, on the same stack */
    g_put(&s->g, G_IDT + VEC_DF * 16 + 4, 1, 1);    /* no: on IST1 */
    g_put(&s->g, G_TSS + 0x24, G_STACK0 + 0x1010, 8);
}

static void xsave_area(struct smp *s)
{
    s->g.v->c.cr4 |= CR4_OSXSAVE;
    s->g.v->c.xcr0 = 3;
    s->g.v->c.gpr[RAX] = 3;
    s->g.v->c.gpr[RDX] = 0;
    s->g.v->c.gpr[RBX] = A + 0xf00;
    s->g.v->c.gpr[RSI] = A + 0xf00;
    engine_interp.state_changed(s->g.v);
}

static void avx_enabled(struct smp *s)
{
    s->g.v->c.cr4 |= CR4_OSXSAVE;
    s->g.v->c.xcr0 = 7;
    engine_interp.state_changed(s->g.v);
}

/* Elements in three places, one across pages. */
static void gather_indices(struct smp *s)
{
    static const uint32_t index[4] = {0, EDGE + 2, B - A, C - A};

    avx_enabled(s);
    memcpy(s->g.v->c.fpu.xmm[1], index, sizeof index);
    memset(s->g.v->c.fpu.xmm[2], 0xff, 16);
}

static void idle_halt(struct smp *s)
{
    s->g.v->c.nmi_pending = 1;
    s->g.v->c.gpr[RSP] = G_STACK + 0x1010;
}

static void code_at_an_end(struct smp *s)
{
    static const uint8_t bytes[] = {0x48, 0x89, 0x03}; /* mov [rbx], rax */

    g_code(&s->g, G_CODE + 0xffe, bytes, sizeof bytes);
    s->g.v->c.rip = G_CODE + 0xffe;
}

/* The stack is the page table: the return address of a fault lands in an entry. */
static void stack_in_a_table(struct smp *s)
{
    s->g.v->c.gpr[RSP] = G_PT + 0xff8;
}

#define CODE(...)                          \
    {__VA_ARGS__}, sizeof(const uint8_t[]) \
    {                                      \
        __VA_ARGS__                        \
    }
/* clang-format off */
static const struct form forms[] = {
    {"mov [rbx], rax", CODE(0x48, 0x89, 0x03), NULL, false, 1},
    {"mov rax, [rbx]", CODE(0x48, 0x8b, 0x03), NULL, false, 1},
    {"mov [rbx+edge], rax", CODE(0x48, 0x89, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"mov rax, [rbx+edge]", CODE(0x48, 0x8b, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"add [rbx+edge], rax", CODE(0x48, 0x01, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"lock xadd [rbx+edge], rax", CODE(0xf0, 0x48, 0x0f, 0xc1, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"xchg [rbx], rax", CODE(0x48, 0x87, 0x03), NULL, false, 1},
    {"bts [rbx+edge], rax", CODE(0x48, 0x0f, 0xab, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"cmpxchg16b [rbx+0xff8]", CODE(0x48, 0x0f, 0xc7, 0x8b, 0xf0, 0x0f, 0, 0), NULL, false, 1},
    {"cmpxchg8b [rbx+edge]", CODE(0x0f, 0xc7, 0x8b, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"push rax", CODE(0x50), at_edges, false, 2},
    {"pop rax", CODE(0x58), at_edges, false, 1},
    {"push [rsi]", CODE(0xff, 0x36), at_edges, false, 3},
    {"pop [rsi+edge]", CODE(0x8f, 0x86, 0xfc, 0x0f, 0, 0), at_edges, false, 3},
    {"call +0", CODE(0xe8, 0, 0, 0, 0), at_edges, false, 2},
    {"call [rsi]", CODE(0xff, 0x16), at_edges, false, 3},
    {"ret", CODE(0xc3), at_edges, false, 1},
    {"leave", CODE(0xc9), at_edges, false, 1},
    {"enter 0x1000, 0", CODE(0xc8, 0x00, 0x10, 0), at_edges, false, 2},
    {"enter 0x10, 3", CODE(0xc8, 0x10, 0, 3), at_edges, true, 0},
    {"movsq", CODE(0x48, 0xa5), NULL, false, 2},
    {"stosq", CODE(0x48, 0xab), NULL, false, 1},
    {"cmpsq", CODE(0x48, 0xa7), NULL, false, 2},
    {"far call [rdx+edge]", CODE(0xff, 0x9a, 0xfc, 0x0f, 0, 0), far_pointer, false, 5},
    {"far jmp [rdx+edge]", CODE(0xff, 0xaa, 0xfc, 0x0f, 0, 0), far_pointer, false, 3},
    {"far ret", CODE(0x48, 0xcb), far_ret_frame, false, 3},
    {"iretq", CODE(0x48, 0xcf), iret_frame, false, 3},
    {"mov ss, [rsi]", CODE(0x8e, 0x16), stack_selector, false, 2},
    {"lss eax, [rdx+edge]", CODE(0x0f, 0xb2, 0x82, 0xfc, 0x0f, 0, 0), far_pointer, false, 2},
    {"ltr", CODE(0x0f, 0x00, 0x1e), stack_selector, false, 2}, /* #GP: delivered */
    {"sgdt [rbx+edge]", CODE(0x0f, 0x01, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"lar eax, [rsi]", CODE(0x0f, 0x02, 0x06), stack_selector, false, 2},
    {"fxsave [rbx+0xf00]", CODE(0x0f, 0xae, 0x83, 0x00, 0x0f, 0, 0), NULL, false, 2},
    {"fxrstor [rbx+0xf00]", CODE(0x0f, 0xae, 0x8b, 0x00, 0x0f, 0, 0), NULL, false, 2},
    {"xsave [rbx]", CODE(0x0f, 0xae, 0x23), xsave_area, false, 2},
    {"xrstor [rbx]", CODE(0x0f, 0xae, 0x2b), xsave_area, false, 2},
    {"fnstenv [rbx+edge]", CODE(0xd9, 0xb3, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"fnsave [rbx+edge]", CODE(0xdd, 0xb3, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"movdqu [rbx+edge], xmm0", CODE(0xf3, 0x0f, 0x7f, 0x83, 0xfc, 0x0f, 0, 0), NULL, false, 2},
    {"maskmovdqu", CODE(0x66, 0x0f, 0xf7, 0xc1), NULL, false, 1},
    {"vpgatherdd xmm0, [rbx+xmm1], xmm2", CODE(0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b), gather_indices, false, 4},
    {"vmaskmovps [rbx+edge], xmm1, xmm0", CODE(0xc4, 0xe2, 0x71, 0x2e, 0x83, 0xfc, 0x0f, 0, 0), avx_enabled, false, 2},
    {"ud2", CODE(0x0f, 0x0b), frame_at_edge, false, 4},
    {"int 0x20", CODE(0xcd, 0x20), frame_at_edge, false, 4},
    {"int1", CODE(0xf1), frame_at_edge, false, 4},
    {"int3 from user mode", CODE(0xcd, 0x03), as_user, false, 2}, /* #GP: gate of DPL 0 */
    {"ud2 from user mode", CODE(0x0f, 0x0b), user_and_unaccessed, false, 4},
    {"#PF on a load", CODE(0x48, 0xa1, 0, 0, 0x1f, 0, 0, 0, 0, 0), frame_at_edge, false, 4},
    {"#PF on a store across pages", CODE(0x48, 0x89, 0x04, 0x25, 0xfc, 0xff, 0x1e, 0), frame_at_edge, false, 5},
    {"#PF in the delivery of #UD: #DF", CODE(0x0f, 0x0b), bad_stack, false, 4},
    {"#DE", CODE(0x48, 0xf7, 0xf1), frame_at_edge, false, 4},
    {"NMI", CODE(0x90), idle_halt, false, 4},
    {"an instruction in two pages", CODE(0x90), code_at_an_end, false, 1},
    {"ud2 with its frame in the page table", CODE(0x0f, 0x0b), stack_in_a_table, false, 2},
};
/* clang-format on */

/* --- running them --------------------------------------------------------------------------- */

static void forget(struct smp *s)
{
    engine_interp.drop(s->g.v);
    engine_interp.state_changed(s->g.v);
}

static void copy_image(const struct smp *s, struct image *to)
{
    for (unsigned i = 0; i < s->npages; i++) {
        memcpy(to->ram[i], s->g.ram->hva + (s->page[i] << PAGE_SHIFT), PAGE_SIZE);
    }
    to->cpu = s->g.v->c;
}

static bool is_image(const struct smp *s, const struct image *of)
{
    for (unsigned i = 0; i < s->npages; i++) {
        if (memcmp(of->ram[i], s->g.ram->hva + (s->page[i] << PAGE_SHIFT), PAGE_SIZE) != 0) {
            return false;
        }
    }
    return memcmp(&of->cpu, &s->g.v->c, sizeof of->cpu) == 0;
}

static void put_image(struct smp *s, const struct image *from)
{
    for (unsigned i = 0; i < s->npages; i++) {
        memcpy(s->g.ram->hva + (s->page[i] << PAGE_SHIFT), from->ram[i], PAGE_SIZE);
    }
    s->g.v->c = from->cpu;
}

static void all_mine(struct smp *s)
{
    memset(s->o->pages, 0, PAGES * sizeof *s->o->pages);
    for (unsigned i = 0; i < PAGES; i++) {
        s->o->pages[i].holder = ME + 1;
    }
}

static void restore(struct smp *s)
{
    put_image(s, &s->before);
    all_mine(s);
    forget(s);
}

static enum vcpu_stop run(struct smp *s, enum engine_part part)
{
    s->g.run.part = part;
    s->g.run.alone = false;
    enum vcpu_stop stop = g_run(&s->g, 1);
    if (part == PART_PARALLEL) {
        engine_interp.settle(s->g.v);
    }
    return stop;
}

static void open_smp(struct smp *s, const struct shadow_config *cfg, unsigned entries)
{
    g_open_smp(&s->g, cfg, entries);
    assert_int_equal(owner_create(PAGES, 2, &owner_ops, s, &s->o, NULL), 0);
    s->o->eager = !cfg->lazy_ad;
    s->g.v->owner = s->o;
    s->g.v->model = CPU_POLLUX_V3;
    s->npages = 0;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        for (unsigned k = 0; k < ranges[i][1]; k++) {
            s->page[s->npages++] = (uint16_t)(ranges[i][0] + k);
        }
    }
    assert_true(s->npages <= TOUCHED_MAX);
}

static void close_smp(struct smp *s)
{
    owner_destroy(s->o);
    g_close(&s->g);
}

static void prepare(struct smp *s, const struct form *f)
{
    struct cpu *c = &s->g.v->c;

    c->gpr[RAX] = 5;
    c->gpr[RCX] = 0;
    c->gpr[RBX] = A;
    c->gpr[RSI] = B;
    c->gpr[RDI] = C;
    c->gpr[RDX] = A;
    g_put(&s->g, B, G_STUBS, 8);
    memset(c->fpu.xmm[1], 0x80, 16);
    g_code(&s->g, G_CODE, f->code, f->len);
    if (f->prepare != NULL) {
        f->prepare(s);
    }
    copy_image(s, &s->before);
    memcpy(s->rest, s->g.ram->hva, G_RAM);
}

/* Outside of the pages that are looked at each time nothing may change at all. */
static void check_rest(struct smp *s)
{
    put_image(s, &s->before);
    assert_memory_equal(s->g.ram->hva, s->rest, G_RAM);
}

static bool is_table(uint64_t page)
{
    return page >= G_PML4 >> PAGE_SHIFT && page <= G_PT >> PAGE_SHIFT;
}

/* @page away: from reading too, or (@shared) from writing only. True: that stopped the form. */
static bool take(struct smp *s, const struct form *f, uint64_t page, bool shared, bool warm)
{
    restore(s);
    if (warm) { /* all is cached when the page goes, and what the caches hold is true */
        (void)run(s, PART_PARALLEL);
        s->g.v->c = s->before.cpu;
        for (unsigned i = 0; i < s->npages; i++) {
            gpa_t gpa = (gpa_t)s->page[i] << PAGE_SHIFT;
            assert_int_equal(ram_write(s->g.ram, gpa, s->before.ram[i], PAGE_SIZE), 0);
        }
        vcpu_context_changed(s->g.v);
        exc_debug_update(s->g.v);
        all_mine(s);
    }
    (void)owner_serial(s->o, page, OTHER, shared ? OWNER_R : OWNER_W);
    enum vcpu_stop stop = run(s, PART_PARALLEL);
    bool stopped = vcpu_blocks(stop);
    if (stopped) {
        if (!is_image(s, &s->before) || (stop == VCPU_PAGES && s->g.v->lack.page != page)) {
            fail_msg("%s, page %llx %s: %s", f->name, (unsigned long long)page << PAGE_SHIFT,
                     shared ? "shared" : "away",
                     is_image(s, &s->before) ? "another page is named" : "something changed");
        }
        assert_true(vcpu_blocks(run(s, PART_PARALLEL))); /* again */
        assert_true(is_image(s, &s->before));
        assert_false(vcpu_blocks(run(s, PART_SERIAL)));
    }
    if (!is_image(s, &s->want)) {
        fail_msg("%s, page %llx %s: another result", f->name,
                 (unsigned long long)page << PAGE_SHIFT, shared ? "shared" : "away");
    }
    return stopped && stop == VCPU_PAGES;
}

static void judge(struct smp *s, const struct form *f, bool lazy)
{
    unsigned data = 0, tables = 0;

    prepare(s, f);
    s->g.v->owner = NULL; /* what a machine with one vCPU makes of it */
    restore(s);
    (void)run(s, PART_SERIAL);
    copy_image(s, &s->want);
    s->g.v->owner = s->o;
    s->g.v->model = CPU_POLLUX_V3;
    restore(s);
    assert_int_equal(vcpu_blocks(run(s, PART_PARALLEL)), f->serial);
    for (unsigned i = 0; i < s->npages; i++) {
        uint64_t page = s->page[i];
        bool stopped = take(s, f, page, false, false);
        assert_int_equal(take(s, f, page, false, true), stopped);
        data += stopped && !is_table(page) && page != G_CODE >> PAGE_SHIFT;
        tables += stopped && is_table(page);
        stopped = take(s, f, page, true, false);
        assert_int_equal(take(s, f, page, true, true), stopped);
        /* only with lazy flags do walks do without the right to write tables */
        assert_false(stopped && is_table(page) && lazy && f->prepare != stack_in_a_table);
    }
    check_rest(s);
    if (!f->serial) {
        assert_int_equal(tables, 4);
        if (data < f->least) {
            fail_msg("%s: %u pages stop it, not %u", f->name, data, f->least);
        }
    }
}

static void nothing_happens(void **state)
{
    static const struct {
        struct shadow_config cfg;
        unsigned entries;
    } ways[] = {
        {{true, 8, true, true}, 0},
        {{false, 1, false, false}, 0},
        {{true, 8, true, false}, 16},
    };
    static struct smp s;

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        for (size_t k = 0; k < sizeof forms / sizeof forms[0]; k++) {
            open_smp(&s, &ways[i].cfg, ways[i].entries);
            judge(&s, &forms[k], ways[i].cfg.lazy_ad);
            close_smp(&s);
        }
    }
}

/* REP stops between two iterations, wherever the page was taken away, and costs what it costs in
 * one go: progress, retired instructions and all registers come out the same. */
static void strings_stop_between_iterations(void **state)
{
    static const struct {
        uint8_t code[4];
        unsigned bytes; /* of an element */
        bool down;
    } strings[] = {
        {{0xf3, 0x48, 0xa5}, 8, false}, /* rep movsq */
        {{0xf3, 0xa4}, 1, false},       /* rep movsb */
        {{0xf3, 0x66, 0xab}, 2, false}, /* rep stosw */
        {{0xf3, 0x66, 0xa7}, 2, false}, /* repe cmpsw */
        {{0xf3, 0xa5}, 4, true},        /* rep movsd */
    };
    static struct smp s;
    static const uint64_t at[] = {A, A + PAGE_SIZE, C, C + PAGE_SIZE, G_PT, G_CODE};

    (void)state;
    open_smp(&s, &SHADOW_DEFAULT, 0);
    for (size_t k = 0; k < sizeof strings / sizeof strings[0]; k++) {
        struct cpu *c = &s.g.v->c;
        c->rip = G_CODE;
        c->gpr[RAX] = 0;
        c->gpr[RCX] = 5000 / strings[k].bytes;
        c->gpr[RSI] = strings[k].down ? A + 0x1808 : A + 0x33;
        c->gpr[RDI] = strings[k].down ? C + 0x1ab0 : C + 0x135;
        c->rflags = FLAG_ONE | (strings[k].down ? FLAG_DF : 0);
        g_code(&s.g, G_CODE, strings[k].code, sizeof strings[k].code);
        copy_image(&s, &s.before);
        s.g.v->owner = NULL;
        restore(&s);
        s.g.run.part = PART_SERIAL;
        uint64_t from = c->progress;
        while (c->rip == G_CODE) {
            (void)g_run(&s.g, 1);
        }
        uint64_t cost = c->progress - from;
        copy_image(&s, &s.want);
        s.g.v->owner = s.o;
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            restore(&s);
            (void)owner_serial(s.o, at[i] >> PAGE_SHIFT, OTHER, OWNER_W);
            s.g.run.part = PART_PARALLEL;
            enum vcpu_stop stop = g_run(&s.g, cost);
            engine_interp.settle(s.g.v);
            uint64_t done = c->progress - from;
            assert_true(done <= cost);
            if (vcpu_blocks(stop)) {
                assert_int_equal(s.g.v->lack.page, at[i] >> PAGE_SHIFT);
                s.g.run.part = PART_SERIAL;
                (void)g_run(&s.g, cost - done);
            }
            assert_true(is_image(&s, &s.want));
        }
    }
    close_smp(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_happens),
        cmocka_unit_test(strings_stop_between_iterations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
