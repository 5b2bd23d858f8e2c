/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir_names.c - names and leases of a store directory (store_dir.h).
 *
 * A file of either: the value, then the SHA-256 of the file's own name, a zero byte and the value.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "storage/store_dir_priv.h"

static int seal(const char *name, const void *value, size_t len, struct wbuf *out)
{
    struct wbuf all;
    uint8_t sha[SHA256_LEN];

    wbuf_init(&all);
    wbuf_put(&all, name, strlen(name) + 1);
    wbuf_put(&all, value, len);
    if (!all.failed) {
        sha256(all.data, all.len, sha);
        wbuf_put(out, value, len);
        wbuf_put(out, sha, sizeof sha);
    }
    bool failed = all.failed || out->failed;
    wbuf_free(&all);
    return failed ? PLX_ENOMEM : 0;
}

/* Takes the seal off @b. */
static int unseal(const char *name, struct wbuf *b)
{
    struct wbuf check;
    int rc = PLX_ECORRUPT;

    if (b->len < SHA256_LEN) {
        return PLX_ECORRUPT;
    }
    wbuf_init(&check);
    b->len -= SHA256_LEN;
    if (seal(name, b->data, b->len, &check) != 0) {
        rc = PLX_ENOMEM;
    } else if (memcmp(check.data + b->len, b->data + b->len, SHA256_LEN) == 0) {
        rc = 0;
    }
    wbuf_free(&check);
    return rc;
}

static void path_of(const struct store_dir *d, const char *sub, const char *name,
                    char out[DIR_PATH_MAX])
{
    (void)snprintf(out, DIR_PATH_MAX, "%s/%s/%s", d->path, sub, name);
}

static int read_sealed(const char *path, const char *name, struct wbuf *out, struct plx_err *err)
{
    int rc = io_read_file(path, NAME_VALUE_MAX + SHA256_LEN, out, err);

    if (rc == 0 && (rc = unseal(name, out)) != 0) {
        rc = plx_fail(err, rc, "%s is damaged", path);
        wbuf_free(out);
    }
    return rc;
}

static int all_there(struct index_txn *t, const struct seg_id *ids, size_t n, size_t *missing,
                     struct plx_err *err)
{
    struct index_entry e;

    for (size_t i = 0; i < n; i++) {
        int rc = index_txn_find(t, &ids[i], &e, err);
        if (rc <= 0) {
            *missing = i;
            return rc < 0 ? rc : 1;
        }
    }
    return 0;
}

int store_dir_name_put(void *self, const char *name, const void *value, size_t len,
                       const struct seg_id *ids, size_t n, size_t *missing, struct plx_err *err)
{
    struct store_dir *d = self;
    struct index_txn *t = NULL;
    char path[DIR_PATH_MAX];
    struct wbuf file;
    int rc = store_dir_commit(d, err);

    if (rc != 0) {
        return rc;
    }
    wbuf_init(&file);
    path_of(d, "names", name, path);
    if (seal(name, value, len, &file) != 0) {
        rc = plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    }
    if (rc == 0) {
        rc = index_begin(d->index, &t, err); /* no sweep until it ends */
    }
    if (rc == 0) {
        rc = all_there(t, ids, n, missing, err);
    }
    if (rc == 0) {
        rc = io_write_file(path, file.data, file.len, err);
    }
    index_abort(t);
    wbuf_free(&file);
    return rc;
}

int store_dir_name_get(void *self, const char *name, struct wbuf *value, struct plx_err *err)
{
    struct store_dir *d = self;
    char path[DIR_PATH_MAX];

    path_of(d, "names", name, path);
    return read_sealed(path, name, value, err);
}

int store_dir_name_del(void *self, const char *name, struct plx_err *err)
{
    struct store_dir *d = self;
    char path[DIR_PATH_MAX];

    path_of(d, "names", name, path);
    if (unlink(path) != 0) {
        return plx_fail_errno(err, "cannot remove %s", path);
    }
    return store_dir_sync(d, "names", err);
}

