/* SPDX-License-Identifier: Apache-2.0
 * storage/pack.c - see pack.h. */
#include "storage/pack.h"

#include <xxhash.h>

#include "base/io.h"

#define PACK_MAGIC UINT64_C(0x314b434150584c50) /* "PLXPACK1" */
enum { RECORD_MAGIC = 0x31474553 };             /* "SEG1" */

enum { CODEC_AT = 12, SHA_AT = 16, DATA_HASH_AT = 48, HASH_AT = 56 };

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v); /* hosts are little-endian */
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

void pack_header_put(uint8_t out[PACK_HEADER], uint32_t number)
{
    put64(out, PACK_MAGIC);
    put32(out + 8, number);
    put32(out + 12, 0);
    put64(out + 16, XXH3_64bits(out, 16));
}

bool pack_header_good(const uint8_t in[PACK_HEADER], uint32_t number)
{
    return get64(in) == PACK_MAGIC && get32(in + 8) == number && get32(in + 12) == 0 &&
           get64(in + 16) == XXH3_64bits(in, 16);
}

uint64_t pack_data_hash(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

static uint64_t place(uint32_t number, uint64_t off)
{
    return (uint64_t)number << 32 ^ off; /* packs are far smaller than 4 GiB */
}

void pack_record_put(uint8_t out[PACK_RECORD], uint32_t number, uint64_t off,
                     const struct pack_record *r)
{
    put32(out, RECORD_MAGIC);
    put32(out + 4, r->raw_len);
    put32(out + 8, r->stored_len);
    put32(out + CODEC_AT, (uint32_t)r->codec);
    memcpy(out + SHA_AT, r->id.sha, sizeof r->id.sha);
    put64(out + DATA_HASH_AT, r->data_hash);
    put64(out + HASH_AT, XXH3_64bits_withSeed(out, HASH_AT, place(number, off)));
}

int pack_record_get(const uint8_t in[PACK_RECORD], uint32_t number, uint64_t off,
                    struct pack_record *out)
{
    uint32_t codec = get32(in + CODEC_AT);

    out->raw_len = get32(in + 4);
    out->stored_len = get32(in + 8);
    out->codec = (enum seg_codec)codec;
    memcpy(out->id.sha, in + SHA_AT, sizeof out->id.sha);
    out->data_hash = get64(in + DATA_HASH_AT);
    if (get32(in) != RECORD_MAGIC ||
        get64(in + HASH_AT) != XXH3_64bits_withSeed(in, HASH_AT, place(number, off)) ||
        !seg_form_possible(codec, out->raw_len, out->stored_len)) {
        return PLX_ECORRUPT;
    }
    return 0;
}

int pack_read(int fd, uint32_t number, uint64_t off, uint32_t stored_len, const struct seg_id *id,
              struct wbuf *out, struct seg_form *form, struct plx_err *err)
{
    struct pack_record r;
    size_t len = PACK_RECORD + (size_t)stored_len;

    wbuf_clear(out);
    uint8_t *at = wbuf_grow(out, len);
    if (at == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for a segment");
    }
    ssize_t got = io_pread_full(fd, at, len, off);
    if (got < 0) {
        (void)plx_fail_errno(err, "cannot read pack %08x at %llu", number, (unsigned long long)off);
        return PLX_EIO;
    }
    if ((size_t)got < len || pack_record_get(at, number, off, &r) != 0 ||
        r.stored_len != stored_len || !seg_id_eq(&r.id, id)) {
        return plx_fail(err, PLX_ECORRUPT, "pack %08x at %llu: not the segment that was put there",
                        number, (unsigned long long)off);
    }
    if (pack_data_hash(at + PACK_RECORD, stored_len) != r.data_hash) {
        return plx_fail(err, PLX_ECORRUPT, "pack %08x at %llu: the segment is damaged", number,
                        (unsigned long long)off);
    }
    *form = (struct seg_form){
        .codec = r.codec, .raw_len = r.raw_len, .stored_len = stored_len, .data = at + PACK_RECORD};
    return 0;
}
