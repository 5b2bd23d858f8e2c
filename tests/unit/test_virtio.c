/* SPDX-License-Identifier: Apache-2.0
 * Hunts: register semantics a driver relies on, features accepted that were not offered, lost
 * notifications around EVENT_IDX and index wraparound, wrong lengths or placement of data, state
 * that save forgets while requests are in flight. */
#include "tests/unit/virtio_guest.h"

enum { SLOT_NET = 3, SLOT_BLK = 4, SLOT_RNG = 5, SLOT_CONSOLE = 6 };
enum { BUF = 0x200000 };

static void open_all(struct guest *g)
{
    guest_open(g);
    assert_int_equal(virtio_net_create(&g->m, SLOT_NET, 0, NULL), 0);
    assert_int_equal(virtio_blk_create(&g->m, SLOT_BLK, 0, NULL), 0);
    assert_int_equal(virtio_rng_create(&g->m, SLOT_RNG, NULL), 0);
    assert_int_equal(virtio_console_create(&g->m, SLOT_CONSOLE, NULL), 0);
    machine_reset(&g->m);
}

static struct guest the_guest;

static int setup(void **state)
{
    open_all(&the_guest);
    *state = &the_guest;
    return 0;
}

static int teardown(void **state)
{
    guest_close(*state);
    return 0;
}

static void give(struct guest *g, uint8_t kind, uint64_t arg, const void *data, uint32_t len)
{
    struct input in = {.kind = kind,
                       .arg = arg,
                       .data = data,
                       .len = len,
                       .dev = kind == INPUT_CONSOLE_RX ? CONSOLE_VIRTIO0 : 0};
    assert_int_equal(machine_input(&g->m, &in, NULL), 0);
}

/* --- common part -------------------------------------------------------------------------- */

static void identity_and_layout(void **state)
{
    struct guest *g = *state;
    struct driver d;

    assert_int_equal(guest_cfg_read(g, SLOT_NET, 0, 4), 0x10411af4);
    assert_int_equal(guest_cfg_read(g, SLOT_BLK, 0, 4), 0x10421af4);
    assert_int_equal(guest_cfg_read(g, SLOT_RNG, 0, 4), 0x10441af4);
    assert_int_equal(guest_cfg_read(g, SLOT_CONSOLE, 0, 4), 0x10431af4);
    assert_true(guest_cfg_read(g, SLOT_NET, PCI_REVISION, 1) >= 1);
    driver_find(&d, g, SLOT_NET);
    assert_int_equal(guest_mmio_read(g, d.device, 4), 0x11005452);
    assert_int_equal(guest_mmio_read(g, d.device + 4, 4), 0x00013322);
    driver_find(&d, g, SLOT_BLK);
    assert_int_equal(guest_mmio_read(g, d.device, 8), GUEST_DISK_SECTORS);
}

static void features_are_negotiated(void **state)
{
    struct guest *g = *state;
    struct driver d;

    driver_find(&d, g, SLOT_RNG);
    uint64_t offered = driver_offered(&d);
    assert_true(offered == VIRTIO_F_RING);
    guest_mmio_write(g, d.common, 4, 2);
    assert_int_equal(guest_mmio_read(g, d.common + 4, 4), 0);
    driver_set_status(&d, 3);
    driver_accept(&d, VIRTIO_F_VERSION_1 | 1);
    driver_set_status(&d, 0x0b);
    assert_int_equal(driver_status(&d), 3);
    driver_accept(&d, VIRTIO_F_EVENT_IDX); /* without VERSION_1 */
    driver_set_status(&d, 0x0b);
    assert_int_equal(driver_status(&d), 3);
    driver_set_status(&d, 0x07); /* DRIVER_OK before FEATURES_OK */
    assert_int_equal(driver_status(&d), 3);
    driver_accept(&d, VIRTIO_F_VERSION_1);
    driver_set_status(&d, 0x0b);
    assert_int_equal(driver_status(&d), 0x0b);
    driver_accept(&d, VIRTIO_F_RING); /* frozen */
    guest_mmio_write(g, d.common + 8, 4, 0);
    assert_int_equal(guest_mmio_read(g, d.common + 12, 4), 0);
    driver_set_status(&d, 0);
    assert_int_equal(driver_status(&d), 0);
}

