/* SPDX-License-Identifier: Apache-2.0
 * storage/server.c - see server.h. One thread: takes in all messages there are, then sends segments
 * in the order of server_queue.h and answers a look (server_push.c) until a message comes or
 * nothing may be sent and nobody waits. */
#include "storage/server.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "storage/server_priv.h"
#include "storage/server_wire.h"

enum {
    MESSAGE_MAX = SEG_STORED_MAX + (1 << 16),
    DRAIN_MAX = 256,
    SEND_MAX = 16, /* segments between two looks at what came in */
    LISTED_MAX = 4096,
    TICK_MS = 500,
};

/* --- sending -------------------------------------------------------------------------------- */

int server_send(struct image_server *s, const struct client *c, Img__FromServer *m)
{
    zmq_msg_t body;

    m->version = SERVER_PROTOCOL;
    if (zmq_msg_init_size(&body, img__from_server__get_packed_size(m)) != 0) {
        return PLX_ENOMEM;
    }
    (void)img__from_server__pack(m, zmq_msg_data(&body));
    if (zmq_send(s->router, c->identity, c->identity_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
        zmq_msg_send(&body, s->router, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&body);
        return PLX_ECONN;
    }
    return 0;
}

static void send_text(struct image_server *s, const struct client *c, const char *text, bool denied)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Failed failed = IMG__FAILED__INIT;
    Img__Denied deny = IMG__DENIED__INIT;

    failed.text = deny.text = (char *)(uintptr_t)text;
    m.msg_case = denied ? IMG__FROM_SERVER__MSG_DENIED : IMG__FROM_SERVER__MSG_FAILED;
    if (denied) {
        m.denied = &deny;
    } else {
        m.failed = &failed;
    }
    (void)server_send(s, c, &m);
}

/* The next segment. A client that cannot be reached any more loses it, and soon its place. */
static bool send_one(struct image_server *s)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Segment segment = IMG__SEGMENT__INIT;
    Img__Missing missing = IMG__MISSING__INIT;
    struct seg_form form = {.stored_len = 0};
    struct plx_err err = {{0}};
    struct seg_id id = {{0}};

    struct client *c = (struct client *)(void *)queue_next(&s->queue, &id);
    if (c == NULL) {
        return false;
    }
    int rc = store_ops(s->cfg.store)->get(store_self(s->cfg.store), &id, &s->form, &form, &err);
    if (rc == 0) {
        segment.id = (ProtobufCBinaryData){.len = sizeof id.sha, .data = id.sha};
        segment.codec = form.codec;
        segment.raw_len = form.raw_len;
        segment.data =
            (ProtobufCBinaryData){.len = form.stored_len, .data = (uint8_t *)(uintptr_t)form.data};
        m.msg_case = IMG__FROM_SERVER__MSG_SEGMENT;
        m.segment = &segment;
    } else {
        if (rc != PLX_ENOENT) {
            log_warn("%s", err.msg);
        }
        missing.id = (ProtobufCBinaryData){.len = sizeof id.sha, .data = id.sha};
        missing.text = err.msg;
        m.msg_case = IMG__FROM_SERVER__MSG_MISSING;
        m.missing = &missing;
    }
    rc = server_send(s, c, &m);
    uint64_t bytes = m.msg_case == IMG__FROM_SERVER__MSG_SEGMENT ? form.stored_len : 0;
    queue_sent(&s->queue, &c->q, bytes);
    if (rc == 0 && bytes > 0) {
        s->segments++;
        s->bytes += bytes;
    }
    return true;
}

/* --- clients -------------------------------------------------------------------------------- */

static struct client *find_client(struct image_server *s, const uint8_t *identity, size_t len)
{
    for (struct client *c = s->clients; c != NULL; c = c->next) {
        if (c->identity_len == len && memcmp(c->identity, identity, len) == 0) {
            return c;
        }
    }
    return NULL;
}

static void drop_client(struct image_server *s, struct client *c)
{
    struct client **at = &s->clients;

    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    for (unsigned i = 0; i < c->nleases; i++) {
        image_lease_end(c->leases[i]);
    }
    server_push_forget(s, c);
    queue_client_free(&s->queue, &c->q);
    plx_free(c);
    s->nclients--;
}

static void drop_silent(struct image_server *s)
{
    uint64_t now = clock_mono_ns();

    for (struct client *c = s->clients, *next; c != NULL; c = next) {
        next = c->next;
        if (now - c->heard_ns > IMAGE_CLIENT_SILENCE_MS * UINT64_C(1000000)) {
            log_info("an image client has gone silent");
            s->dropped++;
            drop_client(s, c);
        }
    }
}

/* --- messages ------------------------------------------------------------------------------- */

/* Its former connections end here and now, not when they have been silent for long. False: it has
 * a newer one, and nobody waits for an answer on this. */
