/* SPDX-License-Identifier: Apache-2.0
 * Hunts: segments that come back other than they went in, or twice; what was committed and is gone;
 * damage that is not seen; sweeps that take what is needed. Over every backend. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "storage/store_dir.h"
#include "storage/store_mem.h"
#include "tests/unit/amount.h"
#include "tests/unit/store_fixture.h"

enum { MANY = 300 };

static struct seg_id put_text(struct store *s, const char *text, int expect)
{
    struct plx_err err = {{0}};
    struct seg_id id;
    int rc = store_put(s, text, strlen(text), &id, NULL, &err);

    must(rc, &err);
    assert_int_equal(rc, expect);
    return id;
}

static void assert_text(struct store *s, const struct seg_id *id, const char *text)
{
    char back[256];
    struct plx_err err = {{0}};

    must(store_get(s, id, back, strlen(text), &err), &err);
    assert_memory_equal(back, text, strlen(text));
}

static void what_goes_in_comes_out(void **state)
{
    struct store_fixture *f = *state;
    struct prng g;
    static uint8_t data[SEG_MAX], back[SEG_MAX];
    struct seg_id ids[MANY];
    size_t lens[MANY];
    struct plx_err err = {{0}};

    for (int pass = 0; pass < 3; pass++) {
        prng_seed(&g, 11);
        for (int i = 0; i < MANY; i++) {
            size_t len = i == 0 ? SEG_MAX : i == 1 ? 1 : 1 + prng_below(&g, 70000);
            if (i % 2 == 0) {
                prng_fill(&g, data, len);
            } else {
                memset(data, i, len);
                data[0] = (uint8_t)(i >> 8);
            }
            if (pass == 0) {
                int rc = store_put(f->s, data, len, &ids[i], NULL, &err);
                must(rc, &err);
                assert_int_equal(rc, STORE_NEW);
                lens[i] = len;
            } else {
                must(store_get(f->s, &ids[i], back, lens[i], &err), &err);
                assert_int_equal(len, lens[i]);
                assert_memory_equal(back, data, len);
                assert_int_equal(store_put(f->s, data, len, &ids[i], NULL, &err), STORE_SHARED);
            }
        }
        if (pass == 1) {
            must(store_commit(f->s, &err), &err);
            fixture_reopen(f);
        }
    }
}

static void what_is_not_there_is_said_so(void **state)
{
    struct store_fixture *f = *state;
    struct seg_id id = put_text(f->s, "here", STORE_NEW), none = {{1, 2, 3}};
    struct plx_err err = {{0}};
    char buf[8];

    assert_int_equal(store_has(f->s, &none, &err), 0);
    assert_int_equal(store_has(f->s, &id, &err), 1);
    assert_int_equal(store_get(f->s, &none, buf, 4, &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, "010203"));
    assert_int_equal(store_get(f->s, &id, buf, 5, &err), PLX_ECORRUPT); /* another length */
}

static void a_foreign_form_must_be_what_its_name_says(void **state)
{
    struct store_fixture *f = *state;
    struct seg_form form = {
        .codec = SEG_PLAIN, .raw_len = 4, .stored_len = 4, .data = (const uint8_t *)"text"};
    struct seg_id id;
    struct plx_err err = {{0}};

    sha256("text", 4, id.sha);
    id.sha[5] ^= 1;
    assert_int_equal(store_put_form(f->s, &id, &form, &err), PLX_ECORRUPT);
    assert_int_equal(store_has(f->s, &id, &err), 0);
    id.sha[5] ^= 1;
    form.codec = SEG_ZSTD;
    assert_int_equal(store_put_form(f->s, &id, &form, &err), PLX_ECORRUPT);
    form.codec = SEG_PLAIN;
    assert_int_equal(store_put_form(f->s, &id, &form, &err), 1);
    assert_text(f->s, &id, "text");
}

static int gather_name(void *ctx, const char *name, const void *value, size_t len)
{
    char *all = ctx;

    (void)snprintf(all + strlen(all), 200 - strlen(all), "%s=%.*s ", name, (int)len,
                   value != NULL ? (const char *)value : "?");
    return 0;
}

