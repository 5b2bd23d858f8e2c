/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/operand.h - general register and operand access shared by all instruction families. */
#ifndef VMM_CPU_OPERAND_H
#define VMM_CPU_OPERAND_H

#include "vmm/cpu/mem.h"

static inline uint64_t size_mask(unsigned size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

/* Sign-extend the low @size bytes. */
static inline uint64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - size * 8;
    return (uint64_t)((int64_t)(v << shift) >> shift);
}

static inline uint64_t reg_read(const struct vcpu *v, unsigned reg, unsigned size)
{
    return v->c.gpr[reg] & size_mask(size);
}

/* 32-bit writes clear the upper half; 8- and 16-bit writes keep the rest. */
static inline void reg_write(struct vcpu *v, unsigned reg, unsigned size, uint64_t value)
{
    if (size >= 4) {
        v->c.gpr[reg] = value & size_mask(size);
    } else {
        uint64_t m = size_mask(size);
        v->c.gpr[reg] = (v->c.gpr[reg] & ~m) | (value & m);
    }
}

static inline uint64_t opd_read(struct vcpu *v, const struct insn *in, unsigned i)
{
    const struct opd *o = &in->opd[i];

    switch (o->kind) {
    case OPD_REG:
        return reg_read(v, o->reg, o->size);
    case OPD_REG_HIGH:
        return (v->c.gpr[o->reg] >> 8) & 0xff;
    case OPD_MEM:
        return mem_read(v, in->seg, mem_ea(v, in), o->size);
    default:
        return in->imm & size_mask(o->size);
    }
}

static inline void opd_write(struct vcpu *v, const struct insn *in, unsigned i, uint64_t value)
{
    const struct opd *o = &in->opd[i];

    switch (o->kind) {
    case OPD_REG:
        reg_write(v, o->reg, o->size, value);
        break;
    case OPD_REG_HIGH:
        v->c.gpr[o->reg] = (v->c.gpr[o->reg] & ~UINT64_C(0xff00)) | ((value & 0xff) << 8);
        break;
    default:
        mem_write(v, in->seg, mem_ea(v, in), o->size, value);
        break;
    }
}

#endif
