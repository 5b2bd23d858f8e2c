/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir_pack.c - the packs of a store directory (store_dir.h): which there are, the one
 * that is appended to, and reading. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "storage/store_dir_priv.h"

enum { WRITE_BEHIND = 8 << 20, HELD_MAX = 256 << 10 };

void store_dir_pack_path(const struct store_dir *d, uint32_t number, char out[DIR_PATH_MAX])
{
    (void)snprintf(out, DIR_PATH_MAX, "%s/packs/%08x", d->path, number);
}

int store_dir_sync(const struct store_dir *d, const char *sub, struct plx_err *err)
{
    char path[DIR_PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", d->path, sub);
    return io_sync_folder(path) == 0 ? 0 : plx_fail_errno(err, "cannot sync %s", path);
}

static bool whole_file_lock(int fd, int cmd, struct flock *l)
{
    *l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, cmd, l) == 0;
}

bool store_dir_pack_held(int fd)
{
    struct flock l;

    return whole_file_lock(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

int store_dir_packs(const struct store_dir *d, uint32_t **out, size_t *n, struct plx_err *err)
{
    char path[DIR_PATH_MAX];
    size_t cap = 0;
    int rc = 0;

    *out = NULL;
    *n = 0;
    (void)snprintf(path, sizeof path, "%s/packs", d->path);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return plx_fail_errno(err, "cannot list %s", path);
    }
    for (struct dirent *e; rc == 0 && (e = readdir(dir)) != NULL;) {
        char *end;
        unsigned long number = strtoul(e->d_name, &end, 16);
        if (strlen(e->d_name) != 8 || *end != '\0') {
            continue;
        }
        if (*n == cap) {
            cap = cap == 0 ? 64 : 2 * cap;
            uint32_t *more = plx_realloc(*out, cap * sizeof **out);
            if (more == NULL) {
                rc = plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
                break;
            }
            *out = more;
        }
        (*out)[(*n)++] = (uint32_t)number;
    }
    (void)closedir(dir);
    if (rc != 0) {
        plx_free(*out);
        *out = NULL;
        *n = 0;
    } else if (*n > 0) {
        qsort(*out, *n, sizeof **out, by_number);
    }
    return rc;
}

/* A pack comes to be under another name and is locked before it gets its own: a sweep must never
 * find it without its lock. */
static int begin_pack(struct store_dir *d, struct plx_err *err)
{
    char tmp[DIR_PATH_MAX], path[DIR_PATH_MAX];
    uint8_t header[PACK_HEADER];
    struct flock l;
    uint32_t *packs;
    size_t n;
    int rc = store_dir_packs(d, &packs, &n, err);

    if (rc != 0) {
        return rc;
    }
    uint32_t number = n == 0 ? 1 : packs[n - 1] + 1;
    plx_free(packs);
    (void)snprintf(tmp, sizeof tmp, "%s/packs/new.XXXXXX", d->path);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0640) != 0 || !whole_file_lock(fd, F_OFD_SETLK, &l)) {
        rc = plx_fail_errno(err, "cannot make a pack in %s/packs", d->path);
    }
    while (rc == 0) {
        pack_header_put(header, number);
        store_dir_pack_path(d, number, path);
        if (io_pwrite_full(fd, header, sizeof header, 0) != 0) {
            rc = plx_fail_errno(err, "cannot write %s", tmp);
        } else if (link(tmp, path) == 0) {
            break;
        } else if (errno != EEXIST) {
            rc = plx_fail_errno(err, "cannot make %s", path);
        }
        number++;
    }
    if (fd >= 0) {
        (void)unlink(tmp);
    }
    if (rc == 0) {
        rc = store_dir_sync(d, "packs", err);
    }
    if (rc != 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return rc;
    }
    d->writer = (struct dir_writer){
        .fd = fd, .number = number, .end = PACK_HEADER, .begun = PACK_HEADER, .buf = d->writer.buf};
    d->newest = number;
    return 0;
}

void store_dir_end_pack(struct store_dir *d)
{
    if (d->writer.fd >= 0) {
        (void)close(d->writer.fd); /* and so the lock */
        d->writer.fd = -1;
    }
    d->writer.held = 0;
}

int store_dir_flush(struct store_dir *d, struct plx_err *err)
{
    struct dir_writer *w = &d->writer;

    if (w->fd < 0) {
        return 0;
    }
    if (w->held > 0 && io_pwrite_full(w->fd, w->buf, w->held, w->end - w->held) != 0) {
        return plx_fail_errno(err, "cannot write to %s/packs/%08x", d->path, w->number);
    }
    w->held = 0;
    if (w->end - w->begun >= WRITE_BEHIND) { /* a commit then has less to wait for */
        (void)sync_file_range(w->fd, (off_t)w->begun, (off_t)(w->end - w->begun),
                              SYNC_FILE_RANGE_WRITE);
        w->begun = w->end;
    }
    return 0;
}

