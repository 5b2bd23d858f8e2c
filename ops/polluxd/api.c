/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/api.c - connections of the CLI: requests in, replies out (proto/api.proto).
 *
 * Who may connect is decided by the socket's mode (0600: the daemon's user and root). One request
 * at a time per connection: the next is read when the last was answered. A connection that goes
 * while its request is under way lives on, closed, until the answer has come.
 *
 * There are API_CONNECTIONS_MAX of them, and a few more that are only told so. One that does not
 * read what it is sent, or whose reply there is no memory for, is closed: it knows that it got no
 * answer. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"
#include "ops/polluxd/vm_view.h"
#include "proto/frame.h"

enum {
    API_VERSION = 1,
    EVENTS_IN_REPLY = 100,
    REFUSALS_MAX = 16,         /* connections beyond API_CONNECTIONS_MAX that are told why */
    UNREAD_MAX = 4 * FRAME_MAX /* bytes that wait for a client before it is given up */
};

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
    bool surplus; /* one more than may be: it is told so */
    bool closed;
    bool serving; /* serve is under way: what is answered at once must not call it again */
    char chunk[4096];
};

struct api {
    uv_pipe_t listener;
    struct conn *conns;
    unsigned n;
    bool waiting; /* a client that could not be accepted for want of memory */
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

static void give_up(struct conn *c, const char *why)
{
    log_warn("a client of %s is dropped: %s", c->d->conf->socket, why);
    drop(c);
}

static bool put_reply(struct wbuf *out, const Api__Reply *r)
{
    size_t len = api__reply__get_packed_size(r);

    if (len > FRAME_MAX) {
        Api__Reply e = API__REPLY__INIT;
        char text[100];
        (void)snprintf(text, sizeof text,
                       "the answer would have %zu bytes, more than %d: ask for less at once", len,
                       FRAME_MAX);
        e.code = PLX_ERANGE;
        e.error = text;
        return put_reply(out, &e);
    }
    wbuf_u32(out, (uint32_t)len);
    uint8_t *at = wbuf_grow(out, len);
    if (at != NULL) {
        (void)api__reply__pack(r, at);
    }
    return at != NULL;
}

static void send_reply(struct conn *c, const Api__Reply *r)
{
    if (c->closed || uv_is_closing((uv_handle_t *)&c->pipe)) {
        return;
    }
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > UNREAD_MAX) {
        give_up(c, "it does not read what it is sent");
        return;
    }
    struct write *w = plx_calloc(1, sizeof *w);
    if (w == NULL || !put_reply(&w->bytes, r)) {
        if (w != NULL) {
            wbuf_free(&w->bytes);
            plx_free(w);
        }
        give_up(c, "no memory for its reply");
        return;
    }
    w->req.data = w;
    uv_buf_t buf = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
    if (uv_write(&w->req, (uv_stream_t *)&c->pipe, &buf, 1, on_written) != 0) {
        on_written(&w->req, -1);
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

/* --- answers ------------------------------------------------------------------------------- */

static void reply_vms(struct conn *c, const struct roles_vm *const *vms, unsigned n, Api__Reply *r)
{
    struct vm_view *views = plx_calloc(n + 1, sizeof *views);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are meant */
    Api__Vm **list = plx_calloc(n + 1, sizeof *list);
    char *warnings[DOMAIN_WARNINGS_MAX];

    if (views == NULL || list == NULL) {
        plx_free(views);
        plx_free(list);
        fail(c, PLX_ENOMEM, "the daemon is out of memory");
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        vm_view_fill(c->d, vms[i], &views[i]);
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
         : rc == PLX_ENOMEM ? "the daemon is out of memory"
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
    const struct roles_vm *old = roles_find_name(cluster_state(c->d->cluster), dom.name);
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

static void do_dump_xml(struct conn *c)
{
    const struct roles_vm *vm = named(c, c->req->dump_xml->vm);

    if (vm != NULL) {
        Api__Reply r = API__REPLY__INIT;
        r.xml = vm->xml;
        reply_vms(c, &vm, 1, &r);
    }
}

static void change(struct conn *c, const char *vm, enum roles_op op)
{
    if (named(c, vm) != NULL) {
        propose(c, op, NULL, NULL);
    }
}

/* What this node has applied is as new as any by now, or nothing can be decided. */
static void on_read(void *ctx, int rc, enum roles_result result)
{
    struct conn *c = ctx;

    (void)result;
    if (rc == PLX_ECANCELED || rc == PLX_ENOMEM) {
        fail_rc(c, rc);
        return;
    }
    if (c->req->msg_case == API__REQUEST__MSG_INFO) {
        info(c, rc == 0); /* the one answer that is also given, marked, without a majority */
        return;
    }
    if (rc != 0) {
        fail_rc(c, rc);
        return;
    }
    switch (c->req->msg_case) {
    case API__REQUEST__MSG_DEFINE:
        do_define(c);
        break;
    case API__REQUEST__MSG_START:
        do_start(c);
        break;
    case API__REQUEST__MSG_LIST:
        do_list(c);
        break;
    case API__REQUEST__MSG_DUMP_XML:
        do_dump_xml(c);
        break;
    case API__REQUEST__MSG_UNDEFINE:
        change(c, c->req->undefine->vm, ROLES_UNDEFINE);
        break;
    case API__REQUEST__MSG_PROTECT:
        change(c, c->req->protect->vm, ROLES_PROTECT);
        break;
    case API__REQUEST__MSG_UNPROTECT:
        change(c, c->req->unprotect->vm, ROLES_UNPROTECT);
        break;
    case API__REQUEST__MSG_DESTROY:
        change(c, c->req->destroy->vm, ROLES_DESTROY);
        break;
    default:
        fail(c, PLX_EINVAL, "the request is not understood");
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
    Api__Reply r = API__REPLY__INIT;

    if (!c->d->caught_up) {
        fail(c, PLX_ESTATE,
             "this node has not joined the cluster since its daemon started (is another node up?)");
        return;
    }
    const struct roles_vm *vm = named(c, c->req->console->vm);
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

    d->count.api_requests++;
    switch (c->req->msg_case) {
    case API__REQUEST__MSG_DEFINE:
    case API__REQUEST__MSG_UNDEFINE:
    case API__REQUEST__MSG_START:
    case API__REQUEST__MSG_LIST:
    case API__REQUEST__MSG_INFO:
    case API__REQUEST__MSG_PROTECT:
    case API__REQUEST__MSG_UNPROTECT:
    case API__REQUEST__MSG_DESTROY:
    case API__REQUEST__MSG_DUMP_XML:
        cluster_read(d->cluster, READ_MS, on_read, c);
        break;
    case API__REQUEST__MSG_CONSOLE:
        do_console(c);
        break;
    default:
        fail(c, PLX_EINVAL, "the request is not understood (another version of pollux?)");
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
        if (c->surplus) {
            fail(c, PLX_EBUSY, "%d connections are open, and there can be no more: close consoles",
                 API_CONNECTIONS_MAX);
            drop(c);
        } else if (req->version != API_VERSION) {
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
    struct api *a = d->api;

    if (status != 0) {
        return;
    }
    struct conn *c = plx_calloc(1, sizeof *c);
    a->waiting = c == NULL;
    if (c == NULL) {
        return; /* the listener rests until this one is accepted: api_tick */
    }
    c->d = d;
    c->next = a->conns;
    a->conns = c;
    c->surplus = a->n >= API_CONNECTIONS_MAX;
    a->n++;
    (void)uv_pipe_init(&d->loop, &c->pipe, 0);
    c->pipe.data = c;
    frame_reader_init(&c->in);
    if (uv_accept(s, (uv_stream_t *)&c->pipe) != 0 || a->n > API_CONNECTIONS_MAX + REFUSALS_MAX) {
        drop(c);
        return;
    }
    listen_on(c);
}

void api_tick(struct daemon *d)
{
    if (d->api->waiting) {
        on_connection((uv_stream_t *)&d->api->listener, 0);
    }
}

/* The socket of a daemon that is gone is in the way; that of one that lives, or another file, is
 * not ours to remove. */
static int remove_old(const char *path, struct plx_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;

    if (lstat(path, &st) != 0) {
        return 0; /* or the bind says why */
    }
    if (!S_ISSOCK(st.st_mode)) {
        return plx_fail(err, PLX_EEXIST, "cannot listen on %s: that is another file", path);
    }
    if (strlen(path) >= sizeof a.sun_path) {
        return plx_fail(err, PLX_EINVAL, "cannot listen on %s: the path is too long", path);
    }
    (void)strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool alive = fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EAGAIN);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (alive) {
        return plx_fail(err, PLX_EBUSY, "another polluxd listens on %s", path);
    }
    return unlink(path) == 0 ? 0 : plx_fail_errno(err, "cannot remove the old socket %s", path);
}

int api_open(struct daemon *d, struct plx_err *err)
{
    static struct api the_api;

    int rc = remove_old(d->conf->socket, err);
    if (rc != 0) {
        return rc;
    }
    the_api = (struct api){.n = 0};
    d->api = &the_api;
    (void)uv_pipe_init(&d->loop, &d->api->listener, 0);
    d->api->listener.data = d;
    rc = uv_pipe_bind(&d->api->listener, d->conf->socket);
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
