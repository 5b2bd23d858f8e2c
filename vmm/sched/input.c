/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/input.c - the binary form of a record, and lists of outputs.
 *
 * Pure; any thread. Form of a record (all numbers LEB128 unless said otherwise):
 *
 *   bytes   field
 *   1       bits 0-3: version, 1; bit 4: the span is 1,000,000 ns; bit 5: there are inputs;
 *           bits 6-7: 0
 *   1-10    seq
 *   1-10    start_ns
 *   0-10    span_ns, unless bit 4 is set
 *   1-5     rate
 *   0-5     if bit 5 is set: number of inputs, then each:
 *     1       kind
 *     1       status       DISK_DONE
 *     1-3     dev          NET_RX, CONSOLE_RX, DISK_DONE
 *     1-10    arg          WALLCLOCK, DISK_DONE, TYPED_BY
 *     1-..    length, data ENTROPY, NET_RX, CONSOLE_RX, TYPED_BY
 *   4       check: the low 32 bits, little-endian, of H over all bytes before */
#include "vmm/sched/input.h"

#include <stdbool.h>

#include "base/alloc.h"
#include "base/check.h"

enum {
    RECORD_VERSION = 1,
    RECORD_VERSION_MASK = 0x0f,
    RECORD_USUAL_SPAN = 0x10,
    RECORD_HAS_INPUTS = 0x20,
    RECORD_UNKNOWN = 0xc0,
    RECORD_USUAL_SPAN_NS = 1000000,
    RECORD_CHECK_LEN = 4,
    RECORD_MIN = 8,
};

#define RECORD_CHECK_SEED UINT64_C(0x7265636f72640001)

/* Which fields a kind of input carries; the others are zero. */
enum { HAS_STATUS = 1, HAS_DEV = 2, HAS_ARG = 4, HAS_DATA = 8 };

static const uint8_t kind_fields[INPUT_KIND_END] = {
    [INPUT_ENTROPY] = HAS_DATA,
    [INPUT_WALLCLOCK] = HAS_ARG,
    [INPUT_NET_RX] = HAS_DEV | HAS_DATA,
    [INPUT_CONSOLE_RX] = HAS_DEV | HAS_DATA,
    [INPUT_DISK_DONE] = HAS_DEV | HAS_ARG | HAS_STATUS,
    [INPUT_POWER_BUTTON] = 0,
    [INPUT_JUMP] = 0,
    [INPUT_TYPED_BY] = HAS_ARG | HAS_DATA,
};

static uint32_t check_of(const uint8_t *data, size_t len)
{
    return (uint32_t)hash128(data, len, RECORD_CHECK_SEED).lo;
}

void record_encode(const struct record *r, struct wbuf *out)
{
    size_t from = out->len;
    bool usual_span = r->span_ns == RECORD_USUAL_SPAN_NS;

    wbuf_u8(out, (uint8_t)(RECORD_VERSION | (usual_span ? RECORD_USUAL_SPAN : 0) |
                           (r->ninputs != 0 ? RECORD_HAS_INPUTS : 0)));
    wbuf_varint(out, r->seq);
    wbuf_varint(out, r->start_ns);
    if (!usual_span) {
        wbuf_varint(out, r->span_ns);
    }
    wbuf_varint(out, r->rate);
    if (r->ninputs != 0) {
        wbuf_varint(out, r->ninputs);
    }
    for (uint32_t i = 0; i < r->ninputs; i++) {
        const struct input *in = &r->inputs[i];
        PLX_CHECK(in->kind > 0 && in->kind < INPUT_KIND_END && in->len <= INPUT_DATA_MAX);
        unsigned has = kind_fields[in->kind];
        wbuf_u8(out, in->kind);
        if ((has & HAS_STATUS) != 0) {
            wbuf_u8(out, in->status);
        }
        if ((has & HAS_DEV) != 0) {
            wbuf_varint(out, in->dev);
        }
        if ((has & HAS_ARG) != 0) {
            wbuf_varint(out, in->arg);
        }
        if ((has & HAS_DATA) != 0) {
            wbuf_blob(out, in->data, in->len);
        }
    }
    if (!out->failed) {
        wbuf_u32(out, check_of(out->data + from, out->len - from));
    }
}

/* One input; the reader latches what runs past the end. Returns a text of what is wrong or NULL. */
static const char *decode_input(struct rbuf *in, struct input *to)
{
    uint64_t dev = 0;
    size_t len = 0;

    *to = (struct input){.kind = rbuf_u8(in)};
    if (to->kind == 0 || to->kind >= INPUT_KIND_END) {
        return "unknown kind of input";
    }
    unsigned has = kind_fields[to->kind];
    if ((has & HAS_STATUS) != 0) {
        to->status = rbuf_u8(in);
        if (to->status > DISK_UNSUPPORTED) {
            return "unknown disk status";
        }
    }
    if ((has & HAS_DEV) != 0) {
        dev = rbuf_varint(in);
        if (dev > UINT16_MAX) {
            return "device number too large";
        }
        to->dev = (uint16_t)dev;
    }
    if ((has & HAS_ARG) != 0) {
        to->arg = rbuf_varint(in);
    }
    if ((has & HAS_DATA) != 0) {
        to->data = rbuf_blob(in, &len);
        if (len > INPUT_DATA_MAX) {
            return "input data too long";
        }
        to->len = (uint32_t)len;
    }
    return NULL;
}

