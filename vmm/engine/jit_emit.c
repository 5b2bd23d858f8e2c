/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_emit.c - see jit_emit.h (SDM Vol. 2, "Instruction Format"). */
#include "vmm/engine/jit_emit.h"

#include <sys/mman.h>

#include "base/err.h"

int jit_code_create(struct jit_code *c, uint32_t size)
{
    void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *rx = MAP_FAILED;

    *c = (struct jit_code){0};
    if (rw == MAP_FAILED) {
        return PLX_ENOMEM;
    }
    rx = mremap(rw, 0, size, MREMAP_MAYMOVE); /* from a length of 0: the same memory once more */
    if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) != 0) {
        munmap(rw, size);
        if (rx != MAP_FAILED) {
            munmap(rx, size);
        }
        return PLX_ENOMEM;
    }
    *c = (struct jit_code){.rw = rw, .rx = rx, .size = size};
    return 0;
}

void jit_code_destroy(struct jit_code *c)
{
    if (c->rw != NULL) {
        munmap(c->rw, c->size);
        munmap(c->rx, c->size);
        c->rw = NULL;
    }
}

static void emit_rm(struct jit_code *c, unsigned reg, struct rm rm)
{
    unsigned r = (reg & 7) << 3;

    switch (rm.kind) {
    case RM_REG:
        emit_1(c, 0xc0 | r | (rm.rm & 7));
        break;
    case RM_GS:
        emit_1(c, r | 4);
        emit_1(c, 0x25); /* no base, no index */
        emit_4(c, (uint32_t)rm.disp);
        break;
    case RM_BASE: {
        bool small = rm.disp >= -128 && rm.disp < 128;
        bool none = rm.disp == 0 && (rm.rm & 7) != 5;
        emit_1(c, (none ? 0U : small ? 0x40U : 0x80U) | r | (rm.rm & 7));
        if ((rm.rm & 7) == 4) {
            emit_1(c, 0x24);
        }
        if (!none) {
            if (small) {
                emit_1(c, (uint8_t)rm.disp);
            } else {
                emit_4(c, (uint32_t)rm.disp);
            }
        }
        break;
    }
    }
}

static void emit_opcode(struct jit_code *c, struct op op, unsigned rex)
{
    if (op.p66) {
        emit_1(c, 0x66);
    }
    if (op.rep != 0) {
        emit_1(c, op.rep);
    }
    if (rex != 0 || op.low_byte) {
        emit_1(c, 0x40 | rex);
    }
    if (op.map != 0) {
        emit_1(c, 0x0f);
        if (op.map > 1) {
            emit_1(c, op.map == 2 ? 0x38 : 0x3a);
        }
    }
    emit_1(c, op.op);
}

void emit_op(struct jit_code *c, struct op op, unsigned reg, struct rm rm)
{
    unsigned rex =
        (op.w ? 8U : 0U) | (reg >= 8 ? 4U : 0U) | (rm.kind != RM_GS && rm.rm >= 8 ? 1U : 0U);

    if (rm.kind == RM_GS) {
        emit_1(c, 0x65);
    }
    emit_opcode(c, op, rex);
    emit_rm(c, reg, rm);
}

void emit_mov_imm(struct jit_code *c, unsigned reg, uint64_t value)
{
    if (value <= UINT32_MAX) {
        if (reg >= 8) {
            emit_1(c, 0x41);
        }
        emit_1(c, 0xb8 | (reg & 7));
        emit_4(c, (uint32_t)value);
    } else if ((uint64_t)(int64_t)(int32_t)value == value) {
        emit_q(c, 0xc7, 0, rm_reg(reg));
        emit_4(c, (uint32_t)value);
    } else {
        emit_1(c, reg >= 8 ? 0x49 : 0x48);
        emit_1(c, 0xb8 | (reg & 7));
        emit_8(c, value);
    }
}

void emit_lea(struct jit_code *c, bool w, unsigned reg, int base, int index, unsigned scale,
              int32_t disp)
{
    unsigned b = base < 0 ? 5U : (unsigned)base, x = index < 0 ? 4U : (unsigned)index;
    unsigned rex =
        (w ? 8U : 0U) | (reg >= 8 ? 4U : 0U) | (index >= 8 ? 2U : 0U) | (base >= 8 ? 1U : 0U);
    bool small = base >= 0 && disp >= -128 && disp < 128;

    emit_opcode(c, (struct op){.op = 0x8d}, rex);
    emit_1(c, (base < 0 ? 0U : small ? 0x40U : 0x80U) | (reg & 7) << 3 | 4);
    emit_1(c, scale << 6 | (x & 7) << 3 | (b & 7));
    if (small) {
        emit_1(c, (uint8_t)disp);
    } else {
        emit_4(c, (uint32_t)disp);
    }
}

uint32_t emit_jump(struct jit_code *c, unsigned how, uint32_t to)
{
    if (how < 0x90 && how >= 0x80) {
        emit_1(c, 0x0f);
    }
    emit_1(c, how);
    uint32_t site = c->at;
    emit_4(c, to - (site + 4));
    return site;
}

void emit_aim(struct jit_code *c, uint32_t site, uint32_t to)
{
    patch_4(c, site, to - (site + 4));
}
