/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/variant.c - the many encodings of one form: LOCK, segment and address-size prefixes,
 * REX bits, other registers, SIB, displacements, RIP-relative; operands that are unaligned, cross
 * pages, or lie partly or wholly where nothing is mapped. What makes no sense must make the same
 * fault on both sides. */
#include <string.h>

#include "tests/isa/isa.h"
#include "vmm/cpu/cpu.h"

enum { REX_B = 1, REX_X = 2, REX_R = 4 };
enum { PREFIX_LOCK = 0xf0, PREFIX_ADDRESS = 0x67 };
enum { DISP32_ONLY = 5, SIB_FOLLOWS = 4 };

struct draft {
    uint8_t prefix[4];
    unsigned nprefix;
    bool lock, narrow; /* F0; 67 */
    unsigned rex;
    uint64_t seg_base;
    uint8_t vvvv; /* not inverted */
    uint8_t flip; /* W and L of a VEX prefix, as bits of its last byte */
    uint8_t modrm;
    bool sib_there;
    uint8_t sib;
    uint8_t disp[4];
    unsigned ndisp;
    bool rip_relative;
};

static bool one_in(struct prng *g, unsigned n)
{
    return prng_below(g, n) == 0;
}

static void choose_prefixes(struct prng *g, const struct form *f, const struct isa_state *s,
                            struct draft *d)
{
    static const uint8_t segments[] = {0x64, 0x65, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e};

    if (one_in(g, 8) && !f->rep && !f->branch) {
        d->lock = true;
        d->prefix[d->nprefix++] = PREFIX_LOCK;
    }
    if (one_in(g, 6)) {
        d->narrow = true;
        d->prefix[d->nprefix++] = PREFIX_ADDRESS;
    }
    if (one_in(g, 5) && f->mem) {
        uint8_t p = segments[prng_below(g, sizeof segments)];
        d->prefix[d->nprefix++] = p;
        if (f->mode == ISA_64 && (p == 0x64 || p == 0x65)) {
            d->seg_base = p == 0x64 ? s->fs_base : s->gs_base;
        }
    }
}

/* Where the operand lies: the data pages, their end, or beyond. MOVSXD of 16 bits, of which the
 * host may read 32 (exempt.c), often where only 16 are left. */
static uint64_t choose_target(struct prng *g, const struct form *f, const struct draft *d)
{
    uint64_t data = f->mode == ISA_16 ? 0 : DATA_AT;

    if (f->mnemonic == ZYDIS_MNEMONIC_MOVSXD && strstr(f->name, " r16") != NULL && one_in(g, 2)) {
        return data + DATA_SIZE - 2;
    }
    if (d->lock) { /* never split over two lines */
        return data + 0x1000 + prng_below(g, 32) * 64 + prng_below(g, 4) * 16;
    }
    switch (prng_below(g, 12)) {
    case 0:
        return data + 0x2000 - prng_below(g, 32);
    case 1:
        return data + DATA_SIZE - prng_below(g, 32);
    case 2:
        return data + DATA_SIZE + 0x1000 + prng_below(g, 64);
    case 3:
    case 4:
        return data + 0x1000 + prng_below(g, 0x1000);
    default:
        return data + 0x1000 + prng_below(g, 64) * 64;
    }
}

static void displace(struct draft *d, uint64_t v, unsigned n)
{
    d->ndisp = n;
    for (unsigned i = 0; i < n; i++) {
        d->disp[i] = (uint8_t)(v >> 8 * i);
    }
}

