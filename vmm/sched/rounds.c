/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/rounds.c - see rounds.h.
 *
 * A round is one of three:
 *   alone     one vCPU can run: it runs serially, nothing blocks, nothing is waited for; another
 *             that it wakes may follow it within the round;
 *   parallel  several can: all run at once under the ownership of pages, each up to its budget;
 *             then those that met something they may not do alone are served one after the other;
 *   shared    several can, but do so little at once that they had better take turns. */
#include "vmm/sched/rounds.h"

#include "base/check.h"
#include "vmm/dev/section.h"
#include "vmm/sched/vm_internal.h"
#include "vmm/tunables.h"

enum { AVERAGE_SHARE = 8, QUANTUM_STEP = 8 };

/* --- state ------------------------------------------------------------------------------------ */

void rounds_reset(struct rounds *r)
{
    *r = (struct rounds){.quantum = PAR_QUANTUM_MIN,
                         .shared_next = SHARED_ROUNDS_MIN,
                         .probing = PAR_PROBES,
                         .next_left = TURN_QUANTUM + TURN_GRACE};
    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        r->burst[i] = BURST_MIN;
    }
}

void rounds_save(const struct rounds *r, struct wbuf *out)
{
    wbuf_u32(out, r->turn);
    wbuf_u32(out, r->quantum);
    wbuf_u32(out, (uint32_t)r->score);
    wbuf_u32(out, r->shared_left);
    wbuf_u32(out, r->shared_next);
    wbuf_u8(out, r->next);
    wbuf_u32(out, r->next_left);
    wbuf_u8(out, r->probing);
    wbuf_u8(out, r->calm);
    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        wbuf_u32(out, r->burst[i]);
        wbuf_u8(out, r->relay[i]);
    }
}

int rounds_load(struct rounds *r, struct rbuf *in, struct plx_err *err)
{
    int rc = 0;

    r->turn = rbuf_u32(in);
    r->quantum = rbuf_u32(in);
    r->score = (int32_t)rbuf_u32(in);
    r->shared_left = rbuf_u32(in);
    r->shared_next = rbuf_u32(in);
    r->next = rbuf_u8(in);
    r->next_left = rbuf_u32(in);
    r->probing = rbuf_u8(in);
    r->calm = rbuf_u8(in);
    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        r->burst[i] = rbuf_u32(in);
        r->relay[i] = rbuf_u8(in);
    }
    if (in->failed) {
        return 0;
    }
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"sched: quantum", r->quantum >= PAR_QUANTUM_MIN && r->quantum <= PAR_QUANTUM_LIMIT,
         r->quantum},
        {"sched: score", r->score >= -PAR_SCORE_MAX && r->score <= PAR_SCORE_MAX,
         (uint32_t)r->score},
        {"sched: time sharing", r->shared_left <= SHARED_ROUNDS_MAX, r->shared_left},
        {"sched: next time sharing",
         r->shared_next >= SHARED_ROUNDS_MIN && r->shared_next <= SHARED_ROUNDS_MAX,
         r->shared_next},
        {"sched: whose turn", r->next < VCPUS_MAX, r->next},
        {"sched: left of a turn", r->next_left != 0 && r->next_left <= TURN_QUANTUM + TURN_GRACE,
         r->next_left},
        {"sched: probes", r->probing <= PAR_PROBES, r->probing},
        {"sched: calm", r->calm <= 1, r->calm},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    for (unsigned i = 0; rc == 0 && i < VCPUS_MAX; i++) {
        rc = section_field("sched: burst", r->burst[i] >= BURST_MIN && r->burst[i] <= BURST_MAX,
                           r->burst[i], err);
        if (rc == 0) {
            rc = section_field("sched: relay", r->relay[i] <= RELAY_WAKES, r->relay[i], err);
        }
    }
    return rc;
}

/* --- the clock (R5) --------------------------------------------------------------------------- */

/* The least progress after which the clock is at @until or later. */
static uint64_t progress_until(const struct vm *vm, uint64_t until, uint32_t rate)
{
    __uint128_t ticks;

    if (until <= vm->now) {
        return 0;
    }
    ticks = ((__uint128_t)(until - vm->now) << 16) - vm->fraction;
    return (uint64_t)((ticks + rate - 1) / rate);
}

static void advance_clock(struct vm *vm, uint64_t progress, uint32_t rate)
{
    __uint128_t ticks = (__uint128_t)progress * rate + vm->fraction;

    vm->clocked += progress;
    vm->now += (uint64_t)(ticks >> 16);
    vm->fraction = (uint32_t)(ticks & (RATE_ONE - 1));
}