static void queue_registers(void **state)
{
    struct guest *g = *state;
    struct driver d;

    driver_find(&d, g, SLOT_NET);
    driver_start(&d, 0);
    guest_mmio_write(g, d.common + 22, 2, 1);
    assert_int_equal(guest_mmio_read(g, d.common + 24, 2), GUEST_QSIZE);
    assert_int_equal(guest_mmio_read(g, d.common + 28, 2), 1);
    assert_int_equal(guest_mmio_read(g, d.common + 30, 2), 1);
    assert_int_equal(guest_mmio_read(g, d.common + 32, 8), 0x110000);
    guest_mmio_write(g, d.common + 24, 2, 4); /* a running queue keeps its size */
    assert_int_equal(guest_mmio_read(g, d.common + 24, 2), GUEST_QSIZE);
    guest_mmio_write(g, d.common + 26, 2, 77); /* no such vector */
    assert_int_equal(guest_mmio_read(g, d.common + 26, 2), 0xffff);
    guest_mmio_write(g, d.common + 22, 2, 2);
    assert_int_equal(guest_mmio_read(g, d.common + 24, 2), 0);
    guest_mmio_write(g, d.common + 28, 2, 1);
    assert_int_equal(driver_status(&d), 0x0f);
}

static void window_in_configuration_space(void **state)
{
    struct guest *g = *state;
    struct driver d;
    unsigned at = guest_cfg_read(g, SLOT_BLK, PCI_CAP_PTR, 1);

    driver_find(&d, g, SLOT_BLK);
    while (guest_cfg_read(g, SLOT_BLK, at, 1) != PCI_CAP_VENDOR ||
           guest_cfg_read(g, SLOT_BLK, at + 3, 1) != 5) {
        at = guest_cfg_read(g, SLOT_BLK, at + 1, 1);
        assert_int_not_equal(at, 0);
    }
    guest_cfg_write(g, SLOT_BLK, at + 4, 1, 0);
    guest_cfg_write(g, SLOT_BLK, at + 8, 4, 0x2000);
    guest_cfg_write(g, SLOT_BLK, at + 12, 4, 4);
    assert_int_equal(guest_cfg_read(g, SLOT_BLK, at + 16, 4), GUEST_DISK_SECTORS);
    guest_cfg_write(g, SLOT_BLK, at + 8, 4, 20);
    guest_cfg_write(g, SLOT_BLK, at + 12, 4, 1);
    guest_cfg_write(g, SLOT_BLK, at + 16, 4, 3);
    assert_int_equal(driver_status(&d), 3);
    /* Lengths, offsets and BARs that make no sense do nothing. */
    static const uint32_t bad[][3] = {{0, 20, 3}, {0, 21, 2},         {0, 0x4000, 1}, {1, 0, 4},
                                      {5, 20, 1}, {0, 0xffffffff, 1}, {0, 20, 0}};
    for (unsigned i = 0; i < 7; i++) {
        guest_cfg_write(g, SLOT_BLK, at + 4, 1, bad[i][0]);
        guest_cfg_write(g, SLOT_BLK, at + 8, 4, bad[i][1]);
        guest_cfg_write(g, SLOT_BLK, at + 12, 4, bad[i][2]);
        guest_cfg_write(g, SLOT_BLK, at + 16, 4, 0);
        (void)guest_cfg_read(g, SLOT_BLK, at + 16, 4);
        assert_int_equal(driver_status(&d), 3);
    }
}

/* --- rings, shown on the entropy device --------------------------------------------------- */