int record_decode(const void *data, size_t len, struct record *r, struct input **inputs,
                  struct plx_err *err)
{
    const uint8_t *bytes = data;
    struct rbuf in, tail;
    struct input *list = NULL;
    uint64_t rate, n;

    *inputs = NULL;
    *r = (struct record){0};
    if (len < RECORD_MIN) {
        return plx_fail(err, PLX_ETRUNCATED, "record truncated: %zu bytes", len);
    }
    if ((bytes[0] & RECORD_VERSION_MASK) != RECORD_VERSION || (bytes[0] & RECORD_UNKNOWN) != 0) {
        return plx_fail(err, PLX_EVERSION, "record of form %#x is not supported", bytes[0]);
    }
    rbuf_init(&tail, bytes + len - RECORD_CHECK_LEN, RECORD_CHECK_LEN);
    if (rbuf_u32(&tail) != check_of(bytes, len - RECORD_CHECK_LEN)) {
        return plx_fail(err, PLX_ECORRUPT, "record altered or truncated: its check does not match");
    }
    rbuf_init(&in, bytes + 1, len - 1 - RECORD_CHECK_LEN);
    r->seq = rbuf_varint(&in);
    r->start_ns = rbuf_varint(&in);
    r->span_ns = (bytes[0] & RECORD_USUAL_SPAN) != 0 ? RECORD_USUAL_SPAN_NS : rbuf_varint(&in);
    rate = rbuf_varint(&in);
    n = (bytes[0] & RECORD_HAS_INPUTS) != 0 ? rbuf_varint(&in) : 0;
    if (in.failed || rate > UINT32_MAX || n > rbuf_left(&in)) {
        return plx_fail(err, PLX_ECORRUPT, "record malformed: header");
    }
    r->rate = (uint32_t)rate;
    if (n > 0) {
        list = plx_calloc((size_t)n, sizeof *list);
        if (list == NULL) {
            return plx_fail(err, PLX_ENOMEM, "out of memory");
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        const char *bad = decode_input(&in, &list[i]);
        if (bad != NULL || in.failed) {
            plx_free(list);
            return plx_fail(err, PLX_ECORRUPT, "record %llu malformed: input %llu: %s",
                            (unsigned long long)r->seq, (unsigned long long)i,
                            bad != NULL && !in.failed ? bad : "runs past the end");
        }
    }
    if (!rbuf_done(&in)) {
        plx_free(list);
        return plx_fail(err, PLX_ECORRUPT, "record %llu malformed: %zu bytes too many",
                        (unsigned long long)r->seq, rbuf_left(&in));
    }
    r->ninputs = (uint32_t)n;
    r->inputs = list;
    *inputs = list;
    return 0;
}

void output_list_init(struct output_list *l)
{
    *l = (struct output_list){0};
    wbuf_init(&l->bytes);
}

void output_list_free(struct output_list *l)
{
    plx_free(l->items);
    wbuf_free(&l->bytes);
    output_list_init(l);
}

void output_list_clear(struct output_list *l)
{
    l->n = 0;
    wbuf_clear(&l->bytes);
}

/* A port of bytes puts out one at a time; each held and let out alone would cost far more than its
 * making. */
static bool goes_on(const struct output_list *l, const struct output *o)
{
    const struct output *last = l->n == 0 ? NULL : &l->items[l->n - 1];

    return last != NULL && o->kind == OUTPUT_CONSOLE && last->kind == OUTPUT_CONSOLE &&
           last->dev == o->dev && last->pos + last->len == o->pos &&
           last->len <= UINT32_MAX - o->len;
}

void output_add(struct output_list *l, const struct output *o, const void *data)
{
    size_t off = l->bytes.len;

    if (goes_on(l, o)) {
        wbuf_put(&l->bytes, data, o->len);
        PLX_CHECK(!l->bytes.failed);
        l->items[l->n - 1].len += o->len;
        return;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 32 : l->cap * 2;
        struct output *items = plx_realloc(l->items, cap * sizeof *items);
        PLX_CHECK(items != NULL);
        l->items = items;
        l->cap = cap;
    }
    if (data != NULL) {
        wbuf_put(&l->bytes, data, o->len);
        PLX_CHECK(!l->bytes.failed);
    }
    l->items[l->n] = *o;
    l->items[l->n].data_off = off;
    l->n++;
}
