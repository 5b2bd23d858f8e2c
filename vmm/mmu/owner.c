/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/owner.c - see owner.h.
 *
 * Policy (R3). A page moves to whoever writes it, and becomes shared again when another vCPU reads
 * it; each time that takes something from somebody the page gets hotter. A page that is hot is
 * contended: it stays shared, is read by all in parallel, and is written in serial parts only,
 * where a write costs its vCPU one stop but takes nothing from the others. When it was written in
 * OWNER_COOL spells of serial runs in a row, and by one vCPU alone, it is given to that vCPU. */
#include "vmm/mmu/owner.h"

#include <string.h>

#include "base/alloc.h"
#include "base/chaos.h"
#include "base/check.h"
#include "vmm/dev/section.h"
#include "vmm/tunables.h"

int owner_create(uint64_t npages, unsigned vcpus, const struct owner_ops *ops, void *ctx,
                 struct owner **out, struct plx_err *err)
{
    struct owner *o = plx_calloc(1, sizeof *o);

    *out = NULL;
    PLX_CHECK(vcpus <= 16); /* bits of owner.wrote */
    if (o != NULL) {
        o->pages = plx_calloc(npages, sizeof *o->pages);
        o->wrote = plx_calloc(npages, sizeof *o->wrote);
        o->written = plx_calloc(npages, sizeof *o->written);
    }
    if (o == NULL || o->pages == NULL || o->wrote == NULL || o->written == NULL) {
        owner_destroy(o);
        return plx_fail(err, PLX_ENOMEM, "out of memory for the ownership of pages");
    }
    o->npages = npages;
    o->vcpus = vcpus;
    o->ops = ops;
    o->ctx = ctx;
    *out = o;
    return 0;
}

void owner_destroy(struct owner *o)
{
    if (o != NULL) {
        plx_free(o->pages);
        plx_free(o->wrote);
        plx_free(o->written);
        plx_free(o);
    }
}

static void revoke_others(struct owner *o, uint64_t page, unsigned keeper)
{
    for (unsigned i = 0; i < o->vcpus; i++) {
        if (i != keeper) {
            o->ops->revoke(o->ctx, i, page, true);
        }
    }
}

static void share(struct owner *o, uint64_t page)
{
    struct owner_page *p = &o->pages[page];
    unsigned loser = p->holder - 1U;

    chaos_delay(CHAOS_OWNER);
    p->holder = OWNER_SHARED;
    p->heat = p->heat < OWNER_HOT ? (uint8_t)(p->heat + 1) : p->heat;
    o->counters.to_shared++;
    o->ops->revoke(o->ctx, loser, page, false);
}

static void give(struct owner *o, uint64_t page, unsigned vcpu)
{
    struct owner_page *p = &o->pages[page];

    p->holder = (uint8_t)(vcpu + 1);
    p->writer = 0;
    p->streak = 0;
    o->counters.to_exclusive++;
    chaos_delay(CHAOS_OWNER);
    revoke_others(o, page, vcpu);
}

static void note_written(struct owner *o, uint64_t page, unsigned vcpu)
{
    uint16_t bit = (uint16_t)(1U << vcpu);

    if (o->wrote[page] == 0) {
        o->written[o->nwritten++] = page;
    }
    o->counters.in_place += (o->wrote[page] & bit) == 0;
    o->wrote[page] |= bit;
}

static void begin_spell(struct owner *o)
{
    o->nwritten = 0;
    o->spell++;
}

void owner_settle(struct owner *o)
{
    for (uint64_t i = 0; i < o->nwritten; i++) {
        uint64_t page = o->written[i];
        struct owner_page *p = &o->pages[page];
        unsigned by = o->wrote[page], first = (unsigned)__builtin_ctz(by);

        o->wrote[page] = 0;
        if ((by & (by - 1)) != 0) {
            p->writer = 0;
            p->streak = 0;
            continue;
        }
        if (p->writer != first + 1) {
            p->writer = (uint8_t)(first + 1);
            p->streak = 0;
        }
        if (++p->streak == OWNER_COOL) {
            p->heat = OWNER_HOT / 2;
            o->counters.cooled++;
            give(o, page, first);
        }
    }
    begin_spell(o);
}

