/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_api.c - bytes of a client on polluxd's socket, against roles records of its own.
 * What else the requests reach (the cluster, starting, consoles) is stood in for below; answers
 * come after the request, as from a cluster. First byte: how many bytes the client writes at once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"
#include "tests/fuzz/fuzz.h"

enum { PENDING_MAX = 64, TURNS = 4, ROOM = 3, SESSION_LASTS = 10 };

static struct roles_state state;
static struct pending {
    cluster_cb cb;
    start_cb started;
    void *ctx;
    int rc;
    enum roles_result result;
} pending[PENDING_MAX];
static unsigned npending;
static uint64_t random_at;

/* --- stands for consensus/cluster.c -------------------------------------------------------------
 */

static void answer_later(struct pending p)
{
    PLX_CHECK(npending < PENDING_MAX);
    pending[npending++] = p;
}

void cluster_propose(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    answer_later((struct pending){.cb = cb, .ctx = ctx, .result = roles_apply(&state, cmd, NULL)});
}

void cluster_read(struct cluster *c, uint64_t timeout_ms, cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    answer_later(
        (struct pending){.cb = cb, .ctx = ctx, .rc = random_at++ % 5 == 4 ? PLX_ETIMEDOUT : 0});
}

const struct roles_state *cluster_state(const struct cluster *c)
{
    (void)c;
    return &state;
}

uint32_t cluster_leader(const struct cluster *c)
{
    (void)c;
    return 1;
}

uint64_t cluster_term(const struct cluster *c)
{
    (void)c;
    return 1;
}

uint64_t cluster_applied(const struct cluster *c)
{
    (void)c;
    return state.applied;
}

bool cluster_node_up(const struct cluster *c, uint32_t id)
{
    (void)c;
    return id == 1;
}

/* --- stands for the rest of the daemon
 * ------------------------------------------------------------ */

const struct roles_vm *daemon_vm(struct daemon *d, const uint8_t *uuid)
{
    (void)d;
    return roles_find(&state, uuid);
}

const struct roles_vm *daemon_find_vm(struct daemon *d, const char *name_or_uuid)
{
    (void)d;
    return roles_find_name(&state, name_or_uuid);
}

uint64_t daemon_random(void)
{
    return ++random_at;
}

const struct event *event_at(const struct daemon *d, unsigned i)
{
    return i < d->events.n ? &d->events.list[i] : NULL;
}

const struct vm_stats *stats_find(const struct daemon *d, const uint8_t *vm, uint32_t node)
{
    (void)d;
    (void)vm;
    (void)node;
    return NULL;
}

void start_vm(struct daemon *d, const struct roles_vm *vm, const char *primary, const char *backup,
              bool old_disks, start_cb cb, void *ctx)
{
    (void)d;
    (void)vm;
    answer_later((struct pending){
        .started = cb, .ctx = ctx, .rc = old_disks || primary[0] != backup[0] ? PLX_EINVAL : 0});
}

void start_forget(struct daemon *d, void *ctx)
{
    (void)d;
    (void)ctx;
}

static struct session {
    session_cb cb;
    void *ctx;
    bool open, full;
    size_t typed;
} session;

struct session *session_open(struct daemon *d, const struct roles_vm *vm, uint32_t port,
                             session_cb cb, void *ctx)
{
    (void)d;
    (void)vm;
    (void)port;
    PLX_CHECK(!session.open);
    session = (struct session){.cb = cb, .ctx = ctx, .open = true};
    return &session;
}

/* There is room for a little, and for more a turn later. */
size_t session_input(struct session *s, const void *data, size_t len)
{
    size_t n = s->full ? 0 : len < ROOM ? len : ROOM;

    PLX_CHECK(s->open);
    if (n != 0) {
        s->cb(s->ctx, data, n, 0, NULL);
    }
    s->full = n < len;
    s->typed += n;
    return n;
}

static void session_turn(struct session *s)
{
    if (s->open && s->typed >= SESSION_LASTS) {
        s->open = false;
        s->cb(s->ctx, NULL, 0, 0, "closed");
    } else if (s->open && s->full) {
        s->full = false;
        s->cb(s->ctx, NULL, 0, 0, NULL);
    }
}

