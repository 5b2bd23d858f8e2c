/* SPDX-License-Identifier: Apache-2.0
 * vmm/pc.c - see pc.h: the wiring of the board, and nothing that is state. */
#include "vmm/pc.h"

#include "base/alloc.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/boot/firmware.h"
#include "vmm/dev/acpipm.h"
#include "vmm/dev/debugexit.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/hpet.h"
#include "vmm/dev/i8042.h"
#include "vmm/dev/ioapic.h"
#include "vmm/dev/lapic.h"
#include "vmm/dev/pci.h"
#include "vmm/dev/pic.h"
#include "vmm/dev/pit.h"
#include "vmm/dev/rom.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/uart.h"
#include "vmm/dev/virtio_devices.h"

/* PCI slots; visible to guests. */
enum {
    SLOT_NIC = 2,
    SLOT_DISK = SLOT_NIC + NICS_MAX,
    SLOT_RNG = SLOT_DISK + DISKS_MAX,
    SLOT_CONSOLE
};

struct pc_devices {
    struct apic_bus apics;
    struct ioapic *ioapic;
    struct pic *pic;
    struct pit *pit;
    struct rtc *rtc;
    struct acpipm *acpipm;
    struct hpet *hpet;
    struct i8042 *i8042;
    struct uart *uart[2];
    struct rom *rom;
    struct fwcfg *fwcfg;
};

/* --- interrupt lines -------------------------------------------------------------------------- */

/* ISA IRQ n reaches the PIC and the IOAPIC; IRQ 0 is pin 2 there. */
static void line_set(void *ctx, unsigned line, bool level)
{
    struct pc *pc = ctx;

    if (line < 16 && line != PIC_CASCADE_IRQ) {
        pic_set_line(pc->devices->pic, line, level);
    }
    if (line != PIT_GSI) {
        ioapic_set_line(pc->devices->ioapic, line == PIT_IRQ ? PIT_GSI : line, level);
    }
}

/* m->gsi[n]: the lines of PIT and RTC are cut while the HPET replaces them. */
static void gsi_set(void *ctx, unsigned line, bool level)
{
    const struct pc *pc = ctx;

    if ((line != PIT_IRQ && line != RTC_IRQ) || !hpet_legacy(pc->devices->hpet)) {
        line_set(ctx, line, level);
    }
}

/* INT of the PIC goes to LINT0 of every LAPIC. */
static void pic_intr(void *ctx, unsigned line, bool level)
{
    struct pc *pc = ctx;

    (void)line;
    for (unsigned i = 0; i < pc->devices->apics.n; i++) {
        lapic_set_lint0(pc->devices->apics.lapics[i], level);
    }
}

static int extint_take(void *ctx)
{
    const struct pc_cpu *cpu = ctx;

    return pic_take(cpu->pc->devices->pic);
}

/* --- INIT and start-up (SDM Vol. 3A, "Multiple-Processor (MP) Initialization", "Processor State
 * After Reset": what INIT leaves alone) ----------------------------------------------------------
 */

static void init_now(void *ctx)
{
    struct pc_cpu *cpu = ctx;
    struct vcpu *v = cpu->v;
    struct cpu was = v->c, *c = &v->c;

    cpu_reset(c, v->id);
    c->cr0 |= was.cr0 & (CR0_CD | CR0_NW);
    c->fpu = was.fpu;
    c->xcr0 = was.xcr0;
    c->xss = was.xss;
    c->star = was.star;
    c->lstar = was.lstar;
    c->cstar = was.cstar;
    c->sfmask = was.sfmask;
    c->kernel_gs_base = was.kernel_gs_base;
    c->sysenter_cs = was.sysenter_cs;
    c->sysenter_esp = was.sysenter_esp;
    c->sysenter_eip = was.sysenter_eip;
    c->pat = was.pat;
    c->tsc_aux = was.tsc_aux;
    c->tsc_adjust = was.tsc_adjust;
    c->misc_enable = was.misc_enable;
    c->mtrr_def_type = was.mtrr_def_type;
    for (unsigned i = 0; i < sizeof c->mtrr_fixed / sizeof c->mtrr_fixed[0]; i++) {
        c->mtrr_fixed[i] = was.mtrr_fixed[i];
    }
    for (unsigned i = 0; i < sizeof c->mtrr_phys / sizeof c->mtrr_phys[0]; i++) {
        c->mtrr_phys[i] = was.mtrr_phys[i];
    }
    c->rng = was.rng;
    c->retired = was.retired;
    c->progress = was.progress;
    c->wait_sipi = v->id != 0;
    lapic_init_reset(cpu->lapic);
    cpu->pc->engine->state_changed(v);
}

