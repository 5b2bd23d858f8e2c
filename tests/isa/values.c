/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/values.c - random operands, and what of their results need not equal the host's. */
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

static const struct exemption exemptions[] = {
    {ZYDIS_MNEMONIC_RCPPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RCPSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRCPPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRCPSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRSQRTPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRSQRTSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FSIN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FCOS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FSINCOS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FPTAN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FPATAN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_F2XM1, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FYL2X, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FYL2XP1, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FCOMI, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FCOMIP, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FUCOMI, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FUCOMIP, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FFREE, SKIP_FSW, "the SDM leaves C0-C3 undefined"},
    {ZYDIS_MNEMONIC_FFREEP, SKIP_FSW, "the SDM leaves C0-C3 undefined"},
    {ZYDIS_MNEMONIC_CVTPI2PS, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPI2PD, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPS2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPD2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTTPS2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTTPD2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_FNSTENV, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FNSAVE, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FXSAVE, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FXSAVE64, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_XSAVE, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVE64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVEOPT, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVEOPT64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XRSTOR, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XRSTOR64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XGETBV, SKIP_FORM, "components of the model, not of the host"},
};

const struct exemption *exemption_of(const struct form *f)
{
    for (size_t i = 0; i < PLX_COUNT(exemptions); i++) {
        if (exemptions[i].mnemonic == f->mnemonic) {
            return &exemptions[i];
        }
    }
    return NULL;
}

enum { MX_OVERFLOW = 0x08, MX_UNDERFLOW = 0x10, MX_PRECISION = 0x20, MX_MASKS_AT = 7 };

/* After an unmasked overflow or underflow PE says whether rounding with an unbounded exponent was
 * inexact. The model computes with exceptions masked and always sets it. */
bool same_mxcsr(uint32_t a, uint32_t b)
{
    uint32_t fired = a & ~(a >> MX_MASKS_AT) & (MX_OVERFLOW | MX_UNDERFLOW);

    return a == b || (fired != 0 && (a | MX_PRECISION) == b);
}
