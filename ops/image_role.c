/* SPDX-License-Identifier: Apache-2.0
 * ops/image_role.c - see image_role.h. */
#include "ops/image_role.h"

#include <pthread.h>
#include <signal.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/log.h"
#include "ops/image_clients.h"

struct image_role {
    struct store *store;
    void *zmq;
    struct authoriser *auth;
    struct image_server *server;
    char *clients;    /* path */
    struct stat seen; /* of it, when it was read last */
    pthread_t thread;
    bool running;
};

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int allow_clients(struct image_role *r, unsigned *n, bool *pushes, struct plx_err *err)
{
    struct image_clients *c = plx_calloc(1, sizeof *c);
    int rc = c == NULL ? plx_fail(err, PLX_ENOMEM, "image server: out of memory")
                       : image_clients_read(r->clients, c, &r->seen, err);

    if (rc == 0) {
        authoriser_set(r->auth, c->keys, c->n);
        *n = c->n;
        *pushes = c->pushes;
    }
    plx_free(c);
    return rc;
}

bool image_role_refresh(struct image_role *r, unsigned *nclients)
{
    struct stat now;
    struct plx_err err = {{0}};
    bool pushes;

    if (stat(r->clients, &now) != 0 || same_file(&now, &r->seen)) {
        return false;
    }
    if (allow_clients(r, nclients, &pushes, &err) != 0) {
        log_error("%s; what it said before stays", err.msg);
        return false;
    }
    return true;
}

static void *run(void *arg)
{
    (void)image_server_run(arg, NULL);
    return NULL;
}

static int start_thread(struct image_role *r, struct plx_err *err)
{
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r->running = pthread_create(&r->thread, NULL, run, r->server) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r->running ? 0 : plx_fail(err, PLX_ENOMEM, "image server: no thread");
}

int image_role_start(const struct image_role_config *cfg, struct image_role **out,
                     unsigned *nclients, struct plx_err *err)
{
    struct image_role *r = plx_calloc(1, sizeof *r);
    bool pushes;
    unsigned n;

    *out = NULL;
    if (r == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image server: out of memory");
    }
    struct image_server_config server = {.bind = cfg->listen, .key = cfg->key};
    server.zmq = r->zmq = zmq_ctx_new();
    int rc = r->zmq == NULL ? plx_fail(err, PLX_ENOMEM, "image server: no ZeroMQ context")
                            : authoriser_start(r->zmq, &r->auth, err);
    if (rc == 0) {
        r->clients = plx_strdup(cfg->clients);
        rc = r->clients == NULL ? plx_fail(err, PLX_ENOMEM, "image server: out of memory")
                                : allow_clients(r, &n, &pushes, err);
    }
    if (rc == 0) { /* a store that somebody may push to need not be there yet */
        rc = store_open(cfg->store, pushes, &r->store, err);
        server.store = r->store;
        server.auth = r->auth;
    }
    if (rc == 0) {
        rc = image_server_open(&server, &r->server, err);
    }
    if (rc == 0) {
        rc = start_thread(r, err);
    }
    if (rc != 0) {
        image_role_stop(r);
        return rc;
    }
    if (nclients != NULL) {
        *nclients = n;
    }
    *out = r;
    return 0;
}

void image_role_stats(struct image_role *r, struct image_server_stats *out)
{
    image_server_stats(r->server, out);
    out->refused = authoriser_refused(r->auth);
}

void image_role_stop(struct image_role *r)
{
    if (r == NULL) {
        return;
    }
    if (r->running) {
        image_server_stop(r->server);
        (void)pthread_join(r->thread, NULL);
    }
    image_server_close(r->server);
    authoriser_stop(r->auth);
    if (r->zmq != NULL) {
        (void)zmq_ctx_term(r->zmq);
    }
    store_close(r->store);
    plx_free(r->clients);
    plx_free(r);
}
