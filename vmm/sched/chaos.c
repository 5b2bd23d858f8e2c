/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/chaos.c - drops, at random slice boundaries, everything that is in no section (R1).
 *
 * Determinism: the generator here influences no state. Whatever it decides, no digest changes: a
 * digest that does has found state without a section, or something derived that is stale. */
#include "base/chaos.h"
#include "vmm/sched/sections.h"
#include "vmm/sched/vm_internal.h"

enum { DROP_ONE_IN = 4, RELOAD_ONE_IN = 16 };

int chaos_boundary(struct vm *vm, struct plx_err *err)
{
    struct rbuf in;

    if (prng_below(&vm->chaos, DROP_ONE_IN) == 0) {
        for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
            vm->cfg.engine->drop(vm->pc->cpus[i].v);
        }
        chaos_did(CHAOS_DROPPED);
    }
    if (prng_below(&vm->chaos, RELOAD_ONE_IN) != 0) {
        return 0;
    }
    /* Save, power on anew, load: what no section carries is gone. */
    wbuf_clear(&vm->scratch);
    sections_save(vm, &vm->scratch);
    if (vm->scratch.failed) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for saving in place");
    }
    machine_reset(vm->m);
    rbuf_init(&in, vm->scratch.data, vm->scratch.len);
    chaos_did(CHAOS_RELOADED);
    return sections_load(vm, &in, err);
}
