/* SPDX-License-Identifier: Apache-2.0
 * Hunts: time that is lost, gained or goes back; a timer or an interrupt that comes late or early;
 * a slice that does not end; a record that does not fit and is run, or leaves a trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/chaos.h"
#include "tests/unit/fake_pc.h"

struct fixture {
    struct vm *vm;
    struct output_list out;
    struct plx_err err;
};

static int setup(void **state)
{
    struct fixture *t = plx_calloc(1, sizeof *t);

    fake_play(NULL, 0);
    t->vm = fake_vm(0);
    output_list_init(&t->out);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *t = *state;

    vm_destroy(t->vm);
    output_list_free(&t->out);
    plx_free(t);
    return 0;
}

static struct record next(struct fixture *t, uint64_t span, uint32_t rate)
{
    return (struct record){
        .seq = vm_seq(t->vm) + 1, .start_ns = vm_now(t->vm), .span_ns = span, .rate = rate};
}

static int run(struct fixture *t, struct record r)
{
    return vm_slice(t->vm, &r, &t->out, &t->err);
}

/* 3/7 ns of progress: after any number of slices the clock is the exact sum, rounded down. */
static void time_is_an_exact_sum(void **state)
{
    struct fixture *t = *state;
    const uint32_t rate = 3 * RATE_ONE / 7 + 1;

    for (int i = 0; i < 500; i++) {
        uint64_t before = vm_now(t->vm);
        assert_int_equal(run(t, next(t, 1000 + (uint64_t)i, rate)), 0);
        assert_in_range(vm_now(t->vm), before + 1000 + (uint64_t)i, before + 1001 + (uint64_t)i);
        assert_int_equal(vm_now(t->vm), vm_progress(t->vm) * rate >> 16);
    }
    assert_false(vm_idle(t->vm));
}

static void a_busy_slice_uses_its_span(void **state)
{
    struct fixture *t = *state;

    assert_int_equal(run(t, next(t, 1000000, 10 * RATE_ONE)), 0);
    assert_int_equal(vm_now(t->vm), 1000000);
    assert_int_equal(vm_progress(t->vm), 100000);
    assert_int_equal(vm_seq(t->vm), 1);
    /* Three quanta: a round never runs longer than one. */
    fake.runs = 0;
    assert_int_equal(run(t, next(t, 6000000, 10 * RATE_ONE)), 0);
    assert_int_equal(fake.runs, 3);
}

/* Armed in the middle of a round for a time inside it: the round ends there, to the unit. */
static void a_timer_armed_inside_a_round_fires_in_time(void **state)
{
    static const struct fake_event script[] = {
        {100, FAKE_ARM, 5005}, {501, FAKE_LOOK, 0}, {502, FAKE_LOOK, 0}};
    struct fixture *t = *state;

    fake_play(script, 3);
    assert_int_equal(run(t, next(t, 1000000, 10 * RATE_ONE)), 0);
    assert_int_equal(fake_devices->fired, 1);
    assert_int_equal(fake_devices->fired_at, 5010);
    assert_int_equal(fake.looked[0], 5010);
    assert_int_equal(fake.looked[1], 5020);
    assert_int_equal(vm_now(t->vm), 1000000);
}

/* Halted with a timer ahead: the slice ends at once, the VM is idle, the clock stands, and the
 * next slice may begin at the timer and no later. */
static void a_halted_vm_waits_for_its_timer(void **state)
{
    static const struct fake_event script[] = {{10, FAKE_ARM, 4000000}, {20, FAKE_HALT, 0}};
    struct fixture *t = *state;
    struct record r;

    fake_play(script, 2);
    assert_int_equal(run(t, next(t, 1000000, 10 * RATE_ONE)), 0);
    assert_true(vm_idle(t->vm));
    assert_int_equal(vm_now(t->vm), 200);
    assert_int_equal(vm_next_timer(t->vm), 4000000);

    r = next(t, 1000000, 10 * RATE_ONE);
    r.start_ns = 4000001;
    assert_int_equal(run(t, r), PLX_EINVAL);
    r.start_ns = 4000000;
    assert_int_equal(run(t, r), 0);
    assert_int_equal(fake_devices->fired_at, 4000000);
    assert_false(vm_idle(t->vm));
    assert_int_equal(vm_now(t->vm), 5000000);
}

