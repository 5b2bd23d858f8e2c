/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/control.c - the channel to polluxd (proto/control.proto), its end, and adoption. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/replica/proc.h"
#include "proto/frame.h"

enum { CONTROL_VERSION = 1, START_TIMEOUT_S = 30 };

void control_send(struct proc *p, const Ctl__FromReplica *m)
{
    size_t len = ctl__from_replica__get_packed_size(m);
    uint8_t *buf;

    if (p->ctl < 0) {
        return; /* nobody listens; what matters is said again after adoption */
    }
    buf = plx_calloc(1, len + 1);
    PLX_CHECK(buf != NULL && len <= PACKET_MAX);
    (void)ctl__from_replica__pack(m, buf);
    packets_put(&p->to_polluxd, buf, len);
    plx_free(buf);
    proc_wake(p->wake_io);
}

void control_flush(struct proc *p)
{
    const uint8_t *data;
    size_t len;

    while (p->ctl >= 0) {
        size_t mark = p->to_polluxd.read;
        if (!packets_get(&p->to_polluxd, &data, &len)) {
            return;
        }
        if (packet_send(p->ctl, data, len, NULL, 0) != 0) {
            if (errno == EAGAIN) {
                p->to_polluxd.read = mark; /* polluxd is slow: later */
            }
            return; /* a broken channel is noticed by control_recv */
        }
    }
    packets_free(&p->to_polluxd);
}

static Ctl__Role role_on_wire(const struct proc *p)
{
    if (p->rep == NULL) {
        return CTL__ROLE__ROLE_NONE;
    }
    return rep_role(p->rep) == REP_PRIMARY ? CTL__ROLE__PRIMARY : CTL__ROLE__BACKUP;
}

void control_hello(struct proc *p)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Hello h = CTL__HELLO__INIT;

    h.version = CONTROL_VERSION;
    h.pid = (uint32_t)getpid();
    h.role = role_on_wire(p);
    if (p->start != NULL) {
        h.vm = p->start->vm;
        h.incarnation = p->start->incarnation;
    }
    if (p->rep != NULL) {
        enum rep_phase phase = rep_phase(p->rep);
        h.epoch = rep_epoch(p->rep);
        h.running = phase != REP_JOINING;
        if (phase == REP_ASKED) {
            h.waiting_request = p->request.id;
            h.waiting_kind = (uint32_t)p->request.ask;
        }
    }
    if (p->roles != NULL) {
        h.primary = p->roles->primary;
        h.backup = p->roles->backup;
    }
    m.msg_case = CTL__FROM_REPLICA__MSG_HELLO;
    m.hello = &h;
    control_send(p, &m);
}

void control_ask(struct proc *p, enum rep_ask ask, uint64_t epoch)
{
    static const Ctl__RequestKind kinds[] = {
        [REP_ASK_NONE] = CTL__REQUEST_KIND__REQUEST_NONE,
        [REP_ASK_DROP] = CTL__REQUEST_KIND__DROP_BACKUP,
        [REP_ASK_TAKEOVER] = CTL__REQUEST_KIND__TAKEOVER,
        [REP_ASK_RESUME] = CTL__REQUEST_KIND__RESUME,
    };
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Request r = CTL__REQUEST__INIT;

    if (p->request.ask != ask || p->request.epoch != epoch) {
        p->request.ask = ask;
        p->request.epoch = epoch;
        host_random(&p->request.id, sizeof p->request.id);
    }
    if (packets_left(&p->to_polluxd) >= BACKLOG_MAX) {
        return; /* polluxd does not read; it is asked again */
    }
    r.kind = kinds[ask];
    r.request = p->request.id;
    r.epoch = epoch;
    r.incarnation = p->start->incarnation;
    m.msg_case = CTL__FROM_REPLICA__MSG_REQUEST;
    m.request = &r;
    control_send(p, &m);
}

