/* SPDX-License-Identifier: Apache-2.0
 * Shadow page tables and ownership of several vCPUs: what is cached, kept over loads of CR3, filled
 * ahead, owed or not yet dropped must not show. Worlds that differ in all of that, one of which
 * forgets everything before each instruction, run the same random instructions on three vCPUs:
 * loads, stores, read-modify-writes, strings and fetches through pages that alias each other and
 * the tables, edits of the tables, loads of CR3. In parallel parts each world runs its vCPUs in an
 * order of its own. Once in the lower half of the linear addresses, and once in the upper half,
 * with SMAP, as a kernel whose spaces have tables in common. Bugs hunted: a stale translation or
 * instruction on any vCPU, a right that is used but was not given, an access that stops on a miss
 * but not on a hit, a flag that comes too late, twice or in another order. The seed is printed;
 * SEED= in the environment replays it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/unit/amount.h"
#include "tests/unit/cpu_guest.h"
#include "vmm/cpu/block.h"
#include "vmm/mmu/owner.h"
#include "vmm/tunables.h"

enum {
    CPUS = 3,
    SPACES = 3,
    ROUNDS = 8000,
    SPELL = 50, /* rounds without a parallel part, then as many mostly with one */
    COMPARE_EVERY = 20,
    PAGES = G_RAM >> PAGE_SHIFT,
    WINDOW = 0x80, /* first page of the linear window whose mappings change */
    POOL = 24,     /* pages in it, and as many that it maps to, one to one at first */
    TABLES = 0x80000 + (POOL + 4) * 0x1000, /* per space: PML4, PDPT, PD, PT */
    CODE = 0x600,                           /* in each page of the pool: mov eax, imm32 */
    SCRATCH = 0x140000,                     /* 4 pages that strings are copied to */
};

#define HIGH UINT64_C(0xffff800000000000)
static gva_t base; /* of all linear addresses: 0 or HIGH */

struct world {
    const char *name;
    struct shadow_config cfg;
    unsigned entries;
    bool forgets, backwards;
    struct ram *ram;
    struct owner *o;
    struct code_common code;
    struct guest g[CPUS]; /* one RAM; each has its own vCPU */
};

static void revoke(void *ctx, unsigned vcpu, uint64_t page, bool all)
{
    struct world *w = ctx;

    engine_interp.revoke(w->g[vcpu].v, page, all);
}

static const struct owner_ops owner_ops = {revoke};

/* --- the world ------------------------------------------------------------------------------ */

enum op { LOAD, STORE, ADD, XCHG_SPLIT, MOVS, FETCH, EDIT, SWITCH, PUSH_MEM, OPS };

static const struct {
    uint8_t bytes[8], len;
} code[OPS] = {
    [LOAD] = {{0x48, 0x8b, 0x03}, 3},                   /* mov rax, [rbx] */
    [STORE] = {{0x48, 0x89, 0x03}, 3},                  /* mov [rbx], rax */
    [ADD] = {{0x48, 0x01, 0x03}, 3},                    /* add [rbx], rax */
    [XCHG_SPLIT] = {{0x48, 0x87, 0x83, 0xfc, 0x0f}, 7}, /* xchg [rbx+0xffc], rax */
    [MOVS] = {{0xf3, 0x48, 0xa5}, 3},                   /* rep movsq */
    [EDIT] = {{0x48, 0x89, 0x03}, 3},                   /* mov [rbx], rax */
    [SWITCH] = {{0x0f, 0x22, 0xd8}, 3},                 /* mov cr3, rax */
    [PUSH_MEM] = {{0xff, 0x33}, 2},                     /* push [rbx] */
};

static gpa_t table(unsigned space, unsigned level)
{
    return TABLES + (space * 4 + level) * PAGE_SIZE;
}

