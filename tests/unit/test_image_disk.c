/* SPDX-License-Identifier: Apache-2.0
 * Hunts, of images of a store as disks (storage/image_disk.h) and as bases of chains: contents that
 * are not the image's below those that the child wrote; a base that a sweep pulls away from under
 * an open disk; another version of an image that passes for the parent. SEED=n replays. */
#include "base/check.h"
#include "base/clock.h"
#include "storage/chain.h"
#include "storage/image_disk.h"
#include "tests/unit/amount.h"
#include "tests/unit/store_fixture.h"

enum { LEN = 6 << 20, BIG = 96 << 10 };

struct base {
    struct store_fixture *f;
    uint8_t *data;
    char path[128]; /* of the image */
};

static int setup(void **state)
{
    struct base *b = calloc(1, sizeof *b);
    struct plx_err err = {{0}};
    void *f;

    assert_int_equal(setup_dir(&f), 0);
    b->f = f;
    b->data = make_contents(LEN, 5);
    must(push_bytes(b->f, "base", "1", b->data, LEN, NULL, &err), &err);
    (void)snprintf(b->path, sizeof b->path, "image:%s#base:1", b->f->path);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct base *b = *state;
    void *f = b->f;

    free(b->data);
    free(b);
    return fixture_teardown(&f);
}

static void assert_contents(struct disk *d, const uint8_t *data, uint64_t len)
{
    uint8_t *got = malloc(len);
    struct plx_err err = {{0}};

    must(disk_read(d, got, len, 0, &err), &err);
    assert_memory_equal(got, data, len);
    free(got);
}

