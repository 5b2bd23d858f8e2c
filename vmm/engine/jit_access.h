/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_access.h - the memory accesses of a translation, planned before code is emitted:
 * which of them one check serves. Pure. See jit_access.c. */
#ifndef VMM_ENGINE_JIT_ACCESS_H
#define VMM_ENGINE_JIT_ACCESS_H

#include "vmm/cpu/block.h"
#include "vmm/engine/jit_form.h"

/* Where an operand is. */
struct jit_place {
    uint8_t base, index, scale; /* guest registers or REG_NONE; index << scale */
    bool fixed;                 /* neither, nor a segment: at @disp */
    bool narrow;                /* an address of 32 bits, or one that does not fit */
    uint16_t seg_off;           /* of the segment's base in struct vcpu; 0: none is added */
    int64_t disp;
};

enum { JIT_ACCESSES_EACH = 2, JIT_GROUPS = 16 };
enum { JIT_INSNS_MAX = 96 /* at most, of a translation: one block, and some more */ };
_Static_assert((int)JIT_INSNS_MAX >= (int)BLOCK_INSNS_MAX, "a block");

/* No group: with a check of its own; looked up the old way (a narrow or odd address). */
enum { JIT_ALONE = 0xfe, JIT_ODD = 0xff };

struct jit_access {
    struct jit_place place;
    uint8_t size;
    bool write;
    uint8_t aligned; /* bits that the address must not have */
    bool late;       /* the address comes from memory: what is loaded by it waits for that */
    uint8_t group;   /* or JIT_ALONE, JIT_ODD */
    int64_t at;      /* from what is known of the registers: how far from the group's 0 */
};

/* Accesses that differ by a distance known now, so that one check of all their bytes serves. */
struct jit_group {
    struct jit_place place; /* of its 0, by the registers where it begins */
    bool entry;             /* which is known there */
    bool early;             /* and checked there, else by its first access */
    bool slot;              /* more than the one that checks use what it found */
    bool write, late;
    bool steady;            /* around the loop its 0 moves by @step, whatever happens there */
    uint8_t n, first, last; /* accesses, the instructions of the first and the last */
    uint8_t aligned;        /* bits that the address of its 0 plus @off must not have */
    uint8_t off;
    uint16_t base_id, index_id;
    int64_t low, high; /* the bytes: from low, up to but not including high */
    int64_t step;
};

struct jit_plan {
    bool two_ways; /* there is a check for more than the access that makes it */
    unsigned ngroups;
    struct jit_group group[JIT_GROUPS];
    struct jit_access access[JIT_INSNS_MAX][JIT_ACCESSES_EACH];
    bool covered[JIT_INSNS_MAX]; /* accesses memory, all of it checked before */
};

/* How many of @n instructions, from the first on, the plan can follow. */
unsigned jit_plan_reach(const struct form *forms, unsigned n);

/* Of @n instructions, which are at the addresses @at and perhaps lead to the first one (@loops);
 * groups among the first @reach only. */
void jit_plan_make(struct jit_plan *p, const struct insn *const *insns, const struct form *forms,
                   unsigned n, unsigned reach, const uint64_t *at, bool loops);

#endif