static void fill_ram(struct guest *g)
{
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned level = 0; level < 3; level++) {
            g_put(g, table(s, level), table(s, level + 1) | 7, 8);
        }
        g_put(g, table(s, 2) + 8, 0x200000 | 0x87, 8);
        if (base != 0) { /* tables in common, for supervisors; the lower half is theirs too */
            g_put(g, table(s, 0), table(s, 1) | 0x63, 8);
            g_put(g, table(s, 0) + 256 * 8, table(0, 1) | 0x63, 8);
        }
        for (uint64_t i = 0; i < 512; i++) {
            g_put(g, table(s, 3) + i * 8, i << 12 | 7, 8);
        }
    }
    for (uint64_t vec = 0; vec < 48; vec++) {
        g_put(g, G_IDT + vec * 16 + 8, base >> 32, 8);
    }
    for (uint64_t i = 0; i < POOL; i++) {
        g_put(g, (WINDOW + i) * PAGE_SIZE + CODE, 0xb8 | i << 8, 5);
    }
    for (unsigned op = 0; op < OPS; op++) {
        g_code(g, G_CODE + op * 16, code[op].bytes, sizeof code[op].bytes);
    }
}

static void open_world(struct world *w)
{
    assert_int_equal(ram_create(G_RAM, &w->ram, NULL), 0);
    assert_int_equal(owner_create(PAGES, CPUS, &owner_ops, w, &w->o, NULL), 0);
    w->o->eager = !w->cfg.lazy_ad;
    for (unsigned i = 0; i < CPUS; i++) {
        struct guest *g = &w->g[i];
        g_open_smp(g, &w->cfg, w->entries); /* lays out RAM and registers ... */
        struct cpu c = g->v->c;
        if (i == 0) {
            memcpy(w->ram->hva, g->ram->hva, G_RAM);
        }
        g_close(g); /* ... for a vCPU on the RAM of all */
        g->ram = w->ram;
        struct engine_config cfg = {.id = i,
                                    .bsp = true,
                                    .vcpus = CPUS,
                                    .ram = w->ram,
                                    .owner = w->o,
                                    .common = &w->code,
                                    .ops = &g_ops,
                                    .ops_ctx = g,
                                    .shadow = &w->cfg,
                                    .cache_entries = w->entries};
        assert_int_equal(engine_interp.create(&cfg, &g->v, NULL), 0);
        g->v->c = c;
        g->v->c.cr3 = table(i % SPACES, 0);
        g->v->c.cr4 |= base != 0 ? CR4_SMAP : 0;
        g->v->c.gdtr.base |= base;
        g->v->c.idtr.base |= base;
        g->v->c.tr.base |= base;
        engine_interp.state_changed(g->v);
    }
    fill_ram(&w->g[0]);
}

static void close_world(struct world *w)
{
    for (unsigned i = 0; i < CPUS; i++) {
        engine_interp.destroy(w->g[i].v);
    }
    owner_destroy(w->o);
    ram_destroy(w->ram);
}

/* --- what happens --------------------------------------------------------------------------- */

struct step {
    enum op op;
    gva_t to, from;
    uint64_t value;
};

static gva_t window(struct prng *rng)
{
    return (WINDOW + prng_below(rng, POOL)) * PAGE_SIZE;
}

static struct step choose(struct prng *rng)
{
    struct step s = {.op = (enum op)prng_below(rng, OPS), .from = window(rng)};

    /* As an entry of a table this is one of the window, or of nothing that is used. */
    s.to = window(rng) + (prng_below(rng, 2) != 0 ? CODE + 1 : (WINDOW + prng_below(rng, 64)) * 8);
    s.value = prng_below(rng, 1000);
    if (s.op == STORE && prng_below(rng, 4) == 0) { /* over the instruction, not split */
        s.to = PAGE_BASE(s.to) + CODE;
        s.value = 0xb8 | s.value << 8;
    } else if (s.op == SWITCH) {
        s.value = table((unsigned)prng_below(rng, SPACES), 0);
    } else if (s.op == EDIT) {
        static const uint64_t rights[] = {7, 7, 7, 5, 0x67, 0x27, 0, 3};
        unsigned space = (unsigned)prng_below(rng, SPACES);
        uint64_t page = WINDOW + prng_below(rng, POOL);
        if (prng_below(rng, 8) == 0) {
            page = table((unsigned)prng_below(rng, SPACES), 3) >> PAGE_SHIFT;
        }
        s.to = table(space, 3) + (WINDOW + prng_below(rng, POOL)) * 8;
        s.value = page << PAGE_SHIFT | rights[prng_below(rng, PLX_COUNT(rights))];
        if (prng_below(rng, 40) == 0) { /* an upper level: the same again, without its A flag */
            unsigned level = (unsigned)prng_below(rng, 3);
            s.to = table(space, level);
            s.value = table(space, level + 1) | 7;
            if (base != 0 && level == 0) { /* or one that not all have */
                s.to += 256 * 8;
                s.value =
                    table((unsigned)prng_below(rng, 2) * space, 1) | prng_below(rng, 2) << 5 | 3;
            }
        }
    } else if (s.op == XCHG_SPLIT) {
        s.to = PAGE_BASE(s.to);
    } else if (s.op == MOVS) {
        s.to = SCRATCH + prng_below(rng, 4) * PAGE_SIZE / 2;
    }
    s.to |= base != 0 && prng_below(rng, 100) == 0 ? 0 : base;
    s.from |= base;
    return s;
}