/* INIT to the vCPU that runs would pull its state from under the instruction that sends it: the
 * run loop takes it after that instruction. */
static void vcpu_init(void *ctx)
{
    struct pc_cpu *cpu = ctx;

    if (cpu->pc->running == cpu->v) {
        cpu->v->init_pending = true;
        cpu->v->attention = true;
    } else {
        init_now(cpu);
    }
}

static void vcpu_sipi(void *ctx, uint8_t vector)
{
    struct pc_cpu *cpu = ctx;
    struct cpu *c = &cpu->v->c;

    if (c->wait_sipi == 0) {
        return;
    }
    c->wait_sipi = 0;
    c->seg[SEG_CS].sel = (uint16_t)(vector << 8);
    c->seg[SEG_CS].base = (uint64_t)vector << 12;
    c->rip = 0;
    cpu->pc->engine->state_changed(cpu->v);
}

static void vcpu_wake(void *ctx)
{
    struct pc_cpu *cpu = ctx;
    struct pc *pc = cpu->pc;

    if (pc->on_wake != NULL && pc->running != NULL && pc->running != cpu->v) {
        pc->on_wake(pc->on_wake_ctx, cpu->v);
    }
}

/* --- what a vCPU reaches ------------------------------------------------------------------------
 */

static struct bus *bus_of(void *ctx)
{
    return ((struct pc_cpu *)ctx)->pc->m.bus;
}

static uint64_t pio_read(void *ctx, uint16_t port, unsigned size)
{
    return bus_read(bus_of(ctx), BUS_PIO, port, size);
}

static void pio_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    bus_write(bus_of(ctx), BUS_PIO, port, size, value);
}

/* The LAPIC's page is the accessing vCPU's own, so it is not on the bus. */
static uint64_t mmio_read(void *ctx, gpa_t gpa, unsigned size)
{
    struct pc_cpu *cpu = ctx;

    return lapic_claims(cpu->lapic, gpa) ? lapic_mmio_read(cpu->lapic, gpa, size)
                                         : bus_read(cpu->pc->m.bus, BUS_MMIO, gpa, size);
}

static void mmio_write(void *ctx, gpa_t gpa, unsigned size, uint64_t value)
{
    struct pc_cpu *cpu = ctx;

    if (lapic_claims(cpu->lapic, gpa)) {
        lapic_mmio_write(cpu->lapic, gpa, size, value);
    } else {
        bus_write(cpu->pc->m.bus, BUS_MMIO, gpa, size, value);
    }
}

static bool rom_read_op(void *ctx, gpa_t gpa, uint8_t *out, unsigned len)
{
    return rom_read(((struct pc_cpu *)ctx)->pc->devices->rom, gpa, out, len);
}

static int irq_take(void *ctx)
{
    return lapic_irq_take(((struct pc_cpu *)ctx)->lapic);
}

static int msr_read(void *ctx, uint32_t msr, uint64_t *value)
{
    return lapic_msr_read(((struct pc_cpu *)ctx)->lapic, msr, value);
}

static int msr_write(void *ctx, uint32_t msr, uint64_t value)
{
    return lapic_msr_write(((struct pc_cpu *)ctx)->lapic, msr, value);
}

static uint64_t cr8_read(void *ctx)
{
    return lapic_cr8_read(((struct pc_cpu *)ctx)->lapic);
}

static void cr8_write(void *ctx, uint64_t value)
{
    lapic_cr8_write(((struct pc_cpu *)ctx)->lapic, value);
}

static int irq_peek(void *ctx)
{
    return lapic_irq_peek(((struct pc_cpu *)ctx)->lapic);
}

static bool mmio_own(void *ctx, gpa_t gpa, unsigned size, bool write)
{
    return lapic_mmio_own(((struct pc_cpu *)ctx)->lapic, gpa, size, write);
}

static bool msr_own(void *ctx, uint32_t msr, bool write)
{
    return lapic_msr_own(((struct pc_cpu *)ctx)->lapic, msr, write);
}

static const struct vcpu_ops vcpu_wiring = {
    .pio_read = pio_read,
    .pio_write = pio_write,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .rom_read = rom_read_op,
    .irq_take = irq_take,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .init = init_now,
    .irq_peek = irq_peek,
    .mmio_own = mmio_own,
    .msr_own = msr_own,
};

/* --- the machine's hooks ------------------------------------------------------------------------
 */

static void on_stop(void *ctx)
{
    struct pc *pc = ctx;

    for (unsigned i = 0; i < pc->m.cfg.vcpus; i++) {
        pc->cpus[i].v->stopping = true;
        pc->cpus[i].v->attention = true;
    }
}

