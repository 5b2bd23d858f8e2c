/* SPDX-License-Identifier: Apache-2.0
 * consensus/tunnel.c - see tunnel.h.
 *
 * A tunnel lives from TunnelOpen to the close callback of its handles. Either side ends it: Raft by
 * closing its end of the pair (read as end of file here), the peer by TunnelClose. */
#include "consensus/tunnel.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    CHUNK = 65536,
    CONNECT_TIMEOUT_MS = 300,
    BACKLOG_MAX = 64 << 20 /* bytes Raft has not read yet before the tunnel is given up */
};

struct tunnel {
    struct tunnels *owner;
    struct tunnel *next;
    uint32_t peer;
    uint64_t stream;
    uint64_t offset; /* of the next byte: sent by the opener, expected by the acceptor */
    bool opener, acked, closing;
    struct raft_uv_connect *req; /* opener: until it is acknowledged */
    raft_uv_connect_cb cb;
    uv_pipe_t *raft_end; /* opener: until given to Raft */
    uv_pipe_t end;       /* ours */
    uv_timer_t timeout;  /* opener */
    unsigned open_handles;
};

struct tunnels {
    uv_loop_t *loop;
    struct node_link *link;
    struct raft_uv_transport *transport;
    raft_uv_accept_cb accept;
    struct tunnel *list;
    bool closing;
    bool freeing;
    char chunk[CHUNK];
};

static void maybe_free(struct tunnels *t)
{
    if (t->freeing && t->list == NULL) {
        plx_free(t);
    }
}

static struct tunnel *find(struct tunnels *t, uint32_t peer, uint64_t stream)
{
    for (struct tunnel *u = t->list; u != NULL; u = u->next) {
        if (u->peer == peer && u->stream == stream && !u->closing) {
            return u;
        }
    }
    return NULL;
}

static void tell_closed(struct tunnels *t, uint32_t peer, uint64_t stream)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__TunnelClose c = CL__TUNNEL_CLOSE__INIT;

    c.stream = stream;
    m.msg_case = CL__NODE_MESSAGE__MSG_TUNNEL_CLOSE;
    m.tunnel_close = &c;
    (void)node_link_send(t->link, peer, &m);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct tunnel *u = h->data;

    if (--u->open_handles != 0) {
        return;
    }
    struct tunnels *t = u->owner;
    for (struct tunnel **at = &t->list; *at != NULL; at = &(*at)->next) {
        if (*at == u) {
            *at = u->next;
            break;
        }
    }
    plx_free(u);
    maybe_free(t);
}

static void free_raft_end(uv_handle_t *h)
{
    raft_free(h);
}

/* End a tunnel; @status answers a connect that still waits. */
static void end(struct tunnel *u, bool tell, int status)
{
    if (u->closing) {
        return;
    }
    u->closing = true;
    if (tell) {
        tell_closed(u->owner, u->peer, u->stream);
    }
    if (u->raft_end != NULL) {
        uv_close((uv_handle_t *)u->raft_end, free_raft_end);
        u->raft_end = NULL;
    }
    uv_close((uv_handle_t *)&u->end, on_handle_closed);
    uv_close((uv_handle_t *)&u->timeout, on_handle_closed);
    if (u->req != NULL) {
        struct raft_uv_connect *req = u->req;
        u->req = NULL;
        u->cb(req, NULL, status);
    }
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct tunnel *u = h->data;

    (void)suggested;
    *buf = uv_buf_init(u->owner->chunk, sizeof u->owner->chunk);
}

/* What Raft wrote, or the end of its interest. */
static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct tunnel *u = s->data;

    if (n == 0) {
        return;
    }
    if (n < 0 || !u->opener) {
        end(u, true, RAFT_NOCONNECTION);
        return;
    }
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__TunnelData d = CL__TUNNEL_DATA__INIT;
    d.stream = u->stream;
    d.offset = u->offset;
    d.data = (ProtobufCBinaryData){.len = (size_t)n, .data = (uint8_t *)buf->base};
    m.msg_case = CL__NODE_MESSAGE__MSG_TUNNEL_DATA;
    m.tunnel_data = &d;
    u->offset += (uint64_t)n;
    if (node_link_send(u->owner->link, u->peer, &m) != 0) {
        end(u, false, RAFT_NOCONNECTION);
    }
}

