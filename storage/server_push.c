/* SPDX-License-Identifier: Apache-2.0
 * storage/server_push.c - what clients of an image server push (proto/image.proto, "Pushing").
 *
 * A client that is told to put a segment has *promised* it: another one that asks for the same
 * meanwhile is told that it is coming. Promises end with the segment, with the client, or when
 * there are too many: then a segment may be sent twice, and is still kept once.
 *
 * A look may take as long as sending some segments: looks wait, and the server answers one between
 * two rounds of sending, of each client in turn. */
#include "base/alloc.h"
#include "base/check.h"
#include "storage/server_priv.h"

enum { BUCKETS = 1 << 14 };

struct look {
    struct look *next;
    Img__ToServer *m; /* owned; a post that looks */
};

/* --- promises ------------------------------------------------------------------------------- */

static struct promise **find_promise(struct image_server *s, const struct seg_id *id)
{
    struct promise **at = &s->promises[seg_id_hash(id) % BUCKETS];

    while (*at != NULL && !seg_id_eq(&(*at)->id, id)) {
        at = &(*at)->next;
    }
    return at;
}

static void end_promise(struct image_server *s, struct promise **at)
{
    struct promise *p = *at;

    *at = p->next;
    plx_free(p);
    s->npromises--;
}

static void promise(struct image_server *s, struct promise **at, const struct client *c,
                    const struct seg_id *id)
{
    struct promise *p = s->npromises < SERVER_PROMISES ? plx_calloc(1, sizeof *p) : NULL;

    if (p != NULL) {
        *p = (struct promise){.id = *id, .client = c->serial};
        *at = p;
        s->npromises++;
    }
}

static void end_look(struct client *c)
{
    struct look *l = c->looks;

    c->looks = l->next;
    c->nlooks--;
    img__to_server__free_unpacked(l->m, NULL);
    plx_free(l);
}

