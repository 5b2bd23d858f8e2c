/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/server_fixture.h - image servers on this host, and clients of them. */
#ifndef TESTS_UNIT_SERVER_FIXTURE_H
#define TESTS_UNIT_SERVER_FIXTURE_H

#include <pthread.h>
#include <zmq.h>

#include "base/check.h"
#include "base/clock.h"
#include "storage/client.h"
#include "storage/server.h"
#include "tests/unit/amount.h"
#include "tests/unit/store_fixture.h"

/* To the thread sanitizer every byte that libzmq gives us is a race, which takes long to suppress.
 */
enum { LEN = AMOUNT(6 << 20, 24), WAIT_MS = UNDER_TSAN ? 240000 : 8000 };

struct running {
    struct image_server *server;
    void *zmq;
    struct authoriser *auth;
    pthread_t thread;
    char endpoint[64];
    struct curve_pair key;
};

/* Of all clients, and what the server lets it do (IMAGE_USER_READS, IMAGE_USER_PUSHES). */
static struct curve_pair client_key;
static char client_may = IMAGE_USER_READS;

static void *serve(void *arg)
{
    (void)image_server_run(arg, NULL);
    return NULL;
}

/* At @endpoint, or at a free port when that is empty. Nothing is taken in before run_server. */
static inline void open_server(struct running *r, struct store *s)
{
    struct image_server_config cfg = {.store = s, .key = &r->key, .bind = r->endpoint};
    struct plx_err err = {{0}};
    int rc = PLX_EBUSY;

    cfg.zmq = r->zmq = zmq_ctx_new();
    must(authoriser_start(r->zmq, &r->auth, &err), &err);
    cfg.auth = r->auth;
    assert_int_equal(authoriser_allow(r->auth, client_key.public_key, (char[]){client_may, '\0'}),
                     0);
    bool chosen = r->endpoint[0] != '\0';
    for (int tries = 0; rc == PLX_EBUSY && tries < 100; tries++) {
        if (!chosen) {
            uint16_t port;
            host_random(&port, sizeof port);
            (void)snprintf(r->endpoint, sizeof r->endpoint, "tcp://127.0.0.1:%u",
                           20000 + port % 30000);
        } else if (tries > 0) {
            clock_sleep_ns(20000000);
        }
        rc = image_server_open(&cfg, &r->server, &err);
    }
    must(rc, &err);
}

static inline void run_server(struct running *r)
{
    assert_int_equal(pthread_create(&r->thread, NULL, serve, r->server), 0);
}

static inline void start_server(struct running *r, struct store *s)
{
    open_server(r, s);
    run_server(r);
}

static inline void stop_server(struct running *r)
{
    image_server_stop(r->server);
    (void)pthread_join(r->thread, NULL);
    image_server_close(r->server);
    authoriser_stop(r->auth);
    (void)zmq_ctx_term(r->zmq);
}

static inline struct image_client_config client_of(void *zmq, struct store *cache,
                                                   struct running *servers, unsigned n)
{
    struct image_client_config cfg = {.zmq = zmq, .store = cache, .nservers = n, .key = client_key};

    for (unsigned i = 0; i < n; i++) {
        cfg.servers[i].endpoint = servers[i].endpoint;
        memcpy(cfg.servers[i].key, servers[i].key.public_key, CURVE_KEY_LEN);
    }
    return cfg;
}

#endif
