/* SPDX-License-Identifier: Apache-2.0
 * consensus/cluster.c - see cluster.h.
 *
 * A call (struct call) is a command or a read on its way: IDLE, then at the leader (here:
 * SUBMITTED, elsewhere: FORWARDED), then WAITING until this node has applied the leader's index.
 * Whatever is lost puts it back to IDLE; the tick tries again. */
#include "consensus/cluster.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "consensus/raft_node.h"
#include "consensus/tunnel.h"

enum {
    TICK_MS = 15,
    FORWARD_TIMEOUT_MS = 200,
    UP_MS = 2500,
    TERM_WAIT_S = 1,
    COMMAND_MAX = ROLES_XML_MAX + 4096 /* bytes: a definition is the longest */
};

enum call_state { CALL_IDLE, CALL_SUBMITTED, CALL_FORWARDED, CALL_WAITING };

struct call {
    struct call *next;
    struct cluster *c;
    uint64_t id;         /* random; names it on the wire */
    struct wbuf command; /* empty: a read */
    enum call_state state;
    uint64_t deadline_ns, sent_ns;
    uint64_t index;
    uint32_t result;
    bool orphan; /* answered (timed out) while the leader here still holds it */
    cluster_cb cb;
    void *ctx;
};

struct cluster {
    struct cluster_config cfg;
    uint8_t id[NODE_LINK_CLUSTER_LEN];
    struct node_link_peer nodes[NODE_LINK_NODES_MAX];
    void *zmq;
    struct authoriser *auth;
    struct node_link *link;
    struct raft_uv_transport transport;
    struct tunnels *tunnels;
    struct raft_node *raft;
    struct roles_state state;
    struct wbuf scratch;
    struct call *calls;
    uv_timer_t tick;
    uv_prepare_t prepare;
    unsigned open_handles;
    bool closing;
    void (*done)(void *ctx);
    void *done_ctx;
};

/* --- the replicated state ------------------------------------------------------------------ */

static uint32_t on_apply(void *ctx, const void *data, size_t len)
{
    struct cluster *c = ctx;
    struct roles_cmd cmd;
    struct plx_err err;
    struct rbuf r;
    const struct roles_vm *vm;

    rbuf_init(&r, data, len); /* the command's own length first: entries are padded */
    uint32_t n = rbuf_u32(&r);
    const uint8_t *bytes = rbuf_take(&r, n);
    int rc = bytes != NULL ? roles_cmd_decode(bytes, n, &cmd, &c->scratch, &err) : PLX_ECORRUPT;
    PLX_CHECK(rc != PLX_ENOMEM); /* the other nodes apply it: this one must begin anew */
    if (rc != 0) {
        log_error("a command in the log cannot be read");
        return ROLES_RES_MALFORMED;
    }
    enum roles_result res = roles_apply(&c->state, &cmd, &vm);
    log_debug("applied %s in epoch %llu: %s", roles_op_name(cmd.op), (unsigned long long)cmd.epoch,
              roles_result_text(res));
    if (res == ROLES_RES_DONE && !c->closing) {
        c->cfg.on_record(c->cfg.ctx, cmd.uuid, vm);
    }
    return res;
}

static void on_snapshot(void *ctx, struct wbuf *out)
{
    struct cluster *c = ctx;

    roles_encode(&c->state, out);
}

static int on_restore(void *ctx, const void *data, size_t len, struct plx_err *err)
{
    struct cluster *c = ctx;
    struct roles_state old = c->state;

    roles_init(&c->state);
    int rc = roles_decode(data, len, &c->state, err);
    if (rc != 0) {
        c->state = old;
        return rc;
    }
    for (unsigned i = 0; i < c->state.n; i++) {
        c->cfg.on_record(c->cfg.ctx, c->state.vms[i].uuid, &c->state.vms[i]);
    }
    for (unsigned i = 0; i < old.n; i++) {
        if (roles_find(&c->state, old.vms[i].uuid) == NULL) {
            c->cfg.on_record(c->cfg.ctx, old.vms[i].uuid, NULL);
        }
    }
    roles_free(&old);
    return 0;
}