static void set_up(struct vcpu *v, const struct step *s)
{
    struct cpu *c = &v->c;

    c->halted = 0;
    c->gpr[RBX] = s->to;
    c->gpr[RDI] = s->to & ~UINT64_C(7);
    c->gpr[RSI] = s->from;
    c->gpr[RCX] = 700; /* past the end of a page */
    c->gpr[RAX] = s->value;
    c->gpr[RSP] = base | (G_STACK + 0x800 + v->id * 0x2000);
    c->rip = s->op == FETCH ? PAGE_BASE(s->to) + CODE : base | (G_CODE + (uint64_t)s->op * 16);
}

static enum vcpu_stop go(struct world *w, unsigned i, enum engine_part part, uint64_t budget)
{
    if (w->forgets) {
        engine_interp.drop(w->g[i].v);
    }
    w->g[i].run.part = part;
    w->g[i].run.alone = false;
    return g_run(&w->g[i], budget);
}

/* One instruction of each vCPU (a string of several steps), in parallel, the rest serially. */
static void play(struct world *w, const struct step *steps, bool together)
{
    bool rest[CPUS];

    for (unsigned i = 0; i < CPUS; i++) {
        set_up(w->g[i].v, &steps[i]);
        rest[i] = true;
    }
    if (together) {
        owner_settle(w->o);
        for (unsigned k = 0; k < CPUS; k++) {
            unsigned i = w->backwards ? CPUS - 1 - k : k;
            rest[i] = vcpu_blocks(go(w, i, PART_PARALLEL, steps[i].op == MOVS ? 100 : 1));
        }
        for (unsigned i = 0; i < CPUS; i++) {
            engine_interp.settle(w->g[i].v);
        }
    }
    for (unsigned i = 0; i < CPUS; i++) {
        if (rest[i]) {
            (void)go(w, i, PART_SERIAL, steps[i].op == MOVS ? 60 : 1);
        }
    }
}

static void compare(const struct world *a, const struct world *b, unsigned round)
{
    const char *what = memcmp(a->ram->hva, b->ram->hva, G_RAM) != 0 ? "RAM"
                       : memcmp(a->o->pages, b->o->pages, PAGES * sizeof *a->o->pages) != 0
                           ? "ownership"
                           : NULL;

    for (unsigned i = 0; i < CPUS && what == NULL; i++) {
        what = memcmp(&a->g[i].v->c, &b->g[i].v->c, sizeof(struct cpu)) != 0 ? "a vCPU" : NULL;
    }
    if (what != NULL) {
        fail_msg("round %u: %s differs between %s and %s", round, what, a->name, b->name);
    }
}

static void run_worlds(struct world *worlds, unsigned n)
{
    uint64_t seed = from_env("SEED", 0x5ad0);
    struct step steps[CPUS];
    struct prng rng;

    print_message("seed %llx\n", (unsigned long long)seed);
    prng_seed(&rng, seed);
    for (unsigned k = 0; k < n; k++) {
        open_world(&worlds[k]);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool together = round / SPELL % 2 == 0 && prng_below(&rng, 4) != 0;
        for (unsigned i = 0; i < CPUS; i++) {
            steps[i] = choose(&rng);
        }
        for (unsigned k = 0; k < n; k++) {
            play(&worlds[k], steps, together);
        }
        if (round % COMPARE_EVERY == 0) {
            if (prng_below(&rng, 8) == 0) { /* a device writes over code and tables */
                gpa_t gpa = window(&rng);
                for (unsigned k = 0; k < n; k++) {
                    g_put(&worlds[k].g[0], gpa + CODE + 1, round, 4);
                    g_put(&worlds[k].g[0], table(1, 3) + (gpa >> 9), gpa | 7, 8);
                }
            }
            for (unsigned k = 1; k < n; k++) {
                compare(&worlds[0], &worlds[k], round);
            }
        }
    }
}

