/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a guest that kills or hangs its VM through a ring: indices and addresses out of range,
 * loops, huge lengths, tables in tables, rings moved while they run, garbage everywhere. Each case
 * has one defined reaction: the device needs a reset (and works after one), nothing else changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/prng.h"
#include "tests/unit/virtio_guest.h"
#include "vmm/tunables.h"

enum { SLOT_NET = 3, SLOT_BLK = 4, SLOT_RNG = 5, SLOT_CONSOLE = 6 };
enum { BUF = 0x200000, TABLE = 0x300000 };

static struct guest the_guest;

static int setup(void **state)
{
    struct guest *g = &the_guest;
    guest_open(g);
    assert_int_equal(virtio_net_create(&g->m, SLOT_NET, 0, NULL), 0);
    assert_int_equal(virtio_blk_create(&g->m, SLOT_BLK, 0, NULL), 0);
    assert_int_equal(virtio_rng_create(&g->m, SLOT_RNG, NULL), 0);
    assert_int_equal(virtio_console_create(&g->m, SLOT_CONSOLE, NULL), 0);
    machine_reset(&g->m);
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    guest_close(*state);
    return 0;
}

/* --- one broken rule each, on the entropy device ------------------------------------------- */

static void head_out_of_range(struct driver *d)
{
    driver_offer(d, 0, GUEST_QSIZE);
}

static void index_jumps(struct driver *d)
{
    guest_put16(d->g, d->q[0].avail + 2, GUEST_QSIZE + 1);
}

static void index_goes_back(struct driver *d)
{
    guest_put16(d->g, d->q[0].avail + 2, 0xffff);
}

static void next_out_of_range(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, BUF, 4, D_WRITE | D_NEXT, 1000);
    driver_offer(d, 0, 0);
}

static void loop_of_one(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, BUF, 4, D_WRITE | D_NEXT, 0);
    driver_offer(d, 0, 0);
}

static void loop_of_two(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, BUF, 4, D_WRITE | D_NEXT, 1);
    driver_desc(d, d->q[0].desc, 1, BUF, 4, D_WRITE | D_NEXT, 0);
    driver_offer(d, 0, 0);
}

static void buffer_beyond_ram(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, VIRTIO_RAM - 8, 16, D_WRITE, 0);
    driver_offer(d, 0, 0);
}

static void buffer_in_the_hole(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, 0xfee00000, 16, D_WRITE, 0);
    driver_offer(d, 0, 0);
}

static void buffer_wraps(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, UINT64_MAX - 7, 16, D_WRITE, 0);
    driver_offer(d, 0, 0);
}

static void buffer_huge(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, BUF, UINT32_MAX, D_WRITE, 0);
    driver_offer(d, 0, 0);
}

static void readable_after_writable(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, BUF, 4, D_WRITE | D_NEXT, 1);
    driver_desc(d, d->q[0].desc, 1, BUF, 4, 0, 0);
    driver_offer(d, 0, 0);
}

static void table_with_next(struct driver *d)
{
    driver_desc(d, TABLE, 0, BUF, 4, D_WRITE, 0);
    driver_desc(d, d->q[0].desc, 0, TABLE, 16, D_INDIRECT | D_NEXT, 1);
    driver_offer(d, 0, 0);
}

