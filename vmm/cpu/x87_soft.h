/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_soft.h - arithmetic on 80-bit values in integers, with the x87's rounding, precision,
 * exceptions and C1 (SDM Vol. 1, "x87 FPU Floating-Point Exception Conditions").
 *
 * Pure functions of operands and control word. Flags gather in env->ex. An operation that raises
 * an unmasked invalid, denormal or zero-divide exception gives a value nobody may use; the caller
 * looks at f80_blocked. Threading: any. */
#ifndef VMM_CPU_X87_SOFT_H
#define VMM_CPU_X87_SOFT_H

#include "vmm/cpu/x87.h"

struct f80_env {
    uint16_t cw;   /* masks, precision and rounding control */
    uint16_t ex;   /* raised: X87_IE ... X87_PE, X87_SF, and X87_C1: the last rounding went up */
    bool denormal; /* an operand was a denormal of its memory format */
};

enum f80_class {
    F80_ZERO,
    F80_DENORMAL /* pseudo-denormals too */,
    F80_NORMAL,
    F80_INF,
    F80_QNAN,
    F80_SNAN,
    F80_UNSUPPORTED
};

enum { F80_BIAS = 16383, F80_EXP_MAX = 0x7fff, F80_SIGN = 0x8000 };
#define F80_INT        UINT64_C(0x8000000000000000)
#define F80_INDEFINITE ((struct f80){UINT64_C(0xc000000000000000), 0xffff})

/* A finite nonzero value: (-1)^neg * m * 2^(e - 63), bit 63 of m set. */
struct f80_parts {
    uint64_t m;
    int32_t e;
    bool neg;
};

enum f80_order { F80_LESS, F80_EQUAL, F80_GREATER, F80_UNORDERED };

enum f80_class f80_class(struct f80 a);
struct f80_parts f80_unpack(struct f80 a); /* a denormal or normal */

static inline bool f80_neg(struct f80 a)
{
    return (a.se & F80_SIGN) != 0;
}

static inline struct f80 f80_make(bool neg, unsigned e, uint64_t m)
{
    return (struct f80){m, (uint16_t)((neg ? F80_SIGN : 0) | e)};
}

static inline struct f80 f80_zero(bool neg)
{
    return f80_make(neg, 0, 0);
}

static inline struct f80 f80_inf(bool neg)
{
    return f80_make(neg, F80_EXP_MAX, F80_INT);
}

/* Unmasked exceptions found before computing. */
static inline unsigned f80_blocked(const struct f80_env *env)
{
    return env->ex & ~(unsigned)env->cw & (X87_IE | X87_DE | X87_ZE);
}

/* Round (-1)^neg * hi.lo * 2^(e - 63) (bit 63 of hi set; lo a fraction, its last bit sticky) to
 * @prec significant bits and the exponent range of a register. */
struct f80 f80_round(struct f80_env *env, bool neg, int32_t e, uint64_t hi, uint64_t lo,
                     unsigned prec);
unsigned f80_precision(const struct f80_env *env); /* bits that precision control asks for */

/* If an operand is unsupported or a NaN, raise what that raises, set *r to the result and return
 * true. With one operand pass it twice. */
bool f80_nan(struct f80_env *env, struct f80 a, struct f80 b, struct f80 *r);
struct f80 f80_invalid(struct f80_env *env);

struct f80 f80_add(struct f80_env *env, struct f80 a, struct f80 b, bool subtract);
struct f80 f80_mul(struct f80_env *env, struct f80 a, struct f80 b);
struct f80 f80_div(struct f80_env *env, struct f80 a, struct f80 b);
struct f80 f80_sqrt(struct f80_env *env, struct f80 a);
struct f80 f80_rndint(struct f80_env *env, struct f80 a);
struct f80 f80_scale(struct f80_env *env, struct f80 a, struct f80 b);
/* FPREM (truncating) and FPREM1 (nearest): *cc gets C0, C3, C1 from the quotient, or C2, or
 * F80_NO_QUOTIENT after a NaN or an invalid operation. */
enum { F80_NO_QUOTIENT = 0xffff };
struct f80 f80_rem(struct f80_env *env, struct f80 a, struct f80 b, bool nearest, unsigned *cc);
/* FXTRACT: the significand; *exponent the exponent. */
struct f80 f80_extract(struct f80_env *env, struct f80 a, struct f80 *exponent);
/* @quiet: QNaNs do not raise (FUCOM). */
enum f80_order f80_compare(struct f80_env *env, struct f80 a, struct f80 b, bool quiet);

/* A signaling NaN stays one; a denormal sets env->denormal and becomes normal. */
struct f80 f80_from_f32(struct f80_env *env, uint32_t x);
struct f80 f80_from_f64(struct f80_env *env, uint64_t x);
struct f80 f80_from_int(int64_t x);
/* *stored false: an unmasked exception forbids the store. */
uint32_t f80_to_f32(struct f80_env *env, struct f80 a, bool *stored);
uint64_t f80_to_f64(struct f80_env *env, struct f80 a, bool *stored);
/* To an integer of @bits (16, 32, 64); out of range: invalid, and the most negative integer. */
int64_t f80_to_int(struct f80_env *env, struct f80 a, unsigned bits, bool truncate);
struct f80 f80_from_bcd(const uint8_t bcd[10]);
void f80_to_bcd(struct f80_env *env, struct f80 a, uint8_t bcd[10]);

#endif
