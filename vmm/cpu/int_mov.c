/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_mov.c - data movement: MOV and its kin, exchanges, flag loads. */
#include "vmm/cpu/int.h"
#include "vmm/cpu/sys.h"

#define FOR_EACH_SIZE(X) X(1, uint8_t) X(2, uint16_t) X(4, uint32_t) X(8, uint64_t)

#define DEF_MOV(size, type)                                          \
    static void mov_rr_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        put_##size(v, &in->opd[0], get_##size(v, &in->opd[1]));      \
    }                                                                \
    static void mov_ri_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        put_##size(v, &in->opd[0], (type)in->imm);                   \
    }                                                                \
    static void mov_rm_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        put_##size(v, &in->opd[0], (type)mem_load(v, in, size));     \
    }                                                                \
    static void mov_mr_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        mem_store(v, in, size, get_##size(v, &in->opd[1]));          \
    }                                                                \
    static void mov_mi_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        mem_store(v, in, size, (type)in->imm);                       \
    }

FOR_EACH_SIZE(DEF_MOV)

#define MOV_ROW(size)                                                             \
    {                                                                             \
        mov_rr_##size, mov_ri_##size, mov_rm_##size, mov_mr_##size, mov_mi_##size \
    }

insn_fn int_pick_mov(const struct insn *in)
{
    static const insn_fn forms[4][5] = {MOV_ROW(1), MOV_ROW(2), MOV_ROW(4), MOV_ROW(8)};
    const struct opd *d = &in->opd[0], *s = &in->opd[1];

    if (d->kind >= OPD_SEG || s->kind >= OPD_SEG) {
        return sys_pick_mov(in);
    }
    bool mem = d->kind == OPD_MEM;
    unsigned form = s->kind == OPD_IMM ? (mem ? 4 : 1) : s->kind == OPD_MEM ? 2 : (mem ? 3 : 0);
    return forms[size_index(d->size)][form];
}

/* --- MOVZX MOVSX MOVSXD ----------------------------------------------------------------------- */

static void extend_zero(struct vcpu *v, const struct insn *in)
{
    reg_write(v, in->opd[0].reg, in->opd[0].size, opd_read(v, in, 1));
}

static void extend_sign(struct vcpu *v, const struct insn *in)
{
    reg_write(v, in->opd[0].reg, in->opd[0].size, sign_extend(opd_read(v, in, 1), in->opd[1].size));
}

static void movzx_4_r1(struct vcpu *v, const struct insn *in)
{
    put_4(v, &in->opd[0], get_1(v, &in->opd[1]));
}

static void movzx_4_m1(struct vcpu *v, const struct insn *in)
{
    put_4(v, &in->opd[0], (uint32_t)mem_load(v, in, 1));
}

static void movzx_4_m2(struct vcpu *v, const struct insn *in)
{
    put_4(v, &in->opd[0], (uint32_t)mem_load(v, in, 2));
}

static void movsxd_8_r4(struct vcpu *v, const struct insn *in)
{
    put_8(v, &in->opd[0], sign_extend(get_4(v, &in->opd[1]), 4));
}

static void movsxd_8_m4(struct vcpu *v, const struct insn *in)
{
    put_8(v, &in->opd[0], sign_extend(mem_load(v, in, 4), 4));
}

insn_fn int_pick_extend(const struct insn *in)
{
    bool mem = in->opd[1].kind == OPD_MEM;
    unsigned d = in->opd[0].size, s = in->opd[1].size;

    if (in->mnemonic == ZYDIS_MNEMONIC_MOVZX) {
        if (d == 4 && s == 1) {
            return mem ? movzx_4_m1 : movzx_4_r1;
        }
        return d == 4 && s == 2 && mem ? movzx_4_m2 : extend_zero;
    }
    if (d == 8 && s == 4) {
        return mem ? movsxd_8_m4 : movsxd_8_r4;
    }
    return extend_sign;
}

/* --- LEA ------------------------------------------------------------------------------------ */

static void lea_8(struct vcpu *v, const struct insn *in)
{
    put_8(v, &in->opd[0], mem_ea(v, in));
}

