/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/overlay_file.c - the file of an overlay (overlay.h): made, judged and opened,
 * stamped, compared. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/io.h"
#include "vmm/dev/backend/overlay_priv.h"

enum { VERSION = 2, HEADER_OFF = 0, STAMP_OFF = 4096, STAMP_STEP = 4096, DATA_ALIGN = 65536 };
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

static uint64_t sums_off_of(uint64_t bytes)
{
    return BITMAP_OFF + bitmap_bytes_of(bytes);
}

static uint64_t sums_bytes_of(uint64_t bytes)
{
    return (blocks_of(bytes) + SUMS_PAGE - 1) / SUMS_PAGE * PAGE;
}

static uint64_t data_off_of(uint64_t bytes)
{
    return (sums_off_of(bytes) + sums_bytes_of(bytes) + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
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
        } else if (overlay_bit(o, block)) {
            if (block >= o->blocks) {
                return plx_fail(err, PLX_ECORRUPT, "%s: bitmap names blocks beyond the disk",
                                o->path);
            }
            o->allocated++;
        }
    }
    return 0;
}

static int read_intents(struct overlay *o, struct plx_err *err)
{
    if (io_pread_full(o->fd, o->intents, PAGE, INTENT_OFF) != PAGE) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated intents", o->path);
    }
    for (uint64_t i = 0; i < OVERLAY_REGIONS_MAX; i++) {
        if (!overlay_intent(o, i)) {
            continue;
        }
        if (i >= o->regions) {
            return plx_fail(err, PLX_ECORRUPT, "%s: intents name regions beyond the disk", o->path);
        }
        o->unknown[i] = 1;
    }
    return 0;
}

/* One page of checksums as it was read; bitmap and checksums must agree where they are trusted. */
static int check_sums(struct overlay *o, uint64_t first, struct plx_err *err)
{
    bool trusted = !overlay_intent(o, first / o->region_blocks);

    for (uint64_t block = first; block < first + SUMS_PAGE; block++) {
        bool has = block < o->blocks && overlay_bit(o, block);

        if (trusted && has != (o->sums[block] != 0)) {
            return plx_fail(err, PLX_ECORRUPT,
                            "%s: block %llu is damaged: bitmap and checksums do not agree", o->path,
                            (unsigned long long)block);
        }
        if (!trusted) {
            o->sums[block] = 0;
        }
    }
    return 0;
}

