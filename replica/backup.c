/* SPDX-License-Identifier: Apache-2.0
 * replica/backup.c - receiving and acknowledging records, following the watermark, taking over. */
#include "replica/core_priv.h"

#include <stdio.h>

#define RESEND_NS UINT64_C(10000000) /* before the same hole is reported again */

enum { REP_TELL_PARTS = 4 }; /* a lag of this part of its bound is told as it shrinks */

void backup_ack(struct rep *r, bool resend)
{
    struct rep_msg m = {.kind = REP_ACK, .seq = r->sealed, .ran = r->ran, .resend = resend};

    r->ran_told = r->ran;
    rep_send(r, &m);
}

/* What has run is told with the receipt of the next record, or at the next tick: a message of its
 * own for each slice would cost both hosts as much as the receipt. At once only when the primary
 * may be waiting for it, well before the bound that it keeps. */
void backup_ran(struct rep *r, uint64_t start_ns)
{
    if (r->ran == r->ran_told + 1) {
        r->untold_start = start_ns;
    }
    if (r->sealed_start - r->untold_start >= r->cfg.lag_ns / REP_TELL_PARTS) {
        backup_ack(r, false);
    }
}

static void follow_watermark(struct rep *r, uint64_t released)
{
    if (released > r->released) {
        r->released = released;
        held_drop_through(&r->held, released);
    }
}

/* Something is missing after r->sealed: ask for it, but not for every later message again. */
static void report_hole(struct rep *r, uint64_t now)
{
    if (r->resend_from != r->sealed || now - r->resend_at > RESEND_NS) {
        r->resend_from = r->sealed;
        r->resend_at = now;
        r->stats.resends++;
        backup_ack(r, true);
    }
}

static void recv_record(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    follow_watermark(r, m->released);
    if (m->seq > r->sealed + 1) {
        report_hole(r, now);
        return;
    }
    if (m->seq == r->sealed + 1) {
        (void)recs_add(&r->recs, m->seq, m->start_ns, m->data, m->len);
        r->sealed = m->seq;
        r->sealed_start = m->start_ns;
        r->stats.log_bytes += m->len;
        backup_ack(r, false); /* before anything else: the primary's outputs wait for it */
        r->ops.wake(r->ops.ctx);
        return;
    }
    backup_ack(r, false);
}

void backup_recv(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    switch (m->kind) {
    case REP_RECORD:
        recv_record(r, m, now);
        break;
    case REP_PING:
        follow_watermark(r, m->released);
        if (m->seq > r->sealed) {
            report_hole(r, now);
        }
        if (m->nonce != 0) {
            struct rep_msg pong = {.kind = REP_PONG, .nonce = m->nonce};
            rep_send(r, &pong);
        }
        break;
    default:
        compare_recv(r, m, now);
        break;
    }
}

bool rep_behind(const struct rep *r)
{
    return r->role == REP_BACKUP && r->recs.first != NULL && r->phase != REP_OUT;
}

bool rep_next_record(const struct rep *r, uint64_t *seq, const uint8_t **data, size_t *len)
{
    const struct rep_rec *rec = r->recs.first;

    if (!rep_behind(r)) {
        return false;
    }
    *seq = rec->seq;
    *data = rec->data;
    *len = rec->len;
    return true;
}

/* Every record received has run: what the old primary may not have let out goes out now. */
void backup_takeover_if_done(struct rep *r, uint64_t now)
{
    char text[80];
    uint64_t again = r->held.n;

    if (r->ran != r->sealed) {
        return;
    }
    r->role = REP_PRIMARY;
    rep_enter(r, REP_ALONE);
    rep_emit_held(r, UINT64_MAX, now);
    r->released = r->ran;
    (void)snprintf(text, sizeof text, "took over at record %llu", (unsigned long long)r->ran);
    r->ops.event(r->ops.ctx, REP_EV_TAKEOVER, again, text);
}
