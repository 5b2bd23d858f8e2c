/* SPDX-License-Identifier: Apache-2.0
 * vmm/pc.h - the PC: a machine with its vCPUs, interrupt controllers, timers and legacy devices.
 *
 * Where everything is stands in vmm/abi/pc_layout.h. Ownership: the caller of pc_create owns the
 * PC, which owns its machine, vCPUs and devices. Threading: the serial part, or between slices.
 * Determinism: every device has a section; vCPU registers are saved by whoever owns "cpuN". */
#ifndef VMM_PC_H
#define VMM_PC_H

#include "base/err.h"
#include "vmm/cpu/block.h"
#include "vmm/engine/engine.h"
#include "vmm/machine.h"
#include "vmm/mmu/owner.h"

struct pc_devices; /* opaque: the devices on the board */

/* What one vCPU is wired to. */
struct pc_cpu {
    struct pc *pc;
    struct vcpu *v;
    struct lapic *lapic;
};

struct pc {
    struct machine m;
    const struct engine_ops *engine;
    struct pc_cpu cpus[VCPUS_MAX]; /* m.cfg.vcpus of them */
    struct code_common code;       /* with several: what they run in serial parts */
    /* The vCPU that runs now (its clock is what the devices see), NULL outside of a run. Set by
     * whoever drives the PC. While it is set, a timer armed for earlier than the end of the run
     * ends the run at that time, exactly, by lowering vcpu.stop_progress. */
    struct vcpu *running;
    /* Told when an interrupt, NMI or start-up IPI reached @target while another vCPU runs. Set by
     * whoever drives the PC; may be NULL. */
    void (*on_wake)(void *ctx, struct vcpu *target);
    void *on_wake_ctx;
    struct owner *owner; /* of RAM's pages; NULL: a PC with one vCPU */
    struct pc_devices *devices;
};

/* A PC after power-on: devices at reset, RAM zero, vCPU 0 at its reset vector. @host and what
 * it points to outlive the PC. Errors: those of machine_init, PLX_ENOMEM, of the engine's create.
 */
int pc_create(const struct machine_config *cfg, const struct machine_host *host,
              const struct engine_ops *engine, const struct shadow_config *shadow,
              unsigned cache_entries, struct pc **out, struct plx_err *err);
void pc_destroy(struct pc *pc); /* NULL is a no-op */

#endif
