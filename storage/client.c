/* SPDX-License-Identifier: Apache-2.0
 * storage/client.c - see client.h.
 *
 * Fetches stand in one list, from when they are asked for until their callers have them; what is
 * only wanted stands there too, from when it goes out. The thread sends what has not been sent to
 * the server in use, takes what comes, and changes servers. After a change everything is sent
 * again. */
#include "storage/client.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "storage/client_priv.h"
#include "storage/server_wire.h"

enum {
    MESSAGE_MAX = 8 << 20,
    POLL_MS = 50,
    COMMIT_BYTES = 16 << 20,
    BEGIN_MS = 500, /* between two connections, when the first was denied */
};

void client_wake(struct image_client *c)
{
    const uint64_t one = 1;

    (void)io_write_full(c->wake, &one, sizeof one);
}

static void send_ask_locked(struct image_client *c)
{
    if (c->ask.kind == ASK_NONE || c->ask.done || c->ask.sent_to == c->connection) {
        return;
    }
    c->ask.sent_to = c->connection;
    if (c->ask.kind == ASK_OPEN) {
        client_send_open(c, c->name, c->tag);
    } else {
        client_send_list(c, c->ask.a, c->ask.os, c->ask.app);
    }
}

/* --- connections ---------------------------------------------------------------------------- */

static void disconnect(struct image_client *c)
{
    if (c->socket != NULL) {
        (void)zmq_close(c->socket);
    }
    c->socket = NULL;
    c->welcome = false;
}

static void connect_to(struct image_client *c, unsigned server)
{
    static const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, 0},
        {ZMQ_RCVHWM, 0},
        {ZMQ_RECONNECT_IVL, 50},
        {ZMQ_RECONNECT_IVL_MAX, 500},
        {ZMQ_CONNECT_TIMEOUT, 1000},
        {ZMQ_HANDSHAKE_IVL, 2000},
    };
    const struct client_server *to = &c->cfg.servers[server];
    int64_t max = MESSAGE_MAX;
    struct plx_err err;

    disconnect(c);
    c->socket = zmq_socket(c->cfg.zmq, ZMQ_DEALER);
    c->connection++;
    c->denied = false;
    c->received = 0;
    c->began_ns = c->heard_ns = c->pinged_ns = clock_mono_ns();
    if (c->socket == NULL) {
        return; /* tried again when the silence is over */
    }
    for (size_t i = 0; i < PLX_COUNT(options); i++) {
        PLX_CHECK(zmq_setsockopt(c->socket, options[i].option, &options[i].value,
                                 sizeof options[i].value) == 0);
    }
    PLX_CHECK(zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
    if (curve_client(c->socket, &c->cfg.key, to->key, &err) != 0 ||
        zmq_connect(c->socket, c->endpoints[server]) != 0) {
        log_warn("image server %s: %s", c->endpoints[server], zmq_strerror(errno));
        disconnect(c);
        return;
    }
    client_send_hello(c);
}

void client_next_server(struct image_client *c, const char *why)
{
    (void)pthread_mutex_lock(&c->lock);
    unsigned server = (c->stats.server + 1) % c->cfg.nservers;
    if (c->stats.connected || c->cfg.nservers > 1) {
        log_info("image server %s %s, now %s", c->endpoints[c->stats.server], why,
                 c->endpoints[server]);
    }
    c->stats.server = server;
    c->stats.switches++;
    c->stats.connected = false;
    (void)pthread_mutex_unlock(&c->lock);
    connect_to(c, server);
}

/* The server has forgotten us: begin anew, but not at once if that was just done. */
static void on_denied(struct image_client *c, const char *text)
{
    (void)pthread_mutex_lock(&c->lock);
    log_warn("image server %s: %s", c->endpoints[c->stats.server], text);
    c->stats.connected = false;
    (void)pthread_mutex_unlock(&c->lock);
    disconnect(c);
    c->denied = true;
}

/* --- what comes ----------------------------------------------------------------------------- */

