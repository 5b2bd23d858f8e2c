/* SPDX-License-Identifier: Apache-2.0
 * storage/client_fetch.c - what an image client asks for, and what becomes of what comes (client.c
 * tells where fetches stand). */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "storage/client_priv.h"
#include "storage/server.h"

enum {
    IDS_PER_WANT = 256,
    GUESS = 16 << 10,         /* stored length of a segment that has not come yet */
    WINDOW_LEAST = 128 << 10, /* of what is only wanted, bytes */
    WINDOW_MOST = 4 << 20,
    RATE_OVER_NS = 100000000,
};

/* --- what to ask for ------------------------------------------------------------------------ */

static struct fetch *find_locked(struct image_client *c, const struct seg_id *id)
{
    struct fetch *f = c->fetches;

    while (f != NULL && !(seg_id_eq(&f->id, id) && !f->done)) {
        f = f->next;
    }
    return f;
}

static struct fetch *add_locked(struct image_client *c, const struct seg_id *id,
                                enum client_urgency urgency)
{
    struct fetch *f = plx_calloc(1, sizeof *f);

    if (f != NULL) {
        struct fetch **at = &c->fetches;
        while (*at != NULL) {
            at = &(*at)->next;
        }
        f->id = *id;
        f->urgency = f->first = urgency;
        *at = f;
        c->wanted += urgency != CLIENT_NEEDED;
    }
    return f;
}

void client_remove_locked(struct image_client *c, struct fetch *f)
{
    struct fetch **at = &c->fetches;

    while (*at != f) {
        at = &(*at)->next;
    }
    *at = f->next;
    c->wanted -= f->urgency != CLIENT_NEEDED;
    plx_free(f->data);
    plx_free(f);
}

static uint64_t window(const struct image_client *c)
{
    double bytes = c->rate * CLIENT_AHEAD_MS / 1000;

    if (c->cfg.greedy) {
        return IMAGE_WINDOW;
    }
    return bytes < WINDOW_LEAST  ? WINDOW_LEAST
           : bytes > WINDOW_MOST ? WINDOW_MOST
                                 : (uint64_t)bytes;
}

/* Take from `next` what the link has room for. */
void client_want_more_locked(struct image_client *c, uint64_t now)
{
    bool needed = false;

    if (c->cfg.next == NULL) {
        return;
    }
    for (const struct fetch *f = c->fetches; f != NULL; f = f->next) {
        needed = needed || (f->urgency == CLIENT_NEEDED && !f->done);
    }
    if (needed) {
        c->needed_ns = now;
        return;
    }
    while (c->wanted * (uint64_t)GUESS < window(c)) {
        enum client_urgency urgency;
        struct seg_id id;
        if (!c->cfg.next(c->cfg.ctx, &id, &urgency)) {
            break;
        }
        if (find_locked(c, &id) == NULL && add_locked(c, &id, urgency) == NULL) {
            break;
        }
        if (urgency == CLIENT_REST && !c->cfg.greedy &&
            now - c->needed_ns < CLIENT_IDLE_MS * UINT64_C(1000000)) {
            break; /* one at a time until the guest is quiet */
        }
    }
}

void client_send_wants_locked(struct image_client *c)
{
    uint8_t ids[IDS_PER_WANT * SHA256_LEN];

    for (unsigned urgency = 0; urgency < 3; urgency++) {
        size_t n = 0;
        for (struct fetch *f = c->fetches; f != NULL; f = f->next) {
            if (f->done || f->urgency != urgency || f->sent_to == c->connection) {
                continue;
            }
            f->sent_to = c->connection;
            memcpy(ids + n++ * SHA256_LEN, f->id.sha, SHA256_LEN);
            if (n == IDS_PER_WANT) {
                client_send_want(c, urgency, ids, n);
                n = 0;
            }
        }
        client_send_want(c, urgency, ids, n);
    }
}

/* --- what comes ----------------------------------------------------------------------------- */

static void measure(struct image_client *c, size_t bytes, uint64_t now)
{
    c->rate_bytes += bytes;
    if (now - c->rate_ns >= RATE_OVER_NS) {
        double fresh = (double)c->rate_bytes * 1e9 / (double)(now - c->rate_ns);
        if (now - c->rate_ns < 4 * (uint64_t)RATE_OVER_NS) { /* not over a pause */
            c->rate = fresh > c->rate ? fresh : 0.7 * c->rate + 0.3 * fresh;
        }
        c->rate_ns = now;
        c->rate_bytes = 0;
    }
}