static void names_are_set_replaced_and_removed(void **state)
{
    struct store_fixture *f = *state;
    const struct seg_ops *ops = store_ops(f->s);
    struct seg_id id = put_text(f->s, "one", STORE_NEW), none = {{9}};
    struct seg_id both[2] = {id, none};
    struct plx_err err = {{0}};
    struct wbuf value;
    char all[200] = "";
    size_t missing = 7;

    must(ops->name_put(store_self(f->s), "b:1", "x", 1, &id, 1, &missing, &err), &err);
    must(ops->name_put(store_self(f->s), "a:1", "y", 1, NULL, 0, &missing, &err), &err);
    must(ops->name_put(store_self(f->s), "b:1", "zz", 2, &id, 1, &missing, &err), &err);
    assert_int_equal(ops->name_put(store_self(f->s), "c:1", "n", 1, both, 2, &missing, &err), 1);
    assert_int_equal(missing, 1);
    fixture_reopen(f);
    must(store_ops(f->s)->name_each(store_self(f->s), gather_name, all, &err), &err);
    assert_string_equal(all, "a:1=y b:1=zz ");
    must(ops->name_get(store_self(f->s), "b:1", &value, &err), &err);
    assert_int_equal(value.len, 2);
    wbuf_free(&value);
    must(ops->name_del(store_self(f->s), "b:1", &err), &err);
    assert_int_equal(ops->name_get(store_self(f->s), "b:1", &value, &err), PLX_ENOENT);
    assert_int_equal(ops->name_del(store_self(f->s), "b:1", &err), PLX_ENOENT);
}

static int keep_one(void *ctx, struct seg_set *live, struct plx_err *err)
{
    (void)err;
    return seg_set_add(live, ctx);
}

static void a_sweep_keeps_what_is_marked(void **state)
{
    struct store_fixture *f = *state;
    struct seg_id keep = put_text(f->s, "keep", STORE_NEW),
                  drop = put_text(f->s, "drop", STORE_NEW);
    struct seg_sweep swept;
    struct seg_totals t;
    struct plx_err err = {{0}};

    must(store_commit(f->s, &err), &err);
    fixture_reopen(f); /* so that its pack is no live writer's */
    must(store_ops(f->s)->sweep(store_self(f->s), keep_one, &keep, &swept, &err), &err);
    assert_int_equal(swept.live, 1);
    assert_int_equal(swept.dropped, 1);
    assert_int_equal(store_has(f->s, &drop, &err), 0);
    assert_text(f->s, &keep, "keep");
    fixture_reopen(f);
    assert_text(f->s, &keep, "keep");
    must(store_ops(f->s)->totals(store_self(f->s), &t, &err), &err);
    assert_int_equal(t.segments, 1);
    put_text(f->s, "drop", STORE_NEW); /* and can come again */
    assert_text(f->s, &drop, "drop");
}

static int fail_mark(void *ctx, struct seg_set *live, struct plx_err *err)
{
    (void)ctx;
    (void)live;
    return plx_fail(err, PLX_ECORRUPT, "cannot tell");
}

static void a_sweep_that_cannot_tell_drops_nothing(void **state)
{
    struct store_fixture *f = *state;
    struct seg_id id = put_text(f->s, "text", STORE_NEW);
    struct seg_sweep swept;
    struct plx_err err = {{0}};

    must(store_commit(f->s, &err), &err);
    fixture_reopen(f);
    assert_int_equal(store_ops(f->s)->sweep(store_self(f->s), fail_mark, NULL, &swept, &err),
                     PLX_ECORRUPT);
    assert_text(f->s, &id, "text");
}

struct putter {
    struct store *s;
    unsigned fresh;
};

static void *put_many(void *arg)
{
    struct putter *p = arg;
    char text[32];
    struct seg_id id;

    for (int i = 0; i < 2000; i++) {
        (void)snprintf(text, sizeof text, "segment %d", i);
        p->fresh += store_put(p->s, text, strlen(text), &id, NULL, NULL) == STORE_NEW;
        if (i % 500 == 0) {
            (void)store_commit(p->s, NULL);
        }
    }
    return NULL;
}

