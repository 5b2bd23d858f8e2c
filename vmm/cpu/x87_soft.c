/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_soft.c - arithmetic on 80-bit values in integers: rounding, the four operations,
 * square root, remainders, scaling, comparison. Conversions are in x87_conv.c.
 *
 * Threading: pure functions. Determinism: the same on every host. */
#include "vmm/cpu/x87_soft.h"

typedef unsigned __int128 u128;

enum { RC_NEAREST, RC_DOWN, RC_UP, RC_ZERO };
enum { UNMASKED_BIAS = 24576 }; /* SDM Vol. 1, "Numeric Overflow Exception (#O)" */

enum f80_class f80_class(struct f80 a)
{
    unsigned e = a.se & F80_EXP_MAX;

    if (e == 0) {
        return a.m == 0 ? F80_ZERO : F80_DENORMAL;
    }
    if ((a.m & F80_INT) == 0) {
        return F80_UNSUPPORTED;
    }
    if (e != F80_EXP_MAX) {
        return F80_NORMAL;
    }
    if (a.m == F80_INT) {
        return F80_INF;
    }
    return (a.m & F80_INT >> 1) != 0 ? F80_QNAN : F80_SNAN;
}

struct f80_parts f80_unpack(struct f80 a)
{
    int32_t e = a.se & F80_EXP_MAX;
    int shift = __builtin_clzll(a.m);

    return (struct f80_parts){a.m << shift, (e == 0 ? 1 : e) - F80_BIAS - shift, f80_neg(a)};
}

unsigned f80_precision(const struct f80_env *env)
{
    static const uint8_t bits[] = {24, 64, 53, 64}; /* 01B is reserved */

    return bits[env->cw >> X87_PC_SHIFT & 3];
}

static unsigned rounding(const struct f80_env *env)
{
    return env->cw >> X87_RC_SHIFT & 3;
}

struct rounded {
    uint64_t m;
    bool inexact, up, carry; /* carry: m wrapped and was set to 1/2 */
};

static struct rounded round_bits(unsigned rc, bool neg, uint64_t hi, uint64_t lo, unsigned prec)
{
    uint64_t mask = prec == 64 ? 0 : UINT64_MAX >> prec;
    uint64_t rem = prec == 64 ? lo : hi & mask, half = prec == 64 ? F80_INT : (mask + 1) >> 1;
    bool below = prec != 64 && lo != 0; /* something nonzero below rem */
    struct rounded r = {.m = hi & ~mask, .inexact = (hi & mask) != 0 || lo != 0};

    switch (rc) {
    case RC_NEAREST:
        r.up = rem > half || (rem == half && (below || (r.m & (mask + 1)) != 0));
        break;
    case RC_DOWN:
        r.up = r.inexact && neg;
        break;
    case RC_UP:
        r.up = r.inexact && !neg;
        break;
    default:
        break;
    }
    if (r.up) {
        r.m += mask + 1;
        if (r.m == 0) {
            r.m = F80_INT;
            r.carry = true;
        }
    }
    return r;
}

/* hi:lo shifted right by n, what falls out kept as a sticky last bit. */
static void shift_right(uint64_t *hi, uint64_t *lo, unsigned n)
{
    u128 x = (u128)*hi << 64 | *lo;

    if (n >= 128) {
        x = x != 0;
    } else if (n != 0) {
        x = x >> n | ((x << (128 - n)) != 0);
    }
    *hi = (uint64_t)(x >> 64);
    *lo = (uint64_t)x;
}

static void note(struct f80_env *env, unsigned ex, const struct rounded *r)
{
    env->ex = (uint16_t)((env->ex & ~(unsigned)X87_C1) | ex | (r->inexact ? X87_PE : 0U) |
                         (r->up ? X87_C1 : 0U));
}

