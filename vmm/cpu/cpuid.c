/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/cpuid.c - the CPU models as CPUID shows them (SDM Vol. 2A, CPUID).
 *
 * One table, equal on every host and replica (R6): x86-64-v2 and what a present-day kernel wants of
 * a server CPU; and what pollux-v3 adds to it. The signature is that of a Xeon whose known
 * weaknesses IA32_ARCH_CAPABILITIES (msr.c) can deny. Threading: any. Determinism: constant but for
 * topology, CR4.OSXSAVE and XCR0. */
#include "vmm/cpu/cpuid.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "vmm/tunables.h"

#define B(n) (UINT32_C(1) << (n))

enum {
    MAX_BASIC = 0x16,
    HYPERVISOR = 0x40000000,
    HYPERVISOR_END = 0x40000100,
};
#define MAX_EXTENDED UINT32_C(0x80000008)
#define EXTENDED     UINT32_C(0x80000000)

enum { ANY = -1 };

struct row {
    uint32_t leaf;
    int32_t sub; /* ANY: the leaf has no subleaves */
    struct cpuid_regs r;
};

/* Cache descriptions of leaf 4: size = ways x 1 x 64 x sets; @shared: by all vCPUs. */
#define CACHE_EAX(type, level) ((type) | (level) << 5 | B(8))
#define CACHE_EBX(ways)        (UINT32_C(63) | ((ways)-UINT32_C(1)) << 22)

static const struct row table[] = {
    {0x0, ANY, {MAX_BASIC, 0x756e6547 /* Genu */, 0x6c65746e /* ntel */, 0x49656e69 /* ineI */}},
    {0x1,
     ANY,
     {.eax = CPUID_SIGNATURE,
      .ebx = 8 << 8, /* CLFLUSH of 64 bytes */
      .ecx = B(0) /* SSE3 */ | B(9) /* SSSE3 */ | B(13) /* CMPXCHG16B */ | B(17) /* PCID */ |
             B(19) /* SSE4.1 */ | B(20) /* SSE4.2 */ | B(21) /* x2APIC */ | B(23) /* POPCNT */ |
             B(24) /* TSC-deadline */ | B(26) /* XSAVE */ | B(30) /* RDRAND */ |
             B(31) /* hypervisor */,
      .edx = B(0) /* FPU */ | B(2) /* DE */ | B(3) /* PSE */ | B(4) /* TSC */ | B(5) /* MSR */ |
             B(6) /* PAE */ | B(7) /* MCE */ | B(8) /* CX8 */ | B(9) /* APIC */ | B(11) /* SEP */ |
             B(12) /* MTRR */ | B(13) /* PGE */ | B(14) /* MCA */ | B(15) /* CMOV */ |
             B(16) /* PAT */ | B(17) /* PSE-36 */ | B(19) /* CLFSH */ | B(23) /* MMX */ |
             B(24) /* FXSR */ | B(25) /* SSE */ | B(26) /* SSE2 */}},
    {0x2, ANY, {.eax = 0x0000ff01}},                      /* see leaf 4 */
    {0x4, 0, {CACHE_EAX(1, 1), CACHE_EBX(12), 63, 0}},    /* L1d 48 KiB */
    {0x4, 1, {CACHE_EAX(2, 1), CACHE_EBX(8), 63, 0}},     /* L1i 32 KiB */
    {0x4, 2, {CACHE_EAX(3, 2), CACHE_EBX(16), 2047, 0}},  /* L2 2 MiB */
    {0x4, 3, {CACHE_EAX(3, 3), CACHE_EBX(16), 16383, 0}}, /* L3 16 MiB */
    {0x6, ANY, {.eax = B(2) /* ARAT */}},
    {0x7,
     0,
     {.eax = 2, /* last subleaf */
      .ebx = B(0) /* FSGSBASE */ | B(1) /* IA32_TSC_ADJUST */ |
             B(6) /* FDP on x87 exceptions only */ | B(7) /* SMEP */ | B(9) /* ERMS */ |
             B(10) /* INVPCID */ | B(13) /* no FCS, FDS */ | B(18) /* RDSEED */ | B(20) /* SMAP */,
      .ecx = B(2) /* UMIP */,
      .edx = B(4) /* fast short REP MOVSB */ | B(26) /* IBRS, IBPB */ | B(27) /* STIBP */ |
             B(29) /* IA32_ARCH_CAPABILITIES */}},
    {0x7, 2, {.edx = B(4) /* BHI_DIS_S: spares a kernel its own clearing loops */}},
    {0xb, ANY, {0}}, /* topology() */
    {0xd, 0, {.eax = XCR0_X87 | XCR0_SSE, .ebx = XSAVE_SIZE_SSE, .ecx = XSAVE_SIZE_SSE}},
    {0xd, 1, {.eax = B(0) /* XSAVEOPT */}},
    {0x15, ANY, {1, (uint32_t)(TSC_HZ / CRYSTAL_HZ), (uint32_t)CRYSTAL_HZ, 0}},
    {0x16, ANY, {(uint32_t)(TSC_HZ / 1000000), (uint32_t)(TSC_HZ / 1000000), 100, 0}},
    {HYPERVISOR,
     ANY,
     {HYPERVISOR, 0x6c6c6f50 /* Poll */, 0x6f507875 /* uxPo */, 0x78756c6c /* llux */}},
    {0x80000000, ANY, {.eax = MAX_EXTENDED}},
    {0x80000001,
     ANY,
     {.ecx = B(0) /* LAHF in 64-bit mode */,
      .edx = B(11) /* SYSCALL */ | B(20) /* NX */ | B(26) /* 1-GiB pages */ | B(27) /* RDTSCP */ |
             B(29) /* Intel 64 */}},
    {0x80000006, ANY, {.ecx = 2048 << 16 | 8 << 12 | 64}},
    {0x80000007, ANY, {.edx = B(8) /* invariant TSC */}},
    {0x80000008, ANY, {.eax = CPU_PHYS_BITS | 48 << 8}},
};

