/* SPDX-License-Identifier: Apache-2.0
 * tests/sim/replica_sim.h - a pair under one clock: two replicas, the connection between them, and
 * a control plane that applies compare-and-swaps in order.
 *
 * The VM is a hash: state' = H(state, record); a slice puts out (seq, state'). Whatever is let out
 * is checked: nothing lost, nothing out of order, nothing new from who is superseded. */
#ifndef TESTS_SIM_REPLICA_SIM_H
#define TESTS_SIM_REPLICA_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/prng.h"
#include "replica/core.h"

#define MS    UINT64_C(1000000)
#define NEVER UINT64_MAX
enum { EVENTS_MAX = 8192, RECORDS_MAX = 20000, DIGEST_EVERY = 8 };

enum ev_kind { EV_MSG, EV_APPLIED, EV_ROLES, EV_ASK, EV_SLICE_DONE, EV_REREAD };

struct ev {
    bool used;
    uint64_t at, order;
    enum ev_kind kind;
    int node; /* receiver; EV_ASK: the asker */
    struct rep_msg m;
    uint8_t data[64];
    struct rep_roles roles;
    enum rep_ask ask;
    uint64_t epoch; /* EV_REREAD: the nonce */
};

struct node {
    struct rep *rep;
    uint64_t incarnation;
    uint64_t vm_seq, vm_state;
    uint64_t running; /* seq in progress, 0: none */
    uint64_t next_seal;
    uint64_t paused_until;
    uint64_t applied_epoch; /* newest epoch its node has applied */
    uint64_t last_arrival;
    bool cut; /* cut off from the control plane */
    bool dead;
    uint64_t out_state[RECORDS_MAX]; /* output of each record as this replica computed it */
};

struct sim {
    uint64_t now, order, seed;
    struct prng g;
    struct ev ev[EVENTS_MAX];
    struct node n[2];
    struct rep_roles roles; /* as applied by the control plane */
    bool link_cut;
    uint64_t emitted_through;      /* the client's view: records whose output it saw */
    uint64_t emitted[RECORDS_MAX]; /* what it saw for each */
    uint64_t max_emit_epoch;
    unsigned takeovers, drops, resumes, divergences, told, acks, ready;
    bool wrong;       /* the backup's state was changed: what it puts out is not compared */
    bool slow_backup; /* its slices take longer than the primary's: it lags as far as it may */
};

static struct sim *S; /* the one that is open */

static struct ev *event_at(uint64_t at, enum ev_kind kind, int node)
{
    for (int i = 0; i < EVENTS_MAX; i++) {
        if (!S->ev[i].used) {
            S->ev[i] = (struct ev){
                .used = true, .at = at, .order = S->order++, .kind = kind, .node = node};
            return &S->ev[i];
        }
    }
    PLX_CHECK(!"the simulation ran out of events");
    return NULL;
}

static void op_send(void *ctx, const struct rep_msg *m)
{
    int to = 1 - (int)((struct node *)ctx - S->n);
    struct node *peer = &S->n[to];

    S->acks += m->kind == REP_ACK;
    if (S->link_cut || peer->dead) {
        return; /* lost, as on a connection that breaks */
    }
    uint64_t at = S->now + 20000 + prng_below(&S->g, 200000);
    if (at < peer->last_arrival) {
        at = peer->last_arrival; /* a connection keeps order */
    }
    peer->last_arrival = at;
    struct ev *e = event_at(at, EV_MSG, to);
    e->m = *m;
    PLX_CHECK(m->len <= sizeof e->data || m->kind != REP_RECORD);
    e->m.len = m->len < sizeof e->data ? m->len : sizeof e->data;
    if (e->m.len != 0) {
        memcpy(e->data, m->data, e->m.len);
    }
}

