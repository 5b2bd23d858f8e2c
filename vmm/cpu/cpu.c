/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/cpu.c - the state of a vCPU: reset and mode. Ownership, threading: see cpu.h. */
#include "vmm/cpu/cpu.h"

#include <string.h>

#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/msr.h"
#include "vmm/cpu/seg.h"

enum { MXCSR_RESET = 0x1f80 };

enum cpu_mode cpu_mode_of(const struct cpu *c)
{
    uint16_t cs = c->seg[SEG_CS].attr;

    if ((c->cr0 & CR0_PE) == 0) {
        return CPU_REAL;
    }
    if ((c->efer & EFER_LMA) != 0) {
        return (cs & SEG_L) != 0 ? CPU_LONG64 : (cs & SEG_DB) != 0 ? CPU_COMPAT32 : CPU_COMPAT16;
    }
    if ((c->rflags & FLAG_VM) != 0) {
        return CPU_V86;
    }
    return (cs & SEG_DB) != 0 ? CPU_PROT32 : CPU_PROT16;
}

void cpu_reset(struct cpu *c, unsigned id)
{
    static const struct cpu_seg data = {.attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED,
                                        .limit = 0xffff};

    memset(c, 0, sizeof *c);
    c->gpr[RDX] = CPUID_SIGNATURE;
    c->rip = 0xfff0;
    c->rflags = FLAG_ONE;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        c->seg[i] = data;
    }
    c->seg[SEG_CS].sel = 0xf000;
    c->seg[SEG_CS].base = 0xffff0000;
    c->ldtr = (struct cpu_seg){.attr = SEG_P | SYS_LDT, .limit = 0xffff};
    c->tr = (struct cpu_seg){.attr = SEG_P | SYS_TSS32_BUSY, .limit = 0xffff};
    c->gdtr.limit = 0xffff;
    c->idtr.limit = 0xffff;
    c->cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->dr[6] = DR6_FIXED;
    c->dr[7] = DR7_FIXED;
    c->xcr0 = 1;
    c->pat = PAT_RESET;
    c->misc_enable = MISC_ENABLE_RESET;
    c->mtrr_def_type = MTRR_DEF_TYPE_RESET;
    c->fpu.fcw = 0x40;
    c->fpu.ftw = 0xff;
    c->fpu.mxcsr = MXCSR_RESET;
    prng_seed(&c->rng, id); /* until the entropy input */
    c->wait_sipi = id != 0;
}
