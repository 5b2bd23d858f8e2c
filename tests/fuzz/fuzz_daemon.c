/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_daemon.c - what other nodes and replicas say to a polluxd. On it run: a VM whose
 * primary is here and whose backup is on node 2, a replica that it has yet to hear of, a console
 * session, and the start of another VM. What the daemon asks of the cluster is answered a little
 * later.
 *
 * The input is a sequence of messages: who speaks (2, 3: a node; 0, 1: a replica; 4: time passes;
 * 5: nobody answers the daemon any more; modulo 6), length (2 bytes), as many bytes. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/polluxd/child_priv.h"
#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

enum {
    PENDING_MAX = 64,
    MESSAGES_MAX = 64,
    SPEAKERS = 6,
    SELF = 1,
    START_CALL = 102,
    ANSWERS_MAX = 1000
};

static struct daemon the_daemon;
static struct roles_state state;
static struct pending {
    cluster_cb cb;
    prepare_cb prepared;
    void *ctx;
    int rc;
    enum roles_result result;
    bool applied; /* the record of @uuid changed */
    uint8_t uuid[ROLES_UUID_LEN];
} pending[PENDING_MAX];
static unsigned npending;
static uint64_t random_at;
static bool silent; /* no majority answers */

/* --- stands for consensus/cluster.c ---------------------------------------------------------- */

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
    if (silent) {
        answer_later((struct pending){.cb = cb, .ctx = ctx, .rc = PLX_ETIMEDOUT});
        return;
    }
    struct pending p = {.cb = cb, .ctx = ctx, .applied = true};
    p.result = roles_apply(&state, cmd, NULL);
    memcpy(p.uuid, cmd->uuid, sizeof p.uuid);
    answer_later(p);
}

void cluster_read(struct cluster *c, uint64_t timeout_ms, cluster_cb cb, void *ctx)
{
    (void)c;
    (void)timeout_ms;
    answer_later((struct pending){.cb = cb, .ctx = ctx, .rc = silent ? PLX_ETIMEDOUT : 0});
}

const struct roles_state *cluster_state(const struct cluster *c)
{
    (void)c;
    return &state;
}

uint32_t cluster_leader(const struct cluster *c)
{
    (void)c;
    return 2;
}

bool cluster_node_up(const struct cluster *c, uint32_t id)
{
    (void)c;
    return id <= 2;
}

const uint8_t *cluster_id(const struct cluster *c)
{
    static const uint8_t id[NODE_LINK_CLUSTER_LEN] = {7};

    (void)c;
    return id;
}

/* What is said must be sayable. */
int cluster_send(struct cluster *c, uint32_t to, Cl__NodeMessage *msg)
{
    size_t len = cl__node_message__get_packed_size(msg);
    uint8_t *bytes = plx_calloc(1, len + 1);

    (void)c;
    PLX_CHECK(bytes != NULL && to != SELF && cl__node_message__pack(msg, bytes) == len);
    plx_free(bytes);
    return to <= 3 ? 0 : PLX_ECONN;
}

/* --- stands for daemon.c and prepare.c ------------------------------------------------------- */

void daemon_send(struct daemon *d, uint32_t to, Cl__NodeMessage *msg)
{
    (void)cluster_send(d->cluster, to == 0 ? 2 : to, msg);
}

const struct roles_vm *daemon_vm(struct daemon *d, const uint8_t *uuid)
{
    (void)d;
    return roles_find(&state, uuid);
}

uint64_t daemon_random(void)
{
    return ++random_at;
}

int prepare_here(struct daemon *d, uint32_t asker, const uint8_t *uuid, const char *xml,
                 prepare_cb cb, void *ctx)
{
    (void)d;
    (void)asker;
    (void)uuid;
    if (xml[0] == '\0') {
        return PLX_EBUSY;
    }
    answer_later((struct pending){.prepared = cb, .ctx = ctx, .rc = xml[0] == '<' ? 0 : 1});
    return 0;
}

struct prepared *prepared_take(struct daemon *d, uint64_t incarnation)
{
    (void)d;
    (void)incarnation;
    return NULL;
}

static void call_prepared(const struct pending *p)
{
    static struct prepared ready;

    memset(&ready, 0, sizeof ready);
    ready.ok = p->rc == 0;
    ready.replica = (struct role_replica){.node = SELF, .incarnation = 77};
    (void)snprintf(ready.replica.endpoint, sizeof ready.replica.endpoint, "tcp://192.0.2.1:7");
    (void)snprintf(ready.error, sizeof ready.error, "%s", ready.ok ? "" : "no");
    (void)snprintf(ready.files[0].label, sizeof ready.files[0].label, "/k");
    ready.nfiles = 1;
    p->prepared(p->ctx, &ready);
}

