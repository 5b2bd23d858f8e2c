/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a wire of the board that goes nowhere: ports and LAPIC pages of the accessing vCPU, both
 * ways of IRQ 0, INIT and SIPI, the end of a run by an earlier timer, seeds that reach everybody.
 */
#include "tests/unit/dev_board.h"

#include "base/alloc.h"
#include "vmm/pc.h"

static unsigned changes;

static int fake_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    struct vcpu *v = plx_calloc(1, sizeof *v);

    *out = v;
    if (v == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    v->id = cfg->id;
    v->ops = cfg->ops;
    v->ops_ctx = cfg->ops_ctx;
    cpu_reset(&v->c, cfg->id);
    v->c.wait_sipi = !cfg->bsp;
    return 0;
}

static void fake_destroy(struct vcpu *v)
{
    plx_free(v);
}

static void fake_changed(struct vcpu *v)
{
    (void)v;
    changes++;
}

static const struct engine_ops fake_engine = {
    .name = "fake", .create = fake_create, .destroy = fake_destroy, .state_changed = fake_changed};

static const struct machine_config config = {
    .memory = 16 << 20, .vcpus = 2, .ndisks = 1, .nnics = 1, .disks = {{.sectors = 2048}}};
static const struct machine_host host;

static struct pc *pc;
static struct vcpu *v0, *v1;
static struct output_list outputs;
static uint64_t now;

static uint64_t clock_now(void *ctx)
{
    (void)ctx;
    return now;
}

static int setup(void **state)
{
    (void)state;
    assert_int_equal(pc_create(&config, &host, &fake_engine, &SHADOW_DEFAULT, 0, &pc, NULL), 0);
    output_list_init(&outputs);
    now = 0;
    pc->m.out = &outputs;
    pc->m.now = clock_now;
    v0 = pc->cpus[0].v;
    v1 = pc->cpus[1].v;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    output_list_free(&outputs);
    pc_destroy(pc);
    return 0;
}

static void outb(uint16_t port, uint8_t value)
{
    v0->ops->pio_write(v0->ops_ctx, port, 1, value);
}

static void lapic_set(struct vcpu *v, unsigned reg, uint32_t value)
{
    v->ops->mmio_write(v->ops_ctx, LAPIC_BASE + reg, 4, value);
}

static uint32_t lapic_get(struct vcpu *v, unsigned reg)
{
    return (uint32_t)v->ops->mmio_read(v->ops_ctx, LAPIC_BASE + reg, 4);
}

static void ioapic_set(unsigned pin, uint32_t low, uint32_t high)
{
    for (unsigned half = 0; half < 2; half++) {
        v0->ops->mmio_write(v0->ops_ctx, IOAPIC_BASE, 4, 0x10 + pin * 2 + half);
        v0->ops->mmio_write(v0->ops_ctx, IOAPIC_BASE + 0x10, 4, half == 0 ? low : high);
    }
}

static void pit_tick(void)
{
    outb(PIT_PORT + 3, 0x30); /* mode 0: one tick after 100 */
    outb(PIT_PORT, 100);
    outb(PIT_PORT, 0);
    now += 1000000;
    vtimers_fire(&pc->m.timers, now);
}

static void each_vcpu_sees_its_own_lapic(void **state)
{
    (void)state;
    assert_int_equal(lapic_get(v0, 0x20), 0);
    assert_int_equal(lapic_get(v1, 0x20), 1 << 24);
    lapic_set(v1, 0x80, 0x30);
    assert_int_equal(lapic_get(v0, 0x80), 0);
    assert_int_equal(v1->ops->cr8_read(v1->ops_ctx), 3);
    v1->ops->cr8_write(v1->ops_ctx, 2);
    assert_int_equal(lapic_get(v1, 0x80), 0x20);
    assert_int_equal(v0->ops->mmio_read(v0->ops_ctx, PCI_HOLE_END - 3, 4), 0xffffffff);
}

/* IRQ 0 without APIC (virtual wire), then through IOAPIC pin 2. */
static void the_pit_reaches_the_cpu_both_ways(void **state)
{
    static const uint8_t icw[] = {0x20, 4, 1, 0xfe};

    (void)state;
    outb(PIC_MASTER_PORT, 0x11);
    for (unsigned i = 0; i < sizeof icw; i++) {
        outb(PIC_MASTER_PORT + 1, icw[i]);
    }
    pit_tick();
    assert_true(v0->irq_pending);
    assert_false(v1->irq_pending);
    assert_int_equal(v0->ops->irq_take(v0->ops_ctx), 0x20);
    outb(PIC_MASTER_PORT, 0x20);
    assert_false(v0->irq_pending);
    outb(PIC_MASTER_PORT + 1, 0xff);
    lapic_set(v1, 0xf0, 0x1ff);
    ioapic_set(PIT_GSI, 0x61, 1 << 24);
    pit_tick();
    assert_false(v0->irq_pending);
    assert_true(v1->irq_pending);
    assert_int_equal(v1->ops->irq_take(v1->ops_ctx), 0x61);
}