void server_push_forget(struct image_server *s, struct client *c)
{
    intake_forget(s->intake, &c->intake);
    while (c->looks != NULL) {
        end_look(c);
    }
    for (size_t i = 0; i < BUCKETS && s->npromises > 0 && c->may_push; i++) {
        for (struct promise **at = &s->promises[i]; *at != NULL;) {
            if ((*at)->client == c->serial) {
                end_promise(s, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
}

/* --- posts ---------------------------------------------------------------------------------- */

static void answer(struct image_server *s, const struct client *c, Img__Done *done)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;

    m.msg_case = IMG__FROM_SERVER__MSG_DONE;
    m.done = done;
    (void)server_send(s, c, &m);
}

/* What the store cannot say is told before anything is promised. */
static void do_look(struct image_server *s, const struct client *c, const Img__Post *post)
{
    Img__Done done = IMG__DONE__INIT;
    uint8_t states[IMAGE_LOOK_MAX];
    struct seg_id id;
    struct plx_err err = {{0}};
    size_t n = post->look.len / SHA256_LEN;
    int has = 0;

    for (size_t i = 0; i < n && has >= 0; i++) {
        memcpy(id.sha, post->look.data + i * SHA256_LEN, SHA256_LEN);
        has = store_has(s->cfg.store, &id, &err);
        states[i] = has == 1 ? SEG_THERE : SEG_ABSENT;
    }
    for (size_t i = 0; i < n && has >= 0; i++) {
        memcpy(id.sha, post->look.data + i * SHA256_LEN, SHA256_LEN);
        struct promise **at = find_promise(s, &id);
        if (states[i] == SEG_ABSENT && *at != NULL) {
            states[i] = SEG_COMING;
        } else if (states[i] == SEG_ABSENT) {
            promise(s, at, c, &id);
        }
    }
    done.number = post->number;
    if (has < 0) {
        done.error = err.msg[0] != '\0' ? err.msg : (char *)(uintptr_t)plx_strerror(has);
    } else {
        done.states = (ProtobufCBinaryData){.len = n, .data = states};
    }
    answer(s, c, &done);
}

bool server_push_look(struct image_server *s)
{
    struct client *next = NULL, *first = NULL;

    for (struct client *c = s->clients; c != NULL; c = c->next) {
        if (c->looks == NULL) {
            continue;
        }
        if (first == NULL || c->serial < first->serial) {
            first = c;
        }
        if (c->serial > s->looked && (next == NULL || c->serial < next->serial)) {
            next = c;
        }
    }
    next = next != NULL ? next : first;
    if (next == NULL) {
        return false;
    }
    s->looked = next->serial;
    do_look(s, next, next->looks->m->post);
    end_look(next);
    return true;
}

static int on_look(struct client *c, Img__ToServer **m)
{
    size_t len = (*m)->post->look.len;
    struct look *l;

    if (len % SHA256_LEN != 0 || len / SHA256_LEN > IMAGE_LOOK_MAX || c->nlooks == SERVER_LOOKS) {
        return PLX_EINVAL;
    }
    if ((l = plx_calloc(1, sizeof *l)) == NULL) {
        return PLX_ENOMEM;
    }
    l->m = *m;
    *m = NULL;
    if (c->looks == NULL) {
        c->looks = l;
    } else {
        c->last_look->next = l;
    }
    c->last_look = l;
    c->nlooks++;
    return 0;
}

static bool makes_sense(const Img__Post *post, uint64_t *bytes)
{
    const Img__Segment *g = post->put;

    *bytes = 0;
    switch (post->what_case) {
    case IMG__POST__WHAT_PUT:
        *bytes = g->data.len;
        return g->id.len == SHA256_LEN && seg_form_possible(g->codec, g->raw_len, g->data.len);
    case IMG__POST__WHAT_NAME:
        *bytes = post->name.len;
        return post->name.len <= NAME_VALUE_MAX;
    case IMG__POST__WHAT_SYNC:
        return true;
    default:
        return false;
    }
}

int server_on_post(struct image_server *s, struct client *c, Img__ToServer **m)
{
    const Img__Post *post = (*m)->post;
    uint64_t bytes;

    if (!c->may_push) {
        return PLX_EACCES;
    }
    if (post->what_case == IMG__POST__WHAT_LOOK) {
        return on_look(c, m);
    }
    if (!makes_sense(post, &bytes) || c->posted == IMAGE_PUSH_POSTS ||
        c->posted_bytes > IMAGE_PUSH_WINDOW) {
        return PLX_EINVAL;
    }
    int rc = intake_add(s->intake, &c->intake, c->serial, *m);
    *m = NULL;
    if (rc == 0) {
        c->posted++;
        c->posted_bytes += bytes;
    }
    return rc;
}

static struct client *by_serial(struct image_server *s, uint64_t serial)
{
    struct client *c = s->clients;

    while (c != NULL && c->serial != serial) {
        c = c->next;
    }
    return c;
}

static void tell(struct image_server *s, const struct intake_done *d)
{
    Img__Done done = IMG__DONE__INIT;
    struct client *c = by_serial(s, d->client);
    struct seg_id missing = d->missing;

    if (d->put_bytes > 0) {
        struct promise **at = find_promise(s, &d->put);
        if (*at != NULL && (d->rc == 0 || (*at)->client == d->client)) {
            end_promise(s, at);
        }
        s->put_segments += d->new;
        s->put_bytes += d->new ? d->put_bytes : 0;
        s->shared_segments += d->rc == 0 && !d->new;
    }
    s->names += d->named;
    if (c == NULL) {
        return;
    }
    c->posted--;
    c->posted_bytes -= d->bytes;
    done.number = d->number;
    if (d->lacks) {
        done.missing = (ProtobufCBinaryData){.len = sizeof missing.sha, .data = missing.sha};
    } else if (d->rc != 0) {
        done.error = (char *)(uintptr_t)(d->err.msg[0] != '\0' ? d->err.msg : plx_strerror(d->rc));
    }
    answer(s, c, &done);
}

void server_push_answers(struct image_server *s)
{
    struct intake_done d;

    while (intake_take(s->intake, &d)) {
        tell(s, &d);
    }
}

/* --- life ----------------------------------------------------------------------------------- */

int server_push_open(struct image_server *s, struct plx_err *err)
{
    s->promises = plx_calloc(BUCKETS, sizeof(struct promise *));
    if (s->promises == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image server: out of memory");
    }
    return intake_open(s->cfg.store, s->wake, &s->intake, err);
}

void server_push_close(struct image_server *s)
{
    intake_close(s->intake);
    for (size_t i = 0; s->promises != NULL && i < BUCKETS; i++) {
        while (s->promises[i] != NULL) {
            end_promise(s, &s->promises[i]);
        }
    }
    plx_free(s->promises);
}
