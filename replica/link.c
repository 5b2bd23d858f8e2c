/* SPDX-License-Identifier: Apache-2.0
 * replica/link.c - see link.h. Timeouts are chosen so that a cut link is noticed by the protocol
 * above first, and so that a healed one is usable within a fraction of a second. */
#include "replica/link.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"

enum {
    LINK_HEARTBEAT_MS = 100,
    LINK_HEARTBEAT_TIMEOUT_MS = 400,
    LINK_CONNECT_TIMEOUT_MS = 200,
    LINK_RECONNECT_MS = 20,
    LINK_RECONNECT_MAX_MS = 100,
    LINK_QUEUE_MESSAGES = 10000,
};

struct link {
    void *zmq, *sock, *auth;
    int fd, auth_fd; /* of the sockets, for polling: they never change */
    struct link_config cfg;
    uint8_t id[8], peer_id[8]; /* ROUTER addresses: the incarnations */
    zmq_msg_t in;
    bool in_open;
};

/* A ROUTER address must not begin with a zero byte. */
static void routing_id(uint64_t incarnation, uint8_t id[8])
{
    memcpy(id, &incarnation, 8);
    if (id[0] == 0) {
        id[0] = 1;
    }
}

static int set_int(void *sock, int option, int value)
{
    return zmq_setsockopt(sock, option, &value, sizeof value);
}

static int public_of(const uint8_t secret[LINK_KEY_LEN], uint8_t out[LINK_KEY_LEN])
{
    char secret85[41], public85[41];

    if (zmq_z85_encode(secret85, secret, LINK_KEY_LEN) == NULL ||
        zmq_curve_public(public85, secret85) != 0 || zmq_z85_decode(out, public85) == NULL) {
        return -1;
    }
    return 0;
}

static int set_options(struct link *l)
{
    uint8_t own_public[LINK_KEY_LEN];
    void *s = l->sock;
    int bad = 0;

    bad |= public_of(l->cfg.secret, own_public);
    bad |= set_int(s, ZMQ_LINGER, 0);
    bad |= set_int(s, ZMQ_SNDHWM, LINK_QUEUE_MESSAGES);
    bad |= set_int(s, ZMQ_RCVHWM, LINK_QUEUE_MESSAGES);
    bad |= set_int(s, ZMQ_IMMEDIATE, 1);
    bad |= set_int(s, ZMQ_HEARTBEAT_IVL, LINK_HEARTBEAT_MS);
    bad |= set_int(s, ZMQ_HEARTBEAT_TIMEOUT, LINK_HEARTBEAT_TIMEOUT_MS);
    bad |= set_int(s, ZMQ_CONNECT_TIMEOUT, LINK_CONNECT_TIMEOUT_MS);
    bad |= set_int(s, ZMQ_RECONNECT_IVL, LINK_RECONNECT_MS);
    bad |= set_int(s, ZMQ_RECONNECT_IVL_MAX, LINK_RECONNECT_MAX_MS);
    bad |= zmq_setsockopt(s, ZMQ_ROUTING_ID, l->id, sizeof l->id);
    bad |= zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, l->cfg.secret, LINK_KEY_LEN);
    if (l->cfg.bind) {
        bad |= set_int(s, ZMQ_CURVE_SERVER, 1);
        bad |= set_int(s, ZMQ_ROUTER_HANDOVER, 1);
        bad |= set_int(s, ZMQ_ROUTER_MANDATORY, 1);
    } else {
        bad |= zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, own_public, LINK_KEY_LEN);
        bad |= zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, l->cfg.peer_public, LINK_KEY_LEN);
    }
    return bad == 0 ? 0 : -1;
}

static int fd_of(void *sock)
{
    int fd = -1;
    size_t len = sizeof fd;

    PLX_CHECK(zmq_getsockopt(sock, ZMQ_FD, &fd, &len) == 0);
    return fd;
}

