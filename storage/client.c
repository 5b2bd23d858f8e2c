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
#include "proto/image.pb-c.h"
#include "storage/server_wire.h"

enum {
    PROTOCOL = 1,
    MESSAGE_MAX = 8 << 20,
    IDS_PER_WANT = 256,
    GUESS = 16 << 10,         /* stored length of a segment that has not come yet */
    WINDOW_LEAST = 128 << 10, /* of what is only wanted, bytes */
    WINDOW_MOST = 4 << 20,
    RATE_OVER_NS = 100000000,
    POLL_MS = 50,
    COMMIT_BYTES = 16 << 20,
};

struct fetch {
    struct fetch *next;
    struct seg_id id;
    enum client_urgency urgency;
    uint64_t sent_to; /* connection it was sent on; 0: none */
    unsigned waiters;
    unsigned missing; /* bits: servers that lack it */
    bool done;
    int rc;
    struct plx_err err;
    uint8_t *data; /* contents, when somebody waits */
    uint32_t len;
};

enum ask_kind { ASK_NONE, ASK_LIST, ASK_OPEN };

struct image_client {
    struct image_client_config cfg;
    char *endpoints[CLIENT_SERVERS_MAX];
    int wake; /* eventfd */
    pthread_t thread;
    bool started;
    struct wbuf out;     /* the thread's */
    uint8_t *raw;        /* the thread's, SEG_MAX */
    void *socket;        /* the thread's */
    uint64_t connection; /* number of the present one, from 1 */
    bool welcome;
    uint64_t received; /* bytes of segments on this connection */
    uint64_t heard_ns, pinged_ns, needed_ns, rate_ns, rate_bytes, uncommitted;
    double rate; /* bytes a second */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t cond;  /* a fetch or an answer is done */
    bool stop;
    struct fetch *fetches;
    unsigned wanted; /* fetches in the list that nobody waits for */
    struct {
        enum ask_kind kind;
        uint64_t sent_to;
        char a[IMAGE_NAME], os[IMAGE_TEXT], app[IMAGE_APP];
        bool done;
        int rc;
        struct plx_err err;
        struct image_ref *refs;
        size_t n;
    } ask;
    char name[IMAGE_TEXT], tag[IMAGE_TEXT]; /* kept open on every server; "": none */
    struct image_client_stats stats;
};

static void wake(struct image_client *c)
{
    const uint64_t one = 1;

    (void)io_write_full(c->wake, &one, sizeof one);
}

/* --- sending, on the thread ----------------------------------------------------------------- */

static void send_message(struct image_client *c, Img__ToServer *m)
{
    m->version = PROTOCOL;
    wbuf_clear(&c->out);
    size_t len = img__to_server__get_packed_size(m);
    uint8_t *at = wbuf_grow(&c->out, len);
    if (at != NULL && c->socket != NULL) {
        (void)img__to_server__pack(m, at);
        (void)zmq_send(c->socket, at, len, ZMQ_DONTWAIT);
    }
}

#define SEND_EMPTY(c, field, CASE, INIT)              \
    do {                                              \
        Img__ToServer send_m = IMG__TO_SERVER__INIT;  \
        INIT;                                         \
        send_m.msg_case = IMG__TO_SERVER__MSG_##CASE; \
        send_m.field = &send_part;                    \
        send_message(c, &send_m);                     \
    } while (0)

static void send_hello(struct image_client *c)
{
    SEND_EMPTY(c, hello, HELLO, Img__Hello send_part = IMG__HELLO__INIT);
}

static void send_ping(struct image_client *c)
{
    SEND_EMPTY(c, ping, PING, Img__Ping send_part = IMG__PING__INIT);
}

static void send_bye(struct image_client *c)
{
    SEND_EMPTY(c, bye, BYE, Img__Bye send_part = IMG__BYE__INIT);
}

static void send_credit(struct image_client *c)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Credit credit = IMG__CREDIT__INIT;

    credit.received = c->received;
    m.msg_case = IMG__TO_SERVER__MSG_CREDIT;
    m.credit = &credit;
    send_message(c, &m);
}

static void send_open(struct image_client *c, const char *name, const char *tag)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Open open = IMG__OPEN__INIT;

    open.name = (char *)(uintptr_t)name;
    open.tag = (char *)(uintptr_t)tag;
    m.msg_case = IMG__TO_SERVER__MSG_OPEN;
    m.open = &open;
    send_message(c, &m);
}

static void send_want(struct image_client *c, unsigned urgency, uint8_t *ids, size_t n)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Want want = IMG__WANT__INIT;

    if (n > 0) {
        want.ids = (ProtobufCBinaryData){.len = n * SHA256_LEN, .data = ids};
        want.urgency = urgency;
        m.msg_case = IMG__TO_SERVER__MSG_WANT;
        m.want = &want;
        send_message(c, &m);
    }
}

static void send_ask_locked(struct image_client *c)
{
    if (c->ask.kind == ASK_NONE || c->ask.done || c->ask.sent_to == c->connection) {
        return;
    }
    c->ask.sent_to = c->connection;
    if (c->ask.kind == ASK_OPEN) {
        send_open(c, c->name, c->tag);
    } else {
        Img__ToServer m = IMG__TO_SERVER__INIT;
        Img__List list = IMG__LIST__INIT;
        list.pattern = c->ask.a;
        list.os = c->ask.os;
        list.app = c->ask.app;
        m.msg_case = IMG__TO_SERVER__MSG_LIST;
        m.list = &list;
        send_message(c, &m);
    }
}

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
        f->urgency = urgency;
        *at = f;
        c->wanted += urgency != CLIENT_NEEDED;
    }
    return f;
}

