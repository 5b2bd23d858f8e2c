/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_nbd.c - the server: one that accepts, and for each client a thread that takes what
 * requests there are, starts them together, and sends what is done together. */
#include "storage/disk_nbd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "base/log.h"
#include "storage/disk_nbd_wire.h"

enum {
    UNDER_WAY_MAX = 128,
    BYTES_MAX = 64 << 20, /* of data under way, of one client */
    IN_BYTES = 1 << 18,
    OUT_BYTES = 1 << 20,
    SMALL = 1 << 16,       /* buffers up to this size are kept for the next request */
    LARGE_KEPT = 16 << 20, /* of larger ones as many bytes: new memory costs more than the copy */
    EXTENTS_MAX = 1024,
    IOV_MAX_ = 64,
    REQUEST = 28,
    HAND_SECONDS = 10,
};

struct request {
    struct disk_request r;
    struct request *next;
    struct client *client;
    uint64_t cookie;
    enum nbd_command command;
    uint8_t *buf;
    size_t cap;
    /* what is sent */
    uint8_t head[64];
    size_t head_len, data_len;
};

struct client {
    struct server *server;
    pthread_t thread;
    int fd;
    bool running; /* server's lock */
    struct nbd_session s;
    struct io_queue *q;
    uint8_t *in;
    size_t from, have;       /* bytes received and not understood yet */
    struct request *filling; /* a write whose data are not all here */
    size_t filled;
    struct request *idle[2]; /* with buffers of SMALL; larger */
    size_t kept;             /* bytes of the larger */
    struct request *out, **out_last;
    size_t out_sent; /* of the first of @out */
    unsigned under_way;
    size_t bytes;
    bool leaving, broken;
};

struct server {
    const struct nbd_config *cfg;
    pthread_mutex_t lock;
    struct client *clients[NBD_CLIENTS_MAX];
    unsigned came, there;
    int event; /* a client has gone */
};

/* --- requests ------------------------------------------------------------------------------- */

static struct request *take_request(struct client *c, size_t len)
{
    bool large = len > SMALL;
    struct request *r = c->idle[large];

    if (r != NULL) {
        c->idle[large] = r->next;
        c->kept -= large ? r->cap : 0;
    } else {
        r = plx_calloc(1, sizeof *r);
        if (r == NULL) {
            return NULL;
        }
    }
    if (r->cap < len || r->cap == 0) {
        size_t cap = SMALL;
        void *buf = NULL;
        while (cap < len) {
            cap *= 2;
        }
        free(r->buf);
        if (posix_memalign(&buf, 4096, cap) != 0) {
            plx_free(r);
            return NULL;
        }
        r->buf = buf;
        r->cap = cap;
    }
    r->client = c;
    r->data_len = 0;
    return r;
}

static void give_back(struct client *c, struct request *r)
{
    bool large = r->cap > SMALL;

    if (large && c->kept + r->cap > LARGE_KEPT) {
        free(r->buf);
        plx_free(r);
        return;
    }
    c->kept += large ? r->cap : 0;
    r->next = c->idle[large];
    c->idle[large] = r;
}

static uint32_t nbd_error(int rc)
{
    static const struct {
        int rc;
        uint32_t error;
    } table[] = {{PLX_EACCES, NBD_EPERM},
                 {PLX_ENOMEM, NBD_ENOMEM},
                 {PLX_EINVAL, NBD_EINVAL},
                 {PLX_ERANGE, NBD_EINVAL},
                 {PLX_ENOTSUP, NBD_ENOTSUP}};

    for (unsigned i = 0; i < PLX_COUNT(table); i++) {
        if (table[i].rc == rc) {
            return table[i].error;
        }
    }
    return rc == 0 ? 0 : NBD_EIO;
}