/* A tiny result (@r: rounded with unbounded exponent; @e its biased exponent, below 1). */
static struct f80 underflow(struct f80_env *env, bool neg, int32_t e, uint64_t hi, uint64_t lo,
                            unsigned prec, struct rounded r)
{
    if ((env->cw & X87_UE) == 0) {
        e += UNMASKED_BIAS + r.carry;
        if (e < 1) { /* too small even so: FSCALE */
            r = (struct rounded){.inexact = true};
            note(env, X87_UE, &r);
            return f80_zero(neg);
        }
        note(env, X87_UE, &r);
        return f80_make(neg, (unsigned)e, r.m);
    }
    shift_right(&hi, &lo, (unsigned)(e < -200 ? 200 : 1 - e));
    r = round_bits(rounding(env), neg, hi, lo, prec);
    note(env, r.inexact ? X87_UE : 0, &r);
    return f80_make(neg, r.m >> 63 != 0, r.m);
}

static struct f80 overflow(struct f80_env *env, bool neg, int32_t e, unsigned prec,
                           struct rounded r)
{
    unsigned rc = rounding(env);

    if ((env->cw & X87_OE) == 0) {
        e -= UNMASKED_BIAS;
        if (e >= F80_EXP_MAX) { /* too large even so: FSCALE */
            r = (struct rounded){.inexact = true, .up = true};
            note(env, X87_OE, &r);
            return f80_inf(neg);
        }
        note(env, X87_OE, &r);
        return f80_make(neg, (unsigned)e, r.m);
    }
    r.inexact = true;
    r.up = rc == RC_NEAREST || rc == (neg ? RC_DOWN : RC_UP);
    note(env, X87_OE, &r);
    return r.up ? f80_inf(neg)
                : f80_make(neg, F80_EXP_MAX - 1, prec == 64 ? UINT64_MAX : ~(UINT64_MAX >> prec));
}

struct f80 f80_round(struct f80_env *env, bool neg, int32_t e, uint64_t hi, uint64_t lo,
                     unsigned prec)
{
    struct rounded r = round_bits(rounding(env), neg, hi, lo, prec);
    int32_t biased = e + F80_BIAS;

    if (biased + r.carry < 1) {
        return underflow(env, neg, biased, hi, lo, prec, r);
    }
    biased += r.carry;
    if (biased >= F80_EXP_MAX) {
        return overflow(env, neg, biased, prec, r);
    }
    note(env, 0, &r);
    return f80_make(neg, (unsigned)biased, r.m);
}

struct f80 f80_invalid(struct f80_env *env)
{
    env->ex |= X87_IE;
    return F80_INDEFINITE;
}

/* Two NaNs: a quiet one before a signaling one, else the larger significand, else the positive one
 * (SDM Vol. 1, "Rules for Handling NaNs"). The result is quiet. */
bool f80_nan(struct f80_env *env, struct f80 a, struct f80 b, struct f80 *r)
{
    enum f80_class ca = f80_class(a), cb = f80_class(b);

    if (ca == F80_UNSUPPORTED || cb == F80_UNSUPPORTED) {
        *r = f80_invalid(env);
        return true;
    }
    if (ca < F80_QNAN && cb < F80_QNAN) {
        return false;
    }
    if (ca == F80_SNAN || cb == F80_SNAN) {
        env->ex |= X87_IE;
    }
    if (ca < F80_QNAN) {
        *r = b;
    } else if (cb < F80_QNAN) {
        *r = a;
    } else if (ca != cb) {
        *r = ca == F80_QNAN ? a : b;
    } else if (a.m != b.m) {
        *r = a.m > b.m ? a : b;
    } else {
        *r = f80_neg(a) ? b : a;
    }
    r->m |= F80_INT >> 1;
    return true;
}

static void note_denormals(struct f80_env *env, struct f80 a, struct f80 b)
{
    if (env->denormal || f80_class(a) == F80_DENORMAL || f80_class(b) == F80_DENORMAL) {
        env->ex |= X87_DE;
    }
}

static struct f80 add_finite(struct f80_env *env, struct f80_parts a, struct f80_parts b)
{
    unsigned prec = f80_precision(env);
    uint64_t lo = 0;