/* Base, perhaps an index, displacement: any that ends at @ea. */
static void with_base(struct prng *g, const struct form *f, struct draft *d, struct isa_state *s,
                      uint64_t ea)
{
    unsigned regs = f->mode == ISA_64 ? 16 : 8, base = (unsigned)prng_below(g, regs);
    unsigned scale = (unsigned)prng_below(g, 4), index = (unsigned)prng_below(g, regs);
    bool wide = one_in(g, 2), sib = one_in(g, 2) || (base & 7) == RSP;
    uint64_t disp = prng_u64(g), sum;

    disp = wide ? (uint64_t)(int64_t)(int32_t)disp : (uint64_t)(int64_t)(int8_t)disp;
    sum = ea - disp;
    if (sib && index != RSP && index != base) {
        if (base == RSP || index == RSI || index == RDI) {
            s->gpr[index] = prng_below(g, 256);
        }
        sum -= s->gpr[index] << scale;
    } else {
        index = RSP; /* none */
    }
    s->gpr[base] = f->mode == ISA_64 ? sum : sum & UINT32_MAX;
    d->modrm = (uint8_t)((wide ? 0x80 : 0x40) | (d->modrm & 0x38) | (sib ? SIB_FOLLOWS : base & 7));
    d->sib_there = sib;
    d->sib = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
    d->rex |= ((base & 8) != 0 ? REX_B : 0u) | (sib && (index & 8) != 0 ? REX_X : 0u);
    displace(d, disp, wide ? 4 : 1);
}

static void choose_memory(struct prng *g, const struct form *f, struct draft *d,
                          struct isa_state *s)
{
    uint64_t ea = choose_target(g, f, d) - d->seg_base;
    bool words = f->mode == ISA_16 || (f->mode == ISA_32 && d->narrow);

    if (words || one_in(g, 3)) { /* rBX + disp8 (with 67 in 16-bit mode: EDI + disp8) */
        uint64_t disp = prng_below(g, 128);
        s->gpr[f->mode == ISA_16 && d->narrow ? RDI : RBX] =
            f->mode == ISA_64 ? ea - disp : (ea - disp) & UINT32_MAX;
        displace(d, disp, 1);
    } else if (one_in(g, 5)) { /* disp32 alone; in 64-bit mode relative to RIP */
        d->modrm = (uint8_t)((d->modrm & 0x38) | DISP32_ONLY);
        d->rip_relative = f->mode == ISA_64;
        displace(d, ea, 4);
    } else if (one_in(g, 5)) { /* SIB without a base, perhaps without an index */
        unsigned index = (unsigned)prng_below(g, 8), scale = (unsigned)prng_below(g, 4);
        d->modrm = (uint8_t)((d->modrm & 0x38) | SIB_FOLLOWS);
        d->sib_there = true;
        d->sib = (uint8_t)(scale << 6 | index << 3 | DISP32_ONLY);
        d->rex |= one_in(g, 2) ? REX_B : 0u; /* without meaning */
        if (index != RSP) {
            s->gpr[index] = prng_below(g, 256);
            ea -= s->gpr[index] << scale;
        }
        displace(d, ea, 4);
    } else {
        with_base(g, f, d, s, ea);
    }
}

static void choose_registers(struct prng *g, const struct form *f, struct draft *d)
{
    if (f->reg_free) {
        d->modrm = (uint8_t)((d->modrm & 0xc7) | prng_below(g, 8) << 3);
        d->rex |= one_in(g, 2) && (!f->vex || f->mode == ISA_64) ? REX_R : 0u;
    }
    if (f->rm_free && d->modrm >= 0xc0) {
        d->modrm = (uint8_t)((d->modrm & 0xf8) | prng_below(g, 8));
        d->rex |= one_in(g, 2) && (!f->vex || f->mode == ISA_64) ? REX_B : 0u;
    }
}

/* A vector of indices that stay near @ea; base rBX. */
static void choose_vsib(struct prng *g, const struct form *f, struct draft *d, struct isa_state *s)
{
    unsigned index = (unsigned)prng_below(g, f->mode == ISA_64 ? 16 : 8);
    unsigned scale = (unsigned)prng_below(g, 4);
    /* VGATHERDPS, VPGATHERDD: the letter before the last two, or one. */
    const char *name = ZydisMnemonicGetString(f->mnemonic);
    bool quad = name[strlen("vgather") + (name[1] == 'p' ? 1 : 0)] == 'q';
    uint64_t ea = choose_target(g, f, d) - d->seg_base, disp = prng_below(g, 128);

    s->gpr[RBX] = f->mode == ISA_64 ? ea - disp : (ea - disp) & UINT32_MAX;
    d->modrm = (uint8_t)(0x40 | (d->modrm & 0x38) | SIB_FOLLOWS);
    d->sib_there = true;
    d->sib = (uint8_t)(scale << 6 | (index & 7) << 3 | RBX);
    d->rex |= (index & 8) != 0 ? REX_X : 0u;
    displace(d, disp, 1);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *half = i < 4 ? s->fx + 160 + index * 16 : s->ymm_high + index * 16;
        int64_t at = (int64_t)prng_below(g, 512) - 256;
        if (!quad) {
            int32_t at32 = (int32_t)at;
            memcpy(half + i % 4 * 4, &at32, 4);
        } else if (i % 2 == 0) {
            memcpy(half + i % 4 * 4, &at, 8);
        }
    }
}