static bool take_over(struct image_server *s, const struct client *from)
{
    for (struct client *c = s->clients, *next; c != NULL && from->instance != 0; c = next) {
        next = c->next;
        if (c->instance != from->instance || strcmp(c->user, from->user) != 0) {
            continue;
        }
        if (c->connection > from->connection) {
            return false;
        }
        drop_client(s, c);
    }
    return true;
}

static void on_hello(struct image_server *s, struct client *known, const struct client *from)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Welcome welcome = IMG__WELCOME__INIT;

    if (known != NULL) { /* it begins anew */
        drop_client(s, known);
    }
    if (!take_over(s, from)) {
        return;
    }
    struct client *c = plx_calloc(1, sizeof *c);
    if (c == NULL) {
        return;
    }
    *c = *from;
    c->serial = ++s->serials;
    queue_client_init(&c->q, IMAGE_WINDOW);
    c->next = s->clients;
    s->clients = c;
    s->nclients++;
    welcome.window = IMAGE_WINDOW;
    welcome.push_window = c->may_push ? IMAGE_PUSH_WINDOW : 0;
    m.msg_case = IMG__FROM_SERVER__MSG_WELCOME;
    m.welcome = &welcome;
    (void)server_send(s, c, &m);
}

struct listing {
    const Img__List *want;
    ProtobufCBinaryData *refs; /* each data owned */
    size_t n;
};

static int on_image(void *ctx, const char *name, const struct image_ref *ref)
{
    struct listing *l = ctx;
    struct wbuf text;

    (void)name;
    if (ref == NULL || l->n == LISTED_MAX ||
        !image_matches(ref, l->want->pattern, l->want->os, l->want->app)) {
        return 0;
    }
    wbuf_init(&text);
    if (image_ref_put(ref, &text) != 0) {
        wbuf_free(&text);
        return PLX_ENOMEM;
    }
    l->refs[l->n++] = (ProtobufCBinaryData){.len = text.len, .data = text.data};
    return 0;
}

static void on_list(struct image_server *s, const struct client *c, const Img__List *want)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Images images = IMG__IMAGES__INIT;
    struct listing l = {.want = want};
    struct plx_err err = {{0}};

    l.refs = plx_calloc(LISTED_MAX, sizeof *l.refs);
    int rc = l.refs == NULL ? plx_fail(&err, PLX_ENOMEM, "the server is out of memory")
                            : image_each(s->cfg.store, on_image, &l, &err);
    if (rc != 0) {
        send_text(s, c, err.msg[0] != '\0' ? err.msg : plx_strerror(rc), false);
    } else {
        images.n_refs = l.n;
        images.refs = l.refs;
        m.msg_case = IMG__FROM_SERVER__MSG_IMAGES;
        m.images = &images;
        (void)server_send(s, c, &m);
    }
    for (size_t i = 0; i < l.n; i++) {
        plx_free(l.refs[i].data);
    }
    plx_free(l.refs);
}

static void on_open(struct image_server *s, struct client *c, const Img__Open *want)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Opened opened = IMG__OPENED__INIT;
    char name[IMAGE_TEXT], tag[IMAGE_TEXT], both[2 * IMAGE_NAME];
    struct image_lease *lease = NULL;
    struct plx_err err = {{0}};
    struct image_ref ref;
    struct wbuf text;

    (void)snprintf(both, sizeof both, "%.*s:%.*s", IMAGE_TEXT, want->name, IMAGE_TEXT, want->tag);
    int rc = image_name_parse(both, name, tag, &err);
    if (rc == 0 && c->nleases == SERVER_OPEN_MAX) {
        rc = plx_fail(&err, PLX_ERANGE, "more than %d images are open", SERVER_OPEN_MAX);
    }
    if (rc == 0) {
        rc = image_lease(s->cfg.store, name, tag, &ref, &lease, &err);
    }
    if (rc != 0) {
        send_text(s, c, err.msg, false);
        return;
    }
    c->leases[c->nleases++] = lease;
    wbuf_init(&text);
    if (image_ref_put(&ref, &text) == 0) {
        opened.ref = (ProtobufCBinaryData){.len = text.len, .data = text.data};
        m.msg_case = IMG__FROM_SERVER__MSG_OPENED;
        m.opened = &opened;
        (void)server_send(s, c, &m);
    }
    wbuf_free(&text);
    image_ref_free(&ref);
}

static int on_want(struct image_server *s, struct client *c, const Img__Want *want)
{
    struct seg_id id;
    int rc = want->ids.len % SHA256_LEN != 0 ? PLX_EINVAL : 0;

    for (size_t at = 0; at < want->ids.len && rc == 0; at += SHA256_LEN) {
        memcpy(id.sha, want->ids.data + at, SHA256_LEN);
        rc = queue_want(&s->queue, &c->q, want->urgency, &id);
    }
    return rc;
}

