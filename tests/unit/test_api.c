/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a polluxd that one client stops for all: by too many connections, by a reply there is no
 * memory for, by not reading; and a definition or a change of the wrong VM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"
#include "proto/api.pb-c.h"
#include "proto/frame.h"

enum { VERSION = 1, TURNS = 8 };

#define XML(name)         \
    "<domain><name>" name \
    "</name><memory unit='MiB'>64</memory><os><kernel>/k</kernel></os></domain>"

static struct daemon d;
static struct conf conf;
static struct roles_state state, stale; /* what is agreed, and what this node has applied of it */
static const struct roles_state *seen;
static uint64_t random_at;

/* --- stands for consensus/cluster.c and the rest of the daemon ------------------------------- */

void cluster_propose(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    cb(ctx, 0, roles_apply(&state, cmd, NULL));
}

void cluster_read(struct cluster *c, uint64_t timeout_ms, cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    seen = &state;
    cb(ctx, 0, ROLES_RES_DONE);
}

const struct roles_state *cluster_state(const struct cluster *c)
{
    (void)c;
    return seen;
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
    return seen->applied;
}

bool cluster_node_up(const struct cluster *c, uint32_t id)
{
    (void)c;
    return id == 1;
}

const struct roles_vm *daemon_vm(struct daemon *self, const uint8_t *uuid)
{
    (void)self;
    return roles_find(seen, uuid);
}

const struct roles_vm *daemon_find_vm(struct daemon *self, const char *name_or_uuid)
{
    uint8_t uuid[ROLES_UUID_LEN];
    const struct roles_vm *vm = roles_find_name(seen, name_or_uuid);

    (void)self;
    return vm == NULL && uuid_parse(name_or_uuid, uuid) ? roles_find(seen, uuid) : vm;
}

uint64_t daemon_random(void)
{
    return ++random_at;
}

const struct event *event_at(const struct daemon *self, unsigned i)
{
    (void)self;
    (void)i;
    return NULL;
}

const struct vm_stats *stats_find(const struct daemon *self, const uint8_t *vm, uint32_t node)
{
    (void)self;
    (void)vm;
    (void)node;
    return NULL;
}

void start_vm(struct daemon *self, const struct roles_vm *vm, const char *primary,
              const char *backup, bool old_disks, start_cb cb, void *ctx)
{
    (void)self;
    (void)vm;
    (void)primary;
    (void)backup;
    (void)old_disks;
    cb(ctx, PLX_ESTATE, "no");
}

void start_forget(struct daemon *self, void *ctx)
{
    (void)self;
    (void)ctx;
}

static struct session {
    session_cb cb;
    void *ctx;
    unsigned closed;
} session;

struct session *session_open(struct daemon *self, const struct roles_vm *vm, uint32_t port,
                             session_cb cb, void *ctx)
{
    (void)self;
    (void)vm;
    (void)port;
    session = (struct session){.cb = cb, .ctx = ctx};
    return &session;
}

size_t session_input(struct session *s, const void *data, size_t len)
{
    (void)s;
    (void)data;
    return len;
}

void session_close(struct session *s)
{
    s->closed++;
}

/* --- a daemon with a socket, and clients ------------------------------------------------------ */

static void turn(void)
{
    for (unsigned i = 0; i < TURNS; i++) {
        (void)uv_run(&d.loop, UV_RUN_NOWAIT);
    }
}

static int setup(void **ctx)
{
    struct plx_err err;

    (void)ctx;
    log_init("test", LOG_ERROR);
    memset(&d, 0, sizeof d);
    memset(&conf, 0, sizeof conf);
    d.conf = &conf;
    d.cluster = (struct cluster *)(void *)&state; /* not NULL */
    d.caught_up = true;
    conf.nmembers = 1;
    conf.self = conf.members[0].id = 1;
    (void)snprintf(conf.members[0].name, sizeof conf.members[0].name, "n1");
    (void)snprintf(conf.socket, sizeof conf.socket, "/tmp/pollux-test-api-%d", (int)getpid());
    random_at = 0;
    roles_init(&state);
    roles_init(&stale);
    seen = &state;
    (void)unlink(conf.socket);
    assert_int_equal(uv_loop_init(&d.loop), 0);
    assert_int_equal(api_open(&d, &err), 0);
    return 0;
}

