/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/msr.c - model-specific registers: one table (SDM Vol. 4, "Architectural MSRs"). What is
 * not in it, and reserved bits, are #GP.
 *
 * Ownership: works on the vCPU it is given. Threading: the thread that runs it. Determinism: values
 * are state or constants; time is virtual. */
#include "vmm/cpu/msr.h"

#include <stddef.h>

#include "base/check.h"
#include "vmm/cpu/seg.h"

/* IA32_ARCH_CAPABILITIES: not affected by what has a bit to say so, and IBRS once and for all. */
#define B(n) (UINT64_C(1) << (n))
/* clang-format off */
#define ARCH_CAPABILITIES                                                                        \
    (B(0) /* RDCL_NO */ | B(1) /* IBRS_ALL */ | B(3) /* SKIP_L1DFL_VMENTRY */ |                  \
     B(4) /* SSB_NO */ | B(5) /* MDS_NO */ | B(6) /* IF_PSCHANGE_MC_NO */ | B(8) /* TAA_NO */ |  \
     B(13) /* SBDR_SSDP_NO */ | B(14) /* FBSDP_NO */ | B(15) /* PSDP_NO */ | B(20) /* BHI_NO */ |\
     B(24) /* PBRSB_NO */ | B(26) /* GDS_NO */ | B(27) /* RFDS_NO */ | B(62) /* ITS_NO */)
/* clang-format on */

#define MTRRCAP   UINT64_C(0x508) /* 8 variable ranges, fixed ranges, WC */
#define BIOS_SIGN (UINT64_C(1) << 32)
#define PHYS_MASK ((UINT64_C(1) << CPU_PHYS_BITS) - 1)

struct msr {
    uint32_t first, count;
    uint16_t offset;   /* in struct cpu, of an array of @count; NO_FIELD: none */
    uint64_t value;    /* without a field: what it reads as */
    uint64_t writable; /* bits outside are reserved */
    bool (*valid)(uint32_t index, uint64_t value);              /* beyond @writable; may be NULL */
    int (*read)(struct vcpu *v, uint32_t msr, uint64_t *value); /* instead of field and value */
    int (*write)(struct vcpu *v, uint32_t msr, uint64_t value); /* instead of storing */
};

enum { NO_FIELD = 0xffff };

/* --- what values are valid ---------------------------------------------------------------- */

static bool is_canonical(uint32_t index, uint64_t value)
{
    (void)index;
    return cpu_canonical(value);
}

/* UC, WC, WT, WP, WB; in the PAT also UC-. */
static bool memory_type(uint64_t t)
{
    return t <= 6 && t != 2 && t != 3;
}

static bool types8(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t t = value >> (8 * i) & 0xff;
        if (!memory_type(t) && !(pat && t == 7)) {
            return false;
        }
    }
    return true;
}

static bool valid_pat(uint32_t index, uint64_t value)
{
    (void)index;
    return types8(value, true);
}

static bool valid_fixed_range(uint32_t index, uint64_t value)
{
    (void)index;
    return types8(value, false);
}

/* Even: base, with the type; odd: mask, with the valid bit. */
static bool valid_variable_range(uint32_t index, uint64_t value)
{
    if ((value & ~PHYS_MASK) != 0) {
        return false;
    }
    return index % 2 == 0 ? (value & 0xf00) == 0 && memory_type(value & 0xff)
                          : (value & 0x7ff) == 0;
}

static bool valid_def_type(uint32_t index, uint64_t value)
{
    (void)index;
    return memory_type(value & 0xff);
}

/* --- registers that do something ------------------------------------------------------------ */

static int read_tsc(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    (void)msr;
    *value = vcpu_tsc(v);
    return 0;
}

/* SDM Vol. 3B, "IA32_TSC_ADJUST MSR": a write to the TSC moves the adjustment along. An armed
 * TSC-deadline timer is set again, as it waits for the moved TSC. */