static void on_message(struct image_server *s, struct client *from, const uint8_t *data, size_t len)
{
    Img__ToServer *m = img__to_server__unpack(NULL, len, data);
    struct client *c = find_client(s, from->identity, from->identity_len);
    Img__FromServer pong = IMG__FROM_SERVER__INIT;
    Img__Pong empty = IMG__PONG__INIT;
    int rc = 0;

    if (m == NULL || m->version != SERVER_PROTOCOL) {
        s->malformed++;
        send_text(s, c != NULL ? c : from, "this server speaks version 1 of the image protocol",
                  true);
        if (m != NULL) {
            img__to_server__free_unpacked(m, NULL);
        }
        return;
    }
    if (c != NULL) {
        c->heard_ns = from->heard_ns;
    } else if (m->msg_case != IMG__TO_SERVER__MSG_HELLO) {
        send_text(s, from, "say hello first", true);
        img__to_server__free_unpacked(m, NULL);
        return;
    }
    switch (m->msg_case) {
    case IMG__TO_SERVER__MSG_HELLO:
        from->instance = m->hello->instance;
        from->connection = m->hello->connection;
        on_hello(s, c, from);
        break;
    case IMG__TO_SERVER__MSG_LIST:
        on_list(s, c, m->list);
        break;
    case IMG__TO_SERVER__MSG_OPEN:
        on_open(s, c, m->open);
        break;
    case IMG__TO_SERVER__MSG_WANT:
        rc = on_want(s, c, m->want);
        break;
    case IMG__TO_SERVER__MSG_CREDIT:
        rc = queue_credit(&s->queue, &c->q, m->credit->received);
        break;
    case IMG__TO_SERVER__MSG_PING:
        pong.msg_case = IMG__FROM_SERVER__MSG_PONG;
        pong.pong = &empty;
        (void)server_send(s, c, &pong);
        break;
    case IMG__TO_SERVER__MSG_POST:
        rc = server_on_post(s, c, &m);
        break;
    case IMG__TO_SERVER__MSG_BYE:
        drop_client(s, c);
        break;
    default:
        rc = PLX_EINVAL;
        break;
    }
    if (rc != 0) {
        s->malformed += rc != PLX_ENOMEM;
        send_text(s, c,
                  rc == PLX_ENOMEM   ? "the server is out of memory; begin anew"
                  : rc == PLX_EACCES ? "this key may not push"
                                     : "a request makes no sense; begin anew",
                  true);
        drop_client(s, c);
    }
    if (m != NULL) {
        img__to_server__free_unpacked(m, NULL);
    }
}

/* Its key was taken out, or may something else now. */
static void on_stranger(struct image_server *s, const struct client *from)
{
    struct client *c = find_client(s, from->identity, from->identity_len);

    send_text(s, from, "this key may not do so any more; begin anew", true);
    if (c != NULL) {
        drop_client(s, c);
    }
}

/* Identity, then one message; anything else is dropped. False: nothing was there. */
static bool take_in(struct image_server *s)
{
    struct client from = {.heard_ns = clock_mono_ns()};
    zmq_msg_t part;
    int n = 0, more = 1;

    while (more != 0) {
        PLX_CHECK(zmq_msg_init(&part) == 0);
        if (zmq_msg_recv(&part, s->router, ZMQ_DONTWAIT) < 0) {
            (void)zmq_msg_close(&part);
            return n > 0;
        }
        more = zmq_msg_more(&part);
        size_t len = zmq_msg_size(&part);
        if (n == 0 && len <= SERVER_IDENTITY_MAX) {
            memcpy(from.identity, zmq_msg_data(&part), len);
            from.identity_len = len;
        } else if (n == 1 && more == 0 && from.identity_len > 0) {
            const char *user = zmq_msg_gets(&part, "User-Id");
            from.may_push = user != NULL && *user == IMAGE_USER_PUSHES;
            (void)snprintf(from.user, sizeof from.user, "%s", user != NULL ? user : "");
            if (s->cfg.auth == NULL || (user != NULL && authoriser_knows(s->cfg.auth, user))) {
                on_message(s, &from, zmq_msg_data(&part), len);
            } else {
                on_stranger(s, &from);
            }
        } else if (n > 0) {
            s->malformed++;
        }
        n++;
        (void)zmq_msg_close(&part);
    }
    return true;
}

/* --- life ----------------------------------------------------------------------------------- */