void control_event(struct proc *p, const char *kind, const char *text)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Event e = CTL__EVENT__INIT;

    log_info("%s: %s", kind, text);
    e.kind = (char *)(uintptr_t)kind; /* only read by the packer */
    e.text = (char *)(uintptr_t)text;
    m.msg_case = CTL__FROM_REPLICA__MSG_EVENT;
    m.event = &e;
    control_send(p, &m);
}

void control_stopped(struct proc *p, enum roles_stop reason, uint64_t code, const char *text)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Stopped s = CTL__STOPPED__INIT;

    s.event = reason;
    s.code = code;
    s.text = (char *)(uintptr_t)text;
    s.epoch = p->rep != NULL ? rep_epoch(p->rep) : 0;
    s.incarnation = p->start != NULL ? p->start->incarnation : 0;
    m.msg_case = CTL__FROM_REPLICA__MSG_STOPPED;
    m.stopped = &s;
    control_send(p, &m);
}

static void put_counters(Ctl__Stats *s, const struct vm_counters *c)
{
    struct vm_vcpu_counters sum = {0};

    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        sum.lacks_read += c->vcpu[i].lacks_read;
        sum.lacks_write += c->vcpu[i].lacks_write;
        sum.needs_serial += c->vcpu[i].needs_serial;
        sum.halts += c->vcpu[i].halts;
        sum.yields += c->vcpu[i].yields;
    }
#define COUNTER(field, expr, help) s->field = (expr);
#include "ops/counters.def"
#undef COUNTER
}

void control_stats(struct proc *p, uint64_t nonce)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Stats s = CTL__STATS__INIT;
    struct rep_stats r;
    char forms[JIT_FORMS_TEXT];

    if (packets_left(&p->to_polluxd) >= BACKLOG_MAX) {
        return;
    }
    rep_stats(p->rep, &r);
    s.nonce = nonce;
    s.slice = r.ran;
    s.virtual_ns = p->virtual_ns;
    s.instructions = p->retired;
    s.log_bytes = r.log_bytes;
    s.outputs_released = r.commits;
    s.outputs_withheld = r.outputs_held;
    s.lag_ns = r.lag_ns;
    s.commit_delay_ns = r.commits != 0 ? r.commit_wait_ns / r.commits : 0;
    s.digests_compared = r.digests_compared;
    s.digests_differing = r.digests_differ;
    s.net_tx_frames = p->frames_out;
    s.net_rx_frames = p->host.net_rx;
    s.disk_read_bytes = p->host.disk_read_bytes;
    s.disk_written_bytes = p->host.disk_written_bytes;
    s.cpu_ns = p->vm_cpu_ns;
    s.digest_ns = p->digest_ns;
    s.stale_messages = r.stale_messages;
    s.role = role_on_wire(p);
    s.epoch = rep_epoch(p->rep);
    put_counters(&s, &p->counters);
    s.jit_forms = jit_forms_text(&p->counters.jit, forms, sizeof forms);
    m.msg_case = CTL__FROM_REPLICA__MSG_STATS;
    m.stats = &s;
    control_send(p, &m);
}

static uint64_t incarnation_of(const Ctl__Replica *r)
{
    return r == NULL || r->node == 0 ? 0 : r->incarnation;
}

void control_apply_roles(struct proc *p, const Ctl__Roles *roles, uint64_t now)
{
    struct rep_roles r = {
        .epoch = roles->epoch,
        .primary = incarnation_of(roles->primary),
        .backup = incarnation_of(roles->backup),
        .nonce = roles->nonce,
        .in_sync = roles->in_sync,
    };

    p->ready_answered = p->next_ready != 0;
    if (roles->stopped) {
        atomic_store(&p->ending, true);
        proc_wake(p->wake_vm);
        return;
    }
    rep_roles(p->rep, &r, now);
}

/* Keep a copy of the last record read: hello after adoption says it. */
static void remember_roles(struct proc *p, const uint8_t *data, size_t len)
{
    Ctl__ToReplica *m = ctl__to_replica__unpack(NULL, len, data);

    PLX_CHECK(m != NULL); /* it was unpacked once already */
    if (p->roles != NULL) {
        ctl__roles__free_unpacked(p->roles, NULL);
    }
    p->roles = m->roles;
    m->roles = NULL;
    m->msg_case = CTL__TO_REPLICA__MSG__NOT_SET;
    ctl__to_replica__free_unpacked(m, NULL);
}

