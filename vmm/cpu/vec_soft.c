/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/vec_soft.c - see vec_soft.h (SDM Vol. 1, "SIMD Floating-Point Exception Conditions",
 * "Fused-Multiply-ADD (FMA) Numeric Behavior", "Half-Precision Floating-Point Conversion"). */
#include "vmm/cpu/vec_soft.h"

#include "vmm/cpu/sse.h"

typedef unsigned __int128 u128;

const struct fp_format fp_half = {10, 31}, fp_single = {23, 255}, fp_double = {52, 2047};

enum { RC_NEAREST, RC_DOWN, RC_UP, RC_ZERO };
/* Where the leading bit of a normalised significand is: room for a carry, and for a sign. */
enum { LEADING = 125 };

/* A number taken apart; value = sig * 2^exp. */
struct parts {
    bool sign, zero, inf, nan, denormal;
    int exp;
    uint64_t sig;
};

static int bias(const struct fp_format *f)
{
    return (int)(f->top >> 1);
}

static unsigned sign_at(const struct fp_format *f)
{
    return f->frac + (unsigned)__builtin_popcount(f->top);
}

static uint64_t fraction(const struct fp_format *f)
{
    return (UINT64_C(1) << f->frac) - 1;
}

static uint64_t signed_bits(const struct fp_format *f, bool sign, uint64_t rest)
{
    return (uint64_t)sign << sign_at(f) | rest;
}

static uint64_t infinity(const struct fp_format *f, bool sign)
{
    return signed_bits(f, sign, (uint64_t)f->top << f->frac);
}

static bool is_nan(const struct fp_format *f, uint64_t x)
{
    return (x >> f->frac & f->top) == f->top && (x & fraction(f)) != 0;
}

static uint64_t quiet(const struct fp_format *f, uint64_t x)
{
    return x | UINT64_C(1) << (f->frac - 1);
}

static struct parts take_apart(const struct fp_format *f, uint64_t x, uint32_t mxcsr)
{
    unsigned exp = (unsigned)(x >> f->frac) & f->top;
    struct parts p = {.sign = (x >> sign_at(f) & 1) != 0, .sig = x & fraction(f)};

    if (exp == f->top) {
        p.inf = p.sig == 0;
        p.nan = p.sig != 0;
        return p;
    }
    if (exp == 0 && (mxcsr & MXCSR_DAZ) != 0) {
        p.sig = 0;
    }
    p.denormal = exp == 0 && p.sig != 0;
    p.zero = exp == 0 && p.sig == 0;
    p.sig |= exp != 0 ? UINT64_C(1) << f->frac : 0;
    p.exp = (exp != 0 ? (int)exp : 1) - bias(f) - (int)f->frac;
    return p;
}

/* Shifts right; what falls out stays known in the last bit. */
static u128 shift_jam(u128 x, unsigned n)
{
    if (n == 0) {
        return x;
    }
    return n > 127 ? x != 0 : x >> n | ((x << (128 - n)) != 0);
}

/* The leading bit, which is not above it, to LEADING. */
static void normalise(u128 *sig, int *exp)
{
    uint64_t high = (uint64_t)(*sig >> 64);
    int zeros = high != 0 ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)*sig);
    int n = zeros - (127 - LEADING);

    *sig <<= n;
    *exp -= n;
}

/* @sig >> @n, rounded; @n is more than 2. */
static uint64_t rounded(u128 sig, unsigned n, bool sign, unsigned rc, bool *inexact)
{
    u128 more = shift_jam(sig, n - 2); /* by two bits, the last one jammed */
    uint64_t q = (uint64_t)(more >> 2);
    unsigned rest = (unsigned)more & 3;

    *inexact = rest != 0;
    switch (rc) {
    case RC_NEAREST:
        return q + (rest == 3 || (rest == 2 && (q & 1) != 0));
    case RC_DOWN:
        return q + (sign && rest != 0);
    case RC_UP:
        return q + (!sign && rest != 0);
    default:
        return q;
    }
}

uint64_t soft_round(const struct fp_format *f, bool sign, int exp, u128 sig, uint32_t mxcsr,
                    uint32_t *flags)
{
    unsigned rc = mxcsr >> MXCSR_RC_SHIFT & 3, drop = LEADING - f->frac, shift = drop;
    bool tiny = false, inexact;
    int biased;

    if ((sig >> LEADING) > 1) {
        sig = shift_jam(sig, 1);
        exp++;
    }
    normalise(&sig, &exp);
    biased = exp + LEADING + bias(f);
    if (biased < 1) { /* tiny, if it would also be with an unbounded exponent */
        tiny = biased < 0 || rounded(sig, drop, sign, rc, &inexact) >> (f->frac + 1) == 0;
        shift += (unsigned)(1 - biased) < 200 ? (unsigned)(1 - biased) : 200;
        biased = 0;
    }
    uint64_t q = rounded(sig, shift, sign, rc, &inexact);
    if (tiny && (mxcsr & (MXCSR_FZ | MXCSR_UE << MXCSR_MASK_SHIFT)) ==
                    (MXCSR_FZ | MXCSR_UE << MXCSR_MASK_SHIFT)) {
        *flags |= MXCSR_UE | MXCSR_PE;
        return signed_bits(f, sign, 0);
    }
    if (tiny && (inexact || (mxcsr & MXCSR_UE << MXCSR_MASK_SHIFT) == 0)) {
        *flags |= MXCSR_UE;
    }
    *flags |= inexact ? MXCSR_PE : 0;
    /* The hidden bit of a normal number counts one exponent more; a carry moves it on. */
    uint64_t bits = biased == 0 ? q : q + ((uint64_t)(biased - 1) << f->frac);
    if (biased >= (int)f->top || bits >> f->frac >= f->top) {
        bool to_infinity = rc == RC_NEAREST || (rc == RC_UP && !sign) || (rc == RC_DOWN && sign);
        *flags |= MXCSR_OE | MXCSR_PE;
        return to_infinity ? infinity(f, sign) : infinity(f, sign) - 1;
    }
    return signed_bits(f, sign, bits);
}

