/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/acpi.c - ACPI tables (ACPI Specification 6.4, "ACPI Software Programming Model").
 *
 * Values come from vmm/abi/pc_layout.h, so that tables and devices cannot disagree. Pure. */
#include "vmm/boot/acpi.h"

#include <string.h>

#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/boot/aml.h"
#include "vmm/boot/layout.h"
#include "vmm/dev/hpet.h"
#include "vmm/dev/pci.h"

enum { SDT_LENGTH_AT = 4, SDT_CHECKSUM_AT = 9, TABLE_ALIGN = 64 };
enum { RSDP_LEN = 36, RSDP_V1_LEN = 20, FACS_LEN = 64 };
#define OEM_ID       "POLLUX"
#define OEM_TABLE_ID "POLLUXPC"

static uint8_t negative_sum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return (uint8_t)-sum;
}

static void align(struct wbuf *b)
{
    while (b->len % TABLE_ALIGN != 0 && !b->failed) {
        wbuf_u8(b, 0);
    }
}

/* "System Description Table Header"; sdt_end fills length and checksum. */
static size_t sdt_begin(struct wbuf *b, const char signature[static 4], uint8_t revision)
{
    size_t at;

    align(b);
    at = b->len;
    wbuf_put(b, signature, 4);
    wbuf_u32(b, 0);
    wbuf_u8(b, revision);
    wbuf_u8(b, 0);
    wbuf_put(b, OEM_ID, 6);
    wbuf_put(b, OEM_TABLE_ID, 8);
    wbuf_u32(b, 1); /* OEM revision */
    wbuf_put(b, "PLLX", 4);
    wbuf_u32(b, 1); /* creator revision */
    return at;
}

static void sdt_end(struct wbuf *b, size_t at)
{
    if (!b->failed) {
        put_le32(b->data + at + SDT_LENGTH_AT, (uint32_t)(b->len - at));
        b->data[at + SDT_CHECKSUM_AT] = negative_sum(b->data + at, b->len - at);
    }
}

static void pci_host_bridge(struct wbuf *b)
{
    struct aml_resources r;
    size_t device = aml_device(b, "PCI0"), prt;

    aml_name(b, "_HID");
    aml_eisa_id(b, "PNP0A03");
    aml_name(b, "_UID");
    aml_int(b, 0);
    aml_name(b, "_BBN");
    aml_int(b, 0);
    aml_name(b, "_ADR");
    aml_int(b, 0);
    aml_name(b, "_CRS");
    aml_resources_begin(b, &r);
    aml_bus_range(b, 0, 0);
    aml_io(b, PCI_CONFIG_ADDRESS_PORT, 8);
    aml_io_range(b, 0, PCI_CONFIG_ADDRESS_PORT - 1);
    aml_io_range(b, PCI_CONFIG_DATA_PORT + 4, 0xffff);
    aml_memory_range(b, (uint32_t)PCI_HOLE_BASE, (uint32_t)PCI_HOLE_END);
    aml_resources_end(b, &r);
    /* INTA of every slot ("_PRT (PCI Routing Table)"): a GSI, no link device. */
    aml_name(b, "_PRT");
    prt = aml_package(b, PCI_SLOTS - 1);
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        size_t entry = aml_package(b, 4);

        aml_int(b, (uint64_t)slot << 16 | 0xffff);
        aml_int(b, 0);
        aml_int(b, 0);
        aml_int(b, pci_slot_gsi(slot));
        aml_end(b, entry);
    }
    aml_end(b, prt);
    aml_end(b, device);
}

static const struct isa_device {
    char name[5], hid[8];
    uint8_t uid;
    uint16_t port, port2; /* 0: none */
    uint8_t len, len2;
    int irq;
} isa_devices[] = {
    {"COM1", "PNP0501", 1, COM1_PORT, 0, 8, 0, COM1_IRQ},
    {"COM2", "PNP0501", 2, COM2_PORT, 0, 8, 0, COM2_IRQ},
    {"RTC_", "PNP0B00", 0, CMOS_PORT, 0, 2, 0, RTC_IRQ},
    {"PS2K", "PNP0303", 0, I8042_DATA_PORT, I8042_COMMAND_PORT, 1, 1, I8042_IRQ},
};

