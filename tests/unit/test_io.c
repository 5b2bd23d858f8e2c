/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_io.c - files behind the ops of storage/io.h, and raw disks over them. Hunts for
 * locks that do not exclude, requests of a queue that are lost or told twice, and crashes that
 * keep what was never written or lose what a barrier made durable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/disk.h"

static char folder[64];
static struct plx_err err;

static const char *at(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/pollux-io-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "disk"};
    for (unsigned i = 0; i < 3; i++) {
        (void)unlink(at(names[i]));
    }
    return rmdir(folder);
}

/* The same of both kinds of space. */
static void behaves(struct io_space *s, const char *path)
{
    struct io_file *f, *g;
    uint8_t buf[64];
    uint64_t size, end, id[2], id2[2];
    bool data;

    assert_int_equal(io_open(s, path, 0, &f, &err), PLX_ENOENT);
    assert_null(f);
    assert_int_equal(io_open(s, path, IO_WRITE | IO_CREATE, &f, &err), 0);
    assert_int_equal(io_open(s, path, IO_WRITE | IO_CREATE, &g, &err), PLX_EEXIST);
    assert_int_equal(io_write(f, "abc", 3, 70000, &err), 0);
    assert_int_equal(io_size(f, &size, &err), 0);
    assert_int_equal(size, 70003);
    assert_int_equal(io_read(f, buf, 4, 69999, &err), 0);
    assert_memory_equal(buf, "\0abc", 4);
    assert_int_equal(io_read(f, buf, 5, 69999, &err), PLX_ETRUNCATED);
    assert_int_equal(io_extent(f, 0, 70003, &data, &end, &err), 0);
    assert_true(data || (end > 0 && end <= 70000));
    assert_int_equal(io_punch(f, 70001, 1, false, &err), 0);
    assert_int_equal(io_read(f, buf, 3, 70000, &err), 0);
    assert_memory_equal(buf, "a\0c", 3);
    assert_int_equal(io_truncate(f, 70001, &err), 0);
    assert_int_equal(io_truncate(f, 70003, &err), 0);
    assert_int_equal(io_read(f, buf, 3, 70000, &err), 0);
    assert_memory_equal(buf, "a\0\0", 3);
    assert_int_equal(io_sync(f, &err), 0);

    assert_int_equal(io_open(s, path, 0, &g, &err), 0);
    assert_int_equal(io_identity(f, id, &err), 0);
    assert_int_equal(io_identity(g, id2, &err), 0);
    assert_memory_equal(id, id2, sizeof id);
    assert_int_not_equal(io_write(g, "x", 1, 0, &err), 0);
    assert_int_equal(io_lock(f, IO_LOCK_EXCLUSIVE, &err), 0);
    assert_int_equal(io_lock(g, IO_LOCK_SHARED, &err), PLX_EBUSY);
    assert_non_null(strstr(err.msg, "writing"));
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(io_lock(f, IO_LOCK_SHARED, &err), 0);
    assert_int_equal(io_lock(g, IO_LOCK_SHARED, &err), 0);
    assert_int_equal(io_lock(f, IO_LOCK_EXCLUSIVE, &err), PLX_EBUSY);
    io_close(g);
    assert_int_equal(io_lock(f, IO_LOCK_EXCLUSIVE, &err), 0);
    io_close(f);
    assert_int_equal(io_open(s, path, IO_WRITE | IO_TRUNCATE, &f, &err), 0);
    assert_int_equal(io_lock(f, IO_LOCK_EXCLUSIVE, &err), 0); /* the close released it */
    assert_int_equal(io_size(f, &size, &err), 0);
    assert_int_equal(size, 0);
    io_close(f);
    assert_int_equal(s->remove(s, path, &err), 0);
    assert_int_equal(s->remove(s, path, &err), PLX_ENOENT);
}

static void host_and_memory_behave_alike(void **state)
{
    struct io_mem *m = io_mem_new();

    (void)state;
    behaves(io_host(), at("a"));
    behaves(io_mem_space(m), "a");
    io_mem_free(m);
}

static unsigned told;

static void count(struct io_request *r, int rc, const struct plx_err *e)
{
    int want = *(int *)r->ctx;

    assert_int_equal(rc, want);
    assert_true(want == 0 || e->msg[0] != 0);
    told++;
}

static int busy_call(struct io_request *r, struct plx_err *e)
{
    (void)r;
    return plx_fail(e, PLX_EBUSY, "told so");
}

enum { MANY = 100 };

