/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/seg.c - segmentation: descriptor checks, loads of segment registers, linear addresses,
 * stacks (SDM Vol. 3A, "Protected-Mode Memory Management" and "Protection").
 *
 * Ownership: works on the vCPU it is given. Threading: the thread that runs it. Determinism: a
 * pure function of vCPU and memory. */
#include "vmm/cpu/seg.h"

#include "base/check.h"
#include "vmm/cpu/operand.h"

static gva_t table_address(const struct vcpu *v, uint64_t base, uint64_t off)
{
    gva_t a = base + off;

    return cpu_lma(&v->c) ? a : a & UINT32_MAX;
}

bool desc_fetch(struct vcpu *v, uint16_t sel, struct desc *d)
{
    uint64_t base = v->c.gdtr.base;
    uint32_t limit = v->c.gdtr.limit;

    if ((sel & 4) != 0) {
        if ((v->c.ldtr.attr & SEG_NULL) != 0) {
            return false;
        }
        base = v->c.ldtr.base;
        limit = v->c.ldtr.limit;
    }
    if ((uint32_t)(sel | 7) > limit) {
        return false;
    }
    *d = (struct desc){.addr = table_address(v, base, sel & 0xfff8), .sel = sel};
    uint64_t raw = mem_read_lin(v, d->addr, 8, false);
    d->lo = (uint32_t)raw;
    d->hi = (uint32_t)(raw >> 32);
    d->attr = (uint16_t)(d->hi >> 8 & 0xf0ff);
    return true;
}

bool desc_fetch_system(struct vcpu *v, struct desc *d)
{
    if (!cpu_lma(&v->c)) {
        return true;
    }
    uint32_t limit = (d->sel & 4) != 0 ? v->c.ldtr.limit : v->c.gdtr.limit;
    if ((uint32_t)(d->sel | 7) + 8 > limit) {
        return false;
    }
    uint64_t raw = mem_read_lin(v, d->addr + 8, 8, false);
    d->hi2 = (uint32_t)raw;
    d->top = (uint32_t)(raw >> 32);
    return true;
}

void desc_mark_accessed(struct vcpu *v, struct desc *d)
{
    if ((d->attr & SEG_ACCESSED) == 0) {
        d->hi |= 0x100;
        d->attr |= SEG_ACCESSED;
        mem_write_lin(v, d->addr + 5, 1, d->hi >> 8 & 0xff, false);
    }
}

struct cpu_seg desc_seg(const struct desc *d, uint16_t sel)
{
    uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

    if ((d->attr & SEG_G) != 0) {
        limit = limit << 12 | 0xfff;
    }
    return (struct cpu_seg){
        .sel = sel,
        .attr = d->attr,
        .limit = limit,
        .base =
            (d->lo >> 16) | (d->hi & 0xff) << 16 | (d->hi & 0xff000000) | (uint64_t)d->hi2 << 32,
    };
}

struct cpu_seg seg_flat_code(uint16_t sel, unsigned dpl, bool l)
{
    return (struct cpu_seg){
        .sel = sel,
        .attr = (uint16_t)(SEG_G | (l ? SEG_L : SEG_DB) | SEG_P | dpl << SEG_DPL_SHIFT | SEG_S |
                           SEG_CODE | SEG_RW | SEG_ACCESSED),
        .limit = UINT32_MAX,
    };
}

struct cpu_seg seg_flat_stack(uint16_t sel, unsigned dpl)
{
    return (struct cpu_seg){
        .sel = sel,
        .attr = (uint16_t)(SEG_G | SEG_DB | SEG_P | dpl << SEG_DPL_SHIFT | SEG_S | SEG_RW |
                           SEG_ACCESSED),
        .limit = UINT32_MAX,
    };
}

struct cpu_seg seg_v86(uint16_t sel)
{
    return (struct cpu_seg){
        .sel = sel,
        .attr = SEG_P | SEG_DPL | SEG_S | SEG_RW | SEG_ACCESSED,
        .limit = 0xffff,
        .base = (uint64_t)sel << 4,
    };
}

void seg_set_cs_ss(struct vcpu *v, const struct cpu_seg *cs, const struct cpu_seg *ss)
{
    struct cpu *c = &v->c;
    unsigned cpl = cpu_cpl(c);
    struct cpu_seg old = c->seg[SEG_CS];

    c->seg[SEG_CS] = *cs;
    if (ss != NULL) {
        c->seg[SEG_SS] = *ss;
    }
    if (cpu_cpl(c) != cpl || old.attr != cs->attr || old.base != cs->base ||
        old.limit != cs->limit) {
        vcpu_context_changed(v);
    }
    if (v->until_user && cpu_cpl(c) == 3) {
        vcpu_end_at(v, c->progress + 1);
    }
}

/* --- loads of data segments ------------------------------------------------------------- */

