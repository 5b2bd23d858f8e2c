/* SPDX-License-Identifier: Apache-2.0
 * replica/link_tls.h - TLS 1.3 (RFC 8446) between two who know each other's X25519 public key.
 *
 * There are no certificates: both derive one external pre-shared key from the shared secret of
 * their two keys (HKDF, bound to both public halves), so a handshake succeeds only between the
 * holders of the two secret halves. With psk_dhe_ke, ephemeral keys make each connection's traffic
 * keys its own: a key learnt later opens nothing recorded before.
 * Threading: as OpenSSL's objects, serialised by the caller. */
#ifndef REPLICA_LINK_TLS_H
#define REPLICA_LINK_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/err.h"
#include "replica/link.h"

struct link_tls; /* opaque */

/* Errors: PLX_EINVAL (a key that is none), PLX_ENOTSUP (this OpenSSL lacks what is needed). */
int link_tls_open(const struct link_config *cfg, struct link_tls **out, struct plx_err *err);
void link_tls_close(struct link_tls *t); /* NULL is a no-op; after its connections */
/* A connection over @fd, which stays the caller's; it listens or connects as @cfg said. NULL: out
 * of memory. */
SSL *link_tls_conn(struct link_tls *t, int fd);
/* After the handshake: was it the one with our key? */
bool link_tls_proved(const SSL *s);

#endif
