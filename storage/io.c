/* SPDX-License-Identifier: Apache-2.0
 * storage/io.c - the host's files (io.h). */
#include "storage/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"

struct host_file {
    struct io_file f;
    bool temporary, device;
};

static int host_read(struct io_file *f, void *buf, size_t len, uint64_t off, struct plx_err *err)
{
    ssize_t n = io_pread_full(f->fd, buf, len, off);

    if (n < 0) {
        return plx_fail_errno(err, "cannot read %s at byte %llu", f->path, (unsigned long long)off);
    }
    if ((size_t)n < len) {
        return plx_fail(err, PLX_ETRUNCATED, "%s ends at byte %llu, %zu bytes at %llu were wanted",
                        f->path, (unsigned long long)off + (unsigned long long)n, len,
                        (unsigned long long)off);
    }
    return 0;
}

static int host_write(struct io_file *f, const void *buf, size_t len, uint64_t off,
                      struct plx_err *err)
{
    if (io_pwrite_full(f->fd, buf, len, off) != 0) {
        return plx_fail_errno(err, "cannot write %s at byte %llu", f->path,
                              (unsigned long long)off);
    }
    return 0;
}

static int host_sync(struct io_file *f, struct plx_err *err)
{
    if (!((struct host_file *)f)->temporary && fdatasync(f->fd) != 0) {
        return plx_fail_errno(err, "cannot make %s durable", f->path);
    }
    return 0;
}

static int host_size(struct io_file *f, uint64_t *out, struct plx_err *err)
{
    struct stat st;

    if (((struct host_file *)f)->device) {
        return ioctl(f->fd, BLKGETSIZE64, out) == 0 ? 0 : plx_fail_errno(err, "%s", f->path);
    }
    if (fstat(f->fd, &st) != 0) {
        return plx_fail_errno(err, "%s", f->path);
    }
    *out = (uint64_t)st.st_size;
    return 0;
}

static int host_truncate(struct io_file *f, uint64_t size, struct plx_err *err)
{
    if (ftruncate(f->fd, (off_t)size) != 0) {
        return plx_fail_errno(err, "cannot make %s %llu bytes long", f->path,
                              (unsigned long long)size);
    }
    return 0;
}

static int host_punch(struct io_file *f, uint64_t off, uint64_t len, bool keep, struct plx_err *err)
{
    static const uint8_t zeros[65536];
    int how = (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) | FALLOC_FL_KEEP_SIZE;

    if (fallocate(f->fd, how, (off_t)off, (off_t)len) == 0) {
        return 0;
    }
    while (len > 0) {
        size_t part = len < sizeof zeros ? len : sizeof zeros;
        int rc = host_write(f, zeros, part, off, err);
        if (rc != 0) {
            return rc;
        }
        off += part;
        len -= part;
    }
    return 0;
}

static int host_lock(struct io_file *f, enum io_lock how, struct plx_err *err)
{
    static const short types[] = {F_UNLCK, F_RDLCK, F_WRLCK};
    struct flock l = {.l_type = types[how], .l_whence = SEEK_SET};

    if (fcntl(f->fd, F_OFD_SETLK, &l) == 0) {
        return 0;
    }
    if (errno == EAGAIN || errno == EACCES) {
        return plx_fail(err, PLX_EBUSY, "%s is %s (find who: fuser %s)", f->path,
                        how == IO_LOCK_SHARED ? "open for writing elsewhere" : "in use elsewhere",
                        f->path);
    }
    return plx_fail_errno(err, "cannot lock %s", f->path);
}

static int host_extent(struct io_file *f, uint64_t off, uint64_t limit, bool *data, uint64_t *end,
                       struct plx_err *err)
{
    (void)err;
    off_t at = lseek(f->fd, (off_t)off, SEEK_DATA);
    *data = true;
    *end = limit;
    if (at < 0) {
        *data = errno != ENXIO; /* nothing but a hole up to the end */
    } else if ((uint64_t)at > off) {
        *data = false;
        *end = (uint64_t)at < limit ? (uint64_t)at : limit;
    } else {
        at = lseek(f->fd, (off_t)off, SEEK_HOLE);
        *end = at > 0 && (uint64_t)at < limit ? (uint64_t)at : limit;
    }
    return 0;
}

static int host_identity(struct io_file *f, uint64_t id[2], struct plx_err *err)
{
    struct stat st;

    if (fstat(f->fd, &st) != 0) {
        return plx_fail_errno(err, "%s", f->path);
    }
    id[0] = st.st_dev;
    id[1] = st.st_ino;
    return 0;
}

static void host_close(struct io_file *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd);
    }
    plx_free(f->path);
    plx_free(f);
}

static const struct io_ops host_ops = {
    .read = host_read,
    .write = host_write,
    .sync = host_sync,
    .size = host_size,
    .truncate = host_truncate,
    .punch = host_punch,
    .lock = host_lock,
    .extent = host_extent,
    .identity = host_identity,
    .close = host_close,
};

static int open_file(const char *path, unsigned flags, struct io_file *f, struct plx_err *err)
{
    int how = O_CLOEXEC | ((flags & IO_WRITE) != 0 ? O_RDWR : O_RDONLY) |
              ((flags & IO_CREATE) != 0 ? O_CREAT | O_EXCL : 0) |
              ((flags & IO_TRUNCATE) != 0 ? O_CREAT | O_TRUNC : 0);
    struct stat st;

    f->fd = open(path, how, 0644);
    if (f->fd < 0) {
        return plx_fail_errno(err, "cannot %s %s",
                              (flags & (IO_CREATE | IO_TRUNCATE)) != 0 ? "create" : "open", path);
    }
    if (fstat(f->fd, &st) != 0) {
        return plx_fail_errno(err, "%s", path);
    }
    ((struct host_file *)f)->device = S_ISBLK(st.st_mode);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return plx_fail(err, PLX_EINVAL, "%s is not a regular file", path);
    }
    /* A created file must be found again after a crash. */
    if ((flags & (IO_CREATE | IO_TRUNCATE)) != 0 && (flags & IO_TEMPORARY) == 0 &&
        io_sync_folder_of(path) != 0) {
        return plx_fail_errno(err, "cannot make the folder of %s durable", path);
    }
    return 0;
}

static int host_open(struct io_space *s, const char *path, unsigned flags, struct io_file **out,
                     struct plx_err *err)
{
    struct host_file *h = plx_calloc(1, sizeof *h);

    (void)s;
    *out = NULL;
    if (h == NULL) {
        return io_no_memory(path, err);
    }
    h->f = (struct io_file){
        .ops = &host_ops, .path = plx_strdup(path), .writable = (flags & IO_WRITE) != 0, .fd = -1};
    h->temporary = (flags & IO_TEMPORARY) != 0;
    int rc = h->f.path == NULL ? io_no_memory(path, err) : open_file(path, flags, &h->f, err);
    if (rc != 0) {
        host_close(&h->f);
        return rc;
    }
    *out = &h->f;
    return 0;
}

static int host_remove(struct io_space *s, const char *path, struct plx_err *err)
{
    (void)s;
    return unlink(path) == 0 ? 0 : plx_fail_errno(err, "cannot remove %s", path);
}

struct io_space *io_host(void)
{
    static struct io_space host = {.open = host_open, .remove = host_remove};
    return &host;
}

void io_close(struct io_file *f)
{
    if (f != NULL) {
        f->ops->close(f);
    }
}
