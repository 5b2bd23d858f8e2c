/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a power button nobody hears, a PM timer off its frequency, a guest that cannot switch off,
 * exit codes mangled. ACPI power management and the ports without state. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/acpipm.h"
#include "vmm/dev/debugexit.h"
#include "vmm/tunables.h"

static struct board b;
static struct acpipm *pm;

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    assert_int_equal(acpipm_create(&b.m, &pm, NULL), 0);
    assert_int_equal(debugexit_create(&b.m, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    acpipm_destroy(pm);
    board_close(&b);
    return 0;
}

static uint64_t in(uint16_t port, unsigned size)
{
    return bus_read(b.m.bus, BUS_PIO, port, size);
}

static void out(uint16_t port, unsigned size, uint64_t value)
{
    bus_write(b.m.bus, BUS_PIO, port, size, value);
}

static void the_timer_counts_at_its_frequency(void **state)
{
    (void)state;
    for (uint64_t s = 0; s < 3000; s += 7) {
        board_run_to(&b, s * 1000000000);
        assert_int_equal(in(PM_TMR_PORT, 4), (uint32_t)(s * PM_TIMER_HZ));
    }
}

static void the_power_button_raises_sci(void **state)
{
    const struct input press = {.kind = INPUT_POWER_BUTTON};

    (void)state;
    assert_int_equal(machine_input(&b.m, &press, NULL), 0);
    assert_false(b.level[SCI_GSI]); /* not enabled yet; the status waits */
    out(PM1A_EVT_PORT + 2, 2, 0x0100);
    assert_true(b.level[SCI_GSI]);
    assert_int_equal(in(PM1A_EVT_PORT, 2), 0x0100);
    assert_int_equal(in(PM1A_EVT_PORT, 4), 0x01000100);
    out(PM1A_EVT_PORT, 2, 0x0100);
    assert_false(b.level[SCI_GSI]);
    assert_int_equal(in(PM1A_EVT_PORT, 2), 0);
}

static void the_timer_status_follows_its_top_bit(void **state)
{
    uint64_t half = ((UINT64_C(1) << 31) * 1000000000 + PM_TIMER_HZ - 1) / PM_TIMER_HZ;

    (void)state;
    out(PM1A_EVT_PORT + 2, 2, 1);
    assert_int_equal(vtimers_next(&b.m.timers), half);
    board_run_to(&b, half - 1);
    assert_false(b.level[SCI_GSI]);
    board_run_to(&b, half);
    assert_true(b.level[SCI_GSI]);
    assert_int_equal(in(PM_TMR_PORT, 4), UINT32_C(1) << 31);
    out(PM1A_EVT_PORT, 2, 1);
    assert_false(b.level[SCI_GSI]);
}

static void what_ends_the_machine(void **state)
{
    static const struct {
        uint16_t port;
        unsigned size;
        uint32_t value;
        int event; /* -1: goes on */
        uint64_t code;
    } cases[] = {
        {PM1A_CNT_PORT, 2, ACPI_SLP_TYP_S5 << 10 | 0x2000, POWER_OFF, 0},
        {PM1A_CNT_PORT + 1, 1, ACPI_SLP_TYP_S5 << 2 | 0x20, POWER_OFF, 0},
        {PM1A_CNT_PORT, 2, ACPI_SLP_TYP_S5 << 10, -1, 0},
        {PM1A_CNT_PORT, 2, 3 << 10 | 0x2000, -1, 0},
        {ACPI_RESET_PORT, 1, ACPI_RESET_VALUE, POWER_RESET, 0},
        {ACPI_RESET_PORT, 1, 0, -1, 0},
        {DEBUG_EXIT_PORT, 1, 0, POWER_DEBUG_EXIT, 1},
        {DEBUG_EXIT_PORT, 1, 0x2a, POWER_DEBUG_EXIT, 0x55},
        {DEBUG_EXIT_PORT, 4, 0xffffffff, POWER_DEBUG_EXIT, 0x1ffffffff},
        {SYSTEM_CONTROL_A_PORT, 1, 0x02, -1, 0},
        {SYSTEM_CONTROL_A_PORT, 1, 0x03, POWER_RESET, 0},
        {0x80, 1, 0xff, -1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        machine_reset(&b.m);
        output_list_clear(&b.out);
        out(cases[i].port, cases[i].size, cases[i].value);
        assert_int_equal(b.m.stopped, cases[i].event >= 0);
        assert_int_equal(b.out.n, cases[i].event >= 0 ? 1 : 0);
        if (cases[i].event >= 0) {
            assert_int_equal(b.out.items[0].kind, OUTPUT_POWER);
            assert_int_equal(b.out.items[0].op, cases[i].event);
            assert_true(b.out.items[0].arg == cases[i].code);
            out(DEBUG_EXIT_PORT, 1, 7); /* only the first counts */
            assert_int_equal(b.out.n, 1);
            assert_int_equal(b.m.stop_event, cases[i].event);
        }
    }
    assert_int_equal(in(SYSTEM_CONTROL_A_PORT, 1), 2);
    assert_int_equal(in(PM1A_CNT_PORT, 2) & 1, 1); /* SCI_EN */
}

static void poke(void *ctx)
{
    fuzz_ports(&b, board_device(&b.m, "acpi-pm"), ctx, PM_PORT, PM_PORT_LEN, 10);
    b.m.stopped = false;
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "acpi-pm");
    struct prng g;

    (void)state;
    seed_open(&g, "acpi-pm");
    for (unsigned i = 0; i < 200; i++) {
        fuzz_ports(&b, d, &g, PM_PORT, PM_PORT_LEN, 50);
        b.m.stopped = false;
        b.now %= UINT64_C(1) << 50;
        check_round_trip(d);
        if (i % 40 == 0) {
            check_hostile(d, &g, poke, &g);
        }
    }
    d = board_device(&b.m, "machine");
    check_round_trip(d);
    check_hostile(d, &g, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_timer_counts_at_its_frequency, setup, teardown),
        cmocka_unit_test_setup_teardown(the_power_button_raises_sci, setup, teardown),
        cmocka_unit_test_setup_teardown(the_timer_status_follows_its_top_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(what_ends_the_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
