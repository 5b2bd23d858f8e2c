/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/vec_soft.h - IEEE 754 arithmetic on half, single and double precision in integers, for
 * what not every host's vector unit has: fused multiply-add, half precision.
 *
 * Exceptions come back as MXCSR flags, as with every exception masked (but underflow is also told
 * of an exact tiny result if the guest has unmasked it). Pure; any thread. */
#ifndef VMM_CPU_VEC_SOFT_H
#define VMM_CPU_VEC_SOFT_H

#include <stdbool.h>
#include <stdint.h>

struct fp_format {
    unsigned frac; /* bits of the fraction */
    unsigned top;  /* the exponent of infinities and NaNs */
};

extern const struct fp_format fp_half, fp_single, fp_double;

/* (-1)^@sign * @sig * 2^@exp, rounded as @mxcsr says (RC, FZ); @sig is not 0. */
uint64_t soft_round(const struct fp_format *f, bool sign, int exp, unsigned __int128 sig,
                    uint32_t mxcsr, uint32_t *flags);

/* @a * @b + @c, rounded once; the product or the addend negated first. @order: the operands as they
 * stand in the instruction, of which the first NaN is the result. */
struct fma_operands {
    uint64_t a, b, c;
    bool negate_product, negate_addend;
    uint64_t order[3];
};
uint64_t soft_fma(const struct fp_format *f, const struct fma_operands *o, uint32_t mxcsr,
                  uint32_t *flags);

uint64_t soft_half_to_single(uint64_t h, uint32_t *flags);
/* Flushing to zero has no say here. */
uint64_t soft_single_to_half(uint64_t s, uint32_t mxcsr, uint32_t *flags);

#endif