/* Every vCPU's generator is seeded from the machine's, in order. */
static int on_entropy(void *ctx, const struct input *in, struct plx_err *err)
{
    struct pc *pc = ctx;

    (void)in;
    (void)err;
    for (unsigned i = 0; i < pc->m.cfg.vcpus; i++) {
        prng_seed(&pc->cpus[i].v->c.rng, prng_u64(&pc->m.rng));
    }
    return 0;
}

/* A timer was armed for earlier than all others: end the run of the running vCPU at the first
 * progress at which its clock reaches @deadline, at once when that has passed. */
static void on_sooner(void *ctx, uint64_t deadline)
{
    struct pc *pc = ctx;
    struct vcpu *v = pc->running;
    unsigned __int128 need;
    uint64_t end;

    if (v == NULL || v->rate == 0) {
        return;
    }
    need = deadline <= v->t0
               ? 0
               : (((unsigned __int128)(deadline - v->t0) << 16) + v->rate - 1) / v->rate;
    if (need > UINT64_MAX - v->progress0) {
        return;
    }
    end = v->progress0 + (uint64_t)need;
    if (end <= v->c.progress) {
        v->yield = true;
        v->attention = true;
    } else {
        vcpu_end_at(v, end);
    }
}

/* --- life --------------------------------------------------------------------------------------
 */

static void on_revoke(void *ctx, unsigned vcpu, uint64_t page, bool all)
{
    struct pc *pc = ctx;

    pc->engine->revoke(pc->cpus[vcpu].v, page, all);
}

static const struct owner_ops owner_wiring = {.revoke = on_revoke};

static int create_owner(struct pc *pc, const struct shadow_config *shadow, struct plx_err *err)
{
    struct machine *m = &pc->m;
    int rc;

    if (m->cfg.vcpus == 1) {
        return 0;
    }
    rc = owner_create(ram_pages(m->ram), m->cfg.vcpus, &owner_wiring, pc, &pc->owner, err);
    if (rc == 0) {
        pc->owner->eager = !shadow->lazy_ad;
        machine_add_device(m, "owner", OWNER_SECTION_VERSION, &owner_section_ops, pc->owner);
    }
    return rc;
}

static int create_vcpus(struct pc *pc, const struct shadow_config *shadow, unsigned cache_entries,
                        struct plx_err *err)
{
    struct machine *m = &pc->m;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < m->cfg.vcpus; i++) {
        struct pc_cpu *cpu = &pc->cpus[i];
        const struct engine_config cfg = {.id = i,
                                          .bsp = i == 0,
                                          .vcpus = m->cfg.vcpus,
                                          .model = m->cfg.cpu,
                                          .ram = m->ram,
                                          .owner = pc->owner,
                                          .common = pc->owner != NULL ? &pc->code : NULL,
                                          .ops = &vcpu_wiring,
                                          .ops_ctx = cpu,
                                          .shadow = shadow,
                                          .cache_entries = cache_entries};
        const struct lapic_wires wires = {extint_take, vcpu_init, vcpu_sipi, vcpu_wake, cpu};

        cpu->pc = pc;
        rc = pc->engine->create(&cfg, &cpu->v, err);
        if (rc == 0) {
            rc = lapic_create(m, &pc->devices->apics, cpu->v, &wires, &cpu->lapic, err);
        }
    }
    return rc;
}

static int create_devices(struct pc *pc, struct plx_err *err)
{
    static const struct {
        const char *name;
        unsigned console;
        uint16_t port;
        unsigned irq;
    } uarts[2] = {{"uart0", CONSOLE_SERIAL0, COM1_PORT, COM1_IRQ},
                  {"uart1", CONSOLE_SERIAL1, COM2_PORT, COM2_IRQ}};
    struct machine *m = &pc->m;
    struct pc_devices *d = pc->devices;
    const struct irq_line intr = {.set = pic_intr, .ctx = pc};
    const struct irq_line legacy[2] = {{.set = line_set, .ctx = pc, .line = PIT_IRQ},
                                       {.set = line_set, .ctx = pc, .line = RTC_IRQ}};
    int rc = ioapic_create(m, &d->apics, &d->ioapic, err);

    if (rc == 0) {
        rc = pic_create(m, &intr, &d->pic, err);
    }
    if (rc != 0) {
        return rc;
    }
    for (unsigned i = 0; i < sizeof m->gsi / sizeof m->gsi[0]; i++) {
        m->gsi[i] = (struct irq_line){.set = gsi_set, .ctx = pc, .line = i};
    }
    m->msi = (struct msi_sink){.send = apic_msi_send, .ctx = &d->apics};
    rc = pit_create(m, &d->pit, err);
    if (rc == 0) {
        rc = rtc_create(m, &d->rtc, err);
    }
    if (rc == 0) {
        rc = acpipm_create(m, &d->acpipm, err);
    }
    if (rc == 0) {
        rc = hpet_create(m, legacy, &d->hpet, err);
    }
    if (rc == 0) {
        rc = i8042_create(m, &d->i8042, err);
    }
    if (rc == 0) {
        rc = debugexit_create(m, err);
    }
    for (unsigned i = 0; rc == 0 && i < 2; i++) {
        const struct uart_config cfg = {.name = uarts[i].name,
                                        .console = uarts[i].console,
                                        .port = uarts[i].port,
                                        .irq = m->gsi[uarts[i].irq]};

        rc = uart_create(m, &cfg, &d->uart[i], err);
    }
    if (rc == 0) {
        rc = rom_create(m, &d->rom, err);
    }
    if (rc == 0) {
        rc = fwcfg_create(m, &d->fwcfg, err);
    }
    return rc != 0 ? rc : firmware_describe(m, d->fwcfg, err);
}