/* The head of the answer, and behind it data_len bytes of buf. */
static void answer(struct client *c, struct request *r, uint32_t error)
{
    uint8_t *h = r->head;
    bool data = r->command == NBD_CMD_READ && error == 0;
    bool status = r->command == NBD_CMD_BLOCK_STATUS && error == 0;

    r->data_len = data || status ? r->data_len : 0;
    if (!c->s.structured || (r->command != NBD_CMD_READ && error == 0 && !status)) {
        nbd_put32(h, NBD_SIMPLE_MAGIC);
        nbd_put32(h + 4, error);
        nbd_put64(h + 8, r->cookie);
        r->head_len = 16;
    } else {
        nbd_put32(h, NBD_STRUCTURED_MAGIC);
        nbd_put16(h + 4, NBD_CHUNK_DONE);
        nbd_put16(h + 6, error != 0 ? NBD_CHUNK_ERROR : data ? NBD_CHUNK_DATA : NBD_CHUNK_STATUS);
        nbd_put64(h + 8, r->cookie);
        r->head_len = 20;
        if (error != 0) {
            nbd_put32(h + 20, error);
            nbd_put16(h + 24, 0);
            r->head_len = 26;
        } else if (data) {
            nbd_put64(h + 20, r->r.off);
            r->head_len = 28;
        } else {
            nbd_put32(h + 20, NBD_META_ID);
            r->head_len = 24;
        }
        nbd_put32(h + 16, (uint32_t)(r->head_len - 20 + r->data_len));
    }
    r->next = NULL;
    *c->out_last = r;
    c->out_last = &r->next;
}

static void request_done(struct disk_request *d)
{
    struct request *r = (struct request *)d;

    if (d->rc != 0) {
        /* A client's own mistakes are for it to hear. */
        bool mistake = d->rc == PLX_EINVAL || d->rc == PLX_ERANGE || d->rc == PLX_EACCES;
        log_line(mistake ? LOG_DEBUG : LOG_WARN, "nbd: %s",
                 d->err.msg[0] != 0 ? d->err.msg : plx_strerror(d->rc));
    }
    answer(r->client, r, nbd_error(d->rc));
}

static void block_status(struct client *c, struct request *r, bool one)
{
    struct disk *d = c->server->cfg->disk;
    uint64_t off = r->r.off, end = off + r->r.len;
    uint32_t last = UINT32_MAX;
    size_t n = 0;
    int rc = 0;

    while (off < end && rc == 0) {
        struct disk_extent e;
        rc = disk_map(d, off, end - off, &e, &r->r.err);
        if (rc != 0) {
            break;
        }
        uint32_t state = e.kind == DISK_EXTENT_ZERO ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
        uint8_t *p = r->buf + 8 * n;
        if (n != 0 && state == last) {
            nbd_put32(p - 8, nbd_get32(p - 8) + (uint32_t)e.len);
        } else if (n == (one ? 1 : EXTENTS_MAX)) {
            break;
        } else {
            nbd_put32(p, (uint32_t)e.len);
            nbd_put32(p + 4, state);
            last = state;
            n++;
        }
        off += e.len;
    }
    r->data_len = 8 * n;
    answer(c, r, rc == 0 && n == 0 ? NBD_EINVAL : nbd_error(rc));
}

static void start(struct client *c, struct request *r)
{
    c->under_way++;
    c->bytes += r->cap;
    disk_submit(c->server->cfg->disk, c->q, &r->r);
}