/* An idle VM woken by an input before its timer; nothing runs until then. Who typed is none. */
static void an_input_wakes_a_halted_vm(void **state)
{
    static const struct fake_event script[] = {{20, FAKE_HALT, 0}};
    static const struct input key = {
        .kind = INPUT_CONSOLE_RX, .data = (const uint8_t *)"k", .len = 1};
    static const struct input by = {
        .kind = INPUT_TYPED_BY, .arg = 1, .data = (const uint8_t *)"somebody", .len = 8};
    struct fixture *t = *state;
    struct record r;

    fake_play(script, 1);
    assert_int_equal(run(t, next(t, 1000000, RATE_ONE)), 0);
    assert_int_equal(vm_next_timer(t->vm), VTIMER_NEVER);
    r = next(t, 1000000, RATE_ONE);
    r.start_ns = 777;
    r.inputs = &by;
    r.ninputs = 1;
    assert_int_equal(run(t, r), 0); /* halted still: no time passes but what the record says */
    assert_true(vm_idle(t->vm));
    assert_int_equal(vm_now(t->vm), 777);
    assert_int_equal(vm_progress(t->vm), 20);
    r = next(t, 1000000, RATE_ONE);
    r.inputs = &key;
    r.ninputs = 1;
    assert_int_equal(run(t, r), 0);
    assert_int_equal(fake_devices->typed, 1);
    assert_int_equal(vm_now(t->vm), 1000777);
}

/* Woken and halted again at once; then halted with an interrupt it may not take: that is halted for
 * good, not spun on. */
static void halted_and_deaf_ends_the_slice(void **state)
{
    static const struct fake_event script[] = {{20, FAKE_HALT, 0}, {21, FAKE_HALT, 0}};
    static const struct input key = {
        .kind = INPUT_CONSOLE_RX, .data = (const uint8_t *)"k", .len = 1};
    struct fixture *t = *state;
    struct record r;

    fake_play(script, 2);
    assert_int_equal(run(t, next(t, 1000000, RATE_ONE)), 0);
    for (int i = 0; i < 2; i++) {
        r = next(t, 1000000, RATE_ONE);
        r.inputs = &key;
        r.ninputs = 1;
        assert_int_equal(run(t, r), 0);
        assert_true(vm_idle(t->vm));
        assert_int_equal(vm_progress(t->vm), 21);
        vm_vcpu(t->vm, 0)->c.rflags &= ~FLAG_IF;
    }
}

static void a_stopped_vm_runs_no_more(void **state)
{
    static const struct fake_event script[] = {{30, FAKE_SPEAK, 0}, {50, FAKE_OFF, 7}};
    struct fixture *t = *state;
    enum power_event event;
    uint64_t code;

    fake_play(script, 2);
    assert_int_equal(run(t, next(t, 1000000, RATE_ONE)), 0);
    assert_true(vm_stopped(t->vm, &event, &code));
    assert_int_equal(event, POWER_OFF);
    assert_int_equal(code, 7);
    assert_int_equal(t->out.n, 2);
    assert_int_equal(t->out.items[0].kind, OUTPUT_CONSOLE);
    assert_int_equal(t->out.items[1].kind, OUTPUT_POWER);
    assert_int_equal(run(t, next(t, 1000000, RATE_ONE)), PLX_ESTATE);
}

static void a_triple_fault_stops_the_vm(void **state)
{
    static const struct fake_event script[] = {{30, FAKE_SHUTDOWN, 0}};
    struct fixture *t = *state;
    enum power_event event;

    fake_play(script, 1);
    assert_int_equal(run(t, next(t, 1000000, RATE_ONE)), 0);
    assert_true(vm_stopped(t->vm, &event, NULL));
    assert_int_equal(event, POWER_TRIPLE_FAULT);
}

/* Each record is refused for the named reason, and the digest stays what it was. */
static void records_that_do_not_fit_change_nothing(void **state)
{
    static const struct input unknown = {.kind = 77}, zero = {.kind = 0},
                              nic = {.kind = INPUT_NET_RX, .dev = 0},
                              far_nic = {.kind = INPUT_NET_RX, .dev = 9999},
                              disk = {.kind = INPUT_DISK_DONE, .dev = 7},
                              port = {.kind = INPUT_CONSOLE_RX, .dev = 1},
                              status = {.kind = INPUT_CONSOLE_RX, .status = 9},
                              button = {.kind = INPUT_POWER_BUTTON};
    const struct input *inputs[] = {&unknown, &zero, &nic,    &far_nic,
                                    &disk,    &port, &status, &button};
    struct fixture *t = *state;
    struct vm_digest before, after;
    struct record good, bad[10];

    assert_int_equal(run(t, next(t, 5000, RATE_ONE)), 0);
    vm_digest(t->vm, 0, &before, NULL, NULL);
    good = next(t, 5000, RATE_ONE);
    for (size_t i = 0; i < PLX_COUNT(bad); i++) {
        bad[i] = good;
    }
    bad[0].seq++;
    bad[1].seq--;
    bad[2].start_ns--;
    bad[3].start_ns++; /* busy: the clock may not stand */
    bad[4].span_ns = 0;
    bad[5].span_ns = SLICE_SPAN_MAX_NS + 1;
    bad[6].rate = RATE_MIN - 1;
    bad[7].rate = RATE_MAX + 1;
    bad[8].start_ns = UINT64_MAX;
    bad[9].rate = 0;
    for (size_t i = 0; i < PLX_COUNT(bad); i++) {
        assert_int_equal(run(t, bad[i]), PLX_EINVAL);
    }
    for (size_t i = 0; i < PLX_COUNT(inputs); i++) {
        struct record r = good;
        r.inputs = inputs[i];
        r.ninputs = 1;
        assert_int_equal(run(t, r), PLX_ECORRUPT);
    }
    vm_digest(t->vm, 0, &after, NULL, NULL);
    assert_true(hash128_eq(before.all, after.all));
    assert_int_equal(t->out.n, 0);
    assert_int_equal(run(t, good), 0);
}