static void rng_fills_from_the_machine(void **state)
{
    struct guest *g = *state;
    struct driver d;
    struct prng expect = g->m.rng;
    uint8_t want[48], got[48];
    uint32_t len;

    driver_find(&d, g, SLOT_RNG);
    driver_start(&d, 0);
    const struct buffer b[] = {{BUF, 16, true}, {BUF + 0x1000, 32, true}};
    uint16_t head = driver_chain(&d, 0, b, 2);
    driver_ring(&d, 0);
    assert_int_equal(driver_used(&d, 0, &len), head);
    assert_int_equal(len, 48);
    prng_fill(&expect, want, 48);
    guest_get(g, BUF, got, 16);
    guest_get(g, BUF + 0x1000, got + 16, 32);
    assert_memory_equal(want, got, 48);
    /* Without MSI-X: INTx and ISR, which a read clears. */
    assert_true(g->gsi_level[pci_slot_gsi(SLOT_RNG)]);
    assert_int_equal(guest_mmio_read(g, d.isr, 1), 1);
    assert_false(g->gsi_level[pci_slot_gsi(SLOT_RNG)]);
    assert_int_equal(guest_mmio_read(g, d.isr, 1), 0);
}

static void indices_wrap_around(void **state)
{
    struct guest *g = *state;
    struct driver d;

    driver_find(&d, g, SLOT_RNG);
    driver_msix_on(&d);
    driver_start(&d, 0);
    const struct buffer b = {BUF, 1, true};
    for (unsigned i = 0; i < 70000; i++) {
        uint16_t head = driver_chain(&d, 0, &b, 1);
        driver_ring(&d, 0);
        if (driver_used(&d, 0, NULL) != head) {
            fail_msg("request %u", i);
        }
    }
    assert_int_equal(g->msis, 70000);
    assert_int_equal(g->last_msi, 0x41);
}

static void interrupts_can_be_suppressed(void **state)
{
    struct guest *g = *state;
    struct driver d;
    const struct buffer b = {BUF, 1, true};

    driver_find(&d, g, SLOT_RNG);
    driver_msix_on(&d);
    driver_start(&d, 0);
    guest_put16(g, d.q[0].avail, 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    driver_chain(&d, 0, &b, 1);
    driver_ring(&d, 0);
    assert_int_equal(g->msis, 0);

    driver_start(&d, VIRTIO_F_EVENT_IDX);
    gpa_t used_event = d.q[0].avail + 4 + 2 * GUEST_QSIZE;
    gpa_t avail_event = d.q[0].used + 4 + 8 * GUEST_QSIZE;
    guest_put16(g, used_event, 2); /* after the third */
    for (unsigned i = 0; i < 4; i++) {
        driver_chain(&d, 0, &b, 1);
        driver_ring(&d, 0);
        assert_int_equal(g->msis, i >= 2);
        assert_int_equal(guest_u16(g, avail_event), i + 1);
    }
    guest_put16(g, used_event, 5); /* inside a batch of three: 4, 5, 6 */
    for (unsigned i = 0; i < 3; i++) {
        driver_chain(&d, 0, &b, 1);
    }
    driver_ring(&d, 0);
    assert_int_equal(g->msis, 2);
}

static void indirect_descriptors(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint32_t len;

    driver_find(&d, g, SLOT_RNG);
    driver_start(&d, VIRTIO_F_INDIRECT_DESC);
    gpa_t table = BUF + 0x8000;
    for (uint16_t i = 0; i < 20; i++) { /* longer than the ring, out of order */
        uint16_t at = (uint16_t)(i * 3 % 20), next = (uint16_t)((i + 1) * 3 % 20);
        driver_desc(&d, table, at, BUF + 16 * (gpa_t)i, 16, D_WRITE | (i < 19 ? D_NEXT : 0), next);
    }
    driver_desc(&d, d.q[0].desc, 5, table, 20 * 16, D_INDIRECT, 0);
    driver_offer(&d, 0, 5);
    driver_ring(&d, 0);
    assert_int_equal(driver_used(&d, 0, &len), 5);
    assert_int_equal(len, 320);
}

static void buffers_before_driver_ok_are_served(void **state)
{
    struct guest *g = *state;
    struct driver d;
    const struct buffer b = {BUF, 8, true};

    driver_find(&d, g, SLOT_RNG);
    driver_set_status(&d, 3);
    driver_accept(&d, VIRTIO_F_VERSION_1);
    driver_set_status(&d, 0x0b);
    driver_queue_setup(&d, 0, GUEST_QSIZE);
    driver_chain(&d, 0, &b, 1);
    driver_ring(&d, 0);
    assert_int_equal(driver_unseen(&d, 0), 0);
    driver_set_status(&d, 0x0f);
    assert_int_equal(driver_unseen(&d, 0), 1);
}

/* --- net ---------------------------------------------------------------------------------- */

static void fill_pattern(uint8_t *p, uint32_t len, unsigned seed)
{
    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)(i * 7 + seed);
    }
}