/* --- calls --------------------------------------------------------------------------------- */

static void free_call(struct call *k)
{
    if (k != NULL) {
        wbuf_free(&k->command);
        plx_free(k);
    }
}

static void answer(struct call *k, int rc)
{
    struct cluster *c = k->c;
    bool held = k->state == CALL_SUBMITTED;

    if (!k->orphan) {
        cluster_cb cb = k->cb;
        k->cb = NULL;
        for (struct call **at = &c->calls; *at != NULL; at = &(*at)->next) {
            if (*at == k) {
                *at = k->next;
                break;
            }
        }
        cb(k->ctx, rc, rc == 0 ? (enum roles_result)k->result : ROLES_RES_END);
    }
    if (held) {
        k->orphan = true; /* raft still refers to it; on_submitted frees it */
        return;
    }
    free_call(k);
}

static void on_submitted(void *ctx, enum raft_node_status status, uint32_t result, uint64_t index)
{
    struct call *k = ctx;

    if (k->orphan) {
        free_call(k);
        return;
    }
    if (status == RAFT_NODE_DONE) {
        k->state = CALL_WAITING;
        k->index = index;
        k->result = result;
    } else {
        k->state = CALL_IDLE;
    }
}

static void drive(struct call *k)
{
    struct cluster *c = k->c;
    uint64_t now = clock_mono_ns();

    if (k->state == CALL_FORWARDED && now - k->sent_ns > (uint64_t)FORWARD_TIMEOUT_MS * 1000000) {
        k->state = CALL_IDLE;
    }
    if (k->state != CALL_IDLE) {
        return;
    }
    if (raft_node_is_leader(c->raft)) {
        k->state = CALL_SUBMITTED;
        raft_node_submit(c->raft, k->command.data, k->command.len, on_submitted, k);
        return;
    }
    uint32_t leader = raft_node_leader(c->raft);
    if (leader == 0 || leader == c->cfg.self) {
        return;
    }
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Propose p = CL__PROPOSE__INIT;
    Cl__Barrier b = CL__BARRIER__INIT;
    p.call = b.call = k->id;
    if (k->command.len != 0) {
        p.command = (ProtobufCBinaryData){.len = k->command.len, .data = k->command.data};
        m.msg_case = CL__NODE_MESSAGE__MSG_PROPOSE;
        m.propose = &p;
    } else {
        m.msg_case = CL__NODE_MESSAGE__MSG_BARRIER;
        m.barrier = &b;
    }
    if (node_link_send(c->link, leader, &m) == 0) {
        k->state = CALL_FORWARDED;
        k->sent_ns = now;
    }
}

/* Answer what this node has applied meanwhile. A callback may add calls: start over after each. */
static void settle(struct cluster *c)
{
    bool again = true;

    while (again && !c->closing) {
        again = false;
        for (struct call *k = c->calls; k != NULL; k = k->next) {
            if (k->state == CALL_WAITING && raft_node_applied(c->raft) >= k->index) {
                answer(k, 0);
                again = true;
                break;
            }
        }
    }
}

static void on_prepare(uv_prepare_t *h)
{
    settle(h->data);
}

static void on_tick(uv_timer_t *h)
{
    struct cluster *c = h->data;
    uint64_t now = clock_mono_ns();
    bool again = true;

    while (again && !c->closing) {
        again = false;
        for (struct call *k = c->calls; k != NULL; k = k->next) {
            if (now >= k->deadline_ns) {
                answer(k, PLX_ETIMEDOUT);
                again = true;
                break;
            }
        }
    }
    for (struct call *k = c->calls; k != NULL; k = k->next) {
        drive(k);
    }
    settle(c);
}

