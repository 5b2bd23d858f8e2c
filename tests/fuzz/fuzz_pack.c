/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_pack.c - bytes as the records of a pack, and as a segment's stored form. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "storage/pack.h"
#include "storage/store.h"
#include "tests/fuzz/fuzz.h"

/* The record as a whole, read as packs are. */
static void as_pack(const uint8_t *data, size_t size)
{
    struct plx_err err = {0};
    struct seg_form form;
    struct pack_record r;
    struct wbuf buf;
    int fd = memfd_create("fuzz-pack", MFD_CLOEXEC);

    PLX_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    wbuf_init(&buf);
    for (uint64_t off = 0; off + PACK_RECORD <= size; off++) {
        if (pack_record_get(data + off, 1, off, &r) == 0 &&
            pack_read(fd, 1, off, r.stored_len, &r.id, &buf, &form, &err) != 0) {
            PLX_CHECK(err.msg[0] != '\0');
        }
    }
    wbuf_free(&buf);
    (void)close(fd);
}

/* Hash and checksum made to fit, so that what is behind them is reached. */
static void as_form(const uint8_t *data, size_t size)
{
    static uint8_t raw[SEG_MAX];
    struct seg_id id;
    struct plx_err err = {0};
    uint32_t raw_len;

    if (size < 5) {
        return;
    }
    memcpy(&raw_len, data, sizeof raw_len);
    raw_len = raw_len % SEG_MAX + 1;
    memset(&id, 0, sizeof id);
    struct seg_form form = {.codec = SEG_ZSTD,
                            .raw_len = raw_len,
                            .stored_len = (uint32_t)(size - 4),
                            .data = data + 4};
    if (store_open_form(&id, &form, raw, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 16) {
        return 0;
    }
    as_pack(data, size);
    as_form(data, size);
    return 0;
}
