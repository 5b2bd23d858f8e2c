/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sse_str.c - PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM Vol. 2B, "Imm8 Control Byte
 * Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM").
 *
 * The immediate:
 *
 *    7     6      5..4       3..2         1..0
 *    0   output  polarity  aggregation  element type: unsigned/signed bytes, words
 *
 * Threading: the vCPU's thread. Determinism: a function of the operands. */
#include "base/check.h"
#include "vmm/cpu/sse.h"

enum { AGG_ANY = 0, AGG_RANGES = 1, AGG_EACH = 2, AGG_ORDERED = 3 };

struct pcmp {
    unsigned n;      /* elements in a register: 16 or 8 */
    unsigned la, lb; /* valid elements of the two operands */
    int32_t a[16], b[16];
    uint32_t intres2;
};

static void unpack(int32_t *out, const union vec *x, unsigned type)
{
    for (unsigned i = 0; i < ((type & 1) != 0 ? 8 : 16); i++) {
        switch (type & 3) {
        case 0:
            out[i] = x->b[i];
            break;
        case 1:
            out[i] = x->w[i];
            break;
        case 2:
            out[i] = x->sb[i];
            break;
        default:
            out[i] = x->sw[i];
            break;
        }
    }
}

static unsigned implicit_length(const int32_t *x, unsigned n)
{
    unsigned i = 0;

    while (i < n && x[i] != 0) {
        i++;
    }
    return i;
}

/* |value| of a length register, saturated. The operand size says which register it is. */
static unsigned explicit_length(const struct vcpu *v, const struct insn *in, unsigned reg,
                                unsigned n)
{
    int64_t len = in->osz == 8 ? (int64_t)v->c.gpr[reg] : (int32_t)v->c.gpr[reg];

    if (len < -(int64_t)n || len > (int64_t)n) {
        return n;
    }
    return (unsigned)(len < 0 ? -len : len);
}

/* Bit j of the result: what the aggregation says of element j of the second operand. */
static uint32_t aggregate(const struct pcmp *p, unsigned mode)
{
    uint32_t r = 0;

    for (unsigned j = 0; j < p->n; j++) {
        bool hit = false;

        switch (mode) {
        case AGG_ANY: /* equals one of a */
            for (unsigned i = 0; j < p->lb && i < p->la; i++) {
                hit |= p->a[i] == p->b[j];
            }
            break;
        case AGG_RANGES: /* within one of the pairs of a */
            for (unsigned i = 0; j < p->lb && i + 1 < p->la; i += 2) {
                hit |= p->a[i] <= p->b[j] && p->b[j] <= p->a[i + 1];
            }
            break;
        case AGG_EACH: /* equal, or both ended */
            hit = j < p->la && j < p->lb ? p->a[j] == p->b[j] : j >= p->la && j >= p->lb;
            break;
        default: /* a begins at j */
            hit = true;
            for (unsigned i = 0; i < p->la && j + i < p->n; i++) {
                hit &= j + i < p->lb && p->a[i] == p->b[j + i];
            }
            break;
        }
        r |= (uint32_t)hit << j;
    }
    return r;
}

/* Everything but the output: operands, result bits, flags. */
static void compare(struct vcpu *v, const struct insn *in, bool explicit_len, struct pcmp *p)
{
    const union vec *a = sse_xmm(v, in->opd[0].reg), *b;
    union vec tmp;
    unsigned imm = (unsigned)in->imm;
    uint32_t r;
    uint64_t flags = 0;

    simd_check(v, in);
    b = sse_src(v, in, 1, &tmp, false);
    p->n = (imm & 1) != 0 ? 8 : 16;
    unpack(p->a, a, imm);
    unpack(p->b, b, imm);
    if (explicit_len) {
        p->la = explicit_length(v, in, RAX, p->n);
        p->lb = explicit_length(v, in, RDX, p->n);
    } else {
        p->la = implicit_length(p->a, p->n);
        p->lb = implicit_length(p->b, p->n);
    }
    r = aggregate(p, imm >> 2 & 3);
    if ((imm & 0x10) != 0) { /* negative polarity; masked: only where b is valid */
        r ^= (imm & 0x20) != 0 ? (1U << p->lb) - 1 : (1U << p->n) - 1;
    }
    p->intres2 = r;
    flags |= r != 0 ? FLAG_CF : 0;
    flags |= p->lb < p->n ? FLAG_ZF : 0;
    flags |= p->la < p->n ? FLAG_SF : 0;
    flags |= (r & 1) != 0 ? FLAG_OF : 0;
    v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | flags;
}

static void put_index(struct vcpu *v, const struct insn *in, const struct pcmp *p)
{
    unsigned i = p->n;

    if (p->intres2 != 0) {
        i = (in->imm & 0x40) != 0 ? 31U - (unsigned)__builtin_clz(p->intres2)
                                  : (unsigned)__builtin_ctz(p->intres2);
    }
    v->c.gpr[RCX] = i;
}

static void put_mask(struct vcpu *v, const struct insn *in, const struct pcmp *p)
{
    union vec r = {.q = {p->intres2, 0}};

    if ((in->imm & 0x40) != 0) {
        for (unsigned i = 0; i < 16; i++) {
            unsigned e = p->n == 16 ? i : i / 2;
            r.b[i] = (p->intres2 >> e & 1) != 0 ? 0xff : 0;
        }
    }
    *sse_xmm(v, 0) = r;
    if ((in->flags & INSN_VEX) != 0) {
        *avx_high(v, 0) = (union vec){0};
    }
}

static void do_pcmpestri(struct vcpu *v, const struct insn *in)
{
    struct pcmp p;

    compare(v, in, true, &p);
    put_index(v, in, &p);
}

static void do_pcmpestrm(struct vcpu *v, const struct insn *in)
{
    struct pcmp p;

    compare(v, in, true, &p);
    put_mask(v, in, &p);
}

static void do_pcmpistri(struct vcpu *v, const struct insn *in)
{
    struct pcmp p;

    compare(v, in, false, &p);
    put_index(v, in, &p);
}

static void do_pcmpistrm(struct vcpu *v, const struct insn *in)
{
    struct pcmp p;

    compare(v, in, false, &p);
    put_mask(v, in, &p);
}

static const struct sse_op ops[] = {BOTH_ROW(PCMPESTRI, do_pcmpestri) BOTH_ROW(
    PCMPESTRM, do_pcmpestrm) BOTH_ROW(PCMPISTRI, do_pcmpistri) BOTH_ROW(PCMPISTRM, do_pcmpistrm)};

insn_fn sse_str_pick(const struct insn *in)
{
    return SSE_OP_FIND(ops, in);
}