int image_server_open(const struct image_server_config *cfg, struct image_server **out,
                      struct plx_err *err)
{
    static const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_ROUTER_MANDATORY, 1}, /* who is gone is an error, not a black hole */
        {ZMQ_SNDHWM, 0},           /* windows bound what waits */
        {ZMQ_HANDSHAKE_IVL, 2000},
        /* No heartbeats: libzmq 4.3 aborts the process at one to a client that went while more of
         * it waited than is taken in ahead (ZMQ_RCVHWM; its issue 4364). */
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 5},
        {ZMQ_TCP_KEEPALIVE_INTVL, 1},
        {ZMQ_TCP_KEEPALIVE_CNT, 5},
        {ZMQ_TCP_MAXRT, IMAGE_CLIENT_SILENCE_MS},
    };
    int64_t max = MESSAGE_MAX;
    struct image_server *s = plx_calloc(1, sizeof *s);

    *out = NULL;
    if (s == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image server: out of memory");
    }
    s->cfg = *cfg;
    wbuf_init(&s->form);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->router = zmq_socket(cfg->zmq, ZMQ_ROUTER);
    int rc = s->router == NULL || s->wake < 0 ? plx_fail(err, PLX_ENOMEM, "image server: no socket")
                                              : server_push_open(s, err);
    for (size_t i = 0; i < PLX_COUNT(options) && rc == 0; i++) {
        PLX_CHECK(zmq_setsockopt(s->router, options[i].option, &options[i].value,
                                 sizeof options[i].value) == 0);
    }
    if (rc == 0) {
        PLX_CHECK(zmq_setsockopt(s->router, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
        rc = curve_server(s->router, cfg->key, err);
    }
    if (rc == 0 && zmq_bind(s->router, cfg->bind) != 0) {
        rc = plx_fail(err, errno == EADDRINUSE ? PLX_EBUSY : PLX_EINVAL,
                      "image server: cannot listen at %s: %s", cfg->bind, zmq_strerror(errno));
    }
    if (rc != 0) {
        image_server_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

int image_server_run(struct image_server *s, struct plx_err *err)
{
    zmq_pollitem_t items[2] = {{.socket = s->router, .events = ZMQ_POLLIN},
                               {.fd = s->wake, .events = ZMQ_POLLIN}};
    bool sending = false;

    (void)err;
    while (!s->stop) {
        uint64_t count;
        (void)zmq_poll(items, 2, sending ? 0 : TICK_MS);
        if ((items[1].revents & ZMQ_POLLIN) != 0) {
            (void)io_read_some(s->wake, &count, sizeof count);
        }
        server_push_answers(s);
        for (int i = 0; i < DRAIN_MAX && take_in(s); i++) {
        }
        sending = true;
        for (int i = 0; i < SEND_MAX && sending; i++) {
            sending = send_one(s);
        }
        sending = server_push_look(s) || sending;
        drop_silent(s);
    }
    return 0;
}

void image_server_stop(struct image_server *s)
{
    const uint64_t one = 1;

    s->stop = true;
    (void)io_write_full(s->wake, &one, sizeof one);
}

void image_server_stats(struct image_server *s, struct image_server_stats *out)
{
    *out = (struct image_server_stats){.clients = s->nclients,
                                       .dropped_clients = s->dropped,
                                       .segments = s->segments,
                                       .bytes = s->bytes,
                                       .put_segments = s->put_segments,
                                       .put_bytes = s->put_bytes,
                                       .shared_segments = s->shared_segments,
                                       .names = s->names,
                                       .malformed = s->malformed};
}

void image_server_close(struct image_server *s)
{
    if (s == NULL) {
        return;
    }
    while (s->clients != NULL) {
        drop_client(s, s->clients);
    }
    server_push_close(s);
    if (s->router != NULL) {
        (void)zmq_close(s->router);
    }
    if (s->wake >= 0) {
        (void)close(s->wake);
    }
    wbuf_free(&s->form);
    plx_free(s);
}

/* --- without a socket ----------------------------------------------------------------------- */

int image_server_open_detached(struct store *store, struct image_server **out)
{
    struct image_server *s = plx_calloc(1, sizeof *s);

    *out = s;
    if (s == NULL) {
        return PLX_ENOMEM;
    }
    s->cfg.store = store;
    s->wake = -1;
    wbuf_init(&s->form);
    int rc = server_push_open(s, NULL);
    if (rc != 0) {
        image_server_close(s);
        *out = NULL;
    }
    return rc;
}

void image_server_message(struct image_server *s, const uint8_t *identity, size_t identity_len,
                          const void *data, size_t len)
{
    struct client from = {.heard_ns = clock_mono_ns(), .may_push = true};

    from.identity_len = identity_len < SERVER_IDENTITY_MAX ? identity_len : SERVER_IDENTITY_MAX;
    memcpy(from.identity, identity, from.identity_len);
    on_message(s, &from, data, len);
    for (int i = 0; i < SEND_MAX && send_one(s); i++) {
    }
    while (server_push_look(s)) {
    }
    server_push_answers(s);
}
