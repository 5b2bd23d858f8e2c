/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/child_spawn.c - how a replica becomes a child: started here, or found again after
 * the daemon was. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"
#include "ops/polluxd/child_priv.h"

enum { CONTROL_FD = 3 };

/* --- found again --------------------------------------------------------------------------- */

/* Known, or found before and waited for: a second connection would be refused when it takes up the
 * first, and that would look like its end. */
static bool is_known(const struct daemon *d, uint64_t id)
{
    for (const struct child *c = d->children; c != NULL; c = c->next) {
        if (!c->closed && (c->incarnation == id || c->found == id)) {
            return true;
        }
    }
    return false;
}

void child_scan(struct daemon *d)
{
    DIR *dir = opendir(d->conf->run_dir);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct ucred cred;
        socklen_t len = sizeof cred;
        char path[PATH_MAX];
        unsigned long long id;
        int end = 0;
        if (sscanf(e->d_name, "%16llx.sock%n", &id, &end) != 1 || e->d_name[end] != '\0' ||
            end == 0 || id == 0 || is_known(d, id)) {
            continue;
        }
        child_socket_path(d, id, path);
        if (strlen(path) >= sizeof a.sun_path) {
            continue;
        }
        (void)strcpy(a.sun_path, path);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
            if (fd >= 0) {
                (void)close(fd);
            }
            if (errno == ECONNREFUSED) {
                (void)unlink(path); /* its process is gone */
            }
            continue;
        }
        struct child *c = child_make(d, fd);
        if (c == NULL) {
            log_warn("out of memory: a replica that was found is adopted later");
            break;
        }
        c->found = id;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            c->pid = cred.pid;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* --- started ------------------------------------------------------------------------------- */

/* What Start says. The pieces live in one struct, so that nothing is allocated. */
struct start_view {
    Ctl__Start m;
    struct roles_view roles;
    Ctl__Disk disks[DOMAIN_DISKS_MAX], *disk_list[DOMAIN_DISKS_MAX];
    Ctl__Nic nics[DOMAIN_NICS_MAX], *nic_list[DOMAIN_NICS_MAX];
    uint8_t macs[DOMAIN_NICS_MAX][6];
    char overlays[DOMAIN_DISKS_MAX][PATH_MAX];
    char adopt[PATH_MAX];
    char run_dir[PATH_MAX];
    Ctl__Tunables tunables;
};

static void fill_tunables(Ctl__Tunables *t, const struct conf *c)
{
    ctl__tunables__init(t);
    t->peer_lost_ms = c->peer_lost_ms;
    t->lag_max_ms = c->lag_max_ms;
    t->slice_ns = c->slice_us * 1000;
    t->digest_slices = c->digest_slices;
    t->scrub_ns = (uint64_t)c->scrub_s * 1000000000;
    t->divergence_stop = strcmp(c->divergence, "stop") == 0;
    t->takeover_disabled = strcmp(c->takeover, "no") == 0;
    t->engine = (char *)(uintptr_t)c->engine;
}

static void fill_start(struct start_view *v, struct daemon *d, struct prepared *p,
                       const struct roles_vm *vm)
{
    const struct domain *dom = &p->domain;
    char text[UUID_TEXT];
    Ctl__Start *m = &v->m;

    ctl__start__init(m);
    child_fill_roles(&v->roles, vm, 0);
    fill_tunables(&v->tunables, d->conf);
    m->vm = (ProtobufCBinaryData){.len = ROLES_UUID_LEN, .data = p->vm};
    m->name = (char *)(uintptr_t)vm->name;
    m->role =
        vm->primary.incarnation == p->replica.incarnation ? CTL__ROLE__PRIMARY : CTL__ROLE__BACKUP;
    m->roles = &v->roles.m;
    m->incarnation = p->replica.incarnation;
    m->secret_key = (ProtobufCBinaryData){.len = ROLES_KEY_LEN, .data = p->secret_key};
    m->bind_endpoint = p->bind_endpoint;
    m->memory = dom->memory;
    m->vcpus = dom->vcpus;
    m->cpu = (char *)(uintptr_t)cpu_model_name(dom->cpu);
    m->kernel = (char *)(uintptr_t)dom->kernel;
    m->initrd = (char *)(uintptr_t)dom->initrd;
    m->cmdline = (char *)(uintptr_t)dom->cmdline;
    m->state_file = (char *)(uintptr_t)dom->state_file;
    m->rng = dom->rng;
    m->cluster = (ProtobufCBinaryData){.len = NODE_LINK_CLUSTER_LEN,
                                       .data = (uint8_t *)(uintptr_t)cluster_id(d->cluster)};
    m->tunables = &v->tunables;
    for (unsigned i = 0; i < dom->ndisks; i++) {
        ctl__disk__init(&v->disks[i]);
        v->disks[i].base_path = (char *)(uintptr_t)dom->disks[i].path;
        v->disks[i].readonly = dom->disks[i].readonly;
        if (!dom->disks[i].readonly) {
            (void)snprintf(v->overlays[i], PATH_MAX, "%.3000s/overlay/%s-%u", d->conf->state_dir,
                           uuid_text(p->vm, text), i);
            v->disks[i].overlay = v->overlays[i];
        }
        for (unsigned k = 0; k < p->nfiles; k++) {
            if (!p->files[k].overlay && strcmp(p->files[k].path, dom->disks[i].path) == 0) {
                v->disks[i].base_sha256 =
                    (ProtobufCBinaryData){.len = SHA256_LEN, .data = p->files[k].sha};
            }
        }
        v->disk_list[i] = &v->disks[i];
    }
    m->n_disks = dom->ndisks;
    m->disks = v->disk_list;
    for (unsigned i = 0; i < dom->nnics; i++) {
        ctl__nic__init(&v->nics[i]);
        domain_mac(dom, p->vm, i, v->macs[i]);
        v->nics[i].mac = (ProtobufCBinaryData){.len = 6, .data = v->macs[i]};
        v->nics[i].tap = true;
        v->nic_list[i] = &v->nics[i];
    }
    m->n_nics = dom->nnics;
    m->nics = v->nic_list;
    child_socket_path(d, p->replica.incarnation, v->adopt);
    m->adopt_path = v->adopt;
    (void)snprintf(v->run_dir, sizeof v->run_dir, "%.3000s/%016llx", d->conf->run_dir,
                   (unsigned long long)p->replica.incarnation);
    m->run_dir = v->run_dir;
}