static void net_sends(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint8_t frame[1514];

    driver_find(&d, g, SLOT_NET);
    driver_start(&d, 0);
    fill_pattern(frame, sizeof frame, 1);
    guest_put(g, BUF, frame, sizeof frame);
    const struct buffer b[] = {
        {BUF + 0x1000, 12, false}, {BUF, 1000, false}, {BUF + 1000, 514, false}};
    driver_chain(&d, 1, b, 3);
    const struct buffer tiny = {BUF + 0x1000, 13, false};
    driver_chain(&d, 1, &tiny, 1);
    driver_ring(&d, 1);
    assert_int_equal(driver_unseen(&d, 1), 2);
    assert_int_equal(g->out.n, 1);
    assert_int_equal(g->out.items[0].kind, OUTPUT_NET_TX);
    assert_int_equal(g->out.items[0].len, 1514);
    assert_memory_equal(output_data(&g->out, &g->out.items[0]), frame, 1514);
}

static void net_receives_waits_and_merges(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint8_t frame[600], got[700];
    uint32_t len;

    driver_find(&d, g, SLOT_NET);
    give(g, INPUT_NET_RX, 0, frame, 60); /* not running: dropped */
    driver_start(&d, UINT64_C(1) << 15);
    fill_pattern(frame, sizeof frame, 9);
    struct buffer b = {BUF, 1526, true};
    driver_chain(&d, 0, &b, 1);
    give(g, INPUT_NET_RX, 0, frame, 600);
    driver_used(&d, 0, &len);
    assert_int_equal(len, 612);
    guest_get(g, BUF, got, 612);
    assert_int_equal(got[10] | got[11] << 8, 1);
    assert_memory_equal(got + 12, frame, 600);
    /* No buffer: two frames wait, in order; then three small buffers take the first. */
    give(g, INPUT_NET_RX, 0, frame, 600);
    give(g, INPUT_NET_RX, 0, frame, 100);
    assert_int_equal(driver_unseen(&d, 0), 0);
    for (unsigned i = 0; i < 2; i++) {
        b = (struct buffer){BUF + 256 * i, 256, true};
        driver_chain(&d, 0, &b, 1);
    }
    driver_ring(&d, 0);
    assert_int_equal(driver_unseen(&d, 0), 0); /* 512 bytes are too few for 612 */
    b = (struct buffer){BUF + 512, 256, true};
    driver_chain(&d, 0, &b, 1);
    driver_ring(&d, 0);
    uint32_t lens[3];
    for (unsigned i = 0; i < 3; i++) {
        driver_used(&d, 0, &lens[i]);
    }
    assert_int_equal(lens[0], 256);
    assert_int_equal(lens[2], 100);
    guest_get(g, BUF, got, 612);
    assert_int_equal(got[10] | got[11] << 8, 3);
    assert_memory_equal(got + 12, frame, 600);
    b = (struct buffer){BUF, 256, true};
    driver_chain(&d, 0, &b, 1);
    driver_ring(&d, 0);
    driver_used(&d, 0, &len);
    assert_int_equal(len, 112);
}

static void net_queue_is_bounded(void **state)
{
    struct guest *g = *state;
    struct driver d;
    static uint8_t frame[1514];
    unsigned got = 0;

    driver_find(&d, g, SLOT_NET);
    driver_start(&d, 0);
    for (unsigned i = 0; i < 1000; i++) {
        memcpy(frame + 14, &i, sizeof i);
        give(g, INPUT_NET_RX, 0, frame, sizeof frame);
    }
    for (;; got++) {
        const struct buffer b = {BUF, 2000, true};
        uint32_t len;
        unsigned seq;
        driver_chain(&d, 0, &b, 1);
        driver_ring(&d, 0);
        if (driver_unseen(&d, 0) == 0) {
            break;
        }
        driver_used(&d, 0, &len);
        guest_get(g, BUF + 12 + 14, &seq, sizeof seq);
        assert_int_equal(seq, got);
    }
    assert_in_range(got, 100, 999);
}

