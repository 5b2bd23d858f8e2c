/* SPDX-License-Identifier: Apache-2.0
 * replica/core.c - phases, silence, gaps and asking; what primary and backup have in common. */
#include "replica/core_priv.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

#define MS UINT64_C(1000000)

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int rep_create(const struct rep_config *cfg, const struct rep_ops *ops, uint64_t now,
               struct rep **out)
{
    struct rep *r = plx_calloc(1, sizeof *r);

    *out = NULL;
    if (r == NULL) {
        return PLX_ENOMEM;
    }
    r->cfg = *cfg;
    if (r->cfg.peer_lost_ns == 0) {
        r->cfg.peer_lost_ns = REP_PEER_LOST_MS * MS;
    }
    if (r->cfg.ping_ns == 0 || r->cfg.ping_ns > r->cfg.peer_lost_ns / 3) {
        r->cfg.ping_ns = r->cfg.peer_lost_ns / 3;
    }
    if (r->cfg.lag_ns == 0) {
        r->cfg.lag_ns = REP_LAG_MS * MS;
    }
    r->ops = *ops;
    r->phase = REP_JOINING;
    r->role = cfg->role;
    r->epoch = cfg->epoch;
    r->last_seen = r->io_seen = r->last_heard = now;
    r->sealed = r->ran = r->acked = r->peer_ran = r->released = r->ran_told = cfg->seq;
    recs_init(&r->recs);
    held_init(&r->held);
    *out = r;
    return 0;
}

void rep_destroy(struct rep *r)
{
    if (r != NULL) {
        recs_free(&r->recs);
        held_free(&r->held);
        compare_free(r);
        plx_free(r);
    }
}

void rep_send(struct rep *r, struct rep_msg *m)
{
    r->next_ping = r->last_seen + r->cfg.ping_ns; /* anything said will do */
    m->epoch = r->epoch;
    m->from = r->cfg.incarnation;
    m->to = r->cfg.peer;
    r->ops.send(r->ops.ctx, m);
}

/* The one setter of the phase; checks the table in core.h. */
void rep_enter(struct rep *r, enum rep_phase phase)
{
    static const bool legal[6][6] = {
        [REP_JOINING] = {[REP_PAIRED] = true, [REP_ALONE] = true, [REP_OUT] = true},
        [REP_PAIRED] = {[REP_PAIRED] = true,
                        [REP_ASKED] = true,
                        [REP_TAKEOVER] = true,
                        [REP_ALONE] = true,
                        [REP_OUT] = true},
        [REP_ASKED] =
            {[REP_PAIRED] = true, [REP_TAKEOVER] = true, [REP_ALONE] = true, [REP_OUT] = true},
        [REP_TAKEOVER] = {[REP_ALONE] = true, [REP_OUT] = true},
        [REP_ALONE] = {[REP_OUT] = true},
    };

    PLX_CHECK(legal[r->phase][phase]);
    r->phase = phase;
    r->ops.wake(r->ops.ctx);
}

void rep_emit_held(struct rep *r, uint64_t through, uint64_t now)
{
    while (r->held.first != NULL && r->held.first->seq <= through) {
        struct held_output *h = r->held.first;
        uint64_t wait = now > h->since ? now - h->since : 0;

        r->ops.emit(r->ops.ctx, &h->o, h->data);
        r->stats.commits++;
        r->stats.commit_wait_ns += wait;
        if (wait > r->stats.commit_wait_max_ns) {
            r->stats.commit_wait_max_ns = wait;
        }
        held_pop(&r->held);
    }
}

void rep_ask_for(struct rep *r, enum rep_ask ask, uint64_t now)
{
    r->ask = ask;
    r->next_ask = now + REP_ASK_AGAIN_MS * MS;
    r->next_probe = now;
    if (r->phase == REP_PAIRED) {
        rep_enter(r, REP_ASKED);
    }
    r->ops.ask(r->ops.ctx, ask, r->epoch);
}