static struct shadow_counters all_counters(const struct world *w)
{
    struct shadow_counters sum = {0};

    for (unsigned i = 0; i < CPUS; i++) {
        const struct shadow_counters *c = vcpu_mem_counters(w->g[i].v);
#define X(name, text) sum.name += c->name;
        SHADOW_COUNTERS(X)
#undef X
    }
    return sum;
}

static void print_counters(const struct shadow_counters *c)
{
#define X(name, text) print_message(#name " %llu, ", (unsigned long long)c->name);
    SHADOW_COUNTERS(X)
#undef X
    print_message("\n");
}

/* Nor does it, if what is switched off is at work all the same. */
static void off_is_off(const struct world *w)
{
    struct shadow_counters c = all_counters(w);

    if (!w->cfg.tagged) {
        assert_int_equal(c.switch_hits, 0);
        assert_int_equal(c.half_hits, 0);
    }
    if (w->cfg.batch == 1) {
        assert_int_equal(c.batches, 0);
        assert_int_equal(c.batch_filled, 0);
    }
    if (!w->cfg.batch_shootdown) {
        assert_int_equal(c.shootdowns_batched, 0);
    }
    if (!w->cfg.lazy_ad) {
        assert_int_equal(c.owed, 0);
    }
}

static void close_worlds(struct world *worlds, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        off_is_off(&worlds[k]);
        close_world(&worlds[k]);
    }
}

/* Each feature is at work, or the comparison says nothing about it. */
static void no_switch_changes_a_result(void **state)
{
    static struct world worlds[] = {
        {.name = "all on", .cfg = {true, 8, true, true}},
        {.name = "forgetful", .cfg = {false, 1, true, false}, .forgets = true},
        {.name = "all off", .cfg = {false, 1, true, false}, .backwards = true},
        {.name = "small", .cfg = {true, 64, true, true}, .entries = 16, .backwards = true},
    };

    (void)state;
    run_worlds(worlds, PLX_COUNT(worlds));
    struct shadow_counters c = all_counters(&worlds[0]);
    print_counters(&c);
    assert_true(c.switch_hits > 100 && c.batch_hits > 100 && c.owed > 100 && c.undone > 10);
    assert_true(c.drops_store > 100 && c.drops_revoke > 100 && c.shootdowns_batched > 100);
    assert_true(c.lack_table_read != 0 && c.lack_data_read != 0 && c.lack_data_write != 0);
    assert_true(c.lack_code != 0);
    close_worlds(worlds, PLX_COUNT(worlds));
}

static void spaces_share_what_their_tables_do(void **state)
{
    static struct world worlds[] = {
        {.name = "all on", .cfg = {true, 8, true, true}},
        {.name = "forgetful", .cfg = {false, 1, true, false}, .forgets = true},
        {.name = "small", .cfg = {true, 64, true, true}, .entries = 16, .backwards = true},
    };

    (void)state;
    base = HIGH;
    run_worlds(worlds, PLX_COUNT(worlds));
    struct shadow_counters c = all_counters(&worlds[0]);
    print_counters(&c);
    assert_true(c.half_hits > 100 && c.switch_hits > 100 && c.batch_hits > 100 && c.undone > 10);
    assert_true(c.drops_store > 100 && c.drops_revoke > 100 && c.shootdowns_batched > 100);
    close_worlds(worlds, PLX_COUNT(worlds));
}

static int back_to_the_lower_half(void **state)
{
    (void)state;
    base = 0;
    return 0;
}

/* Without owed flags other vCPUs stop, but again all worlds alike. */
static void eager_flags_change_it_alike(void **state)
{
    static struct world worlds[] = {
        {.name = "all on", .cfg = {true, 8, false, true}},
        {.name = "forgetful", .cfg = {false, 1, false, false}, .forgets = true, .backwards = true},
    };

    (void)state;
    run_worlds(worlds, PLX_COUNT(worlds));
    struct shadow_counters c = all_counters(&worlds[0]);
    print_counters(&c);
    assert_true(c.owed == 0 && c.lack_table_write > 100);
    close_worlds(worlds, PLX_COUNT(worlds));
}

/* --- one by one ----------------------------------------------------------------------------- */

