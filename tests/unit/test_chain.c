/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_chain.c - chains of VHDX files as one disk (storage/chain.h). A model test of
 * random changes, layers, commits and rebases against a flat buffer; and every way in which a link
 * may be wrong. SEED=n replays, OPS=n sets how many operations. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/prng.h"
#include "storage/chain.h"
#include "tests/unit/amount.h"

#define MIB UINT64_C(1048576)
enum { BYTES = 6 << 20, LAYERS_MAX = 6, BIG = 1 << 17 };

static struct plx_err err;

#define OK(call)                                                \
    do {                                                        \
        if ((call) != 0) {                                      \
            fail_msg("%s:%d: %s", __FILE__, __LINE__, err.msg); \
        }                                                       \
    } while (0)

/* --- the model ------------------------------------------------------------------------------ */

struct model {
    struct io_mem *mem;
    struct prng g;
    uint8_t *flat, *got;
    struct disk *d;
    unsigned n; /* layers; names are l0 (the base) .. */
    uint32_t sector;
    struct io_queue *q;
};

static const char *name(unsigned i)
{
    static char names[4][16];
    static unsigned next;
    char *out = names[next++ % 4];
    (void)snprintf(out, sizeof names[0], "l%u", i);
    return out;
}

static void reopen(struct model *m)
{
    OK(disk_close(m->d, &err));
    OK(chain_open(io_mem_space(m->mem), name(m->n - 1), DISK_FOR_WRITE, &m->d, &err));
    assert_int_equal(chain_depth(m->d), m->n);
}

static void compare(struct model *m, uint64_t off, uint64_t len)
{
    OK(disk_read(m->d, m->got, len, off, &err));
    if (memcmp(m->got, m->flat + off, len) != 0) {
        uint64_t i = 0;
        while (m->got[i] == m->flat[off + i]) {
            i++;
        }
        fail_msg("byte %llu is %02x, not %02x (%u layers)", (unsigned long long)(off + i),
                 m->got[i], m->flat[off + i], m->n);
    }
}

/* Mostly small and anywhere; sometimes whole blocks. */
static void pick(struct model *m, uint64_t *off, uint64_t *len)
{
    uint64_t kind = prng_below(&m->g, 32);

    if (kind == 0) {
        *off = prng_below(&m->g, BYTES / MIB) * MIB;
        *len = MIB;
        return;
    }
    *len = 512 * (1 + prng_below(&m->g, kind < 4 ? BIG / 512 : 16));
    *off = 512 * prng_below(&m->g, (BYTES - *len) / 512 + 1);
}

static void request_done(struct disk_request *r)
{
    *(unsigned *)r->ctx += 1;
    if (r->rc != 0) {
        fail_msg("%s", r->err.msg);
    }
}

/* Several requests at once that do not touch one another. */
static void many_at_once(struct model *m)
{
    static struct disk_request r[6];
    unsigned done = 0;

    for (unsigned i = 0; i < 6; i++) {
        uint64_t span = BYTES / 6 / 4096 * 4096, len = 512 * (1 + prng_below(&m->g, 100));
        uint64_t off = span * i + 512 * prng_below(&m->g, (span - len) / 512);
        r[i] = (struct disk_request){.op = (enum disk_op_kind)prng_below(&m->g, 5),
                                     .off = off,
                                     .len = len,
                                     .buf = m->got + off,
                                     .fua = prng_below(&m->g, 8) == 0,
                                     .done = request_done,
                                     .ctx = &done};
        if (r[i].op == DISK_OP_WRITE) {
            prng_fill(&m->g, m->got + off, len);
            memcpy(m->flat + off, m->got + off, len);
        } else if (r[i].op == DISK_OP_ZERO || r[i].op == DISK_OP_DISCARD) {
            memset(m->flat + off, 0, len);
        }
        disk_submit(m->d, m->q, &r[i]);
    }
    while (io_queue_pending(m->q) != 0) {
        (void)io_queue_run(m->q, true);
    }
    assert_int_equal(done, 6);
    for (unsigned i = 0; i < 6; i++) {
        if (r[i].op == DISK_OP_READ) {
            assert_memory_equal(m->got + r[i].off, m->flat + r[i].off, r[i].len);
        }
    }
}

