/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_vhdx.c - a VHDX file that was not closed, and its parent, with changes. The first
 * byte says which of the two is changed (bit 0), which checksums are made right again (bits 1 to 3:
 * headers, region tables, entries of the log) and whether it is opened for writing (bit 4); each
 * four bytes after it are a structure, an offset in it and what to XOR there. */
#include <string.h>

#include "base/check.h"
#include "storage/chain.h"
#include "storage/vhdx_int.h"
#include "tests/fuzz/fuzz.h"

enum { BYTES = 4 << 20 };

static struct io_mem *files;
static unsigned changes;

static const uint64_t structures[] = {
    0,       VHDX_HEADER_1,    VHDX_HEADER_2, VHDX_REGIONS_1,         VHDX_REGIONS_2,
    1 << 20, (1 << 20) + 4096, 2 << 20,       (2 << 20) + VHDX_TABLE, (2 << 20) + VHDX_TABLE + 4096,
    3 << 20, 4 << 20};

/* A base, and a child with a block of each kind whose last flush stands in the log. */
static void make_files(void)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = BYTES, .block = 1 << 20};
    static uint8_t data[1 << 20];
    struct io_file *f;
    struct disk *d;

    files = io_mem_new();
    PLX_CHECK(files != NULL);
    struct io_space *s = io_mem_space(files);
    memset(data, 0x5a, sizeof data);
    PLX_CHECK(io_open(s, "/base", IO_WRITE | IO_CREATE, &f, NULL) == 0);
    PLX_CHECK(vhdx_create(f, &c, NULL) == 0);
    io_close(f);
    PLX_CHECK(chain_open(s, "/base", DISK_FOR_WRITE, &d, NULL) == 0);
    PLX_CHECK(disk_write(d, data, sizeof data, 0, NULL) == 0 && disk_close(d, NULL) == 0);
    PLX_CHECK(chain_create_child(s, "/top", "/base", 1 << 20, NULL) == 0);
    io_mem_record(files);
    PLX_CHECK(chain_open(s, "/top", DISK_FOR_WRITE, &d, NULL) == 0);
    PLX_CHECK(disk_write(d, data, 512, 4096, NULL) == 0 &&
              disk_write(d, data, sizeof data, 1 << 20, NULL) == 0 &&
              disk_zero(d, 1 << 20, 2 << 20, true, NULL) == 0 && disk_flush(d, NULL) == 0 &&
              disk_write(d, data, 4096, (3 << 20) + 4096, NULL) == 0 && disk_flush(d, NULL) == 0);
    changes = io_mem_recorded(files);
    PLX_CHECK(disk_close(d, NULL) == 0);
}

static void fix(struct io_file *f, uint64_t off, uint32_t len)
{
    uint8_t *p = plx_calloc(1, len);

    PLX_CHECK(p != NULL);
    if (io_read(f, p, len, off, NULL) == 0) {
        uint32_t sum = vhdx_checksum(p, len);
        PLX_CHECK(io_write(f, &sum, sizeof sum, off + 4, NULL) == 0);
    }
    plx_free(p);
}

static void fix_checksums(struct io_file *f, uint8_t flags)
{
    if ((flags & 2) != 0) {
        fix(f, VHDX_HEADER_1, VHDX_PAGE);
        fix(f, VHDX_HEADER_2, VHDX_PAGE);
    }
    if ((flags & 4) != 0) {
        fix(f, VHDX_REGIONS_1, VHDX_TABLE);
        fix(f, VHDX_REGIONS_2, VHDX_TABLE);
    }
    for (uint64_t at = 1 << 20; (flags & 8) != 0 && at < 2 << 20; at += VHDX_PAGE) {
        uint8_t head[12];
        uint32_t len;
        PLX_CHECK(io_read(f, head, sizeof head, at, NULL) == 0);
        memcpy(&len, head + 8, 4);
        if (memcmp(head, "loge", 4) == 0 && len >= 64 && len <= (2 << 20) - at) {
            fix(f, at, len);
        }
    }
}

static void use(struct io_space *s, bool write)
{
    static uint8_t buf[65536];
    struct vhdx_report report;
    struct plx_err err = {0};
    struct disk *d;

    if (chain_open(s, "/top", write ? DISK_FOR_WRITE : 0, &d, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return;
    }
    for (unsigned i = 0; i < chain_depth(d); i++) {
        (void)vhdx_check(chain_layer(d, i), &report, NULL);
    }
    for (uint64_t off = 0; off < BYTES && off + sizeof buf <= d->geo.bytes; off += sizeof buf) {
        if (disk_read(d, buf, sizeof buf, off, &err) != 0) {
            PLX_CHECK(err.msg[0] != '\0');
        }
    }
    if (write) {
        (void)disk_write(d, buf, 512, 8192, NULL);
        (void)disk_zero(d, 4096, 0, true, NULL);
    }
    (void)disk_close(d, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prng g = {{1, 2, 3, 4}};
    struct io_file *f;
    uint64_t bytes;

    if (files == NULL) {
        make_files();
    }
    if (size == 0) {
        return 0;
    }
    struct io_mem *m = io_mem_crash(files, changes, IO_CRASH_PREFIX, &g);
    PLX_CHECK(m != NULL);
    struct io_space *s = io_mem_space(m);
    PLX_CHECK(io_open(s, (data[0] & 1) != 0 ? "/base" : "/top", IO_WRITE, &f, NULL) == 0);
    PLX_CHECK(io_size(f, &bytes, NULL) == 0);
    for (size_t i = 1; i + 4 <= size; i += 4) {
        uint64_t at = structures[data[i] % PLX_COUNT(structures)] +
                      ((uint64_t)data[i + 1] | (uint64_t)(data[i + 2] & 0x1f) << 8);
        uint8_t byte;
        if (data[i] == 0xff) { /* cut */
            (void)io_truncate(f, bytes * data[i + 1] / 256, NULL);
        } else if (io_read(f, &byte, 1, at, NULL) == 0) {
            byte ^= data[i + 3];
            PLX_CHECK(io_write(f, &byte, 1, at, NULL) == 0);
        }
    }
    PLX_CHECK(io_size(f, &bytes, NULL) == 0);
    if (bytes >= 2 << 20) {
        fix_checksums(f, data[0]);
    }
    io_close(f);
    use(s, (data[0] & 16) != 0);
    io_mem_free(m);
    return 0;
}
