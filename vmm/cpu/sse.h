/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse.h - what the MMX and SSE families share: availability checks, operand fetch, and the
 * one way floating-point work reaches the host's SSE unit. What each instruction does is what its
 * page of the SDM says (Vol. 2); what they have in common, Vol. 1, "Programming with Intel MMX
 * Technology" to "Programming with Intel SSE3, SSSE3, Intel SSE4, and Intel AES-NI".
 *
 * Integer SIMD uses the host's instructions as they are: they are exact everywhere. Floating point
 * does too, under the guest's rounding control, DAZ and FTZ with every exception masked; what the
 * guest has unmasked is judged afterwards from the flags. Outside of fp_enter/fp_leave the host's
 * MXCSR is always MXCSR_HOST. Kernels are asm volatile, so the compiler cannot move them across.
 *
 * Threading: the vCPU's thread. Determinism (R6): nothing here may depend on the host's model; what
 * differs between vendors is computed in software (reciprocals, NaN order of horizontal sums). */
#ifndef VMM_CPU_SSE_H
#define VMM_CPU_SSE_H

#include <emmintrin.h>
#include <string.h>

#include "vmm/cpu/operand.h"
#include "vmm/cpu/x87.h"

/* MXCSR (SDM Vol. 1, "MXCSR Control and Status Register"):
 *
 *   15  14 13  12..7   6   5..0
 *   FZ   RC    masks  DAZ  flags: PE UE OE ZE DE IE */
enum {
    MXCSR_IE = 0x01,
    MXCSR_DE = 0x02,
    MXCSR_ZE = 0x04,
    MXCSR_OE = 0x08,
    MXCSR_UE = 0x10,
    MXCSR_PE = 0x20,
    MXCSR_FLAGS = 0x3f,
    MXCSR_PRE = 0x07 /* found before computing */,
    MXCSR_DAZ = 0x40,
    MXCSR_MASKS = 0x1f80,
    MXCSR_MASK_SHIFT = 7,
    MXCSR_RC = 0x6000,
    MXCSR_RC_SHIFT = 13,
    MXCSR_FZ = 0x8000,
    MXCSR_VALID = 0xffff,
    MXCSR_HOST = 0x1f80
};

union vec {
    uint8_t b[16];
    uint16_t w[8];
    uint32_t d[4];
    uint64_t q[2];
    int8_t sb[16];
    int16_t sw[8];
    int32_t sd[4];
    int64_t sq[2];
    __m128i x;
};

static inline union vec *sse_xmm(struct vcpu *v, unsigned reg)
{
    return (union vec *)(void *)v->c.fpu.xmm[reg];
}

static inline union vec *avx_high(struct vcpu *v, unsigned reg)
{
    return (union vec *)(void *)v->c.fpu.ymm_high[reg];
}

/* Raise what an unavailable SSE unit raises; does not return. */
_Noreturn void sse_unavailable(struct vcpu *v);

/* Every SSE instruction on XMM registers or MXCSR starts here (SDM Vol. 2, "Exceptions Type 1-5"
 * of the legacy encodings): CR0.EM or CR4.OSFXSR clear: #UD; CR0.TS: #NM. */
static inline void sse_check(struct vcpu *v)
{
    if (__builtin_expect((v->c.cr0 & (CR0_EM | CR0_TS)) != 0 || (v->c.cr4 & CR4_OSFXSR) == 0, 0)) {
        sse_unavailable(v);
    }
}

/* Raise what an unavailable AVX unit raises; does not return. */
_Noreturn void avx_unavailable(struct vcpu *v);

/* Every VEX-encoded vector instruction (SDM Vol. 1, "Detection of AVX Instructions"; Vol. 2,
 * "Exceptions Type 1-8" of VEX encodings): real or virtual-8086 mode, CR4.OSXSAVE clear, SSE or AVX
 * not enabled in XCR0: #UD; CR0.TS: #NM. CR0.EM and CR4.OSFXSR have no say. */
static inline void avx_check(struct vcpu *v)
{
    if (__builtin_expect(
            (v->c.cr0 & (CR0_PE | CR0_TS)) != CR0_PE || (v->c.cr4 & CR4_OSXSAVE) == 0 ||
                (~v->c.xcr0 & (XCR0_SSE | XCR0_AVX)) != 0 || (v->c.rflags & FLAG_VM) != 0,
            0)) {
        avx_unavailable(v);
    }
}

