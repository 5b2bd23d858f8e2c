/* SPDX-License-Identifier: Apache-2.0
 * base/buf.h - growable byte buffer (wbuf) and bounds-checked reader (rbuf), little-endian.
 *
 * Both latch their first error: a run of puts or gets is written straight down and judged once at
 * the end. After an error puts are ignored and gets return zeros. One owner, no locks. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wbuf {
    uint8_t *data; /* owned; NULL while empty */
    size_t len, cap;
    bool failed; /* out of memory */
};

void wbuf_init(struct wbuf *b);
void wbuf_free(struct wbuf *b);  /* ready for use again */
void wbuf_clear(struct wbuf *b); /* keeps the memory, forgets a failure */
void wbuf_put(struct wbuf *b, const void *data, size_t len);
void wbuf_u8(struct wbuf *b, uint8_t v);
void wbuf_u16(struct wbuf *b, uint16_t v);
void wbuf_u32(struct wbuf *b, uint32_t v);
void wbuf_u64(struct wbuf *b, uint64_t v);
void wbuf_varint(struct wbuf *b, uint64_t v);                 /* LEB128 */
void wbuf_blob(struct wbuf *b, const void *data, size_t len); /* varint length, bytes */
void wbuf_str(struct wbuf *b, const char *s);                 /* a blob without the NUL */
/* Room for @len bytes that the caller fills at once; NULL when out of memory. */
uint8_t *wbuf_grow(struct wbuf *b, size_t len);

struct rbuf {
    const uint8_t *p, *end; /* borrowed */
    bool failed;            /* read past the end, or a malformed varint */
};

void rbuf_init(struct rbuf *r, const void *data, size_t len);
size_t rbuf_left(const struct rbuf *r);
void rbuf_get(struct rbuf *r, void *out, size_t len); /* zero-fills on failure */
uint8_t rbuf_u8(struct rbuf *r);
uint16_t rbuf_u16(struct rbuf *r);
uint32_t rbuf_u32(struct rbuf *r);
uint64_t rbuf_u64(struct rbuf *r);
uint64_t rbuf_varint(struct rbuf *r);
/* A pointer into the buffer to the next @len bytes, or NULL (and failed). */
const uint8_t *rbuf_take(struct rbuf *r, size_t len);
/* A blob: pointer into the buffer and *len; NULL (and failed) when it does not fit. */
const uint8_t *rbuf_blob(struct rbuf *r, size_t *len);
/* A string into @out with its NUL; fails when it holds a NUL or is longer than cap - 1. */
void rbuf_str(struct rbuf *r, char *out, size_t cap);
/* All read and nothing failed. */
bool rbuf_done(const struct rbuf *r);

#endif
