/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a counter off its frequency or that runs while it is halted, matches too early, too late,
 * twice or lost, periods that drift, lines left high, the PIT's line given back to nobody. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/hpet.h"

enum { CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
enum { T0 = 0x100, T1 = 0x120, T2 = 0x140, CMP = 8 };
enum { LEVEL = 2, ENABLE = 4, PERIODIC = 8, VAL_SET = 0x40, BITS32 = 0x100, ROUTE20 = 20 << 9 };
enum { PIT_LINE = 0, RTC_LINE = 8 };

static struct board b;
static struct hpet *h;

static int setup(void **state)
{
    const struct irq_line legacy[2] = {{board_line, &b, PIT_LINE}, {board_line, &b, RTC_LINE}};

    (void)state;
    board_open(&b);
    assert_int_equal(hpet_create(&b.m, legacy, &h, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hpet_destroy(h);
    board_close(&b);
    return 0;
}

static uint64_t get(unsigned reg, unsigned size)
{
    return bus_read(b.m.bus, BUS_MMIO, HPET_BASE + reg, size);
}

static void set(unsigned reg, unsigned size, uint64_t value)
{
    bus_write(b.m.bus, BUS_MMIO, HPET_BASE + reg, size, value);
}

static void capabilities(void **state)
{
    (void)state;
    assert_int_equal(get(0, 8), UINT64_C(10000000) << 32 | 0x8086a201);
    assert_int_equal(get(4, 4), 10000000);
    assert_int_equal(get(T2, 8), (uint64_t)HPET_ROUTES << 32 | 0x30);
    assert_int_equal(get(T2 + 0x20, 8), 0);
    assert_int_equal(get(T0 + 0x10, 8), 0); /* no FSB route */
    assert_int_equal(get(T0 + CMP, 8), UINT64_MAX);
    set(T0, 4, 5 << 9 | ENABLE); /* a route that is not there is not taken */
    assert_int_equal(get(T0, 4), 0x34);
    set(T0, 4, ROUTE20);
    assert_int_equal(get(T0, 4), 0x30 | ROUTE20);
}

static void the_counter_runs_and_stands(void **state)
{
    (void)state;
    board_run_to(&b, 1000);
    assert_int_equal(get(COUNTER, 8), 0);
    set(COUNTER, 8, UINT64_C(0xfffffffe));
    set(CONFIG, 4, 1);
    board_run_to(&b, 1009);
    assert_int_equal(get(COUNTER, 8), 0xfffffffe);
    board_run_to(&b, 1030);
    assert_int_equal(get(COUNTER, 8), UINT64_C(0x100000001));
    assert_int_equal(get(COUNTER + 4, 4), 1);
    set(COUNTER, 8, 7); /* running: ignored */
    assert_int_equal(get(COUNTER, 8), UINT64_C(0x100000001));
    set(CONFIG, 8, 0);
    board_run_to(&b, 5000);
    assert_int_equal(get(COUNTER, 8), UINT64_C(0x100000001));
    set(COUNTER, 4, 5);
    set(COUNTER + 4, 4, 0);
    set(CONFIG, 4, 1);
    board_run_to(&b, 5000 + UINT64_C(3600000000000));
    assert_int_equal(get(COUNTER, 8), 5 + UINT64_C(360000000000));
    set(COUNTER, 2, 0); /* no such access */
    set(COUNTER + 2, 4, 0);
    assert_int_equal(get(COUNTER + 6, 4), 0);
}

static void one_shot_fires_once_and_exactly(void **state)
{
    (void)state;
    set(T2, 4, ENABLE | ROUTE20);
    set(T2 + CMP, 8, 1000);
    board_run_to(&b, 500);
    set(CONFIG, 4, 1);
    assert_int_equal(vtimers_next(&b.m.timers), 500 + 10000);
    board_run_to(&b, 10499);
    assert_int_equal(b.rises[20], 0);
    board_run_to(&b, 10500);
    assert_int_equal(b.rises[20], 1);
    assert_int_equal(vtimers_next(&b.m.timers), VTIMER_NEVER);
    /* in the past: not before the counter wraps */
    set(T2 + CMP, 8, 900);
    board_run_to(&b, UINT64_C(1) << 50);
    assert_int_equal(b.rises[20], 1);
    /* what the counter shows now */
    set(T2 + CMP, 8, get(COUNTER, 8));
    board_run_to(&b, b.now);
    assert_int_equal(b.rises[20], 2);
}

static void thirty_two_bits_wrap(void **state)
{
    const uint64_t wrap = UINT64_C(42949672960);

    (void)state;
    set(T1, 4, ENABLE | ROUTE20 | BITS32);
    set(T1 + CMP, 8, UINT64_C(0x500000010));
    assert_int_equal(get(T1 + CMP, 8), 0x10);
    set(CONFIG, 4, 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(vtimers_next(&b.m.timers), i * wrap + 160);
        board_run_to(&b, i * wrap + 160);
        assert_int_equal(b.rises[20], i + 1);
    }
}

/* As Linux sets it up: the next match with VAL_SET, then the period. */
static void a_period_does_not_drift(void **state)
{
    (void)state;
    set(CONFIG, 4, 3);
    set(T0, 4, ENABLE | PERIODIC | VAL_SET | BITS32);
    set(T0 + CMP, 4, 5000);
    set(T0 + CMP, 4, 3000);
    assert_int_equal(get(T0 + CMP, 4), 5000);
    for (uint64_t i = 0; i < 5; i++) {
        board_run_to(&b, 50000 + i * 30000 + i); /* a little late each time */
        assert_int_equal(b.rises[PIT_LINE], i + 1);
        assert_int_equal(get(T0 + CMP, 4), 5000 + (i + 1) * 3000);
    }
    /* Missed periods are one interrupt, and the phase stays. */
    board_run_to(&b, 50000 + 100 * 30000 + 17);
    assert_int_equal(b.rises[PIT_LINE], 6);
    assert_int_equal(get(T0 + CMP, 4), 5000 + 101 * 3000);
    assert_int_equal(vtimers_next(&b.m.timers), 50000 + 101 * 30000);
    /* A register access sees what was due before the next round starts. */
    b.now = 50000 + 101 * 30000 + 5;
    assert_int_equal(get(T0 + CMP, 4), 5000 + 102 * 3000);
    assert_int_equal(b.rises[PIT_LINE], 7);
    board_run_to(&b, b.now);
    assert_int_equal(b.rises[PIT_LINE], 7);
}

/* A comparator that no one hears moves on all the same, and needs no timer. */
static void silent_periods_are_caught_up_with(void **state)
{
    (void)state;
    set(CONFIG, 4, 1);
    set(T1, 4, PERIODIC | VAL_SET);
    set(T1 + CMP, 8, 100);
    assert_int_equal(vtimers_next(&b.m.timers), VTIMER_NEVER);
    b.now = 10 * 1050;
    assert_int_equal(get(T1 + CMP, 8), 1100);
    set(T1, 4, PERIODIC | ENABLE | ROUTE20);
    assert_int_equal(vtimers_next(&b.m.timers), 11000);
    board_run_to(&b, 11000);
    assert_int_equal(b.rises[20], 1);
}

static void level_waits_for_its_acknowledgement(void **state)
{
    (void)state;
    set(CONFIG, 4, 1);
    set(T2, 4, ENABLE | LEVEL | ROUTE20);
    set(T2 + CMP, 8, 100);
    board_run_to(&b, 1000);
    assert_int_equal(get(STATUS, 4), 4);
    assert_true(b.level[20]);
    set(STATUS, 4, 3);
    assert_true(b.level[20]);
    set(STATUS, 4, 4);
    assert_false(b.level[20]);
    assert_int_equal(get(STATUS, 4), 0);
    /* not enabled: status without a line; enabling shows it */
    set(T2, 4, LEVEL | ROUTE20);
    set(T2 + CMP, 8, 200);
    board_run_to(&b, 2000);
    assert_int_equal(get(STATUS, 4), 4);
    assert_false(b.level[20]);
    set(T2, 4, LEVEL | ENABLE | ROUTE20);
    assert_true(b.level[20]);
    set(T2, 4, ENABLE | ROUTE20); /* an edge has no status */
    assert_false(b.level[20]);
    assert_int_equal(get(STATUS, 4), 0);
}

static void legacy_lines_and_back(void **state)
{
    (void)state;
    assert_false(hpet_legacy(NULL));
    assert_false(hpet_legacy(h));
    set(T0, 4, ENABLE);
    set(T1, 4, ENABLE | LEVEL | ROUTE20);
    set(T0 + CMP, 8, 10);
    set(T1 + CMP, 8, 20);
    set(CONFIG, 4, 3);
    assert_true(hpet_legacy(h));
    board_run_to(&b, 200);
    assert_int_equal(b.rises[PIT_LINE], 1);
    assert_true(b.level[RTC_LINE]);
    assert_false(b.level[20]);
    set(CONFIG, 4, 1);
    assert_false(b.level[PIT_LINE]);
    assert_false(b.level[RTC_LINE]);
    assert_true(b.level[20]);
}

static void poke(void *ctx)
{
    (void)ctx;
    for (unsigned reg = 0; reg < HPET_LEN; reg += 8) {
        (void)get(reg, 8);
    }
    board_run_to(&b, b.now + 1000);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "hpet");
    struct prng g;

    (void)state;
    seed_open(&g, "hpet");
    for (unsigned i = 0; i < 20000; i++) {
        unsigned reg = (unsigned)prng_below(&g, prng_below(&g, 8) == 0 ? HPET_LEN : 0x160);
        unsigned size = 1U << prng_below(&g, 4);

        reg = prng_below(&g, 8) == 0 ? reg : reg & ~7U;
        if (prng_below(&g, 2) == 0) {
            (void)get(reg, size);
        } else {
            set(reg, size, prng_u64(&g) >> prng_below(&g, 64));
        }
        if (prng_below(&g, 4) == 0) {
            board_run_to(&b, b.now + prng_below(&g, UINT64_C(1) << prng_below(&g, 36)));
        }
        assert_true(vtimers_next(&b.m.timers) >= b.now);
        if (i % 100 == 0) {
            check_round_trip(d);
        }
    }
    check_hostile(d, &g, poke, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(capabilities),
        TEST(the_counter_runs_and_stands),
        TEST(one_shot_fires_once_and_exactly),
        TEST(thirty_two_bits_wrap),
        TEST(a_period_does_not_drift),
        TEST(silent_periods_are_caught_up_with),
        TEST(level_waits_for_its_acknowledgement),
        TEST(legacy_lines_and_back),
        TEST(state_survives_anything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
