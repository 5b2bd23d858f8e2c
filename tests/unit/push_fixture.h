/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/push_fixture.h - clients that push to an image server on this host, and a store under
 * that server which fails, waits or forgets as it is told. */
#ifndef TESTS_UNIT_PUSH_FIXTURE_H
#define TESTS_UNIT_PUSH_FIXTURE_H

#include "storage/store_remote.h"
#include "tests/unit/server_fixture.h"

struct pusher {
    void *zmq;
    struct image_client *client;
    struct store *none, *remote;
};

static inline void open_pusher(struct pusher *p, struct running *r)
{
    struct plx_err err = {{0}};

    p->zmq = zmq_ctx_new();
    must(store_open_memory(&p->none, &err), &err);
    struct image_client_config cfg = client_of(p->zmq, p->none, r, 1);
    must(image_client_open(&cfg, &p->client, &err), &err);
    must(image_client_may_push(p->client, WAIT_MS, &err), &err);
    must(store_open_remote(p->client, &p->remote, &err), &err);
}

static inline void close_pusher(struct pusher *p)
{
    store_close(p->remote);
    image_client_close(p->client);
    (void)zmq_ctx_term(p->zmq);
    store_close(p->none);
}

static inline void start_over(struct running *r, struct store *s)
{
    struct plx_err err = {{0}};

    client_may = IMAGE_USER_PUSHES;
    must(curve_generate(&client_key, &err), &err);
    must(curve_generate(&r->key, &err), &err);
    start_server(r, s);
}

static inline void start(struct running *r, struct store_fixture *f)
{
    start_over(r, f->s);
}

/* The server's store, when what is put waits and what is read was swept. */
static struct {
    const struct seg_ops *real;
    pthread_mutex_t gate; /* held: no put goes on */
    uint64_t news;        /* segments that puts found new */
    _Atomic bool swept;
    _Atomic bool broken; /* nobody knows what is there */
    _Atomic bool coming; /* so the next look is told, of all that it asks for */
} odd = {.gate = PTHREAD_MUTEX_INITIALIZER};

static int odd_has(void *self, const struct seg_id *id, struct plx_err *err)
{
    if (odd.broken) {
        return plx_fail(err, PLX_EIO, "the index cannot be read");
    }
    return odd.swept ? 0 : odd.real->has(self, id, err);
}

static int odd_look(void *self, const struct seg_id *ids, size_t n, uint8_t *states,
                    struct plx_err *err)
{
    for (size_t i = 0; i < n; i++) {
        int has = odd_has(self, &ids[i], err);
        if (has < 0) {
            return has;
        }
        states[i] = has == 1 ? SEG_THERE : odd.coming ? SEG_COMING : SEG_ABSENT;
    }
    odd.coming = false;
    return 0;
}

static int odd_put(void *self, const struct seg_id *id, const struct seg_form *form,
                   struct plx_err *err)
{
    (void)pthread_mutex_lock(&odd.gate);
    int rc = odd.real->put(self, id, form, err);
    odd.news += rc == STORE_NEW;
    (void)pthread_mutex_unlock(&odd.gate);
    return rc;
}

/* A sweep goes before the first read. */
static int odd_get(void *self, const struct seg_id *id, struct wbuf *out, struct seg_form *form,
                   struct plx_err *err)
{
    (void)self;
    (void)id;
    (void)out;
    (void)form;
    odd.swept = true;
    return plx_fail(err, PLX_ENOENT, "swept");
}

static void odd_close(void *self)
{
    (void)self;
}

/* Over the fixture's store, which stays open. */
static inline struct store *open_odd(struct store_fixture *f, struct seg_ops *ops)
{
    struct plx_err err = {{0}};
    struct store *s;

    odd.real = store_ops(f->s);
    odd.swept = false;
    odd.news = 0;
    *ops = *odd.real;
    ops->has = odd_has;
    ops->look = odd_look;
    ops->put = odd_put;
    ops->get = odd_get;
    ops->close = odd_close;
    must(store_open_backend(ops, store_self(f->s), &s, &err), &err);
    return s;
}

#endif
