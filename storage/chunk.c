/* SPDX-License-Identifier: Apache-2.0
 * storage/chunk.c - see chunk.h. */
#include "storage/chunk.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/check.h"
#include "base/prng.h"

enum { AVG_MIN = 16 << 10, AVG_MAX = 256 << 10, MIN_PART = 4, MAX_TIMES = 4, NORMALIZE = 2 };

static const char *const names[] = {"blocks", "bytes", "fixed"};

int chunk_params(enum chunk_kind kind, uint32_t avg, struct chunk_params *out, struct plx_err *err)
{
    if (avg < AVG_MIN || avg > AVG_MAX || (avg & (avg - 1)) != 0) {
        return plx_fail(err, PLX_EINVAL,
                        "segments of %u bytes: a power of two from 16384 to 262144 is needed", avg);
    }
    *out = (struct chunk_params){
        .kind = kind, .min = avg / MIN_PART, .avg = avg, .max = avg * MAX_TIMES};
    return 0;
}

bool chunk_kind_parse(const char *text, enum chunk_kind *out)
{
    for (unsigned i = 0; i < PLX_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum chunk_kind)i;
            return true;
        }
    }
    return false;
}

const char *chunk_kind_name(enum chunk_kind kind)
{
    return names[kind];
}

static bool all_zero(const uint8_t *p, size_t len)
{
    uint64_t w[8];

    /* Data differ from zero early, as a rule. */
    for (; len >= sizeof w; p += sizeof w, len -= sizeof w) {
        memcpy(w, p, sizeof w);
        if ((w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) != 0) {
            return false;
        }
    }
    for (; len > 0; p++, len--) {
        if (*p != 0) {
            return false;
        }
    }
    return true;
}

size_t chunk_run(const uint8_t *data, size_t len, bool *zero)
{
    size_t at = 0;

    for (; at < len; at += CHUNK_BLOCK) {
        size_t part = len - at < CHUNK_BLOCK ? len - at : CHUNK_BLOCK;
        bool z = all_zero(data + at, part);
        if (at == 0) {
            *zero = z;
        } else if (z != *zero) {
            return at;
        }
    }
    return len;
}

/* A cut is wanted with probability 1 / (avg >> shift). */
static size_t next_block(const struct chunk_params *p, const uint8_t *data, size_t len)
{
    size_t end = len < p->max ? len : p->max;
    const uint64_t rare = (uint64_t)(p->avg / CHUNK_BLOCK) * NORMALIZE - 1;
    const uint64_t often = (uint64_t)(p->avg / CHUNK_BLOCK) / NORMALIZE - 1;

    /* A block's hash decides whether a segment ends behind it. */
    for (size_t at = p->min - CHUNK_BLOCK; at + CHUNK_BLOCK < end; at += CHUNK_BLOCK) {
        uint64_t h = XXH3_64bits(data + at, CHUNK_BLOCK);
        if ((h & (at < p->avg ? rare : often)) == 0) {
            return at + CHUNK_BLOCK;
        }
    }
    return end;
}

/* The table of the gear hash: fixed for ever, or images cut before would share nothing with images
 * cut now. */
static const uint64_t *gear_table(void)
{
    static int ready;
    static uint64_t table[256];

    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) {
        struct prng g;
        uint64_t made[256];
        prng_seed(&g, 0x706f6c6c75780001);
        for (int i = 0; i < 256; i++) {
            made[i] = prng_u64(&g);
        }
        for (int i = 0; i < 256; i++) { /* every thread would write the same */
            __atomic_store_n(&table[i], made[i], __ATOMIC_RELAXED);
        }
        __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    }
    return table;
}

static size_t next_byte(const struct chunk_params *p, const uint8_t *data, size_t len)
{
    const uint64_t *gear = gear_table();
    size_t end = len < p->max ? len : p->max;
    size_t normal = end < p->avg ? end : p->avg;
    unsigned bits = (unsigned)__builtin_ctz(p->avg);
    /* The high bits depend on the most bytes. */
    const uint64_t rare = ~UINT64_C(0) << (64 - bits - 1), often = ~UINT64_C(0) << (64 - bits + 1);
    uint64_t h = 0;
    size_t at = p->min < 64 ? 0 : p->min - 64;

    if (len <= p->min) {
        return len;
    }
    for (; at < p->min; at++) {
        h = (h << 1) + gear[data[at]];
    }
    for (; at < normal; at++) {
        h = (h << 1) + gear[data[at]];
        if ((h & rare) == 0) {
            return at + 1;
        }
    }
    for (; at < end; at++) {
        h = (h << 1) + gear[data[at]];
        if ((h & often) == 0) {
            return at + 1;
        }
    }
    return end;
}

size_t chunk_next(const struct chunk_params *p, const uint8_t *data, size_t len)
{
    switch (p->kind) {
    case CHUNK_BLOCKS:
        return next_block(p, data, len);
    case CHUNK_BYTES:
        return next_byte(p, data, len);
    case CHUNK_FIXED:
        break;
    }
    return len < p->avg ? len : p->avg;
}
