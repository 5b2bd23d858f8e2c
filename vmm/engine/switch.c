/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/switch.c - both engines by turns (R9): a vCPU of the translator's, whose runs are
 * interpreted or translated at random.
 *
 * All that is state is in struct cpu at the end of every run, and what is derived from it (shadow
 * tables, decoded blocks) is kept by code that both share; so nothing is handed over. Translations
 * stay while the interpreter runs, and stores of its must drop them as their own would.
 *
 * Threading: as the vCPU. Determinism: the choice is no state and may not matter. It is seeded by
 * the vCPU's number, so a failure comes again with the same log. */
#include "vmm/engine/interp.h"
#include "vmm/engine/jit.h"

enum { SWITCH_ONE_IN = 4 };

static int switch_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    int rc = engine_jit.create(cfg, out, err);

    if (rc == 0) {
        prng_seed(&(*out)->own.jit->choice, cfg->id);
    }
    return rc;
}

static void switch_destroy(struct vcpu *v)
{
    engine_jit.destroy(v);
}

static void switch_run(struct vcpu *v, struct engine_run *run)
{
    if (prng_below(&v->own.jit->choice, SWITCH_ONE_IN) == 0) {
        v->run_blocks = v->run_blocks == jit_run_blocks ? interp_run_blocks : jit_run_blocks;
    }
    engine_jit.run(v, run);
}

const struct engine_ops engine_switch = {
    .name = "switch",
    .create = switch_create,
    .destroy = switch_destroy,
    .run = switch_run,
    .drop = interp_drop,
    .state_changed = interp_state_changed,
    .revoke = interp_revoke,
    .settle = interp_settle,
};
