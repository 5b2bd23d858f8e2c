/* SPDX-License-Identifier: Apache-2.0
 * Hunts: writes to read-only bits, a BAR that does not follow its register or the command register,
 * overlapping claims, lost or doubled interrupts around masks, shared INTx that drops early. */
#include "tests/unit/virtio_guest.h"

static uint64_t echo_read(void *ctx, uint64_t addr, unsigned size)
{
    (void)size;
    return *(uint8_t *)ctx + addr;
}

static void echo_write(void *ctx, uint64_t addr, unsigned size, uint64_t v)
{
    (void)addr;
    (void)size;
    *(uint8_t *)ctx = (uint8_t)v;
}

static const struct bus_range_ops echo = {echo_read, echo_write};

/* Functions in slots 3 and 7 (the same INTx wire) with an MMIO BAR 0, a PIO BAR 2 and MSI-X on 1.
 */
struct fixture {
    struct guest g;
    struct pci_function *fn[2];
    uint8_t value[2];
};

static int setup(void **state)
{
    static struct fixture f;
    static const struct pci_ids ids = {0x1234, 0x5678, 0x1111, 0x2222, 0x020000, 1};
    memset(&f, 0, sizeof f);
    guest_open(&f.g);
    for (unsigned i = 0; i < 2; i++) {
        char name[8] = {'f', (char)('0' + i), 0};
        f.value[i] = (uint8_t)(0x10 * (i + 1));
        assert_int_equal(pci_add_function(f.g.m.pci, 3 + 4 * i, name, &ids, &f.fn[i], NULL), 0);
        pci_set_intx_pin(f.fn[i]);
        pci_add_bar(f.fn[i], 0, BUS_MMIO, 0x1000, &echo, &f.value[i]);
        pci_add_bar(f.fn[i], 2, BUS_PIO, 0x20, &echo, &f.value[i]);
        pci_add_msix(f.fn[i], 1, 2);
    }
    machine_reset(&f.g.m);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    guest_close(&f->g);
    return 0;
}

static void configuration_space(void **state)
{
    struct fixture *f = *state;
    struct guest *g = &f->g;

    assert_int_equal(guest_cfg_read(g, 0, 0, 4), 0x12378086);
    assert_int_equal(guest_cfg_read(g, 3, 0, 4), 0x56781234);
    assert_int_equal(guest_cfg_read(g, 3, 2, 2), 0x5678);
    assert_int_equal(guest_cfg_read(g, 3, 0x0b, 1), 2);
    assert_int_equal(guest_cfg_read(g, 4, 0, 4), 0xffffffff);
    assert_int_equal(guest_cfg_read(g, 3, PCI_INT_LINE, 2), 0x0113);
    guest_cfg_write(g, 3, 0, 4, 0);
    assert_int_equal(guest_cfg_read(g, 3, 0, 4), 0x56781234);
    /* Only dwords reach the address register; another bus or function has nobody. */
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0x80000000u | 1 << 16);
    assert_int_equal(bus_read(g->m.bus, BUS_PIO, 0xcfc, 4), 0xffffffff);
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0x80000000u | 3 << 11 | 1 << 8);
    assert_int_equal(bus_read(g->m.bus, BUS_PIO, 0xcfc, 4), 0xffffffff);
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0);
    assert_int_equal(bus_read(g->m.bus, BUS_PIO, 0xcfc, 4), 0xffffffff);
    bus_write(g->m.bus, BUS_PIO, 0xcf8, 4, 0x80000044u);
    assert_int_equal(bus_read(g->m.bus, BUS_PIO, 0xcf8, 4), 0x80000044u);
    /* Every byte access to every register of every slot is answered. */
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned off = 0; off < 256; off++) {
            guest_cfg_write(g, slot, off, 1, 0xff);
            (void)guest_cfg_read(g, slot, off, 1);
        }
    }
}

static void reset_register(void **state)
{
    struct fixture *f = *state;
    bus_write(f->g.m.bus, BUS_PIO, 0xcf9, 1, 2);
    assert_false(f->g.m.stopped);
    assert_int_equal(bus_read(f->g.m.bus, BUS_PIO, 0xcf9, 1), 2);
    bus_write(f->g.m.bus, BUS_PIO, 0xcf9, 1, 6);
    assert_true(f->g.m.stopped);
    assert_int_equal(f->g.m.stop_event, POWER_RESET);
}

