/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_sse.c - which SSE instructions are the host's own (SDM Vol. 2, "SSE Instruction
 * Formats and Encodings"): those for which the interpreter, too, takes the host's instruction.
 * Reciprocals, horizontal sums, MMX and what touches MXCSR or many registers are not among them.
 * Their VEX-encoded twins are the host's own too, and so are those of AVX and AVX2 that have none
 * and access memory as a whole; not FMA, since which NaN survives is not the host's choice, nor
 * F16C.
 */
#include "base/check.h"
#include "vmm/cpu/cpu.h"
#include "vmm/engine/jit_form.h"

enum operands {
    XX, /* XMM from XMM or memory; with an opcode extension too */
    ST, /* XMM to XMM or memory */
    XG, /* XMM from a general register or memory */
    GX, /* XMM to a general register or memory */
    RX, /* a general register from XMM or memory */
};

/* The memory operand, if it is not so many bytes. */
enum memory {
    A16 = 32, /* 16 bytes, aligned */
    NO = 33,  /* there is no such form */
    GPR = 34, /* as wide as the general register */
    ONLY = 64 /* or-ed in: there is no form on registers alone */
};

struct row {
    uint8_t map, prefix, first, last; /* opcodes */
    uint8_t operands, memory;
};

static const struct row rows[] = {
    {1, 0, 0x10, 0x10, XX, 16},
    {1, 0, 0x11, 0x11, ST, 16},
    {1, 0, 0x12, 0x12, XX, 8},
    {1, 0, 0x13, 0x13, ST, 8 | ONLY},
    {1, 0, 0x14, 0x15, XX, A16},
    {1, 0, 0x16, 0x16, XX, 8},
    {1, 0, 0x17, 0x17, ST, 8 | ONLY},
    {1, 0, 0x28, 0x28, XX, A16},
    {1, 0, 0x29, 0x29, ST, A16},
    {1, 0, 0x2b, 0x2b, ST, A16 | ONLY},
    {1, 0, 0x2e, 0x2f, XX, 4},
    {1, 0, 0x50, 0x50, RX, NO},
    {1, 0, 0x51, 0x51, XX, A16},
    {1, 0, 0x54, 0x59, XX, A16},
    {1, 0, 0x5a, 0x5a, XX, 8},
    {1, 0, 0x5b, 0x5f, XX, A16},
    {1, 0, 0xc2, 0xc2, XX, A16},
    {1, 0, 0xc6, 0xc6, XX, A16},

    {1, 0x66, 0x10, 0x10, XX, 16},
    {1, 0x66, 0x11, 0x11, ST, 16},
    {1, 0x66, 0x12, 0x12, XX, 8 | ONLY},
    {1, 0x66, 0x13, 0x13, ST, 8 | ONLY},
    {1, 0x66, 0x14, 0x15, XX, A16},
    {1, 0x66, 0x16, 0x16, XX, 8 | ONLY},
    {1, 0x66, 0x17, 0x17, ST, 8 | ONLY},
    {1, 0x66, 0x28, 0x28, XX, A16},
    {1, 0x66, 0x29, 0x29, ST, A16},
    {1, 0x66, 0x2b, 0x2b, ST, A16 | ONLY},
    {1, 0x66, 0x2e, 0x2f, XX, 8},
    {1, 0x66, 0x50, 0x50, RX, NO},
    {1, 0x66, 0x51, 0x51, XX, A16},
    {1, 0x66, 0x54, 0x6d, XX, A16},
    {1, 0x66, 0x6e, 0x6e, XG, GPR},
    {1, 0x66, 0x6f, 0x70, XX, A16},
    {1, 0x66, 0x71, 0x73, XX, NO},
    {1, 0x66, 0x74, 0x76, XX, A16},
    {1, 0x66, 0x7e, 0x7e, GX, GPR},
    {1, 0x66, 0x7f, 0x7f, ST, A16},
    {1, 0x66, 0xc2, 0xc2, XX, A16},
    {1, 0x66, 0xc4, 0xc4, XG, 2},
    {1, 0x66, 0xc5, 0xc5, RX, NO},
    {1, 0x66, 0xc6, 0xc6, XX, A16},
    {1, 0x66, 0xd0, 0xd5, XX, A16},
    {1, 0x66, 0xd6, 0xd6, ST, 8},
    {1, 0x66, 0xd7, 0xd7, RX, NO},
    {1, 0x66, 0xd8, 0xe6, XX, A16},
    {1, 0x66, 0xe7, 0xe7, ST, A16 | ONLY},
    {1, 0x66, 0xe8, 0xef, XX, A16},
    {1, 0x66, 0xf1, 0xf6, XX, A16},
    {1, 0x66, 0xf8, 0xfe, XX, A16},

    {1, 0xf3, 0x10, 0x10, XX, 4},
    {1, 0xf3, 0x11, 0x11, ST, 4},
    {1, 0xf3, 0x12, 0x12, XX, A16},
    {1, 0xf3, 0x16, 0x16, XX, A16},
    {1, 0xf3, 0x2a, 0x2a, XG, GPR},
    {1, 0xf3, 0x2c, 0x2d, RX, 4},
    {1, 0xf3, 0x51, 0x51, XX, 4},
    {1, 0xf3, 0x58, 0x5a, XX, 4},
    {1, 0xf3, 0x5b, 0x5b, XX, A16},
    {1, 0xf3, 0x5c, 0x5f, XX, 4},
    {1, 0xf3, 0x6f, 0x6f, XX, 16},
    {1, 0xf3, 0x70, 0x70, XX, A16},
    {1, 0xf3, 0x7e, 0x7e, XX, 8},
    {1, 0xf3, 0x7f, 0x7f, ST, 16},
    {1, 0xf3, 0xc2, 0xc2, XX, 4},
    {1, 0xf3, 0xe6, 0xe6, XX, 8},

    {1, 0xf2, 0x10, 0x10, XX, 8},
    {1, 0xf2, 0x11, 0x11, ST, 8},
    {1, 0xf2, 0x12, 0x12, XX, 8},
    {1, 0xf2, 0x2a, 0x2a, XG, GPR},
    {1, 0xf2, 0x2c, 0x2d, RX, 8},
    {1, 0xf2, 0x51, 0x51, XX, 8},
    {1, 0xf2, 0x58, 0x5a, XX, 8},
    {1, 0xf2, 0x5c, 0x5f, XX, 8},
    {1, 0xf2, 0x70, 0x70, XX, A16},
    {1, 0xf2, 0xc2, 0xc2, XX, 8},
    {1, 0xf2, 0xd0, 0xd0, XX, A16},
    {1, 0xf2, 0xe6, 0xe6, XX, A16},
    {1, 0xf2, 0xf0, 0xf0, XX, 16 | ONLY},

    {2, 0x66, 0x00, 0x0b, XX, A16},
    {2, 0x66, 0x10, 0x10, XX, A16},
    {2, 0x66, 0x14, 0x15, XX, A16},
    {2, 0x66, 0x17, 0x17, XX, A16},
    {2, 0x66, 0x1c, 0x1e, XX, A16},
    {2, 0x66, 0x20, 0x20, XX, 8},
    {2, 0x66, 0x21, 0x21, XX, 4},
    {2, 0x66, 0x22, 0x22, XX, 2},
    {2, 0x66, 0x23, 0x23, XX, 8},
    {2, 0x66, 0x24, 0x24, XX, 4},
    {2, 0x66, 0x25, 0x25, XX, 8},
    {2, 0x66, 0x28, 0x29, XX, A16},
    {2, 0x66, 0x2a, 0x2a, XX, A16 | ONLY},
    {2, 0x66, 0x2b, 0x2b, XX, A16},
    {2, 0x66, 0x30, 0x30, XX, 8},
    {2, 0x66, 0x31, 0x31, XX, 4},
    {2, 0x66, 0x32, 0x32, XX, 2},
    {2, 0x66, 0x33, 0x33, XX, 8},
    {2, 0x66, 0x34, 0x34, XX, 4},
    {2, 0x66, 0x35, 0x35, XX, 8},
    {2, 0x66, 0x37, 0x41, XX, A16},

    {3, 0x66, 0x08, 0x09, XX, A16},
    {3, 0x66, 0x0a, 0x0a, XX, 4},
    {3, 0x66, 0x0b, 0x0b, XX, 8},
    {3, 0x66, 0x0c, 0x0f, XX, A16},
    {3, 0x66, 0x14, 0x14, GX, 1},
    {3, 0x66, 0x15, 0x15, GX, 2},
    {3, 0x66, 0x16, 0x16, GX, GPR},
    {3, 0x66, 0x17, 0x17, GX, 4},
    {3, 0x66, 0x20, 0x20, XG, 1},
    {3, 0x66, 0x21, 0x21, XX, 4},
    {3, 0x66, 0x22, 0x22, XG, GPR},
    {3, 0x66, 0x42, 0x42, XX, A16},
};