/* I3: release nothing before the control plane or the peer has said that the epoch stands. */
static void doubt(struct rep *r)
{
    struct rep_msg ping = {.kind = REP_PING, .seq = r->sealed, .released = r->released};

    r->in_doubt = true;
    r->doubt_nonce = ping.nonce = ++r->nonce;
    rep_send(r, &ping);
    r->ops.reread(r->ops.ctx, r->doubt_nonce);
}

/* Below what a backup takes for a dead primary, pings and the way of the last one included. */
static uint64_t gap_ns(const struct rep *r)
{
    return min_u64(REP_GAP_NS, r->cfg.peer_lost_ns / 2);
}

/* Every entry point passes here first: was the whole process off the processor for long (I3)? */
static void observe(struct rep *r, uint64_t now)
{
    if (now > r->last_seen && now - r->last_seen > gap_ns(r)) {
        r->last_heard = now;
        if (r->phase == REP_PAIRED && r->role == REP_PRIMARY) {
            doubt(r);
        }
    }
    if (now > r->last_seen) {
        r->last_seen = now;
    }
}

/* And those of the I/O side here: its own absence says nothing about the peer, whose messages may
 * be waiting to be read, so silence is measured anew. */
static void observe_io(struct rep *r, uint64_t now)
{
    observe(r, now);
    if (now > r->io_seen && now - r->io_seen > gap_ns(r)) {
        r->last_heard = now;
    }
    if (now > r->io_seen) {
        r->io_seen = now;
    }
}

static void say_hello(struct rep *r, uint64_t now)
{
    struct rep_msg m = {.kind = REP_HELLO, .seq = r->cfg.seq, .digest = r->cfg.digest};

    r->next_hello = now + REP_ASK_AGAIN_MS * MS;
    rep_send(r, &m);
}

static void recv_hello(struct rep *r, const struct rep_msg *m)
{
    if (r->phase != REP_JOINING || r->peer_ready) {
        return;
    }
    if (m->seq != r->cfg.seq || !hash128_eq(m->digest, r->cfg.digest)) {
        r->stats.digests_differ++;
        r->ops.event(r->ops.ctx, r->role == REP_PRIMARY ? REP_EV_BACKUP_DIFFERS : REP_EV_DIVERGED,
                     m->seq, "the replicas start from different states");
        rep_enter(r, REP_OUT);
        return;
    }
    r->peer_ready = true;
    r->ops.event(r->ops.ctx, REP_EV_READY, m->seq, "same starting state on both replicas");
}

void rep_recv(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    observe_io(r, now);
    if (m->epoch != r->epoch || m->from != r->cfg.peer || m->to != r->cfg.incarnation ||
        r->phase == REP_OUT || r->phase == REP_ALONE || r->phase == REP_TAKEOVER) {
        r->stats.stale_messages++;
        return;
    }
    r->last_heard = now;
    switch (m->kind) {
    case REP_HELLO:
        recv_hello(r, m);
        return;
    case REP_PROBE:
        /* The peer has asked, the link works: only a new epoch that names both helps. */
        if (r->phase == REP_PAIRED || (r->phase == REP_ASKED && r->ask != REP_ASK_RESUME)) {
            rep_ask_for(r, REP_ASK_RESUME, now);
        }
        return;
    default:
        break;
    }
    if (r->phase != REP_PAIRED) {
        if (r->phase == REP_ASKED && r->ask != REP_ASK_RESUME && m->kind != REP_DIVERGED) {
            rep_ask_for(r, REP_ASK_RESUME, now); /* the peer never noticed the cut */
        }
        return; /* I2 */
    }
    if (r->role == REP_PRIMARY) {
        primary_recv(r, m, now);
    } else {
        backup_recv(r, m, now);
    }
}

