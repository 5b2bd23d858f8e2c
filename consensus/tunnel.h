/* SPDX-License-Identifier: Apache-2.0
 * consensus/tunnel.h - Raft's transport: byte streams inside the authenticated node link.
 *
 * libraft wants libuv streams. Each is one end of a local socket pair whose other end is pumped
 * through the link, from the opener to the acceptor. The link may lose messages with a connection;
 * every piece says how many bytes came before it, and a gap ends the stream: Raft then connects
 * anew. Ownership: borrows the link. Threading: the loop's. */
#ifndef CONSENSUS_TUNNEL_H
#define CONSENSUS_TUNNEL_H

#include <raft.h>
#include <raft/uv.h>
#include <stdbool.h>
#include <uv.h>

#include "consensus/node_link.h"

struct tunnels; /* opaque */

/* @transport is filled in for raft_uv_init. NULL when out of memory. */
struct tunnels *tunnels_open(uv_loop_t *loop, struct node_link *link,
                             struct raft_uv_transport *transport);
/* After the transport was closed by Raft; frees once the loop has run. NULL is a no-op. */
void tunnels_close(struct tunnels *t);
/* True if @msg was about a tunnel. */
bool tunnels_message(struct tunnels *t, uint32_t from, const Cl__NodeMessage *msg);

#endif
