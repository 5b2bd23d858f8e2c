/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay.c - see overlay.h. */
#include "vmm/dev/backend/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/io.h"

enum {
    VERSION = 1,
    HEADER_OFF = 0,
    STAMP_OFF = 4096,
    STAMP_STEP = 4096,
    BITMAP_OFF = 12288,
    DATA_ALIGN = 65536,
    PAGE = 4096
};
static const char magic[8] = {'P', 'L', 'X', 'O', 'V', 'L', '1', '\n'};

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
}

static uint64_t bitmap_bytes_of(uint64_t bytes)
{
    uint64_t bits = blocks_of(bytes);
    return ((bits + 7) / 8 + PAGE - 1) / PAGE * PAGE;
}

static uint64_t data_off_of(uint64_t bytes)
{
    return (BITMAP_OFF + bitmap_bytes_of(bytes) + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
}

static uint64_t file_bytes_of(uint64_t bytes)
{
    return data_off_of(bytes) + blocks_of(bytes) * OVERLAY_BLOCK;
}

/* Append the hash of all that is in @w and write it at @off. */
static int write_hashed(int fd, struct wbuf *w, uint64_t off)
{
    int rc = -1;

    wbuf_u64(w, hash128(w->data, w->len, off).lo);
    if (w->failed) {
        errno = ENOMEM;
    } else {
        rc = io_pwrite_full(fd, w->data, w->len, off);
    }
    wbuf_free(w);
    return rc;
}

static int write_stamp_slot(int fd, uint64_t seq, const struct disk_stamp *s)
{
    struct wbuf w;

    wbuf_init(&w);
    wbuf_u64(&w, seq);
    wbuf_put(&w, s->vm, sizeof s->vm);
    wbuf_u64(&w, s->epoch);
    wbuf_u64(&w, s->incarnation);
    wbuf_u64(&w, s->last_record);
    return write_hashed(fd, &w, STAMP_OFF + STAMP_STEP * (seq & 1));
}

int overlay_create(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                   struct plx_err *err)
{
    static const struct disk_stamp none;
    struct wbuf w;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0) {
        return plx_fail_errno(err, "cannot create overlay %s", path);
    }
    wbuf_init(&w);
    wbuf_put(&w, magic, sizeof magic);
    wbuf_u32(&w, VERSION);
    wbuf_u32(&w, OVERLAY_BLOCK);
    wbuf_u64(&w, base_bytes);
    wbuf_put(&w, base_sha256, SHA256_LEN);
    if (ftruncate(fd, (off_t)file_bytes_of(base_bytes)) != 0 ||
        write_stamp_slot(fd, 0, &none) != 0 || write_stamp_slot(fd, 1, &none) != 0 ||
        write_hashed(fd, &w, HEADER_OFF) != 0 || fsync(fd) != 0) {
        int rc = plx_fail_errno(err, "cannot write overlay %s", path);
        wbuf_free(&w);
        (void)close(fd);
        (void)unlink(path);
        return rc;
    }
    (void)close(fd);
    return 0;
}

/* Read @len bytes plus their hash at @off; PLX_ETRUNCATED, PLX_ECORRUPT, PLX_EIO without message.
 */
static int read_hashed(int fd, uint64_t off, uint8_t *buf, size_t len, struct rbuf *r)
{
    uint64_t hash;
    ssize_t n = io_pread_full(fd, buf, len + sizeof hash, off);

    if (n != (ssize_t)(len + sizeof hash)) {
        return n < 0 ? PLX_EIO : PLX_ETRUNCATED;
    }
    memcpy(&hash, buf + len, sizeof hash);
    if (hash != hash128(buf, len, off).lo) {
        return PLX_ECORRUPT;
    }
    rbuf_init(r, buf, len);
    return 0;
}

static int check_header(struct overlay *o, const uint8_t base_sha256[SHA256_LEN],
                        struct plx_err *err)
{
    static const uint8_t unknown[SHA256_LEN];
    enum { LEN = 8 + 4 + 4 + 8 + SHA256_LEN };
    uint8_t buf[LEN + 8], m[8], sha[SHA256_LEN];
    struct rbuf r;