static void add_child(struct model *m)
{
    OK(disk_close(m->d, &err));
    OK(chain_create_child(io_mem_space(m->mem), name(m->n), name(m->n - 1),
                          (uint32_t)(MIB << prng_below(&m->g, 2)), &err));
    m->n++;
    OK(chain_open(io_mem_space(m->mem), name(m->n - 1), DISK_FOR_WRITE, &m->d, &err));
}

static void drop_layer(struct model *m)
{
    struct io_space *s = io_mem_space(m->mem);

    OK(disk_close(m->d, &err));
    m->d = NULL;
    if (prng_below(&m->g, 2) == 0 || m->n < 3) {
        OK(chain_commit(s, name(m->n - 1), NULL, &err));
        if (prng_below(&m->g, 2) == 0) { /* the emptied child still shows the same */
            OK(chain_open(s, name(m->n - 1), DISK_FOR_WRITE, &m->d, &err));
            compare(m, 0, BYTES);
            OK(disk_close(m->d, &err));
        }
    } else { /* the top over its grandparent, and the one between them gone */
        OK(chain_rebase(s, name(m->n - 1), name(m->n - 3), NULL, &err));
        OK(chain_open(s, name(m->n - 1), DISK_FOR_WRITE, &m->d, &err));
        assert_int_equal(chain_depth(m->d), m->n - 1);
        compare(m, 0, BYTES);
        OK(disk_close(m->d, &err));
        OK(chain_rebase(s, name(m->n - 1), name(m->n - 2), NULL, &err));
        OK(chain_commit(s, name(m->n - 1), NULL, &err));
    }
    m->n--;
    OK(s->remove(s, name(m->n), &err));
    OK(chain_open(s, name(m->n - 1), DISK_FOR_WRITE, &m->d, &err));
}

static void step(struct model *m)
{
    uint64_t off, len, kind = prng_below(&m->g, 1000);

    pick(m, &off, &len);
    if (kind < 420) {
        prng_fill(&m->g, m->flat + off, len);
        OK(disk_write(m->d, m->flat + off, len, off, &err));
    } else if (kind < 820) {
        compare(m, off, len);
    } else if (kind < 920) {
        memset(m->flat + off, 0, len);
        OK(disk_zero(m->d, len, off, kind % 2 == 0, &err));
    } else if (kind < 960) {
        OK(disk_flush(m->d, &err));
    } else if (kind < 990) {
        many_at_once(m);
    } else if (kind < 996) {
        reopen(m);
    } else if (kind == 996 || kind == 997) {
        if (m->n < LAYERS_MAX) {
            add_child(m);
        } else {
            drop_layer(m);
        }
    } else if (kind == 998 && m->n > 1) {
        drop_layer(m);
    } else {
        compare(m, 0, BYTES);
    }
}

static void run_model(uint64_t seed, unsigned ops, uint32_t sector)
{
    struct vhdx_create c = {
        .type = VHDX_DYNAMIC, .bytes = BYTES, .block = MIB, .logical_sector = sector};
    struct model m = {.mem = io_mem_new(), .n = 1, .sector = sector};
    struct io_file *f;

    prng_seed(&m.g, seed);
    m.flat = calloc(1, BYTES);
    m.got = calloc(1, BYTES);
    OK(io_queue_create(IO_QUEUE_AUTO, 32, &m.q, &err));
    OK(io_open(io_mem_space(m.mem), name(0), IO_WRITE | IO_CREATE, &f, &err));
    OK(vhdx_create(f, &c, &err));
    io_close(f);
    OK(chain_open(io_mem_space(m.mem), name(0), DISK_FOR_WRITE, &m.d, &err));
    for (unsigned i = 0; i < ops; i++) {
        step(&m);
    }
    compare(&m, 0, BYTES);
    reopen(&m);
    compare(&m, 0, BYTES);
    for (unsigned i = 0; i < m.n; i++) {
        struct vhdx_report r;
        OK(vhdx_check(chain_layer(m.d, i), &r, &err));
        assert_int_equal(r.warnings, 0);
    }
    OK(disk_close(m.d, &err));
    io_queue_destroy(m.q);
    io_mem_free(m.mem);
    free(m.flat);
    free(m.got);
}

