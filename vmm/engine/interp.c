/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/interp.c - the reference engine: runs decoded instructions one after the other.
 *
 * Progress: 1 for every instruction that retires (a REP: rep.h), 1 for every attempt that ends in
 * a fault, 1 for every interrupt taken; so nothing goes on for ever without using up its budget,
 * and where a budget ends changes nothing but where run returns. */
#include "vmm/engine/interp.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/block.h"
#include "vmm/cpu/mem.h"

static void shadows_begin(struct cpu *c)
{
    c->sti_shadow = c->sti_shadow != 0 ? (uint8_t)SHADOW_EXPIRES : 0;
    c->movss_shadow = c->movss_shadow != 0 ? (uint8_t)SHADOW_EXPIRES : 0;
}

static void shadows_end(struct cpu *c)
{
    c->sti_shadow = c->sti_shadow == 1;
    c->movss_shadow = c->movss_shadow == 1;
}

static void shadows_undo(struct cpu *c)
{
    c->sti_shadow = c->sti_shadow != 0;
    c->movss_shadow = c->movss_shadow != 0;
}

static inline void execute(struct vcpu *v, const struct insn *in)
{
    v->cur = in;
    v->next_rip = v->c.rip + in->len;
    in->fn(v, in);
    v->c.rip = v->next_rip;
    v->c.retired++;
    v->c.progress++;
}

/* One instruction under a shadow, TF, RF or breakpoints. */
static int step(struct vcpu *v)
{
    bool stepping = exc_must_step(v);
    unsigned n;
    int rc = 0;

    shadows_begin(&v->c);
    if (stepping) {
        exc_step_before(v);
    }
    execute(v, block_at(v, &n));
    v->cur = NULL;
    shadows_end(&v->c);
    if (stepping) {
        rc = exc_step_after(v);
        v->step_tf = v->step_rf = false;
    }
    return rc;
}

const struct insn *interp_block(struct vcpu *v, const struct insn *in, unsigned n)
{
    uint64_t left = v->stop_progress - v->c.progress;
    const struct insn *end = in + (n < left ? n : left);

    do {
        execute(v, in);
    } while (++in != end && !v->attention);
    return in - 1;
}

void interp_run_blocks(struct vcpu *v)
{
    const struct insn *last;
    unsigned n;

    if (PLX_UNLIKELY(v->trace != NULL)) {
        (void)interp_block(v, block_at(v, &n), 1);
        return;
    }
    do {
        const struct insn *first = block_at(v, &n);
        last = interp_block(v, first, n);
    } while (interp_goes_on(v, last));
}

/* Parallel part: an interrupt that only the vCPU's own LAPIC knows of. It is delivered before it is
 * taken, since delivery may have to stop. Others wait for the serial part. */
static int take_own_interrupt(struct vcpu *v)
{
    int vector = v->ops->irq_peek == NULL ? 0 : v->ops->irq_peek(v->ops_ctx);
    int rc;

    if (vector == 0) {
        return VCPU_SERIAL;
    }
    rc = exc_deliver_interrupt(v, (unsigned)vector);
    if (!vcpu_blocks(rc)) {
        PLX_CHECK(v->ops->irq_take(v->ops_ctx) == vector);
    }
    return rc;
}

/* An event to take now? Sets *rc to the result of its delivery. */
static bool take_event(struct vcpu *v, int *rc)
{
    struct cpu *c = &v->c;

    if (c->movss_shadow != 0) {
        return false;
    }
    if (c->nmi_pending != 0 && c->nmi_blocked == 0) {
        *rc = exc_deliver_nmi(v);
    } else if (v->irq_pending && (c->rflags & FLAG_IF) != 0 && c->sti_shadow == 0) {
        if (v->parallel) {
            *rc = take_own_interrupt(v);
        } else {
            int vector = v->ops->irq_take(v->ops_ctx);
            if (vector < 0) {
                return false;
            }
            *rc = exc_deliver_interrupt(v, (unsigned)vector);
        }
    } else {
        return false;
    }
    if (vcpu_blocks(*rc)) {
        return true;
    }
    c->halted = 0;
    c->sti_shadow = 0;
    c->progress++;
    return true;
}

static bool wakes(const struct vcpu *v)
{
    return (v->c.nmi_pending != 0 && v->c.nmi_blocked == 0) ||
           (v->irq_pending && (v->c.rflags & FLAG_IF) != 0);
}

/* What was executed in one piece is over, or has faulted. */
static void give_withheld(struct vcpu *v)
{
    v->stop_progress += v->withheld;
    v->withheld = 0;
}

static enum vcpu_stop loop(struct vcpu *v)
{
    struct cpu *c = &v->c;