static void threads_that_put_the_same_store_it_once(void **state)
{
    struct store_fixture *f = *state;
    struct putter p[4];
    pthread_t t[4];
    struct seg_totals totals;
    struct plx_err err = {{0}};
    unsigned fresh = 0;

    for (int i = 0; i < 4; i++) {
        p[i] = (struct putter){.s = f->s};
        assert_int_equal(pthread_create(&t[i], NULL, put_many, &p[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(t[i], NULL);
        fresh += p[i].fresh;
    }
    assert_int_equal(fresh, 2000);
    must(store_commit(f->s, &err), &err);
    must(store_ops(f->s)->totals(store_self(f->s), &totals, &err), &err);
    assert_int_equal(totals.segments, 2000);
}

static void blobs_of_any_length(void **state)
{
    static const size_t lens[] = {0, 1, STORE_BLOB_PART, STORE_BLOB_PART + 1, 1000000};
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(1 << 20, 3);
    struct plx_err err = {{0}};

    for (unsigned i = 0; i < PLX_COUNT(lens); i++) {
        struct store_blob b;
        struct wbuf back;
        must(store_put_blob(f->s, data, lens[i], &b, &err), &err);
        must(store_get_blob(&b, store_get_here, f->s, &back, &err), &err);
        assert_int_equal(back.len, lens[i]);
        assert_true(lens[i] == 0 || memcmp(back.data, data, lens[i]) == 0);
        wbuf_free(&back);
        store_blob_free(&b);
    }
    free(data);
}

/* --- the directory's own -------------------------------------------------------------------- */

/* What a killed process had committed is there; what it had not is no obstacle. */
static void a_killed_writer_loses_nothing_committed(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    struct seg_id id;
    char text[32];
    int report[2];

    store_close(f->s);
    f->s = NULL;
    assert_int_equal(pipe(report), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s;
        if (store_open(f->path, false, &s, NULL) != 0) {
            _exit(1);
        }
        for (int i = 0;; i++) {
            (void)snprintf(text, sizeof text, "segment %d", i);
            if (store_put(s, text, strlen(text), &id, NULL, NULL) != STORE_NEW) {
                _exit(2);
            }
            if (i % 16 == 15 && (store_commit(s, NULL) != 0 ||
                                 write(report[1], &i, sizeof i) != (ssize_t)sizeof i)) {
                _exit(3);
            }
        }
    }
    (void)close(report[1]);
    int last = -1, told = 0;
    while (told < 20 && read(report[0], &last, sizeof last) == (ssize_t)sizeof last) {
        told++;
    }
    assert_int_equal(told, 20);
    (void)kill(pid, SIGKILL);
    while (read(report[0], &last, sizeof last) == (ssize_t)sizeof last) {
    }
    (void)close(report[0]);
    int status;
    (void)waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    fixture_open(f);
    for (int i = 0; i <= last; i++) {
        (void)snprintf(text, sizeof text, "segment %d", i);
        sha256(text, strlen(text), id.sha);
        assert_text(f->s, &id, text);
    }
    for (int i = 0; i <= last + 16; i++) { /* and the same push goes on */
        (void)snprintf(text, sizeof text, "segment %d", i);
        must(store_put(f->s, text, strlen(text), &id, NULL, &err), &err);
        assert_text(f->s, &id, text);
    }
    must(store_commit(f->s, &err), &err);
}

static void the_index_is_made_again_from_the_packs(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    struct seg_id ids[50];
    char text[32], path[96];
    uint64_t found;

    for (int i = 0; i < 50; i++) {
        (void)snprintf(text, sizeof text, "segment %d", i);
        ids[i] = put_text(f->s, text, STORE_NEW);
    }
    must(store_commit(f->s, &err), &err);
    for (int way = 0; way < 2; way++) {
        store_close(f->s);
        if (way == 0) { /* by itself when it is gone */
            (void)snprintf(path, sizeof path, "%s/index.mdb", f->path);
            assert_int_equal(unlink(path), 0);
        } else {
            must(store_dir_reindex(f->path, &found, &err), &err);
            assert_int_equal(found, 50);
        }
        fixture_open(f);
        for (int i = 0; i < 50; i++) {
            (void)snprintf(text, sizeof text, "segment %d", i);
            assert_text(f->s, &ids[i], text);
        }
    }
}

static int nothing(void *ctx, const struct seg_id *id, const struct seg_form *form,
                   const char *where)
{
    (void)id;
    (void)where;
    *(uint64_t *)ctx += form->raw_len != 0;
    return 0;
}

static void count_bad(void *ctx, const char *where, const struct seg_id *id, const char *what)
{
    (void)ctx;
    (void)id;
    assert_non_null(strstr(where, "packs/"));
    assert_true(strlen(what) > 0);
    *((uint64_t *)ctx + 1) += 1;
}

/* Any bit of any pack: header, record, contents. */
static void every_flipped_bit_is_found(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    char path[96], text[4000];
    struct prng g;
    struct stat st;
    uint64_t seed = from_env("SEED", 21);

    print_message("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    for (int i = 0; i < 20; i++) {
        prng_fill(&g, text, sizeof text);
        struct seg_id id;
        must(store_put(f->s, text, 100 + (size_t)i * 50, &id, NULL, &err), &err);
    }
    must(store_commit(f->s, &err), &err);
    (void)snprintf(path, sizeof path, "%s/packs/00000001", f->path);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    for (int i = 0; i < 600; i++) {
        uint64_t counts[2] = {0, 0};
        uint8_t byte;
        /* The first bytes all, then anywhere. */
        uint64_t bit = i < 24 * 8 + 64 * 4 ? (uint64_t)i * (i < 192 ? 1 : 2)
                                           : prng_below(&g, (uint64_t)st.st_size * 8);
        assert_int_equal(pread(fd, &byte, 1, (off_t)(bit / 8)), 1);
        byte ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
        must(store_ops(f->s)->each(store_self(f->s), nothing, count_bad, counts, &err), &err);
        if (counts[1] != 1) {
            fail_msg("bit %llu: %llu faults", (unsigned long long)bit,
                     (unsigned long long)counts[1]);
        }
        byte ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
    }
    (void)close(fd);
}

/* A sweep that writes a pack again, while readers read. */
struct reader {
    struct store *s;
    const struct seg_id *ids;
    bool stop;
    unsigned failed, reads;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    char back[64], text[32];

    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        for (int i = 0; i < 100; i += 10) {
            (void)snprintf(text, sizeof text, "segment %d", i);
            r->failed += store_get(r->s, &r->ids[i], back, strlen(text), NULL) != 0 ||
                         memcmp(back, text, strlen(text)) != 0;
            r->reads++;
        }
    }
    return NULL;
}

static int keep_tenth(void *ctx, struct seg_set *live, struct plx_err *err)
{
    const struct seg_id *ids = ctx;

    (void)err;
    for (int i = 0; i < 100; i += 10) {
        assert_int_equal(seg_set_add(live, &ids[i]), 0);
    }
    return 0;
}

static void readers_go_on_while_packs_are_written_again(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    struct seg_id ids[100];
    struct seg_sweep swept;
    char text[32];
    pthread_t t;

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 100; i++) {
            (void)snprintf(text, sizeof text, "segment %d", i);
            must(store_put(f->s, text, strlen(text), &ids[i], NULL, &err), &err);
        }
        must(store_commit(f->s, &err), &err);
        fixture_reopen(f);
        struct reader r = {.s = f->s, .ids = ids};
        assert_int_equal(pthread_create(&t, NULL, read_on, &r), 0);
        must(store_ops(f->s)->sweep(store_self(f->s), keep_tenth, ids, &swept, &err), &err);
        __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
        (void)pthread_join(t, NULL);
        assert_int_equal(r.failed, 0);
        assert_int_equal(swept.live, 10);
        assert_int_equal(swept.dropped, 90);
    }
}

