/* SPDX-License-Identifier: Apache-2.0
 * consensus/node_link.c - see node_link.h.
 *
 * ZMQ_FD is edge-triggered and also signals ZeroMQ's inner commands, so readiness is never taken
 * from it alone: after every wake-up, and before every sleep, ZMQ_EVENTS is read and the socket
 * drained. While messages are left after a bounded drain an idle handle keeps the loop from
 * sleeping. */
#include "consensus/node_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    PROTOCOL = 1,
    DRAIN_MAX = 64,   /* messages per turn, so that timers are not starved */
    QUEUE_MAX = 8192, /* messages waiting per peer */
    RECONNECT_MS = 20,
    RECONNECT_MAX_MS = 100,
    CONNECT_TIMEOUT_MS = 300,
    HEARTBEAT_MS = 100,
    HEARTBEAT_TIMEOUT_MS = 500, /* a silent connection is made anew */
    HANDSHAKE_MS = 1000,
    MESSAGE_MAX = 4 << 20,
};

struct peer {
    struct node_link_peer node;
    char user[16]; /* the id as the authoriser tells it */
    void *push;    /* NULL for the own entry */
    uint64_t heard_ns;
};

struct node_link {
    struct node_link_config cfg;
    void *pull;
    struct peer peers[NODE_LINK_NODES_MAX];
    unsigned npeers;
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    unsigned open_handles;
    bool closing;
    struct node_link_counters counters;
    uint8_t *out; /* a message being packed */
    size_t out_cap;
};

static struct peer *peer_by_id(const struct node_link *l, uint32_t id)
{
    for (unsigned i = 0; i < l->npeers; i++) {
        if (l->peers[i].node.id == id) {
            return (struct peer *)&l->peers[i];
        }
    }
    return NULL;
}

static int pull_events(struct node_link *l)
{
    int events = 0;
    size_t len = sizeof events;

    (void)zmq_getsockopt(l->pull, ZMQ_EVENTS, &events, &len);
    return events;
}

static void receive(struct node_link *l, zmq_msg_t *m)
{
    const char *user = zmq_msg_gets(m, "User-Id");
    Cl__NodeMessage *msg = cl__node_message__unpack(NULL, zmq_msg_size(m), zmq_msg_data(m));
    struct peer *p = msg != NULL ? peer_by_id(l, msg->from) : NULL;

    if (p == NULL || p->push == NULL || user == NULL || strcmp(user, p->user) != 0 ||
        msg->version != PROTOCOL || msg->cluster.len != NODE_LINK_CLUSTER_LEN ||
        memcmp(msg->cluster.data, l->cfg.cluster, NODE_LINK_CLUSTER_LEN) != 0) {
        if (l->counters.dropped++ == 0) {
            log_warn("dropped a message from node %s: %s", user != NULL ? user : "?",
                     msg == NULL                ? "malformed"
                     : msg->version != PROTOCOL ? "another version of the protocol"
                                                : "not of this cluster");
        }
    } else {
        l->counters.received++;
        p->heard_ns = clock_mono_ns();
        l->cfg.on_message(l->cfg.ctx, msg->from, msg);
    }
    if (msg != NULL) {
        cl__node_message__free_unpacked(msg, NULL);
    }
}

static void drain(struct node_link *l)
{
    for (int i = 0; i < DRAIN_MAX && !l->closing && (pull_events(l) & ZMQ_POLLIN) != 0; i++) {
        zmq_msg_t m;
        PLX_CHECK(zmq_msg_init(&m) == 0);
        if (zmq_msg_recv(&m, l->pull, ZMQ_DONTWAIT) >= 0) {
            receive(l, &m);
        }
        (void)zmq_msg_close(&m);
    }
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* only keeps the loop awake */
}

static void on_prepare(uv_prepare_t *h)
{
    struct node_link *l = h->data;

    if ((pull_events(l) & ZMQ_POLLIN) != 0) {
        (void)uv_idle_start(&l->idle, on_idle);
    } else {
        (void)uv_idle_stop(&l->idle);
    }
}

static void on_check(uv_check_t *h)
{
    drain(h->data);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    (void)h; /* on_check drains in the same turn */
    (void)status;
    (void)events;
}

static int open_push(struct node_link *l, struct peer *p, struct plx_err *err)
{
    static const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_SNDHWM, QUEUE_MAX},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
        {ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS},
        {ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
    };

    p->push = zmq_socket(l->cfg.zmq, ZMQ_PUSH);
    if (p->push == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot make a socket: %s", zmq_strerror(errno));
    }
    for (size_t i = 0; i < PLX_COUNT(options); i++) {
        PLX_CHECK(zmq_setsockopt(p->push, options[i].option, &options[i].value,
                                 sizeof options[i].value) == 0);
    }
    int rc = curve_client(p->push, l->cfg.key, p->node.key, err);
    if (rc != 0) {
        return rc;
    }
    if (zmq_connect(p->push, p->node.endpoint) != 0) {
        return plx_fail(err, PLX_EINVAL, "node %u: bad address %s: %s", p->node.id,
                        p->node.endpoint, zmq_strerror(errno));
    }
    return 0;
}