static void the_second_vcpu_starts(void **state)
{
    (void)state;
    v1->c.tsc_adjust = 77;
    v1->c.gpr[RBX] = 5;
    v1->c.progress = 9;
    lapic_set(v0, 0x310, 1 << 24);
    lapic_set(v0, 0x300, 0x4500);
    assert_int_equal(v1->c.wait_sipi, 1);
    assert_int_equal(v1->c.gpr[RBX], 0);
    assert_int_equal(v1->c.tsc_adjust, 77);
    assert_int_equal(v1->c.progress, 9);
    lapic_set(v0, 0x300, 0x4609);
    lapic_set(v0, 0x300, 0x460a); /* the second one is ignored */
    assert_int_equal(v1->c.wait_sipi, 0);
    assert_int_equal(v1->c.seg[SEG_CS].sel, 0x900);
    assert_int_equal(v1->c.seg[SEG_CS].base, 0x9000);
    assert_int_equal(v1->c.rip, 0);
    assert_int_equal(changes, 2);
    /* INIT to the one that runs waits for the end of its instruction. */
    pc->running = v0;
    v0->c.gpr[RBX] = 5;
    lapic_set(v0, 0x310, 0);
    lapic_set(v0, 0x300, 0x4500);
    assert_int_equal(v0->c.gpr[RBX], 5);
    assert_true(v0->init_pending && v0->attention);
    v0->ops->init(v0->ops_ctx);
    assert_int_equal(v0->c.gpr[RBX], 0);
    assert_int_equal(v0->c.wait_sipi, 0);
}

/* The run ends at the first progress whose time is the deadline's or later. */
static void an_earlier_timer_shortens_the_run(void **state)
{
    static const struct {
        uint64_t deadline, progress, stop;
        bool yield;
    } cases[] = {
        {1000 + 2500, 0, 100 + 1000, false},  {1000 + 2501, 0, 100 + 1001, false},
        {1000 + 99999, 0, 100 + 5000, false}, {1000 + 2500, 1000, 100 + 5000, true},
        {500, 0, 100 + 5000, true},           {1000 + 2500, 999, 100 + 1000, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        v0->t0 = now = 1000;
        v0->rate = 65536 * 5 / 2;
        v0->progress0 = 100;
        v0->stop_progress = 100 + 5000;
        v0->c.progress = 100 + cases[i].progress;
        v0->yield = v0->attention = false;
        pc->running = v0;
        pc->m.timers.sooner(pc->m.timers.sooner_ctx, cases[i].deadline);
        assert_int_equal(v0->stop_progress, cases[i].stop);
        assert_int_equal(v0->yield, cases[i].yield);
        assert_int_equal(v0->attention, cases[i].yield || cases[i].stop != 100 + 5000);
    }
}

static void inputs_find_their_devices(void **state)
{
    static const struct {
        uint8_t kind;
        uint16_t dev;
        int rc;
    } cases[] = {
        {INPUT_ENTROPY, 0, 0},
        {INPUT_WALLCLOCK, 0, 0},
        {INPUT_POWER_BUTTON, 0, 0},
        {INPUT_CONSOLE_RX, CONSOLE_SERIAL0, 0},
        {INPUT_CONSOLE_RX, CONSOLE_SERIAL1, 0},
        {INPUT_CONSOLE_RX, CONSOLE_VIRTIO0, 0},
        {INPUT_CONSOLE_RX, CONSOLE_PORTS, PLX_ECORRUPT},
        {INPUT_NET_RX, 0, 0},
        {INPUT_NET_RX, 1, PLX_ECORRUPT},
        {INPUT_NET_RX, 999, PLX_ECORRUPT},
        {INPUT_DISK_DONE, 1, PLX_ECORRUPT},
        {INPUT_DISK_DONE, DISKS_MAX, PLX_ECORRUPT},
        {INPUT_JUMP, 0, PLX_ECORRUPT},
        {INPUT_KIND_END, 0, PLX_ECORRUPT},
        {0, 0, PLX_ECORRUPT},
    };
    uint64_t before0 = v0->c.rng.s[0], before1 = v1->c.rng.s[0];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static const uint8_t data[64] = {1, 2, 3};
        const struct input in = {
            .kind = cases[i].kind, .dev = cases[i].dev, .data = data, .len = sizeof data};
        struct plx_err err = {0};

        assert_int_equal(machine_input(&pc->m, &in, &err), cases[i].rc);
        assert_int_equal(err.msg[0] != '\0', cases[i].rc != 0);
    }
    assert_true(v0->c.rng.s[0] != before0 && v1->c.rng.s[0] != before1);
    assert_true(v0->c.rng.s[0] != v1->c.rng.s[0]);
}

