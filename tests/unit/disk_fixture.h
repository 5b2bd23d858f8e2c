/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/disk_fixture.h - a small base image, an overlay over it, and a model of what the disk
 * must hold. For cmocka programs about disks. */
#ifndef TESTS_UNIT_DISK_FIXTURE_H
#define TESTS_UNIT_DISK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/prng.h"
#include "vmm/dev/backend/diskfile.h"

enum { SECTORS = 1001, BYTES = SECTORS * 512 }; /* the last block is a partial one */

struct fixture {
    char dir[64], base[96], overlay[96];
    uint8_t model[BYTES], original[BYTES];
    uint64_t next_id;
    uint64_t scrub_ns; /* of disks opened from now on; 0: default */
};

static inline int setup(void **state)
{
    static struct fixture f;
    struct prng g;
    memset(&f, 0, sizeof f);
    strcpy(f.dir, "/tmp/pollux-test-disk-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    (void)snprintf(f.base, sizeof f.base, "%s/base", f.dir);
    (void)snprintf(f.overlay, sizeof f.overlay, "%s/overlay", f.dir);
    prng_seed(&g, 1);
    prng_fill(&g, f.original, BYTES);
    memcpy(f.model, f.original, BYTES);
    assert_int_equal(io_write_file(f.base, f.original, BYTES, NULL), 0);
    f.next_id = 1;
    *state = &f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    (void)unlink(f->base);
    (void)unlink(f->overlay);
    return rmdir(f->dir);
}

static inline struct diskfile *open_disk(struct fixture *f, bool overlay, bool create)
{
    struct diskfile_config cfg = {.path = f->base,
                                  .overlay = overlay ? f->overlay : NULL,
                                  .create_overlay = create,
                                  .scrub_ns = f->scrub_ns};
    struct diskfile *d;
    struct plx_err err = {{0}};
    if (diskfile_open(&cfg, &d, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(diskfile_sectors(d), SECTORS);
    return d;
}

/* Submit and mirror in the model. */
static inline uint64_t submit(struct fixture *f, struct diskfile *d, enum disk_op op,
                              uint64_t sector, uint64_t sectors, const void *data)
{
    struct output o = {.kind = OUTPUT_DISK, .op = (uint8_t)op, .pos = sector, .arg = f->next_id++};
    struct plx_err err = {{0}};
    if (op == DISK_READ || op == DISK_WRITE) {
        o.len = (uint32_t)(sectors * 512);
    } else {
        o.sectors = sectors;
    }
    if (diskfile_submit(d, &o, data, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    if (op == DISK_WRITE) {
        memcpy(f->model + sector * 512, data, sectors * 512);
    } else if (op == DISK_ZERO || op == DISK_DISCARD) {
        memset(f->model + sector * 512, 0, sectors * 512);
    }
    return o.arg;
}

static inline void result(struct diskfile *d, uint64_t id, void *data, uint32_t len)
{
    struct plx_err err = {{0}};
    if (diskfile_result(d, id, data, len, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

static inline void expect_contents(struct fixture *f, struct diskfile *d, const uint8_t *want)
{
    static uint8_t got[BYTES];
    result(d, submit(f, d, DISK_READ, 0, SECTORS, NULL), got, BYTES);
    assert_memory_equal(got, want, BYTES);
}

#endif