static void on_timeout(uv_timer_t *h)
{
    end(h->data, true, RAFT_NOCONNECTION);
}

/* A tunnel with both ends of its socket pair open; *raft_end is for Raft. NULL on failure. */
static struct tunnel *make(struct tunnels *t, uint32_t peer, uint64_t stream, bool opener,
                           uv_pipe_t **raft_end)
{
    int sv[2];
    struct tunnel *u = plx_calloc(1, sizeof *u);
    uv_pipe_t *theirs = raft_malloc(sizeof *theirs);

    if (u == NULL || theirs == NULL ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0) {
        plx_free(u);
        raft_free(theirs);
        return NULL;
    }
    u->owner = t;
    u->peer = peer;
    u->stream = stream;
    u->opener = opener;
    (void)uv_pipe_init(t->loop, &u->end, 0);
    (void)uv_timer_init(t->loop, &u->timeout);
    (void)uv_pipe_init(t->loop, theirs, 0);
    u->open_handles = 2;
    u->end.data = u->timeout.data = u;
    u->next = t->list;
    t->list = u;
    PLX_CHECK(uv_pipe_open(&u->end, sv[0]) == 0);
    PLX_CHECK(uv_pipe_open(theirs, sv[1]) == 0);
    *raft_end = theirs;
    return u;
}

/* --- the transport, as Raft calls it ------------------------------------------------------- */

