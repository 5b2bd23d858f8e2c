/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/block.h - decoded instructions, cached per guest-physical page.
 *
 * A block is a run of instructions inside one page, keyed by the GPA it starts at and the decoder
 * mode. Pages with blocks have USE_CODE; a store to one of their 64-byte chunks that holds code
 * drops the blocks it touches and sets v->attention, so the next instruction is decoded anew (R7).
 * Owned by one vCPU; dropping any of it changes no result (R1). */
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
    /* Of an engine that translates: what begins here, and what it goes on in or passes through.
     * They go with the block (translation_drop). */
    void *translation, *within;
    uint32_t heat; /* how often such an engine found it without one */
    gpa_t gpa;
    uint8_t mode; /* enum decode_mode */
    uint8_t n;
    uint16_t bytes;
    struct insn insns[];
};

int vcpu_blocks_create(struct vcpu *v, unsigned entries); /* 0: default. PLX_ENOMEM. */
void vcpu_blocks_destroy(struct vcpu *v);
void vcpu_blocks_drop(struct vcpu *v);

/* The instructions at CS:rip, at least one; never beyond the page, except for a single instruction
 * that spans two. Valid until the next call or drop. May raise: #PF, #GP of the fetch. */
const struct insn *block_at(struct vcpu *v, unsigned *n);

/* The block at @gpa, if there is one. */
struct block *block_known(const struct vcpu *v, gpa_t gpa, unsigned mode);

/* The block whose first instruction block_at gave; NULL: it gave one outside of any block. */
struct block *block_of(const struct insn *first);

/* A store to a page, about to happen or done; or its bytes are no longer known. */
void blocks_written(struct vcpu *v, gpa_t gpa, uint64_t len);

#endif
