/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/child.c - one replica process of this node and its control channel
 * (proto/control.proto).
 *
 * A replica outlives the daemon: it is a session of its own, and when the channel ends it listens
 * on run_dir/ID.sock, where ID is its incarnation in hex; child_scan finds it there again. What a
 * replica says is checked; what it asks for is proposed until the record shows an answer. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"
#include "proto/frame.h"

enum {
    CONTROL_FD = 3,
    CONTROL_VERSION = 1,
    LEAVE_MS = 2000,
    PROPOSE_MS = 3000,
    ASK_MS = 1000,
    GRACE_MS = 1000
};

/* --- names --------------------------------------------------------------------------------- */

static void tap_name(uint64_t incarnation, unsigned nic, char out[16])
{
    (void)snprintf(out, 16, "px%08xn%u", (unsigned)(incarnation >> 32), nic & 0xf);
}

static void socket_path(struct daemon *d, uint64_t incarnation, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%.3000s/%016llx.sock", d->conf->run_dir,
                   (unsigned long long)incarnation);
}

struct child *child_find(const struct daemon *d, uint64_t incarnation)
{
    for (struct child *c = d->children; c != NULL; c = c->next) {
        if (c->incarnation == incarnation && incarnation != 0 && !c->closed) {
            return c;
        }
    }
    return NULL;
}

struct child *child_of_vm(const struct daemon *d, const uint8_t *uuid)
{
    for (struct child *c = d->children; c != NULL; c = c->next) {
        if (!c->leaving && !c->closed && memcmp(c->vm, uuid, ROLES_UUID_LEN) == 0) {
            return c;
        }
    }
    return NULL;
}

/* --- sending ------------------------------------------------------------------------------- */

int child_send(struct child *c, Ctl__ToReplica *msg, const int *fds, unsigned nfds)
{
    size_t len = ctl__to_replica__get_packed_size(msg);

    if (c->closed || len > PACKET_MAX) {
        return PLX_ECONN;
    }
    (void)ctl__to_replica__pack(msg, c->packet);
    if (packet_send(c->fd, c->packet, len, fds, nfds) != 0) {
        return errno == EAGAIN ? PLX_EAGAIN : PLX_ECONN;
    }
    return 0;
}

static void fill_replica(Ctl__Replica *w, const struct role_replica *r)
{
    ctl__replica__init(w);
    w->node = r->node;
    w->incarnation = r->incarnation;
    if (r->node != 0) {
        w->key = (ProtobufCBinaryData){.len = ROLES_KEY_LEN, .data = (uint8_t *)(uintptr_t)r->key};
        w->endpoint = (char *)(uintptr_t)r->endpoint;
    }
}

struct roles_view {
    Ctl__Roles m;
    Ctl__Replica primary, backup;
};

static void fill_roles(struct roles_view *v, const struct roles_vm *vm, uint64_t nonce)
{
    ctl__roles__init(&v->m);
    v->m.nonce = nonce;
    if (vm == NULL) {
        v->m.stopped = true;
        v->m.epoch = UINT64_MAX; /* forgotten: no epoch of it will come again */
        return;
    }
    fill_replica(&v->primary, &vm->primary);
    fill_replica(&v->backup, &vm->backup);
    v->m.epoch = vm->epoch;
    v->m.primary = &v->primary;
    v->m.backup = &v->backup;
    v->m.in_sync = vm->in_sync;
    v->m.primary_lost = vm->primary_lost;
    v->m.stopped = vm->phase == ROLES_STOPPED;
}

void child_send_roles(struct child *c, const struct roles_vm *vm, uint64_t nonce)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    struct roles_view v;

    fill_roles(&v, vm, nonce);
    m.msg_case = CTL__TO_REPLICA__MSG_ROLES;
    m.roles = &v.m;
    int rc = child_send(c, &m, NULL, 0);
    c->roles_due = rc == PLX_EAGAIN;
    if (rc == 0 && vm != NULL) {
        c->epoch = vm->epoch;
    }
}

