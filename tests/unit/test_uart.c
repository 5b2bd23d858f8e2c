/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a lost transmitter interrupt, a console byte without its place, typed bytes that vanish
 * before the queue is full, register probes of drivers that find another chip. */
#include "tests/unit/dev_board.h"

#include "vmm/dev/uart.h"

enum {
    P = COM1_PORT,
    THR = P,
    RBR = P,
    IER = P + 1,
    IIR = P + 2,
    FCR = P + 2,
    LCR = P + 3,
    MCR = P + 4,
    LSR = P + 5,
    MSR = P + 6,
    SCR = P + 7
};

static struct board b;
static struct uart *u;

static int setup(void **state)
{
    struct uart_config cfg = {.name = "uart0", .console = CONSOLE_SERIAL0, .port = P};

    (void)state;
    board_open(&b);
    cfg.irq = b.m.gsi[COM1_IRQ];
    assert_int_equal(uart_create(&b.m, &cfg, &u, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    uart_destroy(u);
    board_close(&b);
    return 0;
}

static void type(const char *s)
{
    struct input in = {.kind = INPUT_CONSOLE_RX,
                       .dev = CONSOLE_SERIAL0,
                       .data = (const uint8_t *)s,
                       .len = (uint32_t)strlen(s)};

    assert_int_equal(machine_input(&b.m, &in, NULL), 0);
}

static void written_bytes_carry_positions(void **state)
{
    const char *text = "hello";

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(in8(&b.m, LSR), 0x60); /* always ready */
        out8(&b.m, THR, (uint8_t)text[i]);
    }
    assert_int_equal(b.out.n, 1);
    const struct output *o = &b.out.items[0];
    assert_int_equal(o->kind, OUTPUT_CONSOLE);
    assert_int_equal(o->dev, CONSOLE_SERIAL0);
    assert_int_equal(o->pos, 0);
    assert_int_equal(o->len, 5);
    assert_memory_equal(output_data(&b.out, o), text, 5);
}

/* What Linux' 8250 driver tests at start-up: enabling the interrupt raises it each time. */
static void enabling_thri_raises_it_again(void **state)
{
    (void)state;
    out8(&b.m, MCR, 0x08);
    for (unsigned i = 0; i < 3; i++) {
        unsigned rises = b.rises[COM1_IRQ];

        out8(&b.m, IER, 0x02);
        assert_int_equal(b.rises[COM1_IRQ], rises + 1);
        assert_int_equal(in8(&b.m, IIR), 0x02);
        assert_int_equal(in8(&b.m, IIR), 0x01); /* reading took it */
        assert_false(b.level[COM1_IRQ]);
        out8(&b.m, IER, 0x00);
    }
}

/* Every write of THR is followed by an edge, whether or not IIR was read before. */
static void every_write_makes_an_edge(void **state)
{
    (void)state;
    out8(&b.m, MCR, 0x08);
    out8(&b.m, IER, 0x02);
    for (unsigned i = 0; i < 20; i++) {
        unsigned rises = b.rises[COM1_IRQ];

        if (i % 3 == 0) {
            in8(&b.m, IIR);
        }
        out8(&b.m, THR, 'x');
        assert_int_equal(b.rises[COM1_IRQ], rises + 1);
        assert_true(b.level[COM1_IRQ]);
    }
}

static void received_bytes_interrupt_by_trigger_and_timeout(void **state)
{
    (void)state;
    out8(&b.m, MCR, 0x08);
    out8(&b.m, FCR, 0x41); /* FIFO on, trigger at 4 */
    out8(&b.m, IER, 0x01);
    type("ab");
    assert_true(b.level[COM1_IRQ]);
    assert_int_equal(in8(&b.m, IIR), 0xcc);
    type("cd");
    assert_int_equal(in8(&b.m, IIR), 0xc4);
    for (const char *c = "abcd"; *c != '\0'; c++) {
        assert_int_equal(in8(&b.m, LSR) & 1, 1);
        assert_int_equal(in8(&b.m, RBR), *c);
    }
    assert_int_equal(in8(&b.m, LSR) & 1, 0);
    assert_int_equal(in8(&b.m, IIR), 0xc1);
    assert_false(b.level[COM1_IRQ]);
    /* OUT2 low closes the gate. */
    out8(&b.m, MCR, 0x00);
    type("e");
    assert_false(b.level[COM1_IRQ]);
    out8(&b.m, MCR, 0x08);
    assert_true(b.level[COM1_IRQ]);
}

static void a_full_queue_drops_and_says_so(void **state)
{
    static char much[UART_QUEUE + 2];

    (void)state;
    memset(much, 'z', UART_QUEUE + 1);
    assert_int_equal(uart_rx(u, (const uint8_t *)much, UART_QUEUE + 1), UART_QUEUE);
    assert_int_equal(in8(&b.m, LSR), 0x63);
    assert_int_equal(in8(&b.m, LSR), 0x61); /* reading clears the overrun */
    check_round_trip(board_device(&b.m, "uart0"));
    for (unsigned i = 0; i < UART_QUEUE; i++) {
        assert_int_equal(in8(&b.m, RBR), 'z');
    }
    assert_int_equal(in8(&b.m, LSR), 0x60);
}

static void drivers_find_a_16550a(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t write, read;
    } probes[] = {
        {SCR, 0x5a, 0x5a},
        {IER, 0xff, 0x0f},
        {IER, 0x00, 0x00},
        {FCR, 0x01, 0xc1},
        {FCR, 0x00, 0x01},
        {MCR, 0x1a, 0x1a},
        {MSR, 0x00, 0x90} /* loop: RTS and OUT2 */,
        {MCR, 0x08, 0x08},
        {LCR, 0x93, 0x93},
        {P, 0x01, 0x01},
        {P + 1, 0x02, 0x02},
        {LCR, 0x13, 0x13},
    };

    (void)state;
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        if (probes[i].port == MSR) {
            assert_int_equal(in8(&b.m, MSR) & 0xf0, probes[i].read);
            continue;
        }
        out8(&b.m, probes[i].port, probes[i].write);
        assert_int_equal(in8(&b.m, probes[i].port), probes[i].read);
    }
    out8(&b.m, MCR, 0x10); /* loop mode: what is sent comes back and stays inside */
    out8(&b.m, THR, 'q');
    assert_int_equal(in8(&b.m, RBR), 'q');
    assert_int_equal(b.out.n, 0);
}

static void poke(void *ctx)
{
    struct prng *g = ctx;

    fuzz_ports(&b, board_device(&b.m, "uart0"), g, P, 8, 20);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "uart0");
    struct prng g;

    (void)state;
    seed_open(&g, "uart");
    for (unsigned i = 0; i < 50; i++) {
        fuzz_ports(&b, d, &g, P, 8, 200);
        type("some input");
        check_round_trip(d);
    }
    check_hostile(d, &g, poke, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(written_bytes_carry_positions, setup, teardown),
        cmocka_unit_test_setup_teardown(enabling_thri_raises_it_again, setup, teardown),
        cmocka_unit_test_setup_teardown(every_write_makes_an_edge, setup, teardown),
        cmocka_unit_test_setup_teardown(received_bytes_interrupt_by_trigger_and_timeout, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_queue_drops_and_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(drivers_find_a_16550a, setup, teardown),
        cmocka_unit_test_setup_teardown(state_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
