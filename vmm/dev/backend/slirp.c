/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/slirp.c - see slirp.h. */
#include "vmm/dev/backend/slirp.h"

#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

enum { QUEUE_MAX = 1 << 19 /* bytes waiting for the guest */ };
#define NS_PER_MS UINT64_C(1000000)

struct user_timer {
    struct user_timer *next;
    struct user_net *net;
    SlirpTimerCb cb;
    void *opaque;
    uint64_t due_ms; /* UINT64_MAX: not armed */
};

struct user_net {
    Slirp *slirp;
    struct user_timer *timers;
    struct wbuf queue; /* u32 length, bytes; read from @taken on */
    size_t taken;
    uint64_t dropped;
    /* the table being filled */
    struct pollfd *fds;
    unsigned nfds, cap;
    const struct pollfd *polled; /* the same after the poll, while user_net_run runs */
};

/* --- what libslirp asks of us ------------------------------------------------------------- */

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct user_net *n = opaque;

    if (n->queue.len - n->taken + len > QUEUE_MAX) {
        n->dropped++;
        return (ssize_t)len;
    }
    if (n->taken == n->queue.len) {
        wbuf_clear(&n->queue);
        n->taken = 0;
    }
    wbuf_blob(&n->queue, buf, len);
    return (ssize_t)len;
}

static void guest_error(const char *msg, void *opaque)
{
    (void)opaque;
    log_debug("user network: %s", msg);
}

static int64_t clock_get_ns(void *opaque)
{
    (void)opaque;
    return (int64_t)clock_mono_ns();
}

static void *timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
    struct user_net *n = opaque;
    struct user_timer *t = plx_calloc(1, sizeof *t);

    if (t != NULL) {
        *t = (struct user_timer){n->timers, n, cb, cb_opaque, UINT64_MAX};
        n->timers = t;
    }
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct user_net *n = opaque;
    struct user_timer **at = &n->timers;

    while (*at != NULL && *at != timer) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = (*at)->next;
        plx_free(timer);
    }
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user_timer *t = timer;

    (void)opaque;
    if (t != NULL) {
        t->due_ms = expire_ms < 0 ? UINT64_MAX : (uint64_t)expire_ms;
    }
}

static void no_fd(int fd, void *opaque)
{
    (void)fd; /* descriptors are asked for before every poll */
    (void)opaque;
}

static void notify(void *opaque)
{
    (void)opaque; /* one thread: nobody sleeps now */
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = no_fd,
    .unregister_poll_fd = no_fd,
    .notify = notify,
};

/* --- polling ------------------------------------------------------------------------------ */

static const struct {
    int slirp;
    short host;
} event_map[] = {{SLIRP_POLL_IN, POLLIN},
                 {SLIRP_POLL_OUT, POLLOUT},
                 {SLIRP_POLL_PRI, POLLPRI},
                 {SLIRP_POLL_ERR, POLLERR},
                 {SLIRP_POLL_HUP, POLLHUP}};

static int add_poll(int fd, int events, void *opaque)
{
    struct user_net *n = opaque;
    struct pollfd p = {.fd = fd};

    if (n->nfds == n->cap) {
        return -1;
    }
    for (unsigned i = 0; i < 3; i++) { /* errors and hang-ups always come */
        p.events |= (short)((events & event_map[i].slirp) != 0 ? event_map[i].host : 0);
    }
    n->fds[n->nfds] = p;
    return (int)n->nfds++;
}

static int get_revents(int index, void *opaque)
{
    const struct user_net *n = opaque;
    int events = 0;

    if (index < 0 || (unsigned)index >= n->nfds) {
        return 0;
    }
    for (unsigned i = 0; i < sizeof event_map / sizeof event_map[0]; i++) {
        events |= (n->polled[index].revents & event_map[i].host) != 0 ? event_map[i].slirp : 0;
    }
    return events;
}

unsigned user_net_pollfds(struct user_net *n, struct pollfd *fds, unsigned cap,
                          uint64_t *timeout_ns)
{
    uint64_t now_ms = clock_mono_ns() / NS_PER_MS;
    uint32_t timeout_ms = *timeout_ns / NS_PER_MS > UINT32_MAX / 2
                              ? UINT32_MAX / 2
                              : (uint32_t)(*timeout_ns / NS_PER_MS) + 1;
    uint32_t asked = timeout_ms;

    n->fds = fds;
    n->nfds = 0;
    n->cap = cap;
    slirp_pollfds_fill(n->slirp, &timeout_ms, add_poll, n);
    if (timeout_ms < asked && timeout_ms * NS_PER_MS < *timeout_ns) {
        *timeout_ns = timeout_ms * NS_PER_MS;
    }
    for (const struct user_timer *t = n->timers; t != NULL; t = t->next) {
        uint64_t left = t->due_ms <= now_ms ? 0 : t->due_ms - now_ms;
        if (t->due_ms != UINT64_MAX && left < *timeout_ns / NS_PER_MS) {
            *timeout_ns = left * NS_PER_MS;
        }
    }
    if (n->taken != n->queue.len) {
        *timeout_ns = 0;
    }
    return n->nfds;
}

