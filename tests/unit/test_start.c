/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a start that puts primary and backup where nobody asked for them, or says yes to what
 * cannot be; one that nobody answers for want of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "ops/polluxd/daemon.h"

enum { SELF = 1, NODES = 3 };

static struct daemon d;
static struct conf conf;
static struct roles_vm vm;
static char xml[] =
    "<domain><name>a</name><memory unit='MiB'>64</memory><os><kernel>/k</kernel></os>"
    "</domain>";
static uint64_t random_at, call;
static struct roles_cmd proposed;
static prepare_cb own_cb;
static void *own_ctx;
static int own_rc, answer_rc;
static char answer[2 * PLX_ERR_MSG_MAX];
static bool answered;

/* --- stands for the rest of the daemon ------------------------------------------------------- */

uint64_t daemon_random(void)
{
    return ++random_at;
}

const struct roles_vm *daemon_vm(struct daemon *self, const uint8_t *uuid)
{
    (void)self;
    (void)uuid;
    return &vm;
}

void daemon_send(struct daemon *self, uint32_t to, Cl__NodeMessage *m)
{
    (void)self;
    (void)to;
    (void)m;
}

int cluster_send(struct cluster *c, uint32_t to, Cl__NodeMessage *m)
{
    (void)c;
    (void)to;
    call = m->prepare->call;
    return 0;
}

void cluster_propose(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    proposed = *cmd;
    cb(ctx, 0, ROLES_RES_WRONG_EPOCH); /* which ends the start */
}

uint32_t cluster_leader(const struct cluster *c)
{
    (void)c;
    return 3;
}

bool cluster_node_up(const struct cluster *c, uint32_t id)
{
    (void)c;
    (void)id;
    return true;
}

void event_raise(struct daemon *self, const uint8_t *of, const char *kind, const char *fmt, ...)
{
    (void)self;
    (void)of;
    (void)kind;
    (void)fmt;
}

const struct event *event_at(const struct daemon *self, unsigned i)
{
    (void)self;
    (void)i;
    return NULL;
}

int prepare_here(struct daemon *self, uint32_t asker, const uint8_t *uuid, const char *text,
                 prepare_cb cb, void *ctx)
{
    (void)self;
    (void)uuid;
    (void)text;
    assert_int_equal(asker, SELF);
    own_cb = cb;
    own_ctx = ctx;
    return own_rc;
}

/* --------------------------------------------------------------------------------------------- */

static int setup(void **ctx)
{
    (void)ctx;
    memset(&d, 0, sizeof d);
    d.conf = &conf;
    conf.self = SELF;
    conf.nmembers = NODES;
    for (uint32_t i = 0; i < NODES; i++) {
        conf.members[i].id = i + 1;
        (void)snprintf(conf.members[i].name, sizeof conf.members[i].name, "n%u", i + 1);
    }
    (void)snprintf(conf.name, sizeof conf.name, "n1");
    vm = (struct roles_vm){.name = "a", .xml = xml, .protect = true};
    proposed = (struct roles_cmd){.op = ROLES_OP_NONE};
    random_at = 0;
    own_rc = 0;
    answered = false;
    return 0;
}

static void on_answer(void *ctx, int rc, const char *error)
{
    (void)ctx;
    assert_false(answered);
    answered = true;
    answer_rc = rc;
    (void)snprintf(answer, sizeof answer, "%s", error);
}

static void fill(struct role_replica *r, uint32_t node)
{
    *r = (struct role_replica){.node = node, .incarnation = 10 + node, .endpoint = "tcp://h:1"};
}

/* Every node can run it. */
static void all_prepare(void)
{
    static struct prepared p;
    uint8_t key[ROLES_KEY_LEN] = {0};

    if (own_rc == 0) {
        memset(&p, 0, sizeof p);
        p.ok = true;
        fill(&p.replica, SELF);
        own_cb(own_ctx, &p);
    }
    for (uint32_t n = SELF + 1; n <= NODES; n++) {
        Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
        Cl__Prepared w = CL__PREPARED__INIT;
        Ctl__Replica r = CTL__REPLICA__INIT;
        r.node = n;
        r.incarnation = 10 + n;
        r.key = (ProtobufCBinaryData){.len = sizeof key, .data = key};
        r.endpoint = (char *)(uintptr_t) "tcp://h:1";
        w.call = call;
        w.ok = true;
        w.replica = &r;
        m.msg_case = CL__NODE_MESSAGE__MSG_PREPARED;
        m.prepared = &w;
        start_message(&d, n, &m);
    }
}

static void start(const char *primary, const char *backup)
{
    proposed = (struct roles_cmd){.op = ROLES_OP_NONE};
    answered = false;
    start_vm(&d, &vm, primary, backup, false, on_answer, &d);
    if (!answered) {
        all_prepare();
    }
    assert_true(answered);
    assert_null(d.starts);
}

static void nodes_are_chosen(void **ctx)
{
    static const struct {
        const char *primary, *backup;
        uint32_t got_primary, got_backup;
    } t[] = {
        {"", "", 1, 2},     {"n2", "", 2, 1}, {"n3", "n2", 3, 2},
        {"", "n2", 1, 2},   {"", "n1", 2, 1}, /* the preferred primary is asked for as backup */
        {"n2", "n1", 2, 1},
    };

    (void)ctx;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        start(t[i].primary, t[i].backup);
        assert_int_equal(proposed.op, ROLES_START);
        assert_int_equal(proposed.primary.node, t[i].got_primary);
        assert_int_equal(proposed.backup.node, t[i].got_backup);
    }
}

static void what_cannot_be_is_refused(void **ctx)
{
    (void)ctx;
    start("n2", "n2");
    assert_int_equal(answer_rc, PLX_EINVAL);
    assert_non_null(strstr(answer, "another node than the primary"));
    vm.protect = false;
    start("", "n2");
    assert_int_equal(answer_rc, PLX_EINVAL);
    assert_non_null(strstr(answer, "is not protected"));
    start("", "");
    assert_int_equal(proposed.op, ROLES_START);
    assert_int_equal(proposed.backup.node, 0);
}

static void a_node_with_too_much_to_do_is_left_out(void **ctx)
{
    (void)ctx;
    own_rc = PLX_EBUSY;
    start("", "");
    assert_int_equal(proposed.primary.node, 2);
    start("n1", "");
    assert_int_equal(answer_rc, PLX_ESTATE);
    assert_non_null(strstr(answer, "too many other starts"));
}

static void memory_runs_out(void **ctx)
{
    (void)ctx;
    for (int k = 0; k < 2; k++) { /* the start, what refers to it */
        plx_heap_fail_at(k);
        start("", "");
        plx_heap_fail_never();
        assert_int_equal(answer_rc, PLX_ENOMEM);
    }
    plx_heap_fail_at(2); /* what refers to it in the proposal */
    start("", "");
    plx_heap_fail_never();
    assert_int_equal(answer_rc, PLX_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nodes_are_chosen, setup),
        cmocka_unit_test_setup(what_cannot_be_is_refused, setup),
        cmocka_unit_test_setup(a_node_with_too_much_to_do_is_left_out, setup),
        cmocka_unit_test_setup(memory_runs_out, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