static void finish_ask(struct image_client *c, int rc, const char *text, struct image_ref *refs,
                       size_t n)
{
    (void)pthread_mutex_lock(&c->lock);
    if (c->ask.kind != ASK_NONE && !c->ask.done && c->ask.sent_to == c->connection) {
        c->ask.done = true;
        c->ask.rc = rc == 0 ? 0 : plx_fail(&c->ask.err, rc, "%s", text);
        c->ask.refs = refs;
        c->ask.n = n;
        refs = NULL;
        (void)pthread_cond_broadcast(&c->cond);
    }
    (void)pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; refs != NULL && i < n; i++) {
        image_ref_free(&refs[i]);
    }
    plx_free(refs);
}

static void on_refs(struct image_client *c, const ProtobufCBinaryData *texts, size_t count)
{
    struct image_ref *refs = plx_calloc(count + 1, sizeof *refs);
    struct plx_err err = {{0}};
    size_t n = 0;
    int rc = refs == NULL ? plx_fail(&err, PLX_ENOMEM, "out of memory for images") : 0;

    for (; n < count && rc == 0; n += rc == 0) {
        rc = image_ref_get(texts[n].data, texts[n].len, &refs[n], &err);
    }
    finish_ask(c, rc, err.msg, refs, n);
}

static void on_message(struct image_client *c, const uint8_t *data, size_t len)
{
    Img__FromServer *m = img__from_server__unpack(NULL, len, data);
    uint64_t now = clock_mono_ns();

    if (m == NULL || m->version != CLIENT_PROTOCOL) {
        if (m != NULL) {
            img__from_server__free_unpacked(m, NULL);
        }
        return;
    }
    c->heard_ns = now;
    switch (m->msg_case) {
    case IMG__FROM_SERVER__MSG_WELCOME:
        c->welcome = true;
        (void)pthread_mutex_lock(&c->lock);
        c->stats.connected = true;
        c->push_window = m->welcome->push_window;
        (void)pthread_cond_broadcast(&c->cond); /* there may be more room */
        if (c->name[0] != '\0' && c->ask.kind != ASK_OPEN) {
            client_send_open(c, c->name, c->tag); /* so that it is kept here too */
        }
        (void)pthread_mutex_unlock(&c->lock);
        break;
    case IMG__FROM_SERVER__MSG_IMAGES:
        on_refs(c, m->images->refs, m->images->n_refs);
        break;
    case IMG__FROM_SERVER__MSG_OPENED:
        on_refs(c, &m->opened->ref, 1);
        break;
    case IMG__FROM_SERVER__MSG_FAILED:
        finish_ask(c, PLX_ENOENT, m->failed->text, NULL, 0);
        break;
    case IMG__FROM_SERVER__MSG_SEGMENT:
        client_on_segment(c, m->segment, now);
        break;
    case IMG__FROM_SERVER__MSG_MISSING:
        client_on_missing(c, m->missing);
        break;
    case IMG__FROM_SERVER__MSG_DONE:
        client_on_done(c, m->done);
        break;
    case IMG__FROM_SERVER__MSG_DENIED:
        on_denied(c, m->denied->text);
        break;
    default:
        break;
    }
    img__from_server__free_unpacked(m, NULL);
}

static void take_in(struct image_client *c)
{
    uint64_t before = c->received;

    for (int i = 0; i < 64 && c->socket != NULL; i++) {
        zmq_msg_t m;
        void *socket = c->socket;
        PLX_CHECK(zmq_msg_init(&m) == 0);
        if (zmq_msg_recv(&m, socket, ZMQ_DONTWAIT) < 0) {
            (void)zmq_msg_close(&m);
            break;
        }
        on_message(c, zmq_msg_data(&m), zmq_msg_size(&m));
        (void)zmq_msg_close(&m);
        if (c->socket != socket) {
            return; /* another connection, another count */
        }
    }
    if (c->received != before && c->welcome) {
        client_send_credit(c);
    }
}

static void commit_some(struct image_client *c, bool idle)
{
    struct plx_err err;

    if (c->uncommitted >= COMMIT_BYTES || (idle && c->uncommitted > 0)) {
        c->uncommitted = 0;
        if (store_commit(c->cfg.store, &err) != 0) {
            log_warn("%s", err.msg);
        }
    }
}