static void attach_console(struct proc *p, const Ctl__ConsoleAttach *a)
{
    if (a->port < CONSOLE_PORTS) {
        struct console_ring *r = &p->console[a->port];
        r->attached = true;
        r->sent = a->from < r->end ? a->from : r->end;
    }
}

static void console_typed(struct proc *p, const Ctl__ConsoleData *d)
{
    if (typists_hear(&p->typists, d->session, d->port, d->pos, d->data.data, d->data.len)) {
        proc_wake(p->wake_vm);
    } else {
        log_warn("%zu bytes typed by nobody, or nowhere, were ignored", d->data.len);
    }
}

void control_tell_typed(struct proc *p)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__ConsoleTaken t = CTL__CONSOLE_TAKEN__INIT;
    struct rep_stats s;

    if (!p->typists.tell || rep_role(p->rep) != REP_PRIMARY) {
        return;
    }
    rep_stats(p->rep, &s);
    m.msg_case = CTL__FROM_REPLICA__MSG_CONSOLE_TAKEN;
    m.console_taken = &t;
    while (packets_left(&p->to_polluxd) < BACKLOG_MAX &&
           typists_next_told(&p->typists, s.released, &t.session, &t.pos)) {
        control_send(p, &m);
    }
}

/* One message after Start. */
static void dispatch(struct proc *p, const uint8_t *data, size_t len)
{
    Ctl__ToReplica *m = ctl__to_replica__unpack(NULL, len, data);
    uint64_t now = clock_mono_ns();

    if (m == NULL) {
        log_warn("a malformed message from polluxd was ignored");
        return;
    }
    switch (m->msg_case) {
    case CTL__TO_REPLICA__MSG_ROLES:
        remember_roles(p, data, len);
        control_apply_roles(p, m->roles, now);
        break;
    case CTL__TO_REPLICA__MSG_STOP:
        if (m->stop->graceful) {
            p->power_button = true;
        } else {
            atomic_store(&p->ending, true);
        }
        proc_wake(p->wake_vm);
        break;
    case CTL__TO_REPLICA__MSG_CONSOLE_ATTACH:
        attach_console(p, m->console_attach);
        break;
    case CTL__TO_REPLICA__MSG_CONSOLE_DETACH:
        if (m->console_detach->port < CONSOLE_PORTS) {
            p->console[m->console_detach->port].attached = false;
        }
        break;
    case CTL__TO_REPLICA__MSG_CONSOLE_DATA:
        console_typed(p, m->console_data);
        break;
    case CTL__TO_REPLICA__MSG_INFO:
        control_stats(p, m->info->nonce);
        break;
    default:
        log_warn("an unexpected message (%d) from polluxd was ignored", (int)m->msg_case);
        break;
    }
    ctl__to_replica__free_unpacked(m, NULL);
}

static void close_fds(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        (void)close(fds[i]);
    }
}

