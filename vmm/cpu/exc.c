/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/exc.c - raising and delivering exceptions, interrupts and NMIs; stepping and
 * breakpoints (SDM Vol. 3A, "Interrupt and Exception Handling"; Vol. 3B, "Debug, Branch Profile,
 * TSC, and Intel Resource Director Technology Features").
 *
 * Ownership: works on the vCPU it is given. Threading: the thread that runs it. Determinism: a
 * pure function of vCPU and memory.
 *
 * Delivery checks and pushes first and changes registers last, so a fault in the middle (a longjmp
 * through v->fault_jmp) leaves only bytes below the handler's stack pointer behind. Task gates in
 * the IDT raise #GP with the gate's selector: no hardware task switches (see far.c). */
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/operand.h"
#include "vmm/cpu/seg.h"

enum { ERR_EXT = 1, ERR_IDT = 2 };

#define DR6_B  UINT64_C(0xf)
#define DR6_BD UINT64_C(0x2000)
#define DR6_BS UINT64_C(0x4000)
#define DR7_GD UINT64_C(0x2000)

/* --- what is delivered ------------------------------------------------------------------ */

struct event {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    bool soft;    /* INT n, INT3, INTO: gate DPL counts, EXT is clear */
    bool set_rf;  /* pushed flags have RF: faults */
    uint64_t rip; /* pushed */
};

struct gate {
    uint8_t type;
    bool trap; /* leaves IF alone */
    bool wide; /* 32-bit gate (in IA-32e mode: 64-bit) */
    uint8_t ist;
    uint16_t sel;
    uint64_t offset;
};

static uint32_t idt_error(const struct event *e)
{
    return (uint32_t)e->vector * 8 | ERR_IDT | (e->soft ? 0 : ERR_EXT);
}

static struct gate read_gate(struct vcpu *v, const struct event *e)
{
    const struct cpu *c = &v->c;
    bool lma = cpu_lma(c);
    unsigned size = lma ? 16 : 8;
    uint32_t off = e->vector * size;
    struct gate g;

    if (off + size - 1 > c->idtr.limit) {
        cpu_raise_error(v, VEC_GP, idt_error(e));
    }
    gva_t addr = c->idtr.base + off;
    if (!lma) {
        addr &= UINT32_MAX;
    }
    uint64_t raw = mem_read_lin(v, addr, 8, false);
    unsigned attr = (unsigned)(raw >> 40) & 0xff;
    g.type = attr & 0x1f; /* with S, which must be clear */
    g.trap = g.type == SYS_TRAP16 || g.type == SYS_TRAP32;
    g.wide = g.type >= SYS_INT32;
    g.ist = lma ? (raw >> 32) & 7 : 0;
    g.sel = (uint16_t)(raw >> 16);
    g.offset = (raw & 0xffff) | (g.wide ? raw >> 32 & 0xffff0000 : 0);
    bool narrow_ok = !lma && (g.type == SYS_INT16 || g.type == SYS_TRAP16);
    if (g.type != SYS_INT32 && g.type != SYS_TRAP32 && !narrow_ok) {
        cpu_raise_error(v, VEC_GP, idt_error(e));
    }
    if (e->soft && (attr & SEG_DPL) >> SEG_DPL_SHIFT < cpu_cpl(c)) {
        cpu_raise_error(v, VEC_GP, idt_error(e));
    }
    if ((attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_NP, idt_error(e));
    }
    if (lma) {
        g.offset |= mem_read_lin(v, addr + 8, 8, false) << 32;
    }
    return g;
}

static struct desc read_handler_segment(struct vcpu *v, const struct gate *g, uint32_t ext)
{
    struct desc d;

    if (sel_null(g->sel)) {
        cpu_raise_error(v, VEC_GP, ext);
    }
    uint32_t err = (g->sel & 0xfffcU) | ext;
    if (!desc_fetch(v, g->sel, &d) || !desc_is_code(&d) || desc_dpl(&d) > cpu_cpl(&v->c)) {
        cpu_raise_error(v, VEC_GP, err);
    }
    if (cpu_lma(&v->c) && (d.attr & (SEG_L | SEG_DB)) != SEG_L) {
        cpu_raise_error(v, VEC_GP, err);
    }
    if ((d.attr & SEG_P) == 0) {
        cpu_raise_error(v, VEC_NP, err);
    }
    return d;
}

static uint64_t pushed_flags(const struct vcpu *v, const struct event *e)
{
    return v->c.rflags | (e->set_rf ? FLAG_RF : 0);
}

static void enter_handler(struct vcpu *v, const struct gate *g, uint64_t *rip)
{
    v->c.rflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (g->trap ? 0 : FLAG_IF));
    *rip = g->offset;
}