    if (io_pread_full(o->fd, m, sizeof m, HEADER_OFF) != sizeof m ||
        memcmp(m, magic, sizeof m) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s is not an overlay", o->path);
    }
    int rc = read_hashed(o->fd, HEADER_OFF, buf, LEN, &r);
    if (rc != 0) {
        return plx_fail(err, rc, "%s: damaged header", o->path);
    }
    (void)rbuf_take(&r, sizeof m);
    uint32_t version = rbuf_u32(&r);
    uint32_t block = rbuf_u32(&r);
    uint64_t bytes = rbuf_u64(&r);
    rbuf_get(&r, sha, sizeof sha);
    if (version != VERSION || block != OVERLAY_BLOCK) {
        return plx_fail(err, PLX_EVERSION, "%s: overlay version %u, block size %u", o->path,
                        version, block);
    }
    if (bytes != o->base_bytes) {
        return plx_fail(err, PLX_ESTALE, "%s belongs to a base of %llu bytes, this one has %llu",
                        o->path, (unsigned long long)bytes, (unsigned long long)o->base_bytes);
    }
    if (memcmp(base_sha256, unknown, sizeof unknown) != 0 &&
        memcmp(sha, unknown, sizeof unknown) != 0 && memcmp(sha, base_sha256, sizeof sha) != 0) {
        return plx_fail(err, PLX_ESTALE,
                        "%s belongs to another base image (the base was changed or replaced)",
                        o->path);
    }
    return 0;
}

static int read_stamps(struct overlay *o, struct plx_err *err)
{
    enum { LEN = 8 + 16 + 8 + 8 + 8 };
    uint8_t buf[LEN + 8];
    bool found = false;

    for (unsigned i = 0; i < 2; i++) {
        struct rbuf r;
        if (read_hashed(o->fd, STAMP_OFF + STAMP_STEP * i, buf, LEN, &r) != 0) {
            continue;
        }
        uint64_t seq = rbuf_u64(&r);
        if (found && seq < o->stamp_seq) {
            continue;
        }
        found = true;
        o->stamp_seq = seq;
        rbuf_get(&r, o->stamp.vm, sizeof o->stamp.vm);
        o->stamp.epoch = rbuf_u64(&r);
        o->stamp.incarnation = rbuf_u64(&r);
        o->stamp.last_record = rbuf_u64(&r);
    }
    return found ? 0 : plx_fail(err, PLX_ECORRUPT, "%s: both stamps are damaged", o->path);
}

static int read_bitmap(struct overlay *o, struct plx_err *err)
{
    struct stat st;

    if (fstat(o->fd, &st) != 0 || (uint64_t)st.st_size < file_bytes_of(o->base_bytes)) {
        return plx_fail(err, PLX_ETRUNCATED, "%s is truncated", o->path);
    }
    if (io_pread_full(o->fd, o->bitmap, o->bitmap_bytes, BITMAP_OFF) != (ssize_t)o->bitmap_bytes) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated bitmap", o->path);
    }
    for (uint64_t block = 0; block < o->bitmap_bytes * 8; block++) {
        if (block % 8 == 0 && o->bitmap[block / 8] == 0) {
            block += 7;
        } else if (overlay_has(o, block)) {
            if (block >= o->blocks) {
                return plx_fail(err, PLX_ECORRUPT, "%s: bitmap names blocks beyond the disk",
                                o->path);
            }
            o->allocated++;
        }
    }
    return 0;
}

int overlay_open(const char *path, uint64_t base_bytes, const uint8_t base_sha256[SHA256_LEN],
                 struct overlay **out, struct plx_err *err)
{
    int rc;

    *out = NULL;
    struct overlay *o = plx_calloc(1, sizeof *o);
    if (o == NULL) {
        return plx_fail(err, PLX_ENOMEM, "%s: out of memory", path);
    }
    (void)pthread_mutex_init(&o->lock, NULL);
    (void)pthread_mutex_init(&o->flush_lock, NULL);
    o->base_bytes = base_bytes;
    o->blocks = blocks_of(base_bytes);
    o->bitmap_bytes = bitmap_bytes_of(base_bytes);
    o->data_off = data_off_of(base_bytes);
    o->path = plx_strdup(path);
    o->bitmap = plx_calloc(1, o->bitmap_bytes);
    o->dirty = plx_calloc(1, o->bitmap_bytes / PAGE);
    o->fd = open(path, O_RDWR | O_CLOEXEC);
    if (o->fd < 0) {
        rc = plx_fail_errno(err, "cannot open overlay %s", path);
    } else if (o->path == NULL || o->bitmap == NULL || o->dirty == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "%s: out of memory", path);
    } else if (flock(o->fd, LOCK_EX | LOCK_NB) != 0) {
        rc = plx_fail(err, PLX_EBUSY, "overlay %s is in use by another process", path);
    } else {
        rc = check_header(o, base_sha256, err);
        rc = rc != 0 ? rc : read_stamps(o, err);
        rc = rc != 0 ? rc : read_bitmap(o, err);
    }
    if (rc != 0) {
        overlay_close(o);
        return rc;
    }
    *out = o;
    return 0;
}

