/* SPDX-License-Identifier: Apache-2.0
 * replica/primary.c - sealing, shipping, acknowledgements and the release of held outputs. */
#include "replica/core_priv.h"

#include "base/check.h"

bool rep_may_seal(const struct rep *r)
{
    if (r->phase == REP_ALONE) {
        return true;
    }
    if (r->phase != REP_PAIRED || r->role != REP_PRIMARY) {
        return false;
    }
    return r->recs.first == NULL || r->sealed_start - r->recs.first->start_ns < r->cfg.lag_ns;
}

static void ship(struct rep *r, const struct rep_rec *rec)
{
    struct rep_msg m = {
        .kind = REP_RECORD,
        .seq = rec->seq,
        .start_ns = rec->start_ns,
        .released = r->released,
        .data = rec->data,
        .len = rec->len,
    };

    rep_send(r, &m);
}

void rep_seal(struct rep *r, uint64_t seq, uint64_t start_ns, const void *data, size_t len)
{
    PLX_CHECK(seq == r->sealed + 1);
    r->sealed = seq;
    r->sealed_start = start_ns;
    r->stats.log_bytes += len;
    if (r->phase == REP_ALONE || r->phase == REP_OUT) {
        return;
    }
    /* Sealed while a roles record was on its way (PAIRED when asked, ASKED now): kept, and shipped
     * under the new epoch should it name both. */
    struct rep_rec *rec = recs_add(&r->recs, seq, start_ns, data, len);
    if (r->phase == REP_PAIRED) {
        ship(r, rec);
    }
}

void primary_resend(struct rep *r, uint64_t after)
{
    for (const struct rep_rec *rec = r->recs.first; rec != NULL; rec = rec->next) {
        if (rec->seq > after) {
            ship(r, rec);
            r->stats.resends++;
        }
    }
}

/* I1 and I3. */
void primary_release(struct rep *r, uint64_t now)
{
    uint64_t through = r->acked < r->ran ? r->acked : r->ran;

    if (r->role != REP_PRIMARY || r->phase != REP_PAIRED || r->in_doubt) {
        return;
    }
    rep_emit_held(r, through, now);
    if (through > r->released) {
        r->released = through;
    }
}

static void recv_ack(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    if (m->seq > r->sealed || m->ran > m->seq) {
        r->stats.stale_messages++; /* no honest peer says this */
        return;
    }
    if (m->seq > r->acked) {
        r->acked = m->seq;
    }
    if (m->ran > r->peer_ran) {
        bool was_bounded = !rep_may_seal(r);

        r->peer_ran = m->ran;
        recs_drop_through(&r->recs, m->ran);
        if (was_bounded && rep_may_seal(r)) {
            r->ops.wake(r->ops.ctx);
        }
    }
    if (m->resend) {
        primary_resend(r, m->seq);
    }
    primary_release(r, now);
}

void primary_recv(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    switch (m->kind) {
    case REP_ACK:
        recv_ack(r, m, now);
        break;
    case REP_PONG:
        if (r->in_doubt && m->nonce == r->doubt_nonce) {
            r->in_doubt = false; /* it still answers in our epoch: it has not asked */
            primary_release(r, now);
        }
        break;
    default:
        compare_recv(r, m, now);
        break;
    }
}