static int no_dot(const struct dirent *e)
{
    return e->d_name[0] != '.' && strstr(e->d_name, ".tmp.") == NULL;
}

int store_dir_name_each(void *self,
                        int (*each)(void *ctx, const char *name, const void *value, size_t len),
                        void *ctx, struct plx_err *err)
{
    struct store_dir *d = self;
    char path[DIR_PATH_MAX];
    struct dirent **list;
    int rc = 0;

    path_of(d, "names", "", path);
    int n = scandir(path, &list, no_dot, alphasort);
    if (n < 0) {
        return plx_fail_errno(err, "cannot list %s", path);
    }
    for (int i = 0; i < n; i++) {
        struct wbuf value;
        if (rc == 0) {
            int got = store_dir_name_get(d, list[i]->d_name, &value, err);
            if (got == 0) {
                rc = each(ctx, list[i]->d_name, value.data, value.len);
                wbuf_free(&value);
            } else if (got == PLX_ECORRUPT) {
                rc = each(ctx, list[i]->d_name, NULL, 0);
            } else if (got != PLX_ENOENT) { /* removed meanwhile */
                rc = got;
            }
        }
        free(list[i]);
    }
    free(list);
    return rc;
}

/* --- leases --------------------------------------------------------------------------------- */

struct lease {
    int fd;
    char path[DIR_PATH_MAX];
};

/* Locked before it gets its name: one without a lock is a dead holder's. */
int store_dir_lease(void *self, const void *value, size_t len, void **out, struct plx_err *err)
{
    struct store_dir *d = self;
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char tmp[DIR_PATH_MAX], name[32];
    uint64_t number;
    struct wbuf file;
    int rc = 0;

    *out = NULL;
    host_random(&number, sizeof number);
    (void)snprintf(name, sizeof name, "%016llx", (unsigned long long)number);
    wbuf_init(&file);
    struct lease *lease = plx_calloc(1, sizeof *lease);
    if (lease == NULL || seal(name, value, len, &file) != 0) {
        plx_free(lease);
        wbuf_free(&file);
        return plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    }
    path_of(d, "leases", name, lease->path);
    path_of(d, "leases", ".new.XXXXXX", tmp);
    lease->fd = mkostemp(tmp, O_CLOEXEC);
    if (lease->fd < 0 || io_write_full(lease->fd, file.data, file.len) != 0 ||
        fcntl(lease->fd, F_OFD_SETLK, &l) != 0 || rename(tmp, lease->path) != 0) {
        rc = plx_fail_errno(err, "cannot make a lease in %s/leases", d->path);
        if (lease->fd >= 0) {
            (void)unlink(tmp);
            (void)close(lease->fd);
        }
        plx_free(lease);
    } else {
        *out = lease;
    }
    wbuf_free(&file);
    return rc;
}

void store_dir_lease_end(void *self, void *held)
{
    struct lease *lease = held;

    (void)self;
    if (lease != NULL) {
        (void)unlink(lease->path);
        (void)close(lease->fd);
        plx_free(lease);
    }
}

int store_dir_lease_each(void *self, int (*each)(void *ctx, const void *value, size_t len),
                         void *ctx, struct plx_err *err)
{
    struct store_dir *d = self;
    char path[DIR_PATH_MAX];
    struct dirent **list;
    int rc = 0;

    path_of(d, "leases", "", path);
    int n = scandir(path, &list, no_dot, alphasort);
    if (n < 0) {
        return plx_fail_errno(err, "cannot list %s", path);
    }
    for (int i = 0; i < n; i++) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        struct wbuf value;
        path_of(d, "leases", list[i]->d_name, path);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type == F_UNLCK) {
            (void)unlink(path); /* its holder is dead */
        } else if (fd >= 0 && rc == 0 && read_sealed(path, list[i]->d_name, &value, err) == 0) {
            rc = each(ctx, value.data, value.len);
            wbuf_free(&value);
        }
        if (fd >= 0) {
            (void)close(fd);
        }
        free(list[i]);
    }
    free(list);
    return rc;
}