static int write_tsc(struct vcpu *v, uint32_t msr, uint64_t value)
{
    uint64_t deadline;

    vcpu_need_serial(v);
    if (msr == MSR_TSC) {
        v->c.tsc_adjust += value - vcpu_tsc(v);
    } else {
        v->c.tsc_adjust = value;
    }
    if (v->ops->msr_read(v->ops_ctx, MSR_TSC_DEADLINE, &deadline) != 0 || deadline == 0) {
        return 0;
    }
    return v->ops->msr_write(v->ops_ctx, MSR_TSC_DEADLINE, deadline);
}

/* Registers that concern no one but the vCPU's own LAPIC may be reached in the parallel part. */
static void reach_lapic(struct vcpu *v, uint32_t msr, bool write)
{
    if (v->parallel && (v->ops->msr_own == NULL || !v->ops->msr_own(v->ops_ctx, msr, write))) {
        vcpu_need_serial(v);
    }
}

static int read_ops(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    reach_lapic(v, msr, false);
    return v->ops->msr_read(v->ops_ctx, msr, value);
}

static int write_ops(struct vcpu *v, uint32_t msr, uint64_t value)
{
    reach_lapic(v, msr, true);
    int rc = v->ops->msr_write(v->ops_ctx, msr, value);
    v->attention = true;
    return rc;
}

static int read_nothing(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    (void)v;
    (void)msr;
    (void)value;
    return PLX_GUEST_FAULT; /* IA32_PRED_CMD is write-only */
}

static int write_nothing(struct vcpu *v, uint32_t msr, uint64_t value)
{
    (void)v;
    (void)msr;
    (void)value;
    return 0;
}

static int write_misc_enable(struct vcpu *v, uint32_t msr, uint64_t value)
{
    (void)msr;
    v->c.misc_enable = (MISC_ENABLE_RESET & ~UINT64_C(1)) | (value & 1);
    return 0;
}

/* SDM Vol. 3A, "Initializing IA-32e Mode": LME is fixed while paging is on; LMA is not written. */
static int write_efer(struct vcpu *v, uint32_t msr, uint64_t value)
{
    struct cpu *c = &v->c;

    (void)msr;
    value = (value & ~EFER_LMA) | (c->efer & EFER_LMA);
    if (((value ^ c->efer) & EFER_LME) != 0 && (c->cr0 & CR0_PG) != 0) {
        return PLX_GUEST_FAULT;
    }
    if (value != c->efer) {
        c->efer = value;
        vcpu_context_changed(v);
    }
    return 0;
}

/* --- the table ---------------------------------------------------------------------------- */

#define FIELD(f)    .offset = (uint16_t)offsetof(struct cpu, f)
#define CONSTANT(x) .offset = NO_FIELD, .value = (x)
#define U32         UINT64_C(0xffffffff)
#define ALL         UINT64_MAX

