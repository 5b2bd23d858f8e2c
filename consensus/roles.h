/* SPDX-License-Identifier: Apache-2.0
 * consensus/roles.h - who runs which VM: the state machine that Raft replicates.
 *
 * One record per VM: its definition and its roles {epoch, primary, backup, in_sync}. Every change
 * of roles is one command; those that let a replica go on alone are compare-and-swaps: they name
 * the epoch they were made in and the incarnation that asks, and raise the epoch by one. Of several
 * made in one epoch at most one is applied. The outcome is judged by reading the applied record,
 * never from a reply (ARCHITECTURE.md, "Roles").
 *
 * Pure: no clock, no randomness, no I/O; equal states and commands give equal states on every node.
 * Ownership: struct roles_state owns its records. Threading: one thread (the daemon's loop). */
#ifndef CONSENSUS_ROLES_H
#define CONSENSUS_ROLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    ROLES_NAME_MAX = 64,     /* with its NUL */
    ROLES_XML_MAX = 65536,   /* with its NUL */
    ROLES_ENDPOINT_MAX = 96, /* with its NUL */
    ROLES_KEY_LEN = 32,      /* an X25519 public key */
    ROLES_UUID_LEN = 16,
    ROLES_VMS_MAX = 256,
    ROLES_RECENT = 256 /* ids of applied requests remembered */
};

/* One replica as the record names it. node 0: there is none. */
struct role_replica {
    uint32_t node;        /* id of the node it runs on */
    uint64_t incarnation; /* fresh and random for each process and state load; never 0 */
    uint8_t key[ROLES_KEY_LEN];
    char endpoint[ROLES_ENDPOINT_MAX]; /* "tcp://10.0.0.1:7301" */
};

enum roles_phase {
    ROLES_STOPPED,  /* nobody runs it; primary and backup are none */
    ROLES_STARTING, /* assigned; the primary has not begun its first slice */
    ROLES_RUNNING
};

/* Why a VM stopped last. */
enum roles_stop {
    ROLES_STOP_NEVER_RAN,
    ROLES_STOP_POWER_OFF,
    ROLES_STOP_RESET,      /* the guest asked for a reset */
    ROLES_STOP_DEBUG_EXIT, /* code: the value it left */
    ROLES_STOP_TRIPLE_FAULT,
    ROLES_STOP_DESTROYED, /* by the operator */
    ROLES_STOP_LOST,      /* every replica died */
    ROLES_STOP_FAILED,    /* a replica could not start, or a host error */
    ROLES_STOP_DIVERGED,  /* policy "stop" */
    ROLES_STOP_END
};

struct roles_vm {
    uint8_t uuid[ROLES_UUID_LEN];
    char name[ROLES_NAME_MAX]; /* unique */
    char *xml;                 /* owned: the definition as given */
    bool protect;              /* to be started as a pair */
    enum roles_phase phase;
    uint64_t epoch; /* number of role assignments so far; 0: never started */
    struct role_replica primary, backup;
    bool in_sync;      /* the backup holds all that the primary may have released on */
    bool primary_lost; /* its node says that the primary's process is gone; the backup may ask */
    enum roles_stop stop;
    uint64_t stop_code;
    uint32_t newest[2]; /* nodes whose disks are the newest, of when it ran last; 0: none */
};

/* The commands. Who may give them and when stands in one table in roles.c. */
#define ROLES_OPS(X)                                                                            \
    X(DEFINE, "define")     /* name, uuid, xml, protect; replaces a stopped VM's definition */  \
    X(UNDEFINE, "undefine") /* a stopped VM is forgotten */                                     \
    X(START, "start")       /* primary, backup or none: STARTING in epoch + 1 */                \
    X(READY, "ready")       /* by the primary: RUNNING; in_sync if there is a backup */         \
    X(DROP_BACKUP, "drop-backup") /* by the primary: alone in epoch + 1 */                      \
    X(TAKEOVER, "takeover")       /* by a backup in sync: primary and alone in epoch + 1 */     \
    X(RESUME, "resume")       /* by either: the same pair in epoch + 1; voids the other asks */ \
    X(STOP, "stop")           /* by the primary: the VM has ended; stop, code */                \
    X(LOST, "lost")           /* by a node: this incarnation's process is gone */               \
    X(DESTROY, "destroy")     /* by the operator: nobody runs it, in epoch + 1 */               \
    X(PROTECT, "protect")     /* by the operator, on a stopped VM */                            \
    X(UNPROTECT, "unprotect") /* by the operator: a running pair loses its backup */

