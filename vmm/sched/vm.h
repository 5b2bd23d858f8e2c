/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/vm.h - one virtual machine as a pure function of its log:
 *
 *     state', outputs = slice(state, record)
 *
 * Ownership: whoever creates a VM owns it. Threading: one thread at a time. Determinism: nothing
 * below reads a clock, a random number or a descriptor of the host; disks answer through
 * machine_host.disk_result. ARCHITECTURE.md, "Determinism", gives the rules R1-R9 cited here. */
#ifndef VMM_SCHED_VM_H
#define VMM_SCHED_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "vmm/engine/engine.h"
#include "vmm/machine.h"
#include "vmm/mmu/owner.h"
#include "vmm/mmu/shadow.h"
#include "vmm/sched/input.h"

struct vm; /* opaque */

struct vm_config {
    struct machine_config machine;
    struct machine_host host;
    const struct engine_ops *engine;
    unsigned cache_entries; /* of derived caches; 0: default. No result depends on it. */
    /* How translations are kept (vmm/mmu/shadow.h); NULL: the default. No result depends on it but
     * on lazy_ad, with several vCPUs: that is state, and a loaded state brings its own. */
    const struct shadow_config *shadow;
    uint64_t chaos;   /* not 0: seed for dropping everything droppable at random */
    unsigned threads; /* that run vCPUs; 0: one a vCPU, or a core. No result depends on it. */
};

/* A machine at reset with empty RAM and a stopped clock at 0. Then vmm/boot loads a kernel into
 * vm_machine(vm) and vm_vcpu(vm, 0), or vm_load replaces everything. On error *out is NULL. Errors:
 * those of pc_create; PLX_ENOMEM. */
int vm_create(const struct vm_config *cfg, struct vm **out, struct plx_err *err);
void vm_destroy(struct vm *vm); /* NULL is a no-op */

struct machine *vm_machine(struct vm *vm);
struct vcpu *vm_vcpu(struct vm *vm, unsigned i);

/* Run one slice. @r->seq must be vm_seq + 1 and start no earlier than vm_now; outputs are appended
 * to @out. Errors: PLX_EINVAL/PLX_ECORRUPT (the record does not fit the state), PLX_ESTATE (the VM
 * has stopped, or had a host error) and PLX_ENOMEM: nothing changed; or what disk_result returned
 * (the VM can no longer be used). */
int vm_slice(struct vm *vm, const struct record *r, struct output_list *out, struct plx_err *err);

uint64_t vm_seq(const struct vm *vm); /* of the last slice that ran; 0 at first */
uint64_t vm_now(const struct vm *vm); /* virtual ns */
/* Of the records so far (section "sched"): others give another state, even before anything else
 * differs. For tools that compare the rest of it: another in its place, which returns the old. */
struct hash128 vm_swap_history(struct vm *vm, struct hash128 history);
bool vm_idle(const struct vm *vm); /* every vCPU is halted, no interrupt pending */
/* The next armed timer, VTIMER_NEVER if none: when an idle VM must be given its next slice. */
uint64_t vm_next_timer(struct vm *vm);
bool vm_stopped(const struct vm *vm, enum power_event *event, uint64_t *code);
uint64_t vm_retired(const struct vm *vm);  /* of all vCPUs */
uint64_t vm_progress(const struct vm *vm); /* of all vCPUs */
/* Progress that moved the clock: what one vCPU made while others did the same in parallel counts
 * once. For the pacer; it begins at 0 when the VM is created. */
uint64_t vm_clocked(const struct vm *vm);

/* Are accessed and dirty flags owed (shadow_config.lazy_ad)? Of several vCPUs that is state; with
 * one nothing depends on it, and it is true. */
bool vm_lazy_ad(const struct vm *vm);

/* --- what happened since the VM was created; no state ----------------------------------------- */

struct vm_vcpu_counters {             /* how its runs ended */
    uint64_t lacks_read, lacks_write; /* a page it may not touch in parallel */
    uint64_t needs_serial;            /* a device, an IPI, its local APIC */
    uint64_t halts, yields;
};

struct vm_counters {
    uint64_t rounds_alone, rounds_parallel, rounds_shared;
    uint64_t handed_over;   /* runs of a vCPU that followed another's in a round of one alone */
    uint64_t rounds_served; /* parallel ones after which somebody had to be served */
    struct {                /* rounds by how they ended, the first of these that holds */
        uint64_t halt;      /* nobody can run on, or the VM has stopped */
        uint64_t clock;     /* a timer, or the end of the slice */
        uint64_t blocked;   /* somebody had to be served, with pages or by a device */
        uint64_t yield;     /* somebody waited in PAUSEs */
        uint64_t budget;    /* a quantum was used up, or another's turn came */
    } ended;
    uint64_t parallel_retired, serial_retired; /* instructions */
    uint64_t parts_together, waits_slept;      /* struct team_counters */
    unsigned threads;
    struct owner_counters owner;
    struct shadow_counters shadow; /* of all vCPUs */
    struct jit_counters jit;       /* likewise */
    struct vm_vcpu_counters vcpu[VCPUS_MAX];
};

void vm_counters(struct vm *vm, struct vm_counters *out);

/* --- digest.c (R9) ------------------------------------------------------------------------ */

enum { DIGEST_SECTIONS_MAX = 64 };

struct vm_digest {
    uint64_t seq;
    struct hash128 all; /* over sections and RAM */
    struct hash128 ram; /* sum over pages of H(GPA, content) */
    unsigned nsections;
    struct {
        char name[32];
        struct hash128 hash;
    } sections[DIGEST_SECTIONS_MAX];
};

struct digest_page {
    gpa_t gpa;
    struct hash128 hash;
};

/* How many pages the next digest has to scrub so that all of RAM is covered every SCRUB_NS of
 * virtual time: a function of the state and of when the last digest was taken. */
uint64_t vm_scrub_pages(const struct vm *vm);
/* Digest of the state after the last slice. Re-hashes dirty pages and the next @scrub_pages of
 * RAM. @pages (may be NULL) receives every page hashed now, in address order: equal earlier
 * digests mean that a difference is among these. Owned by the VM until the next call. */
void vm_digest(struct vm *vm, uint64_t scrub_pages, struct vm_digest *out,
               const struct digest_page **pages, size_t *npages);

/* --- state.c (ARCHITECTURE.md, "State files") ----------------------------------------------- */

/* The whole state to a file: header, machine configuration, sections, RAM (zero pages
 * left out), each with its hash. Replaces @path durably; the backends are idle (hostio_drain).
 * Errors: PLX_ESTATE (the VM had a host error), PLX_ENOMEM, those of the file. */
int vm_save(struct vm *vm, const char *path, struct plx_err *err);
/* Replace the state of a VM created with the same machine configuration. Unknown, missing,
 * truncated or corrupt sections are refused by name before anything is applied; if a section's own
 * load refuses, the VM must be destroyed. Errors: PLX_EINVAL (another machine), PLX_ENOTSUP
 * (a section of no device), PLX_ECORRUPT, PLX_ETRUNCATED, PLX_EVERSION, PLX_ENOMEM, the file's. */
int vm_load(struct vm *vm, const char *path, struct plx_err *err);
/* The machine configuration of a state file, for creating the VM to load it into. Errors likewise.
 */
int vm_load_config(const char *path, struct machine_config *cfg, struct plx_err *err);

#endif
