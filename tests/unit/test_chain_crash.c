/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_chain_crash.c - a crash at every point of a workload on virtual disks.
 *
 * The workload runs once over files in memory that keep every change (storage/io.h). Then, for
 * every number of changes and every kind of crash (the first n, the last of them torn, any subset
 * since the last barrier), the image that would be left is opened, replayed, checked, read whole
 * and compared: a sector holds what the last flush before the crash made durable, or something that
 * was written later and before the crash; the identifier is new if anything is. SEED=n replays,
 * RUNS=n sets how many workloads, OPS=n how long they are, STEP=n takes every n-th point only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/prng.h"
#include "storage/chain.h"
#include "tests/unit/amount.h"

#define MIB UINT64_C(1048576)
enum { BYTES = 4 << 20, SECTORS = BYTES / 512, OPS_MAX = 4000, ZEROS = UINT32_MAX };

static struct plx_err err;

#define OK(call)                                                \
    do {                                                        \
        if ((call) != 0) {                                      \
            fail_msg("%s:%d: %s", __FILE__, __LINE__, err.msg); \
        }                                                       \
    } while (0)

/* One change or flush of the workload. */
struct op {
    enum { OP_WRITE, OP_ZERO, OP_FLUSH } kind;
    uint32_t first, count; /* sectors */
    unsigned begun, ended; /* changes of files recorded before and after */
};

struct workload {
    struct prng g;
    struct io_mem *mem;
    const char *top;
    struct op ops[OPS_MAX];
    unsigned n;
    uint32_t initial; /* version of every sector at first: 0, or ZEROS */
    struct disk_guid id;
    unsigned images, replayed;
    unsigned opened[IO_CRASH_KINDS][2]; /* after a crash: to read, to write */
};

static uint8_t whole[BYTES];

static uint64_t word(uint32_t sector, uint32_t version)
{
    return ((uint64_t)sector << 32 | version) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static void fill(uint32_t sector, uint32_t version, uint8_t *out)
{
    for (unsigned i = 0; i < 64; i++) {
        uint64_t w = word(sector, version) + 2 * i;
        memcpy(out + 8 * i, &w, 8);
    }
}

static bool holds(uint32_t sector, uint32_t version, const uint8_t *p)
{
    uint8_t want[512] = {0};

    if (version != ZEROS) {
        fill(sector, version, want);
    }
    return memcmp(want, p, 512) == 0;
}

/* --- the workload --------------------------------------------------------------------------- */

static void create_files(struct workload *w, bool chain)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = BYTES, .block = MIB};
    struct io_space *s = io_mem_space(w->mem);
    struct io_file *f;
    struct disk *d;

    OK(io_open(s, "base", IO_WRITE | IO_CREATE, &f, &err));
    OK(vhdx_create(f, &c, &err));
    io_close(f);
    w->top = "base";
    w->initial = ZEROS;
    if (chain) {
        OK(chain_open(s, "base", DISK_FOR_WRITE, &d, &err));
        for (uint32_t i = 0; i < SECTORS; i++) {
            fill(i, 0, whole + 512 * (size_t)i);
        }
        OK(disk_write(d, whole, BYTES, 0, &err));
        OK(disk_close(d, &err));
        OK(chain_create_child(s, "top", "base", MIB, &err));
        w->top = "top";
        w->initial = 0;
    }
    OK(chain_open(s, w->top, 0, &d, &err));
    OK(disk_identity(d, &w->id, &err));
    OK(disk_close(d, &err));
}

static void do_op(struct workload *w, struct disk *d)
{
    static uint8_t buf[2 * MIB];
    struct op *o = &w->ops[w->n];
    uint64_t kind = prng_below(&w->g, 20);

    *o = (struct op){.begun = io_mem_recorded(w->mem)};
    if (prng_below(&w->g, 10) == 0) { /* whole blocks */
        o->count = (uint32_t)(MIB / 512);
        o->first = (uint32_t)prng_below(&w->g, BYTES / MIB) * o->count;
    } else {
        o->count = (uint32_t)(1 + prng_below(&w->g, prng_below(&w->g, 4) == 0 ? 600 : 24));
        o->first = (uint32_t)prng_below(&w->g, SECTORS - o->count + 1);
    }
    if (kind < 12) {
        o->kind = OP_WRITE;
        for (uint32_t i = 0; i < o->count; i++) {
            fill(o->first + i, w->n + 1, buf + 512 * (size_t)i);
        }
        OK(disk_write(d, buf, 512 * (uint64_t)o->count, 512 * (uint64_t)o->first, &err));
    } else if (kind < 16) {
        o->kind = OP_ZERO;
        OK(disk_zero(d, 512 * (uint64_t)o->count, 512 * (uint64_t)o->first, kind % 2 == 0, &err));
    } else {
        o->kind = OP_FLUSH;
        OK(disk_flush(d, &err));
    }
    o->ended = io_mem_recorded(w->mem);
    w->n++;
}

