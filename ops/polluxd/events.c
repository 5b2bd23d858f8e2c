/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/events.c - events, and the latest figures of every replica.
 *
 * A node tells each of its events to all others when it happens; that message may be lost. So the
 * events of one life of a daemon are numbered, and the others take them in this order only: what is
 * not the next one is known already, or shows that some are missing, as the number in the status
 * does every second. Those are asked for and come in batches, as far as they are kept.
 *
 * A message may also come late, after the next life of its daemon has begun. So a new life is
 * believed when it answers a question: an earlier one cannot, is never taken up again, and nothing
 * is shown twice. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"

#define EVENT_NUMBER_MAX (UINT64_MAX / 2) /* what is told is checked, so that no sum overflows */

/* --- the list ------------------------------------------------------------------------------- */

/* Where an event that happens now belongs: at the end, also if the clock was set back. */
static uint64_t at_the_end(const struct events *ev)
{
    uint64_t now = clock_wall_ns();

    return ev->n == 0 || now > ev->list[ev->n - 1].at_ns ? now : ev->list[ev->n - 1].at_ns;
}

static void show(struct daemon *d, const struct event *e)
{
    struct events *ev = &d->events;
    unsigned at = ev->n;

    d->count.events++;
    while (at > 0 && ev->list[at - 1].at_ns > e->at_ns) {
        at--;
    }
    if (ev->n < EVENTS_MAX) {
        memmove(&ev->list[at + 1], &ev->list[at], (ev->n - at) * sizeof *e);
        ev->n++;
    } else if (at > 0) { /* the oldest goes */
        at--;
        memmove(&ev->list[0], &ev->list[1], at * sizeof *e);
    } else {
        return; /* it is the oldest */
    }
    ev->list[at] = *e;
}

const struct event *event_at(const struct daemon *d, unsigned i)
{
    return i < d->events.n ? &d->events.list[d->events.n - 1 - i] : NULL;
}

/* --- those of this node --------------------------------------------------------------------- */

/* @w borrows from @e. */
static void to_wire(const struct daemon *d, const struct event *e, uint64_t number, Cl__VmEvent *w)
{
    cl__vm_event__init(w);
    w->id = daemon_random();
    w->wall_ns = e->wall_ns;
    w->node = (char *)(uintptr_t)e->node;
    w->vm = (ProtobufCBinaryData){.len = e->of_vm ? ROLES_UUID_LEN : 0,
                                  .data = (uint8_t *)(uintptr_t)e->vm};
    w->kind = (char *)(uintptr_t)e->kind;
    w->text = (char *)(uintptr_t)e->text;
    w->life = d->events.life;
    w->number = number;
}

void event_raise(struct daemon *d, const uint8_t *vm, const char *kind, const char *fmt, ...)
{
    struct events *ev = &d->events;
    struct event *e = &ev->own[++ev->newest % EVENTS_KEPT];
    va_list ap;

    *e = (struct event){.wall_ns = clock_wall_ns(), .at_ns = at_the_end(ev), .of_vm = vm != NULL};
    (void)snprintf(e->node, sizeof e->node, "%s", d->conf->name);
    (void)snprintf(e->kind, sizeof e->kind, "%s", kind);
    va_start(ap, fmt);
    (void)vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (vm != NULL) {
        memcpy(e->vm, vm, ROLES_UUID_LEN);
    }
    const struct roles_vm *record = vm != NULL ? daemon_vm(d, vm) : NULL;
    log_info("event %s%s%s: %s", kind, record != NULL ? " of " : "",
             record != NULL ? record->name : "", e->text);
    /* Here and nowhere else, so that the sum over the nodes is how often it happened. */
    d->count.takeovers += strcmp(e->kind, "takeover") == 0;
    d->count.divergences += strcmp(e->kind, "divergence") == 0;
    d->count.host_errors += strcmp(e->kind, "host-error") == 0;
    show(d, e);
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__VmEvent w;
    to_wire(d, e, ev->newest, &w);
    m.msg_case = CL__NODE_MESSAGE__MSG_VM_EVENT;
    m.vm_event = &w;
    daemon_send(d, 0, &m);
}

