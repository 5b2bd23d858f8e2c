/* SPDX-License-Identifier: Apache-2.0
 * base/prng.h - xoshiro256** (Blackman and Vigna, public domain description) seeded by
 * splitmix64: the guest's generators (R6), and every seeded test. Its four words are its state. */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stddef.h>
#include <stdint.h>

struct prng {
    uint64_t s[4];
};

void prng_seed(struct prng *g, uint64_t seed);
void prng_seed_bytes(struct prng *g, const void *seed, size_t len); /* any length */
uint64_t prng_u64(struct prng *g);
uint64_t prng_below(struct prng *g, uint64_t n); /* 0 .. n-1; n > 0 */
void prng_fill(struct prng *g, void *out, size_t len);

#endif
