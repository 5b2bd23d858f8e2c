/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/far.c - far JMP, CALL and RET, IRET, SYSCALL, SYSENTER and their returns (SDM Vol. 3A,
 * "Privilege Checking When Transferring Program Control Between Code Segments", "Fast System
 * Calls in 64-Bit Mode"; Vol. 2, the instructions' own pages).
 *
 * Ownership, threading, determinism: as exc.c. Hardware task switches do not exist here: a JMP or
 * CALL to a TSS or task gate raises #GP with its selector, an IRET with NT set raises #TS with the
 * selector of TR. 64-bit mode has none either, and no 32-bit system of our time uses them. */
#include "base/check.h"
#include "vmm/cpu/operand.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys.h"
#include "vmm/cpu/sys_ops.h"

/* Where a transfer goes. */
struct target {
    struct cpu_seg cs;
    struct desc d; /* of cs */
    uint64_t rip;
};

static _Noreturn void gp_sel(struct vcpu *v, uint16_t sel)
{
    cpu_raise_error(v, VEC_GP, sel & 0xfffc);
}

/* @rip lies inside the code segment, or is canonical. */
static void check_rip(struct vcpu *v, const struct cpu_seg *cs, uint64_t rip)
{
    bool to64 = cpu_lma(&v->c) && (cs->attr & SEG_L) != 0;

    if (to64 ? !cpu_canonical(rip) : rip > cs->limit) {
        cpu_gp0(v);
    }
}

/* Checks that hold for every code segment about to be entered. */
static void check_code(struct vcpu *v, const struct desc *d, uint16_t sel)
{
    if (!desc_is_code(d) || (cpu_lma(&v->c) && (d->attr & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB))) {
        gp_sel(v, sel);
    }
}

static void check_present(struct vcpu *v, const struct desc *d, uint16_t sel)
{
    if ((d->attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_NP, sel & 0xfffc);
    }
}

static struct desc fetch_or_gp(struct vcpu *v, uint16_t sel)
{
    struct desc d;

    if (sel_null(sel)) {
        cpu_gp0(v);
    }
    if (!desc_fetch(v, sel, &d)) {
        gp_sel(v, sel);
    }
    return d;
}

/* A direct transfer to a code segment of the same privilege. */
static struct target direct_target(struct vcpu *v, const struct desc *d, uint16_t sel, uint64_t rip)
{
    unsigned cpl = cpu_cpl(&v->c);
    bool conforming = (d->attr & SEG_EC) != 0;

    check_code(v, d, sel);
    if (conforming ? desc_dpl(d) > cpl : (sel & 3U) > cpl || desc_dpl(d) != cpl) {
        gp_sel(v, sel);
    }
    check_present(v, d, sel);
    struct target t = {.d = *d, .rip = rip};
    t.cs = desc_seg(d, (uint16_t)((sel & 0xfffc) | cpl));
    check_rip(v, &t.cs, rip);
    return t;
}

struct call_gate {
    struct desc cs;
    uint64_t rip;
    uint16_t sel;
    unsigned size; /* of what a CALL pushes */
    unsigned params;
};

/* SDM Vol. 3A, "Accessing a Code Segment Through a Call Gate". */
static struct call_gate read_call_gate(struct vcpu *v, struct desc *d, uint16_t sel, bool jump)
{
    unsigned cpl = cpu_cpl(&v->c);
    bool lma = cpu_lma(&v->c);
    unsigned type = desc_type(d);
    struct call_gate g = {.size = type == SYS_CALL16 ? 2 : lma ? 8 : 4};

    if ((type != SYS_CALL32 && (type != SYS_CALL16 || lma)) || desc_dpl(d) < cpl ||
        desc_dpl(d) < (sel & 3U) || !desc_fetch_system(v, d) || (d->top & 0x1f00) != 0) {
        gp_sel(v, sel);
    }
    check_present(v, d, sel);
    g.sel = (uint16_t)(d->lo >> 16);
    g.rip =
        (d->lo & 0xffff) | (type == SYS_CALL32 ? d->hi & 0xffff0000 : 0) | (uint64_t)d->hi2 << 32;
    g.params = lma ? 0 : d->hi & 0x1f;
    g.cs = fetch_or_gp(v, g.sel);
    check_code(v, &g.cs, g.sel);
    bool same_only = jump && (g.cs.attr & SEG_EC) == 0;
    if (desc_dpl(&g.cs) > cpl || (same_only && desc_dpl(&g.cs) != cpl) ||
        (lma && (g.cs.attr & SEG_L) == 0)) {
        gp_sel(v, g.sel);
    }
    check_present(v, &g.cs, g.sel);
    return g;
}

static void read_far_operand(struct vcpu *v, const struct insn *in, uint16_t *sel, uint64_t *rip)
{
    if (in->nopd > 0 && in->opd[0].kind == OPD_MEM) {
        uint64_t ea = mem_ea(v, in);
        *rip = mem_read(v, in->seg, ea, in->osz);
        *sel = (uint16_t)mem_read(v, in->seg, (ea + in->osz) & size_mask(in->asz), 2);
    } else {
        *rip = in->imm & size_mask(in->osz);
        *sel = in->far_sel;
    }
}

static void enter(struct vcpu *v, struct target *t)
{
    desc_mark_accessed(v, &t->d);
    t->cs.attr |= SEG_ACCESSED;
    v->next_rip = t->rip;
    seg_set_cs_ss(v, &t->cs, NULL);
}

/* Real-address and virtual-8086 mode. */
static void enter_flat(struct vcpu *v, uint16_t sel, uint64_t rip)
{
    struct cpu_seg cs = v->c.seg[SEG_CS];

    if ((v->c.rflags & FLAG_VM) != 0) {
        cs = seg_v86(sel);
    } else {
        cs.sel = sel;
        cs.base = (uint64_t)sel << 4;
        cs.attr =
            (uint16_t)((cs.attr & ~(SEG_TYPE | SEG_DPL)) | SEG_S | SEG_P | SEG_RW | SEG_ACCESSED);
    }
    v->next_rip = rip;
    seg_set_cs_ss(v, &cs, NULL);
}

static void check_flat(struct vcpu *v, uint64_t rip)
{
    if (rip > v->c.seg[SEG_CS].limit) {
        cpu_gp0(v);
    }
}

void far_jmp(struct vcpu *v, const struct insn *in)
{
    uint16_t sel;
    uint64_t rip;

    read_far_operand(v, in, &sel, &rip);
    if (!cpu_protected(&v->c)) {
        check_flat(v, rip);
        enter_flat(v, sel, rip);
        return;
    }
    struct desc d = fetch_or_gp(v, sel);
    struct target t;
    if ((d.attr & SEG_S) != 0) {
        t = direct_target(v, &d, sel, rip);
    } else {
        struct call_gate g = read_call_gate(v, &d, sel, true);
        t = (struct target){.d = g.cs, .rip = g.rip};
        t.cs = desc_seg(&g.cs, (uint16_t)((g.sel & 0xfffc) | cpu_cpl(&v->c)));
        check_rip(v, &t.cs, t.rip);
    }
    enter(v, &t);
}

static void push_return(struct vcpu *v, struct stack *s, unsigned size)
{
    stack_push(v, s, size, v->c.seg[SEG_CS].sel);
    stack_push(v, s, size, v->next_rip);
}

/* A call gate to more privilege. SDM Vol. 3A, "Stack Switching", "Stack Switching in 64-Bit
 * Mode". */
static void call_inner(struct vcpu *v, struct call_gate *g)
{
    struct cpu *c = &v->c;
    unsigned to = desc_dpl(&g->cs);
    struct stack old = stack_current(v);
    struct stack s;

    if (cpu_lma(c)) {
        s = (struct stack){
            .ss = {.sel = (uint16_t)to, .attr = (uint16_t)(SEG_NULL | to << SEG_DPL_SHIFT)},
            .sp = stack_from_tss64(v, to, 0),
            .width = 8,
        };
    } else {
        s = stack_from_tss(v, to, 0);
    }
    struct cpu_seg cs = desc_seg(&g->cs, (uint16_t)((g->sel & 0xfffc) | to));
    check_rip(v, &cs, g->rip);
    stack_push(v, &s, g->size, old.ss.sel);
    stack_push(v, &s, g->size, old.sp);
    uint64_t params[31];
    for (unsigned i = 0; i < g->params; i++) {
        params[i] = stack_pop(v, &old, g->size);
    }
    for (unsigned i = g->params; i-- > 0;) {
        stack_push(v, &s, g->size, params[i]);
    }
    push_return(v, &s, g->size);
    desc_mark_accessed(v, &g->cs);
    cs.attr |= SEG_ACCESSED;
    reg_write(v, RSP, s.width, s.sp);
    v->next_rip = g->rip;
    seg_set_cs_ss(v, &cs, &s.ss);
}

void far_call(struct vcpu *v, const struct insn *in)
{
    struct stack s = stack_current(v);
    uint16_t sel;
    uint64_t rip;

    read_far_operand(v, in, &sel, &rip);
    if (!cpu_protected(&v->c)) {
        check_flat(v, rip);
        push_return(v, &s, in->osz);
        stack_commit(v, &s);
        enter_flat(v, sel, rip);
        return;
    }
    struct desc d = fetch_or_gp(v, sel);
    struct target t;
    unsigned size = in->osz;
    if ((d.attr & SEG_S) != 0) {
        t = direct_target(v, &d, sel, rip);
    } else {
        struct call_gate g = read_call_gate(v, &d, sel, false);
        if ((g.cs.attr & SEG_EC) == 0 && desc_dpl(&g.cs) < cpu_cpl(&v->c)) {
            call_inner(v, &g);
            return;
        }
        t = (struct target){.d = g.cs, .rip = g.rip};
        t.cs = desc_seg(&g.cs, (uint16_t)((g.sel & 0xfffc) | cpu_cpl(&v->c)));
        check_rip(v, &t.cs, t.rip);
        size = g.size;
    }
    push_return(v, &s, size);
    desc_mark_accessed(v, &t.d);
    stack_commit(v, &s);
    enter(v, &t);
}

/* --- returns ---------------------------------------------------------------------------- */

/* The code segment a RET or IRET returns to; its RPL is the new privilege level. */
static struct target return_target(struct vcpu *v, uint16_t sel, uint64_t rip)
{
    struct desc d = fetch_or_gp(v, sel);
    unsigned rpl = sel & 3;

    check_code(v, &d, sel);
    if (rpl < cpu_cpl(&v->c) ||
        ((d.attr & SEG_EC) != 0 ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl)) {
        gp_sel(v, sel);
    }
    check_present(v, &d, sel);
    struct target t = {.d = d, .rip = rip, .cs = desc_seg(&d, sel)};
    check_rip(v, &t.cs, rip);
    return t;
}

/* Pop RSP and SS and make them current together with CS. */
static void return_outer(struct vcpu *v, struct target *t, struct stack *s, unsigned size,
                         uint64_t imm, bool outer)
{
    uint64_t sp = stack_pop(v, s, size);
    uint16_t sel = (uint16_t)stack_pop(v, s, size);
    unsigned cpl = t->cs.sel & 3;
    bool to64 = cpu_lma(&v->c) && (t->cs.attr & SEG_L) != 0;
    struct cpu_seg ss = seg_check_return_ss(v, sel, cpl, to64);
    unsigned width = to64 ? 8 : (ss.attr & SEG_DB) != 0 ? 4 : 2;

    desc_mark_accessed(v, &t->d);
    t->cs.attr |= SEG_ACCESSED;
    v->next_rip = t->rip;
    /* An operand of 4 bytes clears the upper half, as any 32-bit write does. */
    reg_write(v, RSP, size == 8 ? 8 : width == 8 ? 4 : width, sp + imm);
    seg_set_cs_ss(v, &t->cs, &ss);
    if (outer) {
        seg_drop_privileged(v);
    }
}

void far_ret(struct vcpu *v, const struct insn *in)
{
    struct stack s = stack_current(v);
    uint64_t imm = in->nopd > 0 ? in->imm & 0xffff : 0;
    uint64_t rip = stack_pop(v, &s, in->osz);
    uint16_t sel = (uint16_t)stack_pop(v, &s, in->osz);

    if (!cpu_protected(&v->c)) {
        check_flat(v, rip);
        s.sp += imm;
        stack_commit(v, &s);
        enter_flat(v, sel, rip);
        return;
    }
    struct target t = return_target(v, sel, rip);
    s.sp += imm;
    if ((sel & 3) != cpu_cpl(&v->c)) {
        return_outer(v, &t, &s, in->osz, imm, true);
        return;
    }
    desc_mark_accessed(v, &t.d);
    reg_write(v, RSP, s.width, s.sp);
    enter(v, &t);
}

/* Flags an IRET of operand size @size may change; VM aside. */
static uint64_t iret_flags(const struct cpu *c, unsigned size, unsigned cpl)
{
    uint64_t wide = FLAG_RF | (cpl == 0 ? FLAG_VIF | FLAG_VIP : 0);

    return sys_writable_flags(c, size, cpl) | (size >= 4 ? wide : 0);
}

static void set_flags(struct vcpu *v, uint64_t flags, uint64_t mask)
{
    v->c.rflags = (v->c.rflags & ~mask) | (flags & mask) | FLAG_ONE;
    vcpu_mem_select(v);
    v->step_rf = false; /* RF as loaded stays for the next instruction */
    v->c.nmi_blocked = 0;
    v->attention = true;
}

/* Virtual-8086 mode with IOPL 3, and real-address mode. */
static void iret_flat(struct vcpu *v, const struct insn *in)
{
    struct stack s = stack_current(v);
    bool vm = (v->c.rflags & FLAG_VM) != 0;

    if (vm && (v->c.rflags & FLAG_IOPL) != FLAG_IOPL) {
        cpu_gp0(v);
    }
    uint64_t rip = stack_pop(v, &s, in->osz);
    uint16_t sel = (uint16_t)stack_pop(v, &s, in->osz);
    uint64_t flags = stack_pop(v, &s, in->osz);
    check_flat(v, rip);
    stack_commit(v, &s);
    uint64_t mask = iret_flags(&v->c, in->osz, vm ? 3 : 0) & ~(FLAG_VIF | FLAG_VIP);
    set_flags(v, flags, mask);
    enter_flat(v, sel, rip);
}

/* SDM Vol. 3A, "Entering Virtual-8086 Mode". */
static void iret_to_v86(struct vcpu *v, struct stack *s, uint64_t rip, uint16_t cs_sel,
                        uint64_t flags)
{
    static const enum cpu_segreg order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    struct cpu *c = &v->c;
    uint64_t sp = stack_pop(v, s, 4);
    uint16_t ss_sel = (uint16_t)stack_pop(v, s, 4);
    uint16_t sel[PLX_COUNT(order)];

    for (unsigned i = 0; i < PLX_COUNT(order); i++) {
        sel[i] = (uint16_t)stack_pop(v, s, 4);
    }
    if (rip > 0xffff) {
        cpu_gp0(v);
    }
    for (unsigned i = 0; i < PLX_COUNT(order); i++) {
        c->seg[order[i]] = seg_v86(sel[i]);
    }
    struct cpu_seg cs = seg_v86(cs_sel);
    struct cpu_seg ss = seg_v86(ss_sel);
    set_flags(v, flags, iret_flags(c, 4, 0) | FLAG_VM);
    reg_write(v, RSP, 4, sp);
    v->next_rip = rip;
    seg_set_cs_ss(v, &cs, &ss);
    vcpu_context_changed(v); /* the VM flag may be all that changed */
}

void sys_iret(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    unsigned size = in->osz;
    unsigned cpl = cpu_cpl(c);

    if (!cpu_protected(c)) {
        iret_flat(v, in);
        return;
    }
    if ((c->rflags & FLAG_NT) != 0) {
        if (cpu_lma(c)) {
            cpu_gp0(v);
        }
        cpu_raise_error(v, VEC_TS, c->tr.sel & 0xfffc);
    }
    struct stack s = stack_current(v);
    uint64_t rip = stack_pop(v, &s, size);
    uint16_t sel = (uint16_t)stack_pop(v, &s, size);
    uint64_t flags = stack_pop(v, &s, size);
    if (!cpu_lma(c) && size == 4 && (flags & FLAG_VM) != 0 && cpl == 0) {
        iret_to_v86(v, &s, rip, sel, flags);
        return;
    }
    struct target t = return_target(v, sel, rip);
    bool outer = (sel & 3) != cpl;
    uint64_t mask = iret_flags(c, size, cpl);
    if (outer || cpu_is64(c)) {
        return_outer(v, &t, &s, size, 0, outer);
    } else {
        desc_mark_accessed(v, &t.d);
        reg_write(v, RSP, s.width, s.sp);
        enter(v, &t);
    }
    set_flags(v, flags, mask);
}

/* --- fast system calls ------------------------------------------------------------------ */

void sys_syscall(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    uint16_t sel = (uint16_t)(c->star >> 32 & 0xfffc);

    (void)in;
    if (!cpu_is64(c) || (c->efer & EFER_SCE) == 0) {
        cpu_ud(v);
    }
    struct cpu_seg cs = seg_flat_code(sel, 0, true);
    struct cpu_seg ss = seg_flat_stack((uint16_t)(sel + 8), 0);
    c->gpr[RCX] = v->next_rip;
    c->gpr[R11] = c->rflags & ~FLAG_RF;
    c->rflags = (c->rflags & ~c->sfmask & ~FLAG_RF) | FLAG_ONE;
    vcpu_mem_select(v);
    v->step_tf = v->step_tf && (c->rflags & FLAG_TF) != 0;
    v->next_rip = c->lstar;
    seg_set_cs_ss(v, &cs, &ss);
}

void sys_sysret(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    uint16_t base = (uint16_t)(c->star >> 48);
    bool wide = in->osz == 8;

    if (!cpu_is64(c) || (c->efer & EFER_SCE) == 0) {
        cpu_ud(v);
    }
    if (cpu_cpl(c) != 0 || (wide && !cpu_canonical(c->gpr[RCX]))) {
        cpu_gp0(v);
    }
    struct cpu_seg cs = seg_flat_code((uint16_t)((base + (wide ? 16 : 0)) | 3), 3, wide);
    struct cpu_seg ss = seg_flat_stack((uint16_t)((base + 8) | 3), 3);
    v->next_rip = wide ? c->gpr[RCX] : c->gpr[RCX] & UINT32_MAX;
    c->rflags = (c->gpr[R11] & SYSRET_FLAGS) | FLAG_ONE;
    v->attention = true;
    seg_set_cs_ss(v, &cs, &ss);
}

void sys_sysenter(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    uint16_t sel = (uint16_t)(c->sysenter_cs & 0xfffc);
    bool lma = cpu_lma(c);

    (void)in;
    if ((c->cr0 & CR0_PE) == 0 || sel == 0) {
        cpu_gp0(v);
    }
    struct cpu_seg cs = seg_flat_code(sel, 0, lma);
    struct cpu_seg ss = seg_flat_stack((uint16_t)(sel + 8), 0);
    bool vm = (c->rflags & FLAG_VM) != 0;
    c->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    c->gpr[RSP] = lma ? c->sysenter_esp : c->sysenter_esp & UINT32_MAX;
    v->next_rip = lma ? c->sysenter_eip : c->sysenter_eip & UINT32_MAX;
    seg_set_cs_ss(v, &cs, &ss);
    if (vm) {
        vcpu_context_changed(v);
    }
}

void sys_sysexit(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    uint16_t sel = (uint16_t)(c->sysenter_cs & 0xfffc);
    bool wide = in->osz == 8;

    if (!cpu_protected(c) || sel == 0 || cpu_cpl(c) != 0 ||
        (wide && (!cpu_canonical(c->gpr[RCX]) || !cpu_canonical(c->gpr[RDX])))) {
        cpu_gp0(v);
    }
    uint16_t off = wide ? 32 : 16;
    struct cpu_seg cs = seg_flat_code((uint16_t)((sel + off) | 3), 3, wide);
    struct cpu_seg ss = seg_flat_stack((uint16_t)((sel + off + 8) | 3), 3);
    c->gpr[RSP] = wide ? c->gpr[RCX] : c->gpr[RCX] & UINT32_MAX;
    v->next_rip = wide ? c->gpr[RDX] : c->gpr[RDX] & UINT32_MAX;
    seg_set_cs_ss(v, &cs, &ss);
}

/* --- software interrupts ---------------------------------------------------------------- */

void sys_int(struct vcpu *v, const struct insn *in)
{
    exc_software_interrupt(v, in->imm & 0xff, true);
}

void sys_int3(struct vcpu *v, const struct insn *in)
{
    (void)in;
    exc_software_interrupt(v, VEC_BP, false);
}

void sys_int1(struct vcpu *v, const struct insn *in)
{
    (void)in;
    exc_software_interrupt(v, VEC_DB, false);
}

void sys_into(struct vcpu *v, const struct insn *in)
{
    (void)in;
    if ((v->c.rflags & FLAG_OF) != 0) {
        exc_software_interrupt(v, VEC_OF, false);
    }
}
