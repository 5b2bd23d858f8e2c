/* SPDX-License-Identifier: Apache-2.0
 * Hunts: tables of a polluxd that grow with what another node says, and consoles that go silent
 * without a word when one of its ends is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "ops/polluxd/daemon.h"

enum { SELF = 1, PEER = 2, OTHER = 3, HERE = 9, THERE = 10 };

static struct daemon d;
static struct roles_state state;
static struct child child = {.incarnation = HERE};
static uint64_t random_at;
static struct said { /* the last message to another node */
    uint32_t to;
    Cl__NodeMessage__MsgCase kind;
    uint64_t session;
} said;
static unsigned closes, typed;
static char heard[128]; /* why the session of this node ended */

/* --- stands for the rest of the daemon ------------------------------------------------------- */

void daemon_send(struct daemon *self, uint32_t to, Cl__NodeMessage *m)
{
    (void)self;
    said = (struct said){.to = to, .kind = m->msg_case};
    if (m->msg_case == CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE) {
        said.session = m->console_close->session;
        closes++;
        assert_string_not_equal(m->console_close->reason, "");
    }
}

int cluster_send(struct cluster *c, uint32_t to, Cl__NodeMessage *m)
{
    (void)c;
    daemon_send(&d, to, m);
    return 0;
}

const struct roles_vm *daemon_vm(struct daemon *self, const uint8_t *uuid)
{
    (void)self;
    return roles_find(&state, uuid);
}

uint64_t daemon_random(void)
{
    return ++random_at;
}

struct child *child_find(const struct daemon *self, uint64_t incarnation)
{
    (void)self;
    return incarnation == HERE ? &child : NULL;
}

int child_send(struct child *c, Ctl__ToReplica *m, const int *fds, unsigned nfds)
{
    (void)c;
    (void)fds;
    (void)nfds;
    typed += m->msg_case == CTL__TO_REPLICA__MSG_CONSOLE_DATA;
    return 0;
}

/* --- fixture: VM 1 runs here, VM 2 on node PEER ----------------------------------------------- */

static void run_vm(uint8_t n, uint32_t node, uint64_t incarnation)
{
    struct roles_cmd define = {.op = ROLES_DEFINE, .request = ++random_at, .xml = "<domain/>"};
    struct roles_cmd start = {.op = ROLES_START, .request = ++random_at};
    char name[8];

    (void)snprintf(name, sizeof name, "vm%u", n);
    define.name = name;
    memset(define.uuid, n, sizeof define.uuid);
    memset(start.uuid, n, sizeof start.uuid);
    assert_int_equal(roles_apply(&state, &define, NULL), ROLES_RES_DONE);
    start.epoch = roles_find(&state, start.uuid)->epoch;
    start.primary = (struct role_replica){.node = node, .incarnation = incarnation};
    (void)snprintf(start.primary.endpoint, sizeof start.primary.endpoint, "tcp://192.0.2.1:7");
    assert_int_equal(roles_apply(&state, &start, NULL), ROLES_RES_DONE);
}

static int setup(void **ctx)
{
    static struct conf conf;

    (void)ctx;
    memset(&d, 0, sizeof d);
    conf.self = SELF;
    d.conf = &conf;
    random_at = 1000;
    closes = typed = 0;
    heard[0] = '\0';
    roles_init(&state);
    run_vm(1, SELF, HERE);
    run_vm(2, PEER, THERE);
    said = (struct said){0};
    return 0;
}

static int teardown(void **ctx)
{
    (void)ctx;
    session_close_all(&d);
    stats_free(&d);
    roles_free(&state);
    return 0;
}

static void hear_open(uint32_t from, uint64_t id, uint8_t vm)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleOpen o = CL__CONSOLE_OPEN__INIT;
    uint8_t uuid[ROLES_UUID_LEN];

    memset(uuid, vm, sizeof uuid);
    o.session = id;
    o.vm = (ProtobufCBinaryData){.len = sizeof uuid, .data = uuid};
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_OPEN;
    m.console_open = &o;
    session_message(&d, from, &m);
}

static void hear_bytes(uint32_t from, uint64_t id)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleBytes b = CL__CONSOLE_BYTES__INIT;

    b.session = id;
    b.data = (ProtobufCBinaryData){.len = 1, .data = (uint8_t *)(uintptr_t) "x"};
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_BYTES;
    m.console_bytes = &b;
    session_message(&d, from, &m);
}

