/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/vm.c - slices: how a record moves the state on (R4, R5).
 *
 * A slice applies its inputs, then runs rounds (rounds.c) until its span of virtual time is used
 * up or every vCPU is halted. Timers that are due fire at the start of a round. */
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/mem.h"
#include "vmm/sched/vm_internal.h"
#include "vmm/tunables.h"

enum { SCHED_VERSION = 5, CHAOS_CACHE_ENTRIES = 16 };

/* Virtual time stays below this, so that sums of times never wrap. */
#define TIME_MAX     (UINT64_MAX / 4)
#define HISTORY_SEED UINT64_C(0x686973746f727901)

/* --- section "sched" ------------------------------------------------------------------------ */

static void sched_reset(void *dev)
{
    struct vm *vm = dev;

    vm->seq = 0;
    vm->now = 0;
    vm->fraction = 0;
    vm->idle = false;
    vm->history = (struct hash128){0, 0};
    rounds_reset(&vm->rounds);
}

static void sched_save(const void *dev, struct wbuf *out)
{
    const struct vm *vm = dev;

    wbuf_u64(out, vm->seq);
    wbuf_u64(out, vm->now);
    wbuf_u32(out, vm->fraction);
    wbuf_u8(out, vm->idle);
    wbuf_u64(out, vm->history.lo);
    wbuf_u64(out, vm->history.hi);
    rounds_save(&vm->rounds, out);
}

static int sched_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct vm *vm = dev;
    uint8_t idle;
    int rc;

    if (version != SCHED_VERSION) {
        return plx_fail(err, PLX_EVERSION, "sched: section version %" PRIu32, version);
    }
    vm->seq = rbuf_u64(in);
    vm->now = rbuf_u64(in);
    vm->fraction = rbuf_u32(in);
    idle = rbuf_u8(in);
    vm->history.lo = rbuf_u64(in);
    vm->history.hi = rbuf_u64(in);
    rc = rounds_load(&vm->rounds, in, err);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "sched: section too short");
    }
    if (vm->now > TIME_MAX || vm->fraction >= RATE_ONE || idle > 1) {
        return plx_fail(err, PLX_ECORRUPT, "sched: clock %" PRIu64 "+%" PRIu32 "/65536, idle %u",
                        vm->now, vm->fraction, idle);
    }
    vm->idle = idle != 0;
    return rc;
}

static const struct device_ops sched_ops = {sched_reset, sched_save, sched_load};

/* --- life ------------------------------------------------------------------------------------ */

static uint64_t clock_now(void *ctx)
{
    const struct vm *vm = ctx;

#ifdef BREAK_R3 /* make/rules.mk: devices see the clock of the round's start */
    return vm->now;
#endif
    return vm->pc->running != NULL ? vcpu_now(vm->pc->running) : vm->now;
}

static int create_team(struct vm *vm, struct plx_err *err)
{
    unsigned vcpus = vm->m->cfg.vcpus;
    struct team_config cfg = {.threads = vm->cfg.threads, .delays = vm->cfg.chaos != 0};

    if (vcpus == 1) {
        return 0;
    }
    cfg.threads = cfg.threads == 0 ? team_cores() : cfg.threads;
    cfg.threads = cfg.threads < vcpus ? cfg.threads : vcpus;
    vm->counters.threads = cfg.threads;
    return team_create(&cfg, &vm->team, err);
}