void session_close(struct session *s)
{
    PLX_CHECK(s->open);
    s->open = false;
}

/* ------------------------------------------------------------------------------------------------
 */

static void seed_state(void)
{
    static const char xml[] = "<domain><name>a</name><memory unit='MiB'>64</memory>"
                              "<os><kernel>/k</kernel></os></domain>";
    struct roles_cmd cmd = {.op = ROLES_DEFINE, .request = 1, .name = "a", .xml = xml};
    struct roles_cmd run = {.op = ROLES_START, .request = 2};

    memset(cmd.uuid, 1, sizeof cmd.uuid);
    PLX_CHECK(roles_apply(&state, &cmd, NULL) == ROLES_RES_DONE);
    memset(cmd.uuid, 2, sizeof cmd.uuid);
    cmd.name = "b";
    cmd.request = 3;
    PLX_CHECK(roles_apply(&state, &cmd, NULL) == ROLES_RES_DONE);
    memset(run.uuid, 2, sizeof run.uuid);
    run.primary.node = 1;
    run.primary.incarnation = 9;
    strcpy(run.primary.endpoint, "tcp://192.0.2.1:7");
    run.epoch = roles_find(&state, run.uuid)->epoch;
    PLX_CHECK(roles_apply(&state, &run, NULL) == ROLES_RES_DONE);
}

static void answer(void)
{
    struct pending now[PENDING_MAX];
    unsigned n = npending;

    memcpy(now, pending, sizeof now);
    npending = 0;
    for (unsigned i = 0; i < n; i++) {
        if (now[i].cb != NULL) {
            now[i].cb(now[i].ctx, now[i].rc, now[i].result);
        } else {
            now[i].started(now[i].ctx, now[i].rc, "no");
        }
    }
}

static void turn(struct daemon *d)
{
    for (unsigned i = 0; i < TURNS; i++) {
        (void)uv_run(&d->loop, UV_RUN_NOWAIT);
        answer();
        session_turn(&session);
    }
}

static int client(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    PLX_CHECK(strlen(path) < sizeof a.sun_path);
    strcpy(a.sun_path, path);
    PLX_CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static void write_some(struct daemon *d, int fd, const uint8_t *data, size_t size, size_t chunk)
{
    uint8_t back[4096];

    for (size_t at = 0; at < size;) {
        size_t n = size - at < chunk ? size - at : chunk;
        ssize_t sent = send(fd, data + at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            return; /* refused */
        }
        at += sent > 0 ? (size_t)sent : 0;
        turn(d);
        while (recv(fd, back, sizeof back, 0) > 0) {
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf conf;
    static struct daemon d;
    struct plx_err err = {0};
    int fd;

    if (size < 1 || size > 65536) {
        return 0;
    }
    log_init("fuzz", LOG_ERROR);
    memset(&d, 0, sizeof d);
    d.conf = &conf;
    d.caught_up = true;
    conf.nmembers = 1;
    conf.self = conf.members[0].id = 1;
    (void)snprintf(conf.members[0].name, sizeof conf.members[0].name, "n1");
    (void)snprintf(conf.socket, sizeof conf.socket, "/tmp/pollux-fuzz-%d", (int)getpid());
    d.events.n = 2;
    random_at = 10;
    npending = 0;
    session.open = false;
    roles_init(&state);
    seed_state();
    PLX_CHECK(uv_loop_init(&d.loop) == 0 && api_open(&d, &err) == 0);
    fd = client(conf.socket);
    write_some(&d, fd, data + 1, size - 1, (size_t)data[0] * 16 + 1);
    PLX_CHECK(close(fd) == 0);
    api_close(&d);
    do {
        turn(&d);
    } while (uv_loop_alive(&d.loop) || npending != 0);
    PLX_CHECK(uv_loop_close(&d.loop) == 0);
    (void)unlink(conf.socket);
    roles_free(&state);
    return 0;
}
