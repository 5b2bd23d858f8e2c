/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/draft.h - single instructions by choice, for programs (sequence.h). */
#ifndef TESTS_ISA_DRAFT_H
#define TESTS_ISA_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/prng.h"

/* Where choices come from: the bytes of a fuzzer as long as there are any, then @g. */
struct choices {
    const uint8_t *bytes; /* NULL: @g alone */
    size_t left;
    struct prng g;
};
uint64_t choose(struct choices *c, uint64_t n); /* 0 .. n-1 */
bool one_in(struct choices *c, unsigned n);

/* Bytes with room for 15 and an immediate, which is not drafted. */
struct bytes {
    uint8_t b[32];
    unsigned n;
    unsigned relative_at; /* of an address that is to be one from RIP; 0: none */
    unsigned vex_at;      /* of C4 or C5, if it is VEX-encoded */
};

enum draft_kind {
    DRAFT_ANY,
    DRAFT_SSE, /* of pollux-v3 most are VEX-encoded */
    DRAFT_INTEGER,
    DRAFT_X87,
};

/* What need not be an instruction. @odd: of VEX, other bits too than a register, a length or a
 * width. */
void draft(struct choices *c, enum draft_kind kind, bool odd, struct bytes *o);

#endif
