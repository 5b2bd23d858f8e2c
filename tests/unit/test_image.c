/* SPDX-License-Identifier: Apache-2.0
 * Hunts: images that come out other than they went in; pushes that, interrupted or run beside
 * others or a sweep, lose or double something; sweeps that take what is used; damage that is not
 * named; manifests from hostile hands. Over every backend. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/check.h"
#include "base/io.h"
#include "tests/unit/amount.h"
#include "tests/unit/store_fixture.h"

enum { LEN = 20 << 20 };

static void an_image_comes_out_as_it_went_in(void **state)
{
    static const enum chunk_kind kinds[] = {CHUNK_BLOCKS, CHUNK_BYTES, CHUNK_FIXED};
    static const size_t lens[] = {512, 4096, 5 << 20, LEN - 512};
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 1);
    struct plx_err err = {{0}};

    for (unsigned k = 0; k < PLX_COUNT(kinds); k++) {
        for (unsigned i = 0; i < PLX_COUNT(lens); i++) {
            struct image_push cfg = push_config("img", "x");
            struct image_progress p;
            must(chunk_params(kinds[k], 64 << 10, &cfg.chunks, &err), &err);
            struct disk *d = make_disk(f, "d", data, lens[i]);
            must(image_push(f->s, &cfg, d, NULL, &p, &err), &err);
            assert_int_equal(p.bytes, lens[i]);
            (void)disk_close(d, NULL);
            fixture_reopen(f);
            assert_image(f, "img", "x", data, lens[i]);
        }
    }
    free(data);
}

/* Images are read in small windows and cut as if a region were seen as a whole: what an older push
 * of the same contents put is found again. */
static void cuts_do_not_depend_on_what_is_read_at_once(void **state)
{
    enum { REGION = 8 << 20 };
    static const uint32_t avg[] = {16 << 10, 256 << 10};
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 9);
    struct plx_err err = {{0}};
    struct prng g;

    prng_seed(&g, 9);
    prng_fill(&g, data + REGION + 4096, REGION - 8192); /* and a long part without zeros */
    struct disk *d = make_disk(f, "d", data, LEN);
    for (unsigned k = 0; k < 2 * PLX_COUNT(avg); k++) {
        struct image_push cfg = push_config("img", "x");
        struct image_progress p;
        struct image_ref ref;
        struct manifest m;
        size_t n = 0;
        must(chunk_params(k % 2 == 0 ? CHUNK_BLOCKS : CHUNK_BYTES, avg[k / 2], &cfg.chunks, &err),
             &err);
        must(image_push(f->s, &cfg, d, &ref, &p, &err), &err);
        must(image_manifest(f->s, &ref, &m, &err), &err);
        for (size_t region = 0; region < LEN; region += REGION) {
            size_t stop = region + REGION < LEN ? region + REGION : LEN;
            for (size_t at = region; at < stop;) {
                bool zero;
                size_t end = at + chunk_run(data + at, stop - at, &zero);
                for (; !zero && at < end; n++) {
                    size_t len = chunk_next(&cfg.chunks, data + at, end - at);
                    assert_true(n < m.streams[STREAM_DISK].n);
                    assert_int_equal(m.streams[STREAM_DISK].segs[n].off, at);
                    assert_int_equal(m.streams[STREAM_DISK].segs[n].len, len);
                    at += len;
                }
                at = end;
            }
        }
        assert_int_equal(n, m.streams[STREAM_DISK].n);
        manifest_free(&m);
        image_ref_free(&ref);
    }
    (void)disk_close(d, NULL);
    free(data);
}

static void a_second_push_adds_nothing_and_a_small_change_little(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 2);
    struct image_progress p;
    struct plx_err err = {{0}};

    must(push_bytes(f, "a", "1", data, LEN, &p, &err), &err);
    assert_true(p.stored_bytes > 0);
    must(push_bytes(f, "b", "1", data, LEN, &p, &err), &err);
    assert_int_equal(p.stored_bytes, 0);
    assert_int_equal(p.shared_bytes, p.data_bytes);
    data[LEN / 2] ^= 1;
    must(push_bytes(f, "b", "2", data, LEN, &p, &err), &err);
    assert_true(p.stored_bytes <= 3 * 128 << 10);
    assert_image(f, "b", "2", data, LEN);
    data[LEN / 2] ^= 1;
    assert_image(f, "a", "1", data, LEN);
    free(data);
}

