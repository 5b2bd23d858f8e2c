/* SPDX-License-Identifier: Apache-2.0
 * consensus/roles_wire.c - commands and states of roles.h as bytes.
 *
 * Both start with a format byte. Integers are little-endian, strings are blobs (base/buf.h). What
 * is read is checked as a whole before anything is used: the bytes come from a disk or a peer. */
#include <string.h>

#include "base/alloc.h"
#include "consensus/roles.h"

enum { CMD_FORMAT = 1, STATE_FORMAT = 1 };

static void put_replica(struct wbuf *w, const struct role_replica *r)
{
    wbuf_u32(w, r->node);
    if (r->node != 0) {
        wbuf_u64(w, r->incarnation);
        wbuf_put(w, r->key, sizeof r->key);
        wbuf_str(w, r->endpoint);
    }
}

static void get_replica(struct rbuf *r, struct role_replica *out)
{
    *out = (struct role_replica){.node = rbuf_u32(r)};
    if (out->node != 0) {
        out->incarnation = rbuf_u64(r);
        rbuf_get(r, out->key, sizeof out->key);
        rbuf_str(r, out->endpoint, sizeof out->endpoint);
        r->failed = r->failed || out->incarnation == 0 || out->endpoint[0] == '\0';
    }
}

static bool get_bool(struct rbuf *r)
{
    uint8_t v = rbuf_u8(r);

    r->failed = r->failed || v > 1;
    return v == 1;
}

void roles_cmd_encode(const struct roles_cmd *c, struct wbuf *out)
{
    wbuf_u8(out, CMD_FORMAT);
    wbuf_u8(out, (uint8_t)c->op);
    wbuf_u64(out, c->request);
    wbuf_put(out, c->uuid, sizeof c->uuid);
    wbuf_u64(out, c->epoch);
    wbuf_u64(out, c->incarnation);
    put_replica(out, &c->primary);
    put_replica(out, &c->backup);
    wbuf_u8(out, (uint8_t)c->stop);
    wbuf_u64(out, c->code);
    wbuf_u8(out, c->protect);
    wbuf_str(out, c->name != NULL ? c->name : "");
    wbuf_str(out, c->xml != NULL ? c->xml : "");
}

int roles_cmd_decode(const void *data, size_t len, struct roles_cmd *c, struct wbuf *scratch,
                     struct plx_err *err)
{
    struct rbuf r;

    *c = (struct roles_cmd){0};
    rbuf_init(&r, data, len);
    uint8_t format = rbuf_u8(&r);
    if (!r.failed && format != CMD_FORMAT) {
        return plx_fail(err, PLX_EVERSION, "roles command of format %u, this version knows %u",
                        format, CMD_FORMAT);
    }
    c->op = rbuf_u8(&r);
    c->request = rbuf_u64(&r);
    rbuf_get(&r, c->uuid, sizeof c->uuid);
    c->epoch = rbuf_u64(&r);
    c->incarnation = rbuf_u64(&r);
    get_replica(&r, &c->primary);
    get_replica(&r, &c->backup);
    c->stop = rbuf_u8(&r);
    c->code = rbuf_u64(&r);
    c->protect = get_bool(&r);
    wbuf_clear(scratch);
    char *text = (char *)wbuf_grow(scratch, ROLES_NAME_MAX + ROLES_XML_MAX);
    if (text == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot read a roles command: out of memory");
    }
    rbuf_str(&r, text, ROLES_NAME_MAX);
    rbuf_str(&r, text + ROLES_NAME_MAX, ROLES_XML_MAX);
    c->name = text;
    c->xml = text + ROLES_NAME_MAX;
    if (!rbuf_done(&r)) {
        return plx_fail(err, PLX_ECORRUPT, "malformed roles command of %zu bytes", len);
    }
    return 0;
}