static void op_emit(void *ctx, const struct output *o, const uint8_t *data)
{
    struct node *n = ctx;
    uint64_t epoch = rep_epoch(n->rep);
    uint64_t seq, state;

    (void)o;
    memcpy(&seq, data, 8);
    memcpy(&state, data + 8, 8);
    assert_true(n->applied_epoch <= epoch); /* its node has applied nothing later */
    if (epoch < S->max_emit_epoch) {
        assert_true(seq <= S->emitted_through); /* a superseded one says nothing new */
    } else {
        S->max_emit_epoch = epoch;
    }
    if (seq <= S->emitted_through) {
        assert_true(S->wrong || S->emitted[seq] == state); /* a duplicate is the same */
        return;
    }
    assert_true(seq == S->emitted_through + 1); /* nothing lost, nothing out of order */
    S->emitted_through = seq;
    S->emitted[seq] = state;
}

static void op_ask(void *ctx, enum rep_ask ask, uint64_t epoch)
{
    struct node *n = ctx;

    if (!n->cut) {
        struct ev *e =
            event_at(S->now + MS / 2 + prng_below(&S->g, 3 * MS), EV_ASK, (int)(n - S->n));
        e->ask = ask;
        e->epoch = epoch;
    }
}

static void op_reread(void *ctx, uint64_t nonce)
{
    struct node *n = ctx;

    if (!n->cut) {
        struct ev *e =
            event_at(S->now + MS / 2 + prng_below(&S->g, MS), EV_REREAD, (int)(n - S->n));
        e->epoch = nonce;
    }
}

static void op_event(void *ctx, enum rep_event ev, uint64_t detail, const char *text)
{
    (void)ctx;
    (void)detail;
    (void)text;
    S->ready += ev == REP_EV_READY;
    S->takeovers += ev == REP_EV_TAKEOVER;
    S->drops += ev == REP_EV_ALONE;
    S->resumes += ev == REP_EV_RESUMED;
    S->divergences += ev == REP_EV_DIVERGED;
    S->told += ev == REP_EV_BACKUP_DIFFERS;
    assert_true(S->wrong || (ev != REP_EV_DIVERGED && ev != REP_EV_BACKUP_DIFFERS));
}

static void op_wake(void *ctx)
{
    (void)ctx;
}

static inline void deliver_roles(uint64_t jitter)
{
    for (int i = 0; i < 2; i++) {
        if (!S->n[i].cut && !S->n[i].dead) {
            struct ev *e = event_at(S->now + prng_below(&S->g, jitter), EV_APPLIED, i);
            e->roles = S->roles;
        }
    }
}

/* The control plane: a compare-and-swap on the epoch. */
static void apply_ask(int who, enum rep_ask ask, uint64_t epoch)
{
    uint64_t me = S->n[who].incarnation;
    struct rep_roles *now = &S->roles;

    if (epoch == now->epoch) {
        if ((ask == REP_ASK_DROP && now->primary == me) ||
            (ask == REP_ASK_TAKEOVER && now->backup == me && now->in_sync)) {
            *now = (struct rep_roles){.epoch = epoch + 1, .primary = me};
        } else if (ask == REP_ASK_RESUME && (now->primary == me || now->backup == me)) {
            now->epoch++;
        }
    }
    deliver_roles(3 * MS);
}

/* A VM thread: run what there is to run. */
static void vm_step(struct node *n)
{
    uint64_t seq;
    const uint8_t *data;
    size_t len;

    if (n->running != 0 || n->dead || rep_phase(n->rep) == REP_OUT) {
        return;
    }
    if (rep_role(n->rep) == REP_BACKUP) {
        if (rep_next_record(n->rep, &seq, &data, &len)) {
            n->vm_state = hash128(data, len, n->vm_state).lo;
            n->running = seq;
        }
    } else if (rep_may_seal(n->rep) && S->now >= n->next_seal) {
        uint8_t rec[24];

        prng_fill(&S->g, rec, sizeof rec);
        seq = n->vm_seq + 1;
        rep_seal(n->rep, seq, seq * MS, rec, sizeof rec);
        n->vm_state = hash128(rec, sizeof rec, n->vm_state).lo;
        n->running = seq;
    }
    if (n->running != 0) {
        uint64_t takes = 100000 + prng_below(&S->g, MS);

        takes += S->slow_backup && n == &S->n[1] ? 3 * MS : 0;
        (void)event_at(S->now + takes, EV_SLICE_DONE, (int)(n - S->n));
    }
}

