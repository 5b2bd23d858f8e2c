/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_move.c - moves between XMM, MMX, general registers and memory, masked and
 * non-temporal stores (which are plain stores: memory is sequentially consistent), MXCSR, EMMS
 * and fences (no operation).
 *
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/sse.h"

static void store_xmm(struct vcpu *v, const struct insn *in, bool aligned)
{
    const union vec *s = sse_xmm(v, in->opd[1].reg);
    uint64_t lin = mem_ea(v, in) + *(const uint64_t *)((const char *)v + in->seg_off);
    void *p = sse_fast(v, in, lin, aligned) ? tlb_write(v, lin, 1) : NULL;

    if (p != NULL) {
        memcpy(p, s, 16);
    } else {
        mem_write_bytes(v, in->seg, aligned ? ea_aligned(v, in, 16) : mem_ea(v, in), s, 16);
    }
}

static void do_mov_aligned(struct vcpu *v, const struct insn *in)
{
    union vec tmp;

    sse_check(v);
    if (in->opd[0].kind == OPD_MEM) {
        store_xmm(v, in, true);
    } else {
        *sse_xmm(v, in->opd[0].reg) = *sse_src(v, in, 1, &tmp, true);
    }
}

static void do_mov_unaligned(struct vcpu *v, const struct insn *in)
{
    union vec tmp;

    sse_check(v);
    if (in->opd[0].kind == OPD_MEM) {
        store_xmm(v, in, false);
    } else {
        *sse_xmm(v, in->opd[0].reg) = *sse_src(v, in, 1, &tmp, false);
    }
}

static void do_movnti(struct vcpu *v, const struct insn *in)
{
    opd_write(v, in, 0, opd_read(v, in, 1));
}

/* MOVSS and MOVSD: from memory the rest is cleared, between registers it stays. */
static void do_mov_scalar(struct vcpu *v, const struct insn *in)
{
    const struct opd *d = &in->opd[0], *s = &in->opd[1];

    sse_check(v);
    if (d->kind == OPD_MEM) {
        mem_store(v, in, d->size, sse_xmm(v, s->reg)->q[0] & size_mask(d->size));
    } else if (s->kind == OPD_MEM) {
        uint64_t q = mem_load(v, in, s->size);
        *sse_xmm(v, d->reg) = (union vec){.q = {q, 0}};
    } else if (in->mnemonic == ZYDIS_MNEMONIC_MOVSS) {
        sse_xmm(v, d->reg)->d[0] = sse_xmm(v, s->reg)->d[0];
    } else {
        sse_xmm(v, d->reg)->q[0] = sse_xmm(v, s->reg)->q[0];
    }
}

/* MOVD and MOVQ on XMM: the other side is a general register, memory, or XMM; what comes into an
 * XMM register is zero-extended. */
static void do_movdq_xmm(struct vcpu *v, const struct insn *in)
{
    const struct opd *d = &in->opd[0], *s = &in->opd[1];
    uint64_t q;

    sse_check(v);
    q = s->kind == OPD_XMM ? sse_xmm(v, s->reg)->q[0] : opd_read(v, in, 1);
    if (d->kind == OPD_XMM) {
        *sse_xmm(v, d->reg) = (union vec){.q = {q, 0}};
    } else {
        opd_write(v, in, 0, q & size_mask(d->size));
    }
}

static void do_movdq_mmx(struct vcpu *v, const struct insn *in)
{
    const struct opd *d = &in->opd[0], *s = &in->opd[1];
    uint64_t q;

    mmx_check(v);
    q = s->kind == OPD_MM ? mmx_read(v, s->reg) : opd_read(v, in, 1);
    if (d->kind == OPD_MM) {
        mmx_enter(v);
        mmx_write(v, d->reg, q);
    } else {
        opd_write(v, in, 0, q & size_mask(d->size));
        mmx_enter(v);
    }
}

static void do_movq2dq(struct vcpu *v, const struct insn *in)
{
    sse_check(v);
    mmx_check(v);
    *sse_xmm(v, in->opd[0].reg) = (union vec){.q = {mmx_read(v, in->opd[1].reg), 0}};
    mmx_enter(v);
}

