/* SPDX-License-Identifier: Apache-2.0
 * Hunts: an outcome of several vCPUs that depends on threads, delays, caches or drops; a lost or
 * reordered store; a lock two hold at once; a clock that goes back between vCPUs; a vCPU that
 * never gets on. The programs are in smp_guest.h. RUNS=n in the environment repeats with further
 * seeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "tests/unit/amount.h"
#include "tests/unit/smp_guest.h"

enum { SLICES_MAX = 600 };

struct outcome {
    unsigned slices;
    bool ended;
    struct hash128 digests[SLICES_MAX];
    uint32_t words[16]; /* see each check */
};

static void run(const struct smp_config *cfg, struct outcome *o, struct vm_counters *counters)
{
    static const gpa_t words[16] = {
        SMP_SHARED,      SMP_SHARED + 4,   SMP_OTHER, SMP_OTHER + 4, SMP_OTHER + 16, SMP_SHARED + 8,
        SMP_SHARED + 64, SMP_SHARED + 128, 0x303000,  0x303004,      0x303008,       SMP_DONE,
    };
    struct vm *vm = smp_vm(cfg);
    struct output_list out;
    enum power_event event = POWER_OFF;

    output_list_init(&out);
    *o = (struct outcome){.slices = 0};
    while (o->slices < SLICES_MAX && smp_slice(vm, &out)) {
        struct vm_digest d;
        vm_digest(vm, vm_scrub_pages(vm), &d, NULL, NULL);
        o->digests[o->slices++] = d.all;
    }
    o->ended = vm_stopped(vm, &event, NULL);
    assert_true(!o->ended || event == POWER_DEBUG_EXIT);
    for (unsigned i = 0; i < 12; i++) {
        o->words[i] = smp_get(vm, words[i]);
    }
    if (counters != NULL) {
        vm_counters(vm, counters);
        /* each round ended in one way */
        assert_int_equal(counters->ended.halt + counters->ended.clock + counters->ended.blocked +
                             counters->ended.yield + counters->ended.budget,
                         counters->rounds_alone + counters->rounds_parallel +
                             counters->rounds_shared);
    }
    output_list_free(&out);
    vm_destroy(vm);
}

static void same(const struct outcome *a, const struct outcome *b, const struct smp_config *cfg)
{
    for (unsigned i = 0; i < a->slices && i < b->slices; i++) {
        if (!hash128_eq(a->digests[i], b->digests[i])) {
            fail_msg("digests differ after slice %u: %u vCPUs, %u threads, %u entries, chaos %llu",
                     i + 1, cfg->vcpus, cfg->threads, cfg->cache_entries,
                     (unsigned long long)cfg->chaos);
        }
    }
    assert_int_equal(a->slices, b->slices);
}

/* The program under every kind of host, all with the same digests; the outcome in *o. */
static void everywhere(const uint8_t *program, unsigned vcpus, uint32_t times, struct outcome *o)
{
    static const struct shadow_config plain = {.batch = 1, .lazy_ad = true},
                                      wide = {true, SHADOW_BATCH_MAX, true, true};
    static const struct smp_config hosts[] = {
        {.threads = 2},
        {.threads = 2, .chaos = 1},
        {.threads = 4, .chaos = 2, .cache_entries = 16},
        {.threads = 1, .cache_entries = 1, .shadow = &plain},
        {.threads = 2, .shadow = &wide},
    };
    unsigned runs = (unsigned)from_env("RUNS", 0);
    struct smp_config cfg = {.program = program, .vcpus = vcpus, .times = times, .threads = 1};
    struct outcome *other = plx_calloc(1, sizeof *other);

    run(&cfg, o, NULL);
    if (!o->ended) {
        fail_msg("not at its end after %u slices: %u vCPUs", o->slices, vcpus);
    }
    for (unsigned i = 0; i < PLX_COUNT(hosts); i++) {
        cfg = hosts[i];
        cfg.program = program;
        cfg.vcpus = vcpus;
        cfg.times = times;
        run(&cfg, other, NULL);
        same(o, other, &cfg);
    }
    for (unsigned i = 0; i < runs; i++) {
        cfg.threads = 1 + i % vcpus;
        cfg.chaos = 100 + i;
        cfg.cache_entries = i % 3 == 0 ? 1 : 0;
        run(&cfg, other, NULL);
        same(o, other, &cfg);
    }
    plx_free(other);
}