static struct cpu_seg null_seg(uint16_t sel, unsigned dpl)
{
    return (struct cpu_seg){.sel = sel, .attr = (uint16_t)(SEG_NULL | dpl << SEG_DPL_SHIFT)};
}

static struct cpu_seg check_ss(struct vcpu *v, uint16_t sel)
{
    unsigned cpl = cpu_cpl(&v->c);
    unsigned rpl = sel & 3;
    struct desc d;

    if (sel_null(sel)) {
        if (cpu_is64(&v->c) && cpl < 3 && rpl == cpl) {
            return null_seg(sel, cpl);
        }
        cpu_gp0(v);
    }
    if (!desc_fetch(v, sel, &d) || rpl != cpl || !desc_is_writable_data(&d) ||
        desc_dpl(&d) != cpl) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_SS, sel & 0xfffc);
    }
    desc_mark_accessed(v, &d);
    return desc_seg(&d, sel);
}

static struct cpu_seg check_data(struct vcpu *v, uint16_t sel)
{
    unsigned cpl = cpu_cpl(&v->c);
    unsigned rpl = sel & 3;
    struct desc d;

    if (sel_null(sel)) {
        return null_seg(sel, 0);
    }
    if (!desc_fetch(v, sel, &d) || (d.attr & SEG_S) == 0 ||
        (d.attr & (SEG_CODE | SEG_RW)) == SEG_CODE) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    bool conforming = (d.attr & (SEG_CODE | SEG_EC)) == (SEG_CODE | SEG_EC);
    if (!conforming && (rpl > desc_dpl(&d) || cpl > desc_dpl(&d))) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_NP, sel & 0xfffc);
    }
    desc_mark_accessed(v, &d);
    return desc_seg(&d, sel);
}

void seg_load(struct vcpu *v, enum cpu_segreg r, uint16_t sel)
{
    struct cpu *c = &v->c;

    PLX_CHECK(r != SEG_CS);
    if ((c->rflags & FLAG_VM) != 0) {
        c->seg[r] = seg_v86(sel);
    } else if ((c->cr0 & CR0_PE) == 0) {
        /* Only selector and base change: limits set up in protected mode stay. A register that
         * was null there becomes what it is after reset. */
        if ((c->seg[r].attr & SEG_NULL) != 0) {
            c->seg[r].attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED;
            c->seg[r].limit = 0xffff;
        }
        c->seg[r].sel = sel;
        c->seg[r].base = (uint64_t)sel << 4;
    } else if (r == SEG_SS) {
        c->seg[SEG_SS] = check_ss(v, sel);
    } else {
        c->seg[r] = check_data(v, sel);
    }
}

struct cpu_seg seg_check_return_ss(struct vcpu *v, uint16_t sel, unsigned cpl, bool to64)
{
    struct desc d;

    if (sel_null(sel)) {
        if (to64 && cpl < 3 && (sel & 3) == cpl) {
            return null_seg(sel, cpl);
        }
        cpu_gp0(v);
    }
    if (!desc_fetch(v, sel, &d) || (sel & 3) != cpl || !desc_is_writable_data(&d) ||
        desc_dpl(&d) != cpl) {
        cpu_raise_error(v, VEC_GP, sel & 0xfffc);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_SS, sel & 0xfffc);
    }
    desc_mark_accessed(v, &d);
    return desc_seg(&d, sel);
}

void seg_drop_privileged(struct vcpu *v)
{
    static const enum cpu_segreg regs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    unsigned cpl = cpu_cpl(&v->c);

    for (unsigned i = 0; i < PLX_COUNT(regs); i++) {
        struct cpu_seg *s = &v->c.seg[regs[i]];
        bool conforming = (s->attr & (SEG_CODE | SEG_EC)) == (SEG_CODE | SEG_EC);
        unsigned dpl = (s->attr & SEG_DPL) >> SEG_DPL_SHIFT;

        if ((s->attr & SEG_NULL) == 0 && !conforming && dpl < cpl) {
            /* The base stays: a 64-bit kernel's GS survives an IRET of whoever left it there. */
            s->sel = 0;
            s->attr = SEG_NULL;
            s->limit = 0;
        }
    }
}

/* --- linear addresses ------------------------------------------------------------------- */

/* Offsets [off, off + size) lie inside the segment (SDM Vol. 3A, "Limit Checking"). */
static bool within_limit(const struct cpu_seg *s, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;

    if ((s->attr & (SEG_CODE | SEG_EC)) == SEG_EC && (s->attr & SEG_NULL) == 0) {
        uint64_t top = (s->attr & SEG_DB) != 0 ? UINT32_MAX : 0xffff;
        return off > s->limit && last <= top;
    }
    return last <= s->limit;
}