static void do_movdq2q(struct vcpu *v, const struct insn *in)
{
    sse_check(v);
    mmx_check(v);
    mmx_enter(v);
    mmx_write(v, in->opd[0].reg, sse_xmm(v, in->opd[1].reg)->q[0]);
}

/* MOVLPx, MOVHPx and the register forms MOVHLPS, MOVLHPS: one half of a register. */
static void move_half(struct vcpu *v, const struct insn *in, unsigned dst_half, unsigned src_half)
{
    const struct opd *d = &in->opd[0], *s = &in->opd[1];

    sse_check(v);
    if (d->kind == OPD_MEM) {
        mem_store(v, in, 8, sse_xmm(v, s->reg)->q[dst_half]);
    } else if (s->kind == OPD_MEM) {
        sse_xmm(v, d->reg)->q[dst_half] = mem_load(v, in, 8);
    } else {
        sse_xmm(v, d->reg)->q[dst_half] = sse_xmm(v, s->reg)->q[src_half];
    }
}

static void do_movlp(struct vcpu *v, const struct insn *in)
{
    move_half(v, in, 0, 1);
}

static void do_movhp(struct vcpu *v, const struct insn *in)
{
    move_half(v, in, 1, 0);
}

static void do_movmskps(struct vcpu *v, const struct insn *in)
{
    sse_check(v);
    reg_write(v, in->opd[0].reg, in->opd[0].size,
              (uint64_t)_mm_movemask_ps(_mm_castsi128_ps(sse_xmm(v, in->opd[1].reg)->x)));
}

static void do_movmskpd(struct vcpu *v, const struct insn *in)
{
    sse_check(v);
    reg_write(v, in->opd[0].reg, in->opd[0].size,
              (uint64_t)_mm_movemask_pd(_mm_castsi128_pd(sse_xmm(v, in->opd[1].reg)->x)));
}

static void do_pmovmskb(struct vcpu *v, const struct insn *in)
{
    sse_check(v);
    reg_write(v, in->opd[0].reg, in->opd[0].size,
              (uint64_t)(unsigned)_mm_movemask_epi8(sse_xmm(v, in->opd[1].reg)->x));
}

static void do_pmovmskb_mmx(struct vcpu *v, const struct insn *in)
{
    union vec s = {0};

    mmx_check(v);
    s.q[0] = mmx_read(v, in->opd[1].reg);
    mmx_enter(v);
    reg_write(v, in->opd[0].reg, in->opd[0].size, (uint64_t)(unsigned)_mm_movemask_epi8(s.x));
}

void sse_masked_store(struct vcpu *v, const struct insn *in, uint64_t base, const uint8_t *data,
                      const uint8_t *mask, unsigned n)
{
    uint64_t wrap = size_mask(in->asz);
    unsigned first = 0, last = n;

    while (first < n && (mask[first] & 0x80) == 0) {
        first++;
    }
    if (first == n) {
        return;
    }
    while ((mask[last - 1] & 0x80) == 0) {
        last--;
    }
    mem_probe_write(v, in->seg, (base + first) & wrap, last - first);
    for (unsigned i = first; i < last;) {
        unsigned run = 0;

        while (i + run < last && (mask[i + run] & 0x80) != 0) {
            run++;
        }
        if (run != 0) {
            mem_write_bytes(v, in->seg, (base + i) & wrap, data + i, run);
        }
        i += run != 0 ? run : 1;
    }
}

/* MASKMOVQ and MASKMOVDQU store there. */
static uint64_t rdi(const struct vcpu *v, const struct insn *in)
{
    return v->c.gpr[RDI] & size_mask(in->asz);
}

static void do_maskmovdqu(struct vcpu *v, const struct insn *in)
{
    simd_check(v, in);
    sse_masked_store(v, in, rdi(v, in), sse_xmm(v, in->opd[0].reg)->b,
                     sse_xmm(v, in->opd[1].reg)->b, 16);
}

static void do_maskmovq(struct vcpu *v, const struct insn *in)
{
    mmx_check(v);
    sse_masked_store(v, in, rdi(v, in), v->c.fpu.st[in->opd[0].reg], v->c.fpu.st[in->opd[1].reg],
                     8);
    mmx_enter(v);
}

