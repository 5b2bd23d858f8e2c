/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_emit.c - see jit_emit.h (SDM Vol. 2, "Instruction Format"). */
#include "vmm/engine/jit_emit.h"

#include <sys/mman.h>

#include "base/alloc.h"
#include "base/err.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static size_t data_size(uint32_t size)
{
    return size / JIT_SITE_EACH * sizeof(uint32_t);
}

int jit_code_create(struct jit_code *c, uint32_t size)
{
    size_t all = size + data_size(size);
    void *rw = plx_pages(size), *rx = plx_pages(all);

    *c = (struct jit_code){0};
    if (rw != NULL && rx != NULL &&
        mmap(rw, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            rw &&
        mremap(rw, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, rx) == rx && /* the same memory again */
        mprotect(rx, size, PROT_READ | PROT_EXEC) == 0) {
        *c = (struct jit_code){.rw = rw, .rx = rx, .size = size};
        return 0;
    }
    plx_pages_free(rw, size);
    plx_pages_free(rx, all);
    return PLX_ENOMEM;
}

void jit_code_destroy(struct jit_code *c)
{
    if (c->rw != NULL) {
        plx_pages_free(c->rw, c->size);
        plx_pages_free(c->rx, c->size + data_size(c->size));
        c->rw = NULL;
    }
}

/* Shared memory has huge pages where it is asked for them when it has some page already, whatever
 * the host has set; hosts that cannot (Linux before 6.1) say so at once. */
static void ask_for_huge(struct jit_code *c, uint32_t from)
{
    (void)*(volatile uint8_t *)(c->rw + from);
    (void)madvise(c->rw + from, PLX_HUGE, MADV_COLLAPSE);
    (void)*(volatile uint8_t *)(c->rx + from);
    (void)madvise(c->rx + from, PLX_HUGE, MADV_COLLAPSE);
}

void jit_code_reserve(struct jit_code *c, uint32_t n)
{
    while (c->huge * (uint32_t)PLX_HUGE < c->at + n && (c->huge + 1U) * PLX_HUGE <= c->size) {
        ask_for_huge(c, c->huge * (uint32_t)PLX_HUGE);
        c->huge++;
    }
}

uint32_t emit_site(struct jit_code *c)
{
    if (c->nsites == c->size / JIT_SITE_EACH) {
        c->full = true;
        return 0;
    }
    return c->nsites++;
}

static void emit_rm(struct jit_code *c, unsigned reg, struct rm rm)
{
    unsigned r = (reg & 7) << 3;

    switch (rm.kind) {
    case RM_REG:
        emit_1(c, 0xc0 | r | (rm.rm & 7));
        break;
    case RM_SITE:
        emit_1(c, r | 5); /* from the next instruction */
        emit_4(c, c->size + (uint32_t)rm.disp * 4 - (c->at + 4));
        break;
    case RM_FRAME:
        rm.disp += c->pushed;
        /* fall through */
    case RM_BASE:
    case RM_SUM: {
        bool small = rm.disp >= -128 && rm.disp < 128;
        bool none = rm.disp == 0 && (rm.rm & 7) != 5;
        bool sib = rm.kind == RM_SUM || (rm.rm & 7) == 4;
        emit_1(c, (none ? 0U : small ? 0x40U : 0x80U) | r | (sib ? 4U : rm.rm & 7));
        if (sib) {
            unsigned index = rm.kind == RM_SUM ? rm.index & 7 : 4U;
            emit_1(c, rm.scale << 6 | index << 3 | (rm.rm & 7));
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
    unsigned rex = (op.w ? 8U : 0U) | (reg >= 8 ? 4U : 0U) | (rm.index >= 8 ? 2U : 0U) |
                   (rm.rm >= 8 ? 1U : 0U);

    emit_opcode(c, op, rex);
    emit_rm(c, reg, rm);
}

void emit_vex(struct jit_code *c, struct op op, bool wide, unsigned vvvv, unsigned reg,
              struct rm rm)
{
    unsigned pp = op.rep == 0xf3 ? 2 : op.rep == 0xf2 ? 3 : op.p66 ? 1 : 0;
    unsigned rest = (~vvvv & 15U) << 3 | (wide ? 4U : 0U) | pp, r = reg < 8 ? 0x80 : 0;

    if (op.map == 1 && !op.w && rm.index < 8 && rm.rm < 8) {
        emit_1(c, 0xc5);
        emit_1(c, r | rest);
    } else {
        emit_1(c, 0xc4);
        emit_1(c, r | (rm.index < 8 ? 0x40U : 0U) | (rm.rm < 8 ? 0x20U : 0U) | op.map);
        emit_1(c, (op.w ? 0x80U : 0U) | rest);
    }
    emit_1(c, op.op);
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
    if (index < 0 && base >= 0) {
        emit_op(c, (struct op){.op = 0x8d, .w = w}, reg, rm_at((unsigned)base, disp));
        return;
    }
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