/* Two vCPUs on one thread of the host, to the end. */
static void by_turns(const uint8_t *program, uint32_t times, struct outcome *o,
                     struct vm_counters *counters)
{
    const struct smp_config cfg = {.program = program, .vcpus = 2, .times = times, .threads = 1};

    run(&cfg, o, counters);
    assert_true(o->ended);
}

/* An engine for two vCPUs that in a parallel part begins to run neither before both are there. */
static struct meeting {
    const struct engine_ops *engine;
    atomic_uint came;     /* in all parallel parts so far: two in each */
    atomic_uint in_vain;  /* waits that nobody ended */
    atomic_uint as_other; /* the second to come to a part was on the thread of the first */
    pthread_t who[2];
} meeting;

static void run_meeting(struct vcpu *v, struct engine_run *run)
{
    const time_t patience = time(NULL) + 20;

    if (run->part == PART_PARALLEL) {
        meeting.who[v->id] = pthread_self();
        unsigned both = (atomic_fetch_add(&meeting.came, 1) | 1) + 1;
        while (atomic_load(&meeting.came) < both && atomic_load(&meeting.in_vain) == 0) {
            if (time(NULL) > patience) {
                atomic_fetch_add(&meeting.in_vain, 1);
            }
            (void)sched_yield();
        }
        atomic_fetch_add(&meeting.as_other, pthread_equal(meeting.who[0], meeting.who[1]) != 0);
    }
    meeting.engine->run(v, run);
}

/* @cfg on such an engine: two threads are inside each parallel part before either leaves it. Of the
 * rounds more than nine in ten have one. */
static void at_the_same_time(struct smp_config cfg, const struct engine_ops *engine,
                             struct vm_counters *c)
{
    struct engine_ops meets = *engine;
    struct outcome *o = plx_calloc(1, sizeof *o);

    memset(&meeting, 0, sizeof meeting);
    meeting.engine = engine;
    meets.run = run_meeting;
    cfg.vcpus = 2;
    cfg.threads = 2;
    cfg.engine = &meets;
    run(&cfg, o, c);
    assert_true(o->ended);
    assert_int_equal(c->threads, 2);
    assert_int_equal(meeting.in_vain, 0);
    assert_int_equal(meeting.as_other, 0);
    assert_int_equal(meeting.came, 2 * c->rounds_parallel);
    assert_int_equal(c->parts_together, c->rounds_parallel);
    assert_true(c->rounds_parallel > 10);
    assert_true(c->rounds_parallel * 10 >
                (c->rounds_alone + c->rounds_parallel + c->rounds_shared) * 9);
    assert_true(c->parallel_retired > c->serial_retired * 10);
    plx_free(o);
}

/* Both compute: the parts are parallel, and on two threads. */
static void work_is_done_at_the_same_time(void **state)
{
    const struct smp_config cfg = {.program = smp_compute, .times = AMOUNT(40000, 2)};
    struct vm_counters c;

    (void)state;
    at_the_same_time(cfg, &engine_interp, &c);
    uint64_t rounds = c.rounds_alone + c.rounds_parallel + c.rounds_shared;
    assert_true((c.ended.clock + c.ended.budget) * 10 > rounds * 9);
}