static void go_alone(struct rep *r, uint64_t now)
{
    r->ask = REP_ASK_NONE;
    r->in_doubt = false;
    if (compare_differs(r)) {
        compare_give_up(r);
        return;
    }
    if (r->role == REP_BACKUP && r->phase != REP_JOINING) {
        rep_enter(r, REP_TAKEOVER);
        backup_takeover_if_done(r, now);
        return;
    }
    bool meant = r->phase == REP_JOINING && r->cfg.peer == 0; /* nobody was lost */
    r->role = REP_PRIMARY;
    rep_enter(r, REP_ALONE);
    recs_drop_through(&r->recs, UINT64_MAX);
    rep_emit_held(r, UINT64_MAX, now);
    r->released = r->ran;
    if (!meant) {
        r->ops.event(r->ops.ctx, REP_EV_ALONE, r->epoch, "goes on unprotected");
    }
}

static void go_paired(struct rep *r, uint64_t now)
{
    bool first = r->phase == REP_JOINING;

    r->ask = REP_ASK_NONE;
    r->last_heard = now;
    r->next_ping = now;
    rep_enter(r, REP_PAIRED);
    if (first) {
        return;
    }
    r->ops.event(r->ops.ctx, REP_EV_RESUMED, r->epoch, "paired again");
    if (r->role == REP_PRIMARY) {
        doubt(r); /* the record may have waited for us longer than its epoch lasted */
        primary_resend(r, r->acked);
    } else {
        backup_ack(r, false);
    }
}

void rep_roles(struct rep *r, const struct rep_roles *roles, uint64_t now)
{
    uint64_t me = r->cfg.incarnation;
    bool named = roles->primary == me || roles->backup == me;

    observe_io(r, now);
    if (r->phase == REP_OUT || roles->epoch < r->epoch) {
        return;
    }
    if (!named) {
        if (roles->epoch > r->epoch) {
            held_drop_through(&r->held, UINT64_MAX);
            rep_enter(r, REP_OUT);
            r->ops.event(r->ops.ctx, REP_EV_OUT, roles->epoch, "superseded by a later epoch");
        }
        return;
    }
    if (roles->epoch == r->epoch && r->phase != REP_JOINING) {
        if (r->phase == REP_PAIRED && r->in_doubt && roles->nonce == r->doubt_nonce) {
            r->in_doubt = false;
            primary_release(r, now);
        }
        return; /* not yet an outcome of what was asked */
    }
    if (r->phase == REP_TAKEOVER || r->phase == REP_ALONE) {
        r->epoch = roles->epoch;
        return;
    }
    bool alone = roles->primary == me && roles->backup == 0;
    bool both = (roles->primary == me && roles->backup == r->cfg.peer) ||
                (roles->backup == me && roles->primary == r->cfg.peer);
    if (alone) {
        r->epoch = roles->epoch;
        go_alone(r, now);
    } else if (both && roles->in_sync) {
        r->epoch = roles->epoch;
        go_paired(r, now);
    }
}

static void tick_joining(struct rep *r, uint64_t now)
{
    if (now >= r->next_hello) {
        say_hello(r, now);
    }
}

static void tick_paired(struct rep *r, uint64_t now)
{
    if (now - r->last_heard > r->cfg.peer_lost_ns && now > r->last_heard) {
        if (compare_differs(r)) {
            compare_give_up(r);
            return;
        }
        if (r->role == REP_BACKUP && r->cfg.no_takeover) {
            return;
        }
        r->ops.event(r->ops.ctx, REP_EV_PEER_LOST, now - r->last_heard, "the peer is silent");
        rep_ask_for(r, r->role == REP_PRIMARY ? REP_ASK_DROP : REP_ASK_TAKEOVER, now);
        return;
    }
    if (r->role == REP_BACKUP && (now >= r->next_ping || r->ran != r->ran_told)) {
        backup_ack(r, false); /* its ping: what got lost with a connection is said again */
    } else if (now >= r->next_ping) {
        struct rep_msg ping = {.kind = REP_PING, .seq = r->sealed, .released = r->released};

        rep_send(r, &ping);
    }
    compare_tick(r, now);
}

