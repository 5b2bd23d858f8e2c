/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/fake_pc.h - a PC of one vCPU, one console and one timer, and an engine that only
 * counts: what vmm/sched does can then be told to the nanosecond.
 *
 * Stands in for vmm/pc.c and the engines, so a program that includes this links neither. */
#ifndef TESTS_UNIT_FAKE_PC_H
#define TESTS_UNIT_FAKE_PC_H

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/mem.h"
#include "vmm/cpu/msr.h"
#include "vmm/pc.h"
#include "vmm/sched/vm.h"
#include "vmm/tunables.h"

/* What the guest does when its progress reaches @at. */
enum fake_act { FAKE_HALT, FAKE_ARM, FAKE_OFF, FAKE_SHUTDOWN, FAKE_LOOK, FAKE_SPEAK };
struct fake_event {
    uint64_t at;
    enum fake_act act;
    uint64_t arg; /* FAKE_ARM: deadline */
};

static struct {
    const struct fake_event *script; /* by ascending at */
    size_t n;
    uint64_t looked[64]; /* clock at each FAKE_LOOK */
    unsigned nlooked, runs, drops, changes;
    int input_rc;
} fake;

struct pc_devices {
    struct vtimer timer;
    uint64_t fired, fired_at, typed, spoken;
};

uint64_t vcpu_now(const struct vcpu *v)
{
    uint64_t now =
        v->t0 + (uint64_t)(((__uint128_t)(v->c.progress - v->progress0) * v->rate) >> 16);

    return now < v->t_end ? now : v->t_end;
}

void jit_count(struct vcpu *const v[], unsigned n, struct jit_counters *out)
{
    (void)v, (void)n;
    *out = (struct jit_counters){0};
}

const struct shadow_counters *vcpu_mem_counters(const struct vcpu *v)
{
    static const struct shadow_counters none;

    (void)v;
    return &none;
}

void cpu_reset(struct cpu *c, unsigned id)
{
    (void)id;
    memset(c, 0, sizeof *c);
    c->rflags = FLAG_ONE | FLAG_IF;
    c->xcr0 = 1;
    c->pat = 0x0007040600070406;
    c->misc_enable = MISC_ENABLE_RESET;
    c->rng.s[0] = 1;
}

static int fake_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    (void)err;
    *out = plx_calloc(1, sizeof **out);
    (*out)->ram = cfg->ram;
    (*out)->model = cfg->model;
    cpu_reset(&(*out)->c, cfg->id);
    return 0;
}

static void fake_destroy(struct vcpu *v)
{
    plx_free(v);
}

static struct machine *fake_machine;
static struct pc_devices *fake_devices;

static enum vcpu_stop fake_do(struct vcpu *v, const struct fake_event *e)
{
    switch (e->act) {
    case FAKE_HALT:
        v->c.halted = 1;
        return VCPU_HALT;
    case FAKE_ARM:
        vtimer_arm(&fake_devices->timer, e->arg);
        return VCPU_BUDGET;
    case FAKE_OFF:
        machine_stop(fake_machine, POWER_OFF, e->arg);
        return VCPU_STOPPED;
    case FAKE_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case FAKE_SPEAK:
        machine_console_out(fake_machine, 0, fake_devices->spoken++, "x", 1);
        return VCPU_BUDGET;
    default:
        fake.looked[fake.nlooked++] = machine_now(fake_machine);
        return VCPU_BUDGET;
    }
}

/* One instruction a step: writes its count to a page that moves on, then does what is scripted. */
static void fake_run(struct vcpu *v, struct engine_run *run)
{
    fake.runs++;
    v->stop_progress = v->c.progress + run->budget;
    if (v->irq_pending) {
        v->irq_pending = false;
        v->c.halted = 0;
    }
    run->stop = v->c.halted ? VCPU_HALT : VCPU_BUDGET;
    while (!v->c.halted && v->c.progress < v->stop_progress && run->stop == VCPU_BUDGET) {
        v->c.progress++;
        v->c.retired++;
        v->c.gpr[RAX] = v->c.gpr[RAX] * 3 + v->c.progress;
        if (v->c.progress % 1024 == 0) {
            gpa_t to = 0x1000 + (v->c.progress / 1024 % 16) * PAGE_SIZE;
            (void)ram_write(v->ram, to, &v->c.gpr[RAX], sizeof v->c.gpr[RAX]);
        }
        for (size_t i = 0; i < fake.n; i++) {
            if (fake.script[i].at == v->c.progress) {
                run->stop = fake_do(v, &fake.script[i]);
            }
        }
        if (v->yield) {
            break;
        }
    }
}

static void fake_drop(struct vcpu *v)
{
    (void)v;
    fake.drops++;
}

static void fake_changed(struct vcpu *v)
{
    (void)v;
    fake.changes++;
}

static void fake_settle(struct vcpu *v)
{
    (void)v;
}

static void fake_revoke(struct vcpu *v, uint64_t page, bool all)
{
    (void)v;
    (void)page;
    (void)all;
}

static const struct engine_ops fake_engine = {.name = "fake",
                                              .create = fake_create,
                                              .destroy = fake_destroy,
                                              .run = fake_run,
                                              .drop = fake_drop,
                                              .state_changed = fake_changed,
                                              .revoke = fake_revoke,
                                              .settle = fake_settle};

