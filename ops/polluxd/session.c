/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/session.c - console sessions: from a connection of the CLI on this node to the
 * primary, wherever that runs, and on to the next primary after a takeover.
 *
 * Output bytes carry their position: a session drops what it has seen and asks a new primary for
 * what follows, so that nothing is lost or doubled. So does what is typed, counted by each session
 * for itself: it keeps what no record is known to carry and says all of that each time it says
 * anything, to a new primary too, which takes what its records do not carry
 * (ops/replica/typists.h). What it cannot keep it does not take. On the way lies a session of the
 * primary's node, which keeps a copy for the time when it has no primary yet.
 *
 * Another node may have SESSIONS_OF_NODE_MAX here, twice what its CLI has connections for: a daemon
 * that died left some behind. When one more is opened, the one that was not used for longest goes,
 * and its owner is told. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"

#define FROM_NOW UINT64_MAX

struct session {
    struct session *next;
    struct daemon *d;
    uint64_t id;
    uint8_t vm[ROLES_UUID_LEN];
    uint32_t port;
    uint64_t pos;         /* of the next byte; FROM_NOW before the first */
    uint32_t owner;       /* node of the CLI's connection: self for our own sessions */
    uint64_t used_ns;     /* when it was opened, or typed into */
    uint64_t incarnation; /* of the replica it is attached to; 0: none */
    uint32_t via;         /* node of that replica */
    uint64_t typed_pos;   /* of the first byte kept */
    size_t ntyped;
    uint8_t typed[CONSOLE_TYPED_MAX];
    session_cb cb; /* own sessions */
    void *ctx;
};

static void say_typed_to_child(struct session *s, struct child *c)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    Ctl__ConsoleData t = CTL__CONSOLE_DATA__INIT;

    t.port = s->port;
    t.session = s->id;
    t.pos = s->typed_pos;
    t.data = (ProtobufCBinaryData){.len = s->ntyped, .data = s->typed};
    m.msg_case = CTL__TO_REPLICA__MSG_CONSOLE_DATA;
    m.console_data = &t;
    (void)child_send(c, &m, NULL, 0); /* into a full pipe: it is said again */
}

static void send_bytes(struct session *s, uint32_t to, uint64_t pos, const void *data, size_t len)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleBytes b = CL__CONSOLE_BYTES__INIT;

    b.session = s->id;
    b.pos = pos;
    b.data = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)data};
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_BYTES;
    m.console_bytes = &b;
    daemon_send(s->d, to, &m);
}

/* All that is kept, to the replica or towards it. */
static void say_typed(struct session *s)
{
    struct child *c = child_find(s->d, s->incarnation);

    if (s->incarnation == 0 || s->ntyped == 0) {
        return;
    }
    if (c != NULL) {
        say_typed_to_child(s, c);
    } else if (s->via != s->d->conf->self) {
        send_bytes(s, s->via, s->typed_pos, s->typed, s->ntyped);
    }
}

/* Records carry what was typed before @pos. False: this is nothing new. */
static bool forget_typed(struct session *s, uint64_t pos)
{
    uint64_t n = pos - s->typed_pos;

    if (pos <= s->typed_pos || n > s->ntyped) {
        return false;
    }
    s->ntyped -= (size_t)n;
    memmove(s->typed, s->typed + n, s->ntyped);
    s->typed_pos = pos;
    return true;
}

static void attach_child(struct session *s, struct child *c)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    Ctl__ConsoleAttach a = CTL__CONSOLE_ATTACH__INIT;

    a.port = s->port;
    a.from = s->pos;
    m.msg_case = CTL__TO_REPLICA__MSG_CONSOLE_ATTACH;
    m.console_attach = &a;
    if (child_send(c, &m, NULL, 0) == 0) {
        s->incarnation = c->incarnation;
        s->via = s->d->conf->self;
        say_typed(s);
    }
}

static void attach(struct session *s, const struct roles_vm *vm)
{
    if (vm == NULL || vm->primary.node == 0 || s->incarnation == vm->primary.incarnation) {
        return;
    }
    if (vm->primary.node == s->d->conf->self) {
        struct child *c = child_find(s->d, vm->primary.incarnation);
        if (c != NULL) {
            attach_child(s, c);
        }
        return;
    }
    if (s->owner != s->d->conf->self) {
        return; /* its owner goes to the new primary itself */
    }
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleOpen o = CL__CONSOLE_OPEN__INIT;
    o.session = s->id;
    o.vm = (ProtobufCBinaryData){.len = sizeof s->vm, .data = s->vm};
    o.port = s->port;
    o.from = s->pos;
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_OPEN;
    m.console_open = &o;
    if (cluster_send(s->d->cluster, vm->primary.node, &m) == 0) {
        s->incarnation = vm->primary.incarnation;
        s->via = vm->primary.node;
        say_typed(s);
    }
}

