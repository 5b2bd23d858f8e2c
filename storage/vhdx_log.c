/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_log.c - headers, and the log (MS-VHDX, "Log"): a ring of entries, each of which
 * says what some 4 KiB pages of metadata are to hold.
 *
 * One entry is enough to go on from: when one is written, everything that earlier entries said is
 * durable in place (vhdx_flush synced the file first), so its tail is itself. It is at most half
 * of the ring, so that writing it never touches the entry before it, which a torn write leaves as
 * the newest. The header names the log only once its first entry is durable. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/vhdx_int.h"

enum { ENTRY_HEADER = 64, DESCRIPTOR = 32, HELD_FIRST = 8, HELD_LAST = 4 };

struct entry_header { /* as in the file */
    char signature[4];
    uint32_t checksum, length, tail;
    uint64_t seq;
    uint32_t descriptors, reserved;
    struct disk_guid log;
    uint64_t flushed, last;
};
_Static_assert(sizeof(struct entry_header) == ENTRY_HEADER, "as in the file");

struct descriptor { /* "desc": of a page; "zero": of a range */
    char signature[4];
    uint8_t held_last[HELD_LAST];   /* desc: the page's last bytes */
    uint8_t held_first[HELD_FIRST]; /* desc: its first; zero: u64 length */
    uint64_t off, seq;
};
_Static_assert(sizeof(struct descriptor) == DESCRIPTOR, "as in the file");

/* --- headers -------------------------------------------------------------------------------- */

int vhdx_header_write(struct vhdx *v, struct plx_err *err)
{
    uint8_t page[VHDX_PAGE];
    struct vhdx_header h = v->h;
    unsigned slot = v->slot ^ 1;

    h.seq++;
    if (!v->file_touched) {
        h.file_write = disk_guid_new();
    }
    vhdx_header_encode(&h, page);
    int rc = io_write(v->f, page, sizeof page, slot == 0 ? VHDX_HEADER_1 : VHDX_HEADER_2, err);
    if (rc == 0) {
        rc = io_sync(v->f, err);
    }
    if (rc != 0) {
        return vhdx_lost(v, rc);
    }
    v->h = h;
    v->slot = slot;
    v->file_touched = true;
    return 0;
}

int vhdx_touch(struct vhdx *v, struct plx_err *err)
{
    int rc = 0;

    if (PLX_LIKELY(atomic_load_explicit(&v->touched, memory_order_acquire))) {
        return 0;
    }
    (void)pthread_mutex_lock(&v->head_lock);
    if (!atomic_load(&v->touched)) {
        struct disk_guid before = v->h.data_write;
        v->h.data_write = disk_guid_new();
        rc = vhdx_header_write(v, err);
        if (rc == 0) {
            atomic_store_explicit(&v->touched, true, memory_order_release);
        } else {
            v->h.data_write = before;
        }
    }
    (void)pthread_mutex_unlock(&v->head_lock);
    return rc;
}

int vhdx_lost(struct vhdx *v, int rc)
{
    atomic_store(&v->failed, true);
    return rc;
}

/* --- writing -------------------------------------------------------------------------------- */

static uint64_t descriptor_pages(uint64_t n)
{
    return (ENTRY_HEADER + DESCRIPTOR * n + VHDX_PAGE - 1) / VHDX_PAGE;
}

/* Patches that fit into one entry. */
static unsigned entry_room(uint64_t log_length)
{
    uint64_t pages = log_length / VHDX_PAGE / 2;
    uint64_t n = pages;

    while (n + descriptor_pages(n) > pages) {
        n--;
    }
    return (unsigned)n;
}

