/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/acpipm.c - see acpipm.h. */
#include "vmm/dev/acpipm.h"

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"
#include "vmm/tunables.h"

enum { ACPIPM_VERSION = 1 };

/* Offsets in the block of ports. */
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TMR = 8, RESET_REG = 16 };
enum {
    STS_TMR = 0x0001,
    STS_BM = 0x0010,
    STS_GBL = 0x0020,
    STS_PWRBTN = 0x0100,
    STS_SLPBTN = 0x0200,
    STS_RTC = 0x0400,
    STS_WAK = 0x8000
};
enum { EN_MASK = STS_TMR | STS_GBL | STS_PWRBTN | STS_SLPBTN | STS_RTC };
enum { STS_MASK = EN_MASK | STS_BM | STS_WAK };
enum { CNT_SCI_EN = 0x0001, CNT_BM_RLD = 0x0002, CNT_SLP_TYP = 0x1c00, CNT_SLP_EN = 0x2000 };
enum { CNT_KEPT = CNT_BM_RLD | CNT_SLP_TYP };

#define NS UINT64_C(1000000000)

struct acpipm {
    struct machine *m;
    struct vtimer timer;
    uint16_t sts, en, cnt;
    uint64_t half; /* of the PM timer, 2^31 ticks each: TMR_STS is set when the next one begins */
};

static uint64_t ticks_at(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PM_TIMER_HZ / NS);
}

/* What the clock did since the last look, then SCI and the next time to look. */
static void update(struct acpipm *pm)
{
    uint64_t half = ticks_at(machine_now(pm->m)) >> 31;
    unsigned __int128 next;

    if (half != pm->half) {
        pm->half = half;
        pm->sts |= STS_TMR;
    }
    irq_set(&pm->m->gsi[SCI_GSI], (pm->sts & pm->en & EN_MASK) != 0);
    if ((pm->en & STS_TMR) == 0 || (pm->sts & STS_TMR) != 0) {
        vtimer_disarm(&pm->timer); /* nobody is told: TMR_STS waits for the next look */
        return;
    }
    next = (((unsigned __int128)(half + 1) << 31) * NS + PM_TIMER_HZ - 1) / PM_TIMER_HZ;
    vtimer_arm(&pm->timer, next < VTIMER_NEVER ? (uint64_t)next : VTIMER_NEVER);
}

static void fire(void *ctx, uint64_t now)
{
    (void)now;
    update(ctx);
}

static int press_power_button(void *ctx, const struct input *in, struct plx_err *err)
{
    struct acpipm *pm = ctx;

    (void)in;
    (void)err;
    pm->sts |= STS_PWRBTN;
    update(pm);
    return 0;
}

static uint8_t read_byte(const struct acpipm *pm, uint64_t addr)
{
    const uint16_t words[] = {[PM1_STS / 2] = pm->sts,
                              [PM1_EN / 2] = pm->en,
                              [PM1_CNT / 2] = (uint16_t)(pm->cnt | CNT_SCI_EN)};

    if (addr < sizeof words) {
        return (uint8_t)(words[addr / 2] >> ((addr & 1) * 8));
    }
    if (addr >= PM_TMR && addr < PM_TMR + 4) {
        return (uint8_t)(ticks_at(machine_now(pm->m)) >> ((addr - PM_TMR) * 8));
    }
    return 0;
}

