/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/daemon.h - what the files of the daemon share: one struct, one loop, one thread.
 *
 *     daemon.c   start and stop, the tick
 *     peers.c    messages between daemons
 *     api.c      connections of the CLI and what they ask; vm_view.c what they are told of a VM
 *     start.c    choosing the nodes of a VM and comparing its files on them
 *     prepare.c  hashing the files and making keys on one node
 *     vms.c      making what runs here follow the applied records
 *     child.c    one replica process; child_channel.c what it says and asks, child_spawn.c how
 *                it is started or found again
 *     session.c  console sessions, wherever the VM runs
 *     events.c   events of all nodes;  tap.c  TAP devices;  metrics.c  Prometheus
 *
 * Only hashing (libuv's pool), the metrics server, the image server and the authorisers have other
 * threads; they touch nothing here. */
#ifndef OPS_POLLUXD_DAEMON_H
#define OPS_POLLUXD_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "consensus/cluster.h"
#include "ops/polluxd/conf.h"
#include "ops/polluxd/domain.h"
#include "proto/control.pb-c.h"
#include "proto/frame.h"
#include "vmm/engine/engine.h"

enum {
    EVENTS_MAX = 512,                               /* of all nodes, to be shown */
    EVENTS_KEPT = 256,                              /* of this node, for those who missed them */
    EVENTS_BATCH = 32,                              /* in one message */
    EVENT_BATCHES = 2 * EVENTS_KEPT / EVENTS_BATCH, /* that a node gets in a second */
    EVENT_KIND_MAX = 24,
    EVENT_TEXT_MAX = 256,
    COMMAND_MS = 8000, /* how long an operator's command waits for a majority */
    READ_MS = 4000,
    STATS_FRESH_MS = 5000,
    API_CONNECTIONS_MAX = 64,                       /* each may have a console */
    SESSIONS_OF_NODE_MAX = 2 * API_CONNECTIONS_MAX, /* consoles of another node */
};

struct event {
    uint64_t wall_ns; /* by the clock of the node */
    uint64_t at_ns;   /* its place in the list, by the clock here */
    char node[CONF_NAME_MAX];
    uint8_t vm[ROLES_UUID_LEN];
    bool of_vm;
    char kind[EVENT_KIND_MAX];
    char text[EVENT_TEXT_MAX];
};

struct event_source {   /* another node: what is here of its events, and how it is told ours */
    uint32_t node;      /* 0: a free slot */
    uint64_t life;      /* of its daemon, whose events are taken; 0: none yet */
    uint64_t newer;     /* one that was told of and has yet to answer; 0: none */
    uint64_t next;      /* number of the first event that is not here */
    uint64_t told;      /* the highest number heard of */
    uint64_t at_ns;     /* place of its last event in the list */
    uint64_t call;      /* of the question that is open; 0: none */
    uint64_t call_life; /* whose answer it waits for */
    bool asked;         /* since the last tick */
    unsigned answers;   /* batches it was sent since then */
};

struct events {
    uint64_t life;                 /* of this daemon; random, not 0 */
    uint64_t newest;               /* number of the last own event; 0: none */
    struct event own[EVENTS_KEPT]; /* number n at n % EVENTS_KEPT */
    struct event list[EVENTS_MAX]; /* by at_ns, the oldest first */
    unsigned n;
    struct event_source sources[CONF_NODES_MAX];
};

struct vm_stats { /* of one replica, here or elsewhere */
    struct vm_stats *next;
    uint8_t vm[ROLES_UUID_LEN];
    uint32_t node;
    uint64_t heard_ns;
    char jit_forms[JIT_FORMS_TEXT];
    Ctl__Stats s; /* scalars, and @jit_forms */
};

struct node_status {
    uint32_t id;
    uint64_t uptime_ms;
    uint32_t replicas;
};

struct counters { /* ops/metrics.def */
    uint64_t events, events_stale, events_lost, takeovers, divergences, host_errors, spawns,
        adoptions, replica_exits, api_requests;
};

struct api;
struct metrics;
struct child;
struct prepared;
struct prepare_work;
struct start;
struct session;
struct wish;
struct image_role;

struct daemon {
    const struct conf *conf;
    uv_loop_t loop;
    uv_timer_t second;
    uv_signal_t sigterm, sigint;
    struct cluster *cluster;
    struct api *api;
    struct metrics *metrics;
    struct image_role *images; /* NULL: this node serves none */
    struct child *children;
    struct prepared *prepared;
    struct prepare_work *preparing;
    struct start *starts;
    struct wish *wishes; /* child_channel.c: commands on behalf of replicas */
    struct session *sessions;
    struct vm_stats *stats;
    struct events events;
    struct node_status status[CONF_NODES_MAX];
    struct counters count;
    uint64_t started_ns;
    bool catching_up;
    bool caught_up; /* has read the records of a majority once since it started */
    bool stopping;
};

/* --- daemon.c --- */
int daemon_run(const struct conf *conf, struct plx_err *err);
void daemon_send(struct daemon *d, uint32_t to, Cl__NodeMessage *msg);
const struct roles_vm *daemon_vm(struct daemon *d, const uint8_t *uuid);
/* By name or UUID. */
const struct roles_vm *daemon_find_vm(struct daemon *d, const char *name_or_uuid);
uint64_t daemon_random(void); /* never 0 */

/* --- peers.c --- */
void peers_status(struct daemon *d, uint32_t from, const Cl__NodeStatus *s);
void peers_message(void *d, uint32_t from, const Cl__NodeMessage *msg);

/* --- events.c --- */
/* Log, keep, tell the other nodes. @vm may be NULL. */
void event_raise(struct daemon *d, const uint8_t *vm, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void event_received(struct daemon *d, uint32_t from, const Cl__VmEvent *w);
/* The status of @from: the life of its daemon, and the number of its newest event. */
void event_told(struct daemon *d, uint32_t from, uint64_t life, uint64_t newest);
void event_wanted(struct daemon *d, uint32_t from, const Cl__EventsWanted *w);
void event_batch(struct daemon *d, uint32_t from, const Cl__Events *w);
void event_tick(struct daemon *d); /* once a second: asks again */
/* The newest first: @i = 0, 1, ...; NULL when there are no more. */
const struct event *event_at(const struct daemon *d, unsigned i);
/* The figures of a VM without a record are dropped: there are no more than records and nodes. */
void stats_store(struct daemon *d, const uint8_t *vm, uint32_t node, const Ctl__Stats *s);
const struct vm_stats *stats_find(const struct daemon *d, const uint8_t *vm, uint32_t node);
void stats_free(struct daemon *d);

/* --- tap.c --- */
/* A TAP called @name, down and on no bridge: its descriptor, or a negative error. */
int tap_create(const char *name, const uint8_t mac[6], struct plx_err *err);
int tap_attach(const char *name, const char *bridge, struct plx_err *err); /* and up */
void tap_detach(const char *name, const char *bridge); /* down, then off; silent if it is gone */

/* --- prepare.c --- */
enum {
    PREPARE_FILES_MAX = 3 + 2 * DOMAIN_DISKS_MAX,
    FILE_LABEL_MAX = PATH_MAX + 16,
    PREPARING_MAX = API_CONNECTIONS_MAX, /* that one node asked for: under way, */
    PREPARED_MAX = 64,                   /* and ready */
};

struct file_hash {
    char label[FILE_LABEL_MAX]; /* the path, or "overlay of " and the path */
    char path[PATH_MAX];
    bool overlay;
    bool absent; /* an overlay that was never written */
    uint64_t bytes;
    uint8_t sha[SHA256_LEN];
};

struct prepared {          /* ready to become a replica of a VM on this node */
    struct prepared *next; /* an older one */
    uint32_t asker;        /* the node that wants to know */
    uint8_t vm[ROLES_UUID_LEN];
    struct domain domain;
    struct role_replica replica;
    uint8_t secret_key[ROLES_KEY_LEN];
    char bind_endpoint[ROLES_ENDPOINT_MAX];
    struct file_hash files[PREPARE_FILES_MAX];
    unsigned nfiles;
    uint64_t made_ns; /* thrown away when not used soon */
    bool ok;
    char error[PLX_ERR_MSG_MAX];
};

/* @p stays in d->prepared if ok; in either case it is the callee's to read only, and now. */
typedef void (*prepare_cb)(void *ctx, const struct prepared *p);
/* For node @asker. Calls back once, later, also while the daemon stops. Errors: PLX_EBUSY (too many
 * are under way for that node), PLX_ENOMEM; then there is no call. */
int prepare_here(struct daemon *d, uint32_t asker, const uint8_t *uuid, const char *xml,
                 prepare_cb cb, void *ctx);
struct prepared *prepared_take(struct daemon *d, uint64_t incarnation); /* now the caller's; NULL */
void prepared_expire(struct daemon *d, bool all);

/* --- start.c --- */
typedef void (*start_cb)(void *ctx, int rc, const char *error);
/* @old_disks: the operator accepts nodes whose disks are not the newest; this is an event. */
void start_vm(struct daemon *d, const struct roles_vm *vm, const char *primary, const char *backup,
              bool old_disks, start_cb cb, void *ctx);
void start_forget(struct daemon *d, void *ctx); /* the one who asked is gone */
void start_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg);
void start_record(struct daemon *d, const struct roles_vm *vm); /* a record changed */
void start_tick(struct daemon *d);

/* --- vms.c --- */
void vms_record(struct daemon *d, const uint8_t *uuid, const struct roles_vm *vm);
void vms_tick(struct daemon *d);
/* One replica and the record as applied here: TAPs first, then the roles are told (with @nonce). */
void vms_follow(struct child *c, const struct roles_vm *vm, uint64_t nonce);

/* --- child.c, child_channel.c, child_spawn.c --- */
struct child {
    struct child *next;
    struct daemon *d;
    uint8_t vm[ROLES_UUID_LEN];
    char vm_name[ROLES_NAME_MAX];
    uint64_t incarnation; /* 0: found again, it has yet to say hello */
    uint64_t found;       /* the incarnation whose socket it was found at; 0: started here */
    uint64_t epoch;       /* of the last record it was told; 0: none since it was adopted */
    uint32_t role;        /* Ctl__Role */
    int pid;              /* 0: exited */
    int fd;
    bool ours; /* our process: SIGCHLD comes */
    bool roles_due, leaving;
    uint64_t kill_ns; /* when to stop waiting for it to leave */
    char bridge[DOMAIN_NICS_MAX][16];
    unsigned nnics;
    bool attached;
    uv_poll_t poll;
    uv_process_t process;
    unsigned open_handles;
    bool closed;
    uint64_t pending_request; /* being proposed */
    uint8_t *packet;
};

int child_spawn(struct daemon *d, struct prepared *p, const struct roles_vm *vm,
                struct plx_err *err);
void child_scan(struct daemon *d); /* adopt replicas that lost their daemon */
struct child *child_find(const struct daemon *d, uint64_t incarnation);
void child_learn(struct child *c, const struct roles_vm *vm); /* name and NICs of an adopted one */
int child_send(struct child *c, Ctl__ToReplica *msg, const int *fds, unsigned nfds);
void child_send_roles(struct child *c, const struct roles_vm *vm, uint64_t nonce);
void child_leave(struct child *c);              /* it should exit; killed if it does not */
void child_fence(struct child *c, bool attach); /* TAPs on or off their bridges */
/* Say in the record that this process is gone; repeated until it is in it. */
void child_report_lost(struct daemon *d, const uint8_t *vm, uint64_t incarnation);
void child_tick(struct daemon *d);
void child_detach_all(struct daemon *d); /* the daemon stops, the replicas go on */

/* --- session.c --- */
/* Output from @pos on; without @data: there is room for more input, or it has ended, @closed says
 * why. */
typedef void (*session_cb)(void *ctx, const void *data, size_t len, uint64_t pos,
                           const char *closed);
/* NULL: out of memory. */
struct session *session_open(struct daemon *d, const struct roles_vm *vm, uint32_t port,
                             session_cb cb, void *ctx);
/* What was typed: how much of it was taken. If not all, the callback says later when to go on. */
size_t session_input(struct session *s, const void *data, size_t len);
void session_close(struct session *s);
void session_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg);
void session_output(struct child *c, const Ctl__ConsoleData *data);
void session_taken(struct child *c, const Ctl__ConsoleTaken *taken);
void session_record(struct daemon *d, const uint8_t *uuid, const struct roles_vm *vm);
void session_tick(struct daemon *d);
void session_close_all(struct daemon *d);

/* --- api.c --- */
int api_open(struct daemon *d, struct plx_err *err);
void api_tick(struct daemon *d); /* take up a client that there was no memory for */
void api_close(struct daemon *d);

/* --- metrics.c --- */
int metrics_open(struct daemon *d, struct plx_err *err); /* nothing to do when it is off */
void metrics_update(struct daemon *d);
void metrics_close(struct daemon *d);

#endif