static void hear_close(uint32_t from, uint64_t id, const char *reason)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleClose e = CL__CONSOLE_CLOSE__INIT;

    e.session = id;
    e.reason = (char *)(uintptr_t)reason;
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE;
    m.console_close = &e;
    session_message(&d, from, &m);
}

static void on_console(void *ctx, const void *data, size_t len, uint64_t pos, const char *closed)
{
    (void)ctx;
    (void)data;
    (void)len;
    (void)pos;
    if (closed != NULL) {
        (void)snprintf(heard, sizeof heard, "%s", closed);
    }
}

static const struct roles_vm *vm(uint8_t n)
{
    uint8_t uuid[ROLES_UUID_LEN];

    memset(uuid, n, sizeof uuid);
    return roles_find(&state, uuid);
}

/* --- consoles --------------------------------------------------------------------------------- */

/* The one that was used last stays, though it is the oldest; so does that of a third node. */
static void another_node_has_a_number_of_consoles(void **ctx)
{
    (void)ctx;
    hear_open(OTHER, 5000, 1);
    for (uint64_t id = 1; id <= SESSIONS_OF_NODE_MAX; id++) {
        hear_open(PEER, id, 1);
    }
    hear_bytes(PEER, 1);
    assert_int_equal(closes, 0);
    hear_open(PEER, 2, 1); /* opened again: no more than before */
    assert_int_equal(closes, 0);
    hear_open(PEER, 6000, 1);
    assert_int_equal(closes, 1);
    assert_int_equal(said.to, PEER);
    assert_int_equal(said.session, 2);
    typed = 0;
    hear_bytes(PEER, 1);
    hear_bytes(PEER, 6000);
    hear_bytes(OTHER, 5000);
    assert_int_equal(typed, 3);
    assert_int_equal(closes, 1);
}

static void what_is_for_no_console_is_answered(void **ctx)
{
    (void)ctx;
    hear_bytes(PEER, 77);
    assert_int_equal(closes, 1);
    assert_int_equal(said.session, 77);
    hear_open(PEER, 78, 3); /* no such VM */
    assert_int_equal(closes, 2);
    assert_int_equal(said.session, 78);
    hear_close(PEER, 79, "closed"); /* or two nodes would go on telling each other */
    assert_int_equal(closes, 2);
}

static void a_console_that_the_primary_gives_up_ends(void **ctx)
{
    (void)ctx;
    assert_non_null(session_open(&d, vm(2), 0, on_console, NULL));
    uint64_t id = random_at;
    assert_int_equal(said.kind, CL__NODE_MESSAGE__MSG_CONSOLE_OPEN);
    hear_close(OTHER, id, "not yours");
    assert_string_equal(heard, "");
    hear_close(PEER, id, "too many");
    assert_string_equal(heard, "too many");
    assert_null(d.sessions);
}

/* --- figures ---------------------------------------------------------------------------------- */

static unsigned kept(void)
{
    unsigned n = 0;

    for (const struct vm_stats *v = d.stats; v != NULL; v = v->next) {
        n++;
    }
    return n;
}

static void hear_stats(uint32_t from, uint8_t n)
{
    Ctl__Stats s = CTL__STATS__INIT;
    uint8_t uuid[ROLES_UUID_LEN];

    memset(uuid, n, sizeof uuid);
    stats_store(&d, uuid, from, &s);
}

static void figures_are_kept_of_vms_that_are_defined(void **ctx)
{
    (void)ctx;
    for (uint8_t n = 3; n < 100; n++) {
        hear_stats(PEER, n);
    }
    assert_int_equal(kept(), 0);
    hear_stats(PEER, 1);
    hear_stats(OTHER, 1);
    hear_stats(PEER, 1);
    assert_int_equal(kept(), 2);
    roles_free(&state); /* VM 1 is gone */
    roles_init(&state);
    run_vm(2, PEER, THERE);
    hear_stats(PEER, 2);
    assert_int_equal(kept(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(another_node_has_a_number_of_consoles, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_for_no_console_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_console_that_the_primary_gives_up_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(figures_are_kept_of_vms_that_are_defined, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
