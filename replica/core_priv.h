/* SPDX-License-Identifier: Apache-2.0
 * replica/core_priv.h - the state that core.c, primary.c, backup.c and compare.c share. */
#ifndef REPLICA_CORE_PRIV_H
#define REPLICA_CORE_PRIV_H

#include "replica/core.h"
#include "replica/queue.h"

enum { REP_DIGESTS_KEPT = 16, REP_TEXT_MAX = 400 };

/* A digest of ours that is not confirmed yet, with what is needed to name a difference. */
struct own_digest {
    bool used;
    struct vm_digest d;
    struct digest_page *pages; /* owned */
    size_t npages;
};

/* A digest of the peer that ours has not reached yet. */
struct peer_digest {
    bool used;
    uint64_t seq;
    struct hash128 all;
    uint8_t *sections; /* owned; as encoded by compare.c */
    size_t len;
};

struct rep {
    struct rep_config cfg;
    struct rep_ops ops;
    enum rep_phase phase;
    enum rep_role role;
    uint64_t epoch;

    uint64_t last_seen;  /* when anything last called us: a larger step is a gap (I3) */
    uint64_t io_seen;    /* when the I/O side last did: what it did not read is no silence */
    uint64_t last_heard; /* from the peer, in this epoch */
    uint64_t next_ping, next_ask, next_probe, next_hello;
    bool peer_ready; /* its hello matched ours */
    bool in_doubt;   /* I3: release nothing yet */
    uint64_t nonce, doubt_nonce;

    enum rep_ask ask;

    struct rep_recs recs; /* primary: not yet run by the peer; backup: not yet run here */
    struct held_outputs held;
    uint64_t sealed; /* primary: last sealed; backup: last received without a gap */
    uint64_t ran;
    uint64_t acked, peer_ran;
    uint64_t released; /* watermark: every output of records up to here is out */
    uint64_t sealed_start;
    uint64_t resend_from; /* last seq for which a resend was asked; damps repeats */
    uint64_t resend_at;
    uint64_t ran_told;     /* backup: ran, as the last acknowledgement said it */
    uint64_t untold_start; /* start of record ran_told + 1 once that has run */

    struct own_digest own[REP_DIGESTS_KEPT];
    struct peer_digest theirs[REP_DIGESTS_KEPT];
    uint64_t differs_seq; /* backup: waiting for the peer's pages of this digest; 0: none */
    uint64_t differs_deadline;
    char differs_text[REP_TEXT_MAX];

    struct rep_stats stats;
};

/* core.c */
void rep_send(struct rep *r, struct rep_msg *m); /* fills epoch and incarnations */
void rep_enter(struct rep *r, enum rep_phase phase);
void rep_ask_for(struct rep *r, enum rep_ask ask, uint64_t now);
void rep_emit_held(struct rep *r, uint64_t through, uint64_t now); /* in order, up to a seq */

/* primary.c */
void primary_recv(struct rep *r, const struct rep_msg *m, uint64_t now);
void primary_release(struct rep *r, uint64_t now);
void primary_resend(struct rep *r, uint64_t after);

/* backup.c */
void backup_recv(struct rep *r, const struct rep_msg *m, uint64_t now);
void backup_ack(struct rep *r, bool resend);
void backup_ran(struct rep *r, uint64_t start_ns); /* r->ran has just run */
void backup_takeover_if_done(struct rep *r, uint64_t now);

/* compare.c */
void compare_free(struct rep *r);
void compare_own(struct rep *r, const struct vm_digest *d, const struct digest_page *pages,
                 size_t npages, uint64_t now);
void compare_recv(struct rep *r, const struct rep_msg *m, uint64_t now);
void compare_tick(struct rep *r, uint64_t now);
/* This backup knows that its state is not the primary's, and waits for the pages to be named. */
bool compare_differs(const struct rep *r);
void compare_give_up(struct rep *r); /* they will not be: end */

#endif
