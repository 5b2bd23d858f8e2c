/* SPDX-License-Identifier: Apache-2.0
 * storage/disk.c - what all disks share (disk.h): checks of ranges, GUIDs, requests that do not
 * block. */
#include "storage/disk.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"

/* --- GUIDs ---------------------------------------------------------------------------------- */

/* Where each byte of the file stands in the text. */
static const uint8_t text_order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

const char *disk_guid_text(const struct disk_guid *g, char out[DISK_GUID_TEXT])
{
    char *p = out;

    *p++ = '{';
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }
        p += snprintf(p, 3, "%02x", g->b[text_order[i]]);
    }
    *p++ = '}';
    *p = 0;
    return out;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : -1;
}

int disk_guid_parse(const char *text, struct disk_guid *out)
{
    bool brace = text[0] == '{';
    const char *p = text + brace;
    struct disk_guid g;

    for (unsigned i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-') {
            return PLX_EINVAL;
        }
        int hi = hex(p[0]), lo = hi < 0 ? -1 : hex(p[1]);
        if (lo < 0) {
            return PLX_EINVAL;
        }
        g.b[text_order[i]] = (uint8_t)(hi << 4 | lo);
        p += 2;
    }
    if (strcmp(p, brace ? "}" : "") != 0) {
        return PLX_EINVAL;
    }
    *out = g;
    return 0;
}

struct disk_guid disk_guid_new(void)
{
    struct disk_guid g;

    host_random(g.b, sizeof g.b);
    g.b[7] = (uint8_t)((g.b[7] & 0x0f) | 0x40);
    g.b[8] = (uint8_t)((g.b[8] & 0x3f) | 0x80);
    return g;
}

bool disk_guid_eq(const struct disk_guid *a, const struct disk_guid *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

bool disk_guid_zero(const struct disk_guid *g)
{
    static const struct disk_guid zero;
    return disk_guid_eq(g, &zero);
}

/* --- blocking ------------------------------------------------------------------------------- */

static int check(const struct disk *d, const char *verb, uint64_t len, uint64_t off, bool changes,
                 struct plx_err *err)
{
    if (changes && !d->writable) {
        return plx_fail(err, PLX_EACCES, "cannot %s disk %s: it was opened read-only", verb,
                        d->path);
    }
    if (off % DISK_SECTOR != 0 || len % DISK_SECTOR != 0) {
        return plx_fail(err, PLX_EINVAL, "cannot %s disk %s: %llu bytes at %llu are not in sectors",
                        verb, d->path, (unsigned long long)len, (unsigned long long)off);
    }
    if (off > d->geo.bytes || len > d->geo.bytes - off) {
        return plx_fail(err, PLX_ERANGE,
                        "cannot %s disk %s: %llu bytes at %llu are beyond its %llu bytes", verb,
                        d->path, (unsigned long long)len, (unsigned long long)off,
                        (unsigned long long)d->geo.bytes);
    }
    return 0;
}

int disk_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    int rc = check(d, "read", len, off, false, err);
    return rc != 0 || len == 0 ? rc : d->ops->read(d, buf, len, off, err);
}

int disk_write(struct disk *d, const void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    int rc = check(d, "write", len, off, true, err);
    return rc != 0 || len == 0 ? rc : d->ops->write(d, buf, len, off, err);
}

int disk_zero(struct disk *d, uint64_t len, uint64_t off, bool discard, struct plx_err *err)
{
    int rc = check(d, "write zeros to", len, off, true, err);
    return rc != 0 || len == 0 ? rc : d->ops->zero(d, len, off, discard, err);
}

int disk_flush(struct disk *d, struct plx_err *err)
{
    return d->writable ? d->ops->flush(d, err) : 0;
}

int disk_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
             struct plx_err *err)
{
    int rc = check(d, "map", len, off, false, err);

    if (rc == 0 && len == 0) {
        rc = plx_fail(err, PLX_EINVAL, "cannot map nothing of disk %s", d->path);
    }
    return rc != 0 ? rc : d->ops->map(d, off, len, out, err);
}

int disk_identity(struct disk *d, struct disk_guid *out, struct plx_err *err)
{
    if (d->ops->identity == NULL) {
        return plx_fail(err, PLX_ENOTSUP,
                        "%s: a %s image keeps no identifier of its contents (convert it to VHDX)",
                        d->path, d->ops->format);
    }
    return d->ops->identity(d, out, err);
}

int disk_close(struct disk *d, struct plx_err *err)
{
    return d == NULL ? 0 : d->ops->close(d, err);
}

/* --- without blocking ----------------------------------------------------------------------- */

static int blocking_way(struct io_request *io, struct plx_err *err)
{
    struct disk_request *r = io->ctx;
    struct disk *d = r->disk;
    int rc = 0;

    (void)err;
    switch (r->op) {
    case DISK_OP_READ:
        return disk_read(d, r->buf, r->len, r->off, &r->err);
    case DISK_OP_WRITE:
        rc = disk_write(d, r->buf, r->len, r->off, &r->err);
        break;
    case DISK_OP_ZERO:
    case DISK_OP_DISCARD:
        rc = disk_zero(d, r->len, r->off, r->op == DISK_OP_DISCARD, &r->err);
        break;
    case DISK_OP_FLUSH:
        return disk_flush(d, &r->err);
    }
    return rc == 0 && r->fua ? disk_flush(d, &r->err) : rc;
}

static void blocking_done(struct io_request *io, int rc, const struct plx_err *err)
{
    struct disk_request *r = io->ctx;

    (void)err;
    r->rc = rc;
    r->done(r);
}

void disk_submit(struct disk *d, struct io_queue *q, struct disk_request *r)
{
    bool moves = r->op == DISK_OP_READ || r->op == DISK_OP_WRITE;

    r->disk = d;
    r->rc = 0;
    r->err.msg[0] = 0;
    if (moves && !r->fua && r->len != 0 && d->ops->submit != NULL &&
        check(d, "use", r->len, r->off, r->op == DISK_OP_WRITE, NULL) == 0 &&
        d->ops->submit(d, q, r)) {
        return;
    }
    r->io[0] = (struct io_request){
        .kind = IO_KIND_CALL, .call = blocking_way, .done = blocking_done, .ctx = r};
    io_queue_submit(q, &r->io[0]);
}