static const struct msr table[] = {
    {MSR_TSC, 1, CONSTANT(0), .writable = ALL, .read = read_tsc, .write = write_tsc},
    {MSR_PLATFORM_ID, 1, CONSTANT(0)},
    {MSR_APIC_BASE, 1, CONSTANT(0), .writable = ALL, .read = read_ops, .write = write_ops},
    {MSR_TSC_ADJUST, 1, FIELD(tsc_adjust), .writable = ALL, .write = write_tsc},
    {MSR_SPEC_CTRL, 1, FIELD(spec_ctrl), .writable = SPEC_CTRL_OFFERED},
    {MSR_PRED_CMD, 1, CONSTANT(0), .writable = B(0), .read = read_nothing, .write = write_nothing},
    {MSR_BIOS_SIGN_ID, 1, CONSTANT(BIOS_SIGN), .writable = ALL, .write = write_nothing},
    {MSR_MTRRCAP, 1, CONSTANT(MTRRCAP)},
    {MSR_ARCH_CAPABILITIES, 1, CONSTANT(ARCH_CAPABILITIES)},
    {MSR_SYSENTER_CS, 1, FIELD(sysenter_cs), .writable = U32},
    {MSR_SYSENTER_ESP, 1, FIELD(sysenter_esp), .writable = ALL, .valid = is_canonical},
    {MSR_SYSENTER_EIP, 1, FIELD(sysenter_eip), .writable = ALL, .valid = is_canonical},
    {MSR_MCG_CAP, 1, CONSTANT(0)},
    {MSR_MCG_STATUS, 1, CONSTANT(0), .write = write_nothing},
    {MSR_MISC_ENABLE, 1, FIELD(misc_enable), .writable = MISC_ENABLE_RESET,
     .write = write_misc_enable},
    {MSR_DEBUGCTL, 1, CONSTANT(0), .write = write_nothing},
    {MSR_MTRR_PHYS, 16, FIELD(mtrr_phys), .writable = ALL, .valid = valid_variable_range},
    {MSR_MTRR_FIX64K, 1, FIELD(mtrr_fixed[0]), .writable = ALL, .valid = valid_fixed_range},
    {MSR_MTRR_FIX16K, 2, FIELD(mtrr_fixed[1]), .writable = ALL, .valid = valid_fixed_range},
    {MSR_MTRR_FIX4K, 8, FIELD(mtrr_fixed[3]), .writable = ALL, .valid = valid_fixed_range},
    {MSR_PAT, 1, FIELD(pat), .writable = ALL, .valid = valid_pat},
    {MSR_MTRR_DEF_TYPE, 1, FIELD(mtrr_def_type), .writable = 0xcff, .valid = valid_def_type},
    {MSR_TSC_DEADLINE, 1, CONSTANT(0), .writable = ALL, .read = read_ops, .write = write_ops},
    {MSR_X2APIC, 0x100, CONSTANT(0), .writable = ALL, .read = read_ops, .write = write_ops},
    {MSR_EFER, 1, FIELD(efer), .writable = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX,
     .write = write_efer},
    {MSR_STAR, 1, FIELD(star), .writable = ALL},
    {MSR_LSTAR, 1, FIELD(lstar), .writable = ALL, .valid = is_canonical},
    {MSR_CSTAR, 1, FIELD(cstar), .writable = ALL, .valid = is_canonical},
    {MSR_SFMASK, 1, FIELD(sfmask), .writable = U32},
    {MSR_FS_BASE, 1, FIELD(seg[SEG_FS].base), .writable = ALL, .valid = is_canonical},
    {MSR_GS_BASE, 1, FIELD(seg[SEG_GS].base), .writable = ALL, .valid = is_canonical},
    {MSR_KERNEL_GS_BASE, 1, FIELD(kernel_gs_base), .writable = ALL, .valid = is_canonical},
    {MSR_TSC_AUX, 1, FIELD(tsc_aux), .writable = U32},
};

static const struct msr *find(uint32_t msr)
{
    for (size_t i = 0; i < PLX_COUNT(table); i++) {
        if (msr - table[i].first < table[i].count) {
            return &table[i];
        }
    }
    return NULL;
}

static uint64_t *field(struct cpu *c, const struct msr *m, uint32_t msr)
{
    return (uint64_t *)(void *)((uint8_t *)c + m->offset) + (msr - m->first);
}

/* No reserved bit, and a value the register takes. Read-only registers take none, 0 aside where
 * the SDM lets one write it. */
static bool accepts(const struct msr *m, uint32_t msr, uint64_t value)
{
    if (m->writable == 0 && m->write == NULL) {
        return false;
    }
    return (value & ~m->writable) == 0 && (m->valid == NULL || m->valid(msr - m->first, value));
}

int msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    const struct msr *m = find(msr);

    if (m == NULL) {
        return PLX_GUEST_FAULT;
    }
    if (m->read != NULL) {
        return m->read(v, msr, value);
    }
    *value = m->offset == NO_FIELD ? m->value : *field(&v->c, m, msr);
    return 0;
}

int msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
    const struct msr *m = find(msr);

    if (m == NULL || !accepts(m, msr, value)) {
        return PLX_GUEST_FAULT;
    }
    if (m->write != NULL) {
        return m->write(v, msr, value);
    }
    *field(&v->c, m, msr) = value;
    return 0;
}
