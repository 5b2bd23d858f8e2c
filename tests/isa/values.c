/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/values.c - random operands. */
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"

bool isa_v3;

uint64_t random_value(struct prng *g)
{
    static const uint64_t edges[] = {
        0,      1,      2,          7,          0x7f,       0x80,      0xff,       0x7fff,
        0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, 1ULL << 63, UINT64_MAX};

    switch (prng_below(g, 4)) {
    case 0:
        return edges[prng_below(g, PLX_COUNT(edges))];
    case 1:
        return prng_below(g, 64);
    default:
        return prng_u64(g);
    }
}

void random_float(struct prng *g, uint8_t *at, unsigned size)
{
    static const uint32_t f32[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                   0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x00800000,
                                   0x7f7fffff, 0x4b000000, 0x4f000000, 0xcf000000};
    static const uint64_t f64[] = {0,
                                   0x8000000000000000,
                                   0x3ff0000000000000,
                                   0xbff0000000000000,
                                   0x7ff0000000000000,
                                   0xfff0000000000000,
                                   0x7ff8000000000000,
                                   0x7ff0000000000001,
                                   1,
                                   0x0010000000000000,
                                   0x7fefffffffffffff,
                                   0x41dfffffffc00000,
                                   0x43e0000000000000};

    for (unsigned i = 0; i < size;) {
        if (prng_below(g, 2) == 0) {
            uint32_t v =
                prng_below(g, 3) == 0 ? f32[prng_below(g, PLX_COUNT(f32))] : (uint32_t)prng_u64(g);
            memcpy(at + i, &v, 4);
            i += 4;
        } else if (i + 8 <= size) {
            uint64_t v = prng_below(g, 3) == 0 ? f64[prng_below(g, PLX_COUNT(f64))] : prng_u64(g);
            memcpy(at + i, &v, 8);
            i += 8;
        }
    }
}

/* An 80-bit value of a kind the FPU of today accepts, and now and then one it does not. */
void random_x87(struct prng *g, uint8_t *at)
{
    uint64_t mantissa = prng_u64(g) | 1ULL << 63;
    uint16_t exponent = (uint16_t)(0x3fff - 40 + prng_below(g, 80));

    switch (prng_below(g, 8)) {
    case 0:
        exponent = 0;
        mantissa = 0;
        break;
    case 1:
        exponent = 0x7fff;
        mantissa = prng_below(g, 2) == 0 ? 1ULL << 63 : mantissa;
        break;
    case 2:
        mantissa = (1ULL << 63) | prng_below(g, 16) << 59;
        break;
    case 3:
        exponent = (uint16_t)prng_below(g, 0x7fff);
        break;
    default:
        break;
    }
    exponent |= (uint16_t)(prng_below(g, 2) << 15);
    memcpy(at, &mantissa, 8);
    memcpy(at + 8, &exponent, 2);
}

void random_fx(struct prng *g, uint8_t *fx)
{
    static const uint32_t mxcsr[] = {0x1f80, 0x1f80, 0x1f80, 0x3f80,
                                     0x5f80, 0x7f80, 0x9fc0, 0x0000};
    static const uint16_t fcw[] = {0x37f, 0x37f, 0x27f, 0x07f, 0x77f, 0xb7f, 0xf7f, 0x340};
    uint16_t cw = fcw[prng_below(g, PLX_COUNT(fcw))];
    uint16_t sw =
        (uint16_t)(prng_below(g, 8) << 11 | prng_below(g, 2) * (prng_below(g, 16) << 8 & 0x4700));
    uint32_t mx = mxcsr[prng_below(g, PLX_COUNT(mxcsr))];

    memset(fx, 0, 512);
    memcpy(fx, &cw, 2);
    memcpy(fx + 2, &sw, 2);
    fx[4] = prng_below(g, 3) == 0 ? (uint8_t)prng_u64(g) : 0xff;
    memcpy(fx + 24, &mx, 4);
    for (int i = 0; i < 8; i++) {
        random_x87(g, fx + 32 + i * 16);
    }
    random_float(g, fx + 160, 256);
}
