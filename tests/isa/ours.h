/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/ours.h - a machine to run instructions of ring 3 on, by an engine: pages as in isa.h,
 * exceptions end in ring 0, in a HLT. Ownership: who opened it. */
#ifndef TESTS_ISA_OURS_H
#define TESTS_ISA_OURS_H

#include "tests/isa/isa.h"

/* Not vmm/engine/engine.h: it cannot stand beside the system's headers of processes. */
struct engine_ops;
extern const struct engine_ops engine_interp, engine_jit;

struct ours {
    const struct engine_ops *engine;
    struct ram *ram;
    struct vcpu *vcpu;
    struct cpu *clean; /* state in front of any step */
};

/* @cache_entries: of every derived cache; 0: the default. */
void ours_open(struct ours *o, const struct engine_ops *engine, unsigned cache_entries);
void ours_close(struct ours *o);
/* Nothing that ran before shows in what runs next, nor in how it is translated. */
void ours_forget(struct ours *o);

/* One instruction. */
void ours_step(struct ours *o, enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
               const struct isa_state *in, struct isa_outcome *out);

/* A program (64-bit): bytes into code, data or stack, then the registers it starts with; or all of
 * that at once; then as much progress as wanted. */
void ours_write(struct ours *o, uint64_t at, const void *bytes, uint64_t len);
void ours_start(struct ours *o, const struct isa_state *in);
void ours_begin(struct ours *o, const uint8_t code[CODE_SIZE], const struct isa_state *in);
int ours_run(struct ours *o, uint64_t budget); /* enum vcpu_stop; 0: the budget is used up */
struct ours_at {
    uint64_t rip, retired, progress;
} ours_at(const struct ours *o);
/* An exception has ended it. */
bool ours_ended(const struct ours *o);
const uint8_t *ours_code(const struct ours *o);
void ours_state(const struct ours *o, struct isa_state *out);
/* State and exception; the program is then over. */
void ours_outcome(struct ours *o, struct isa_outcome *out);
/* Registers and memory, that of page tables too. */
bool ours_equal(const struct ours *a, const struct ours *b);
/* Everything: the section of the vCPU, and all of RAM with the page tables. */
struct hash128 ours_digest(const struct ours *o);

#endif
