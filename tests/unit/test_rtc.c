/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a date that is a day off, a clock that jumps when it is set, interrupts that come twice
 * or not at all, an alarm that makes the search endless. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/rtc.h"

#define S UINT64_C(1000000000)

static struct board b;
static struct rtc *rtc;

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    assert_int_equal(rtc_create(&b.m, &rtc, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rtc_destroy(rtc);
    board_close(&b);
    return 0;
}

static uint8_t cmos(uint8_t reg)
{
    out8(&b.m, CMOS_PORT, reg);
    return in8(&b.m, CMOS_PORT + 1);
}

static void set_cmos(uint8_t reg, uint8_t value)
{
    out8(&b.m, CMOS_PORT, reg);
    out8(&b.m, CMOS_PORT + 1, value);
}

static void wallclock(uint64_t seconds)
{
    struct input in = {.kind = INPUT_WALLCLOCK, .arg = seconds * S};

    assert_int_equal(machine_input(&b.m, &in, NULL), 0);
}

static void expect_date(const uint8_t want[8]) /* century, year, month, day, weekday, h, m, s */
{
    static const uint8_t regs[8] = {0x32, 9, 8, 7, 6, 4, 2, 0};

    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(cmos(regs[i]), want[i]);
    }
}

static void dates_are_right(void **state)
{
    static const struct {
        uint64_t seconds; /* since 1970 */
        uint8_t date[8];
    } cases[] = {
        {0, {0x19, 0x70, 1, 1, 5, 0, 0, 0}},
        {951782399, {0x20, 0x00, 2, 0x28, 2, 0x23, 0x59, 0x59}},
        {951782400, {0x20, 0x00, 2, 0x29, 3, 0, 0, 0}},
        {1709251200, {0x20, 0x24, 3, 1, 6, 0, 0, 0}},
        {1735689599, {0x20, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x59}},
        {4102444800, {0x21, 0x00, 1, 1, 6, 0, 0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wallclock(cases[i].seconds);
        expect_date(cases[i].date);
        b.now += 3 * S;
        wallclock(cases[i].seconds - (i > 0 ? 10 : 0)); /* and by the passing of virtual time */
        board_run_to(&b, b.now + (i > 0 ? 10 : 0) * S);
        expect_date(cases[i].date);
    }
}

static void setting_it_moves_it_by_whole_seconds(void **state)
{
    static const uint8_t regs[] = {0x32, 9, 8, 7, 4, 2, 0};
    static const uint8_t values[] = {0x20, 0x30, 0x06, 0x15, 0x12, 0x34, 0x56};

    (void)state;
    wallclock(1700000000);
    b.now += S / 4;
    set_cmos(0x0b, 0x82);
    for (unsigned i = 0; i < sizeof regs; i++) {
        set_cmos(regs[i], values[i]);
    }
    b.now += 100 * S;
    assert_int_equal(cmos(0), 0x56); /* stands while SET */
    set_cmos(0x0b, 0x02);
    expect_date((uint8_t[]){0x20, 0x30, 0x06, 0x15, 7, 0x12, 0x34, 0x56});
    b.now += S * 3 / 4;
    assert_int_equal(cmos(0), 0x57);
    set_cmos(0x0b, 0x06); /* binary */
    assert_int_equal(cmos(9), 30);
    set_cmos(0x0b, 0x00); /* 12 hours, BCD */
    assert_int_equal(cmos(4), 0x92);
    set_cmos(7, 0x31); /* 31 June: refused, the clock goes on */
    assert_int_equal(cmos(7), 0x15);
}

static void update_in_progress_precedes_the_update(void **state)
{
    (void)state;
    wallclock(1700000000);
    b.now = S - 244001;
    assert_int_equal(cmos(0x0a), 0x26);
    b.now = S - 244000;
    assert_int_equal(cmos(0x0a), 0xa6);
    b.now = S;
    assert_int_equal(cmos(0x0a), 0x26);
}

static void interrupts_come_once_until_read(void **state)
{
    (void)state;
    wallclock(1700000000); /* 22:13:20 */
    set_cmos(1, 0x25);
    set_cmos(3, 0x13);
    set_cmos(5, 0xff); /* at 13:25 past any hour */
    set_cmos(0x0b, 0x32);
    cmos(0x0c);
    assert_int_equal(vtimers_next(&b.m.timers), S);
    for (unsigned i = 1; i <= 4; i++) {
        board_run_to(&b, i * S);
        assert_true(b.level[RTC_IRQ]);
        assert_int_equal(cmos(0x0c) & ~0x40, 0x90); /* the periodic flag comes unasked */
        assert_false(b.level[RTC_IRQ]);
    }
    board_run_to(&b, 5 * S);
    assert_int_equal(cmos(0x0c) & ~0x40, 0xb0);
    assert_int_equal(cmos(0x0c), 0);
    set_cmos(0x0b, 0x22);
    assert_int_equal(vtimers_next(&b.m.timers), (5 + 3600) * S);
    set_cmos(0x0b, 0x42); /* periodic, 1024 Hz */
    cmos(0x0c);
    b.rises[RTC_IRQ] = 0;
    for (unsigned i = 0; i < 1024; i++) {
        board_run_to(&b, vtimers_next(&b.m.timers));
        assert_int_equal(cmos(0x0c) & 0xc0, 0xc0);
    }
    assert_int_equal(b.rises[RTC_IRQ], 1024);
    assert_int_equal(b.now, 6 * S);
}

static void impossible_alarms_never_match(void **state)
{
    (void)state;
    for (unsigned reg = 1; reg <= 5; reg += 2) {
        set_cmos((uint8_t)reg, 0x99);
        set_cmos(0x0b, 0x22);
        assert_true(vtimers_next(&b.m.timers) == VTIMER_NEVER);
        set_cmos((uint8_t)reg, 0xff);
    }
    assert_int_equal(vtimers_next(&b.m.timers), S); /* all "any": each second */
}

static void cmos_holds_memory_and_bytes(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x15) | cmos(0x16) << 8, 640);
    assert_int_equal(cmos(0x30) | cmos(0x31) << 8, 15 * 1024);
    assert_int_equal(cmos(0x0d), 0x80);
    set_cmos(0x8f, 0x5a); /* bit 7 of the index is the NMI mask */
    assert_int_equal(cmos(0x0f), 0x5a);
}

static void poke(void *ctx)
{
    fuzz_ports(&b, board_device(&b.m, "rtc"), ctx, CMOS_PORT, 2, 20);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "rtc");
    struct prng g;

    (void)state;
    seed_open(&g, "rtc");
    wallclock(1700000000);
    for (unsigned i = 0; i < 200; i++) {
        fuzz_ports(&b, d, &g, CMOS_PORT, 2, 60);
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
        cmocka_unit_test_setup_teardown(dates_are_right, setup, teardown),
        cmocka_unit_test_setup_teardown(setting_it_moves_it_by_whole_seconds, setup, teardown),
        cmocka_unit_test_setup_teardown(update_in_progress_precedes_the_update, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_come_once_until_read, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_alarms_never_match, setup, teardown),
        cmocka_unit_test_setup_teardown(cmos_holds_memory_and_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