static void queue_tells_each_once(struct io_file *f, enum io_queue_kind kind, unsigned depth)
{
    static struct io_request r[MANY];
    static uint8_t out[MANY][600], in[MANY][600];
    int well = 0, truncated = PLX_ETRUNCATED, busy = PLX_EBUSY;
    struct io_queue *q;

    assert_int_equal(io_queue_create(kind, depth, &q, &err), 0);
    told = 0;
    for (unsigned i = 0; i < MANY; i++) {
        memset(out[i], (int)i + 1, sizeof out[i]);
        r[i] = (struct io_request){.kind = IO_KIND_WRITE,
                                   .file = f,
                                   .buf = out[i],
                                   .len = sizeof out[i],
                                   .off = i * sizeof out[i],
                                   .done = count,
                                   .ctx = &well};
        io_queue_submit(q, &r[i]);
    }
    assert_int_equal(told, 0);
    while (io_queue_pending(q) != 0) {
        assert_true(io_queue_run(q, true) > 0);
    }
    assert_int_equal(told, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        r[i].kind = i == 7 ? IO_KIND_SYNC : i == 8 ? IO_KIND_CALL : IO_KIND_READ;
        r[i].call = busy_call;
        r[i].buf = in[i];
        r[i].off += i == MANY - 1; /* one byte beyond the end */
        r[i].ctx = i == 8 ? &busy : i == MANY - 1 ? &truncated : &well;
        io_queue_submit(q, &r[i]);
    }
    io_queue_destroy(q); /* waits */
    assert_int_equal(told, 2 * MANY);
    for (unsigned i = 0; i < MANY - 1; i++) {
        assert_true(i == 7 || i == 8 || memcmp(in[i], out[i], sizeof in[i]) == 0);
    }
}

static void queues_tell_each_request_once(void **state)
{
    struct io_mem *m = io_mem_new();
    struct io_file *f, *g;

    (void)state;
    assert_int_equal(io_open(io_host(), at("b"), IO_WRITE | IO_CREATE, &f, &err), 0);
    assert_int_equal(io_open(io_mem_space(m), "b", IO_WRITE | IO_CREATE, &g, &err), 0);
    queue_tells_each_once(f, IO_QUEUE_AUTO, 8);
    queue_tells_each_once(f, IO_QUEUE_AUTO, 256);
    queue_tells_each_once(f, IO_QUEUE_THREADS, 8);
    queue_tells_each_once(g, IO_QUEUE_AUTO, 8);
    io_close(f);
    io_close(g);
    io_mem_free(m);
}

/* Sector i of a file is i + 1 twice: before a barrier and after it. */
static void crashes_keep_what_a_barrier_kept(void **state)
{
    struct io_mem *m = io_mem_new();
    unsigned kept[IO_CRASH_KINDS] = {0}, whole = 0;
    uint8_t sector[IO_SECTOR], two[2 * IO_SECTOR];
    struct io_file *f;
    struct prng g;

    (void)state;
    prng_seed(&g, 1);
    assert_int_equal(io_open(io_mem_space(m), "f", IO_WRITE | IO_CREATE, &f, &err), 0);
    io_mem_record(m);
    for (unsigned i = 0; i < 8; i++) {
        memset(sector, (int)i + 1, sizeof sector);
        assert_int_equal(io_write(f, sector, sizeof sector, i * IO_SECTOR, &err), 0);
    }
    assert_int_equal(io_sync(f, &err), 0);
    for (unsigned i = 0; i < 4; i++) {
        memset(two, (int)i + 101, sizeof two);
        assert_int_equal(io_write(f, two, sizeof two, i * sizeof two, &err), 0);
    }
    io_close(f);
    assert_int_equal(io_mem_recorded(m), 13);
    for (unsigned round = 0; round < 200; round++) {
        enum io_crash kind = (enum io_crash)(round % IO_CRASH_KINDS);
        struct io_mem *after = io_mem_crash(m, 13, kind, &g);
        unsigned changed = 0;
        assert_int_equal(io_open(io_mem_space(after), "f", 0, &f, &err), 0);
        for (unsigned i = 0; i < 8; i++) {
            assert_int_equal(io_read(f, sector, sizeof sector, i * IO_SECTOR, &err), 0);
            assert_true(sector[0] == i + 1 || sector[0] == i / 2 + 101);
            assert_int_equal(sector[0], sector[IO_SECTOR - 1]);
            changed += sector[0] > 100;
        }
        assert_true(kind != IO_CRASH_PREFIX || changed == 8);
        assert_true(kind != IO_CRASH_TORN || changed >= 6);
        kept[kind] += changed;
        whole += changed == 8;
        io_close(f);
        io_mem_free(after);
    }
    assert_true(kept[IO_CRASH_REORDER] > 0 && whole < 200); /* it does tear */
    struct io_mem *after = io_mem_crash(m, 3, IO_CRASH_PREFIX, &g);
    uint64_t size;
    assert_int_equal(io_open(io_mem_space(after), "f", 0, &f, &err), 0);
    assert_int_equal(io_size(f, &size, &err), 0);
    assert_int_equal(size, 3 * IO_SECTOR);
    io_close(f);
    io_mem_free(after);
    io_mem_free(m);
}