/* VEX only. The decoder says how much memory. */
static const struct row vex_rows[] = {
    {2, 0x66, 0x0c, 0x0f, XX, A16}, {2, 0x66, 0x16, 0x16, XX, A16}, {2, 0x66, 0x18, 0x1a, XX, A16},
    {2, 0x66, 0x36, 0x36, XX, A16}, {2, 0x66, 0x45, 0x47, XX, A16}, {2, 0x66, 0x58, 0x5a, XX, A16},
    {2, 0x66, 0x78, 0x79, XX, A16}, {3, 0x66, 0x00, 0x02, XX, A16}, {3, 0x66, 0x04, 0x06, XX, A16},
    {3, 0x66, 0x18, 0x18, XX, A16}, {3, 0x66, 0x19, 0x19, ST, A16}, {3, 0x66, 0x38, 0x38, XX, A16},
    {3, 0x66, 0x39, 0x39, ST, A16}, {3, 0x66, 0x46, 0x46, XX, A16}, {3, 0x66, 0x4a, 0x4c, XX, A16},
};

/* The operand of these is aligned, VEX-encoded too. */
static bool is_aligned_move(const struct form *f)
{
    return (f->map == 1 && (f->op == 0x28 || f->op == 0x29 || f->op == 0x2b)) ||
           (f->map == 1 && f->p66 && (f->op == 0x6f || f->op == 0x7f || f->op == 0xe7)) ||
           (f->map == 2 && f->op == 0x2a);
}