static void zeros_are_stored_as_nothing(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = calloc(1, LEN);
    struct image_progress p;
    struct plx_err err = {{0}};

    must(push_bytes(f, "zero", "1", data, LEN, &p, &err), &err);
    assert_int_equal(p.segments, 0);
    assert_int_equal(p.stored_bytes, 0);
    assert_image(f, "zero", "1", data, LEN);
    free(data);
}

static int stop_half_way(void *ctx, const struct image_progress *p)
{
    (void)ctx;
    return p->bytes > p->total / 2;
}

static void an_interrupted_push_goes_on_where_it_was(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 3);
    struct image_push cfg = push_config("i", "1");
    struct image_progress first, second;
    struct image_ref ref;
    struct plx_err err = {{0}};
    struct disk *d = make_disk(f, "d", data, LEN);

    cfg.progress = stop_half_way;
    cfg.threads = 1;
    assert_int_equal(image_push(f->s, &cfg, d, NULL, &first, &err), PLX_ECANCELED);
    assert_int_equal(image_find(f->s, "i", "1", &ref, &err), PLX_ENOENT);
    fixture_reopen(f);
    cfg.progress = NULL;
    must(image_push(f->s, &cfg, d, NULL, &second, &err), &err);
    assert_true(second.shared_bytes >= first.data_bytes);
    (void)disk_close(d, NULL);
    assert_image(f, "i", "1", data, LEN);
    free(data);
}

static int find_text(void *ctx, const char *name, const struct image_ref *ref)
{
    char *all = ctx;

    if (ref != NULL && image_matches(ref, "", "Debian", "redis")) {
        strcat(strcat(all, name), " ");
    }
    return 0;
}

static void names_tags_and_searches(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(1 << 20, 4);
    struct image_ref ref;
    struct plx_err err = {{0}};
    char all[200] = "";

    must(push_bytes(f, "web", "1", data, 1 << 20, NULL, &err), &err);
    must(image_find(f->s, "web", "1", &ref, &err), &err);
    assert_true(image_matches(&ref, "WE", NULL, "nginx"));
    assert_false(image_matches(&ref, NULL, "fedora", NULL));
    assert_false(image_matches(&ref, NULL, NULL, "ngin"));
    must(image_tag(f->s, &ref, "web", "stable", &err), &err);
    image_ref_free(&ref);
    must(image_each(f->s, find_text, all, &err), &err);
    assert_string_equal(all, "web:1 web:stable ");
    must(image_remove(f->s, "web", "1", &err), &err);
    assert_int_equal(image_remove(f->s, "web", "1", &err), PLX_ENOENT);
    fixture_reopen(f);
    assert_image(f, "web", "stable", data, 1 << 20);
    free(data);
}

static void gc_frees_what_no_image_shares(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *a = make_contents(LEN, 5), *b = make_contents(LEN, 6);
    struct seg_sweep swept;
    struct seg_totals before, after;
    struct plx_err err = {{0}};

    memcpy(b, a, LEN / 2);
    must(push_bytes(f, "a", "1", a, LEN, NULL, &err), &err);
    must(push_bytes(f, "b", "1", b, LEN, NULL, &err), &err);
    fixture_reopen(f);
    must(store_ops(f->s)->totals(store_self(f->s), &before, &err), &err);
    must(image_gc(f->s, &swept, &err), &err);
    assert_int_equal(swept.dropped, 0);
    must(image_remove(f->s, "a", "1", &err), &err);
    must(image_gc(f->s, &swept, &err), &err);
    assert_true(swept.dropped > 0);
    must(store_ops(f->s)->totals(store_self(f->s), &after, &err), &err);
    assert_true(after.used_bytes < before.used_bytes * 8 / 10);
    assert_image(f, "b", "1", b, LEN);
    fixture_reopen(f);
    assert_image(f, "b", "1", b, LEN);
    free(a);
    free(b);
}