static void a_chain_is_a_flat_disk(void **state)
{
    uint64_t seed = from_env("SEED", clock_wall_ns() / 1000 % 1000000);
    unsigned ops = (unsigned)from_env("OPS", AMOUNT(100000, 10));

    (void)state;
    printf("SEED=%llu OPS=%u\n", (unsigned long long)seed, ops);
    run_model(seed, ops * 3 / 4, 512);
    run_model(seed + 1, ops / 4, 4096);
}

/* --- threads -------------------------------------------------------------------------------- */

enum { THREADS = 4, STRIPE = 4096 };

/* One of several that change one disk at once: of block 0 every fourth stripe is its own, and of
 * the others one whole block, which it also discards. */
struct mate {
    struct disk *d;
    pthread_t thread;
    struct prng g;
    unsigned nr;
    uint8_t own[MIB];               /* of its block */
    uint8_t stripes[MIB / THREADS]; /* of block 0 */
    int bad;
};

static uint64_t stripe_at(const struct mate *m, uint64_t k)
{
    return (k * THREADS + m->nr) * STRIPE;
}

static int mate_step(struct mate *m)
{
    static const uint64_t stripes = MIB / THREADS / STRIPE;
    uint64_t base = (m->nr + 1) * MIB, off = 512 * prng_below(&m->g, MIB / 512 - 64);
    uint64_t len = 512 * (1 + prng_below(&m->g, 64)), k = prng_below(&m->g, stripes);
    uint8_t buf[64 * 512], *mine = m->stripes + k * STRIPE;
    struct plx_err e;

    switch (prng_below(&m->g, 8)) {
    case 0:
        memset(m->own, 0, sizeof m->own);
        return disk_zero(m->d, MIB, base, true, &e);
    case 1:
        return disk_flush(m->d, &e);
    case 2:
    case 3:
        prng_fill(&m->g, m->own + off, len);
        return disk_write(m->d, m->own + off, len, base + off, &e);
    case 4:
        prng_fill(&m->g, mine, STRIPE);
        return disk_write(m->d, mine, STRIPE, stripe_at(m, k), &e);
    case 5:
        memset(mine, 0, STRIPE);
        return disk_zero(m->d, STRIPE, stripe_at(m, k), true, &e);
    case 6:
        return disk_read(m->d, buf, STRIPE, stripe_at(m, k), &e) != 0 ||
               memcmp(buf, mine, STRIPE) != 0;
    default:
        return disk_read(m->d, buf, len, base + off, &e) != 0 ||
               memcmp(buf, m->own + off, len) != 0;
    }
}

static void *mate_main(void *arg)
{
    struct mate *m = arg;

    for (unsigned i = 0; i < 4000 && m->bad == 0; i++) {
        m->bad = mate_step(m);
    }
    return NULL;
}