/* polluxd is gone: wait for the next one where it will look for us. */
static void listen_for_adoption(struct proc *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    (void)close(p->ctl);
    p->ctl = -1;
    packets_free(&p->to_polluxd);
    for (int i = 0; i < CONSOLE_PORTS; i++) {
        p->console[i].attached = false;
    }
    if (p->start == NULL || p->start->adopt_path[0] == '\0' ||
        strlen(p->start->adopt_path) >= sizeof a.sun_path) {
        return;
    }
    strcpy(a.sun_path, p->start->adopt_path);
    (void)unlink(a.sun_path);
    p->ctl_listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (p->ctl_listen < 0 || bind(p->ctl_listen, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(p->ctl_listen, 4) != 0) {
        log_error("cannot listen for adoption on %s: %s", a.sun_path, strerror(errno));
        return;
    }
    log_warn("polluxd is gone; waiting for it on %s", a.sun_path);
}

void control_accept(struct proc *p)
{
    int fd = accept4(p->ctl_listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        return;
    }
    (void)close(p->ctl_listen);
    p->ctl_listen = -1;
    (void)unlink(p->start->adopt_path);
    p->ctl = fd;
    control_hello(p);
    if (rep_phase(p->rep) == REP_ASKED && p->request.ask != REP_ASK_NONE) {
        control_ask(p, p->request.ask, p->request.epoch);
    }
    p->stop_reported = false; /* the new one may not know */
    log_info("adopted by polluxd");
}

void control_recv(struct proc *p)
{
    static uint8_t buf[PACKET_MAX]; /* I/O thread only */

    while (p->ctl >= 0) {
        int fds[PACKET_FDS_MAX];
        unsigned nfds = 0;
        ssize_t n = packet_recv(p->ctl, buf, sizeof buf, fds, &nfds);

        close_fds(fds, nfds); /* none is expected after Start */
        if (n > 0) {
            dispatch(p, buf, (size_t)n);
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        } else if (n < 0 && errno == EMSGSIZE) {
            log_warn("an oversized message from polluxd was ignored");
        } else {
            listen_for_adoption(p);
        }
    }
}

static int take_start(struct proc *p, Ctl__ToReplica *m, const int *fds, unsigned nfds,
                      struct plx_err *err)
{
    Ctl__Start *s = m->start;
    unsigned used = 0;

    if (s->vm.len != REP_ID_LEN || s->secret_key.len != LINK_KEY_LEN || s->n_nics > NICS_MAX ||
        s->n_disks > DISKS_MAX || s->roles == NULL) {
        return plx_fail(err, PLX_EINVAL, "polluxd sent a malformed start");
    }
    for (size_t i = 0; i < s->n_nics; i++) {
        if (s->nics[i]->mac.len != 6) {
            return plx_fail(err, PLX_EINVAL, "polluxd sent a NIC without a MAC");
        }
        p->tap[i] = -1;
        if (s->nics[i]->tap) {
            if (used == nfds) {
                return plx_fail(err, PLX_EINVAL, "polluxd sent fewer TAPs than NICs");
            }
            p->tap[i] = fds[used++];
            (void)io_set_nonblock(p->tap[i]);
        }
    }
    p->nnics = (unsigned)s->n_nics;
    memcpy(p->id.vm, s->vm.data, REP_ID_LEN);
    if (s->cluster.len == REP_ID_LEN) {
        memcpy(p->id.cluster, s->cluster.data, REP_ID_LEN);
    }
    p->start = s;
    m->start = NULL;
    m->msg_case = CTL__TO_REPLICA__MSG__NOT_SET;
    return 0;
}

int control_wait_start(struct proc *p, struct plx_err *err)
{
    static uint8_t buf[PACKET_MAX];
    struct timeval timeout = {.tv_sec = START_TIMEOUT_S};
    int fds[PACKET_FDS_MAX];
    unsigned nfds = 0;
    Ctl__ToReplica *m;
    int rc;

    control_hello(p);
    control_flush(p);
    (void)setsockopt(p->ctl, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ssize_t n = packet_recv(p->ctl, buf, sizeof buf, fds, &nfds);
    if (n <= 0) {
        return plx_fail(err, PLX_ECONN, "polluxd did not say what to start");
    }
    m = ctl__to_replica__unpack(NULL, (size_t)n, buf);
    if (m == NULL || m->msg_case != CTL__TO_REPLICA__MSG_START) {
        rc = plx_fail(err, PLX_EINVAL, "polluxd's first message is not a start");
    } else {
        rc = take_start(p, m, fds, nfds, err);
    }
    if (m != NULL) {
        ctl__to_replica__free_unpacked(m, NULL);
    }
    if (rc != 0) {
        close_fds(fds, nfds);
    } else {
        (void)io_set_nonblock(p->ctl);
    }
    return rc;
}