static void a_lease_keeps_an_image_whose_name_is_gone(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(1 << 20, 7);
    struct image_lease *l;
    struct image_ref ref;
    struct manifest m;
    struct seg_sweep swept;
    struct plx_err err = {{0}};

    must(push_bytes(f, "a", "1", data, 1 << 20, NULL, &err), &err);
    fixture_reopen(f);
    must(image_lease(f->s, "a", "1", &ref, &l, &err), &err);
    must(image_remove(f->s, "a", "1", &err), &err);
    must(image_gc(f->s, &swept, &err), &err);
    assert_int_equal(swept.dropped, 0);
    must(image_manifest(f->s, &ref, &m, &err), &err);
    manifest_free(&m);
    image_lease_end(l);
    must(image_gc(f->s, &swept, &err), &err);
    assert_int_equal(swept.live, 0);
    image_ref_free(&ref);
    free(data);
}

/* Pushes, removals and sweeps all at once; at the end every image is whole. */
struct churn {
    struct store_fixture *f;
    unsigned number;
    int rc;
    struct plx_err err;
};

static void *push_and_remove(void *arg)
{
    struct churn *c = arg;

    for (unsigned round = 0; round < 6 && c->rc >= 0; round++) {
        char name[16], disk[16];
        uint8_t *data = make_contents(2 << 20, 100 + round); /* the same for all */
        struct image_push cfg;
        struct image_progress p;
        (void)snprintf(name, sizeof name, "t%u", c->number);
        (void)snprintf(disk, sizeof disk, "disk%u", c->number);
        cfg = push_config(name, round % 2 == 0 ? "even" : "odd");
        struct disk *d = make_disk(c->f, disk, data, 2 << 20);
        c->rc = image_push(c->f->s, &cfg, d, NULL, &p, &c->err);
        (void)disk_close(d, NULL);
        if (c->rc == 0 && round == 2) {
            c->rc = image_remove(c->f->s, name, "even", &c->err);
        }
        free(data);
    }
    return NULL;
}

static void *sweep_often(void *arg)
{
    struct churn *c = arg;

    for (int i = 0; i < 30 && c->rc >= 0; i++) {
        struct seg_sweep swept;
        c->rc = image_gc(c->f->s, &swept, &c->err);
        (void)usleep(2000);
    }
    return NULL;
}

static void ignore_text(void *ctx, const char *text)
{
    (void)ctx;
    print_message("%s\n", text);
}

static void sweeps_beside_pushes_take_nothing_needed(void **state)
{
    struct store_fixture *f = *state;
    struct churn c[4] = {
        {.f = f, .number = 0}, {.f = f, .number = 1}, {.f = f, .number = 2}, {.f = f}};
    pthread_t t[4];
    uint64_t faults;
    struct image_progress p;
    struct plx_err err = {{0}};

    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, i < 3 ? push_and_remove : sweep_often, &c[i]),
                         0);
    }
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(t[i], NULL);
        must(c[i].rc, &c[i].err);
    }
    must(image_verify(f->s, ignore_text, NULL, &faults, &p, &err), &err);
    assert_int_equal(faults, 0);
    for (int i = 0; i < 3; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "t%d", i);
        uint8_t *data = make_contents(2 << 20, 105);
        assert_image(f, name, "odd", data, 2 << 20);
        free(data);
        data = make_contents(2 << 20, 104);
        assert_image(f, name, "even", data, 2 << 20);
        free(data);
    }
}

