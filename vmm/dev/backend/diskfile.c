/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/diskfile.c - see diskfile.h. Requests wait in one list in order of submission;
 * each worker takes the first that no earlier unfinished request conflicts with. */
#include "vmm/dev/backend/diskfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "vmm/dev/backend/overlay.h"

enum { WORKERS = 2, SECTOR = 512 };

enum request_state { WAITING, RUNNING, DONE };

struct request {
    struct request *next;
    uint64_t id;
    enum disk_op op;
    uint64_t off, bytes; /* of the disk; bytes 0: a flush */
    uint8_t *data;       /* of bytes; NULL for flush, discard, zero */
    enum request_state state;
    bool reported;
    int error; /* errno; 0: done well */
    uint64_t finish_seq;
};

struct diskfile {
    int fd; /* base, or the image itself */
    struct overlay *overlay;
    char *path;
    bool readonly;
    uint64_t bytes;
    int event;
    pthread_t threads[WORKERS];
    unsigned nthreads;
    pthread_mutex_t lock; /* of all below and the states of requests */
    pthread_cond_t work, finished;
    bool stopping;
    struct request *first, **last;
    uint64_t finish_seq;
    unsigned failed;
};

/* --- carrying out, on a worker, unlocked --------------------------------------------------- */

static int read_at(int fd, uint8_t *data, uint64_t len, uint64_t off)
{
    ssize_t n = io_pread_full(fd, data, len, off);

    if (n >= 0 && (uint64_t)n < len) {
        errno = EIO; /* the file shrank under us */
        return -1;
    }
    return n < 0 ? -1 : 0;
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

static int do_read(struct diskfile *d, uint8_t *data, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;
    int rc = 0;

    if (d->overlay == NULL) {
        return read_at(d->fd, data, len, off);
    }
    while (off < end && rc == 0) {
        bool has;
        uint64_t part = run_of(d->overlay, off, end, &has);
        rc = read_at(has ? d->overlay->fd : d->fd, data, part,
                     has ? d->overlay->data_off + off : off);
        data += part;
        off += part;
    }
    return rc;
}

/* Change part of one block: @data, or zeros when NULL. */
static int write_part(struct diskfile *d, const uint8_t *data, uint64_t off, uint64_t len)
{
    uint64_t block = off / OVERLAY_BLOCK;
    uint64_t start = block * OVERLAY_BLOCK;
    uint8_t buf[OVERLAY_BLOCK] = {0};
    uint64_t have = d->bytes - start < OVERLAY_BLOCK ? d->bytes - start : OVERLAY_BLOCK;

    if (do_read(d, buf, start, have) != 0) {
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
    overlay_mark(d->overlay, block);
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

/* Write @data, or zeros when it is NULL. */
static int do_write(struct diskfile *d, const uint8_t *data, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;

    if (d->overlay == NULL) {
        return data != NULL ? io_pwrite_full(d->fd, data, len, off) : write_zeros(d->fd, off, len);
    }
    while (off < end) {
        uint64_t block = off / OVERLAY_BLOCK;
        uint64_t part = (block + 1) * OVERLAY_BLOCK - off;
        int rc;
        if (off % OVERLAY_BLOCK != 0 || end - off < OVERLAY_BLOCK) {
            part = part < end - off ? part : end - off;
            rc = write_part(d, data, off, part);
        } else {
            uint64_t at = d->overlay->data_off + off;
            part = (end - off) / OVERLAY_BLOCK * OVERLAY_BLOCK;
            rc = data != NULL ? io_pwrite_full(d->overlay->fd, data, part, at)
                              : write_zeros(d->overlay->fd, at, part);
            for (uint64_t b = block; rc == 0 && b < block + part / OVERLAY_BLOCK; b++) {
                overlay_mark(d->overlay, b);
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

static int do_flush(struct diskfile *d)
{
    if (d->readonly) {
        return 0;
    }
    return d->overlay != NULL ? overlay_flush(d->overlay) : fdatasync(d->fd);
}

static int carry_out(struct diskfile *d, struct request *r)
{
    switch (r->op) {
    case DISK_READ:
        return do_read(d, r->data, r->off, r->bytes);
    case DISK_WRITE:
        return do_write(d, r->data, r->off, r->bytes);
    case DISK_DISCARD:
    case DISK_ZERO:
        return do_write(d, NULL, r->off, r->bytes);
    case DISK_FLUSH:
        return do_flush(d);
    }
    errno = EINVAL;
    return -1;
}

/* --- the list ----------------------------------------------------------------------------- */

static bool conflict(const struct request *a, const struct request *b)
{
    if (a->bytes == 0 || b->bytes == 0 || (a->op == DISK_READ && b->op == DISK_READ)) {
        return false;
    }
    return a->off / OVERLAY_BLOCK <= (b->off + b->bytes - 1) / OVERLAY_BLOCK &&
           b->off / OVERLAY_BLOCK <= (a->off + a->bytes - 1) / OVERLAY_BLOCK;
}

static struct request *runnable_locked(struct diskfile *d)
{
    for (struct request *r = d->first; r != NULL; r = r->next) {
        bool free_to_run = r->state == WAITING;
        for (struct request *e = d->first; free_to_run && e != r; e = e->next) {
            free_to_run = e->state == DONE || !conflict(e, r);
        }
        if (free_to_run) {
            return r;
        }
    }
    return NULL;
}

static void *worker(void *arg)
{
    struct diskfile *d = arg;
    const uint64_t one = 1;

    (void)pthread_mutex_lock(&d->lock);
    for (;;) {
        struct request *r = runnable_locked(d);
        if (r == NULL) {
            if (d->stopping) {
                break;
            }
            (void)pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        r->state = RUNNING;
        (void)pthread_mutex_unlock(&d->lock);
        int error = carry_out(d, r) != 0 ? errno : 0;
        (void)pthread_mutex_lock(&d->lock);
        r->error = error;
        r->state = DONE;
        r->finish_seq = ++d->finish_seq;
        d->failed += error != 0;
        (void)pthread_cond_broadcast(&d->finished);
        (void)pthread_cond_broadcast(&d->work); /* what it held up may run now */
        (void)io_write_full(d->event, &one, sizeof one);
    }
    (void)pthread_mutex_unlock(&d->lock);
    return NULL;
}

static void free_request(struct request *r)
{
    plx_free(r->data);
    plx_free(r);
}

static struct request **find_locked(struct diskfile *d, uint64_t id)
{
    struct request **at = &d->first;

    while (*at != NULL && (*at)->id != id) {
        at = &(*at)->next;
    }
    return at;
}

/* --- life --------------------------------------------------------------------------------- */

static int open_files(struct diskfile *d, const struct diskfile_config *cfg, struct plx_err *err)
{
    bool write = cfg->overlay == NULL && !cfg->readonly;

    d->fd = open(cfg->path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (d->fd < 0) {
        return plx_fail_errno(err, "cannot open disk %s", cfg->path);
    }
    off_t size = lseek(d->fd, 0, SEEK_END);
    if (size <= 0 || size % SECTOR != 0) {
        return plx_fail(err, PLX_EINVAL,
                        "disk %s has %lld bytes: not a raw image (a multiple of 512, not empty)",
                        cfg->path, (long long)size);
    }
    d->bytes = (uint64_t)size;
    if (flock(d->fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
        return plx_fail(err, PLX_EBUSY, "disk %s is in use by another process", cfg->path);
    }
    if (cfg->overlay == NULL) {
        return 0;
    }
    if (cfg->create_overlay) {
        int rc = overlay_create(cfg->overlay, d->bytes, cfg->base_sha256, err);
        if (rc != 0) {
            return rc;
        }
    }
    return overlay_open(cfg->overlay, d->bytes, cfg->base_sha256, &d->overlay, err);
}

static int start_workers(struct diskfile *d, struct plx_err *err)
{
    sigset_t all, old;
    int rc = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && d->nthreads < WORKERS) {
        rc = pthread_create(&d->threads[d->nthreads], NULL, worker, d);
        d->nthreads += rc == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? 0 : plx_fail(err, PLX_ENOMEM, "disk %s: no thread", d->path);
}

int diskfile_open(const struct diskfile_config *cfg, struct diskfile **out, struct plx_err *err)
{
    int rc;

    *out = NULL;
    struct diskfile *d = plx_calloc(1, sizeof *d);
    if (d == NULL) {
        return plx_fail(err, PLX_ENOMEM, "disk %s: out of memory", cfg->path);
    }
    d->fd = -1;
    d->last = &d->first;
    d->readonly = cfg->readonly;
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_cond_init(&d->work, NULL);
    (void)pthread_cond_init(&d->finished, NULL);
    d->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->path = plx_strdup(cfg->path);
    if (d->event < 0 || d->path == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "disk %s: out of memory or descriptors", cfg->path);
    } else {
        rc = open_files(d, cfg, err);
    }
    if (rc == 0) {
        rc = start_workers(d, err);
    }
    if (rc != 0) {
        diskfile_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void diskfile_close(struct diskfile *d)
{
    if (d == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&d->lock);
    d->stopping = true; /* workers leave when nothing is runnable, i.e. all is done */
    (void)pthread_cond_broadcast(&d->work);
    (void)pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->nthreads; i++) {
        (void)pthread_join(d->threads[i], NULL);
    }
    if (d->overlay != NULL) {
        (void)overlay_flush(d->overlay);
    }
    while (d->first != NULL) {
        struct request *r = d->first;
        d->first = r->next;
        free_request(r);
    }
    overlay_close(d->overlay);
    if (d->fd >= 0) {
        (void)close(d->fd);
    }
    if (d->event >= 0) {
        (void)close(d->event);
    }
    (void)pthread_cond_destroy(&d->work);
    (void)pthread_cond_destroy(&d->finished);
    (void)pthread_mutex_destroy(&d->lock);
    plx_free(d->path);
    plx_free(d);
}

uint64_t diskfile_sectors(const struct diskfile *d)
{
    return d->bytes / SECTOR;
}

int diskfile_fd(const struct diskfile *d)
{
    return d->event;
}

/* --- requests ----------------------------------------------------------------------------- */

int diskfile_submit(struct diskfile *d, const struct output *o, const void *data,
                    struct plx_err *err)
{
    bool moves_data = o->op == DISK_READ || o->op == DISK_WRITE;
    uint64_t bytes = moves_data ? o->len : o->op == DISK_FLUSH ? 0 : o->sectors * SECTOR;
    uint64_t sectors = diskfile_sectors(d);

    if (o->op > DISK_ZERO || bytes % SECTOR != 0 || (bytes == 0) != (o->op == DISK_FLUSH) ||
        o->sectors > sectors || o->pos > sectors || bytes / SECTOR > sectors - o->pos) {
        return plx_fail(err, PLX_EINVAL, "disk %s: request %llu is beyond the disk", d->path,
                        (unsigned long long)o->arg);
    }
    if (d->readonly && o->op != DISK_READ && o->op != DISK_FLUSH) {
        return plx_fail(err, PLX_EINVAL, "disk %s: request %llu changes a read-only disk", d->path,
                        (unsigned long long)o->arg);
    }
    struct request *r = plx_calloc(1, sizeof *r);
    uint8_t *copy = moves_data ? plx_calloc(1, bytes) : NULL;
    if (r == NULL || (moves_data && copy == NULL)) {
        plx_free(r);
        plx_free(copy);
        return plx_fail(err, PLX_ENOMEM, "disk %s: out of memory", d->path);
    }
    *r = (struct request){.id = o->arg,
                          .op = (enum disk_op)o->op,
                          .off = o->pos * SECTOR,
                          .bytes = bytes,
                          .data = copy};
    if (o->op == DISK_WRITE) {
        memcpy(copy, data, bytes);
    }
    (void)pthread_mutex_lock(&d->lock);
    if (*find_locked(d, r->id) != NULL) {
        (void)pthread_mutex_unlock(&d->lock);
        free_request(r);
        return plx_fail(err, PLX_EINVAL, "disk %s: request %llu twice", d->path,
                        (unsigned long long)o->arg);
    }
    *d->last = r;
    d->last = &r->next;
    (void)pthread_cond_signal(&d->work);
    (void)pthread_mutex_unlock(&d->lock);
    return 0;
}

unsigned diskfile_poll(struct diskfile *d, uint64_t *ids, unsigned cap)
{
    uint64_t count;
    unsigned n = 0;

    (void)pthread_mutex_lock(&d->lock);
    (void)io_read_some(d->event, &count, sizeof count);
    for (;;) {
        struct request *best = NULL;
        for (struct request *r = d->first; r != NULL; r = r->next) {
            if (r->state == DONE && !r->reported && r->error == 0 &&
                (best == NULL || r->finish_seq < best->finish_seq)) {
                best = r;
            }
        }
        if (best == NULL) {
            break;
        }
        if (n == cap) { /* there is more: stay readable */
            const uint64_t one = 1;
            (void)io_write_full(d->event, &one, sizeof one);
            break;
        }
        best->reported = true;
        ids[n++] = best->id;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return n;
}

static int request_error(const struct diskfile *d, const struct request *r, struct plx_err *err)
{
    static const char *const verbs[] = {"read", "write", "flush", "discard", "write zeroes to"};

    errno = r->error;
    (void)plx_fail_errno(err, "cannot %s disk %s at sector %llu", verbs[r->op], d->path,
                         (unsigned long long)(r->off / SECTOR));
    return PLX_EIO;
}

int diskfile_result(struct diskfile *d, uint64_t id, void *data, uint32_t len, struct plx_err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    struct request **at = find_locked(d, id);
    struct request *r = *at;
    if (r == NULL) {
        rc = plx_fail(err, PLX_ENOENT, "disk %s: no request %llu", d->path, (unsigned long long)id);
    } else if (len != 0 && (r->op != DISK_READ || len != r->bytes)) {
        rc = plx_fail(err, PLX_EINVAL, "disk %s: request %llu has no %u bytes", d->path,
                      (unsigned long long)id, len);
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): plx_fail never returns 0 */
    while (rc == 0 && r->state != DONE) {
        (void)pthread_cond_wait(&d->finished, &d->lock);
    }
    if (rc == 0 && r->error != 0) {
        rc = request_error(d, r, err);
    } else if (rc == 0) {
        at = find_locked(d, id); /* the list may have changed while waiting */
        *at = r->next;
        if (r->next == NULL) {
            d->last = at;
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (rc == 0) {
        if (len != 0) {
            memcpy(data, r->data, len);
        }
        free_request(r);
    }
    return rc;
}

int diskfile_error(struct diskfile *d, struct plx_err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    for (struct request *r = d->failed != 0 ? d->first : NULL; r != NULL && rc == 0; r = r->next) {
        if (r->state == DONE && r->error != 0) {
            rc = request_error(d, r, err);
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}

int diskfile_drain(struct diskfile *d, struct plx_err *err)
{
    (void)pthread_mutex_lock(&d->lock);
    for (struct request *r = d->first; r != NULL; r = r->next) {
        while (r->state != DONE) {
            (void)pthread_cond_wait(&d->finished, &d->lock);
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
    return diskfile_error(d, err);
}

int diskfile_stamp(struct diskfile *d, const struct disk_stamp *stamp, struct plx_err *err)
{
    return d->overlay != NULL ? overlay_write_stamp(d->overlay, stamp, err) : 0;
}

void diskfile_get_stamp(const struct diskfile *d, struct disk_stamp *out)
{
    *out = d->overlay != NULL ? d->overlay->stamp : (struct disk_stamp){.epoch = 0};
}

uint64_t diskfile_allocated(const struct diskfile *d)
{
    return d->overlay != NULL ? overlay_allocated(d->overlay) * OVERLAY_BLOCK : 0;
}
