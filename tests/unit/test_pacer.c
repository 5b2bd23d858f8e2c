/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a VM whose time runs away from the host's or lags behind it, catches up too fast, wakes
 * too late for a timer, spins, or jumps when its host is merely slow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vmm/dev/timer.h"
#include "vmm/sched/pacer.h"
#include "vmm/tunables.h"

/* A VM and its host: virtual time and progress move only in slices, host time in slices, by
 * progress times the host's speed, and in waits. */
struct world {
    struct pacer p;
    uint64_t host, virt, progress;
    uint32_t host_rate; /* host ns per progress, in 1/65536 */
    bool idle;
    uint64_t next_timer;
    unsigned slices, jumps;
    uint32_t rate;
};

static struct world start(uint32_t host_rate)
{
    struct world w = {.host = 1000000000000, .host_rate = host_rate, .next_timer = VTIMER_NEVER};

    pacer_init(&w.p, w.host, 0);
    return w;
}

static struct pacer_step ask(struct world *w, bool input)
{
    struct pacer_view v = {w->host, w->virt, w->progress, w->idle, w->next_timer, input};
    struct pacer_step s;

    pacer_next(&w->p, &v, &s);
    return s;
}

/* Busy for @ns of host time. */
static void busy(struct world *w, uint64_t ns)
{
    uint64_t end = w->host + ns;

    while (w->host < end) {
        struct pacer_step s = ask(w, false);
        if (s.wait_ns != 0) {
            w->host += s.wait_ns;
            continue;
        }
        assert_true(s.start_ns >= w->virt);
        assert_in_range(s.rate, RATE_MIN, RATE_MAX);
        uint64_t done = (s.span_ns << 16) / s.rate;
        w->virt = s.start_ns + s.span_ns;
        w->progress += done;
        w->host += (done * w->host_rate) >> 16;
        w->slices++;
        w->jumps += s.jump;
        w->rate = s.rate;
    }
}

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* On hosts of any speed within the range, busy virtual time keeps step with the host's. */
static void busy_time_keeps_step(void **state)
{
    static const uint32_t speeds[] = {RATE_ONE / 12, RATE_ONE / 2,  2 * RATE_ONE,
                                      10 * RATE_ONE, 16 * RATE_ONE, 19 * RATE_ONE};

    (void)state;
    for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        struct world w = start(speeds[i]);
        busy(&w, 2 * SECOND);
        uint64_t before = w.virt, host = w.host;
        busy(&w, 2 * SECOND);
        assert_in_range(w.virt - before, (w.host - host) * 998 / 1000,
                        (w.host - host) * 1002 / 1000);
        assert_in_range(w.virt, w.host - 1000 * SECOND - 5 * MS, w.host - 1000 * SECOND + 2 * MS);
        assert_in_range(w.rate, speeds[i] * 9 / 10, speeds[i] * 11 / 10);
        assert_int_equal(w.jumps, 0);
    }
}

/* The guest turns to code that runs 20 times as fast, and back: hardly any of the host's time is
 * waited away, and hardly a slice takes many times its span. */
static void other_code_finds_its_rate_soon(void **state)
{
    struct world w = start(3 * RATE_ONE);
    uint64_t progress;

    (void)state;
    busy(&w, SECOND);
    progress = w.progress;
    w.host_rate = RATE_ONE * 3 / 20;
    busy(&w, 100 * MS);
    assert_true((w.progress - progress) * 3 / 20 > 85 * MS); /* worked, in host ns */
    w.host_rate = 3 * RATE_ONE;
    for (unsigned i = 0, late = 0; i < 100; i++) {
        uint64_t host = w.host;
        busy(&w, 1);
        late += w.host - host > 3 * MS;
        assert_true(late <= 5);
    }
}

/* A host 20 times slower than the default: the VM runs at RATE_MAX, its time goes slower than the
 * host's, and however long that lasts it never jumps. */
static void a_slowed_host_makes_a_slower_vm(void **state)
{
    struct world w = start(200 * RATE_ONE);

    (void)state;
    busy(&w, 60 * SECOND);
    assert_int_equal(w.jumps, 0);
    assert_int_equal(w.rate, RATE_MAX);
    assert_in_range(w.virt, 5 * SECOND, 7 * SECOND);
    /* Fast again: what was lost is given up, and step is kept from here. */
    w.host_rate = 10 * RATE_ONE;
    busy(&w, 3 * SECOND);
    uint64_t before = w.virt, host = w.host;
    busy(&w, SECOND);
    assert_in_range(w.virt - before, (w.host - host) * 998 / 1000, (w.host - host) * 1002 / 1000);
}