/* SDM Vol. 3A, "Exception and Interrupt Handling in 64-bit Mode". */
static void deliver_long(struct vcpu *v, const struct event *e, uint64_t *rip)
{
    struct cpu *c = &v->c;
    uint32_t ext = e->soft ? 0 : ERR_EXT;
    struct gate g = read_gate(v, e);
    struct desc d = read_handler_segment(v, &g, ext);
    unsigned cpl = cpu_cpl(c);
    unsigned to = (d.attr & SEG_EC) != 0 ? cpl : desc_dpl(&d);
    struct stack s = {
        .ss = c->seg[SEG_SS], .sp = c->gpr[RSP], .width = 8, .user = to == 3, .error = ext};

    if (g.ist != 0) {
        s.sp = stack_from_tss64(v, g.ist + 2U, ext);
    } else if (to != cpl) {
        s.sp = stack_from_tss64(v, to, ext);
    }
    if (to != cpl) {
        s.ss = (struct cpu_seg){.sel = (uint16_t)to,
                                .attr = (uint16_t)(SEG_NULL | to << SEG_DPL_SHIFT)};
        s.error = ext;
    }
    if (!cpu_canonical(g.offset)) {
        cpu_raise_error(v, VEC_GP, ext);
    }
    s.sp &= ~UINT64_C(15);
    stack_push(v, &s, 8, c->seg[SEG_SS].sel);
    stack_push(v, &s, 8, c->gpr[RSP]);
    stack_push(v, &s, 8, pushed_flags(v, e));
    stack_push(v, &s, 8, c->seg[SEG_CS].sel);
    stack_push(v, &s, 8, e->rip);
    if (e->has_error) {
        stack_push(v, &s, 8, e->error);
    }
    desc_mark_accessed(v, &d);
    struct cpu_seg cs = desc_seg(&d, (uint16_t)((g.sel & 0xfffc) | to));
    c->gpr[RSP] = s.sp;
    enter_handler(v, &g, rip);
    seg_set_cs_ss(v, &cs, &s.ss);
}

/* SDM Vol. 3A, "Exception- or Interrupt-Handler Procedures" and "Interrupt and Exception
 * Handling in Virtual-8086 Mode". */