/* One request. False: not now, too much is under way (or the client broke the protocol). */
static bool take_one(struct client *c, const uint8_t *h)
{
    static const int ops[] = {DISK_OP_READ, DISK_OP_WRITE, -1, DISK_OP_FLUSH, DISK_OP_DISCARD,
                              -1,           DISK_OP_ZERO,  -1};
    const struct nbd_config *cfg = c->server->cfg;
    uint16_t flags = nbd_get16(h + 4), command = nbd_get16(h + 6);
    uint32_t len = nbd_get32(h + 24);
    bool moves = command == NBD_CMD_READ || command == NBD_CMD_WRITE;
    bool changes =
        command == NBD_CMD_WRITE || command == NBD_CMD_TRIM || command == NBD_CMD_WRITE_ZEROES;

    if (nbd_get32(h) != NBD_REQUEST_MAGIC || (command == NBD_CMD_WRITE && len > NBD_DATA_MAX) ||
        command == NBD_CMD_DISC) {
        c->leaving = true;
        c->broken = command != NBD_CMD_DISC;
        return false;
    }
    if (c->under_way == UNDER_WAY_MAX || (c->bytes != 0 && c->bytes + len > BYTES_MAX)) {
        return false;
    }
    bool fits = !moves || len <= NBD_DATA_MAX;
    struct request *r = take_request(c, !fits ? 0 : moves ? len : EXTENTS_MAX * 8);
    if (r == NULL) {
        c->leaving = c->broken = true;
        return false;
    }
    r->cookie = nbd_get64(h + 8);
    r->command = (enum nbd_command)command;
    r->r.off = nbd_get64(h + 16);
    r->r.len = len;
    r->r.buf = r->buf;
    r->r.fua = (flags & NBD_CMD_FUA) != 0;
    r->r.done = request_done;
    r->r.ctx = r;
    if (command == NBD_CMD_WRITE) { /* judged when its data are here */
        c->filling = r;
        c->filled = 0;
        r->r.op = DISK_OP_WRITE;
        return true;
    }
    r->data_len = command == NBD_CMD_READ ? len : 0;
    if (!fits || command >= PLX_COUNT(ops) || (changes && cfg->readonly) ||
        (command == NBD_CMD_BLOCK_STATUS && !c->s.meta)) {
        c->under_way++;
        c->bytes += r->cap;
        answer(c, r, fits && changes && cfg->readonly ? NBD_EPERM : NBD_EINVAL);
    } else if (command == NBD_CMD_BLOCK_STATUS) {
        c->under_way++;
        c->bytes += r->cap;
        block_status(c, r, (flags & NBD_CMD_REQ_ONE) != 0);
    } else if (ops[command] < 0) { /* NBD_CMD_CACHE: a hint that we do not take */
        c->under_way++;
        c->bytes += r->cap;
        answer(c, r, NBD_EINVAL);
    } else {
        r->r.op = (enum disk_op_kind)ops[command];
        r->r.len = command == NBD_CMD_FLUSH ? 0 : len;
        if (command == NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_NO_HOLE) == 0) {
            r->r.op = DISK_OP_DISCARD; /* reads as zeros too */
        }
        start(c, r);
    }
    return true;
}

static void end_filling(struct client *c)
{
    struct request *r = c->filling;

    c->filling = NULL;
    if (c->server->cfg->readonly) {
        c->under_way++;
        c->bytes += r->cap;
        answer(c, r, NBD_EPERM);
    } else {
        start(c, r);
    }
}

/* What has been received, as far as it goes. */
static void take_all(struct client *c)
{
    while (!c->leaving) {
        if (c->filling != NULL) {
            size_t want = c->filling->r.len - c->filled;
            size_t n = want < c->have ? want : c->have;
            memcpy(c->filling->buf + c->filled, c->in + c->from, n);
            c->filled += n;
            c->from += n;
            c->have -= n;
            if (n < want) {
                return;
            }
            end_filling(c);
        } else if (c->have < REQUEST || !take_one(c, c->in + c->from)) {
            return;
        } else {
            c->from += REQUEST;
            c->have -= REQUEST;
        }
    }
}

/* --- the socket ----------------------------------------------------------------------------- */

static void receive(struct client *c)
{
    struct iovec v[2];
    int n = 0;

    if (c->have == 0) {
        c->from = 0;
    } else if (c->from != 0) {
        memmove(c->in, c->in + c->from, c->have);
        c->from = 0;
    }
    size_t direct = c->filling != NULL && c->have == 0 ? c->filling->r.len - c->filled : 0;
    if (direct != 0) {
        v[n++] = (struct iovec){c->filling->buf + c->filled, direct};
    }
    v[n++] = (struct iovec){c->in + c->have, IN_BYTES - c->have};
    ssize_t got = readv(c->fd, v, n);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        c->leaving = true; /* gone without a word: what is under way is finished all the same */
        c->broken = true;
        return;
    }
    size_t first = (size_t)got < direct ? (size_t)got : direct;
    c->filled += first;
    c->have += (size_t)got - first;
}

