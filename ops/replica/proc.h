/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/proc.h - what the threads of one pollux-replica share.
 *
 * Two threads. The VM thread (vm_thread.c) owns the VM and its host I/O: it gathers inputs, seals
 * or fetches records and runs slices. The I/O thread (main) reads the control channel to polluxd
 * and mostly the link to the peer; who has something to say to the peer sends it. Between them
 * stands proc.lock: it guards the protocol state, the link and the queues below; nobody holds it
 * while a slice runs or a descriptor is waited for.
 *
 * A primary's VM thread reads the link itself between slices, and polls it with what else it waits
 * for, as long as it runs no slice while outputs of earlier ones are held: then an acknowledgement
 * that arrives in the middle of a slice, whose outputs must wait for its end anyway, interrupts
 * nobody. A backup's does so while short slices come one right after the other (vm_thread.c, spin).
 * The I/O thread looks there too whenever it wakes up, which is more often than a peer's silence
 * counts, so a long slice keeps the peer's words waiting no longer.
 *
 *   peer link ---> io thread --(rep_recv)--> rep <--(rep_seal, rep_ran, ...)-- VM thread
 *   peer link <-------------------(send)---- rep
 *   polluxd  <---> io thread --(rep_roles)-> rep --(emit)--> TAP, console ring */
#ifndef OPS_REPLICA_PROC_H
#define OPS_REPLICA_PROC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "consensus/roles.h"
#include "ops/replica/typists.h"
#include "proto/control.pb-c.h"
#include "replica/core.h"
#include "replica/link.h"
#include "replica/wire.h"
#include "vmm/dev/backend/hostio.h"
#include "vmm/sched/vm.h"

enum {
    CONSOLE_RING = 1 << 18,
    BACKLOG_MAX = 1 << 18 /* bytes for a polluxd that does not read */
};

/* The last CONSOLE_RING bytes a port has let out; position 0 is the first byte ever. */
struct console_ring {
    uint8_t bytes[CONSOLE_RING];
    uint64_t end;  /* position after the last byte */
    uint64_t sent; /* position up to which polluxd has it */
    bool attached;
};

/* A queue of byte strings: packets to polluxd. */
struct packets {
    struct wbuf bytes;
    size_t read;
};

struct proc {
    pthread_mutex_t lock;
    int wake_io, wake_vm; /* eventfds */
    _Atomic bool ending;  /* both threads leave their loops */
    int exit_code;

    Ctl__Start *start; /* read-only once the threads run */
    struct rep_identity id;

    struct vm *vm;     /* VM thread */
    struct hostio *io; /* VM thread */
    int tap[NICS_MAX]; /* for letting frames out; -1: none */
    unsigned nnics;

    /* Guarded by lock. */
    struct rep *rep;
    struct link *link;
    bool vm_reads_link; /* see above */
    struct packets to_polluxd;
    struct wbuf message; /* scratch of op_send */
    struct console_ring console[CONSOLE_PORTS];
    struct typists typists;
    bool power_button;
    uint64_t stopped_at; /* seq whose slice stopped the VM; 0: it runs */
    enum power_event stop_event;
    uint64_t stop_code;
    bool stop_reported;
    uint64_t announce_next; /* when to announce the MACs again */
    unsigned announce_left;
    uint64_t virtual_ns, retired, frames_out, vm_cpu_ns, digest_ns;
    struct hostio_stats host; /* as of some slices ago; so are the counters */
    struct vm_counters counters;
    bool ready;          /* the pair has the same state: polluxd may declare it in sync */
    uint64_t next_ready; /* when to say so (again) */
    bool ready_answered; /* a record came after it was said */
    Ctl__Roles *roles;   /* as last read */

    struct {
        enum rep_ask ask;
        uint64_t epoch, id;
    } request; /* the one in flight: an id is used again for the same question */

    int ctl, ctl_listen; /* the channel; -1: none */

    uint64_t next_stats; /* I/O thread only */
};

/* packets.c */
void packets_put(struct packets *q, const void *data, size_t len);
/* The next one, valid until packets_put; false: empty. */
bool packets_get(struct packets *q, const uint8_t **data, size_t *len);
size_t packets_left(const struct packets *q); /* bytes */
void packets_free(struct packets *q);
void proc_wake(int eventfd);
void proc_drain(int eventfd);

/* output.c: what leaves the VM. Called under the lock by struct rep. */
void output_emit(struct proc *p, const struct output *o, const uint8_t *data);
/* Reverse ARP requests with the VM's MACs, so that switches learn where it lives now. */
void output_announce(struct proc *p);
/* Console bytes polluxd has not seen: one ConsoleData into to_polluxd for each attached port. */
void output_console_flush(struct proc *p);

/* peer.c, under the lock. */
void peer_recv(struct proc *p); /* everything that has been read */
/* By the VM thread, between slices: the primary of a pair reads the link itself, and so does a
 * backup that spins for the next record. */
void peer_recv_by_vm(struct proc *p, bool spinning);
/* Before a slice of the primary: outputs that are held already must not wait for its end. */
void peer_leave_to_io(struct proc *p);

/* control.c: I/O thread. */
int control_wait_start(struct proc *p, struct plx_err *err); /* Hello, then Start and its TAPs */
void control_hello(struct proc *p);
void control_recv(struct proc *p); /* everything there is; the channel's end starts adoption */
void control_accept(struct proc *p);
void control_send(struct proc *p, const Ctl__FromReplica *m); /* any thread, under the lock */
/* A primary: what was typed and is safe. */
void control_tell_typed(struct proc *p);
void control_flush(struct proc *p);
void control_ask(struct proc *p, enum rep_ask ask, uint64_t epoch);
void control_event(struct proc *p, const char *kind, const char *text);
void control_stats(struct proc *p, uint64_t nonce);
void control_stopped(struct proc *p, enum roles_stop reason, uint64_t code, const char *text);
/* An applied record into the protocol. */
void control_apply_roles(struct proc *p, const Ctl__Roles *roles, uint64_t now);

/* setup.c: from Start to a VM that stands before its first slice. */
int setup_vm(struct proc *p, struct plx_err *err);
int setup_rep(struct proc *p, struct plx_err *err);

/* vm_thread.c */
void *vm_thread(void *proc);

#endif