static void deliver_protected(struct vcpu *v, const struct event *e, uint64_t *rip)
{
    static const enum cpu_segreg v86_order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
    struct cpu *c = &v->c;
    uint32_t ext = e->soft ? 0 : ERR_EXT;
    struct gate g = read_gate(v, e);
    struct desc d = read_handler_segment(v, &g, ext);
    unsigned cpl = cpu_cpl(c);
    bool vm = (c->rflags & FLAG_VM) != 0;
    unsigned to = (d.attr & SEG_EC) != 0 ? cpl : desc_dpl(&d);
    unsigned size = g.wide ? 4 : 2;
    struct stack s = stack_current(v);

    if (vm && to != 0) {
        cpu_raise_error(v, VEC_GP, (g.sel & 0xfffcU) | ext);
    }
    if (to != cpl) {
        s = stack_from_tss(v, to, ext);
    } else {
        s.error = ext;
    }
    struct cpu_seg cs = desc_seg(&d, (uint16_t)((g.sel & 0xfffc) | to));
    if (g.offset > cs.limit) {
        cpu_raise_error(v, VEC_GP, ext);
    }
    if (vm) {
        for (unsigned i = 0; i < PLX_COUNT(v86_order); i++) {
            stack_push(v, &s, size, c->seg[v86_order[i]].sel);
        }
    }
    if (to != cpl) {
        stack_push(v, &s, size, c->seg[SEG_SS].sel);
        stack_push(v, &s, size, c->gpr[RSP]);
    }
    stack_push(v, &s, size, pushed_flags(v, e));
    stack_push(v, &s, size, c->seg[SEG_CS].sel);
    stack_push(v, &s, size, e->rip);
    if (e->has_error) {
        stack_push(v, &s, size, e->error);
    }
    desc_mark_accessed(v, &d);
    cs.attr |= SEG_ACCESSED;
    if (vm) {
        for (unsigned i = 0; i < PLX_COUNT(v86_order); i++) {
            c->seg[v86_order[i]] = (struct cpu_seg){.attr = SEG_NULL};
        }
    }
    reg_write(v, RSP, s.width, s.sp);
    enter_handler(v, &g, rip);
    seg_set_cs_ss(v, &cs, &s.ss);
}

/* SDM Vol. 3A, "Interrupt and Exception Handling" of real-address mode. */
static void deliver_real(struct vcpu *v, const struct event *e, uint64_t *rip)
{
    struct cpu *c = &v->c;
    uint32_t off = e->vector * 4U;
    struct stack s = stack_current(v);

    if (off + 3 > c->idtr.limit) {
        cpu_raise_error(v, VEC_GP, idt_error(e));
    }
    uint64_t raw = mem_read_lin(v, (c->idtr.base + off) & UINT32_MAX, 4, false);
    stack_push(v, &s, 2, c->rflags);
    stack_push(v, &s, 2, c->seg[SEG_CS].sel);
    stack_push(v, &s, 2, e->rip);
    struct cpu_seg cs = c->seg[SEG_CS];
    cs.sel = (uint16_t)(raw >> 16);
    cs.base = (uint64_t)cs.sel << 4;
    reg_write(v, RSP, s.width, s.sp);
    c->rflags &= ~(FLAG_IF | FLAG_TF | FLAG_RF | FLAG_AC);
    vcpu_mem_select(v);
    *rip = raw & 0xffff;
    seg_set_cs_ss(v, &cs, NULL);
}

static void deliver(struct vcpu *v, const struct event *e, uint64_t *rip)
{
    if (cpu_lma(&v->c)) {
        deliver_long(v, e, rip);
    } else if ((v->c.cr0 & CR0_PE) != 0) {
        deliver_protected(v, e, rip);
    } else {
        deliver_real(v, e, rip);
    }
}

/* --- folding (SDM Vol. 3A, "Interrupt 8 - Double Fault Exception (#DF)") -------------------- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class class_of(const struct event *e)
{
    switch (e->vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        return CONTRIBUTORY;
    case VEC_PF:
        return PAGE_FAULT;
    case VEC_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

static struct event event_of_fault(const struct vcpu *v)
{
    return (struct event){
        .vector = v->fault_vector,
        .has_error = v->fault_has_error && (v->c.cr0 & CR0_PE) != 0,
        .error = v->fault_error,
        .set_rf = v->fault_kind == FAULT_EXCEPTION && v->fault_vector != VEC_DF,
        .rip = v->fault_kind == FAULT_TRAP ? v->next_rip : v->c.rip,
    };
}

/* What is delivered when delivering @first raised @second. False: shutdown. */
static bool fold(const struct event *first, enum fault_class first_class, struct event *second,
                 enum fault_class *class)
{
    *class = class_of(second);
    if (first_class == DOUBLE_FAULT && *class != BENIGN) {
        return false;
    }
    if ((first_class == CONTRIBUTORY && *class == CONTRIBUTORY) ||
        (first_class == PAGE_FAULT && *class != BENIGN)) {
        *second = (struct event){.vector = VEC_DF, .has_error = true, .rip = first->rip};
        *class = DOUBLE_FAULT;
    }
    second->rip = first->rip;
    return true;
}