/* Of an instruction whose legacy and VEX forms are one function. */
static inline void simd_check(struct vcpu *v, const struct insn *in)
{
    if ((in->flags & INSN_VEX) != 0) {
        avx_check(v);
    } else {
        sse_check(v);
    }
}

/* Every instruction on MMX registers: CR0.EM: #UD; CR0.TS: #NM; a pending x87 exception: #MF. */
static inline void mmx_check(struct vcpu *v)
{
    if (__builtin_expect((v->c.cr0 & (CR0_EM | CR0_TS)) != 0, 0)) {
        cpu_raise(v, (v->c.cr0 & CR0_EM) != 0 ? VEC_UD : VEC_NM);
    }
    x87_check_pending(v);
}

/* What executing any MMX instruction but EMMS does to the x87 state: TOP 0, all valid. */
static inline void mmx_enter(struct vcpu *v)
{
    v->c.fpu.fsw &= (uint16_t)~X87_SW_TOP;
    v->c.fpu.ftw = 0xff;
}

static inline uint64_t mmx_read(const struct vcpu *v, unsigned reg)
{
    uint64_t q;
    memcpy(&q, v->c.fpu.st[reg], 8);
    return q;
}

static inline void mmx_write(struct vcpu *v, unsigned reg, uint64_t q)
{
    memcpy(v->c.fpu.st[reg], &q, 8);
    v->c.fpu.st[reg][8] = 0xff;
    v->c.fpu.st[reg][9] = 0xff;
}

/* The offset of the memory operand; a linear address that is no multiple of @align (a power of two)
 * raises #GP(0). */
uint64_t ea_aligned(struct vcpu *v, const struct insn *in, unsigned align);

/* Whether 16 bytes at @lin (64-bit mode) may take the inline path of mem.h if they are cached: in
 * one page, aligned if they must be, and no alignment checks (#AC) to make. */
static inline bool sse_fast(const struct vcpu *v, const struct insn *in, gva_t lin, bool aligned)
{
    return (in->flags & INSN_LIN64) != 0 && PAGE_OFFSET(lin) <= PAGE_SIZE - 16 &&
           ((lin & 15) == 0 || (!aligned && (v->c.rflags & FLAG_AC) == 0));
}

/* Operand @i as a source: a register in place, or memory read once into *tmp, zero-extended. Only
 * a 16-byte operand is held to its alignment, and only if @aligned. */
static inline const union vec *sse_src(struct vcpu *v, const struct insn *in, unsigned i,
                                       union vec *tmp, bool aligned)
{
    const struct opd *o = &in->opd[i];

    if (o->kind == OPD_XMM) {
        return sse_xmm(v, o->reg);
    }
    if (o->size == 16) {
        uint64_t lin = mem_ea(v, in) + *(const uint64_t *)((const char *)v + in->seg_off);
        const void *p = sse_fast(v, in, lin, aligned) ? tlb_read(v, lin, 1) : NULL;

        if (__builtin_expect(p != NULL, 1)) {
            memcpy(tmp, p, 16);
        } else {
            mem_read_bytes(v, in->seg, aligned ? ea_aligned(v, in, 16) : mem_ea(v, in), tmp, 16);
        }
    } else {
        tmp->q[0] = mem_load(v, in, o->size);
        tmp->q[1] = 0;
    }
    return tmp;
}

/* As sse_src for an MMX operand or memory of at most 8 bytes. */
static inline uint64_t mmx_src(struct vcpu *v, const struct insn *in, unsigned i)
{
    const struct opd *o = &in->opd[i];

    return o->kind == OPD_MM ? mmx_read(v, o->reg) : mem_load(v, in, o->size);
}

/* Those of @n bytes at offset @base of the operand's segment whose mask has its top bit are stored.
 * With no byte selected memory is not touched; else all from the first to the last selected must be
 * writable. */
void sse_masked_store(struct vcpu *v, const struct insn *in, uint64_t base, const uint8_t *data,
                      const uint8_t *mask, unsigned n);

/* --- floating point ------------------------------------------------------------------------ */

static inline uint32_t mxcsr_get(void)
{
    uint32_t m;
    __asm__ volatile("stmxcsr %0" : "=m"(m) : : "memory");
    return m;
}

static inline void mxcsr_set(uint32_t m)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(m) : "memory");
}

