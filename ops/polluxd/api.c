/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/api.c - connections of the CLI: requests in, replies out (proto/api.proto).
 *
 * Who may connect is decided by the socket's mode (0600: the daemon's user and root). One request
 * at a time per connection: the next is read when the last was answered. A connection that goes
 * while its request is under way lives on, closed, until the answer has come. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"
#include "proto/api.pb-c.h"
#include "proto/frame.h"

enum { API_VERSION = 1, VMS_IN_REPLY = ROLES_VMS_MAX, EVENTS_IN_REPLY = 100 };

struct conn {
    struct conn *next;
    struct daemon *d;
    uv_pipe_t pipe;
    struct frame_reader in;
    Api__Request *req;            /* the one being answered */
    uint8_t uuid[ROLES_UUID_LEN]; /* of the VM it is about, where one was found */
    struct session *console;
    Api__Request
        *typing;  /* input that the session has no room for; no request is served meanwhile */
    size_t typed; /* of it, bytes that it took */
    char warnings[DOMAIN_WARNINGS_MAX][DOMAIN_WARNING_MAX]; /* of a definition */
    unsigned nwarnings;
    bool closed;
    bool serving; /* serve is under way: what is answered at once must not call it again */
    char chunk[4096];
};

struct api {
    uv_pipe_t listener;
    struct conn *conns;
    unsigned n;
};

static void serve(struct conn *c);
static void listen_on(struct conn *c);

/* --- replies ------------------------------------------------------------------------------- */

struct write {
    uv_write_t req;
    struct wbuf bytes;
};

static void on_written(uv_write_t *req, int status)
{
    struct write *w = req->data;

    (void)status;
    wbuf_free(&w->bytes);
    plx_free(w);
}

static void send_reply(struct conn *c, const Api__Reply *r)
{
    if (c->closed) {
        return;
    }
    struct write *w = plx_calloc(1, sizeof *w);
    PLX_CHECK(w != NULL);
    w->req.data = w;
    size_t len = api__reply__get_packed_size(r);
    if (len > FRAME_MAX) {
        log_error("a reply of %zu bytes is too long", len);
        len = 0;
    }
    wbuf_u32(&w->bytes, (uint32_t)len);
    uint8_t *at = wbuf_grow(&w->bytes, len);
    PLX_CHECK(at != NULL || len == 0);
    if (len != 0) {
        (void)api__reply__pack(r, at);
    }
    uv_buf_t buf = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
    if (uv_write(&w->req, (uv_stream_t *)&c->pipe, &buf, 1, on_written) != 0) {
        on_written(&w->req, -1);
    }
}

static void free_conn(struct conn *c)
{
    struct api *a = c->d->api;

    for (struct conn **at = &a->conns; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    a->n--;
    if (c->typing != NULL) {
        api__request__free_unpacked(c->typing, NULL);
    }
    frame_reader_free(&c->in);
    plx_free(c);
}

static void on_closed(uv_handle_t *h)
{
    struct conn *c = h->data;

    c->closed = true;
    if (c->req == NULL) {
        free_conn(c);
    }
}

static void drop(struct conn *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->pipe)) {
        if (c->console != NULL) {
            session_close(c->console);
            c->console = NULL;
        }
        uv_close((uv_handle_t *)&c->pipe, on_closed);
    }
}

/* The request is answered. */
static void finish(struct conn *c, const Api__Reply *r)
{
    api__request__free_unpacked(c->req, NULL);
    c->req = NULL;
    if (c->closed) {
        free_conn(c);
        return;
    }
    send_reply(c, r);
    if (!c->serving) {
        serve(c);
    }
}

