/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/sections.c - see sections.h. */
#include "vmm/sched/sections.h"

#include <inttypes.h>
#include <string.h>

#include "vmm/sched/vm_internal.h"

void sections_save(struct vm *vm, struct wbuf *out)
{
    for (unsigned i = 0; i < vm->m->ndevices; i++) {
        const struct device *d = &vm->m->devices[i];
        size_t from = out->len, length_at;

        wbuf_str(out, d->name);
        wbuf_u32(out, d->version);
        length_at = out->len;
        wbuf_u64(out, 0);
        d->ops->save(d->dev, out);
        if (out->failed) {
            return;
        }
        uint64_t length = out->len - length_at - sizeof length;
        memcpy(out->data + length_at, &length, sizeof length);
        state_put_hash(out, hash128(out->data + from, out->len - from, STATE_SEED));
    }
}

/* The next section, checked against its hash. */
static int section_next(struct rbuf *in, struct section *s, struct plx_err *err)
{
    const uint8_t *from = in->p;
    uint64_t length;
    struct hash128 want, have;

    rbuf_str(in, s->name, sizeof s->name);
    s->version = rbuf_u32(in);
    length = rbuf_u64(in);
    if (in->failed || length > rbuf_left(in)) {
        return plx_fail(err, PLX_ETRUNCATED, "section '%s' is truncated", s->name);
    }
    s->len = (size_t)length;
    s->data = rbuf_take(in, s->len);
    have = hash128(from, (size_t)(in->p - from), STATE_SEED);
    want = state_get_hash(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "section '%s' is truncated", s->name);
    }
    if (!hash128_eq(want, have)) {
        return plx_fail(err, PLX_ECORRUPT, "section '%s' is corrupt: its hash does not match",
                        s->name);
    }
    return 0;
}

int sections_parse(const struct machine *m, struct rbuf *in, struct section *found,
                   struct plx_err *err)
{
    memset(found, 0, sizeof *found * m->ndevices);
    while (rbuf_left(in) > 0) {
        struct section s;
        unsigned i = 0;
        int rc = section_next(in, &s, err);
        if (rc != 0) {
            return rc;
        }
        while (i < m->ndevices && strcmp(m->devices[i].name, s.name) != 0) {
            i++;
        }
        if (i == m->ndevices) {
            return plx_fail(err, PLX_ENOTSUP, "section '%s' is of no device of this machine",
                            s.name);
        }
        if (found[i].data != NULL) {
            return plx_fail(err, PLX_ECORRUPT, "section '%s' is there twice", s.name);
        }
        if (s.version > m->devices[i].version) {
            return plx_fail(err, PLX_EVERSION,
                            "section '%s' is of version %" PRIu32 ", newer than %" PRIu32, s.name,
                            s.version, m->devices[i].version);
        }
        found[i] = s;
    }
    for (unsigned i = 0; i < m->ndevices; i++) {
        if (found[i].data == NULL) {
            return plx_fail(err, PLX_ETRUNCATED, "section '%s' is missing", m->devices[i].name);
        }
    }
    return 0;
}

int sections_apply(struct vm *vm, const struct section *found, struct plx_err *err)
{
    struct wbuf again;
    int rc = 0;

    wbuf_init(&again);
    for (unsigned i = 0; i < vm->m->ndevices && rc == 0; i++) {
        const struct device *d = &vm->m->devices[i];
        struct rbuf in;
        rbuf_init(&in, found[i].data, found[i].len);
        rc = d->ops->load(d->dev, &in, found[i].version, err);
        if (rc != 0) {
            rc = plx_err_wrap(err, rc, "section '%s'", d->name);
        } else if (!rbuf_done(&in)) {
            rc = plx_fail(err, PLX_ECORRUPT, "section '%s' is too long", d->name);
        }
    }
    for (unsigned i = 0; i < vm->m->ndevices && rc == 0; i++) {
        const struct device *d = &vm->m->devices[i];
        wbuf_clear(&again);
        d->ops->save(d->dev, &again);
        if (again.failed) {
            rc = plx_fail(err, PLX_ENOMEM, "out of memory");
        } else if (found[i].version == d->version &&
                   (again.len != found[i].len ||
                    memcmp(again.data, found[i].data, again.len) != 0)) {
            rc = plx_fail(err, PLX_ECORRUPT, "section '%s' holds an impossible value", d->name);
        }
    }
    wbuf_free(&again);
    /* What engines derived implies rights to pages that are others now. */
    for (unsigned i = 0; vm->pc->owner != NULL && i < vm->m->cfg.vcpus; i++) {
        vm->cfg.engine->drop(vm->pc->cpus[i].v);
    }
    return rc;
}

int sections_load(struct vm *vm, struct rbuf *in, struct plx_err *err)
{
    struct section found[SECTIONS_MAX];
    int rc = sections_parse(vm->m, in, found, err);

    return rc != 0 ? rc : sections_apply(vm, found, err);
}
