/* SPDX-License-Identifier: Apache-2.0
 * consensus/cluster.h - the agreement between the nodes: roles.h replicated by raft_node.h over
 * node_link.h. This is the side of consensus that the daemon sees.
 *
 * Commands may be given on any node: a follower forwards them to the leader and repeats them, under
 * the same request id, until they are applied here or the time is up. Reads after cluster_read are
 * linearizable. Ownership: the caller's; what the configuration points to is borrowed and outlives
 * it, except @nodes. Threading: the loop's. */
#ifndef CONSENSUS_CLUSTER_H
#define CONSENSUS_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "consensus/node_link.h"
#include "consensus/roles.h"

struct cluster_config {
    uv_loop_t *loop;
    const struct curve_pair *key;
    uint32_t self;
    const char *name;                   /* of the cluster: nodes of another name are not heard */
    const char *bind;                   /* ZeroMQ endpoint */
    const char *dir;                    /* exists; Raft's log */
    const struct node_link_peer *nodes; /* all; copied */
    unsigned nnodes;
    unsigned election_ms, heartbeat_ms;
    /* A record was changed, created or deleted (@vm is NULL) by a command or a snapshot. */
    void (*on_record)(void *ctx, const uint8_t uuid[ROLES_UUID_LEN], const struct roles_vm *vm);
    /* A message between daemons. */
    void (*on_message)(void *ctx, uint32_t from, const Cl__NodeMessage *msg);
    void *ctx;
};

struct cluster; /* opaque */

/* On error *out is NULL; the caller gives up, some memory may be left. Errors: those of
 * node_link_open and raft_node_open. */
int cluster_open(const struct cluster_config *cfg, struct cluster **out, struct plx_err *err);
/* @done is called when nothing of it is left. Pending calls are answered PLX_ECANCELED. */
void cluster_close(struct cluster *c, void (*done)(void *ctx), void *ctx);

/* @rc: 0 and the command's result; PLX_ETIMEDOUT: no majority answered in time, the outcome is
 * unknown; PLX_ECANCELED. When it comes, the command has been applied on this node. PLX_ENOMEM
 * comes before the call returns: nothing was asked for. */
typedef void (*cluster_cb)(void *ctx, int rc, enum roles_result result);
void cluster_propose(struct cluster *c, const struct roles_cmd *cmd, uint64_t timeout_ms,
                     cluster_cb cb, void *ctx);
/* When the callback comes with rc 0, cluster_state shows everything applied anywhere before. */
void cluster_read(struct cluster *c, uint64_t timeout_ms, cluster_cb cb, void *ctx);

const struct roles_state *cluster_state(const struct cluster *c);
uint32_t cluster_leader(const struct cluster *c); /* 0: unknown */
uint64_t cluster_term(const struct cluster *c);
uint64_t cluster_applied(const struct cluster *c);
bool cluster_node_up(const struct cluster *c, uint32_t id); /* heard of lately, or self */
const struct node_link_counters *cluster_link_counters(const struct cluster *c);
uint64_t cluster_refused(const struct cluster *c);  /* connections without an allowed key */
const uint8_t *cluster_id(const struct cluster *c); /* NODE_LINK_CLUSTER_LEN bytes */

int cluster_send(struct cluster *c, uint32_t to, Cl__NodeMessage *msg); /* as node_link_send */
void cluster_send_all(struct cluster *c, Cl__NodeMessage *msg);

/* If this node leads although it runs a primary, and another node that runs none is up, hand
 * leadership over: the death of a primary's node should not also cost an election. */
void cluster_balance(struct cluster *c);

#endif
