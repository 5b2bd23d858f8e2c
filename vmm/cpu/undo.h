/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/undo.h - what the instruction under way, or the delivery of an event, did to memory in a
 * parallel part, so that it can be taken back when a later access lacks a page (R2).
 *
 * All of it is private: pages exclusive to the vCPU, and flags it owes. An instruction is known by
 * its counts of retired instructions and progress; whatever retires or faults moves one of them.
 * Registers need nothing: instructions change them last, as for faults. */
#ifndef VMM_CPU_UNDO_H
#define VMM_CPU_UNDO_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/vcpu.h"

enum { UNDO_WRITES = 128, UNDO_BYTES = 8192, UNDO_FILLS = 32 };

struct undo {
    uint64_t retired, progress; /* whose account this is */
    unsigned nwrites, nbytes, nfills;
    unsigned nowed;  /* flags owed when it began */
    bool flags;      /* accessed or dirty flags were set: translations filled since rest on them */
    bool fills_lost; /* more than fit */
    struct {
        gpa_t gpa;
        uint16_t len, at;
    } write[UNDO_WRITES];
    uint8_t bytes[UNDO_BYTES]; /* as they were */
    uint32_t fill[UNDO_FILLS];
};

/* Start over: what was noted stays. */
void undo_reset(struct undo *u);
/* The account of what @v does now. @nowed: flags it owes, if a new account begins. */
void undo_begin(struct undo *u, const struct vcpu *v, unsigned nowed);
bool undo_is_current(const struct undo *u, const struct vcpu *v);
/* Note the bytes at @hva before they change. False: no room. */
bool undo_write(struct undo *u, gpa_t gpa, const uint8_t *hva, unsigned len);
void undo_fill(struct undo *u, uint32_t slot);

#endif
