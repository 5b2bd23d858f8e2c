/* SPDX-License-Identifier: Apache-2.0
 * ops/image_role.c - see image_role.h. */
#include "ops/image_role.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/io.h"

enum { CLIENTS_FILE_MAX = 1 << 20 };

struct image_role {
    struct store *store;
    void *zmq;
    struct authoriser *auth;
    struct image_server *server;
    pthread_t thread;
    bool running;
};

/* "HEX [NAME] [push]" */
static int allow_line(struct authoriser *auth, const char *path, const char *line, bool *pushes,
                      struct plx_err *err)
{
    char hex[CURVE_KEY_HEX] = "", name[IMAGE_USER_NAME] = "client", word[8] = "", more[2] = "";
    char user[IMAGE_USER_NAME + 2];
    uint8_t key[CURVE_KEY_LEN];

    int n = sscanf(line, "%64s %27s %7s %1s", hex, name, word, more);
    if (n == 2 && strcmp(name, "push") == 0) {
        (void)strcpy(name, "client");
        (void)strcpy(word, "push");
    }
    bool push = strcmp(word, "push") == 0;
    if (!curve_from_hex(hex, key)) {
        return plx_fail(err, PLX_EINVAL, "%s: '%.20s...' is no public key (64 hex digits)", path,
                        line);
    }
    if (n > 3 || (word[0] != '\0' && !push)) {
        return plx_fail(err, PLX_EINVAL, "%s: after key and name only 'push' may stand, not '%s'",
                        path, n > 3 ? more : word);
    }
    *pushes = *pushes || push;
    (void)snprintf(user, sizeof user, "%c%s", push ? IMAGE_USER_PUSHES : IMAGE_USER_READS, name);
    return authoriser_allow(auth, key, user) == 0
               ? 0
               : plx_fail(err, PLX_ERANGE, "%s names too many keys", path);
}

static int allow_clients(struct authoriser *auth, const char *path, unsigned *n, bool *pushes,
                         struct plx_err *err)
{
    struct wbuf text;
    char *save = NULL;
    int rc = io_read_file(path, CLIENTS_FILE_MAX, &text, err);

    *n = 0;
    *pushes = false;
    if (rc != 0) {
        return plx_err_wrap(err, rc, "clients");
    }
    wbuf_u8(&text, 0);
    for (char *line = text.failed ? NULL : strtok_r((char *)text.data, "\n", &save);
         line != NULL && rc == 0; line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t");
        if (*line != '#' && *line != '\0') {
            rc = allow_line(auth, path, line, pushes, err);
            ++*n;
        }
    }
    wbuf_free(&text);
    return rc;
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
        rc = allow_clients(r->auth, cfg->clients, &n, &pushes, err);
    }
    if (rc == 0) { /* a store that somebody may push to need not be there yet */
        rc = store_open(cfg->store, pushes, &r->store, err);
        server.store = r->store;
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
    plx_free(r);
}
