/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/diskfile.c - see diskfile.h. Requests wait in one list in order of submission;
 * each worker takes the first that no earlier unfinished request conflicts with. The scrub of an
 * overlay is one more request in that list, made by the workers themselves when it is due. */
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
#include "base/chaos.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "vmm/dev/backend/diskfile_priv.h"
#include "vmm/tunables.h"

enum {
    SCRUB_BLOCKS = 256, /* read in one go ... */
    SCRUB_SPAN = 4096,  /* ... and among at most so many, which a write would wait for */
    SCRUB_PASSES = 2,   /* in scrub_ns: what is changed just after it was read is found in time */
    SCRUB_LOOKS = 8     /* and so often at least, for an overlay that was small */
};

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

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* When it is due, the next stretch of the overlay goes into the list like a read. The pace is set
 * by how much of the whole the stretch is, and bounded in bytes a second. */
static void scrub_locked(struct diskfile *d)
{
    uint64_t now, first, last, blocks = 1, all;

    if (d->overlay == NULL || d->scrub.queued || d->scrub.failed || d->stopping) {
        return;
    }
    now = clock_mono_ns();
    if (now < d->scrub.due_ns) {
        return;
    }
    all = overlay_allocated(d->overlay);
    d->scrub.due_ns = now + d->scrub.period_ns / SCRUB_LOOKS;
    if (all == 0) {
        return;
    }
    d->scrub.r = (struct request){.op = DISK_READ, .reported = true};
    first = last = overlay_next(d->overlay, d->scrub.next);
    if (first == d->overlay->blocks) { /* settle, and begin anew */
        d->scrub.next = 0;
    } else {
        for (uint64_t b = overlay_next(d->overlay, first + 1);
             b < d->overlay->blocks && b < first + SCRUB_SPAN && blocks < SCRUB_BLOCKS;
             b = overlay_next(d->overlay, b + 1)) {
            last = b;
            blocks++;
        }
        d->scrub.r.off = first * OVERLAY_BLOCK;
        d->scrub.r.bytes = (last - first + 1) * OVERLAY_BLOCK;
        d->scrub.next = last + 1;
        uint64_t pace = (uint64_t)((__uint128_t)d->scrub.period_ns * blocks / SCRUB_PASSES / all);
        uint64_t least = blocks * OVERLAY_BLOCK * UINT64_C(1000000000) / OVERLAY_SCRUB_BYTES_S;
        pace = max_u64(pace, least);
        d->scrub.due_ns =
            now +
            (pace < d->scrub.period_ns / SCRUB_LOOKS ? pace : d->scrub.period_ns / SCRUB_LOOKS);
    }
    d->scrub.queued = true;
    *d->last = &d->scrub.r;
    d->last = &d->scrub.r.next;
}

static void wait_for_work_locked(struct diskfile *d)
{
    struct timespec until;

    if (d->overlay == NULL || d->scrub.queued || d->scrub.failed || d->scrub.waited_for) {
        (void)pthread_cond_wait(&d->work, &d->lock);
        return;
    }
    until = (struct timespec){.tv_sec = (time_t)(d->scrub.due_ns / 1000000000),
                              .tv_nsec = (long)(d->scrub.due_ns % 1000000000)};
    d->scrub.waited_for = true;
    (void)pthread_cond_timedwait(&d->work, &d->lock, &until);
    d->scrub.waited_for = false;
}

static void unlink_locked(struct diskfile *d, const struct request *r)
{
    struct request **at = &d->first;

    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    if (r->next == NULL) {
        d->last = at;
    }
}

