/* SPDX-License-Identifier: Apache-2.0
 * storage/server.h - serves the images of a store to many clients at once (proto/image.proto).
 *
 * Ownership: the store and the ZeroMQ context are borrowed. Threading: image_server_run is the
 * server; image_server_stop and image_server_stats may be called from any thread. */
#ifndef STORAGE_SERVER_H
#define STORAGE_SERVER_H

#include "proto/keys.h"
#include "storage/image.h"

struct image_server; /* opaque */

/* What a client's "User-Id" (proto/keys.h) begins with says what it may. */
enum { IMAGE_USER_READS = 'r', IMAGE_USER_PUSHES = 'p' };

struct image_server_config {
    void *zmq;
    struct store *store;
    const char *bind;             /* tcp://ADDRESS:PORT */
    const struct curve_pair *key; /* an authoriser of the context says who may connect */
    struct authoriser *auth;      /* asked about each message too; NULL: who is in stays in */
};

struct image_server_stats {
    uint64_t clients, dropped_clients; /* now; gone without a word */
    uint64_t segments, bytes;          /* sent */
    uint64_t put_segments, put_bytes;  /* pushed by clients and new */
    uint64_t shared_segments;          /* pushed and there already */
    uint64_t names;                    /* set by clients */
    uint64_t malformed;                /* messages */
    uint64_t refused;                  /* connections without an allowed key */
};

enum {
    IMAGE_WINDOW = 1 << 20,         /* bytes on the way to a client */
    IMAGE_PUSH_WINDOW = 4 << 20,    /* and from one, before another post */
    IMAGE_PUSH_POSTS = 4096,        /* and posts, looks apart, that are not answered */
    IMAGE_LOOK_MAX = 1024,          /* segments in one look */
    IMAGE_CLIENT_SILENCE_MS = 5000, /* then it is gone */
    IMAGE_PING_MS = 250,
    IMAGE_SERVER_SILENCE_MS = 1500, /* then the next server is asked */
};

int image_server_open(const struct image_server_config *cfg, struct image_server **out,
                      struct plx_err *err);
/* Serves until image_server_stop. */
int image_server_run(struct image_server *s, struct plx_err *err);
void image_server_stop(struct image_server *s);
void image_server_stats(struct image_server *s, struct image_server_stats *out);
void image_server_close(struct image_server *s); /* NULL is a no-op */

#endif