static void isa_device(struct wbuf *b, const struct isa_device *d)
{
    struct aml_resources r;
    size_t device = aml_device(b, d->name);

    aml_name(b, "_HID");
    aml_eisa_id(b, d->hid);
    aml_name(b, "_UID");
    aml_int(b, d->uid);
    aml_name(b, "_CRS");
    aml_resources_begin(b, &r);
    aml_io(b, d->port, d->len);
    if (d->port2 != 0) {
        aml_io(b, d->port2, d->len2);
    }
    aml_irq(b, (unsigned)d->irq);
    aml_resources_end(b, &r);
    aml_end(b, device);
}

void acpi_dsdt(struct wbuf *b)
{
    size_t table = sdt_begin(b, "DSDT", 2), scope, s5;

    aml_name(b, "\\_S5_");
    s5 = aml_package(b, 4);
    aml_int(b, ACPI_SLP_TYP_S5);
    aml_int(b, 0);
    aml_int(b, 0);
    aml_int(b, 0);
    aml_end(b, s5);
    scope = aml_scope(b, "\\_SB_");
    pci_host_bridge(b);
    for (unsigned i = 0; i < PLX_COUNT(isa_devices); i++) {
        isa_device(b, &isa_devices[i]);
    }
    aml_end(b, scope);
    sdt_end(b, table);
}

/* "Generic Address Structure" of a port. */
static void gas_port(struct wbuf *b, uint16_t port, uint8_t bits, uint8_t access)
{
    wbuf_u8(b, 1); /* system I/O */
    wbuf_u8(b, bits);
    wbuf_u8(b, 0);
    wbuf_u8(b, access);
    wbuf_u64(b, port);
}

static void gas_none(struct wbuf *b)
{
    uint8_t none[12] = {0};

    wbuf_put(b, none, sizeof none);
}

