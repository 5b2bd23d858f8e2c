/* SPDX-License-Identifier: Apache-2.0
 * storage/client_push.c - what an image client puts into a server's store (client.h, "pushing").
 *
 * Posts stand in one list in the order in which they were made, until the server has answered them;
 * on another connection all that stand there are sent again. */
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "storage/client_priv.h"
#include "storage/server.h"

struct post {
    struct post *next;
    uint64_t number;
    uint64_t sent_to; /* connection it was sent on; 0: none */
    Img__Post what;   /* points to @put or @data */
    Img__Segment put;
    uint8_t id[SHA256_LEN]; /* of @put */
    uint8_t *data;          /* owned; ids, a stored form or a reference */
    size_t len;
    /* The answer. */
    bool awaited, done;
    uint8_t *states; /* as many as were looked at; the caller's */
    bool lacks;
    struct seg_id missing;
    int rc;
    struct plx_err err;
};

/* Does a server count it? Looks each have a thread of ours that waits. */
static bool counts(const struct post *p)
{
    return p->what.what_case != IMG__POST__WHAT_LOOK;
}

static int pass(struct plx_err *err, const struct plx_err *why, int rc)
{
    if (err != NULL) {
        *err = *why;
    }
    return rc;
}

static int may_not_push(const struct image_client *c, struct plx_err *err)
{
    return plx_fail(err, PLX_EACCES,
                    "image server %s: this key may not push (its line in the server's file of "
                    "clients lacks `push`)",
                    c->endpoints[c->stats.server]);
}

/* --- on the client's thread ------------------------------------------------------------------ */

static void free_post(struct post *p)
{
    plx_free(p->data);
    plx_free(p);
}

static void remove_locked(struct image_client *c, const struct post *p)
{
    struct post **at = &c->posts, *last = NULL;

    while (*at != p) {
        last = *at;
        at = &(*at)->next;
    }
    *at = p->next;
    if (c->last_post == p) {
        c->last_post = last;
    }
}

/* Its answer is known. */
static void end_locked(struct image_client *c, struct post *p)
{
    p->done = true;
    if (counts(p)) {
        c->unanswered--;
        c->putting -= p->len;
    }
    if (p->what.what_case == IMG__POST__WHAT_PUT && p->rc != 0 && c->put_rc == 0) {
        c->put_rc = pass(&c->put_err, &p->err, p->rc);
    }
    if (!p->awaited) {
        remove_locked(c, p);
        free_post(p);
    }
    (void)pthread_cond_broadcast(&c->cond);
}

void client_send_posts_locked(struct image_client *c)
{
    for (struct post *p = c->posts, *next; p != NULL && c->push_window == 0; p = next) {
        next = p->next;
        if (!p->done) {
            p->rc = may_not_push(c, &p->err);
            end_locked(c, p);
        }
    }
    for (struct post *p = c->posts; p != NULL; p = p->next) {
        if (!p->done && p->sent_to != c->connection) {
            p->sent_to = c->connection;
            c->stats.pushed_bytes += p->what.what_case == IMG__POST__WHAT_PUT ? p->len : 0;
            client_send_post(c, &p->what);
        }
    }
}

static void take_answer(struct post *p, const Img__Done *m)
{
    if (m->error != NULL && m->error[0] != '\0') {
        p->rc = plx_fail(&p->err, PLX_EIO, "the image server: %s", m->error);
    } else if (p->what.what_case == IMG__POST__WHAT_LOOK) {
        bool fits = m->states.len == p->len / SHA256_LEN;
        for (size_t i = 0; i < m->states.len && fits; i++) {
            fits = m->states.data[i] <= SEG_COMING;
            p->states[i] = m->states.data[i];
        }
        p->rc =
            fits ? 0 : plx_fail(&p->err, PLX_ECORRUPT, "the image server's answer makes no sense");
    } else if (m->missing.len == SHA256_LEN) {
        p->lacks = true;
        memcpy(p->missing.sha, m->missing.data, SHA256_LEN);
    }
}

