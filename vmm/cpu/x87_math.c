/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_math.c - sine, cosine, tangent, arctangent, exponential and logarithm with 128-bit
 * significands.
 *
 * Series are summed by Horner's rule in fixed point (Q: one integer bit, 127 of fraction) on an
 * argument made small enough; what carries the relative precision of a small result is multiplied
 * in afterwards as a struct big. Threading: pure functions. Determinism: integers only. */
#include "vmm/cpu/x87_math.h"

typedef unsigned __int128 u128;

#define U128(hi, lo) ((u128)UINT64_C(hi) << 64 | UINT64_C(lo))
#define Q_ONE        ((u128)1 << 127)

/* (-1)^neg * m * 2^(e - 127); bit 127 of m set, or m == 0: zero. */
struct big {
    u128 m;
    int32_t e;
    bool neg;
};

static const struct big big_pi = {U128(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1), 1, false};
static const struct big big_ln2 = {U128(0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af), -1, false};
static const struct big big_2_ln2 = {U128(0xb8aa3b295c17f0bb, 0xbe87fed0691d3e89), 1, false};

/* atan(k / 8) */
static const u128 q_atan[9] = {
    0,
    U128(0x0feadd4d5617b6e3, 0x2c897989f3e888ef),
    U128(0x1f5b75f92c80dd62, 0xadb8f3debef442fd),
    U128(0x2dec3283c9bde11c, 0xe2a8c848b73f9121),
    U128(0x3b58ce0ac3769ed1, 0x5bf9117b2f0ea341),
    U128(0x47802eaf7bfacfcd, 0xae41af0b32e21ba4),
    U128(0x525e3e8c9a7b8492, 0x0cd43f9522bed64f),
    U128(0x5c029f15e118cf39, 0xe596d2a90852221f),
    U128(0x6487ed5110b4611a, 0x62633145c06e0e69),
};

/* Terms that bring the first one left out below 2^-127 at the largest argument. */
enum { SIN_TERMS = 17, ATAN_TERMS = 16, EXP_TERMS = 34, LOG_TERMS = 26 };

/* --- 128-bit arithmetic ---------------------------------------------------------------------- */

/* The upper half of the product. */
static u128 mul_high(u128 a, u128 b)
{
    u128 al = (uint64_t)a, ah = a >> 64, bl = (uint64_t)b, bh = b >> 64;
    u128 mid = ((al * bl) >> 64) + (uint64_t)(ah * bl) + al * bh; /* at most 2^128 - 1 */

    return ah * bh + ((ah * bl) >> 64) + (mid >> 64);
}

static u128 q_mul(u128 a, u128 b)
{
    return mul_high(a, b) << 1;
}

static int clz128(u128 x)
{
    return x >> 64 != 0 ? __builtin_clzll((uint64_t)(x >> 64)) : 64 + __builtin_clzll((uint64_t)x);
}

static struct big big_norm(bool neg, int32_t e, u128 m)
{
    int shift;

    if (m == 0) {
        return (struct big){0, 0, neg};
    }
    shift = clz128(m);
    return (struct big){m << shift, e - shift, neg};
}

static struct big big_from(struct f80 a)
{
    struct f80_parts p;

    if (a.m == 0) {
        return (struct big){0, 0, f80_neg(a)};
    }
    p = f80_unpack(a);
    return (struct big){(u128)p.m << 64, p.e, p.neg};
}

static struct big big_from_int(int32_t x)
{
    return big_norm(x < 0, 127, (u128)(x < 0 ? -(int64_t)x : (int64_t)x));
}

/* A value below 2 in fixed point. */
static struct big big_from_q(u128 q)
{
    return big_norm(false, 0, q);
}

static u128 big_to_q(struct big a)
{
    return a.e < -127 ? 0 : a.m >> -a.e; /* |a| < 2, so a.e <= 0 */
}

static struct big big_mul(struct big a, struct big b)
{
    if (a.m == 0 || b.m == 0) {
        return (struct big){0, 0, a.neg != b.neg};
    }
    return big_norm(a.neg != b.neg, a.e + b.e + 1, mul_high(a.m, b.m));
}

static struct big big_div(struct big a, struct big b)
{
    u128 q = 0, rem = a.m;
    bool ge = rem >= b.m;

    if (ge) {
        rem -= b.m;
        q = 1;
    }
    for (int i = 0; i < 127 + !ge; i++) {
        bool out = rem >> 127 != 0;

        rem <<= 1;
        q <<= 1;
        if (out || rem >= b.m) {
            rem -= b.m;
            q |= 1;
        }
    }
    return big_norm(a.neg != b.neg, a.e - b.e - !ge, q);
}