static void *client_main(void *arg)
{
    struct image_client *c = arg;
    bool stop = false;

    connect_to(c, 0);
    while (!stop) {
        zmq_pollitem_t items[2] = {{.fd = c->wake, .events = ZMQ_POLLIN},
                                   {.socket = c->socket, .events = ZMQ_POLLIN}};
        uint64_t count;
        int n = zmq_poll(items, c->socket != NULL ? 2 : 1, POLL_MS);
        if ((items[0].revents & ZMQ_POLLIN) != 0) {
            (void)io_read_some(c->wake, &count, sizeof count);
        }
        take_in(c);
        uint64_t now = clock_mono_ns();
        if (now - c->heard_ns > IMAGE_SERVER_SILENCE_MS * UINT64_C(1000000)) {
            client_next_server(c, "is silent");
        } else if (c->denied && now - c->began_ns >= BEGIN_MS * UINT64_C(1000000)) {
            connect_to(c, c->stats.server);
        }
        if (c->welcome && now - c->pinged_ns > IMAGE_PING_MS * UINT64_C(1000000)) {
            c->pinged_ns = now;
            client_send_ping(c);
        }
        (void)pthread_mutex_lock(&c->lock);
        if (c->cfg.interrupted != NULL && *c->cfg.interrupted != 0 && !c->stop) {
            c->stop = true;
            (void)pthread_cond_broadcast(&c->cond);
        }
        stop = c->stop;
        if (c->welcome && !stop) {
            client_send_posts_locked(c);
            send_ask_locked(c);
            client_want_more_locked(c, now);
            client_send_wants_locked(c);
        }
        (void)pthread_mutex_unlock(&c->lock);
        commit_some(c, n == 0);
    }
    if (c->socket != NULL) {
        int linger = 100;
        if (c->welcome) {
            client_send_bye(c);
        }
        (void)zmq_setsockopt(c->socket, ZMQ_LINGER, &linger, sizeof linger);
        (void)zmq_close(c->socket);
    }
    (void)store_commit(c->cfg.store, NULL);
    return NULL;
}

/* --- life ----------------------------------------------------------------------------------- */

int image_client_open(const struct image_client_config *cfg, struct image_client **out,
                      struct plx_err *err)
{
    struct image_client *c = plx_calloc(1, sizeof *c);
    sigset_t all, old;
    int rc = 0;

