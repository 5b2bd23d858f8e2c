/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit.h - the translator: blocks of 64-bit code as host code of the same architecture.
 *
 * Most guest instructions are emitted as they are, with registers renamed and the memory operand
 * replaced by the host address that the inline lookup of the shadow tables finds. Whatever misses
 * that lookup, and whatever is not translated, is executed by the interpreter's own function, in
 * the middle of the block: so faults, devices and ownership have one implementation.
 *
 * While translated code runs, guest registers live in host registers:
 *
 *   RAX RCX RDX RBX RBP RSI RDI R8 R9 R10 R12   the host's register of the same name
 *   RSP                                         R15
 *   R11 R13 R14 R15                             in struct vcpu, or lent one within a translation
 *   host R11 (T0), R14 (T1)                     for addresses and values in passing
 *   host R13                                    budget: what is left once this is through
 *   host RSP                                    struct vcpu's c, below which is a small stack
 *
 * XMM registers and MXCSR are the host's once a translation that uses them has begun
 * (jit_run.vectors), until C code is called or translated code is left; their upper halves (YMM)
 * with them, or once one begins that uses those. It begins only if nothing there can fault: SSE
 * (and AVX) is enabled and MXCSR masks everything; else the interpreter runs the block.
 *
 * x87 registers, status and tags likewise (jit_run.x87_live); the control word is in struct vcpu
 * too, FIP is stored before what may look at it.
 *
 * The arithmetic flags are in host flags where an instruction of the block needs them, else in
 * c.rflags (all but OF) and jit_run.overflow; at the ends of blocks always there, but for a
 * translation that leads to itself. Between they may be in neither, if they can be made again on
 * the slow paths that want them (jit_remake.c). Where an instruction leaves flags undefined on the
 * host while the guest may still look at them, the chosen values (R6) are made from its result, or
 * the interpreter executes it.
 *
 * A translation belongs to a decoded block (vmm/cpu/block.h) at one linear address (a block may
 * have several, as programs have a library at different ones), and goes on through others of the
 * same page along the way that was hot (jit_trace.c); it goes with any of them. Ways out in its
 * middle give back the budget of the rest. It jumps to others in the same page directly: whoever
 * changes what RIP means there sets v->attention, which ends translated code. On the way to another
 * page it looks whether the fetch tag there still leads to the same memory; where a return goes is
 * looked up among the jumps. Nothing here is state (R1); a translation is entered only if the
 * budget lasts for all of it.
 *
 * Ownership: one per set of decoded blocks, a vCPU's own or the common ones; code finds the vCPU
 * that runs it by RSP, and knows what all vCPUs of a VM have in common. Threading: as the blocks.
 */
#ifndef VMM_ENGINE_JIT_H
#define VMM_ENGINE_JIT_H

#include "base/prng.h"
#include "vmm/cpu/block.h"
#include "vmm/engine/jit_emit.h"

struct translation;

/* How much of the vector registers. */
enum jit_vectors { JIT_NO_VECTORS, JIT_XMM, JIT_YMM, JIT_VECTORS };

/* Where code at an address is, for jumps to addresses that are known late. */
struct jit_jump {
    uint64_t rip; /* 0: free */
    const void *code;
    const uint8_t *hva; /* of its page, when this was entered */
    uint32_t slot;      /* offset of the page's entry in v->tlb_code */
    uint16_t n;         /* translation.n */
    uint8_t vectors;    /* translation.vectors, .x87 */
    bool x87;
};
enum { JIT_JUMPS_BITS = 15, JIT_JUMPS = 1 << JIT_JUMPS_BITS, JIT_JUMPS_FOLD = 12 };

/* A way out of a translation to code whose address is known. */
struct jit_edge {
    struct translation *from, *to; /* to: NULL: not linked */
    struct jit_edge *next_in;      /* of those that lead to @to */
    uint64_t rip;
    uint32_t refund;     /* instructions of @from that are not executed this way */
    uint32_t jump, undo; /* offsets in the code: "sub budget; js; jmp", and "add budget" */
    uint32_t look;       /* to another page: what comes before jump; else 0 */
    uint32_t hva;        /* there, the address of the page's memory */
    uint32_t leave;      /* where it leaves translated code */
};