static struct big big_add(struct big a, struct big b)
{
    u128 sum;
    int32_t d;

    if (a.m == 0 || b.m == 0) {
        return a.m == 0 ? b : a;
    }
    if (a.e < b.e || (a.e == b.e && a.m < b.m)) {
        struct big t = a;
        a = b;
        b = t;
    }
    d = a.e - b.e;
    b.m = d > 127 ? 0 : b.m >> d;
    if (a.neg != b.neg) {
        return big_norm(a.neg, a.e, a.m - b.m);
    }
    sum = a.m + b.m;
    return sum < a.m ? (struct big){sum >> 1 | Q_ONE, a.e + 1, a.neg}
                     : (struct big){sum, a.e, a.neg};
}

static struct big big_negate(struct big a)
{
    a.neg = !a.neg;
    return a;
}

/* @exact false: the true value is near a, not a. */
static struct f80 big_round(struct f80_env *env, struct big a, bool exact)
{
    return f80_round(env, a.neg, a.e, (uint64_t)(a.m >> 64), (uint64_t)a.m | !exact, 64);
}

static void note_denormal(struct f80_env *env, struct f80 a)
{
    env->ex |= f80_class(a) == F80_DENORMAL ? X87_DE : 0;
}

/* A factor that is below one but too near to show: the result must not look exact. */
static u128 below_one(u128 q)
{
    return q >= Q_ONE ? Q_ONE - 1 : q;
}

/* --- sine, cosine, tangent ------------------------------------------------------------------- */

/* 1 - x/(a(a+1)) (1 - x/((a+2)(a+3)) (1 - ...)) */
static u128 sin_series(u128 x, unsigned a)
{
    u128 t = Q_ONE;

    for (unsigned k = a + 2 * (SIN_TERMS - 1) + 2; k > a; k -= 2) {
        t = Q_ONE - q_mul(x, t) / ((k - 2) * (k - 1));
    }
    return below_one(t);
}

/* |a| = n * pi/2 + r with |r| <= pi/4; returns n mod 4. In units of 2^-65 pi/2 is the 66-bit
 * integer below, and |a| an integer too, so that the remainder is exact. */
static unsigned reduce(struct f80 a, struct big *r)
{
    const u128 half_pi = U128(0x3, 0x243f6a8885a308d3);
    struct f80_parts p = f80_unpack(a);
    u128 rem = p.m;
    unsigned n = 0;

    *r = (struct big){(u128)p.m << 64, p.e, false};
    if (p.e < -1) {
        return 0;
    }
    for (int32_t i = 0; i < p.e + 2; i++) {
        rem <<= 1;
        n <<= 1;
        if (rem >= half_pi) {
            rem -= half_pi;
            n |= 1;
        }
    }
    if (2 * rem > half_pi) {
        rem = half_pi - rem;
        n++;
        *r = big_norm(true, 127 - 65, rem);
    } else {
        *r = big_norm(false, 127 - 65, rem);
    }
    return n & 3;
}

static void sincos_big(struct f80 a, struct big *sine, struct big *cosine)
{
    struct big r;
    unsigned n = reduce(a, &r);
    u128 x = big_to_q(big_mul(r, r));
    struct big s = big_mul(r, big_from_q(sin_series(x, 2)));
    struct big c = big_from_q(sin_series(x, 1));

    *sine = (n & 1) != 0 ? c : s;
    *cosine = (n & 1) != 0 ? s : c;
    sine->neg ^= (n & 2) != 0;
    sine->neg ^= f80_neg(a);
    cosine->neg ^= n == 1 || n == 2;
}

/* Operands that need no series: NaN, infinity, zero. True: done. */
static bool trig_special(struct f80_env *env, struct f80 a, struct f80 *sine, struct f80 *cosine)
{
    struct f80 r;

    if (f80_nan(env, a, a, &r)) {
        *sine = *cosine = r;
        return true;
    }
    if (f80_class(a) == F80_INF) {
        *sine = *cosine = f80_invalid(env);
        return true;
    }
    if (f80_class(a) == F80_ZERO) {
        *sine = a;
        *cosine = f80_make(false, F80_BIAS, F80_INT);
        return true;
    }
    note_denormal(env, a);
    return false;
}

static bool in_range(struct f80 a)
{
    enum f80_class c = f80_class(a);

    return c >= F80_INF || c == F80_ZERO || f80_unpack(a).e < 63;
}