static void fail(struct conn *c, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(struct conn *c, int rc, const char *fmt, ...)
{
    Api__Reply r = API__REPLY__INIT;
    char text[PLX_ERR_MSG_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r.code = rc;
    r.error = text;
    finish(c, &r);
}

/* --- descriptions -------------------------------------------------------------------------- */

struct vm_view {
    Api__Vm m;
    char uuid[UUID_TEXT];
    Ctl__Stats primary, backup;
};

static const char *protection(const struct roles_vm *vm)
{
    if (vm->phase == ROLES_STOPPED) {
        return vm->protect ? "stopped" : "none";
    }
    if (vm->backup.node != 0) {
        return vm->in_sync ? "protected" : "starting";
    }
    return vm->protect ? "unprotected" : "none";
}

static bool fresh_stats(struct daemon *d, const struct roles_vm *vm, uint32_t node, Ctl__Stats *out)
{
    const struct vm_stats *s = node != 0 ? stats_find(d, vm->uuid, node) : NULL;

    if (s == NULL || clock_mono_ns() - s->heard_ns > (uint64_t)STATS_FRESH_MS * 1000000) {
        return false;
    }
    *out = s->s;
    return true;
}

static void describe(struct daemon *d, const struct roles_vm *vm, struct vm_view *v)
{
    struct domain dom;

    api__vm__init(&v->m);
    v->m.uuid = (char *)(uintptr_t)uuid_text(vm->uuid, v->uuid);
    v->m.name = (char *)(uintptr_t)vm->name;
    v->m.state = (char *)(uintptr_t)roles_phase_name(vm->phase);
    v->m.protection = (char *)(uintptr_t)protection(vm);
    v->m.protect = vm->protect;
    v->m.epoch = vm->epoch;
    v->m.primary = (char *)(uintptr_t)conf_node_name(d->conf, vm->primary.node);
    v->m.backup = (char *)(uintptr_t)conf_node_name(d->conf, vm->backup.node);
    v->m.in_sync = vm->in_sync;
    v->m.stop = (char *)(uintptr_t)roles_stop_name(vm->stop);
    v->m.stop_code = vm->stop_code;
    v->m.primary_incarnation = vm->primary.incarnation;
    v->m.backup_incarnation = vm->backup.incarnation;
    if (domain_parse(vm->xml, strlen(vm->xml), &dom, NULL) == 0) {
        v->m.memory = dom.memory;
        v->m.vcpus = dom.vcpus;
        v->m.cpu = (char *)(uintptr_t)cpu_model_name(dom.cpu);
    }
    v->m.primary_stats = fresh_stats(d, vm, vm->primary.node, &v->primary) ? &v->primary : NULL;
    v->m.backup_stats = fresh_stats(d, vm, vm->backup.node, &v->backup) ? &v->backup : NULL;
}

static void reply_vms(struct conn *c, const struct roles_vm *const *vms, unsigned n, Api__Reply *r)
{
    struct vm_view *views = plx_calloc(n + 1, sizeof *views);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are meant */
    Api__Vm **list = plx_calloc(n + 1, sizeof *list);
    char *warnings[DOMAIN_WARNINGS_MAX];

    PLX_CHECK(views != NULL && list != NULL);
    for (unsigned i = 0; i < n; i++) {
        describe(c->d, vms[i], &views[i]);
        list[i] = &views[i].m;
    }
    for (unsigned i = 0; i < c->nwarnings; i++) {
        warnings[i] = c->warnings[i];
    }
    r->n_warnings = c->nwarnings;
    r->warnings = warnings;
    c->nwarnings = 0;
    r->n_vms = n;
    r->vms = list;
    finish(c, r);
    r->warnings = NULL; /* they and the list end here */
    r->vms = NULL;
    plx_free(views);
    plx_free(list);
}

/* --- commands ------------------------------------------------------------------------------ */

static const struct roles_vm *named(struct conn *c, const char *vm)
{
    const struct roles_vm *r = daemon_find_vm(c->d, vm);

    if (r == NULL) {
        fail(c, PLX_ENOENT, "no VM called '%s' is defined", vm);
        return NULL;
    }
    memcpy(c->uuid, r->uuid, sizeof c->uuid);
    return r;
}

static void fail_rc(struct conn *c, int rc)
{
    fail(c, rc, "%s",
         rc == PLX_ETIMEDOUT
             ? "no majority of the nodes answers: nothing can be decided (is another node up?)"
             : "the daemon is stopping");
}

static void on_changed(void *ctx, int rc, enum roles_result result)
{
    struct conn *c = ctx;
    Api__Reply r = API__REPLY__INIT;

    if (rc != 0) {
        fail_rc(c, rc);
    } else if (result != ROLES_RES_DONE) {
        fail(c, PLX_ESTATE, "%s", roles_result_text(result));
    } else {
        const struct roles_vm *vm = daemon_vm(c->d, c->uuid);
        reply_vms(c, &vm, vm != NULL, &r);
    }
}

static void propose(struct conn *c, enum roles_op op, const struct domain *dom, const char *xml)
{
    struct roles_cmd cmd = {.op = op, .request = daemon_random()};

    memcpy(cmd.uuid, c->uuid, sizeof cmd.uuid);
    if (dom != NULL) {
        cmd.name = dom->name;
        cmd.xml = xml;
        cmd.protect = dom->protect;
    }
    cluster_propose(c->d->cluster, &cmd, COMMAND_MS, on_changed, c);
}

static void do_define(struct conn *c)
{
    const char *xml = c->req->define->xml;
    struct plx_err err = {""};
    struct domain dom;

    int rc = domain_parse(xml, strlen(xml), &dom, &err);
    if (rc != 0) {
        fail(c, rc, "definition: %s", err.msg);
        return;
    }
    const struct roles_vm *old = daemon_find_vm(c->d, dom.name);
    if (dom.has_uuid) {
        memcpy(c->uuid, dom.uuid, sizeof c->uuid);
    } else if (old != NULL) {
        memcpy(c->uuid, old->uuid, sizeof c->uuid); /* a new definition of the same VM */
    } else {
        host_random(c->uuid, sizeof c->uuid);
        c->uuid[6] = (uint8_t)((c->uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
        c->uuid[8] = (uint8_t)((c->uuid[8] & 0x3f) | 0x80);
    }
    const char *const wanted[] = {dom.primary, dom.backup};
    for (unsigned i = 0; i < PLX_COUNT(wanted); i++) {
        if (wanted[i][0] != '\0' && conf_member_by_name(c->d->conf, wanted[i]) == NULL) {
            fail(c, PLX_EINVAL, "definition: there is no node '%s' in this cluster", wanted[i]);
            return;
        }
    }
    c->nwarnings = dom.nwarnings < DOMAIN_WARNINGS_MAX ? dom.nwarnings : DOMAIN_WARNINGS_MAX;
    memcpy(c->warnings, dom.warnings, sizeof c->warnings);
    propose(c, ROLES_DEFINE, &dom, xml);
}

static void on_started(void *ctx, int rc, const char *error)
{
    struct conn *c = ctx;
    Api__Reply r = API__REPLY__INIT;

    if (rc != 0) {
        fail(c, rc, "%s", error);
    } else {
        const struct roles_vm *vm = daemon_vm(c->d, c->uuid);
        reply_vms(c, &vm, vm != NULL, &r);
    }
}

static void do_start(struct conn *c)
{
    const Api__Start *s = c->req->start;
    const struct roles_vm *vm = named(c, s->vm);

    if (vm == NULL) {
        return; /* and the request is gone */
    }
    const char *const wanted[] = {s->primary, s->backup};
    for (unsigned i = 0; i < PLX_COUNT(wanted); i++) {
        if (wanted[i][0] != '\0' && conf_member_by_name(c->d->conf, wanted[i]) == NULL) {
            fail(c, PLX_ENOENT, "there is no node '%s' in this cluster", wanted[i]);
            return;
        }
    }
    start_vm(c->d, vm, s->primary, s->backup, s->old_disks, on_started, c);
}

static void do_list(struct conn *c)
{
    const struct roles_state *s = cluster_state(c->d->cluster);
    const struct roles_vm *vms[ROLES_VMS_MAX];
    Api__Reply r = API__REPLY__INIT;

    for (unsigned i = 0; i < s->n; i++) {
        vms[i] = &s->vms[i];
    }
    r.majority = true;
    reply_vms(c, vms, s->n, &r);
}

static void info(struct conn *c, bool majority)
{
    struct daemon *d = c->d;
    const Api__Info *q = c->req->info;
    Api__Reply r = API__REPLY__INIT;
    const struct roles_vm *vms[ROLES_VMS_MAX];
    unsigned nvms = 0, nevents = 0;
    Api__Node nodes[CONF_NODES_MAX], *node_list[CONF_NODES_MAX];
    static Api__Event events[EVENTS_IN_REPLY]; /* one thread; large for a stack */
    Api__Event *event_list[EVENTS_IN_REPLY];

    if (q->vm[0] != '\0') {
        vms[0] = named(c, q->vm);
        if (vms[0] == NULL) {
            return;
        }
        nvms = 1;
    } else {
        for (const struct roles_state *s = cluster_state(d->cluster); nvms < s->n; nvms++) {
            vms[nvms] = &s->vms[nvms];
        }
    }
    for (unsigned i = 0; i < d->conf->nmembers; i++) {
        const struct conf_member *m = &d->conf->members[i];
        api__node__init(&nodes[i]);
        nodes[i].name = (char *)(uintptr_t)m->name;
        nodes[i].id = m->id;
        nodes[i].address = (char *)(uintptr_t)m->address;
        nodes[i].up = cluster_node_up(d->cluster, m->id);
        nodes[i].leader = cluster_leader(d->cluster) == m->id;
        nodes[i].self = m->id == d->conf->self;
        for (unsigned k = 0; k < CONF_NODES_MAX; k++) {
            if (d->status[k].id == m->id && nodes[i].up) {
                nodes[i].uptime_ms = d->status[k].uptime_ms;
                nodes[i].replicas = d->status[k].replicas;
            }
        }
        node_list[i] = &nodes[i];
    }
    unsigned want = q->events < EVENTS_IN_REPLY ? q->events : EVENTS_IN_REPLY;
    for (unsigned i = 0; nevents < want && event_at(d, i) != NULL; i++) {
        const struct event *e = event_at(d, i);
        const struct roles_vm *of = e->of_vm ? daemon_vm(d, e->vm) : NULL;
        if (q->vm[0] != '\0' && (!e->of_vm || memcmp(e->vm, vms[0]->uuid, ROLES_UUID_LEN) != 0)) {
            continue;
        }
        api__event__init(&events[nevents]);
        events[nevents].wall_ns = e->wall_ns;
        events[nevents].node = (char *)(uintptr_t)e->node;
        events[nevents].vm = (char *)(uintptr_t)(of != NULL ? of->name : "");
        events[nevents].kind = (char *)(uintptr_t)e->kind;
        events[nevents].text = (char *)(uintptr_t)e->text;
        event_list[nevents] = &events[nevents];
        nevents++;
    }
    r.nodes = node_list;
    r.n_nodes = d->conf->nmembers;
    r.events = event_list;
    r.n_events = nevents;
    r.cluster = (char *)(uintptr_t)d->conf->cluster;
    r.term = cluster_term(d->cluster);
    r.applied = cluster_applied(d->cluster);
    r.majority = majority;
    reply_vms(c, vms, nvms, &r);
}

static void on_read(void *ctx, int rc, enum roles_result result)
{
    struct conn *c = ctx;

    (void)result;
    if (rc == PLX_ECANCELED) {
        fail_rc(c, rc);
    } else if (c->req->msg_case == API__REQUEST__MSG_INFO) {
        info(c, rc == 0); /* the one answer that is also given, marked, without a majority */
    } else if (rc != 0) {
        fail_rc(c, rc);
    } else if (c->req->msg_case == API__REQUEST__MSG_LIST) {
        do_list(c);
    } else if (c->req->msg_case == API__REQUEST__MSG_START) {
        do_start(c);
    } else {
        const struct roles_vm *vm = named(c, c->req->dump_xml->vm);
        if (vm != NULL) {
            Api__Reply r = API__REPLY__INIT;
            r.xml = vm->xml;
            reply_vms(c, &vm, 1, &r);
        }
    }
}

/* What is left of the input, as far as there is room: true when that is all of it. */
static bool type_on(struct conn *c)
{
    const ProtobufCBinaryData *in = &c->typing->console_input->data;

    if (c->console != NULL) {
        c->typed += session_input(c->console, in->data + c->typed, in->len - c->typed);
    }
    if (c->console != NULL && c->typed < in->len) {
        return false;
    }
    api__request__free_unpacked(c->typing, NULL);
    c->typing = NULL;
    return true;
}

static void on_console(void *ctx, const void *data, size_t len, uint64_t pos, const char *closed)
{
    struct conn *c = ctx;
    Api__Reply r = API__REPLY__INIT;

    if (data == NULL) {
        if (closed != NULL) {
            c->console = NULL;
            r.code = PLX_ECONN;
            r.error = (char *)(uintptr_t)closed;
            send_reply(c, &r);
        }
        if (c->typing != NULL && !c->serving && type_on(c)) {
            serve(c);
            listen_on(c);
        }
        return;
    }
    r.console = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)data};
    r.console_pos = pos;
    send_reply(c, &r);
}

static void do_console(struct conn *c)
{
    const struct roles_vm *vm = named(c, c->req->console->vm);
    Api__Reply r = API__REPLY__INIT;

    if (vm == NULL) {
        return;
    }
    if (c->console != NULL) {
        fail(c, PLX_ESTATE, "this connection has a console already");
        return;
    }
    if (vm->phase == ROLES_STOPPED) {
        fail(c, PLX_ESTATE, "%s is not running", vm->name);
        return;
    }
    c->console = session_open(c->d, vm, c->req->console->port, on_console, c);
    if (c->console == NULL) {
        fail(c, PLX_ENOMEM, "the daemon is out of memory");
        return;
    }
    reply_vms(c, &vm, 1, &r);
}

static void dispatch(struct conn *c)
{
    struct daemon *d = c->d;
    const char *vm = NULL;
    enum roles_op op = ROLES_OP_NONE;

    d->count.api_requests++;
    switch (c->req->msg_case) {
    case API__REQUEST__MSG_DEFINE:
        do_define(c);
        return;
    case API__REQUEST__MSG_START:
    case API__REQUEST__MSG_LIST:
    case API__REQUEST__MSG_INFO:
    case API__REQUEST__MSG_DUMP_XML:
        cluster_read(d->cluster, READ_MS, on_read, c);
        return;
    case API__REQUEST__MSG_CONSOLE:
        do_console(c);
        return;
    case API__REQUEST__MSG_UNDEFINE:
        vm = c->req->undefine->vm;
        op = ROLES_UNDEFINE;
        break;
    case API__REQUEST__MSG_PROTECT:
        vm = c->req->protect->vm;
        op = ROLES_PROTECT;
        break;
    case API__REQUEST__MSG_UNPROTECT:
        vm = c->req->unprotect->vm;
        op = ROLES_UNPROTECT;
        break;
    case API__REQUEST__MSG_DESTROY:
        vm = c->req->destroy->vm;
        op = ROLES_DESTROY;
        break;
    default:
        fail(c, PLX_EINVAL, "the request is not understood (another version of pollux?)");
        return;
    }
    if (named(c, vm) != NULL) {
        propose(c, op, NULL, NULL);
    }
}

/* Take requests from what has been received, until one has to be waited for. */
static void serve(struct conn *c)
{
    const uint8_t *data;
    size_t len;

    c->serving = true;
    while (c->req == NULL && c->typing == NULL && !c->closed &&
           !uv_is_closing((uv_handle_t *)&c->pipe)) {
        int rc = frame_next(&c->in, &data, &len);
        if (rc == 0) {
            break;
        }
        Api__Request *req = rc == 1 ? api__request__unpack(NULL, len, data) : NULL;
        if (req == NULL) {
            drop(c);
            break;
        }
        if (req->msg_case == API__REQUEST__MSG_CONSOLE_INPUT && c->console != NULL) {
            c->typing = req;
            c->typed = 0;
            (void)type_on(c);
            continue;
        }
        c->req = req;
        if (req->version != API_VERSION) {
            fail(c, PLX_EVERSION, "the request has version %u, this daemon speaks %d", req->version,
                 API_VERSION);
        } else {
            dispatch(c);
        }
    }
    c->serving = false;
}

/* --- connections --------------------------------------------------------------------------- */

static void on_data(uv_stream_t *s, ssize_t n, const uv_buf_t *buf);

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = h->data;

    (void)suggested;
    *buf = uv_buf_init(c->chunk, sizeof c->chunk);
}

/* More is read while what was read can be taken: the client of a console waits, not its input here.
 * A little is read ahead, for the end of a client to be noticed. */
static void listen_on(struct conn *c)
{
    if (uv_is_closing((uv_handle_t *)&c->pipe)) {
        return;
    }
    if (c->typing != NULL && c->in.buf.len - c->in.used >= sizeof c->chunk) {
        (void)uv_read_stop((uv_stream_t *)&c->pipe);
    } else {
        (void)uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_data);
    }
}

