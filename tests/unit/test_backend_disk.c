/* SPDX-License-Identifier: Apache-2.0
 * Hunts: overlapping requests that take effect in another order than they were submitted, a base
 * that is written, an overlay that after a crash shows a block whose data never arrived, a damaged
 * or foreign overlay that is opened, host errors that vanish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/prng.h"
#include "tests/unit/amount.h"
#include "tests/unit/disk_fixture.h"
#include "vmm/dev/backend/overlay.h"

static void expect_base(struct fixture *f, const uint8_t *want)
{
    struct wbuf b;
    assert_int_equal(io_read_file(f->base, BYTES, &b, NULL), 0);
    assert_int_equal(b.len, BYTES);
    assert_memory_equal(b.data, want, BYTES);
    wbuf_free(&b);
}

/* Random requests, many in flight at once, against a model that does them one after another; each
 * read sees exactly what was submitted before it. */
static void random_requests(struct fixture *f, struct diskfile *d, uint64_t seed, unsigned n)
{
    enum { FLIGHT = 40 };
    static uint8_t expected[FLIGHT][64 * 512], got[64 * 512], data[64 * 512];
    uint64_t ids[FLIGHT] = {0};
    uint32_t lens[FLIGHT] = {0};
    struct prng g;

    prng_seed(&g, seed);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = i % FLIGHT;
        if (ids[k] != 0) {
            result(d, ids[k], lens[k] != 0 ? got : NULL, lens[k]);
            assert_memory_equal(got, expected[k], lens[k]);
        }
        static const enum disk_op ops[] = {DISK_READ,  DISK_READ,    DISK_READ,
                                           DISK_WRITE, DISK_WRITE,   DISK_WRITE,
                                           DISK_ZERO,  DISK_DISCARD, DISK_FLUSH};
        enum disk_op op = ops[prng_below(&g, 9)];
        uint64_t len = 1 + prng_below(&g, 64);
        uint64_t at = prng_below(&g, SECTORS - len + 1);
        if (op == DISK_FLUSH) {
            at = len = 0;
        }
        prng_fill(&g, data, len * 512);
        memcpy(expected[k], f->model + at * 512, len * 512);
        ids[k] = submit(f, d, op, at, len, data);
        lens[k] = op == DISK_READ ? (uint32_t)len * 512 : 0;
    }
    for (unsigned k = 0; k < FLIGHT; k++) {
        if (ids[k] != 0) {
            result(d, ids[k], NULL, 0);
        }
    }
}

static void model_test(struct fixture *f, bool overlay)
{
    uint64_t seed = from_env("SEED", (uint64_t)time(NULL));
    print_message("SEED=%llu\n", (unsigned long long)seed);
    struct diskfile *d = open_disk(f, overlay, overlay);
    random_requests(f, d, seed, 1500);
    expect_contents(f, d, f->model);
    diskfile_close(d);
    d = open_disk(f, overlay, false); /* an orderly close keeps everything */
    expect_contents(f, d, f->model);
    random_requests(f, d, seed + 1, 300);
    expect_contents(f, d, f->model);
    diskfile_close(d);
    expect_base(f, overlay ? f->original : f->model);
}

static void overlay_behaves_like_the_model(void **state)
{
    model_test(*state, true);
}

static void plain_behaves_like_the_model(void **state)
{
    model_test(*state, false);
}

static void completions_are_polled_once(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    uint64_t ids[8];
    uint8_t sector[512] = {1};
    struct pollfd p = {.fd = diskfile_fd(d), .events = POLLIN};
    unsigned n = 0;

    for (unsigned i = 0; i < 3; i++) {
        (void)submit(f, d, DISK_WRITE, i * 8, 1, sector);
    }
    result(d, 2, NULL, 0); /* taken before it was polled: not reported any more */
    while (n < 2 && poll(&p, 1, 5000) == 1) {
        n += diskfile_poll(d, ids + n, 1);
    }
    assert_int_equal(n, 2);
    assert_int_equal(ids[0] + ids[1], 4);
    assert_int_equal(diskfile_poll(d, ids, 8), 0);
    assert_int_equal(poll(&p, 1, 0), 0);
    result(d, 1, NULL, 0);
    result(d, 3, NULL, 0);
    assert_int_equal(diskfile_result(d, 3, NULL, 0, NULL), PLX_ENOENT);
    diskfile_close(d);
}