static void remove_locked(struct image_client *c, struct fetch *f)
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
static void want_more_locked(struct image_client *c, uint64_t now)
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

static void send_wants_locked(struct image_client *c)
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
                send_want(c, urgency, ids, n);
                n = 0;
            }
        }
        send_want(c, urgency, ids, n);
    }
}

/* --- connections ---------------------------------------------------------------------------- */

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

    if (c->socket != NULL) {
        (void)zmq_close(c->socket);
    }
    c->socket = zmq_socket(c->cfg.zmq, ZMQ_DEALER);
    c->connection++;
    c->welcome = false;
    c->received = 0;
    c->heard_ns = c->pinged_ns = clock_mono_ns();
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
        (void)zmq_close(c->socket);
        c->socket = NULL;
        return;
    }
    send_hello(c);
}

static void next_server(struct image_client *c, const char *why)
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

static void on_segment(struct image_client *c, const Img__Segment *m, uint64_t now)
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
    if (m->id.len != SHA256_LEN || m->codec > SEG_ZSTD || m->raw_len == 0 || m->raw_len > SEG_MAX ||
        m->data.len == 0 || m->data.len > m->raw_len ||
        (m->codec == SEG_PLAIN && m->data.len != m->raw_len)) {
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
        next_server(c, "sends segments that are not what it says");
        return;
    }
    if (f == NULL) { /* came twice, after a change of servers */
        (void)pthread_mutex_unlock(&c->lock);
        return;
    }
    enum client_urgency urgency = f->urgency;
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
        remove_locked(c, f);
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

static void on_missing(struct image_client *c, const Img__Missing *m)
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
            remove_locked(c, f); /* nobody has it; who needs it will ask */
        } else if (!others) {
            f->rc = plx_fail(&f->err, PLX_ENOENT, "no server has the segment: %s", m->text);
            f->done = true;
            (void)pthread_cond_broadcast(&c->cond);
        }
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (others) {
        next_server(c, "lacks a segment");
    }
}

static void on_message(struct image_client *c, const uint8_t *data, size_t len)
{
    Img__FromServer *m = img__from_server__unpack(NULL, len, data);
    uint64_t now = clock_mono_ns();

    if (m == NULL || m->version != PROTOCOL) {
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
        if (c->name[0] != '\0' && c->ask.kind != ASK_OPEN) {
            send_open(c, c->name, c->tag); /* so that it is kept here too */
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
        on_segment(c, m->segment, now);
        break;
    case IMG__FROM_SERVER__MSG_MISSING:
        on_missing(c, m->missing);
        break;
    case IMG__FROM_SERVER__MSG_DENIED:
        log_warn("image server %s: %s", c->endpoints[c->stats.server], m->denied->text);
        connect_to(c, c->stats.server);
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
        send_credit(c);
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
            next_server(c, "is silent");
        }
        if (c->welcome && now - c->pinged_ns > IMAGE_PING_MS * UINT64_C(1000000)) {
            c->pinged_ns = now;
            send_ping(c);
        }
        (void)pthread_mutex_lock(&c->lock);
        stop = c->stop;
        if (c->welcome && !stop) {
            send_ask_locked(c);
            want_more_locked(c, now);
            send_wants_locked(c);
        }
        (void)pthread_mutex_unlock(&c->lock);
        commit_some(c, n == 0);
    }
    if (c->socket != NULL) {
        int linger = 100;
        if (c->welcome) {
            send_bye(c);
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
        wake(c);
        (void)pthread_join(c->thread, NULL);
    }
    while (c->fetches != NULL) {
        remove_locked(c, c->fetches);
    }
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

    wake(c);
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
    wake(c);
}

int image_client_fetch(struct image_client *c, const struct seg_id *id, void *out, size_t len,
                       struct plx_err *err)
{
    uint64_t begun = clock_mono_ns();
    int rc;

    (void)pthread_mutex_lock(&c->lock);
    struct fetch *f = join_locked(c, id);
    if (f == NULL) {
        (void)pthread_mutex_unlock(&c->lock);
        return plx_fail(err, PLX_ENOMEM, "out of memory for a segment");
    }
    wake(c);
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
        if (out != NULL) {
            memcpy(out, f->data, len);
        }
    }
    uint64_t waited = clock_mono_ns() - begun;
    c->stats.fetches++;
    c->stats.stall_ns += waited;
    if (waited > c->stats.longest_stall_ns) {
        c->stats.longest_stall_ns = waited;
    }
    if (--f->waiters == 0) {
        remove_locked(c, f);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

int image_client_blob(struct image_client *c, const struct store_blob *b, struct wbuf *out,
                      struct plx_err *err)
{
    int rc = 0;

    wbuf_init(out);
    for (uint32_t i = 0; i < b->nparts && rc == 0; i++) {
        uint64_t off = (uint64_t)i * STORE_BLOB_PART;
        size_t part = b->len - off < STORE_BLOB_PART ? b->len - off : STORE_BLOB_PART;
        uint8_t *at = wbuf_grow(out, part);
        if (at == NULL) {
            rc = plx_fail(err, PLX_ENOMEM, "out of memory");
            break;
        }
        int has = store_has(c->cfg.store, &b->parts[i], err);
        if (has == 1 && store_get(c->cfg.store, &b->parts[i], at, part, err) == 0) {
            continue;
        }
        rc = image_client_fetch(c, &b->parts[i], at, part, err);
    }
    if (rc != 0) {
        wbuf_free(out);
    }
    return rc;
}

void image_client_poke(struct image_client *c)
{
    wake(c);
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
    if (c->raw == NULL || c->endpoints[0] == NULL) {
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
