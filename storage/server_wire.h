/* SPDX-License-Identifier: Apache-2.0
 * storage/server_wire.h - a server and a client without sockets and threads, given bytes as if they
 * had come: for fuzzing what hostile peers send. What they answer goes nowhere. */
#ifndef STORAGE_SERVER_WIRE_H
#define STORAGE_SERVER_WIRE_H

#include "storage/client.h"
#include "storage/server.h"

/* Errors: PLX_ENOMEM. image_server_close and image_client_close free them. */
int image_server_open_detached(struct store *store, struct image_server **out);
void image_server_message(struct image_server *s, const uint8_t *identity, size_t identity_len,
                          const void *data, size_t len);
int image_client_open_detached(struct store *store, struct image_client **out);
void image_client_message(struct image_client *c, const void *data, size_t len);

#endif
