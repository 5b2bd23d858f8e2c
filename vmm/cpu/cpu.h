/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/cpu.h - the architectural state of one vCPU: all of it, and nothing else.
 *
 * This is what section "cpuN" saves and digests (R1). Caches, decoded blocks and host pointers
 * live in struct vcpu (vcpu.h). Owner: the engine context of the vCPU; readable at every stop. */
#ifndef VMM_CPU_CPU_H
#define VMM_CPU_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "vmm/abi/types.h"

/* What a vCPU is: configuration of the machine, equal on all replicas, and no register of it. */
enum cpu_model {
    CPU_POLLUX_V2, /* x86-64-v2 */
    CPU_POLLUX_V3, /* and AVX, AVX2, BMI1, BMI2, F16C, FMA, LZCNT, MOVBE */
    CPU_MODELS
};

const char *cpu_model_name(enum cpu_model model);
/* False: no model has that name; *out is left alone. */
bool cpu_model_find(const char *name, enum cpu_model *out);

enum cpu_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum cpu_segreg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

#define FLAG_CF     UINT64_C(0x1)
#define FLAG_ONE    UINT64_C(0x2) /* always set */
#define FLAG_PF     UINT64_C(0x4)
#define FLAG_AF     UINT64_C(0x10)
#define FLAG_ZF     UINT64_C(0x40)
#define FLAG_SF     UINT64_C(0x80)
#define FLAG_TF     UINT64_C(0x100)
#define FLAG_IF     UINT64_C(0x200)
#define FLAG_DF     UINT64_C(0x400)
#define FLAG_OF     UINT64_C(0x800)
#define FLAG_IOPL   UINT64_C(0x3000)
#define FLAG_NT     UINT64_C(0x4000)
#define FLAG_RF     UINT64_C(0x10000)
#define FLAG_VM     UINT64_C(0x20000)
#define FLAG_AC     UINT64_C(0x40000)
#define FLAG_VIF    UINT64_C(0x80000)
#define FLAG_VIP    UINT64_C(0x100000)
#define FLAG_ID     UINT64_C(0x200000)
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE UINT64_C(0x1)
#define CR0_MP UINT64_C(0x2)
#define CR0_EM UINT64_C(0x4)
#define CR0_TS UINT64_C(0x8)
#define CR0_ET UINT64_C(0x10)
#define CR0_NE UINT64_C(0x20)
#define CR0_WP UINT64_C(0x10000)
#define CR0_AM UINT64_C(0x40000)
#define CR0_NW UINT64_C(0x20000000)
#define CR0_CD UINT64_C(0x40000000)
#define CR0_PG UINT64_C(0x80000000)

#define CR4_VME        UINT64_C(0x1)
#define CR4_PVI        UINT64_C(0x2)
#define CR4_TSD        UINT64_C(0x4)
#define CR4_DE         UINT64_C(0x8)
#define CR4_PSE        UINT64_C(0x10)
#define CR4_PAE        UINT64_C(0x20)
#define CR4_MCE        UINT64_C(0x40)
#define CR4_PGE        UINT64_C(0x80)
#define CR4_PCE        UINT64_C(0x100)
#define CR4_OSFXSR     UINT64_C(0x200)
#define CR4_OSXMMEXCPT UINT64_C(0x400)
#define CR4_UMIP       UINT64_C(0x800)
#define CR4_FSGSBASE   UINT64_C(0x10000)
#define CR4_PCIDE      UINT64_C(0x20000)
#define CR4_OSXSAVE    UINT64_C(0x40000)
#define CR4_SMEP       UINT64_C(0x100000)
#define CR4_SMAP       UINT64_C(0x200000)

/* What the model offers: CPUID, CR4 and XCR0 agree. */
#define CR4_OFFERED                                                                    \
    (CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | \
     CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)

#define XCR0_X87 UINT64_C(1)
#define XCR0_SSE UINT64_C(2)
#define XCR0_AVX UINT64_C(4) /* the upper halves of the YMM registers */

static inline uint64_t cpu_xcr0_offered(enum cpu_model model)
{
    return XCR0_X87 | XCR0_SSE | (model == CPU_POLLUX_V2 ? 0 : XCR0_AVX);
}

/* SDM Vol. 2A, "XSETBV": x87 always; AVX only with SSE. */
static inline bool cpu_xcr0_valid(enum cpu_model model, uint64_t xcr0)
{
    return (xcr0 & ~cpu_xcr0_offered(model)) == 0 && (xcr0 & XCR0_X87) != 0 &&
           ((xcr0 & XCR0_AVX) == 0 || (xcr0 & XCR0_SSE) != 0);
}

/* DR6 and DR7: bits that always read as 1, and those that software can change. */
#define DR6_FIXED    UINT64_C(0xffff0ff0)
#define DR6_WRITABLE UINT64_C(0xe00f)
#define DR7_FIXED    UINT64_C(0x400)
#define DR7_WRITABLE UINT64_C(0xffff23ff)

