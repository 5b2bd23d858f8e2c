/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a record that does not come back as it was, an altered or cut record that is read, a
 * hostile one that makes the reader allocate or read past its end, a lost output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/alloc.h"
#include "base/prng.h"
#include "vmm/sched/input.h"
#include "vmm/tunables.h"

static const uint8_t frame[60] = {0x52, 0x54, 0, 1, 2, 3};

static const struct input every_kind[] = {
    {.kind = INPUT_ENTROPY, .data = (const uint8_t *)"0123456789abcdef", .len = 16},
    {.kind = INPUT_WALLCLOCK, .arg = 1700000000000000000U},
    {.kind = INPUT_NET_RX, .dev = 3, .data = frame, .len = sizeof frame},
    {.kind = INPUT_CONSOLE_RX, .dev = 1, .data = (const uint8_t *)"ls\n", .len = 3},
    {.kind = INPUT_DISK_DONE, .dev = 7, .arg = 1234567, .status = DISK_IOERR},
    {.kind = INPUT_POWER_BUTTON},
    {.kind = INPUT_JUMP},
    {.kind = INPUT_TYPED_BY, .arg = 1000, .data = frame, .len = 8},
};

static struct record sample(void)
{
    return (struct record){.seq = 70000,
                           .start_ns = 3600000000000U,
                           .span_ns = SLICE_SPAN_NS,
                           .rate = RATE_DEFAULT,
                           .inputs = every_kind,
                           .ninputs = sizeof every_kind / sizeof every_kind[0]};
}

static void every_kind_comes_back(void **state)
{
    struct record r = sample(), got;
    struct input *inputs;
    struct wbuf w;

    (void)state;
    wbuf_init(&w);
    record_encode(&r, &w);
    assert_int_equal(record_decode(w.data, w.len, &got, &inputs, NULL), 0);
    assert_int_equal(got.seq, r.seq);
    assert_int_equal(got.start_ns, r.start_ns);
    assert_int_equal(got.span_ns, r.span_ns);
    assert_int_equal(got.rate, r.rate);
    assert_int_equal(got.ninputs, r.ninputs);
    for (uint32_t i = 0; i < r.ninputs; i++) {
        assert_int_equal(inputs[i].kind, every_kind[i].kind);
        assert_int_equal(inputs[i].status, every_kind[i].status);
        assert_int_equal(inputs[i].dev, every_kind[i].dev);
        assert_int_equal(inputs[i].arg, every_kind[i].arg);
        assert_int_equal(inputs[i].len, every_kind[i].len);
        if (inputs[i].len > 0) {
            assert_memory_equal(inputs[i].data, every_kind[i].data, inputs[i].len);
        }
    }
    plx_free(inputs);
    wbuf_free(&w);
}

/* The record of an idle VM after an hour: what an idle guest costs per wake-up. */
static void idle_record_is_small(void **state)
{
    struct record r = sample();
    struct wbuf w;

    (void)state;
    r.ninputs = 0;
    wbuf_init(&w);
    record_encode(&r, &w);
    print_message("an idle record takes %zu bytes\n", w.len);
    assert_in_range(w.len, 10, 20);
    wbuf_free(&w);
}

static void any_flipped_bit_and_any_cut_is_refused(void **state)
{
    struct record r = sample(), got;
    struct input *inputs;
    struct plx_err err;
    struct wbuf w;

    (void)state;
    wbuf_init(&w);
    record_encode(&r, &w);
    for (size_t i = 0; i < w.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            w.data[i] ^= (uint8_t)(1U << bit);
            err.msg[0] = '\0';
            assert_true(record_decode(w.data, w.len, &got, &inputs, &err) < 0);
            assert_null(inputs);
            assert_true(err.msg[0] != '\0');
            w.data[i] ^= (uint8_t)(1U << bit);
        }
        assert_true(record_decode(w.data, i, &got, &inputs, &err) < 0);
    }
    wbuf_free(&w);
}

/* A well-signed record with hostile contents: the check is no secret. */
static void seal(struct wbuf *w)
{
    wbuf_u32(w, (uint32_t)hash128(w->data, w->len, UINT64_C(0x7265636f72640001)).lo);
}

