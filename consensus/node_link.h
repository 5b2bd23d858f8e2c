/* SPDX-License-Identifier: Apache-2.0
 * consensus/node_link.h - messages between the nodes of a cluster: ZeroMQ with CURVE under libuv.
 *
 * Every node binds one PULL socket and pushes to one PUSH socket per peer. A message is delivered
 * at most once, in order while the connection lives, and lost with it: whoever needs more repeats.
 * The authenticated key decides who a message is from; one whose content says otherwise is dropped.
 * Ownership: the loop, the ZeroMQ context and the authoriser are borrowed. Threading: the loop's.
 */
#ifndef CONSENSUS_NODE_LINK_H
#define CONSENSUS_NODE_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "proto/cluster.pb-c.h"
#include "proto/keys.h"

enum { NODE_LINK_NODES_MAX = 8, NODE_LINK_ENDPOINT_MAX = 96, NODE_LINK_CLUSTER_LEN = 16 };

struct node_link_peer {
    uint32_t id; /* not 0 */
    char endpoint[NODE_LINK_ENDPOINT_MAX];
    uint8_t key[CURVE_KEY_LEN];
};

struct node_link_config {
    uv_loop_t *loop;
    void *zmq;
    struct authoriser *auth;
    const struct curve_pair *key;
    uint32_t self;
    uint8_t cluster[NODE_LINK_CLUSTER_LEN]; /* messages of another cluster are dropped */
    const char *bind;
    const struct node_link_peer *nodes; /* all, own entry included */
    unsigned nnodes;
    /* @msg is valid during the call only. */
    void (*on_message)(void *ctx, uint32_t from, const Cl__NodeMessage *msg);
    void *ctx;
};

struct node_link; /* opaque */

/* Errors: PLX_EINVAL (no such endpoint, key), PLX_EBUSY (the address is in use), PLX_ENOMEM. */
int node_link_open(const struct node_link_config *cfg, struct node_link **out, struct plx_err *err);
/* No callback after this; the memory is freed once the loop has run. NULL is a no-op. */
void node_link_close(struct node_link *l);

/* Fills in version, cluster and sender. PLX_ECONN: there is no connection, nothing was sent. */
int node_link_send(struct node_link *l, uint32_t to, Cl__NodeMessage *msg);
void node_link_send_all(struct node_link *l, Cl__NodeMessage *msg); /* to every peer */

/* Milliseconds since anything was heard from @id; UINT64_MAX if nothing ever was. */
uint64_t node_link_age_ms(const struct node_link *l, uint32_t id);

struct node_link_counters {
    uint64_t sent, received, unsendable, dropped; /* messages */
};
const struct node_link_counters *node_link_counters(const struct node_link *l);

#endif