/* Stores and loads that are not to be kept in caches are ordered like all others here: they are the
 * plain ones. */
static void plain_form(struct form *f)
{
    if (f->map == 1 && f->op == 0x2b) { /* MOVNTPS, MOVNTPD */
        f->op = 0x29;
    } else if (f->map == 1 && f->p66 && f->op == 0xe7) { /* MOVNTDQ */
        f->op = 0x7f;
    } else if (f->map == 2 && f->op == 0x2a) { /* MOVNTDQA */
        f->map = 1;
        f->op = 0x6f;
    }
}

/* The interpreter looks at the defined bits of an immediate only. */
static bool odd_immediate(const struct form *f, unsigned imm)
{
    return (f->map == 1 && f->op == 0xc2 && imm > (f->vex ? 31U : 7U)) ||
           (f->map == 3 && f->op >= 0x08 && f->op <= 0x0b && imm > 15);
}

static bool compares(const struct form *f)
{
    return (f->map == 1 && (f->op & 0xfe) == 0x2e) || (f->map == 2 && f->op == 0x17) ||
           (f->map == 2 && f->vex && (f->op & 0xfe) == 0x0e);
}

static const struct row *row_in(const struct row *r, size_t n, const struct form *f)
{
    uint8_t prefix = f->rep != 0 ? f->rep : f->p66 ? 0x66 : 0;

    for (; n > 0; r++, n--) {
        if (r->map == f->map && r->prefix == prefix && r->first <= f->op && f->op <= r->last) {
            return r;
        }
    }
    return NULL;
}

static const struct row *row_of(const struct form *f)
{
    const struct row *r = row_in(rows, PLX_COUNT(rows), f);

    return r == NULL && f->vex ? row_in(vex_rows, PLX_COUNT(vex_rows), f) : r;
}

static bool w_matters(const struct form *f)
{
    return (f->map == 1 && ((f->op >= 0x2a && f->op <= 0x2d) || f->op == 0x6e || f->op == 0x7e)) ||
           (f->map == 2 && f->op >= 0x45 && f->op <= 0x47) ||
           (f->map == 3 && (f->op < 2 || f->op == 0x16 || f->op == 0x22));
}

/* What VEX says is what the operands say: bits that processors ignore, or should, are 0. */
static void canonical(const struct insn *in, struct form *f)
{
    f->wide = false;
    for (unsigned i = 0; i < in->nopd; i++) {
        bool mem = in->opd[i].kind == OPD_MEM;
        f->wide |= (mem || in->opd[i].kind == OPD_XMM) && in->opd[i].size == 32;
        f->rm_size = mem ? (uint8_t)in->opd[i].size : f->rm_size;
    }
    f->w &= w_matters(f);
    if (f->mem) {
        f->aligned = is_aligned_move(f) ? f->rm_size - 1 : 0;
    }
}

void sse_form(const struct insn *in, struct form *f)
{
    if (f->vex && f->map == 1 && f->op == 0x77) {
        f->kind = FORM_ZERO_YMM;
        f->sse = true;
        return;
    }
    const struct row *r = f->map == 0 || (f->rep != 0 && f->p66) ? NULL : row_of(f);

    if (r == NULL || odd_immediate(f, (unsigned)in->imm & 0xff)) {
        return;
    }
    uint8_t wide = f->w ? 8 : 4;
    uint8_t memory = r->memory & (ONLY - 1);
    if (f->mem ? memory == NO : (r->memory & ONLY) != 0) {
        return;
    }
    f->kind = FORM_MODRM;
    f->sse = true;
    f->aligned = f->mem && memory == A16 ? 15 : 0;
    f->reg_xmm = r->operands != RX;
    f->rm_xmm = !f->mem && r->operands != XG && r->operands != GX;
    f->reg_use = r->operands == RX ? USE_WRITE : USE_NONE;
    f->reg_size = r->operands == RX ? wide : 16;
    f->rm_use = r->operands == ST || r->operands == GX ? USE_WRITE : USE_READ;
    f->rm_size = !f->mem || memory == GPR ? wide : memory == A16 ? 16 : memory;
    if (f->vex) {
        canonical(in, f);
    }
    if (f->map == 1 && f->op >= 0x71 && f->op <= 0x73) { /* part of the opcode */
        f->reg &= 7;
    }
    if (compares(f)) {
        f->writes = FLAGS_ARITH;
    }
    plain_form(f);
}