static void table_in_table(struct driver *d)
{
    driver_desc(d, TABLE, 0, TABLE, 16, D_INDIRECT, 0);
    driver_desc(d, d->q[0].desc, 0, TABLE, 16, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static void table_empty(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, TABLE, 0, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static void table_of_odd_length(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, TABLE, 24, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static void table_beyond_ram(struct driver *d)
{
    driver_desc(d, d->q[0].desc, 0, VIRTIO_RAM - 16, 32, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static void table_index_out_of_range(struct driver *d)
{
    driver_desc(d, TABLE, 0, BUF, 4, D_WRITE | D_NEXT, 2);
    driver_desc(d, d->q[0].desc, 0, TABLE, 32, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static void table_loops(struct driver *d)
{
    for (unsigned i = 0; i < 1024; i++) {
        driver_desc(d, TABLE, i, BUF, 4, D_WRITE | D_NEXT, (uint16_t)((i + 1) % 1024));
    }
    driver_desc(d, d->q[0].desc, 0, TABLE, 1024 * 16, D_INDIRECT, 0);
    driver_offer(d, 0, 0);
}

static const struct {
    const char *name;
    void (*make)(struct driver *d);
} broken[] = {
#define C(f)  \
    {         \
#f, f \
    }
    C(head_out_of_range),
    C(index_jumps),
    C(index_goes_back),
    C(next_out_of_range),
    C(loop_of_one),
    C(loop_of_two),
    C(buffer_beyond_ram),
    C(buffer_in_the_hole),
    C(buffer_wraps),
    C(buffer_huge),
    C(readable_after_writable),
    C(table_with_next),
    C(table_in_table),
    C(table_empty),
    C(table_of_odd_length),
    C(table_beyond_ram),
    C(table_index_out_of_range),
    C(table_loops),
#undef C
};

static void broken_rings_need_a_reset(void **state)
{
    struct guest *g = *state;
    struct driver d;

    driver_find(&d, g, SLOT_RNG);
    driver_msix_on(&d);
    for (unsigned i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        driver_start(&d, VIRTIO_F_INDIRECT_DESC);
        g->msis = 0;
        broken[i].make(&d);
        driver_ring(&d, 0);
        if (driver_status(&d) != (0x0f | VIRTIO_S_NEEDS_RESET) || g->msis != 1 ||
            g->last_msi != 0x40 || driver_unseen(&d, 0) != 0) {
            fail_msg("%s: status %#x, %u interrupts", broken[i].name, driver_status(&d), g->msis);
        }
        driver_ring(&d, 0); /* dead until reset */
        assert_int_equal(g->msis, 1);
        driver_start(&d, 0);
        const struct buffer b = {BUF, 4, true};
        driver_chain(&d, 0, &b, 1);
        driver_ring(&d, 0);
        assert_int_equal(driver_unseen(&d, 0), 1);
    }
}

static void indirect_needs_the_feature(void **state)
{
    struct driver d;

    driver_find(&d, *state, SLOT_RNG);
    driver_start(&d, 0);
    driver_desc(&d, TABLE, 0, BUF, 4, D_WRITE, 0);
    driver_desc(&d, d.q[0].desc, 0, TABLE, 16, D_INDIRECT, 0);
    driver_offer(&d, 0, 0);
    driver_ring(&d, 0);
    assert_true((driver_status(&d) & VIRTIO_S_NEEDS_RESET) != 0);
}

/* Size, descriptor, available and used area of a queue, each wrong in turn. */
static void bad_queue_setup(void **state)
{
    struct guest *g = *state;
    struct driver d;
    static const uint64_t table[][4] = {
        {0, 0x1000, 0x2000, 0x3000},          {3, 0x1000, 0x2000, 0x3000},
        {512, 0x1000, 0x2000, 0x4000},        {8, 0x1001, 0x2000, 0x3000},
        {8, 0x1000, 0x2001, 0x3000},          {8, 0x1000, 0x2000, 0x3002},
        {8, VIRTIO_RAM - 64, 0x2000, 0x3000}, {8, 0x1000, VIRTIO_RAM - 4, 0x3000},
        {8, 0x1000, 0x2000, VIRTIO_RAM},      {8, UINT64_MAX - 15, 0x2000, 0x3000},
        {8, 0x1000, 0x2000, 0xbffffff0},
    };

    driver_find(&d, g, SLOT_RNG);
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        driver_set_status(&d, 0);
        driver_set_status(&d, 3);
        driver_accept(&d, VIRTIO_F_VERSION_1);
        driver_set_status(&d, 0x0b);
        guest_mmio_write(g, d.common + 22, 2, 0);
        guest_mmio_write(g, d.common + 24, 2, table[i][0]);
        guest_mmio_write(g, d.common + 32, 8, table[i][1]);
        guest_mmio_write(g, d.common + 40, 8, table[i][2]);
        guest_mmio_write(g, d.common + 48, 8, table[i][3]);
        guest_mmio_write(g, d.common + 28, 2, 1);
        assert_int_equal(guest_mmio_read(g, d.common + 28, 2), 0);
        driver_set_status(&d, 0x0f);
        assert_int_equal(driver_status(&d), 0x0f | VIRTIO_S_NEEDS_RESET);
        driver_ring(&d, 0);
    }
}

static void disk_request_without_status(void **state)
{
    struct guest *g = *state;
    struct driver d;
    const struct buffer b = {BUF, 16, false};

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    driver_chain(&d, 0, &b, 1);
    driver_ring(&d, 0);
    assert_true((driver_status(&d) & VIRTIO_S_NEEDS_RESET) != 0);
    assert_int_equal(g->out.n, 0);
}

/* The same head again and again: more requests in flight than the ring has descriptors. They stay
 * bounded, and all complete in the end. */
static void disk_requests_in_flight_are_bounded(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint64_t hdr[2] = {4, 0}; /* flush */
    const struct buffer b[] = {{BUF, 16, false}, {BUF + 16, 1, true}};

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    guest_put(g, BUF, hdr, sizeof hdr);
    uint16_t head = driver_chain(&d, 0, b, 2);
    for (unsigned i = 1; i < 400; i++) {
        if (i % GUEST_QSIZE == 0) {
            driver_ring(&d, 0);
        }
        driver_offer(&d, 0, head);
        if (g->out.n == 256) {
            break;
        }
    }
    for (unsigned i = 0; i < GUEST_QSIZE - 1; i++) {
        driver_offer(&d, 0, head);
        driver_ring(&d, 0);
    }
    assert_int_equal(g->out.n, 256);
    for (uint64_t id = 1; id <= 256 + GUEST_QSIZE; id++) {
        struct input in = {.kind = INPUT_DISK_DONE, .arg = id};
        assert_int_equal(machine_input(&g->m, &in, NULL), 0);
    }
    assert_int_equal(driver_status(&d), 0x0f);
}

/* Large writes stop being taken before they fill the host's memory, and go on as some finish. */
static void bytes_in_flight_are_bounded(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint64_t hdr[2] = {1, 0}; /* write; the disk has 1 MiB */
    const struct buffer b[] = {
        {BUF, 16, false}, {BUF + 0x10000, 1 << 20, false}, {BUF + 16, 1, true}};
    uint64_t done = 0;
    unsigned offered = 0;

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    guest_put(g, BUF, hdr, sizeof hdr);
    uint16_t head = driver_chain(&d, 0, b, 3);
    driver_ring(&d, 0);
    for (offered = 1; offered < 32 + GUEST_QSIZE; offered++) {
        driver_offer(&d, 0, head);
        driver_ring(&d, 0);
    }
    assert_int_equal(g->out.n, 32);
    for (done = 1; done <= offered; done++) {
        struct input in = {.kind = INPUT_DISK_DONE, .arg = done};
        assert_int_equal(machine_input(&g->m, &in, NULL), 0);
    }
    assert_int_equal(g->out.n, offered);
    assert_int_equal(driver_status(&d), 0x0f);
}

/* What a guest sends in one slice is bounded: beyond that frames are dropped, requests finish. */
static void bytes_sent_in_a_slice_are_bounded(void **state)
{
    struct guest *g = *state;
    struct driver d;
    const struct buffer b = {BUF, 12 + 60000, false};
    unsigned sent = NET_OUT_MAX / (60000 + OUTPUT_COST);

    driver_find(&d, g, SLOT_NET);
    driver_start(&d, 0);
    uint16_t head = driver_chain(&d, 1, &b, 1);
    driver_ring(&d, 1);
    for (unsigned i = 1; i < 2 * sent; i++) {
        driver_offer(&d, 1, head);
        driver_ring(&d, 1);
    }
    assert_int_equal(g->out.n, sent);
    assert_int_equal(driver_unseen(&d, 1), 2 * sent);
    g->m.net_out = 0; /* the next slice */
    driver_offer(&d, 1, head);
    driver_ring(&d, 1);
    assert_int_equal(g->out.n, sent + 1);
}

/* No allocation of the devices leaks or half-registers when it fails; code added later is covered
 * unedited. */
static void creation_unwinds(void **state)
{
    (void)state;
    int rc = -1;
    for (int k = 0; rc != 0; k++) {
        static struct guest g;
        guest_open(&g);
        unsigned before = g.m.ndevices;
        plx_heap_fail_at(k);
        rc = virtio_net_create(&g.m, SLOT_NET, 0, NULL);
        rc = rc != 0 ? rc : virtio_blk_create(&g.m, SLOT_BLK, 0, NULL);
        rc = rc != 0 ? rc : virtio_rng_create(&g.m, SLOT_RNG, NULL);
        rc = rc != 0 ? rc : virtio_console_create(&g.m, SLOT_CONSOLE, NULL);
        plx_heap_fail_never();
        assert_true(rc == 0 || rc == PLX_ENOMEM);
        assert_true(rc != 0 || k > 5);
        for (unsigned i = before; i < g.m.ndevices; i++) {
            g.m.devices[i].ops->reset(g.m.devices[i].dev);
        }
        guest_close(&g);
    }
}

/* Garbage in every area, every register and every offset of the BAR; then inputs. Whatever
 * happens, the machine survives and its sections can be loaded again. */
static void garbage(void **state)
{
    struct guest *g = *state;
    struct prng rng;
    uint64_t seed =
        getenv("SEED") != NULL ? strtoull(getenv("SEED"), NULL, 0) : (uint64_t)time(NULL);
    static uint8_t frame[2000];

    print_message("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&rng, seed);
    for (unsigned round = 0; round < 10000; round++) {
        struct driver d;
        unsigned slot = SLOT_NET + (unsigned)prng_below(&rng, 4);
        driver_find(&d, g, slot);
        driver_start(&d, driver_offered(&d) & prng_u64(&rng));
        unsigned n = (unsigned)guest_mmio_read(g, d.common + 18, 2);
        for (unsigned q = 0; q < n; q++) {
            for (unsigned i = 0; i < GUEST_QSIZE; i++) {
                uint64_t addr =
                    prng_below(&rng, 4) != 0 ? prng_below(&rng, VIRTIO_RAM) : prng_u64(&rng);
                uint32_t len = (uint32_t)(prng_u64(&rng) >> (32 + prng_below(&rng, 32)));
                driver_desc(&d, d.q[q].desc, i, addr, len, (uint16_t)prng_below(&rng, 8),
                            (uint16_t)prng_below(&rng, GUEST_QSIZE + 1));
            }
            for (unsigned i = 0; i < 8; i++) {
                driver_offer(&d, q, (uint16_t)prng_below(&rng, GUEST_QSIZE + (i == 7)));
                if (prng_below(&rng, 2) != 0) {
                    driver_ring(&d, q);
                }
            }
        }
        for (unsigned i = 0; i < 4; i++) {
            struct input in = {.kind = INPUT_NET_RX,
                               .data = frame,
                               .len = (uint32_t)prng_below(&rng, sizeof frame)};
            assert_int_equal(machine_input(&g->m, &in, NULL), 0);
            in.kind = INPUT_CONSOLE_RX;
            in.dev = CONSOLE_VIRTIO0;
            assert_int_equal(machine_input(&g->m, &in, NULL), 0);
        }
        for (size_t i = 0; i < g->out.n; i++) {
            if (g->out.items[i].kind == OUTPUT_DISK) {
                struct input in = {.kind = INPUT_DISK_DONE, .arg = g->out.items[i].arg};
                assert_int_equal(machine_input(&g->m, &in, NULL), 0);
            }
        }
        output_list_clear(&g->out);
        uint64_t bar = driver_bar(&d, 0);
        for (unsigned i = 0; i < 32; i++) {
            uint64_t at = bar + prng_below(&rng, 0x4000 - 8);
            unsigned size = 1u << prng_below(&rng, 4);
            guest_mmio_write(g, prng_below(&rng, 2) != 0 ? at : bar + prng_below(&rng, 64), size,
                             prng_u64(&rng) >> prng_below(&rng, 64));
            (void)guest_mmio_read(g, at, size);
        }
    }
    machine_reset(&g->m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(broken_rings_need_a_reset),
        T(indirect_needs_the_feature),
        T(bad_queue_setup),
        T(disk_request_without_status),
        T(disk_requests_in_flight_are_bounded),
        T(bytes_in_flight_are_bounded),
        T(bytes_sent_in_a_slice_are_bounded),
        T(creation_unwinds),
        T(garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
