/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a reader that runs past its end, an error that is not latched, a leaking unwind, a hash
 * that is not the published one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/chaos.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/prng.h"

static void buffers_round_trip(void **state)
{
    struct wbuf w;
    struct rbuf r;
    char s[8];

    (void)state;
    wbuf_init(&w);
    wbuf_u8(&w, 1);
    wbuf_u16(&w, 0x203);
    wbuf_u32(&w, 0x4050607);
    wbuf_u64(&w, UINT64_MAX);
    wbuf_varint(&w, 127);
    wbuf_varint(&w, 128);
    wbuf_varint(&w, UINT64_MAX);
    wbuf_str(&w, "redis");
    assert_false(w.failed);
    rbuf_init(&r, w.data, w.len);
    assert_int_equal(rbuf_u8(&r), 1);
    assert_int_equal(rbuf_u16(&r), 0x203);
    assert_int_equal(rbuf_u32(&r), 0x4050607);
    assert_true(rbuf_u64(&r) == UINT64_MAX);
    assert_int_equal(rbuf_varint(&r), 127);
    assert_int_equal(rbuf_varint(&r), 128);
    assert_true(rbuf_varint(&r) == UINT64_MAX);
    rbuf_str(&r, s, sizeof s);
    assert_string_equal(s, "redis");
    assert_true(rbuf_done(&r));
    wbuf_free(&w);
}

/* Every truncation of a valid message fails, and what was not read is zero. */
static void reader_fails_at_every_truncation(void **state)
{
    struct wbuf w;
    struct rbuf r;
    char s[8];

    (void)state;
    wbuf_init(&w);
    wbuf_u32(&w, 7);
    wbuf_str(&w, "abc");
    wbuf_varint(&w, 300);
    for (size_t len = 0; len < w.len; len++) {
        rbuf_init(&r, w.data, len);
        (void)rbuf_u32(&r);
        rbuf_str(&r, s, sizeof s);
        (void)rbuf_varint(&r);
        assert_false(rbuf_done(&r));
        assert_true(r.failed);
        assert_int_equal(rbuf_u64(&r), 0);
    }
    wbuf_free(&w);
}

static void malformed_varints_and_strings_are_refused(void **state)
{
    static const uint8_t overlong[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    static const uint8_t huge_blob[] = {0xff, 0xff, 0xff, 0xff, 0x7f, 'x'};
    static const uint8_t inner_nul[] = {3, 'a', 0, 'b'};
    struct rbuf r;
    size_t len;
    char s[8];

    (void)state;
    rbuf_init(&r, overlong, sizeof overlong);
    (void)rbuf_varint(&r);
    assert_true(r.failed);
    rbuf_init(&r, huge_blob, sizeof huge_blob);
    assert_null(rbuf_blob(&r, &len));
    assert_true(r.failed);
    rbuf_init(&r, inner_nul, sizeof inner_nul);
    rbuf_str(&r, s, sizeof s);
    assert_true(r.failed);
}

static void a_failed_allocation_latches(void **state)
{
    struct wbuf w;

    (void)state;
    wbuf_init(&w);
    plx_heap_fail_at(0);
    wbuf_u8(&w, 1);
    plx_heap_fail_never();
    wbuf_u8(&w, 2);
    assert_true(w.failed);
    assert_int_equal(w.len, 0);
    wbuf_free(&w);
}

/* Zeros, at a multiple of what was asked for, to the last byte; small ones too. */
static void pages_are_aligned_and_zero(void **state)
{
    static const size_t sizes[] = {1, 4096, 5000, PLX_HUGE, PLX_HUGE + 1, 3 * PLX_HUGE + 4096};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *p = plx_pages(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (sizes[i] < PLX_HUGE ? 4096 : (size_t)PLX_HUGE), 0);
        for (size_t at = 0; at < sizes[i]; at++) {
            assert_int_equal(p[at], 0);
        }
        memset(p, 0xa5, sizes[i]);
        plx_pages_free(p, sizes[i]);
    }
    plx_pages_free(NULL, PLX_HUGE);
    plx_heap_fail_at(0);
    assert_null(plx_pages(1));
    plx_heap_fail_never();
}