/* The PCI bus and what is plugged in; reset together once all are there, which places the BARs. */
static int create_pci(struct pc *pc, struct plx_err *err)
{
    struct machine *m = &pc->m;
    unsigned first = m->ndevices;
    int rc = pci_create(m, &m->pci, err);

    for (unsigned i = 0; rc == 0 && i < m->cfg.nnics; i++) {
        rc = virtio_net_create(m, SLOT_NIC + i, i, err);
    }
    for (unsigned i = 0; rc == 0 && i < m->cfg.ndisks; i++) {
        rc = virtio_blk_create(m, SLOT_DISK + i, i, err);
    }
    if (rc == 0) {
        rc = virtio_rng_create(m, SLOT_RNG, err);
    }
    if (rc == 0) {
        rc = virtio_console_create(m, SLOT_CONSOLE, err);
    }
    for (unsigned i = first; rc == 0 && i < m->ndevices; i++) {
        m->devices[i].ops->reset(m->devices[i].dev);
    }
    return rc;
}

int pc_create(const struct machine_config *cfg, const struct machine_host *host,
              const struct engine_ops *engine, const struct shadow_config *shadow,
              unsigned cache_entries, struct pc **out, struct plx_err *err)
{
    struct pc *pc = plx_calloc(1, sizeof *pc);
    int rc;

    *out = NULL;
    if (pc == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for the PC");
    }
    pc->engine = engine;
    pc->devices = plx_calloc(1, sizeof *pc->devices);
    rc = pc->devices == NULL ? plx_fail(err, PLX_ENOMEM, "out of memory for the PC")
                             : machine_init(&pc->m, cfg, host, err);
    if (rc == 0) {
        rc = create_owner(pc, shadow, err);
    }
    if (rc == 0) {
        rc = create_vcpus(pc, shadow, cache_entries, err);
    }
    if (rc == 0) {
        rc = create_devices(pc, err);
    }
    if (rc == 0) {
        rc = create_pci(pc, err);
    }
    if (rc != 0) {
        pc_destroy(pc);
        return rc;
    }
    pc->m.on_stop = on_stop;
    pc->m.on_stop_ctx = pc;
    pc->m.entropy = (struct input_port){.take = on_entropy, .ctx = pc};
    pc->m.timers.sooner = on_sooner;
    pc->m.timers.sooner_ctx = pc;
    *out = pc;
    return 0;
}

void pc_destroy(struct pc *pc)
{
    if (pc == NULL) {
        return;
    }
    pci_destroy(pc->m.pci);
    if (pc->devices != NULL) {
        fwcfg_destroy(pc->devices->fwcfg);
        rom_destroy(pc->devices->rom);
        uart_destroy(pc->devices->uart[1]);
        uart_destroy(pc->devices->uart[0]);
        i8042_destroy(pc->devices->i8042);
        hpet_destroy(pc->devices->hpet);
        acpipm_destroy(pc->devices->acpipm);
        rtc_destroy(pc->devices->rtc);
        pit_destroy(pc->devices->pit);
        pic_destroy(pc->devices->pic);
        ioapic_destroy(pc->devices->ioapic);
    }
    for (unsigned i = VCPUS_MAX; i-- > 0;) {
        lapic_destroy(pc->cpus[i].lapic);
        if (pc->cpus[i].v != NULL) {
            pc->engine->destroy(pc->cpus[i].v);
        }
    }
    plx_free(pc->devices);
    owner_destroy(pc->owner);
    machine_fini(&pc->m);
    plx_free(pc);
}