/* The same in translated code. */
static void translated_work_is_done_at_the_same_time(void **state)
{
    const struct smp_config cfg = {
        .program = smp_compute64, .times = AMOUNT(40000, 2), .long_mode = true};
    struct vm_counters c;

    (void)state;
    at_the_same_time(cfg, &engine_jit, &c);
    assert_true(c.jit.interpreted * 100 < c.parallel_retired);
}

/* Barriers cost time, in which fast code gets far: it has longer parts, though none too long. */
static void fast_code_meets_few_barriers(void **state)
{
    static const struct {
        uint32_t rate, times;
        uint64_t least, most; /* on an average, of both */
    } cases[] = {
        {RATE_DEFAULT, 40000, PAR_QUANTUM_MAX / 8, UINT64_C(2) * PAR_QUANTUM_MAX},
        {RATE_ONE / 4, 8000000, UINT64_C(4) * PAR_QUANTUM_MAX, UINT64_C(2) * PAR_QUANTUM_LIMIT},
    };

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(cases); i++) {
        const struct smp_config cfg = {.program = smp_compute64,
                                       .vcpus = 2,
                                       .times = cases[i].times,
                                       .threads = 1,
                                       .long_mode = true,
                                       .engine = &engine_jit};
        struct vm *vm = smp_vm(&cfg);
        struct output_list out;
        struct vm_counters c;

        output_list_init(&out);
        while (smp_slice_at(vm, cases[i].rate, &out)) {
        }
        vm_counters(vm, &c);
        assert_true(c.parallel_retired > cases[i].least * c.rounds_parallel);
        assert_true(c.parallel_retired <= cases[i].most * c.rounds_parallel);
        output_list_free(&out);
        vm_destroy(vm);
    }
}

/* What one vCPU writes over code that others run, in parallel parts and in serial ones, is run from
 * then on; by either engine, with the same digests. */
static void rewritten_code_is_never_stale(void **state)
{
    static const struct smp_config hosts[] = {
        {.threads = 1},
        {.threads = 2, .engine = &engine_jit},
        {.threads = 1, .engine = &engine_jit, .cache_entries = 16},
        {.threads = 2, .engine = &engine_switch, .chaos = 3},
    };
    struct outcome *o = plx_calloc(2, sizeof *o);

    (void)state;
    for (unsigned vcpus = 2; vcpus <= 3; vcpus++) {
        for (unsigned i = 0; i < PLX_COUNT(hosts); i++) {
            struct smp_config cfg = hosts[i];
            struct vm_counters c;
            cfg.program = smp_rewrite64;
            cfg.vcpus = vcpus;
            cfg.times = 800;
            cfg.long_mode = true;
            run(&cfg, &o[i != 0], &c);
            assert_true(o[i != 0].ended);
            assert_int_equal(o[i != 0].words[7], 0);
            assert_true(c.rounds_parallel > 10 && c.rounds_shared + c.rounds_served > 10);
            same(&o[0], &o[i != 0], &cfg);
        }
    }
    plx_free(o);
}

static void locked_counters_lose_nothing(void **state)
{
    const uint32_t times = AMOUNT(4000, 4);
    struct outcome o;

    (void)state;
    for (unsigned vcpus = 2; vcpus <= 4; vcpus++) {
        everywhere(smp_locked, vcpus, times, &o);
        assert_int_equal(o.words[0], vcpus * times);
    }
}

/* Without LOCK updates are lost, but always the same ones. */
static void racing_counters_race_alike(void **state)
{
    const uint32_t times = AMOUNT(4000, 4);
    struct outcome o;

    (void)state;
    for (unsigned vcpus = 2; vcpus <= 3; vcpus++) {
        everywhere(smp_racing, vcpus, times, &o);
        assert_true(o.words[0] <= vcpus * times);
        assert_true(o.words[0] >= times);
        assert_true(o.words[1] < vcpus * times); /* else they did not race */
        assert_true(o.words[1] > 0);
    }
}

static void private_work_is_the_same(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_compute, 3, AMOUNT(600, 4), &o);
}