void client_on_done(struct image_client *c, const Img__Done *m)
{
    (void)pthread_mutex_lock(&c->lock);
    struct post *p = c->posts;
    while (p != NULL && p->number != m->number) {
        p = p->next;
    }
    if (p != NULL && !p->done && p->sent_to == c->connection) {
        take_answer(p, m);
        end_locked(c, p);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void client_free_posts(struct image_client *c)
{
    for (struct post *p = c->posts, *next; p != NULL; p = next) {
        next = p->next;
        free_post(p);
    }
    c->posts = c->last_post = NULL;
}

/* --- posting --------------------------------------------------------------------------------- */

static struct post *make_post(const void *data, size_t len, Img__Post__WhatCase what)
{
    struct post *p = plx_calloc(1, sizeof *p);

    if (p == NULL || (p->data = plx_calloc(1, len + 1)) == NULL) {
        plx_free(p);
        return NULL;
    }
    if (len > 0) {
        memcpy(p->data, data, len);
    }
    p->len = len;
    img__post__init(&p->what);
    img__segment__init(&p->put);
    p->what.what_case = what;
    return p;
}

static void add_locked(struct image_client *c, struct post *p)
{
    p->number = p->what.number = ++c->posted;
    if (c->posts == NULL) {
        c->posts = p;
    } else {
        c->last_post->next = p;
    }
    c->last_post = p;
    if (counts(p)) {
        c->unanswered++;
        c->putting += p->len;
    }
    client_wake(c);
}

static int no_memory(struct plx_err *err)
{
    return plx_fail(err, PLX_ENOMEM, "push: out of memory");
}

static int stopped(struct plx_err *err)
{
    return plx_fail(err, PLX_ECANCELED, "stopped; the same push goes on from here");
}

/* Has the server room for it? */
static bool has_room_locked(const struct image_client *c, const struct post *p)
{
    return !counts(p) || c->unanswered == 0 ||
           (c->unanswered < IMAGE_PUSH_POSTS && c->putting + p->len <= c->push_window);
}

/* Post, and wait for the answer. @p is the caller's again then. */
static int post_and_wait(struct image_client *c, struct post *p, struct plx_err *err)
{
    p->awaited = true;
    (void)pthread_mutex_lock(&c->lock);
    while (!has_room_locked(c, p) && !c->stop) {
        (void)pthread_cond_wait(&c->cond, &c->lock);
    }
    add_locked(c, p);
    while (!p->done && !c->stop) {
        (void)pthread_cond_wait(&c->cond, &c->lock);
    }
    remove_locked(c, p);
    int rc = p->rc;
    if (!p->done) {
        rc = stopped(err);
    } else if (c->put_rc != 0 && p->what.what_case != IMG__POST__WHAT_LOOK) {
        rc = pass(err, &c->put_err, c->put_rc); /* something before it was not kept */
    } else if (rc != 0) {
        (void)pass(err, &p->err, rc);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

int image_client_may_push(struct image_client *c, unsigned timeout_ms, struct plx_err *err)
{
    uint64_t end = clock_mono_ns() + timeout_ms * UINT64_C(1000000);
    int rc = 1;

    while (rc == 1) {
        (void)pthread_mutex_lock(&c->lock);
        if (c->stop) {
            rc = stopped(err);
        } else if (c->stats.connected) {
            rc = c->push_window > 0 ? 0 : may_not_push(c, err);
        } else if (clock_mono_ns() >= end) {
            rc = plx_fail(err, PLX_ETIMEDOUT, "image server %s does not answer",
                          c->endpoints[c->stats.server]);
        }
        (void)pthread_mutex_unlock(&c->lock);
        if (rc == 1) {
            clock_sleep_ns(1000000);
        }
    }
    return rc;
}

int image_client_look(struct image_client *c, const struct seg_id *ids, size_t n, uint8_t *states,
                      struct plx_err *err)
{
    int rc = 0;

    for (size_t at = 0; at < n && rc == 0; at += IMAGE_LOOK_MAX) {
        size_t part = n - at < IMAGE_LOOK_MAX ? n - at : IMAGE_LOOK_MAX;
        struct post *p = make_post(ids + at, part * sizeof *ids, IMG__POST__WHAT_LOOK);
        if (p == NULL) {
            return no_memory(err);
        }
        p->what.look = (ProtobufCBinaryData){.len = p->len, .data = p->data};
        p->states = states + at;
        rc = post_and_wait(c, p, err);
        free_post(p);
    }
    return rc;
}

int image_client_put(struct image_client *c, const struct seg_id *id, const struct seg_form *form,
                     struct plx_err *err)
{
    struct post *p = make_post(form->data, form->stored_len, IMG__POST__WHAT_PUT);

    if (p == NULL) {
        return no_memory(err);
    }
    memcpy(p->id, id->sha, SHA256_LEN);
    p->put.id = (ProtobufCBinaryData){.len = SHA256_LEN, .data = p->id};
    p->put.codec = form->codec;
    p->put.raw_len = form->raw_len;
    p->put.data = (ProtobufCBinaryData){.len = p->len, .data = p->data};
    p->what.put = &p->put;
    (void)pthread_mutex_lock(&c->lock);
    while (!has_room_locked(c, p) && !c->stop && c->put_rc == 0) {
        (void)pthread_cond_wait(&c->cond, &c->lock);
    }
    int rc = c->put_rc;
    if (rc != 0) {
        (void)pass(err, &c->put_err, rc);
    } else if (c->stop) {
        rc = stopped(err);
    } else {
        add_locked(c, p);
        p = NULL;
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (p != NULL) {
        free_post(p);
    }
    return rc;
}

int image_client_sync(struct image_client *c, struct plx_err *err)
{
    Img__Sync sync = IMG__SYNC__INIT;
    struct post *p = make_post(NULL, 0, IMG__POST__WHAT_SYNC);

    if (p == NULL) {
        return no_memory(err);
    }
    p->what.sync = &sync;
    int rc = post_and_wait(c, p, err);
    free_post(p);
    return rc;
}

int image_client_name(struct image_client *c, const void *ref, size_t len, struct seg_id *missing,
                      struct plx_err *err)
{
    struct post *p = make_post(ref, len, IMG__POST__WHAT_NAME);

    if (p == NULL) {
        return no_memory(err);
    }
    p->what.name = (ProtobufCBinaryData){.len = p->len, .data = p->data};
    int rc = post_and_wait(c, p, err);
    if (rc == 0 && p->lacks) {
        *missing = p->missing;
        rc = 1;
    }
    free_post(p);
    return rc;
}

/* --- without a socket ----------------------------------------------------------------------- */

int client_expect_answers(struct image_client *c)
{
    static const uint8_t ids[2 * SHA256_LEN] = {1};
    static const Img__Post__WhatCase kinds[] = {IMG__POST__WHAT_LOOK, IMG__POST__WHAT_PUT,
                                                IMG__POST__WHAT_NAME};

    for (size_t i = 0; i < PLX_COUNT(kinds); i++) {
        struct post *p = make_post(ids, sizeof ids, kinds[i]);
        if (p == NULL) {
            return PLX_ENOMEM;
        }
        p->states = p->data; /* nobody looks */
        p->sent_to = c->connection;
        add_locked(c, p);
    }
    return 0;
}
