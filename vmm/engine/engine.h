/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/engine.h - what an engine is: something that runs one vCPU up to an exact budget.
 *
 * interp (the reference) and jit fill struct engine_ops; switch is both by turns. A context is a
 * struct vcpu. Ownership: the VM owns the contexts, and what they borrow outlives them. Threading:
 * one thread runs a context at a time; other ops in serial parts or between slices. Determinism:
 * only vcpu.c is state, and run leaves it the same whatever the engine (R9). */
#ifndef VMM_ENGINE_ENGINE_H
#define VMM_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/mmu/shadow.h"

struct engine_config {
    unsigned id;    /* vCPU number, also its APIC id */
    unsigned vcpus; /* of the whole VM */
    enum cpu_model model;
    bool bsp; /* bootstrap processor; others start in wait_sipi */
    struct ram *ram;
    struct owner *owner;        /* borrowed; NULL: the only vCPU */
    struct code_common *common; /* borrowed; NULL: likewise */
    const struct vcpu_ops *ops;
    void *ops_ctx;
    const struct shadow_config *shadow; /* NULL: the default */
    unsigned cache_entries; /* of every derived cache; 0: the default. Never changes a result. */
};

enum engine_part { PART_SERIAL, PART_PARALLEL };

struct engine_run {
    /* in */
    uint64_t budget; /* progress, > 0 */
    enum engine_part part;
    uint64_t t0, t_end; /* virtual ns at the start; no view of time passes t_end */
    uint32_t rate;      /* virtual ns per progress, in 1/65536 */
    bool alone;         /* the only runnable vCPU: PAUSE does not yield */
    bool until_user;    /* stop, as if the budget were used up, once ring 3 is entered */
    /* out */
    enum vcpu_stop stop;
};

struct engine_ops {
    const char *name;
    /* On error *out is NULL. Errors: PLX_ENOMEM. */
    int (*create)(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err);
    void (*destroy)(struct vcpu *v); /* NULL is a no-op */
    /* Runs until the budget is used up exactly or there is a reason to stop earlier. A pending
     * interrupt is taken at the first boundary that permits it. Never fails: what the guest does
     * wrong is the guest's fault. */
    void (*run)(struct vcpu *v, struct engine_run *run);
    /* Drop everything droppable; changes no result (R1). */
    void (*drop)(struct vcpu *v);
    /* v->c was replaced from outside (load, reset). */
    void (*state_changed)(struct vcpu *v);
    /* Serial part: the vCPU lost the right to write @page of RAM and, if @all, the right to read
     * it: what was made under these rights goes, at the latest when the vCPU runs again. */
    void (*revoke)(struct vcpu *v, uint64_t page, bool all);
    /* Serial part, after a parallel one: store the accessed and dirty flags that the vCPU owes
     * (R7). Called for the vCPUs in their order. */
    void (*settle)(struct vcpu *v);
};

extern const struct engine_ops engine_interp; /* the reference */
extern const struct engine_ops engine_jit;    /* translates (vmm/engine/jit.h) */

/* Both by turns: changes at random between two runs of a vCPU. For tests: nothing may depend on it.
 */
extern const struct engine_ops engine_switch;

/* What the translator left to the interpreter, in instructions. No state. */
enum { JIT_FORMS_TOP = 12 };

struct jit_counters {
    uint64_t called;      /* called from translated code: their form is not translated */
    uint64_t missed;      /* called from there: it is, but not for what they met */
    uint64_t interpreted; /* in blocks not worth a translation yet, or longer than the budget */
    struct {
        const char *mnemonic; /* NULL: there are no more */
        uint64_t called;
    } top[JIT_FORMS_TOP]; /* the mnemonics that are called most */
};

/* Of @n vCPUs together; those of other engines count nothing. */
void jit_count(struct vcpu *const v[], unsigned n, struct jit_counters *out);

/* The mnemonics as "NAME=CALLED ..." in @text, which is returned. */
enum { JIT_FORMS_TEXT = JIT_FORMS_TOP * 48 };
char *jit_forms_text(const struct jit_counters *c, char *text, size_t size);

/* From now on note where translated code is in /tmp/perf-PID.map, where perf looks for its names.
 * Called once, before vCPUs are created. Errors: PLX_EIO: the file cannot be made. */
int jit_perf_map(struct plx_err *err);

/* The engine of that name; "auto" is the fastest that is exact on this host. NULL: there is none.
 */
const struct engine_ops *engine_find(const char *name);

#endif
