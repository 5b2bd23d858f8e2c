/* SPDX-License-Identifier: Apache-2.0
 * replica/core.h - the replication protocol of one replica, as a pure state machine.
 *
 * Primary:  gather inputs -> seal record r -> ship -> run slice r -> hold its outputs under r ->
 *           release them once the backup holds r.
 * Backup:   receive r -> acknowledge -> run slice r -> hold its outputs above the watermark.
 * Time, network, the control plane and the outside world arrive through struct rep_ops, so that a
 * pair can be simulated by the million (tests/sim/test_replica.c). ARCHITECTURE.md,
 * "Replication", gives the rules; the invariants kept here:
 *
 *   I1  An output of record r leaves only after the backup acknowledged r in this epoch, or in an
 *       epoch in which this replica is alone.
 *   I2  Once a replica has asked to go on alone it neither seals, acknowledges nor releases in the
 *       old epoch; only an applied roles record of a later epoch moves it on.
 *   I3  A replica that was not scheduled for half the time after which a peer is declared lost, or
 *       for REP_GAP_NS if that is less, releases nothing before it knows that its
 *       epoch still stands: from the control plane, or from a peer's answer to a question asked
 *       after the gap.
 *   I4  A backup that knows that its state differs from the primary's never goes on alone, however
 *       the primary ends.
 *
 * Phases and what moves them (rows: phase; the cause stands before the arrow):
 *
 *   JOINING  roles name both, in sync -> PAIRED;      roles name me alone -> ALONE
 *   PAIRED   peer silent, diverged, or has asked -> ASKED
 *   ASKED    a later epoch: me alone -> ALONE (a backup: after TAKEOVER); both -> PAIRED
 *   TAKEOVER every record received has run -> ALONE
 *   any      a later epoch without me -> OUT
 *
 * Ownership: the caller owns the struct's memory through rep_create. Threading: none inside; the
 * caller serialises all calls (one mutex). Times are the host's monotonic nanoseconds. */
#ifndef REPLICA_CORE_H
#define REPLICA_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "vmm/sched/input.h"
#include "vmm/sched/vm.h"

enum rep_role { REP_PRIMARY, REP_BACKUP };
enum rep_phase { REP_JOINING, REP_PAIRED, REP_ASKED, REP_TAKEOVER, REP_ALONE, REP_OUT };

enum rep_ask {
    REP_ASK_NONE,
    REP_ASK_DROP,     /* primary: compare-and-swap the backup away */
    REP_ASK_TAKEOVER, /* backup: compare-and-swap itself to be alone */
    REP_ASK_RESUME,   /* either: a new epoch that names both, after the link healed */
};

enum rep_event {
    REP_EV_READY,          /* the peer has the same state: may be declared in sync */
    REP_EV_PEER_LOST,      /* silence; detail: ns since last heard */
    REP_EV_DIVERGED,       /* this backup differs; text names seq, sections, pages */
    REP_EV_BACKUP_DIFFERS, /* likewise, on the primary: of one divergence each has its own */
    REP_EV_TAKEOVER,       /* this backup has become the only one; detail: outputs re-emitted */
    REP_EV_ALONE,          /* goes on unprotected; not of one that was never to have a peer */
    REP_EV_RESUMED,        /* paired again under a new epoch */
    REP_EV_OUT,            /* superseded or discarded: the process ends */
};

enum rep_msg_kind {
    REP_HELLO = 1,    /* seq, digest: the state I loaded */
    REP_RECORD,       /* seq, start_ns, data, released */
    REP_ACK,          /* seq: contiguously received; ran; resend: send from seq + 1 again */
    REP_PING,         /* seq: last sealed, released; nonce: not 0, to be answered */
    REP_PONG,         /* nonce */
    REP_PROBE,        /* "I have asked"; only says that the link works */
    REP_DIGEST,       /* seq, digest, data: section digests */
    REP_DIGEST_OK,    /* seq: equal here */
    REP_PAGES_WANTED, /* seq: differs here */
    REP_PAGES,        /* seq, data: (gpa, hash) of every page hashed for that digest */
    REP_DIVERGED,     /* seq: the backup discards itself */
    REP_MSG_END
};

struct rep_msg {
    uint8_t kind;
    bool resend;
    uint64_t epoch, from, to; /* incarnations of sender and receiver */
    uint64_t seq, ran, released, nonce, start_ns;
    struct hash128 digest;
    const uint8_t *data;
    size_t len;
};

/* What the control plane has applied. Incarnation 0: nobody. @nonce: of the reread that it answers,
 * 0 if unasked (such a one may have waited for us: it resolves no doubt). */
struct rep_roles {
    uint64_t epoch, primary, backup, nonce;
    bool in_sync;
};