/* Exact: one slice at the default rate, on a host that takes no time, then a wait of a slice. */
static void ahead_waits_exactly(void **state)
{
    struct world w = start(0);
    struct pacer_step s = ask(&w, false);

    (void)state;
    assert_int_equal(s.wait_ns, 0);
    assert_int_equal(s.start_ns, 0);
    assert_int_equal(s.span_ns, SLICE_SPAN_NS);
    assert_int_equal(s.rate, RATE_DEFAULT);
    w.virt = SLICE_SPAN_NS;
    s = ask(&w, false);
    assert_int_equal(s.wait_ns, SLICE_SPAN_NS);
    w.host += SLICE_SPAN_NS - 1;
    assert_int_equal(ask(&w, false).wait_ns, 1);
    w.host += 1;
    s = ask(&w, false);
    assert_int_equal(s.wait_ns, 0);
    assert_int_equal(s.start_ns, SLICE_SPAN_NS);
}

static void idle_wakes_for_its_timer(void **state)
{
    struct world w = start(RATE_ONE);
    struct pacer_step s;

    (void)state;
    w.idle = true;
    assert_int_equal(ask(&w, false).wait_ns, PACER_FOREVER);
    w.next_timer = 4 * MS;
    assert_int_equal(ask(&w, false).wait_ns, 4 * MS);
    w.host += 3 * MS;
    assert_int_equal(ask(&w, false).wait_ns, MS);
    /* An input starts a slice at once, at the time that belongs to now. */
    s = ask(&w, true);
    assert_int_equal(s.wait_ns, 0);
    assert_int_equal(s.start_ns, 3 * MS);
    w.virt = 3 * MS + 10;
    w.host += 2 * MS; /* late for the timer: the slice starts at the timer all the same */
    s = ask(&w, false);
    assert_int_equal(s.wait_ns, 0);
    assert_int_equal(s.start_ns, 4 * MS);
}

/* An idle VM without timers may sleep for days; the input that wakes it is no jump. */
static void long_sleep_is_no_jump(void **state)
{
    struct world w = start(RATE_ONE);
    struct pacer_step s;

    (void)state;
    w.idle = true;
    w.host += 86400 * SECOND;
    s = ask(&w, true);
    assert_int_equal(s.wait_ns, 0);
    assert_false(s.jump);
    assert_int_equal(s.start_ns, 86400 * SECOND);
}

/* Stopped for three seconds: catches up, never faster than allowed, and without a jump. */
static void a_short_stop_is_caught_up(void **state)
{
    struct world w = start(10 * RATE_ONE);
    uint64_t host, virt;

    (void)state;
    busy(&w, SECOND);
    w.host += 3 * SECOND;
    for (int i = 0; i < 60; i++) {
        host = w.host;
        virt = w.virt;
        busy(&w, 50 * MS);
        assert_in_range(w.virt - virt, 49 * MS,
                        (w.host - host) * CATCH_UP_PERCENT / 100 + 2 * SLICE_SPAN_NS);
    }
    busy(&w, 2 * SECOND);
    assert_int_equal(w.jumps, 0);
    assert_in_range(w.host - 1000 * SECOND - w.virt, 0, 5 * MS);
}

/* The same for a VM that is idle but for a timer of 4 ms. */
static void an_idle_vm_catches_up_no_faster(void **state)
{
    struct world w = start(RATE_ONE);
    uint64_t stopped_until;

    (void)state;
    w.idle = true;
    w.next_timer = 4 * MS;
    w.host += 2 * SECOND;
    ask(&w, true);
    stopped_until = w.host;
    while (w.virt + MS < w.host - 1000 * SECOND) {
        struct pacer_step s = ask(&w, false);
        if (s.wait_ns != 0) {
            w.host += s.wait_ns;
            continue;
        }
        assert_false(s.jump);
        w.virt = s.start_ns + 1000;
        w.next_timer = s.start_ns + 4 * MS;
    }
    assert_in_range(w.host - stopped_until, 1900 * MS, 2100 * MS);
}

static void a_long_stop_jumps_once(void **state)
{
    struct world w = start(10 * RATE_ONE);

    (void)state;
    busy(&w, SECOND);
    w.host += 3600 * SECOND;
    busy(&w, SECOND);
    assert_int_equal(w.jumps, 1);
    assert_in_range(w.host - 1000 * SECOND - w.virt, 0, 5 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_time_keeps_step),
        cmocka_unit_test(other_code_finds_its_rate_soon),
        cmocka_unit_test(a_slowed_host_makes_a_slower_vm),
        cmocka_unit_test(ahead_waits_exactly),
        cmocka_unit_test(idle_wakes_for_its_timer),
        cmocka_unit_test(long_sleep_is_no_jump),
        cmocka_unit_test(a_short_stop_is_caught_up),
        cmocka_unit_test(an_idle_vm_catches_up_no_faster),
        cmocka_unit_test(a_long_stop_jumps_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
