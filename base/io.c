/* SPDX-License-Identifier: Apache-2.0
 * base/io.c - see io.h. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t io_read_some(int fd, void *buf, size_t len)
{
    ssize_t n;

    do {
        n = read(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    return n;
}

ssize_t io_read_full(int fd, void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = io_read_some(fd, (uint8_t *)buf + done, len - done);
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int io_write_full(int fd, const void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(fd, (const uint8_t *)buf + done, len - done);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)done;
}

int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pwrite(fd, (const uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int io_read_file(const char *path, size_t max, struct wbuf *out, struct plx_err *err)
{
    struct stat st;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    wbuf_init(out);
    if (fd < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    if (fstat(fd, &st) != 0) {
        rc = plx_fail_errno(err, "cannot stat %s", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = plx_fail(err, PLX_EINVAL, "%s is not a regular file", path);
    } else if ((uint64_t)st.st_size > max) {
        rc = plx_fail(err, PLX_ERANGE, "%s has %lld bytes, more than the %zu allowed", path,
                      (long long)st.st_size, max);
    } else {
        size_t len = (size_t)st.st_size;
        uint8_t *at = wbuf_grow(out, len);
        if (at == NULL && len != 0) {
            rc = plx_fail(err, PLX_ENOMEM, "cannot read %s: out of memory", path);
        } else {
            ssize_t n = io_read_full(fd, at, len);
            if (n < 0) {
                rc = plx_fail_errno(err, "cannot read %s", path);
            } else {
                out->len = (size_t)n;
            }
        }
    }
    (void)close(fd);
    if (rc != 0) {
        wbuf_free(out);
    }
    return rc;
}

int io_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (fd < 0) {
        return -1;
    }
    rc = fsync(fd);
    (void)close(fd);
    return rc;
}

int io_sync_folder_of(const char *path)
{
    char copy[PATH_MAX];

    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return io_sync_folder(dirname(copy));
}

int io_write_file(const char *path, const void *data, size_t len, struct plx_err *err)
{
    char tmp[PATH_MAX];
    int rc;
    int fd;

    if (snprintf(tmp, sizeof tmp, "%s.tmp.%d", path, (int)getpid()) >= (int)sizeof tmp) {
        return plx_fail(err, PLX_EINVAL, "path too long: %s", path);
    }
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return plx_fail_errno(err, "cannot create %s", tmp);
    }
    if (io_write_full(fd, data, len) != 0 || fsync(fd) != 0) {
        rc = plx_fail_errno(err, "cannot write %s", tmp);
        (void)close(fd);
        goto err_unlink;
    }
    (void)close(fd);
    if (rename(tmp, path) != 0) {
        rc = plx_fail_errno(err, "cannot rename %s to %s", tmp, path);
        goto err_unlink;
    }
    if (io_sync_folder_of(path) != 0) {
        return plx_fail_errno(err, "cannot make %s durable", path);
    }
    return 0;

err_unlink:
    (void)unlink(tmp);
    return rc;
}

int io_make_folders(const char *path)
{
    char part[PATH_MAX];

    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *slash = part + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            return -1;
        }
        *slash = '/';
    }
    return mkdir(part, 0755) != 0 && errno != EEXIST ? -1 : 0;
}

int io_set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
