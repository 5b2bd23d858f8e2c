/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/sequence.h - programs of a few dozen instructions for two engines, or an engine and the
 * host, to agree on. They run in the pages of isa.h; what an instruction makes of registers,
 * pointers and the program itself is its affair. */
#ifndef TESTS_ISA_SEQUENCE_H
#define TESTS_ISA_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/isa/draft.h"
#include "tests/isa/isa.h"

enum sequence_kind {
    /* Anything: what is no instruction, what only the model has, flags the SDM leaves undefined,
     * jumps anywhere. An endless loop; a budget ends it, or a fault. */
    SEQUENCE_ANY,
    /* What the host does too, and nothing looks at flags it leaves undefined: an instruction that
     * needs them whole is preceded by one that sets them all. Ends in a fault, at last in UD2. */
    SEQUENCE_HOST,
    SEQUENCE_X87 = 2, /* or-ed in: most of it on x87 registers */
};

struct sequence {
    uint8_t code[CODE_SIZE]; /* the page of CODE_AT; zeros around the program */
    unsigned start, end;     /* of the program, in it */
    /* Of a byte that begins an instruction: the arithmetic flags that the host may have otherwise
     * in front of it. */
    uint16_t unknown[CODE_SIZE];
    /* It touches memory at several places, in an order that is the processor's own: which of them
     * faults first is not compared. */
    bool any_order[CODE_SIZE];
    bool own[CODE_SIZE]; /* bytes that the program itself may change */
};

/* At @start; @items at most, fewer when a fuzzer's bytes are used up. */
void sequence_make(struct choices *c, unsigned kind, unsigned start, unsigned items,
                   struct sequence *s);

/* Data and stack for programs, then registers: pointers into the data in RBX RBP RSI RDI R11 R12
 * R13 R15. @edges: some of them at the ends of pages, beyond, or in the program. */
void sequence_memory(struct prng *g, struct isa_state *in);
void sequence_registers(struct prng *g, const struct sequence *s, bool edges, struct isa_state *in);

/* The program and its registers, on stdout. */
void sequence_print(const struct sequence *s, const struct isa_state *in);

#endif
