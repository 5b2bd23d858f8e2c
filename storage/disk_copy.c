/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_copy.c - the contents of one disk into another, zeros left out (chain.h). */
#include <string.h>

#include "base/alloc.h"
#include "storage/chain.h"

enum { COPY_BYTES = 1 << 20 };

static bool all_zero(const uint8_t *p, uint64_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Of the runs of @buf, 4 KiB at a time, those that are not zeros. */
static int write_sparse(struct disk *to, const uint8_t *buf, uint64_t len, uint64_t off,
                        struct plx_err *err)
{
    enum { UNIT = 4096 };
    int rc = 0;

    for (uint64_t at = 0; at < len && rc == 0;) {
        uint64_t n = 0, unit = UNIT < len - at ? UNIT : len - at;
        bool zero = all_zero(buf + at, unit);
        do {
            n += unit;
            unit = UNIT < len - at - n ? UNIT : len - at - n;
        } while (unit > 0 && all_zero(buf + at + n, unit) == zero);
        rc = zero ? 0 : disk_write(to, buf + at, n, off + at, err);
        at += n;
    }
    return rc;
}

int disk_copy(struct disk *from, struct disk *to, const struct disk_progress *p,
              struct plx_err *err)
{
    uint8_t *buf = plx_calloc(1, COPY_BYTES);
    uint64_t total = from->geo.bytes;
    int rc = 0;

    if (buf == NULL) {
        return io_no_memory(from->path, err);
    }
    for (uint64_t off = 0; off < total && rc == 0;) {
        struct disk_extent e;
        rc = disk_map(from, off, total - off, &e, err);
        if (rc == 0 && e.kind == DISK_EXTENT_DATA) {
            e.len = e.len < COPY_BYTES ? e.len : COPY_BYTES;
            rc = disk_read(from, buf, e.len, off, err);
            if (rc == 0) {
                rc = write_sparse(to, buf, e.len, off, err);
            }
        }
        off += e.len;
        if (rc == 0 && p != NULL && !p->tell(p->ctx, off, total)) {
            rc = plx_fail(err, PLX_ECANCELED, "%s: copying was ended", from->path);
        }
    }
    plx_free(buf);
    return rc == 0 ? disk_flush(to, err) : rc;
}