/* --- blk ---------------------------------------------------------------------------------- */

static uint16_t blk_request(struct driver *d, unsigned n, uint32_t type, uint64_t sector,
                            uint32_t len, bool write)
{
    gpa_t at = BUF + 0x10000 * (gpa_t)n;
    uint64_t hdr[2] = {type, sector};
    guest_put(d->g, at, hdr, sizeof hdr);
    const struct buffer b[] = {{at, 16, false}, {at + 0x1000, len, write}, {at + 16, 1, true}};
    const struct buffer none[] = {b[0], b[2]};
    assert_int_equal(ram_fill(d->g->m.ram, at + 16, 0x55, 1), 0);
    return driver_chain(d, 0, len != 0 ? b : none, len != 0 ? 3 : 2);
}

static uint8_t blk_status(struct driver *d, unsigned n)
{
    uint8_t s;
    guest_get(d->g, BUF + 0x10000 * (gpa_t)n + 16, &s, 1);
    return s;
}

static void blk_reads_writes_and_completes_in_input_order(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint8_t data[1024], got[1024];
    uint32_t len;

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    fill_pattern(data, sizeof data, 3);
    guest_put(g, BUF + 0x11000, data, sizeof data);
    uint16_t h0 = blk_request(&d, 0, 0, 8, 1024, true);
    uint16_t h1 = blk_request(&d, 1, 1, 16, 1024, false);
    driver_ring(&d, 0);
    assert_int_equal(g->out.n, 2);
    const struct output *o = &g->out.items[1];
    assert_int_equal(g->out.items[0].op, DISK_READ);
    assert_int_equal(g->out.items[0].len, 1024);
    assert_int_equal(g->out.items[0].arg, 1);
    assert_int_equal(o->op, DISK_WRITE);
    assert_int_equal(o->pos, 16);
    assert_int_equal(o->arg, 2);
    assert_memory_equal(output_data(&g->out, o), data, 1024);
    assert_int_equal(ram_fill(g->m.ram, BUF + 0x11000, 0, 1024), 0); /* captured: no effect */
    assert_int_equal(driver_unseen(&d, 0), 0);
    give(g, INPUT_DISK_DONE, 2, NULL, 0);
    assert_int_equal(driver_used(&d, 0, &len), h1);
    assert_int_equal(len, 1);
    assert_int_equal(blk_status(&d, 1), 0);
    g->fill = 0xab;
    give(g, INPUT_DISK_DONE, 1, NULL, 0);
    assert_int_equal(driver_used(&d, 0, &len), h0);
    assert_int_equal(len, 1025);
    guest_get(g, BUF + 0x1000, got, 1024);
    memset(data, 0xab, 1024);
    assert_memory_equal(got, data, 1024);
    struct input bad = {.kind = INPUT_DISK_DONE, .arg = 1};
    assert_int_equal(machine_input(&g->m, &bad, NULL), PLX_ECORRUPT);
    bad.arg = 0;
    assert_int_equal(machine_input(&g->m, &bad, NULL), PLX_ECORRUPT);
}