/* Random changes of a child over the image, and of one over that, against a flat copy. */
static void a_child_shows_the_image_and_its_own_writes(void **state)
{
    struct base *b = *state;
    struct io_space *s = io_mem_space(b->f->mem);
    uint64_t seed = from_env("SEED", clock_mono_ns());
    uint8_t *buf = malloc(BIG);
    struct plx_err err = {{0}};
    struct disk *d;
    struct prng g;

    print_message("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    must(chain_create_child(s, "one", b->path, 0, &err), &err);
    must(chain_open(s, "one", DISK_FOR_WRITE, &d, &err), &err);
    for (unsigned op = 0; op < 3000; op++) {
        uint64_t off = prng_below(&g, LEN / 512) * 512;
        uint64_t len = (1 + prng_below(&g, prng_below(&g, 8) == 0 ? BIG / 512 : 16)) * 512;
        len = len < LEN - off ? len : LEN - off;
        switch (prng_below(&g, 4)) {
        case 0:
            prng_fill(&g, buf, len);
            must(disk_write(d, buf, len, off, &err), &err);
            memcpy(b->data + off, buf, len);
            break;
        case 1:
            must(disk_zero(d, len, off, prng_below(&g, 2) == 0, &err), &err);
            memset(b->data + off, 0, len);
            break;
        default:
            must(disk_read(d, buf, len, off, &err), &err);
            assert_memory_equal(buf, b->data + off, len);
            break;
        }
        if (op == 1500) {
            must(disk_close(d, &err), &err);
            must(chain_create_child(s, "two", "one", 0, &err), &err);
            must(chain_open(s, "two", DISK_FOR_WRITE, &d, &err), &err);
            assert_int_equal(chain_depth(d), 2);
            assert_true(disk_is_image(chain_base(d)));
        }
    }
    assert_contents(d, b->data, LEN);
    must(disk_close(d, &err), &err);
    must(chain_commit(s, "two", NULL, &err), &err);
    must(chain_open(s, "one", 0, &d, &err), &err);
    assert_contents(d, b->data, LEN);
    must(disk_close(d, &err), &err);
    assert_int_equal(chain_commit(s, "one", NULL, &err), PLX_EINVAL);
    free(buf);
}

static void what_is_beyond_the_image_is_zeros(void **state)
{
    struct base *b = *state;
    struct io_space *s = io_mem_space(b->f->mem);
    uint8_t *big = calloc(1, LEN + (2 << 20));
    struct disk_extent e;
    struct plx_err err = {{0}};
    struct disk *d;

    must(chain_create_child(s, "one", b->path, 0, &err), &err);
    must(chain_open(s, "one", DISK_FOR_WRITE, &d, &err), &err);
    must(vhdx_resize(chain_layer(d, 0), LEN + (2 << 20), &err), &err);
    must(disk_close(d, &err), &err);
    must(chain_open(s, "one", 0, &d, &err), &err);
    assert_int_equal(d->geo.bytes, LEN + (2 << 20));
    memcpy(big, b->data, LEN);
    assert_contents(d, big, LEN + (2 << 20));
    must(disk_map(d, LEN, 2 << 20, &e, &err), &err);
    assert_int_equal(e.kind, DISK_EXTENT_ZERO);
    must(disk_close(d, &err), &err);
    free(big);
}

/* The lease keeps the image although its name goes; and the packs that are open are enough when the
 * store is gone altogether, as in a sandbox. */
static void an_open_disk_keeps_what_it_reads(void **state)
{
    struct base *b = *state;
    struct seg_sweep swept;
    struct plx_err err = {{0}};
    char cmd[160];
    struct disk *d, *again;

    must(image_disk_open(b->path, &d, &err), &err);
    must(image_remove(b->f->s, "base", "1", &err), &err);
    must(image_gc(b->f->s, &swept, &err), &err);
    assert_int_equal(swept.dropped, 0);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/packs %s/index.mdb", b->f->path, b->f->path);
    assert_int_equal(system(cmd), 0);
    assert_contents(d, b->data, LEN);
    assert_int_equal(image_disk_open(b->path, &again, &err), PLX_ENOENT);
    must(disk_close(d, &err), &err);
}

static void another_version_is_refused_by_both_identifiers(void **state)
{
    struct base *b = *state;
    struct io_space *s = io_mem_space(b->f->mem);
    char holds[DISK_GUID_TEXT], has[DISK_GUID_TEXT];
    struct disk_guid id;
    struct plx_err err = {{0}};
    struct disk *d;

    must(chain_create_child(s, "one", b->path, 0, &err), &err);
    must(chain_open(s, "one", 0, &d, &err), &err);
    must(disk_identity(chain_base(d), &id, &err), &err);
    (void)disk_guid_text(&id, holds);
    must(disk_close(d, &err), &err);

    b->data[LEN / 2] ^= 1;
    must(push_bytes(b->f, "base", "1", b->data, LEN, NULL, &err), &err);
    must(image_disk_open(b->path, &d, &err), &err);
    must(disk_identity(d, &id, &err), &err);
    (void)disk_guid_text(&id, has);
    must(disk_close(d, &err), &err);
    assert_string_not_equal(holds, has);

    assert_int_equal(chain_open(s, "one", 0, &d, &err), PLX_ESTALE);
    assert_non_null(strstr(err.msg, holds));
    assert_non_null(strstr(err.msg, has));
    assert_non_null(strstr(err.msg, "relink --force"));
    assert_int_equal(chain_relink(s, "one", NULL, false, &err), PLX_ESTALE);
    must(chain_relink(s, "one", NULL, true, &err), &err);
    must(chain_open(s, "one", 0, &d, &err), &err);
    assert_contents(d, b->data, LEN);
    must(disk_close(d, &err), &err);

    must(image_remove(b->f->s, "base", "1", &err), &err);
    assert_int_equal(chain_open(s, "one", 0, &d, &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, has));
    assert_non_null(strstr(err.msg, "disk relink"));
}

/* From the image to a VHDX, and back to another image: what the child shows stays. */
static void rebase_from_and_to_an_image(void **state)
{
    struct base *b = *state;
    struct io_space *s = io_mem_space(b->f->mem);
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = LEN};
    uint8_t *other = make_contents(LEN, 6), sector[512] = "the child's own";
    char path[128];
    struct io_file *file;
    struct plx_err err = {{0}};
    struct disk *d;

    must(push_bytes(b->f, "other", "1", other, LEN, NULL, &err), &err);
    (void)snprintf(path, sizeof path, "image:%s#other:1", b->f->path);
    must(io_open(s, "plain", IO_WRITE | IO_CREATE, &file, &err), &err);
    must(vhdx_create(file, &c, &err), &err);
    io_close(file);
    must(chain_create_child(s, "one", b->path, 0, &err), &err);
    must(chain_open(s, "one", DISK_FOR_WRITE, &d, &err), &err);
    must(disk_write(d, sector, sizeof sector, 1 << 20, &err), &err);
    must(disk_close(d, &err), &err);
    memcpy(b->data + (1 << 20), sector, sizeof sector);
    for (unsigned i = 0; i < 2; i++) {
        must(chain_rebase(s, "one", i == 0 ? "plain" : path, NULL, &err), &err);
        must(chain_open(s, "one", 0, &d, &err), &err);
        assert_contents(d, b->data, LEN);
        assert_int_equal(chain_base(d) != NULL, i == 1);
        must(disk_close(d, &err), &err);
    }
    free(other);
}

static void a_path_that_names_no_image_is_refused(void **state)
{
    static const struct {
        const char *path;
        int rc;
    } bad[] = {{"image:#base:1", PLX_EINVAL},
               {"image:/nowhere#base:1", PLX_ENOENT},
               {"image:/nowhere#../x", PLX_EINVAL},
               {"base.img", PLX_EINVAL}};
    struct base *b = *state;
    struct plx_err err = {{0}};
    struct disk *d;

    for (unsigned i = 0; i < PLX_COUNT(bad); i++) {
        assert_int_equal(image_disk_open(bad[i].path, &d, &err), bad[i].rc);
        assert_null(d);
    }
    assert_int_equal(disk_open(io_host(), b->path, NULL, DISK_FOR_WRITE, &d, &err), PLX_EACCES);
    assert_string_equal(disk_format_of(b->path), "image");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_child_shows_the_image_and_its_own_writes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_beyond_the_image_is_zeros, setup, teardown),
        cmocka_unit_test_setup_teardown(an_open_disk_keeps_what_it_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(another_version_is_refused_by_both_identifiers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rebase_from_and_to_an_image, setup, teardown),
        cmocka_unit_test_setup_teardown(a_path_that_names_no_image_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
