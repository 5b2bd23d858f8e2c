/* SPDX-License-Identifier: Apache-2.0
 * consensus/raft_node.h - this node's member of the Raft group: libraft over the tunnels.
 *
 * Commands are opaque bytes to it; who opens it applies them. Pre-vote is on. A command whose
 * leadership was lost has an unknown outcome (RAFT_NODE_UNKNOWN): repeat it, commands are
 * idempotent. Ownership: borrows loop and transport. Threading: the loop's. */
#ifndef CONSENSUS_RAFT_NODE_H
#define CONSENSUS_RAFT_NODE_H

#include <raft.h>
#include <raft/uv.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

enum raft_node_status { RAFT_NODE_DONE, RAFT_NODE_NOT_LEADER, RAFT_NODE_UNKNOWN };

struct raft_node_config {
    uv_loop_t *loop;
    struct raft_uv_transport *transport;
    uint32_t self;
    const uint32_t *ids; /* of all voters, self included */
    unsigned nids;
    const char *dir; /* exists; the log lives here */
    unsigned election_ms, heartbeat_ms;
    /* Deterministic; the result goes to the proposer. */
    uint32_t (*apply)(void *ctx, const void *data, size_t len);
    void (*snapshot)(void *ctx, struct wbuf *out);
    int (*restore)(void *ctx, const void *data, size_t len, struct plx_err *err);
    void *ctx;
};

struct raft_node; /* opaque */

/* Errors: PLX_EIO (the folder, or the log in it), PLX_ENOMEM; the message says what libraft said.
 */
int raft_node_open(const struct raft_node_config *cfg, struct raft_node **out, struct plx_err *err);
/* Pending requests are answered first, then @done is called and the memory is freed. */
void raft_node_close(struct raft_node *n, void (*done)(void *ctx), void *ctx);

/* @index: of the entry, to wait for locally. */
typedef void (*raft_node_cb)(void *ctx, enum raft_node_status status, uint32_t result,
                             uint64_t index);
/* Propose bytes (copied), or a barrier when @len is 0. The callback may come at once. */
void raft_node_submit(struct raft_node *n, const void *data, size_t len, raft_node_cb cb,
                      void *ctx);

bool raft_node_is_leader(const struct raft_node *n);
uint32_t raft_node_leader(const struct raft_node *n); /* 0: unknown */
uint64_t raft_node_applied(const struct raft_node *n);
uint64_t raft_node_term(const struct raft_node *n);
/* Hand leadership to @id; nothing happens unless this node leads and no transfer is under way. */
void raft_node_transfer(struct raft_node *n, uint32_t id);

#endif
