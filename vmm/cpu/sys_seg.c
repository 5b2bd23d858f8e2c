/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_seg.c - instructions on segment registers, descriptors and descriptor tables (SDM
 * Vol. 2, the instructions' own pages; Vol. 3A, "Protection").
 *
 * Ownership, threading, determinism: as exc.c. */
#include "vmm/cpu/operand.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys.h"
#include "vmm/cpu/sys_ops.h"

/* --- MOV, PUSH, POP and far pointers ------------------------------------------------------ */

static void load(struct vcpu *v, unsigned r, uint16_t sel)
{
    seg_load(v, (enum cpu_segreg)r, sel);
    if (r == SEG_SS) {
        v->c.movss_shadow = 1;
        v->attention = true;
    }
}

static void mov_to_seg(struct vcpu *v, const struct insn *in)
{
    uint16_t sel = in->opd[1].kind == OPD_MEM ? (uint16_t)mem_read(v, in->seg, mem_ea(v, in), 2)
                                              : (uint16_t)reg_read(v, in->opd[1].reg, 2);

    if (in->opd[0].reg == SEG_CS) {
        cpu_ud(v);
    }
    load(v, in->opd[0].reg, sel);
}

static void mov_from_seg(struct vcpu *v, const struct insn *in)
{
    uint16_t sel = v->c.seg[in->opd[1].reg].sel;

    if (in->opd[0].kind == OPD_MEM) {
        mem_write(v, in->seg, mem_ea(v, in), 2, sel);
    } else {
        opd_write(v, in, 0, sel);
    }
}

insn_fn sys_pick_mov(const struct insn *in)
{
    if (in->opd[0].kind == OPD_SEG) {
        return mov_to_seg;
    }
    if (in->opd[1].kind == OPD_SEG) {
        return mov_from_seg;
    }
    return sys_pick_mov_ctl(in);
}

void sys_push_seg(struct vcpu *v, const struct insn *in)
{
    uint16_t sel = v->c.seg[in->opd[0].reg].sel;

    if (in->osz != 4) {
        mem_push(v, in->osz, sel);
        return;
    }
    /* A 32-bit push of a selector writes only its 16 bits. */
    struct stack s = stack_current(v);
    uint64_t off = (s.sp - 4) & size_mask(s.width);
    mem_write(v, SEG_SS, off, 2, sel);
    reg_write(v, RSP, s.width, off);
}

void sys_pop_seg(struct vcpu *v, const struct insn *in)
{
    struct stack s = stack_current(v);
    uint16_t sel = (uint16_t)stack_pop(v, &s, in->osz);

    load(v, in->opd[0].reg, sel);
    reg_write(v, RSP, s.width, s.sp);
}

static void load_far_pointer(struct vcpu *v, const struct insn *in, enum cpu_segreg r)
{
    uint64_t ea = mem_ea(v, in);
    uint64_t off = mem_read(v, in->seg, ea, in->osz);
    uint16_t sel = (uint16_t)mem_read(v, in->seg, (ea + in->osz) & size_mask(in->asz), 2);

    /* Unlike MOV and POP, LSS leaves no shadow: it changes SS and ESP at once. */
    seg_load(v, r, sel);
    reg_write(v, in->opd[0].reg, in->osz, off);
}

void sys_lds(struct vcpu *v, const struct insn *in)
{
    load_far_pointer(v, in, SEG_DS);
}

void sys_les(struct vcpu *v, const struct insn *in)
{
    load_far_pointer(v, in, SEG_ES);
}

void sys_lfs(struct vcpu *v, const struct insn *in)
{
    load_far_pointer(v, in, SEG_FS);
}

void sys_lgs(struct vcpu *v, const struct insn *in)
{
    load_far_pointer(v, in, SEG_GS);
}

void sys_lss(struct vcpu *v, const struct insn *in)
{
    load_far_pointer(v, in, SEG_SS);
}

/* --- looking at descriptors --------------------------------------------------------------- */

static void require_protected(struct vcpu *v)
{
    if (!cpu_protected(&v->c)) {
        cpu_ud(v);
    }
}

static void require_cpl0(struct vcpu *v)
{
    if (cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
}

static uint16_t read_selector(struct vcpu *v, const struct insn *in, unsigned i)
{
    return in->opd[i].kind == OPD_MEM ? (uint16_t)mem_read(v, in->seg, mem_ea(v, in), 2)
                                      : (uint16_t)reg_read(v, in->opd[i].reg, 2);
}

/* The descriptor can be seen at this privilege level with this selector. */
static bool visible(const struct vcpu *v, const struct desc *d, uint16_t sel)
{
    bool conforming = (d->attr & (SEG_S | SEG_CODE | SEG_EC)) == (SEG_S | SEG_CODE | SEG_EC);

    return conforming || (desc_dpl(d) >= cpu_cpl(&v->c) && desc_dpl(d) >= (sel & 3U));
}

static void set_zf(struct vcpu *v, bool zf)
{
    v->c.rflags = (v->c.rflags & ~FLAG_ZF) | (zf ? FLAG_ZF : 0);
}

/* System types as bit sets over the type: SDM Vol. 2, tables of LAR and LSL. */
enum {
    LAR_TYPES = 1 << SYS_TSS16 | 1 << SYS_LDT | 1 << SYS_TSS16_BUSY | 1 << SYS_CALL16 |
                1 << SYS_TASK_GATE | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY | 1 << SYS_CALL32,
    LAR_TYPES_LONG = 1 << SYS_LDT | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY | 1 << SYS_CALL32,
    LSL_TYPES =
        1 << SYS_TSS16 | 1 << SYS_LDT | 1 << SYS_TSS16_BUSY | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY,
    LSL_TYPES_LONG = 1 << SYS_LDT | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY,
};

static bool look(struct vcpu *v, uint16_t sel, unsigned types, unsigned types_long, struct desc *d)
{
    unsigned set = cpu_lma(&v->c) ? types_long : types;

    if (sel_null(sel) || !desc_fetch(v, sel, d)) {
        return false;
    }
    if ((d->attr & SEG_S) == 0 && (set >> desc_type(d) & 1) == 0) {
        return false;
    }
    return visible(v, d, sel);
}

void sys_lar(struct vcpu *v, const struct insn *in)
{
    struct desc d;

    require_protected(v);
    uint16_t sel = read_selector(v, in, 1);
    bool ok = look(v, sel, LAR_TYPES, LAR_TYPES_LONG, &d);
    if (ok) {
        opd_write(v, in, 0, d.hi & (in->osz == 2 ? 0xff00U : 0xf0ff00U));
    }
    set_zf(v, ok);
}

void sys_lsl(struct vcpu *v, const struct insn *in)
{
    struct desc d;

    require_protected(v);
    uint16_t sel = read_selector(v, in, 1);
    bool ok = look(v, sel, LSL_TYPES, LSL_TYPES_LONG, &d);
    if (ok) {
        opd_write(v, in, 0, desc_seg(&d, sel).limit);
    }
    set_zf(v, ok);
}

void sys_verr(struct vcpu *v, const struct insn *in)
{
    struct desc d;

    require_protected(v);
    bool ok = look(v, read_selector(v, in, 0), 0, 0, &d);
    set_zf(v, ok && (d.attr & (SEG_CODE | SEG_RW)) != SEG_CODE);
}

void sys_verw(struct vcpu *v, const struct insn *in)
{
    struct desc d;

    require_protected(v);
    bool ok = look(v, read_selector(v, in, 0), 0, 0, &d);
    set_zf(v, ok && desc_is_writable_data(&d));
}

void sys_arpl(struct vcpu *v, const struct insn *in)
{
    require_protected(v);
    uint64_t rpl = reg_read(v, in->opd[1].reg, 2) & 3;
    if (in->opd[0].kind == OPD_MEM) {
        struct mem_rmw m;
        uint64_t dst = mem_rmw_begin(v, in->seg, mem_ea(v, in), 2, &m);
        bool raise = (dst & 3) < rpl;
        mem_rmw_end(v, &m, raise ? (dst & ~UINT64_C(3)) | rpl : dst);
        set_zf(v, raise);
        return;
    }
    uint64_t dst = reg_read(v, in->opd[0].reg, 2);
    bool raise = (dst & 3) < rpl;
    if (raise) {
        reg_write(v, in->opd[0].reg, 2, (dst & ~UINT64_C(3)) | rpl);
    }
    set_zf(v, raise);
}

/* --- LDTR, TR, GDTR, IDTR ----------------------------------------------------------------- */

/* A system descriptor of one of @types for LLDT and LTR. */
static struct desc system_desc(struct vcpu *v, uint16_t sel, unsigned types)
{
    struct desc d;

    if ((sel & 4) != 0 || !desc_fetch(v, sel, &d) || (d.attr & SEG_S) != 0 ||
        (types >> desc_type(&d) & 1) == 0 || !desc_fetch_system(v, &d) || (d.top & 0x1f00) != 0) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_NP, sel & 0xfffc);
    }
    if (!cpu_canonical(desc_seg(&d, sel).base)) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    return d;
}

