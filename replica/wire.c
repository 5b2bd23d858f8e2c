/* SPDX-License-Identifier: Apache-2.0
 * replica/wire.c - see wire.h. */
#include "replica/wire.h"

#include <string.h>

#include "base/check.h"
#include "proto/replica.pb-c.h"

void rep_wire_encode(const struct rep_msg *m, const struct rep_identity *id, struct wbuf *out)
{
    Rep__Message p = REP__MESSAGE__INIT;

    p.version = REP_WIRE_VERSION;
    p.kind = m->kind;
    p.epoch = m->epoch;
    p.from = m->from;
    p.to = m->to;
    p.seq = m->seq;
    p.ran = m->ran;
    p.released = m->released;
    p.nonce = m->nonce;
    p.start_ns = m->start_ns;
    p.digest_lo = m->digest.lo;
    p.digest_hi = m->digest.hi;
    p.resend = m->resend;
    p.data.len = m->len;
    p.data.data = (uint8_t *)(uintptr_t)m->data; /* only read by the packer */
    if (m->kind == REP_HELLO) {
        p.cluster.len = p.vm.len = REP_ID_LEN;
        p.cluster.data = (uint8_t *)(uintptr_t)id->cluster;
        p.vm.data = (uint8_t *)(uintptr_t)id->vm;
    }
    uint8_t *at = wbuf_grow(out, rep__message__get_packed_size(&p));
    PLX_CHECK(at != NULL);
    (void)rep__message__pack(&p, at);
}

static bool same_id(const ProtobufCBinaryData *b, const uint8_t *id)
{
    return b->len == REP_ID_LEN && memcmp(b->data, id, REP_ID_LEN) == 0;
}

static int check(const Rep__Message *p, const struct rep_identity *id)
{
    if (p->version != REP_WIRE_VERSION) {
        return PLX_EVERSION;
    }
    if (p->kind == 0 || p->kind >= REP_MSG_END) {
        return PLX_ECORRUPT;
    }
    if (p->kind == REP_HELLO && (!same_id(&p->cluster, id->cluster) || !same_id(&p->vm, id->vm))) {
        return PLX_EAUTH;
    }
    return 0;
}

int rep_wire_decode(const void *data, size_t len, const struct rep_identity *id,
                    struct rep_wire **w, struct rep_msg *m)
{
    Rep__Message *p;
    int rc;

    *w = NULL;
    p = len > REP_WIRE_MAX ? NULL : rep__message__unpack(NULL, len, data);
    if (p == NULL) {
        return PLX_ECORRUPT;
    }
    rc = check(p, id);
    if (rc != 0) {
        rep__message__free_unpacked(p, NULL);
        return rc;
    }
    *m = (struct rep_msg){
        .kind = (uint8_t)p->kind,
        .resend = p->resend,
        .epoch = p->epoch,
        .from = p->from,
        .to = p->to,
        .seq = p->seq,
        .ran = p->ran,
        .released = p->released,
        .nonce = p->nonce,
        .start_ns = p->start_ns,
        .digest = {.lo = p->digest_lo, .hi = p->digest_hi},
        .data = p->data.data,
        .len = p->data.len,
    };
    *w = (struct rep_wire *)p;
    return 0;
}

void rep_wire_free(struct rep_wire *w)
{
    if (w != NULL) {
        rep__message__free_unpacked((Rep__Message *)w, NULL);
    }
}