static void a_cache_stays_within_its_limit_and_keeps_what_is_used(void **state)
{
    struct store_fixture *f = *state;
    enum { LIMIT = 32 << 20, PIECE = 100000, PIECES = 1000 };
    static uint8_t data[PIECE], back[PIECE];
    static struct seg_id ids[PIECES];
    struct plx_err err = {{0}};
    struct seg_totals t;
    struct store *c;
    char path[96];
    struct prng g;

    (void)snprintf(path, sizeof path, "%s/cache", f->path);
    must(store_open_cache(path, LIMIT, &c, &err), &err);
    prng_seed(&g, 5);
    for (int i = 0; i < PIECES; i++) {
        prng_fill(&g, data, sizeof data);
        must(store_put(c, data, sizeof data, &ids[i], NULL, &err), &err);
        must(store_get(c, &ids[0], back, sizeof back, &err), &err); /* used all the time */
        if (i % 10 == 9) {
            must(store_commit(c, &err), &err);
            must(store_ops(c)->totals(store_self(c), &t, &err), &err);
            assert_true(t.used_bytes < LIMIT + LIMIT / 8);
        }
    }
    assert_int_equal(store_has(c, &ids[0], &err), 1);
    assert_int_equal(store_has(c, &ids[1], &err), 0);
    assert_int_equal(store_has(c, &ids[PIECES - 1], &err), 1);
    assert_true(t.segments > 100);
    store_close(c);
}