static uint64_t load(struct world *w, unsigned i, gva_t lin, enum engine_part part,
                     enum vcpu_stop want)
{
    set_up(w->g[i].v, &(struct step){.op = LOAD, .to = lin});
    enum vcpu_stop stop = go(w, i, part, 1);
    assert_int_equal(stop, want);
    return w->g[i].v->c.gpr[RAX];
}

static void store(struct world *w, unsigned i, gva_t lin, uint64_t value)
{
    set_up(w->g[i].v, &(struct step){.op = STORE, .to = lin, .value = value});
    assert_int_equal(go(w, i, PART_SERIAL, 1), VCPU_BUDGET);
}

/* A contended page is written fast until another vCPU walks through it, also if decoded code has
 * come from it before and is gone again. */
static void what_is_written_fast_is_seen_by_walks(void **state)
{
    static struct world w = {.cfg = {true, 1, true, true}};
    const gva_t pt = WINDOW * PAGE_SIZE, at = 0x400000;

    (void)state;
    for (unsigned with_code = 0; with_code < 2; with_code++) {
        open_world(&w);
        g_put(&w.g[0], table(1, 2) + 2 * 8, pt | 7, 8);
        g_put(&w.g[0], pt, (WINDOW + 1) << PAGE_SHIFT | 0x67, 8);
        g_put(&w.g[0], (WINDOW + 1) * PAGE_SIZE, 111, 8);
        g_put(&w.g[0], (WINDOW + 2) * PAGE_SIZE, 222, 8);
        for (unsigned i = 0; w.o->pages[WINDOW].heat < OWNER_HOT; i++) {
            store(&w, i % 2, pt + 0x800, i);
        }
        store(&w, 0, pt + 0x800, 0);
        if (with_code) {
            set_up(w.g[1].v, &(struct step){.op = FETCH, .to = pt});
            assert_int_equal(go(&w, 1, PART_SERIAL, 1), VCPU_BUDGET);
        }
        assert_int_equal(load(&w, 1, at, PART_SERIAL, VCPU_BUDGET), 111);
        store(&w, 1, pt + CODE, 0); /* no code is left */
        store(&w, 0, pt + 0x800, 0);
        store(&w, 0, pt, (WINDOW + 2) << PAGE_SHIFT | 0x67);
        assert_int_equal(load(&w, 1, at, PART_SERIAL, VCPU_BUDGET), 222);
        close_world(&w);
    }
}

/* A flag is owed where the table is shared: the vCPU's walks see it, its loads wait for it, the
 * table shows it when it is settled, and one flag more than fit needs the page. */
static void flags_are_owed_and_settled(void **state)
{
    static struct world w = {.cfg = {true, 1, true, true}};
    gpa_t pt = table(0, 3);
    struct shadow_counters c;

    (void)state;
    open_world(&w);
    load(&w, 0, G_CODE, PART_SERIAL, VCPU_BUDGET); /* upper levels and code: flags in place */
    (void)owner_serial(w.o, pt >> PAGE_SHIFT, 1, OWNER_W);
    (void)owner_serial(w.o, pt >> PAGE_SHIFT, 2, OWNER_R); /* shared */
    load(&w, 0, 0x90000, PART_PARALLEL, VCPU_BUDGET);
    assert_int_equal(g_get(&w.g[0], pt + 0x90 * 8) & 0x60, 0);
    c = all_counters(&w);
    assert_int_equal(c.owed, 1);
    load(&w, 0, 0x90008, PART_PARALLEL, VCPU_BUDGET);
    assert_int_equal(all_counters(&w).owed, 1);
    load(&w, 0, pt + 8, PART_PARALLEL, VCPU_SERIAL);
    engine_interp.settle(w.g[0].v);
    assert_int_equal(g_get(&w.g[0], pt + 0x90 * 8) & 0x60, 0x20);
    assert_true((w.ram->flags[pt >> PAGE_SHIFT] & RAM_DIRTY) != 0);
    assert_int_equal(w.o->pages[pt >> PAGE_SHIFT].holder, OWNER_SHARED);
    /* the first load through its own entry would owe a flag to what it reads */
    load(&w, 0, pt + 8, PART_PARALLEL, VCPU_SERIAL);
    engine_interp.settle(w.g[0].v);
    load(&w, 0, pt + 8, PART_SERIAL, VCPU_BUDGET);
    assert_int_equal(load(&w, 0, pt + 0x90 * 8, PART_PARALLEL, VCPU_BUDGET) & 0x60, 0x20);
    engine_interp.settle(w.g[0].v);
    for (uint64_t i = 0; i < SHADOW_OWED; i++) {
        load(&w, 0, (0x100 + i) << PAGE_SHIFT, PART_PARALLEL, VCPU_BUDGET);
    }
    load(&w, 0, (0x100 + SHADOW_OWED) << PAGE_SHIFT, PART_PARALLEL, VCPU_PAGES);
    assert_int_equal(w.g[0].v->lack.page, pt >> PAGE_SHIFT);
    assert_true(w.g[0].v->lack.write);
    engine_interp.settle(w.g[0].v);
    close_world(&w);
}