unsigned owner_serial(struct owner *o, uint64_t page, unsigned vcpu, enum owner_right want)
{
    struct owner_page *p = &o->pages[page];

    PLX_CHECK(page < o->npages && vcpu < o->vcpus);
    if (p->holder == vcpu + 1) {
        return OWNER_R | OWNER_W;
    }
    if (want == OWNER_R) {
        if (p->holder != OWNER_SHARED) {
            share(o, page);
        }
        return OWNER_R;
    }
    if (p->holder != OWNER_SHARED) {
        share(o, page); /* taken from another vCPU: hotter */
    }
    if (p->heat >= OWNER_HOT) {
        note_written(o, page, vcpu);
        return OWNER_R | OWNER_NOW;
    }
    give(o, page, vcpu);
    return OWNER_R | OWNER_W;
}

/* --- section "owner" -------------------------------------------------------------------------- */

static void forget_written(struct owner *o)
{
    for (uint64_t i = 0; i < o->nwritten; i++) {
        o->wrote[o->written[i]] = 0;
    }
    begin_spell(o);
}

static void owner_reset(void *dev)
{
    struct owner *o = dev;

    memset(o->pages, 0, o->npages * sizeof *o->pages);
    forget_written(o);
}

static void owner_save(const void *dev, struct wbuf *out)
{
    const struct owner *o = dev;

    wbuf_u8(out, o->eager);
    wbuf_varint(out, o->npages);
    for (uint64_t page = 0; page < o->npages;) {
        const struct owner_page *p = &o->pages[page];
        uint64_t end = page + 1;
        while (end < o->npages && memcmp(&o->pages[end], p, sizeof *p) == 0) {
            end++;
        }
        wbuf_varint(out, end - page);
        wbuf_put(out, p, sizeof *p); /* four bytes: no padding, no byte order */
        page = end;
    }
    wbuf_varint(out, o->nwritten);
    for (uint64_t i = 0; i < o->nwritten; i++) {
        wbuf_varint(out, o->written[i]);
        wbuf_u16(out, o->wrote[o->written[i]]);
    }
}

static int check_page(const struct owner *o, const struct owner_page *p, struct plx_err *err)
{
    int rc = section_field("owner: holder", p->holder <= o->vcpus, p->holder, err);

    if (rc == 0) {
        rc = section_field("owner: heat", p->heat <= OWNER_HOT, p->heat, err);
    }
    if (rc == 0) {
        rc = section_field("owner: writer", p->writer <= o->vcpus, p->writer, err);
    }
    return rc != 0 ? rc : section_field("owner: streak", p->streak < OWNER_COOL, p->streak, err);
}

static int load_written(struct owner *o, struct rbuf *in, struct plx_err *err)
{
    uint64_t n = rbuf_varint(in);
    int rc = section_field("owner: pages written", in->failed || n <= o->npages, n, err);

    for (; rc == 0 && n > 0; n--) {
        uint64_t page = rbuf_varint(in);
        uint16_t wrote = rbuf_u16(in);
        if (in->failed) {
            break;
        }
        rc = section_field("owner: page written",
                           page < o->npages && o->pages[page].holder == OWNER_SHARED &&
                               o->pages[page].heat == OWNER_HOT && o->wrote[page] == 0,
                           page, err);
        if (rc == 0) {
            rc = section_field("owner: who wrote it", wrote != 0 && wrote >> o->vcpus == 0, wrote,
                               err);
        }
        if (rc == 0) {
            o->wrote[page] = wrote;
            o->written[o->nwritten++] = page;
        }
    }
    return rc;
}

static int owner_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct owner *o = dev;
    int rc = section_version("owner", version, OWNER_SECTION_VERSION, err);
    uint64_t npages;

    if (rc != 0) {
        return rc;
    }
    uint8_t eager = rbuf_u8(in);
    npages = rbuf_varint(in);
    if (!in->failed && (rc = section_field("owner: eager", eager <= 1, eager, err)) != 0) {
        return rc;
    }
    o->eager = eager != 0;
    rc = section_field("owner: pages", in->failed || npages == o->npages, npages, err);
    for (uint64_t page = 0; rc == 0 && page < o->npages;) {
        uint64_t run = rbuf_varint(in);
        struct owner_page p;
        rbuf_get(in, &p, sizeof p);
        if (in->failed) {
            break;
        }
        rc = section_field("owner: run", run > 0 && run <= o->npages - page, run, err);
        if (rc == 0) {
            rc = check_page(o, &p, err);
        }
        for (; rc == 0 && run > 0; run--) {
            o->pages[page++] = p;
        }
    }
    forget_written(o);
    if (rc == 0 && !in->failed) {
        rc = load_written(o, in, err);
    }
    return rc != 0 ? rc : section_complete("owner", in, err);
}

const struct device_ops owner_section_ops = {owner_reset, owner_save, owner_load};