/* --------------------------------------------------------------------------------------------- */

static void record_changed(const uint8_t *uuid)
{
    const struct roles_vm *vm = roles_find(&state, uuid);

    if (the_daemon.stopping) {
        return;
    }
    vms_record(&the_daemon, uuid, vm);
    if (vm != NULL) {
        start_record(&the_daemon, vm);
    }
    session_record(&the_daemon, uuid, vm);
}

static void answer(void)
{
    struct pending now[PENDING_MAX];
    unsigned n = npending;

    memcpy(now, pending, sizeof now);
    npending = 0;
    for (unsigned i = 0; i < n; i++) {
        if (now[i].applied) {
            record_changed(now[i].uuid);
        }
        if (now[i].prepared != NULL) {
            call_prepared(&now[i]);
        } else {
            now[i].cb(now[i].ctx, now[i].rc, now[i].result);
        }
    }
}

static void define(const char *name, uint8_t uuid, bool protect)
{
    static const char xml[] = "<domain><name>%s</name><memory unit='MiB'>64</memory>"
                              "<os><kernel>/k</kernel></os></domain>";
    char text[256];
    struct roles_cmd cmd = {
        .op = ROLES_DEFINE, .request = ++random_at, .name = name, .protect = protect, .xml = text};

    (void)snprintf(text, sizeof text, xml, name);
    memset(cmd.uuid, uuid, sizeof cmd.uuid);
    PLX_CHECK(roles_apply(&state, &cmd, NULL) == ROLES_RES_DONE);
}

static struct role_replica replica(uint32_t node, uint64_t incarnation)
{
    struct role_replica r = {.node = node, .incarnation = incarnation};

    memset(r.key, (int)node, sizeof r.key);
    (void)snprintf(r.endpoint, sizeof r.endpoint, "tcp://192.0.2.%u:7000", node);
    return r;
}

/* VM b runs as a pair. */
static void run_b(void)
{
    struct roles_cmd cmd = {.op = ROLES_START, .request = ++random_at};

    memset(cmd.uuid, 2, sizeof cmd.uuid);
    cmd.epoch = roles_find(&state, cmd.uuid)->epoch;
    cmd.primary = replica(SELF, 9);
    cmd.backup = replica(2, 10);
    PLX_CHECK(roles_apply(&state, &cmd, NULL) == ROLES_RES_DONE);
    cmd.op = ROLES_READY;
    cmd.request = ++random_at;
    cmd.epoch = roles_find(&state, cmd.uuid)->epoch;
    cmd.incarnation = 9;
    PLX_CHECK(roles_apply(&state, &cmd, NULL) == ROLES_RES_DONE);
}

static void seen(void *ctx, const void *data, size_t len, uint64_t pos, const char *closed)
{
    (void)ctx;
    (void)pos;
    PLX_CHECK(data != NULL || len == 0);
    PLX_CHECK(closed == NULL || closed[0] != '\0');
}

static void started(void *ctx, int rc, const char *error)
{
    (void)ctx;
    PLX_CHECK(rc == 0 || error[0] != '\0');
}

static void hear(uint32_t from, const uint8_t *data, size_t len)
{
    Cl__NodeMessage *m = cl__node_message__unpack(NULL, len, data);

    if (m != NULL) {
        peers_message(&the_daemon, from, m);
        cl__node_message__free_unpacked(m, NULL);
    }
}

static void turn(const int ends[2])
{
    static uint8_t said[PACKET_MAX];

    for (int i = 0; i < 2; i++) {
        (void)uv_run(&the_daemon.loop, UV_RUN_NOWAIT);
        answer();
    }
    for (int i = 0; i < 2; i++) {
        while (recv(ends[i], said, sizeof said, MSG_DONTWAIT) > 0) {
        }
    }
}

static void time_passes(void)
{
    child_retry_wishes(&the_daemon, UINT64_MAX);
    session_tick(&the_daemon);
    vms_tick(&the_daemon);
    start_tick(&the_daemon);
    event_tick(&the_daemon);
}

