/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/store_fixture.h - a store over each backend, and images to put there. */
#ifndef TESTS_UNIT_STORE_FIXTURE_H
#define TESTS_UNIT_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prng.h"
#include "storage/image.h"
#include "storage/io.h"

struct store_fixture {
    bool dir;
    char path[64];
    struct store *s;
    struct io_mem *mem; /* where disks are */
};

static inline void must(int rc, const struct plx_err *err)
{
    if (rc < 0) {
        fail_msg("%s", err->msg);
    }
}

static inline void fixture_open(struct store_fixture *f)
{
    struct plx_err err = {{0}};

    must(f->dir ? store_open(f->path, true, &f->s, &err) : store_open_memory(&f->s, &err), &err);
}

/* What is not committed is gone. In memory there is no again. */
static inline void fixture_reopen(struct store_fixture *f)
{
    if (f->dir) {
        store_close(f->s);
        fixture_open(f);
    }
}

static inline int fixture_setup(void **state, bool dir)
{
    struct store_fixture *f = calloc(1, sizeof *f);

    f->dir = dir;
    strcpy(f->path, "/tmp/pollux-test-store-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->mem = io_mem_new();
    assert_non_null(f->mem);
    fixture_open(f);
    *state = f;
    return 0;
}

static inline int setup_dir(void **state)
{
    return fixture_setup(state, true);
}

static inline int setup_mem(void **state)
{
    return fixture_setup(state, false);
}

static inline int fixture_teardown(void **state)
{
    struct store_fixture *f = *state;
    char cmd[128];

    store_close(f->s);
    io_mem_free(f->mem);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", f->path);
    int rc = system(cmd);
    free(f);
    return rc;
}

/* A test over both backends. */
#define BOTH(test)                                                   \
    {#test " (directory)", test, setup_dir, fixture_teardown, NULL}, \
    {                                                                \
#test " (memory)", test, setup_mem, fixture_teardown, NULL   \
    }
#define DIR_ONLY(test)                                 \
    {                                                  \
#test, test, setup_dir, fixture_teardown, NULL \
    }

/* A disk in memory with these contents; disk_close it. */
static inline struct disk *make_disk(struct store_fixture *f, const char *name, const void *data,
                                     size_t len)
{
    struct plx_err err = {{0}};
    struct io_file *file;
    struct disk *d;

    must(io_open(io_mem_space(f->mem), name, IO_WRITE | IO_TRUNCATE, &file, &err), &err);
    must(io_write(file, data, len, 0, &err), &err);
    must(disk_raw_open(file, &d, &err), &err);
    return d;
}

/* Half noise, half text that compresses, with zero runs between. */
static inline uint8_t *make_contents(size_t len, uint64_t seed)
{
    uint8_t *p = calloc(1, len);
    struct prng g;

    prng_seed(&g, seed);
    for (size_t at = 0; at < len;) {
        size_t run = (1 + (size_t)prng_below(&g, 60)) * 4096;
        run = run < len - at ? run : len - at;
        switch (prng_below(&g, 3)) {
        case 0:
            prng_fill(&g, p + at, run);
            break;
        case 1:
            for (size_t i = 0; i < run; i++) {
                p[at + i] =
                    (uint8_t)("some words of text "[i % 19]) ^ (uint8_t)((i / 997 + seed) % 3);
            }
            break;
        default:
            break;
        }
        at += run;
    }
    return p;
}

static inline struct image_push push_config(const char *name, const char *tag)
{
    struct image_push cfg = {
        .name = name, .tag = tag, .os = "debian", .app = "nginx,redis", .threads = 2, .now_ns = 7};

    assert_int_equal(chunk_params(CHUNK_BLOCKS, 32 << 10, &cfg.chunks, NULL), 0);
    return cfg;
}

static inline int push_bytes(struct store_fixture *f, const char *name, const char *tag,
                             const void *data, size_t len, struct image_progress *totals,
                             struct plx_err *err)
{
    struct image_push cfg = push_config(name, tag);
    struct disk *d = make_disk(f, name, data, len);
    struct image_progress own;
    int rc = image_push(f->s, &cfg, d, NULL, totals != NULL ? totals : &own, err);

    assert_int_equal(disk_close(d, NULL), 0);
    return rc;
}

/* The image's disk is exactly these bytes. */
static inline void assert_image(struct store_fixture *f, const char *name, const char *tag,
                                const uint8_t *data, size_t len)
{
    struct plx_err err = {{0}};
    struct image_ref ref;
    struct manifest m;
    char path[96];
    uint8_t *back = calloc(1, len);

    (void)snprintf(path, sizeof path, "%s/export", f->path);
    FILE *file = fopen(path, "w+");
    assert_non_null(file);
    must(image_find(f->s, name, tag, &ref, &err), &err);
    must(image_manifest(f->s, &ref, &m, &err), &err);
    must(image_export(f->s, &m.streams[STREAM_DISK], fileno(file), 2, NULL, NULL, &err), &err);
    assert_int_equal(fread(back, 1, len, file), len);
    assert_memory_equal(back, data, len);
    (void)fclose(file);
    (void)unlink(path);
    manifest_free(&m);
    image_ref_free(&ref);
    free(back);
}

#endif