    if (a.e < b.e || (a.e == b.e && a.m < b.m)) {
        struct f80_parts t = a;
        a = b;
        b = t;
    }
    shift_right(&b.m, &lo, (unsigned)(a.e - b.e));
    if (a.neg == b.neg) {
        u128 sum = (u128)a.m + b.m;

        if (sum >> 64 != 0) {
            uint64_t hi = (uint64_t)sum;
            lo = lo >> 1 | (lo & 1) | hi << 63;
            return f80_round(env, a.neg, a.e + 1, hi >> 1 | F80_INT, lo, prec);
        }
        return f80_round(env, a.neg, a.e, (uint64_t)sum, lo, prec);
    }
    u128 diff = ((u128)a.m << 64) - ((u128)b.m << 64 | lo);
    if (diff == 0) {
        return f80_zero(rounding(env) == RC_DOWN);
    }
    int shift = diff >> 64 != 0 ? __builtin_clzll((uint64_t)(diff >> 64))
                                : 64 + __builtin_clzll((uint64_t)diff);
    diff <<= shift;
    return f80_round(env, a.neg, a.e - shift, (uint64_t)(diff >> 64), (uint64_t)diff, prec);
}

struct f80 f80_add(struct f80_env *env, struct f80 a, struct f80 b, bool subtract)
{
    struct f80 r;
    enum f80_class ca = f80_class(a), cb = f80_class(b);

    if (f80_nan(env, a, b, &r)) {
        return r;
    }
    if (subtract) {
        b.se ^= F80_SIGN;
    }
    if (ca == F80_INF && cb == F80_INF && f80_neg(a) != f80_neg(b)) {
        return f80_invalid(env);
    }
    note_denormals(env, a, b);
    if (ca == F80_INF || cb == F80_INF) {
        return ca == F80_INF ? a : b;
    }
    if (ca == F80_ZERO && cb == F80_ZERO) {
        return f80_neg(a) == f80_neg(b) ? a : f80_zero(rounding(env) == RC_DOWN);
    }
    if (ca == F80_ZERO || cb == F80_ZERO) {
        struct f80_parts p = f80_unpack(ca == F80_ZERO ? b : a);
        return f80_round(env, p.neg, p.e, p.m, 0, f80_precision(env));
    }
    return add_finite(env, f80_unpack(a), f80_unpack(b));
}

struct f80 f80_mul(struct f80_env *env, struct f80 a, struct f80 b)
{
    struct f80 r;
    enum f80_class ca = f80_class(a), cb = f80_class(b);
    bool neg = f80_neg(a) != f80_neg(b);

    if (f80_nan(env, a, b, &r)) {
        return r;
    }
    if ((ca == F80_INF && cb == F80_ZERO) || (ca == F80_ZERO && cb == F80_INF)) {
        return f80_invalid(env);
    }
    note_denormals(env, a, b);
    if (ca == F80_INF || cb == F80_INF) {
        return f80_inf(neg);
    }
    if (ca == F80_ZERO || cb == F80_ZERO) {
        return f80_zero(neg);
    }
    struct f80_parts x = f80_unpack(a), y = f80_unpack(b);
    u128 p = (u128)x.m * y.m;
    int32_t e = x.e + y.e + 1;
    if (p >> 127 == 0) {
        p <<= 1;
        e--;
    }
    return f80_round(env, neg, e, (uint64_t)(p >> 64), (uint64_t)p, f80_precision(env));
}

struct f80 f80_div(struct f80_env *env, struct f80 a, struct f80 b)
{
    struct f80 r;
    enum f80_class ca = f80_class(a), cb = f80_class(b);
    bool neg = f80_neg(a) != f80_neg(b);

    if (f80_nan(env, a, b, &r)) {
        return r;
    }
    if (ca == cb && (ca == F80_INF || ca == F80_ZERO)) {
        return f80_invalid(env);
    }
    if (cb == F80_ZERO && ca != F80_INF) {
        env->ex |= X87_ZE;
        return f80_inf(neg);
    }
    note_denormals(env, a, b);
    if (ca == F80_INF) {
        return f80_inf(neg);
    }
    if (ca == F80_ZERO || cb == F80_INF) {
        return f80_zero(neg);
    }
    struct f80_parts x = f80_unpack(a), y = f80_unpack(b);
    bool less = x.m < y.m;
    u128 num = (u128)x.m << (less ? 64 : 63), q = num / y.m, rem = num % y.m;
    /* The fraction below q as a half and a sticky bit. */
    uint64_t lo = rem == 0 ? 0 : (2 * rem > y.m ? 3U : 2 * rem == y.m ? 2U : 1U);
    return f80_round(env, neg, x.e - y.e - less, (uint64_t)q, lo << 62, f80_precision(env));
}

