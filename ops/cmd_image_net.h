/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image_net.h - connections to image servers, for the verbs of `pollux image`. */
#ifndef OPS_CMD_IMAGE_NET_H
#define OPS_CMD_IMAGE_NET_H

#include "ops/cmd_image.h"
#include "storage/client.h"

enum { SERVER_TEXT = 256 };

struct image_connection {
    void *zmq;
    struct image_client *client;
    char endpoints[IMAGE_SERVERS][SERVER_TEXT];
};

/* Fills keys and servers of @cfg from the options. */
int image_connection_open(const struct image_args *a, struct image_connection *c,
                          struct image_client_config *cfg, struct plx_err *err);
void image_connection_close(struct image_connection *c);
/* Where a push goes: a store of this host, or of a server, which says whether it may. Zeroed is
 * closed. */
struct image_target {
    struct store *store;
    struct image_connection c;
    struct store *none; /* the connection fetches nothing */
};
int image_target_open(const struct image_args *a, struct image_target *t, struct plx_err *err);
void image_target_close(struct image_target *t);
int image_cache_open(const struct image_args *a, struct store **out, struct plx_err *err);

#endif
