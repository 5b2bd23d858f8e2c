/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/events.c - the ring of events and the latest figures of every replica. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"

static void keep(struct daemon *d, const struct event *e)
{
    d->events[d->next_event % EVENTS_MAX] = *e;
    d->next_event++;
    d->count.events++;
    d->count.takeovers += strcmp(e->kind, "takeover") == 0;
    d->count.divergences += strcmp(e->kind, "divergence") == 0;
    d->count.host_errors += strcmp(e->kind, "host-error") == 0;
}

void event_raise(struct daemon *d, const uint8_t *vm, const char *kind, const char *fmt, ...)
{
    struct event e = {.id = daemon_random(), .wall_ns = clock_wall_ns(), .of_vm = vm != NULL};
    va_list ap;

    (void)snprintf(e.node, sizeof e.node, "%s", d->conf->name);
    (void)snprintf(e.kind, sizeof e.kind, "%s", kind);
    va_start(ap, fmt);
    (void)vsnprintf(e.text, sizeof e.text, fmt, ap);
    va_end(ap);
    if (vm != NULL) {
        memcpy(e.vm, vm, ROLES_UUID_LEN);
    }
    const struct roles_vm *record = vm != NULL ? daemon_vm(d, vm) : NULL;
    log_info("event %s%s%s: %s", kind, record != NULL ? " of " : "",
             record != NULL ? record->name : "", e.text);
    keep(d, &e);
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__VmEvent w = CL__VM_EVENT__INIT;
    w.id = e.id;
    w.wall_ns = e.wall_ns;
    w.node = e.node;
    w.vm = (ProtobufCBinaryData){.len = vm != NULL ? ROLES_UUID_LEN : 0, .data = e.vm};
    w.kind = e.kind;
    w.text = e.text;
    m.msg_case = CL__NODE_MESSAGE__MSG_VM_EVENT;
    m.vm_event = &w;
    daemon_send(d, 0, &m);
}

void event_received(struct daemon *d, const Cl__VmEvent *w)
{
    struct event e = {.id = w->id, .wall_ns = w->wall_ns};

    if (w->vm.len != 0 && w->vm.len != ROLES_UUID_LEN) {
        return;
    }
    e.of_vm = w->vm.len != 0;
    if (e.of_vm) {
        memcpy(e.vm, w->vm.data, ROLES_UUID_LEN);
    }
    (void)snprintf(e.node, sizeof e.node, "%s", w->node);
    (void)snprintf(e.kind, sizeof e.kind, "%s", w->kind);
    (void)snprintf(e.text, sizeof e.text, "%s", w->text);
    for (unsigned i = 0; event_at(d, i) != NULL; i++) {
        if (event_at(d, i)->id == e.id) {
            return;
        }
    }
    keep(d, &e);
}

const struct event *event_at(const struct daemon *d, unsigned i)
{
    if (i >= d->next_event || i >= EVENTS_MAX) {
        return NULL;
    }
    return &d->events[(d->next_event - 1 - i) % EVENTS_MAX];
}

/* Those of VMs that are no longer defined. */
static void stats_forget_old(struct daemon *d)
{
    for (struct vm_stats **at = &d->stats; *at != NULL;) {
        struct vm_stats *v = *at;
        if (daemon_vm(d, v->vm) == NULL) {
            *at = v->next;
            plx_free(v);
        } else {
            at = &v->next;
        }
    }
}

void stats_store(struct daemon *d, const uint8_t *vm, uint32_t node, const Ctl__Stats *s)
{
    struct vm_stats *v = (struct vm_stats *)(uintptr_t)stats_find(d, vm, node);

    if (daemon_vm(d, vm) == NULL) {
        return;
    }
    if (v == NULL) {
        stats_forget_old(d);
        v = plx_calloc(1, sizeof *v);
        if (v == NULL) {
            return; /* they come again within a second */
        }
        memcpy(v->vm, vm, ROLES_UUID_LEN);
        v->node = node;
        v->next = d->stats;
        d->stats = v;
    }
    v->s = *s;
    (void)snprintf(v->jit_forms, sizeof v->jit_forms, "%s", s->jit_forms);
    v->s.jit_forms = v->jit_forms;
    v->s.base.n_unknown_fields = 0;
    v->s.base.unknown_fields = NULL;
    v->heard_ns = clock_mono_ns();
}

const struct vm_stats *stats_find(const struct daemon *d, const uint8_t *vm, uint32_t node)
{
    for (const struct vm_stats *v = d->stats; v != NULL; v = v->next) {
        if (v->node == node && memcmp(v->vm, vm, ROLES_UUID_LEN) == 0) {
            return v;
        }
    }
    return NULL;
}

void stats_free(struct daemon *d)
{
    while (d->stats != NULL) {
        struct vm_stats *v = d->stats;
        d->stats = v->next;
        plx_free(v);
    }
}