static void threads_change_one_disk_at_once(void **state)
{
    static struct mate mates[THREADS];
    struct io_mem *m = io_mem_new();
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = BYTES, .block = MIB};
    struct io_file *f;
    struct disk *d;

    (void)state;
    OK(io_open(io_mem_space(m), "base", IO_WRITE | IO_CREATE, &f, &err));
    OK(vhdx_create(f, &c, &err));
    io_close(f);
    OK(chain_create_child(io_mem_space(m), "top", "base", MIB, &err));
    for (unsigned k = 0; k < 2; k++) { /* a dynamic and a differencing disk */
        OK(chain_open(io_mem_space(m), k == 0 ? "top" : "base", DISK_FOR_WRITE, &d, &err));
        for (unsigned i = 0; i < THREADS; i++) {
            memset(&mates[i], 0, sizeof mates[i]);
            mates[i].d = d;
            mates[i].nr = i;
            prng_seed(&mates[i].g, 100 * k + i);
            assert_int_equal(pthread_create(&mates[i].thread, NULL, mate_main, &mates[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(mates[i].thread, NULL), 0);
            assert_int_equal(mates[i].bad, 0);
        }
        OK(disk_close(d, &err));
        OK(chain_open(io_mem_space(m), k == 0 ? "top" : "base", 0, &d, &err));
        for (unsigned i = 0; i < THREADS; i++) {
            static uint8_t buf[MIB];
            OK(disk_read(d, buf, MIB, (i + 1) * MIB, &err));
            assert_memory_equal(buf, mates[i].own, MIB);
        }
        OK(disk_close(d, &err));
    }
    io_mem_free(m);
}

/* --- links ---------------------------------------------------------------------------------- */

static struct io_mem *mem;
static struct io_space *space;

static int new_chain(void **state)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = BYTES, .block = MIB};
    struct io_file *f;

    (void)state;
    mem = io_mem_new();
    space = io_mem_space(mem);
    if (io_open(space, "/v/base", IO_WRITE | IO_CREATE, &f, &err) != 0 ||
        vhdx_create(f, &c, &err) != 0) {
        return 1;
    }
    io_close(f);
    return chain_create_child(space, "/v/mid", "/v/base", 0, &err) != 0 ||
           chain_create_child(space, "/v/top", "/v/mid", 0, &err) != 0;
}

static int free_chain(void **state)
{
    (void)state;
    io_mem_free(mem);
    return 0;
}

static void touch(const char *path)
{
    struct disk *d;
    uint8_t sector[512] = {1};
    OK(chain_open(space, path, DISK_FOR_WRITE, &d, &err));
    OK(disk_write(d, sector, sizeof sector, 4096, &err));
    OK(disk_close(d, &err));
}

static void id_text(const char *path, char out[DISK_GUID_TEXT])
{
    struct disk *d;
    struct disk_guid g;
    OK(chain_open(space, path, DISK_NO_PARENTS, &d, &err));
    OK(disk_identity(d, &g, &err));
    OK(disk_close(d, &err));
    (void)disk_guid_text(&g, out);
}

static void a_changed_parent_is_refused_by_name(void **state)
{
    char before[DISK_GUID_TEXT], after[DISK_GUID_TEXT];
    struct disk *d;

    (void)state;
    OK(chain_open(space, "/v/top", 0, &d, &err));
    assert_int_equal(chain_depth(d), 3);
    OK(disk_close(d, &err));
    id_text("/v/mid", before);
    touch("/v/top"); /* nobody depends on it */
    OK(chain_open(space, "/v/top", 0, &d, &err));
    OK(disk_close(d, &err));
    touch("/v/mid");
    id_text("/v/mid", after);
    assert_int_equal(chain_open(space, "/v/top", 0, &d, &err), PLX_ESTALE);
    assert_null(d);
    assert_non_null(strstr(err.msg, "/v/top"));
    assert_non_null(strstr(err.msg, "/v/mid"));
    assert_non_null(strstr(err.msg, before));
    assert_non_null(strstr(err.msg, after));
    assert_non_null(strstr(err.msg, "pollux disk relink --force /v/top"));
    assert_int_equal(chain_open(space, "/v/top", DISK_FOR_WRITE, &d, &err), PLX_ESTALE);
    OK(chain_open(space, "/v/mid", 0, &d, &err)); /* the rest is well */
    OK(disk_close(d, &err));
}