/* What is shown is in order, and none too many. */
static void check_events(void)
{
    const struct event *later = NULL;
    unsigned n = 0;

    for (const struct event *e; (e = event_at(&the_daemon, n)) != NULL; n++) {
        PLX_CHECK(later == NULL || e->at_ns <= later->at_ns);
        PLX_CHECK(e->node[0] != '\0' && memchr(e->text, 0, sizeof e->text) != NULL);
        later = e;
    }
    PLX_CHECK(n <= EVENTS_MAX);
}

/* The start ends: node 2 cannot, or what was begun stops again. */
static void end_start(const int ends[2])
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Prepared no = CL__PREPARED__INIT;
    struct roles_cmd stop = {.op = ROLES_STOP, .request = ++random_at, .stop = ROLES_STOP_FAILED};

    no.call = START_CALL;
    m.msg_case = CL__NODE_MESSAGE__MSG_PREPARED;
    m.prepared = &no;
    turn(ends);
    peers_message(&the_daemon, 2, &m);
    turn(ends);
    memset(stop.uuid, 1, sizeof stop.uuid);
    const struct roles_vm *vm = roles_find(&state, stop.uuid);
    if (vm != NULL && vm->phase != ROLES_STOPPED) {
        stop.incarnation = vm->primary.incarnation;
        (void)roles_apply(&state, &stop, NULL);
        record_changed(stop.uuid);
    }
    PLX_CHECK(the_daemon.starts == NULL);
}

static void finish(const int ends[2])
{
    silent = false;
    end_start(ends);
    check_events();
    the_daemon.stopping = true;
    session_close_all(&the_daemon);
    for (struct child *c = the_daemon.children; c != NULL; c = c->next) {
        child_close(c, true);
    }
    for (int i = 0;
         (uv_loop_alive(&the_daemon.loop) || npending != 0 || the_daemon.wishes != NULL) &&
         i < ANSWERS_MAX;
         i++) {
        turn(ends);
        child_retry_wishes(&the_daemon, UINT64_MAX);
    }
    PLX_CHECK(the_daemon.wishes == NULL && the_daemon.children == NULL);
    PLX_CHECK(uv_loop_close(&the_daemon.loop) == 0);
    PLX_CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
    stats_free(&the_daemon);
    roles_free(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf conf;
    int a[2], b[2];

    log_init("fuzz", LOG_ERROR);
    memset(&the_daemon, 0, sizeof the_daemon);
    the_daemon.conf = &conf;
    the_daemon.cluster = (struct cluster *)(void *)&state; /* not NULL */
    the_daemon.caught_up = true;
    the_daemon.events.life = 5;
    conf.nmembers = 3;
    for (uint32_t i = 0; i < conf.nmembers; i++) {
        conf.members[i].id = i + 1;
        (void)snprintf(conf.members[i].name, sizeof conf.members[i].name, "n%u", i + 1);
    }
    conf.self = SELF;
    (void)snprintf(conf.name, sizeof conf.name, "n1");
    (void)snprintf(conf.run_dir, sizeof conf.run_dir, "/tmp/pollux-fuzz-nowhere");
    random_at = 10;
    npending = 0;
    silent = false;
    roles_init(&state);
    define("a", 1, true);
    define("b", 2, true);
    run_b();
    PLX_CHECK(uv_loop_init(&the_daemon.loop) == 0);
    PLX_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, a) == 0 &&
              socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b) == 0);
    const int ends[2] = {a[1], b[1]};
    struct child *c = child_make(&the_daemon, a[0]);
    memset(c->vm, 2, sizeof c->vm);
    c->incarnation = 9;
    c->role = CTL__ROLE__PRIMARY;
    (void)child_make(&the_daemon, b[0]); /* it has not said hello */
    random_at = 100;                     /* the session is 101, the start START_CALL */
    (void)session_open(&the_daemon, roles_find(&state, c->vm), 0, seen, NULL);
    start_vm(&the_daemon, &state.vms[0], "", "", false, started, &the_daemon);
    for (int i = 0; i < MESSAGES_MAX && size >= 3; i++) {
        unsigned who = data[0] % SPEAKERS;
        data++;
        size--;
        size_t len = fuzz_length(&data, &size);
        if (who < 2 && len > 0) {
            (void)packet_send(ends[who], data, len, NULL, 0);
        } else if (who < 4) {
            hear(who, data, len);
        } else if (who == 4) {
            time_passes();
        } else {
            silent = !silent;
        }
        turn(ends);
        data += len;
        size -= len;
    }
    finish(ends);
    return 0;
}