bool f80_sincos(struct f80_env *env, struct f80 a, struct f80 *sine, struct f80 *cosine)
{
    struct f80 s, c;
    struct big bs, bc;

    if (!in_range(a)) {
        return false;
    }
    if (!trig_special(env, a, &s, &c)) {
        sincos_big(a, &bs, &bc);
        if (cosine != NULL) {
            c = big_round(env, bc, false);
        }
        if (sine != NULL) {
            s = big_round(env, bs, false);
        }
    }
    if (sine != NULL) {
        *sine = s;
    }
    if (cosine != NULL) {
        *cosine = c;
    }
    return true;
}

bool f80_tan(struct f80_env *env, struct f80 a, struct f80 *tangent)
{
    struct f80 c;
    struct big bs, bc;

    if (!in_range(a)) {
        return false;
    }
    if (!trig_special(env, a, tangent, &c)) {
        sincos_big(a, &bs, &bc);
        *tangent = big_round(env, big_div(bs, bc), false);
    }
    return true;
}

/* --- arctangent ------------------------------------------------------------------------------ */

/* 0 < t <= 1: atan(t) = atan(k/8) + atan(u), u = (t - k/8) / (1 + t k/8), |u| <= 1/16. */
static struct big atan_big(struct big t)
{
    unsigned k = (unsigned)((big_to_q(t) + (Q_ONE >> 4)) >> 124);
    struct big u = t;
    u128 x, s = 0;

    if (k != 0) {
        struct big c = big_norm(false, 124, k);
        struct big one = big_from_q(Q_ONE);

        u = big_add(t, big_negate(c));
        if (u.m == 0) {
            return big_from_q(q_atan[k]);
        }
        u = big_div(u, big_add(one, big_mul(t, c)));
    }
    x = big_to_q(big_mul(u, u));
    for (unsigned i = ATAN_TERMS; i-- > 0;) {
        s = Q_ONE / (2 * i + 1) - q_mul(x, s);
    }
    return big_add(big_from_q(q_atan[k]), big_mul(u, big_from_q(below_one(s))));
}

/* The angle of a point of which at least one coordinate is zero or infinite: the sum of what the
 * SDM's table says, in eighths of pi (SDM Vol. 2A, "FPATAN"). */
static struct f80 atan2_special(struct f80_env *env, struct f80 y, struct f80 x)
{
    bool y_inf = f80_class(y) == F80_INF, x_inf = f80_class(x) == F80_INF;
    bool y_zero = f80_class(y) == F80_ZERO;
    unsigned quarters; /* of pi */
    struct big angle;

    if (y_inf) {
        quarters = !x_inf ? 2 : f80_neg(x) ? 3 : 1;
    } else if (x_inf || y_zero) {
        quarters = f80_neg(x) ? 4 : 0;
    } else {
        quarters = 2; /* x is zero */
    }
    if (quarters == 0) {
        return f80_zero(f80_neg(y));
    }
    angle = big_mul(big_pi, big_norm(f80_neg(y), 125, quarters));
    return big_round(env, angle, false);
}

struct f80 f80_atan2(struct f80_env *env, struct f80 y, struct f80 x)
{
    enum f80_class cy = f80_class(y), cx = f80_class(x);
    struct big a, b, r;
    struct f80 nan;
    bool swap;

    if (f80_nan(env, y, x, &nan)) {
        return nan;
    }
    note_denormal(env, y);
    note_denormal(env, x);
    if (cy == F80_ZERO || cy == F80_INF || cx == F80_ZERO || cx == F80_INF) {
        return atan2_special(env, y, x);
    }
    a = big_from(y);
    b = big_from(x);
    a.neg = b.neg = false;
    swap = a.e > b.e || (a.e == b.e && a.m > b.m);
    r = atan_big(swap ? big_div(b, a) : big_div(a, b));
    if (swap) {
        struct big half_pi = big_pi;

        half_pi.e--;
        r = big_add(half_pi, big_negate(r));
    }
    if (f80_neg(x)) {
        r = big_add(big_pi, big_negate(r));
    }
    r.neg = f80_neg(y);
    return big_round(env, r, false);
}

/* --- exponential ----------------------------------------------------------------------------- */

struct f80 f80_exp2m1(struct f80_env *env, struct f80 a)
{
    enum f80_class c = f80_class(a);
    struct f80 nan;
    struct big z;
    u128 x, t = Q_ONE;

    if (f80_nan(env, a, a, &nan)) {
        return nan;
    }
    if (c == F80_INF) {
        return f80_neg(a) ? f80_make(true, F80_BIAS, F80_INT) : a;
    }
    note_denormal(env, a);
    if (c == F80_ZERO) {
        return a;
    }
    z = big_from(a);
    if (z.e >= 0) {
        bool one = z.e == 0 && z.m == Q_ONE;
        return one && z.neg ? f80_make(true, F80_BIAS - 1, F80_INT) : a;
    }
    /* e^z - 1 = z (1 + z/2 (1 + z/3 (1 + ...))), z = a ln 2, |z| < 0.7 */
    z = big_mul(z, big_ln2);
    x = big_to_q(z);
    for (unsigned k = EXP_TERMS; k >= 2; k--) {
        u128 d = q_mul(x, t) / k;
        t = z.neg ? Q_ONE - d : Q_ONE + d;
    }
    return big_round(env, big_mul(z, big_from_q(t)), false);
}