/* --- one vCPU --------------------------------------------------------------------------------- */

/* Would it execute, or take an event, if it were run? */
static bool can_run(const struct vcpu *v)
{
    const struct cpu *c = &v->c;

    if (c->wait_sipi != 0) {
        return false;
    }
    return c->halted == 0 || (c->nmi_pending != 0 && c->nmi_blocked == 0) ||
           (v->irq_pending && (c->rflags & FLAG_IF) != 0);
}

/* What is derived from the clock and told to @v before it runs. */
static void prepare(const struct vm *vm, struct vcpu *v, struct engine_run *run)
{
    run->t0 = vm->now;
    run->t_end = vm->now + (uint64_t)(((__uint128_t)run->budget * run->rate) >> 16);
    v->t0 = run->t0;
    v->t_end = run->t_end;
    v->rate = run->rate;
    v->progress0 = v->c.progress;
    v->yield = false;
}

static bool blocked(enum vcpu_stop stop)
{
    return stop == VCPU_SERIAL || stop == VCPU_PAGES;
}

static void count_stop(struct vm *vm, const struct vcpu *v, enum vcpu_stop stop)
{
    struct vm_vcpu_counters *c = &vm->counters.vcpu[v->id];

    vm->blocked = vm->blocked || blocked(stop);
    vm->yielded = vm->yielded || stop == VCPU_YIELD;
    if (stop == VCPU_SERIAL) {
        c->needs_serial++;
    } else if (stop == VCPU_PAGES) {
        c->lacks_read += !v->lack.write;
        c->lacks_write += v->lack.write;
    } else if (stop == VCPU_HALT) {
        c->halts++;
    } else if (stop == VCPU_YIELD) {
        c->yields++;
    }
}

/* Run @v in the serial part as @run says; the clock goes on with it. Returns its progress. */
static uint64_t run_serial(struct vm *vm, struct vcpu *v, struct engine_run run,
                           enum vcpu_stop *stop)
{
    uint64_t retired = v->c.retired, done;

#ifdef BREAK_R1 /* make/rules.mk: a budget that depends on something that is no state */
    run.budget += vm->cfg.cache_entries % 3;
#endif
    prepare(vm, v, &run);
    vm->pc->running = v;
    vm->cfg.engine->run(v, &run);
    vm->pc->running = NULL;
    done = v->c.progress - v->progress0;
    PLX_CHECK(done <= run.budget);
    advance_clock(vm, done, run.rate);
    vm->counters.serial_retired += v->c.retired - retired;
    count_stop(vm, v, run.stop);
    if (run.stop == VCPU_SHUTDOWN) {
        machine_stop(vm->m, POWER_TRIPLE_FAULT, 0);
    }
    *stop = run.stop;
    return done;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- alone ------------------------------------------------------------------------------------ */

/* The only vCPU that could run beside @v; NULL: there is none, or there are several. */
static struct vcpu *other(const struct vm *vm, const struct vcpu *v)
{
    struct vcpu *found = NULL;

    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        if (i != v->id && can_run(vm->pc->cpus[i].v)) {
            if (found != NULL) {
                return NULL;
            }
            found = vm->pc->cpus[i].v;
        }
    }
    return found;
}

/* Two vCPUs of which one has woken the other and waits, with nobody else to run. */
struct relay {
    uint64_t left; /* progress until both had better run as any two; 0: one vCPU is alone */
    bool waker;    /* it is the waker's turn, to let go of what the other needs */
};

/* @v has stopped while @next could run. Does that one follow in this round? */
static bool hand_over(struct vm *vm, struct relay *relay, const struct vcpu *v, uint64_t done)
{
    uint8_t *wakes = &vm->rounds.relay[v->id];

    if (!can_run(v)) {
        if (vm->woke && *wakes == 0) {
            *wakes = RELAY_WAKES;
        }
        relay->left = 0;
    } else if (relay->left == 0) {
        if (*wakes == 0) {
            return false;
        }
        --*wakes;
        *relay = (struct relay){.left = RELAY_TURN};
    } else if (relay->left <= done) {
        return false;
    } else {
        relay->left -= done;
        relay->waker = !relay->waker;
    }
    return true;
}

