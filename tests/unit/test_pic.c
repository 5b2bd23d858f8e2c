/* SPDX-License-Identifier: Apache-2.0
 * Hunts: lost edges, a level that stops interrupting, cascade and priority mistakes. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/pic.h"

enum { M = PIC_MASTER_PORT, S = PIC_SLAVE_PORT };

static struct board b;
static struct pic *pic;
static bool intr;

static void set_intr(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    (void)line;
    intr = level;
}

/* ICW1-4 as PC firmware and Linux write them; everything unmasked. */
static void program(uint8_t icw4)
{
    static const uint16_t ports[] = {M, S};

    for (unsigned i = 0; i < 2; i++) {
        out8(&b.m, ports[i], 0x11);
        out8(&b.m, ports[i] + 1, (uint8_t)(0x30 + i * 8));
        out8(&b.m, ports[i] + 1, i == 0 ? 4 : 2);
        out8(&b.m, ports[i] + 1, icw4);
        out8(&b.m, ports[i] + 1, 0x00);
    }
}

static int setup(void **state)
{
    const struct irq_line line = {.set = set_intr};

    (void)state;
    board_open(&b);
    intr = false;
    assert_int_equal(pic_create(&b.m, &line, &pic, NULL), 0);
    program(0x01);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pic_destroy(pic);
    board_close(&b);
    return 0;
}

static void pulse(unsigned irq)
{
    pic_set_line(pic, irq, true);
    pic_set_line(pic, irq, false);
}

static void edges_are_kept_and_served_by_priority(void **state)
{
    (void)state;
    pulse(5);
    pulse(3);
    pulse(12);
    assert_true(intr);
    assert_int_equal(pic_take(pic), 0x38 + 4); /* the slave is at the master's input 2 */
    assert_false(intr);                        /* 3 and 5 are lower */
    out8(&b.m, S, 0x20);
    out8(&b.m, M, 0x20);
    assert_true(intr);
    assert_int_equal(pic_take(pic), 0x33);
    pulse(3); /* while in service: waits */
    assert_false(intr);
    pulse(1); /* nests */
    assert_true(intr);
    assert_int_equal(pic_take(pic), 0x31);
    out8(&b.m, M, 0x20);
    out8(&b.m, M, 0x20);
    assert_int_equal(pic_take(pic), 0x33);
    out8(&b.m, M, 0x63); /* specific EOI */
    assert_int_equal(pic_take(pic), 0x35);
    out8(&b.m, M, 0x20);
    assert_false(intr);
    assert_int_equal(pic_take(pic), 0x37); /* spurious */
    out8(&b.m, M, 0x0b);
    assert_int_equal(in8(&b.m, M), 0); /* which is not in service */
}

static void two_requests_of_the_slave_are_two_interrupts(void **state)
{
    (void)state;
    pulse(14);
    pulse(9);
    assert_int_equal(pic_take(pic), 0x39);
    out8(&b.m, S, 0x20);
    out8(&b.m, M, 0x20);
    assert_true(intr);
    assert_int_equal(pic_take(pic), 0x3e);
    out8(&b.m, S, 0x20);
    out8(&b.m, M, 0x20);
    assert_false(intr);
}

static void a_level_interrupts_until_it_falls(void **state)
{
    (void)state;
    out8(&b.m, ELCR_PORT, 0xff);
    out8(&b.m, ELCR_PORT + 1, 0xff);
    assert_int_equal(in8(&b.m, ELCR_PORT), 0xf8);
    assert_int_equal(in8(&b.m, ELCR_PORT + 1), 0xde);
    pic_set_line(pic, 11, true);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(intr);
        assert_int_equal(pic_take(pic), 0x3b);
        assert_false(intr);
        out8(&b.m, S, 0x20);
        out8(&b.m, M, 0x20);
    }
    pic_set_line(pic, 11, false);
    assert_false(intr);
}

static void masks_hold_back_and_read_back(void **state)
{
    (void)state;
    out8(&b.m, M + 1, 0xfb);
    assert_int_equal(in8(&b.m, M + 1), 0xfb);
    pulse(4);
    assert_false(intr);
    out8(&b.m, M, 0x0a);
    assert_int_equal(in8(&b.m, M), 0x10);
    out8(&b.m, M + 1, 0xeb);
    assert_true(intr);
    assert_int_equal(pic_take(pic), 0x34);
}

static void automatic_eoi_polling_and_rotation(void **state)
{
    (void)state;
    program(0x03);
    pulse(6);
    assert_int_equal(pic_take(pic), 0x36);
    out8(&b.m, M, 0x0b);
    assert_int_equal(in8(&b.m, M), 0); /* nothing in service */
    program(0x01);
    pulse(6);
    out8(&b.m, M, 0x0c); /* poll: the read is the acknowledgement */
    assert_int_equal(in8(&b.m, M), 0x86);
    out8(&b.m, M, 0xa0); /* rotate on EOI: 6 is now the lowest */
    pulse(6);
    pulse(7);
    assert_int_equal(pic_take(pic), 0x37);
    out8(&b.m, M, 0x20);
    assert_int_equal(pic_take(pic), 0x36);
}

static void poke(void *ctx)
{
    fuzz_ports(&b, board_device(&b.m, "pic"), ctx, M, 2, 10);
    pulse(9);
    pic_take(pic);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "pic");
    struct prng g;

    (void)state;
    seed_open(&g, "pic");
    for (unsigned i = 0; i < 300; i++) {
        unsigned irq = (unsigned)prng_below(&g, 16);

        fuzz_ports(&b, d, &g, M, 2, 20);
        fuzz_ports(&b, d, &g, S, 2, 20);
        fuzz_ports(&b, d, &g, ELCR_PORT, 2, 5);
        if (irq != 2) {
            pic_set_line(pic, irq, prng_below(&g, 2) != 0);
        }
        if (intr) {
            pic_take(pic);
        }
        if (i % 50 == 0) {
            check_hostile(d, &g, poke, &g);
        }
    }
    check_round_trip(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(edges_are_kept_and_served_by_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(two_requests_of_the_slave_are_two_interrupts, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_level_interrupts_until_it_falls, setup, teardown),
        cmocka_unit_test_setup_teardown(masks_hold_back_and_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(automatic_eoi_polling_and_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
