/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/cpuid.h - CPUID of the CPU models (cpu.h; SDM Vol. 2A, "CPUID - CPU Identification").
 * Pure. */
#ifndef VMM_CPU_CPUID_H
#define VMM_CPU_CPUID_H

#include "vmm/cpu/cpu.h"

/* Family 6, model 8FH, stepping 8: also in EDX at reset. */
#define CPUID_SIGNATURE UINT32_C(0x000806f8)

/* Sizes of the XSAVE area without and with the AVX state, standard format. */
enum { XSAVE_SIZE_SSE = 576, XSAVE_SIZE_AVX = 832 };

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* What CPUID answers on vCPU @id of @vcpus (0 counts as 1). Depends on nothing else but the bits
 * of @c that the SDM names (CR4.OSXSAVE, XCR0). */
void cpuid(enum cpu_model model, const struct cpu *c, unsigned id, unsigned vcpus, uint32_t leaf,
           uint32_t sub, struct cpuid_regs *out);

#endif