struct f80 f80_sqrt(struct f80_env *env, struct f80 a)
{
    struct f80 r;
    enum f80_class ca = f80_class(a);

    if (f80_nan(env, a, a, &r)) {
        return r;
    }
    if (ca == F80_ZERO) {
        return a;
    }
    if (f80_neg(a)) {
        return f80_invalid(env);
    }
    note_denormals(env, a, a);
    if (ca == F80_INF) {
        return a;
    }
    struct f80_parts x = f80_unpack(a);
    bool odd = (x.e & 1) != 0;
    u128 n = (u128)x.m << (odd ? 64 : 63), root = 0, rem = n;
    /* root = floor(sqrt(n)), one bit at a time; rem = n - root^2. */
    for (int bit = 63; bit >= 0; bit--) {
        u128 t = (root << (bit + 1)) + ((u128)1 << (2 * bit));
        if (t <= rem) {
            rem -= t;
            root |= (u128)1 << bit;
        }
    }
    uint64_t lo = rem == 0 ? 0 : rem > root ? 3U : 1U;
    return f80_round(env, false, (x.e - odd) / 2, (uint64_t)root, lo << 62, f80_precision(env));
}

struct f80 f80_rndint(struct f80_env *env, struct f80 a)
{
    struct f80 r;
    enum f80_class ca = f80_class(a);

    if (f80_nan(env, a, a, &r)) {
        return r;
    }
    note_denormals(env, a, a);
    if (ca == F80_ZERO || ca == F80_INF) {
        return a;
    }
    struct f80_parts x = f80_unpack(a);
    uint64_t lo = 0;
    if (x.e >= 63) {
        return a;
    }
    shift_right(&x.m, &lo, (unsigned)(x.e < -2 ? 66 : 63 - x.e));
    struct rounded q = round_bits(rounding(env), x.neg, x.m, lo, 64);
    note(env, 0, &q);
    if (q.m == 0) {
        return f80_zero(x.neg);
    }
    int shift = __builtin_clzll(q.m);
    return f80_make(x.neg, (unsigned)(F80_BIAS + 63 - shift), q.m << shift);
}

struct f80 f80_scale(struct f80_env *env, struct f80 a, struct f80 b)
{
    struct f80 r;
    enum f80_class ca = f80_class(a), cb = f80_class(b);

    if (f80_nan(env, a, b, &r)) {
        return r;
    }
    if ((cb == F80_INF) && ((ca == F80_ZERO && !f80_neg(b)) || (ca == F80_INF && f80_neg(b)))) {
        return f80_invalid(env);
    }
    note_denormals(env, a, b);
    if (ca == F80_INF || ca == F80_ZERO) {
        return a;
    }
    if (cb == F80_INF) {
        return f80_neg(b) ? f80_zero(f80_neg(a)) : f80_inf(f80_neg(a));
    }
    struct f80_parts x = f80_unpack(a);
    int32_t n = 0;
    if (cb != F80_ZERO) {
        struct f80_parts y = f80_unpack(b);
        n = y.e < 0 ? 0 : y.e > 16 ? 1 << 17 : (int32_t)(y.m >> (63 - y.e));
        n = y.neg ? -n : n;
    }
    if (n == 0 && (ca == F80_NORMAL || (cb == F80_ZERO && a.m >> 63 == 0))) {
        return a; /* by exactly 0 also a denormal, without an underflow */
    }
    return f80_round(env, x.neg, x.e + n, x.m, 0, 64);
}

struct f80 f80_rem(struct f80_env *env, struct f80 a, struct f80 b, bool nearest, unsigned *cc)
{
    struct f80 r;
    enum f80_class ca = f80_class(a), cb = f80_class(b);
    uint64_t q = 0;

