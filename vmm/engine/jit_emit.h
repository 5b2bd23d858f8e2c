/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_emit.h - bytes of host instructions into the code cache.
 *
 * The cache is memory mapped twice: written through one mapping, executed through the
 * other. Code is spread over so much of it that its host pages should be few: huge ones, if the
 * host has them. A writer that runs out of room latches that (full) and goes on without effect; it
 * is asked once, at the end. Threading: who owns the cache. */
#ifndef VMM_ENGINE_JIT_EMIT_H
#define VMM_ENGINE_JIT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct jit_code {
    uint8_t *rw, *rx; /* the two mappings */
    uint32_t size, at;
    uint32_t nsites; /* words of data in use; they follow the executable mapping */
    bool full;
    uint8_t pushed; /* bytes on the stack, where it is executed: RSP is so far below RM_FRAME's */
    uint8_t huge;   /* so many times PLX_HUGE from the beginning were asked for */
};

/* There is a word of data for so many bytes of code. */
enum { JIT_SITE_EACH = 16 };

/* Errors: PLX_ENOMEM. */
int jit_code_create(struct jit_code *c, uint32_t size);
void jit_code_destroy(struct jit_code *c);
/* Up to @n bytes are about to be emitted. */
void jit_code_reserve(struct jit_code *c, uint32_t n);

enum { HOST_T0 = 11, HOST_T1 = 14, HOST_BUDGET = 13, HOST_GUEST_RSP = 15 };

static inline void emit_1(struct jit_code *c, unsigned byte)
{
    if (c->at < c->size) {
        c->rw[c->at++] = (uint8_t)byte;
    } else {
        c->full = true;
    }
}

static inline void emit_bytes(struct jit_code *c, const void *data, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        emit_1(c, ((const uint8_t *)data)[i]);
    }
}

static inline void emit_4(struct jit_code *c, uint32_t v)
{
    emit_bytes(c, &v, 4);
}

static inline void emit_8(struct jit_code *c, uint64_t v)
{
    emit_bytes(c, &v, 8);
}

static inline void patch_4(struct jit_code *c, uint32_t at, uint32_t v)
{
    if (at + 4 <= c->size) {
        memcpy(c->rw + at, &v, 4);
    }
}

/* The r/m operand of an instruction. */
enum rm_kind {
    RM_REG,   /* host register @rm */
    RM_FRAME, /* [RSP + @disp], as if nothing were pushed */
    RM_BASE,  /* [@rm + disp] */
    RM_SUM,   /* [@rm + @index << @scale + disp] */
    RM_SITE,  /* word @disp of data; not beside an immediate */
};

struct rm {
    enum rm_kind kind;
    unsigned rm;
    int32_t disp;
    unsigned index, scale;
};

struct op {
    uint8_t map; /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t op;
    bool p66, w;
    uint8_t rep;   /* F2, F3 or 0 */
    bool low_byte; /* an operand is SPL BPL SIL DIL: REX whatever else */
};

void emit_op(struct jit_code *c, struct op op, unsigned reg, struct rm rm);
/* VEX-encoded, with 256 bits if @wide. @vvvv: the register of that field; 0: it names none. */
void emit_vex(struct jit_code *c, struct op op, bool wide, unsigned vvvv, unsigned reg,
              struct rm rm);
/* A new word of data. What it holds at first is anything that another one held. */
uint32_t emit_site(struct jit_code *c);

static inline struct rm rm_reg(unsigned host)
{
    return (struct rm){.kind = RM_REG, .rm = host};
}

static inline struct rm rm_at(unsigned host, int32_t disp)
{
    return (struct rm){.kind = RM_BASE, .rm = host, .disp = disp};
}

static inline struct rm rm_sum(unsigned host, unsigned index, unsigned scale, int32_t disp)
{
    return (struct rm){RM_SUM, host, disp, index, scale};
}

static inline struct rm rm_site(uint32_t site)
{
    return (struct rm){.kind = RM_SITE, .disp = (int32_t)site};
}

/* One-byte opcodes with 64-bit and with 32-bit operands. */
static inline void emit_q(struct jit_code *c, unsigned op, unsigned reg, struct rm rm)
{
    emit_op(c, (struct op){.op = (uint8_t)op, .w = true}, reg, rm);
}

static inline void emit_d(struct jit_code *c, unsigned op, unsigned reg, struct rm rm)
{
    emit_op(c, (struct op){.op = (uint8_t)op}, reg, rm);
}

enum shift { SHIFT_LEFT = 4, SHIFT_RIGHT = 5, SHIFT_ARITHMETIC = 7 };

/* Host register @reg, of 64 bits if @w, by @n. */
static inline void emit_shift(struct jit_code *c, bool w, enum shift how, unsigned reg, unsigned n)
{
    emit_op(c, (struct op){.op = 0xc1, .w = w}, how, rm_reg(reg));
    emit_1(c, n);
}

enum { OP_MOV_STORE = 0x89, OP_MOV_LOAD = 0x8b, OP_XOR_LOAD = 0x33, OP_ADD_LOAD = 0x03 };

void emit_mov_imm(struct jit_code *c, unsigned reg, uint64_t value);
/* lea reg, [base + index << scale + disp]; base or index -1: none. @w: 64 bits. */
void emit_lea(struct jit_code *c, bool w, unsigned reg, int base, int index, unsigned scale,
              int32_t disp);

/* jmp, call or jcc (0x80 + cc) to an offset of the cache; returns where its displacement is. */
enum { JUMP = 0xe9, CALL = 0xe8 };
uint32_t emit_jump(struct jit_code *c, unsigned how, uint32_t to);
/* The jump whose displacement is at @site leads to @to. */
void emit_aim(struct jit_code *c, uint32_t site, uint32_t to);

#endif