void roles_encode(const struct roles_state *s, struct wbuf *out)
{
    wbuf_u8(out, STATE_FORMAT);
    wbuf_u64(out, s->applied);
    wbuf_u32(out, s->recent_next);
    for (unsigned i = 0; i < ROLES_RECENT; i++) {
        wbuf_u64(out, s->recent[i]);
    }
    wbuf_u32(out, s->n);
    for (unsigned i = 0; i < s->n; i++) {
        const struct roles_vm *vm = &s->vms[i];
        wbuf_put(out, vm->uuid, sizeof vm->uuid);
        wbuf_str(out, vm->name);
        wbuf_str(out, vm->xml);
        wbuf_u8(out, vm->protect);
        wbuf_u8(out, (uint8_t)vm->phase);
        wbuf_u64(out, vm->epoch);
        put_replica(out, &vm->primary);
        put_replica(out, &vm->backup);
        wbuf_u8(out, vm->in_sync);
        wbuf_u8(out, vm->primary_lost);
        wbuf_u8(out, (uint8_t)vm->stop);
        wbuf_u64(out, vm->stop_code);
        wbuf_u32(out, vm->newest[0]);
        wbuf_u32(out, vm->newest[1]);
    }
}

static void get_vm(struct rbuf *r, struct roles_vm *vm)
{
    size_t len;
    const uint8_t *xml;
    uint8_t phase, stop;

    rbuf_get(r, vm->uuid, sizeof vm->uuid);
    rbuf_str(r, vm->name, sizeof vm->name);
    xml = rbuf_blob(r, &len);
    if (xml == NULL || len >= ROLES_XML_MAX || memchr(xml, '\0', len) != NULL) {
        r->failed = true;
        return;
    }
    vm->xml = plx_calloc(1, len + 1);
    if (vm->xml == NULL) {
        r->failed = true;
        return;
    }
    memcpy(vm->xml, xml, len);
    vm->protect = get_bool(r);
    phase = rbuf_u8(r);
    vm->epoch = rbuf_u64(r);
    get_replica(r, &vm->primary);
    get_replica(r, &vm->backup);
    vm->in_sync = get_bool(r);
    vm->primary_lost = get_bool(r);
    stop = rbuf_u8(r);
    vm->stop_code = rbuf_u64(r);
    vm->newest[0] = rbuf_u32(r);
    vm->newest[1] = rbuf_u32(r);
    r->failed = r->failed || vm->name[0] == '\0' || phase > ROLES_RUNNING ||
                stop >= ROLES_STOP_END || (phase == ROLES_STOPPED) != (vm->primary.node == 0);
    vm->phase = phase;
    vm->stop = stop;
}

int roles_decode(const void *data, size_t len, struct roles_state *s, struct plx_err *err)
{
    struct roles_state n;
    struct rbuf r;

    roles_init(&n);
    rbuf_init(&r, data, len);
    uint8_t format = rbuf_u8(&r);
    if (!r.failed && format != STATE_FORMAT) {
        return plx_fail(err, PLX_EVERSION, "roles snapshot of format %u, this version knows %u",
                        format, STATE_FORMAT);
    }
    n.applied = rbuf_u64(&r);
    n.recent_next = rbuf_u32(&r);
    for (unsigned i = 0; i < ROLES_RECENT; i++) {
        n.recent[i] = rbuf_u64(&r);
    }
    uint32_t count = rbuf_u32(&r);
    if (r.failed || count > ROLES_VMS_MAX || n.recent_next >= ROLES_RECENT) {
        goto err_corrupt;
    }
    if (count != 0) {
        n.vms = plx_calloc(count, sizeof *n.vms);
        if (n.vms == NULL) {
            return plx_fail(err, PLX_ENOMEM, "cannot read a roles snapshot: out of memory");
        }
    }
    for (unsigned i = 0; i < count && !r.failed; i++) {
        n.n = i + 1;
        get_vm(&r, &n.vms[i]);
        if (i > 0 && memcmp(n.vms[i - 1].uuid, n.vms[i].uuid, ROLES_UUID_LEN) >= 0) {
            r.failed = true;
        }
    }
    if (!rbuf_done(&r)) {
        goto err_corrupt;
    }
    roles_free(s);
    *s = n;
    return 0;

err_corrupt:
    roles_free(&n);
    return plx_fail(err, PLX_ECORRUPT, "corrupt roles snapshot of %zu bytes", len);
}