void user_net_run(struct user_net *n, const struct pollfd *fds, unsigned nfds)
{
    uint64_t now_ms = clock_mono_ns() / NS_PER_MS;

    n->polled = fds;
    n->nfds = nfds;
    slirp_pollfds_poll(n->slirp, 0, get_revents, n);
    for (struct user_timer *t = n->timers; t != NULL;) {
        struct user_timer *next = t->next;
        if (t->due_ms <= now_ms) {
            t->due_ms = UINT64_MAX;
            t->cb(t->opaque);
        }
        t = next;
    }
}

/* --- life and frames ---------------------------------------------------------------------- */

/* "[ADDRESS:]PORT-:PORT" after the protocol. */
static int add_hostfwd(struct user_net *n, const char *spec, const struct in_addr *guest,
                       struct plx_err *err)
{
    char text[128], *rest = text, *dash, *colon;
    struct in_addr host = {.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned from, to;
    char junk;

    if (snprintf(text, sizeof text, "%s", spec) >= (int)sizeof text ||
        (strncmp(text, "tcp:", 4) != 0 && strncmp(text, "udp:", 4) != 0)) {
        goto malformed;
    }
    rest += 4;
    dash = strchr(rest, '-');
    if (dash == NULL || sscanf(dash, "-:%5u%c", &to, &junk) != 1) {
        goto malformed;
    }
    *dash = 0;
    colon = strchr(rest, ':');
    if (colon != NULL) {
        *colon = 0;
        if (*rest != 0 && inet_pton(AF_INET, rest, &host) != 1) {
            goto malformed;
        }
        rest = colon + 1;
    }
    if (sscanf(rest, "%5u%c", &from, &junk) != 1 || from == 0 || from > 65535 || to == 0 ||
        to > 65535) {
        goto malformed;
    }
    if (slirp_add_hostfwd(n->slirp, text[0] == 'u', host, (int)from, *guest, (int)to) != 0) {
        return plx_fail_errno(err, "hostfwd=%s: cannot listen on port %u", spec, from);
    }
    return 0;

malformed:
    return plx_fail(err, PLX_EINVAL, "hostfwd=%s: write it as tcp:PORT-:PORT or udp:PORT-:PORT",
                    spec);
}

/* libslirp listens with a queue of one: of several clients that connect at once Linux drops what
 * does not fit, unheard, and they try again after seconds. Listening again makes the queue longer.
 */
static int listen_longer(int fd, int events, void *opaque)
{
    int listens = 0;
    socklen_t size = sizeof listens;

    (void)events;
    (void)opaque;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0) {
        (void)listen(fd, SOMAXCONN);
    }
    return -1; /* nothing is polled here */
}

int user_net_create(const char *const *hostfwd, unsigned nhostfwd, struct user_net **out,
                    struct plx_err *err)
{
    SlirpConfig cfg = {.version = 1, .in_enabled = true, .vhostname = "pollux"};
    struct in_addr guest;
    uint32_t timeout_ms = 0;
    int rc = 0;

    *out = NULL;
    struct user_net *n = plx_calloc(1, sizeof *n);
    if (n == NULL) {
        return plx_fail(err, PLX_ENOMEM, "user network: out of memory");
    }
    wbuf_init(&n->queue);
    (void)inet_pton(AF_INET, "10.0.2.0", &cfg.vnetwork);
    (void)inet_pton(AF_INET, "255.255.255.0", &cfg.vnetmask);
    (void)inet_pton(AF_INET, "10.0.2.2", &cfg.vhost);
    (void)inet_pton(AF_INET, "10.0.2.15", &cfg.vdhcp_start);
    (void)inet_pton(AF_INET, "10.0.2.3", &cfg.vnameserver);
    guest = cfg.vdhcp_start;
    n->slirp = slirp_new(&cfg, &callbacks, n);
    if (n->slirp == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "user network: libslirp refused to start");
    }
    for (unsigned i = 0; rc == 0 && i < nhostfwd; i++) {
        rc = add_hostfwd(n, hostfwd[i], &guest, err);
    }
    if (rc != 0) {
        user_net_destroy(n);
        return rc;
    }
    slirp_pollfds_fill(n->slirp, &timeout_ms, listen_longer, n);
    *out = n;
    return 0;
}

void user_net_destroy(struct user_net *n)
{
    if (n == NULL) {
        return;
    }
    if (n->slirp != NULL) {
        slirp_cleanup(n->slirp);
    }
    while (n->timers != NULL) {
        struct user_timer *t = n->timers;
        n->timers = t->next;
        plx_free(t);
    }
    wbuf_free(&n->queue);
    plx_free(n);
}

void user_net_send(struct user_net *n, const void *frame, uint32_t len)
{
    slirp_input(n->slirp, frame, (int)len);
}

bool user_net_receive(struct user_net *n, const uint8_t **frame, uint32_t *len)
{
    struct rbuf r;
    size_t size;

    if (n->taken == n->queue.len) {
        return false;
    }
    rbuf_init(&r, n->queue.data + n->taken, n->queue.len - n->taken);
    *frame = rbuf_blob(&r, &size);
    if (r.failed) { /* the queue ran out of memory half way */
        n->taken = n->queue.len;
        return false;
    }
    *len = (uint32_t)size;
    n->taken = n->queue.len - rbuf_left(&r);
    return true;
}

uint64_t user_net_dropped(const struct user_net *n)
{
    return n->dropped;
}