/* What pollux-v3 has otherwise: the bits that differ. */
static const struct row v3_table[] = {
    {0x1, ANY, {.ecx = B(12) /* FMA */ | B(22) /* MOVBE */ | B(28) /* AVX */ | B(29) /* F16C */}},
    {0x7, 0, {.ebx = B(3) /* BMI1 */ | B(5) /* AVX2 */ | B(8) /* BMI2 */}},
    {0xd, 0, {.eax = XCR0_AVX, .ecx = XSAVE_SIZE_SSE ^ XSAVE_SIZE_AVX}},
    {0xd, 2, {.eax = XSAVE_SIZE_AVX - XSAVE_SIZE_SSE, .ebx = XSAVE_SIZE_SSE}},
    {0x80000001, ANY, {.ecx = B(5) /* LZCNT */}},
};

_Static_assert(TSC_HZ % CRYSTAL_HZ == 0, "CPUID 15H gives the TSC frequency exactly");

/* Bits needed to number @n things. */
static uint32_t id_bits(unsigned n)
{
    uint32_t bits = 0;

    while ((1U << bits) < n) {
        bits++;
    }
    return bits;
}

/* Leaf BH: every vCPU is a core of its own in one package. */
static void topology(unsigned id, unsigned vcpus, uint32_t sub, struct cpuid_regs *r)
{
    r->ecx = sub & 0xff;
    r->edx = id;
    if (sub == 0) {
        r->ebx = 1;
        r->ecx |= 1 << 8; /* SMT */
    } else if (sub == 1) {
        r->eax = id_bits(vcpus);
        r->ebx = vcpus;
        r->ecx |= 2 << 8; /* core */
    }
}

static void brand(enum cpu_model model, uint32_t leaf, struct cpuid_regs *r)
{
    char text[48] = {0};
    uint32_t part[4];

    (void)snprintf(text, sizeof text, "Pollux virtual CPU (%s)", cpu_model_name(model));
    memcpy(part, text + (leaf - EXTENDED - 2) * 16, sizeof part);
    *r = (struct cpuid_regs){part[0], part[1], part[2], part[3]};
}

static void adjust(enum cpu_model model, const struct cpu *c, unsigned id, unsigned vcpus,
                   uint32_t leaf, uint32_t sub, struct cpuid_regs *r)
{
    uint32_t ids = UINT32_C(1) << id_bits(vcpus);

    switch (leaf) {
    case 0x1:
        r->ebx |= ids << 16 | (id & 0xff) << 24;
        r->ecx |= (c->cr4 & CR4_OSXSAVE) != 0 ? B(27) : 0;
        r->edx |= vcpus > 1 ? B(28) : 0; /* the count in EBX is valid */
        break;
    case 0x4:
        if (r->eax != 0) {
            r->eax |= (ids - 1) << 26 | (sub == 3 ? (ids - 1) << 14 : 0);
        }
        break;
    case 0xb:
        topology(id, vcpus, sub, r);
        break;
    case 0xd:
        if (sub == 0 && (c->xcr0 & XCR0_AVX) != 0) {
            r->ebx = XSAVE_SIZE_AVX;
        }
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        brand(model, leaf, r);
        break;
    default:
        break;
    }
}

/* The registers of the leaf in one table. */
static struct cpuid_regs look_up(const struct row *rows, size_t n, uint32_t leaf, uint32_t sub)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i].leaf == leaf && (rows[i].sub == ANY || (uint32_t)rows[i].sub == sub)) {
            return rows[i].r;
        }
    }
    return (struct cpuid_regs){0};
}

void cpuid(enum cpu_model model, const struct cpu *c, unsigned id, unsigned vcpus, uint32_t leaf,
           uint32_t sub, struct cpuid_regs *out)
{
    bool hypervisor = leaf >= HYPERVISOR && leaf < HYPERVISOR_END;

    /* "If a value ... is higher than the maximum, the data for the highest basic leaf". */
    if (!hypervisor && leaf > MAX_BASIC && (leaf < EXTENDED || leaf > MAX_EXTENDED)) {
        leaf = MAX_BASIC;
    }
    *out = look_up(table, PLX_COUNT(table), leaf, sub);
    if (model == CPU_POLLUX_V3) {
        struct cpuid_regs more = look_up(v3_table, PLX_COUNT(v3_table), leaf, sub);
        out->eax ^= more.eax;
        out->ebx ^= more.ebx;
        out->ecx ^= more.ecx;
        out->edx ^= more.edx;
    }
    adjust(model, c, id, vcpus == 0 ? 1 : vcpus, leaf, sub, out);
}
