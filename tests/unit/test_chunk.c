/* SPDX-License-Identifier: Apache-2.0
 * Hunts: pieces that overlap, leave gaps or break their bounds; cuts that depend on where contents
 * stand, so that moved files share nothing; zero runs that swallow data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "storage/chunk.h"
#include "storage/segment.h"

enum { LEN = 4 << 20, KIB = 1024 };

static const enum chunk_kind kinds[] = {CHUNK_BLOCKS, CHUNK_BYTES, CHUNK_FIXED};

static uint8_t *random_bytes(size_t len, uint64_t seed)
{
    uint8_t *p = malloc(len);
    struct prng g;

    assert_non_null(p);
    prng_seed(&g, seed);
    prng_fill(&g, p, len);
    return p;
}

static void pieces_cover_all_within_bounds(void **state)
{
    uint8_t *data = random_bytes(LEN, 1);

    (void)state;
    for (unsigned k = 0; k < PLX_COUNT(kinds); k++) {
        for (uint32_t avg = 16 * KIB; avg <= 256 * KIB; avg *= 2) {
            struct chunk_params p;
            size_t n = 0, at = 0;
            assert_int_equal(chunk_params(kinds[k], avg, &p, NULL), 0);
            for (; at < LEN; n++) {
                size_t len = chunk_next(&p, data + at, LEN - at);
                assert_true(len > 0 && len <= p.max && len <= LEN - at);
                assert_true(len >= p.min || at + len == LEN);
                assert_true(kinds[k] == CHUNK_BYTES || len % CHUNK_BLOCK == 0);
                at += len;
            }
            assert_int_equal(at, LEN);
            /* The average is what was asked for, nearly. */
            assert_in_range(LEN / n, avg / 2, avg * 2);
        }
    }
    free(data);
}

/* How many bytes of @b's pieces are pieces of @a as well. */
static size_t shared(const struct chunk_params *p, const uint8_t *a, size_t alen, const uint8_t *b,
                     size_t blen)
{
    struct seg_set set = {0};
    struct seg_id id;
    size_t sum = 0;

    for (size_t at = 0; at < alen;) {
        size_t len = chunk_next(p, a + at, alen - at);
        sha256(a + at, len, id.sha);
        assert_int_equal(seg_set_add(&set, &id), 0);
        at += len;
    }
    for (size_t at = 0; at < blen;) {
        size_t len = chunk_next(p, b + at, blen - at);
        sha256(b + at, len, id.sha);
        sum += seg_set_has(&set, &id) ? len : 0;
        at += len;
    }
    seg_set_free(&set);
    return sum;
}

/* Contents moved by three blocks (or 1000 bytes) are found again, except where cuts are fixed. */
static void moved_contents_are_cut_alike(void **state)
{
    uint8_t *data = random_bytes(LEN, 2), *moved = random_bytes(LEN + 3 * CHUNK_BLOCK, 3);
    struct chunk_params p;

    (void)state;
    memcpy(moved + 3 * CHUNK_BLOCK, data, LEN);
    assert_int_equal(chunk_params(CHUNK_BLOCKS, 32 * KIB, &p, NULL), 0);
    assert_true(shared(&p, data, LEN, moved, LEN + 3 * CHUNK_BLOCK) > LEN * 9 / 10);
    assert_int_equal(chunk_params(CHUNK_FIXED, 32 * KIB, &p, NULL), 0);
    assert_int_equal(shared(&p, data, LEN, moved, LEN + 3 * CHUNK_BLOCK), 0);
    assert_int_equal(chunk_params(CHUNK_BYTES, 32 * KIB, &p, NULL), 0);
    memcpy(moved + 1000, data, LEN);
    assert_true(shared(&p, data, LEN, moved, LEN + 1000) > LEN * 9 / 10);
    free(data);
    free(moved);
}

static void one_changed_byte_costs_few_pieces(void **state)
{
    uint8_t *data = random_bytes(LEN, 4), *other = malloc(LEN);
    struct chunk_params p;

    (void)state;
    memcpy(other, data, LEN);
    other[LEN / 2] ^= 1;
    for (unsigned k = 0; k < PLX_COUNT(kinds); k++) {
        assert_int_equal(chunk_params(kinds[k], 64 * KIB, &p, NULL), 0);
        assert_true(shared(&p, data, LEN, other, LEN) >= LEN - 3 * (size_t)p.max);
    }
    free(data);
    free(other);
}

/* Cuts are part of the format: a store filled by an older program is shared by a newer one. */
static void cuts_stay_what_they_are(void **state)
{
    static const struct {
        enum chunk_kind kind;
        size_t first, second;
    } golden[] = {
        {CHUNK_BLOCKS, 106496, 69632}, {CHUNK_BYTES, 75023, 112712}, {CHUNK_FIXED, 65536, 65536}};
    uint8_t *data = random_bytes(LEN, 5);
    struct chunk_params p;

    (void)state;
    for (unsigned k = 0; k < PLX_COUNT(golden); k++) {
        assert_int_equal(chunk_params(golden[k].kind, 64 * KIB, &p, NULL), 0);
        size_t first = chunk_next(&p, data, LEN);
        assert_int_equal(first, golden[k].first);
        assert_int_equal(chunk_next(&p, data + first, LEN - first), golden[k].second);
    }
    free(data);
}

static void zero_runs_are_whole_blocks(void **state)
{
    static uint8_t data[10 * CHUNK_BLOCK + 100];
    bool zero;

    (void)state;
    assert_int_equal(chunk_run(data, sizeof data, &zero), sizeof data);
    assert_true(zero);
    data[3 * CHUNK_BLOCK + CHUNK_BLOCK - 1] = 1;
    assert_int_equal(chunk_run(data, sizeof data, &zero), 3 * CHUNK_BLOCK);
    assert_true(zero);
    assert_int_equal(chunk_run(data + 3 * CHUNK_BLOCK, 7 * CHUNK_BLOCK, &zero), CHUNK_BLOCK);
    assert_false(zero);
    data[sizeof data - 1] = 1; /* the short block at the end */
    assert_int_equal(chunk_run(data + 4 * CHUNK_BLOCK, sizeof data - 4 * CHUNK_BLOCK, &zero),
                     6 * CHUNK_BLOCK);
    assert_true(zero);
    assert_int_equal(chunk_run(data + 10 * CHUNK_BLOCK, 100, &zero), 100);
    assert_false(zero);
}

static void bad_sizes_are_refused(void **state)
{
    static const uint32_t bad[] = {0, 4096, 65537, 512 * KIB, 48 * KIB};
    struct chunk_params p;
    struct plx_err err = {{0}};

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(bad); i++) {
        assert_int_equal(chunk_params(CHUNK_BLOCKS, bad[i], &p, &err), PLX_EINVAL);
        assert_string_not_equal(err.msg, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_cover_all_within_bounds),
        cmocka_unit_test(moved_contents_are_cut_alike),
        cmocka_unit_test(one_changed_byte_costs_few_pieces),
        cmocka_unit_test(cuts_stay_what_they_are),
        cmocka_unit_test(zero_runs_are_whole_blocks),
        cmocka_unit_test(bad_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