/* Room for @len bytes behind what is held. */
static int hold_more(struct store_dir *d, size_t len, struct plx_err *err)
{
    struct dir_writer *w = &d->writer;
    int rc = w->held + len > HELD_MAX ? store_dir_flush(d, err) : 0;

    if (rc == 0 && w->buf == NULL &&
        (w->buf = plx_calloc(1, PACK_RECORD + SEG_STORED_MAX)) == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    }
    return rc;
}

int store_dir_append(struct store_dir *d, const struct seg_id *id, const struct seg_form *form,
                     struct index_entry *out, struct plx_err *err)
{
    struct pack_record r = {.id = *id,
                            .codec = form->codec,
                            .raw_len = form->raw_len,
                            .stored_len = form->stored_len,
                            .data_hash = pack_data_hash(form->data, form->stored_len)};
    struct dir_writer *w = &d->writer;
    size_t len = PACK_RECORD + (size_t)r.stored_len;
    int rc = w->fd < 0 ? begin_pack(d, err) : 0;

    if (rc == 0) {
        rc = hold_more(d, len, err);
    }
    if (rc != 0) {
        return rc;
    }
    uint8_t *at = w->buf + w->held;
    pack_record_put(at, w->number, w->end, &r);
    memcpy(at + PACK_RECORD, form->data, form->stored_len);
    *out = (struct index_entry){.id = *id,
                                .pack = w->number,
                                .raw_len = r.raw_len,
                                .stored_len = r.stored_len,
                                .off = w->end};
    w->held += len;
    w->end += len;
    return 0;
}

/* --- reading -------------------------------------------------------------------------------- */

static void close_pack(struct open_pack *p)
{
    (void)close(p->fd);
    *p = (struct open_pack){.fd = -1};
}

/* An open descriptor of a pack, kept open. -1 with errno. */
static struct open_pack *hold_pack(struct store_dir *d, uint32_t number, struct open_pack *own)
{
    struct open_pack *oldest = NULL, *found = NULL;
    char path[DIR_PATH_MAX];

    (void)pthread_mutex_lock(&d->lock);
    for (int i = 0; i < DIR_OPEN_PACKS && found == NULL; i++) {
        struct open_pack *p = &d->open[i];
        if (p->fd >= 0 && p->number == number) {
            found = p;
        } else if (p->users == 0 && (oldest == NULL || p->used < oldest->used)) {
            oldest = p;
        }
    }
    if (found == NULL) {
        store_dir_pack_path(d, number, path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            found = oldest != NULL ? oldest : own;
            if (found->fd >= 0) {
                close_pack(found);
            }
            *found = (struct open_pack){.number = number, .fd = fd};
        }
    }
    if (number == d->writer.number) { /* what was put a moment ago may be what is read */
        (void)store_dir_flush(d, NULL);
    }
    if (found != NULL) {
        found->users++;
        found->used = ++d->open_clock;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return found;
}

/* @gone: nobody is to find it any more. */
static void drop_pack(struct store_dir *d, struct open_pack *p, const struct open_pack *own,
                      bool gone)
{
    (void)pthread_mutex_lock(&d->lock);
    p->users--;
    p->number = gone ? 0 : p->number;
    if (p == own || (p->number == 0 && p->users == 0)) {
        close_pack(p);
    }
    (void)pthread_mutex_unlock(&d->lock);
}

/* Has the file of this name become another one since @fd was opened? The number of the newest pack
 * is used again when a sweep has removed it. */
static bool replaced(const struct store_dir *d, uint32_t number, int fd)
{
    char path[DIR_PATH_MAX];
    struct stat now, then;

    store_dir_pack_path(d, number, path);
    return fstat(fd, &then) == 0 &&
           (stat(path, &now) != 0 || now.st_ino != then.st_ino || now.st_dev != then.st_dev);
}

void store_dir_forget_pack(struct store_dir *d, uint32_t number)
{
    (void)pthread_mutex_lock(&d->lock);
    for (int i = 0; i < DIR_OPEN_PACKS; i++) {
        if (d->open[i].fd >= 0 && d->open[i].number == number && d->open[i].users == 0) {
            close_pack(&d->open[i]);
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
}

int store_dir_read(struct store_dir *d, const struct index_entry *e, struct wbuf *out,
                   struct seg_form *form, struct plx_err *err)
{
    bool gone = true;
    int rc = 0;

    for (int tries = 0; tries < 2 && gone; tries++) {
        struct open_pack own = {.fd = -1};
        struct open_pack *p = hold_pack(d, e->pack, &own);
        if (p == NULL) {
            return plx_fail_errno(err, "cannot open %s/packs/%08x", d->path, e->pack);
        }
        rc = pack_read(p->fd, e->pack, e->off, e->stored_len, &e->id, out, form, err);
        gone = rc == PLX_ECORRUPT && replaced(d, e->pack, p->fd);
        drop_pack(d, p, &own, gone);
    }
    return rc != 0 ? plx_err_wrap(err, rc, "store %s", d->path) : 0;
}