/* False: delivering raised a fault or has to stop, see v->fault_*. */
static bool try_deliver(struct vcpu *v, const struct event *e)
{
    uint64_t rip;

    if (setjmp(v->fault_jmp) != 0) {
        return false;
    }
    deliver(v, e, &rip);
    if (e->vector == VEC_DB) {
        v->c.dr[7] &= ~DR7_GD;
    }
    v->c.rip = rip;
    return true;
}

/* Deliver @e outside of any instruction, and what goes wrong on the way. @class is that of @e:
 * interrupts are benign whatever their vector. */
static int deliver_folding(struct vcpu *v, struct event e, enum fault_class class)
{
    uint64_t cr2 = v->c.cr2;
    jmp_buf outer;
    int rc = 0;

    /* cppcheck-suppress uninitvar ; it is what is written */
    memcpy(outer, v->fault_jmp, sizeof outer);
    v->cur = NULL;
    while (!try_deliver(v, &e)) {
        if (v->fault_kind == FAULT_STOP) {
            v->c.cr2 = cr2;
            rc = v->stop;
            break;
        }
        struct event second = event_of_fault(v);
        if (second.vector == VEC_PF) {
            v->c.cr2 = v->cr2;
        }
        if (!fold(&e, class, &second, &class)) {
            rc = VCPU_SHUTDOWN;
            break;
        }
        e = second;
    }
    memcpy(v->fault_jmp, outer, sizeof outer);
    return rc;
}

int exc_deliver_fault(struct vcpu *v)
{
    struct event e = event_of_fault(v);
    uint64_t cr2 = v->c.cr2;

    if (e.vector == VEC_PF) {
        v->c.cr2 = v->cr2;
    }
    int rc = deliver_folding(v, e, class_of(&e));
    if (vcpu_blocks(rc)) {
        v->c.cr2 = cr2;
    }
    return rc;
}

int exc_deliver_interrupt(struct vcpu *v, unsigned vector)
{
    struct event e = {.vector = (uint8_t)vector, .rip = v->c.rip};

    int rc = deliver_folding(v, e, BENIGN);
    if (!vcpu_blocks(rc)) {
        v->c.halted = 0;
    }
    return rc;
}

int exc_deliver_nmi(struct vcpu *v)
{
    struct event e = {.vector = VEC_NMI, .rip = v->c.rip};

    int rc = deliver_folding(v, e, BENIGN);
    if (!vcpu_blocks(rc)) {
        v->c.halted = 0;
        v->c.nmi_pending = 0;
        v->c.nmi_blocked = 1;
    }
    return rc;
}

void exc_software_interrupt(struct vcpu *v, unsigned vector, bool int_n)
{
    /* INT1 is the one that passes any gate and counts as external. */
    bool soft = int_n || vector != VEC_DB;
    struct event e = {.vector = (uint8_t)vector, .soft = soft, .rip = v->next_rip};

    if (int_n && (v->c.rflags & FLAG_VM) != 0 && (v->c.rflags & FLAG_IOPL) != FLAG_IOPL) {
        cpu_gp0(v);
    }
    deliver(v, &e, &v->next_rip);
    if (vector == VEC_DB && !int_n) {
        v->c.dr[7] &= ~DR7_GD;
    }
    v->step_tf = false;
}

/* --- stepping --------------------------------------------------------------------------- */

/* DR7: L0 G0 L1 G1 L2 G2 L3 G3 at bits 0-7; from bit 16, per breakpoint, R/W (2 bits) and LEN
 * (2 bits: 1, 2, 8, 4 bytes). */