static void tick_asked(struct rep *r, uint64_t now)
{
    if (now >= r->next_ask) {
        rep_ask_for(r, r->ask, now);
    }
    if (now >= r->next_probe) {
        struct rep_msg probe = {.kind = REP_PROBE};

        r->next_probe = now + REP_PROBE_MS * MS;
        rep_send(r, &probe);
    }
}

void rep_tick(struct rep *r, uint64_t now)
{
    observe_io(r, now);
    switch (r->phase) {
    case REP_JOINING:
        tick_joining(r, now);
        break;
    case REP_PAIRED:
        tick_paired(r, now);
        break;
    case REP_ASKED:
        tick_asked(r, now);
        break;
    case REP_TAKEOVER:
    case REP_ALONE:
    case REP_OUT:
        break;
    }
}

uint64_t rep_deadline(const struct rep *r)
{
    switch (r->phase) {
    case REP_JOINING:
        return r->next_hello;
    case REP_PAIRED:
        return min_u64(r->next_ping, min_u64(r->last_heard + r->cfg.peer_lost_ns + 1,
                                             r->io_seen + gap_ns(r) / 2));
    case REP_ASKED:
        return min_u64(r->next_ask, r->next_probe);
    case REP_TAKEOVER:
    case REP_ALONE:
    case REP_OUT:
        break;
    }
    return UINT64_MAX;
}

void rep_ran(struct rep *r, uint64_t seq, const struct output_list *out, uint64_t now)
{
    bool skip = (r->role == REP_BACKUP && seq <= r->released) || r->phase == REP_OUT;

    observe(r, now);
    PLX_CHECK(seq == r->ran + 1);
    r->ran = seq;
    for (size_t i = 0; i < out->n && !skip; i++) {
        const struct output *o = &out->items[i];
        if (o->kind == OUTPUT_NET_TX || o->kind == OUTPUT_CONSOLE) {
            held_add(&r->held, seq, o, output_data(out, o), now);
        }
    }
    if (r->role == REP_BACKUP) {
        const struct rep_rec *rec = r->recs.first;

        PLX_CHECK(rec != NULL && rec->seq == seq);
        uint64_t start = rec->start_ns;
        recs_drop_through(&r->recs, seq);
        if (r->phase == REP_TAKEOVER) {
            backup_takeover_if_done(r, now);
        } else if (r->phase == REP_PAIRED) {
            backup_ran(r, start);
        }
    } else if (r->phase == REP_ALONE) {
        rep_emit_held(r, seq, now);
        r->released = seq;
    } else {
        primary_release(r, now);
    }
}

void rep_digest(struct rep *r, const struct vm_digest *d, const struct digest_page *pages,
                size_t npages, uint64_t now)
{
    observe(r, now);
    /* One that asked to take over still runs records whose digests the primary had sent (I4). */
    if (r->phase == REP_PAIRED ||
        (r->role == REP_BACKUP && (r->phase == REP_ASKED || r->phase == REP_TAKEOVER))) {
        compare_own(r, d, pages, npages, now);
    }
}

bool rep_holds(const struct rep *r)
{
    return r->held.first != NULL;
}

void rep_stats(const struct rep *r, struct rep_stats *out)
{
    const struct rep_rec *oldest = r->recs.first;

    *out = r->stats;
    out->sealed = out->received = r->sealed;
    out->ran = r->ran;
    out->acked = r->acked;
    out->peer_ran = r->peer_ran;
    out->released = r->released;
    out->outputs_held = r->held.n;
    out->log_bytes_kept = r->recs.bytes;
    out->lag_ns = oldest == NULL ? 0 : r->sealed_start - oldest->start_ns;
}

enum rep_phase rep_phase(const struct rep *r)
{
    return r->phase;
}

enum rep_role rep_role(const struct rep *r)
{
    return r->role;
}

uint64_t rep_epoch(const struct rep *r)
{
    return r->epoch;
}

const char *rep_phase_name(enum rep_phase p)
{
    static const char *const names[] = {"joining", "paired", "asked", "takeover", "alone", "out"};

    return names[p];
}
