/* SPDX-License-Identifier: Apache-2.0
 * vmm/abi/pc_layout.h - where everything is in the PC a guest sees: ports, addresses, interrupts.
 *
 * Devices claim these and the ACPI tables announce them. All of it is visible to guests, so a
 * change is a new machine (determinism: equal on both replicas). Stands alone. */
#ifndef VMM_ABI_PC_LAYOUT_H
#define VMM_ABI_PC_LAYOUT_H

/* Ports. Those not claimed read as all ones and swallow writes (0x80, the POST code, is one). */
enum {
    PIC_MASTER_PORT = 0x20, /* 2 ports */
    PIT_PORT = 0x40,        /* 4 ports */
    I8042_DATA_PORT = 0x60,
    SYSTEM_CONTROL_B_PORT = 0x61, /* PIT channel 2 gate and output, refresh toggle */
    I8042_COMMAND_PORT = 0x64,
    CMOS_PORT = 0x70,             /* index, data */
    SYSTEM_CONTROL_A_PORT = 0x92, /* bit 0: reset; bit 1, A20, is always 1 */
    PIC_SLAVE_PORT = 0xa0,        /* 2 ports */
    DEBUG_EXIT_PORT = 0xf4,
    COM2_PORT = 0x2f8,               /* 8 ports */
    COM1_PORT = 0x3f8,               /* 8 ports */
    FIRMWARE_DEBUG_PORT = 0x402,     /* bytes of a text, when there is firmware */
    ELCR_PORT = 0x4d0,               /* 2 ports */
    FWCFG_PORT = 0x510,              /* selector (16 bits), data (byte at +1) */
    PCI_CONFIG_ADDRESS_PORT = 0xcf8, /* 4 ports */
    PCI_CONFIG_DATA_PORT = 0xcfc,    /* 4 ports */
    /* A byte write with bit 2 set resets the machine. It lies inside PCI_CONFIG_ADDRESS, which
     * takes dwords only, so the PCI host bridge claims it and passes byte writes on. */
    RESET_CONTROL_PORT = 0xcf9,
};

/* ACPI fixed hardware (ACPI specification, "ACPI Register Model"): one block of ports. */
enum {
    PM_PORT = 0x600,
    PM_PORT_LEN = 0x20,
    PM1A_EVT_PORT = PM_PORT,        /* PM1_EVT_LEN 4: status, enable */
    PM1A_CNT_PORT = PM_PORT + 4,    /* PM1_CNT_LEN 2; SCI_EN is always 1: no SMI_CMD */
    PM_TMR_PORT = PM_PORT + 8,      /* PM_TMR_LEN 4; 32 bits: TMR_VAL_EXT */
    ACPI_RESET_PORT = PM_PORT + 16, /* FADT RESET_REG: one byte */
    ACPI_RESET_VALUE = 0x06,
    ACPI_SLP_TYP_S5 = 5, /* \_S5: Package { 5, 0 } */
};

/* Interrupts. ISA IRQ n is GSI n, except IRQ 0, which is IOAPIC pin 2 (MADT: interrupt source
 * override 0 -> 2, and 9 -> 9 level, active high). m->gsi[0] drives both PIC IRQ 0 and pin 2. */
enum {
    PIT_IRQ = 0,
    PIT_GSI = 2, /* the IOAPIC pin */
    I8042_IRQ = 1,
    PIC_CASCADE_IRQ = 2,
    COM2_IRQ = 3,
    COM1_IRQ = 4,
    RTC_IRQ = 8,
    SCI_GSI = 9,       /* level, active high */
    PCI_INTX_GSI = 16, /* INTA-INTD: 16-19, level, active low in ACPI terms (_PRT) */
    PCI_INTX_COUNT = 4,
    IOAPIC_PINS = 24,
    IOAPIC_GSI_BASE = 0,
    IOAPIC_ID = 0xf0, /* clear of every LAPIC id */
};

/* Guest-physical addresses. RAM ends at PCI_HOLE (RAM_LOW_END) and goes on at 4 GiB. */
#define PCI_HOLE_BASE UINT64_C(0xc0000000) /* memory BARs, 32-bit; no ECAM: CF8/CFC only */
#define PCI_HOLE_END  UINT64_C(0xfebfffff) /* last byte */
#define IOAPIC_BASE   UINT64_C(0xfec00000)
#define HPET_BASE     UINT64_C(0xfed00000)
#define LAPIC_BASE    UINT64_C(0xfee00000)
enum { IOAPIC_LEN = 0x1000, HPET_LEN = 0x400, LAPIC_LEN = 0x1000 };

/* PCI I/O BARs. */
enum { PCI_IO_BASE = 0xc000, PCI_IO_END = 0xffff };

#endif