static void messages_arrive_whole_and_in_order(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_message, 2, AMOUNT(40, 4), &o);
    assert_int_equal(o.words[7], 0);
    everywhere(smp_message, 3, AMOUNT(20, 4), &o);
    assert_int_equal(o.words[7], 0);
}

static void locks_exclude_and_everybody_gets_on(void **state)
{
    static const uint8_t *const locks[] = {smp_tas, smp_tas_pause, smp_ticket};
    static const uint32_t times[] = {AMOUNT(400, 4), AMOUNT(200, 4), AMOUNT(60, 4)};
    struct outcome o;

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(locks); i++) {
        for (unsigned vcpus = 2; vcpus <= 4; vcpus += 2) {
            everywhere(locks[i], vcpus, times[i], &o);
            assert_int_equal(o.words[2], vcpus * times[i]);
            assert_int_equal(o.words[3], vcpus * times[i] * 2);
        }
    }
}

static void dekker_excludes_and_gets_on(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_dekker, 2, AMOUNT(500, 4), &o);
    assert_int_equal(o.words[2], AMOUNT(1000, 4));
}

/* All of @vm's vCPUs to ring 3, without paging, so that all memory is the user's. */
static void to_user_mode(struct vm *vm, unsigned vcpus)
{
    for (unsigned k = 0; k < vcpus; k++) {
        struct cpu *c = &vm_vcpu(vm, k)->c;
        for (unsigned i = SEG_CS; i <= SEG_SS; i++) {
            c->seg[i].sel |= 3;
            c->seg[i].attr |= SEG_DPL;
        }
        c->cr0 &= ~CR0_PG;
        engine_interp.state_changed(vm_vcpu(vm, k));
    }
}

/* Slices so short that a turn fills thousands of them: it goes on over their ends, and then it is
 * the next one's (R3). Who is in user mode has no grace. */
static void turns_are_over_at_the_same_progress(bool user, uint64_t turn)
{
    enum { VCPUS = 4, SHORT_NS = 600 };
    const struct smp_config cfg = {
        .program = smp_compute, .vcpus = VCPUS, .times = 40000, .threads = 1};
    struct vm *vm = smp_vm(&cfg);
    uint64_t before[VCPUS], slices = 0;
    unsigned turns = 0, last = 0;
    struct output_list out;
    struct vm_counters c;

    output_list_init(&out);
    if (user) {
        to_user_mode(vm, VCPUS);
    }
    for (unsigned k = 0; k < VCPUS; k++) {
        before[k] = vm_vcpu(vm, k)->c.progress;
    }
    while (turns < 2 * VCPUS) {
        const struct record r = {.seq = vm_seq(vm) + 1,
                                 .start_ns = vm_now(vm),
                                 .span_ns = SHORT_NS,
                                 .rate = 2 * RATE_ONE};
        assert_int_equal(vm_slice(vm, &r, &out, NULL), 0);
        slices++;
        before[last] = vm_vcpu(vm, last)->c.progress;
        for (unsigned k = 0; k < VCPUS; k++) {
            uint64_t progress = vm_vcpu(vm, k)->c.progress;
            if (progress != before[k]) { /* it is another one's turn */
                assert_int_equal(k, (last + 1) % VCPUS);
                assert_int_equal(vm_vcpu(vm, last)->c.progress, turn * (turns / VCPUS + 1));
                turns++;
                last = k;
            }
            before[k] = progress;
        }
    }
    vm_counters(vm, &c);
    assert_int_equal(c.rounds_shared, slices);
    output_list_free(&out);
    vm_destroy(vm);
}

static void everybody_has_a_turn(void **state)
{
    (void)state;
    turns_are_over_at_the_same_progress(false, TURN_QUANTUM + TURN_GRACE);
    turns_are_over_at_the_same_progress(true, TURN_QUANTUM);
}

