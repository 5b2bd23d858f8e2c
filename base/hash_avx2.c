/* SPDX-License-Identifier: Apache-2.0
 * base/hash_avx2.c - XXH3 with 32-byte vectors (hash_avx2.h): the same values, twice as fast. */
#include "base/hash_avx2.h"

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR 2 /* XXH_AVX2 */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash64_avx2(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

struct hash128 hash128_avx2(const void *data, size_t len, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(data, len, seed);

    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
