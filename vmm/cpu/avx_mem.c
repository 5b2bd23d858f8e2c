/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/avx_mem.c - masked loads and stores, and gathers: elements of memory that are not
 * selected are not accessed and cannot fault.
 *
 * A gather that faults keeps what it has done (SDM Vol. 2, "VPGATHERDD"): elements are read from
 * the lowest upwards, those before the fault are in the destination, and their mask is cleared.
 * What only lacks a page in a parallel part has no effect, as everywhere (R2). Threading: the
 * vCPU's thread. Determinism: a function of operands and memory. */
#include "base/check.h"
#include "vmm/cpu/avx.h"

static bool selected(const struct ymm *mask, unsigned i, unsigned size)
{
    unsigned at = (i + 1) * size - 1;

    return (mask->lane[at / 16].b[at % 16] & 0x80) != 0;
}

/* Element by element: no alignment check concerns these. */
static void masked_load(struct vcpu *v, const struct insn *in, unsigned size)
{
    struct ymm r = {0}, mask;
    uint64_t ea = mem_ea(v, in);

    avx_get(v, in->opd[1].reg, in->opd[0].size, &mask);
    for (unsigned i = 0; i < in->opd[0].size / size; i++) {
        if (selected(&mask, i, size)) {
            mem_read_bytes(v, in->seg, (ea + i * size) & in->ea_mask, (uint8_t *)&r + i * size,
                           size);
        }
    }
    avx_put(v, in, &r);
}

static void masked(struct vcpu *v, const struct insn *in, unsigned size)
{
    struct ymm mask, data;
    uint8_t bytes[32];

    avx_check(v);
    if (in->opd[0].kind == OPD_XMM) {
        masked_load(v, in, size);
        return;
    }
    avx_get(v, in->opd[1].reg, in->opd[1].size, &mask);
    avx_get(v, in->opd[2].reg, in->opd[2].size, &data);
    for (unsigned i = 0; i < in->opd[0].size; i++) {
        bytes[i] = selected(&mask, i / size, size) ? 0xff : 0;
    }
    sse_masked_store(v, in, mem_ea(v, in), (const uint8_t *)&data, bytes, in->opd[0].size);
}

static void do_masked_4(struct vcpu *v, const struct insn *in)
{
    masked(v, in, 4);
}

static void do_masked_8(struct vcpu *v, const struct insn *in)
{
    masked(v, in, 8);
}

/* --- gathers -----------------------------------------------------------------------------------
 */

struct gather {
    const struct insn *in;
    struct ymm dst, mask; /* as far as it has come */
};

void avx_gather_fault(struct vcpu *v)
{
    struct gather *g = v->gather;
    const struct opd *mask = &g->in->opd[2];

    v->gather = NULL;
    *sse_xmm(v, g->in->opd[0].reg) = g->dst.lane[0];
    *avx_high(v, g->in->opd[0].reg) = g->dst.lane[1];
    *sse_xmm(v, mask->reg) = g->mask.lane[0];
    *avx_high(v, mask->reg) = g->mask.lane[1];
}

static inline void gather(struct vcpu *v, const struct insn *in, unsigned index_size, unsigned size)
{
    unsigned wide = in->index_wide ? 32 : 16, n = in->opd[0].size / size;
    struct gather g = {.in = in};
    uint64_t base = mem_ea(v, in);
    struct ymm index;

    avx_check(v);
    n = wide / index_size < n ? wide / index_size : n;
    avx_get(v, in->index, wide, &index);
    avx_get(v, in->opd[0].reg, 32, &g.dst);
    avx_get(v, in->opd[2].reg, 32, &g.mask);
    memset((uint8_t *)&g.mask + n * size, 0, sizeof g.mask - n * size);
    for (unsigned i = 0; i < n; i++) {
        memset((uint8_t *)&g.mask + i * size, selected(&g.mask, i, size) ? 0xff : 0, size);
    }
    v->gather = &g;
    for (unsigned i = 0; i < n; i++) {
        if (selected(&g.mask, i, size)) {
            int64_t at =
                index_size == 4 ? index.lane[i / 4].sd[i % 4] : index.lane[i / 2].sq[i % 2];
            uint64_t off = (base + ((uint64_t)at << in->scale_shift)) & in->ea_mask;
            uint64_t value = mem_read(v, in->seg, off, size);
            memcpy((uint8_t *)&g.dst + i * size, &value, size);
            memset((uint8_t *)&g.mask + i * size, 0, size);
        }
    }
    v->gather = NULL;
    memset((uint8_t *)&g.dst + n * size, 0, sizeof g.dst - n * size);
    *sse_xmm(v, in->opd[0].reg) = g.dst.lane[0];
    *avx_high(v, in->opd[0].reg) = g.dst.lane[1];
    *sse_xmm(v, in->opd[2].reg) = *avx_high(v, in->opd[2].reg) = (union vec){0};
}

#define DEFINE_GATHER(name, index_size, size)                    \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        gather(v, in, index_size, size);                         \
    }

DEFINE_GATHER(gather_dd, 4, 4)
DEFINE_GATHER(gather_dq, 4, 8)
DEFINE_GATHER(gather_qd, 8, 4)
DEFINE_GATHER(gather_qq, 8, 8)

#define ROW(M, fn) {ZYDIS_MNEMONIC_##M, fn, NULL},

/* clang-format off */
static const struct sse_op ops[] = {
    ROW(VMASKMOVPS, do_masked_4) ROW(VMASKMOVPD, do_masked_8)
    ROW(VPMASKMOVD, do_masked_4) ROW(VPMASKMOVQ, do_masked_8)
    ROW(VGATHERDPS, do_gather_dd) ROW(VGATHERDPD, do_gather_dq)
    ROW(VGATHERQPS, do_gather_qd) ROW(VGATHERQPD, do_gather_qq)
    ROW(VPGATHERDD, do_gather_dd) ROW(VPGATHERDQ, do_gather_dq)
    ROW(VPGATHERQD, do_gather_qd) ROW(VPGATHERQQ, do_gather_qq)
};
/* clang-format on */

insn_fn avx_mem_pick(const struct insn *in)
{
    /* With 16-bit addresses there is no SIB, and so no vector of indices. */
    return (in->flags & INSN_VSIB) != 0 && in->asz == 2 ? NULL : SSE_OP_FIND(ops, in);
}