static void bad_requests_are_refused(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    static uint8_t data[1024];
    const struct output bad[] = {
        {.op = DISK_READ, .arg = 1, .pos = SECTORS, .len = 512},
        {.op = DISK_READ, .arg = 1, .pos = SECTORS - 1, .len = 1024},
        {.op = DISK_WRITE, .arg = 1, .pos = UINT64_MAX, .len = 512},
        {.op = DISK_READ, .arg = 1, .pos = 0, .len = 100},
        {.op = DISK_ZERO, .arg = 1, .pos = 1, .sectors = UINT64_MAX},
        {.op = DISK_ZERO, .arg = 1, .pos = 0, .sectors = 0},
        {.op = 77, .arg = 1, .pos = 0, .len = 512},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(diskfile_submit(d, &bad[i], data, NULL), PLX_EINVAL);
    }
    (void)submit(f, d, DISK_WRITE, 0, 1, data);
    struct output twice = {.op = DISK_WRITE, .arg = 1, .len = 512};
    assert_int_equal(diskfile_submit(d, &twice, data, NULL), PLX_EINVAL);
    diskfile_close(d);
    struct diskfile_config cfg = {.path = f->base, .readonly = true};
    assert_int_equal(diskfile_open(&cfg, &d, NULL), 0);
    assert_int_equal(diskfile_submit(d, &twice, data, NULL), PLX_EINVAL);
    diskfile_close(d);
}

enum { INTENTS = 12288, BITMAP = 16384 }; /* in the file (overlay.h) */

/* A process that dies: what was flushed is there, what was not may be missing but never half: a
 * block reads as before or as written. */
