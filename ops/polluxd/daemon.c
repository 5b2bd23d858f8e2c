/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/daemon.c - start and stop of the daemon, its tick, and messages between daemons. */
#include "ops/polluxd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/image_role.h"

enum { SECOND_MS = 1000 };

uint64_t daemon_random(void)
{
    uint64_t v;

    do {
        host_random(&v, sizeof v);
    } while (v == 0);
    return v;
}

void daemon_send(struct daemon *d, uint32_t to, Cl__NodeMessage *msg)
{
    if (d->cluster == NULL) {
        return;
    }
    if (to == 0) {
        cluster_send_all(d->cluster, msg);
    } else {
        (void)cluster_send(d->cluster, to, msg);
    }
}

const struct roles_vm *daemon_vm(struct daemon *d, const uint8_t *uuid)
{
    return d->cluster != NULL ? roles_find(cluster_state(d->cluster), uuid) : NULL;
}

const struct roles_vm *daemon_find_vm(struct daemon *d, const char *name_or_uuid)
{
    uint8_t uuid[ROLES_UUID_LEN];
    const struct roles_vm *vm = roles_find_name(cluster_state(d->cluster), name_or_uuid);

    if (vm == NULL && uuid_parse(name_or_uuid, uuid)) {
        vm = daemon_vm(d, uuid);
    }
    return vm;
}

/* --- from the cluster ---------------------------------------------------------------------- */

static void on_record(void *ctx, const uint8_t *uuid, const struct roles_vm *vm)
{
    struct daemon *d = ctx;

    if (!d->caught_up || d->stopping) {
        return; /* what comes first is the past: snapshot and log, read again */
    }
    vms_record(d, uuid, vm);
    if (vm != NULL) {
        start_record(d, vm);
    }
    session_record(d, uuid, vm);
}

/* --- the tick ------------------------------------------------------------------------------ */

static void tell_status(struct daemon *d)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__NodeStatus s = CL__NODE_STATUS__INIT;

    s.name = (char *)(uintptr_t)d->conf->name;
    s.uptime_ms = (clock_mono_ns() - d->started_ns) / 1000000;
    for (const struct child *c = d->children; c != NULL; c = c->next) {
        s.replicas++;
    }
    s.life = d->events.life;
    s.events = d->events.newest;
    peers_status(d, d->conf->self, &s);
    m.msg_case = CL__NODE_MESSAGE__MSG_NODE_STATUS;
    m.node_status = &s;
    daemon_send(d, 0, &m);
}

static void on_caught_up(void *ctx, int rc, enum roles_result result);

static void catch_up(struct daemon *d)
{
    if (!d->caught_up && !d->catching_up) {
        d->catching_up = true;
        cluster_read(d->cluster, READ_MS, on_caught_up, d);
    }
}

static void on_caught_up(void *ctx, int rc, enum roles_result result)
{
    struct daemon *d = ctx;

    (void)result;
    d->catching_up = false;
    if (rc == PLX_ETIMEDOUT && !d->stopping) {
        catch_up(d);
    } else if (rc == 0) {
        d->caught_up = true;
        vms_tick(d);
        tell_status(d);
        log_info("joined the cluster: leader %s, %u VMs",
                 conf_node_name(d->conf, cluster_leader(d->cluster)), cluster_state(d->cluster)->n);
    }
}

static void on_second(uv_timer_t *h)
{
    struct daemon *d = h->data;
    unsigned clients;

    tell_status(d);
    catch_up(d);
    event_tick(d);
    child_scan(d);
    child_tick(d);
    vms_tick(d);
    start_tick(d);
    session_tick(d);
    api_tick(d);
    prepared_expire(d, false);
    cluster_balance(d->cluster);
    if (d->images != NULL && image_role_refresh(d->images, &clients)) {
        log_info("%s names %u keys now", d->conf->images_clients, clients);
    }
    metrics_update(d);
}

/* --- start and stop ------------------------------------------------------------------------ */

static int make_dir(const char *path, struct plx_err *err)
{
    char copy[PATH_MAX];

    (void)snprintf(copy, sizeof copy, "%s", path);
    for (char *s = copy + 1;; s++) {
        if (*s == '/' || *s == '\0') {
            char c = *s;
            *s = '\0';
            if (mkdir(copy, 0700) != 0 && errno != EEXIST) {
                return plx_fail_errno(err, "cannot create the directory %s", copy);
            }
            *s = c;
            if (c == '\0') {
                return 0;
            }
        }
    }
}