/* A round that ends early says why: what a lock is, with PAUSE, and what it protects. */
static void rounds_say_how_they_ended(void **state)
{
    struct outcome o;
    struct vm_counters c;

    (void)state;
    by_turns(smp_tas_pause, 200, &o, &c);
    assert_true(c.ended.blocked != 0 && c.ended.blocked <= c.rounds_served);
    assert_true(c.ended.blocked + c.ended.yield > c.ended.budget);
}

static void interrupts_between_vcpus_arrive(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_ipi, 2, AMOUNT(200, 4), &o);
    assert_int_equal(o.words[0], AMOUNT(200, 4));
    assert_int_equal(o.words[1], AMOUNT(200, 4));
}

/* Who halts soon after it woke another is not made to halt for that: the other runs first. It is
 * tried again from time to time whether that is still so. */
static void who_is_woken_runs_before_the_other_must_wait(void **state)
{
    struct outcome o;
    struct vm_counters c;

    (void)state;
    by_turns(smp_token, 400, &o, &c);
    assert_int_equal(o.words[0], 400);
    assert_true(o.words[8] >= 400 / (RELAY_WAKES + 1));
    assert_true(o.words[8] <= 400 / (RELAY_WAKES + 1) + 20);
    assert_true(c.handed_over >= 700);
    assert_true(c.ended.halt != 0);
    for (unsigned vcpus = 2; vcpus <= 3; vcpus++) {
        everywhere(smp_token, vcpus, 200, &o);
        assert_int_equal(o.words[0], 200);
    }
}

/* Who has much to do after it woke another goes on, and both run at the same time. */
static void who_goes_on_is_not_held_up_by_whom_it_wakes(void **state)
{
    struct outcome o;
    struct vm_counters c;

    (void)state;
    by_turns(smp_errand, 200, &o, &c);
    assert_int_equal(o.words[0], 200);
    assert_true(c.handed_over < 100); /* by vCPU 1, which halts */
    assert_true(c.rounds_shared + c.rounds_parallel > 100);
    everywhere(smp_errand, 2, 50, &o);
}

static void the_clock_never_goes_back_between_vcpus(void **state)
{
    struct outcome o;

    (void)state;
    for (unsigned vcpus = 2; vcpus <= 4; vcpus++) {
        everywhere(smp_warp, vcpus, AMOUNT(500, 4), &o);
        assert_int_equal(o.words[4], 0);
    }
}

static void stores_are_seen_in_one_order(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_store_buffer, 2, AMOUNT(60, 4), &o);
    assert_int_equal(o.words[8], 0);
}

static void strings_stop_between_iterations(void **state)
{
    struct outcome o;

    (void)state;
    everywhere(smp_strings, 3, AMOUNT(20, 4), &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_at_the_same_time),
        cmocka_unit_test(translated_work_is_done_at_the_same_time),
        cmocka_unit_test(fast_code_meets_few_barriers),
        cmocka_unit_test(rewritten_code_is_never_stale),
        cmocka_unit_test(locked_counters_lose_nothing),
        cmocka_unit_test(racing_counters_race_alike),
        cmocka_unit_test(private_work_is_the_same),
        cmocka_unit_test(messages_arrive_whole_and_in_order),
        cmocka_unit_test(locks_exclude_and_everybody_gets_on),
        cmocka_unit_test(dekker_excludes_and_gets_on),
        cmocka_unit_test(everybody_has_a_turn),
        cmocka_unit_test(rounds_say_how_they_ended),
        cmocka_unit_test(interrupts_between_vcpus_arrive),
        cmocka_unit_test(who_is_woken_runs_before_the_other_must_wait),
        cmocka_unit_test(who_goes_on_is_not_held_up_by_whom_it_wakes),
        cmocka_unit_test(the_clock_never_goes_back_between_vcpus),
        cmocka_unit_test(stores_are_seen_in_one_order),
        cmocka_unit_test(strings_stop_between_iterations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