static void slice_done(struct node *n)
{
    struct output_list out;
    struct output o = {.kind = OUTPUT_NET_TX, .len = 16};
    uint8_t data[16];

    memcpy(data, &n->running, 8);
    memcpy(data + 8, &n->vm_state, 8);
    output_list_init(&out);
    output_add(&out, &o, data);
    n->vm_seq = n->running;
    n->running = 0;
    n->out_state[n->vm_seq] = n->vm_state;
    n->next_seal = S->now + (prng_below(&S->g, 8) == 0 ? prng_below(&S->g, 20 * MS) : 0);
    if (n->vm_seq % DIGEST_EVERY == 0) {
        static struct vm_digest d;

        d = (struct vm_digest){.seq = n->vm_seq, .all = {.lo = n->vm_state}};
        rep_digest(n->rep, &d, NULL, 0, S->now);
    }
    rep_ran(n->rep, n->vm_seq, &out, S->now);
    output_list_free(&out);
}

static void run_event(struct ev *e)
{
    struct node *n = &S->n[e->node];
    struct ev *answer;

    switch (e->kind) {
    case EV_MSG:
        e->m.data = e->data;
        rep_recv(n->rep, &e->m, S->now);
        break;
    case EV_APPLIED: /* by the node, however long its replica is stopped */
        if (e->roles.epoch > n->applied_epoch) {
            n->applied_epoch = e->roles.epoch;
        }
        answer = event_at(S->now, EV_ROLES, e->node);
        answer->roles = e->roles;
        break;
    case EV_ROLES:
        rep_roles(n->rep, &e->roles, S->now);
        break;
    case EV_ASK:
        apply_ask(e->node, e->ask, e->epoch);
        break;
    case EV_REREAD:
        answer = event_at(S->now + prng_below(&S->g, MS), EV_APPLIED, e->node);
        answer->roles = S->roles;
        answer->roles.nonce = e->epoch;
        break;
    case EV_SLICE_DONE:
        slice_done(n);
        break;
    }
}

/* The earliest event; what is for a paused node waits for its end. */
static struct ev *next_event(void)
{
    struct ev *best = NULL;

    for (int i = 0; i < EVENTS_MAX; i++) {
        struct ev *e = &S->ev[i];
        if (!e->used) {
            continue;
        }
        const struct node *n = &S->n[e->node];
        bool of_replica = e->kind != EV_ASK && e->kind != EV_APPLIED;
        if (n->dead && of_replica) {
            e->used = false;
            continue;
        }
        if (of_replica && e->at < n->paused_until) {
            e->at = n->paused_until;
        }
        if (best == NULL || e->at < best->at || (e->at == best->at && e->order < best->order)) {
            best = e;
        }
    }
    return best;
}

/* When node @i wants to be called without any event: its protocol's deadline or its next slice. */
static uint64_t node_wants(const struct node *n)
{
    uint64_t at;

    if (n->dead) {
        return NEVER;
    }
    at = rep_deadline(n->rep);
    if (rep_may_seal(n->rep) && n->running == 0 && n->next_seal < at) {
        at = n->next_seal;
    }
    at = at < n->paused_until ? n->paused_until : at;
    return at < S->now ? S->now : at;
}