static void lea_any(struct vcpu *v, const struct insn *in)
{
    reg_write(v, in->opd[0].reg, in->opd[0].size, mem_ea(v, in));
}

insn_fn int_pick_lea(const struct insn *in)
{
    if (in->opd[1].kind != OPD_MEM) {
        return NULL;
    }
    return in->opd[0].size == 8 ? lea_8 : lea_any;
}

/* --- CMOVcc, SETcc ---------------------------------------------------------------------------- */

/* The source is read, and a 32-bit destination zero-extended, whatever the condition. */
#define DEF_CC(cc)                                                                  \
    static void cmov_##cc(struct vcpu *v, const struct insn *in)                    \
    {                                                                               \
        const struct opd *d = &in->opd[0];                                          \
        uint64_t src = opd_read(v, in, 1);                                          \
        reg_write(v, d->reg, d->size,                                               \
                  condition(v->c.rflags, cc) ? src : reg_read(v, d->reg, d->size)); \
    }                                                                               \
    static void setcc_##cc(struct vcpu *v, const struct insn *in)                   \
    {                                                                               \
        opd_write(v, in, 0, condition(v->c.rflags, cc));                            \
    }
FOR_EACH_CC(DEF_CC)

insn_fn int_pick_cmov(const struct insn *in)
{
#define CMOV_ENTRY(cc) cmov_##cc,
    static const insn_fn fn[16] = {FOR_EACH_CC(CMOV_ENTRY)};
    return fn[in->opcode & 15];
}

insn_fn int_pick_setcc(const struct insn *in)
{
#define SETCC_ENTRY(cc) setcc_##cc,
    static const insn_fn fn[16] = {FOR_EACH_CC(SETCC_ENTRY)};
    return fn[in->opcode & 15];
}

/* --- exchanges ------------------------------------------------------------------------------- */

void int_xchg(struct vcpu *v, const struct insn *in)
{
    struct mem_rmw m;

    if (in->opd[1].kind == OPD_MEM) { /* either order is the same instruction */
        uint64_t old = mem_rmw_begin(v, in->seg, mem_ea(v, in), in->opd[1].size, &m);
        mem_rmw_end(v, &m, opd_read(v, in, 0));
        opd_write(v, in, 0, old);
        return;
    }
    uint64_t a = dst_begin(v, in, &m);
    uint64_t b = opd_read(v, in, 1);
    dst_end(v, in, &m, b);
    opd_write(v, in, 1, a);
}

static void flags_add(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = (a + b) & size_mask(size);

    set_arith(v, flags_zsp(r, size) | (r < a ? FLAG_CF : 0) | ((a ^ b ^ r) & FLAG_AF) |
                     (msb((a ^ r) & (b ^ r), size) != 0 ? FLAG_OF : 0));
}

static void flags_cmp(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = (a - b) & size_mask(size);

    set_arith(v, flags_zsp(r, size) | (a < b ? FLAG_CF : 0) | ((a ^ b ^ r) & FLAG_AF) |
                     (msb((a ^ b) & (a ^ r), size) != 0 ? FLAG_OF : 0));
}

void int_xadd(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    struct mem_rmw m;
    uint64_t a = dst_begin(v, in, &m);
    uint64_t b = opd_read(v, in, 1);

    if (in->opd[0].kind == OPD_MEM) {
        dst_end(v, in, &m, a + b);
        opd_write(v, in, 1, a);
    } else {
        opd_write(v, in, 1, a);
        opd_write(v, in, 0, a + b); /* the same register twice: the sum stays */
    }
    flags_add(v, a, b, size);
}

/* SDM Vol. 2, "CMPXCHG": memory is written in either case; a register that was not equal keeps even
 * its upper half. */
void int_cmpxchg(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    struct mem_rmw m;
    uint64_t old = dst_begin(v, in, &m);
    uint64_t acc = reg_read(v, RAX, size);

    flags_cmp(v, acc, old, size);
    if (acc == old) {
        dst_end(v, in, &m, opd_read(v, in, 1));
    } else {
        if (in->opd[0].kind == OPD_MEM) {
            dst_end(v, in, &m, old);
        }
        reg_write(v, RAX, size, old);
    }
}

