/* SPDX-License-Identifier: Apache-2.0
 * replica/trace.h - what every vCPU of a VM executed, instruction by instruction, or (translated
 * code) a translation at a time.
 *
 * Ownership: the caller of trace_begin. Threading: begin, end and the rest between slices; the VM's
 * own threads fill it, each vCPU its own list, which ends where memory does. Determinism: changes
 * nothing. */
#ifndef REPLICA_TRACE_H
#define REPLICA_TRACE_H

#include <stdio.h>

#include "vmm/sched/vm.h"

struct trace; /* opaque */

/* Note everything from now on, and the registers as they are. Errors: PLX_ENOMEM. */
int trace_begin(struct vm *vm, struct trace **out, struct plx_err *err);
/* No longer. The VM must outlive trace_report, which reads code from its memory. */
void trace_end(struct trace *t);
void trace_free(struct trace *t); /* NULL is a no-op */

struct trace_difference {
    unsigned vcpu;
    bool began;     /* false: it differs before it executes anything; else: */
    size_t from[2]; /* of each trace, the last state that is the same in both */
    size_t to[2];   /* the first one that is not */
    uint64_t rip;   /* linear address of the instruction executed at @from */
};

/* The first difference, by virtual time; the states of a vCPU are compared wherever both traces
 * have one at the same progress. False: there is none. */
bool trace_compare(const struct trace *a, const struct trace *b, struct trace_difference *out);
/* The instruction and both states, side by side. */
void trace_report(struct trace *const t[2], const struct trace_difference *d,
                  const char *const name[2], FILE *to);

#endif