/* Of a large disk most is neither in the bitmap nor in the file: holes hold no checksum. */
static int read_sums(struct overlay *o, struct plx_err *err)
{
    static const uint8_t no_bits[SUMS_PAGE / 8];
    off_t data = 0; /* the first byte at or behind the page that is no hole; -1: none */
    int rc = 0;

    for (uint64_t at = 0; at < o->sums_bytes && rc == 0; at += PAGE) {
        off_t page = (off_t)(o->sums_off + at);
        uint64_t first = at / SUM_BYTES;
        bool hole;

        if (data >= 0 && data < page) {
            data = lseek(o->fd, page, SEEK_DATA);
        }
        hole = data < 0 || data >= page + PAGE;
        if (!hole && io_pread_full(o->fd, (uint8_t *)o->sums + at, PAGE, (uint64_t)page) != PAGE) {
            return plx_fail(err, PLX_ETRUNCATED, "%s: truncated checksums", o->path);
        }
        if (!hole || memcmp(o->bitmap + first / 8, no_bits, sizeof no_bits) != 0) {
            rc = check_sums(o, first, err);
        }
    }
    return rc;
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
    o->sums_off = sums_off_of(base_bytes);
    o->sums_bytes = sums_bytes_of(base_bytes);
    o->data_off = data_off_of(base_bytes);
    o->region_blocks = OVERLAY_REGION;
    while (o->region_blocks * OVERLAY_REGIONS_MAX < o->blocks) {
        o->region_blocks *= 2;
    }
    o->regions = (o->blocks + o->region_blocks - 1) / o->region_blocks;
    o->sums = plx_calloc(1, o->sums_bytes); /* of a large disk mostly never touched */
    o->sums_dirty = plx_calloc(1, o->sums_bytes / PAGE);
    o->intents = plx_calloc(1, PAGE);
    o->written = plx_calloc(1, o->regions);
    o->unknown = plx_calloc(1, o->regions);
    o->writers = plx_calloc(o->regions, sizeof *o->writers);
    o->path = plx_strdup(path);
    o->bitmap = plx_calloc(1, o->bitmap_bytes);
    o->dirty = plx_calloc(1, o->bitmap_bytes / PAGE);
    o->fd = open(path, O_RDWR | O_CLOEXEC);
    if (o->fd < 0) {
        rc = plx_fail_errno(err, "cannot open overlay %s", path);
    } else if (o->path == NULL || o->bitmap == NULL || o->dirty == NULL || o->sums == NULL ||
               o->sums_dirty == NULL || o->intents == NULL || o->written == NULL ||
               o->unknown == NULL || o->writers == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "%s: out of memory", path);
    } else if (flock(o->fd, LOCK_EX | LOCK_NB) != 0) {
        rc = plx_fail(err, PLX_EBUSY, "overlay %s is in use by another process", path);
    } else {
        rc = check_header(o, base_sha256, err);
        rc = rc != 0 ? rc : read_stamps(o, err);
        rc = rc != 0 ? rc : read_bitmap(o, err);
        rc = rc != 0 ? rc : read_intents(o, err);
        rc = rc != 0 ? rc : read_sums(o, err);
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
    plx_free(o->sums);
    plx_free(o->sums_dirty);
    plx_free(o->intents);
    plx_free(o->written);
    plx_free(o->unknown);
    plx_free(o->writers);
    plx_free(o);
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

/* --- who compares files --------------------------------------------------------------------- */

static int hash_range(int fd, EVP_MD_CTX *md, uint64_t off, uint64_t len)
{
    static const size_t chunk = 1 << 16;
    uint8_t buf[1 << 16];

    while (len > 0) {
        size_t part = len < chunk ? (size_t)len : chunk;
        if (io_pread_full(fd, buf, part, off) != (ssize_t)part) {
            return PLX_EIO;
        }
        PLX_CHECK(EVP_DigestUpdate(md, buf, part) == 1);
        off += part;
        len -= part;
    }
    return 0;
}

static int hash_blocks(const struct overlay *o, EVP_MD_CTX *md)
{
    int rc = hash_range(o->fd, md, BITMAP_OFF, o->bitmap_bytes);

    for (uint64_t at = 0; rc == 0 && at < o->bitmap_bytes; at += PAGE) {
        uint8_t bits[PAGE];

        if (io_pread_full(o->fd, bits, PAGE, BITMAP_OFF + at) != PAGE) {
            return PLX_EIO;
        }
        for (uint64_t i = 0; i < 8 * PAGE && rc == 0; i++) {
            uint64_t block = 8 * at + i;

            if ((bits[i / 8] >> (i % 8) & 1) != 0 && block < o->blocks) {
                rc = hash_range(o->fd, md, overlay_offset(o, block), OVERLAY_BLOCK);
            }
        }
    }
    return rc;
}

int overlay_sha256(const char *path, uint8_t sha[SHA256_LEN], struct plx_err *err)
{
    uint8_t size[8];
    struct rbuf r;
    struct stat st;
    struct overlay o = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    unsigned n = 0;
    int rc = 0;

    if (o.fd < 0) {
        return errno == ENOENT ? PLX_ENOENT : plx_fail_errno(err, "cannot open %s", path);
    }
    /* Only as much of the header as says where the blocks are: the replica judges the rest. */
    if (io_pread_full(o.fd, size, sizeof size, sizeof magic + 8) != sizeof size ||
        fstat(o.fd, &st) != 0) {
        rc = plx_fail(err, PLX_ECORRUPT, "%s is not an overlay", path);
        goto out;
    }
    rbuf_init(&r, size, sizeof size);
    o.base_bytes = rbuf_u64(&r);
    if (o.base_bytes > (uint64_t)st.st_size || file_bytes_of(o.base_bytes) > (uint64_t)st.st_size) {
        rc = plx_fail(err, PLX_ECORRUPT, "%s is not an overlay, or cut", path);
        goto out;
    }
    o.blocks = blocks_of(o.base_bytes);
    o.bitmap_bytes = bitmap_bytes_of(o.base_bytes);
    o.data_off = data_off_of(o.base_bytes);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    PLX_CHECK(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    rc = hash_blocks(&o, md);
    PLX_CHECK(EVP_DigestFinal_ex(md, sha, &n) == 1);
    EVP_MD_CTX_free(md);
    if (rc != 0) {
        rc = plx_fail(err, rc, "cannot read %s", path);
    }
out:
    (void)close(o.fd);
    return rc;
}