/* --- those of the others -------------------------------------------------------------------- */

/* NULL: there are no more nodes than that. */
static struct event_source *source_of(struct daemon *d, uint32_t node)
{
    for (unsigned i = 0; i < CONF_NODES_MAX; i++) {
        struct event_source *s = &d->events.sources[i];
        if (s->node == 0) {
            *s = (struct event_source){.node = node, .next = 1};
        }
        if (s->node == node) {
            return s;
        }
    }
    return NULL;
}

/* For what is missing, or whether a life that was told of is the present one. */
static void ask(struct daemon *d, struct event_source *s)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__EventsWanted w = CL__EVENTS_WANTED__INIT;

    if (s->asked || (s->newer == 0 && s->told < s->next)) {
        return;
    }
    w.life = s->newer != 0 ? s->newer : s->life;
    w.from = s->newer != 0 ? 1 : s->next;
    if (s->call == 0 || s->call_life != w.life) { /* else the answer may only be slow */
        s->call = daemon_random();
        s->call_life = w.life;
    }
    w.call = s->call;
    s->asked = true;
    m.msg_case = CL__NODE_MESSAGE__MSG_EVENTS_WANTED;
    m.events_wanted = &w;
    daemon_send(d, s->node, &m);
}

/* Those from the next one through @last will not come: a line in their place, of this node only. */
static void say_lost(struct daemon *d, struct event_source *s, uint64_t last, const char *why)
{
    struct event e = {.wall_ns = clock_wall_ns(), .at_ns = at_the_end(&d->events)};

    (void)snprintf(e.node, sizeof e.node, "%s", d->conf->name);
    (void)snprintf(e.kind, sizeof e.kind, "events-lost");
    (void)snprintf(e.text, sizeof e.text, "%llu of node %s (number %llu to %llu): %s",
                   (unsigned long long)(last - s->next) + 1, conf_node_name(d->conf, s->node),
                   (unsigned long long)s->next, (unsigned long long)last, why);
    log_warn("%s: %s", e.kind, e.text);
    d->count.events_lost += last - s->next + 1;
    s->at_ns = e.at_ns;
    show(d, &e);
}

static void begin_life(struct daemon *d, struct event_source *s, uint64_t life)
{
    if (s->told >= s->next) {
        say_lost(d, s, s->told, "its polluxd was started again before it told them");
    }
    s->life = life;
    s->newer = 0;
    s->next = 1;
    s->told = 0;
}

/* Its daemon, in this life, has events up to @newest. Whether they are taken as they come. */
static bool heard_of(struct event_source *s, uint64_t life, uint64_t newest)
{
    s->newer = life != s->life ? life : 0;
    if (s->newer == 0 && newest > s->told) {
        s->told = newest;
    }
    return s->newer == 0;
}

static void take(struct daemon *d, struct event_source *s, const Cl__VmEvent *w, uint64_t at_ns)
{
    struct event e = {.wall_ns = w->wall_ns, .at_ns = at_ns, .of_vm = w->vm.len != 0};

    if (e.of_vm && w->vm.len != ROLES_UUID_LEN) {
        d->count.events_stale++;
        return;
    }
    if (e.of_vm) {
        memcpy(e.vm, w->vm.data, ROLES_UUID_LEN);
    }
    (void)snprintf(e.node, sizeof e.node, "%s", conf_node_name(d->conf, s->node));
    (void)snprintf(e.kind, sizeof e.kind, "%s", w->kind);
    (void)snprintf(e.text, sizeof e.text, "%s", w->text);
    s->at_ns = at_ns;
    show(d, &e);
}

