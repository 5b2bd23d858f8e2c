/* SPDX-License-Identifier: Apache-2.0
 * Hunts: commands that are lost or applied twice when made on a follower, while the leader goes or
 * comes back; a read that shows old state; a node with an unknown key that is heard; a handle that
 * is not closed. Three members in one process on one loop, over real CURVE connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "consensus/cluster.h"

enum { N = 3, ELECTION_MS = 150, HEARTBEAT_MS = 30, WAIT_MS = 8000 };

struct member {
    struct cluster *c;
    char dir[64];
    struct curve_pair key;
    unsigned records; /* on_record calls */
    bool closed;
};

struct lab {
    uv_loop_t loop;
    uv_timer_t wake; /* so that run_until looks at the clock */
    char dir[32];
    struct member m[N];
    struct node_link_peer nodes[N];
};

static void on_record(void *ctx, const uint8_t *uuid, const struct roles_vm *vm)
{
    struct member *m = ctx;

    (void)uuid;
    (void)vm;
    m->records++;
}

static void on_message(void *ctx, uint32_t from, const Cl__NodeMessage *msg)
{
    (void)ctx;
    (void)from;
    (void)msg;
}

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)close(fd);
    return ntohs(a.sin_port);
}

static void open_member(struct lab *l, unsigned i)
{
    struct plx_err err;
    struct cluster_config cfg = {.loop = &l->loop,
                                 .key = &l->m[i].key,
                                 .self = i + 1,
                                 .name = "lab",
                                 .bind = l->nodes[i].endpoint,
                                 .dir = l->m[i].dir,
                                 .nodes = l->nodes,
                                 .nnodes = N,
                                 .election_ms = ELECTION_MS,
                                 .heartbeat_ms = HEARTBEAT_MS,
                                 .on_record = on_record,
                                 .on_message = on_message,
                                 .ctx = &l->m[i]};

    int rc = cluster_open(&cfg, &l->m[i].c, &err);
    if (rc != 0) {
        fail_msg("%s", err.msg);
    }
    l->m[i].closed = false;
}

static void on_member_closed(void *ctx)
{
    struct member *m = ctx;

    m->c = NULL;
    m->closed = true;
}

static void on_wake(uv_timer_t *h)
{
    (void)h;
}

/* Run the loop until *flag or the time is up. */
static bool run_until(struct lab *l, const bool *flag)
{
    uint64_t end = clock_mono_ns() + (uint64_t)WAIT_MS * 1000000;

    while (!*flag && clock_mono_ns() < end) {
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    }
    return *flag;
}

static void close_member(struct lab *l, unsigned i)
{
    cluster_close(l->m[i].c, on_member_closed, &l->m[i]);
    assert_true(run_until(l, &l->m[i].closed));
}

static int setup(void **state)
{
    struct lab *l = calloc(1, sizeof *l);
    struct plx_err err;

    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(uv_loop_init(&l->loop), 0);
    (void)uv_timer_init(&l->loop, &l->wake);
    (void)uv_timer_start(&l->wake, on_wake, 5, 5);
    (void)strcpy(l->dir, "/tmp/plx-cluster-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(curve_generate(&l->m[i].key, &err), 0);
        (void)snprintf(l->m[i].dir, sizeof l->m[i].dir, "%s/%u", l->dir, i);
        assert_int_equal(mkdir(l->m[i].dir, 0700), 0);
        l->nodes[i].id = i + 1;
        (void)snprintf(l->nodes[i].endpoint, sizeof l->nodes[i].endpoint, "tcp://127.0.0.1:%d",
                       free_port());
        memcpy(l->nodes[i].key, l->m[i].key.public_key, CURVE_KEY_LEN);
    }
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct lab *l = *state;
    char cmd[80];

    for (unsigned i = 0; i < N; i++) {
        if (l->m[i].c != NULL) {
            close_member(l, i);
        }
    }
    uv_close((uv_handle_t *)&l->wake, NULL);
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&l->loop), 0); /* every handle was closed */
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", l->dir);
    assert_int_equal(system(cmd), 0);
    free(l);
    return 0;
}

struct outcome {
    bool done;
    int rc;
    enum roles_result result;
};

static void on_outcome(void *ctx, int rc, enum roles_result result)
{
    struct outcome *o = ctx;

    *o = (struct outcome){.done = true, .rc = rc, .result = result};
}

static enum roles_result define(struct lab *l, unsigned on, const char *name, uint8_t id)
{
    struct roles_cmd c = {.op = ROLES_DEFINE, .name = name, .xml = "<domain/>"};
    struct outcome o = {0};

    host_random(&c.request, sizeof c.request);
    c.uuid[0] = id;
    cluster_propose(l->m[on].c, &c, WAIT_MS, on_outcome, &o);
    assert_true(run_until(l, &o.done));
    assert_int_equal(o.rc, 0);
    assert_non_null(roles_find_name(cluster_state(l->m[on].c), name));
    return o.result;
}

