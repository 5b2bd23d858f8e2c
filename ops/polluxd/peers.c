/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/peers.c - what the other daemons say (proto/cluster.proto), Raft's part aside: to
 * whom it goes. */
#include "base/log.h"
#include "ops/polluxd/daemon.h"

void peers_status(struct daemon *d, uint32_t from, const Cl__NodeStatus *s)
{
    for (unsigned i = 0; i < CONF_NODES_MAX; i++) {
        if (d->status[i].id == from || d->status[i].id == 0) {
            d->status[i] = (struct node_status){
                .id = from, .uptime_ms = s->uptime_ms, .replicas = s->replicas};
            return;
        }
    }
}

void peers_message(void *ctx, uint32_t from, const Cl__NodeMessage *msg)
{
    struct daemon *d = ctx;

    if (d->stopping || d->cluster == NULL) {
        return;
    }
    switch (msg->msg_case) {
    case CL__NODE_MESSAGE__MSG_NODE_STATUS:
        peers_status(d, from, msg->node_status);
        event_told(d, from, msg->node_status->life, msg->node_status->events);
        break;
    case CL__NODE_MESSAGE__MSG_VM_STATS:
        if (msg->vm_stats->vm.len == ROLES_UUID_LEN && msg->vm_stats->stats != NULL) {
            stats_store(d, msg->vm_stats->vm.data, from, msg->vm_stats->stats);
        }
        break;
    case CL__NODE_MESSAGE__MSG_VM_EVENT:
        event_received(d, from, msg->vm_event);
        break;
    case CL__NODE_MESSAGE__MSG_EVENTS_WANTED:
        event_wanted(d, from, msg->events_wanted);
        break;
    case CL__NODE_MESSAGE__MSG_EVENTS:
        event_batch(d, from, msg->events);
        break;
    case CL__NODE_MESSAGE__MSG_PREPARE:
    case CL__NODE_MESSAGE__MSG_PREPARED:
        start_message(d, from, msg);
        break;
    case CL__NODE_MESSAGE__MSG_CONSOLE_OPEN:
    case CL__NODE_MESSAGE__MSG_CONSOLE_CLOSE:
    case CL__NODE_MESSAGE__MSG_CONSOLE_BYTES:
    case CL__NODE_MESSAGE__MSG_CONSOLE_TAKEN:
        session_message(d, from, msg);
        break;
    default:
        log_warn("a message of kind %d from node %s is not understood", (int)msg->msg_case,
                 conf_node_name(d->conf, from));
    }
}