/* @out: zeroed, descriptor_pages(n) + n pages. */
static void encode_entry(const struct entry_header *h, const struct vhdx_patch *p, unsigned n,
                         uint8_t *out)
{
    uint8_t *page = out + descriptor_pages(n) * VHDX_PAGE;
    uint32_t high = (uint32_t)(h->seq >> 32), low = (uint32_t)h->seq;

    memcpy(out, h, sizeof *h);
    for (unsigned i = 0; i < n; i++, page += VHDX_PAGE) {
        struct descriptor d = {.signature = {'d', 'e', 's', 'c'}, .off = p[i].off, .seq = h->seq};
        memcpy(d.held_first, p[i].data, HELD_FIRST);
        memcpy(d.held_last, p[i].data + VHDX_PAGE - HELD_LAST, HELD_LAST);
        memcpy(out + ENTRY_HEADER + DESCRIPTOR * i, &d, sizeof d);
        memcpy(page, p[i].data, VHDX_PAGE);
        memcpy(page, "data", 4);
        memcpy(page + 4, &high, 4);
        memcpy(page + VHDX_PAGE - HELD_LAST, &low, 4);
    }
    uint32_t checksum = vhdx_checksum(out, h->length);
    memcpy(out + 4, &checksum, 4);
}

/* Into the ring at log_head, wrapping. */
static int ring_write(struct vhdx *v, const uint8_t *data, uint32_t len, struct plx_err *err)
{
    uint64_t to_end = v->h.log_length - v->log_head;
    uint64_t first = len < to_end ? len : to_end;
    int rc = io_write(v->f, data, first, v->h.log_offset + v->log_head, err);

    if (rc == 0 && first < len) {
        rc = io_write(v->f, data + first, len - first, v->h.log_offset, err);
    }
    return rc;
}

static int commit_entry(struct vhdx *v, const struct vhdx_patch *p, unsigned n, uint64_t flushed,
                        struct disk_guid log, struct plx_err *err)
{
    uint32_t len = (uint32_t)((descriptor_pages(n) + n) * VHDX_PAGE);
    uint64_t size;
    int rc = io_size(v->f, &size, err);
    struct entry_header h = {.signature = {'l', 'o', 'g', 'e'},
                             .length = len,
                             .tail = (uint32_t)v->log_head,
                             .seq = v->log_seq + 1,
                             .descriptors = n,
                             .log = log,
                             .flushed = flushed / VHDX_MIB * VHDX_MIB,
                             .last = (size + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB};
    uint8_t *entry = plx_calloc(1, len);

    if (entry == NULL) {
        return io_no_memory(v->f->path, err);
    }
    if (rc == 0) {
        encode_entry(&h, p, n, entry);
        rc = ring_write(v, entry, len, err);
    }
    plx_free(entry);
    if (rc == 0) {
        rc = io_sync(v->f, err);
    }
    if (rc != 0) {
        return rc;
    }
    v->log_seq++;
    v->log_head = (v->log_head + len) % v->h.log_length;
    (void)pthread_mutex_lock(&v->head_lock);
    if (!disk_guid_eq(&v->h.log, &log)) {
        struct disk_guid before = v->h.log;
        v->h.log = log;
        rc = vhdx_header_write(v, err);
        if (rc != 0) {
            v->h.log = before;
        }
    }
    (void)pthread_mutex_unlock(&v->head_lock);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        rc = io_write(v->f, p[i].data, VHDX_PAGE, p[i].off, err);
    }
    return rc;
}

int vhdx_log_commit(struct vhdx *v, const struct vhdx_patch *p, unsigned n, uint64_t flushed,
                    struct plx_err *err)
{
    unsigned room = entry_room(v->h.log_length);
    int rc = 0;

    (void)pthread_mutex_lock(&v->head_lock);
    struct disk_guid log = disk_guid_zero(&v->h.log) ? disk_guid_new() : v->h.log;
    (void)pthread_mutex_unlock(&v->head_lock);
    for (unsigned done = 0; rc == 0 && done < n;) {
        unsigned part = n - done < room ? n - done : room;
        rc = commit_entry(v, p + done, part, flushed, log, err);
        done += part;
        if (rc == 0 && done < n) { /* the next one's tail is itself */
            rc = io_sync(v->f, err);
        }
    }
    return rc == 0 ? 0 : vhdx_lost(v, rc);
}

int vhdx_log_retire(struct vhdx *v, struct plx_err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&v->head_lock);
    if (!disk_guid_zero(&v->h.log)) {
        struct disk_guid before = v->h.log;
        v->h.log = (struct disk_guid){{0}};
        rc = vhdx_header_write(v, err);
        if (rc != 0) {
            v->h.log = before;
        }
    }
    (void)pthread_mutex_unlock(&v->head_lock);
    return rc;
}

