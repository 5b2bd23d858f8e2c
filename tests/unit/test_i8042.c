/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a command without its answer (a guest would wait for it), a reset pulse missed. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/i8042.h"

static struct board b;
static struct i8042 *kbc;

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    assert_int_equal(i8042_create(&b.m, &kbc, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    i8042_destroy(kbc);
    board_close(&b);
    return 0;
}

/* Commands (c) and data (d) as written, and what must come back, at once and nothing more. */
static void every_command_is_answered_at_once(void **state)
{
    static const struct {
        const char *what; /* 'c' or 'd' for each byte of send */
        uint8_t send[4];
        unsigned nanswers;
        uint8_t answers[4];
    } cases[] = {
        {"c", {0xaa}, 1, {0x55}},
        {"c", {0xab}, 1, {0x00}},
        {"c", {0xa9}, 1, {0x01}},
        {"c", {0x20}, 1, {0x24}},
        {"cdc", {0x60, 0x65, 0x20}, 1, {0x65}},
        {"c", {0xad}, 0, {0}},
        {"c", {0x20}, 1, {0x75}},
        {"cdc", {0x60, 0x24, 0x20}, 1, {0x24}},
        {"c", {0xd0}, 1, {0x03}},
        {"cd", {0xd1, 0x03}, 0, {0}},
        {"cd", {0xd3, 0x5a}, 1, {0x5a}},
        {"cd", {0xd4, 0xf2}, 1, {0xfe}},
        {"d", {0xff}, 2, {0xfa, 0xaa}},
        {"d", {0xee}, 1, {0xee}},
        {"d", {0xf2}, 3, {0xfa, 0xab, 0x83}},
        {"dd", {0xed, 0x07}, 2, {0xfa, 0xfa}},
        {"dd", {0xf0, 0x00}, 3, {0xfa, 0xfa, 0x02}},
        {"d", {0x01}, 1, {0xfe}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned k = 0; cases[i].what[k] != '\0'; k++) {
            out8(&b.m, cases[i].what[k] == 'c' ? I8042_COMMAND_PORT : I8042_DATA_PORT,
                 cases[i].send[k]);
        }
        for (unsigned k = 0; k < cases[i].nanswers; k++) {
            assert_int_equal(in8(&b.m, I8042_COMMAND_PORT) & 0x23, 1); /* full, not busy */
            assert_int_equal(in8(&b.m, I8042_DATA_PORT), cases[i].answers[k]);
        }
        assert_int_equal(in8(&b.m, I8042_COMMAND_PORT) & 0x21, 0);
    }
}

static void each_byte_is_an_edge_of_irq_1(void **state)
{
    (void)state;
    out8(&b.m, I8042_COMMAND_PORT, 0x60);
    out8(&b.m, I8042_DATA_PORT, 0x65);
    out8(&b.m, I8042_DATA_PORT, 0xf2);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(b.rises[I8042_IRQ], i);
        assert_true(b.level[I8042_IRQ]);
        in8(&b.m, I8042_DATA_PORT);
    }
    assert_false(b.level[I8042_IRQ]);
}

static void reset_pulses_reset(void **state)
{
    static const struct {
        uint8_t cmd;
        bool resets;
    } cases[] = {{0xfe, true}, {0xf0, true}, {0xff, false}, {0xf1, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        machine_reset(&b.m);
        out8(&b.m, I8042_COMMAND_PORT, cases[i].cmd);
        assert_int_equal(b.m.stopped, cases[i].resets);
    }
    machine_reset(&b.m);
    out8(&b.m, I8042_COMMAND_PORT, 0xd1);
    out8(&b.m, I8042_DATA_PORT, 0x02);
    assert_true(b.m.stopped);
    assert_int_equal(b.m.stop_event, POWER_RESET);
}

static void poke(void *ctx)
{
    fuzz_ports(&b, board_device(&b.m, "i8042"), ctx, I8042_DATA_PORT, 5, 20);
    b.m.stopped = false;
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "i8042");
    struct prng g;

    (void)state;
    seed_open(&g, "i8042");
    for (unsigned i = 0; i < 300; i++) {
        fuzz_ports(&b, d, &g, I8042_DATA_PORT, 5, 50);
        b.m.stopped = false;
        check_round_trip(d);
        if (i % 50 == 0) {
            check_hostile(d, &g, poke, &g);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_command_is_answered_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(each_byte_is_an_edge_of_irq_1, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_pulses_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
