/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/setup.c - from polluxd's Start to a VM before its first slice, and its protocol.
 *
 * Both replicas do the same from the same files, so that their states are equal without a copy;
 * the digest said in the first hello proves it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/chaos.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/replica/proc.h"
#include "vmm/boot/boot.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/tunables.h"

enum { KERNEL_MAX = 256 << 20 };

static int fill_machine(const struct proc *p, struct machine_config *m, struct plx_err *err)
{
    const Ctl__Start *s = p->start;

    m->memory = s->memory;
    m->vcpus = s->vcpus;
    m->nnics = (unsigned)s->n_nics;
    m->ndisks = (unsigned)s->n_disks;
    for (unsigned i = 0; i < m->nnics; i++) {
        memcpy(m->nics[i].mac, s->nics[i]->mac.data, 6);
    }
    for (unsigned i = 0; i < m->ndisks; i++) {
        m->disks[i].sectors = hostio_disk_sectors(p->io, i);
        m->disks[i].readonly = s->disks[i]->readonly;
    }
    return s->cpu[0] == '\0' || cpu_model_find(s->cpu, &m->cpu)
               ? 0
               : plx_fail(err, PLX_ENOTSUP, "there is no CPU model %s", s->cpu);
}

static int open_host(struct proc *p, struct plx_err *err)
{
    const Ctl__Start *s = p->start;
    struct hostio_config c = {.nnics = (unsigned)s->n_nics,
                              .ndisks = (unsigned)s->n_disks,
                              .console = HOSTIO_CONSOLE_NONE};

    for (unsigned i = 0; i < c.nnics; i++) {
        c.nets[i].fd = -1;
        if (p->tap[i] >= 0) {
            c.nets[i].kind = HOSTIO_NET_TAP;
            c.nets[i].fd = dup(p->tap[i]);
            if (c.nets[i].fd < 0) {
                return plx_fail_errno(err, "cannot duplicate the TAP of NIC %u", i);
            }
        }
    }
    for (unsigned i = 0; i < c.ndisks; i++) {
        const Ctl__Disk *d = s->disks[i];
        bool overlay = !d->readonly && d->overlay[0] != '\0';

        c.disks[i].path = d->base_path;
        c.disks[i].overlay = overlay ? d->overlay : NULL;
        c.disks[i].create_overlay = overlay && access(d->overlay, F_OK) != 0;
        c.disks[i].readonly = d->readonly;
        c.disks[i].scrub_ns = s->tunables != NULL ? s->tunables->scrub_ns : 0;
        if (d->base_sha256.len == SHA256_LEN) {
            memcpy(c.disks[i].base_sha256, d->base_sha256.data, SHA256_LEN);
        }
    }
    return hostio_create(&c, &p->io, err);
}

/* An overlay is its VM's only: a stamp of another refuses the start. */
static int check_stamps(const struct proc *p, struct plx_err *err)
{
    static const uint8_t nobody[16];

    for (unsigned i = 0; i < p->start->n_disks; i++) {
        struct disk_stamp s;

        hostio_get_stamp(p->io, i, &s);
        if (memcmp(s.vm, nobody, sizeof s.vm) != 0 && memcmp(s.vm, p->id.vm, sizeof s.vm) != 0) {
            return plx_fail(err, PLX_ESTALE, "overlay %s was written by another VM",
                            p->start->disks[i]->overlay);
        }
    }
    return 0;
}

static int choose_engine(const Ctl__Tunables *t, const struct engine_ops **out, struct plx_err *err)
{
    const char *name = t == NULL || t->engine[0] == '\0' ? "auto" : t->engine;

    *out = engine_find(name);
    return *out != NULL ? 0 : plx_fail(err, PLX_ENOTSUP, "there is no engine %s: use auto", name);
}

static int read_image(const char *path, struct wbuf *out, struct plx_err *err)
{
    wbuf_init(out);
    return path[0] == '\0' ? 0 : io_read_file(path, KERNEL_MAX, out, err);
}

static int boot(struct proc *p, const struct engine_ops *engine, struct plx_err *err)
{
    const Ctl__Start *s = p->start;
    struct wbuf kernel, initrd;
    int rc = read_image(s->kernel, &kernel, err);

    if (rc != 0) {
        return rc;
    }
    rc = read_image(s->initrd, &initrd, err);
    if (rc == 0) {
        struct boot_config b = {
            .kernel = {.data = kernel.data, .len = kernel.len},
            .initrd = {.data = initrd.data, .len = initrd.len},
            .cmdline = s->cmdline,
        };
        rc = boot_load(vm_machine(p->vm), &vm_vcpu(p->vm, 0)->c, &b, err);
        engine->state_changed(vm_vcpu(p->vm, 0));
    }
    wbuf_free(&kernel);
    wbuf_free(&initrd);
    return rc;
}

/* Disk requests in flight when the state was saved are carried out again. */
static int reissue_disks(struct proc *p, struct plx_err *err)
{
    struct output_list again;
    int rc;

    output_list_init(&again);
    virtio_blk_reissue(vm_machine(p->vm), &again);
    rc = hostio_submit(p->io, &again, err);
    output_list_free(&again);
    return rc;
}

