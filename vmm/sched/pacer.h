/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/pacer.h - decides when the next slice may start, and its start, span and rate (R5).
 *
 * Virtual time follows the time of the host: a VM ahead of it waits, one behind it goes at most
 * CATCH_UP_PERCENT of its speed, one that was suspended for long jumps. The rate follows the
 * measured speed of the host, so that a busy VM keeps step; where even RATE_MAX is too little, the
 * VM's time goes slower and what was lost is given up.
 *
 * Pure: host time is passed in and nothing is read. What it decides stands in the record, so none
 * of this is state of the VM. Ownership: whoever makes records. Threading: one thread. */
#ifndef VMM_SCHED_PACER_H
#define VMM_SCHED_PACER_H

#include <stdbool.h>
#include <stdint.h>

struct pacer {
    int64_t offset;    /* virtual time should be host time + offset */
    uint64_t measured; /* host ns per progress, in 1/65536; not clamped to rates */
    bool issued;       /* a slice was let go and not yet accounted for */
    uint64_t host_ns, virt_ns, progress; /* when the last slice was let go */
};

struct pacer_view {
    uint64_t host_ns;    /* now, of a clock that never goes back */
    uint64_t virt_ns;    /* vm_now */
    uint64_t progress;   /* vm_clocked */
    bool idle;           /* vm_idle */
    uint64_t next_timer; /* vm_next_timer */
    bool input;          /* there is an input for the next slice */
};

#define PACER_FOREVER UINT64_MAX

struct pacer_step {
    /* 0: run a slice now with what follows. Otherwise ask again after this many host ns, or as
     * soon as there is an input; PACER_FOREVER: only an input can wake the VM. */
    uint64_t wait_ns;
    uint64_t start_ns, span_ns;
    uint32_t rate;
    bool jump; /* the record needs an INPUT_JUMP */
};

/* From now on virtual time @virt_ns belongs to host time @host_ns. */
void pacer_init(struct pacer *p, uint64_t host_ns, uint64_t virt_ns);
/* Ask between slices. With wait_ns 0 the slice counts as started at @v->host_ns. */
void pacer_next(struct pacer *p, const struct pacer_view *v, struct pacer_step *out);

#endif
