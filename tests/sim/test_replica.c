/* SPDX-License-Identifier: Apache-2.0
 * Hunts: two replicas releasing at once, an output of a record the survivor does not hold, an
 * output lost or out of order after a takeover, a backup that takes over though it knows that its
 * state is wrong, a pair made of two states that were never the same, a pair that never comes to
 * rest.
 *
 * One clock, two replicas, a control plane that applies compare-and-swaps in order. The VM is a
 * hash: state' = H(state, record); a slice puts out (seq, state'). Every step checks safety; every
 * run ends with the network whole and must reach a state in which the VM makes progress. A run
 * prints its seed; SEED=n replays it, RUNS=n sets how many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
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
    unsigned takeovers, drops, resumes, divergences, acks, ready;
    bool wrong;       /* the backup's state was changed: what it puts out is not compared */
    bool slow_backup; /* its slices take longer than the primary's: it lags as far as it may */
};

static struct sim *S;

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
    assert_true(S->wrong || ev != REP_EV_DIVERGED);
}

static void op_wake(void *ctx)
{
    (void)ctx;
}

static void deliver_roles(uint64_t jitter)
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

static void step(void)
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

static void run_until(uint64_t t)
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

static void sim_open_at(uint64_t seed, const struct start *at)
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

static void sim_open(uint64_t seed)
{
    sim_open_at(seed, &(struct start){0});
    deliver_roles(MS);
}

static void sim_close(void)
{
    rep_destroy(S->n[0].rep);
    rep_destroy(S->n[1].rep);
    plx_free(S);
}

/* With the network whole the VM goes on, and all that was let out is what the survivors hold. */
static void assert_goes_on(void)
{
    uint64_t before;

    S->link_cut = false;
    for (int i = 0; i < 2; i++) {
        S->n[i].cut = false;
        S->n[i].paused_until = 0;
        if (!S->n[i].dead) {
            rep_connected(S->n[i].rep, S->now);
        }
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

static uint64_t differing(const struct node *n)
{
    struct rep_stats s;

    rep_stats(n->rep, &s);
    return s.digests_differ;
}

static void no_fault_runs_paired(void **state)
{
    (void)state;
    sim_open(1);
    run_until(S->now + 500 * MS);
    assert_true(S->emitted_through > 100);
    assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
    assert_goes_on();
    sim_close();
}

/* Joins a pair as its control plane does: it is declared in sync once either says that the other
 * has the same state. */
static void join(const struct start *at)
{
    sim_open_at(9, at);
    S->wrong = at->wrong_seq != 0 || at->wrong_digest.lo != 0 || at->wrong_digest.hi != 0;
    S->roles.in_sync = false;
    deliver_roles(MS);
    for (int i = 0; i < 2; i++) {
        rep_connected(S->n[i].rep, S->now);
    }
    for (uint64_t end = S->now + 500 * MS; S->now < end && S->ready == 0;) {
        step();
    }
    if (S->ready != 0) {
        S->roles.in_sync = true;
        S->roles.epoch++;
    }
    deliver_roles(MS);
    run_until(S->now + 500 * MS);
}

/* From the same state: the very first, and one with a digest. */
static void equal_states_pair(void **state)
{
    static const struct start starts[] = {{0}, {.digest = {.lo = 1, .hi = 2}}};

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(starts); i++) {
        join(&starts[i]);
        assert_true(S->ready >= 1);
        assert_int_equal(S->divergences, 0);
        assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
        assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
        assert_true(S->emitted_through > 100);
        sim_close();
    }
}

/* Round 0: two that loaded different states never run a slice together, whichever bit differs. */
static void different_states_never_pair(void **state)
{
    static const struct start starts[] = {
        {.wrong_seq = 1},
        {.seq = 1000, .wrong_seq = UINT64_C(1) << 63},
        {.wrong_digest = {.lo = 1}},
        {.wrong_digest = {.lo = UINT64_C(1) << 63}},
        {.digest = {.lo = 5, .hi = 7}, .wrong_digest = {.hi = 1}},
        {.digest = {.lo = 5, .hi = 7}, .wrong_digest = {.hi = UINT64_C(1) << 63}},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(starts); i++) {
        join(&starts[i]);
        assert_int_equal(S->ready, 0);
        assert_int_equal(S->divergences, 2);
        assert_int_equal(S->emitted_through, 0);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(rep_phase(S->n[k].rep), REP_OUT);
            assert_int_equal(differing(&S->n[k]), 1);
            assert_int_equal(S->n[k].vm_seq, 0);
            assert_false(rep_may_seal(S->n[k].rep));
        }
        sim_close();
    }
}

/* One message for each record, and what has run is told with it; beside them only pings. */
static void a_record_costs_one_acknowledgement(void **state)
{
    struct rep_stats s;

    (void)state;
    sim_open(8);
    run_until(S->now + 1000 * MS);
    rep_stats(S->n[0].rep, &s);
    assert_true(s.sealed > 400);
    assert_in_range(S->acks, s.sealed - 1, s.sealed + s.sealed / 4);
    assert_true(s.lag_ns < 25 * MS);
    sim_close();
}