static void verify_says_which_image_is_hurt(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(1 << 20, 8);
    struct image_progress p;
    struct plx_err err = {{0}};
    char path[96], cmd[200];
    uint64_t faults;

    must(push_bytes(f, "a", "1", data, 1 << 20, NULL, &err), &err);
    must(image_verify(f->s, ignore_text, NULL, &faults, &p, &err), &err);
    assert_int_equal(faults, 0);
    (void)snprintf(path, sizeof path, "%s/packs/00000001", f->path);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, 5000), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
    must(image_verify(f->s, ignore_text, NULL, &faults, &p, &err), &err);
    assert_int_equal(faults, 2); /* the segment, the image */
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
    (void)close(fd);
    (void)snprintf(cmd, sizeof cmd,
                   "printf x | dd of=%s/names/a:1 bs=1 seek=20 conv=notrunc 2>/dev/null", f->path);
    assert_int_equal(system(cmd), 0);
    must(image_verify(f->s, ignore_text, NULL, &faults, &p, &err), &err);
    assert_int_equal(faults, 1);
    struct seg_sweep swept; /* what a damaged name leads to cannot be known */
    assert_int_equal(image_gc(f->s, &swept, &err), PLX_ECORRUPT);
    free(data);
}

/* Two processes push the same image at once: every segment is in a pack once. */
static void processes_that_push_the_same_store_it_once(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 9);
    struct seg_totals one, both;
    struct plx_err err = {{0}};
    pid_t pids[3];
    char path[96];

    must(push_bytes(f, "alone", "1", data, LEN, NULL, &err), &err);
    must(store_ops(f->s)->totals(store_self(f->s), &one, &err), &err);
    store_close(f->s);
    (void)snprintf(path, sizeof path, "%s/both", f->path);
    f->s = NULL;
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct store_fixture mine = *f;
            char name[8] = {'p', (char)('0' + i), 0};
            if (store_open(path, true, &mine.s, NULL) != 0 ||
                push_bytes(&mine, name, "1", data, LEN, NULL, &err) != 0) {
                (void)fprintf(stderr, "%s\n", err.msg);
                _exit(1);
            }
            store_close(mine.s);
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        (void)waitpid(pids[i], &status, 0);
        assert_int_equal(status, 0);
    }
    must(store_open(path, false, &f->s, &err), &err);
    assert_image(f, "p0", "1", data, LEN);
    assert_image(f, "p2", "1", data, LEN);
    must(store_ops(f->s)->totals(store_self(f->s), &both, &err), &err);
    /* Besides segments there are three manifests, and a pack's header for each writer. */
    assert_true(both.segments <= one.segments + 4);
    assert_true(both.used_bytes <= one.used_bytes + 3 * 40000);
    free(data);
}

/* SIGKILL at any moment of a push: what had a name is whole, and the push can be done again. */
static void a_push_killed_at_any_point_loses_nothing(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *first = make_contents(4 << 20, 10), *second = make_contents(8 << 20, 11);
    uint64_t seed = from_env("SEED", 31), faults;
    struct image_progress p;
    struct plx_err err = {{0}};
    struct prng g;

    print_message("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    must(push_bytes(f, "first", "1", first, 4 << 20, NULL, &err), &err);
    store_close(f->s);
    f->s = NULL;
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            fixture_open(f);
            _exit(push_bytes(f, "second", "1", second, 8 << 20, NULL, &err) == 0 ? 0 : 1);
        }
        (void)usleep((useconds_t)prng_below(&g, 60000));
        (void)kill(pid, SIGKILL);
        int status;
        (void)waitpid(pid, &status, 0);
        fixture_open(f);
        must(image_verify(f->s, ignore_text, NULL, &faults, &p, &err), &err);
        assert_int_equal(faults, 0);
        store_close(f->s);
        f->s = NULL;
    }
    fixture_open(f);
    must(push_bytes(f, "second", "1", second, 8 << 20, NULL, &err), &err);
    assert_image(f, "first", "1", first, 4 << 20);
    assert_image(f, "second", "1", second, 8 << 20);
    free(first);
    free(second);
}