/* NULL: out of memory. */
static struct session *add(struct daemon *d, uint64_t id, uint32_t owner, const uint8_t *vm,
                           uint32_t port)
{
    struct session *s = plx_calloc(1, sizeof *s);

    if (s == NULL) {
        return NULL;
    }
    s->d = d;
    s->id = id;
    s->owner = owner;
    s->used_ns = clock_mono_ns();
    memcpy(s->vm, vm, sizeof s->vm);
    s->port = port;
    s->pos = FROM_NOW;
    s->next = d->sessions;
    d->sessions = s;
    return s;
}

static void forget(struct session *s)
{
    struct daemon *d = s->d;
    struct child *c = child_find(d, s->incarnation);
    bool shared = false;

    for (struct session **at = &d->sessions; *at != NULL; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    for (const struct session *o = d->sessions; o != NULL; o = o->next) {
        shared = shared || (o->incarnation == s->incarnation && o->port == s->port);
    }
    if (c != NULL && !shared) {
        Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
        Ctl__ConsoleDetach e = CTL__CONSOLE_DETACH__INIT;
        e.port = s->port;
        m.msg_case = CTL__TO_REPLICA__MSG_CONSOLE_DETACH;
        m.console_detach = &e;
        (void)child_send(c, &m, NULL, 0);
    }
    plx_free(s);
}

static void tell_close(struct daemon *d, uint64_t id, uint32_t to, const char *reason)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleClose e = CL__CONSOLE_CLOSE__INIT;

    e.session = id;
    e.reason = (char *)(uintptr_t)reason;
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE;
    m.console_close = &e;
    daemon_send(d, to, &m);
}

struct session *session_open(struct daemon *d, const struct roles_vm *vm, uint32_t port,
                             session_cb cb, void *ctx)
{
    struct session *s = add(d, daemon_random(), d->conf->self, vm->uuid, port);

    if (s != NULL) {
        s->cb = cb;
        s->ctx = ctx;
        attach(s, vm);
    }
    return s;
}

size_t session_input(struct session *s, const void *data, size_t len)
{
    size_t room = sizeof s->typed - s->ntyped, n = len < room ? len : room;

    s->used_ns = clock_mono_ns();
    if (n != 0) {
        memcpy(s->typed + s->ntyped, data, n);
        s->ntyped += n;
        say_typed(s);
    }
    return n;
}

void session_close(struct session *s)
{
    if (s->via != 0 && s->via != s->d->conf->self) {
        tell_close(s->d, s->id, s->via, "closed");
    }
    forget(s);
}

/* Bytes from position @pos on: give the session what it has not seen. */
static void deliver(struct session *s, uint64_t pos, const uint8_t *data, size_t len)
{
    if (s->pos != FROM_NOW && pos < s->pos) {
        uint64_t seen = s->pos - pos;
        if (seen >= len) {
            return;
        }
        data += seen;
        len -= (size_t)seen;
        pos = s->pos;
    }
    s->pos = pos + len;
    if (s->owner == s->d->conf->self) {
        s->cb(s->ctx, data, len, pos, NULL);
    } else {
        send_bytes(s, s->owner, pos, data, len);
    }
}

void session_output(struct child *c, const Ctl__ConsoleData *o)
{
    for (struct session *s = c->d->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->incarnation == c->incarnation && s->port == o->port && o->data.len != 0) {
            deliver(s, o->pos, o->data.data, o->data.len);
        }
    }
}

/* Towards the one who types. */
static void taken(struct session *s, uint64_t pos)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__ConsoleTaken t = CL__CONSOLE_TAKEN__INIT;

    if (!forget_typed(s, pos)) {
        return;
    }
    if (s->owner == s->d->conf->self) {
        s->cb(s->ctx, NULL, 0, 0, NULL); /* which may close it */
        return;
    }
    t.session = s->id;
    t.pos = pos;
    m.msg_case = CL__NODE_MESSAGE__MSG_CONSOLE_TAKEN;
    m.console_taken = &t;
    daemon_send(s->d, s->owner, &m);
}

/* --- with the other nodes ------------------------------------------------------------------ */

static struct session *find(struct daemon *d, uint64_t id)
{
    struct session *s = d->sessions;

    while (s != NULL && s->id != id) {
        s = s->next;
    }
    return s;
}

void session_taken(struct child *c, const Ctl__ConsoleTaken *t)
{
    struct session *s = find(c->d, t->session);

    if (s != NULL && s->incarnation == c->incarnation) {
        taken(s, t->pos);
    }
}

