/* SPDX-License-Identifier: Apache-2.0
 * Hunts: timers that fire in the order of arming, a callback's own arming lost, a stale minimum. */
#include "tests/unit/dev_board.h"

struct fixture {
    struct vtimer_queue q;
    struct vtimer t[4];
    char log[64];
    uint64_t again; /* timer 1 arms itself for this once */
    uint64_t sooner;
};

static struct fixture f;

static void note(void *ctx, uint64_t now)
{
    struct vtimer *t = ctx;
    size_t n = strlen(f.log);

    (void)now;
    assert_true(t->deadline == VTIMER_NEVER); /* disarmed before the callback */
    snprintf(f.log + n, sizeof f.log - n, "%d", (int)(t - f.t));
    if (t == &f.t[1] && f.again != 0) {
        uint64_t at = f.again;

        f.again = 0;
        vtimer_arm(t, at);
    }
}

static void sooner(void *ctx, uint64_t deadline)
{
    (void)ctx;
    f.sooner = deadline;
}

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof f);
    vtimer_queue_init(&f.q);
    f.q.sooner = sooner;
    for (unsigned i = 0; i < 4; i++) {
        vtimer_init(&f.t[i], &f.q, note, &f.t[i]);
    }
    return 0;
}

static void order_is_deadline_then_creation(void **state)
{
    (void)state;
    vtimer_arm(&f.t[3], 50);
    vtimer_arm(&f.t[2], 40);
    vtimer_arm(&f.t[0], 50);
    vtimer_arm(&f.t[1], 60);
    vtimers_fire(&f.q, 39);
    assert_string_equal(f.log, "");
    vtimers_fire(&f.q, 50);
    assert_string_equal(f.log, "203");
    assert_int_equal(vtimers_next(&f.q), 60);
}

static void what_a_callback_arms_for_the_past_fires_at_once(void **state)
{
    (void)state;
    f.again = 15;
    vtimer_arm(&f.t[1], 10);
    vtimer_arm(&f.t[2], 20);
    vtimers_fire(&f.q, 20);
    assert_string_equal(f.log, "112");
    assert_true(vtimers_next(&f.q) == VTIMER_NEVER);
}

static void sooner_is_told_of_a_new_earliest_only(void **state)
{
    (void)state;
    vtimer_arm(&f.t[0], 100);
    assert_int_equal(f.sooner, 100);
    vtimer_arm(&f.t[1], 200);
    assert_int_equal(f.sooner, 100);
    vtimer_arm(&f.t[2], 99);
    assert_int_equal(f.sooner, 99);
    vtimer_disarm(&f.t[2]);
    assert_int_equal(vtimers_next(&f.q), 100);
    vtimer_arm(&f.t[0], VTIMER_NEVER);
    vtimer_arm(&f.t[1], 300);
    assert_int_equal(vtimers_next(&f.q), 300);
    vtimers_fire(&f.q, 299);
    assert_string_equal(f.log, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(order_is_deadline_then_creation, setup),
        cmocka_unit_test_setup(what_a_callback_arms_for_the_past_fires_at_once, setup),
        cmocka_unit_test_setup(sooner_is_told_of_a_new_earliest_only, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