static void relink_needs_force_and_leaves_a_note(void **state)
{
    struct wbuf notes;
    struct disk *d;
    char after[DISK_GUID_TEXT];

    (void)state;
    OK(chain_relink(space, "/v/top", NULL, false, &err)); /* nothing is wrong: nothing noted */
    touch("/v/mid");
    id_text("/v/mid", after);
    assert_int_equal(chain_relink(space, "/v/top", NULL, false, &err), PLX_ESTALE);
    OK(chain_open(space, "/v/top", DISK_NO_PARENTS, &d, &err));
    OK(vhdx_notes(chain_layer(d, 0), &notes, &err));
    assert_int_equal(notes.len, 0);
    wbuf_free(&notes);
    OK(disk_close(d, &err));
    OK(chain_relink(space, "/v/top", NULL, true, &err));
    OK(chain_open(space, "/v/top", 0, &d, &err));
    OK(vhdx_notes(chain_layer(d, 0), &notes, &err));
    wbuf_u8(&notes, 0);
    assert_non_null(strstr((char *)notes.data, "relink --force"));
    assert_non_null(strstr((char *)notes.data, after));
    wbuf_free(&notes);
    OK(disk_close(d, &err));
}

static void missing_and_moved_parents(void **state)
{
    struct io_file *f, *g;
    struct disk *d;
    uint64_t size;

    (void)state;
    OK(io_open(space, "/v/mid", 0, &f, &err)); /* a copy elsewhere, the original gone */
    OK(io_size(f, &size, &err));
    OK(io_open(space, "/w", IO_WRITE | IO_CREATE, &g, &err));
    for (uint64_t off = 0; off < size; off += MIB) {
        static uint8_t part[1 << 20];
        OK(io_read(f, part, MIB, off, &err));
        OK(io_write(g, part, MIB, off, &err));
    }
    io_close(f);
    io_close(g);
    OK(space->remove(space, "/v/mid", &err));
    assert_int_equal(chain_open(space, "/v/top", 0, &d, &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, "/v/top"));
    assert_non_null(strstr(err.msg, "/v/mid"));
    assert_non_null(strstr(err.msg, "relink"));
    OK(chain_relink(space, "/v/top", "/w", false, &err));
    OK(chain_open(space, "/v/top", 0, &d, &err));
    assert_int_equal(chain_depth(d), 3);
    OK(disk_close(d, &err));
}

static void a_parent_that_is_written_elsewhere_is_refused(void **state)
{
    char id[DISK_GUID_TEXT];
    struct disk *d, *e;

    (void)state;
    id_text("/v/mid", id);
    OK(chain_open(space, "/v/mid", DISK_FOR_WRITE, &d, &err));
    assert_int_equal(chain_open(space, "/v/top", 0, &e, &err), PLX_EBUSY);
    assert_non_null(strstr(err.msg, "/v/mid"));
    assert_non_null(strstr(err.msg, "open for writing"));
    assert_non_null(strstr(err.msg, id));
    OK(disk_close(d, &err));
    OK(chain_open(space, "/v/top", DISK_FOR_WRITE, &d, &err));
    assert_int_equal(chain_open(space, "/v/mid", DISK_FOR_WRITE, &e, &err), PLX_EBUSY);
    OK(chain_create_child(space, "/v/other", "/v/mid", 0, &err)); /* readers share */
    OK(disk_close(d, &err));
}

static void a_cycle_is_refused(void **state)
{
    struct vhdx_parent p;
    struct disk_guid g;
    struct io_file *f;
    struct vhdx *v;
    struct disk *d;

    (void)state;
    OK(chain_open(space, "/v/top", DISK_NO_PARENTS, &d, &err));
    OK(disk_identity(d, &g, &err));
    OK(disk_close(d, &err));
    OK(io_open(space, "/v/mid", IO_WRITE, &f, &err));
    OK(vhdx_open(f, VHDX_WRITE, &v, &err));
    OK(chain_describe("/v/mid", "/v/top", &g, &p, &err));
    OK(vhdx_set_parent(v, &p, &err));
    OK(vhdx_close(v, &err));
    assert_int_equal(chain_open(space, "/v/top", 0, &d, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "itself"));
    assert_int_equal(chain_open(space, "/v/mid", DISK_FOR_WRITE, &d, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "itself"));
    assert_int_equal(chain_rebase(space, "/v/mid", "/v/base", NULL, &err), PLX_EINVAL);
    OK(chain_relink(space, "/v/mid", "/v/base", true, &err));
    OK(chain_open(space, "/v/top", 0, &d, &err));
    OK(disk_close(d, &err));
    /* Nor can one be made. */
    assert_int_equal(chain_rebase(space, "/v/mid", "/v/top", NULL, &err), PLX_EBUSY);
}