static void send_out(struct client *c)
{
    while (c->out != NULL && !c->broken) {
        struct iovec v[IOV_MAX_];
        size_t skip = c->out_sent;
        int n = 0;
        for (struct request *r = c->out; r != NULL && n + 2 <= IOV_MAX_; r = r->next) {
            struct iovec part[2] = {{r->head, r->head_len}, {r->buf, r->data_len}};
            for (unsigned i = 0; i < 2; i++) {
                size_t drop = skip < part[i].iov_len ? skip : part[i].iov_len;
                skip -= drop;
                if (part[i].iov_len > drop) {
                    v[n++] =
                        (struct iovec){(uint8_t *)part[i].iov_base + drop, part[i].iov_len - drop};
                }
            }
        }
        struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)n};
        ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (sent < 0) {
            c->leaving = c->broken = true;
            return;
        }
        c->out_sent += (size_t)sent;
        while (c->out != NULL && c->out_sent >= c->out->head_len + c->out->data_len) {
            struct request *r = c->out;
            c->out_sent -= r->head_len + r->data_len;
            c->out = r->next;
            if (c->out == NULL) {
                c->out_last = &c->out;
            }
            c->under_way--;
            c->bytes -= r->cap;
            give_back(c, r);
        }
    }
}

static void serve_client(struct client *c)
{
    while (!c->leaving || (!c->broken && c->under_way != 0)) {
        bool room = !c->leaving && c->under_way < UNDER_WAY_MAX && c->bytes < BYTES_MAX;
        struct pollfd p[2] = {
            {.fd = c->fd, .events = (short)((room ? POLLIN : 0) | (c->out != NULL ? POLLOUT : 0))},
            {.fd = io_queue_fd(c->q), .events = POLLIN},
        };
        if (poll(p, 2, -1) < 0 && errno != EINTR) {
            break;
        }
        if (room && (p[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            receive(c);
        } else if ((p[0].revents & (POLLHUP | POLLERR)) != 0) {
            c->leaving = c->broken = true;
        }
        take_all(c);
        while (io_queue_run(c->q, false) != 0) {
            send_out(c);
            take_all(c); /* what waited for room */
        }
        send_out(c);
    }
}

/* Everything a client needs, from its first byte to its last. */
static void client_life(struct client *c, const struct nbd_config *cfg)
{
    struct timeval limit = {.tv_sec = HAND_SECONDS};
    const int out = OUT_BYTES;
    struct plx_err err;

    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &out, sizeof out); /* or what the host allows */
    c->in = plx_calloc(1, IN_BYTES);
    if (c->in != NULL && io_queue_create(cfg->queue, UNDER_WAY_MAX, &c->q, &err) == 0) {
        if (nbd_handshake(c->fd, cfg, &c->s) && io_set_nonblock(c->fd) == 0) {
            serve_client(c);
        }
        while (io_queue_pending(c->q) != 0) { /* their answers go nowhere */
            (void)io_queue_run(c->q, true);
        }
        io_queue_destroy(c->q);
    }
    while (c->out != NULL) {
        struct request *r = c->out;
        c->out = r->next;
        give_back(c, r);
    }
    if (c->filling != NULL) {
        give_back(c, c->filling);
    }
    for (unsigned i = 0; i < PLX_COUNT(c->idle); i++) {
        while (c->idle[i] != NULL) {
            struct request *r = c->idle[i];
            c->idle[i] = r->next;
            free(r->buf);
            plx_free(r);
        }
    }
    plx_free(c->in);
}

void nbd_serve_client(int fd, const struct nbd_config *cfg)
{
    struct server s = {.cfg = cfg};
    struct client c = {.server = &s, .fd = fd};

    c.out_last = &c.out;
    client_life(&c, cfg);
}

static void *client_main(void *arg)
{
    struct client *c = arg;
    struct server *s = c->server;
    const uint64_t one = 1;

    client_life(c, s->cfg);
    (void)pthread_mutex_lock(&s->lock);
    c->running = false;
    (void)pthread_mutex_unlock(&s->lock);
    (void)io_write_full(s->event, &one, sizeof one);
    return NULL;
}

/* --- the server ----------------------------------------------------------------------------- */

/* Clients that have ended are joined; with @all, told to. */
static void collect(struct server *s, bool all)
{
    for (unsigned i = 0; i < NBD_CLIENTS_MAX; i++) {
        struct client *c = s->clients[i];
        if (c == NULL) {
            continue;
        }
        if (all) {
            (void)shutdown(c->fd, SHUT_RDWR);
        }
        (void)pthread_mutex_lock(&s->lock);
        bool running = c->running;
        (void)pthread_mutex_unlock(&s->lock);
        if (!running || all) {
            (void)pthread_join(c->thread, NULL);
            (void)close(c->fd);
            plx_free(c);
            s->clients[i] = NULL;
            s->there--;
        }
    }
}

static void accept_one(struct server *s)
{
    int fd = accept4(s->cfg->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct client *c = NULL;
    unsigned i = 0;
    sigset_t every, old;

    if (fd < 0) {
        return;
    }
    while (i < NBD_CLIENTS_MAX && s->clients[i] != NULL) {
        i++;
    }
    if (i < NBD_CLIENTS_MAX) {
        c = plx_calloc(1, sizeof *c);
    }
    if (c == NULL) {
        log_warn("nbd: a client was turned away, %u are there", s->there);
        (void)close(fd);
        return;
    }
    *c = (struct client){.server = s, .fd = fd, .running = true};
    c->out_last = &c->out;
    (void)sigfillset(&every);
    (void)pthread_sigmask(SIG_SETMASK, &every, &old);
    int rc = pthread_create(&c->thread, NULL, client_main, c);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        (void)close(fd);
        plx_free(c);
        return;
    }
    s->clients[i] = c;
    s->came++;
    s->there++;
}

int nbd_serve(const struct nbd_config *cfg, struct plx_err *err)
{
    struct server s = {.cfg = cfg, .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    uint64_t count;
    int rc = 0;

    if (s.event < 0) {
        return plx_fail_errno(err, "nbd");
    }
    (void)pthread_mutex_init(&s.lock, NULL);
    for (;;) {
        struct pollfd p[3] = {{.fd = cfg->listen_fd, .events = POLLIN},
                              {.fd = s.event, .events = POLLIN},
                              {.fd = cfg->stop_fd, .events = POLLIN}};
        if (poll(p, 3, -1) < 0 && errno != EINTR) {
            rc = plx_fail_errno(err, "nbd: cannot wait for clients");
            break;
        }
        (void)io_read_some(s.event, &count, sizeof count);
        if ((p[0].revents & POLLIN) != 0) {
            accept_one(&s);
        }
        collect(&s, false);
        if (p[2].revents != 0 || (cfg->once && s.came != 0 && s.there == 0)) {
            break;
        }
    }
    collect(&s, true);
    (void)pthread_mutex_destroy(&s.lock);
    (void)close(s.event);
    return rc == 0 ? disk_flush(cfg->disk, err) : rc;
}

int nbd_listen(const char *path, int *fd, struct plx_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int rc = 0;

    *fd = -1;
    if (strlen(path) >= sizeof a.sun_path) {
        return plx_fail(err, PLX_EINVAL, "%s: too long for a socket (%zu bytes)", path,
                        sizeof a.sun_path - 1);
    }
    strcpy(a.sun_path, path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) {
        return plx_fail_errno(err, "socket %s", path);
    }
    if (connect(s, (struct sockaddr *)&a, sizeof a) == 0) {
        rc = plx_fail(err, PLX_EBUSY, "socket %s: somebody listens there", path);
    } else if (errno == ECONNREFUSED) {
        (void)unlink(path);
    }
    if (rc == 0 && (bind(s, (struct sockaddr *)&a, sizeof a) != 0 || listen(s, 16) != 0)) {
        rc = plx_fail_errno(err, "cannot listen at %s", path);
    }
    if (rc != 0) {
        (void)close(s);
        return rc;
    }
    *fd = s;
    return 0;
}