enum {
    JIT_BLOCKS_MAX = 8,
    JIT_HEAT = 8,   /* visits, until a block is translated */
    JIT_PLACES = 8, /* translations of a block at most, at different addresses */
};

/* A decoded block of which a translation consists. */
struct jit_part {
    struct translation *t;
    struct block *block;
    struct jit_part *next; /* of the same block */
};

/* An instruction that spans two pages (jit_span.c). */
struct jit_span {
    struct jit_span *next; /* of those that are no translation's any more */
    struct insn insn;
    const uint8_t *first;          /* its first bytes on the host: */
    uint8_t have;                  /* so many */
    uint8_t bytes[INSN_BYTES_MAX]; /* all of them, when it was translated */
};

struct translation {
    struct block *block;        /* the first */
    struct translation *places; /* the next one that begins with it, at another address */
    uint64_t rip;
    uint32_t entry, body; /* offsets: with and without a look at the budget */
    uint32_t n;           /* instructions: progress */
    uint8_t vectors;      /* enum jit_vectors: what it uses */
    bool x87;             /* uses x87 registers */
    struct jit_edge *in;
    struct jit_part part[JIT_BLOCKS_MAX];
    unsigned nparts, nedges;
    struct jit_span *span; /* NULL: it has none */
    struct jit_edge edge[];
};

struct jit {
    struct jit_code code;
    /* Offsets of what all code shares; call: without and with x87 registers back. */
    uint32_t leave, call[JIT_VECTORS][2], load[JIT_VECTORS], load_x87, go_on, shared_end;
    struct jit_edge *(*enter)(struct vcpu *v, const void *code); /* the edge it left by */
    struct jit_jump *jumps;
    struct jit_span *spans_gone; /* perhaps while they were executed */
    bool v3;                     /* the guest has pollux-v3, and the host what that adds */
    uint64_t drops;              /* of translations: pointers to edges from before may be stale */
    bool poison; /* for tests: what the host may leave undefined of flags and results is changed */
    bool x87_always;    /* for tests: however few they are, x87 instructions are translated */
    struct prng choice; /* which way the next run goes, under the engine `switch` */
    uint64_t calls, interpreted;                   /* counters: of interpret, and in blocks */
    uint64_t called[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* for want of a form */
};

/* What v->run_blocks is under it. */
void jit_run_blocks(struct vcpu *v);

/* Make code for @block at v->c.rip. NULL: nothing of it can be translated, or no room. */
struct translation *jit_translate(struct vcpu *v, struct jit *j, struct block *block);

/* Free what may not be in use any more. */
void jit_spans_free(struct jit *j);

/* jit_shared.c. Emits what all code of @j shares, and notes where it is. */
void jit_emit_shared(struct jit *j);
/* Translated code with @vectors may run; nothing there can fault. */
bool jit_vectors_usable(const struct vcpu *v, enum jit_vectors vectors);

/* jit_x87.c. Translated x87 may run; nothing there can fault. */
bool jit_x87_usable(const struct vcpu *v);
/* The guest's x87 registers to the host, whose XMM registers get lost. 0: they must not. */
int jit_x87_load(struct vcpu *v);
/* And back; the host's are empty then, as C code expects. */
void jit_x87_store(struct vcpu *v);

/* What begins with @block at @rip; NULL: nothing does. */
static inline struct translation *jit_translation_at(const struct block *block, uint64_t rip)
{
    struct translation *t = block->translation;

    while (t != NULL && t->rip != rip) {
        t = t->places;
    }
    return t;
}

/* For perf, if it asked (jit_perf_map): what was emitted since offset @from is @what at @rip. */
void jit_perf_note(const struct jit_code *c, uint32_t from, const char *what, uint64_t rip);

/* Point @e at @t, whose page is at @hva, or (NULL) out of translated code. */
void jit_link(struct jit *j, struct jit_edge *e, struct translation *t, const uint8_t *hva);

#endif