/* "Fixed ACPI Description Table (FADT)", in its order. */
static void fadt(struct wbuf *b, uint32_t facs, uint32_t dsdt)
{
    enum { ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };
    enum {
        BOOT_LEGACY_DEVICES = 1,
        BOOT_8042 = 2,
        BOOT_NO_VGA = 4,
        BOOT_NO_ASPM = 16,
        FLAG_WBINVD = 1,
        FLAG_PROC_C1 = 4,
        FLAG_NO_SLEEP_BUTTON = 0x20,
        FLAG_NO_FIXED_RTC = 0x40,
        FLAG_TMR_VAL_EXT = 0x100,
        FLAG_RESET_REG = 0x400,
    };
    size_t table = sdt_begin(b, "FACP", 6);
    static const uint8_t zeros[16];

    wbuf_u32(b, facs);
    wbuf_u32(b, dsdt);
    wbuf_u8(b, 0); /* reserved */
    wbuf_u8(b, 4); /* preferred profile: enterprise server */
    wbuf_u16(b, SCI_GSI);
    wbuf_put(b, zeros, 4); /* SMI_CMD: none, always in ACPI mode */
    wbuf_put(b, zeros, 4); /* ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
    wbuf_u32(b, PM1A_EVT_PORT);
    wbuf_u32(b, 0);
    wbuf_u32(b, PM1A_CNT_PORT);
    wbuf_u32(b, 0);
    wbuf_u32(b, 0); /* PM2_CNT */
    wbuf_u32(b, PM_TMR_PORT);
    wbuf_u32(b, 0); /* GPE0 */
    wbuf_u32(b, 0); /* GPE1 */
    wbuf_u8(b, 4);  /* PM1_EVT_LEN */
    wbuf_u8(b, 2);  /* PM1_CNT_LEN */
    wbuf_u8(b, 0);
    wbuf_u8(b, 4);         /* PM_TMR_LEN */
    wbuf_put(b, zeros, 4); /* GPE0_BLK_LEN, GPE1_BLK_LEN, GPE1_BASE, CST_CNT */
    wbuf_u16(b, 0x0fff);   /* P_LVL2_LAT: no C2 */
    wbuf_u16(b, 0x0fff);   /* P_LVL3_LAT: no C3 */
    wbuf_put(b, zeros, 6); /* FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH */
    wbuf_put(b, zeros, 2); /* DAY_ALRM, MON_ALRM */
    wbuf_u8(b, 0x32);      /* CENTURY: CMOS register */
    wbuf_u16(b, BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA | BOOT_NO_ASPM);
    wbuf_u8(b, 0);
    wbuf_u32(b, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_SLEEP_BUTTON | FLAG_NO_FIXED_RTC |
                    FLAG_TMR_VAL_EXT | FLAG_RESET_REG);
    gas_port(b, ACPI_RESET_PORT, 8, ACCESS_BYTE);
    wbuf_u8(b, ACPI_RESET_VALUE);
    wbuf_u16(b, 0); /* ARM_BOOT_ARCH */
    wbuf_u8(b, 4);  /* minor version: 6.4 */
    wbuf_u64(b, 0); /* X_FIRMWARE_CTRL: the 32-bit one counts */
    wbuf_u64(b, dsdt);
    gas_port(b, PM1A_EVT_PORT, 32, ACCESS_WORD);
    gas_none(b);
    gas_port(b, PM1A_CNT_PORT, 16, ACCESS_WORD);
    gas_none(b);
    gas_none(b); /* X_PM2_CNT_BLK */
    gas_port(b, PM_TMR_PORT, 32, ACCESS_DWORD);
    gas_none(b);    /* X_GPE0_BLK */
    gas_none(b);    /* X_GPE1_BLK */
    gas_none(b);    /* SLEEP_CONTROL_REG */
    gas_none(b);    /* SLEEP_STATUS_REG */
    wbuf_u64(b, 0); /* hypervisor vendor identity */
    sdt_end(b, table);
}

/* "Multiple APIC Description Table (MADT)". */
static void madt(struct wbuf *b, unsigned vcpus)
{
    enum { PCAT_COMPAT = 1, LAPIC = 0, IOAPIC = 1, OVERRIDE = 2, LAPIC_NMI = 4, ENABLED = 1 };
    enum { CONFORMS = 0, HIGH_LEVEL = 0x0d, ALL_PROCESSORS = 0xff, LINT1 = 1 };
    size_t table = sdt_begin(b, "APIC", 5);

    wbuf_u32(b, (uint32_t)LAPIC_BASE);
    wbuf_u32(b, PCAT_COMPAT);
    for (unsigned i = 0; i < vcpus; i++) {
        wbuf_u8(b, LAPIC);
        wbuf_u8(b, 8);
        wbuf_u8(b, (uint8_t)i); /* processor UID */
        wbuf_u8(b, (uint8_t)i); /* APIC id */
        wbuf_u32(b, ENABLED);
    }
    wbuf_u8(b, IOAPIC);
    wbuf_u8(b, 12);
    wbuf_u8(b, IOAPIC_ID);
    wbuf_u8(b, 0);
    wbuf_u32(b, (uint32_t)IOAPIC_BASE);
    wbuf_u32(b, IOAPIC_GSI_BASE);
    static const struct {
        uint8_t irq;
        uint32_t gsi;
        uint16_t flags;
    } overrides[] = {{PIT_IRQ, PIT_GSI, CONFORMS}, {SCI_GSI, SCI_GSI, HIGH_LEVEL}};
    for (unsigned i = 0; i < PLX_COUNT(overrides); i++) {
        wbuf_u8(b, OVERRIDE);
        wbuf_u8(b, 10);
        wbuf_u8(b, 0); /* ISA */
        wbuf_u8(b, overrides[i].irq);
        wbuf_u32(b, overrides[i].gsi);
        wbuf_u16(b, overrides[i].flags);
    }
    wbuf_u8(b, LAPIC_NMI);
    wbuf_u8(b, 6);
    wbuf_u8(b, ALL_PROCESSORS);
    wbuf_u16(b, CONFORMS);
    wbuf_u8(b, LINT1);
    sdt_end(b, table);
}

