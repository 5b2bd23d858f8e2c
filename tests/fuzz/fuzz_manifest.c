/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_manifest.c - bytes as a manifest, a reference to an image, a boot profile. What
 * is taken must come out as it went in. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/manifest.h"
#include "tests/fuzz/fuzz.h"

static void as_manifest(const uint8_t *data, size_t size)
{
    struct manifest m, again;
    struct plx_err err = {0};
    struct wbuf out;

    if (manifest_get(data, size, &m, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return;
    }
    for (int k = 0; k < STREAMS; k++) {
        const struct manifest_stream *s = &m.streams[k];
        for (size_t i = 0; i < s->n; i++) {
            PLX_CHECK(s->segs[i].off + s->segs[i].len <= s->bytes);
            PLX_CHECK(manifest_find(s, s->segs[i].off) == i);
        }
        PLX_CHECK(manifest_data(s) <= s->bytes);
    }
    wbuf_init(&out);
    PLX_CHECK(manifest_put(&m, &out) == 0);
    PLX_CHECK(manifest_get(out.data, out.len, &again, &err) == 0);
    manifest_free(&again);
    manifest_free(&m);
    wbuf_free(&out);
}

static void as_ref(const uint8_t *data, size_t size)
{
    struct image_ref ref, copy;
    struct plx_err err = {0};
    struct wbuf out;

    if (image_ref_get(data, size, &ref, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return;
    }
    PLX_CHECK(image_ref_copy(&ref, &copy) == 0);
    wbuf_init(&out);
    PLX_CHECK(image_ref_put(&copy, &out) == 0);
    wbuf_free(&out);
    image_ref_free(&copy);
    image_ref_free(&ref);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plx_err err = {0};
    uint32_t *order;
    size_t n;

    as_manifest(data, size);
    as_ref(data, size);
    if (profile_get(data, size, 1000, &order, &n, &err) == 0) {
        for (size_t i = 0; i < n; i++) {
            PLX_CHECK(order[i] < 1000);
        }
        plx_free(order);
    } else {
        PLX_CHECK(err.msg[0] != '\0');
    }
    return 0;
}
