/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/avx_move.c - VEX-encoded moves between vector registers, general registers and memory,
 * insertions and extractions of 128 bits, broadcasts, VZEROUPPER and VZEROALL.
 *
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

static void store(struct vcpu *v, const struct insn *in, const struct ymm *r, bool aligned)
{
    unsigned size = in->opd[0].size;

    mem_write_bytes(v, in->seg, aligned ? ea_aligned(v, in, size) : mem_ea(v, in), r, size);
}

static void do_unaligned(struct vcpu *v, const struct insn *in)
{
    struct ymm r;

    avx_check(v);
    avx_src(v, in, 1, &r);
    if (in->opd[0].kind == OPD_MEM) {
        store(v, in, &r, false);
    } else {
        avx_put(v, in, &r);
    }
}

static void do_aligned(struct vcpu *v, const struct insn *in)
{
    struct ymm r;

    avx_check(v);
    if (in->opd[1].kind == OPD_MEM) {
        (void)ea_aligned(v, in, in->opd[1].size);
    }
    avx_src(v, in, 1, &r);
    if (in->opd[0].kind == OPD_MEM) {
        store(v, in, &r, true);
    } else {
        avx_put(v, in, &r);
    }
}

/* VMOVSS, VMOVSD: to memory; from memory, the rest cleared; or the low element of the third operand
 * under the rest of the second. */
static void do_scalar(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s;

    avx_check(v);
    if (in->opd[0].kind == OPD_MEM) {
        mem_store(v, in, in->opd[0].size,
                  sse_xmm(v, in->opd[1].reg)->q[0] & size_mask(in->opd[0].size));
        return;
    }
    if (in->opd[1].kind == OPD_MEM) {
        avx_src(v, in, 1, &r);
    } else {
        avx_get(v, in->opd[1].reg, 16, &r);
        avx_get(v, in->opd[2].reg, 16, &s);
        memcpy(&r, &s, in->mnemonic == ZYDIS_MNEMONIC_VMOVSS ? 4 : 8);
    }
    avx_put(v, in, &r);
}

/* VMOVD, VMOVQ. */
static void do_movdq(struct vcpu *v, const struct insn *in)
{
    const struct opd *d = &in->opd[0], *s = &in->opd[1];
    struct ymm r = {0};

    avx_check(v);
    r.lane[0].q[0] = s->kind == OPD_XMM ? sse_xmm(v, s->reg)->q[0] : opd_read(v, in, 1);
    if (d->kind == OPD_XMM) {
        avx_put(v, in, &r);
    } else {
        opd_write(v, in, 0, r.lane[0].q[0] & size_mask(d->size));
    }
}

/* VMOVLPx, VMOVHPx, VMOVHLPS, VMOVLHPS: one half, under or over the other half of the second
 * operand. */
static void move_half(struct vcpu *v, const struct insn *in, unsigned dst_half, unsigned src_half)
{
    struct ymm r;

    avx_check(v);
    if (in->opd[0].kind == OPD_MEM) {
        mem_store(v, in, 8, sse_xmm(v, in->opd[1].reg)->q[dst_half]);
        return;
    }
    uint64_t q =
        in->opd[2].kind == OPD_MEM ? mem_load(v, in, 8) : sse_xmm(v, in->opd[2].reg)->q[src_half];
    avx_get(v, in->opd[1].reg, 16, &r);
    r.lane[0].q[dst_half] = q;
    avx_put(v, in, &r);
}

static void do_movlp(struct vcpu *v, const struct insn *in)
{
    move_half(v, in, 0, 1);
}

static void do_movhp(struct vcpu *v, const struct insn *in)
{
    move_half(v, in, 1, 0);
}

/* Sign bits of elements of @size bytes. */
static void sign_mask(struct vcpu *v, const struct insn *in, unsigned size)
{
    struct ymm s;
    uint64_t mask = 0;
    unsigned n = in->opd[1].size / size;

    avx_check(v);
    avx_src(v, in, 1, &s);
    for (unsigned i = 0; i < n; i++) {
        unsigned at = (i + 1) * size - 1;
        mask |= (uint64_t)(s.lane[at / 16].b[at % 16] >> 7) << i;
    }
    reg_write(v, in->opd[0].reg, in->opd[0].size, mask);
}

static void do_movmskps(struct vcpu *v, const struct insn *in)
{
    sign_mask(v, in, 4);
}

