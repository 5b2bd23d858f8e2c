/* SPDX-License-Identifier: Apache-2.0
 * Hunts: an access that reaches beyond a range, an overlap let in, bytes lost in a split. */
#include "tests/unit/dev_board.h"

#include "base/alloc.h"

/* A device of bytes that says how it was asked. */
struct bytes {
    uint8_t mem[16];
    unsigned asked, last_size;
    uint64_t len;
};

static uint64_t bytes_read(void *ctx, uint64_t addr, unsigned size)
{
    struct bytes *d = ctx;
    uint64_t v = 0;

    d->asked++;
    d->last_size = size;
    assert_true(addr + size <= d->len);
    memcpy(&v, d->mem + addr, size);
    return v;
}

static void bytes_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct bytes *d = ctx;

    d->asked++;
    d->last_size = size;
    assert_true(addr + size <= d->len);
    memcpy(d->mem + addr, &value, size);
}

static const struct bus_range_ops ops = {bytes_read, bytes_write};

struct fixture {
    struct bus *bus;
    struct bytes a, b; /* ports 0x10-0x13 and 0x14-0x17 */
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){.a = {.len = 4}, .b = {.len = 4}};
    assert_int_equal(bus_create(&f.bus), 0);
    assert_int_equal(bus_claim(f.bus, BUS_PIO, 0x14, 4, "b", &ops, &f.b, NULL), 0);
    assert_int_equal(bus_claim(f.bus, BUS_PIO, 0x10, 4, "a", &ops, &f.a, NULL), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    bus_destroy(((struct fixture *)*state)->bus);
    return 0;
}

static void accesses_are_whole_inside_and_bytes_across(void **state)
{
    struct fixture *f = *state;

    bus_write(f->bus, BUS_PIO, 0x10, 4, 0xffffffff44332211);
    assert_int_equal(f->a.asked, 1);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x11, 2), 0x3322);
    assert_int_equal(f->a.last_size, 2);
    bus_write(f->bus, BUS_PIO, 0x12, 4, 0xddccbbaa);
    assert_int_equal(f->a.last_size, 1);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x10, 4), 0xbbaa2211);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x14, 2), 0xddcc);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x12, 4), 0xddccbbaa);
    /* Half claimed: the rest reads as ones, on either side. */
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x17, 2), 0xff00);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x0f, 2), 0x11ff);
}

static void unclaimed_reads_as_ones(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x80, 1), 0xff);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x80, 4), 0xffffffff);
    assert_true(bus_read(f->bus, BUS_MMIO, 0x10, 8) == UINT64_MAX); /* spaces are apart */
    bus_write(f->bus, BUS_PIO, 0x80, 4, 1);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0xffff, 4), 0xffffffff); /* wraps, reaches nobody */
}

static void overlaps_are_refused_by_name(void **state)
{
    static const struct {
        uint64_t base, len;
        int rc;
    } cases[] = {
        {0x13, 1, PLX_EEXIST},
        {0x0f, 2, PLX_EEXIST},
        {0x00, 0x100, PLX_EEXIST},
        {0x17, 1, PLX_EEXIST},
        {0x18, 0, PLX_EINVAL},
        {0xffff, 2, PLX_EINVAL},
        {0x10000, 1, PLX_EINVAL},
        {UINT64_MAX, 2, PLX_EINVAL},
        {0x18, 1, 0},
        {0x0f, 1, 0},
    };
    struct fixture *f = *state;
    struct bytes other = {.len = 16};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plx_err err = {0};
        int rc =
            bus_claim(f->bus, BUS_PIO, cases[i].base, cases[i].len, "other", &ops, &other, &err);

        assert_int_equal(rc, cases[i].rc);
        if (rc == PLX_EEXIST) {
            assert_non_null(strstr(err.msg, "other"));
            assert_non_null(strstr(err.msg, " of "));
        }
    }
}

static void release_needs_base_and_owner(void **state)
{
    struct fixture *f = *state;

    bus_release(f->bus, BUS_PIO, 0x10, &f->b);
    bus_release(f->bus, BUS_PIO, 0x11, &f->a);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x10, 1), 0);
    bus_release(f->bus, BUS_PIO, 0x10, &f->a);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x10, 1), 0xff);
    assert_int_equal(bus_claim(f->bus, BUS_PIO, 0x10, 2, "a", &ops, &f->a, NULL), 0);
    assert_int_equal(bus_read(f->bus, BUS_PIO, 0x14, 1), 0);
}

/* Random claims, releases and accesses against an array of owners. */
static void agrees_with_a_plain_map(void **state)
{
    enum { SPAN = 256 };
    struct fixture *f = *state;
    struct bytes devs[16];
    struct {
        uint64_t base, len;
    } where[16] = {{0}};
    struct prng g;

    seed_open(&g, "bus");
    for (unsigned i = 0; i < 16; i++) {
        devs[i] = (struct bytes){.len = 1 + i};
        memset(devs[i].mem, (int)i + 1, sizeof devs[i].mem);
    }
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)prng_below(&g, 16);
        uint64_t base = 0x1000 + prng_below(&g, SPAN);

        if (prng_below(&g, 3) == 0) {
            if (where[i].len != 0) {
                bus_release(f->bus, BUS_MMIO, where[i].base, &devs[i]);
                where[i].len = 0;
            } else if (bus_claim(f->bus, BUS_MMIO, base, devs[i].len, "d", &ops, &devs[i], NULL) ==
                       0) {
                where[i].base = base;
                where[i].len = devs[i].len;
            }
            continue;
        }
        uint64_t want = 0;
        unsigned size = 1U << prng_below(&g, 4);

        for (unsigned k = 0; k < size; k++) {
            uint64_t byte = 0xff;

            for (unsigned d = 0; d < 16; d++) {
                if (where[d].len != 0 && base + k >= where[d].base &&
                    base + k - where[d].base < where[d].len) {
                    byte = d + 1;
                }
            }
            want |= byte << (k * 8);
        }
        assert_true(bus_read(f->bus, BUS_MMIO, base, size) == want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(accesses_are_whole_inside_and_bytes_across, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(unclaimed_reads_as_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(overlaps_are_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(release_needs_base_and_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(agrees_with_a_plain_map, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
