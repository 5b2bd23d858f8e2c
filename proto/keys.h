/* SPDX-License-Identifier: Apache-2.0
 * proto/keys.h - CURVE keys (CurveZMQ, RFC 26) and who may connect with which.
 *
 * Key files are text, "public = " and "secret = " with 64 hex digits, mode 0600.
 * The authoriser answers ZeroMQ's authentication requests (ZAP, RFC 27) in a thread of its own; its
 * functions may be called from any thread. Without it CURVE would accept any client key. */
#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { CURVE_KEY_LEN = 32, CURVE_KEY_HEX = 65 };

struct curve_pair {
    uint8_t public_key[CURVE_KEY_LEN];
    uint8_t secret_key[CURVE_KEY_LEN];
};

int curve_generate(struct curve_pair *out, struct plx_err *err);
const char *curve_hex(const uint8_t key[CURVE_KEY_LEN], char out[CURVE_KEY_HEX]);
/* False unless @s is 64 hex digits (white space around them is ignored). */
bool curve_from_hex(const char *s, uint8_t out[CURVE_KEY_LEN]);

/* Refuses to replace an existing file (PLX_EEXIST). */
int curve_write_file(const char *path, const struct curve_pair *k, struct plx_err *err);
/* Refuses a file that others may read (PLX_EACCES) or whose halves do not belong together. */
int curve_read_file(const char *path, struct curve_pair *k, struct plx_err *err);

/* Make @socket (not yet bound or connected) a CURVE server, or a client of the server @peer. */
int curve_server(void *socket, const struct curve_pair *own, struct plx_err *err);
int curve_client(void *socket, const struct curve_pair *own, const uint8_t peer[CURVE_KEY_LEN],
                 struct plx_err *err);

enum { AUTHORISER_KEYS = 256, AUTHORISER_USER = 32 };

struct authoriser_key {
    uint8_t key[CURVE_KEY_LEN];
    char user[AUTHORISER_USER]; /* the "User-Id" of its messages */
};

struct authoriser; /* opaque; at most one per ZeroMQ context */
int authoriser_start(void *zmq_ctx, struct authoriser **out, struct plx_err *err);
void authoriser_stop(struct authoriser *a); /* NULL is a no-op; before zmq_ctx_term */
/* Let clients with this key in; messages from them carry @user as their "User-Id". The same key
 * again replaces @user. At most AUTHORISER_KEYS: PLX_ERANGE. */
int authoriser_allow(struct authoriser *a, const uint8_t key[CURVE_KEY_LEN], const char *user);
/* Exactly these from now on; @n is at most AUTHORISER_KEYS. */
void authoriser_set(struct authoriser *a, const struct authoriser_key *keys, unsigned n);
/* Is a key of this user let in now? So an existing connection can be judged again. */
bool authoriser_knows(struct authoriser *a, const char *user);
uint64_t authoriser_refused(struct authoriser *a); /* connections refused so far */

#endif
