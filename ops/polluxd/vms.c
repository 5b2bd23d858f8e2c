/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/vms.c - what runs on this node follows the applied records.
 *
 * On every change: a replica that the record does not name any more loses its TAPs at once and must
 * exit; one that is named is told the roles; one that is named and prepared but not running is
 * started; one that is named but does not exist is reported lost, once this node can be sure. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"

enum { ADOPTION_MS = 3000 }; /* a replica left behind by an earlier daemon is found by then */

static bool names(const struct role_replica *r, uint64_t incarnation)
{
    return r->node != 0 && r->incarnation == incarnation;
}

void vms_follow(struct child *c, const struct roles_vm *vm, uint64_t nonce)
{
    bool primary = vm != NULL && names(&vm->primary, c->incarnation);
    bool backup = vm != NULL && names(&vm->backup, c->incarnation);

    if (vm != NULL && c->vm_name[0] == '\0') {
        child_learn(c, vm);
    }
    if (!primary && !backup) {
        child_fence(c, false); /* before anything else */
        child_send_roles(c, vm, nonce);
        child_leave(c);
        return;
    }
    if (primary && c->role == CTL__ROLE__BACKUP) {
        event_raise(c->d, c->vm, "role", "node %s is now the primary (epoch %llu)",
                    c->d->conf->name, (unsigned long long)vm->epoch);
    }
    c->role = primary ? CTL__ROLE__PRIMARY : CTL__ROLE__BACKUP;
    child_fence(c, primary);
    child_send_roles(c, vm, nonce);
}

static void start_named(struct daemon *d, const struct roles_vm *vm, const struct role_replica *r)
{
    struct plx_err err = {""};

    if (r->node != d->conf->self || child_find(d, r->incarnation) != NULL) {
        return;
    }
    struct prepared *p = prepared_take(d, r->incarnation);
    if (p == NULL) {
        return; /* vms_tick reports it */
    }
    int rc = child_spawn(d, p, vm, &err);
    p->next = d->prepared; /* used up: it only waits to be freed */
    p->ok = false;
    d->prepared = p;
    struct child *c = rc == 0 ? child_find(d, r->incarnation) : NULL;
    if (c != NULL) {
        child_fence(c, c->role == CTL__ROLE__PRIMARY);
        return;
    }
    event_raise(d, vm->uuid, "failed", "node %s: %s", d->conf->name, err.msg);
    child_report_lost(d, vm->uuid, r->incarnation);
}

void vms_record(struct daemon *d, const uint8_t *uuid, const struct roles_vm *vm)
{
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        next = c->next;
        if (!c->closed && c->incarnation != 0 && memcmp(c->vm, uuid, ROLES_UUID_LEN) == 0) {
            vms_follow(c, vm, 0);
        }
    }
    if (vm != NULL && vm->phase == ROLES_STARTING) {
        start_named(d, vm, &vm->primary);
        start_named(d, vm, &vm->backup);
    }
}

static bool missing(const struct daemon *d, const struct role_replica *r)
{
    return r->node == d->conf->self && child_find(d, r->incarnation) == NULL;
}

void vms_tick(struct daemon *d)
{
    const struct roles_state *s = cluster_state(d->cluster);

    if (!d->caught_up) {
        return;
    }
    for (struct child *c = d->children, *next; c != NULL; c = next) {
        const struct roles_vm *vm = daemon_vm(d, c->vm);
        next = c->next;
        /* Records that were applied before the replica was adopted. */
        if (!c->closed && !c->leaving && c->incarnation != 0 &&
            (vm == NULL || c->epoch != vm->epoch)) {
            vms_follow(c, vm, 0);
        }
    }
    for (unsigned i = 0; i < s->n; i++) {
        const struct roles_vm *vm = &s->vms[i];
        if (vm->phase == ROLES_STOPPED ||
            clock_mono_ns() - d->started_ns < (uint64_t)ADOPTION_MS * 1000000) {
            continue;
        }
        const struct role_replica *const both[] = {&vm->primary, &vm->backup};
        for (unsigned k = 0; k < 2; k++) {
            bool known = k == 0 && vm->primary_lost;
            if (missing(d, both[k]) && !known) {
                log_warn("the record names a replica of %s here that does not exist", vm->name);
                child_report_lost(d, vm->uuid, both[k]->incarnation);
            }
        }
    }
}