enum bp_kind { BP_INSN = 0, BP_WRITE = 1, BP_IO = 2, BP_ACCESS = 3 };

static bool bp_enabled(const struct cpu *c, unsigned i)
{
    return (c->dr[7] >> (i * 2) & 3) != 0;
}

static enum bp_kind bp_kind(const struct cpu *c, unsigned i)
{
    return (enum bp_kind)(c->dr[7] >> (16 + i * 4) & 3);
}

static bool bp_covers(const struct cpu *c, unsigned i, uint64_t addr, unsigned size)
{
    static const uint8_t lens[] = {1, 2, 8, 4};
    uint64_t len = lens[c->dr[7] >> (18 + i * 4) & 3];
    uint64_t start = c->dr[i] & ~(len - 1);

    return addr <= start + len - 1 && start <= addr + size - 1;
}

void exc_debug_update(struct vcpu *v)
{
    v->debug = (v->c.dr[7] & 0xff) != 0;
    vcpu_mem_select(v); /* data breakpoints see every access */
}

void exc_step_before(struct vcpu *v)
{
    const struct cpu *c = &v->c;
    uint64_t hits = 0;

    v->step_tf = (c->rflags & FLAG_TF) != 0;
    v->step_rf = (c->rflags & FLAG_RF) != 0;
    v->debug_hits = 0;
    if (!v->debug || v->step_rf || c->movss_shadow != 0) {
        return;
    }
    uint64_t lin = cpu_is64(c) ? c->rip : (c->seg[SEG_CS].base + c->rip) & UINT32_MAX;
    for (unsigned i = 0; i < 4; i++) {
        if (bp_enabled(c, i) && bp_kind(c, i) == BP_INSN && c->dr[i] == lin) {
            hits |= UINT64_C(1) << i;
        }
    }
    if (hits != 0) {
        v->c.dr[6] = (c->dr[6] & ~DR6_B) | hits;
        v->step_tf = false;
        /* A fault, but one whose handler's frame keeps RF as it is: delivered like a trap that
         * returns to this very instruction. */
        v->fault_vector = VEC_DB;
        v->fault_has_error = false;
        v->fault_error = 0;
        v->fault_kind = FAULT_TRAP;
        v->next_rip = c->rip;
        longjmp(v->fault_jmp, 1);
    }
}

void exc_data_access(struct vcpu *v, gva_t lin, unsigned size, bool write)
{
    const struct cpu *c = &v->c;

    for (unsigned i = 0; i < 4; i++) {
        enum bp_kind k = bp_kind(c, i);
        if (bp_enabled(c, i) && (k == BP_ACCESS || (k == BP_WRITE && write)) &&
            bp_covers(c, i, lin, size)) {
            v->debug_hits |= (uint8_t)(1U << i);
        }
    }
}

void exc_io_access(struct vcpu *v, uint16_t port, unsigned size)
{
    const struct cpu *c = &v->c;

    if ((c->cr4 & CR4_DE) == 0) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (bp_enabled(c, i) && bp_kind(c, i) == BP_IO && bp_covers(c, i, port, size)) {
            v->debug_hits |= (uint8_t)(1U << i);
        }
    }
}

int exc_step_after(struct vcpu *v)
{
    struct cpu *c = &v->c;
    uint8_t hits = v->debug_hits;

    if (v->step_rf) {
        c->rflags &= ~FLAG_RF;
    }
    v->debug_hits = 0;
    if (!v->step_tf && hits == 0) {
        return 0;
    }
    c->dr[6] = (c->dr[6] & ~DR6_B) | hits;
    if (c->movss_shadow != 0) {
        return 0; /* MOV or POP SS just ran: its debug exception is lost, the hits stay in DR6 */
    }
    if (v->step_tf) {
        c->dr[6] |= DR6_BS;
    }
    struct event e = {.vector = VEC_DB, .rip = c->rip};
    return deliver_folding(v, e, BENIGN);
}