/* The bound on the lag holds whether a slice is told of alone or with a receipt; and the last
 * acknowledgement before a pause, lost with the link, is said again while the pair still stands. */
static void a_lagging_backup_is_waited_for(void **state)
{
    struct rep_stats s;

    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        sim_open(seed);
        S->slow_backup = true;
        run_until(S->now + 700 * MS);
        rep_stats(S->n[0].rep, &s);
        assert_in_range(s.lag_ns, 0, (REP_LAG_MS + 1) * MS);
        uint64_t ran = s.peer_ran;
        S->link_cut = true;
        run_until(S->now + 1 * MS + prng_below(&S->g, 20 * MS));
        S->link_cut = false;
        run_until(S->now + 100 * MS);
        rep_stats(S->n[0].rep, &s);
        assert_true(s.peer_ran > ran + 10);
        assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
        assert_int_equal(S->resumes, 0);
        sim_close();
    }
}

static void dead_primary_is_taken_over(void **state)
{
    (void)state;
    sim_open(2);
    run_until(S->now + 100 * MS);
    S->n[0].dead = true;
    run_until(S->now + 150 * MS);
    assert_int_equal(S->takeovers, 1);
    assert_int_equal(rep_phase(S->n[1].rep), REP_ALONE);
    assert_goes_on();
    sim_close();
}

static void dead_backup_is_dropped(void **state)
{
    (void)state;
    sim_open(3);
    run_until(S->now + 100 * MS);
    S->n[1].dead = true;
    run_until(S->now + 150 * MS);
    assert_int_equal(S->drops, 1);
    assert_int_equal(rep_phase(S->n[0].rep), REP_ALONE);
    assert_goes_on();
    sim_close();
}

/* Alone from the start is no event if that is what was asked for; it is one if a peer was meant. */
static void alone_from_the_start_is_news_only_with_a_peer(void **state)
{
    (void)state;
    for (unsigned meant = 0; meant < 2; meant++) {
        sim_open(9);
        struct rep_ops ops = {.send = op_send,
                              .emit = op_emit,
                              .ask = op_ask,
                              .reread = op_reread,
                              .event = op_event,
                              .wake = op_wake,
                              .ctx = &S->n[0]};
        struct rep_config cfg = {
            .role = REP_PRIMARY, .epoch = 1, .incarnation = 11, .peer = meant ? 22 : 0};
        struct rep_roles roles = {.epoch = 1, .primary = 11};
        struct rep *r;
        assert_int_equal(rep_create(&cfg, &ops, S->now, &r), 0);
        rep_roles(r, &roles, S->now);
        assert_int_equal(rep_phase(r), REP_ALONE);
        assert_true(rep_may_seal(r));
        assert_int_equal(S->drops, meant);
        rep_destroy(r);
        sim_close();
    }
}

/* Without a majority both wait and release nothing; when the link heals the pair resumes. */
static void no_majority_waits_and_resumes(void **state)
{
    (void)state;
    sim_open(4);
    run_until(S->now + 100 * MS);
    S->link_cut = true;
    S->n[0].cut = S->n[1].cut = true;
    run_until(S->now + 100 * MS);
    uint64_t seen = S->emitted_through;
    run_until(S->now + 1000 * MS);
    assert_int_equal(S->emitted_through, seen);
    assert_int_equal(rep_phase(S->n[0].rep), REP_ASKED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_ASKED);
    S->link_cut = false;
    run_until(S->now + 40 * MS);
    S->n[0].cut = S->n[1].cut = false;
    run_until(S->now + 300 * MS);
    assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
    assert_goes_on();
    sim_close();
}

static void stopped_primary_is_superseded(void **state)
{
    (void)state;
    sim_open(5);
    run_until(S->now + 100 * MS);
    S->n[0].paused_until = S->now + 3000 * MS;
    run_until(S->now + 3500 * MS);
    assert_int_equal(S->takeovers, 1);
    assert_int_equal(rep_phase(S->n[0].rep), REP_OUT);
    assert_goes_on();
    sim_close();
}

/* The primary dies the moment the backup has found that it differs: before it could name pages. */
static void a_backup_that_differs_does_not_take_over(void **state)
{
    (void)state;
    sim_open(6);
    run_until(S->now + 100 * MS);
    S->wrong = true;
    S->n[1].vm_state ^= 1;
    while (differing(&S->n[1]) == 0) {
        step();
    }
    S->n[0].dead = true;
    uint64_t seen = S->emitted_through;
    run_until(S->now + 2000 * MS);
    assert_int_equal(S->takeovers, 0);
    assert_int_equal(S->divergences, 1);
    assert_int_equal(rep_phase(S->n[1].rep), REP_OUT);
    assert_int_equal(S->emitted_through, seen);
    sim_close();
}