static bool round_alone(struct vm *vm, struct vcpu *v, uint64_t until, uint32_t rate)
{
    struct relay relay = {0};
    uint64_t left = ROUND_QUANTUM;
    bool moved = false;

    vm->counters.rounds_alone++;
    while (v != NULL && !vm->m->stopped) {
        uint64_t budget = min_u64(progress_until(vm, until, rate), left), done;
        enum vcpu_stop stop;

        if (relay.left != 0) {
            budget = min_u64(budget, relay.waker ? WAKE_GRACE : relay.left);
        }
        if (budget == 0) {
            break;
        }
        vm->alone = relay.left == 0;
        vm->woke = false;
        done = run_serial(
            vm, v, (struct engine_run){.budget = budget, .rate = rate, .alone = vm->alone}, &stop);
        vm->alone = false;
        moved = moved || done != 0 || stop != VCPU_HALT;
        left -= min_u64(done, left);
        until = min_u64(until, vm->m->timers.earliest); /* what it may have armed */
        struct vcpu *next = other(vm, v);
        v = next != NULL && hand_over(vm, &relay, v, done) ? next : NULL;
        vm->counters.handed_over += v != NULL;
    }
    return moved;
}

/* The only vCPU that could run has woken another. It goes on for a moment: either for no longer
 * than it needs to let go of locks, or so long that it shows whether it halts of its own accord.
 * But it is no longer alone. */
void round_wake(void *ctx, struct vcpu *target)
{
    struct vm *vm = ctx;
    struct vcpu *v = vm->pc->running;
    uint64_t grace;

    if (!vm->alone || !can_run(target)) {
        return;
    }
    grace = vm->rounds.relay[v->id] != 0 ? WAKE_GRACE : WAKE_PROBE;
    vm->woke = true;
    v->alone = false;
    vcpu_end_at(v, v->c.progress + grace);
}

/* --- turns: serially, one after the other ------------------------------------------------------
 */

/* @v goes on until the turn, of which @left remains, is over. A turn that is used up ends as soon
 * as @v is in user mode, where it holds no lock of the kernel for which others would wait, within
 * TURN_GRACE. Returns what the clock leaves of it, 0 if it is over. */
static uint32_t run_turn(struct vm *vm, struct vcpu *v, uint32_t left, uint64_t until,
                         uint32_t rate, bool *moved)
{
    enum vcpu_stop stop = VCPU_BUDGET;

    while (stop == VCPU_BUDGET && left != 0 && !vm->m->stopped) {
        bool grace = left <= TURN_GRACE;
        uint64_t room = progress_until(vm, min_u64(until, vm->m->timers.earliest), rate);
        struct engine_run run = {.rate = rate, .until_user = grace};

        if (grace && cpu_cpl(&v->c) == 3) {
            *moved = true;
            return 0;
        }
        if (room == 0) {
            return left;
        }
        run.budget = min_u64(room, grace ? left : left - TURN_GRACE);
        uint64_t done = run_serial(vm, v, run, &stop);
        *moved = *moved || done != 0 || stop != VCPU_HALT;
        left -= (uint32_t)done;
    }
    return stop == VCPU_YIELD && vm->m->timers.earliest <= vm->now ? left : 0;
}

/* A whole turn, grace included. */
static uint32_t whole_turn(uint32_t rate)
{
    return (uint32_t)min_u64(TURN_QUANTUM, (TURN_SPAN_NS << 16) / rate) + TURN_GRACE;
}

/* A turn for each of @set. What the clock cuts short goes on in the next round of this kind. */
static bool round_shared(struct vm *vm, uint32_t set, uint64_t until, uint32_t rate)
{
    struct rounds *r = &vm->rounds;
    unsigned n = vm->m->cfg.vcpus, first = r->next % n;
    uint32_t left = r->next_left;
    bool moved = false;

    vm->counters.rounds_shared++;
    for (unsigned k = 0; k < n && !vm->m->stopped; k++) {
        unsigned i = (first + k) % n;
        struct vcpu *v = vm->pc->cpus[i].v;

        if ((set >> i & 1) != 0 && can_run(v)) { /* an INIT may have reached it meanwhile */
            left = run_turn(vm, v, left, until, rate, &moved);
            if (left != 0) {
                r->next = (uint8_t)i;
                r->next_left = left;
                break;
            }
        }
        left = whole_turn(rate);
        r->next = (uint8_t)((i + 1) % n);
        r->next_left = left;
    }
    return moved;
}

/* Each of @set, which were stopped in a parallel part, for at most its burst, beginning with the
 * one whose turn it is. */