/* Committing changes the parent; its other children are told so. */
static void commit_is_seen_by_other_children(void **state)
{
    struct disk *d;
    uint8_t sector[512];

    (void)state;
    OK(chain_create_child(space, "/v/other", "/v/mid", 0, &err));
    touch("/v/top");
    OK(chain_commit(space, "/v/top", NULL, &err));
    assert_int_equal(chain_open(space, "/v/other", 0, &d, &err), PLX_ESTALE);
    OK(chain_open(space, "/v/top", 0, &d, &err));
    struct vhdx_info info;
    vhdx_get_info(chain_layer(d, 0), &info);
    assert_int_equal(info.allocated, 0);
    OK(disk_read(d, sector, 512, 4096, &err));
    assert_int_equal(sector[0], 1);
    OK(disk_close(d, &err));
    /* What the emptied child wrote before is not taken for its own again. */
    OK(chain_open(space, "/v/top", DISK_FOR_WRITE, &d, &err));
    OK(disk_write(d, sector, 512, 8192, &err));
    OK(disk_read(d, sector, 512, 4096, &err));
    assert_int_equal(sector[0], 1);
    OK(disk_close(d, &err));
    assert_int_equal(chain_commit(space, "/v/base", NULL, &err), PLX_EINVAL);
}

static bool end_at_once(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return done > total;
}

/* An ended commit leaves a child that reads as before, and can be done again. */
static void an_ended_commit_can_be_done_again(void **state)
{
    struct disk_progress stop = {end_at_once, NULL};
    struct disk *d;
    uint8_t sector[512];

    (void)state;
    touch("/v/top");
    assert_int_equal(chain_commit(space, "/v/top", &stop, &err), PLX_ECANCELED);
    OK(chain_open(space, "/v/top", 0, &d, &err));
    OK(disk_read(d, sector, 512, 4096, &err));
    assert_int_equal(sector[0], 1);
    OK(disk_close(d, &err));
    OK(chain_commit(space, "/v/top", NULL, &err));
}

static void formats_go_by_name_and_not_by_content(void **state)
{
    struct io_file *f;
    struct disk *d;

    (void)state;
    assert_string_equal(disk_format_of("a/b.vhdx"), "vhdx");
    assert_string_equal(disk_format_of("b.AVHDX"), "vhdx");
    assert_string_equal(disk_format_of("b.vhdx/c"), "raw");
    assert_string_equal(disk_format_of("b.img"), "raw");
    assert_int_equal(disk_open(space, "/v/base", NULL, 0, &d, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "VHDX"));
    OK(disk_open(space, "/v/base", "vhdx", 0, &d, &err));
    OK(disk_close(d, &err));
    OK(disk_open(space, "/v/base", "raw", 0, &d, &err));
    OK(disk_close(d, &err));
    OK(io_open(space, "/v/x.vhdx", IO_WRITE | IO_CREATE, &f, &err));
    OK(io_truncate(f, MIB, &err));
    io_close(f);
    assert_int_equal(disk_open(space, "/v/x.vhdx", NULL, 0, &d, &err), PLX_ECORRUPT);
    assert_int_equal(disk_open(space, "/v/x.vhdx", "qcow2", 0, &d, &err), PLX_ENOTSUP);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, new_chain, free_chain)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_changed_parent_is_refused_by_name),
        TEST(relink_needs_force_and_leaves_a_note),
        TEST(missing_and_moved_parents),
        TEST(a_parent_that_is_written_elsewhere_is_refused),
        TEST(a_cycle_is_refused),
        TEST(commit_is_seen_by_other_children),
        TEST(an_ended_commit_can_be_done_again),
        TEST(formats_go_by_name_and_not_by_content),
        cmocka_unit_test(threads_change_one_disk_at_once),
        cmocka_unit_test(a_chain_is_a_flat_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