static void add_call(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx)
{
    struct call *k = plx_calloc(1, sizeof *k);

    if (k != NULL && cmd != NULL) {
        wbuf_u32(&k->command, 0);
        roles_cmd_encode(cmd, &k->command);
    }
    if (k == NULL || k->command.failed) {
        free_call(k);
        cb(ctx, PLX_ENOMEM, ROLES_RES_END);
        return;
    }
    if (cmd != NULL) {
        uint32_t n = (uint32_t)(k->command.len - sizeof n);
        memcpy(k->command.data, &n, sizeof n);
    }
    k->c = c;
    host_random(&k->id, sizeof k->id);
    k->deadline_ns = clock_mono_ns() + timeout_ms * 1000000;
    k->cb = cb;
    k->ctx = ctx;
    k->next = c->calls;
    c->calls = k;
    drive(k);
}

void cluster_propose(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx)
{
    PLX_CHECK(cmd->request != 0);
    add_call(c, cmd, timeout_ms, cb, ctx);
}

void cluster_read(struct cluster *c, uint64_t timeout_ms, cluster_cb cb, void *ctx)
{
    add_call(c, NULL, timeout_ms, cb, ctx);
}

/* --- calls of other nodes ------------------------------------------------------------------ */

struct foreign {
    struct cluster *c;
    uint64_t call;
    uint32_t from;
};

static void on_foreign_done(void *ctx, enum raft_node_status status, uint32_t result,
                            uint64_t index)
{
    static const Cl__CallStatus wire[] = {
        [RAFT_NODE_DONE] = CL__CALL_STATUS__CALL_DONE,
        [RAFT_NODE_NOT_LEADER] = CL__CALL_STATUS__CALL_NOT_LEADER,
        [RAFT_NODE_UNKNOWN] = CL__CALL_STATUS__CALL_UNKNOWN,
    };
    struct foreign *f = ctx;
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__CallReply r = CL__CALL_REPLY__INIT;

    r.call = f->call;
    r.status = wire[status];
    r.result = result;
    r.index = index;
    m.msg_case = CL__NODE_MESSAGE__MSG_CALL_REPLY;
    m.call_reply = &r;
    if (!f->c->closing) {
        (void)node_link_send(f->c->link, f->from, &m);
    }
    plx_free(f);
}

static void serve(struct cluster *c, uint32_t from, uint64_t call, const void *data, size_t len)
{
    struct foreign *f = plx_calloc(1, sizeof *f);

    if (f == NULL) {
        return; /* no answer: it asks again */
    }
    *f = (struct foreign){.c = c, .call = call, .from = from};
    raft_node_submit(c->raft, data, len, on_foreign_done, f);
}

static void on_reply(struct cluster *c, const Cl__CallReply *r)
{
    for (struct call *k = c->calls; k != NULL; k = k->next) {
        if (k->id != r->call || k->state != CALL_FORWARDED) {
            continue;
        }
        if (r->status == CL__CALL_STATUS__CALL_DONE && r->result < ROLES_RES_END) {
            k->state = CALL_WAITING;
            k->index = r->index;
            k->result = r->result;
        } else {
            k->state = CALL_IDLE;
        }
        break;
    }
    settle(c);
}

static void on_message(void *ctx, uint32_t from, const Cl__NodeMessage *msg)
{
    struct cluster *c = ctx;

    if (c->closing || c->raft == NULL || tunnels_message(c->tunnels, from, msg)) {
        return;
    }
    switch (msg->msg_case) {
    case CL__NODE_MESSAGE__MSG_PROPOSE:
        if (msg->propose->command.len != 0 && msg->propose->command.len <= COMMAND_MAX) {
            serve(c, from, msg->propose->call, msg->propose->command.data,
                  msg->propose->command.len);
        }
        break;
    case CL__NODE_MESSAGE__MSG_BARRIER:
        serve(c, from, msg->barrier->call, NULL, 0);
        break;
    case CL__NODE_MESSAGE__MSG_CALL_REPLY:
        on_reply(c, msg->call_reply);
        break;
    default:
        c->cfg.on_message(c->cfg.ctx, from, msg);
    }
}