static void read_sees(struct lab *l, unsigned on, const char *name)
{
    struct outcome o = {0};

    cluster_read(l->m[on].c, WAIT_MS, on_outcome, &o);
    assert_true(run_until(l, &o.done));
    assert_int_equal(o.rc, 0);
    assert_non_null(roles_find_name(cluster_state(l->m[on].c), name));
}

static void commands_from_every_node(void **state)
{
    struct lab *l = *state;
    static const char *const names[N] = {"a", "b", "c"};

    for (unsigned i = 0; i < N; i++) {
        open_member(l, i);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(define(l, i, names[i], (uint8_t)(i + 1)), ROLES_RES_DONE);
        for (unsigned k = 0; k < N; k++) {
            read_sees(l, k, names[i]);
        }
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(cluster_state(l->m[i].c)->n, N);
        assert_true(l->m[i].records >= N);
    }
}

static void the_leader_goes_and_comes_back(void **state)
{
    struct lab *l = *state;

    for (unsigned i = 0; i < N; i++) {
        open_member(l, i);
    }
    assert_int_equal(define(l, 0, "first", 1), ROLES_RES_DONE);
    unsigned leader = cluster_leader(l->m[0].c) - 1;
    assert_true(leader < N);
    close_member(l, leader);
    unsigned other = (leader + 1) % N;
    assert_int_equal(define(l, other, "second", 2), ROLES_RES_DONE);
    open_member(l, leader);
    read_sees(l, leader, "first");
    read_sees(l, leader, "second");
    assert_int_equal(define(l, leader, "third", 3), ROLES_RES_DONE);
}

static void without_a_majority_nothing_is_decided(void **state)
{
    struct lab *l = *state;
    struct outcome o = {0};
    struct roles_cmd c = {.op = ROLES_DEFINE, .request = 5, .name = "x", .xml = "<domain/>"};

    for (unsigned i = 0; i < N; i++) {
        open_member(l, i);
    }
    assert_int_equal(define(l, 0, "first", 1), ROLES_RES_DONE);
    close_member(l, 1);
    close_member(l, 2);
    cluster_propose(l->m[0].c, &c, 800, on_outcome, &o);
    assert_true(run_until(l, &o.done));
    assert_int_equal(o.rc, PLX_ETIMEDOUT);
    o.done = false;
    cluster_read(l->m[0].c, 500, on_outcome, &o);
    assert_true(run_until(l, &o.done));
    assert_int_equal(o.rc, PLX_ETIMEDOUT);
    assert_null(roles_find_name(cluster_state(l->m[0].c), "x"));
}

/* Whichever allocation fails as a command is given, here or on its way to the leader: it is refused
 * at once, or applied all the same. */
static void memory_runs_out_over_a_command(void **state)
{
    struct lab *l = *state;
    unsigned refused = 0;

    for (unsigned i = 0; i < N; i++) {
        open_member(l, i);
    }
    assert_int_equal(define(l, 0, "first", 1), ROLES_RES_DONE);
    for (unsigned i = 0; i < 8 * N; i++) {
        struct roles_cmd c = {.op = ROLES_DEFINE, .xml = "<domain/>"};
        struct outcome o = {0};
        char name[16];
        (void)snprintf(name, sizeof name, "vm%u", i);
        c.name = name;
        c.request = 1000 + i;
        c.uuid[0] = (uint8_t)(100 + i);
        plx_heap_fail_at((int)(i / N));
        cluster_propose(l->m[i % N].c, &c, WAIT_MS, on_outcome, &o);
        plx_heap_fail_never();
        bool at_once = o.done;
        assert_true(run_until(l, &o.done));
        assert_int_equal(o.rc, at_once ? PLX_ENOMEM : 0);
        assert_true(at_once == (roles_find_name(cluster_state(l->m[i % N].c), name) == NULL));
        refused += at_once;
    }
    assert_true(refused > 0 && refused < 8 * N);
}

static void a_wrong_key_is_not_heard(void **state)
{
    struct lab *l = *state;
    struct plx_err err;

    assert_int_equal(curve_generate(&l->m[2].key, &err), 0); /* not the one the others know */
    for (unsigned i = 0; i < N; i++) {
        open_member(l, i);
    }
    assert_int_equal(define(l, 0, "first", 1), ROLES_RES_DONE);
    uint64_t end = clock_mono_ns() + 300000000;
    while (clock_mono_ns() < end) {
        (void)uv_run(&l->loop, UV_RUN_NOWAIT);
        clock_sleep_ns(1000000);
    }
    assert_int_equal(cluster_state(l->m[2].c)->n, 0);
    assert_true(cluster_refused(l->m[0].c) > 0);
    assert_false(cluster_node_up(l->m[0].c, 3));
    assert_true(cluster_node_up(l->m[0].c, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(commands_from_every_node, setup, teardown),
        cmocka_unit_test_setup_teardown(the_leader_goes_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_majority_nothing_is_decided, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out_over_a_command, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_key_is_not_heard, setup, teardown),
    };

    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