/* Both terms finite, the first not zero unless both are. */
static uint64_t add(const struct fp_format *f, bool sp, u128 p, int ep, bool sc, u128 c, int ec,
                    uint32_t mxcsr, uint32_t *flags)
{
    if (p == 0 && c == 0) {
        bool down = (mxcsr >> MXCSR_RC_SHIFT & 3) == RC_DOWN;
        return signed_bits(f, sp == sc ? sp : down, 0);
    }
    if (p == 0 || c == 0) {
        return soft_round(f, p == 0 ? sc : sp, p == 0 ? ec : ep, p == 0 ? c : p, mxcsr, flags);
    }
    normalise(&p, &ep);
    normalise(&c, &ec);
    if (ec > ep || (ec == ep && c > p)) {
        u128 t = p;
        int e = ep;
        bool s = sp;
        p = c, ep = ec, sp = sc;
        c = t, ec = e, sc = s;
    }
    c = shift_jam(c, (unsigned)(ep - ec));
    if (sp == sc) {
        return soft_round(f, sp, ep, p + c, mxcsr, flags);
    }
    if (p == c) {
        return signed_bits(f, (mxcsr >> MXCSR_RC_SHIFT & 3) == RC_DOWN, 0);
    }
    return soft_round(f, sp, ep, p - c, mxcsr, flags);
}

static uint64_t first_nan(const struct fp_format *f, const uint64_t order[3], uint32_t *flags)
{
    uint64_t r = 0;
    bool found = false;

    for (unsigned i = 0; i < 3; i++) {
        if (is_nan(f, order[i])) {
            *flags |= quiet(f, order[i]) != order[i] ? MXCSR_IE : 0;
            r = found ? r : quiet(f, order[i]);
            found = true;
        }
    }
    return r;
}

uint64_t soft_fma(const struct fp_format *f, const struct fma_operands *o, uint32_t mxcsr,
                  uint32_t *flags)
{
    struct parts a = take_apart(f, o->a, mxcsr), b = take_apart(f, o->b, mxcsr),
                 c = take_apart(f, o->c, mxcsr);
    bool sp = a.sign ^ b.sign ^ o->negate_product, sc = c.sign ^ o->negate_addend;

    if (a.nan || b.nan || c.nan) {
        return first_nan(f, o->order, flags);
    }
    if ((a.inf && b.zero) || (a.zero && b.inf) || ((a.inf || b.inf) && c.inf && sp != sc)) {
        *flags |= MXCSR_IE;
        return quiet(f, infinity(f, true));
    }
    *flags |= a.denormal || b.denormal || c.denormal ? MXCSR_DE : 0;
    if (a.inf || b.inf || c.inf) {
        return infinity(f, c.inf ? sc : sp);
    }
    return add(f, sp, (u128)a.sig * b.sig, a.exp + b.exp, sc, c.sig, c.exp, mxcsr, flags);
}

uint64_t soft_half_to_single(uint64_t h, uint32_t *flags)
{
    struct parts p = take_apart(&fp_half, h, 0);

    if (p.nan) {
        *flags |= quiet(&fp_half, h) != h ? MXCSR_IE : 0;
        return quiet(&fp_single, infinity(&fp_single, p.sign) | p.sig << 13);
    }
    if (p.inf || p.zero) {
        return p.inf ? infinity(&fp_single, p.sign) : signed_bits(&fp_single, p.sign, 0);
    }
    return soft_round(&fp_single, p.sign, p.exp, p.sig, 0, flags); /* exact */
}

uint64_t soft_single_to_half(uint64_t s, uint32_t mxcsr, uint32_t *flags)
{
    struct parts p = take_apart(&fp_single, s, mxcsr);

    if (p.nan) {
        *flags |= quiet(&fp_single, s) != s ? MXCSR_IE : 0;
        return quiet(&fp_half, infinity(&fp_half, p.sign) | p.sig >> 13);
    }
    if (p.inf || p.zero) {
        return p.inf ? infinity(&fp_half, p.sign) : signed_bits(&fp_half, p.sign, 0);
    }
    *flags |= p.denormal ? MXCSR_DE : 0;
    return soft_round(&fp_half, p.sign, p.exp, p.sig, mxcsr & ~(uint32_t)MXCSR_FZ, flags);
}