/* --- reading -------------------------------------------------------------------------------- */

/* What stands at one page of the ring; length 0: no valid entry begins there. */
struct found {
    uint64_t seq;
    uint32_t length, tail;
};

struct log {
    uint8_t *ring; /* twice, so that an entry that wraps lies in one piece */
    uint32_t length, pages;
    struct disk_guid id;
    struct found *at;
};

static void judge(const struct log *l, uint32_t page, struct found *out)
{
    const uint8_t *p = l->ring + (size_t)page * VHDX_PAGE;
    struct entry_header h;

    *out = (struct found){0};
    memcpy(&h, p, sizeof h);
    if (memcmp(h.signature, "loge", 4) != 0 || !disk_guid_eq(&h.log, &l->id) || h.seq == 0 ||
        h.length == 0 || h.length % VHDX_PAGE != 0 || h.length > l->length ||
        h.tail % VHDX_PAGE != 0 || h.tail >= l->length ||
        descriptor_pages(h.descriptors) > h.length / VHDX_PAGE) {
        return;
    }
    uint64_t data = h.length / VHDX_PAGE - descriptor_pages(h.descriptors), wanted = 0;
    for (uint32_t i = 0; i < h.descriptors; i++) {
        struct descriptor d;
        memcpy(&d, p + ENTRY_HEADER + (size_t)DESCRIPTOR * i, sizeof d);
        bool desc = memcmp(d.signature, "desc", 4) == 0;
        if ((!desc && memcmp(d.signature, "zero", 4) != 0) || d.seq != h.seq ||
            d.off % VHDX_PAGE != 0) {
            return;
        }
        wanted += desc;
    }
    if (wanted != data) {
        return;
    }
    for (uint64_t i = 0; i < data; i++) {
        const uint8_t *q = p + h.length - (data - i) * VHDX_PAGE;
        uint32_t high, low;
        memcpy(&high, q + 4, 4);
        memcpy(&low, q + VHDX_PAGE - 4, 4);
        if (memcmp(q, "data", 4) != 0 || ((uint64_t)high << 32 | low) != h.seq) {
            return;
        }
    }
    if (h.checksum == vhdx_checksum(p, h.length)) {
        *out = (struct found){h.seq, h.length, h.tail};
    }
}

/* The active sequence: the one with the newest last entry among those that hold what that entry
 * calls its tail. Gives the page where the tail stands, and of the last entry. */
static bool find_sequence(const struct log *l, uint32_t *tail, uint32_t *last)
{
    uint64_t best = 0;

    for (uint32_t start = 0; start < l->pages; start++) {
        uint32_t at = start, end, covered = 0;
        if (l->at[start].length == 0) {
            continue;
        }
        do {
            end = at;
            covered += l->at[at].length / VHDX_PAGE;
            at = (at + l->at[at].length / VHDX_PAGE) % l->pages;
        } while (covered < l->pages && l->at[at].length != 0 &&
                 l->at[at].seq == l->at[end].seq + 1 &&
                 covered + l->at[at].length / VHDX_PAGE <= l->pages);
        uint32_t want = l->at[end].tail / VHDX_PAGE;
        at = start;
        while (at != want && at != end) {
            at = (at + l->at[at].length / VHDX_PAGE) % l->pages;
        }
        if (at == want && l->at[end].seq > best) {
            best = l->at[end].seq;
            *tail = want;
            *last = end;
        }
    }
    return best != 0;
}