/* --- leaving ------------------------------------------------------------------------------- */

void child_fence(struct child *c, bool attach)
{
    char name[16];

    if (attach == c->attached) {
        return;
    }
    c->attached = attach;
    for (unsigned i = 0; i < c->nnics; i++) {
        struct plx_err err = {""};
        tap_name(c->incarnation, i, name);
        if (!attach) {
            tap_detach(name, c->bridge[i]);
        } else if (tap_attach(name, c->bridge[i], &err) != 0) {
            event_raise(c->d, c->vm, "network", "%s", err.msg);
        }
    }
    log_info("replica %d of %s: TAPs %s", c->pid, c->vm_name, attach ? "up" : "down");
}

void child_leave(struct child *c)
{
    if (!c->leaving) {
        c->leaving = true;
        c->kill_ns = clock_mono_ns() + (uint64_t)LEAVE_MS * 1000000;
    }
}

static void on_handle_closed(uv_handle_t *h)
{
    struct child *c = h->data;

    if (--c->open_handles > 0) {
        return;
    }
    for (struct child **at = &c->d->children; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    plx_free(c->packet);
    plx_free(c);
}

/* The channel is of no more use: the process is gone, or will be now. Unless @keep: the daemon
 * stops, and the replica shall go on. */
static void close_child(struct child *c, bool keep)
{
    char path[PATH_MAX];

    if (c->closed) {
        return;
    }
    if (!keep) {
        child_fence(c, false);
        if (c->pid > 0) {
            (void)kill(c->pid, SIGKILL);
        }
        socket_path(c->d, c->incarnation, path);
        (void)unlink(path);
        c->d->count.replica_exits++;
    }
    c->closed = true;
    (void)uv_poll_stop(&c->poll);
    (void)close(c->fd);
    uv_close((uv_handle_t *)&c->poll, on_handle_closed);
    if (c->ours && (keep || c->pid == 0)) {
        uv_close((uv_handle_t *)&c->process, on_handle_closed);
    }
}

static void on_process_exit(uv_process_t *p, int64_t status, int sig)
{
    struct child *c = p->data;

    log_info("replica %d of %s exited (status %lld, signal %d)", c->pid, c->vm_name,
             (long long)status, sig);
    c->pid = 0;
    if (c->closed) {
        uv_close((uv_handle_t *)p, on_handle_closed);
    } /* else: what it sent last is still to be read; the end of the channel follows */
}

/* --- what replicas ask --------------------------------------------------------------------- */

struct wish { /* a command that is proposed until the record has moved past it */
    struct wish *next;
    struct daemon *d;
    struct roles_cmd cmd;
    bool superseded;   /* its replica has asked to resume instead */
    uint64_t retry_ns; /* when to propose it again; 0: it is on its way */
};

static void propose_wish(struct wish *w);
static void await_majority(struct wish *w);

static bool goes_alone(const struct wish *w)
{
    return w->cmd.op == ROLES_TAKEOVER || w->cmd.op == ROLES_DROP_BACKUP;
}

static bool still_wanted(const struct wish *w, const struct roles_vm *vm)
{
    const struct roles_cmd *c = &w->cmd;

    if (vm == NULL || w->d->stopping || w->superseded) {
        return false;
    }
    if (c->op != ROLES_STOP && c->op != ROLES_LOST && child_find(w->d, c->incarnation) == NULL) {
        return false;
    }
    return (c->op == ROLES_STOP || c->op == ROLES_LOST || vm->epoch == c->epoch) &&
           (vm->primary.incarnation == c->incarnation || vm->backup.incarnation == c->incarnation);
}

static void on_wish(void *ctx, int rc, enum roles_result result)
{
    struct wish *w = ctx;
    const struct roles_vm *vm = daemon_vm(w->d, w->cmd.uuid);
    struct child *c = child_find(w->d, w->cmd.incarnation);

    if (rc == PLX_ETIMEDOUT && still_wanted(w, vm)) {
        if (goes_alone(w)) {
            await_majority(w);
        } else {
            propose_wish(w);
        }
        return;
    }
    if (c != NULL && c->pending_request == w->cmd.request) {
        c->pending_request = 0;
    }
    if (rc == 0 && result != ROLES_RES_DONE) {
        log_warn("%s of %s in epoch %llu was refused: %s", roles_op_name(w->cmd.op),
                 c != NULL ? c->vm_name : "a VM", (unsigned long long)w->cmd.epoch,
                 roles_result_text(result));
    }
    if (rc == 0 && c != NULL) {
        vms_follow(c, vm, 0); /* also when the record came before this daemon had caught up */
    }
    for (struct wish **at = &w->d->wishes; *at != NULL; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    plx_free(w);
}

static void propose_wish(struct wish *w)
{
    w->retry_ns = 0;
    cluster_propose(w->d->cluster, &w->cmd, goes_alone(w) ? ASK_MS : PROPOSE_MS, on_wish, w);
}

/* There was no majority. When there is one again the link of the pair may heal with it: a replica
 * that could go on alone waits a little, so that the pair can resume (ARCHITECTURE.md, "Roles"). */
static void on_majority(void *ctx, int rc, enum roles_result result)
{
    struct wish *w = ctx;
    const struct roles_vm *vm = daemon_vm(w->d, w->cmd.uuid);

    (void)result;
    if (rc == PLX_ETIMEDOUT && still_wanted(w, vm)) {
        await_majority(w);
        return;
    }
    if (rc != 0 || !still_wanted(w, vm)) {
        on_wish(w, rc != 0 ? rc : PLX_ECANCELED, ROLES_RES_DONE);
        return;
    }
    uint32_t peer = w->cmd.op == ROLES_TAKEOVER ? vm->primary.node : vm->backup.node;
    if (vm->primary_lost || !cluster_node_up(w->d->cluster, peer)) {
        propose_wish(w);
    } else {
        w->retry_ns = clock_mono_ns() + (uint64_t)GRACE_MS * 1000000;
    }
}

static void await_majority(struct wish *w)
{
    cluster_read(w->d->cluster, PROPOSE_MS, on_majority, w);
}

static void retry_wishes(struct daemon *d, uint64_t now)
{
    for (struct wish *w = d->wishes, *next; w != NULL; w = next) {
        next = w->next;
        if (w->retry_ns != 0 && now >= w->retry_ns) {
            if (still_wanted(w, daemon_vm(d, w->cmd.uuid))) {
                propose_wish(w);
            } else {
                on_wish(w, PLX_ECANCELED, ROLES_RES_DONE);
            }
        }
    }
}

static void wish(struct daemon *d, const uint8_t *vm, const struct roles_cmd *cmd)
{
    for (const struct wish *o = d->wishes; o != NULL; o = o->next) {
        if (o->cmd.op == cmd->op && o->cmd.incarnation == cmd->incarnation &&
            o->cmd.epoch == cmd->epoch) {
            return; /* on its way */
        }
    }
    struct wish *w = plx_calloc(1, sizeof *w);
    PLX_CHECK(w != NULL);
    w->d = d;
    w->next = d->wishes;
    d->wishes = w;
    w->cmd = *cmd;
    memcpy(w->cmd.uuid, vm, ROLES_UUID_LEN);
    propose_wish(w);
}

void child_report_lost(struct daemon *d, const uint8_t *vm, uint64_t incarnation)
{
    wish(d, vm,
         &(struct roles_cmd){
             .op = ROLES_LOST, .request = daemon_random(), .incarnation = incarnation});
}

struct reading {
    struct daemon *d;
    uint64_t incarnation, nonce;
};

static void on_reading(void *ctx, int rc, enum roles_result result)
{
    struct reading *r = ctx;
    struct child *c = child_find(r->d, r->incarnation);

    (void)result;
    if (rc == 0 && c != NULL) { /* without a majority there is no answer: it asks again */
        vms_follow(c, daemon_vm(r->d, c->vm), r->nonce);
    }
    plx_free(r);
}

static void on_read_roles(struct child *c, const Ctl__ReadRoles *m)
{
    struct reading *r = plx_calloc(1, sizeof *r);

    PLX_CHECK(r != NULL);
    *r = (struct reading){.d = c->d, .incarnation = c->incarnation, .nonce = m->nonce};
    cluster_read(c->d->cluster, PROPOSE_MS, on_reading, r);
}

static void on_request(struct child *c, const Ctl__Request *m)
{
    static const enum roles_op ops[] = {
        [CTL__REQUEST_KIND__DROP_BACKUP] = ROLES_DROP_BACKUP,
        [CTL__REQUEST_KIND__TAKEOVER] = ROLES_TAKEOVER,
        [CTL__REQUEST_KIND__RESUME] = ROLES_RESUME,
    };

    if ((unsigned)m->kind >= PLX_COUNT(ops) || ops[m->kind] == ROLES_OP_NONE || m->request == 0 ||
        m->incarnation != c->incarnation) {
        log_warn("replica %d of %s: a request that makes no sense", c->pid, c->vm_name);
        return;
    }
    if (c->pending_request == m->request) {
        return; /* it is being proposed already */
    }
    log_info("%s (epoch %llu) asks: %s", c->vm_name, (unsigned long long)m->epoch,
             roles_op_name(ops[m->kind]));
    c->pending_request = m->request;
    for (struct wish *w = c->d->wishes; w != NULL && m->kind == CTL__REQUEST_KIND__RESUME;
         w = w->next) {
        w->superseded = w->superseded || (goes_alone(w) && w->cmd.incarnation == c->incarnation);
    }
    wish(c->d, c->vm,
         &(struct roles_cmd){.op = ops[m->kind],
                             .request = m->request,
                             .epoch = m->epoch,
                             .incarnation = c->incarnation});
}

static void on_stopped(struct child *c, const Ctl__Stopped *m)
{
    if (m->incarnation != c->incarnation || m->event == 0 || m->event >= ROLES_STOP_END) {
        return;
    }
    if (m->event == ROLES_STOP_FAILED || m->event == ROLES_STOP_DIVERGED) {
        event_raise(c->d, c->vm, "failed", "%s", m->text);
    }
    wish(c->d, c->vm,
         &(struct roles_cmd){.op = ROLES_STOP,
                             .request = daemon_random(),
                             .incarnation = c->incarnation,
                             .stop = (enum roles_stop)m->event,
                             .code = m->code});
}

static void on_stats(struct child *c, Ctl__Stats *s)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__VmStats w = CL__VM_STATS__INIT;

    stats_store(c->d, c->vm, c->d->conf->self, s);
    w.vm = (ProtobufCBinaryData){.len = sizeof c->vm, .data = c->vm};
    w.stats = s;
    m.msg_case = CL__NODE_MESSAGE__MSG_VM_STATS;
    m.vm_stats = &w;
    daemon_send(c->d, 0, &m);
}

static void on_hello(struct child *c, const Ctl__Hello *h);

static void on_packet(struct child *c, const uint8_t *data, size_t len)
{
    Ctl__FromReplica *m = ctl__from_replica__unpack(NULL, len, data);
    const struct roles_vm *vm;

    if (m == NULL) {
        log_warn("replica %d of %s sent a malformed message", c->pid, c->vm_name);
        return;
    }
    switch (m->msg_case) {
    case CTL__FROM_REPLICA__MSG_HELLO:
        on_hello(c, m->hello);
        break;
    case CTL__FROM_REPLICA__MSG_READY:
        vm = daemon_vm(c->d, c->vm);
        if (vm != NULL && vm->phase == ROLES_RUNNING) {
            vms_follow(c, vm, 0); /* said again, by one that took over or was adopted */
        } else if (m->ready->incarnation == c->incarnation) {
            wish(c->d, c->vm,
                 &(struct roles_cmd){.op = ROLES_READY,
                                     .request = daemon_random(),
                                     .epoch = m->ready->epoch,
                                     .incarnation = c->incarnation});
        }
        break;
    case CTL__FROM_REPLICA__MSG_REQUEST:
        on_request(c, m->request);
        break;
    case CTL__FROM_REPLICA__MSG_READ_ROLES:
        on_read_roles(c, m->read_roles);
        break;
    case CTL__FROM_REPLICA__MSG_EVENT:
        event_raise(c->d, c->vm, m->event->kind, "%s", m->event->text);
        break;
    case CTL__FROM_REPLICA__MSG_STATS:
        on_stats(c, m->stats);
        break;
    case CTL__FROM_REPLICA__MSG_STOPPED:
        on_stopped(c, m->stopped);
        break;
    case CTL__FROM_REPLICA__MSG_CONSOLE_DATA:
        session_output(c, m->console_data);
        break;
    default:
        log_warn("replica %d of %s sent a message that is not understood", c->pid, c->vm_name);
    }
    ctl__from_replica__free_unpacked(m, NULL);
}

static void on_readable(uv_poll_t *h, int status, int events)
{
    enum { BATCH = 32 };
    struct child *c = h->data;
    static uint8_t buf[PACKET_MAX]; /* one thread */
    int fds[PACKET_FDS_MAX];
    unsigned nfds;

    (void)status;
    (void)events;
    for (int i = 0; i < BATCH && !c->closed; i++) {
        ssize_t n = packet_recv(c->fd, buf, sizeof buf, fds, &nfds);
        while (nfds > 0) {
            (void)close(fds[--nfds]); /* nobody sends us any */
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n > 0) {
            on_packet(c, buf, (size_t)n);
            continue;
        }
        const struct roles_vm *vm = daemon_vm(c->d, c->vm);
        bool named =
            vm != NULL && c->incarnation != 0 &&
            (vm->primary.incarnation == c->incarnation || vm->backup.incarnation == c->incarnation);
        if (named && !c->d->stopping) {
            event_raise(c->d, c->vm, "replica-exit", "the %s on node %s is gone (epoch %llu)",
                        vm->primary.incarnation == c->incarnation ? "primary" : "backup",
                        c->d->conf->name, (unsigned long long)vm->epoch);
        }
        uint64_t incarnation = c->incarnation;
        uint8_t uuid[ROLES_UUID_LEN];
        memcpy(uuid, c->vm, sizeof uuid);
        struct daemon *d = c->d;
        close_child(c, false);
        if (named && !d->stopping) {
            child_report_lost(d, uuid, incarnation);
        }
        return;
    }
}

/* --- beginning ----------------------------------------------------------------------------- */

static struct child *make_child(struct daemon *d, int fd)
{
    struct child *c = plx_calloc(1, sizeof *c);

    PLX_CHECK(c != NULL);
    c->packet = plx_calloc(1, PACKET_MAX);
    PLX_CHECK(c->packet != NULL);
    c->d = d;
    c->fd = fd;
    (void)io_set_nonblock(fd);
    PLX_CHECK(uv_poll_init(&d->loop, &c->poll, fd) == 0);
    c->poll.data = c;
    c->open_handles = 1;
    c->next = d->children;
    d->children = c;
    (void)uv_poll_start(&c->poll, UV_READABLE, on_readable);
    return c;
}

static void take_nics(struct child *c, const struct domain *dom)
{
    c->nnics = dom->nnics;
    for (unsigned i = 0; i < dom->nnics; i++) {
        const char *bridge = dom->nics[i].bridge;
        (void)snprintf(c->bridge[i], sizeof c->bridge[i], "%s",
                       bridge[0] != '\0' ? bridge : c->d->conf->bridge);
    }
}

void child_learn(struct child *c, const struct roles_vm *vm)
{
    struct domain dom;

    (void)snprintf(c->vm_name, sizeof c->vm_name, "%s", vm->name);
    if (domain_parse(vm->xml, strlen(vm->xml), &dom, NULL) == 0) {
        take_nics(c, &dom);
    }
}

/* An adopted replica introduces itself; one of our own only tells its version. */
static void on_hello(struct child *c, const Ctl__Hello *h)
{
    if (h->version != CONTROL_VERSION) {
        log_error("replica %d speaks version %u of the control protocol, not %d", c->pid,
                  h->version, CONTROL_VERSION);
        close_child(c, false);
        return;
    }
    if (c->ours || c->incarnation != 0 || h->incarnation == 0 || h->vm.len != ROLES_UUID_LEN) {
        return;
    }
    memcpy(c->vm, h->vm.data, ROLES_UUID_LEN);
    c->incarnation = h->incarnation;
    c->role = h->role;
    c->attached = h->role == CTL__ROLE__PRIMARY;
    c->d->count.adoptions++;
    log_info("adopted replica %d, epoch %llu", c->pid, (unsigned long long)h->epoch);
    if (c->d->caught_up) {
        vms_record(c->d, c->vm, daemon_vm(c->d, c->vm));
    }
}

void child_scan(struct daemon *d)
{
    DIR *dir = opendir(d->conf->run_dir);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct ucred cred;
        socklen_t len = sizeof cred;
        char path[PATH_MAX];
        unsigned long long id;
        int end = 0;
        if (sscanf(e->d_name, "%16llx.sock%n", &id, &end) != 1 || e->d_name[end] != '\0' ||
            end == 0 || child_find(d, id) != NULL) {
            continue;
        }
        socket_path(d, id, path);
        if (strlen(path) >= sizeof a.sun_path) {
            continue;
        }
        (void)strcpy(a.sun_path, path);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
            if (fd >= 0) {
                (void)close(fd);
            }
            if (errno == ECONNREFUSED) {
                (void)unlink(path); /* its process is gone */
            }
            continue;
        }
        struct child *c = make_child(d, fd);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            c->pid = cred.pid;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* What Start says. The pieces live in one struct, so that nothing is allocated. */
struct start_view {
    Ctl__Start m;
    struct roles_view roles;
    Ctl__Disk disks[DOMAIN_DISKS_MAX], *disk_list[DOMAIN_DISKS_MAX];
    Ctl__Nic nics[DOMAIN_NICS_MAX], *nic_list[DOMAIN_NICS_MAX];
    uint8_t macs[DOMAIN_NICS_MAX][6];
    char overlays[DOMAIN_DISKS_MAX][PATH_MAX];
    char adopt[PATH_MAX];
    char run_dir[PATH_MAX];
    Ctl__Tunables tunables;
};

static void fill_tunables(Ctl__Tunables *t, const struct conf *c)
{
    ctl__tunables__init(t);
    t->peer_lost_ms = c->peer_lost_ms;
    t->lag_max_ms = c->lag_max_ms;
    t->slice_ns = c->slice_us * 1000;
    t->digest_slices = c->digest_slices;
    t->scrub_ns = (uint64_t)c->scrub_s * 1000000000;
    t->divergence_stop = strcmp(c->divergence, "stop") == 0;
    t->takeover_disabled = strcmp(c->takeover, "no") == 0;
    t->engine = (char *)(uintptr_t)c->engine;
}

static void fill_start(struct start_view *v, struct daemon *d, struct prepared *p,
                       const struct roles_vm *vm)
{
    const struct domain *dom = &p->domain;
    char text[UUID_TEXT];
    Ctl__Start *m = &v->m;

    ctl__start__init(m);
    fill_roles(&v->roles, vm, 0);
    fill_tunables(&v->tunables, d->conf);
    m->vm = (ProtobufCBinaryData){.len = ROLES_UUID_LEN, .data = p->vm};
    m->name = (char *)(uintptr_t)vm->name;
    m->role =
        vm->primary.incarnation == p->replica.incarnation ? CTL__ROLE__PRIMARY : CTL__ROLE__BACKUP;
    m->roles = &v->roles.m;
    m->incarnation = p->replica.incarnation;
    m->secret_key = (ProtobufCBinaryData){.len = ROLES_KEY_LEN, .data = p->secret_key};
    m->bind_endpoint = p->bind_endpoint;
    m->memory = dom->memory;
    m->vcpus = dom->vcpus;
    m->kernel = (char *)(uintptr_t)dom->kernel;
    m->initrd = (char *)(uintptr_t)dom->initrd;
    m->cmdline = (char *)(uintptr_t)dom->cmdline;
    m->state_file = (char *)(uintptr_t)dom->state_file;
    m->rng = dom->rng;
    m->cluster = (ProtobufCBinaryData){.len = NODE_LINK_CLUSTER_LEN,
                                       .data = (uint8_t *)(uintptr_t)cluster_id(d->cluster)};
    m->tunables = &v->tunables;
    for (unsigned i = 0; i < dom->ndisks; i++) {
        ctl__disk__init(&v->disks[i]);
        v->disks[i].base_path = (char *)(uintptr_t)dom->disks[i].path;
        v->disks[i].readonly = dom->disks[i].readonly;
        if (!dom->disks[i].readonly) {
            (void)snprintf(v->overlays[i], PATH_MAX, "%.3000s/overlay/%s-%u", d->conf->state_dir,
                           uuid_text(p->vm, text), i);
            v->disks[i].overlay = v->overlays[i];
        }
        for (unsigned k = 0; k < p->nfiles; k++) {
            if (!p->files[k].overlay && strcmp(p->files[k].path, dom->disks[i].path) == 0) {
                v->disks[i].base_sha256 =
                    (ProtobufCBinaryData){.len = SHA256_LEN, .data = p->files[k].sha};
            }
        }
        v->disk_list[i] = &v->disks[i];
    }
    m->n_disks = dom->ndisks;
    m->disks = v->disk_list;
    for (unsigned i = 0; i < dom->nnics; i++) {
        ctl__nic__init(&v->nics[i]);
        domain_mac(dom, p->vm, i, v->macs[i]);
        v->nics[i].mac = (ProtobufCBinaryData){.len = 6, .data = v->macs[i]};
        v->nics[i].tap = true;
        v->nic_list[i] = &v->nics[i];
    }
    m->n_nics = dom->nnics;
    m->nics = v->nic_list;
    socket_path(d, p->replica.incarnation, v->adopt);
    m->adopt_path = v->adopt;
    (void)snprintf(v->run_dir, sizeof v->run_dir, "%.3000s/%016llx", d->conf->run_dir,
                   (unsigned long long)p->replica.incarnation);
    m->run_dir = v->run_dir;
}

static int find_user(const struct conf *conf, uv_process_options_t *o, struct plx_err *err)
{
    if (conf->replica_user[0] == '\0') {
        return 0;
    }
    const struct passwd *pw = getpwnam(conf->replica_user);
    if (pw == NULL) {
        return plx_fail(err, PLX_ENOENT, "there is no user %s to run replicas as",
                        conf->replica_user);
    }
    o->flags |= UV_PROCESS_SETUID | UV_PROCESS_SETGID;
    o->uid = pw->pw_uid;
    o->gid = pw->pw_gid;
    return 0;
}

int child_spawn(struct daemon *d, struct prepared *p, const struct roles_vm *vm,
                struct plx_err *err)
{
    int sv[2] = {-1, -1}, taps[DOMAIN_NICS_MAX], log_fd = -1;
    unsigned ntaps = 0;
    char log_path[PATH_MAX], name[16];
    struct start_view *v = plx_calloc(1, sizeof *v);
    char title[ROLES_NAME_MAX + 20]; /* what ps(1) shows */
    char *args[] = {title, NULL};
    uv_process_options_t o = {.exit_cb = on_process_exit,
                              .file = d->conf->replica_program,
                              .args = args,
                              .flags = UV_PROCESS_DETACHED};
    uv_stdio_container_t stdio[CONTROL_FD + 1] = {{.flags = UV_IGNORE}};
    int rc;

    PLX_CHECK(v != NULL);
    (void)snprintf(title, sizeof title, "pollux-replica %s", vm->name);
    fill_start(v, d, p, vm);
    rc = find_user(d->conf, &o, err);
    if (rc != 0) {
        goto out;
    }
    if (mkdir(v->run_dir, 0700) != 0 && errno != EEXIST) {
        rc = plx_fail_errno(err, "cannot create %s", v->run_dir);
        goto out;
    }
    if (d->conf->replica_user[0] != '\0') {
        (void)chown(v->run_dir, o.uid, o.gid);
    }
    for (; ntaps < v->m.n_nics; ntaps++) {
        tap_name(p->replica.incarnation, ntaps, name);
        taps[ntaps] = tap_create(name, v->macs[ntaps], err);
        if (taps[ntaps] < 0) {
            rc = taps[ntaps];
            goto out;
        }
    }
    (void)snprintf(log_path, sizeof log_path, "%.4000s/log", v->run_dir);
    log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) != 0) {
        rc = plx_fail_errno(err, "cannot start a replica of %s", vm->name);
        goto out;
    }
    for (int i = 1; i <= 2; i++) {
        stdio[i] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = log_fd};
    }
    stdio[CONTROL_FD] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = sv[1]};
    o.stdio = stdio;
    o.stdio_count = CONTROL_FD + 1;
    struct child *c = make_child(d, sv[0]);
    sv[0] = -1;
    memcpy(c->vm, p->vm, ROLES_UUID_LEN);
    (void)snprintf(c->vm_name, sizeof c->vm_name, "%s", vm->name);
    c->incarnation = p->replica.incarnation;
    c->role = v->m.role;
    c->epoch = vm->epoch;
    c->process.data = c;
    take_nics(c, &p->domain);
    int uvrc = uv_spawn(&d->loop, &c->process, &o);
    c->ours = true; /* the handle must be closed in either case */
    c->open_handles++;
    if (uvrc != 0) {
        rc = plx_fail(err, PLX_EIO, "cannot run %s: %s", o.file, uv_strerror(uvrc));
        close_child(c, false);
        goto out;
    }
    c->pid = c->process.pid;
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    m.msg_case = CTL__TO_REPLICA__MSG_START;
    m.start = &v->m;
    rc = child_send(c, &m, taps, ntaps);
    if (rc != 0) {
        rc = plx_fail(err, rc, "cannot tell the replica of %s what to run", vm->name);
        close_child(c, false);
        goto out;
    }
    d->count.spawns++;
    log_info("replica %d: %s of %s, epoch %llu", c->pid,
             c->role == CTL__ROLE__PRIMARY ? "primary" : "backup", vm->name,
             (unsigned long long)vm->epoch);
out:
    while (ntaps > 0) {
        (void)close(taps[--ntaps]);
    }
    if (log_fd >= 0) {
        (void)close(log_fd);
    }
    for (int i = 0; i < 2; i++) {
        if (sv[i] >= 0) {
            (void)close(sv[i]);
        }
    }
    explicit_bzero(p->secret_key, sizeof p->secret_key);
    plx_free(v);
    return rc;
}

void child_tick(struct daemon *d)
{
    uint64_t now = clock_mono_ns();

    retry_wishes(d, now);
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        next = c->next;
        if (c->closed || c->incarnation == 0) {
            continue;
        }
        if (c->leaving && now >= c->kill_ns) {
            log_warn("replica %d of %s did not exit: killed", c->pid, c->vm_name);
            close_child(c, false);
        } else if (c->roles_due) {
            vms_follow(c, daemon_vm(d, c->vm), 0);
        }
    }
}

void child_detach_all(struct daemon *d)
{
    retry_wishes(d, UINT64_MAX); /* those that wait end here, the others with the cluster */
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        next = c->next;
        close_child(c, true);
    }
}
