/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_vhdx.c - one VHDX file (storage/vhdx.h). Hunts for identifiers that are replaced
 * too early or too late, a log that is not replayed, space given out twice, sizes and states that
 * a hostile file could give, and metadata that a change loses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "storage/chain.h"
#include "storage/vhdx_int.h"

#define MIB UINT64_C(1048576)

static struct plx_err err;
static struct io_mem *mem;

static int new_space(void **state)
{
    (void)state;
    mem = io_mem_new();
    return mem == NULL;
}

static int free_space(void **state)
{
    (void)state;
    io_mem_free(mem);
    return 0;
}

static struct io_file *file(const char *name, unsigned flags)
{
    struct io_file *f;
    int rc = io_open(io_mem_space(mem), name, flags, &f, &err);
    if (rc != 0) {
        fail_msg("%s", err.msg);
    }
    return f;
}

static void create(const char *name, enum vhdx_type type, uint64_t bytes, uint32_t sector)
{
    struct vhdx_create c = {.type = type, .bytes = bytes, .block = MIB, .logical_sector = sector};
    struct io_file *f = file(name, IO_WRITE | IO_TRUNCATE);
    if (vhdx_create(f, &c, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    io_close(f);
}

static struct disk *open_disk(const char *name, unsigned flags)
{
    struct disk *d;
    if (chain_open(io_mem_space(mem), name, flags, &d, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    return d;
}

static void put(struct disk *d, uint8_t byte, uint64_t len, uint64_t off)
{
    uint8_t *buf = malloc(len);
    memset(buf, byte, len);
    if (disk_write(d, buf, len, off, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    free(buf);
}

static void expect(struct disk *d, uint8_t byte, uint64_t len, uint64_t off)
{
    uint8_t *buf = malloc(len);
    if (disk_read(d, buf, len, off, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    for (uint64_t i = 0; i < len; i++) {
        assert_int_equal(buf[i], byte);
    }
    free(buf);
}

static void each_type_keeps_what_is_written(void **state)
{
    static const uint32_t sectors[] = {512, 4096};

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        enum vhdx_type type = k / 2 == 0 ? VHDX_FIXED : VHDX_DYNAMIC;
        struct vhdx_info info;
        create("d", type, 5 * MIB + 4096, sectors[k % 2]);
        struct disk *d = open_disk("d", DISK_FOR_WRITE);
        assert_int_equal(d->geo.bytes, 5 * MIB + 4096);
        expect(d, 0, 5 * MIB + 4096, 0);
        put(d, 1, 2 * MIB, MIB / 2);
        put(d, 2, 512, 5 * MIB + 3584);
        put(d, 3, 512, 4 * MIB - 512);
        assert_int_equal(disk_zero(d, MIB, MIB, true, &err), 0);
        assert_int_equal(disk_zero(d, 4096, MIB / 2, false, &err), 0);
        assert_int_equal(disk_close(d, &err), 0);
        d = open_disk("d", 0);
        expect(d, 0, MIB / 2 + 4096, 0);
        expect(d, 1, MIB / 2 - 4096, MIB / 2 + 4096);
        expect(d, 0, MIB, MIB);
        expect(d, 1, MIB / 2, 2 * MIB);
        expect(d, 3, 512, 4 * MIB - 512);
        expect(d, 2, 512, 5 * MIB + 3584);
        vhdx_get_info(chain_layer(d, 0), &info);
        assert_int_equal(info.type, type);
        assert_int_equal(info.geo.logical_sector, sectors[k % 2]);
        assert_int_equal(info.blocks, 6);
        assert_int_equal(info.allocated, type == VHDX_FIXED ? 6 : 4);
        assert_false(info.log_active);
        assert_int_equal(disk_close(d, &err), 0);
    }
}

static struct disk_guid identity(const char *name)
{
    struct disk *d = open_disk(name, DISK_NO_PARENTS);
    struct disk_guid g;
    assert_int_equal(disk_identity(d, &g, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
    return g;
}

/* S7: replaced by the first change after an open, once; not by opening, reading, flushing. */
static void identifier_changes_with_the_first_change(void **state)
{
    (void)state;
    create("d", VHDX_DYNAMIC, 4 * MIB, 512);
    struct disk_guid first = identity("d"), g;
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    expect(d, 0, MIB, 0);
    assert_int_equal(disk_flush(d, &err), 0);
    assert_int_equal(disk_zero(d, MIB, 0, true, &err), 0); /* zeros already: no change */
    assert_int_equal(disk_close(d, &err), 0);
    g = identity("d");
    assert_true(disk_guid_eq(&g, &first));

    d = open_disk("d", DISK_FOR_WRITE);
    put(d, 1, 512, 0);
    assert_int_equal(disk_identity(d, &g, &err), 0);
    assert_false(disk_guid_eq(&g, &first));
    struct disk_guid second = g;
    put(d, 1, 512, 512);
    assert_int_equal(disk_zero(d, MIB, 0, true, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
    g = identity("d");
    assert_true(disk_guid_eq(&g, &second));

    d = open_disk("d", DISK_FOR_WRITE);
    put(d, 2, 512, 0);
    assert_int_equal(disk_close(d, &err), 0);
    g = identity("d");
    assert_false(disk_guid_eq(&g, &second));
}

/* The new identifier is durable before any byte of data is: in every crash image that holds one,
 * it has changed. */
static void identifier_is_durable_before_the_data(void **state)
{
    struct prng g;

    (void)state;
    prng_seed(&g, 7);
    create("d", VHDX_FIXED, 2 * MIB, 512);
    struct disk_guid before = identity("d"), now;
    io_mem_record(mem);
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    put(d, 0xaa, 4096, 8192);
    assert_int_equal(disk_close(d, &err), 0);
    unsigned n = io_mem_recorded(mem), changed = 0;
    struct io_mem *whole = mem;
    for (unsigned i = 0; i < 40 * n; i++) {
        uint8_t sector[512];
        mem = io_mem_crash(whole, i % (n + 1), IO_CRASH_REORDER, &g);
        d = open_disk("d", 0);
        assert_int_equal(disk_identity(d, &now, &err), 0);
        for (unsigned k = 0; k < 8; k++) {
            assert_int_equal(disk_read(d, sector, 512, 8192 + 512 * k, &err), 0);
            if (sector[0] != 0) {
                changed++;
                assert_false(disk_guid_eq(&now, &before));
            }
        }
        assert_int_equal(disk_close(d, &err), 0);
        io_mem_free(mem);
    }
    assert_true(changed > 0);
    mem = whole;
}

/* A disk that was flushed and never closed: read-only cannot replay where it may not write. */
static void a_disk_that_was_not_closed_is_replayed(void **state)
{
    struct vhdx_info info;
    struct vhdx *v;
    struct prng g;

    (void)state;
    prng_seed(&g, 1);
    create("d", VHDX_DYNAMIC, 40 * MIB, 512);
    io_mem_record(mem);
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    for (unsigned i = 0; i < 40; i++) {
        put(d, (uint8_t)(i + 1), 512, i * MIB);
        assert_int_equal(disk_flush(d, &err), 0);
    }
    unsigned n = io_mem_recorded(mem);
    assert_int_equal(disk_close(d, &err), 0);
    struct io_mem *whole = mem;
    mem = io_mem_crash(whole, n, IO_CRASH_PREFIX, &g);
    struct io_file *f = file("d", 0);
    assert_int_equal(vhdx_open(f, 0, &v, &err), PLX_ESTATE);
    assert_int_equal(vhdx_open(f, VHDX_PEEK, &v, &err), 0);
    vhdx_get_info(v, &info);
    assert_true(info.log_active);
    struct disk_guid peeked = vhdx_identity(v), g2;
    assert_int_equal(vhdx_close(v, &err), 0);
    d = open_disk("d", 0); /* replays by itself */
    for (unsigned i = 0; i < 40; i++) {
        expect(d, (uint8_t)(i + 1), 512, i * MIB);
    }
    assert_int_equal(disk_identity(d, &g2, &err), 0);
    assert_true(disk_guid_eq(&g2, &peeked)); /* contents did not change */
    assert_int_equal(disk_close(d, &err), 0);
    f = file("d", 0);
    assert_int_equal(vhdx_open(f, 0, &v, &err), 0);
    assert_int_equal(vhdx_close(v, &err), 0);
    io_mem_free(mem);
    mem = whole;
}

/* More dirty pages than an entry of the log holds. */
static void many_pages_take_many_entries(void **state)
{
    (void)state;
    create("d", VHDX_DYNAMIC, UINT64_C(200) << 30, 512);
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    for (uint64_t i = 0; i < 350; i++) {
        put(d, (uint8_t)(i % 250 + 1), 512, i * 512 * MIB);
    }
    assert_int_equal(disk_close(d, &err), 0);
    d = open_disk("d", DISK_FOR_WRITE);
    for (uint64_t i = 0; i < 350; i++) {
        expect(d, (uint8_t)(i % 250 + 1), 512, i * 512 * MIB);
        expect(d, 0, 512, i * 512 * MIB + MIB);
    }
    assert_int_equal(disk_close(d, &err), 0);
}

static void discarded_space_is_used_again(void **state)
{
    uint64_t size;

    (void)state;
    create("d", VHDX_DYNAMIC, 64 * MIB, 512);
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    for (unsigned round = 0; round < 20; round++) {
        put(d, (uint8_t)(round + 1), 4 * MIB, 4 * (round % 4) * MIB);
        assert_int_equal(disk_flush(d, &err), 0);
        assert_int_equal(disk_zero(d, 4 * MIB, 4 * (round % 4) * MIB, true, &err), 0);
        expect(d, 0, 4 * MIB, 4 * (round % 4) * MIB);
        put(d, 0x55, 512, 63 * MIB); /* into new space: the rest of the block is zeros */
        expect(d, 0, 512, 63 * MIB + 512);
        assert_int_equal(disk_zero(d, MIB, 63 * MIB, true, &err), 0);
        assert_int_equal(disk_flush(d, &err), 0);
    }
    assert_int_equal(io_size(vhdx_file(chain_layer(d, 0)), &size, &err), 0);
    assert_true(size < 20 * MIB);
    assert_int_equal(disk_close(d, &err), 0);
}

static void metadata_survives_its_changes(void **state)
{
    struct vhdx_create c = {.type = VHDX_DIFFERENCING, .bytes = 4 * MIB, .block = MIB};
    struct vhdx_parent p = {.relative = "../b\xc3\xa4se.vhdx", .absolute = "/x/b\xc3\xa4se.vhdx"};
    struct wbuf notes;
    struct vhdx *v;
    char line[200];

    (void)state;
    p.linkage = disk_guid_new();
    c.parent = &p;
    struct io_file *f = file("c", IO_WRITE | IO_CREATE);
    assert_int_equal(vhdx_create(f, &c, &err), 0);
    assert_int_equal(vhdx_open(f, VHDX_WRITE, &v, &err), 0);
    assert_string_equal(vhdx_parent(v)->relative, p.relative);
    assert_string_equal(vhdx_parent(v)->absolute, p.absolute);
    assert_memory_equal(&vhdx_parent(v)->linkage, &p.linkage, 16);
    assert_int_equal(vhdx_note(v, "first", &err), 0);
    for (unsigned i = 0; i < 400; i++) {
        (void)snprintf(line, sizeof line, "%0150u", i);
        assert_int_equal(vhdx_note(v, line, &err), 0);
    }
    p.linkage = disk_guid_new();
    memset(p.relative, 'r', 3000);
    assert_int_equal(vhdx_set_parent(v, &p, &err), 0);
    assert_int_equal(vhdx_close(v, &err), 0);

    f = file("c", 0);
    assert_int_equal(vhdx_open(f, 0, &v, &err), 0);
    assert_memory_equal(&vhdx_parent(v)->linkage, &p.linkage, 16);
    assert_string_equal(vhdx_parent(v)->relative, p.relative);
    assert_int_equal(vhdx_notes(v, &notes, &err), 0);
    assert_true(notes.len > 20000 && notes.len <= 32768);
    assert_memory_equal(notes.data + notes.len - 1 - strlen(line), line, strlen(line));
    wbuf_free(&notes);
    assert_int_equal(vhdx_close(v, &err), 0);
}

static void sizes_change(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        create("d", k == 0 ? VHDX_DYNAMIC : VHDX_FIXED, 3 * MIB + 512, 512);
        struct disk *d = open_disk("d", DISK_FOR_WRITE);
        put(d, 9, 3 * MIB + 512, 0);
        assert_int_equal(vhdx_resize(chain_layer(d, 0), 8 * MIB, &err), 0);
        assert_int_equal(disk_close(d, &err), 0);
        d = open_disk("d", DISK_FOR_WRITE);
        assert_int_equal(d->geo.bytes, 8 * MIB);
        expect(d, 9, 3 * MIB + 512, 0);
        expect(d, 0, 5 * MIB - 512, 3 * MIB + 512);
        put(d, 8, 5 * MIB - 512, 3 * MIB + 512);
        assert_int_equal(vhdx_resize(chain_layer(d, 0), MIB + 4096, &err), 0);
        assert_int_equal(disk_close(d, &err), 0);
        d = open_disk("d", DISK_FOR_WRITE);
        assert_int_equal(vhdx_resize(chain_layer(d, 0), 6 * MIB, &err), 0);
        assert_int_equal(disk_close(d, &err), 0);
        d = open_disk("d", 0);
        expect(d, 9, MIB + 4096, 0);
        expect(d, 0, 5 * MIB - 4096, MIB + 4096);
        assert_int_equal(disk_close(d, &err), 0);
    }
    /* Beyond what the block table has room for. */
    create("d", VHDX_DYNAMIC, 4 * MIB, 512);
    struct disk *d = open_disk("d", DISK_FOR_WRITE);
    put(d, 9, 4 * MIB, 0);
    assert_int_equal(vhdx_resize(chain_layer(d, 0), 300000 * MIB, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
    d = open_disk("d", DISK_FOR_WRITE);
    expect(d, 9, 4 * MIB, 0);
    put(d, 7, 4096, 299999 * MIB);
    assert_int_equal(disk_close(d, &err), 0);
    d = open_disk("d", 0);
    expect(d, 7, 4096, 299999 * MIB);
    expect(d, 0, MIB, 4 * MIB);
    assert_int_equal(vhdx_resize(chain_layer(d, 0), VHDX_BYTES_MAX + 512, &err), PLX_ERANGE);
    assert_int_equal(disk_close(d, &err), 0);
}

static void the_largest_disk_is_64_tib(void **state)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = VHDX_BYTES_MAX};

    (void)state;
    struct io_file *f = file("big", IO_WRITE | IO_CREATE);
    assert_int_equal(vhdx_create(f, &c, &err), 0);
    io_close(f);
    struct disk *d = open_disk("big", DISK_FOR_WRITE);
    put(d, 5, 4096, VHDX_BYTES_MAX - 4096);
    put(d, 6, 512, 0);
    assert_int_equal(disk_close(d, &err), 0);
    d = open_disk("big", 0);
    expect(d, 5, 4096, VHDX_BYTES_MAX - 4096);
    expect(d, 0, 4096, VHDX_BYTES_MAX - 8192);
    assert_int_equal(disk_close(d, &err), 0);
    c.bytes += 512;
    f = file("bigger", IO_WRITE | IO_CREATE);
    assert_int_equal(vhdx_create(f, &c, &err), PLX_ERANGE);
    io_close(f);
}

/* What is changed in the file at an offset, and what opening must say. */
static void malformed_files_are_refused_by_name(void **state)
{
    static const struct {
        uint64_t at;
        uint8_t bytes[8];
        unsigned len;
        int rc;
        const char *says;
    } cases[] = {
        {0, "vhdyfile", 8, PLX_ECORRUPT, "not a VHDX"},
        {3 * MIB, {0x06, 0, 0x50, 0, 0, 0, 0, 0}, 8, PLX_ECORRUPT, "beyond the end"},
        {3 * MIB, {0x06, 0, 0x20, 0, 0, 0, 0, 0}, 8, PLX_ECORRUPT, "something else"},
        {3 * MIB, {0x07, 0, 0x40, 0, 0, 0, 0, 0}, 8, PLX_ECORRUPT, "state 7"},
        {3 * MIB, {0x04, 0, 0, 0, 0, 0, 0, 0}, 8, PLX_ECORRUPT, "state 4"},
        {2 * MIB, "metadatb", 8, PLX_ECORRUPT, "metadata table"},
        {2 * MIB + 10, {0xff, 0xff}, 2, PLX_ECORRUPT, "metadata table"},
        {2 * MIB + 32 + 16, {0, 0, 0xf0, 0xff}, 4, PLX_ECORRUPT, "within its region"},
        {2 * MIB + 32, {1, 2, 3, 4}, 4, PLX_EVERSION, "do not know"},
        {2 * MIB + 65536, {0, 0, 0x18, 0}, 4, PLX_ECORRUPT, "no disk"},
        {2 * MIB + 65536 + 8, {1, 0, 0, 0, 0, 0, 0, 0}, 8, PLX_ECORRUPT, "no disk"},
        {2 * MIB + 65536 + 8, {0, 0, 0, 0, 0, 0x10, 0, 0}, 8, PLX_ECORRUPT, "no room"},
        {2 * MIB + 65536 + 4, {2, 0, 0, 0}, 4, PLX_ECORRUPT, "does not say"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct disk *d;
        create("d", VHDX_DYNAMIC, 4 * MIB, 512);
        struct io_file *f = file("d", IO_WRITE);
        assert_int_equal(io_write(f, cases[i].bytes, cases[i].len, cases[i].at, &err), 0);
        io_close(f);
        int rc = chain_open(io_mem_space(mem), "d", 0, &d, &err);
        if (rc != cases[i].rc && !(i == 12 && rc != 0)) {
            fail_msg("case %u: %d %s", i, rc, err.msg);
        }
        if (i != 12 && strstr(err.msg, cases[i].says) == NULL) {
            fail_msg("case %u says: %s", i, err.msg);
        }
        assert_non_null(strstr(err.msg, "d"));
    }
}

/* One header and one region table may be damaged; both may not. */
static void either_copy_of_the_tables_will_do(void **state)
{
    static const uint64_t at[4] = {65536, 131072, 196608, 262144};

    (void)state;
    for (unsigned mask = 0; mask < 16; mask++) {
        struct disk *d;
        create("d", VHDX_DYNAMIC, 4 * MIB, 512);
        struct io_file *f = file("d", IO_WRITE);
        for (unsigned i = 0; i < 4; i++) {
            if ((mask >> i & 1) != 0) {
                assert_int_equal(io_write(f, "garbage", 7, at[i] + 20, &err), 0);
            }
        }
        io_close(f);
        int rc = chain_open(io_mem_space(mem), "d", DISK_FOR_WRITE, &d, &err);
        if ((mask & 3) == 3 || (mask & 12) == 12) {
            assert_int_equal(rc, PLX_ECORRUPT);
            continue;
        }
        struct vhdx_report r;
        assert_int_equal(rc, 0);
        assert_int_equal(vhdx_check(chain_layer(d, 0), &r, &err), 0);
        assert_int_equal(r.warnings, (unsigned)__builtin_popcount(mask));
        assert_int_equal(disk_close(d, &err), 0);
    }
}

static void writers_exclude_each_other(void **state)
{
    struct disk *d, *e;

    (void)state;
    create("d", VHDX_DYNAMIC, 4 * MIB, 512);
    d = open_disk("d", DISK_FOR_WRITE);
    assert_int_equal(chain_open(io_mem_space(mem), "d", DISK_FOR_WRITE, &e, &err), PLX_EBUSY);
    assert_int_equal(chain_open(io_mem_space(mem), "d", 0, &e, &err), PLX_EBUSY);
    assert_int_equal(chain_open(io_mem_space(mem), "d", DISK_NO_LOCK, &e, &err), 0);
    assert_int_equal(disk_close(e, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
    d = open_disk("d", 0);
    e = open_disk("d", 0);
    assert_int_equal(disk_write(d, "", 512, 0, &err), PLX_EACCES);
    assert_int_equal(disk_close(e, &err), 0);
    assert_int_equal(disk_close(d, &err), 0);
}

/* After an I/O error no change is taken, what was durable stays, and nothing hangs or leaks. */
static void errors_of_the_host_are_final(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 40; k++) {
        struct disk *d;
        uint8_t buf[512];
        create("d", VHDX_DYNAMIC, 4 * MIB, 512);
        d = open_disk("d", DISK_FOR_WRITE);
        put(d, 1, 512, 0);
        assert_int_equal(disk_flush(d, &err), 0);
        io_mem_fail_at(mem, k);
        memset(buf, 2, sizeof buf);
        int rc = disk_write(d, buf, 512, MIB, &err);
        rc = rc != 0 ? rc : disk_write(d, buf, 512, 2 * MIB, &err);
        rc = rc != 0 ? rc : disk_flush(d, &err);
        io_mem_fail_never(mem);
        if (rc != 0) {
            assert_int_equal(rc, PLX_EIO);
        }
        (void)disk_close(d, &err);
        d = open_disk("d", 0);
        expect(d, 1, 512, 0);
        if (rc == 0) {
            expect(d, 2, 512, 2 * MIB);
        }
        assert_int_equal(disk_close(d, &err), 0);
    }
}

static void opening_unwinds_from_every_allocation_failure(void **state)
{
    struct disk *d;
    int k = 0, rc;

    (void)state;
    create("d", VHDX_DYNAMIC, 4 * MIB, 512);
    do {
        plx_heap_fail_at(k++);
        rc = chain_open(io_mem_space(mem), "d", DISK_FOR_WRITE, &d, &err);
        plx_heap_fail_never();
    } while (rc != 0 && k < 100);
    assert_true(k > 5 && k < 100);
    assert_int_equal(disk_close(d, &err), 0);
}

static void checksums_are_those_of_the_standard(void **state)
{
    (void)state;
    /* RFC 3720, "CRC Examples": 32 bytes of zeros, of ones, and ascending. */
    uint8_t b[32] = {0};
    assert_int_equal(vhdx_crc32c(b, 32, 0), 0x8a9136aa);
    memset(b, 0xff, 32);
    assert_int_equal(vhdx_crc32c(b, 32, 0), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++) {
        b[i] = (uint8_t)i;
    }
    assert_int_equal(vhdx_crc32c(b, 32, 0), 0x46dd794e);
    assert_int_equal(vhdx_crc32c(b + 5, 27, vhdx_crc32c(b, 5, 0)), 0x46dd794e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, new_space, free_space)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(checksums_are_those_of_the_standard),
        TEST(each_type_keeps_what_is_written),
        TEST(identifier_changes_with_the_first_change),
        TEST(identifier_is_durable_before_the_data),
        TEST(a_disk_that_was_not_closed_is_replayed),
        TEST(many_pages_take_many_entries),
        TEST(discarded_space_is_used_again),
        TEST(metadata_survives_its_changes),
        TEST(sizes_change),
        TEST(the_largest_disk_is_64_tib),
        TEST(malformed_files_are_refused_by_name),
        TEST(either_copy_of_the_tables_will_do),
        TEST(writers_exclude_each_other),
        TEST(errors_of_the_host_are_final),
        TEST(opening_unwinds_from_every_allocation_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
