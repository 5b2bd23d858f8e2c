/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/msr.h - the model-specific registers, of both CPU models (SDM Vol. 4, "Architectural
 * MSRs"). */
#ifndef VMM_CPU_MSR_H
#define VMM_CPU_MSR_H

#include "vmm/cpu/vcpu.h"

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_PHYS = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800
};
#define MSR_EFER           UINT32_C(0xc0000080)
#define MSR_STAR           UINT32_C(0xc0000081)
#define MSR_LSTAR          UINT32_C(0xc0000082)
#define MSR_CSTAR          UINT32_C(0xc0000083)
#define MSR_SFMASK         UINT32_C(0xc0000084)
#define MSR_FS_BASE        UINT32_C(0xc0000100)
#define MSR_GS_BASE        UINT32_C(0xc0000101)
#define MSR_KERNEL_GS_BASE UINT32_C(0xc0000102)
#define MSR_TSC_AUX        UINT32_C(0xc0000103)

#define SPEC_CTRL_OFFERED   UINT64_C(0x403)  /* IBRS, STIBP, BHI_DIS_S */
#define MISC_ENABLE_RESET   UINT64_C(0x1801) /* fast strings; no BTS, no PEBS */
#define PAT_RESET           UINT64_C(0x0007040600070406)
/* Enabled, write-back: no firmware runs here that would set the MTRRs up for the loader. */
#define MTRR_DEF_TYPE_RESET UINT64_C(0x806)

/* As RDMSR and WRMSR at CPL 0. 0, or PLX_GUEST_FAULT: #GP, nothing changed. */
int msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);
int msr_write(struct vcpu *v, uint32_t msr, uint64_t value);

#endif