/* --- opening and closing ------------------------------------------------------------------- */

static void *term_main(void *zmq)
{
    (void)zmq_ctx_term(zmq);
    return NULL;
}

/* libzmq 4.3.4 can wait for ever for the end of a connection whose handshake was being authorised
 * when its sockets were closed: then nobody else waits for it. */
static void term_context(void *zmq)
{
    struct timespec until;
    pthread_t t;

    if (pthread_create(&t, NULL, term_main, zmq) != 0) {
        return; /* the process has worse troubles than a context that stays */
    }
    PLX_CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += TERM_WAIT_S;
    if (pthread_timedjoin_np(t, NULL, &until) != 0) {
        (void)pthread_detach(t);
    }
}

static void free_cluster(struct cluster *c)
{
    authoriser_stop(c->auth);
    if (c->zmq != NULL) {
        term_context(c->zmq);
    }
    roles_free(&c->state);
    wbuf_free(&c->scratch);
    plx_free(c);
}

int cluster_open(const struct cluster_config *cfg, struct cluster **out, struct plx_err *err)
{
    struct cluster *c = plx_calloc(1, sizeof *c);
    uint32_t ids[NODE_LINK_NODES_MAX];
    uint8_t sha[SHA256_LEN];
    int rc;

    *out = NULL;
    if (c == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot join the cluster: out of memory");
    }
    PLX_CHECK(cfg->nnodes <= NODE_LINK_NODES_MAX);
    c->cfg = *cfg;
    memcpy(c->nodes, cfg->nodes, cfg->nnodes * sizeof *c->nodes);
    c->cfg.nodes = c->nodes;
    sha256(cfg->name, strlen(cfg->name), sha);
    memcpy(c->id, sha, sizeof c->id);
    roles_init(&c->state);
    wbuf_init(&c->scratch);
    c->zmq = zmq_ctx_new();
    rc = c->zmq == NULL ? plx_fail(err, PLX_ENOMEM, "cannot start ZeroMQ")
                        : authoriser_start(c->zmq, &c->auth, err);
    if (rc != 0) {
        free_cluster(c);
        return rc;
    }
    struct node_link_config lc = {.loop = cfg->loop,
                                  .zmq = c->zmq,
                                  .auth = c->auth,
                                  .key = cfg->key,
                                  .self = cfg->self,
                                  .bind = cfg->bind,
                                  .nodes = c->nodes,
                                  .nnodes = cfg->nnodes,
                                  .on_message = on_message,
                                  .ctx = c};
    memcpy(lc.cluster, c->id, sizeof lc.cluster);
    rc = node_link_open(&lc, &c->link, err);
    if (rc != 0) {
        free_cluster(c);
        return rc;
    }
    c->tunnels = tunnels_open(cfg->loop, c->link, &c->transport);
    if (c->tunnels == NULL) { /* as below */
        return plx_fail(err, PLX_ENOMEM, "cannot join the cluster: out of memory");
    }
    for (unsigned i = 0; i < cfg->nnodes; i++) {
        ids[i] = cfg->nodes[i].id;
    }
    struct raft_node_config rn = {.loop = cfg->loop,
                                  .transport = &c->transport,
                                  .self = cfg->self,
                                  .ids = ids,
                                  .nids = cfg->nnodes,
                                  .dir = cfg->dir,
                                  .election_ms = cfg->election_ms,
                                  .heartbeat_ms = cfg->heartbeat_ms,
                                  .apply = on_apply,
                                  .snapshot = on_snapshot,
                                  .restore = on_restore,
                                  .ctx = c};
    rc = raft_node_open(&rn, &c->raft, err);
    if (rc != 0) { /* the caller gives up: what libraft still holds goes with the process */
        return rc;
    }
    (void)uv_timer_init(cfg->loop, &c->tick);
    (void)uv_prepare_init(cfg->loop, &c->prepare);
    c->open_handles = 2;
    c->tick.data = c->prepare.data = c;
    (void)uv_timer_start(&c->tick, on_tick, TICK_MS, TICK_MS);
    (void)uv_prepare_start(&c->prepare, on_prepare);
    *out = c;
    return 0;
}