/* Two pages through one table that no walk has used: its flag is owed for the first alone, since
 * the second walk sees that. What is owed twice would use up the room for it, the sooner the more
 * often translations are forgotten. */
static void a_flag_is_owed_once(void **state)
{
    static struct world w = {.cfg = {true, 1, true, true}};
    const gva_t at = 0x490000;

    (void)state;
    open_world(&w);
    g_put(&w.g[0], table(0, 2) + 16, table(1, 3) | 7, 8);
    load(&w, 0, G_CODE, PART_SERIAL, VCPU_BUDGET);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t page = table(i, i == 0 ? 2 : 3) >> PAGE_SHIFT;
        (void)owner_serial(w.o, page, 1, OWNER_W);
        (void)owner_serial(w.o, page, 2, OWNER_R); /* shared */
    }
    load(&w, 0, at, PART_PARALLEL, VCPU_BUDGET);
    assert_int_equal(all_counters(&w).owed, 2);
    load(&w, 0, at + PAGE_SIZE, PART_PARALLEL, VCPU_BUDGET);
    assert_int_equal(all_counters(&w).owed, 3);
    engine_interp.settle(w.g[0].v);
    assert_int_equal(g_get(&w.g[0], table(0, 2) + 16) & 0x20, 0x20);
    assert_int_equal(g_get(&w.g[0], table(1, 3) + 0x91 * 8) & 0x20, 0x20);
    close_world(&w);
}

/* An instruction without effect owes no flag, so what was filled ahead by the same walk must not be
 * used without setting it: neither where the entry above leads to both, nor where both are in one
 * large page. */
static void nothing_is_filled_ahead_of_a_flag(void **state)
{
    static struct world w = {.cfg = {true, 8, true, true}};
    gpa_t pd = table(0, 2), pt = table(0, 3);
    const uint64_t pde[] = {pt | 7, 0x87}; /* a table; a large page */

    (void)state;
    for (unsigned k = 0; k < PLX_COUNT(pde); k++) {
        gva_t at = 2 * UINT64_C(0x200000) + 0x90000;
        open_world(&w);
        g_put(&w.g[0], pd + 2 * 8, pde[k], 8);
        for (uint64_t i = 0x90; i < 0x98; i++) {
            g_put(&w.g[0], pt + i * 8, i << PAGE_SHIFT | 0x67, 8);
        }
        load(&w, 0, G_CODE, PART_SERIAL, VCPU_BUDGET);
        for (unsigned i = 0; i < 2; i++) { /* shared */
            (void)owner_serial(w.o, (i == 0 ? pd : pt) >> PAGE_SHIFT, 1, OWNER_W);
            (void)owner_serial(w.o, (i == 0 ? pd : pt) >> PAGE_SHIFT, 2, OWNER_R);
        }
        (void)owner_serial(w.o, 0x91, 1, OWNER_W);
        load(&w, 0, at + PAGE_SIZE - 4, PART_PARALLEL, VCPU_PAGES); /* half of it is in 0x91 */
        assert_int_equal(all_counters(&w).undone, 1);
        load(&w, 0, at + 2 * PAGE_SIZE, PART_PARALLEL, VCPU_BUDGET);
        engine_interp.settle(w.g[0].v);
        assert_int_equal(g_get(&w.g[0], pd + 2 * 8) & 0x20, 0x20);
        close_world(&w);
    }
}

/* Nor of one that another access of the same instruction owes: here a read of two pages, whose
 * first half sets the flag of the entry above, by a push that may not write the stack. */