static void do_movmskpd(struct vcpu *v, const struct insn *in)
{
    sign_mask(v, in, 8);
}

static void do_pmovmskb(struct vcpu *v, const struct insn *in)
{
    sign_mask(v, in, 1);
}

static void do_insert(struct vcpu *v, const struct insn *in)
{
    struct ymm r, s;

    avx_check(v);
    avx_src(v, in, 2, &s);
    avx_get(v, in->opd[1].reg, 32, &r);
    r.lane[in->imm & 1] = s.lane[0];
    avx_put(v, in, &r);
}

static void do_extract(struct vcpu *v, const struct insn *in)
{
    struct ymm r;

    avx_check(v);
    avx_get(v, in->opd[1].reg, 32, &r);
    r.lane[0] = r.lane[in->imm & 1];
    if (in->opd[0].kind == OPD_MEM) {
        store(v, in, &r, false);
    } else {
        avx_put(v, in, &r);
    }
}

/* The first element of @size bytes, everywhere. */
static void broadcast(struct vcpu *v, const struct insn *in, unsigned size)
{
    struct ymm r, s;

    avx_check(v);
    avx_src(v, in, 1, &s);
    for (unsigned at = 0; at < sizeof r; at += size) {
        memcpy((uint8_t *)&r + at, &s, size);
    }
    avx_put(v, in, &r);
}

#define BROADCAST_OPS(X)  \
    X(VBROADCASTSS, 4)    \
    X(VBROADCASTSD, 8)    \
    X(VBROADCASTF128, 16) \
    X(VBROADCASTI128, 16) \
    X(VPBROADCASTB, 1)    \
    X(VPBROADCASTW, 2)    \
    X(VPBROADCASTD, 4)    \
    X(VPBROADCASTQ, 8)

#define DEFINE_BROADCAST(M, size)                             \
    static void do_##M(struct vcpu *v, const struct insn *in) \
    {                                                         \
        broadcast(v, in, size);                               \
    }

BROADCAST_OPS(DEFINE_BROADCAST)

/* All registers that the mode has. */
static void do_zeroupper(struct vcpu *v, const struct insn *in)
{
    (void)in;
    avx_check(v);
    memset(v->c.fpu.ymm_high, 0, cpu_is64(&v->c) ? 256 : 128);
}

static void do_zeroall(struct vcpu *v, const struct insn *in)
{
    do_zeroupper(v, in);
    memset(v->c.fpu.xmm, 0, cpu_is64(&v->c) ? 256 : 128);
}

#define ROW(M, fn)             {ZYDIS_MNEMONIC_##M, fn, NULL},
#define ROW_BROADCAST(M, size) {ZYDIS_MNEMONIC_##M, do_##M, NULL},

/* clang-format off */
static const struct sse_op ops[] = {
    ROW(VMOVAPS, do_aligned) ROW(VMOVAPD, do_aligned) ROW(VMOVDQA, do_aligned)
    ROW(VMOVNTPS, do_aligned) ROW(VMOVNTPD, do_aligned) ROW(VMOVNTDQ, do_aligned)
    ROW(VMOVNTDQA, do_aligned)
    ROW(VMOVUPS, do_unaligned) ROW(VMOVUPD, do_unaligned) ROW(VMOVDQU, do_unaligned)
    ROW(VLDDQU, do_unaligned)
    ROW(VMOVSS, do_scalar) ROW(VMOVSD, do_scalar) ROW(VMOVD, do_movdq) ROW(VMOVQ, do_movdq)
    ROW(VMOVLPS, do_movlp) ROW(VMOVLPD, do_movlp) ROW(VMOVHLPS, do_movlp)
    ROW(VMOVHPS, do_movhp) ROW(VMOVHPD, do_movhp) ROW(VMOVLHPS, do_movhp)
    ROW(VMOVMSKPS, do_movmskps) ROW(VMOVMSKPD, do_movmskpd) ROW(VPMOVMSKB, do_pmovmskb)
    ROW(VINSERTF128, do_insert) ROW(VINSERTI128, do_insert)
    ROW(VEXTRACTF128, do_extract) ROW(VEXTRACTI128, do_extract)
    BROADCAST_OPS(ROW_BROADCAST)
    ROW(VZEROUPPER, do_zeroupper) ROW(VZEROALL, do_zeroall)
};
/* clang-format on */

insn_fn avx_move_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
