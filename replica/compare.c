/* SPDX-License-Identifier: Apache-2.0
 * replica/compare.c - digests of both replicas compared on the backup, and the naming of what
 * differs. Equal digests up to now and a difference at seq S mean that the difference lies in a
 * section, or in a page that one of the two hashed for S. */
#include "replica/core_priv.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/check.h"

#define PAGES_WAIT_NS UINT64_C(500000000)

static void own_free(struct own_digest *o)
{
    plx_free(o->pages);
    *o = (struct own_digest){0};
}

static void peer_free(struct peer_digest *p)
{
    plx_free(p->sections);
    *p = (struct peer_digest){0};
}

void compare_free(struct rep *r)
{
    for (int i = 0; i < REP_DIGESTS_KEPT; i++) {
        own_free(&r->own[i]);
        peer_free(&r->theirs[i]);
    }
}

static struct own_digest *own_find(struct rep *r, uint64_t seq)
{
    for (int i = 0; i < REP_DIGESTS_KEPT; i++) {
        if (r->own[i].used && r->own[i].d.seq == seq) {
            return &r->own[i];
        }
    }
    return NULL;
}

/* A free slot, or the oldest: a peer that far behind is bounded by the lag, not by us. */
static struct own_digest *own_slot(struct rep *r)
{
    struct own_digest *oldest = &r->own[0];

    for (int i = 0; i < REP_DIGESTS_KEPT; i++) {
        if (!r->own[i].used) {
            return &r->own[i];
        }
        if (r->own[i].d.seq < oldest->d.seq) {
            oldest = &r->own[i];
        }
    }
    own_free(oldest);
    return oldest;
}

static void encode_sections(const struct vm_digest *d, struct wbuf *out)
{
    wbuf_varint(out, d->nsections);
    for (unsigned i = 0; i < d->nsections; i++) {
        wbuf_str(out, d->sections[i].name);
        wbuf_u64(out, d->sections[i].hash.lo);
        wbuf_u64(out, d->sections[i].hash.hi);
    }
}

static void append(char *text, const char *fmt, const char *what)
{
    size_t n = strlen(text);

    (void)snprintf(text + n, REP_TEXT_MAX - n, fmt, what);
}

/* Names of sections whose hashes differ, into the text. */
static void name_sections(const struct vm_digest *mine, const uint8_t *theirs, size_t len,
                          char *text)
{
    struct rbuf in;

    rbuf_init(&in, theirs, len);
    uint64_t n = rbuf_varint(&in);
    for (uint64_t i = 0; i < n && !in.failed; i++) {
        char name[32];
        struct hash128 h;

        rbuf_str(&in, name, sizeof name);
        h.lo = rbuf_u64(&in);
        h.hi = rbuf_u64(&in);
        for (unsigned k = 0; k < mine->nsections && !in.failed; k++) {
            if (strcmp(mine->sections[k].name, name) == 0 &&
                !hash128_eq(mine->sections[k].hash, h)) {
                append(text, ", section %s", name);
            }
        }
    }
}

static void diverged(struct rep *r);

static void differ(struct rep *r, const struct own_digest *mine, const struct peer_digest *theirs,
                   uint64_t now)
{
    struct rep_msg m = {.kind = REP_PAGES_WANTED, .seq = mine->d.seq};

    r->stats.digests_differ++;
    if (r->differs_seq != 0) {
        return; /* the first difference is the one to name */
    }
    r->differs_seq = mine->d.seq;
    r->differs_deadline = now + PAGES_WAIT_NS;
    (void)snprintf(r->differs_text, sizeof r->differs_text, "digest of record %llu differs",
                   (unsigned long long)mine->d.seq);
    name_sections(&mine->d, theirs->sections, theirs->len, r->differs_text);
    if (r->phase == REP_PAIRED) {
        rep_send(r, &m);
    } else {
        diverged(r); /* the primary is not there to name pages, and must not be succeeded */
    }
}