static void nor_of_one_of_the_same_instruction(void **state)
{
    static struct world w = {.cfg = {true, 8, true, true}};
    gpa_t pd = table(0, 2), pt = table(0, 3);
    gva_t at = 2 * UINT64_C(0x200000) + 0x90000;

    (void)state;
    open_world(&w);
    g_put(&w.g[0], pd + 2 * 8, pt | 7, 8);
    for (uint64_t i = 0x90; i < 0x98; i++) {
        g_put(&w.g[0], pt + i * 8, i << PAGE_SHIFT | 0x67, 8);
    }
    load(&w, 0, G_CODE, PART_SERIAL, VCPU_BUDGET);
    const gpa_t shared[] = {pd, pt, G_STACK};
    for (unsigned i = 0; i < PLX_COUNT(shared); i++) {
        (void)owner_serial(w.o, shared[i] >> PAGE_SHIFT, 1, OWNER_W);
        (void)owner_serial(w.o, shared[i] >> PAGE_SHIFT, 2, OWNER_R);
    }
    set_up(w.g[0].v, &(struct step){.op = PUSH_MEM, .to = at + PAGE_SIZE - 4});
    assert_int_equal(go(&w, 0, PART_PARALLEL, 1), VCPU_PAGES);
    assert_int_equal(w.g[0].v->lack.page, G_STACK >> PAGE_SHIFT);
    assert_int_equal(all_counters(&w).undone, 1);
    load(&w, 0, at + 2 * PAGE_SIZE, PART_PARALLEL, VCPU_BUDGET);
    engine_interp.settle(w.g[0].v);
    assert_int_equal(g_get(&w.g[0], pd + 2 * 8) & 0x20, 0x20);
    close_world(&w);
}

/* A space is found again, with its entries, and is not when something up its tree changed. */
static void spaces_are_kept(void **state)
{
    static struct world w = {.cfg = {true, 1, true, true}};
    uint64_t fills;

    (void)state;
    open_world(&w);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned s = 0; s < SPACES; s++) {
            fills = all_counters(&w).fills;
            set_up(w.g[0].v, &(struct step){.op = SWITCH, .value = table(s, 0)});
            (void)go(&w, 0, PART_SERIAL, 1);
            load(&w, 0, 0x90000, PART_SERIAL, VCPU_BUDGET);
        }
    }
    assert_int_equal(all_counters(&w).fills, fills);
    g_put(&w.g[0], table(0, 0), 0, 8); /* the first one's root: nothing is mapped any more */
    load(&w, 0, 0x90008, PART_SERIAL, VCPU_BUDGET);
    assert_int_equal(all_counters(&w).fills, fills);
    w.g[0].v->c.cr3 = table(0, 0);
    vcpu_context_changed(w.g[0].v);
    set_up(w.g[0].v, &(struct step){.op = LOAD, .to = 0x90000});
    assert_int_equal(go(&w, 0, PART_SERIAL, 1), VCPU_SHUTDOWN);
    close_world(&w);
}

static void switch_to(struct world *w, unsigned space)
{
    set_up(w->g[0].v, &(struct step){.op = SWITCH, .value = table(space, 0)});
    (void)go(w, 0, PART_SERIAL, 1);
}

/* What one space was filled with another has, for as long as its top table says the same; and only
 * if the vCPU may read that table. */