int link_open(const struct link_config *cfg, struct link **out, struct plx_err *err)
{
    struct link *l = plx_calloc(1, sizeof *l);
    int rc = PLX_ENOMEM;

    *out = NULL;
    if (l == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    l->cfg = *cfg;
    routing_id(cfg->incarnation, l->id);
    routing_id(cfg->peer, l->peer_id);
    l->zmq = zmq_ctx_new();
    if (l->zmq == NULL) {
        (void)plx_fail(err, rc, "cannot create a ZeroMQ context");
        goto err_free;
    }
    if (cfg->realtime) {
        (void)zmq_ctx_set(l->zmq, ZMQ_THREAD_SCHED_POLICY, SCHED_RR);
        (void)zmq_ctx_set(l->zmq, ZMQ_THREAD_PRIORITY, 1);
    }
    l->auth = zmq_socket(l->zmq, ZMQ_REP);
    l->sock = zmq_socket(l->zmq, cfg->bind ? ZMQ_ROUTER : ZMQ_DEALER);
    if (l->auth == NULL || l->sock == NULL || zmq_bind(l->auth, "inproc://zeromq.zap.01") != 0 ||
        set_options(l) != 0) {
        rc = plx_fail(err, PLX_EIO, "cannot set up the replica link: %s", zmq_strerror(errno));
        goto err_sockets;
    }
    if ((cfg->bind ? zmq_bind(l->sock, cfg->endpoint) : zmq_connect(l->sock, cfg->endpoint)) != 0) {
        rc = plx_fail(err, PLX_ECONN, "cannot %s %s: %s", cfg->bind ? "bind" : "connect to",
                      cfg->endpoint, zmq_strerror(errno));
        goto err_sockets;
    }
    l->fd = fd_of(l->sock);
    l->auth_fd = fd_of(l->auth);
    *out = l;
    return 0;

err_sockets:
    if (l->sock != NULL) {
        (void)zmq_close(l->sock);
    }
    if (l->auth != NULL) {
        (void)zmq_close(l->auth);
    }
    (void)zmq_ctx_term(l->zmq);
err_free:
    plx_free(l);
    return rc;
}

void link_close(struct link *l)
{
    if (l != NULL) {
        if (l->in_open) {
            (void)zmq_msg_close(&l->in);
        }
        (void)zmq_close(l->sock);
        (void)zmq_close(l->auth);
        (void)zmq_ctx_term(l->zmq);
        plx_free(l);
    }
}

int link_fd(const struct link *l)
{
    return l->fd;
}

int link_auth_fd(const struct link *l)
{
    return l->auth_fd;
}

bool link_send(struct link *l, const void *data, size_t len)
{
    if (l->cfg.bind &&
        zmq_send(l->sock, l->peer_id, sizeof l->peer_id, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        return false;
    }
    return zmq_send(l->sock, data, len, ZMQ_DONTWAIT) >= 0;
}

/* One request of the ZeroMQ Authentication Protocol (RFC 27): version, request id, domain,
 * address, identity, mechanism, credentials. */
enum {
    ZAP_VERSION,
    ZAP_REQUEST,
    ZAP_DOMAIN,
    ZAP_ADDRESS,
    ZAP_IDENTITY,
    ZAP_MECHANISM,
    ZAP_KEY,
    ZAP_FRAMES
};

static void zap_reply(void *auth, const char *request, size_t request_len, bool ok)
{
    const char *code = ok ? "200" : "400", *text = ok ? "OK" : "unknown key";

    (void)zmq_send(auth, "1.0", 3, ZMQ_SNDMORE);
    (void)zmq_send(auth, request, request_len, ZMQ_SNDMORE);
    (void)zmq_send(auth, code, 3, ZMQ_SNDMORE);
    (void)zmq_send(auth, text, strlen(text), ZMQ_SNDMORE);
    (void)zmq_send(auth, "", 0, ZMQ_SNDMORE);
    (void)zmq_send(auth, "", 0, 0);
}

static void serve_auth(struct link *l)
{
    for (;;) {
        char request[256], mechanism[16] = "";
        uint8_t key[LINK_KEY_LEN] = {0};
        size_t request_len = 0;
        bool key_whole = false;
        int more = 1;

        for (int frame = 0; more; frame++) {
            uint8_t buf[256];
            size_t more_len = sizeof more;
            int n = zmq_recv(l->auth, buf, sizeof buf, ZMQ_DONTWAIT);

            if (n < 0) {
                return;
            }
            size_t len = (size_t)n < sizeof buf ? (size_t)n : sizeof buf;
            if (frame == ZAP_REQUEST) {
                memcpy(request, buf, len);
                request_len = len;
            } else if (frame == ZAP_MECHANISM && len < sizeof mechanism) {
                memcpy(mechanism, buf, len);
            } else if (frame == ZAP_KEY && len == LINK_KEY_LEN) {
                memcpy(key, buf, len);
                key_whole = true;
            }
            if (zmq_getsockopt(l->auth, ZMQ_RCVMORE, &more, &more_len) != 0) {
                return;
            }
        }
        zap_reply(l->auth, request, request_len,
                  key_whole && strcmp(mechanism, "CURVE") == 0 &&
                      memcmp(key, l->cfg.peer_public, LINK_KEY_LEN) == 0);
    }
}

int link_recv(struct link *l, const uint8_t **data, size_t *len)
{
    serve_auth(l);
    for (;;) {
        if (!l->in_open) {
            (void)zmq_msg_init(&l->in);
            l->in_open = true;
        }
        if (zmq_msg_recv(&l->in, l->sock, ZMQ_DONTWAIT) < 0) {
            return 0;
        }
        if (zmq_msg_more(&l->in)) {
            continue; /* the sender's address before its message */
        }
        *data = zmq_msg_data(&l->in);
        *len = zmq_msg_size(&l->in);
        return 1;
    }
}