void client_on_segment(struct image_client *c, const Img__Segment *m, uint64_t now)
{
    struct seg_form form = {.codec = (enum seg_codec)m->codec,
                            .raw_len = m->raw_len,
                            .stored_len = (uint32_t)m->data.len,
                            .data = m->data.data};
    struct plx_err err = {{0}};
    struct seg_id id = {{0}};
    int rc = 0;

    c->received += m->data.len;
    measure(c, m->data.len, now);
    if (m->id.len != SHA256_LEN || !seg_form_possible(m->codec, m->raw_len, m->data.len)) {
        rc = PLX_ECORRUPT;
    } else {
        memcpy(id.sha, m->id.data, SHA256_LEN);
        rc = store_open_form(&id, &form, c->raw, &err);
    }
    (void)pthread_mutex_lock(&c->lock);
    struct fetch *f = rc == 0 ? find_locked(c, &id) : NULL;
    if (rc != 0) {
        c->stats.corrupt++;
        (void)pthread_mutex_unlock(&c->lock);
        client_next_server(c, "sends segments that are not what it says");
        return;
    }
    if (f == NULL) { /* came twice, after a change of servers */
        (void)pthread_mutex_unlock(&c->lock);
        return;
    }
    enum client_urgency urgency = f->first;
    c->stats.got[urgency].segments++;
    c->stats.got[urgency].bytes += m->data.len;
    (void)pthread_mutex_unlock(&c->lock);
    rc = store_ops(c->cfg.store)->put(store_self(c->cfg.store), &id, &form, &err);
    if (rc < 0) {
        log_warn("cannot keep a segment: %s", err.msg); /* a cache that is full is no error */
    }
    if (c->cfg.arrived != NULL) {
        c->cfg.arrived(c->cfg.ctx, &id, form.raw_len, urgency);
    }
    c->uncommitted += form.stored_len;
    (void)pthread_mutex_lock(&c->lock);
    f = find_locked(c, &id); /* waiters may have joined */
    if (f != NULL && f->waiters == 0) {
        client_remove_locked(c, f);
    } else if (f != NULL) {
        f->len = form.raw_len;
        f->data = plx_calloc(1, form.raw_len);
        f->rc = f->data == NULL ? plx_fail(&f->err, PLX_ENOMEM, "out of memory for a segment") : 0;
        if (f->data != NULL) {
            memcpy(f->data, c->raw, form.raw_len);
        }
        f->done = true;
        (void)pthread_cond_broadcast(&c->cond);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void client_on_missing(struct image_client *c, const Img__Missing *m)
{
    struct seg_id id;
    bool others = false;

    if (m->id.len != SHA256_LEN) {
        return;
    }
    memcpy(id.sha, m->id.data, SHA256_LEN);
    (void)pthread_mutex_lock(&c->lock);
    struct fetch *f = find_locked(c, &id);
    if (f != NULL) {
        f->missing |= 1u << c->stats.server;
        others = f->missing != (1u << c->cfg.nservers) - 1;
        if (f->waiters == 0 && !others) {
            client_remove_locked(c, f); /* nobody has it; who needs it will ask */
        } else if (!others) {
            f->rc = plx_fail(&f->err, PLX_ENOENT, "no server has the segment: %s", m->text);
            f->done = true;
            (void)pthread_cond_broadcast(&c->cond);
        }
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (others) {
        client_next_server(c, "lacks a segment");
    }
}

/* --- fetching ------------------------------------------------------------------------------- */

/* Somebody waits for it now: it goes ahead of what is only wanted. */
static struct fetch *join_locked(struct image_client *c, const struct seg_id *id)
{
    struct fetch *f = find_locked(c, id);

    if (f == NULL) {
        f = add_locked(c, id, CLIENT_NEEDED);
    } else if (f->urgency != CLIENT_NEEDED) {
        c->wanted--;
        f->urgency = CLIENT_NEEDED; /* if it was sent it is in the window, and here soon */
    }
    if (f != NULL) {
        f->waiters++;
    }
    return f;
}

void image_client_request(struct image_client *c, const struct seg_id *id)
{
    (void)pthread_mutex_lock(&c->lock);
    if (find_locked(c, id) == NULL) {
        (void)add_locked(c, id, CLIENT_NEEDED);
    }
    (void)pthread_mutex_unlock(&c->lock);
    client_wake(c);
}

int image_client_fetch(void *client, const struct seg_id *id, void *out, size_t len,
                       struct plx_err *err)
{
    struct image_client *c = client;
    uint64_t begun = clock_mono_ns();
    int rc;

    (void)pthread_mutex_lock(&c->lock);
    /* With the lock held: what is in no fetch and has come is in the store. */
    if (find_locked(c, id) == NULL && store_has(c->cfg.store, id, NULL) == 1) {
        (void)pthread_mutex_unlock(&c->lock);
        if (store_get(c->cfg.store, id, out, len, err) == 0) {
            return 0;
        }
        (void)pthread_mutex_lock(&c->lock); /* damaged, or just evicted */
    }
    struct fetch *f = join_locked(c, id);
    if (f == NULL) {
        (void)pthread_mutex_unlock(&c->lock);
        return plx_fail(err, PLX_ENOMEM, "out of memory for a segment");
    }
    client_wake(c);
    while (!f->done && !c->stop) {
        (void)pthread_cond_wait(&c->cond, &c->lock);
    }
    if (!f->done) {
        rc = plx_fail(err, PLX_ECANCELED, "stopped");
    } else if (f->rc != 0) {
        rc = f->rc;
        *err = f->err;
    } else if (f->len != len) {
        rc = plx_fail(err, PLX_ECORRUPT, "a segment has %u bytes, not %zu", f->len, len);
    } else {
        rc = 0;
        memcpy(out, f->data, len);
    }
    uint64_t waited = clock_mono_ns() - begun;
    c->stats.fetches++;
    c->stats.stall_ns += waited;
    if (waited > c->stats.longest_stall_ns) {
        c->stats.longest_stall_ns = waited;
    }
    if (--f->waiters == 0) {
        client_remove_locked(c, f);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}