static void a_half_is_shared(void **state)
{
    static struct world w = {.cfg = {true, 1, true, true}};
    gva_t lin = HIGH | 0x90000;
    uint64_t fills, hits;

    (void)state;
    base = HIGH;
    open_world(&w);
    for (unsigned s = 0; s < SPACES; s++) {
        g_put(&w.g[0], (0x90 + s) * PAGE_SIZE, s + 1, 8);
        g_put(&w.g[0], table(s, 3) + 0x90 * 8, (0x90 + s) << PAGE_SHIFT | 0x63, 8);
    }
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 1);
    load(&w, 0, G_CODE | HIGH, PART_SERIAL, VCPU_BUDGET);
    fills = all_counters(&w).fills;
    hits = all_counters(&w).half_hits;
    switch_to(&w, 1);
    switch_to(&w, 2);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 1);
    assert_int_equal(all_counters(&w).fills, fills);
    assert_int_equal(all_counters(&w).half_hits, hits + 2);

    /* the current one's top table changes: it has a kernel of its own */
    g_put(&w.g[0], table(2, 0) + 256 * 8, table(2, 1) | 0x63, 8);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 3);
    switch_to(&w, 1);
    fills = all_counters(&w).fills;
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 1);
    assert_int_equal(all_counters(&w).fills, fills);
    /* one that is not the current one's, and what no walk has accessed yet */
    g_put(&w.g[0], table(0, 0) + 256 * 8, table(0, 1) | 3, 8);
    switch_to(&w, 0);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 1);
    assert_int_equal(g_get(&w.g[0], table(0, 0) + 256 * 8) & 0x20, 0x20);
    /* a table below it changes for all */
    g_put(&w.g[0], table(0, 3) + 0x90 * 8, 0x91 << PAGE_SHIFT | 0x63, 8);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 2);
    switch_to(&w, 1);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 2);

    /* another vCPU takes the top table: a hit stops for it as a miss does */
    (void)owner_serial(w.o, table(1, 0) >> PAGE_SHIFT, 1, OWNER_W);
    load(&w, 0, lin, PART_PARALLEL, VCPU_PAGES);
    assert_int_equal(w.g[0].v->lack.page, table(1, 0) >> PAGE_SHIFT);
    assert_false(w.g[0].v->lack.write);
    engine_interp.settle(w.g[0].v);
    assert_int_equal(load(&w, 0, lin, PART_SERIAL, VCPU_BUDGET), 2);
    /* and a space that is switched to */
    (void)owner_serial(w.o, table(0, 0) >> PAGE_SHIFT, 1, OWNER_W);
    w.g[0].v->c.cr3 = table(0, 0);
    vcpu_context_changed(w.g[0].v);
    load(&w, 0, lin, PART_PARALLEL, VCPU_PAGES);
    assert_int_equal(w.g[0].v->lack.page, table(0, 0) >> PAGE_SHIFT);
    engine_interp.settle(w.g[0].v);
    close_world(&w);
}

/* Entries that came from one table are as many as there are entries, and go with it all the same.
 */
static void a_table_may_map_all_there_is(void **state)
{
    enum { DIR = 0x2000, LEAF = 0x3000 };
    static const struct walk_result r = {
        .page = 0x5000, .perm = WALK_R, .entry = {0x1000, DIR, LEAF}, .nentries = 3, .shift = 21};
    static const gpa_t stores[] = {LEAF, DIR};
    struct ram *ram;
    struct shadow *s;
    bool attention;

    (void)state;
    assert_int_equal(ram_create(G_RAM, &ram, NULL), 0);
    assert_int_equal(shadow_create(&SHADOW_DEFAULT, ram, &attention, 0, &s), 0);
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        uint32_t n = 0;
        for (unsigned space = 0; space < 4; space++) {
            shadow_select(s, &(struct shadow_key){.cr3 = space * PAGE_SIZE});
            for (gva_t lin = 0; lin < s->entries * PAGE_SIZE; lin += PAGE_SIZE) {
                shadow_fill(s, shadow_slot(s, SHADOW_USER, lin), lin, &r);
                n++;
            }
        }
        assert_int_equal(n, 65536); /* which no 16 bits hold */
        shadow_table_written(s, stores[i] >> PAGE_SHIFT, stores[i], 8);
        assert_int_equal(s->counters.drops_store, (i + 1) * n);
        assert_int_equal(s->use[LEAF >> PAGE_SHIFT] | s->use[DIR >> PAGE_SHIFT], 0);
    }
    shadow_destroy(s);
    ram_destroy(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_switch_changes_a_result),
        cmocka_unit_test_teardown(spaces_share_what_their_tables_do, back_to_the_lower_half),
        cmocka_unit_test(eager_flags_change_it_alike),
        cmocka_unit_test(what_is_written_fast_is_seen_by_walks),
        cmocka_unit_test(flags_are_owed_and_settled),
        cmocka_unit_test(a_flag_is_owed_once),
        cmocka_unit_test(nothing_is_filled_ahead_of_a_flag),
        cmocka_unit_test(nor_of_one_of_the_same_instruction),
        cmocka_unit_test(spaces_are_kept),
        cmocka_unit_test_teardown(a_half_is_shared, back_to_the_lower_half),
        cmocka_unit_test(a_table_may_map_all_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