static void write_byte(struct acpipm *pm, uint64_t addr, uint8_t value)
{
    unsigned shift = (addr & 1) * 8;
    uint16_t bits = (uint16_t)(value << shift), keep = (uint16_t)(0xff00 >> shift);

    switch (addr & ~UINT64_C(1)) {
    case PM1_STS: /* a written 1 clears */
        pm->sts &= (uint16_t)~bits;
        break;
    case PM1_EN:
        pm->en = (uint16_t)((pm->en & keep) | bits) & EN_MASK;
        break;
    case PM1_CNT:
        pm->cnt = (uint16_t)((pm->cnt & keep) | bits) & CNT_KEPT;
        if ((bits & CNT_SLP_EN) != 0 && (pm->cnt & CNT_SLP_TYP) >> 10 == ACPI_SLP_TYP_S5) {
            machine_stop(pm->m, POWER_OFF, 0);
        }
        break;
    case RESET_REG:
        if (addr == RESET_REG && value == ACPI_RESET_VALUE) {
            machine_stop(pm->m, POWER_RESET, 0);
        }
        break;
    default: /* the timer is read only */
        break;
    }
}

static uint64_t port_read(void *ctx, uint64_t addr, unsigned size)
{
    struct acpipm *pm = ctx;
    uint64_t value = 0;

    update(pm);
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)read_byte(pm, addr + i) << (i * 8);
    }
    return value;
}

static void port_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct acpipm *pm = ctx;

    update(pm);
    for (unsigned i = 0; i < size; i++) {
        write_byte(pm, addr + i, (uint8_t)(value >> (i * 8)));
    }
    update(pm);
}

static const struct bus_range_ops port_ops = {port_read, port_write};

/* --- state --------------------------------------------------------------------------------- */

static void acpipm_reset(void *dev)
{
    struct acpipm *pm = dev;

    pm->sts = pm->en = pm->cnt = 0;
    pm->half = ticks_at(machine_now(pm->m)) >> 31;
    update(pm);
}

static void acpipm_save(const void *dev, struct wbuf *out)
{
    const struct acpipm *pm = dev;

    wbuf_u16(out, pm->sts);
    wbuf_u16(out, pm->en);
    wbuf_u16(out, pm->cnt);
    wbuf_u64(out, pm->half);
    wbuf_u64(out, pm->timer.deadline);
}

static int acpipm_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct acpipm *pm = dev;
    uint64_t deadline;
    int rc = section_version("acpi-pm", version, ACPIPM_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    pm->sts = rbuf_u16(in);
    pm->en = rbuf_u16(in);
    pm->cnt = rbuf_u16(in);
    pm->half = rbuf_u64(in);
    deadline = rbuf_u64(in);
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"acpi-pm: PM1_STS", (pm->sts & ~STS_MASK) == 0, pm->sts},
        {"acpi-pm: PM1_EN", (pm->en & ~EN_MASK) == 0, pm->en},
        {"acpi-pm: PM1_CNT", (pm->cnt & ~CNT_KEPT) == 0, pm->cnt},
        {"acpi-pm: timer half", pm->half <= SECTION_TIME_MAX >> 31, pm->half},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    if (rc == 0) {
        rc = section_complete("acpi-pm", in, err);
    }
    if (rc == 0) {
        vtimer_arm(&pm->timer, deadline);
    }
    return rc;
}

static const struct device_ops acpipm_device = {acpipm_reset, acpipm_save, acpipm_load};

int acpipm_create(struct machine *m, struct acpipm **out, struct plx_err *err)
{
    struct acpipm *pm = plx_calloc(1, sizeof *pm);
    int rc;

    *out = NULL;
    if (pm == NULL) {
        return plx_fail(err, PLX_ENOMEM, "acpi-pm: out of memory");
    }
    pm->m = m;
    rc = bus_claim(m->bus, BUS_PIO, PM_PORT, PM_PORT_LEN, "acpi-pm", &port_ops, pm, err);
    if (rc != 0) {
        plx_free(pm);
        return rc;
    }
    vtimer_init(&pm->timer, &m->timers, fire, pm);
    m->power_button = (struct input_port){.take = press_power_button, .ctx = pm};
    machine_add_device(m, "acpi-pm", ACPIPM_VERSION, &acpipm_device, pm);
    acpipm_reset(pm);
    *out = pm;
    return 0;
}

void acpipm_destroy(struct acpipm *pm)
{
    plx_free(pm);
}
