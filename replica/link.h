/* SPDX-License-Identifier: Apache-2.0
 * replica/link.h - the authenticated connection between two replicas: ZeroMQ with CURVE.
 *
 * The primary binds (ROUTER, CURVE server), the backup connects (DEALER). Only the peer's public
 * key from the roles record is let in. Messages may be lost when a connection breaks, never
 * reordered or altered; the protocol above repeats what matters.
 * Ownership: the caller's. Threading: one thread uses a link. */
#ifndef REPLICA_LINK_H
#define REPLICA_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { LINK_KEY_LEN = 32 };

struct link_config {
    bool realtime; /* its thread before every ordinary one (needs CAP_SYS_NICE) */
    bool bind;
    const char *endpoint; /* to bind, or the peer's to connect to */
    uint64_t incarnation, peer;
    uint8_t secret[LINK_KEY_LEN], peer_public[LINK_KEY_LEN];
};

struct link;

int link_open(const struct link_config *cfg, struct link **out, struct plx_err *err);
void link_close(struct link *l); /* NULL is a no-op; what is not sent yet is dropped */

/* Descriptors to poll for POLLIN before link_recv; edge-triggered, so call link_recv until it
 * returns 0 after every wake-up and after every batch of sends. */
int link_fd(const struct link *l);
int link_auth_fd(const struct link *l); /* likewise; link_recv serves it */

/* Never blocks. false: there is no connection or its queue is full; the message is lost. */
bool link_send(struct link *l, const void *data, size_t len);
/* Next message: 1 with *data (valid until the next call), or 0: none. */
int link_recv(struct link *l, const uint8_t **data, size_t *len);

#endif