/* --- logarithm ------------------------------------------------------------------------------- */

/* log2((1 + s) / (1 - s)), |s| <= 0.172 */
static struct big log2_ratio(struct big s)
{
    u128 x = big_to_q(big_mul(s, s)), t = 0;

    for (unsigned i = LOG_TERMS; i-- > 0;) {
        t = Q_ONE / (2 * i + 1) + q_mul(x, t);
    }
    return big_mul(big_mul(s, big_from_q(t)), big_2_ln2);
}

/* log2 of a positive value; exact for a power of two (*exact). */
static struct big log2_big(struct big a, bool *exact)
{
    /* a = 2^k f with f between about 0.7 and 1.4 */
    bool low = a.m < U128(0xb504f333f9de6484, 0x597d89b3754abe9f);
    int32_t k = a.e + !low;
    struct big f = {a.m, low ? 0 : -1, false}, one = big_from_q(Q_ONE), d;

    d = big_add(f, big_negate(one));
    *exact = d.m == 0;
    if (*exact) {
        return big_from_int(k);
    }
    return big_add(big_from_int(k), log2_ratio(big_div(d, big_add(f, one))));
}

/* y * log, where either may be zero or infinite; @log_class, @log_neg describe the logarithm. True:
 * done. A logarithm of zero makes a pole (ZE) if @pole. */
static bool ylog_special(struct f80_env *env, struct f80 y, enum f80_class log_class, bool log_neg,
                         bool pole, struct f80 *r)
{
    enum f80_class cy = f80_class(y);
    bool neg = f80_neg(y) != log_neg;

    if ((cy == F80_ZERO && log_class == F80_INF) || (cy == F80_INF && log_class == F80_ZERO)) {
        *r = f80_invalid(env);
        return true;
    }
    if (pole && cy != F80_INF) {
        env->ex |= X87_ZE;
        *r = f80_inf(neg);
        return true;
    }
    note_denormal(env, y);
    if (cy == F80_INF || log_class == F80_INF) {
        *r = f80_inf(neg);
        return true;
    }
    if (cy == F80_ZERO || log_class == F80_ZERO) {
        *r = f80_zero(neg);
        return true;
    }
    return false;
}

struct f80 f80_ylog2(struct f80_env *env, struct f80 y, struct f80 x)
{
    enum f80_class cx = f80_class(x), log_class = F80_NORMAL;
    bool below = cx != F80_INF && (x.se & F80_EXP_MAX) < F80_BIAS, exact;
    struct f80 r;
    struct big l;

    if (f80_nan(env, y, x, &r)) {
        return r;
    }
    if (f80_neg(x) && cx != F80_ZERO) {
        return f80_invalid(env);
    }
    if (cx == F80_ZERO || cx == F80_INF) {
        log_class = F80_INF;
    } else if (x.se == F80_BIAS && x.m == F80_INT) {
        log_class = F80_ZERO;
    }
    note_denormal(env, x);
    if (ylog_special(env, y, log_class, below, cx == F80_ZERO, &r)) {
        return r;
    }
    l = log2_big(big_from(x), &exact);
    return big_round(env, big_mul(big_from(y), l), exact);
}

struct f80 f80_ylog2p1(struct f80_env *env, struct f80 y, struct f80 x)
{
    enum f80_class cx = f80_class(x);
    struct f80 r;
    struct big bx, l, one = big_from_q(Q_ONE);
    bool exact = false;

    if (f80_nan(env, y, x, &r)) {
        return r;
    }
    bx = big_from(x);
    if (f80_neg(x) && (cx == F80_INF || (cx == F80_NORMAL && bx.e >= 0))) {
        return f80_invalid(env);
    }
    note_denormal(env, x);
    if (ylog_special(env, y, cx == F80_INF || cx == F80_ZERO ? cx : F80_NORMAL, f80_neg(x), false,
                     &r)) {
        return r;
    }
    if (bx.e < -2) { /* |x| < 1/4: 1 + x = (1 + s) / (1 - s), s = x / (2 + x) */
        struct big two = {Q_ONE, 1, false};
        l = log2_ratio(big_div(bx, big_add(two, bx)));
    } else {
        l = log2_big(big_add(one, bx), &exact);
    }
    return big_round(env, big_mul(big_from(y), l), exact);
}
