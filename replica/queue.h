/* SPDX-License-Identifier: Apache-2.0
 * replica/queue.h - the two queues of a replica: records not yet run by everybody, and outputs
 * not yet released. Both are singly linked lists in seq order that own their bytes. Times are the
 * caller's (core.h). Threading: the caller's; running out of memory is a PLX_CHECK: neither a
 * record nor an output may be lost. */
#ifndef REPLICA_QUEUE_H
#define REPLICA_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/sched/input.h"

struct rep_rec {
    struct rep_rec *next;
    uint64_t seq, start_ns;
    size_t len;
    uint8_t data[];
};

struct rep_recs {
    struct rep_rec *first, **last;
    uint64_t bytes;
};

void recs_init(struct rep_recs *q);
void recs_free(struct rep_recs *q);
struct rep_rec *recs_add(struct rep_recs *q, uint64_t seq, uint64_t start_ns, const void *data,
                         size_t len);
void recs_drop_through(struct rep_recs *q, uint64_t seq); /* forget all up to @seq */

struct held_output {
    struct held_output *next;
    uint64_t seq, since; /* record; when it was queued */
    struct output o;
    uint8_t data[];
};

struct held_outputs {
    struct held_output *first, **last;
    uint64_t n;
};

void held_init(struct held_outputs *q);
void held_free(struct held_outputs *q);
void held_add(struct held_outputs *q, uint64_t seq, const struct output *o, const uint8_t *data,
              uint64_t now);
void held_pop(struct held_outputs *q); /* the first; the queue is not empty */
void held_drop_through(struct held_outputs *q, uint64_t seq);

#endif