static inline void step(void)
{
    struct ev *e = next_event();
    uint64_t tick_at = NEVER;
    int tick_node = -1;

    for (int i = 0; i < 2; i++) {
        uint64_t at = node_wants(&S->n[i]);
        if (at < tick_at) {
            tick_at = at;
            tick_node = i;
        }
    }
    if (e != NULL && e->at <= tick_at) {
        struct ev copy = *e;
        e->used = false;
        S->now = copy.at > S->now ? copy.at : S->now;
        run_event(&copy);
    } else if (tick_node >= 0) {
        S->now = tick_at == S->now ? S->now + 10000 : tick_at;
        rep_tick(S->n[tick_node].rep, S->now);
    } else {
        S->now += MS;
    }
    for (int i = 0; i < 2; i++) {
        if (S->n[i].paused_until <= S->now) {
            vm_step(&S->n[i]);
        }
    }
}

static inline void run_until(uint64_t t)
{
    while (S->now < t && S->emitted_through < RECORDS_MAX - 2000) {
        step();
    }
}

/* Both at @seq with @digest, but the backup's are @wrong. */
struct start {
    uint64_t seq, wrong_seq;
    struct hash128 digest, wrong_digest;
};

static inline void sim_open_at(uint64_t seed, const struct start *at)
{
    struct rep_ops ops = {.send = op_send,
                          .emit = op_emit,
                          .ask = op_ask,
                          .reread = op_reread,
                          .event = op_event,
                          .wake = op_wake};

    S = plx_calloc(1, sizeof *S);
    PLX_CHECK(S != NULL);
    S->seed = seed;
    S->now = 1000 * MS;
    prng_seed(&S->g, seed);
    S->roles = (struct rep_roles){.epoch = 1, .primary = 11, .backup = 22, .in_sync = true};
    for (int i = 0; i < 2; i++) {
        struct rep_config cfg = {.role = i == 0 ? REP_PRIMARY : REP_BACKUP,
                                 .epoch = 1,
                                 .incarnation = i == 0 ? 11 : 22,
                                 .peer = i == 0 ? 22 : 11,
                                 .seq = at->seq ^ (i == 0 ? 0 : at->wrong_seq),
                                 .digest = at->digest};
        cfg.digest.lo ^= i == 0 ? 0 : at->wrong_digest.lo;
        cfg.digest.hi ^= i == 0 ? 0 : at->wrong_digest.hi;
        ops.ctx = &S->n[i];
        S->n[i].incarnation = cfg.incarnation;
        S->n[i].applied_epoch = 1;
        assert_int_equal(rep_create(&cfg, &ops, S->now, &S->n[i].rep), 0);
    }
}

static inline void sim_open(uint64_t seed)
{
    sim_open_at(seed, &(struct start){0});
    deliver_roles(MS);
}

static inline void sim_close(void)
{
    rep_destroy(S->n[0].rep);
    rep_destroy(S->n[1].rep);
    plx_free(S);
}

/* With the network whole the VM goes on, and all that was let out is what the survivors hold. */
static inline void assert_goes_on(void)
{
    uint64_t before;

    S->link_cut = false;
    for (int i = 0; i < 2; i++) {
        S->n[i].cut = false;
        S->n[i].paused_until = 0;
    }
    deliver_roles(MS);
    run_until(S->now + 300 * MS);
    before = S->emitted_through;
    run_until(S->now + 200 * MS);
    if (S->emitted_through <= before) {
        print_error("seed %llu: no progress: phases %s, %s\n", (unsigned long long)S->seed,
                    rep_phase_name(rep_phase(S->n[0].rep)), rep_phase_name(rep_phase(S->n[1].rep)));
    }
    assert_true(S->emitted_through > before);
    for (int i = 0; i < 2; i++) {
        const struct node *n = &S->n[i];
        enum rep_phase p = rep_phase(n->rep);
        if (n->dead || (p != REP_ALONE && p != REP_PAIRED)) {
            continue;
        }
        for (uint64_t seq = 1; seq <= S->emitted_through && seq <= n->vm_seq; seq++) {
            assert_true(S->emitted[seq] == n->out_state[seq]);
        }
    }
}

static inline uint64_t differing(const struct node *n)
{
    struct rep_stats s;

    rep_stats(n->rep, &s);
    return s.digests_differ;
}

#endif
