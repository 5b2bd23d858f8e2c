/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_raw.c - a raw image: byte n of the disk is byte n of the file. */
#include "base/alloc.h"
#include "storage/disk.h"

struct raw {
    struct disk d;
    struct io_file *f;
};

static struct io_file *file_of(struct disk *d)
{
    return ((struct raw *)d)->f;
}

static int raw_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    return io_read(file_of(d), buf, len, off, err);
}

static int raw_write(struct disk *d, const void *buf, uint64_t len, uint64_t off,
                     struct plx_err *err)
{
    return io_write(file_of(d), buf, len, off, err);
}

static int raw_zero(struct disk *d, uint64_t len, uint64_t off, bool discard, struct plx_err *err)
{
    return io_punch(file_of(d), off, len, !discard, err);
}

static int raw_flush(struct disk *d, struct plx_err *err)
{
    return io_sync(file_of(d), err);
}

static int raw_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
                   struct plx_err *err)
{
    bool data;
    uint64_t end;
    int rc = io_extent(file_of(d), off, off + len, &data, &end, err);

    if (rc != 0) {
        return rc;
    }
    if (end < off + len) { /* file systems answer in units of their own */
        end = data ? (end + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR
                   : end / DISK_SECTOR * DISK_SECTOR;
        data = data || end <= off;
        end = end <= off ? off + DISK_SECTOR : end;
    }
    *out = (struct disk_extent){.off = off,
                                .len = end - off,
                                .kind = data ? DISK_EXTENT_DATA : DISK_EXTENT_ZERO,
                                .file = data ? file_of(d) : NULL,
                                .file_off = off};
    return 0;
}

static void io_done(struct io_request *io, int rc, const struct plx_err *err)
{
    struct disk_request *r = io->ctx;

    r->rc = rc;
    if (rc != 0) {
        r->err = *err;
    }
    r->done(r);
}

static bool raw_submit(struct disk *d, struct io_queue *q, struct disk_request *r)
{
    r->io[0] = (struct io_request){.kind = r->op == DISK_OP_READ ? IO_KIND_READ : IO_KIND_WRITE,
                                   .file = file_of(d),
                                   .buf = r->buf,
                                   .len = r->len,
                                   .off = r->off,
                                   .done = io_done,
                                   .ctx = r};
    io_queue_submit(q, &r->io[0]);
    return true;
}

static int raw_close(struct disk *d, struct plx_err *err)
{
    int rc = d->writable ? io_sync(file_of(d), err) : 0;

    io_close(file_of(d));
    plx_free(d);
    return rc;
}

static const struct disk_ops raw_ops = {
    .format = "raw",
    .read = raw_read,
    .write = raw_write,
    .zero = raw_zero,
    .flush = raw_flush,
    .map = raw_map,
    .submit = raw_submit,
    .close = raw_close,
};

int disk_raw_open(struct io_file *f, struct disk **out, struct plx_err *err)
{
    uint64_t size;
    int rc = io_size(f, &size, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    if (size == 0 || size % DISK_SECTOR != 0) {
        return plx_fail(err, PLX_EINVAL,
                        "disk %s has %llu bytes: not a raw image (a multiple of 512, not empty)",
                        f->path, (unsigned long long)size);
    }
    struct raw *r = plx_calloc(1, sizeof *r);
    if (r == NULL) {
        return io_no_memory(f->path, err);
    }
    *r = (struct raw){.d = {.ops = &raw_ops,
                            .geo = {.bytes = size, .logical_sector = 512, .physical_sector = 4096},
                            .path = f->path,
                            .writable = f->writable},
                      .f = f};
    *out = &r->d;
    return 0;
}