static int transport_init(struct raft_uv_transport *tr, raft_id id, const char *address)
{
    (void)tr;
    (void)id;
    (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *tr, raft_uv_accept_cb cb)
{
    struct tunnels *t = tr->impl;

    t->accept = cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *tr, struct raft_uv_connect *req, raft_id id,
                             const char *address, raft_uv_connect_cb cb)
{
    struct tunnels *t = tr->impl;
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__TunnelOpen o = CL__TUNNEL_OPEN__INIT;
    uint64_t stream;
    uv_pipe_t *raft_end;

    (void)address;
    host_random(&stream, sizeof stream);
    struct tunnel *u = make(t, (uint32_t)id, stream, true, &raft_end);
    if (u == NULL) {
        return RAFT_NOMEM;
    }
    u->raft_end = raft_end;
    u->req = req;
    u->cb = cb;
    (void)uv_timer_start(&u->timeout, on_timeout, CONNECT_TIMEOUT_MS, 0);
    o.stream = stream;
    m.msg_case = CL__NODE_MESSAGE__MSG_TUNNEL_OPEN;
    m.tunnel_open = &o;
    (void)node_link_send(t->link, u->peer, &m); /* not sent: the timer answers */
    return 0;
}

static void transport_close(struct raft_uv_transport *tr, raft_uv_transport_close_cb cb)
{
    struct tunnels *t = tr->impl;

    t->closing = true;
    t->accept = NULL;
    for (struct tunnel *u = t->list; u != NULL; u = u->next) {
        end(u, true, RAFT_CANCELED);
    }
    cb(tr);
}

struct tunnels *tunnels_open(uv_loop_t *loop, struct node_link *link,
                             struct raft_uv_transport *transport)
{
    struct tunnels *t = plx_calloc(1, sizeof *t);

    if (t == NULL) {
        return NULL;
    }
    t->loop = loop;
    t->link = link;
    t->transport = transport;
    memset(transport, 0, sizeof *transport);
    transport->impl = t;
    transport->init = transport_init;
    transport->listen = transport_listen;
    transport->connect = transport_connect;
    transport->close = transport_close;
    return t;
}

void tunnels_close(struct tunnels *t)
{
    if (t == NULL) {
        return;
    }
    for (struct tunnel *u = t->list; u != NULL; u = u->next) {
        end(u, false, RAFT_CANCELED);
    }
    t->freeing = true;
    maybe_free(t);
}

/* --- from the peers ------------------------------------------------------------------------ */

static void on_open(struct tunnels *t, uint32_t from, uint64_t stream)
{
    uv_pipe_t *raft_end;
    char address[32];

    if (t->accept == NULL || t->closing) {
        return;
    }
    /* One incoming stream a peer: a new one means that the peer has given the old one up. */
    for (struct tunnel *u = t->list; u != NULL; u = u->next) {
        if (u->peer == from && !u->opener) {
            end(u, false, 0);
        }
    }
    struct tunnel *u = make(t, from, stream, false, &raft_end);
    if (u == NULL) {
        log_warn("cannot accept a Raft stream from node %u: out of memory", from);
        return;
    }
    (void)uv_read_start((uv_stream_t *)&u->end, on_alloc, on_read);
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__TunnelAck a = CL__TUNNEL_ACK__INIT;
    a.stream = stream;
    m.msg_case = CL__NODE_MESSAGE__MSG_TUNNEL_ACK;
    m.tunnel_ack = &a;
    (void)node_link_send(t->link, from, &m);
    (void)snprintf(address, sizeof address, "node-%u", from);
    t->accept(t->transport, from, address, (struct uv_stream_s *)raft_end);
}

static void on_ack(struct tunnel *u)
{
    if (u->req == NULL) {
        return;
    }
    struct raft_uv_connect *req = u->req;
    uv_pipe_t *raft_end = u->raft_end;
    u->req = NULL;
    u->raft_end = NULL;
    (void)uv_timer_stop(&u->timeout);
    (void)uv_read_start((uv_stream_t *)&u->end, on_alloc, on_read);
    u->cb(req, (struct uv_stream_s *)raft_end, 0);
}

struct write {
    uv_write_t req;
    char data[];
};

static void on_written(uv_write_t *req, int status)
{
    struct tunnel *u = req->handle->data;

    if (status != 0 && status != UV_ECANCELED) {
        end(u, true, 0);
    }
    plx_free(req->data);
}

static void on_data(struct tunnel *u, const Cl__TunnelData *d)
{
    if (u->opener || d->offset != u->offset ||
        uv_stream_get_write_queue_size((uv_stream_t *)&u->end) > BACKLOG_MAX) {
        end(u, true, 0);
        return;
    }
    struct write *w = plx_calloc(1, sizeof *w + d->data.len);
    if (w == NULL) {
        end(u, true, 0);
        return;
    }
    if (d->data.len != 0) {
        memcpy(w->data, d->data.data, d->data.len);
    }
    w->req.data = w;
    u->offset += d->data.len;
    uv_buf_t buf = uv_buf_init(w->data, (unsigned)d->data.len);
    if (uv_write(&w->req, (uv_stream_t *)&u->end, &buf, 1, on_written) != 0) {
        plx_free(w);
        end(u, true, 0);
    }
}

bool tunnels_message(struct tunnels *t, uint32_t from, const Cl__NodeMessage *msg)
{
    struct tunnel *u;

    switch (msg->msg_case) {
    case CL__NODE_MESSAGE__MSG_TUNNEL_OPEN:
        on_open(t, from, msg->tunnel_open->stream);
        return true;
    case CL__NODE_MESSAGE__MSG_TUNNEL_ACK:
        u = find(t, from, msg->tunnel_ack->stream);
        if (u != NULL) {
            on_ack(u);
        } else {
            tell_closed(t, from, msg->tunnel_ack->stream);
        }
        return true;
    case CL__NODE_MESSAGE__MSG_TUNNEL_DATA:
        u = find(t, from, msg->tunnel_data->stream);
        if (u != NULL) {
            on_data(u, msg->tunnel_data);
        } else {
            tell_closed(t, from, msg->tunnel_data->stream);
        }
        return true;
    case CL__NODE_MESSAGE__MSG_TUNNEL_CLOSE:
        u = find(t, from, msg->tunnel_close->stream);
        if (u != NULL) {
            end(u, false, RAFT_NOCONNECTION);
        }
        return true;
    default:
        return false;
    }
}
