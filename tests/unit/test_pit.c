/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a counter that drifts from virtual time, ticks of IRQ 0 lost or doubled, latches that do
 * not hold, a gate that does not stop. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/pit.h"
#include "vmm/tunables.h"

enum { CTL = PIT_PORT + 3 };

static struct board b;
static struct pit *pit;

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    assert_int_equal(pit_create(&b.m, &pit, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pit_destroy(pit);
    board_close(&b);
    return 0;
}

static uint64_t ns(uint64_t ticks) /* at which @ticks have passed, rounded up */
{
    return (ticks * 1000000000 + PIT_HZ - 1) / PIT_HZ;
}

static void load(unsigned ch, uint8_t mode, uint16_t count)
{
    out8(&b.m, CTL, (uint8_t)(ch << 6 | 0x30U | (unsigned)mode << 1));
    out8(&b.m, (uint16_t)(PIT_PORT + ch), (uint8_t)count);
    out8(&b.m, (uint16_t)(PIT_PORT + ch), (uint8_t)(count >> 8));
}

static unsigned read16(unsigned ch)
{
    unsigned low = in8(&b.m, (uint16_t)(PIT_PORT + ch));

    return low | (unsigned)in8(&b.m, (uint16_t)(PIT_PORT + ch)) << 8;
}

static void counts_follow_virtual_time(void **state)
{
    static const struct {
        uint8_t mode;
        uint16_t count;
        uint64_t ticks;
        unsigned value;
        bool out;
    } cases[] = {
        {0, 1000, 0, 1000, false},     {0, 1000, 999, 1, false},      {0, 1000, 1000, 0, true},
        {0, 1000, 1001, 0xffff, true}, {2, 1000, 1, 999, true},       {2, 1000, 999, 1, false},
        {2, 1000, 1000, 1000, true},   {2, 1000, 12345, 655, true},   {3, 1000, 10, 980, true},
        {3, 1000, 510, 980, false},    {3, 1000, 1010, 980, true},    {4, 1000, 999, 1, true},
        {4, 1000, 1000, 0, false},     {4, 1000, 1001, 0xffff, true}, {0, 0, 1, 0xffff, false},
    };

    (void)state;
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t start = (i + 1) * 1000003;

        board_run_to(&b, ns(start));
        load(2, cases[i].mode, cases[i].count);
        board_run_to(&b, ns(start + cases[i].ticks));
        assert_int_equal(read16(2), cases[i].value);
        assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) >> 5 & 1, cases[i].out);
    }
}

/* An hour of 100 Hz: the k-th tick is where arithmetic says, to the nanosecond. */
static void periodic_ticks_do_not_drift(void **state)
{
    (void)state;
    load(0, 2, 11932);
    b.rises[0] = 0;
    for (uint64_t k = 1; k <= 360000; k++) {
        uint64_t due = ns(k * 11932);

        assert_int_equal(vtimers_next(&b.m.timers), due);
        board_run_to(&b, due - 1);
        assert_int_equal(b.rises[0], k - 1);
        board_run_to(&b, due);
        assert_int_equal(b.rises[0], k);
    }
}

static void one_shot_rises_once_and_can_be_restarted(void **state)
{
    (void)state;
    load(0, 0, 100);
    assert_false(b.level[0]);
    board_run_to(&b, ns(100));
    assert_true(b.level[0]);
    board_run_to(&b, ns(1000000));
    assert_int_equal(b.rises[0], 1);
    load(0, 0, 100);
    assert_false(b.level[0]);
    board_run_to(&b, ns(1000100));
    assert_int_equal(b.rises[0], 2);
    /* A late round start: a read sees the time and what was due has happened. */
    load(0, 0, 100);
    b.now = ns(1000300);
    read16(0);
    assert_int_equal(b.rises[0], 3);
}

static void latches_hold_until_read(void **state)
{
    (void)state;
    load(0, 2, 5000);
    board_run_to(&b, ns(1000));
    out8(&b.m, CTL, 0x00);
    board_run_to(&b, ns(2000));
    out8(&b.m, CTL, 0x00); /* ignored: still latched */
    assert_int_equal(read16(0), 4000);
    assert_int_equal(read16(0), 3000);
    out8(&b.m, CTL, 0xc2); /* read back status and count of channel 0 */
    board_run_to(&b, ns(2500));
    assert_int_equal(in8(&b.m, PIT_PORT), 0x80 | 0x34);
    assert_int_equal(read16(0), 3000);
    assert_int_equal(read16(0), 2500);
}

static void the_gate_stops_channel_2(void **state)
{
    (void)state;
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 1);
    load(2, 0, 1000);
    board_run_to(&b, ns(300));
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 0);
    board_run_to(&b, ns(5000));
    assert_int_equal(read16(2), 700);
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 1);
    board_run_to(&b, ns(5699));
    assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) & 0x20, 0);
    board_run_to(&b, ns(5700));
    assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) & 0x20, 0x20);
    /* Mode 1: the rise of the gate is the trigger. */
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 0);
    load(2, 1, 50);
    assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) & 0x20, 0x20);
    out8(&b.m, SYSTEM_CONTROL_B_PORT, 1);
    assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) & 0x20, 0);
    board_run_to(&b, ns(5750));
    assert_int_equal(in8(&b.m, SYSTEM_CONTROL_B_PORT) & 0x20, 0x20);
}

static void a_new_period_begins_after_the_old(void **state)
{
    (void)state;
    load(0, 2, 1000);
    board_run_to(&b, ns(2500));
    b.rises[0] = 0;
    out8(&b.m, PIT_PORT, 0xf4); /* 500, without a control word */
    out8(&b.m, PIT_PORT, 0x01);
    assert_int_equal(vtimers_next(&b.m.timers), ns(3000));
    board_run_to(&b, ns(3000));
    assert_int_equal(vtimers_next(&b.m.timers), ns(3500));
    assert_int_equal(read16(0), 500);
}

static void bcd_counts(void **state)
{
    (void)state;
    out8(&b.m, CTL, 0x35); /* channel 0, word, mode 2, BCD */
    out8(&b.m, PIT_PORT, 0x00);
    out8(&b.m, PIT_PORT, 0x10); /* 1000 */
    board_run_to(&b, ns(1));
    assert_int_equal(read16(0), 0x0999);
}

static void poke(void *ctx)
{
    fuzz_ports(&b, board_device(&b.m, "pit"), ctx, PIT_PORT, 4, 10);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "pit");
    struct prng g;

    (void)state;
    seed_open(&g, "pit");
    for (unsigned i = 0; i < 200; i++) {
        fuzz_ports(&b, d, &g, PIT_PORT, 4, 50);
        fuzz_ports(&b, d, &g, SYSTEM_CONTROL_B_PORT, 1, 5);
        b.now %= UINT64_C(1) << 50;
        check_round_trip(d);
        if (i % 40 == 0) {
            check_hostile(d, &g, poke, &g);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_follow_virtual_time, setup, teardown),
        cmocka_unit_test_setup_teardown(periodic_ticks_do_not_drift, setup, teardown),
        cmocka_unit_test_setup_teardown(one_shot_rises_once_and_can_be_restarted, setup, teardown),
        cmocka_unit_test_setup_teardown(latches_hold_until_read, setup, teardown),
        cmocka_unit_test_setup_teardown(the_gate_stops_channel_2, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_period_begins_after_the_old, setup, teardown),
        cmocka_unit_test_setup_teardown(bcd_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
