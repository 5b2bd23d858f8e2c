/* SPDX-License-Identifier: Apache-2.0
 * replica/wire.h - a struct rep_msg as bytes (proto/replica.proto). What comes in is hostile until
 * it has been decoded; which peer it is from the link knows (link.h), and the protocol whether it
 * is stale. Pure; any thread. */
#ifndef REPLICA_WIRE_H
#define REPLICA_WIRE_H

#include "base/buf.h"
#include "replica/core.h"

enum { REP_WIRE_VERSION = 1, REP_WIRE_MAX = 16 << 20, REP_ID_LEN = 16 };

/* Which VM of which cluster: said in every hello, checked by the receiver. */
struct rep_identity {
    uint8_t cluster[REP_ID_LEN], vm[REP_ID_LEN];
};

/* Appends to @out. */
void rep_wire_encode(const struct rep_msg *m, const struct rep_identity *id, struct wbuf *out);

struct rep_wire; /* a decoded message with the memory its data points into */

/* Errors: PLX_ECORRUPT, PLX_EVERSION, PLX_EAUTH (a hello of another VM or cluster). On success the
 * message is valid until rep_wire_free(*w). */
int rep_wire_decode(const void *data, size_t len, const struct rep_identity *id,
                    struct rep_wire **w, struct rep_msg *m);
void rep_wire_free(struct rep_wire *w);

#endif