    for (;;) {
        int rc = 0;

        v->cur = NULL;
        v->attention = false;
        if (c->rip > UINT32_MAX && !cpu_is64(c)) {
            c->rip &= UINT32_MAX; /* ran past the end of 4 GiB */
        }
        if (PLX_UNLIKELY(v->init_pending)) {
            v->init_pending = false;
            v->ops->init(v->ops_ctx);
        }
        if (v->stopping) {
            return VCPU_STOPPED;
        }
        if (v->yield) {
            v->yield = false;
            return VCPU_YIELD;
        }
        if (c->wait_sipi != 0 || (c->halted != 0 && !wakes(v))) {
            return VCPU_HALT;
        }
        if (c->progress >= v->stop_progress) {
            return VCPU_BUDGET;
        }
        if (!(v->irq_pending || c->nmi_pending != 0) || !take_event(v, &rc)) {
            if (c->halted != 0) {
                return VCPU_HALT; /* the interrupt was none after all */
            }
            if (PLX_UNLIKELY(exc_must_step(v) || (c->sti_shadow | c->movss_shadow) != 0)) {
                if (v->parallel && ((c->rflags & FLAG_TF) != 0 || v->debug)) {
                    return VCPU_SERIAL; /* a trap after the instruction cannot wait for pages */
                }
                rc = step(v);
            } else {
                v->run_blocks(v);
                give_withheld(v);
            }
        }
        if (PLX_UNLIKELY(v->trace != NULL) && !vcpu_blocks(rc)) {
            v->trace(v->trace_ctx, v);
        }
        if (PLX_UNLIKELY(rc != 0)) {
            return (enum vcpu_stop)rc;
        }
    }
}

static void run_to_stop(struct vcpu *v, struct engine_run *run)
{
    v->t0 = run->t0;
    v->t_end = run->t_end;
    v->rate = run->rate;
    v->alone = run->alone;
    v->until_user = run->until_user;
    v->parallel = run->part == PART_PARALLEL;
    v->progress0 = v->c.progress;
    v->stop_progress = v->c.progress + run->budget;
    blocks_select(v);
    vcpu_mem_begin(v);
    if (setjmp(v->fault_jmp) != 0) {
        give_withheld(v);
        if (v->fault_kind == FAULT_STOP) {
            shadows_undo(&v->c);
            v->cur = NULL;
            v->step_tf = v->step_rf = false;
            run->stop = v->stop;
            if (v->trace != NULL) { /* part of a translation may be behind it */
                v->trace(v->trace_ctx, v);
            }
            return;
        }
        v->cur = NULL;
        v->step_tf = v->step_rf = false;
        int rc = exc_deliver_fault(v);
        if (vcpu_blocks(rc)) {
            shadows_undo(&v->c);
        } else {
            shadows_end(&v->c);
            v->c.progress++;
            if (v->trace != NULL) {
                v->trace(v->trace_ctx, v);
            }
        }
        if (rc != 0) {
            run->stop = (enum vcpu_stop)rc;
            return;
        }
    }
    run->stop = loop(v);
}

void interp_run(struct vcpu *v, struct engine_run *run)
{
    run_to_stop(v, run);
    if (vcpu_blocks(run->stop)) {
        vcpu_mem_undo(v);
    }
}

static void watch_written(void *ctx, gpa_t gpa, uint64_t len, bool flags)
{
    struct vcpu *v = ctx;
    uint64_t page;

    if (ram_page_of(v->ram, gpa, &page) && (v->use[page] & (USE_TABLE | USE_ANY_CODE)) != 0) {
        vcpu_mem_written(v, gpa, len, flags);
        blocks_written(v, gpa, len);
    }
}

static void watch_cleaned(void *ctx)
{
    vcpu_mem_drop_writes(ctx);
}

static bool watch_derived(void *ctx, uint64_t page)
{
    const struct vcpu *v = ctx;

    return (v->use[page] & (USE_TABLE | USE_ANY_CODE)) != 0;
}

static void watch_deriving(void *ctx, uint64_t page)
{
    vcpu_mem_not_now(ctx, page);
}

static void interp_destroy(struct vcpu *v)
{
    if (v != NULL) {
        ram_unwatch(v->ram, v);
        vcpu_blocks_destroy(v);
        vcpu_mem_destroy(v);
        plx_free(v);
    }
}

void interp_state_changed(struct vcpu *v)
{
    vcpu_mem_drop_all(v);
    vcpu_context_changed(v);
    exc_debug_update(v);
    vcpu_mem_select(v);
}

static int interp_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    struct vcpu *v = plx_calloc(1, sizeof *v);

    *out = NULL;
    if (v == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    v->id = cfg->id;
    v->vcpus = cfg->vcpus;
    v->model = cfg->model;
    v->ram = cfg->ram;
    v->owner = cfg->owner;
    v->ops = cfg->ops;
    v->ops_ctx = cfg->ops_ctx;
    v->run_blocks = interp_run_blocks;
    if (vcpu_mem_create(v, cfg->cache_entries, cfg->shadow) != 0 ||
        vcpu_blocks_create(v, cfg->common, cfg->cache_entries) != 0) {
        interp_destroy(v);
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    ram_watch(v->ram, &(struct ram_watcher){watch_written, watch_cleaned, watch_derived,
                                            watch_deriving, v});
    cpu_reset(&v->c, cfg->id);
    v->c.wait_sipi = !cfg->bsp;
    interp_state_changed(v);
    *out = v;
    return 0;
}

void interp_drop(struct vcpu *v)
{
    vcpu_mem_drop_all(v);
    vcpu_blocks_drop_all(v);
}

void interp_revoke(struct vcpu *v, uint64_t page, bool all)
{
    vcpu_mem_revoke(v, page, all);
}

void interp_settle(struct vcpu *v)
{
    vcpu_mem_settle(v);
}

const struct engine_ops engine_interp = {
    .name = "interp",
    .create = interp_create,
    .destroy = interp_destroy,
    .run = interp_run,
    .drop = interp_drop,
    .state_changed = interp_state_changed,
    .revoke = interp_revoke,
    .settle = interp_settle,
};
