/* SPDX-License-Identifier: Apache-2.0
 * storage/io_queue.c - many requests at once (io.h): a ring of the kernel for reads, writes and
 * syncs of the host's files; threads for what may block, for calls, for files without a
 * descriptor, and for everything where there is no ring. What the page cache can do at once is done
 * at once: reads of what is there, and small writes, for which a file system would only hand the
 * ring's request to a thread of the kernel. Large requests are given to such threads in any case,
 * so that several copy at a time.
 *
 * The owner's thread alone touches the ring, @ready and @pending; @lock guards the lists that
 * workers see. Workers are started when they are first needed. */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "storage/io.h"

enum { WORKERS = 4 };

struct list {
    struct io_request *first, **last;
};

struct io_queue {
    bool uring;
    bool no_nowait; /* a file system does not say what is in memory: the ring knows */
    struct io_uring ring;
    unsigned depth, in_ring;
    int event;
    struct list ready;        /* submitted, not started */
    struct list nothing;      /* done as they came */
    unsigned pending, blocks; /* all; those with workers */
    pthread_t threads[WORKERS];
    unsigned nthreads;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work;
    struct list todo, done;
    unsigned idle;
    bool stopping;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_add(struct list *l, struct io_request *r)
{
    r->next = NULL;
    *l->last = r;
    l->last = &r->next;
}

static struct io_request *list_take(struct list *l)
{
    struct io_request *r = l->first;