static void blk_other_requests_and_refusals(void **state)
{
    struct guest *g = *state;
    struct driver d;
    char id[20];
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t len;
        bool write;
        uint8_t status; /* 0xff: becomes an output */
    } table[] = {
        {4, 0, 0, false, 0xff}, /* flush */
        {0, GUEST_DISK_SECTORS - 1, 512, true, 0xff},
        {0, GUEST_DISK_SECTORS, 512, true, 1}, /* beyond the end */
        {0, GUEST_DISK_SECTORS - 1, 1024, true, 1},
        {0, UINT64_MAX, 512, true, 1},
        {1, UINT64_MAX, 512, false, 1},
        {0, 0, 511, true, 1},
        {1, 0, 100, false, 1},
        {0, 0, 0, true, 0},
        {99, 0, 0, false, 2},
        {11, 0, 15, false, 1},
        {13, 0, 32, false, 2},
    };

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    for (unsigned i = 0; i < 12; i++) {
        size_t before = g->out.n;
        blk_request(&d, 0, table[i].type, table[i].sector, table[i].len, table[i].write);
        driver_ring(&d, 0);
        assert_int_equal(g->out.n - before, table[i].status == 0xff);
        if (table[i].status == 0xff) {
            give(g, INPUT_DISK_DONE, g->out.items[g->out.n - 1].arg, NULL, 0);
        }
        driver_used(&d, 0, NULL);
        assert_int_equal(blk_status(&d, 0), table[i].status == 0xff ? 0 : table[i].status);
    }
    blk_request(&d, 0, 8, 0, 20, true);
    driver_ring(&d, 0);
    guest_get(g, BUF + 0x1000, id, sizeof id);
    assert_string_equal(id, "pollux-disk0");
    driver_used(&d, 0, NULL);
    /* discard and write-zeroes: sector, number, flags */
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t n, flags;
        uint8_t status;
    } ranges[] = {{11, 8, 16, 0, 0xff},
                  {13, 8, 16, 1, 0xff},
                  {11, 8, 16, 1, 2},
                  {13, 8, 16, 2, 2},
                  {11, GUEST_DISK_SECTORS, 1, 0, 1},
                  {13, UINT64_MAX, 2, 0, 1},
                  {13, 0, 0, 0, 0}};
    for (unsigned i = 0; i < 7; i++) {
        size_t before = g->out.n;
        guest_put(g, BUF + 0x1000, &ranges[i].sector, 8);
        guest_put(g, BUF + 0x1008, &ranges[i].n, 4);
        guest_put(g, BUF + 0x100c, &ranges[i].flags, 4);
        blk_request(&d, 0, ranges[i].type, 0, 16, false);
        driver_ring(&d, 0);
        assert_int_equal(g->out.n - before, ranges[i].status == 0xff);
        if (ranges[i].status == 0xff) {
            const struct output *o = &g->out.items[g->out.n - 1];
            assert_int_equal(o->op, ranges[i].type == 11 ? DISK_DISCARD : DISK_ZERO);
            assert_int_equal(o->pos, 8);
            assert_int_equal(o->sectors, 16);
            give(g, INPUT_DISK_DONE, o->arg, NULL, 0);
        }
        driver_used(&d, 0, NULL);
        assert_int_equal(blk_status(&d, 0), ranges[i].status == 0xff ? 0 : ranges[i].status);
    }
}

/* Reset with requests in flight: their completions come later and touch nothing. */
static void blk_orphans(void **state)
{
    struct guest *g = *state;
    struct driver d;

    driver_find(&d, g, SLOT_BLK);
    driver_start(&d, 0);
    blk_request(&d, 0, 0, 0, 512, true);
    driver_ring(&d, 0);
    driver_start(&d, 0);
    blk_request(&d, 1, 0, 0, 512, true);
    driver_ring(&d, 0);
    give(g, INPUT_DISK_DONE, 1, NULL, 0);
    assert_int_equal(driver_unseen(&d, 0), 0);
    assert_int_equal(blk_status(&d, 0), 0x55);
    give(g, INPUT_DISK_DONE, 2, NULL, 0);
    assert_int_equal(driver_unseen(&d, 0), 1);
    assert_int_equal(g->results, 2);
}

/* --- console ------------------------------------------------------------------------------ */