/* The bytes of a VEX prefix: R, X and B are inverted, as is vvvv. */
static void set_vex(const struct draft *d, uint8_t *vex)
{
    vex[1] = (uint8_t)((vex[1] & 0x1f) | ((d->rex & REX_R) != 0 ? 0 : 0x80) |
                       ((d->rex & REX_X) != 0 ? 0 : 0x40) | ((d->rex & REX_B) != 0 ? 0 : 0x20));
    vex[2] = (uint8_t)(((vex[2] & 0x87) | (~d->vvvv & 0xf) << 3) ^ d->flip);
}

static void emit(struct isa_code *c, const void *bytes, size_t n)
{
    memcpy(c->bytes + c->len, bytes, n);
    c->len += (unsigned)n;
}

void make_variant(struct prng *g, const struct form *f, struct isa_state *s, struct isa_code *out)
{
    struct draft d = {.rex = f->rex, .modrm = f->bytes[f->modrm_at]};
    bool memory = f->mem && f->modrm_at != 0 && d.modrm >> 6 == 1;
    unsigned opcode = f->opcode_at + (f->rex != 0 ? 1u : 0u), rest = f->modrm_at + (f->vsib  ? 3u
                                                                                    : memory ? 2u
                                                                                             : 1u);
    unsigned opcode_len = (f->modrm_at != 0 ? f->modrm_at : f->len) - opcode, disp_at = 0;
    uint8_t bytes[15], rex;

    memcpy(bytes, f->bytes, sizeof bytes);
    for (int i = 0; i < 2; i++) {
        for (unsigned k = 0; k < f->imm_len[i]; k++) {
            bytes[f->imm_at[i] + k] = (uint8_t)prng_u64(g);
        }
    }
    *out = (struct isa_code){.len = 0};
    choose_prefixes(g, f, s, &d);
    if (f->modrm_at != 0) {
        choose_registers(g, f, &d);
    }
    if (memory && f->vsib) {
        choose_vsib(g, f, &d, s);
    } else if (memory) {
        choose_memory(g, f, &d, s);
    }
    if (f->vex) {
        d.vvvv = f->vvvv_free ? (uint8_t)prng_below(g, 16) : 0;
        d.flip = one_in(g, 12) && !exempt_vex(f) ? 0x80 : one_in(g, 12) ? 0x04 : 0;
        set_vex(&d, bytes + opcode);
    }
    emit(out, d.prefix, d.nprefix);
    emit(out, bytes, f->opcode_at);
    if (f->mode == ISA_64 && !f->vex && (d.rex != 0 || one_in(g, 8))) {
        rex = (uint8_t)(0x40 | d.rex);
        emit(out, &rex, 1);
    }
    emit(out, bytes + opcode, opcode_len);
    if (f->modrm_at == 0) {
        out->imm_at = (uint8_t)(out->len - f->len + f->imm_at[0]);
        return;
    }
    emit(out, &d.modrm, 1);
    if (d.sib_there) {
        emit(out, &d.sib, 1);
    }
    disp_at = out->len;
    emit(out, d.disp, d.ndisp);
    out->imm_at = (uint8_t)(out->len + f->imm_at[0] - rest);
    emit(out, bytes + rest, f->len - rest);
    if (d.rip_relative) {
        uint32_t v;
        memcpy(&v, out->bytes + disp_at, 4);
        v -= (uint32_t)(s->rip + out->len);
        memcpy(out->bytes + disp_at, &v, 4);
    }
}