void event_received(struct daemon *d, uint32_t from, const Cl__VmEvent *w)
{
    struct event_source *s = source_of(d, from);

    if (s == NULL) {
        return;
    }
    if (w->life == 0) { /* of an older polluxd: as it comes, which is at most once */
        take(d, s, w, at_the_end(&d->events));
        return;
    }
    if (w->number == 0 || w->number > EVENT_NUMBER_MAX) {
        d->count.events_stale++;
        return;
    }
    if (heard_of(s, w->life, w->number) && w->number == s->next) {
        s->next++;
        take(d, s, w, at_the_end(&d->events));
    }
    ask(d, s);
}

void event_told(struct daemon *d, uint32_t from, uint64_t life, uint64_t newest)
{
    struct event_source *s = source_of(d, from);

    if (s == NULL || life == 0) {
        return;
    }
    if (newest > EVENT_NUMBER_MAX) {
        d->count.events_stale++;
        return;
    }
    (void)heard_of(s, life, newest);
    ask(d, s);
}

void event_wanted(struct daemon *d, uint32_t from, const Cl__EventsWanted *w)
{
    const struct events *ev = &d->events;
    struct event_source *s = source_of(d, from);
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Events batch = CL__EVENTS__INIT;
    Cl__VmEvent events[EVENTS_BATCH], *list[EVENTS_BATCH];

    if (s == NULL || w->life != ev->life || w->from == 0) {
        d->count.events_stale++;
        return;
    }
    if (s->answers == EVENT_BATCHES) {
        return; /* it asks again */
    }
    s->answers++;
    batch.call = w->call;
    batch.life = ev->life;
    batch.newest = ev->newest;
    batch.oldest = ev->newest > EVENTS_KEPT ? ev->newest - EVENTS_KEPT + 1 : 1;
    uint64_t number = w->from > batch.oldest ? w->from : batch.oldest;
    for (; batch.n_events < EVENTS_BATCH && number <= ev->newest; number++) {
        list[batch.n_events] = &events[batch.n_events];
        to_wire(d, &ev->own[number % EVENTS_KEPT], number, &events[batch.n_events++]);
    }
    batch.events = list;
    m.msg_case = CL__NODE_MESSAGE__MSG_EVENTS;
    m.events = &batch;
    daemon_send(d, from, &m);
}

void event_batch(struct daemon *d, uint32_t from, const Cl__Events *w)
{
    struct event_source *s = source_of(d, from);

    if (s == NULL || w->call == 0 || w->call != s->call || w->life != s->call_life ||
        w->newest > EVENT_NUMBER_MAX || w->oldest > w->newest + 1) {
        d->count.events_stale++;
        return;
    }
    s->call = 0;
    s->asked = false;
    bool first = s->life == 0; /* what is no longer kept was before our time: no loss */
    if (w->life != s->life) {
        begin_life(d, s, w->life);
    }
    uint64_t before = s->next;
    s->told = w->newest > s->told ? w->newest : s->told;
    if (w->oldest > s->next) {
        if (!first) {
            say_lost(d, s, w->oldest - 1, "they are no longer kept there");
        }
        s->next = w->oldest;
    }
    for (size_t i = 0; i < w->n_events && i < EVENTS_BATCH; i++) {
        const Cl__VmEvent *e = w->events[i];
        uint64_t at_ns = e->wall_ns, end_ns = at_the_end(&d->events);
        if (e->number != s->next) {
            continue; /* known */
        }
        /* Where it happened: behind the one before it, and not in the future. */
        at_ns = at_ns > s->at_ns ? at_ns : s->at_ns;
        s->next++;
        take(d, s, e, at_ns < end_ns ? at_ns : end_ns);
    }
    if (s->next != before) { /* else it would be the same question at once, and the same answer */
        ask(d, s);
    }
}

void event_tick(struct daemon *d)
{
    for (unsigned i = 0; i < CONF_NODES_MAX && d->events.sources[i].node != 0; i++) {
        struct event_source *s = &d->events.sources[i];
        s->asked = false;
        s->answers = 0;
        ask(d, s);
    }
}

/* --- figures -------------------------------------------------------------------------------- */

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