void sys_lldt(struct vcpu *v, const struct insn *in)
{
    require_protected(v);
    require_cpl0(v);
    uint16_t sel = read_selector(v, in, 0);
    if (sel_null(sel)) {
        v->c.ldtr = (struct cpu_seg){.sel = sel, .attr = SEG_NULL};
        return;
    }
    struct desc d = system_desc(v, sel, 1 << SYS_LDT);
    v->c.ldtr = desc_seg(&d, sel);
}

void sys_ltr(struct vcpu *v, const struct insn *in)
{
    require_protected(v);
    require_cpl0(v);
    uint16_t sel = read_selector(v, in, 0);
    if (sel_null(sel)) {
        cpu_gp0(v);
    }
    struct desc d =
        system_desc(v, sel, cpu_lma(&v->c) ? 1 << SYS_TSS32 : 1 << SYS_TSS32 | 1 << SYS_TSS16);
    d.hi |= 0x200;
    d.attr |= 2;
    mem_write_lin(v, d.addr + 5, 1, d.hi >> 8 & 0xff, false);
    v->c.tr = desc_seg(&d, sel);
}

/* CR4.UMIP keeps these from user programs. */
static void check_umip(struct vcpu *v)
{
    if ((v->c.cr4 & CR4_UMIP) != 0 && cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
}

static void store_selector(struct vcpu *v, const struct insn *in, uint16_t sel)
{
    if (in->opd[0].kind == OPD_MEM) {
        mem_write(v, in->seg, mem_ea(v, in), 2, sel);
    } else {
        opd_write(v, in, 0, sel);
    }
}

void sys_sldt(struct vcpu *v, const struct insn *in)
{
    require_protected(v);
    check_umip(v);
    store_selector(v, in, v->c.ldtr.sel);
}

void sys_str(struct vcpu *v, const struct insn *in)
{
    require_protected(v);
    check_umip(v);
    store_selector(v, in, v->c.tr.sel);
}

static struct cpu_dtable load_dtable(struct vcpu *v, const struct insn *in)
{
    bool wide = cpu_is64(&v->c);
    struct cpu_dtable t;

    require_cpl0(v);
    uint64_t ea = mem_ea(v, in);
    t.limit = (uint16_t)mem_read(v, in->seg, ea, 2);
    t.base = mem_read(v, in->seg, (ea + 2) & size_mask(in->asz), wide ? 8 : 4);
    if (!wide && in->osz == 2) {
        t.base &= 0xffffff;
    }
    if (!cpu_canonical(t.base)) {
        cpu_gp0(v);
    }
    return t;
}

void sys_lgdt(struct vcpu *v, const struct insn *in)
{
    v->c.gdtr = load_dtable(v, in);
}

void sys_lidt(struct vcpu *v, const struct insn *in)
{
    v->c.idtr = load_dtable(v, in);
}

static void store_dtable(struct vcpu *v, const struct insn *in, const struct cpu_dtable *t)
{
    bool wide = cpu_is64(&v->c);
    uint8_t out[10];

    check_umip(v);
    out[0] = (uint8_t)t->limit;
    out[1] = (uint8_t)(t->limit >> 8);
    for (unsigned i = 0; i < 8; i++) {
        out[2 + i] = (uint8_t)(t->base >> (8 * i));
    }
    mem_write_bytes(v, in->seg, mem_ea(v, in), out, wide ? 10 : 6);
}

void sys_sgdt(struct vcpu *v, const struct insn *in)
{
    store_dtable(v, in, &v->c.gdtr);
}

void sys_sidt(struct vcpu *v, const struct insn *in)
{
    store_dtable(v, in, &v->c.idtr);
}

/* --- FS and GS bases ---------------------------------------------------------------------- */

void sys_swapgs(struct vcpu *v, const struct insn *in)
{
    uint64_t base = v->c.seg[SEG_GS].base;

    (void)in;
    if (!cpu_is64(&v->c)) {
        cpu_ud(v);
    }
    require_cpl0(v);
    v->c.seg[SEG_GS].base = v->c.kernel_gs_base;
    v->c.kernel_gs_base = base;
}

static void read_base(struct vcpu *v, const struct insn *in, enum cpu_segreg r)
{
    if (!cpu_is64(&v->c) || (v->c.cr4 & CR4_FSGSBASE) == 0) {
        cpu_ud(v);
    }
    opd_write(v, in, 0, v->c.seg[r].base);
}

static void write_base(struct vcpu *v, const struct insn *in, enum cpu_segreg r)
{
    if (!cpu_is64(&v->c) || (v->c.cr4 & CR4_FSGSBASE) == 0) {
        cpu_ud(v);
    }
    uint64_t base = reg_read(v, in->opd[0].reg, in->opd[0].size);
    if (!cpu_canonical(base)) {
        cpu_gp0(v);
    }
    v->c.seg[r].base = base;
}

void sys_rdfsbase(struct vcpu *v, const struct insn *in)
{
    read_base(v, in, SEG_FS);
}

void sys_rdgsbase(struct vcpu *v, const struct insn *in)
{
    read_base(v, in, SEG_GS);
}

void sys_wrfsbase(struct vcpu *v, const struct insn *in)
{
    write_base(v, in, SEG_FS);
}

void sys_wrgsbase(struct vcpu *v, const struct insn *in)
{
    write_base(v, in, SEG_GS);
}
