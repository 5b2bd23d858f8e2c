/* SPDX-License-Identifier: Apache-2.0
 * replica/queue.c - see queue.h. */
#include "replica/queue.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

void recs_init(struct rep_recs *q)
{
    *q = (struct rep_recs){.last = &q->first};
}

void recs_free(struct rep_recs *q)
{
    recs_drop_through(q, UINT64_MAX);
}

struct rep_rec *recs_add(struct rep_recs *q, uint64_t seq, uint64_t start_ns, const void *data,
                         size_t len)
{
    struct rep_rec *rec = plx_calloc(1, sizeof *rec + len);

    PLX_CHECK(rec != NULL);
    rec->seq = seq;
    rec->start_ns = start_ns;
    rec->len = len;
    if (len != 0) {
        memcpy(rec->data, data, len);
    }
    *q->last = rec;
    q->last = &rec->next;
    q->bytes += len;
    return rec;
}

void recs_drop_through(struct rep_recs *q, uint64_t seq)
{
    while (q->first != NULL && q->first->seq <= seq) {
        struct rep_rec *rec = q->first;
        q->first = rec->next;
        if (q->first == NULL) {
            q->last = &q->first;
        }
        q->bytes -= rec->len;
        plx_free(rec);
    }
}

void held_init(struct held_outputs *q)
{
    *q = (struct held_outputs){.last = &q->first};
}

void held_free(struct held_outputs *q)
{
    held_drop_through(q, UINT64_MAX);
}

void held_add(struct held_outputs *q, uint64_t seq, const struct output *o, const uint8_t *data,
              uint64_t now)
{
    struct held_output *h = plx_calloc(1, sizeof *h + o->len);

    PLX_CHECK(h != NULL);
    h->seq = seq;
    h->since = now;
    h->o = *o;
    if (o->len != 0) {
        memcpy(h->data, data, o->len);
    }
    *q->last = h;
    q->last = &h->next;
    q->n++;
}

void held_pop(struct held_outputs *q)
{
    struct held_output *h = q->first;

    PLX_CHECK(h != NULL);
    q->first = h->next;
    if (q->first == NULL) {
        q->last = &q->first;
    }
    q->n--;
    plx_free(h);
}

void held_drop_through(struct held_outputs *q, uint64_t seq)
{
    while (q->first != NULL && q->first->seq <= seq) {
        held_pop(q);
    }
}