/* It has asked to take over, or may already, when the records it still has to run show that it is
 * wrong. */
static void a_successor_that_turns_out_wrong_ends(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        sim_open(7);
        S->slow_backup = true;
        run_until(S->now + 500 * MS);
        S->n[0].dead = true;
        uint64_t seen = S->emitted_through;
        while (rep_phase(S->n[1].rep) != (late ? REP_TAKEOVER : REP_ASKED)) {
            step();
        }
        S->wrong = true;
        S->n[1].vm_state ^= 1;
        run_until(S->now + 2000 * MS);
        assert_int_equal(S->takeovers, 0);
        assert_int_equal(S->divergences, 1);
        assert_int_equal(rep_phase(S->n[1].rep), REP_OUT);
        assert_int_equal(S->emitted_through, seen);
        sim_close();
    }
}

/* Whenever the primary dies: the backup goes on alone or it has found a difference, never both. */
static void knowing_and_taking_over_exclude_each_other(void **state)
{
    const char *seed_text = getenv("SEED");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 0) : 1;
    unsigned knew = 0, took = 0;

    (void)state;
    for (uint64_t i = 0; i < (seed_text != NULL ? 1 : 60); i++) {
        sim_open(seed + i);
        print_message("\rseed %llu ", (unsigned long long)(seed + i));
        S->slow_backup = prng_below(&S->g, 2) == 0;
        run_until(S->now + prng_below(&S->g, 300 * MS));
        S->wrong = true;
        S->n[1].vm_state ^= 1;
        run_until(S->now + prng_below(&S->g, 20 * MS));
        S->n[0].dead = true;
        run_until(S->now + 2000 * MS);
        bool knows = differing(&S->n[1]) != 0;
        assert_int_equal(S->takeovers, knows ? 0 : 1);
        assert_int_equal(rep_phase(S->n[1].rep), knows ? REP_OUT : REP_ALONE);
        knew += knows;
        took += !knows;
        sim_close();
    }
    print_message("\n%u knew, %u took over\n", knew, took);
    assert_true(seed_text != NULL || (knew > 0 && took > 0));
}

static void random_fault(void)
{
    struct node *n = &S->n[prng_below(&S->g, 2)];

    switch (prng_below(&S->g, 7)) {
    case 0:
        S->link_cut = true;
        break;
    case 1:
        S->link_cut = false;
        for (int i = 0; i < 2; i++) {
            rep_connected(S->n[i].rep, S->now);
        }
        break;
    case 2:
        n->cut = true;
        break;
    case 3:
        n->cut = false;
        deliver_roles(5 * MS);
        break;
    case 4:
        n->paused_until = S->now + prng_below(&S->g, 400 * MS);
        break;
    case 5:
        if (prng_below(&S->g, 6) == 0 && !S->n[0].dead && !S->n[1].dead &&
            rep_phase(S->n[0].rep) == REP_PAIRED && rep_phase(S->n[1].rep) == REP_PAIRED) {
            n->dead = true;
        }
        break;
    default:
        break;
    }
}

static void random_faults_never_break_safety(void **state)
{
    const char *seed_text = getenv("SEED"), *runs_text = getenv("RUNS");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 0) : 1;
    uint64_t runs = seed_text != NULL ? 1 : runs_text != NULL ? strtoull(runs_text, NULL, 0) : 200;
    unsigned takeovers = 0, drops = 0, resumes = 0;

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        sim_open(seed + i);
        print_message("\rseed %llu ", (unsigned long long)(seed + i));
        for (int fault = 0; fault < 12; fault++) {
            run_until(S->now + prng_below(&S->g, 150 * MS));
            random_fault();
        }
        assert_goes_on();
        takeovers += S->takeovers;
        drops += S->drops;
        resumes += S->resumes;
        sim_close();
    }
    print_message("\n%u takeovers, %u drops, %u resumptions\n", takeovers, drops, resumes);
    if (runs >= 100) { /* the faults did reach what they are for */
        assert_true(takeovers > 0);
        assert_true(drops > 0);
        assert_true(resumes > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fault_runs_paired),
        cmocka_unit_test(equal_states_pair),
        cmocka_unit_test(different_states_never_pair),
        cmocka_unit_test(a_record_costs_one_acknowledgement),
        cmocka_unit_test(a_lagging_backup_is_waited_for),
        cmocka_unit_test(dead_primary_is_taken_over),
        cmocka_unit_test(dead_backup_is_dropped),
        cmocka_unit_test(alone_from_the_start_is_news_only_with_a_peer),
        cmocka_unit_test(no_majority_waits_and_resumes),
        cmocka_unit_test(stopped_primary_is_superseded),
        cmocka_unit_test(a_backup_that_differs_does_not_take_over),
        cmocka_unit_test(a_successor_that_turns_out_wrong_ends),
        cmocka_unit_test(knowing_and_taking_over_exclude_each_other),
        cmocka_unit_test(random_faults_never_break_safety),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