/* Give the host's unit the guest's controls. Writing the register is slow, so it is done only when
 * they differ or a flag is up that would be taken for a new one: with every exception masked, flags
 * that the guest has up already may stay. FTZ acts only while underflow is masked (SDM Vol. 1,
 * "Flush-To-Zero"). */
static inline void fp_enter_mode(uint32_t mxcsr)
{
    uint32_t want = (mxcsr & (MXCSR_RC | MXCSR_DAZ)) | MXCSR_MASKS;
    uint32_t may = (mxcsr & MXCSR_MASKS) == MXCSR_MASKS ? mxcsr & MXCSR_FLAGS : 0;

    if ((mxcsr & (MXCSR_FZ | MXCSR_UE << MXCSR_MASK_SHIFT)) ==
        (MXCSR_FZ | MXCSR_UE << MXCSR_MASK_SHIFT)) {
        want |= MXCSR_FZ;
    }
    if ((mxcsr_get() & ~may) != want) {
        mxcsr_set(want);
    }
}

static inline void fp_enter(const struct vcpu *v)
{
    fp_enter_mode(v->c.fpu.mxcsr);
}

/* The flags raised since fp_enter (and perhaps some the guest has up); the host's controls return.
 */
static inline uint32_t fp_leave(void)
{
    uint32_t now = mxcsr_get();

    if ((now & ~(uint32_t)MXCSR_FLAGS) != MXCSR_HOST) {
        mxcsr_set(MXCSR_HOST);
    }
    return now & MXCSR_FLAGS;
}

/* Which lanes of a result can be tiny: an unmasked underflow is raised by a tiny result even when
 * it is exact, which masked flags do not tell (SDM Vol. 1, "Numeric Underflow Exception (#U)"). */
enum fp_lanes { FP_NONE, FP_PS, FP_SS, FP_PD, FP_SD, FP_PS8, FP_PD4 };

/* Of a result in two lanes. */
static inline enum fp_lanes fp_both(enum fp_lanes lane)
{
    return lane == FP_PS ? FP_PS8 : lane == FP_PD ? FP_PD4 : lane;
}

/* Record @flags and raise #XM (#UD without CR4.OSXMMEXCPT) if one is unmasked. An unmasked
 * exception found before computing hides those found after (SDM Vol. 1, "SIMD Floating-Point
 * Exception Conditions"). The destination is untouched: the caller writes it afterwards. */
void fp_flags_slow(struct vcpu *v, uint32_t flags, const union vec *result, enum fp_lanes lanes);

static inline void fp_flags(struct vcpu *v, uint32_t flags, const union vec *result,
                            enum fp_lanes lanes)
{
    if ((flags & ~v->c.fpu.mxcsr) != 0 || (v->c.fpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS) {
        fp_flags_slow(v, flags, result, lanes);
    }
}

/* --- families: each file chooses the function of a form, or NULL: no such form --------------- */
insn_fn sse_int_pick(const struct insn *in);
insn_fn sse_move_pick(const struct insn *in);
insn_fn sse_shuffle_pick(const struct insn *in);
insn_fn sse_fp_pick(const struct insn *in);
insn_fn sse_cvt_pick(const struct insn *in);
insn_fn sse_str_pick(const struct insn *in);

/* One row of a family's table. */
struct sse_op {
    ZydisMnemonic mnemonic;
    insn_fn xmm; /* the form on XMM registers; NULL: none */
    insn_fn mmx; /* the form on MMX registers; NULL: none */
};

/* A row of X-macro lists whose first columns are mnemonic and name; without an MMX form. */
#define SSE_ROW(M, name, ...) {ZYDIS_MNEMONIC_##M, do_##name, NULL},
/* With its VEX twin. */
#define AVX_ROW(M, name, ...) \
    {ZYDIS_MNEMONIC_##M, do_##name, NULL}, {ZYDIS_MNEMONIC_V##M, do_v##name, NULL},
/* One function serves both. */
#define BOTH_ROW(M, fn) {ZYDIS_MNEMONIC_##M, fn, NULL}, {ZYDIS_MNEMONIC_V##M, fn, NULL},

/* The row's function for this form: MMX if an operand is an MMX register. */
insn_fn sse_op_find(const struct sse_op *ops, size_t n, const struct insn *in);
#define SSE_OP_FIND(ops, in) sse_op_find((ops), sizeof(ops) / sizeof((ops)[0]), (in))

#endif