void overlay_close(struct overlay *o)
{
    if (o == NULL) {
        return;
    }
    if (o->fd >= 0) {
        (void)close(o->fd);
    }
    (void)pthread_mutex_destroy(&o->lock);
    (void)pthread_mutex_destroy(&o->flush_lock);
    plx_free(o->path);
    plx_free(o->bitmap);
    plx_free(o->dirty);
    plx_free(o);
}

bool overlay_has(struct overlay *o, uint64_t block)
{
    (void)pthread_mutex_lock(&o->lock);
    bool has = (o->bitmap[block / 8] >> (block % 8) & 1) != 0;
    (void)pthread_mutex_unlock(&o->lock);
    return has;
}

void overlay_mark(struct overlay *o, uint64_t block)
{
    (void)pthread_mutex_lock(&o->lock);
    if ((o->bitmap[block / 8] >> (block % 8) & 1) == 0) {
        o->bitmap[block / 8] |= (uint8_t)(1u << (block % 8));
        o->dirty[block / 8 / PAGE] = 1;
        o->allocated++;
    }
    (void)pthread_mutex_unlock(&o->lock);
}

uint64_t overlay_allocated(struct overlay *o)
{
    (void)pthread_mutex_lock(&o->lock);
    uint64_t n = o->allocated;
    (void)pthread_mutex_unlock(&o->lock);
    return n;
}

/* A bit is set only after its data were written, so bits copied now belong to data that the first
 * fdatasync covers; they go to the file after it. Bits set meanwhile wait for the next flush. */
int overlay_flush(struct overlay *o)
{
    uint64_t pages = o->bitmap_bytes / PAGE;
    uint8_t(*copies)[PAGE] = NULL;
    uint64_t *index = NULL;
    uint64_t n = 0;
    int rc = -1;

    (void)pthread_mutex_lock(&o->flush_lock);
    (void)pthread_mutex_lock(&o->lock);
    for (uint64_t i = 0; i < pages; i++) {
        n += o->dirty[i];
    }
    copies = n != 0 ? plx_calloc(n, PAGE) : NULL;
    index = n != 0 ? plx_calloc(n, sizeof *index) : NULL;
    if (n != 0 && (copies == NULL || index == NULL)) {
        (void)pthread_mutex_unlock(&o->lock);
        errno = ENOMEM;
        goto out;
    }
    n = 0;
    for (uint64_t i = 0; i < pages; i++) {
        if (o->dirty[i] != 0) {
            o->dirty[i] = 0;
            /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): n counted the dirty ones */
            index[n] = i;
            memcpy(copies[n++], o->bitmap + i * PAGE, PAGE);
        }
    }
    (void)pthread_mutex_unlock(&o->lock);
    rc = fdatasync(o->fd);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        rc = io_pwrite_full(o->fd, copies[i], PAGE, BITMAP_OFF + index[i] * PAGE);
    }
    if (rc == 0 && n != 0) {
        rc = fdatasync(o->fd);
    }
    if (rc != 0) {
        (void)pthread_mutex_lock(&o->lock);
        for (uint64_t i = 0; i < n; i++) {
            o->dirty[index[i]] = 1;
        }
        (void)pthread_mutex_unlock(&o->lock);
    }
out:
    (void)pthread_mutex_unlock(&o->flush_lock);
    plx_free(copies);
    plx_free(index);
    return rc;
}

int overlay_write_stamp(struct overlay *o, const struct disk_stamp *stamp, struct plx_err *err)
{
    if (write_stamp_slot(o->fd, o->stamp_seq + 1, stamp) != 0 || fdatasync(o->fd) != 0) {
        return plx_fail_errno(err, "cannot stamp overlay %s", o->path);
    }
    o->stamp_seq++;
    o->stamp = *stamp;
    return 0;
}