/* Sweeps and writers of other processes take a pack away that we have open, and use its number
 * again. */
static void a_pack_that_took_anothers_number_is_read(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    struct seg_sweep swept;
    struct store *other;
    struct prng g;
    uint8_t data[5000], back[sizeof data];
    char first[96], second[96];

    (void)snprintf(first, sizeof first, "%s/packs/00000001", f->path);
    (void)snprintf(second, sizeof second, "%s/packs/00000002", f->path);
    prng_seed(&g, 6);
    for (size_t len = 3000; len < sizeof data; len += 500) {
        struct seg_id id;
        prng_fill(&g, data, len);
        must(store_open(f->path, false, &other, &err), &err);
        must(store_put(other, data, len, &id, NULL, &err), &err);
        must(store_commit(other, &err), &err);
        store_close(other);
        assert_true(access(first, F_OK) == 0 && access(second, F_OK) != 0);
        must(store_get(f->s, &id, back, len, &err), &err);
        assert_memory_equal(back, data, len);
        must(store_open(f->path, false, &other, &err), &err);
        must(image_gc(other, &swept, &err), &err);
        assert_int_equal(swept.dropped, 1);
        store_close(other);
    }
}

/* Every operation on memory fails in turn: nothing else breaks, and it works again. */
static void faults_are_told(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(300000, 9);
    struct plx_err err;
    int k = 0;

    for (store_mem_fail_at(store_self(f->s), k);
         push_bytes(f, "i", "1", data, 299008, NULL, &err) != 0;
         store_mem_fail_at(store_self(f->s), ++k)) {
        assert_string_not_equal(err.msg, "");
        struct image_ref ref;
        assert_int_equal(image_find(f->s, "i", "1", &ref, &err), PLX_ENOENT);
    }
    store_mem_fail_at(store_self(f->s), -1);
    assert_true(k > 3);
    assert_image(f, "i", "1", data, 299008);
    free(data);
}

/* Each allocation of a store's first put fails in turn. */
static void lack_of_memory_is_called_so(void **state)
{
    struct store_fixture *f = *state;
    struct plx_err err = {{0}};
    struct seg_id id;
    char text[] = "text a";
    int failed = 0, rc = 0;

    for (int k = 0; k < 12; k++, text[5]++) {
        fixture_reopen(f); /* with nothing in reserve */
        plx_heap_fail_at(k);
        rc = store_put(f->s, text, strlen(text), &id, NULL, &err);
        plx_heap_fail_never();
        assert_true(rc == PLX_ENOMEM || rc == STORE_NEW);
        failed += rc == PLX_ENOMEM;
    }
    assert_int_equal(rc, STORE_NEW);
    assert_true(failed > 3);
    assert_text(f->s, &id, "text l");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(what_goes_in_comes_out),
        BOTH(what_is_not_there_is_said_so),
        BOTH(a_foreign_form_must_be_what_its_name_says),
        BOTH(names_are_set_replaced_and_removed),
        BOTH(a_sweep_keeps_what_is_marked),
        BOTH(a_sweep_that_cannot_tell_drops_nothing),
        BOTH(threads_that_put_the_same_store_it_once),
        BOTH(blobs_of_any_length),
        DIR_ONLY(a_killed_writer_loses_nothing_committed),
        DIR_ONLY(the_index_is_made_again_from_the_packs),
        DIR_ONLY(every_flipped_bit_is_found),
        DIR_ONLY(a_pack_that_took_anothers_number_is_read),
        DIR_ONLY(readers_go_on_while_packs_are_written_again),
        DIR_ONLY(lack_of_memory_is_called_so),
        DIR_ONLY(a_cache_stays_within_its_limit_and_keeps_what_is_used),
        {"faults_are_told", faults_are_told, setup_mem, fixture_teardown, NULL},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