static void a_jump_is_explicit(void **state)
{
    static const struct input jump = {.kind = INPUT_JUMP};
    struct fixture *t = *state;
    struct record r = next(t, 5000, RATE_ONE);

    r.start_ns = UINT64_C(60000000000);
    assert_int_equal(run(t, r), PLX_EINVAL);
    r.inputs = &jump;
    r.ninputs = 1;
    assert_int_equal(run(t, r), 0);
    assert_int_equal(vm_now(t->vm), UINT64_C(60000005000));
}

static void a_host_error_ends_the_vm(void **state)
{
    static const struct input key = {.kind = INPUT_CONSOLE_RX, .len = 0};
    struct fixture *t = *state;
    struct record r = next(t, 5000, RATE_ONE);

    r.inputs = &key;
    r.ninputs = 1;
    fake.input_rc = PLX_EIO;
    assert_int_equal(run(t, r), PLX_EIO);
    assert_string_equal(t->err.msg, "slice 1: the disk is gone");
    assert_int_equal(run(t, next(t, 5000, RATE_ONE)), PLX_ESTATE);
}

static void creation_unwinds_from_every_allocation_failure(void **state)
{
    struct vm_config cfg = {.machine = {.memory = 1 << 20, .vcpus = 1}, .engine = &fake_engine};
    struct vm *vm = NULL;
    int k = 0;

    (void)state;
    /* The engine of this test allocates one vCPU and does not look; leave that one out. */
    for (plx_heap_fail_at(k); k < 3; plx_heap_fail_at(++k)) {
        if (vm_create(&cfg, &vm, NULL) == 0) {
            break;
        }
        assert_null(vm);
    }
    plx_heap_fail_never();
    assert_true(k > 0);
    vm_destroy(vm);
}

/* Dropping, and saving and loading in place, at random boundaries: no digest changes. */
static void chaos_changes_no_digest(void **state)
{
    static const struct fake_event script[] = {
        {1000, FAKE_ARM, 77777}, {30000, FAKE_SPEAK, 0}, {60000, FAKE_ARM, 3000000}};
    struct vm_digest calm[100], wild;
    char summary[CHAOS_SUMMARY];
    unsigned drops = 0, reloads = 0, before[2];

    (void)state;
    fake_play(script, 3);
    for (uint64_t seed = 0; seed <= 5; seed++) {
        struct fixture t = {.vm = fake_vm(seed)};
        output_list_init(&t.out);
        for (unsigned i = 0; i < 100; i++) {
            assert_int_equal(run(&t, next(&t, 100000, 7 * RATE_ONE + 3)), 0);
            vm_digest(t.vm, vm_scrub_pages(t.vm), seed == 0 ? &calm[i] : &wild, NULL, NULL);
            assert_true(seed == 0 || hash128_eq(calm[i].all, wild.all));
        }
        assert_true(seed == 0 || (fake.drops > 0 && fake.changes > 0));
        before[0] = drops;
        before[1] = reloads;
        assert_int_equal(sscanf(chaos_summary(summary), "drops %u, reloads %u", &drops, &reloads),
                         2);
        assert_int_equal(drops > before[0], seed != 0);
        assert_int_equal(reloads > before[1], seed != 0);
        assert_int_equal(fake_devices->fired, 2);
        output_list_free(&t.out);
        vm_destroy(t.vm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(time_is_an_exact_sum, setup, teardown),
        cmocka_unit_test_setup_teardown(a_busy_slice_uses_its_span, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_armed_inside_a_round_fires_in_time, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_halted_vm_waits_for_its_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(an_input_wakes_a_halted_vm, setup, teardown),
        cmocka_unit_test_setup_teardown(halted_and_deaf_ends_the_slice, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stopped_vm_runs_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(a_triple_fault_stops_the_vm, setup, teardown),
        cmocka_unit_test_setup_teardown(records_that_do_not_fit_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_jump_is_explicit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_host_error_ends_the_vm, setup, teardown),
        cmocka_unit_test(creation_unwinds_from_every_allocation_failure),
        cmocka_unit_test(chaos_changes_no_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