static int open_pull(struct node_link *l, struct plx_err *err)
{
    static const struct {
        int option, value;
    } options[] = {{ZMQ_LINGER, 0},
                   /* No limit: beyond one libzmq 4.3 aborts the process at a heartbeat to a peer
                    * that has gone (its issue 4364). What waits is what nodes of this cluster sent
                    * while the loop did not turn. */
                   {ZMQ_RCVHWM, 0},
                   {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
                   {ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS},
                   {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS}};
    int64_t max = MESSAGE_MAX;

    l->pull = zmq_socket(l->cfg.zmq, ZMQ_PULL);
    if (l->pull == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot make a socket: %s", zmq_strerror(errno));
    }
    for (size_t i = 0; i < PLX_COUNT(options); i++) {
        PLX_CHECK(zmq_setsockopt(l->pull, options[i].option, &options[i].value,
                                 sizeof options[i].value) == 0);
    }
    PLX_CHECK(zmq_setsockopt(l->pull, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
    int rc = curve_server(l->pull, l->cfg.key, err);
    if (rc != 0) {
        return rc;
    }
    if (zmq_bind(l->pull, l->cfg.bind) != 0) {
        return plx_fail(err, errno == EADDRINUSE ? PLX_EBUSY : PLX_EINVAL, "cannot bind %s: %s",
                        l->cfg.bind, zmq_strerror(errno));
    }
    return 0;
}

static void free_link(struct node_link *l)
{
    for (unsigned i = 0; i < l->npeers; i++) {
        if (l->peers[i].push != NULL) {
            (void)zmq_close(l->peers[i].push);
        }
    }
    if (l->pull != NULL) {
        (void)zmq_close(l->pull);
    }
    plx_free(l->out);
    plx_free(l);
}

int node_link_open(const struct node_link_config *cfg, struct node_link **out, struct plx_err *err)
{
    struct node_link *l = plx_calloc(1, sizeof *l);
    int fd, rc;
    size_t len = sizeof fd;

    *out = NULL;
    if (l == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot open the cluster link: out of memory");
    }
    PLX_CHECK(cfg->nnodes <= NODE_LINK_NODES_MAX);
    l->cfg = *cfg;
    rc = 0;
    for (unsigned i = 0; i < cfg->nnodes && rc == 0; i++) {
        struct peer *p = &l->peers[l->npeers++];
        p->node = cfg->nodes[i];
        (void)snprintf(p->user, sizeof p->user, "%u", p->node.id);
        if (p->node.id != cfg->self) {
            rc = authoriser_allow(cfg->auth, p->node.key, p->user);
            rc = rc != 0 ? plx_fail(err, rc, "too many nodes") : open_push(l, p, err);
        }
    }
    /* Last: a peer that is refused does not try again (zmq_connect), so all keys come first. */
    rc = rc == 0 ? open_pull(l, err) : rc;
    if (rc != 0) {
        free_link(l);
        return rc;
    }
    PLX_CHECK(zmq_getsockopt(l->pull, ZMQ_FD, &fd, &len) == 0);
    if (uv_poll_init(cfg->loop, &l->poll, fd) != 0) {
        free_link(l);
        return plx_fail(err, PLX_EIO, "cannot watch the cluster link");
    }
    (void)uv_prepare_init(cfg->loop, &l->prepare);
    (void)uv_check_init(cfg->loop, &l->check);
    (void)uv_idle_init(cfg->loop, &l->idle);
    l->open_handles = 4;
    l->poll.data = l->prepare.data = l->check.data = l->idle.data = l;
    (void)uv_poll_start(&l->poll, UV_READABLE, on_poll);
    (void)uv_prepare_start(&l->prepare, on_prepare);
    (void)uv_check_start(&l->check, on_check);
    *out = l;
    return 0;
}

static void on_closed(uv_handle_t *h)
{
    struct node_link *l = h->data;

    if (--l->open_handles == 0) {
        free_link(l);
    }
}

void node_link_close(struct node_link *l)
{
    if (l == NULL) {
        return;
    }
    l->closing = true;
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->prepare, on_closed);
    uv_close((uv_handle_t *)&l->check, on_closed);
    uv_close((uv_handle_t *)&l->idle, on_closed);
}

/* Pack into l->out. 0: out of memory. */
static size_t pack(struct node_link *l, Cl__NodeMessage *msg)
{
    msg->version = PROTOCOL;
    msg->cluster = (ProtobufCBinaryData){.len = NODE_LINK_CLUSTER_LEN, .data = l->cfg.cluster};
    msg->from = l->cfg.self;
    size_t len = cl__node_message__get_packed_size(msg);
    if (len > l->out_cap) {
        uint8_t *out = plx_realloc(l->out, len);
        if (out == NULL) {
            return 0;
        }
        l->out = out;
        l->out_cap = len;
    }
    (void)cl__node_message__pack(msg, l->out);
    return len;
}

static int push(struct node_link *l, struct peer *p, size_t len)
{
    if (len == 0 || zmq_send(p->push, l->out, len, ZMQ_DONTWAIT) < 0) {
        l->counters.unsendable++;
        return PLX_ECONN;
    }
    l->counters.sent++;
    return 0;
}

int node_link_send(struct node_link *l, uint32_t to, Cl__NodeMessage *msg)
{
    struct peer *p = peer_by_id(l, to);

    if (p == NULL || p->push == NULL || l->closing) {
        return PLX_ECONN;
    }
    return push(l, p, pack(l, msg));
}

void node_link_send_all(struct node_link *l, Cl__NodeMessage *msg)
{
    size_t len = pack(l, msg);

    for (unsigned i = 0; i < l->npeers && !l->closing; i++) {
        if (l->peers[i].push != NULL) {
            (void)push(l, &l->peers[i], len);
        }
    }
}

uint64_t node_link_age_ms(const struct node_link *l, uint32_t id)
{
    const struct peer *p = peer_by_id(l, id);

    if (p == NULL || p->heard_ns == 0) {
        return UINT64_MAX;
    }
    return (clock_mono_ns() - p->heard_ns) / 1000000;
}

const struct node_link_counters *node_link_counters(const struct node_link *l)
{
    return &l->counters;
}
