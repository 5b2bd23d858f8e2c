/* SPDX-License-Identifier: Apache-2.0
 * Hunts: tables of a polluxd that grow with what another node says, consoles that go silent without
 * a word when one of its ends is gone, and typed bytes that a takeover loses. */
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
static unsigned closes, typed, rooms;
static struct typing { /* the last of what was typed, as it went on */
    uint64_t session, pos;
    char text[CONSOLE_TYPED_MAX + 1];
} typing;
static uint64_t told;   /* the last position that another node was told */
static char heard[128]; /* why the session of this node ended */

static void keep_typing(uint64_t session, uint64_t pos, const ProtobufCBinaryData *data)
{
    assert_in_range(data->len, 1, CONSOLE_TYPED_MAX);
    typing = (struct typing){.session = session, .pos = pos};
    memcpy(typing.text, data->data, data->len);
}

/* --- stands for the rest of the daemon ------------------------------------------------------- */

void daemon_send(struct daemon *self, uint32_t to, Cl__NodeMessage *m)
{
    (void)self;
    said = (struct said){.to = to, .kind = m->msg_case};
    if (m->msg_case == CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE) {
        said.session = m->console_close->session;
        closes++;
        assert_string_not_equal(m->console_close->reason, "");
    } else if (m->msg_case == CL__NODE_MESSAGE__MSG_CONSOLE_BYTES) {
        keep_typing(m->console_bytes->session, m->console_bytes->pos, &m->console_bytes->data);
    } else if (m->msg_case == CL__NODE_MESSAGE__MSG_CONSOLE_TAKEN) {
        told = m->console_taken->pos;
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
    if (m->msg_case == CTL__TO_REPLICA__MSG_CONSOLE_DATA) {
        typed++;
        keep_typing(m->console_data->session, m->console_data->pos, &m->console_data->data);
    }
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
    closes = typed = rooms = 0;
    told = 0;
    typing = (struct typing){0};
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

static void hear_text(uint32_t from, uint64_t id, uint64_t pos, const char *text)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleBytes b = CL__CONSOLE_BYTES__INIT;

    b.session = id;
    b.pos = pos;
    b.data = (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_BYTES;
    m.console_bytes = &b;
    session_message(&d, from, &m);
}

static void hear_bytes(uint32_t from, uint64_t id)
{
    hear_text(from, id, 0, "x");
}

static void hear_taken(uint32_t from, uint64_t id, uint64_t pos)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleTaken t = CL__CONSOLE_TAKEN__INIT;

    t.session = id;
    t.pos = pos;
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_TAKEN;
    m.console_taken = &t;
    session_message(&d, from, &m);
}

static void replica_took(uint64_t incarnation, uint64_t id, uint64_t pos)
{
    struct child from = {.d = &d, .incarnation = incarnation};
    Ctl__ConsoleTaken t = CTL__CONSOLE_TAKEN__INIT;

    t.session = id;
    t.pos = pos;
    session_taken(&from, &t);
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
    rooms += data == NULL && closed == NULL;
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

/* The primary of VM @n dies and another has its place. */
static void take_over(uint8_t n, uint32_t node, uint64_t incarnation)
{
    struct roles_vm *v = (struct roles_vm *)(uintptr_t)vm(n);

    v->primary = (struct role_replica){.node = node, .incarnation = incarnation};
    session_record(&d, v->uuid, v);
}

static void assert_typing(uint64_t session, uint64_t pos, const char *text)
{
    assert_int_equal(typing.session, session);
    assert_int_equal(typing.pos, pos);
    assert_string_equal(typing.text, text);
    typing = (struct typing){0};
}

/* All that nobody said is safe is said each time, to whoever is primary. */
static void what_was_typed_goes_to_the_next_primary(void **ctx)
{
    struct session *s = session_open(&d, vm(2), 0, on_console, NULL);
    uint64_t id = random_at;

    (void)ctx;
    assert_int_equal(session_input(s, "abc", 3), 3);
    assert_int_equal(said.to, PEER);
    assert_typing(id, 0, "abc");
    assert_int_equal(session_input(s, "d", 1), 1);
    assert_typing(id, 0, "abcd");
    hear_taken(OTHER, id, 2); /* it has no say in this */
    hear_taken(PEER, id, 5);  /* nobody typed that */
    hear_taken(PEER, id, UINT64_MAX);
    assert_int_equal(rooms, 0);
    hear_taken(PEER, id, 2);
    assert_int_equal(rooms, 1);
    session_tick(&d); /* the last may not have got there */
    assert_typing(id, 2, "cd");
    take_over(2, SELF, HERE);
    assert_int_equal(typed, 1);
    assert_typing(id, 2, "cd");
    assert_int_equal(session_input(s, "e", 1), 1);
    assert_typing(id, 2, "cde");
    replica_took(THERE, id, 5); /* one of before */
    hear_taken(PEER, id, 5);
    assert_int_equal(rooms, 1);
    replica_took(HERE, id, 4);
    assert_int_equal(rooms, 2);
    take_over(2, OTHER, THERE);
    assert_int_equal(said.to, OTHER);
    assert_typing(id, 4, "e");
    hear_taken(OTHER, id, 5);
    session_tick(&d);
    assert_typing(0, 0, "");
}

static void what_cannot_be_kept_is_not_taken(void **ctx)
{
    static const char much[CONSOLE_TYPED_MAX + 5] = {'m', 'u', 'c', 'h'};
    struct session *s = session_open(&d, vm(1), 0, on_console, NULL);
    uint64_t id = random_at;

    (void)ctx;
    take_over(1, PEER, 77);
    assert_int_equal(session_input(s, much, sizeof much), CONSOLE_TYPED_MAX);
    assert_int_equal(session_input(s, much, sizeof much), 0);
    hear_taken(PEER, id, 10);
    assert_int_equal(rooms, 1);
    assert_int_equal(session_input(s, much, sizeof much), 10);
    assert_int_equal(typing.pos, 10);
}

/* The node of the primary passes on both ways. It may hear of the takeover last. */
static void another_node_types_before_its_primary_is_here(void **ctx)
{
    char much[CONSOLE_TYPED_MAX + 2];

    (void)ctx;
    hear_open(OTHER, 7, 2);
    hear_text(OTHER, 7, 40, "abc");
    hear_text(OTHER, 7, 41, "bcd");
    assert_int_equal(typed, 0);
    take_over(2, SELF, HERE);
    assert_int_equal(typed, 1);
    assert_typing(7, 41, "bcd");
    replica_took(HERE, 7, 43);
    assert_int_equal(said.to, OTHER);
    assert_int_equal(told, 43);
    session_tick(&d); /* whoever types says it again */
    assert_int_equal(typed, 1);
    hear_text(OTHER, 7, 43, "de");
    assert_typing(7, 43, "de");
    memset(much, 'x', sizeof much - 1);
    much[sizeof much - 1] = '\0';
    hear_text(OTHER, 7, 45, much);
    assert_int_equal(typed, 2);
    replica_took(HERE, 7, 50);
    assert_int_equal(told, 43);
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
        cmocka_unit_test_setup_teardown(what_was_typed_goes_to_the_next_primary, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_kept_is_not_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(another_node_types_before_its_primary_is_here, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(figures_are_kept_of_vms_that_are_defined, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