    if (r != NULL) {
        l->first = r->next;
        if (l->first == NULL) {
            l->last = &l->first;
        }
    }
    return r;
}

/* --- workers -------------------------------------------------------------------------------- */

static int carry_out(struct io_request *r)
{
    struct plx_err *err = r->err;

    switch (r->kind) {
    case IO_KIND_READ:
        return io_read(r->file, (uint8_t *)r->buf + r->moved, r->len - r->moved, r->off + r->moved,
                       err);
    case IO_KIND_WRITE:
        return io_write(r->file, (uint8_t *)r->buf + r->moved, r->len - r->moved, r->off + r->moved,
                        err);
    case IO_KIND_SYNC:
        return io_sync(r->file, err);
    case IO_KIND_CALL:
        return r->call(r, err);
    case IO_KIND_NOTHING:
        return 0;
    }
    return PLX_EINVAL;
}

static void *worker(void *arg)
{
    struct io_queue *q = arg;
    const uint64_t one = 1;

    (void)pthread_mutex_lock(&q->lock);
    for (;;) {
        struct io_request *r = list_take(&q->todo);
        if (r == NULL) {
            if (q->stopping) {
                break;
            }
            q->idle++;
            (void)pthread_cond_wait(&q->work, &q->lock);
            q->idle--;
            continue;
        }
        (void)pthread_mutex_unlock(&q->lock);
        r->rc = carry_out(r);
        (void)pthread_mutex_lock(&q->lock);
        list_add(&q->done, r);
        (void)io_write_full(q->event, &one, sizeof one);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return NULL;
}

static void to_workers(struct io_queue *q, struct io_request *r)
{
    sigset_t all, old;

    if (r->err == NULL) {
        r->err = plx_calloc(1, sizeof *r->err); /* without: the number has to do */
    }
    (void)pthread_mutex_lock(&q->lock);
    list_add(&q->todo, r);
    q->blocks++;
    if (q->idle == 0 && q->nthreads < WORKERS) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        q->nthreads += pthread_create(&q->threads[q->nthreads], NULL, worker, q) == 0;
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    (void)pthread_cond_signal(&q->work);
    (void)pthread_mutex_unlock(&q->lock);
    if (q->nthreads == 0) { /* no thread to be had: here, then */
        const uint64_t one = 1;
        PLX_CHECK(list_take(&q->todo) == r);
        r->rc = carry_out(r);
        list_add(&q->done, r);
        (void)io_write_full(q->event, &one, sizeof one);
    }
}

/* --- the ring ------------------------------------------------------------------------------- */

static void prepare(struct io_uring_sqe *e, struct io_request *r)
{
    uint8_t *buf = (uint8_t *)r->buf + r->moved;
    size_t left = r->len - r->moved;
    unsigned len = left > 1U << 30 ? 1U << 30 : (unsigned)left;

    switch (r->kind) {
    case IO_KIND_READ:
        io_uring_prep_read(e, r->file->fd, buf, len, r->off + r->moved);
        break;
    case IO_KIND_WRITE:
        io_uring_prep_write(e, r->file->fd, buf, len, r->off + r->moved);
        break;
    case IO_KIND_SYNC:
    case IO_KIND_CALL: /* the last two never come here */
    case IO_KIND_NOTHING:
        io_uring_prep_fsync(e, r->file->fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_flags(e, left > IO_AT_ONCE ? IOSQE_ASYNC : 0);
    io_uring_sqe_set_data(e, r);
}

/* Done without waiting for anything but memory; else r->moved says how far. */
static bool at_once(struct io_queue *q, struct io_request *r)
{
    struct iovec v = {(uint8_t *)r->buf + r->moved, r->len - r->moved};
    ssize_t n = 0;

    if (r->kind == IO_KIND_SYNC || v.iov_len > IO_AT_ONCE ||
        (r->kind == IO_KIND_READ && q->no_nowait)) {
        return false;
    }
    n = r->kind == IO_KIND_READ
            ? preadv2(r->file->fd, &v, 1, (off_t)(r->off + r->moved), RWF_NOWAIT)
            : pwrite(r->file->fd, v.iov_base, v.iov_len, (off_t)(r->off + r->moved));
    r->moved += n > 0 ? (size_t)n : 0;
    q->no_nowait = q->no_nowait || (n < 0 && errno == EOPNOTSUPP);
    return r->moved == r->len;
}

static void start_ready(struct io_queue *q)
{
    struct io_request *r;
    bool any = false;

    while (q->in_ring < q->depth && (r = q->ready.first) != NULL) {
        struct io_uring_sqe *e;
        if (at_once(q, r)) {
            (void)list_take(&q->ready);
            r->rc = 0;
            list_add(&q->nothing, r);
            continue;
        }
        e = io_uring_get_sqe(&q->ring);
        if (e == NULL) {
            break;
        }
        (void)list_take(&q->ready);
        prepare(e, r);
        q->in_ring++;
        any = true;
    }
    if (any || io_uring_sq_ready(&q->ring) != 0) {
        (void)io_uring_submit(&q->ring); /* what it leaves is submitted with the next */
    }
}

static void finish(struct io_queue *q, struct io_request *r)
{
    static const struct plx_err none;
    struct plx_err *err = r->err;

    r->err = NULL;
    q->pending--;
    r->done(r, r->rc, err != NULL ? err : &none);
    plx_free(err);
}

/* One completion of the ring; true when its request is over. Failures and ends of files go to a
 * worker, which does the rest again and words the error. */
static bool completed(struct io_queue *q, struct io_request *r, int res)
{
    q->in_ring--;
    if (res == -EINTR || res == -EAGAIN) {
        list_add(&q->ready, r);
        return false;
    }
    if (res < 0 || (res == 0 && r->kind != IO_KIND_SYNC && r->len > r->moved)) {
        to_workers(q, r);
        return false;
    }
    if (r->kind != IO_KIND_SYNC) {
        r->moved += (size_t)res;
        if (r->moved < r->len) {
            list_add(&q->ready, r);
            return false;
        }
    }
    r->rc = 0;
    return true;
}

static unsigned reap_ring(struct io_queue *q)
{
    struct io_uring_cqe *e;
    unsigned n = 0;

    while (io_uring_peek_cqe(&q->ring, &e) == 0) {
        struct io_request *r = io_uring_cqe_get_data(e);
        int res = e->res;
        io_uring_cqe_seen(&q->ring, e);
        if (completed(q, r, res)) {
            finish(q, r);
            n++;
        }
    }
    return n;
}

/* --- the queue ------------------------------------------------------------------------------ */

static bool start_ring(struct io_queue *q)
{
    if (io_uring_queue_init(q->depth, &q->ring, 0) != 0) {
        return false;
    }
    if (io_uring_register_eventfd_async(&q->ring, q->event) != 0) {
        io_uring_queue_exit(&q->ring);
        return false;
    }
    return true;
}

int io_queue_create(enum io_queue_kind kind, unsigned depth, struct io_queue **out,
                    struct plx_err *err)
{
    struct io_queue *q = plx_calloc(1, sizeof *q);

    *out = NULL;
    if (q == NULL) {
        return plx_fail(err, PLX_ENOMEM, "queue of requests: out of memory");
    }
    q->depth = depth;
    q->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->event < 0) {
        plx_free(q);
        return plx_fail_errno(err, "queue of requests");
    }
    q->uring = kind != IO_QUEUE_THREADS && start_ring(q);
    if (kind == IO_QUEUE_URING && !q->uring) {
        (void)close(q->event);
        plx_free(q);
        return plx_fail(err, PLX_ENOTSUP, "this kernel does not let us use io_uring");
    }
    list_init(&q->ready);
    list_init(&q->nothing);
    list_init(&q->todo);
    list_init(&q->done);
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_cond_init(&q->work, NULL);
    *out = q;
    return 0;
}

void io_queue_destroy(struct io_queue *q)
{
    if (q == NULL) {
        return;
    }
    while (q->pending != 0) {
        (void)io_queue_run(q, true);
    }
    (void)pthread_mutex_lock(&q->lock);
    q->stopping = true;
    (void)pthread_cond_broadcast(&q->work);
    (void)pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < q->nthreads; i++) {
        (void)pthread_join(q->threads[i], NULL);
    }
    if (q->uring) {
        io_uring_queue_exit(&q->ring);
    }
    (void)close(q->event);
    (void)pthread_cond_destroy(&q->work);
    (void)pthread_mutex_destroy(&q->lock);
    plx_free(q);
}

void io_queue_submit(struct io_queue *q, struct io_request *r)
{
    q->pending++;
    r->moved = 0;
    r->rc = 0;
    r->err = NULL;
    if (r->kind == IO_KIND_NOTHING) {
        const uint64_t one = 1;
        list_add(&q->nothing, r);
        (void)io_write_full(q->event, &one, sizeof one);
    } else if (q->uring && r->kind != IO_KIND_CALL && r->file->fd >= 0) {
        list_add(&q->ready, r);
    } else {
        to_workers(q, r);
    }
}

static unsigned reap_workers(struct io_queue *q)
{
    struct list nothing = q->nothing;
    struct io_request *r;
    unsigned n = 0;

    list_init(&q->nothing); /* what their callbacks submit comes with the next run */
    for (; nothing.first != NULL; n++) {
        r = list_take(&nothing);
        finish(q, r);
    }

    while (q->blocks != 0) {
        (void)pthread_mutex_lock(&q->lock);
        r = list_take(&q->done);
        (void)pthread_mutex_unlock(&q->lock);
        if (r == NULL) {
            break;
        }
        q->blocks--;
        finish(q, r);
        n++;
    }
    return n;
}

static unsigned look(struct io_queue *q)
{
    unsigned n = 0;

    if (q->uring) {
        start_ready(q);
        n = reap_ring(q);
    }
    return n + reap_workers(q);
}

unsigned io_queue_run(struct io_queue *q, bool wait)
{
    uint64_t count;
    unsigned n = look(q);

    /* The event is only read when there seemed to be nothing: it may tell of what was seen
     * already, and what comes after reading it sets it again. */
    while (n == 0) {
        (void)io_read_some(q->event, &count, sizeof count);
        n = look(q);
        if (n != 0 || !wait || q->pending == 0) {
            break;
        }
        /* The ring and the workers both write to it. */
        struct pollfd p = {.fd = q->event, .events = POLLIN};
        (void)poll(&p, 1, -1);
    }
    if (q->uring && q->ready.first != NULL) { /* from a callback, or the rest of a short one */
        start_ready(q);
        if (q->nothing.first != NULL) {
            const uint64_t one = 1;
            (void)io_write_full(q->event, &one, sizeof one);
        }
    }
    return n;
}

unsigned io_queue_pending(const struct io_queue *q)
{
    return q->pending;
}

int io_queue_fd(const struct io_queue *q)
{
    return q->event;
}
