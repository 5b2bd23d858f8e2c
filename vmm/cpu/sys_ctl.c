/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_ctl.c - control and debug registers, XCR0, cache and TLB instructions (SDM Vol. 3A,
 * "Control Registers", "Extended Control Registers", "IA-32e Mode Operation"; Vol. 3B, "Debug
 * Registers").
 *
 * Ownership, threading, determinism: as exc.c. Translations are never stale (R7), so INVLPG and its
 * relatives check their operands and change nothing. */
#include "vmm/cpu/operand.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys.h"
#include "vmm/cpu/sys_ops.h"

#define DR6_BD UINT64_C(0x2000)
#define DR7_GD UINT64_C(0x2000)

static void require_cpl0(struct vcpu *v)
{
    if (cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
}

/* --- PAE page-directory-pointer table ------------------------------------------------------ */

/* Read the four PDPTEs that CR3 points to; reserved bits in a present one are #GP(0). SDM Vol. 3A,
 * "PDPTE Registers". */
static void read_pdptes(struct vcpu *v, uint64_t cr3, uint64_t out[4])
{
    uint64_t reserved = UINT64_C(0x1e6) | ~((UINT64_C(1) << CPU_PHYS_BITS) - 1);

    vcpu_need_serial(v); /* reads RAM by itself, whoever owns the page */
    if (ram_read(v->ram, cr3 & UINT64_C(0xffffffe0), out, 32) != 0) {
        out[0] = out[1] = out[2] = out[3] = UINT64_MAX; /* what an unclaimed address reads as */
    }
    for (unsigned i = 0; i < 4; i++) {
        if ((out[i] & 1) != 0 && (out[i] & reserved) != 0) {
            cpu_gp0(v);
        }
    }
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) != 0 && (cr4 & CR4_PAE) != 0 && (efer & EFER_LMA) == 0;
}

static void set_pdptes(struct vcpu *v, const uint64_t pdpte[4])
{
    for (unsigned i = 0; i < 4; i++) {
        v->c.pdpte[i] = pdpte[i];
    }
}

/* --- CR0 ---------------------------------------------------------------------------------- */

/* SDM Vol. 3A, "Initializing IA-32e Mode". */
static void check_enter_long(struct vcpu *v, uint64_t cr4)
{
    unsigned tr = v->c.tr.attr & SEG_TYPE;

    if ((cr4 & CR4_PAE) == 0 || (v->c.seg[SEG_CS].attr & SEG_L) != 0 ||
        ((v->c.tr.attr & SEG_NULL) == 0 && tr == SYS_TSS16_BUSY)) {
        cpu_gp0(v);
    }
}

static void write_cr0(struct vcpu *v, uint64_t value)
{
    const uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM |
                           CR0_NW | CR0_CD | CR0_PG;
    struct cpu *c = &v->c;
    uint64_t pdpte[4];

    if ((value >> 32) != 0) {
        cpu_gp0(v);
    }
    value = (value & known) | CR0_ET;
    if (((value & CR0_PG) != 0 && (value & CR0_PE) == 0) ||
        ((value & CR0_NW) != 0 && (value & CR0_CD) == 0)) {
        cpu_gp0(v);
    }
    uint64_t changed = value ^ c->cr0;
    uint64_t efer = c->efer;
    if ((changed & CR0_PG) != 0) {
        if ((value & CR0_PG) == 0) {
            if (cpu_is64(c) || (c->cr4 & CR4_PCIDE) != 0) {
                cpu_gp0(v);
            }
            efer &= ~EFER_LMA;
        } else if ((efer & EFER_LME) != 0) {
            check_enter_long(v, c->cr4);
            efer |= EFER_LMA;
        }
    }
    bool load = pae_paging(value, c->cr4, efer) && (changed & (CR0_PG | CR0_CD | CR0_NW)) != 0;
    if (load) {
        read_pdptes(v, c->cr3, pdpte);
        set_pdptes(v, pdpte);
    }
    c->cr0 = value;
    c->efer = efer;
    if (changed != 0) {
        vcpu_context_changed(v);
    }
}

void sys_clts(struct vcpu *v, const struct insn *in)
{
    (void)in;
    require_cpl0(v);
    if ((v->c.cr0 & CR0_TS) != 0) {
        v->c.cr0 &= ~CR0_TS;
        vcpu_context_changed(v);
    }
}

void sys_lmsw(struct vcpu *v, const struct insn *in)
{
    require_cpl0(v);
    uint64_t msw = in->opd[0].kind == OPD_MEM ? mem_read(v, in->seg, mem_ea(v, in), 2)
                                              : reg_read(v, in->opd[0].reg, 2);
    uint64_t keep = v->c.cr0 & ~(CR0_MP | CR0_EM | CR0_TS); /* PE can be set, never cleared */
    write_cr0(v, keep | (msw & (CR0_PE | CR0_MP | CR0_EM | CR0_TS)));
}

void sys_smsw(struct vcpu *v, const struct insn *in)
{
    if ((v->c.cr4 & CR4_UMIP) != 0 && cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
    if (in->opd[0].kind == OPD_MEM) {
        mem_write(v, in->seg, mem_ea(v, in), 2, v->c.cr0 & 0xffff);
    } else {
        opd_write(v, in, 0, v->c.cr0);
    }
}

/* --- CR3, CR4, CR8 ------------------------------------------------------------------------ */

static void write_cr3(struct vcpu *v, uint64_t value)
{
    struct cpu *c = &v->c;
    uint64_t pdpte[4];

    if ((c->cr4 & CR4_PCIDE) != 0) {
        value &= ~(UINT64_C(1) << 63); /* "do not flush": there is nothing to flush */
    }
    if (cpu_lma(c) && (value >> CPU_PHYS_BITS) != 0) {
        cpu_gp0(v);
    }
    if (pae_paging(c->cr0, c->cr4, c->efer)) {
        read_pdptes(v, value, pdpte);
        set_pdptes(v, pdpte);
    }
    c->cr3 = value;
    vcpu_context_changed(v);
}

static void write_cr4(struct vcpu *v, uint64_t value)
{
    const uint64_t reload = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
    struct cpu *c = &v->c;
    uint64_t changed = value ^ c->cr4;
    uint64_t pdpte[4];

    if ((value & ~CR4_OFFERED) != 0 || (cpu_lma(c) && (value & CR4_PAE) == 0)) {
        cpu_gp0(v);
    }
    if ((changed & value & CR4_PCIDE) != 0 && (!cpu_lma(c) || (c->cr3 & 0xfff) != 0)) {
        cpu_gp0(v);
    }
    if (pae_paging(c->cr0, value, c->efer) && (changed & reload) != 0) {
        read_pdptes(v, c->cr3, pdpte);
        set_pdptes(v, pdpte);
    }
    c->cr4 = value;
    vcpu_context_changed(v);
}

static void mov_from_cr(struct vcpu *v, const struct insn *in)
{
    const struct cpu *c = &v->c;
    uint64_t value = 0;

    require_cpl0(v);
    switch (in->opd[1].reg) {
    case 0:
        value = c->cr0;
        break;
    case 2:
        value = c->cr2;
        break;
    case 3:
        value = c->cr3;
        break;
    case 4:
        value = c->cr4;
        break;
    case 8:
        value = v->ops->cr8_read(v->ops_ctx);
        break;
    default:
        cpu_ud(v);
    }
    reg_write(v, in->opd[0].reg, cpu_is64(c) ? 8 : 4, value);
}

static void mov_to_cr(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;

    require_cpl0(v);
    uint64_t value = reg_read(v, in->opd[1].reg, cpu_is64(c) ? 8 : 4);
    switch (in->opd[0].reg) {
    case 0:
        write_cr0(v, value);
        break;
    case 2:
        c->cr2 = value;
        break;
    case 3:
        write_cr3(v, value);
        break;
    case 4:
        write_cr4(v, value);
        break;
    case 8:
        if (value > 15) {
            cpu_gp0(v);
        }
        v->ops->cr8_write(v->ops_ctx, value);
        v->attention = true;
        break;
    default:
        cpu_ud(v);
    }
}

/* --- debug registers ---------------------------------------------------------------------- */

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
static unsigned debug_register(struct vcpu *v, unsigned n)
{
    if (n > 7 || ((n == 4 || n == 5) && (v->c.cr4 & CR4_DE) != 0)) {
        cpu_ud(v);
    }
    require_cpl0(v);
    if ((v->c.dr[7] & DR7_GD) != 0) {
        v->c.dr[6] |= DR6_BD;
        cpu_raise(v, VEC_DB);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

static void mov_from_dr(struct vcpu *v, const struct insn *in)
{
    unsigned n = debug_register(v, in->opd[1].reg);

    reg_write(v, in->opd[0].reg, cpu_is64(&v->c) ? 8 : 4, v->c.dr[n]);
}

static void mov_to_dr(struct vcpu *v, const struct insn *in)
{
    unsigned n = debug_register(v, in->opd[0].reg);
    uint64_t value = reg_read(v, in->opd[1].reg, cpu_is64(&v->c) ? 8 : 4);

    if (n >= 6 && (value >> 32) != 0) {
        cpu_gp0(v);
    }
    if (n == 6) {
        value = (value & DR6_WRITABLE) | DR6_FIXED;
    } else if (n == 7) {
        value = (value & DR7_WRITABLE) | DR7_FIXED;
    }
    v->c.dr[n] = value;
    exc_debug_update(v);
    vcpu_context_changed(v); /* accesses are watched, or no longer */
}

insn_fn sys_pick_mov_ctl(const struct insn *in)
{
    if (in->opd[0].kind == OPD_CR) {
        return mov_to_cr;
    }
    if (in->opd[1].kind == OPD_CR) {
        return mov_from_cr;
    }
    if (in->opd[0].kind == OPD_DR) {
        return mov_to_dr;
    }
    return in->opd[1].kind == OPD_DR ? mov_from_dr : NULL;
}

/* --- XCR0 --------------------------------------------------------------------------------- */

void sys_xgetbv(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;

    (void)in;
    if ((c->cr4 & CR4_OSXSAVE) == 0) {
        cpu_ud(v);
    }
    if (reg_read(v, RCX, 4) != 0) {
        cpu_gp0(v);
    }
    c->gpr[RAX] = c->xcr0 & UINT32_MAX;
    c->gpr[RDX] = c->xcr0 >> 32;
}

void sys_xsetbv(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    uint64_t value = reg_read(v, RDX, 4) << 32 | reg_read(v, RAX, 4);

    (void)in;
    if ((c->cr4 & CR4_OSXSAVE) == 0) {
        cpu_ud(v);
    }
    require_cpl0(v);
    if (reg_read(v, RCX, 4) != 0 || !cpu_xcr0_valid(v->model, value)) {
        cpu_gp0(v);
    }
    c->xcr0 = value;
}

/* --- caches and translations -------------------------------------------------------------- */

void sys_wbinvd(struct vcpu *v, const struct insn *in)
{
    (void)in;
    require_cpl0(v);
}

void sys_invlpg(struct vcpu *v, const struct insn *in)
{
    (void)in;
    require_cpl0(v);
}

/* SDM Vol. 2, INVPCID: the descriptor holds the PCID (bits 11:0) and a linear address (127:64). */
void sys_invpcid(struct vcpu *v, const struct insn *in)
{
    uint8_t raw[16];
    uint64_t pcid = 0;
    uint64_t addr = 0;

    require_cpl0(v);
    if ((v->c.rflags & FLAG_VM) != 0) {
        cpu_gp0(v);
    }
    uint64_t type = reg_read(v, in->opd[0].reg, in->opd[0].size);
    mem_read_bytes(v, in->seg, mem_ea(v, in), raw, sizeof raw);
    for (unsigned i = 8; i-- > 0;) {
        pcid = pcid << 8 | raw[i];
        addr = addr << 8 | raw[8 + i];
    }
    bool pcide = (v->c.cr4 & CR4_PCIDE) != 0;
    if (type > 3 || (pcid >> 12) != 0 || (type == 0 && !cpu_canonical(addr)) ||
        (type <= 1 && !pcide && pcid != 0)) {
        cpu_gp0(v);
    }
}