static void fake_fire(void *ctx, uint64_t now)
{
    struct pc *pc = ctx;

    pc->devices->fired++;
    pc->devices->fired_at = now;
    pc->cpus[0].v->irq_pending = true;
}

static int fake_take(void *ctx, const struct input *in, struct plx_err *err)
{
    struct pc *pc = ctx;

    pc->devices->typed += in->len;
    pc->cpus[0].v->irq_pending = true;
    return fake.input_rc == 0 ? 0 : plx_fail(err, fake.input_rc, "the disk is gone");
}

static void fake_reset(void *dev)
{
    struct pc *pc = dev;

    vtimer_disarm(&pc->devices->timer);
    pc->devices->fired = pc->devices->fired_at = pc->devices->typed = pc->devices->spoken = 0;
    pc->cpus[0].v->irq_pending = false;
}

static void fake_save(const void *dev, struct wbuf *out)
{
    const struct pc *pc = dev;

    wbuf_u64(out, pc->devices->timer.deadline);
    wbuf_u64(out, pc->devices->fired);
    wbuf_u64(out, pc->devices->fired_at);
    wbuf_u64(out, pc->devices->typed);
    wbuf_u64(out, pc->devices->spoken);
    wbuf_u8(out, pc->cpus[0].v->irq_pending);
}

static int fake_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct pc *pc = dev;
    uint8_t pending;

    (void)version;
    vtimer_arm(&pc->devices->timer, rbuf_u64(in));
    pc->devices->fired = rbuf_u64(in);
    pc->devices->fired_at = rbuf_u64(in);
    pc->devices->typed = rbuf_u64(in);
    pc->devices->spoken = rbuf_u64(in);
    pending = rbuf_u8(in);
    if (in->failed || pending > 1) {
        return plx_fail(err, PLX_ECORRUPT, "fake: pending");
    }
    pc->cpus[0].v->irq_pending = pending != 0;
    return 0;
}

static const struct device_ops fake_ops = {fake_reset, fake_save, fake_load};

/* As pc.h says: a timer armed for earlier than the end of the run ends the run then, exactly. */
static void fake_sooner(void *ctx, uint64_t deadline)
{
    struct pc *pc = ctx;
    struct vcpu *v = pc->running;

    if (v != NULL && deadline < v->t_end) {
        uint64_t from = deadline > v->t0 ? deadline - v->t0 : 0;
        uint64_t stop =
            v->progress0 + (uint64_t)((((__uint128_t)from << 16) + v->rate - 1) / v->rate);
        stop = stop > v->c.progress ? stop : v->c.progress;
        v->stop_progress = stop < v->stop_progress ? stop : v->stop_progress;
    }
}

int pc_create(const struct machine_config *cfg, const struct machine_host *host,
              const struct engine_ops *engine, const struct shadow_config *shadow,
              unsigned cache_entries, struct pc **out, struct plx_err *err)
{
    struct pc *pc = plx_calloc(1, sizeof *pc);
    struct engine_config ec = {
        .vcpus = 1, .bsp = true, .shadow = shadow, .cache_entries = cache_entries};
    int rc;

    *out = NULL;
    if (pc == NULL) {
        return PLX_ENOMEM;
    }
    rc = machine_init(&pc->m, cfg, host, err);
    if (rc != 0) {
        machine_fini(&pc->m);
        plx_free(pc);
        return rc;
    }
    pc->engine = engine;
    pc->devices = plx_calloc(1, sizeof *pc->devices);
    ec.ram = pc->m.ram;
    if (pc->devices == NULL || engine->create(&ec, &pc->cpus[0].v, err) != 0) {
        plx_free(pc->devices);
        machine_fini(&pc->m);
        plx_free(pc);
        return PLX_ENOMEM;
    }
    vtimer_init(&pc->devices->timer, &pc->m.timers, fake_fire, pc);
    pc->m.timers.sooner = fake_sooner;
    pc->m.timers.sooner_ctx = pc;
    pc->m.console[0] = (struct input_port){fake_take, pc};
    machine_add_device(&pc->m, "fake", 1, &fake_ops, pc);
    fake_machine = &pc->m;
    fake_devices = pc->devices;
    *out = pc;
    return 0;
}

void pc_destroy(struct pc *pc)
{
    if (pc != NULL) {
        pc->engine->destroy(pc->cpus[0].v);
        machine_fini(&pc->m);
        plx_free(pc->devices);
        plx_free(pc);
    }
}

static inline struct vm *fake_vm(uint64_t chaos)
{
    struct vm_config cfg = {
        .machine = {.memory = 1 << 20, .vcpus = 1}, .engine = &fake_engine, .chaos = chaos};
    struct vm *vm;

    fake.runs = fake.drops = fake.changes = fake.nlooked = 0;
    fake.input_rc = 0;
    PLX_CHECK(vm_create(&cfg, &vm, NULL) == 0);
    return vm;
}

static inline void fake_play(const struct fake_event *script, size_t n)
{
    fake.script = script;
    fake.n = n;
}

#endif