int vm_create(const struct vm_config *cfg, struct vm **out, struct plx_err *err)
{
    struct vm *vm;
    unsigned entries = cfg->cache_entries;
    int rc;

    *out = NULL;
    vm = plx_calloc(1, sizeof *vm);
    if (vm == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    vm->cfg = *cfg;
    wbuf_init(&vm->scratch);
    if (cfg->chaos != 0) {
        prng_seed(&vm->chaos, cfg->chaos);
        entries = entries == 0 ? CHAOS_CACHE_ENTRIES : entries;
    }
    rc = pc_create(&cfg->machine, &vm->cfg.host, cfg->engine,
                   cfg->shadow != NULL ? cfg->shadow : &SHADOW_DEFAULT, entries, &vm->pc, err);
    if (rc != 0) {
        goto err_free;
    }
    vm->m = &vm->pc->m;
    vm->m->now = clock_now;
    vm->m->now_ctx = vm;
    vm->pc->on_wake = round_wake;
    vm->pc->on_wake_ctx = vm;
    for (unsigned i = 0; i < cfg->machine.vcpus; i++) {
        char name[16];
        vm->cpu_sections[i] =
            (struct cpu_section){.engine = cfg->engine, .v = vm->pc->cpus[i].v, .id = i};
        (void)snprintf(name, sizeof name, "cpu%u", i);
        machine_add_device(vm->m, name, cpu_section_version(cfg->machine.cpu), &cpu_section_ops,
                           &vm->cpu_sections[i]);
    }
    machine_add_device(vm->m, "sched", SCHED_VERSION, &sched_ops, vm);
    sched_reset(vm);
    rc = digest_cache_create(vm, err);
    if (rc != 0) {
        goto err_pc;
    }
    rc = create_team(vm, err);
    if (rc != 0) {
        goto err_digest;
    }
    *out = vm;
    return 0;

err_digest:
    digest_cache_destroy(vm);
err_pc:
    pc_destroy(vm->pc);
err_free:
    plx_free(vm);
    return rc;
}

void vm_destroy(struct vm *vm)
{
    if (vm != NULL) {
        team_destroy(vm->team);
        digest_cache_destroy(vm);
        pc_destroy(vm->pc);
        wbuf_free(&vm->scratch);
        plx_free(vm);
    }
}

struct machine *vm_machine(struct vm *vm)
{
    return vm->m;
}

struct vcpu *vm_vcpu(struct vm *vm, unsigned i)
{
    PLX_CHECK(i < vm->m->cfg.vcpus);
    return vm->pc->cpus[i].v;
}

uint64_t vm_seq(const struct vm *vm)
{
    return vm->seq;
}

uint64_t vm_now(const struct vm *vm)
{
    return vm->now;
}

struct hash128 vm_swap_history(struct vm *vm, struct hash128 history)
{
    struct hash128 old = vm->history;

    vm->history = history;
    return old;
}

bool vm_idle(const struct vm *vm)
{
    return vm->idle;
}

uint64_t vm_next_timer(struct vm *vm)
{
    return vtimers_next(&vm->m->timers);
}

bool vm_stopped(const struct vm *vm, enum power_event *event, uint64_t *code)
{
    if (vm->m->stopped && event != NULL) {
        *event = vm->m->stop_event;
    }
    if (vm->m->stopped && code != NULL) {
        *code = vm->m->stop_code;
    }
    return vm->m->stopped;
}

uint64_t vm_retired(const struct vm *vm)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        sum += vm->pc->cpus[i].v->c.retired;
    }
    return sum;
}

uint64_t vm_progress(const struct vm *vm)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        sum += vm->pc->cpus[i].v->c.progress;
    }
    return sum;
}

bool vm_lazy_ad(const struct vm *vm)
{
    return vm->pc->owner == NULL || !vm->pc->owner->eager;
}

uint64_t vm_clocked(const struct vm *vm)
{
    return vm->clocked;
}

void vm_counters(struct vm *vm, struct vm_counters *out)
{
    struct team_counters t = {0};

    if (vm->team != NULL) {
        team_counters(vm->team, &t);
    }
    *out = vm->counters;
    out->parts_together = t.together;
    out->waits_slept = t.slept;
    if (vm->pc->owner != NULL) {
        out->owner = vm->pc->owner->counters;
    }
    out->shadow = (struct shadow_counters){0};
    struct vcpu *v[VCPUS_MAX];
    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        v[i] = vm->pc->cpus[i].v;
        const struct shadow_counters *s = vcpu_mem_counters(vm->pc->cpus[i].v);
#define X(name, text) out->shadow.name += s->name;
        SHADOW_COUNTERS(X)
#undef X
    }
    jit_count(v, vm->m->cfg.vcpus, &out->jit);
}

/* --- is the record one that this state can take? ------------------------------------------- */

static bool has_device(const struct machine *m, const struct input *in)
{
    switch (in->kind) {
    case INPUT_NET_RX:
        return in->dev < NICS_MAX && m->nic[in->dev].take != NULL;
    case INPUT_CONSOLE_RX:
        return in->dev < CONSOLE_PORTS && m->console[in->dev].take != NULL;
    case INPUT_DISK_DONE:
        return in->dev < DISKS_MAX && m->disk[in->dev].take != NULL;
    case INPUT_WALLCLOCK:
        return m->wallclock.take != NULL;
    case INPUT_POWER_BUTTON:
        return m->power_button.take != NULL;
    default:
        return true;
    }
}

static int check_inputs(const struct vm *vm, const struct record *r, bool *jump,
                        struct plx_err *err)
{
    *jump = false;
    for (uint32_t i = 0; i < r->ninputs; i++) {
        const struct input *in = &r->inputs[i];
        if (in->kind == 0 || in->kind >= INPUT_KIND_END) {
            return plx_fail(err, PLX_ECORRUPT, "record %" PRIu64 ": input %u is of unknown kind %u",
                            r->seq, i, in->kind);
        }
        if (in->len > INPUT_DATA_MAX || in->status > DISK_UNSUPPORTED) {
            return plx_fail(err, PLX_ECORRUPT, "record %" PRIu64 ": input %u: length %u, status %u",
                            r->seq, i, in->len, in->status);
        }
        if (!has_device(vm->m, in)) {
            return plx_fail(err, PLX_ECORRUPT,
                            "record %" PRIu64 ": input %u is for device %u of kind %u, which this "
                            "machine does not have",
                            r->seq, i, in->dev, in->kind);
        }
        *jump = *jump || in->kind == INPUT_JUMP;
    }
    return 0;
}