static void on_freed(uv_handle_t *h)
{
    struct cluster *c = h->data;
    void (*done)(void *) = c->done;
    void *ctx = c->done_ctx;

    free_cluster(c);
    done(ctx);
}

/* The link's handles were closed before this timer's: its memory is gone by the next turn. */
static void on_link_gone(uv_timer_t *h)
{
    uv_close((uv_handle_t *)h, on_freed);
}

static void on_raft_gone(void *ctx)
{
    struct cluster *c = ctx;

    tunnels_close(c->tunnels);
    node_link_close(c->link);
    uv_close((uv_handle_t *)&c->prepare, NULL);
    (void)uv_timer_start(&c->tick, on_link_gone, TICK_MS, 0);
}

void cluster_close(struct cluster *c, void (*done)(void *ctx), void *ctx)
{
    c->done = done;
    c->done_ctx = ctx;
    c->closing = true;
    while (c->calls != NULL) {
        answer(c->calls, PLX_ECANCELED);
    }
    (void)uv_timer_stop(&c->tick);
    raft_node_close(c->raft, on_raft_gone, c);
}

/* --- what the daemon asks ------------------------------------------------------------------ */

const struct roles_state *cluster_state(const struct cluster *c)
{
    return &c->state;
}

uint32_t cluster_leader(const struct cluster *c)
{
    return raft_node_leader(c->raft);
}

uint64_t cluster_term(const struct cluster *c)
{
    return raft_node_term(c->raft);
}

uint64_t cluster_applied(const struct cluster *c)
{
    return raft_node_applied(c->raft);
}

bool cluster_node_up(const struct cluster *c, uint32_t id)
{
    return id == c->cfg.self || node_link_age_ms(c->link, id) < UP_MS;
}

const struct node_link_counters *cluster_link_counters(const struct cluster *c)
{
    return node_link_counters(c->link);
}

uint64_t cluster_refused(const struct cluster *c)
{
    return authoriser_refused(c->auth);
}

const uint8_t *cluster_id(const struct cluster *c)
{
    return c->id;
}

int cluster_send(struct cluster *c, uint32_t to, Cl__NodeMessage *msg)
{
    return c->closing ? PLX_ECONN : node_link_send(c->link, to, msg);
}

void cluster_send_all(struct cluster *c, Cl__NodeMessage *msg)
{
    if (!c->closing) {
        node_link_send_all(c->link, msg);
    }
}

/* How badly it would hurt if @node died while it led: primaries count most, then backups. */
static unsigned burden(const struct roles_state *s, uint32_t node)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->n; i++) {
        n += s->vms[i].primary.node == node ? ROLES_VMS_MAX : s->vms[i].backup.node == node;
    }
    return n;
}

void cluster_balance(struct cluster *c)
{
    uint32_t best = 0;
    unsigned least = ROLES_VMS_MAX; /* only a node without any primary will do */

    if (!raft_node_is_leader(c->raft) || burden(&c->state, c->cfg.self) < ROLES_VMS_MAX) {
        return;
    }
    for (unsigned i = 0; i < c->cfg.nnodes; i++) {
        uint32_t id = c->nodes[i].id;
        if (id != c->cfg.self && node_link_age_ms(c->link, id) < UP_MS / 5 &&
            burden(&c->state, id) < least) {
            best = id;
            least = burden(&c->state, id);
        }
    }
    if (best != 0) {
        raft_node_transfer(c->raft, best);
    }
}
