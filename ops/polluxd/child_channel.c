/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/child_channel.c - what replicas say and ask on their control channels
 * (proto/control.proto).
 *
 * What a replica says is checked; what it asks for is proposed until the record shows an answer. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/child_priv.h"
#include "proto/frame.h"

enum { PROPOSE_MS = 3000, ASK_MS = 1000, GRACE_MS = 1000 };

/* --- commands on behalf of replicas -------------------------------------------------------- */

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
    if (rc == PLX_ENOMEM && still_wanted(w, vm)) {
        w->retry_ns = clock_mono_ns() + (uint64_t)GRACE_MS * 1000000;
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
    if (rc != 0 || !still_wanted(w, vm)) { /* on_wish tries again for want of memory */
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

void child_retry_wishes(struct daemon *d, uint64_t now)
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

/* False: out of memory; whoever asks does so again. */
static bool wish(struct daemon *d, const uint8_t *vm, const struct roles_cmd *cmd)
{
    for (const struct wish *o = d->wishes; o != NULL; o = o->next) {
        if (o->cmd.op == cmd->op && o->cmd.incarnation == cmd->incarnation &&
            o->cmd.epoch == cmd->epoch) {
            return true; /* on its way */
        }
    }
    struct wish *w = plx_calloc(1, sizeof *w);
    if (w == NULL) {
        log_warn("out of memory: %s must be asked for again", roles_op_name(cmd->op));
        return false;
    }
    w->d = d;
    w->next = d->wishes;
    d->wishes = w;
    w->cmd = *cmd;
    memcpy(w->cmd.uuid, vm, ROLES_UUID_LEN);
    propose_wish(w);
    return true;
}

void child_report_lost(struct daemon *d, const uint8_t *vm, uint64_t incarnation)
{
    (void)wish(d, vm,
               &(struct roles_cmd){
                   .op = ROLES_LOST, .request = daemon_random(), .incarnation = incarnation});
}

/* --- what replicas say and ask -------------------------------------------------------------- */

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

    if (r == NULL) {
        return; /* no answer: it asks again */
    }
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
    for (struct wish *w = c->d->wishes; w != NULL && m->kind == CTL__REQUEST_KIND__RESUME;
         w = w->next) {
        w->superseded = w->superseded || (goes_alone(w) && w->cmd.incarnation == c->incarnation);
    }
    c->pending_request = m->request;
    if (!wish(c->d, c->vm,
              &(struct roles_cmd){.op = ops[m->kind],
                                  .request = m->request,
                                  .epoch = m->epoch,
                                  .incarnation = c->incarnation})) {
        c->pending_request = 0;
    }
}

static void on_stopped(struct child *c, const Ctl__Stopped *m)
{
    if (m->incarnation != c->incarnation || m->event == 0 || m->event >= ROLES_STOP_END) {
        return;
    }
    if (m->event == ROLES_STOP_FAILED || m->event == ROLES_STOP_DIVERGED) {
        event_raise(c->d, c->vm, "failed", "%s", m->text);
    }
    (void)wish(c->d, c->vm,
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
/* An adopted replica introduces itself; one of our own only tells its version. */
static void on_hello(struct child *c, const Ctl__Hello *h)
{
    if (h->version != CONTROL_VERSION) {
        log_error("replica %d speaks version %u of the control protocol, not %d", c->pid,
                  h->version, CONTROL_VERSION);
        c->incarnation = c->incarnation != 0 ? c->incarnation : c->found;
        child_close(c, false); /* what nobody can command must not go on */
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
            (void)wish(c->d, c->vm,
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
    case CTL__FROM_REPLICA__MSG_CONSOLE_TAKEN:
        session_taken(c, m->console_taken);
        break;
    default:
        log_warn("replica %d of %s sent a message that is not understood", c->pid, c->vm_name);
    }
    ctl__from_replica__free_unpacked(m, NULL);
}

void child_readable(uv_poll_t *h, int status, int events)
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
        child_close(c, false);
        if (named && !d->stopping) {
            child_report_lost(d, uuid, incarnation);
        }
        return;
    }
}
