/* SPDX-License-Identifier: Apache-2.0
 * base/buf.c - see buf.h. Hosts are x86-64, hence little-endian copies. */
#include "base/buf.h"

#include <string.h>

#include "base/alloc.h"

void wbuf_init(struct wbuf *b)
{
    *b = (struct wbuf){0};
}

void wbuf_free(struct wbuf *b)
{
    plx_free(b->data);
    wbuf_init(b);
}

void wbuf_clear(struct wbuf *b)
{
    b->len = 0;
    b->failed = false;
}

uint8_t *wbuf_grow(struct wbuf *b, size_t len)
{
    if (b->failed) {
        return NULL;
    }
    if (b->data == NULL || len > b->cap - b->len) { /* NULL means out of memory, also for 0 bytes */
        size_t cap = b->cap < 256 ? 256 : b->cap;
        while (cap - b->len < len) {
            if (cap > SIZE_MAX / 2) {
                b->failed = true;
                return NULL;
            }
            cap *= 2;
        }
        uint8_t *data = plx_realloc(b->data, cap);
        if (data == NULL) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    uint8_t *at = b->data + b->len;
    b->len += len;
    return at;
}

void wbuf_put(struct wbuf *b, const void *data, size_t len)
{
    if (len == 0) {
        return;
    }
    uint8_t *at = wbuf_grow(b, len);
    if (at != NULL) {
        memcpy(at, data, len);
    }
}

void wbuf_u8(struct wbuf *b, uint8_t v)
{
    wbuf_put(b, &v, sizeof v);
}

void wbuf_u16(struct wbuf *b, uint16_t v)
{
    wbuf_put(b, &v, sizeof v);
}

void wbuf_u32(struct wbuf *b, uint32_t v)
{
    wbuf_put(b, &v, sizeof v);
}

void wbuf_u64(struct wbuf *b, uint64_t v)
{
    wbuf_put(b, &v, sizeof v);
}

void wbuf_varint(struct wbuf *b, uint64_t v)
{
    while (v >= 0x80) {
        wbuf_u8(b, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    wbuf_u8(b, (uint8_t)v);
}

void wbuf_blob(struct wbuf *b, const void *data, size_t len)
{
    wbuf_varint(b, len);
    wbuf_put(b, data, len);
}

void wbuf_str(struct wbuf *b, const char *s)
{
    wbuf_blob(b, s, strlen(s));
}

void rbuf_init(struct rbuf *r, const void *data, size_t len)
{
    r->p = data;
    r->end = len == 0 ? r->p : r->p + len;
    r->failed = false;
}

size_t rbuf_left(const struct rbuf *r)
{
    return (size_t)(r->end - r->p);
}

const uint8_t *rbuf_take(struct rbuf *r, size_t len)
{
    if (r->failed || len > rbuf_left(r)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *at = r->p;
    r->p += len;
    return at;
}

void rbuf_get(struct rbuf *r, void *out, size_t len)
{
    const uint8_t *at = rbuf_take(r, len);

    if (at != NULL && len != 0) {
        memcpy(out, at, len);
    } else if (len != 0) {
        memset(out, 0, len);
    }
}

uint8_t rbuf_u8(struct rbuf *r)
{
    uint8_t v;
    rbuf_get(r, &v, sizeof v);
    return v;
}

uint16_t rbuf_u16(struct rbuf *r)
{
    uint16_t v;
    rbuf_get(r, &v, sizeof v);
    return v;
}

uint32_t rbuf_u32(struct rbuf *r)
{
    uint32_t v;
    rbuf_get(r, &v, sizeof v);
    return v;
}

uint64_t rbuf_u64(struct rbuf *r)
{
    uint64_t v;
    rbuf_get(r, &v, sizeof v);
    return v;
}

uint64_t rbuf_varint(struct rbuf *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = rbuf_u8(r);
        if (r->failed || (shift == 63 && byte > 1)) {
            break;
        }
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return v;
        }
    }
    r->failed = true;
    return 0;
}

const uint8_t *rbuf_blob(struct rbuf *r, size_t *len)
{
    uint64_t n = rbuf_varint(r);

    *len = 0;
    if (n > rbuf_left(r)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *at = rbuf_take(r, (size_t)n);
    if (at != NULL) {
        *len = (size_t)n;
    }
    return at;
}

void rbuf_str(struct rbuf *r, char *out, size_t cap)
{
    size_t len;
    const uint8_t *at = rbuf_blob(r, &len);

    out[0] = '\0';
    if (at == NULL || len >= cap || memchr(at, '\0', len) != NULL) {
        r->failed = true;
        return;
    }
    memcpy(out, at, len);
    out[len] = '\0';
}

bool rbuf_done(const struct rbuf *r)
{
    return !r->failed && r->p == r->end;
}
