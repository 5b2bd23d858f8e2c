/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/vm_internal.h - struct vm, shared by the files of vmm/sched only. */
#ifndef VMM_SCHED_VM_INTERNAL_H
#define VMM_SCHED_VM_INTERNAL_H

#include "base/prng.h"
#include "vmm/pc.h"
#include "vmm/sched/cpu_section.h"
#include "vmm/sched/rounds.h"
#include "vmm/sched/team.h"
#include "vmm/sched/vm.h"

struct digest_cache; /* digest.c */

/* One vCPU's share of a parallel part. */
struct part {
    struct vcpu *v;
    struct engine_run run;
    uint64_t done;    /* progress */
    uint64_t retired; /* before */
};

struct vm {
    struct vm_config cfg;
    struct pc *pc;
    struct machine *m; /* of pc */
    struct cpu_section cpu_sections[VCPUS_MAX];

    /* Section "sched". The clock is now + fraction / 65536 ns: what rounds leave over below a
     * nanosecond is carried on, so that time is an exact sum of progress x rate. */
    uint64_t seq;
    uint64_t now;
    uint32_t fraction; /* < 65536 */
    bool idle;         /* the last slice ended because every vCPU is halted */
    /* H over the last history and the record, of every record so far: two states that came about
     * by different records have different digests, even when no difference shows yet. */
    struct hash128 history;
    struct rounds rounds;

    /* Derived, in no section. */
    bool broken;                 /* a host error in the middle of a slice: the state is undefined */
    struct digest_cache *digest; /* page hashes */
    struct prng chaos;           /* never consulted when cfg.chaos is 0 */
    struct team *team;           /* NULL: one vCPU */
    struct part parts[VCPUS_MAX];
    bool alone;            /* the vCPU that runs is the only one that can */
    bool blocked, yielded; /* somebody in this round */
    bool woke;             /* it was when it began, and has woken another since */
    uint64_t clocked;      /* progress that moved the clock */
    struct vm_counters counters;
    struct wbuf scratch; /* a record in its binary form; sections in place (chaos) */
};

/* digest.c */
int digest_cache_create(struct vm *vm, struct plx_err *err);
void digest_cache_destroy(struct vm *vm);
/* RAM was replaced: nothing that is cached holds any more. */
void digest_cache_reset(struct vm *vm);
/* Bring the hash of every page up to date; the array has one entry a page. A zero page has a zero
 * hash. */
const struct hash128 *digest_pages(struct vm *vm);
/* H(GPA, content) of one page; zero for a page of zeros. */
struct hash128 digest_page_hash(gpa_t gpa, const uint8_t *page);

/* chaos.c: what may happen at a slice boundary. */
int chaos_boundary(struct vm *vm, struct plx_err *err);

#endif