static void *worker(void *arg)
{
    struct diskfile *d = arg;
    const uint64_t one = 1;

    (void)pthread_mutex_lock(&d->lock);
    for (;;) {
        struct request *r;
        scrub_locked(d);
        r = runnable_locked(d);
        if (r == NULL) {
            if (d->stopping) {
                break;
            }
            wait_for_work_locked(d);
            continue;
        }
        r->state = RUNNING;
        (void)pthread_mutex_unlock(&d->lock);
        chaos_delay(CHAOS_DISK_START);
        int error = disk_carry_out(d, r) != 0 ? errno : 0;
        chaos_delay(CHAOS_DISK_DONE);
        (void)pthread_mutex_lock(&d->lock);
        r->error = error;
        r->state = DONE;
        r->finish_seq = ++d->finish_seq;
        d->failed += error != 0;
        (void)pthread_cond_broadcast(&d->work); /* what it held up may run now */
        if (r == &d->scrub.r && error == 0) {   /* of no interest to anybody */
            d->scrub.queued = false;
            unlink_locked(d, r);
            continue;
        }
        d->scrub.failed = d->scrub.failed || r == &d->scrub.r;
        (void)pthread_cond_broadcast(&d->finished);
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

static const struct diskfile_opener *opener;

void diskfile_set_opener(const struct diskfile_opener *o)
{
    opener = o;
}

static int open_image(struct diskfile *d, const char *path, bool write, struct plx_err *err)
{
    int rc = opener->open(path, write, &d->image, err);

    if (rc == 0 && (d->image.base.bytes == 0 || d->image.base.bytes % SECTOR != 0)) {
        rc = plx_fail(err, PLX_EINVAL, "disk %s is not made of sectors of %d bytes", path, SECTOR);
    } else if (rc == 0) {
        d->base = &d->image.base;
    }
    return rc;
}

static int open_raw(struct diskfile *d, const struct diskfile_config *cfg, bool write,
                    struct plx_err *err)
{
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
    return 0;
}

static int open_files(struct diskfile *d, const struct diskfile_config *cfg, struct plx_err *err)
{
    bool write = cfg->overlay == NULL && !cfg->readonly;
    int rc = 0;

    PLX_CHECK(cfg->base == NULL || cfg->overlay != NULL);
    d->base = cfg->base;
    if (d->base == NULL) {
        rc = opener != NULL && opener->knows(cfg->path) ? open_image(d, cfg->path, write, err)
                                                        : open_raw(d, cfg, write, err);
    }
    if (rc != 0) {
        return rc;
    }
    d->bytes = d->base != NULL ? d->base->bytes : d->bytes;
    if (cfg->overlay == NULL) {
        return 0;
    }
    if (cfg->create_overlay) {
        rc = overlay_create(cfg->overlay, d->bytes, cfg->base_sha256, err);
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
    while (rc == 0 && d->nthreads < (d->base != NULL ? DISK_WORKERS_BASE : DISK_WORKERS)) {
        rc = pthread_create(&d->threads[d->nthreads], NULL, worker, d);
        d->nthreads += rc == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? 0 : plx_fail(err, PLX_ENOMEM, "disk %s: no thread", d->path);
}

static void init_work(pthread_cond_t *work)
{
    pthread_condattr_t a;

    PLX_CHECK(pthread_condattr_init(&a) == 0 &&
              pthread_condattr_setclock(&a, CLOCK_MONOTONIC) == 0 &&
              pthread_cond_init(work, &a) == 0);
    (void)pthread_condattr_destroy(&a);
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
    d->scrub.period_ns = cfg->scrub_ns != 0 ? cfg->scrub_ns : OVERLAY_SCRUB_NS;
    d->scrub.due_ns = clock_mono_ns() + d->scrub.period_ns / SCRUB_LOOKS;
    d->scrub.buf = cfg->overlay != NULL ? plx_calloc(1, SCRUB_BUF) : NULL;
    (void)pthread_mutex_init(&d->lock, NULL);
    init_work(&d->work);
    (void)pthread_cond_init(&d->finished, NULL);
    d->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->path = plx_strdup(cfg->path);
    if (d->event < 0 || d->path == NULL || (cfg->overlay != NULL && d->scrub.buf == NULL)) {
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
        if (overlay_flush(d->overlay) == 0) {
            (void)overlay_settle(d->overlay, true);
        }
    }
    while (d->first != NULL) {
        struct request *r = d->first;
        d->first = r->next;
        if (r != &d->scrub.r) {
            free_request(r);
        }
    }
    overlay_close(d->overlay);
    if (d->image.close != NULL) {
        d->image.close(d->image.base.ctx);
    }
    if (d->fd >= 0) {
        (void)close(d->fd);
    }
    if (d->event >= 0) {
        (void)close(d->event);
    }
    (void)pthread_cond_destroy(&d->work);
    (void)pthread_cond_destroy(&d->finished);
    (void)pthread_mutex_destroy(&d->lock);
    plx_free(d->scrub.buf);
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

    if (r->damaged) {
        return plx_fail(err, PLX_EIO,
                        "block %llu (sector %llu) of disk %s is damaged: overlay %s does not match "
                        "its checksum",
                        (unsigned long long)r->block,
                        (unsigned long long)(r->block * OVERLAY_BLOCK / SECTOR), d->path,
                        d->overlay->path);
    }
    errno = r->error;
    (void)plx_fail_errno(err, "cannot %s disk %s at sector %llu", verbs[r->op], d->path,
                         (unsigned long long)(r->off / SECTOR));
    return PLX_EIO;
}

int diskfile_result(struct diskfile *d, uint64_t id, void *data, uint32_t len, struct plx_err *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    struct request *r = *find_locked(d, id);
    if (r == NULL) {
        rc = plx_fail(err, PLX_ENOENT, "disk %s: no request %llu", d->path, (unsigned long long)id);
    } else if (len != 0 && (r->op != DISK_READ || len != r->bytes)) {
        rc = plx_fail(err, PLX_EINVAL, "disk %s: request %llu has no %u bytes", d->path,
                      (unsigned long long)id, len);
    }
    while (rc == 0 && r->state != DONE) {
        (void)pthread_cond_wait(&d->finished, &d->lock);
    }
    if (rc == 0 && r->error != 0) {
        rc = request_error(d, r, err);
    } else if (rc == 0) {
        unlink_locked(d, r);
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
        while (r != &d->scrub.r && r->state != DONE) {
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
