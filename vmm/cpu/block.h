/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/block.h - decoded instructions, cached per guest-physical page.
 *
 * A block is a run of instructions inside one page, keyed by the GPA it starts at and the decoder
 * mode. Pages with blocks have USE_CODE; a store to one of their 64-byte chunks that holds code
 * drops the blocks it touches and sets v->attention, so the next instruction is decoded anew (R7).
 * Dropping any of it changes no result (R1).
 *
 * With several vCPUs there are blocks of each, for its parallel parts, and those that all use in
 * serial parts, when one runs at a time: a host's caches hold them once. A page with the latter has
 * USE_COMMON for every vCPU; a store in a parallel part to such a page, which is exclusive to who
 * stores, is noted, and what it touches is dropped before the next serial part (blocks_settle).
 * They need no right to read, so they stay when a vCPU loses that: who runs them has a fetch tag.
 *
 * Threading: a vCPU's own as the vCPU; the common ones are changed in serial parts only, and in
 * parallel parts looked at by all. */
#ifndef VMM_CPU_BLOCK_H
#define VMM_CPU_BLOCK_H

#include "vmm/cpu/decode.h"
#include "vmm/cpu/vcpu.h"

enum { BLOCK_INSNS_MAX = 64 };

/* v->code_key: whose address space RIP is in, plus CODE_STEP for each time that blocks were
 * dropped. Only 64-bit mode has short cuts from RIP to block. */
enum { CODE_SUPER, CODE_USER, CODE_NOT_64, CODE_STEP = 4 };

static inline unsigned code_kind(const struct vcpu *v)
{
    return (unsigned)(v->code_key % CODE_STEP);
}

struct block {
    struct block *hash_next;
    struct block *page_next;
    /* Of an engine that translates: what begins here (several), and what it goes on in or passes
     * through. They go with the block (blocks_translated). */
    void *translation, *within;
    uint32_t heat; /* how often such an engine found it without one */
    gpa_t gpa;
    uint8_t mode; /* enum decode_mode */
    uint8_t n;
    uint16_t bytes;
    struct insn insns[];
};

/* The code of serial parts, and the vCPUs that use it. Zero before the first is created; the last
 * one takes all with it. */
enum { CODE_USERS_MAX = 16 };

struct code_common {
    struct code code;
    struct vcpu *user[CODE_USERS_MAX];
    unsigned nusers;
};

/* v->own.blocks, and those of @common if it is not NULL. @entries 0: default. PLX_ENOMEM. */
int vcpu_blocks_create(struct vcpu *v, struct code_common *common, unsigned entries);
void vcpu_blocks_destroy(struct vcpu *v);
void vcpu_blocks_drop(struct vcpu *v); /* those this run uses */
void vcpu_blocks_drop_all(struct vcpu *v);

/* Which blocks the run uses that begins; v->parallel is set. */
void blocks_select(struct vcpu *v);

/* @jit translates blocks of @c: @drop forgets what it made of one that goes. */
void blocks_translated(struct code *c, struct jit *jit,
                       void (*drop)(struct jit *jit, struct block *block));

/* The instructions at CS:rip, at least one; never beyond the page, except for a single instruction
 * that spans two. Valid until the next call or drop. May raise: #PF, #GP of the fetch. */
const struct insn *block_at(struct vcpu *v, unsigned *n);

/* The block at @gpa, if there is one. */
struct block *block_known(const struct vcpu *v, gpa_t gpa, unsigned mode);

/* The block whose first instruction block_at gave; NULL: it gave one outside of any block. */
struct block *block_of(const struct insn *first);

/* A store to a page, about to happen or done; or its bytes are no longer known. */
void blocks_written(struct vcpu *v, gpa_t gpa, uint64_t len);

/* The vCPU may not read @page any more. */
void blocks_revoked(struct vcpu *v, uint64_t page);

/* After a parallel part: what its stores touched of the common blocks goes. */
void blocks_settle(struct vcpu *v);

#endif