    *cc = F80_NO_QUOTIENT;
    if (f80_nan(env, a, b, &r)) {
        return r;
    }
    if (ca == F80_INF || cb == F80_ZERO) {
        return f80_invalid(env);
    }
    *cc = 0;
    note_denormals(env, a, b);
    if (ca == F80_ZERO) {
        return a;
    }
    struct f80_parts x = f80_unpack(a);
    if (cb == F80_INF) {
        return f80_round(env, x.neg, x.e, x.m, 0, 64);
    }
    struct f80_parts y = f80_unpack(b);
    int32_t d = x.e - y.e;
    if (d < -1 || (d == -1 && !nearest)) {
        return f80_round(env, x.neg, x.e, x.m, 0, 64);
    }
    /* A step reduces the exponent by less than 64; more is left to the next (C2). */
    int32_t steps = d;
    bool partial = d >= 64;
    if (partial) {
        steps = (d & 31) | 32;
    }
    /* Long division: rem < y.m throughout, q the low bits of the quotient. */
    u128 rem = x.m;
    int32_t e = y.e;
    if (d == -1) { /* FPREM1 only: |x| < |y|, the quotient is 0 or 1 */
        e = x.e;
    } else {
        if (rem >= y.m) {
            rem -= y.m;
            q = 1;
        }
        for (int32_t i = 0; i < steps; i++) {
            rem <<= 1;
            q <<= 1;
            if (rem >= y.m) {
                rem -= y.m;
                q |= 1;
            }
        }
        e = x.e - steps;
    }
    bool neg = x.neg;
    if (partial) {
        *cc = X87_C2;
    } else {
        if (nearest) {
            u128 divisor = d == -1 ? (u128)y.m << 1 : y.m;
            if (2 * rem > divisor || (2 * rem == divisor && (q & 1) != 0)) {
                rem = divisor - rem;
                q++;
                neg = !neg;
            }
        }
        *cc = ((q & 4) != 0 ? X87_C0 : 0U) | ((q & 2) != 0 ? X87_C3 : 0U) |
              ((q & 1) != 0 ? X87_C1 : 0U);
    }
    if (rem == 0) {
        return f80_zero(x.neg);
    }
    int shift = __builtin_clzll((uint64_t)rem);
    return f80_round(env, neg, e - shift, (uint64_t)rem << shift, 0, 64);
}

struct f80 f80_extract(struct f80_env *env, struct f80 a, struct f80 *exponent)
{
    struct f80 r;
    enum f80_class ca = f80_class(a);

    if (f80_nan(env, a, a, &r)) {
        *exponent = r;
        return r;
    }
    if (ca == F80_INF) {
        *exponent = f80_inf(false);
        return a;
    }
    if (ca == F80_ZERO) {
        env->ex |= X87_ZE;
        *exponent = f80_inf(true);
        return a;
    }
    note_denormals(env, a, a);
    struct f80_parts x = f80_unpack(a);
    *exponent = f80_from_int(x.e);
    return f80_make(x.neg, F80_BIAS, x.m);
}

enum f80_order f80_compare(struct f80_env *env, struct f80 a, struct f80 b, bool quiet)
{
    enum f80_class ca = f80_class(a), cb = f80_class(b);

    if (ca >= F80_QNAN || cb >= F80_QNAN) {
        if (!quiet || ca > F80_QNAN || cb > F80_QNAN) {
            env->ex |= X87_IE;
        }
        return F80_UNORDERED;
    }
    note_denormals(env, a, b);
    if (ca == F80_ZERO && cb == F80_ZERO) {
        return F80_EQUAL;
    }
    bool na = f80_neg(a) && ca != F80_ZERO, nb = f80_neg(b) && cb != F80_ZERO;
    if (na != nb && (ca != F80_ZERO || cb != F80_ZERO)) {
        return na ? F80_LESS : F80_GREATER;
    }
    if (ca == F80_ZERO || cb == F80_ZERO) {
        bool less = (ca == F80_ZERO) != (na || nb);
        return less ? F80_LESS : F80_GREATER;
    }
    /* Pseudo-denormals have exponent 1 in effect. */
    unsigned ea = a.se & F80_EXP_MAX, eb = b.se & F80_EXP_MAX;
    ea += ea == 0;
    eb += eb == 0;
    if (ea == eb && a.m == b.m) {
        return F80_EQUAL;
    }
    return (ea < eb || (ea == eb && a.m < b.m)) != na ? F80_LESS : F80_GREATER;
}
