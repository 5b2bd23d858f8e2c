/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_bit.c - bit tests, scans, POPCNT and CRC32. */
#include "vmm/cpu/int.h"

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static inline uint64_t apply(enum bit_op op, uint64_t a, uint64_t bit)
{
    switch (op) {
    case BIT_SET:
        return a | bit;
    case BIT_RESET:
        return a & ~bit;
    case BIT_COMPLEMENT:
        return a ^ bit;
    default:
        return a;
    }
}

/* A register index into memory reaches beyond the operand, signed (SDM Vol. 2, "BT"). */
static inline void bit_test(struct vcpu *v, const struct insn *in, enum bit_op op)
{
    unsigned size = in->opd[0].size;
    uint64_t index = opd_read(v, in, 1);
    uint64_t bit = UINT64_C(1) << (index & (size * 8 - 1));
    uint64_t a;

    if (in->opd[0].kind == OPD_MEM) {
        uint64_t ea = mem_ea(v, in);
        struct mem_rmw m;
        if (in->opd[1].kind != OPD_IMM) {
            int64_t word = (int64_t)sign_extend(index, size) >> (3 + size_index(size));
            ea = (ea + (uint64_t)word * size) & in->ea_mask;
        }
        if (op == BIT_TEST) {
            a = mem_read(v, in->seg, ea, size);
        } else {
            a = mem_rmw_begin(v, in->seg, ea, size, &m);
            mem_rmw_end(v, &m, apply(op, a, bit));
        }
    } else {
        a = opd_read(v, in, 0);
        if (op != BIT_TEST) {
            opd_write(v, in, 0, apply(op, a, bit));
        }
    }
    v->c.rflags = (v->c.rflags & ~FLAG_CF) | ((a & bit) != 0 ? FLAG_CF : 0);
}

static void bt(struct vcpu *v, const struct insn *in)
{
    bit_test(v, in, BIT_TEST);
}

static void bts(struct vcpu *v, const struct insn *in)
{
    bit_test(v, in, BIT_SET);
}

static void btr(struct vcpu *v, const struct insn *in)
{
    bit_test(v, in, BIT_RESET);
}

static void btc(struct vcpu *v, const struct insn *in)
{
    bit_test(v, in, BIT_COMPLEMENT);
}

insn_fn int_pick_bt(const struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
        return bt;
    case ZYDIS_MNEMONIC_BTS:
        return bts;
    case ZYDIS_MNEMONIC_BTR:
        return btr;
    default:
        return btc;
    }
}

/* A source of 0 sets ZF and leaves the destination as it was. */
void int_bsf(struct vcpu *v, const struct insn *in)
{
    uint64_t a = opd_read(v, in, 1);

    set_arith(v, a == 0 ? FLAG_ZF : 0);
    if (a != 0) {
        reg_write(v, in->opd[0].reg, in->opd[0].size, (uint64_t)__builtin_ctzll(a));
    }
}

void int_bsr(struct vcpu *v, const struct insn *in)
{
    uint64_t a = opd_read(v, in, 1);

    set_arith(v, a == 0 ? FLAG_ZF : 0);
    if (a != 0) {
        reg_write(v, in->opd[0].reg, in->opd[0].size, 63 - (uint64_t)__builtin_clzll(a));
    }
}

void int_popcnt(struct vcpu *v, const struct insn *in)
{
    uint64_t a = opd_read(v, in, 1);

    set_arith(v, a == 0 ? FLAG_ZF : 0);
    reg_write(v, in->opd[0].reg, in->opd[0].size, (uint64_t)__builtin_popcountll(a));
}

/* CRC-32C, reflected polynomial 11EDC6F41H (SDM Vol. 2, "CRC32"). */
void int_crc32(struct vcpu *v, const struct insn *in)
{
    uint32_t crc = (uint32_t)v->c.gpr[in->opd[0].reg];
    uint64_t data = opd_read(v, in, 1);

    for (unsigned i = 0; i < in->opd[1].size; i++, data >>= 8) {
        crc ^= (uint8_t)data;
        for (unsigned k = 0; k < 8; k++) {
            crc = (crc >> 1) ^ (UINT32_C(0x82f63b78) & (0 - (crc & 1)));
        }
    }
    v->c.gpr[in->opd[0].reg] = crc;
}