/* --- judging -------------------------------------------------------------------------------- */

static bool covers(const struct op *o, uint32_t sector)
{
    return o->kind != OP_FLUSH && sector >= o->first && sector - o->first < o->count;
}

/* The version that was durable when @n changes had happened, for each sector; the first operation
 * that may or may not be there. */
static unsigned durable(const struct workload *w, unsigned n, uint32_t *version)
{
    unsigned sure = 0;

    for (unsigned i = 0; i < w->n; i++) {
        if (w->ops[i].kind == OP_FLUSH && w->ops[i].ended <= n) {
            sure = i;
        }
    }
    for (uint32_t s = 0; s < SECTORS; s++) {
        version[s] = w->initial;
    }
    for (unsigned i = 0; i < sure; i++) {
        for (uint32_t k = 0; w->ops[i].kind != OP_FLUSH && k < w->ops[i].count; k++) {
            version[w->ops[i].first + k] = w->ops[i].kind == OP_ZERO ? ZEROS : i + 1;
        }
    }
    return sure;
}

static bool allowed(const struct workload *w, unsigned n, unsigned sure, uint32_t version,
                    uint32_t sector, const uint8_t *p)
{
    if (holds(sector, version, p)) {
        return true;
    }
    for (unsigned i = sure; i < w->n && w->ops[i].begun < n; i++) {
        if (covers(&w->ops[i], sector) &&
            holds(sector, w->ops[i].kind == OP_ZERO ? ZEROS : i + 1, p)) {
            return true;
        }
    }
    return false;
}

/* @write: the image is opened to be written; else to be read, which first replays its log if there
 * is something in it. */
static void judge(struct workload *w, unsigned n, enum io_crash kind, bool write)
{
    static uint32_t version[SECTORS];
    struct io_mem *after = io_mem_crash(w->mem, n, kind, &w->g);
    struct io_space *s = io_mem_space(after);
    struct vhdx_info info;
    struct vhdx *v;
    struct io_file *f;
    struct disk_guid id;
    struct disk *d;
    bool changed = false;

    assert_non_null(after);
    OK(io_open(s, w->top, 0, &f, &err));
    OK(vhdx_open(f, VHDX_PEEK, &v, &err));
    vhdx_get_info(v, &info);
    w->replayed += info.log_active;
    OK(vhdx_close(v, &err));
    if (chain_open(s, w->top, write ? DISK_FOR_WRITE : 0, &d, &err) != 0) {
        fail_msg("after %u changes, kind %d: %s", n, (int)kind, err.msg);
    }
    for (unsigned i = 0; i < chain_depth(d); i++) {
        struct vhdx_report r;
        OK(vhdx_check(chain_layer(d, i), &r, &err));
    }
    OK(disk_read(d, whole, BYTES, 0, &err));
    unsigned sure = durable(w, n, version);
    for (uint32_t i = 0; i < SECTORS; i++) {
        const uint8_t *p = whole + 512 * (size_t)i;
        changed = changed || !holds(i, w->initial, p);
        if (!allowed(w, n, sure, version[i], i, p)) {
            fail_msg("after %u changes, kind %d: sector %u should hold version %d or a later one",
                     n, (int)kind, i, (int)version[i]);
        }
    }
    OK(disk_identity(d, &id, &err));
    assert_true(!changed || !disk_guid_eq(&id, &w->id));
    if (write) { /* and it goes on */
        OK(disk_write(d, whole, 4096, BYTES / 2, &err));
        OK(disk_zero(d, MIB, 0, true, &err));
        OK(disk_close(d, &err));
        OK(chain_open(s, w->top, 0, &d, &err));
        uint8_t part[4096];
        OK(disk_read(d, part, sizeof part, BYTES / 2, &err));
        assert_memory_equal(part, whole, sizeof part);
    }
    OK(disk_close(d, &err));
    io_mem_free(after);
    w->opened[kind][write]++;
    w->images++;
}