static void serve(struct vm *vm, uint32_t set, uint64_t until, uint32_t rate)
{
    unsigned n = vm->m->cfg.vcpus, first = vm->rounds.turn % n;

#ifdef BREAK_R3 /* make/rules.mk: an order that depends on the host */
    first = (unsigned)(__builtin_ia32_rdtsc() / 64 % n);
#endif
    for (unsigned k = 0; k < n && !vm->m->stopped; k++) {
        unsigned i = (first + k) % n;
        struct vcpu *v = vm->pc->cpus[i].v;
        struct engine_run run = {.budget = progress_until(vm, until, rate), .rate = rate};
        enum vcpu_stop stop;

        if ((set >> i & 1) == 0 || !can_run(v)) { /* an INIT may have reached it meanwhile */
            continue;
        }
        if (run.budget == 0) {
            break;
        }
        run.budget = min_u64(run.budget, vm->rounds.burst[i]);
        (void)run_serial(vm, v, run, &stop);
    }
}

/* --- in parallel -------------------------------------------------------------------------------
 */

static void part_task(void *ctx, unsigned k)
{
    struct vm *vm = ctx;
    struct part *p = &vm->parts[k];

    vm->cfg.engine->run(p->v, &p->run);
}

/* A little less than the quantum, differently for each vCPU and round: what stays in phase meets
 * the same conflicts again and again, if there are any. */
static uint64_t dithered(const struct vm *vm, unsigned vcpu, uint64_t quantum)
{
    if (vm->rounds.calm) {
        return quantum;
    }
    uint32_t h = (vm->rounds.turn * 16 + vcpu) * UINT32_C(2654435761);

    return quantum - (quantum / 16 * (h >> 24) >> 8);
}

/* Run all of @set at once. Fills vm->parts, returns how many. */
static unsigned run_part(struct vm *vm, uint32_t set, uint64_t quantum, uint32_t rate)
{
    unsigned n = 0;
    uint64_t most = 0;

    if (vm->pc->owner != NULL) {
        owner_settle(vm->pc->owner);
    }
    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        struct part *p = &vm->parts[n];
        if ((set >> i & 1) == 0) {
            continue;
        }
        p->v = vm->pc->cpus[i].v;
        p->run = (struct engine_run){
            .budget = dithered(vm, i, quantum), .part = PART_PARALLEL, .rate = rate};
        p->retired = p->v->c.retired;
        prepare(vm, p->v, &p->run);
        n++;
    }
    team_run(vm->team, n, part_task, vm);
    for (unsigned k = 0; k < n; k++) {
        struct part *p = &vm->parts[k];
        p->done = p->v->c.progress - p->v->progress0;
        PLX_CHECK(p->done <= p->run.budget);
        most = p->done > most ? p->done : most;
        vm->counters.parallel_retired += p->v->c.retired - p->retired;
        count_stop(vm, p->v, p->run.stop);
        vm->cfg.engine->settle(p->v);
    }
#ifdef BREAK_R5 /* make/rules.mk: the serial part begins when the parallel one did */
    most = 0;
#endif
    advance_clock(vm, most, rate);
    return n;
}

/* The longest quantum: barriers cost time of the host, in which fast code gets far. */
static uint32_t quantum_max(uint32_t rate)
{
    uint64_t most = (PAR_SPAN_NS << 16) / rate;

    _Static_assert((PAR_SPAN_NS << 16) / RATE_MIN <= PAR_QUANTUM_LIMIT, "what load accepts");
    return most > PAR_QUANTUM_MAX ? (uint32_t)most : PAR_QUANTUM_MAX;
}