static void on_data(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = s->data;

    if (n < 0 || frame_feed(&c->in, buf->base, (size_t)n) != 0 ||
        c->in.buf.len > FRAME_MAX + FRAME_HEADER + sizeof c->chunk) {
        drop(c);
        return;
    }
    serve(c);
    listen_on(c);
}

static void on_connection(uv_stream_t *s, int status)
{
    struct daemon *d = s->data;
    struct conn *c =
        status == 0 && d->api->n < API_CONNECTIONS_MAX ? plx_calloc(1, sizeof *c) : NULL;

    if (c == NULL) {
        return;
    }
    c->d = d;
    c->next = d->api->conns;
    d->api->conns = c;
    d->api->n++;
    (void)uv_pipe_init(&d->loop, &c->pipe, 0);
    c->pipe.data = c;
    frame_reader_init(&c->in);
    if (uv_accept(s, (uv_stream_t *)&c->pipe) != 0) {
        drop(c);
        return;
    }
    listen_on(c);
}

int api_open(struct daemon *d, struct plx_err *err)
{
    static struct api the_api;

    d->api = &the_api;
    (void)uv_pipe_init(&d->loop, &d->api->listener, 0);
    d->api->listener.data = d;
    (void)unlink(d->conf->socket);
    int rc = uv_pipe_bind(&d->api->listener, d->conf->socket);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&d->api->listener, 16, on_connection);
    }
    if (rc != 0) {
        return plx_fail(err, PLX_EIO, "cannot listen on %s: %s", d->conf->socket, uv_strerror(rc));
    }
    (void)chmod(d->conf->socket, 0600);
    return 0;
}

void api_close(struct daemon *d)
{
    uv_close((uv_handle_t *)&d->api->listener, NULL);
    for (struct conn *c = d->api->conns; c != NULL; c = c->next) {
        start_forget(d, c);
        drop(c);
    }
}