static void run(uint64_t seed, unsigned ops, unsigned step, bool chain)
{
    static struct workload w;
    struct disk *d;

    w = (struct workload){.mem = io_mem_new()};
    prng_seed(&w.g, seed);
    create_files(&w, chain);
    io_mem_record(w.mem);
    OK(chain_open(io_mem_space(w.mem), w.top, DISK_FOR_WRITE, &d, &err));
    while (w.n < ops) {
        do_op(&w, d);
        if (w.n % 40 == 39) {
            OK(disk_close(d, &err));
            OK(chain_open(io_mem_space(w.mem), w.top, DISK_FOR_WRITE, &d, &err));
        }
    }
    OK(disk_close(d, &err));
    unsigned n = io_mem_recorded(w.mem);
    for (unsigned i = 0; i <= n; i += step) {
        for (unsigned kind = 0; kind < IO_CRASH_KINDS; kind++) {
            judge(&w, i, (enum io_crash)kind, (i / step + kind) % 2 == 0);
        }
    }
    printf("%s: %u operations, %u changes of files, %u crashes, %u logs replayed\n",
           chain ? "a child" : "a dynamic disk", w.n, n, w.images, w.replayed);
    assert_true(w.replayed > 0);
    for (unsigned kind = 0; kind < IO_CRASH_KINDS; kind++) {
        assert_true(w.opened[kind][false] > 0 && w.opened[kind][true] > 0);
    }
    io_mem_free(w.mem);
}

static void nothing_durable_is_lost_at_any_point(void **state)
{
    uint64_t seed = from_env("SEED", clock_wall_ns() / 1000 % 1000000);
    unsigned runs = (unsigned)from_env("RUNS", 1), ops = (unsigned)from_env("OPS", 90);
    unsigned step = (unsigned)from_env("STEP", UNDER_TSAN ? 7 : 2);

    (void)state;
    printf("SEED=%llu RUNS=%u OPS=%u STEP=%u\n", (unsigned long long)seed, runs, ops, step);
    assert_true(ops < OPS_MAX && step > 0);
    for (unsigned i = 0; i < runs; i++) {
        run(seed + i, ops, step, false);
        run(seed + i, ops, step, true);
    }
}

/* --- changes of the chain ------------------------------------------------------------------- */

/* Commit, rebase, relink and resize end somewhere: the top reads the same at every point, over
 * whatever it names as its parent. */
enum edit { EDIT_COMMIT, EDIT_REBASE, EDIT_RELINK, EDIT_GROW, EDITS };

static void do_edit(enum edit e, struct io_space *s)
{
    struct disk *d;

    switch (e) {
    case EDIT_COMMIT:
        OK(chain_commit(s, "top", NULL, &err));
        break;
    case EDIT_REBASE:
        OK(chain_rebase(s, "top", "other", NULL, &err));
        break;
    case EDIT_RELINK:
        OK(chain_relink(s, "top", "base", true, &err));
        break;
    case EDIT_GROW:
    case EDITS:
        OK(chain_open(s, "top", DISK_FOR_WRITE, &d, &err));
        OK(vhdx_resize(chain_layer(d, 0), UINT64_C(400) << 30, &err));
        OK(disk_close(d, &err));
        break;
    }
}

static void edits_keep_what_is_seen(void **state)
{
    static uint8_t before[BYTES];
    uint64_t seed = from_env("SEED", 1);
    struct prng g;

    (void)state;
    prng_seed(&g, seed);
    for (unsigned e = 0; e < EDITS; e++) {
        static struct workload w;
        struct disk *d;
        w = (struct workload){.mem = io_mem_new()};
        prng_seed(&w.g, seed + e);
        struct io_space *s = io_mem_space(w.mem);
        create_files(&w, true);
        OK(chain_create_child(s, "other", "base", 0, &err));
        OK(chain_open(s, "other", DISK_FOR_WRITE, &d, &err));
        OK(disk_zero(d, MIB + 8192, MIB / 2, true, &err));
        OK(disk_close(d, &err));
        OK(chain_open(s, "top", DISK_FOR_WRITE, &d, &err));
        while (w.n < 20) {
            do_op(&w, d);
        }
        OK(disk_read(d, before, BYTES, 0, &err));
        OK(disk_close(d, &err));
        io_mem_record(w.mem);
        do_edit((enum edit)e, s);
        unsigned n = io_mem_recorded(w.mem);
        for (unsigned i = 0; i <= n * IO_CRASH_KINDS; i += n > 200 ? 17 : UNDER_TSAN ? 5 : 1) {
            struct io_mem *after =
                io_mem_crash(w.mem, i / IO_CRASH_KINDS, (enum io_crash)(i % IO_CRASH_KINDS), &g);
            int rc = chain_open(io_mem_space(after), "top", 0, &d, &err);
            if (rc != 0) {
                fail_msg("edit %u after %u changes: %s", e, i / IO_CRASH_KINDS, err.msg);
            }
            OK(disk_read(d, whole, BYTES, 0, &err));
            assert_memory_equal(whole, before, BYTES);
            assert_true(d->geo.bytes == BYTES || (e == EDIT_GROW && d->geo.bytes > BYTES));
            OK(disk_close(d, &err));
            io_mem_free(after);
        }
        printf("edit %u: %u changes of files\n", e, n);
        io_mem_free(w.mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_durable_is_lost_at_any_point),
        cmocka_unit_test(edits_keep_what_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