int setup_vm(struct proc *p, struct plx_err *err)
{
    const Ctl__Start *s = p->start;
    struct vm_config c = {.host = {.disk_result = hostio_disk_result},
                          .chaos = s->tunables != NULL ? s->tunables->chaos : 0};
    int rc = choose_engine(s->tunables, &c.engine, err);

    chaos_start(c.chaos);

    rc = rc != 0 ? rc : open_host(p, err);
    rc = rc != 0 ? rc : check_stamps(p, err);
    if (rc != 0) {
        return rc;
    }
    c.host.ctx = p->io;
    rc = fill_machine(p, &c.machine, err);
    rc = rc != 0 ? rc : vm_create(&c, &p->vm, err);
    if (rc != 0) {
        return rc;
    }
    if (s->state_file[0] == '\0') {
        return boot(p, c.engine, err);
    }
    rc = vm_load(p->vm, s->state_file, err);
    return rc != 0 ? rc : reissue_disks(p, err);
}

/* --- the protocol's ops: all called under proc.lock ----------------------------------------- */

static void op_send(void *ctx, const struct rep_msg *m)
{
    struct proc *p = ctx;

    chaos_delay(m->kind == REP_ACK ? CHAOS_ACK : CHAOS_SEND);
    if (p->link == NULL) {
        return;
    }
    wbuf_clear(&p->message);
    rep_wire_encode(m, &p->id, &p->message);
    (void)link_send(p->link, p->message.data, p->message.len); /* a lost one is repeated */
    if (link_needs_poll(p->link)) {
        proc_wake(p->wake_io);
    }
}

static void op_emit(void *ctx, const struct output *o, const uint8_t *data)
{
    output_emit(ctx, o, data);
}

static void op_ask(void *ctx, enum rep_ask ask, uint64_t epoch)
{
    control_ask(ctx, ask, epoch);
}

static void op_reread(void *ctx, uint64_t nonce)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__ReadRoles r = CTL__READ_ROLES__INIT;

    r.nonce = nonce;
    m.msg_case = CTL__FROM_REPLICA__MSG_READ_ROLES;
    m.read_roles = &r;
    control_send(ctx, &m);
}

static void op_wake(void *ctx)
{
    proc_wake(((struct proc *)ctx)->wake_vm);
}

enum { ANNOUNCEMENTS = 3 };

static void op_event(void *ctx, enum rep_event ev, uint64_t detail, const char *text)
{
    static const char *const kinds[] = {
        [REP_EV_READY] = "ready",         [REP_EV_PEER_LOST] = "peer-lost",
        [REP_EV_DIVERGED] = "divergence", [REP_EV_BACKUP_DIFFERS] = "backup-differs",
        [REP_EV_TAKEOVER] = "takeover",   [REP_EV_ALONE] = "alone",
        [REP_EV_RESUMED] = "resumed",     [REP_EV_OUT] = "out",
    };
    struct proc *p = ctx;

    (void)detail;
    switch (ev) {
    case REP_EV_READY:
        p->ready = true;
        break;
    case REP_EV_TAKEOVER:
        p->announce_left = ANNOUNCEMENTS;
        p->announce_next = 0;
        break;
    case REP_EV_PEER_LOST:
    case REP_EV_DIVERGED:
    case REP_EV_BACKUP_DIFFERS:
    case REP_EV_ALONE:
    case REP_EV_RESUMED:
    case REP_EV_OUT:
        break;
    }
    control_event(p, kinds[ev], text);
    if (ev == REP_EV_BACKUP_DIFFERS && p->start->tunables != NULL &&
        p->start->tunables->divergence_stop) {
        /* Before the end of the process, which says nothing. */
        control_stopped(p, ROLES_STOP_DIVERGED, 0, text);
    }
    proc_wake(p->wake_io);
}

static int open_link(struct proc *p, const Ctl__Replica *peer, bool bind, struct plx_err *err)
{
    const Ctl__Start *s = p->start;
    struct link_config c = {.bind = bind, .endpoint = bind ? s->bind_endpoint : peer->endpoint};
    int rc;

    if (peer->key.len != LINK_KEY_LEN) {
        return plx_fail(err, PLX_EINVAL, "polluxd sent a peer without a key");
    }
    memcpy(c.secret, s->secret_key.data, LINK_KEY_LEN);
    memcpy(c.peer_public, peer->key.data, LINK_KEY_LEN);
    rc = link_open(&c, &p->link, err);
    explicit_bzero(c.secret, sizeof c.secret);
    return rc;
}

int setup_rep(struct proc *p, struct plx_err *err)
{
    const Ctl__Start *s = p->start;
    const Ctl__Tunables *t = s->tunables;
    bool primary = s->role == CTL__ROLE__PRIMARY;
    const Ctl__Replica *peer = primary ? s->roles->backup : s->roles->primary;
    bool alone = peer == NULL || peer->node == 0;
    struct rep_ops ops = {.send = op_send,
                          .emit = op_emit,
                          .ask = op_ask,
                          .reread = op_reread,
                          .event = op_event,
                          .wake = op_wake,
                          .ctx = p};
    struct vm_digest d;
    struct rep_config c = {.role = primary ? REP_PRIMARY : REP_BACKUP,
                           .epoch = s->roles->epoch,
                           .incarnation = s->incarnation,
                           .peer = alone ? 0 : peer->incarnation,
                           .seq = vm_seq(p->vm)};

    vm_digest(p->vm, 0, &d, NULL, NULL);
    c.digest = d.all;
    if (t != NULL) {
        c.peer_lost_ns = t->peer_lost_ms * UINT64_C(1000000);
        c.lag_ns = t->lag_max_ms * UINT64_C(1000000);
        c.stop_on_divergence = t->divergence_stop;
        c.no_takeover = t->takeover_disabled;
    }
    if (rep_create(&c, &ops, clock_mono_ns(), &p->rep) != 0) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    p->ready = primary && alone;
    return alone ? 0 : open_link(p, peer, primary, err);
}