/* Both digests of one seq are here (backup only). */
static void compare(struct rep *r, struct own_digest *mine, struct peer_digest *theirs,
                    uint64_t now)
{
    r->stats.digests_compared++;
    if (hash128_eq(mine->d.all, theirs->all)) {
        struct rep_msg ok = {.kind = REP_DIGEST_OK, .seq = mine->d.seq};
        rep_send(r, &ok);
        own_free(mine);
    } else {
        differ(r, mine, theirs, now);
    }
    peer_free(theirs);
}

void compare_own(struct rep *r, const struct vm_digest *d, const struct digest_page *pages,
                 size_t npages, uint64_t now)
{
    struct own_digest *o = own_slot(r);

    o->used = true;
    o->d = *d;
    o->npages = npages;
    if (npages != 0) {
        o->pages = plx_calloc(npages, sizeof *pages);
        PLX_CHECK(o->pages != NULL);
        memcpy(o->pages, pages, npages * sizeof *pages);
    }
    if (r->role == REP_PRIMARY) {
        struct wbuf sections;
        struct rep_msg m = {.kind = REP_DIGEST, .seq = d->seq, .digest = d->all};

        wbuf_init(&sections);
        encode_sections(d, &sections);
        PLX_CHECK(!sections.failed);
        m.data = sections.data;
        m.len = sections.len;
        rep_send(r, &m);
        wbuf_free(&sections);
        return;
    }
    for (int i = 0; i < REP_DIGESTS_KEPT; i++) {
        if (r->theirs[i].used && r->theirs[i].seq == d->seq) {
            compare(r, o, &r->theirs[i], now);
            return;
        }
    }
}

static void recv_digest(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    struct peer_digest *slot = &r->theirs[0];

    for (int i = 0; i < REP_DIGESTS_KEPT; i++) {
        struct peer_digest *p = &r->theirs[i];
        if (!p->used || (slot->used && p->seq < slot->seq)) {
            slot = p;
            if (!p->used) {
                break;
            }
        }
    }
    peer_free(slot);
    slot->used = true;
    slot->seq = m->seq;
    slot->all = m->digest;
    slot->sections = plx_calloc(1, m->len + 1);
    PLX_CHECK(slot->sections != NULL);
    if (m->len != 0) {
        memcpy(slot->sections, m->data, m->len);
    }
    slot->len = m->len;
    struct own_digest *mine = own_find(r, m->seq);
    if (mine != NULL) {
        compare(r, mine, slot, now);
    }
}

static void send_pages(struct rep *r, uint64_t seq)
{
    const struct own_digest *o = own_find(r, seq);
    struct wbuf list;
    struct rep_msg m = {.kind = REP_PAGES, .seq = seq};

    wbuf_init(&list);
    for (size_t i = 0; o != NULL && i < o->npages; i++) {
        wbuf_u64(&list, o->pages[i].gpa);
        wbuf_u64(&list, o->pages[i].hash.lo);
        wbuf_u64(&list, o->pages[i].hash.hi);
    }
    PLX_CHECK(!list.failed);
    m.data = list.data;
    m.len = list.len;
    rep_send(r, &m);
    wbuf_free(&list);
}

/* The backup has all it can know: say so and end; the primary goes on (or stops: policy). A backup
 * whose state is wrong must not take over (I4), even when there is nobody else. */
static void diverged(struct rep *r)
{
    struct rep_msg m = {.kind = REP_DIVERGED,
                        .seq = r->differs_seq,
                        .data = (const uint8_t *)r->differs_text,
                        .len = strlen(r->differs_text)};

    rep_send(r, &m);
    r->ops.event(r->ops.ctx, REP_EV_DIVERGED, r->differs_seq, r->differs_text);
    held_drop_through(&r->held, UINT64_MAX);
    rep_enter(r, REP_OUT);
}

enum { PAGES_NAMED_MAX = 8 };

static void name_page(struct rep *r, gpa_t gpa, unsigned *named)
{
    char hex[32];

    if ((*named)++ < PAGES_NAMED_MAX) {
        (void)snprintf(hex, sizeof hex, "0x%llx", (unsigned long long)gpa);
        append(r->differs_text, ", page %s", hex);
    }
}