static bool access_allowed(const struct vcpu *v, const struct cpu_seg *s, bool write)
{
    if ((v->c.cr0 & CR0_PE) == 0) {
        return true;
    }
    if ((s->attr & SEG_NULL) != 0) {
        return false;
    }
    if (write) {
        return (s->attr & (SEG_CODE | SEG_RW)) == SEG_RW;
    }
    return (s->attr & (SEG_CODE | SEG_RW)) != SEG_CODE;
}

gva_t seg_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, bool write)
{
    const struct cpu_seg *s = &v->c.seg[seg];

    if (cpu_is64(&v->c)) {
        gva_t lin = seg >= SEG_FS ? s->base + off : off;
        if (PLX_LIKELY(cpu_canonical(lin) && cpu_canonical(lin + size - 1))) {
            return lin;
        }
    } else {
        off &= UINT32_MAX;
        if (PLX_LIKELY(access_allowed(v, s, write) && within_limit(s, off, size))) {
            return (s->base + off) & UINT32_MAX;
        }
    }
    cpu_raise_error(v, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* --- stacks ----------------------------------------------------------------------------- */

static uint8_t stack_width(const struct vcpu *v, const struct cpu_seg *ss)
{
    return cpu_is64(&v->c) ? 8 : (ss->attr & SEG_DB) != 0 ? 4 : 2;
}

struct stack stack_current(const struct vcpu *v)
{
    const struct cpu_seg *ss = &v->c.seg[SEG_SS];

    return (struct stack){
        .ss = *ss,
        .sp = v->c.gpr[RSP],
        .width = stack_width(v, ss),
        .user = cpu_cpl(&v->c) == 3,
    };
}

static gva_t stack_linear(struct vcpu *v, const struct stack *s, uint64_t off, unsigned size)
{
    if (s->width == 8) {
        if (cpu_canonical(off) && cpu_canonical(off + size - 1)) {
            return off;
        }
    } else if (within_limit(&s->ss, off, size)) {
        return (s->ss.base + off) & UINT32_MAX;
    }
    cpu_raise_error(v, VEC_SS, s->error);
}

void stack_push(struct vcpu *v, struct stack *s, unsigned size, uint64_t value)
{
    uint64_t off = (s->sp - size) & size_mask(s->width);

    mem_write_lin(v, stack_linear(v, s, off, size), size, value & size_mask(size), s->user);
    s->sp = (s->sp & ~size_mask(s->width)) | off;
}

uint64_t stack_pop(struct vcpu *v, struct stack *s, unsigned size)
{
    uint64_t off = s->sp & size_mask(s->width);
    uint64_t value = mem_read_lin(v, stack_linear(v, s, off, size), size, s->user);

    s->sp = (s->sp & ~size_mask(s->width)) | ((off + size) & size_mask(s->width));
    return value;
}

void stack_commit(struct vcpu *v, const struct stack *s)
{
    v->c.seg[SEG_SS] = s->ss;
    reg_write(v, RSP, s->width, s->sp);
}

struct stack stack_from_tss(struct vcpu *v, unsigned level, uint32_t ext)
{
    const struct cpu_seg *tr = &v->c.tr;
    bool tss32 = (tr->attr & SEG_TYPE) >= SYS_TSS32;
    unsigned size = tss32 ? 4 : 2;
    uint32_t off = tss32 ? level * 8 + 4 : level * 4 + 2;
    struct desc d;

    if (off + size + 1 > tr->limit) {
        cpu_raise_error(v, VEC_TS, (tr->sel & 0xfffcU) | ext);
    }
    uint64_t sp = mem_read_lin(v, table_address(v, tr->base, off), size, false);
    uint16_t sel = (uint16_t)mem_read_lin(v, table_address(v, tr->base, off + size), 2, false);
    if (sel_null(sel)) {
        cpu_raise_error(v, VEC_TS, ext);
    }
    if (!desc_fetch(v, sel, &d) || (sel & 3U) != level || desc_dpl(&d) != level ||
        !desc_is_writable_data(&d)) {
        cpu_raise_error(v, VEC_TS, (sel & 0xfffcU) | ext);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_SS, (sel & 0xfffcU) | ext);
    }
    desc_mark_accessed(v, &d);
    struct stack s = {
        .ss = desc_seg(&d, sel),
        .sp = sp,
        .width = (d.attr & SEG_DB) != 0 ? 4 : 2,
        .user = level == 3,
        .error = (sel & 0xfffcU) | ext,
    };
    return s;
}

uint64_t stack_from_tss64(struct vcpu *v, unsigned n, uint32_t ext)
{
    const struct cpu_seg *tr = &v->c.tr;
    uint32_t off = n < 3 ? 4 + n * 8 : 0x24 + (n - 3) * 8;

    if (off + 7 > tr->limit) {
        cpu_raise_error(v, VEC_TS, (tr->sel & 0xfffcU) | ext);
    }
    uint64_t sp = mem_read_lin(v, tr->base + off, 8, false);
    if (!cpu_canonical(sp)) {
        cpu_raise_error(v, VEC_SS, ext);
    }
    return sp;
}