static void console_positions_and_typing(void **state)
{
    struct guest *g = *state;
    struct driver d;
    uint32_t len;
    char got[16] = {0};

    driver_find(&d, g, SLOT_CONSOLE);
    driver_start(&d, 0);
    guest_put(g, BUF, "hello world", 11);
    const struct buffer a[] = {{BUF, 5, false}}, b[] = {{BUF + 5, 6, false}};
    driver_chain(&d, 1, a, 1);
    driver_chain(&d, 1, b, 1);
    driver_ring(&d, 1);
    assert_int_equal(g->out.n, 1); /* one run of two buffers */
    assert_int_equal(g->out.items[0].dev, CONSOLE_VIRTIO0);
    assert_int_equal(g->out.items[0].pos, 0);
    assert_int_equal(g->out.items[0].len, 11);
    assert_memory_equal(output_data(&g->out, &g->out.items[0]), "hello world", 11);
    give(g, INPUT_CONSOLE_RX, 0, "typed", 5); /* waits */
    struct buffer in = {BUF + 0x100, 3, true};
    driver_chain(&d, 0, &in, 1);
    in.addr = BUF + 0x103;
    driver_chain(&d, 0, &in, 1);
    driver_ring(&d, 0);
    driver_used(&d, 0, &len);
    assert_int_equal(len, 3);
    driver_used(&d, 0, &len);
    assert_int_equal(len, 2);
    guest_get(g, BUF + 0x100, got, 5);
    assert_string_equal(got, "typed");
    static char flood[100000];
    give(g, INPUT_CONSOLE_RX, 0, flood, sizeof flood);
}

/* --- state -------------------------------------------------------------------------------- */

/* Two disk requests in flight, a frame waiting for a buffer, a byte typed and not read. Queue
 * areas of the three devices share addresses, so each gets its turn last: blk stays whole. */
static void put_in_flight(struct guest *g, struct driver *blk)
{
    static uint8_t frame[500];
    struct driver d;

    driver_find(&d, g, SLOT_NET);
    driver_start(&d, 0);
    give(g, INPUT_NET_RX, 0, frame, sizeof frame);
    driver_find(&d, g, SLOT_CONSOLE);
    driver_start(&d, 0);
    give(g, INPUT_CONSOLE_RX, 0, "x", 1);
    driver_find(blk, g, SLOT_BLK);
    driver_msix_on(blk);
    driver_start(blk, VIRTIO_F_EVENT_IDX);
    blk_request(blk, 0, 0, 8, 1024, true);
    blk_request(blk, 1, 1, 24, 512, false);
    driver_ring(blk, 0);
}

/* A machine saved in mid-request and loaded into another goes on exactly as the original. */
static void loaded_machine_goes_on_alike(void **state)
{
    struct guest *g = *state;
    static struct guest h;
    struct driver blk;

    put_in_flight(g, &blk);
    open_all(&h);
    guest_clone(g, &h);
    output_list_clear(&h.out);
    virtio_blk_reissue(&h.m, &h.out);
    assert_int_equal(h.out.n, 2);
    assert_int_equal(h.out.items[0].op, DISK_READ);
    assert_int_equal(h.out.items[0].arg, 1);
    assert_int_equal(h.out.items[0].len, 1024);
    assert_int_equal(h.out.items[1].op, DISK_FLUSH);
    assert_int_equal(h.out.items[1].arg, 2);
    struct guest *both[] = {g, &h};
    for (unsigned i = 0; i < 2; i++) {
        both[i]->msis = 0;
        both[i]->fill = 0x77;
        give(both[i], INPUT_DISK_DONE, 2, NULL, 0);
        give(both[i], INPUT_DISK_DONE, 1, NULL, 0);
        blk.g = both[i];
        struct driver_queue q = blk.q[0];
        blk_request(&blk, 2, 4, 0, 0, false);
        driver_ring(&blk, 0);
        blk.q[0] = q;
    }
    assert_int_equal(g->msis, h.msis);
    assert_memory_equal(g->m.ram->hva, h.m.ram->hva, VIRTIO_RAM);
    guest_clone(g, &h);
    guest_truncations(g, &h);
    guest_close(&h);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(identity_and_layout),
        T(features_are_negotiated),
        T(queue_registers),
        T(window_in_configuration_space),
        T(rng_fills_from_the_machine),
        T(indices_wrap_around),
        T(interrupts_can_be_suppressed),
        T(indirect_descriptors),
        T(buffers_before_driver_ok_are_served),
        T(net_sends),
        T(net_receives_waits_and_merges),
        T(net_queue_is_bounded),
        T(blk_reads_writes_and_completes_in_input_order),
        T(blk_other_requests_and_refusals),
        T(blk_orphans),
        T(console_positions_and_typing),
        T(loaded_machine_goes_on_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
