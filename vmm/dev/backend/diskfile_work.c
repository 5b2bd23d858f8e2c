/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/diskfile_work.c - what a worker does for one request, on the image or on overlay
 * and base. No lock is held; nothing that conflicts with the request runs meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "vmm/dev/backend/diskfile_priv.h"

static int read_at(int fd, uint8_t *data, uint64_t len, uint64_t off)
{
    ssize_t n = io_pread_full(fd, data, len, off);

    if (n >= 0 && (uint64_t)n < len) {
        errno = EIO; /* the file shrank under us */
        return -1;
    }
    return n < 0 ? -1 : 0;
}

/* What a base or an image answered: 0, or -1 with errno, and the message in the log. */
static int told(const struct diskfile *d, int rc, const struct plx_err *err)
{
    if (rc != 0) {
        log_error("disk %s: %s", d->path, err->msg);
        errno = EIO;
    }
    return rc == 0 ? 0 : -1;
}

/* Of the base, or of the disk that has no overlay. */
static int read_base(struct diskfile *d, uint8_t *data, uint64_t len, uint64_t off)
{
    struct plx_err err = {{0}};

    if (d->base == NULL) {
        return read_at(d->fd, data, len, off);
    }
    return told(d, d->base->read(d->base->ctx, data, len, off, &err), &err);
}

/* The length from @off to where the overlay's answer for blocks changes, or to @end. */
static uint64_t run_of(struct overlay *o, uint64_t off, uint64_t end, bool *has)
{
    uint64_t at = off - off % OVERLAY_BLOCK + OVERLAY_BLOCK;

    *has = overlay_has(o, off / OVERLAY_BLOCK);
    while (at < end && overlay_has(o, at / OVERLAY_BLOCK) == *has) {
        at += OVERLAY_BLOCK;
    }
    return (at < end ? at : end) - off;
}

/* Blocks that were just read from the overlay: are they what was written? */
static int verify(struct diskfile *d, struct request *r, uint64_t block, const uint8_t *data,
                  uint64_t blocks)
{
    for (uint64_t i = 0; i < blocks; i++) {
        if (!overlay_verify(d->overlay, block + i, data + i * OVERLAY_BLOCK)) {
            r->damaged = true;
            r->block = block + i;
            errno = EIO;
            return -1;
        }
    }
    return 0;
}

/* Whole blocks from the overlay, which has them. */
static int read_blocks(struct diskfile *d, struct request *r, uint8_t *data, uint64_t block,
                       uint64_t blocks)
{
    struct overlay *o = d->overlay;

    return read_at(o->fd, data, blocks * OVERLAY_BLOCK, overlay_offset(o, block)) != 0
               ? -1
               : verify(d, r, block, data, blocks);
}