    *out = NULL;
    if (c == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image client: out of memory");
    }
    PLX_CHECK(cfg->nservers > 0 && cfg->nservers <= CLIENT_SERVERS_MAX);
    c->cfg = *cfg;
    host_random(&c->instance, sizeof c->instance);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->cond, NULL);
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->raw = plx_calloc(1, SEG_MAX);
    bool whole = c->wake >= 0 && c->raw != NULL;
    for (unsigned i = 0; i < cfg->nservers; i++) {
        c->endpoints[i] = plx_strdup(cfg->servers[i].endpoint);
        whole = whole && c->endpoints[i] != NULL;
    }
    if (!whole) {
        rc = plx_fail(err, PLX_ENOMEM, "image client: out of memory or descriptors");
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (rc == 0 && pthread_create(&c->thread, NULL, client_main, c) != 0) {
        rc = plx_fail(err, PLX_ENOMEM, "image client: no thread");
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    c->started = rc == 0;
    if (rc != 0) {
        image_client_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void image_client_stop(struct image_client *c)
{
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    (void)pthread_cond_broadcast(&c->cond);
    (void)pthread_mutex_unlock(&c->lock);
}

void image_client_close(struct image_client *c)
{
    if (c == NULL) {
        return;
    }
    image_client_stop(c);
    if (c->started) {
        client_wake(c);
        (void)pthread_join(c->thread, NULL);
    }
    while (c->fetches != NULL) {
        client_remove_locked(c, c->fetches);
    }
    client_free_posts(c);
    for (size_t i = 0; c->ask.done && c->ask.kind != ASK_NONE && i < c->ask.n; i++) {
        image_ref_free(&c->ask.refs[i]); /* an answer that nobody took */
    }
    if (c->ask.done && c->ask.kind != ASK_NONE) {
        plx_free(c->ask.refs);
    }
    if (c->wake >= 0) {
        (void)close(c->wake);
    }
    for (unsigned i = 0; i < CLIENT_SERVERS_MAX; i++) {
        plx_free(c->endpoints[i]);
    }
    plx_free(c->raw);
    wbuf_free(&c->out);
    (void)pthread_cond_destroy(&c->cond);
    (void)pthread_mutex_destroy(&c->lock);
    plx_free(c);
}

/* --- asking --------------------------------------------------------------------------------- */

/* Until the answer is there or time is up. The lock is held; sleeps in pieces. */
static int await_locked(struct image_client *c, unsigned timeout_ms, struct plx_err *err)
{
    uint64_t end = clock_mono_ns() + timeout_ms * UINT64_C(1000000);

    client_wake(c);
    while (!c->ask.done && !c->stop) {
        uint64_t now = clock_mono_ns();
        if (now >= end) {
            c->ask.kind = ASK_NONE;
            return plx_fail(err, PLX_ETIMEDOUT, "image server %s does not answer",
                            c->endpoints[c->stats.server]);
        }
        uint64_t until = clock_wall_ns() + (end - now);
        struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                              .tv_nsec = (long)(until % 1000000000)};
        (void)pthread_cond_timedwait(&c->cond, &c->lock, &ts);
    }
    c->ask.kind = ASK_NONE;
    if (c->ask.rc != 0) {
        *err = c->ask.err;
    }
    return c->stop ? plx_fail(err, PLX_ECANCELED, "stopped") : c->ask.rc;
}

static void begin_ask_locked(struct image_client *c, enum ask_kind kind)
{
    c->ask.kind = kind;
    c->ask.sent_to = 0;
    c->ask.done = false;
    c->ask.rc = 0;
    c->ask.refs = NULL;
    c->ask.n = 0;
}

static void copy_text(char *out, size_t cap, const char *text)
{
    (void)snprintf(out, cap, "%s", text == NULL ? "" : text);
}

int image_client_list(struct image_client *c, const char *pattern, const char *os, const char *app,
                      unsigned timeout_ms, struct image_ref **refs, size_t *n, struct plx_err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    begin_ask_locked(c, ASK_LIST);
    copy_text(c->ask.a, sizeof c->ask.a, pattern);
    copy_text(c->ask.os, sizeof c->ask.os, os);
    copy_text(c->ask.app, sizeof c->ask.app, app);
    int rc = await_locked(c, timeout_ms, err);
    *refs = rc == 0 ? c->ask.refs : NULL;
    *n = rc == 0 ? c->ask.n : 0;
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

int image_client_image(struct image_client *c, const char *name, const char *tag,
                       unsigned timeout_ms, struct image_ref *ref, struct plx_err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    copy_text(c->name, sizeof c->name, name);
    copy_text(c->tag, sizeof c->tag, tag);
    begin_ask_locked(c, ASK_OPEN);
    int rc = await_locked(c, timeout_ms, err);
    if (rc == 0 && c->ask.n == 1) {
        *ref = c->ask.refs[0];
        plx_free(c->ask.refs);
        c->ask.refs = NULL;
    } else {
        c->name[0] = '\0';
        rc = rc != 0 ? rc : plx_fail(err, PLX_ECORRUPT, "the image server's answer makes no sense");
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

void image_client_poke(struct image_client *c)
{
    client_wake(c);
}

void image_client_stats(struct image_client *c, struct image_client_stats *out)
{
    (void)pthread_mutex_lock(&c->lock);
    *out = c->stats;
    (void)pthread_mutex_unlock(&c->lock);
}

/* --- without a socket ----------------------------------------------------------------------- */

int image_client_open_detached(struct store *store, struct image_client **out)
{
    struct image_client *c = plx_calloc(1, sizeof *c);

    *out = c;
    if (c == NULL) {
        return PLX_ENOMEM;
    }
    c->cfg.store = store;
    c->cfg.nservers = 1;
    c->wake = -1;
    c->connection = 1;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->cond, NULL);
    c->raw = plx_calloc(1, SEG_MAX);
    c->endpoints[0] = plx_strdup("nowhere");
    if (c->raw == NULL || c->endpoints[0] == NULL || client_expect_answers(c) != 0) {
        image_client_close(c);
        *out = NULL;
        return PLX_ENOMEM;
    }
    /* Somebody waits for every kind of answer. */
    begin_ask_locked(c, ASK_LIST);
    c->ask.sent_to = c->connection;
    return 0;
}

void image_client_message(struct image_client *c, const void *data, size_t len)
{
    on_message(c, data, len);
}
