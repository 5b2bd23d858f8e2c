/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_conv.c - between 80-bit values and the formats memory holds: single and double
 * floats, integers, packed decimal (SDM Vol. 1, "x87 FPU Data Types").
 *
 * Threading: pure functions. Determinism: the same on every host. */
#include "vmm/cpu/x87_soft.h"

typedef unsigned __int128 u128;

/* A binary interchange format of at most 64 bits. */
struct format {
    unsigned frac, exp_max; /* fraction bits; all-ones exponent */
    int32_t bias;
};

static const struct format f32_format = {23, 0xff, 127}, f64_format = {52, 0x7ff, 1023};

static struct f80 from_float(struct f80_env *env, uint64_t x, const struct format *f)
{
    unsigned width = f->frac == 23 ? 32 : 64;
    bool neg = (x >> (width - 1) & 1) != 0;
    unsigned e = (unsigned)(x >> f->frac) & f->exp_max;
    uint64_t frac = x & ((UINT64_C(1) << f->frac) - 1), m = frac << (63 - f->frac);

    if (e == f->exp_max) {
        return f80_make(neg, F80_EXP_MAX, F80_INT | m);
    }
    if (e == 0) {
        if (frac == 0) {
            return f80_zero(neg);
        }
        int shift = __builtin_clzll(m);
        env->denormal = true;
        return f80_make(neg, (unsigned)(1 - f->bias + F80_BIAS - shift), m << shift);
    }
    return f80_make(neg, (unsigned)((int32_t)e - f->bias + F80_BIAS), F80_INT | m);
}

struct f80 f80_from_f32(struct f80_env *env, uint32_t x)
{
    return from_float(env, x, &f32_format);
}

struct f80 f80_from_f64(struct f80_env *env, uint64_t x)
{
    return from_float(env, x, &f64_format);
}

struct f80 f80_from_int(int64_t x)
{
    uint64_t m = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
    int shift;

    if (m == 0) {
        return f80_zero(false);
    }
    shift = __builtin_clzll(m);
    return f80_make(x < 0, (unsigned)(F80_BIAS + 63 - shift), m << shift);
}

/* Whether to add one to the last kept bit; @rem the bits below it with the half at bit 63. */
static bool rounds_up(const struct f80_env *env, bool neg, bool odd, uint64_t rem, bool sticky)
{
    switch (env->cw >> X87_RC_SHIFT & 3) {
    case 0:
        return rem > F80_INT || (rem == F80_INT && (sticky || odd));
    case 1:
        return neg && (rem != 0 || sticky);
    case 2:
        return !neg && (rem != 0 || sticky);
    default:
        return false;
    }
}

/* m shifted right by n (1-127) and rounded. */
static uint64_t shift_round(const struct f80_env *env, bool neg, uint64_t m, unsigned n,
                            bool *inexact, bool *up)
{
    u128 x = n >= 128 ? 0 : ((u128)m << 64) >> n;
    bool sticky = n > 64 && (n >= 128 ? m != 0 : (u128)m << 64 != x << n);
    uint64_t kept = (uint64_t)(x >> 64), rem = (uint64_t)x;

    *inexact = rem != 0 || sticky;
    *up = rounds_up(env, neg, (kept & 1) != 0, rem, sticky);
    return kept + *up;
}

static void note(struct f80_env *env, unsigned ex, bool inexact, bool up)
{
    env->ex = (uint16_t)((env->ex & ~(unsigned)X87_C1) | ex | (inexact ? X87_PE : 0U) |
                         (up ? X87_C1 : 0U));
}