static void bars_are_assigned_sized_and_moved(void **state)
{
    struct fixture *f = *state;
    struct guest *g = &f->g;
    uint32_t at = guest_cfg_read(g, 3, PCI_BAR0, 4);
    uint32_t at7 = guest_cfg_read(g, 7, PCI_BAR0, 4);
    uint32_t io = guest_cfg_read(g, 3, PCI_BAR0 + 8, 4);

    assert_true(at >= PCI_MMIO_FIRST && at < PCI_HOLE_END && at % 0x1000 == 0);
    assert_int_equal(io & 3, 1);
    assert_int_equal(guest_mmio_read(g, at + 5, 1), 0x15);
    assert_int_equal(bus_read(g->m.bus, BUS_PIO, (io & ~3u) + 1, 1), 0x11);
    guest_cfg_write(g, 3, PCI_BAR0, 4, 0xffffffff);
    assert_int_equal(guest_cfg_read(g, 3, PCI_BAR0, 4), 0xfffff000);
    guest_cfg_write(g, 3, PCI_BAR0 + 8, 4, 0xffffffff);
    assert_int_equal(guest_cfg_read(g, 3, PCI_BAR0 + 8, 4), 0xffffffe1);
    guest_cfg_write(g, 3, PCI_BAR0 + 12, 4, 0xffffffff);
    assert_int_equal(guest_cfg_read(g, 3, PCI_BAR0 + 12, 4), 0);
    assert_int_equal(guest_mmio_read(g, at + 5, 1), 0xff);
    guest_cfg_write(g, 3, PCI_BAR0, 4, 0xd0000000);
    assert_int_equal(guest_mmio_read(g, 0xd0000005, 1), 0x15);
    /* Onto the neighbour: who was there keeps it, and it comes free when the neighbour goes. */
    guest_cfg_write(g, 3, PCI_BAR0, 4, at7);
    assert_int_equal(guest_mmio_read(g, at7, 1), 0x20);
    guest_cfg_write(g, 7, PCI_COMMAND, 2, 0);
    assert_int_equal(guest_mmio_read(g, at7, 1), 0x10);
    guest_cfg_write(g, 7, PCI_COMMAND, 2, 3);
    assert_int_equal(guest_mmio_read(g, at7, 1), 0x10);
    machine_reset(&g->m);
    assert_int_equal(guest_cfg_read(g, 3, PCI_BAR0, 4), at);
    assert_int_equal(guest_mmio_read(g, at7, 1), 0x20);
}

static void msix_masks_and_pends(void **state)
{
    struct fixture *f = *state;
    struct guest *g = &f->g;
    struct driver d = {.g = g, .slot = 3};
    unsigned cap = guest_cfg_read(g, 3, PCI_CAP_PTR, 1);

    d.msix = driver_bar(&d, 1);
    pci_msix_send(f->fn[0], 0);
    assert_int_equal(g->msis, 0); /* off: nothing, not even pending */
    driver_msix_on(&d);
    pci_msix_send(f->fn[0], 1);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi, 0x41);
    pci_msix_send(f->fn[0], 2);
    assert_int_equal(g->msis, 1);
    guest_mmio_write(g, d.msix + 16 + 12, 4, 1);
    pci_msix_send(f->fn[0], 1);
    pci_msix_send(f->fn[0], 1);
    assert_int_equal(guest_mmio_read(g, d.msix + PCI_MSIX_PBA, 8), 2);
    guest_cfg_write(g, 3, cap + 2, 2, 0xc000);
    guest_mmio_write(g, d.msix + 16 + 12, 4, 0);
    assert_int_equal(g->msis, 1);
    guest_cfg_write(g, 3, cap + 2, 2, 0x8000);
    assert_int_equal(g->msis, 2);
    assert_int_equal(guest_mmio_read(g, d.msix + PCI_MSIX_PBA, 8), 0);
    assert_int_equal(guest_mmio_read(g, d.msix + 2 * 16, 8), 0);
}

static void intx_is_shared_and_can_be_cut_off(void **state)
{
    struct fixture *f = *state;
    struct guest *g = &f->g;

    assert_int_equal(pci_slot_gsi(3), pci_slot_gsi(7));
    pci_intx(f->fn[0], true);
    pci_intx(f->fn[1], true);
    assert_true(g->gsi_level[19]);
    pci_intx(f->fn[0], false);
    assert_true(g->gsi_level[19]);
    guest_cfg_write(g, 7, PCI_COMMAND, 2, 0x403);
    assert_false(g->gsi_level[19]);
    assert_int_equal(guest_cfg_read(g, 7, PCI_STATUS, 2) & 8, 8);
    guest_cfg_write(g, 7, PCI_COMMAND, 2, 3);
    assert_true(g->gsi_level[19]);
    pci_intx(f->fn[1], false);
    assert_false(g->gsi_level[19]);
}

static void section_is_exact_and_guarded(void **state)
{
    struct fixture *f = *state;
    struct device *dev = &f->g.m.devices[1];
    struct wbuf w;

    assert_string_equal(dev->name, "pci");
    guest_cfg_write(&f->g, 3, PCI_BAR0, 4, 0xd0000000);
    pci_intx(f->fn[1], true);
    wbuf_init(&w);
    dev->ops->save(dev->dev, &w);
    machine_reset(&f->g.m);
    assert_int_equal(section_read(dev, &w, w.len, dev->version), 0);
    assert_int_equal(guest_mmio_read(&f->g, 0xd0000001, 1), 0x11);
    section_equal(dev, &w);
    check_truncations(dev, &w);
    assert_int_equal(section_read(dev, &w, w.len, dev->version + 1), PLX_EVERSION);
    w.data[5 + 1] ^= 1; /* vendor of the host bridge */
    assert_int_equal(section_read(dev, &w, w.len, dev->version), PLX_ECORRUPT);
    wbuf_free(&w);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(configuration_space),
        T(reset_register),
        T(bars_are_assigned_sized_and_moved),
        T(msix_masks_and_pends),
        T(intx_is_shared_and_can_be_cut_off),
        T(section_is_exact_and_guarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