/* --- MXCSR, EMMS, fences ---------------------------------------------------------------------- */

static void do_ldmxcsr(struct vcpu *v, const struct insn *in)
{
    uint64_t m;

    simd_check(v, in);
    m = opd_read(v, in, 0);
    if ((m & ~(uint64_t)MXCSR_VALID) != 0) {
        cpu_gp0(v);
    }
    v->c.fpu.mxcsr = (uint32_t)m;
}

static void do_stmxcsr(struct vcpu *v, const struct insn *in)
{
    simd_check(v, in);
    opd_write(v, in, 0, v->c.fpu.mxcsr);
}

static void do_emms(struct vcpu *v, const struct insn *in)
{
    (void)in;
    mmx_check(v);
    v->c.fpu.fsw &= (uint16_t)~X87_SW_TOP;
    v->c.fpu.ftw = 0;
}

static void do_nothing(struct vcpu *v, const struct insn *in)
{
    (void)v;
    (void)in;
}

static const struct sse_op ops[] = {
    {ZYDIS_MNEMONIC_MOVAPS, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVAPD, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVDQA, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVNTPS, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVNTPD, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVNTDQ, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVNTDQA, do_mov_aligned, NULL},
    {ZYDIS_MNEMONIC_MOVUPS, do_mov_unaligned, NULL},
    {ZYDIS_MNEMONIC_MOVUPD, do_mov_unaligned, NULL},
    {ZYDIS_MNEMONIC_MOVDQU, do_mov_unaligned, NULL},
    {ZYDIS_MNEMONIC_LDDQU, do_mov_unaligned, NULL},
    {ZYDIS_MNEMONIC_MOVSS, do_mov_scalar, NULL},
    {ZYDIS_MNEMONIC_MOVD, do_movdq_xmm, do_movdq_mmx},
    {ZYDIS_MNEMONIC_MOVQ, do_movdq_xmm, do_movdq_mmx},
    {ZYDIS_MNEMONIC_MOVNTQ, NULL, do_movdq_mmx},
    {ZYDIS_MNEMONIC_MOVNTI, do_movnti, NULL},
    {ZYDIS_MNEMONIC_MOVQ2DQ, NULL, do_movq2dq},
    {ZYDIS_MNEMONIC_MOVDQ2Q, NULL, do_movdq2q},
    {ZYDIS_MNEMONIC_MOVLPS, do_movlp, NULL},
    {ZYDIS_MNEMONIC_MOVLPD, do_movlp, NULL},
    {ZYDIS_MNEMONIC_MOVHLPS, do_movlp, NULL},
    {ZYDIS_MNEMONIC_MOVHPS, do_movhp, NULL},
    {ZYDIS_MNEMONIC_MOVHPD, do_movhp, NULL},
    {ZYDIS_MNEMONIC_MOVLHPS, do_movhp, NULL},
    {ZYDIS_MNEMONIC_MOVMSKPS, do_movmskps, NULL},
    {ZYDIS_MNEMONIC_MOVMSKPD, do_movmskpd, NULL},
    {ZYDIS_MNEMONIC_PMOVMSKB, do_pmovmskb, do_pmovmskb_mmx},
    BOTH_ROW(MASKMOVDQU, do_maskmovdqu){ZYDIS_MNEMONIC_MASKMOVQ, NULL, do_maskmovq},
    BOTH_ROW(LDMXCSR, do_ldmxcsr) BOTH_ROW(STMXCSR, do_stmxcsr){ZYDIS_MNEMONIC_EMMS, do_emms, NULL},
    {ZYDIS_MNEMONIC_LFENCE, do_nothing, NULL},
    {ZYDIS_MNEMONIC_SFENCE, do_nothing, NULL},
    {ZYDIS_MNEMONIC_MFENCE, do_nothing, NULL},
};

insn_fn sse_move_pick(const struct insn *in)
{
    /* MOVSD is also a string instruction. */
    if (in->mnemonic == ZYDIS_MNEMONIC_MOVSD) {
        return in->opd[0].kind == OPD_XMM || in->opd[1].kind == OPD_XMM ? do_mov_scalar : NULL;
    }
    return SSE_OP_FIND(ops, in);
}
