/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/aml.c - AML terms and resource descriptors. Pure. */
#include "vmm/boot/aml.h"

#include <string.h>

#include "base/check.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_EXT = 0x5b,
    OP_EXT_DEVICE = 0x82,
};

/* Lengths are always written in the three-byte form, so that begin can leave room for it. */
enum { PKG_LENGTH_BYTES = 3, PKG_LENGTH_MAX = 1 << 20 };

static size_t begin(struct wbuf *b)
{
    size_t at = b->len;

    (void)wbuf_grow(b, PKG_LENGTH_BYTES);
    return at;
}

void aml_end(struct wbuf *b, size_t begun)
{
    size_t len = b->len - begun; /* counts itself */

    if (b->failed) {
        return;
    }
    PLX_CHECK(len < PKG_LENGTH_MAX);
    b->data[begun] = (uint8_t)(0x80 | (len & 0xf));
    b->data[begun + 1] = (uint8_t)(len >> 4);
    b->data[begun + 2] = (uint8_t)(len >> 12);
}

static void name_string(struct wbuf *b, const char *name)
{
    char seg[4] = {'_', '_', '_', '_'};

    if (*name == '\\') {
        wbuf_u8(b, '\\');
        name++;
    }
    PLX_CHECK(strlen(name) <= sizeof seg);
    memcpy(seg, name, strlen(name));
    wbuf_put(b, seg, sizeof seg);
}

size_t aml_scope(struct wbuf *b, const char *name)
{
    wbuf_u8(b, OP_SCOPE);
    size_t at = begin(b);
    name_string(b, name);
    return at;
}

size_t aml_device(struct wbuf *b, const char *name)
{
    wbuf_u8(b, OP_EXT);
    wbuf_u8(b, OP_EXT_DEVICE);
    size_t at = begin(b);
    name_string(b, name);
    return at;
}

size_t aml_package(struct wbuf *b, uint8_t elements)
{
    wbuf_u8(b, OP_PACKAGE);
    size_t at = begin(b);
    wbuf_u8(b, elements);
    return at;
}

void aml_name(struct wbuf *b, const char *name)
{
    wbuf_u8(b, OP_NAME);
    name_string(b, name);
}

void aml_int(struct wbuf *b, uint64_t v)
{
    if (v <= 1) {
        wbuf_u8(b, v == 0 ? OP_ZERO : OP_ONE);
    } else if (v <= UINT8_MAX) {
        wbuf_u8(b, OP_BYTE);
        wbuf_u8(b, (uint8_t)v);
    } else if (v <= UINT16_MAX) {
        wbuf_u8(b, OP_WORD);
        wbuf_u16(b, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        wbuf_u8(b, OP_DWORD);
        wbuf_u32(b, (uint32_t)v);
    } else {
        wbuf_u8(b, OP_QWORD);
        wbuf_u64(b, v);
    }
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of five bits, four hex digits, big-endian ("EISAID", ASL macro). */
void aml_eisa_id(struct wbuf *b, const char id[static 7])
{
    unsigned letters =
        (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');

    wbuf_u8(b, OP_DWORD);
    wbuf_u8(b, (uint8_t)(letters >> 8));
    wbuf_u8(b, (uint8_t)letters);
    wbuf_u8(b, (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])));
    wbuf_u8(b, (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6])));
}

void aml_resources_begin(struct wbuf *b, struct aml_resources *r)
{
    wbuf_u8(b, OP_BUFFER);
    r->buffer = begin(b);
    wbuf_u8(b, OP_WORD);
    r->size_at = b->len;
    wbuf_u16(b, 0);
    r->start = b->len;
}

void aml_resources_end(struct wbuf *b, const struct aml_resources *r)
{
    wbuf_u8(b, 0x79); /* End Tag */
    wbuf_u8(b, 0);    /* checksum 0: treated as good */
    if (!b->failed) {
        b->data[r->size_at] = (uint8_t)(b->len - r->start);
        b->data[r->size_at + 1] = (uint8_t)((b->len - r->start) >> 8);
    }
    aml_end(b, r->buffer);
}

/* "I/O Port Descriptor", 16-bit decode. */
void aml_io(struct wbuf *b, uint16_t base, uint8_t len)
{
    wbuf_u8(b, 0x47);
    wbuf_u8(b, 1);
    wbuf_u16(b, base);
    wbuf_u16(b, base);
    wbuf_u8(b, 1);
    wbuf_u8(b, len);
}

/* "IRQ Descriptor", two-byte form: edge, high, exclusive. */
void aml_irq(struct wbuf *b, unsigned irq)
{
    wbuf_u8(b, 0x22);
    wbuf_u16(b, (uint16_t)(1u << irq));
}

/* "Word Address Space Descriptor" and "DWord ...": fixed range, positive decode, producer. */
enum { SPACE_MEMORY = 0, SPACE_IO = 1, SPACE_BUS = 2, RANGE_FIXED = 0x0c };

static void word_range(struct wbuf *b, uint8_t space, uint8_t specific, uint16_t first,
                       uint16_t last)
{
    wbuf_u8(b, 0x88);
    wbuf_u16(b, 13);
    wbuf_u8(b, space);
    wbuf_u8(b, RANGE_FIXED);
    wbuf_u8(b, specific);
    wbuf_u16(b, 0); /* granularity */
    wbuf_u16(b, first);
    wbuf_u16(b, last);
    wbuf_u16(b, 0); /* translation */
    wbuf_u16(b, (uint16_t)(last - first + 1));
}

void aml_bus_range(struct wbuf *b, uint16_t first, uint16_t last)
{
    word_range(b, SPACE_BUS, 0, first, last);
}

void aml_io_range(struct wbuf *b, uint16_t first, uint16_t last)
{
    word_range(b, SPACE_IO, 3 /* entire range */, first, last);
}

void aml_memory_range(struct wbuf *b, uint32_t first, uint32_t last)
{
    wbuf_u8(b, 0x87);
    wbuf_u16(b, 23);
    wbuf_u8(b, SPACE_MEMORY);
    wbuf_u8(b, RANGE_FIXED);
    wbuf_u8(b, 1); /* read-write, not cached */
    wbuf_u32(b, 0);
    wbuf_u32(b, first);
    wbuf_u32(b, last);
    wbuf_u32(b, 0);
    wbuf_u32(b, last - first + 1);
}