static void messages_gain_context_outward(void **state)
{
    struct plx_err e = {0};

    (void)state;
    assert_int_equal(plx_fail(&e, PLX_ECORRUPT, "section %s", "cpu0"), PLX_ECORRUPT);
    assert_int_equal(plx_err_wrap(&e, PLX_ECORRUPT, "loading %s", "f"), PLX_ECORRUPT);
    assert_string_equal(e.msg, "loading f: section cpu0");
    assert_int_equal(plx_fail(NULL, PLX_EIO, "no one listens"), PLX_EIO);
    assert_string_equal(plx_strerror(PLX_ESTALE), "superseded");
}

static void hash_sum_commutes_and_cancels(void **state)
{
    struct hash128 a = hash128("a", 1, 0), b = hash128("b", 1, 0);
    char hex[HASH128_HEX];

    (void)state;
    assert_true(hash128_eq(hash128_add(a, b), hash128_add(b, a)));
    assert_true(hash128_eq(hash128_sub(hash128_add(a, b), b), a));
    /* The published XXH3-128 of the empty input with seed 0. */
    assert_string_equal(hash128_hex(hash128("", 0, 0), hex), "99aa06d3014798d86001c324468d497f");
}

static void prng_is_a_fixed_sequence(void **state)
{
    struct prng a, b;

    (void)state;
    prng_seed(&a, 1);
    prng_seed(&b, 1);
    for (int i = 0; i < 100; i++) {
        assert_true(prng_u64(&a) == prng_u64(&b));
    }
    assert_true(prng_below(&a, 1) == 0);
}

/* Off, a point does not even count; on, it sleeps now and then. */
static void chaos_is_off_until_it_is_seeded(void **state)
{
    char before[CHAOS_SUMMARY], off[CHAOS_SUMMARY], on[CHAOS_SUMMARY];

    (void)state;
    (void)chaos_summary(before);
    chaos_delay(CHAOS_SEND);
    assert_string_equal(chaos_summary(off), before);
    chaos_start(7);
    for (unsigned i = 0; i < 1000; i++) {
        chaos_delay(CHAOS_SEND);
    }
    chaos_start(0);
    chaos_delay(CHAOS_SEND);
    (void)chaos_summary(on);
    assert_non_null(strstr(on, "/1000"));
    assert_null(strstr(on, "SEND 0/"));
    assert_non_null(strstr(on, "GATHER 0/0"));
}

/* Every length around the ends of blocks, two lanes of every pairing: as OpenSSL says. */
static void sha256_of_many_is_that_of_each(void **state)
{
    enum { MOST = 300, JOBS = 40 };
    static uint8_t data[4096];
    struct sha256_job jobs[JOBS];
    uint8_t sha[SHA256_LEN];
    struct prng g;

    (void)state;
    prng_seed(&g, 7);
    prng_fill(&g, data, sizeof data);
    for (int round = 0; round < 400; round++) {
        size_t n = (size_t)prng_below(&g, JOBS + 1);
        for (size_t i = 0; i < n; i++) {
            size_t len = (size_t)prng_below(&g, round % 2 == 0 ? MOST : sizeof data);
            jobs[i] =
                (struct sha256_job){.data = data + prng_below(&g, sizeof data - len), .len = len};
        }
        sha256_many(jobs, n);
        for (size_t i = 0; i < n; i++) {
            sha256(jobs[i].data, jobs[i].len, sha);
            assert_memory_equal(jobs[i].sha, sha, sizeof sha);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chaos_is_off_until_it_is_seeded),
        cmocka_unit_test(buffers_round_trip),
        cmocka_unit_test(reader_fails_at_every_truncation),
        cmocka_unit_test(malformed_varints_and_strings_are_refused),
        cmocka_unit_test(a_failed_allocation_latches),
        cmocka_unit_test(pages_are_aligned_and_zero),
        cmocka_unit_test(messages_gain_context_outward),
        cmocka_unit_test(hash_sum_commutes_and_cancels),
        cmocka_unit_test(prng_is_a_fixed_sequence),
        cmocka_unit_test(sha256_of_many_is_that_of_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
