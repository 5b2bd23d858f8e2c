/* SPDX-License-Identifier: Apache-2.0
 * replica/link.c - see link.h. Times are chosen so that a cut link is noticed by the protocol above
 * first, and so that a healed one is usable within a fraction of a second. */
#include "replica/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "replica/link_tls.h"

#define MS UINT64_C(1000000)

enum {
    LINK_KEEPALIVE_MS = 100,
    LINK_HANDSHAKE_MS = 500, /* connecting included */
    LINK_RECONNECT_MS = 20,
    LINK_QUEUE_MAX = 64 << 20,
    LINK_QUEUE_KEEP = 1 << 20, /* memory that an empty queue keeps */
    LINK_CONNS = LINK_FDS_MAX - 1,
    HEADER = 4,
    READ_CHUNK = 16384, /* of TLS: a record holds no more */
};

struct conn {
    int fd; /* -1: free */
    SSL *ssl;
    bool connecting; /* TCP is not through yet */
    bool up;         /* the peer has proved its key */
    bool broken;     /* to be given up at the next tick */
    bool readable;   /* poll, or TLS, has something for us */
    bool blocked;    /* the handshake waits for room to write */
    uint64_t since, heard, said;
    struct wbuf in, out; /* frames: read and not yet taken; not yet written */
    size_t in_at, out_at;
};

struct link {
    struct link_config cfg;
    struct link_tls *tls;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    int listen_fd; /* -1 where we connect */
    struct conn conns[LINK_CONNS];
    struct conn *cur; /* the one that is up, or NULL */
    uint64_t next_connect;
    uint64_t sent; /* messages since the last change of keys */
    uint64_t next_warning;
};

/* --- endpoints ---------------------------------------------------------------------------- */

static int parse_tcp(struct link *l, const char *at, struct plx_err *err)
{
    const char *colon = strrchr(at, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    char host[256];
    size_t n;

    if (colon == NULL || colon == at || (size_t)(colon - at) >= sizeof host) {
        return plx_fail(err, PLX_EINVAL, "'%s' is not ADDRESS:PORT", at);
    }
    n = (size_t)(colon - at);
    if (at[0] == '[' && colon[-1] == ']') {
        at++;
        n -= 2;
    }
    memcpy(host, at, n);
    host[n] = '\0';
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc != 0) {
        return plx_fail(err, PLX_EINVAL, "cannot resolve %s: %s", host, gai_strerror(rc));
    }
    memcpy(&l->addr, found->ai_addr, found->ai_addrlen);
    l->addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int parse(struct link *l, const char *endpoint, struct plx_err *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&l->addr;

    if (strncmp(endpoint, "tcp://", 6) == 0) {
        return parse_tcp(l, endpoint + 6, err);
    }
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof un->sun_path ||
        endpoint[6] == '\0') {
        return plx_fail(err, PLX_EINVAL, "'%s' is not tcp://ADDRESS:PORT or ipc://PATH", endpoint);
    }
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, endpoint + 6);
    l->addr_len = sizeof *un;
    return 0;
}

