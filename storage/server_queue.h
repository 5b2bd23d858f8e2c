/* SPDX-License-Identifier: Apache-2.0
 * storage/server_queue.h - whose turn it is: the queues of an image server's clients, and which
 * segment goes out next. Pure: no socket, no clock. One thread.
 *
 * Deficit round robin: a turn adds QUEUE_QUANTUM bytes to what a client may send, what it does not
 * use it keeps while it has something to send. Within a client the most urgent queue goes first. */
#ifndef STORAGE_SERVER_QUEUE_H
#define STORAGE_SERVER_QUEUE_H

#include "storage/segment.h"

enum {
    QUEUE_URGENCIES = 3,
    QUEUE_QUANTUM = 64 << 10,
    QUEUE_MAX = 16384, /* ids a client may have waiting */
};

struct queue_ring {
    struct seg_id *ids;
    size_t first, n, cap;
};

struct queue_client {
    struct queue_client *next, *prev; /* among those with something to send */
    bool active;
    struct queue_ring rings[QUEUE_URGENCIES];
    uint64_t sent, credit, window; /* bytes: sent in all, received in all, allowed between */
    int64_t deficit;
};

struct queue {
    struct queue_client *turn; /* circular; NULL: nobody has anything */
};

void queue_client_init(struct queue_client *c, uint64_t window);
void queue_client_free(struct queue *q, struct queue_client *c);
/* Errors: PLX_ERANGE (too many waiting), PLX_EINVAL (urgency), PLX_ENOMEM. */
int queue_want(struct queue *q, struct queue_client *c, unsigned urgency, const struct seg_id *id);
/* @received bytes in all; more than was sent, or less than before: PLX_EINVAL. */
int queue_credit(struct queue *q, struct queue_client *c, uint64_t received);
/* The client and segment whose turn it is; NULL: none can be sent now. queue_sent must follow. */
struct queue_client *queue_next(struct queue *q, struct seg_id *id);
/* @bytes went out for it (0: it was not there). */
void queue_sent(struct queue *q, struct queue_client *c, uint64_t bytes);

#endif