static int apply_entry(struct vhdx *v, const uint8_t *p, uint64_t limit, struct plx_err *err)
{
    struct entry_header h;
    int rc = 0;

    memcpy(&h, p, sizeof h);
    const uint8_t *q = p + descriptor_pages(h.descriptors) * VHDX_PAGE;
    for (uint32_t i = 0; i < h.descriptors && rc == 0; i++) {
        struct descriptor d;
        uint8_t page[VHDX_PAGE];
        uint64_t len = VHDX_PAGE;
        memcpy(&d, p + ENTRY_HEADER + (size_t)DESCRIPTOR * i, sizeof d);
        bool zero = memcmp(d.signature, "zero", 4) == 0;
        if (zero) {
            memcpy(&len, d.held_first, 8);
        }
        if (d.off < VHDX_REGIONS_1 || d.off > limit || len > limit - d.off) {
            return plx_fail(err, PLX_ECORRUPT,
                            "%s: its log would write %llu bytes at %llu, outside of the file",
                            v->f->path, (unsigned long long)len, (unsigned long long)d.off);
        }
        if (zero) {
            rc = len == 0 ? 0 : io_punch(v->f, d.off, len, false, err);
            continue;
        }
        memcpy(page, q, VHDX_PAGE);
        memcpy(page, d.held_first, HELD_FIRST);
        memcpy(page + VHDX_PAGE - HELD_LAST, d.held_last, HELD_LAST);
        rc = io_write(v->f, page, VHDX_PAGE, d.off, err);
        q += VHDX_PAGE;
    }
    return rc;
}

static int apply_sequence(struct vhdx *v, const struct log *l, uint32_t tail, uint32_t last,
                          struct plx_err *err)
{
    struct entry_header h;
    uint64_t size;
    int rc = io_size(v->f, &size, err);

    memcpy(&h, l->ring + (size_t)last * VHDX_PAGE, sizeof h);
    if (rc == 0 && size < h.flushed) {
        return plx_fail(err, PLX_ECORRUPT, "%s was cut: it has %llu bytes, its log saw %llu",
                        v->f->path, (unsigned long long)size, (unsigned long long)h.flushed);
    }
    if (rc == 0 && (h.last > 2 * VHDX_BYTES_MAX || h.last % VHDX_MIB != 0)) {
        return plx_fail(err, PLX_ECORRUPT, "%s: its log gives the file %llu bytes", v->f->path,
                        (unsigned long long)h.last);
    }
    uint64_t limit = h.last > size ? h.last : size;
    if (rc == 0 && size < limit) {
        rc = io_truncate(v->f, limit, err);
    }
    for (uint32_t at = tail; rc == 0; at = (at + l->at[at].length / VHDX_PAGE) % l->pages) {
        rc = apply_entry(v, l->ring + (size_t)at * VHDX_PAGE, limit, err);
        if (at == last) {
            break;
        }
    }
    return rc == 0 ? io_sync(v->f, err) : rc;
}

static int read_log(struct vhdx *v, struct log *l, struct plx_err *err)
{
    int rc;

    l->length = v->h.log_length;
    l->pages = l->length / VHDX_PAGE;
    l->id = v->h.log;
    if (l->length > VHDX_LOG_MAX) {
        (void)plx_fail(err, PLX_ENOTSUP, "%s: a log of %u bytes is more than we replay (%u)",
                       v->f->path, l->length, (unsigned)VHDX_LOG_MAX);
        return PLX_ENOTSUP;
    }
    l->ring = plx_calloc(2, l->length);
    l->at = plx_calloc(l->pages, sizeof *l->at);
    if (l->ring == NULL || l->at == NULL) {
        return io_no_memory(v->f->path, err);
    }
    rc = io_read(v->f, l->ring, l->length, v->h.log_offset, err);
    if (rc == 0) {
        memcpy(l->ring + l->length, l->ring, l->length);
        for (uint32_t i = 0; i < l->pages; i++) {
            judge(l, i, &l->at[i]);
        }
    }
    return rc;
}

int vhdx_log_replay(struct vhdx *v, struct plx_err *err)
{
    struct log l = {0};
    uint32_t tail = 0, last = 0;
    int rc = read_log(v, &l, err);

    if (rc == 0 && !find_sequence(&l, &tail, &last)) {
        rc = plx_fail(err, PLX_ECORRUPT,
                      "%s was not closed, and its log holds no whole entry: it is damaged, or was "
                      "written against the rules (take it from a copy)",
                      v->f->path);
    }
    if (rc == 0) {
        rc = apply_sequence(v, &l, tail, last, err);
    }
    plx_free(l.ring);
    plx_free(l.at);
    if (rc == 0) {
        rc = vhdx_log_retire(v, err);
    }
    return rc;
}