static int find_user(const struct conf *conf, uv_process_options_t *o, struct plx_err *err)
{
    if (conf->replica_user[0] == '\0') {
        return 0;
    }
    const struct passwd *pw = getpwnam(conf->replica_user);
    if (pw == NULL) {
        return plx_fail(err, PLX_ENOENT, "there is no user %s to run replicas as",
                        conf->replica_user);
    }
    o->flags |= UV_PROCESS_SETUID | UV_PROCESS_SETGID;
    o->uid = pw->pw_uid;
    o->gid = pw->pw_gid;
    return 0;
}

int child_spawn(struct daemon *d, struct prepared *p, const struct roles_vm *vm,
                struct plx_err *err)
{
    int sv[2] = {-1, -1}, taps[DOMAIN_NICS_MAX], log_fd = -1;
    unsigned ntaps = 0;
    char log_path[PATH_MAX], name[16];
    struct start_view *v = plx_calloc(1, sizeof *v);
    char title[ROLES_NAME_MAX + 20]; /* what ps(1) shows */
    char *args[] = {title, NULL};
    uv_process_options_t o = {.exit_cb = child_exited,
                              .file = d->conf->replica_program,
                              .args = args,
                              .flags = UV_PROCESS_DETACHED};
    uv_stdio_container_t stdio[CONTROL_FD + 1] = {{.flags = UV_IGNORE}};
    int rc;

    if (v == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot start a replica of %s: out of memory", vm->name);
    }
    (void)snprintf(title, sizeof title, "pollux-replica %s", vm->name);
    fill_start(v, d, p, vm);
    rc = find_user(d->conf, &o, err);
    if (rc != 0) {
        goto out;
    }
    if (mkdir(v->run_dir, 0700) != 0 && errno != EEXIST) {
        rc = plx_fail_errno(err, "cannot create %s", v->run_dir);
        goto out;
    }
    if (d->conf->replica_user[0] != '\0') {
        (void)chown(v->run_dir, o.uid, o.gid);
    }
    for (; ntaps < v->m.n_nics; ntaps++) {
        child_tap_name(p->replica.incarnation, ntaps, name);
        taps[ntaps] = tap_create(name, v->macs[ntaps], err);
        if (taps[ntaps] < 0) {
            rc = taps[ntaps];
            goto out;
        }
    }
    (void)snprintf(log_path, sizeof log_path, "%.4000s/log", v->run_dir);
    log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) != 0) {
        rc = plx_fail_errno(err, "cannot start a replica of %s", vm->name);
        goto out;
    }
    for (int i = 1; i <= 2; i++) {
        stdio[i] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = log_fd};
    }
    stdio[CONTROL_FD] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = sv[1]};
    o.stdio = stdio;
    o.stdio_count = CONTROL_FD + 1;
    struct child *c = child_make(d, sv[0]);
    sv[0] = -1;
    if (c == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "cannot start a replica of %s: out of memory", vm->name);
        goto out;
    }
    memcpy(c->vm, p->vm, ROLES_UUID_LEN);
    (void)snprintf(c->vm_name, sizeof c->vm_name, "%s", vm->name);
    c->incarnation = p->replica.incarnation;
    c->role = v->m.role;
    c->epoch = vm->epoch;
    c->process.data = c;
    child_take_nics(c, &p->domain);
    int uvrc = uv_spawn(&d->loop, &c->process, &o);
    c->ours = true; /* the handle must be closed in either case */
    c->open_handles++;
    if (uvrc != 0) {
        rc = plx_fail(err, PLX_EIO, "cannot run %s: %s", o.file, uv_strerror(uvrc));
        child_close(c, false);
        goto out;
    }
    c->pid = c->process.pid;
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    m.msg_case = CTL__TO_REPLICA__MSG_START;
    m.start = &v->m;
    rc = child_send(c, &m, taps, ntaps);
    if (rc != 0) {
        rc = plx_fail(err, rc, "cannot tell the replica of %s what to run", vm->name);
        child_close(c, false);
        goto out;
    }
    d->count.spawns++;
    log_info("replica %d: %s of %s, epoch %llu", c->pid,
             c->role == CTL__ROLE__PRIMARY ? "primary" : "backup", vm->name,
             (unsigned long long)vm->epoch);
out:
    while (ntaps > 0) {
        (void)close(taps[--ntaps]);
    }
    if (log_fd >= 0) {
        (void)close(log_fd);
    }
    for (int i = 0; i < 2; i++) {
        if (sv[i] >= 0) {
            (void)close(sv[i]);
        }
    }
    explicit_bzero(p->secret_key, sizeof p->secret_key);
    plx_free(v);
    return rc;
}