static void memory_fails_when_told(void **state)
{
    struct io_mem *m = io_mem_new();
    struct io_file *f;

    (void)state;
    assert_int_equal(io_open(io_mem_space(m), "f", IO_WRITE | IO_CREATE, &f, &err), 0);
    io_mem_fail_at(m, 1);
    assert_int_equal(io_write(f, "a", 1, 0, &err), 0);
    assert_int_equal(io_write(f, "b", 1, 0, &err), PLX_EIO);
    assert_int_equal(io_sync(f, &err), PLX_EIO);
    io_mem_fail_never(m);
    char c;
    assert_int_equal(io_read(f, &c, 1, 0, &err), 0);
    assert_int_equal(c, 'a');
    io_close(f);
    io_mem_free(m);
}

static void raw_disks_check_their_ranges(void **state)
{
    struct disk_extent e;
    struct disk_guid g;
    struct io_file *f;
    struct disk *d;
    uint8_t buf[1024];

    (void)state;
    assert_int_equal(io_open(io_host(), at("disk"), IO_WRITE | IO_CREATE, &f, &err), 0);
    assert_int_equal(disk_raw_open(f, &d, &err), PLX_EINVAL);
    assert_int_equal(io_truncate(f, 1 << 20, &err), 0);
    assert_int_equal(disk_raw_open(f, &d, &err), 0);
    memset(buf, 7, sizeof buf);
    assert_int_equal(disk_write(d, buf, sizeof buf, (1 << 20) - 1024, &err), 0);
    assert_int_equal(disk_write(d, buf, sizeof buf, (1 << 20) - 512, &err), PLX_ERANGE);
    assert_int_equal(disk_write(d, buf, sizeof buf, UINT64_MAX - 511, &err), PLX_ERANGE);
    assert_int_equal(disk_read(d, buf, 100, 0, &err), PLX_EINVAL);
    assert_int_equal(disk_zero(d, 512, (1 << 20) - 512, true, &err), 0);
    assert_int_equal(disk_read(d, buf, 1024, (1 << 20) - 1024, &err), 0);
    assert_int_equal(buf[511], 7);
    assert_int_equal(buf[512], 0);
    assert_int_equal(disk_map(d, 0, 1 << 20, &e, &err), 0);
    assert_int_equal(e.off, 0);
    assert_true(e.len >= 512 && e.len <= 1 << 20);
    assert_int_equal(disk_identity(d, &g, &err), PLX_ENOTSUP);
    assert_int_equal(disk_flush(d, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
}

static void guids_are_written_as_they_are_read(void **state)
{
    char text[DISK_GUID_TEXT];
    struct disk_guid g, h;

    (void)state;
    assert_int_equal(disk_guid_parse("2DC27766-F623-4200-9D64-115E9BFD4A08", &g), 0);
    assert_int_equal(g.b[0], 0x66);
    assert_int_equal(g.b[15], 0x08);
    assert_string_equal(disk_guid_text(&g, text), "{2dc27766-f623-4200-9d64-115e9bfd4a08}");
    assert_int_equal(disk_guid_parse(text, &h), 0);
    assert_true(disk_guid_eq(&g, &h));
    assert_int_equal(disk_guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a08", &h), PLX_EINVAL);
    assert_int_equal(disk_guid_parse("2dc27766-f623-4200-9d64-115e9bfd4a0", &h), PLX_EINVAL);
    assert_int_equal(disk_guid_parse("", &h), PLX_EINVAL);
    g = disk_guid_new();
    h = disk_guid_new();
    assert_false(disk_guid_eq(&g, &h) || disk_guid_zero(&g));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_and_memory_behave_alike),
        cmocka_unit_test(queues_tell_each_request_once),
        cmocka_unit_test(crashes_keep_what_a_barrier_kept),
        cmocka_unit_test(memory_fails_when_told),
        cmocka_unit_test(raw_disks_check_their_ranges),
        cmocka_unit_test(guids_are_written_as_they_are_read),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
