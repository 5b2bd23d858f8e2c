/* SPDX-License-Identifier: Apache-2.0
 * replica/link.h - the authenticated connection between two replicas: TLS 1.3 over TCP, keyed by
 * the two fresh X25519 keys in the roles record (link_tls.h). No thread of its own: a record and
 * its acknowledgement each cost one send and one wake-up (ARCHITECTURE.md, "The wire").
 *
 * The primary listens, the backup connects, again and again. Only who holds the peer's key gets
 * in; a new connection that has proved it replaces the one before. Messages may be lost when a
 * connection breaks, never reordered or altered; the protocol above repeats what matters. A frame
 * is its length in four bytes, little-endian, and so many bytes; an empty one only keeps the
 * connection alive.
 *
 * Ownership: the caller's. Threading: any thread, all calls serialised by the caller. Send does
 * not close anything, so descriptors being polled stay what they are. */
#ifndef REPLICA_LINK_H
#define REPLICA_LINK_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { LINK_KEY_LEN = 32, LINK_FDS_MAX = 6, LINK_MESSAGE_MAX = 17 << 20 };

struct link_config {
    bool bind;
    const char *endpoint; /* tcp://ADDRESS:PORT or ipc://PATH: to listen at, or the peer's */
    uint8_t secret[LINK_KEY_LEN], peer_public[LINK_KEY_LEN];
    uint64_t rekey;    /* messages sent before a new key for sending; 0: LINK_REKEY */
    uint64_t quiet_ms; /* without a word from the peer a connection is given up; 0: LINK_QUIET_MS */
};

/* Well below the records that RFC 8446, "Limits on Key Usage", allows one AES-GCM key. */
#define LINK_REKEY (UINT64_C(1) << 22)

enum { LINK_QUIET_MS = 400 };

struct link;

/* Names are resolved here, once. Errors: PLX_EINVAL (endpoint, keys), PLX_ECONN (cannot listen). */
int link_open(const struct link_config *cfg, struct link **out, struct plx_err *err);
void link_close(struct link *l); /* NULL is a no-op; what is not sent yet is dropped */

/* What to poll for: all LINK_FDS_MAX of @fds are set; without @arrivals messages of the peer are no
 * reason to wake up, for another thread looks for them. Afterwards say what poll found, with the
 * same array (level-triggered: what is not served now is found again). */
void link_pollfds(struct link *l, struct pollfd *fds, bool arrivals);
void link_ready(struct link *l, const struct pollfd *fds);
/* Connections are made, kept alive and given up here: call by link_deadline at the latest. */
void link_tick(struct link *l, uint64_t now);
uint64_t link_deadline(const struct link *l);

/* Never blocks. false: there is no connection or its queue is full; the message is lost. */
bool link_send(struct link *l, const void *data, size_t len);
/* After a send by a thread that does not poll: whether the one that does must look again. */
bool link_needs_poll(const struct link *l);
/* For a thread that reads without having polled: the descriptor where messages arrive now (-1:
 * none), and that link_recv is to look there. */
int link_fd(const struct link *l);
void link_look(struct link *l);
/* Next message: 1 with *data (valid until the next call), or 0: none. */
int link_recv(struct link *l, const uint8_t **data, size_t *len);

#endif
