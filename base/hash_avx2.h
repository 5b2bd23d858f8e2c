/* SPDX-License-Identifier: Apache-2.0
 * base/hash_avx2.h - of hash.c alone: its hashes for processors with AVX2. */
#ifndef BASE_HASH_AVX2_H
#define BASE_HASH_AVX2_H

#include "base/hash.h"

uint64_t hash64_avx2(const void *data, size_t len);
struct hash128 hash128_avx2(const void *data, size_t len, uint64_t seed);

#endif
