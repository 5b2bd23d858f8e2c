/* SPDX-License-Identifier: Apache-2.0
 * storage/server_queue.c - see server_queue.h. */
#include "storage/server_queue.h"

#include "base/alloc.h"

void queue_client_init(struct queue_client *c, uint64_t window)
{
    *c = (struct queue_client){.window = window};
}

static bool has_waiting(const struct queue_client *c)
{
    for (int u = 0; u < QUEUE_URGENCIES; u++) {
        if (c->rings[u].n > 0) {
            return true;
        }
    }
    return false;
}

/* What may be sent: something waits, and the client has taken in enough of what was. */
static bool can_send(const struct queue_client *c)
{
    return has_waiting(c) && c->sent - c->credit < c->window;
}

static void leave(struct queue *q, struct queue_client *c)
{
    if (!c->active) {
        return;
    }
    if (c->next == c) {
        q->turn = NULL;
    } else {
        c->next->prev = c->prev;
        c->prev->next = c->next;
        if (q->turn == c) {
            q->turn = c->next;
        }
    }
    c->active = false;
    if (!has_waiting(c)) {
        c->deficit = 0;
    }
}

static void join(struct queue *q, struct queue_client *c)
{
    if (c->active || !can_send(c)) {
        return;
    }
    c->active = true;
    if (q->turn == NULL) {
        c->next = c->prev = c;
        q->turn = c;
    } else { /* behind all others */
        c->next = q->turn;
        c->prev = q->turn->prev;
        c->prev->next = c;
        c->next->prev = c;
    }
}

void queue_client_free(struct queue *q, struct queue_client *c)
{
    leave(q, c);
    for (int u = 0; u < QUEUE_URGENCIES; u++) {
        plx_free(c->rings[u].ids);
    }
}

int queue_want(struct queue *q, struct queue_client *c, unsigned urgency, const struct seg_id *id)
{
    size_t waiting = 0;

    if (urgency >= QUEUE_URGENCIES) {
        return PLX_EINVAL;
    }
    for (int u = 0; u < QUEUE_URGENCIES; u++) {
        waiting += c->rings[u].n;
    }
    if (waiting >= QUEUE_MAX) {
        return PLX_ERANGE;
    }
    struct queue_ring *r = &c->rings[urgency];
    if (r->n == r->cap) {
        size_t cap = r->cap == 0 ? 64 : 2 * r->cap;
        struct seg_id *ids = plx_calloc(cap, sizeof *ids);
        if (ids == NULL) {
            return PLX_ENOMEM;
        }
        for (size_t i = 0; i < r->n; i++) {
            ids[i] = r->ids[(r->first + i) % r->cap];
        }
        plx_free(r->ids);
        *r = (struct queue_ring){.ids = ids, .n = r->n, .cap = cap};
    }
    r->ids[(r->first + r->n++) % r->cap] = *id;
    join(q, c);
    return 0;
}

int queue_credit(struct queue *q, struct queue_client *c, uint64_t received)
{
    if (received > c->sent || received < c->credit) {
        return PLX_EINVAL;
    }
    c->credit = received;
    join(q, c);
    return 0;
}

struct queue_client *queue_next(struct queue *q, struct seg_id *id)
{
    struct queue_client *c = q->turn;

    if (c == NULL) {
        return NULL;
    }
    while (c->deficit <= 0) {
        c->deficit += QUEUE_QUANTUM;
        if (c->deficit > 0) {
            break;
        }
        c = q->turn = c->next;
    }
    for (int u = 0; u < QUEUE_URGENCIES; u++) {
        struct queue_ring *r = &c->rings[u];
        if (r->n > 0) {
            *id = r->ids[r->first];
            r->first = (r->first + 1) % r->cap;
            r->n--;
            break;
        }
    }
    return c;
}

void queue_sent(struct queue *q, struct queue_client *c, uint64_t bytes)
{
    c->sent += bytes;
    c->deficit -= (int64_t)bytes;
    if (!can_send(c)) {
        leave(q, c);
    } else if (c->deficit <= 0) {
        q->turn = c->next;
    }
}