enum roles_op {
    ROLES_OP_NONE,
#define ROLES_OP_ENUM_(name, text) ROLES_##name,
    ROLES_OPS(ROLES_OP_ENUM_)
#undef ROLES_OP_ENUM_
        ROLES_OP_END
};

#define ROLES_RESULTS(X)                                                   \
    X(DONE, "applied")                                                     \
    X(MALFORMED, "malformed command")                                      \
    X(NO_VM, "no such VM is defined")                                      \
    X(NAME_TAKEN, "another VM has this name")                              \
    X(TOO_MANY, "the cluster holds as many VMs as it can")                 \
    X(WRONG_EPOCH, "the roles have changed meanwhile")                     \
    X(NOT_YOURS, "the record does not name this incarnation in that role") \
    X(NOT_IN_SYNC, "the record does not name the backup in sync")          \
    X(NO_BACKUP, "the VM has no backup")                                   \
    X(IS_RUNNING, "the VM is running")                                     \
    X(NOT_RUNNING, "the VM is not running")                                \
    X(NO_REPROTECT, "a running VM cannot be given a backup yet: stop it, protect it, start it")

enum roles_result {
#define ROLES_RESULT_ENUM_(name, text) ROLES_RES_##name,
    ROLES_RESULTS(ROLES_RESULT_ENUM_)
#undef ROLES_RESULT_ENUM_
        ROLES_RES_END
};

const char *roles_op_name(enum roles_op op);
const char *roles_result_text(enum roles_result r);
const char *roles_stop_name(enum roles_stop s);
const char *roles_phase_name(enum roles_phase p);

struct roles_cmd {
    enum roles_op op;
    uint64_t
        request; /* random, not 0: once applied, the same id again is DONE and changes nothing */
    uint8_t uuid[ROLES_UUID_LEN];
    uint64_t epoch;       /* START, READY, DROP_BACKUP, TAKEOVER, RESUME: that it was made in */
    uint64_t incarnation; /* READY, DROP_BACKUP, TAKEOVER, RESUME, STOP, LOST: who asks */
    struct role_replica primary, backup; /* START */
    enum roles_stop stop;                /* STOP */
    uint64_t code;                       /* STOP */
    bool protect;                        /* DEFINE */
    const char *name, *xml;              /* DEFINE; borrowed */
};

struct roles_state {
    struct roles_vm *vms; /* sorted by uuid; owned */
    unsigned n;
    uint64_t applied;              /* commands seen so far, refused ones included */
    uint64_t recent[ROLES_RECENT]; /* a ring of request ids; 0: free */
    unsigned recent_next;
};

void roles_init(struct roles_state *s);
void roles_free(struct roles_state *s); /* ready for use again */

/* Apply one command. *vm (may be NULL) is its record afterwards, NULL if there is none; valid until
 * the next change. A refused command changes nothing (and may be asked again).
 * Running out of memory is a PLX_CHECK: nodes would differ. */
enum roles_result roles_apply(struct roles_state *s, const struct roles_cmd *c,
                              const struct roles_vm **vm);

const struct roles_vm *roles_find(const struct roles_state *s, const uint8_t *uuid);
const struct roles_vm *roles_find_name(const struct roles_state *s, const char *name);

/* What a replica that has asked to go on alone in epoch @asked reads from the record. */
enum roles_verdict {
    ROLES_UNDECIDED, /* still epoch @asked: wait, or ask again with the same request id */
    ROLES_ALONE,     /* primary without a backup: go on */
    ROLES_PAIR,      /* a newer epoch names it together with its peer: go on as the record says */
    ROLES_OUT        /* not named: discard yourself without another output */
};
enum roles_verdict roles_judge(const struct roles_vm *vm, uint64_t incarnation, uint64_t asked);

/* Wire form of a command (a Raft log entry) and of the whole state (a Raft snapshot). Decoding
 * checks everything. Errors: PLX_ECORRUPT, PLX_EVERSION, PLX_ENOMEM; nothing is half-applied.
 * A decoded command borrows name and xml from @scratch. */
void roles_cmd_encode(const struct roles_cmd *c, struct wbuf *out);
int roles_cmd_decode(const void *data, size_t len, struct roles_cmd *c, struct wbuf *scratch,
                     struct plx_err *err);
void roles_encode(const struct roles_state *s, struct wbuf *out);
int roles_decode(const void *data, size_t len, struct roles_state *s, struct plx_err *err);

#endif
