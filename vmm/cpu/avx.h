/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/avx.h - what the VEX-encoded vector instructions share (model pollux-v3).
 *
 * A YMM register is two lanes of 128 bits, and nearly every instruction does to each lane what its
 * SSE twin does: so the twin's own function does it, on a host without AVX too. These helpers fetch
 * the lanes, give the function a destination that holds the first source, and store the result with
 * the upper half zeroed after a 128-bit form (SDM Vol. 1, "Handling of YMM state").
 *
 * Memory operands need no alignment, except those of the aligned moves. Threading: the vCPU's
 * thread. Determinism: as sse.h. */
#ifndef VMM_CPU_AVX_H
#define VMM_CPU_AVX_H

#include "vmm/cpu/sse.h"

struct ymm {
    union vec lane[2];
};

typedef void (*avx_lane_fn)(union vec *d, const union vec *s);

/* Register @reg as far as @size (16 or 32) reaches; the rest is 0. */
static inline void avx_get(struct vcpu *v, unsigned reg, unsigned size, struct ymm *out)
{
    out->lane[0] = *sse_xmm(v, reg);
    out->lane[1] = size == 32 ? *avx_high(v, reg) : (union vec){0};
}

/* The destination, opd[0]: as wide as its size; the rest is zeroed. */
static inline void avx_put(struct vcpu *v, const struct insn *in, const struct ymm *r)
{
    unsigned reg = in->opd[0].reg;

    *sse_xmm(v, reg) = r->lane[0];
    *avx_high(v, reg) = in->opd[0].size == 32 ? r->lane[1] : (union vec){0};
}

/* @size bytes of the memory operand, zero-extended. */
static inline void avx_load(struct vcpu *v, const struct insn *in, unsigned size, struct ymm *out)
{
    *out = (struct ymm){0};
    if (size <= 8) {
        out->lane[0].q[0] = mem_load(v, in, size);
        return;
    }
    uint64_t lin = mem_ea(v, in) + *(const uint64_t *)((const char *)v + in->seg_off);
    const void *p = (in->flags & INSN_LIN64) != 0 && PAGE_OFFSET(lin) <= PAGE_SIZE - size
                        ? tlb_read(v, lin, 1)
                        : NULL;
    if (__builtin_expect(p != NULL, 1)) {
        memcpy(out, p, size);
    } else {
        mem_read_bytes(v, in->seg, mem_ea(v, in), out, size);
    }
}

/* Operand @i as a source, zero-extended. */
static inline void avx_src(struct vcpu *v, const struct insn *in, unsigned i, struct ymm *out)
{
    const struct opd *o = &in->opd[i];

    if (o->kind == OPD_XMM) {
        avx_get(v, o->reg, o->size, out);
    } else {
        avx_load(v, in, o->size, out);
    }
}

/* The last operand that is no immediate: the source, of which there may be one before. */
static inline unsigned avx_last(const struct insn *in)
{
    return in->opd[2].kind == OPD_XMM || in->opd[2].kind == OPD_MEM ? 2 : 1;
}

/* dst = f(src1, src2), or f(src) where there is but one. */
static inline __attribute__((always_inline)) void avx_run(struct vcpu *v, const struct insn *in,
                                                          avx_lane_fn f)
{
    struct ymm r, s;

    avx_check(v);
    avx_src(v, in, avx_last(in), &s);
    avx_get(v, in->opd[1].reg, in->opd[0].size, &r);
    f(&r.lane[0], &s.lane[0]);
    if (in->opd[0].size == 32) {
        f(&r.lane[1], &s.lane[1]);
    }
    avx_put(v, in, &r);
}

/* As avx_run for floating point under the guest's MXCSR; an exception of either lane is one of the
 * instruction. @lanes is that of a 128-bit lane. */
static inline __attribute__((always_inline)) void avx_run_fp(struct vcpu *v, const struct insn *in,
                                                             avx_lane_fn f, enum fp_lanes lanes)
{
    struct ymm r, s;
    uint32_t flags;

    avx_check(v);
    avx_src(v, in, avx_last(in), &s);
    avx_get(v, in->opd[1].reg, in->opd[0].size, &r);
    fp_enter(v);
    f(&r.lane[0], &s.lane[0]);
    if (in->opd[0].size == 32) {
        f(&r.lane[1], &s.lane[1]);
    }
    flags = fp_leave();
    fp_flags(v, flags, &r.lane[0], in->opd[0].size == 32 ? fp_both(lanes) : lanes);
    avx_put(v, in, &r);
}

/* Families of their own; NULL: no such form. */
insn_fn avx_move_pick(const struct insn *in);
insn_fn avx_perm_pick(const struct insn *in);
insn_fn avx_mem_pick(const struct insn *in);
insn_fn fma_pick(const struct insn *in);

#endif