/* From the overlay, which has all of it: whole blocks, so that they can be verified. */
static int read_overlay(struct diskfile *d, struct request *r, uint8_t *data, uint64_t off,
                        uint64_t len)
{
    while (len > 0) {
        uint64_t block = off / OVERLAY_BLOCK, in = off % OVERLAY_BLOCK, n;

        if (in == 0 && len >= OVERLAY_BLOCK) {
            n = len - len % OVERLAY_BLOCK;
            if (read_blocks(d, r, data, block, n / OVERLAY_BLOCK) != 0) {
                return -1;
            }
        } else {
            uint8_t whole[OVERLAY_BLOCK];
            n = OVERLAY_BLOCK - in < len ? OVERLAY_BLOCK - in : len;
            if (read_blocks(d, r, whole, block, 1) != 0) {
                return -1;
            }
            memcpy(data, whole + in, n);
        }
        data += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int do_read(struct diskfile *d, struct request *r, uint8_t *data, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;
    int rc = 0;

    if (d->overlay == NULL) {
        return read_base(d, data, len, off);
    }
    while (off < end && rc == 0) {
        bool has;
        uint64_t part = run_of(d->overlay, off, end, &has);
        rc = has ? read_overlay(d, r, data, off, part) : read_base(d, data, part, off);
        data += part;
        off += part;
    }
    return rc;
}

/* Change part of one block: @data, or zeros when NULL. */
static int write_part(struct diskfile *d, struct request *r, const uint8_t *data, uint64_t off,
                      uint64_t len)
{
    uint64_t block = off / OVERLAY_BLOCK;
    uint64_t start = block * OVERLAY_BLOCK;
    uint8_t buf[OVERLAY_BLOCK] = {0};
    uint64_t have = d->bytes - start < OVERLAY_BLOCK ? d->bytes - start : OVERLAY_BLOCK;

    if (do_read(d, r, buf, start, have) != 0) {
        return -1;
    }
    if (data != NULL) {
        memcpy(buf + (off - start), data, len);
    } else {
        memset(buf + (off - start), 0, len);
    }
    if (io_pwrite_full(d->overlay->fd, buf, sizeof buf, overlay_offset(d->overlay, block)) != 0) {
        return -1;
    }
    overlay_mark(d->overlay, block, buf);
    return 0;
}

static int write_zeros(int fd, uint64_t off, uint64_t len)
{
    static const uint8_t zeros[65536];

    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0) {
        return 0;
    }
    while (len > 0) {
        uint64_t part = len < sizeof zeros ? len : sizeof zeros;
        if (io_pwrite_full(fd, zeros, part, off) != 0) {
            return -1;
        }
        off += part;
        len -= part;
    }
    return 0;
}

static int write_overlay(struct diskfile *d, struct request *r, const uint8_t *data, uint64_t off,
                         uint64_t len)
{
    static const uint8_t zeros[OVERLAY_BLOCK];
    uint64_t end = off + len;

    while (off < end) {
        uint64_t block = off / OVERLAY_BLOCK;
        uint64_t part = (block + 1) * OVERLAY_BLOCK - off;
        int rc;
        if (off % OVERLAY_BLOCK != 0 || end - off < OVERLAY_BLOCK) {
            part = part < end - off ? part : end - off;
            rc = write_part(d, r, data, off, part);
        } else {
            uint64_t at = d->overlay->data_off + off;
            part = (end - off) / OVERLAY_BLOCK * OVERLAY_BLOCK;
            rc = data != NULL ? io_pwrite_full(d->overlay->fd, data, part, at)
                              : write_zeros(d->overlay->fd, at, part);
            for (uint64_t i = 0; rc == 0 && i < part / OVERLAY_BLOCK; i++) {
                overlay_mark(d->overlay, block + i,
                             data != NULL ? data + i * OVERLAY_BLOCK : zeros);
            }
        }
        if (rc != 0) {
            return -1;
        }
        off += part;
        data = data != NULL ? data + part : NULL;
    }
    return 0;
}

/* Write @data, or zeros when it is NULL. */
static int do_write(struct diskfile *d, struct request *r, const uint8_t *data)
{
    uint64_t off = r->off, len = r->bytes, first = off / OVERLAY_BLOCK;
    uint64_t blocks = (off + len - 1) / OVERLAY_BLOCK - first + 1;
    int rc;

    if (d->overlay == NULL && d->base != NULL) {
        struct plx_err err = {{0}};
        return told(d,
                    data != NULL ? d->image.write(d->base->ctx, data, len, off, &err)
                                 : d->image.zero(d->base->ctx, len, off, &err),
                    &err);
    }
    if (d->overlay == NULL) {
        return data != NULL ? io_pwrite_full(d->fd, data, len, off) : write_zeros(d->fd, off, len);
    }
    if (overlay_begin_write(d->overlay, first, blocks) != 0) {
        return -1;
    }
    rc = write_overlay(d, r, data, off, len);
    overlay_end_write(d->overlay, first, blocks);
    return rc;
}

static int do_flush(struct diskfile *d)
{
    if (d->readonly) {
        return 0;
    }
    if (d->overlay != NULL) {
        return overlay_flush(d->overlay);
    }
    if (d->base != NULL) {
        struct plx_err err = {{0}};
        return told(d, d->image.flush(d->base->ctx, &err), &err);
    }
    return fdatasync(d->fd);
}

/* Read and verify what the overlay has of a range. */
static int do_scrub(struct diskfile *d, struct request *r)
{
    struct overlay *o = d->overlay;
    uint64_t end = (r->off + r->bytes) / OVERLAY_BLOCK;
    uint64_t block = overlay_next(o, r->off / OVERLAY_BLOCK), n;

    for (; block < end; block = overlay_next(o, block + n)) {
        for (n = 1;
             n < SCRUB_BUF / OVERLAY_BLOCK && block + n < end && overlay_has(o, block + n);) {
            n++;
        }
        if (read_at(o->fd, d->scrub.buf, n * OVERLAY_BLOCK, overlay_offset(o, block)) != 0) {
            r->block = block;
            return -1;
        }
        if (verify(d, r, block, d->scrub.buf, n) != 0) {
            return -1;
        }
    }
    return 0;
}

int disk_carry_out(struct diskfile *d, struct request *r)
{
    if (r == &d->scrub.r) {
        return r->bytes != 0 ? do_scrub(d, r) : overlay_settle(d->overlay, false);
    }
    switch (r->op) {
    case DISK_READ:
        return do_read(d, r, r->data, r->off, r->bytes);
    case DISK_WRITE:
        return do_write(d, r, r->data);
    case DISK_DISCARD:
    case DISK_ZERO:
        return do_write(d, r, NULL);
    case DISK_FLUSH:
        return do_flush(d);
    }
    errno = EINVAL;
    return -1;
}
