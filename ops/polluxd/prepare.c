/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/prepare.c - making ready to run a replica of a VM on this node: every file it needs
 * is read and hashed (in libuv's pool: it may take long), then come incarnation, keys and a port.
 *
 * What one node asks for is bounded: it may have PREPARING_MAX under way, and of what is ready and
 * was not used its PREPARED_MAX newest are kept. AT_ONCE are worked on; the others wait in line,
 * for Raft writes its log through the same pool. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/disk_image.h"
#include "ops/polluxd/daemon.h"
#include "vmm/dev/backend/overlay.h"

enum {
    KEEP_S = 120, /* how long a preparation may wait for its start */
    AT_ONCE = 2,
};

struct prepare_work { /* in the order they were asked for */
    struct prepare_work *next;
    uv_work_t work;
    bool begun;
    struct daemon *d;
    struct prepared *p;
    prepare_cb cb;
    void *ctx;
};

static void add_file(struct prepared *p, const char *path, bool overlay, const char *of)
{
    struct file_hash *f = &p->files[p->nfiles++];

    PLX_CHECK(p->nfiles <= PREPARE_FILES_MAX);
    (void)snprintf(f->path, sizeof f->path, "%s", path);
    (void)snprintf(f->label, sizeof f->label, "%s%s", overlay ? "overlay of " : "", of);
    f->overlay = overlay;
}

static int hash_overlay(struct file_hash *f, struct plx_err *err)
{
    int rc = overlay_sha256(f->path, f->sha, err);

    f->absent = rc == PLX_ENOENT;
    return f->absent ? 0 : rc;
}

static void do_work(uv_work_t *w)
{
    struct prepare_work *k = w->data;
    struct prepared *p = k->p;
    struct plx_err err = {""};
    struct stat st;

    for (unsigned i = 0; i < p->nfiles && p->ok; i++) {
        struct file_hash *f = &p->files[i];
        int rc = f->overlay ? hash_overlay(f, &err) : disk_image_sha256(f->path, f->sha, &err);
        p->ok = rc == 0;
        f->bytes = stat(f->path, &st) == 0 ? (uint64_t)st.st_size : 0;
        if (rc != 0) {
            (void)snprintf(p->error, sizeof p->error, "%s", err.msg);
        }
    }
}

/* A free port of the configured range. It is tried now and bound by the replica a little later; if
 * somebody is faster, that start fails and says so. */
static int free_port(struct daemon *d)
{
    for (unsigned port = d->conf->replica_port_first; port <= d->conf->replica_port_last; port++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        bool promised = false;
        char tail[16];
        int on = 1;
        (void)snprintf(tail, sizeof tail, ":%u", port);
        for (const struct prepared *p = d->prepared; p != NULL; p = p->next) {
            const char *colon = strrchr(p->bind_endpoint, ':');
            promised = promised || (colon != NULL && strcmp(colon, tail) == 0);
        }
        int fd = promised ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        bool free = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0;
        (void)close(fd);
        if (free) {
            return (int)port;
        }
    }
    return -1;
}

static void finish(struct daemon *d, struct prepared *p)
{
    struct curve_pair key;
    struct plx_err err = {""};
    int port = free_port(d);

    if (port < 0) {
        p->ok = false;
        (void)snprintf(p->error, sizeof p->error, "no port of %u-%u is free for a replica",
                       d->conf->replica_port_first, d->conf->replica_port_last);
        return;
    }
    if (curve_generate(&key, &err) != 0) {
        p->ok = false;
        (void)snprintf(p->error, sizeof p->error, "%s", err.msg);
        return;
    }
    p->replica.node = d->conf->self;
    p->replica.incarnation = daemon_random();
    memcpy(p->replica.key, key.public_key, ROLES_KEY_LEN);
    memcpy(p->secret_key, key.secret_key, ROLES_KEY_LEN);
    (void)snprintf(p->replica.endpoint, sizeof p->replica.endpoint, "tcp://%.60s:%d",
                   d->conf->replica_address, port);
    (void)snprintf(p->bind_endpoint, sizeof p->bind_endpoint, "tcp://%.60s:%d",
                   d->conf->replica_address, port);
}

static void on_work_done(uv_work_t *w, int status);

static void free_prepared(struct prepared *p)
{
    explicit_bzero(p->secret_key, sizeof p->secret_key);
    plx_free(p);
}

/* Take up the next ones in line. */
static void begin_work(struct daemon *d)
{
    unsigned begun = 0;

    for (struct prepare_work *k = d->preparing; k != NULL && begun < AT_ONCE; k = k->next) {
        if (!k->begun) {
            k->begun = true;
            if (d->stopping && k->p->ok) {
                k->p->ok = false;
                (void)snprintf(k->p->error, sizeof k->p->error, "the daemon is stopping");
            }
            PLX_CHECK(uv_queue_work(&d->loop, &k->work, do_work, on_work_done) == 0);
        }
        begun++;
    }
}

/* Of those of one node the oldest goes when there are too many. */
static void keep(struct daemon *d, struct prepared *p)
{
    struct prepared **oldest = NULL;
    unsigned n = 0;

    p->next = d->prepared; /* the newest is the first */
    d->prepared = p;
    for (struct prepared **at = &d->prepared; *at != NULL; at = &(*at)->next) {
        if ((*at)->asker == p->asker) {
            n++;
            oldest = at;
        }
    }
    if (n > PREPARED_MAX) {
        struct prepared *gone = *oldest;
        *oldest = gone->next;
        free_prepared(gone);
    }
}

static void on_work_done(uv_work_t *w, int status)
{
    struct prepare_work *k = w->data;
    struct daemon *d = k->d;
    struct prepared *p = k->p;

    for (struct prepare_work **at = &d->preparing; *at != NULL; at = &(*at)->next) {
        if (*at == k) {
            *at = k->next;
            break;
        }
    }
    begin_work(d);
    p->ok = p->ok && status == 0;
    if (p->ok) {
        finish(d, p);
    }
    p->made_ns = clock_mono_ns();
    if (p->ok) {
        keep(d, p);
    }
    k->cb(k->ctx, p);
    if (!p->ok) {
        free_prepared(p);
    }
    plx_free(k);
}

/* The files that a VM of this definition needs here. */
static void list_files(struct daemon *d, struct prepared *p)
{
    const struct domain *dom = &p->domain;
    char text[UUID_TEXT], overlay[PATH_MAX];

    if (dom->state_file[0] != '\0') {
        add_file(p, dom->state_file, false, dom->state_file);
    } else {
        add_file(p, dom->kernel, false, dom->kernel);
        if (dom->initrd[0] != '\0') {
            add_file(p, dom->initrd, false, dom->initrd);
        }
    }
    for (unsigned i = 0; i < dom->ndisks; i++) {
        add_file(p, dom->disks[i].path, false, dom->disks[i].path);
        if (!dom->disks[i].readonly) {
            (void)snprintf(overlay, sizeof overlay, "%.3000s/overlay/%s-%u", d->conf->state_dir,
                           uuid_text(p->vm, text), i);
            add_file(p, overlay, true, dom->disks[i].path);
        }
    }
}

int prepare_here(struct daemon *d, uint32_t asker, const uint8_t *uuid, const char *xml,
                 prepare_cb cb, void *ctx)
{
    struct prepare_work **end = &d->preparing, *k;
    struct plx_err err = {""};
    struct prepared *p;
    unsigned n = 0;

    for (; *end != NULL; end = &(*end)->next) {
        n += (*end)->p->asker == asker;
    }
    if (n >= PREPARING_MAX) {
        return PLX_EBUSY;
    }
    k = plx_calloc(1, sizeof *k);
    p = plx_calloc(1, sizeof *p);
    if (k == NULL || p == NULL) {
        plx_free(k);
        plx_free(p);
        return PLX_ENOMEM;
    }
    *k = (struct prepare_work){.d = d, .p = p, .cb = cb, .ctx = ctx};
    k->work.data = k;
    p->asker = asker;
    memcpy(p->vm, uuid, ROLES_UUID_LEN);
    p->ok = domain_parse(xml, strlen(xml), &p->domain, &err) == 0;
    if (p->ok) {
        list_files(d, p);
    } else {
        (void)snprintf(p->error, sizeof p->error, "definition: %.480s", err.msg);
    }
    *end = k; /* also what cannot be read: the answer comes later in every case */
    begin_work(d);
    return 0;
}

struct prepared *prepared_take(struct daemon *d, uint64_t incarnation)
{
    for (struct prepared **at = &d->prepared; *at != NULL; at = &(*at)->next) {
        if ((*at)->ok && (*at)->replica.incarnation == incarnation) {
            struct prepared *p = *at;
            *at = p->next;
            p->next = NULL;
            return p;
        }
    }
    return NULL;
}

void prepared_expire(struct daemon *d, bool all)
{
    uint64_t now = clock_mono_ns();

    for (struct prepared **at = &d->prepared; *at != NULL;) {
        struct prepared *p = *at;
        if (all || now - p->made_ns > (uint64_t)KEEP_S * 1000000000) {
            *at = p->next;
            free_prepared(p);
        } else {
            at = &p->next;
        }
    }
}