static void on_cluster_closed(void *ctx)
{
    struct daemon *d = ctx;

    d->cluster = NULL;
}

static void stop(struct daemon *d)
{
    if (d->stopping) {
        return;
    }
    log_info("stopping; replicas go on");
    d->stopping = true;
    session_close_all(d);
    api_close(d);
    metrics_close(d);
    image_role_stop(d->images);
    d->images = NULL;
    child_detach_all(d);
    uv_close((uv_handle_t *)&d->second, NULL);
    uv_close((uv_handle_t *)&d->sigterm, NULL);
    uv_close((uv_handle_t *)&d->sigint, NULL);
    cluster_close(d->cluster, on_cluster_closed, d);
}

static void on_signal(uv_signal_t *h, int signum)
{
    (void)signum;
    stop(h->data);
}

static int open_cluster(struct daemon *d, struct plx_err *err)
{
    char dir[PATH_MAX + 8];
    const struct conf *c = d->conf;

    (void)snprintf(dir, sizeof dir, "%s/raft", c->state_dir);
    int rc = make_dir(dir, err);
    if (rc != 0) {
        return rc;
    }
    struct cluster_config cfg = {.loop = &d->loop,
                                 .key = &c->key,
                                 .self = c->self,
                                 .name = c->cluster,
                                 .bind = c->bind,
                                 .dir = dir,
                                 .nodes = c->peers,
                                 .nnodes = c->nmembers,
                                 .election_ms = c->election_ms,
                                 .heartbeat_ms = c->heartbeat_ms,
                                 .on_record = on_record,
                                 .on_message = peers_message,
                                 .ctx = d};
    return cluster_open(&cfg, &d->cluster, err);
}

static int open_images(struct daemon *d, struct plx_err *err)
{
    const struct conf *c = d->conf;
    struct image_role_config cfg = {.store = c->images_store,
                                    .listen = c->images_listen,
                                    .clients = c->images_clients,
                                    .key = &c->key};
    unsigned clients;

    if (c->images_listen[0] == '\0') {
        return 0;
    }
    int rc = image_role_start(&cfg, &d->images, &clients, err);
    if (rc != 0) {
        return plx_err_wrap(err, rc, "[images]");
    }
    log_info("images of %s at %s for %u keys", cfg.store, cfg.listen, clients);
    return 0;
}

int daemon_run(const struct conf *conf, struct plx_err *err)
{
    static struct daemon the_daemon;
    struct daemon *d = &the_daemon;
    char dir[PATH_MAX + 16];
    int rc, lock;

    d->conf = conf;
    d->started_ns = clock_mono_ns();
    d->events.life = daemon_random();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077);
    (void)snprintf(dir, sizeof dir, "%s/overlay", conf->state_dir);
    if ((rc = make_dir(conf->run_dir, err)) != 0 || (rc = make_dir(dir, err)) != 0) {
        return rc;
    }
    (void)snprintf(dir, sizeof dir, "%s/lock", conf->state_dir);
    lock = open(dir, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* kept until the process ends */
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) != 0) {
        return lock >= 0 && errno == EWOULDBLOCK
                   ? plx_fail(err, PLX_EBUSY, "another polluxd uses %s (%s is locked)",
                              conf->state_dir, dir)
                   : plx_fail_errno(err, "cannot lock %s", dir);
    }
    PLX_CHECK(uv_loop_init(&d->loop) == 0);
    if ((rc = api_open(d, err)) != 0 || (rc = open_cluster(d, err)) != 0 ||
        (rc = open_images(d, err)) != 0 || (rc = metrics_open(d, err)) != 0) {
        return rc; /* nothing has been promised to anyone yet: the process ends */
    }
    (void)uv_timer_init(&d->loop, &d->second);
    (void)uv_signal_init(&d->loop, &d->sigterm);
    (void)uv_signal_init(&d->loop, &d->sigint);
    d->second.data = d->sigterm.data = d->sigint.data = d;
    (void)uv_timer_start(&d->second, on_second, SECOND_MS, SECOND_MS);
    (void)uv_signal_start(&d->sigterm, on_signal, SIGTERM);
    (void)uv_signal_start(&d->sigint, on_signal, SIGINT);
    child_scan(d);
    catch_up(d);
    log_info("node %s of cluster %s at %s", conf->name, conf->cluster, conf->bind);
    (void)uv_run(&d->loop, UV_RUN_DEFAULT);
    prepared_expire(d, true);
    stats_free(d);
    return 0;
}
