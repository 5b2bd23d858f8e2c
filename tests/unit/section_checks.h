/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/section_checks.h - the checks of saved state that every device gets. */
#ifndef TESTS_UNIT_SECTION_CHECKS_H
#define TESTS_UNIT_SECTION_CHECKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/prng.h"
#include "vmm/device.h"

static inline int section_read(struct device *d, const struct wbuf *w, size_t len, uint32_t version)
{
    struct plx_err err = {0};
    struct rbuf in;
    int rc;

    rbuf_init(&in, w->data, len);
    rc = d->ops->load(d->dev, &in, version, &err);
    if (rc == 0) {
        assert_int_equal(rbuf_left(&in), 0); /* it read exactly what was written */
    } else {
        assert_true(rc == PLX_EVERSION || rc == PLX_ETRUNCATED || rc == PLX_ECORRUPT);
        assert_true(err.msg[0] != '\0');
    }
    return rc;
}

static inline void section_equal(struct device *d, const struct wbuf *w)
{
    struct wbuf again;

    wbuf_init(&again);
    d->ops->save(d->dev, &again);
    assert_int_equal(again.len, w->len);
    assert_memory_equal(again.data, w->data, w->len);
    wbuf_free(&again);
}

/* Every truncation of a section is refused; a long one is cut at fewer places after its head. */
static inline void check_truncations(struct device *d, const struct wbuf *w)
{
    for (size_t len = 0; len<w->len; len += w->len> 1024 && len > 64 && len + 16 < w->len ? 7 : 1) {
        assert_true(section_read(d, w, len, d->version) < 0);
    }
}

/* save -> load -> save is equal; also from a device that was reset in between. */
static inline void check_round_trip(struct device *d)
{
    struct wbuf w;

    wbuf_init(&w);
    d->ops->save(d->dev, &w);
    assert_int_equal(section_read(d, &w, w.len, d->version), 0);
    section_equal(d, &w);
    d->ops->reset(d->dev);
    assert_int_equal(section_read(d, &w, w.len, d->version), 0);
    section_equal(d, &w);
    wbuf_free(&w);
}

/* Every truncation and another version are refused; random damage is refused or is a state that
 * saves as it was loaded and survives @poke. */
static inline void check_hostile(struct device *d, struct prng *g, void (*poke)(void *ctx),
                                 void *ctx)
{
    struct wbuf good, bad;

    wbuf_init(&good);
    wbuf_init(&bad);
    d->ops->save(d->dev, &good);
    assert_int_equal(section_read(d, &good, good.len, d->version + 1), PLX_EVERSION);
    check_truncations(d, &good);
    for (unsigned i = 0; i < 500; i++) {
        wbuf_clear(&bad);
        wbuf_put(&bad, good.data, good.len);
        for (uint64_t n = 1 + prng_below(g, 4); n > 0; n--) {
            bad.data[prng_below(g, bad.len)] = (uint8_t)prng_u64(g);
        }
        struct rbuf in;

        rbuf_init(&in, bad.data, bad.len);
        if (d->ops->load(d->dev, &in, d->version, NULL) == 0 && rbuf_left(&in) == 0) {
            section_equal(d, &bad);
            if (poke != NULL) {
                poke(ctx);
            }
        }
    }
    assert_int_equal(section_read(d, &good, good.len, d->version), 0);
    section_equal(d, &good);
    wbuf_free(&good);
    wbuf_free(&bad);
}

#endif