static void a_profile_is_kept_with_its_version(void **state)
{
    static const uint32_t order[] = {3, 0, 7};
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(1 << 20, 12);
    struct image_ref ref, stale;
    struct seg_sweep swept;
    struct plx_err err = {{0}};
    uint32_t *back;
    size_t n;

    must(push_bytes(f, "a", "1", data, 1 << 20, NULL, &err), &err);
    must(image_find(f->s, "a", "1", &stale, &err), &err);
    must(image_set_profile(f->s, &stale, order, 3, &err), &err);
    fixture_reopen(f);
    must(image_gc(f->s, &swept, &err), &err);
    must(image_find(f->s, "a", "1", &ref, &err), &err);
    must(image_profile(f->s, &ref, 100, &back, &n, &err), &err);
    assert_int_equal(n, 3);
    assert_memory_equal(back, order, sizeof order);
    free(back);
    assert_int_equal(image_profile(f->s, &ref, 7, &back, &n, &err), PLX_ECORRUPT);
    image_ref_free(&ref);
    data[0] ^= 1;
    must(push_bytes(f, "a", "1", data, 1 << 20, NULL, &err), &err);
    assert_int_equal(image_set_profile(f->s, &stale, order, 3, &err), PLX_ESTALE);
    image_ref_free(&stale);
    free(data);
}

/* Every cut and every changed byte of a manifest and a reference is refused or harmless. */
static void damaged_manifests_are_refused(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(300000, 13);
    struct image_ref ref, back_ref;
    struct manifest m, back;
    struct wbuf text, name;
    struct plx_err err = {{0}};
    unsigned refused = 0;

    must(push_bytes(f, "a", "1", data, 299520, NULL, &err), &err);
    must(image_find(f->s, "a", "1", &ref, &err), &err);
    must(image_manifest(f->s, &ref, &m, &err), &err);
    wbuf_init(&text);
    wbuf_init(&name);
    assert_int_equal(manifest_put(&m, &text), 0);
    assert_int_equal(image_ref_put(&ref, &name), 0);
    for (size_t n = 0; n < text.len; n++) {
        assert_true(manifest_get(text.data, n, &back, &err) < 0);
        assert_string_not_equal(err.msg, "");
    }
    for (size_t n = 0; n < name.len; n++) {
        assert_true(image_ref_get(name.data, n, &back_ref, &err) < 0);
    }
    for (size_t i = 0; i < text.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            text.data[i] ^= (uint8_t)(1u << bit);
            if (manifest_get(text.data, text.len, &back, &err) == 0) {
                manifest_free(&back);
            } else {
                refused++;
            }
            /* Whatever it decodes to, it is not what the reference names. */
            assert_true(image_manifest_open(&ref, text.data, text.len, &back, &err) < 0);
            text.data[i] ^= (uint8_t)(1u << bit);
        }
    }
    assert_true(refused > 100);
    wbuf_free(&text);
    wbuf_free(&name);
    manifest_free(&m);
    image_ref_free(&ref);
    free(data);
}

static void bad_names_are_refused(void **state)
{
    static const char *const bad[] = {"",    ":",     "a:",  ":1",     ".hidden",
                                      "a/b", "a:b:c", "a b", "../x:1", "a:.."};
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(bad); i++) {
        assert_int_equal(image_name_parse(bad[i], name, tag, NULL), PLX_EINVAL);
    }
    assert_int_equal(image_name_parse("debian-12_x+y.z", name, tag, NULL), 0);
    assert_string_equal(tag, "latest");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(an_image_comes_out_as_it_went_in),
        BOTH(cuts_do_not_depend_on_what_is_read_at_once),
        BOTH(a_second_push_adds_nothing_and_a_small_change_little),
        BOTH(zeros_are_stored_as_nothing),
        BOTH(an_interrupted_push_goes_on_where_it_was),
        BOTH(names_tags_and_searches),
        BOTH(gc_frees_what_no_image_shares),
        BOTH(a_lease_keeps_an_image_whose_name_is_gone),
        BOTH(sweeps_beside_pushes_take_nothing_needed),
        DIR_ONLY(verify_says_which_image_is_hurt),
        DIR_ONLY(processes_that_push_the_same_store_it_once),
        DIR_ONLY(a_push_killed_at_any_point_loses_nothing),
        BOTH(a_profile_is_kept_with_its_version),
        BOTH(damaged_manifests_are_refused),
        cmocka_unit_test(bad_names_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
