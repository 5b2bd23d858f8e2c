/* SPDX-License-Identifier: Apache-2.0
 * storage/server_priv.h - inside the image server (server.h), shared by its files. */
#ifndef STORAGE_SERVER_PRIV_H
#define STORAGE_SERVER_PRIV_H

#include <stdatomic.h>

#include "storage/server.h"
#include "storage/server_intake.h"
#include "storage/server_queue.h"

enum {
    SERVER_PROTOCOL = 1,
    SERVER_IDENTITY_MAX = 32,
    SERVER_OPEN_MAX = 8,       /* images a client may keep */
    SERVER_PROMISES = 1 << 16, /* segments that clients were told to put */
    SERVER_LOOKS = 256,        /* that may wait, of one client */
};

struct look;

struct client {
    struct queue_client q; /* first: queue_next gives it */
    struct client *next;
    uint64_t serial;
    uint8_t identity[SERVER_IDENTITY_MAX];
    size_t identity_len;
    char user[AUTHORISER_USER]; /* of its key */
    bool may_push;
    uint64_t instance, connection; /* Hello */
    uint64_t heard_ns;
    struct image_lease *leases[SERVER_OPEN_MAX];
    unsigned nleases;
    struct intake_client intake;
    uint64_t posted_bytes;          /* put and not answered */
    unsigned posted;                /* posts that are not answered */
    struct look *looks, *last_look; /* that wait; owned */
    unsigned nlooks;
};

/* A segment that a client was told to put. Others are told to wait for it. */
struct promise {
    struct promise *next; /* of its bucket */
    struct seg_id id;
    uint64_t client;
};

struct image_server {
    struct image_server_config cfg;
    void *router;
    int wake; /* eventfd: stop, or something is taken in */
    struct queue queue;
    struct client *clients;
    uint64_t serials;
    struct wbuf form; /* a stored form being sent */
    struct intake *intake;
    uint64_t looked;           /* serial of the client whose look was answered last */
    struct promise **promises; /* buckets */
    size_t npromises;
    atomic_bool stop;
    _Atomic uint64_t nclients, dropped, segments, bytes, malformed;
    _Atomic uint64_t put_segments, put_bytes, shared_segments, names;
};

int server_send(struct image_server *s, const struct client *c, Img__FromServer *m);

/* server_push.c: posts of clients that may push. */
int server_push_open(struct image_server *s, struct plx_err *err);
void server_push_close(struct image_server *s);
/* Takes *@m (and sets it to NULL) if the intake has it now. An error: the client makes no sense. */
int server_on_post(struct image_server *s, struct client *c, Img__ToServer **m);
void server_push_answers(struct image_server *s); /* tell clients what is done */
/* Answer one look, of the client whose turn it is; false: none waits. */
bool server_push_look(struct image_server *s);
void server_push_forget(struct image_server *s, struct client *c);

#endif
