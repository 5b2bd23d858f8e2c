/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_math.h - the transcendental functions of the x87, one algorithm for every host (R6).
 *
 * Each works with 128-bit significands and is rounded once, so it is well within the SDM's bound of
 * 1 ulp (SDM Vol. 1, "Transcendental Instruction Accuracy"). Pure functions; special operands,
 * exceptions and C1 are included. Threading: any. */
#ifndef VMM_CPU_X87_MATH_H
#define VMM_CPU_X87_MATH_H

#include "vmm/cpu/x87_soft.h"

/* Sine and cosine, either pointer may be NULL. False: |a| >= 2^63, nothing was done (C2). The
 * argument is reduced by the 66-bit pi of SDM Vol. 1, "Approximation of Pi". */
bool f80_sincos(struct f80_env *env, struct f80 a, struct f80 *sine, struct f80 *cosine);
bool f80_tan(struct f80_env *env, struct f80 a, struct f80 *tangent);
struct f80 f80_atan2(struct f80_env *env, struct f80 y, struct f80 x);
/* 2^a - 1; outside -1..1, where the SDM defines nothing, a itself. */
struct f80 f80_exp2m1(struct f80_env *env, struct f80 a);
/* y * log2(x). */
struct f80 f80_ylog2(struct f80_env *env, struct f80 y, struct f80 x);
/* y * log2(x + 1); x <= -1, where the SDM defines nothing, is invalid. */
struct f80 f80_ylog2p1(struct f80_env *env, struct f80 y, struct f80 x);

#endif
