/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a disk over a base that is no file (vmm/dev/backend/disk_base.h) which writes the base,
 * mixes up what was written with what is below, keeps other requests waiting behind a slow read, or
 * shows an error of the base as data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "vmm/dev/backend/diskfile.h"

enum { SECTORS = 2048, SLOW_SECTOR = 1024, BAD_SECTOR = 2000 };

struct base {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool go; /* the slow part may be read */
};

/* Byte n of the base is n / 512. */
static int read_base(void *ctx, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    struct base *b = ctx;
    uint8_t *out = buf;

    if (off / 512 == BAD_SECTOR) {
        return plx_fail(err, PLX_EIO, "the base is bad here");
    }
    (void)pthread_mutex_lock(&b->lock);
    while (off / 512 == SLOW_SECTOR && !b->go) {
        (void)pthread_cond_wait(&b->cond, &b->lock);
    }
    (void)pthread_mutex_unlock(&b->lock);
    for (uint64_t i = 0; i < len; i++) {
        out[i] = (uint8_t)((off + i) / 512);
    }
    return 0;
}

static void submit(struct diskfile *d, uint64_t id, enum disk_op op, uint64_t sector,
                   const void *data)
{
    struct output o = {
        .kind = OUTPUT_DISK, .op = (uint8_t)op, .pos = sector, .arg = id, .len = 512};

    assert_int_equal(diskfile_submit(d, &o, data, NULL), 0);
}

static void a_disk_over_a_base_that_is_no_file(void **state)
{
    struct base b = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    const struct disk_base base = {.bytes = SECTORS * 512, .read = read_base, .ctx = &b};
    char overlay[] = "/tmp/pollux-test-base-XXXXXX";
    uint8_t data[512], want[512];
    struct plx_err err = {{0}};
    struct diskfile *d;

    (void)state;
    (void)close(mkstemp(overlay));
    (void)unlink(overlay);
    const struct diskfile_config cfg = {
        .path = "image", .base = &base, .overlay = overlay, .create_overlay = true};
    assert_int_equal(diskfile_open(&cfg, &d, &err), 0);
    assert_int_equal(diskfile_sectors(d), SECTORS);

    submit(d, 1, DISK_READ, SLOW_SECTOR, NULL);
    memset(data, 0xaa, sizeof data);
    submit(d, 2, DISK_WRITE, 9, data); /* goes on beside the slow read */
    submit(d, 3, DISK_READ, 9, NULL);
    submit(d, 4, DISK_READ, 10, NULL); /* of the same block, from the base */
    assert_int_equal(diskfile_result(d, 3, data, 512, &err), 0);
    memset(want, 0xaa, sizeof want);
    assert_memory_equal(data, want, 512);
    assert_int_equal(diskfile_result(d, 4, data, 512, &err), 0);
    memset(want, 10, sizeof want);
    assert_memory_equal(data, want, 512);

    (void)pthread_mutex_lock(&b.lock);
    b.go = true;
    (void)pthread_cond_broadcast(&b.cond);
    (void)pthread_mutex_unlock(&b.lock);
    assert_int_equal(diskfile_result(d, 1, data, 512, &err), 0);
    memset(want, (uint8_t)SLOW_SECTOR, sizeof want);
    assert_memory_equal(data, want, 512);

    submit(d, 5, DISK_READ, BAD_SECTOR, NULL);
    assert_int_equal(diskfile_result(d, 5, data, 512, &err), PLX_EIO);
    assert_int_equal(diskfile_error(d, &err), PLX_EIO);
    diskfile_close(d);

    /* What was written is there again. */
    const struct diskfile_config again = {.path = "image", .base = &base, .overlay = overlay};
    assert_int_equal(diskfile_open(&again, &d, &err), 0);
    submit(d, 1, DISK_READ, 9, NULL);
    assert_int_equal(diskfile_result(d, 1, data, 512, &err), 0);
    memset(want, 0xaa, sizeof want);
    assert_memory_equal(data, want, 512);
    diskfile_close(d);
    (void)unlink(overlay);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_over_a_base_that_is_no_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