/* Physical address width (CPUID 80000008H): higher bits of paging structures are reserved. */
enum { CPU_PHYS_BITS = 40 };

#define EFER_SCE UINT64_C(0x1)
#define EFER_LME UINT64_C(0x100)
#define EFER_LMA UINT64_C(0x400)
#define EFER_NX  UINT64_C(0x800)

enum cpu_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19
};

/* Page-fault error code bits (SDM Vol. 3A, "Page-Fault Exceptions"). */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* The hidden part of a segment register. attr holds bits 8-15 and 20-23 of the descriptor's second
 * doubleword at bits 0-7 and 12-15, plus SEG_NULL:
 *
 *   15 14  13 12  11..8   7  6 5  4  3 2 1 0
 *    G D/B  L AVL   0     P  DPL  S   type
 */
enum {
    SEG_TYPE = 0x000f,
    SEG_ACCESSED = 0x0001,
    SEG_RW = 0x0002 /* data: writable; code: readable */,
    SEG_EC = 0x0004 /* data: expand-down; code: conforming */,
    SEG_CODE = 0x0008,
    SEG_S = 0x0010,
    SEG_DPL = 0x0060,
    SEG_DPL_SHIFT = 5,
    SEG_P = 0x0080,
    SEG_NULL = 0x0100 /* unusable */,
    SEG_AVL = 0x1000,
    SEG_L = 0x2000,
    SEG_DB = 0x4000,
    SEG_G = 0x8000
};

struct cpu_seg {
    uint16_t sel;
    uint16_t attr;
    uint32_t
        limit; /* in bytes, granularity applied: the last valid offset (or the inverse for EC) */
    uint64_t base;
};

struct cpu_dtable {
    uint64_t base;
    uint16_t limit;
};

/* x87, SSE and AVX. ST registers are kept by physical number, R0-R7: ST(i) = st[(TOP + i) & 7]. */
struct cpu_fpu {
    uint8_t st[8][10]; /* 80-bit, little-endian; MMi is the low 8 bytes of st[i] */
    uint16_t fcw, fsw; /* fsw includes TOP */
    uint8_t ftw;       /* abridged: bit i set: Ri is not empty */
    uint16_t fop;      /* 11 bits */
    uint64_t fip, fdp;
    uint16_t fcs, fds;
    uint32_t mxcsr;
    _Alignas(16) uint8_t xmm[16][16];
    uint8_t ymm_high[16][16]; /* bits 255:128; zeros in a model without AVX */
};

/* Order and size as saved; new fields go at the end with a new section version. */
struct cpu {
    uint64_t gpr[16];
    uint64_t rip;    /* of the next instruction */
    uint64_t rflags; /* always whole and true: flags are computed eagerly */
    struct cpu_seg seg[SEG_COUNT], ldtr, tr;
    struct cpu_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, xcr0;
    uint64_t efer;
    uint64_t dr[8];    /* 0-3, 6, 7 used */
    uint64_t pdpte[4]; /* PAE: loaded by MOV to CR3 and friends (R7) */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, xss;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_phys[16];
    struct cpu_fpu fpu;
    struct prng rng; /* RDRAND and RDSEED (R6) */
    uint64_t spec_ctrl;
    uint64_t retired;     /* instructions; a REP counts max(1, iterations) */
    uint64_t progress;    /* 1 per instruction; a REP 1 per 32 bytes started, at least 1 */
    uint32_t pause_run;   /* PAUSEs without other progress worth the name (R5) */
    uint8_t sti_shadow;   /* no interrupt before the end of the next instruction */
    uint8_t movss_shadow; /* nor a debug exception or NMI */
    uint8_t nmi_pending, nmi_blocked;
    uint8_t halted;    /* HLT: until an interrupt, NMI or reset */
    uint8_t wait_sipi; /* INIT received; not the bootstrap processor */
};

enum cpu_mode { CPU_REAL, CPU_V86, CPU_PROT16, CPU_PROT32, CPU_COMPAT16, CPU_COMPAT32, CPU_LONG64 };

static inline unsigned cpu_cpl(const struct cpu *c)
{
    return (c->rflags & FLAG_VM) != 0 ? 3 : (c->seg[SEG_SS].attr & SEG_DPL) >> SEG_DPL_SHIFT;
}

/* In 64-bit mode (not compatibility mode). */
static inline bool cpu_is64(const struct cpu *c)
{
    return (c->efer & EFER_LMA) != 0 && (c->seg[SEG_CS].attr & SEG_L) != 0;
}

enum cpu_mode cpu_mode_of(const struct cpu *c);
/* Power-up state (SDM Vol. 3A, "Processor State After Reset"). @id is the APIC id. */
void cpu_reset(struct cpu *c, unsigned id);

#endif