/* Both lists are in address order. Names the pages that both hashed with different results or, if
 * @lone, those that only one hashed and found to be other than zeros: untouched RAM is not hashed.
 */
static unsigned name_pages(struct rep *r, const struct own_digest *mine, const struct rep_msg *m,
                           bool lone)
{
    struct rbuf in;
    size_t k = 0;
    unsigned named = 0;

    rbuf_init(&in, m->data, m->len);
    while (rbuf_left(&in) >= 24) {
        gpa_t gpa = rbuf_u64(&in);
        struct hash128 h = {.lo = rbuf_u64(&in)};

        h.hi = rbuf_u64(&in);
        for (; k < mine->npages && mine->pages[k].gpa < gpa; k++) {
            if (lone && (mine->pages[k].hash.lo | mine->pages[k].hash.hi) != 0) {
                name_page(r, mine->pages[k].gpa, &named);
            }
        }
        if (k < mine->npages && mine->pages[k].gpa == gpa) {
            if (!lone && !hash128_eq(mine->pages[k].hash, h)) {
                name_page(r, gpa, &named);
            }
            k++;
        } else if (lone && (h.lo | h.hi) != 0) {
            name_page(r, gpa, &named);
        }
    }
    for (; lone && k < mine->npages; k++) {
        if ((mine->pages[k].hash.lo | mine->pages[k].hash.hi) != 0) {
            name_page(r, mine->pages[k].gpa, &named);
        }
    }
    return named;
}

static void recv_pages(struct rep *r, const struct rep_msg *m)
{
    const struct own_digest *mine = own_find(r, m->seq);

    if (mine == NULL || r->differs_seq != m->seq) {
        return;
    }
    if (name_pages(r, mine, m, false) == 0) {
        (void)name_pages(r, mine, m, true);
    }
    diverged(r);
}

static void recv_diverged(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    char text[REP_TEXT_MAX];
    size_t n = m->len < sizeof text - 1 ? m->len : sizeof text - 1;

    if (n != 0) {
        memcpy(text, m->data, n);
    }
    text[n] = '\0';
    r->stats.digests_differ++;
    r->ops.event(r->ops.ctx, REP_EV_BACKUP_DIFFERS, m->seq, text);
    if (r->cfg.stop_on_divergence) {
        held_drop_through(&r->held, UINT64_MAX);
        rep_enter(r, REP_OUT);
        r->ops.event(r->ops.ctx, REP_EV_OUT, m->seq, "stopped: the policy for divergence is stop");
    } else {
        rep_ask_for(r, REP_ASK_DROP, now);
    }
}

void compare_recv(struct rep *r, const struct rep_msg *m, uint64_t now)
{
    struct own_digest *o;

    if (r->role == REP_PRIMARY) {
        switch (m->kind) {
        case REP_DIGEST_OK:
            o = own_find(r, m->seq);
            if (o != NULL) {
                r->stats.digests_compared++;
                own_free(o);
            }
            return;
        case REP_PAGES_WANTED:
            send_pages(r, m->seq);
            return;
        case REP_DIVERGED:
            recv_diverged(r, m, now);
            return;
        default:
            break;
        }
    } else if (m->kind == REP_DIGEST) {
        recv_digest(r, m, now);
        return;
    } else if (m->kind == REP_PAGES) {
        recv_pages(r, m);
        return;
    }
    r->stats.stale_messages++;
}

bool compare_differs(const struct rep *r)
{
    return r->role == REP_BACKUP && r->differs_seq != 0;
}

void compare_give_up(struct rep *r)
{
    if (r->phase != REP_OUT) {
        diverged(r);
    }
}

void compare_tick(struct rep *r, uint64_t now)
{
    if (r->differs_seq != 0 && now >= r->differs_deadline) {
        diverged(r); /* the peer cannot name pages any more */
    }
}