struct rep_ops {
    void (*send)(void *ctx, const struct rep_msg *m);
    /* Let an external output out (network frame, console bytes), in order. */
    void (*emit)(void *ctx, const struct output *o, const uint8_t *data);
    /* Ask the control plane. Idempotent by (@ask, epoch); repeated until answered by rep_roles. */
    void (*ask)(void *ctx, enum rep_ask ask, uint64_t epoch);
    /* Ask for the applied roles again (I3); answered by rep_roles with this nonce. */
    void (*reread)(void *ctx, uint64_t nonce);
    void (*event)(void *ctx, enum rep_event ev, uint64_t detail, const char *text);
    /* The VM thread may have something to do: run, go on alone, end. */
    void (*wake)(void *ctx);
    void *ctx;
};

#define REP_GAP_NS UINT64_C(50000000)

struct rep_config {
    enum rep_role role;
    uint64_t epoch, incarnation;
    uint64_t peer;           /* its incarnation; 0: none is meant, the replica runs alone */
    uint64_t seq;            /* of the state loaded: the first record is seq + 1 */
    struct hash128 digest;   /* of that state */
    uint64_t peer_lost_ns;   /* silence after which the peer is declared lost; default 60 ms */
    uint64_t ping_ns;        /* default a third of that, at most; counted from the last message */
    uint64_t lag_ns;         /* bound on the backup's lag, in virtual time; default 100 ms */
    bool stop_on_divergence; /* policy `stop`; default `trust-primary` */
    bool no_takeover;        /* drill: this backup never asks (a demonstration must then fail) */
};

enum {
    REP_PEER_LOST_MS = 60,
    REP_LAG_MS = 100,
    REP_ASK_AGAIN_MS = 50,
    REP_PROBE_MS = 20,
};

struct rep;

/* In phase JOINING. @ops is copied; its ops are called from inside every function below, and must
 * not call back. On error *out is NULL. Errors: PLX_ENOMEM. Later a lack of memory is a PLX_CHECK.
 */
int rep_create(const struct rep_config *cfg, const struct rep_ops *ops, uint64_t now,
               struct rep **out);
void rep_destroy(struct rep *r); /* NULL is a no-op */

/* --- the I/O side ------------------------------------------------------------------------- */
/* A message from the peer, already authenticated. Stale ones (epoch, incarnations) are counted. */
void rep_recv(struct rep *r, const struct rep_msg *m, uint64_t now);
/* Applied roles, whenever they change or as the answer to ask and reread. */
void rep_roles(struct rep *r, const struct rep_roles *roles, uint64_t now);
/* Call at rep_deadline at the latest; calling more often is harmless. */
void rep_tick(struct rep *r, uint64_t now);
uint64_t rep_deadline(const struct rep *r);

/* --- the VM side -------------------------------------------------------------------------- */
/* May this replica gather inputs and seal a new record now? (Primary, or alone.) */
bool rep_may_seal(const struct rep *r);
/* Seal and ship. @seq is the next one; the bytes are copied. Call before the slice runs. */
void rep_seal(struct rep *r, uint64_t seq, uint64_t start_ns, const void *data, size_t len);
/* Backup: the next record to run, or false. The bytes stay valid until rep_ran of that seq. */
bool rep_next_record(const struct rep *r, uint64_t *seq, const uint8_t **data, size_t *len);
/* Whether there is one. */
bool rep_behind(const struct rep *r);
/* Whether outputs of slices that have run wait for something. */
bool rep_holds(const struct rep *r);
/* Slice @seq has run; its external outputs are copied and held, released or emitted. */
void rep_ran(struct rep *r, uint64_t seq, const struct output_list *out, uint64_t now);
/* A digest of the state after its seq (both roles, at the same seqs). Call before rep_ran of that
 * seq: the last record a successor runs may be the one that shows a difference (I4). */
void rep_digest(struct rep *r, const struct vm_digest *d, const struct digest_page *pages,
                size_t npages, uint64_t now);

/* --- looking at it ------------------------------------------------------------------------ */
struct rep_stats {
    uint64_t sealed, received, ran, acked, peer_ran, released; /* seqs */
    uint64_t lag_ns;                                           /* virtual time the peer is behind */
    uint64_t stale_messages, resends, digests_compared, digests_differ, outputs_held;
    uint64_t commit_wait_ns, commits; /* sum of waits of held output after its slice ended; count */
    uint64_t commit_wait_max_ns;
    uint64_t log_bytes, log_bytes_kept;
};
void rep_stats(const struct rep *r, struct rep_stats *out);
enum rep_phase rep_phase(const struct rep *r);
enum rep_role rep_role(const struct rep *r);
uint64_t rep_epoch(const struct rep *r);
const char *rep_phase_name(enum rep_phase p);

#endif