/* Time may stand before a slice only while nothing could have run: up to the next armed timer of
 * an idle VM; an explicit jump may go anywhere ahead (R4, R5). */
static int check_record(struct vm *vm, const struct record *r, struct plx_err *err)
{
    uint64_t latest;
    bool jump;
    int rc;

    if (vm->broken || vm->m->stopped) {
        return plx_fail(err, PLX_ESTATE, "record %" PRIu64 ": the VM %s", r->seq,
                        vm->broken ? "had a host error" : "has stopped");
    }
    if (r->seq != vm->seq + 1) {
        return plx_fail(err, PLX_EINVAL, "record %" PRIu64 " where %" PRIu64 " was due", r->seq,
                        vm->seq + 1);
    }
    if (r->span_ns == 0 || r->span_ns > SLICE_SPAN_MAX_NS) {
        return plx_fail(err, PLX_EINVAL, "record %" PRIu64 ": span %" PRIu64 " ns", r->seq,
                        r->span_ns);
    }
    if (r->rate < RATE_MIN || r->rate > RATE_MAX) {
        return plx_fail(err, PLX_EINVAL, "record %" PRIu64 ": rate %" PRIu32, r->seq, r->rate);
    }
    rc = check_inputs(vm, r, &jump, err);
    if (rc != 0) {
        return rc;
    }
    latest = jump ? TIME_MAX : vm->now;
    if (vm->idle && !jump) {
        latest = vtimers_next(&vm->m->timers);
        latest = latest < vm->now ? vm->now : latest;
    }
    if (r->start_ns < vm->now || r->start_ns > latest || r->start_ns > TIME_MAX) {
        return plx_fail(err, PLX_EINVAL,
                        "record %" PRIu64 " starts at %" PRIu64 " ns: the clock is at %" PRIu64
                        " and may stand until %" PRIu64,
                        r->seq, r->start_ns, vm->now, latest);
    }
    return 0;
}

/* --- slices ----------------------------------------------------------------------------------- */

static void run_rounds(struct vm *vm, uint64_t end, uint32_t rate)
{
    while (!vm->m->stopped && vm->now < end) {
        uint64_t timer, until = end;
        vtimers_fire(&vm->m->timers, vm->now);
        timer = vtimers_next(&vm->m->timers);
        PLX_CHECK(timer > vm->now); /* the queue's promise: what was due has fired */
        until = timer < until ? timer : until;
#ifdef BREAK_R4 /* make/rules.mk: timers at another boundary once something was dropped */
        until = vm->cfg.chaos != 0 ? end : until;
#endif
        if (vm->m->stopped) {
            return;
        }
        if (!round_run(vm, until, rate)) {
            vm->idle = !vm->m->stopped;
            return;
        }
    }
}

/* Prepared before anything changes, so that it cannot fail half-way. */
static int next_history(struct vm *vm, const struct record *r, struct hash128 *out,
                        struct plx_err *err)
{
    wbuf_clear(&vm->scratch);
    wbuf_u64(&vm->scratch, vm->history.lo);
    wbuf_u64(&vm->scratch, vm->history.hi);
    record_encode(r, &vm->scratch);
    if (vm->scratch.failed) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for record %" PRIu64, r->seq);
    }
    *out = hash128(vm->scratch.data, vm->scratch.len, HISTORY_SEED);
    return 0;
}

int vm_slice(struct vm *vm, const struct record *r, struct output_list *out, struct plx_err *err)
{
    struct hash128 history;
    int rc = check_record(vm, r, err);

    if (rc == 0) {
        rc = next_history(vm, r, &history, err);
    }
    if (rc != 0) {
        return rc;
    }
    vm->history = history;
    vm->seq = r->seq;
    vm->idle = false;
    if (r->start_ns > vm->now) {
        vm->now = r->start_ns;
        vm->fraction = 0;
    }
#ifdef BREAK_R5 /* make/rules.mk: time that goes on with the host's clock */
    vm->now += __builtin_ia32_rdtsc() % 64;
#endif
    vm->m->out = out;
    vm->m->net_out = vm->m->console_out = 0;
    for (uint32_t i = 0; i < r->ninputs && rc == 0; i++) {
        if (r->inputs[i].kind != INPUT_JUMP && r->inputs[i].kind != INPUT_TYPED_BY) {
            rc = machine_input(vm->m, &r->inputs[i], err);
        }
    }
    if (rc == 0) {
        run_rounds(vm, r->start_ns + r->span_ns, r->rate);
    }
    if (vm->pc->owner != NULL && r->seq % OWNER_SPELL_SLICES == 0) {
        owner_settle(vm->pc->owner);
    }
    vm->m->out = NULL;
    if (rc == 0 && vm->cfg.chaos != 0) {
        rc = chaos_boundary(vm, err);
    }
    if (rc != 0) {
        vm->broken = true;
        return plx_err_wrap(err, rc, "slice %" PRIu64, r->seq);
    }
    return 0;
}