/* IA-PC HPET Specification, "The ACPI 2.0 HPET Description Table (HPET)". */
static void hpet(struct wbuf *b)
{
    enum { MIN_TICK = 1000, NO_PROTECTION = 0 };
    size_t table = sdt_begin(b, "HPET", 1);

    wbuf_u32(b, HPET_BLOCK_ID);
    wbuf_u8(b, 0); /* generic address: memory, 64 bits */
    wbuf_u8(b, 64);
    wbuf_u8(b, 0);
    wbuf_u8(b, 0);
    wbuf_u64(b, HPET_BASE);
    wbuf_u8(b, 0); /* number of the block */
    wbuf_u16(b, MIN_TICK);
    wbuf_u8(b, NO_PROTECTION);
    sdt_end(b, table);
}

/* "Firmware ACPI Control Structure (FACS)": no header of the usual form, no checksum. */
static size_t facs(struct wbuf *b)
{
    uint8_t s[FACS_LEN] = {'F', 'A', 'C', 'S', FACS_LEN};
    size_t at;

    align(b);
    at = b->len;
    s[32] = 2; /* version */
    wbuf_put(b, s, sizeof s);
    return at;
}

/* "Root System Description Pointer (RSDP)", revision 2, at offset 0. */
static void rsdp(struct wbuf *b, uint64_t xsdt)
{
    uint8_t *p = b->data;

    if (b->failed) {
        return;
    }
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, OEM_ID, 6);
    p[15] = 2;
    put_le32(p + 20, RSDP_LEN);
    put_le64(p + 24, xsdt);
    p[8] = negative_sum(p, RSDP_V1_LEN);
    p[32] = negative_sum(p, RSDP_LEN);
}

int acpi_build(const struct machine_config *cfg, gpa_t base, struct wbuf *out, struct plx_err *err)
{
    size_t dsdt_at, facs_at, fadt_at, madt_at, hpet_at, xsdt_at;
    static const uint8_t room_for_rsdp[RSDP_LEN];

    PLX_CHECK(out->len == 0 && base % TABLE_ALIGN == 0 && base < UINT32_MAX);
    wbuf_put(out, room_for_rsdp, sizeof room_for_rsdp);
    facs_at = facs(out);
    align(out);
    dsdt_at = out->len;
    acpi_dsdt(out);
    align(out);
    fadt_at = out->len;
    fadt(out, (uint32_t)(base + facs_at), (uint32_t)(base + dsdt_at));
    align(out);
    madt_at = out->len;
    madt(out, cfg->vcpus);
    align(out);
    hpet_at = out->len;
    hpet(out);
    xsdt_at = sdt_begin(out, "XSDT", 1);
    wbuf_u64(out, base + fadt_at);
    wbuf_u64(out, base + madt_at);
    wbuf_u64(out, base + hpet_at);
    sdt_end(out, xsdt_at);
    rsdp(out, base + xsdt_at);
    return out->failed ? plx_fail(err, PLX_ENOMEM, "out of memory") : 0;
}

int acpi_install(struct machine *m, gpa_t *rsdp_at, struct plx_err *err)
{
    struct wbuf tables;
    int rc;

    wbuf_init(&tables);
    rc = acpi_build(&m->cfg, BOOT_ACPI, &tables, err);
    if (rc == 0) {
        PLX_CHECK(tables.len <= BOOT_ACPI_END - BOOT_ACPI);
        rc = boot_put(m, BOOT_ACPI, tables.data, tables.len, "the ACPI tables", err);
    }
    wbuf_free(&tables);
    *rsdp_at = BOOT_ACPI;
    return rc;
}
