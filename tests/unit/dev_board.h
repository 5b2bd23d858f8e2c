/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/dev_board.h - a machine without CPUs for device tests: a clock that the test moves,
 * an output list, lines that count edges.
 *
 * To be included by one test program's C file. */
#ifndef TESTS_UNIT_DEV_BOARD_H
#define TESTS_UNIT_DEV_BOARD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/amount.h"
#include "tests/unit/section_checks.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/machine.h"

struct board {
    struct machine m;
    struct output_list out;
    uint64_t now;
    bool level[24];
    unsigned rises[24];
};

static inline uint64_t board_now(void *ctx)
{
    return ((struct board *)ctx)->now;
}

static inline void board_line(void *ctx, unsigned line, bool level)
{
    struct board *b = ctx;

    b->rises[line] += level && !b->level[line];
    b->level[line] = level;
}

static inline void board_open(struct board *b)
{
    const struct machine_config cfg = {.memory = 16 << 20, .vcpus = 1};
    const struct machine_host host = {0};

    memset(b, 0, sizeof *b);
    assert_int_equal(machine_init(&b->m, &cfg, &host, NULL), 0);
    output_list_init(&b->out);
    b->m.out = &b->out;
    b->m.now = board_now;
    b->m.now_ctx = b;
    for (unsigned i = 0; i < 24; i++) {
        b->m.gsi[i] = (struct irq_line){.set = board_line, .ctx = b, .line = i};
    }
}

static inline void board_close(struct board *b)
{
    output_list_free(&b->out);
    machine_fini(&b->m);
}

/* Move the clock and fire what is due, as the start of a round does. */
static inline void board_run_to(struct board *b, uint64_t ns)
{
    b->now = ns;
    vtimers_fire(&b->m.timers, ns);
}

static inline uint8_t in8(struct machine *m, uint16_t port)
{
    return (uint8_t)bus_read(m->bus, BUS_PIO, port, 1);
}

static inline void out8(struct machine *m, uint16_t port, uint8_t value)
{
    bus_write(m->bus, BUS_PIO, port, 1, value);
}

static inline struct device *board_device(struct machine *m, const char *name)
{
    for (unsigned i = 0; i < m->ndevices; i++) {
        if (strcmp(m->devices[i].name, name) == 0) {
            return &m->devices[i];
        }
    }
    fail_msg("no device %s", name);
    return NULL;
}

/* @n random accesses to ports [@base, @base + @len), the clock moving on; the device's state is
 * checked by a round trip now and then. */
static inline void fuzz_ports(struct board *b, struct device *d, struct prng *g, uint16_t base,
                              unsigned len, unsigned n)
{
    for (unsigned i = 0; i < n && !b->m.stopped; i++) {
        uint16_t port = (uint16_t)(base + prng_below(g, len));
        unsigned size = 1U << prng_below(g, 3);

        if (prng_below(g, 2) == 0) {
            bus_read(b->m.bus, BUS_PIO, port, size);
        } else {
            bus_write(b->m.bus, BUS_PIO, port, size, prng_u64(g) >> prng_below(g, 64));
        }
        if (prng_below(g, 4) == 0) {
            board_run_to(b, b->now + prng_below(g, UINT64_C(1) << prng_below(g, 40)));
        }
        if (i % 64 == 0) {
            struct wbuf w;

            wbuf_init(&w);
            d->ops->save(d->dev, &w);
            assert_int_equal(section_read(d, &w, w.len, d->version), 0);
            section_equal(d, &w);
            wbuf_free(&w);
        }
    }
}

/* A seed that a run prints and SEED repeats. */
static inline void seed_open(struct prng *g, const char *what)
{
    uint64_t seed = from_env("SEED", 0x20c0ffee);

    printf("%s: SEED=0x%llx\n", what, (unsigned long long)seed);
    prng_seed(g, seed);
}

#endif