static uint64_t to_float(struct f80_env *env, struct f80 a, const struct format *f, bool *stored)
{
    unsigned width = f->frac == 23 ? 32 : 64, drop = 63 - f->frac;
    uint64_t sign = (uint64_t)f80_neg(a) << (width - 1);
    uint64_t inf = (uint64_t)f->exp_max << f->frac;
    enum f80_class c = f80_class(a);
    struct f80 nan;
    bool inexact, up;

    *stored = true;
    if (f80_nan(env, a, a, &nan)) {
        *stored = f80_blocked(env) == 0;
        return (uint64_t)f80_neg(nan) << (width - 1) | inf | ((nan.m & ~F80_INT) >> drop);
    }
    if (c == F80_ZERO || c == F80_INF) {
        return sign | (c == F80_INF ? inf : 0);
    }
    struct f80_parts x = f80_unpack(a);
    int32_t e = x.e + f->bias;
    uint64_t m = shift_round(env, x.neg, x.m, drop, &inexact, &up);
    bool carry = m >> (f->frac + 1) != 0;

    if (e + carry < 1) { /* tiny */
        if ((env->cw & X87_UE) == 0) {
            env->ex |= X87_UE;
            *stored = false;
            return 0;
        }
        m = shift_round(env, x.neg, x.m, e < -100 ? 200 : drop + 1 - (unsigned)e, &inexact, &up);
        note(env, inexact ? X87_UE : 0, inexact, up);
        return sign | m; /* a carry into the exponent field makes the least normal */
    }
    e += carry;
    if (e >= (int32_t)f->exp_max) {
        if ((env->cw & X87_OE) == 0) {
            env->ex |= X87_OE;
            *stored = false;
            return 0;
        }
        up = rounds_up(env, x.neg, true, F80_INT, true);
        note(env, X87_OE, true, up);
        return sign | (up ? inf : inf - 1);
    }
    note(env, 0, inexact, up);
    return sign | ((uint64_t)e << f->frac) | (m & ((UINT64_C(1) << f->frac) - 1));
}

uint32_t f80_to_f32(struct f80_env *env, struct f80 a, bool *stored)
{
    return (uint32_t)to_float(env, a, &f32_format, stored);
}

uint64_t f80_to_f64(struct f80_env *env, struct f80 a, bool *stored)
{
    return to_float(env, a, &f64_format, stored);
}

/* |a| rounded to an integer; false: NaN, infinite or not below 2^64. */
static bool to_magnitude(struct f80_env *env, struct f80 a, uint64_t *m, bool *inexact, bool *up)
{
    enum f80_class c = f80_class(a);

    *inexact = false;
    *up = false;
    *m = 0;
    if (c == F80_ZERO) {
        return true;
    }
    if (c >= F80_INF) {
        return false;
    }
    struct f80_parts x = f80_unpack(a);
    if (x.e > 63) {
        return false;
    }
    if (x.e == 63) {
        *m = x.m;
        return true;
    }
    *m = shift_round(env, x.neg, x.m, x.e < -64 ? 200 : (unsigned)(63 - x.e), inexact, up);
    return true;
}

int64_t f80_to_int(struct f80_env *env, struct f80 a, unsigned bits, bool truncate)
{
    struct f80_env e = *env;
    uint64_t m, limit = (UINT64_C(1) << (bits - 1)) - !f80_neg(a);
    bool inexact, up;

    if (truncate) {
        e.cw |= 3 << X87_RC_SHIFT;
    }
    if (!to_magnitude(&e, a, &m, &inexact, &up) || m > limit) {
        env->ex |= X87_IE;
        return -1 - (int64_t)((UINT64_C(1) << (bits - 1)) - 1);
    }
    note(env, 0, inexact, up);
    return (int64_t)(f80_neg(a) ? 0 - m : m);
}

struct f80 f80_from_bcd(const uint8_t bcd[10])
{
    uint64_t m = 0;
    struct f80 r;

    for (int i = 8; i >= 0; i--) {
        m = m * 100 + (uint64_t)(bcd[i] >> 4) * 10 + (bcd[i] & 15);
    }
    r = f80_from_int((int64_t)m);
    r.se |= (uint16_t)((bcd[9] & 0x80) << 8);
    return r;
}

void f80_to_bcd(struct f80_env *env, struct f80 a, uint8_t bcd[10])
{
    uint64_t m;
    bool inexact, up;

    if (!to_magnitude(env, a, &m, &inexact, &up) || m > UINT64_C(999999999999999999)) {
        env->ex |= X87_IE;
        memset(bcd, 0, 7);
        bcd[7] = 0xc0;
        bcd[8] = 0xff;
        bcd[9] = 0xff;
        return;
    }
    note(env, 0, inexact, up);
    for (unsigned i = 0; i < 9; i++) {
        bcd[i] = (uint8_t)((m / 10 % 10) << 4 | m % 10);
        m /= 100;
    }
    bcd[9] = f80_neg(a) ? 0x80 : 0;
}
