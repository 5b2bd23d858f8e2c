/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/xsave.c - FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR (SDM Vol. 1, "Managing State Using the
 * XSAVE Feature Set").
 *
 * The models have the components x87 (0) and SSE (1), pollux-v3 also AVX (2: the upper halves of
 * the YMM registers), and the standard format only. Chosen once (R6): XINUSE has every component in
 * use at all times, so XSAVEOPT stores what XSAVE stores; reserved bytes inside a slot are stored
 * as 0, those behind byte 415 are left alone. What is written is checked as a whole before the
 * first byte changes.
 *
 * Threading: the vCPU's thread. Determinism: a function of state and memory. */
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/operand.h"
#include "vmm/cpu/sse.h"
#include "vmm/cpu/x87.h"

/* Offsets in the area. */
enum {
    AREA_FCW = 0,
    AREA_MXCSR = 24,
    AREA_ST = 32,
    AREA_XMM = 160,
    AREA_LEGACY_END = 512,
    AREA_XSTATE_BV = 512,
    AREA_XCOMP_BV = 520,
    AREA_HEADER_RSVD = 528,
    AREA_AVX = XSAVE_SIZE_SSE
};

static void put16(uint8_t *p, uint64_t x)
{
    memcpy(p, &x, 2);
}

static void put32(uint8_t *p, uint64_t x)
{
    memcpy(p, &x, 4);
}

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t x = 0;

    memcpy(&x, p, n);
    return x;
}

static unsigned xmm_count(const struct vcpu *v)
{
    return cpu_is64(&v->c) ? 16 : 8;
}

/* The form with 64-bit FIP and FDP: REX.W. */
static bool is_wide(const struct vcpu *v, const struct insn *in)
{
    return cpu_is64(&v->c) && in->osz == 8;
}

/* Bytes 0-23 and 32-159. */
static void store_x87(const struct vcpu *v, bool wide, uint8_t *a)
{
    const struct cpu_fpu *f = &v->c.fpu;

    memset(a, 0, AREA_MXCSR);
    put16(a, f->fcw);
    put16(a + 2, f->fsw);
    a[4] = f->ftw;
    put16(a + 6, f->fop);
    if (wide) {
        memcpy(a + 8, &f->fip, 8);
        memcpy(a + 16, &f->fdp, 8);
    } else {
        put32(a + 8, f->fip);
        put16(a + 12, f->fcs);
        put32(a + 16, f->fdp);
        put16(a + 20, f->fds);
    }
    memset(a + AREA_ST, 0, 128);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(a + AREA_ST + 16 * i, f->st[x87_phys(v, i)], 10);
    }
}

static void load_x87(struct vcpu *v, bool wide, const uint8_t *a)
{
    struct cpu_fpu *f = &v->c.fpu;

    x87_set_cw(v, (uint16_t)get(a, 2));
    f->fsw = (uint16_t)get(a + 2, 2);
    f->ftw = a[4];
    f->fop = get(a + 6, 2) & 0x7ff;
    f->fip = get(a + 8, wide ? 8 : 4);
    f->fdp = get(a + 16, wide ? 8 : 4);
    f->fcs = 0;
    f->fds = 0;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(f->st[x87_phys(v, i)], a + AREA_ST + 16 * i, 10);
    }
    x87_update_es(v);
}

static void check_mxcsr(struct vcpu *v, const uint8_t *a)
{
    if ((get(a + AREA_MXCSR, 4) & ~(uint64_t)MXCSR_VALID) != 0) {
        cpu_gp0(v);
    }
}

/* FXSAVE and FXRSTOR do not wait for pending x87 exceptions. */
static void do_fxsave(struct vcpu *v, const struct insn *in)
{
    uint8_t a[AREA_LEGACY_END];
    unsigned n = xmm_count(v);
    uint64_t off;

    x87_check(v);
    off = ea_aligned(v, in, 16);
    mem_probe_write(v, in->seg, off, AREA_LEGACY_END);
    store_x87(v, is_wide(v, in), a);
    put32(a + AREA_MXCSR, v->c.fpu.mxcsr);
    put32(a + AREA_MXCSR + 4, MXCSR_VALID);
    memcpy(a + AREA_XMM, v->c.fpu.xmm, 16 * n);
    mem_write_bytes(v, in->seg, off, a, AREA_XMM + 16 * n);
}

static void do_fxrstor(struct vcpu *v, const struct insn *in)
{
    uint8_t a[AREA_LEGACY_END];

    x87_check(v);
    mem_read_bytes(v, in->seg, ea_aligned(v, in, 16), a, AREA_LEGACY_END);
    check_mxcsr(v, a);
    load_x87(v, is_wide(v, in), a);
    v->c.fpu.mxcsr = (uint32_t)get(a + AREA_MXCSR, 4);
    memcpy(v->c.fpu.xmm, a + AREA_XMM, 16 * xmm_count(v));
}