/* Room for one more of node @owner. */
static void make_room(struct daemon *d, uint32_t owner)
{
    struct session *oldest = NULL;
    unsigned n = 0;

    for (struct session *s = d->sessions; s != NULL; s = s->next) {
        if (s->owner == owner) {
            n++;
            oldest = oldest == NULL || s->used_ns <= oldest->used_ns ? s : oldest;
        }
    }
    if (n >= SESSIONS_OF_NODE_MAX) {
        tell_close(d, oldest->id, owner,
                   "too many consoles are open, and this one was not used for longest");
        forget(oldest);
    }
}

static void on_open(struct daemon *d, uint32_t from, const Cl__ConsoleOpen *o)
{
    const struct roles_vm *vm = o->vm.len == ROLES_UUID_LEN ? daemon_vm(d, o->vm.data) : NULL;
    struct session *s = find(d, o->session);

    if (s != NULL && s->owner != from) {
        return;
    }
    if (vm == NULL) {
        tell_close(d, o->session, from, "the primary's node knows no such VM");
        return;
    }
    if (s == NULL) {
        make_room(d, from);
        s = add(d, o->session, from, vm->uuid, o->port);
    }
    if (s == NULL) {
        tell_close(d, o->session, from, "the primary's node is out of memory");
        return;
    }
    s->pos = o->from;
    s->incarnation = 0;
    attach(s, vm);
}

static void on_close(struct daemon *d, uint32_t from, const Cl__ConsoleClose *e)
{
    struct session *s = find(d, e->session);

    if (s != NULL && s->owner == from) {
        forget(s);
    } else if (s != NULL && s->owner == d->conf->self && s->via == from) {
        s->cb(s->ctx, NULL, 0, 0, e->reason[0] != '\0' ? e->reason : "closed");
        forget(s);
    }
}

/* All that the session's owner keeps, instead of what it kept before. */
static void on_typed(struct session *s, uint64_t pos, const uint8_t *data, size_t len)
{
    if (len > sizeof s->typed) {
        log_warn("%zu bytes typed on node %s at once were ignored", len,
                 conf_node_name(s->d->conf, s->owner));
        return;
    }
    s->used_ns = clock_mono_ns();
    s->typed_pos = pos;
    s->ntyped = len;
    if (len != 0) {
        memcpy(s->typed, data, len);
    }
    say_typed(s);
}

static void on_taken(struct daemon *d, uint32_t from, const Cl__ConsoleTaken *t)
{
    struct session *s = find(d, t->session);

    if (s != NULL && s->owner == d->conf->self && s->via == from) {
        taken(s, t->pos);
    }
}

static void on_bytes(struct daemon *d, uint32_t from, const Cl__ConsoleBytes *b)
{
    struct session *s = find(d, b->session);

    if (s == NULL) { /* one of us began anew, or what follows crossed a close */
        tell_close(d, b->session, from,
                   "the primary's node does not know this console any more: open it again");
    } else if (s->owner == from) {
        on_typed(s, b->pos, b->data.data, b->data.len);
    } else if (s->owner == d->conf->self && s->via == from && b->data.len != 0) {
        deliver(s, b->pos, b->data.data, b->data.len);
    }
}

void session_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg)
{
    switch (msg->msg_case) {
    case CL__NODE_MESSAGE__MSG_CONSOLE_OPEN:
        on_open(d, from, msg->console_open);
        break;
    case CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE:
        on_close(d, from, msg->console_close);
        break;
    case CL__NODE_MESSAGE__MSG_CONSOLE_TAKEN:
        on_taken(d, from, msg->console_taken);
        break;
    default:
        on_bytes(d, from, msg->console_bytes);
    }
}

void session_record(struct daemon *d, const uint8_t *uuid, const struct roles_vm *vm)
{
    for (struct session *s = d->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (memcmp(s->vm, uuid, ROLES_UUID_LEN) != 0) {
            continue;
        }
        if (vm != NULL && vm->phase != ROLES_STOPPED) {
            attach(s, vm);
            continue;
        }
        if (s->owner == d->conf->self) {
            s->cb(s->ctx, NULL, 0, 0, "the VM has stopped");
        }
        forget(s);
    }
}

void session_tick(struct daemon *d)
{
    for (struct session *s = d->sessions; s != NULL; s = s->next) {
        attach(s, daemon_vm(d, s->vm)); /* one that could not be attached when it was time */
        if (s->owner == d->conf->self) {
            say_typed(s); /* what got lost on the way */
        }
    }
}

void session_close_all(struct daemon *d)
{
    while (d->sessions != NULL) {
        struct session *s = d->sessions;
        if (s->owner == d->conf->self) {
            s->cb(s->ctx, NULL, 0, 0, "the daemon is stopping");
        }
        forget(s);
    }
}