/* What the part shows about the next ones. */
static void learn(struct vm *vm, unsigned n, uint64_t quantum, uint32_t rate)
{
    struct rounds *r = &vm->rounds;
    uint64_t sum = 0, most = 0;
    uint32_t longest = quantum_max(rate);
    unsigned nblocked = 0;

    for (unsigned k = 0; k < n; k++) {
        const struct part *p = &vm->parts[k];
        uint32_t *burst = &r->burst[p->v->id];
        sum += p->done;
        most = p->done > most ? p->done : most;
        if (blocked(p->run.stop)) {
            nblocked++;
            if (p->done < *burst / 2) {
                *burst = *burst * 2 > BURST_MAX ? BURST_MAX : *burst * 2;
            } else if (p->done > (uint64_t)*burst * 4) {
                *burst = *burst / 2 < BURST_MIN ? BURST_MIN : *burst / 2;
            }
        }
    }
    r->calm = nblocked == 0;
    if (most * n - sum > most * n / 4 && nblocked != 0) {
        r->quantum -= r->quantum / (r->quantum > PAR_QUANTUM_MAX ? 2 : QUANTUM_STEP);
    } else if (nblocked == 0 && most > r->quantum / 2) {
        r->quantum += r->quantum / QUANTUM_STEP;
    }
    r->quantum = r->quantum < PAR_QUANTUM_MIN ? PAR_QUANTUM_MIN
                 : r->quantum > longest       ? longest
                                              : r->quantum;
    if (nblocked == 0 && quantum < PAR_QUANTUM_MIN) {
        return; /* cut short by the clock: that says nothing */
    }
    int64_t gain = (int64_t)(sum - most) - PAR_COST;
    gain = gain > PAR_SCORE_MAX ? PAR_SCORE_MAX : gain;
    r->score += (int32_t)((gain - r->score) / AVERAGE_SHARE);
    if (r->probing > 0) {
        r->probing--;
        return;
    }
    if (r->score < 0) {
        r->shared_left = r->shared_next;
        r->shared_next =
            r->shared_next * 2 > SHARED_ROUNDS_MAX ? SHARED_ROUNDS_MAX : r->shared_next * 2;
    } else {
        r->shared_next = SHARED_ROUNDS_MIN;
    }
}

static bool round_parallel(struct vm *vm, uint32_t set, uint64_t until, uint32_t rate)
{
    struct rounds *r = &vm->rounds;
    uint64_t room = progress_until(vm, until, rate), quantum = r->quantum;
    unsigned n = (unsigned)__builtin_popcount(set);
    uint64_t reserve = r->calm ? 0 : (uint64_t)n * SERVE_RESERVE;
    uint32_t served = 0;
    bool moved;

    vm->counters.rounds_parallel++;
    n = run_part(vm, set, min_u64(quantum, room - reserve), rate);
    moved = false;
    for (unsigned k = 0; k < n; k++) {
        const struct part *p = &vm->parts[k];
        moved = moved || p->done != 0 || p->run.stop != VCPU_HALT;
        if (blocked(p->run.stop)) {
            served |= UINT32_C(1) << p->v->id;
        } else if (p->run.stop == VCPU_SHUTDOWN) {
            machine_stop(vm->m, POWER_TRIPLE_FAULT, 0);
        }
    }
    learn(vm, n, min_u64(quantum, room - reserve), rate);
    if (served != 0) {
        vm->counters.rounds_served++;
        serve(vm, served, until, rate);
    }
    return moved;
}

/* --- rounds ------------------------------------------------------------------------------------
 */

static bool in_parallel(struct vm *vm, uint32_t set, uint64_t until, uint32_t rate)
{
    struct rounds *r = &vm->rounds;
    uint64_t needs = r->calm ? 1 : (uint64_t)__builtin_popcount(set) * SERVE_RESERVE * 2;

    if (r->shared_left > 0) {
        if (--r->shared_left == 0) {
            r->score = 0;
            r->probing = PAR_PROBES;
            r->quantum = PAR_QUANTUM_MIN;
        }
        return false;
    }
    return progress_until(vm, until, rate) >= needs;
}

static uint32_t runnable(const struct vm *vm)
{
    uint32_t set = 0;

    for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
        set |= (uint32_t)can_run(vm->pc->cpus[i].v) << i;
    }
    return set;
}

/* @until: when the round had to end; a timer armed since may be earlier. */
static void count_end(struct vm *vm, uint64_t until)
{
    uint64_t *how = vm->m->stopped || runnable(vm) == 0                 ? &vm->counters.ended.halt
                    : vm->now >= min_u64(until, vm->m->timers.earliest) ? &vm->counters.ended.clock
                    : vm->blocked ? &vm->counters.ended.blocked
                    : vm->yielded ? &vm->counters.ended.yield
                                  : &vm->counters.ended.budget;

    ++*how;
}

bool round_run(struct vm *vm, uint64_t until, uint32_t rate)
{
    uint32_t set = runnable(vm);
    bool moved;

    if (set == 0) {
        return false;
    }
    vm->blocked = vm->yielded = false;
    if ((set & (set - 1)) == 0) {
        moved = round_alone(vm, vm->pc->cpus[__builtin_ctz(set)].v, until, rate);
    } else {
        vm->rounds.turn++;
        moved = in_parallel(vm, set, until, rate) ? round_parallel(vm, set, until, rate)
                                                  : round_shared(vm, set, until, rate);
    }
    count_end(vm, until);
    return moved;
}