/* The checks common to the XSAVE family; returns the requested-feature bitmap. */
static uint64_t xsave_check(struct vcpu *v)
{
    if ((v->c.cr4 & CR4_OSXSAVE) == 0) {
        cpu_ud(v);
    }
    if ((v->c.cr0 & CR0_TS) != 0) {
        cpu_raise(v, VEC_NM);
    }
    return ((v->c.gpr[RDX] << 32) | (v->c.gpr[RAX] & UINT32_MAX)) & v->c.xcr0;
}

/* How much of the area an instruction touches: all that it may have to (SDM Vol. 1, "Operation of
 * XSAVE"). */
static unsigned area_size(uint64_t rfbm)
{
    return (rfbm & XCR0_AVX) != 0 ? XSAVE_SIZE_AVX : XSAVE_SIZE_SSE;
}

static void do_xsave(struct vcpu *v, const struct insn *in)
{
    uint64_t rfbm = xsave_check(v), off = ea_aligned(v, in, 64), bv;
    uint64_t wrap = size_mask(in->asz);
    uint8_t a[AREA_LEGACY_END];

    mem_probe_write(v, in->seg, off, area_size(rfbm));
    bv = mem_read(v, in->seg, (off + AREA_XSTATE_BV) & wrap, 8);
    if ((rfbm & XCR0_X87) != 0) {
        store_x87(v, is_wide(v, in), a);
        mem_write_bytes(v, in->seg, off, a, AREA_MXCSR);
        mem_write_bytes(v, in->seg, (off + AREA_ST) & wrap, a + AREA_ST, 128);
    }
    if ((rfbm & (XCR0_SSE | XCR0_AVX)) != 0) {
        put32(a, v->c.fpu.mxcsr);
        put32(a + 4, MXCSR_VALID);
        mem_write_bytes(v, in->seg, (off + AREA_MXCSR) & wrap, a, 8);
    }
    if ((rfbm & XCR0_SSE) != 0) {
        mem_write_bytes(v, in->seg, (off + AREA_XMM) & wrap, v->c.fpu.xmm, 16 * xmm_count(v));
    }
    if ((rfbm & XCR0_AVX) != 0) {
        mem_write_bytes(v, in->seg, (off + AREA_AVX) & wrap, v->c.fpu.ymm_high, 16 * xmm_count(v));
    }
    mem_write(v, in->seg, (off + AREA_XSTATE_BV) & wrap, 8, (bv & ~rfbm) | rfbm);
}

/* The vector registers of one component, or their initial state. */
static void load_vectors(const struct vcpu *v, uint8_t (*to)[16], const uint8_t *a, bool there)
{
    if (there) {
        memcpy(to, a, 16 * xmm_count(v));
    } else {
        memset(to, 0, 16 * xmm_count(v));
    }
}

static void do_xrstor(struct vcpu *v, const struct insn *in)
{
    uint64_t rfbm = xsave_check(v), bv;
    uint8_t a[XSAVE_SIZE_AVX];

    mem_read_bytes(v, in->seg, ea_aligned(v, in, 64), a, area_size(rfbm));
    bv = get(a + AREA_XSTATE_BV, 8);
    /* The compacted format does not exist here, so XCOMP_BV must be zero like the 8 bytes after. */
    if ((bv & ~v->c.xcr0) != 0 || get(a + AREA_XCOMP_BV, 8) != 0 ||
        get(a + AREA_HEADER_RSVD, 8) != 0) {
        cpu_gp0(v);
    }
    if ((rfbm & (XCR0_SSE | XCR0_AVX)) != 0) {
        check_mxcsr(v, a);
        v->c.fpu.mxcsr = (uint32_t)get(a + AREA_MXCSR, 4);
    }
    if ((rfbm & XCR0_SSE) != 0) {
        load_vectors(v, v->c.fpu.xmm, a + AREA_XMM, (bv & XCR0_SSE) != 0);
    }
    if ((rfbm & XCR0_AVX) != 0) {
        load_vectors(v, v->c.fpu.ymm_high, a + AREA_AVX, (bv & XCR0_AVX) != 0);
    }
    if ((rfbm & XCR0_X87) != 0) {
        if ((bv & XCR0_X87) != 0) {
            load_x87(v, is_wide(v, in), a);
        } else {
            x87_init(v, true);
        }
    }
}

static const struct x87_op ops[] = {
    {ZYDIS_MNEMONIC_FXSAVE, do_fxsave},   {ZYDIS_MNEMONIC_FXSAVE64, do_fxsave},
    {ZYDIS_MNEMONIC_FXRSTOR, do_fxrstor}, {ZYDIS_MNEMONIC_FXRSTOR64, do_fxrstor},
    {ZYDIS_MNEMONIC_XSAVE, do_xsave},     {ZYDIS_MNEMONIC_XSAVE64, do_xsave},
    {ZYDIS_MNEMONIC_XSAVEOPT, do_xsave},  {ZYDIS_MNEMONIC_XSAVEOPT64, do_xsave},
    {ZYDIS_MNEMONIC_XRSTOR, do_xrstor},   {ZYDIS_MNEMONIC_XRSTOR64, do_xrstor},
};

insn_fn xsave_pick(const struct insn *in)
{
    return X87_OP_FIND(ops, in);
}
