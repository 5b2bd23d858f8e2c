/* SPDX-License-Identifier: Apache-2.0
 * storage/server_intake.c - see server_intake.h. */
#include "storage/server_intake.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#define COMMIT_EVERY_NS UINT64_C(2000000000) /* what the death of a server costs at most */

struct intake_job {
    struct intake_job *next;
    Img__ToServer *m; /* a Post that is no look; owned; NULL: done */
    struct intake_done done;
};

struct intake {
    struct store *store;
    int wake;
    pthread_t thread;
    bool started;
    bool dirty; /* the worker's: something is put and not committed */
    bool busy;  /* and: since the store was last told to rest */
    uint64_t committed_ns;
    pthread_mutex_t lock; /* of all below, and of clients' jobs */
    pthread_cond_t cond;
    bool stop;
    struct intake_client *turn, *last; /* a queue of clients */
    struct intake_job *done, **done_end;
};

/* --- one job -------------------------------------------------------------------------------- */

static int put_segment(struct intake *in, const Img__Segment *g, struct intake_done *d)
{
    struct seg_form form = {.codec = (enum seg_codec)g->codec,
                            .raw_len = g->raw_len,
                            .stored_len = (uint32_t)g->data.len,
                            .data = g->data.data};

    memcpy(d->put.sha, g->id.data, SHA256_LEN);
    d->put_bytes = form.stored_len;
    int rc = store_put_form(in->store, &d->put, &form, &d->err);
    d->new = rc == STORE_NEW;
    in->dirty = in->dirty || rc >= 0;
    in->busy = in->busy || in->dirty;
    return rc < 0 ? rc : 0;
}

/* 1: all of a blob is there; 0: *missing is not. */
static int has_blob(struct store *s, const struct store_blob *b, struct seg_id *missing,
                    struct plx_err *err)
{
    int has = 1;

    for (uint32_t i = 0; i < b->nparts && has == 1; i++) {
        has = store_has(s, &b->parts[i], err);
        *missing = b->parts[i];
    }
    return has;
}

static int has_blobs(struct store *s, const struct image_ref *ref, struct seg_id *missing,
                     struct plx_err *err)
{
    int has = has_blob(s, &ref->manifest, missing, err);

    return has == 1 ? has_blob(s, &ref->profile, missing, err) : has;
}

/* All that others will rely on is looked at before the name is set. */
static int check_image(struct store *s, const struct image_ref *ref, struct manifest *m,
                       struct plx_err *err)
{
    uint32_t *order = NULL;
    size_t n;
    int rc = image_manifest(s, ref, m, err);

    if (rc != 0) {
        return rc;
    }
    rc = image_profile(s, ref, m->streams[STREAM_DISK].n, &order, &n, err);
    plx_free(order);
    if (rc == 0 && m->streams[STREAM_DISK].bytes != ref->bytes) {
        rc = plx_fail(err, PLX_ECORRUPT, "image %s:%s: its manifest has another size", ref->name,
                      ref->tag);
    }
    return rc;
}

static int name_image(struct intake *in, const ProtobufCBinaryData *value, struct intake_done *d)
{
    struct manifest m = {.chunk_avg = 0};
    struct image_ref ref;
    int rc = image_ref_get(value->data, value->len, &ref, &d->err);

    if (rc != 0) {
        return rc;
    }
    int has = has_blobs(in->store, &ref, &d->missing, &d->err);
    if (has == 1) {
        rc = check_image(in->store, &ref, &m, &d->err);
        if (rc == PLX_ENOENT) { /* a sweep since we looked: he puts it again */
            d->lacks = has_blobs(in->store, &ref, &d->missing, NULL) == 0;
        } else if (rc == 0) {
            rc = image_adopt(in->store, &ref, &m, &d->missing, &d->err);
            d->lacks = rc == PLX_ENOENT;
            d->named = rc == 0;
        }
        manifest_free(&m);
    } else {
        rc = has;
        d->lacks = has == 0;
    }
    image_ref_free(&ref);
    return d->lacks ? 0 : rc;
}

static void do_job(struct intake *in, struct intake_job *j)
{
    const Img__Post *post = j->m->post;
    struct intake_done *d = &j->done;

    d->number = post->number;
    switch (post->what_case) {
    case IMG__POST__WHAT_PUT:
        d->bytes = post->put->data.len;
        d->rc = put_segment(in, post->put, d);
        break;
    case IMG__POST__WHAT_SYNC:
        d->rc = store_commit(in->store, &d->err);
        break;
    case IMG__POST__WHAT_NAME:
        d->bytes = post->name.len;
        d->rc = name_image(in, &post->name, d);
        break;
    default: /* looks are answered at once */
        d->rc = plx_fail(&d->err, PLX_EINVAL, "not a post");
        break;
    }
    if (d->rc != 0 && d->rc != PLX_ECORRUPT) { /* what is the client's fault he hears */
        log_warn("a push: %s", d->err.msg);
    }
    img__to_server__free_unpacked(j->m, NULL);
    j->m = NULL;
}

static void commit_some(struct intake *in)
{
    uint64_t now = clock_mono_ns();
    struct plx_err err;

    if (in->dirty && now - in->committed_ns > COMMIT_EVERY_NS) {
        in->dirty = false;
        in->committed_ns = now;
        if (store_commit(in->store, &err) != 0) {
            log_warn("%s", err.msg); /* who pushes hears of it when he syncs */
        }
    }
}