static void a_stop_reaches_every_vcpu(void **state)
{
    (void)state;
    outb(DEBUG_EXIT_PORT, 3);
    assert_true(v0->stopping && v0->attention && v1->stopping);
    assert_int_equal(outputs.items[0].arg, 7);
}

static void bad_configurations_are_refused(void **state)
{
    struct machine_config cfgs[5];
    struct pc *p;

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        cfgs[i] = config;
    }
    cfgs[0].vcpus = 0;
    cfgs[1].vcpus = VCPUS_MAX + 1;
    cfgs[2].ndisks = DISKS_MAX + 1;
    cfgs[3].disks[0].sectors = 0;
    cfgs[4].memory = 0;
    for (unsigned i = 0; i < 5; i++) {
        struct plx_err err = {0};

        assert_true(pc_create(&cfgs[i], &host, &fake_engine, &SHADOW_DEFAULT, 0, &p, &err) < 0);
        assert_null(p);
        assert_true(err.msg[0] != '\0');
    }
}

/* There is room for every device of it, and for the sections of its vCPUs and of the scheduler. */
static void the_largest_machine_fits(void **state)
{
    struct machine_config cfg = {
        .memory = 16 << 20, .vcpus = VCPUS_MAX, .ndisks = DISKS_MAX, .nnics = NICS_MAX};
    struct pc *p;

    (void)state;
    for (unsigned i = 0; i < DISKS_MAX; i++) {
        cfg.disks[i].sectors = 2048;
    }
    assert_int_equal(pc_create(&cfg, &host, &fake_engine, &SHADOW_DEFAULT, 0, &p, NULL), 0);
    assert_true(p->m.ndevices + VCPUS_MAX + 1 <= sizeof p->m.devices / sizeof p->m.devices[0]);
    pc_destroy(p);
}

/* Fail each allocation in turn: the sanitizers judge every unwind. */
static void creation_unwinds_from_every_allocation_failure(void **state)
{
    struct pc *p = NULL;
    int k = 0;

    (void)state;
    for (plx_heap_fail_at(k);
         pc_create(&config, &host, &fake_engine, &SHADOW_DEFAULT, 0, &p, NULL) != 0;
         plx_heap_fail_at(++k)) {
        assert_null(p);
    }
    plx_heap_fail_never();
    assert_true(k > 10);
    pc_destroy(p);
}

/* Random accesses to the whole board from both vCPUs; then everything saves as it loads. */
static void the_board_survives_anything(void **state)
{
    struct prng g;

    (void)state;
    seed_open(&g, "pc");
    for (unsigned i = 0; i < 20000; i++) {
        struct vcpu *v = prng_below(&g, 2) == 0 ? v0 : v1;
        unsigned size = 1U << prng_below(&g, 3);
        uint16_t port = (uint16_t)prng_below(&g, prng_below(&g, 4) == 0 ? 0x10000 : 0x700);
        gpa_t gpa = (prng_below(&g, 2) == 0 ? LAPIC_BASE : IOAPIC_BASE) +
                    (prng_below(&g, 0x400) & ~UINT64_C(15));
        uint64_t value = prng_u64(&g) >> prng_below(&g, 64);

        switch (prng_below(&g, 6)) {
        case 0:
            v->ops->pio_read(v->ops_ctx, port, size);
            break;
        case 1:
            v->ops->pio_write(v->ops_ctx, port, size, value & (UINT64_MAX >> (64 - size * 8)));
            break;
        case 2:
            v->ops->mmio_read(v->ops_ctx, gpa, 4);
            break;
        case 3:
            v->ops->mmio_write(v->ops_ctx, gpa, 4, value & 0xffffffff);
            break;
        case 4:
            v->ops->irq_take(v->ops_ctx);
            break;
        default:
            now = (now + prng_below(&g, UINT64_C(1) << prng_below(&g, 34))) &
                  ((UINT64_C(1) << 50) - 1);
            vtimers_fire(&pc->m.timers, now);
        }
        if (pc->m.stopped) {
            pc->m.stopped = false;
        }
        if (i % 1000 == 0) {
            for (unsigned d = 0; d < pc->m.ndevices; d++) {
                struct device *dev = &pc->m.devices[d];
                struct wbuf w;

                wbuf_init(&w);
                dev->ops->save(dev->dev, &w);
                assert_int_equal(section_read(dev, &w, w.len, dev->version), 0);
                section_equal(dev, &w);
                wbuf_free(&w);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_vcpu_sees_its_own_lapic, setup, teardown),
        cmocka_unit_test_setup_teardown(the_pit_reaches_the_cpu_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(the_second_vcpu_starts, setup, teardown),
        cmocka_unit_test_setup_teardown(an_earlier_timer_shortens_the_run, setup, teardown),
        cmocka_unit_test_setup_teardown(inputs_find_their_devices, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_reaches_every_vcpu, setup, teardown),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(the_largest_machine_fits),
        cmocka_unit_test(creation_unwinds_from_every_allocation_failure),
        cmocka_unit_test_setup_teardown(the_board_survives_anything, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