static int new_socket(const struct link *l)
{
    int fd = socket(l->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;

    if (fd >= 0 && l->addr.ss_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

static int listen_at(struct link *l, struct plx_err *err)
{
    if (l->addr.ss_family == AF_UNIX) {
        (void)unlink(((struct sockaddr_un *)&l->addr)->sun_path);
    }
    l->listen_fd = new_socket(l);
    if (l->listen_fd < 0 || bind(l->listen_fd, (struct sockaddr *)&l->addr, l->addr_len) != 0 ||
        listen(l->listen_fd, LINK_CONNS) != 0) {
        return plx_fail(err, PLX_ECONN, "cannot listen at %s: %s", l->cfg.endpoint,
                        strerror(errno));
    }
    return 0;
}

int link_open(const struct link_config *cfg, struct link **out, struct plx_err *err)
{
    struct link *l = plx_calloc(1, sizeof *l);
    int rc;

    *out = NULL;
    if (l == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    l->cfg = *cfg;
    l->cfg.rekey = cfg->rekey != 0 ? cfg->rekey : LINK_REKEY;
    l->cfg.quiet_ms = cfg->quiet_ms != 0 ? cfg->quiet_ms : LINK_QUIET_MS;
    l->listen_fd = -1;
    for (int i = 0; i < LINK_CONNS; i++) {
        l->conns[i].fd = -1;
    }
    rc = parse(l, cfg->endpoint, err);
    if (rc == 0) {
        rc = link_tls_open(cfg, &l->tls, err);
    }
    if (rc == 0 && cfg->bind) {
        rc = listen_at(l, err);
    }
    explicit_bzero(l->cfg.secret, LINK_KEY_LEN); /* what is derived from it is enough */
    l->cfg.endpoint = NULL;                      /* only borrowed */
    if (rc != 0) {
        link_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

/* --- connections -------------------------------------------------------------------------- */

static void drop(struct link *l, struct conn *c)
{
    if (l->cur == c) {
        l->cur = NULL;
    }
    SSL_free(c->ssl);
    (void)close(c->fd);
    wbuf_free(&c->in);
    wbuf_free(&c->out);
    *c = (struct conn){.fd = -1};
    l->next_connect = clock_mono_ns() + LINK_RECONNECT_MS * MS;
}

void link_close(struct link *l)
{
    if (l == NULL) {
        return;
    }
    for (int i = 0; i < LINK_CONNS; i++) {
        if (l->conns[i].fd >= 0) {
            drop(l, &l->conns[i]);
        }
    }
    if (l->listen_fd >= 0) {
        (void)close(l->listen_fd);
    }
    link_tls_close(l->tls);
    plx_free(l);
}

/* A free place; the longest handshake makes room for a newcomer. */
static struct conn *place(struct link *l)
{
    struct conn *oldest = NULL;

    for (int i = 0; i < LINK_CONNS; i++) {
        struct conn *c = &l->conns[i];
        if (c->fd < 0) {
            return c;
        }
        if (c != l->cur && (oldest == NULL || c->since < oldest->since)) {
            oldest = c;
        }
    }
    PLX_CHECK(oldest != NULL); /* one is current, of several */
    drop(l, oldest);
    return oldest;
}

static struct conn *begin(struct link *l, int fd, bool connecting)
{
    struct conn *c = place(l);

    *c = (struct conn){.fd = fd, .connecting = connecting, .since = clock_mono_ns()};
    wbuf_init(&c->in);
    wbuf_init(&c->out);
    c->ssl = link_tls_conn(l->tls, fd);
    c->broken = c->ssl == NULL;
    return c;
}

/* Whether a call of TLS that did not succeed only has to wait for the socket. */
static bool only_waits(int e)
{
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE;
}

static void failed(struct link *l, struct conn *c, int e)
{
    c->broken = true;
    if (e == SSL_ERROR_SSL && l->cfg.bind && c->since >= l->next_warning) {
        l->next_warning = c->since + 1000 * MS;
        log_warn("refused a connection to the replica link: it does not prove the peer's key");
    }
}

static void handshake(struct link *l, struct conn *c)
{
    int error = 0, rc;
    socklen_t len = sizeof error;

    if (c->connecting) {
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
            c->broken = true;
            return;
        }
        c->connecting = false;
    }
    ERR_clear_error();
    rc = SSL_do_handshake(c->ssl);
    if (rc != 1) {
        int e = SSL_get_error(c->ssl, rc);
        c->blocked = e == SSL_ERROR_WANT_WRITE;
        if (!only_waits(e)) {
            failed(l, c, e);
        }
        return;
    }
    if (!link_tls_proved(c->ssl)) {
        c->broken = true;
        return;
    }
    if (l->cur != NULL) {
        l->cur->broken = true; /* the peer has given it up, or will not use it again */
    }
    l->cur = c;
    c->up = true;
    c->blocked = false;
    c->heard = c->said = clock_mono_ns();
    c->readable = true; /* TLS may have read on */
}

static void accept_all(struct link *l)
{
    for (int i = 0; i < LINK_CONNS; i++) {
        int on = 1, fd = accept4(l->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            return;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = begin(l, fd, false);
        if (!c->broken) {
            handshake(l, c);
        }
    }
}

static void connect_again(struct link *l)
{
    int fd = new_socket(l);

    l->next_connect = clock_mono_ns() + LINK_RECONNECT_MS * MS;
    if (fd < 0) {
        return;
    }
    if (connect(fd, (struct sockaddr *)&l->addr, l->addr_len) != 0 && errno != EINPROGRESS) {
        (void)close(fd);
        return;
    }
    (void)begin(l, fd, true);
}

/* --- bytes -------------------------------------------------------------------------------- */

static void flush(struct conn *c)
{
    while (c->out_at < c->out.len) {
        size_t n;
        ERR_clear_error();
        int rc = SSL_write_ex(c->ssl, c->out.data + c->out_at, c->out.len - c->out_at, &n);
        if (rc != 1) {
            c->broken = !only_waits(SSL_get_error(c->ssl, rc));
            return;
        }
        c->out_at += n;
    }
    c->out_at = 0;
    if (c->out.cap > LINK_QUEUE_KEEP) {
        wbuf_free(&c->out);
    }
    wbuf_clear(&c->out);
}

/* Forget what is written of a queue that does not get empty. */
static void compact(struct conn *c)
{
    if (c->out_at > c->out.len / 2) {
        memmove(c->out.data, c->out.data + c->out_at, c->out.len - c->out_at);
        c->out.len -= c->out_at;
        c->out_at = 0;
    }
}

static bool frame(struct link *l, struct conn *c, const void *data, size_t len)
{
    compact(c);
    if (c->out.len == 0 && ++l->sent >= l->cfg.rekey) {
        l->sent = 0;
        (void)SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    size_t before = c->out.len;
    wbuf_u32(&c->out, (uint32_t)len);
    wbuf_put(&c->out, data, len);
    if (c->out.failed) {
        c->out.failed = false;
        c->out.len = before; /* a part of a frame must not be written */
        return false;
    }
    if (before == 0) {
        flush(c);
    } /* else the socket is full: poll says when to go on */
    c->said = clock_mono_ns();
    return !c->broken;
}

bool link_send(struct link *l, const void *data, size_t len)
{
    struct conn *c = l->cur;

    if (c == NULL || c->broken || len == 0 || len > LINK_MESSAGE_MAX ||
        c->out.len + len > LINK_QUEUE_MAX) {
        return false;
    }
    return frame(l, c, data, len);
}

bool link_needs_poll(const struct link *l)
{
    return l->cur != NULL && (l->cur->broken || l->cur->out.len != 0);
}

int link_fd(const struct link *l)
{
    return l->cur != NULL && !l->cur->broken ? l->cur->fd : -1;
}

void link_look(struct link *l)
{
    if (l->cur != NULL) {
        l->cur->readable = true;
    }
}

/* The next whole frame of what was read. */
static bool take(struct conn *c, const uint8_t **data, size_t *len)
{
    for (;;) {
        size_t left = c->in.len - c->in_at;
        struct rbuf r;

        if (left < HEADER) {
            return false;
        }
        rbuf_init(&r, c->in.data + c->in_at, HEADER);
        size_t n = rbuf_u32(&r);
        if (n > LINK_MESSAGE_MAX) {
            c->broken = true; /* no honest peer says this */
            return false;
        }
        if (left - HEADER < n) {
            return false;
        }
        *data = c->in.data + c->in_at + HEADER;
        *len = n;
        c->in_at += HEADER + n;
        if (n != 0) {
            return true;
        }
    }
}

/* One record of TLS; what was taken before makes room. */
static void fill(struct conn *c)
{
    size_t left = c->in.len - c->in_at, n = 0;
    uint8_t *room;

    if (c->in_at != 0 && (left == 0 || c->in_at > READ_CHUNK)) {
        memmove(c->in.data, c->in.data + c->in_at, left);
        c->in.len = left;
        c->in_at = 0;
    }
    room = wbuf_grow(&c->in, READ_CHUNK);
    if (room == NULL) {
        c->broken = true;
        return;
    }
    ERR_clear_error();
    int rc = SSL_read_ex(c->ssl, room, READ_CHUNK, &n);
    c->in.len -= READ_CHUNK - (rc == 1 ? n : 0);
    if (rc == 1) {
        c->heard = clock_mono_ns();
        c->readable = SSL_has_pending(c->ssl) == 1; /* else poll says when there is more */
        return;
    }
    c->readable = false;
    c->broken = !only_waits(SSL_get_error(c->ssl, rc));
}

int link_recv(struct link *l, const uint8_t **data, size_t *len)
{
    struct conn *c = l->cur;

    while (c != NULL && !c->broken) {
        if (take(c, data, len)) {
            return 1;
        }
        if (!c->readable || c->broken) {
            return 0;
        }
        fill(c);
    }
    return 0;
}

/* --- polling and time --------------------------------------------------------------------- */

/* In the order of conns, then the listener; places that are free have descriptor -1, which poll
 * passes over. */
void link_pollfds(struct link *l, struct pollfd *fds, bool arrivals)
{
    for (int i = 0; i < LINK_CONNS; i++) {
        const struct conn *c = &l->conns[i];
        bool out = c->connecting || c->blocked || c->out.len != 0;
        bool in = arrivals || c != l->cur;
        fds[i] = (struct pollfd){.fd = c->fd,
                                 .events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0))};
    }
    fds[LINK_CONNS] = (struct pollfd){.fd = l->listen_fd, .events = POLLIN};
}

void link_ready(struct link *l, const struct pollfd *fds)
{
    for (int i = 0; i < LINK_CONNS; i++) {
        struct conn *c = &l->conns[i];

        if (c->fd < 0 || c->fd != fds[i].fd || fds[i].revents == 0 || c->broken) {
            continue;
        }
        if (!c->up) {
            handshake(l, c);
            continue;
        }
        c->readable = c->readable || (fds[i].revents & ~POLLOUT) != 0;
        if ((fds[i].revents & POLLOUT) != 0) {
            flush(c);
        }
    }
    if (l->listen_fd >= 0 && fds[LINK_CONNS].revents != 0) {
        accept_all(l);
    }
}

/* When a connection is given up. What is there and not yet read is no silence. */
static uint64_t give_up_at(const struct link *l, const struct conn *c)
{
    if (c->broken) {
        return 0;
    }
    if (!c->up) {
        return c->since + LINK_HANDSHAKE_MS * MS;
    }
    return c->readable ? UINT64_MAX : c->heard + l->cfg.quiet_ms * MS;
}

static uint64_t conn_deadline(const struct link *l, const struct conn *c)
{
    uint64_t end = give_up_at(l, c), say = c->said + LINK_KEEPALIVE_MS * MS;

    return c->up && c->out.len == 0 && say < end ? say : end;
}

uint64_t link_deadline(const struct link *l)
{
    uint64_t at = UINT64_MAX;
    bool any = false;

    for (int i = 0; i < LINK_CONNS; i++) {
        if (l->conns[i].fd >= 0) {
            uint64_t d = conn_deadline(l, &l->conns[i]);
            at = d < at ? d : at;
            any = true;
        }
    }
    return !any && !l->cfg.bind ? l->next_connect : at;
}

void link_tick(struct link *l, uint64_t now)
{
    bool any = false;

    for (int i = 0; i < LINK_CONNS; i++) {
        struct conn *c = &l->conns[i];

        if (c->fd < 0) {
            continue;
        }
        if (c->up && !c->broken && now >= c->said + LINK_KEEPALIVE_MS * MS && c->out.len == 0) {
            (void)frame(l, c, NULL, 0);
        }
        if (now >= give_up_at(l, c)) {
            drop(l, c);
            continue;
        }
        any = true;
    }
    if (!any && !l->cfg.bind && now >= l->next_connect) {
        connect_again(l);
    }
}