/* Nobody has put anything for as long. */
static void rest(struct intake *in)
{
    struct plx_err err;

    in->dirty = in->busy = false;
    in->committed_ns = clock_mono_ns();
    if (store_rest(in->store, &err) != 0) {
        log_warn("%s", err.msg);
    }
}

/* --- the queue ------------------------------------------------------------------------------ */

static void queue_locked(struct intake *in, struct intake_client *c)
{
    c->next = NULL;
    if (in->turn == NULL) {
        in->turn = c;
    } else {
        in->last->next = c;
    }
    in->last = c;
}

/* The next job of the client whose turn it is, who goes behind the others. */
static struct intake_job *next_locked(struct intake *in)
{
    struct intake_client *c = in->turn;

    if (c == NULL) {
        return NULL;
    }
    struct intake_job *j = c->first;
    in->turn = c->next;
    c->first = j->next;
    if (c->first != NULL) {
        queue_locked(in, c);
    }
    return j;
}

static void *work(void *arg)
{
    struct intake *in = arg;

    (void)pthread_mutex_lock(&in->lock);
    while (!in->stop) {
        struct intake_job *j = next_locked(in);
        bool idle = false;
        if (j == NULL) {
            uint64_t until = clock_wall_ns() + COMMIT_EVERY_NS;
            struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                                  .tv_nsec = (long)(until % 1000000000)};
            if (in->busy) {
                idle = pthread_cond_timedwait(&in->cond, &in->lock, &ts) == ETIMEDOUT;
            } else {
                (void)pthread_cond_wait(&in->cond, &in->lock);
            }
        }
        (void)pthread_mutex_unlock(&in->lock);
        if (j != NULL) {
            do_job(in, j);
        }
        if (idle) {
            rest(in);
        } else {
            commit_some(in);
        }
        (void)pthread_mutex_lock(&in->lock);
        if (j != NULL) {
            const uint64_t one = 1;
            j->next = NULL;
            *in->done_end = j;
            in->done_end = &j->next;
            (void)io_write_full(in->wake, &one, sizeof one);
        }
    }
    (void)pthread_mutex_unlock(&in->lock);
    if (in->dirty) {
        (void)store_commit(in->store, NULL);
    }
    return NULL;
}

int intake_add(struct intake *in, struct intake_client *c, uint64_t serial, Img__ToServer *m)
{
    struct intake_job *j = plx_calloc(1, sizeof *j);

    if (j == NULL) {
        img__to_server__free_unpacked(m, NULL);
        return PLX_ENOMEM;
    }
    j->m = m;
    j->done.client = serial;
    (void)pthread_mutex_lock(&in->lock);
    if (c->first == NULL) {
        c->first = j;
        queue_locked(in, c);
    } else {
        c->last->next = j;
    }
    c->last = j;
    (void)pthread_cond_signal(&in->cond);
    (void)pthread_mutex_unlock(&in->lock);
    return 0;
}

void intake_forget(struct intake *in, struct intake_client *c)
{
    (void)pthread_mutex_lock(&in->lock);
    struct intake_client *all = in->turn;
    in->turn = NULL;
    for (struct intake_client *next; all != NULL; all = next) {
        next = all->next;
        if (all != c) {
            queue_locked(in, all);
        }
    }
    struct intake_job *j = c->first;
    c->first = NULL;
    (void)pthread_mutex_unlock(&in->lock);
    for (struct intake_job *next; j != NULL; j = next) {
        next = j->next;
        img__to_server__free_unpacked(j->m, NULL);
        plx_free(j);
    }
}

bool intake_take(struct intake *in, struct intake_done *out)
{
    (void)pthread_mutex_lock(&in->lock);
    struct intake_job *j = in->started ? in->done : next_locked(in);
    if (in->started && j != NULL) {
        in->done = j->next;
        in->done_end = in->done == NULL ? &in->done : in->done_end;
    }
    (void)pthread_mutex_unlock(&in->lock);
    if (j == NULL) {
        return false;
    }
    if (!in->started) {
        do_job(in, j);
    }
    *out = j->done;
    plx_free(j);
    return true;
}

/* --- life ----------------------------------------------------------------------------------- */

int intake_open(struct store *store, int wake, struct intake **out, struct plx_err *err)
{
    struct intake *in = plx_calloc(1, sizeof *in);

    *out = NULL;
    if (in == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image server: out of memory");
    }
    in->store = store;
    in->wake = wake;
    in->done_end = &in->done;
    in->committed_ns = clock_mono_ns();
    (void)pthread_mutex_init(&in->lock, NULL);
    (void)pthread_cond_init(&in->cond, NULL);
    in->started = wake >= 0 && pthread_create(&in->thread, NULL, work, in) == 0;
    if (wake >= 0 && !in->started) {
        intake_close(in);
        return plx_fail(err, PLX_ENOMEM, "image server: no thread");
    }
    *out = in;
    return 0;
}

void intake_close(struct intake *in)
{
    struct intake_done ignored;

    if (in == NULL) {
        return;
    }
    if (in->started) {
        (void)pthread_mutex_lock(&in->lock);
        in->stop = true;
        (void)pthread_cond_signal(&in->cond);
        (void)pthread_mutex_unlock(&in->lock);
        (void)pthread_join(in->thread, NULL);
    }
    while (intake_take(in, &ignored)) {
    }
    (void)pthread_cond_destroy(&in->cond);
    (void)pthread_mutex_destroy(&in->lock);
    plx_free(in);
}