static int teardown(void **ctx)
{
    (void)ctx;
    plx_heap_fail_never();
    api_close(&d);
    while (uv_loop_alive(&d.loop)) {
        turn();
    }
    assert_int_equal(uv_loop_close(&d.loop), 0);
    (void)unlink(conf.socket);
    roles_free(&state);
    return 0;
}

static int client(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0 && strlen(conf.socket) < sizeof a.sun_path);
    strcpy(a.sun_path, conf.socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void ask(int fd, Api__Request *q)
{
    struct plx_err err;
    uint8_t bytes[1024];

    q->version = VERSION;
    assert_int_equal(frame_write_fd(fd, bytes, api__request__pack(q, bytes), &err), 0);
}

/* The next reply; NULL: the connection has ended. The daemon turns until it is there. */
static Api__Reply *reply(int fd)
{
    static uint8_t bytes[1 << 16]; /* no allocation here: those of the daemon are made to fail */
    size_t have = 0;

    for (;;) {
        uint32_t len;
        turn();
        ssize_t n = recv(fd, bytes + have, sizeof bytes - have, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            return NULL;
        }
        assert_true(n > 0 || errno == EAGAIN);
        have += n > 0 ? (size_t)n : 0;
        memcpy(&len, bytes, sizeof len);
        if (have >= sizeof len && have == sizeof len + len) {
            Api__Reply *r = api__reply__unpack(NULL, len, bytes + sizeof len);
            assert_non_null(r);
            return r;
        }
    }
}

static Api__Reply *list(int fd)
{
    Api__Request q = API__REQUEST__INIT;
    Api__List l = API__LIST__INIT;

    q.msg_case = API__REQUEST__MSG_LIST;
    q.list = &l;
    ask(fd, &q);
    return reply(fd);
}

static void expect(Api__Reply *r, int code, const char *says)
{
    assert_non_null(r);
    assert_int_equal(r->code, code);
    if (says != NULL) {
        assert_non_null(strstr(r->error, says));
    }
    api__reply__free_unpacked(r, NULL);
}

static void define(int fd, const char *xml, int code)
{
    Api__Request q = API__REQUEST__INIT;
    Api__Define m = API__DEFINE__INIT;

    m.xml = (char *)(uintptr_t)xml;
    q.msg_case = API__REQUEST__MSG_DEFINE;
    q.define = &m;
    ask(fd, &q);
    expect(reply(fd), code, NULL);
}

/* --- cases ------------------------------------------------------------------------------------ */

/* One more than may be is told so; when others have gone there is room again. */
static void too_many_connections(void **ctx)
{
    int fds[API_CONNECTIONS_MAX + 40];

    (void)ctx;
    for (size_t i = 0; i < PLX_COUNT(fds); i++) {
        fds[i] = client();
        turn();
    }
    expect(list(fds[0]), 0, NULL);
    expect(list(fds[API_CONNECTIONS_MAX - 1]), 0, NULL);
    expect(list(fds[API_CONNECTIONS_MAX]), PLX_EBUSY, "connections are open");
    assert_null(reply(fds[API_CONNECTIONS_MAX]));      /* and it is closed */
    assert_null(reply(fds[API_CONNECTIONS_MAX + 39])); /* there are not too many refusals either */
    for (size_t i = 0; i < PLX_COUNT(fds); i++) {
        assert_int_equal(close(fds[i]), 0);
    }
    turn();
    int fd = client();
    expect(list(fd), 0, NULL);
    assert_int_equal(close(fd), 0);
}

/* Whatever allocation fails, the client gets an error or loses its connection, and the next one is
 * served. */
static void memory_runs_out_over_a_reply(void **ctx)
{
    bool served = false;
    unsigned failed = 0;

    (void)ctx;
    for (int k = 0; !served; k++) {
        int fd = client();
        Api__Request q = API__REQUEST__INIT;
        Api__List l = API__LIST__INIT;
        turn();
        q.msg_case = API__REQUEST__MSG_LIST;
        q.list = &l;
        ask(fd, &q);
        plx_heap_fail_at(k);
        Api__Reply *r = reply(fd);
        plx_heap_fail_never();
        served = r != NULL && r->code == 0;
        if (r != NULL) {
            assert_true(served || r->code == PLX_ENOMEM);
            api__reply__free_unpacked(r, NULL);
        }
        failed += !served;
        assert_int_equal(close(fd), 0);
        turn();
    }
    assert_true(failed > 0); /* the injector did fire */
}

/* The client that could not be accepted is, a second later; the listener is not deaf. */
static void memory_runs_out_over_a_connection(void **ctx)
{
    (void)ctx;
    int fd = client();
    plx_heap_fail_at(0);
    turn();
    plx_heap_fail_never();
    api_tick(&d);
    expect(list(fd), 0, NULL);
    assert_int_equal(close(fd), 0);
}

static void one_that_does_not_read_is_dropped(void **ctx)
{
    static uint8_t screen[1 << 16];
    Api__Request q = API__REQUEST__INIT;
    Api__Console m = API__CONSOLE__INIT;

    (void)ctx;
    int fd = client(), other = client();
    define(fd, XML("a"), 0);
    struct roles_cmd run = {
        .op = ROLES_START, .request = 1000, .primary = {1, 9, {0}, "tcp://h:1"}};
    memcpy(run.uuid, state.vms[0].uuid, sizeof run.uuid);
    assert_int_equal(roles_apply(&state, &run, NULL), ROLES_RES_DONE);
    m.vm = (char *)(uintptr_t) "a";
    q.msg_case = API__REQUEST__MSG_CONSOLE;
    q.console = &m;
    ask(fd, &q);
    expect(reply(fd), 0, NULL);
    for (unsigned i = 0; i < 1000 && session.closed == 0; i++) {
        session.cb(session.ctx, screen, sizeof screen, 0, NULL);
    }
    assert_int_equal(session.closed, 1);
    expect(list(other), 0, NULL);
    assert_int_equal(close(fd), 0);
    assert_int_equal(close(other), 0);
}

/* A VM may be called what is another's UUID: to define it changes that other one in nothing. */
static void a_name_that_is_a_uuid(void **ctx)
{
    char uuid[UUID_TEXT], xml[512];

    (void)ctx;
    int fd = client();
    define(fd, XML("a"), 0);
    (void)snprintf(xml, sizeof xml, XML("%s"), uuid_text(state.vms[0].uuid, uuid));
    define(fd, xml, 0);
    assert_int_equal(state.n, 2);
    assert_non_null(roles_find_name(&state, "a"));
    assert_int_equal(close(fd), 0);
}

/* What another node's user has just defined can be changed here, though this node lags. */
static void changes_are_of_what_is_agreed(void **ctx)
{
    Api__Request q = API__REQUEST__INIT;
    Api__Protect p = API__PROTECT__INIT;

    (void)ctx;
    int fd = client();
    define(fd, XML("a"), 0);
    seen = &stale;
    p.vm = (char *)(uintptr_t) "a";
    q.msg_case = API__REQUEST__MSG_PROTECT;
    q.protect = &p;
    ask(fd, &q);
    expect(reply(fd), 0, NULL);
    assert_true(state.vms[0].protect);
    assert_int_equal(close(fd), 0);
}

/* Neither another file nor the socket of a daemon that lives is removed; that of a dead one is. */
static void the_socket_of_another(void **ctx)
{
    struct daemon second = {.conf = d.conf};
    struct plx_err err = {""};
    struct conf other = conf;
    struct stat st;

    (void)ctx;
    second.conf = &other;
    assert_int_equal(api_open(&second, &err), PLX_EBUSY);
    assert_non_null(strstr(err.msg, "another polluxd listens"));
    int fd = client();
    expect(list(fd), 0, NULL);
    assert_int_equal(close(fd), 0);

    (void)snprintf(other.socket, sizeof other.socket, "%.200s-file", conf.socket);
    fd = open(other.socket, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && close(fd) == 0);
    assert_int_equal(api_open(&second, &err), PLX_EEXIST);
    assert_int_equal(stat(other.socket, &st), 0);
    assert_int_equal(unlink(other.socket), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(too_many_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out_over_a_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out_over_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_does_not_read_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_is_a_uuid, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_are_of_what_is_agreed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_socket_of_another, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