static void killed_after_flush(void **state)
{
    struct fixture *f = *state;
    uint8_t a[512], b[512];
    int status;

    memset(a, 0xaa, sizeof a);
    memset(b, 0xbb, sizeof b);
    pid_t pid = fork();
    if (pid == 0) {
        struct diskfile *d = open_disk(f, true, true);
        result(d, submit(f, d, DISK_WRITE, 9, 1, a), NULL, 0);
        result(d, submit(f, d, DISK_FLUSH, 0, 0, NULL), NULL, 0);
        result(d, submit(f, d, DISK_WRITE, 100, 1, b), NULL, 0);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    struct diskfile *d = open_disk(f, true, false);
    static uint8_t got[BYTES];
    result(d, submit(f, d, DISK_READ, 0, SECTORS, NULL), got, BYTES);
    memcpy(f->model + 9 * 512, a, 512);
    if (got[100 * 512] == 0xbb) {
        memcpy(f->model + 100 * 512, b, 512);
    }
    assert_memory_equal(got, f->model, BYTES);
    diskfile_close(d);
}

/* The order of a flush seen at the file: a power cut is a copy of the file with any suffix of the
 * unsynced writes missing. Here the worst one: data without bits, then bits only after a flush. */
static void bits_follow_data(void **state)
{
    static const uint8_t none[SHA256_LEN];
    struct fixture *f = *state;
    struct overlay *o;
    uint8_t block[OVERLAY_BLOCK], bits[8];
    int fd;

    memset(block, 0xcc, sizeof block);
    assert_int_equal(overlay_create(f->overlay, BYTES, none, NULL), 0);
    assert_int_equal(overlay_open(f->overlay, BYTES, none, &o, NULL), 0);
    fd = open(f->overlay, O_RDONLY);
    assert_int_equal(overlay_begin_write(o, 3, 1), 0);
    assert_int_equal(io_pread_full(fd, bits, sizeof bits, INTENTS), sizeof bits);
    assert_int_equal(bits[0], 1); /* in the file before the data are */
    assert_int_equal(io_pwrite_full(o->fd, block, sizeof block, overlay_offset(o, 3)), 0);
    overlay_mark(o, 3, block);
    overlay_end_write(o, 3, 1);
    assert_true(overlay_has(o, 3));
    assert_int_equal(io_pread_full(fd, bits, sizeof bits, BITMAP), sizeof bits);
    assert_int_equal(bits[0], 0); /* not in the file before the data are durable */
    assert_int_equal(overlay_flush(o), 0);
    assert_int_equal(io_pread_full(fd, bits, sizeof bits, BITMAP), sizeof bits);
    assert_int_equal(bits[0], 8);
    (void)close(fd);
    overlay_close(o);
}

static void stamps(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    struct disk_stamp s, t;

    diskfile_get_stamp(d, &s);
    assert_int_equal(s.epoch + s.last_record, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        s = (struct disk_stamp){
            .vm = {1, 2, 3}, .epoch = i, .incarnation = 7 * i, .last_record = 100 * i};
        assert_int_equal(diskfile_stamp(d, &s, NULL), 0);
    }
    diskfile_close(d);
    /* A fresh overlay has stamps 0 and 1, so the newest, 4, is in slot 0. Torn, it leaves the one
     * before. */
    int fd = open(f->overlay, O_RDWR);
    uint8_t x = 0xee;
    assert_int_equal(io_pwrite_full(fd, &x, 1, 4096 + 20), 0);
    (void)close(fd);
    d = open_disk(f, true, false);
    diskfile_get_stamp(d, &t);
    assert_int_equal(t.epoch, 2);
    assert_int_equal(t.vm[2], 3);
    assert_int_equal(t.incarnation, 14);
    diskfile_close(d);
}

/* Byte @off of the overlay changed, or the file cut there: the open fails with @rc. */
static void damage(struct fixture *f, off_t off, bool cut, int rc)
{
    struct diskfile_config cfg = {.path = f->base, .overlay = f->overlay};
    struct diskfile *d;
    struct plx_err err = {{0}};
    struct wbuf copy;

    assert_int_equal(io_read_file(f->overlay, 1 << 24, &copy, NULL), 0);
    int fd = open(f->overlay, O_RDWR);
    uint8_t x = (uint8_t)~copy.data[off];
    assert_int_equal(cut ? ftruncate(fd, off) : io_pwrite_full(fd, &x, 1, (uint64_t)off), 0);
    (void)close(fd);
    assert_int_equal(diskfile_open(&cfg, &d, &err), rc);
    assert_null(d);
    assert_non_null(strstr(err.msg, f->overlay));
    assert_int_equal(io_write_file(f->overlay, copy.data, copy.len, NULL), 0);
    wbuf_free(&copy);
}

static void damaged_and_foreign_files(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true), *e;
    struct plx_err err = {{0}};
    struct diskfile_config cfg = {.path = f->base, .overlay = f->overlay};

    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_EBUSY);
    diskfile_close(d);
    cfg.create_overlay = true;
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_EEXIST);
    damage(f, 0, false, PLX_ECORRUPT);
    damage(f, 20, false, PLX_ECORRUPT);
    damage(f, 30, false, PLX_ECORRUPT);
    damage(f, 4096 - 1 + INTENTS, false, PLX_ECORRUPT); /* regions beyond the disk */
    damage(f, BITMAP + 100, false, PLX_ECORRUPT);       /* blocks beyond it */
    damage(f, BITMAP, false, PLX_ECORRUPT);             /* blocks without a checksum */
    damage(f, 4, true, PLX_ECORRUPT);
    damage(f, INTENTS, true, PLX_ETRUNCATED);
    damage(f, BITMAP, true, PLX_ETRUNCATED);
    damage(f, 65536 + 4096, true, PLX_ETRUNCATED);
    /* Another base. */
    assert_int_equal(truncate(f->base, BYTES + 512), 0);
    cfg.create_overlay = false;
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_ESTALE);
    assert_int_equal(truncate(f->base, BYTES), 0);
    (void)unlink(f->overlay);
    cfg.create_overlay = true;
    cfg.base_sha256[0] = 1;
    assert_int_equal(diskfile_open(&cfg, &e, &err), 0);
    diskfile_close(e);
    cfg.create_overlay = false;
    cfg.base_sha256[0] = 2;
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_ESTALE);
    /* Not images at all. */
    cfg = (struct diskfile_config){.path = "/nonexistent"};
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_ENOENT);
    assert_int_equal(truncate(f->base, 1000), 0);
    cfg.path = f->base;
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_EINVAL);
    assert_int_equal(truncate(f->base, 0), 0);
    assert_int_equal(diskfile_open(&cfg, &e, &err), PLX_EINVAL);
}

/* The base shrinks under an open disk: an error, with its place, and no completion. */
static void host_errors_are_reported(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    struct plx_err err = {{0}};
    static uint8_t got[512];
    uint64_t id, ids[4];

    assert_int_equal(truncate(f->base, 512), 0);
    id = submit(f, d, DISK_READ, 500, 1, NULL);
    assert_int_equal(diskfile_drain(d, &err), PLX_EIO);
    assert_non_null(strstr(err.msg, "sector 500"));
    assert_int_equal(diskfile_poll(d, ids, 4), 0);
    assert_int_equal(diskfile_error(d, &err), PLX_EIO);
    assert_int_equal(diskfile_result(d, id, got, 512, &err), PLX_EIO);
    diskfile_close(d);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(overlay_behaves_like_the_model),
        T(plain_behaves_like_the_model),
        T(completions_are_polled_once),
        T(bad_requests_are_refused),
        T(killed_after_flush),
        T(bits_follow_data),
        T(stamps),
        T(damaged_and_foreign_files),
        T(host_errors_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
