/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/child.c - one replica process of this node: its names, its TAPs, what it is told,
 * and its end.
 *
 * A replica outlives the daemon: it is a session of its own, and when the channel ends it listens
 * on run_dir/ID.sock, where ID is its incarnation in hex; child_scan finds it there again. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/polluxd/child_priv.h"
#include "proto/frame.h"

enum { LEAVE_MS = 2000 };

/* --- names --------------------------------------------------------------------------------- */

void child_tap_name(uint64_t incarnation, unsigned nic, char out[16])
{
    (void)snprintf(out, 16, "px%08xn%u", (unsigned)(incarnation >> 32), nic & 0xf);
}

void child_socket_path(struct daemon *d, uint64_t incarnation, char out[PATH_MAX])
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

void child_fill_roles(struct roles_view *v, const struct roles_vm *vm, uint64_t nonce)
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

    child_fill_roles(&v, vm, nonce);
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
        child_tap_name(c->incarnation, i, name);
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

void child_close(struct child *c, bool keep)
{
    char path[PATH_MAX];

    if (c->closed) {
        return;
    }
    if (!keep && c->incarnation != 0) { /* else nothing is known of it */
        child_fence(c, false);
        if (c->pid > 0) {
            (void)kill(c->pid, SIGKILL);
        }
        child_socket_path(c->d, c->incarnation, path);
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

void child_exited(uv_process_t *p, int64_t status, int sig)
{
    struct child *c = p->data;

    log_info("replica %d of %s exited (status %lld, signal %d)", c->pid, c->vm_name,
             (long long)status, sig);
    c->pid = 0;
    if (c->closed) {
        uv_close((uv_handle_t *)p, on_handle_closed);
    } /* else: what it sent last is still to be read; the end of the channel follows */
}

/* --- beginning ----------------------------------------------------------------------------- */

struct child *child_make(struct daemon *d, int fd)
{
    struct child *c = plx_calloc(1, sizeof *c);
    uint8_t *packet = plx_calloc(1, PACKET_MAX);

    (void)io_set_nonblock(fd);
    if (c == NULL || packet == NULL || uv_poll_init(&d->loop, &c->poll, fd) != 0) {
        plx_free(packet);
        plx_free(c);
        (void)close(fd);
        return NULL;
    }
    c->packet = packet;
    c->d = d;
    c->fd = fd;
    c->poll.data = c;
    c->open_handles = 1;
    c->next = d->children;
    d->children = c;
    (void)uv_poll_start(&c->poll, UV_READABLE, child_readable);
    return c;
}

void child_take_nics(struct child *c, const struct domain *dom)
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
        child_take_nics(c, &dom);
    }
}

void child_tick(struct daemon *d)
{
    uint64_t now = clock_mono_ns();

    child_retry_wishes(d, now);
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        next = c->next;
        if (c->closed || c->incarnation == 0) {
            continue;
        }
        if (c->leaving && now >= c->kill_ns) {
            log_warn("replica %d of %s did not exit: killed", c->pid, c->vm_name);
            child_close(c, false);
        } else if (c->roles_due) {
            vms_follow(c, daemon_vm(d, c->vm), 0);
        }
    }
}

void child_detach_all(struct daemon *d)
{
    child_retry_wishes(d, UINT64_MAX); /* those that wait end here, the others with the cluster */
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        next = c->next;
        child_close(c, true);
    }
}
