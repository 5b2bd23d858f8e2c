/* SPDX-License-Identifier: Apache-2.0
 * base/prng.c - see prng.h. */
#include "base/prng.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15U);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

void prng_seed(struct prng *g, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        g->s[i] = splitmix64(&seed);
    }
}

void prng_seed_bytes(struct prng *g, const void *seed, size_t len)
{
    struct hash128 a = hash128(seed, len, 1);
    struct hash128 b = hash128(seed, len, 2);

    g->s[0] = a.lo;
    g->s[1] = a.hi;
    g->s[2] = b.lo;
    g->s[3] = b.hi | 1; /* never all zero */
}

uint64_t prng_u64(struct prng *g)
{
    uint64_t *s = g->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t prng_below(struct prng *g, uint64_t n)
{
    PLX_CHECK(n > 0);
    return prng_u64(g) % n;
}

void prng_fill(struct prng *g, void *out, size_t len)
{
    uint8_t *p = out;

    while (len > 0) {
        uint64_t v = prng_u64(g);
        size_t n = len < sizeof v ? len : sizeof v;
        memcpy(p, &v, n);
        p += n;
        len -= n;
    }
}