static void hostile_contents_are_refused(void **state)
{
    static const struct {
        uint8_t body[24];
        size_t len;
    } bad[] = {
        {{0x21, 1, 0, 1, 1, 1, 99, 0, 0}, 9},                   /* unknown kind */
        {{0x21, 1, 0, 1, 1, 1, 0, 0, 0}, 9},                    /* kind 0 */
        {{0x21, 1, 0, 1, 1, 0xff, 0xff, 0x03, 6}, 9},           /* more inputs than bytes */
        {{0x21, 1, 0, 1, 1, 2, 6, 6, 6}, 9},                    /* bytes too many */
        {{0x21, 1, 0, 1, 1, 1, 5, 9, 0, 1}, 10},                /* disk status */
        {{0x21, 1, 0, 1, 1, 1, 3, 0xff, 0xff, 0x7f, 0}, 11},    /* device number */
        {{0x21, 1, 0, 1, 1, 1, 1, 0x7f, 1}, 9},                 /* data past the end */
        {{0x21, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0}, 10}, /* rate over 32 bits */
        {{0x21, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02, 0, 1, 1, 0}, 15},
    };
    struct record got;
    struct input *inputs;
    struct plx_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wbuf w;
        wbuf_init(&w);
        wbuf_put(&w, bad[i].body, bad[i].len);
        seal(&w);
        assert_int_equal(record_decode(w.data, w.len, &got, &inputs, &err), PLX_ECORRUPT);
        assert_null(inputs);
        wbuf_free(&w);
    }
}

/* Random bytes under a right check never crash the reader; what it accepts it writes back. */
static void random_bodies_are_safe(void **state)
{
    const uint64_t seed = 20240601;
    struct prng g;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    for (int i = 0; i < 20000; i++) {
        uint8_t body[64];
        struct record got;
        struct input *inputs;
        struct wbuf w;
        size_t len = 6 + (size_t)prng_below(&g, sizeof body - 6);
        prng_fill(&g, body, len);
        body[0] = (uint8_t)(1 | (prng_below(&g, 4) << 4));
        for (size_t k = 1; k < 7 && prng_below(&g, 4) != 0; k++) {
            body[k] &= 7;
        }
        wbuf_init(&w);
        wbuf_put(&w, body, len);
        seal(&w);
        if (record_decode(w.data, w.len, &got, &inputs, NULL) == 0) {
            struct wbuf again;
            wbuf_init(&again);
            record_encode(&got, &again);
            assert_false(again.failed);
            plx_free(inputs);
            wbuf_free(&again);
        }
        wbuf_free(&w);
    }
}

static void outputs_keep_order_and_data(void **state)
{
    struct output_list l;

    (void)state;
    output_list_init(&l);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            struct output o = {.kind = OUTPUT_CONSOLE, .len = i % 7, .pos = i};
            output_add(&l, &o, "abcdefg");
            o = (struct output){.kind = OUTPUT_DISK, .op = DISK_READ, .len = 4096, .arg = i};
            output_add(&l, &o, NULL);
        }
        assert_int_equal(l.n, 200);
        for (uint32_t i = 0; i < 100; i++) {
            assert_int_equal(l.items[2 * i].pos, i);
            assert_memory_equal(output_data(&l, &l.items[2 * i]), "abcdefg", i % 7);
            assert_int_equal(l.items[2 * i + 1].arg, i);
        }
        output_list_clear(&l);
        assert_int_equal(l.n, 0);
    }
    output_list_free(&l);
}

/* Runs of one port end with a hole in its positions, another port and another kind. */
static void console_bytes_become_runs(void **state)
{
    static const struct {
        uint8_t kind;
        uint16_t dev;
        uint64_t pos;
        size_t item; /* where it must end up */
    } put[] = {
        {OUTPUT_CONSOLE, 0, 7, 0},  {OUTPUT_CONSOLE, 0, 8, 0},  {OUTPUT_CONSOLE, 0, 9, 0},
        {OUTPUT_CONSOLE, 1, 10, 1}, {OUTPUT_CONSOLE, 1, 12, 2}, {OUTPUT_CONSOLE, 1, 13, 2},
        {OUTPUT_NET_TX, 1, 14, 3},  {OUTPUT_CONSOLE, 1, 14, 4}, {OUTPUT_CONSOLE, 1, 15, 4},
    };
    static const uint32_t len[] = {3, 1, 2, 1, 2};
    struct output_list l;
    const char *all = "abcdefghi";

    (void)state;
    output_list_init(&l);
    for (size_t i = 0; i < PLX_COUNT(put); i++) {
        struct output o = {.kind = put[i].kind, .dev = put[i].dev, .len = 1, .pos = put[i].pos};
        output_add(&l, &o, &all[i]);
        assert_int_equal(l.n, put[i].item + 1);
    }
    for (size_t i = 0; i < PLX_COUNT(len); i++) {
        assert_int_equal(l.items[i].len, len[i]);
        assert_memory_equal(output_data(&l, &l.items[i]), all, len[i]);
        all += len[i];
    }
    output_list_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(idle_record_is_small),
        cmocka_unit_test(any_flipped_bit_and_any_cut_is_refused),
        cmocka_unit_test(hostile_contents_are_refused),
        cmocka_unit_test(random_bodies_are_safe),
        cmocka_unit_test(outputs_keep_order_and_data),
        cmocka_unit_test(console_bytes_become_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