void int_cmpxchg8b(struct vcpu *v, const struct insn *in)
{
    struct mem_rmw m;
    uint64_t old = mem_rmw_begin(v, in->seg, mem_ea(v, in), 8, &m);
    uint64_t want = reg_read(v, RDX, 4) << 32 | reg_read(v, RAX, 4);

    if (old == want) {
        mem_rmw_end(v, &m, reg_read(v, RCX, 4) << 32 | reg_read(v, RBX, 4));
        v->c.rflags |= FLAG_ZF;
    } else {
        mem_rmw_end(v, &m, old);
        v->c.gpr[RAX] = (uint32_t)old;
        v->c.gpr[RDX] = old >> 32;
        v->c.rflags &= ~FLAG_ZF;
    }
}

void int_cmpxchg16b(struct vcpu *v, const struct insn *in)
{
    uint64_t ea = mem_ea(v, in);
    uint64_t old[2];

    if ((seg_linear(v, in->seg, ea, 16, true) & 15) != 0) {
        cpu_gp0(v);
    }
    mem_probe_write(v, in->seg, ea, 16);
    mem_read_bytes(v, in->seg, ea, old, 16);
    if (old[0] == v->c.gpr[RAX] && old[1] == v->c.gpr[RDX]) {
        mem_write_bytes(v, in->seg, ea, (uint64_t[]){v->c.gpr[RBX], v->c.gpr[RCX]}, 16);
        v->c.rflags |= FLAG_ZF;
    } else {
        mem_write_bytes(v, in->seg, ea, old, 16);
        v->c.gpr[RAX] = old[0];
        v->c.gpr[RDX] = old[1];
        v->c.rflags &= ~FLAG_ZF;
    }
}

void int_bswap(struct vcpu *v, const struct insn *in)
{
    const struct opd *o = &in->opd[0];

    if (o->size == 8) {
        put_8(v, o, __builtin_bswap64(get_8(v, o)));
    } else if (o->size == 4) {
        put_4(v, o, __builtin_bswap32(get_4(v, o)));
    } else {
        put_2(v, o, 0); /* undefined by the SDM; what hardware does */
    }
}

void int_xlat(struct vcpu *v, const struct insn *in)
{
    uint64_t ea = (v->c.gpr[RBX] + reg_read(v, RAX, 1)) & in->ea_mask;

    reg_write(v, RAX, 1, mem_read(v, in->seg, ea, 1));
}

/* --- flags ------------------------------------------------------------------------------------ */

enum { SAHF_FLAGS = 0xd5 };

static void lahf(struct vcpu *v, const struct insn *in)
{
    (void)in;
    uint64_t ah = (v->c.rflags & SAHF_FLAGS) | FLAG_ONE;
    v->c.gpr[RAX] = (v->c.gpr[RAX] & ~UINT64_C(0xff00)) | ah << 8;
}

static void sahf(struct vcpu *v, const struct insn *in)
{
    (void)in;
    v->c.rflags = (v->c.rflags & ~(uint64_t)SAHF_FLAGS) | ((v->c.gpr[RAX] >> 8) & SAHF_FLAGS);
}

#define DEF_FLAG(name, expr)                                \
    static void name(struct vcpu *v, const struct insn *in) \
    {                                                       \
        (void)in;                                           \
        v->c.rflags = v->c.rflags expr;                     \
    }
DEF_FLAG(clc, &~FLAG_CF)
DEF_FLAG(stc, | FLAG_CF)
DEF_FLAG(cmc, ^FLAG_CF)
DEF_FLAG(cld, &~FLAG_DF)
DEF_FLAG(std, | FLAG_DF)

insn_fn int_pick_flags(const struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LAHF:
        return lahf;
    case ZYDIS_MNEMONIC_SAHF:
        return sahf;
    case ZYDIS_MNEMONIC_CLC:
        return clc;
    case ZYDIS_MNEMONIC_STC:
        return stc;
    case ZYDIS_MNEMONIC_CMC:
        return cmc;
    case ZYDIS_MNEMONIC_CLD:
        return cld;
    default:
        return std;
    }
}
