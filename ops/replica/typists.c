/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/typists.c - see typists.h. */
#include "ops/replica/typists.h"

#include <string.h>

/* The entry of @session, made if need be. */
static struct typist *entry(struct typists *t, uint64_t session)
{
    struct typist *y = NULL, *oldest = t->all;

    for (unsigned i = 0; i < t->n && y == NULL; i++) {
        y = t->all[i].session == session ? &t->all[i] : NULL;
        oldest = t->all[i].used < oldest->used ? &t->all[i] : oldest;
    }
    if (y == NULL) {
        y = t->n < TYPISTS_MAX ? &t->all[t->n++] : oldest;
        *y = (struct typist){.session = session};
    }
    y->used = ++t->uses;
    return y;
}

bool typists_hear(struct typists *t, uint64_t session, unsigned port, uint64_t pos,
                  const uint8_t *data, size_t len)
{
    if (session == 0 || port >= CONSOLE_PORTS || len > CONSOLE_TYPED_MAX ||
        pos > UINT64_MAX - len) {
        return false;
    }
    if (len != 0) {
        struct typist *y = entry(t, session);

        y->port = port;
        y->heard_pos = pos;
        y->heard = (uint32_t)len;
        memcpy(y->bytes, data, len);
        t->heard = true;
    }
    return true;
}

static int take(struct typists *t, struct typist *y, struct input_batch *in)
{
    uint64_t end = y->heard_pos + y->heard;

    y->pos = y->pos > y->heard_pos ? y->pos : y->heard_pos;
    if (end <= y->pos) { /* said again: it has not heard that they are in */
        y->tell = t->tell = true;
        return 0;
    }
    struct input rx = {.kind = INPUT_CONSOLE_RX,
                       .dev = (uint16_t)y->port,
                       .data = y->bytes + (y->pos - y->heard_pos),
                       .len = (uint32_t)(end - y->pos)};
    struct input by = {.kind = INPUT_TYPED_BY,
                       .arg = end,
                       .data = (const uint8_t *)&y->session,
                       .len = sizeof y->session};
    int rc = input_batch_add(in, &rx);

    y->pos = end;
    return rc != 0 ? rc : input_batch_add(in, &by);
}

int typists_take(struct typists *t, struct input_batch *in)
{
    int rc = 0;

    for (unsigned i = 0; t->heard && i < t->n && rc == 0; i++) {
        struct typist *y = &t->all[i];
        if (y->heard != 0) {
            rc = take(t, y, in);
            y->heard = 0;
        }
    }
    t->heard = false;
    return rc;
}

void typists_ran(struct typists *t, const struct record *r)
{
    for (uint32_t i = 0; i < r->ninputs; i++) {
        const struct input *in = &r->inputs[i];
        uint64_t session;

        if (in->kind != INPUT_TYPED_BY || in->len != sizeof session) {
            continue;
        }
        memcpy(&session, in->data, sizeof session);
        struct typist *y = entry(t, session);
        y->carried = in->arg;
        y->seq = r->seq;
        y->pos = y->pos > in->arg ? y->pos : in->arg;
        y->tell = t->tell = true;
    }
}

static bool due(const struct typist *y, uint64_t released)
{
    return y->tell && y->seq <= released;
}

bool typists_must_tell(const struct typists *t, uint64_t released)
{
    for (unsigned i = 0; t->tell && i < t->n; i++) {
        if (due(&t->all[i], released)) {
            return true;
        }
    }
    return false;
}

bool typists_next_told(struct typists *t, uint64_t released, uint64_t *session, uint64_t *pos)
{
    bool more = false;

    for (unsigned i = 0; t->tell && i < t->n; i++) {
        struct typist *y = &t->all[i];
        if (due(y, released)) {
            y->tell = false;
            *session = y->session;
            *pos = y->carried;
            return true;
        }
        more = more || y->tell;
    }
    t->tell = more;
    return false;
}
