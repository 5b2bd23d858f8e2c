/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_flags.c - the system flags: CLI, STI, PUSHF, POPF, CLAC, STAC; and HLT (SDM Vol. 2;
 * Vol. 3A, "Masking Maskable Hardware Interrupts"). Virtual interrupt flags (VME, PVI) are not
 * offered.
 *
 * Ownership, threading, determinism: as exc.c. */
#include "vmm/cpu/mem.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys_ops.h"

static unsigned iopl(const struct cpu *c)
{
    return (unsigned)((c->rflags & FLAG_IOPL) >> 12);
}

uint64_t sys_writable_flags(const struct cpu *c, unsigned size, unsigned cpl)
{
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

    if (size >= 4) {
        mask |= FLAG_AC | FLAG_ID;
    }
    if (cpl <= iopl(c)) {
        mask |= FLAG_IF;
    }
    if (cpl == 0) {
        mask |= FLAG_IOPL;
    }
    return mask;
}

void sys_cli(struct vcpu *v, const struct insn *in)
{
    (void)in;
    if (cpu_cpl(&v->c) > iopl(&v->c)) {
        cpu_gp0(v);
    }
    v->c.rflags &= ~FLAG_IF;
}

void sys_sti(struct vcpu *v, const struct insn *in)
{
    (void)in;
    if (cpu_cpl(&v->c) > iopl(&v->c)) {
        cpu_gp0(v);
    }
    if ((v->c.rflags & FLAG_IF) == 0) {
        v->c.rflags |= FLAG_IF;
        v->c.sti_shadow = 1;
        v->attention = true;
    }
}

static void set_ac(struct vcpu *v, uint64_t ac)
{
    if (cpu_cpl(&v->c) != 0) {
        cpu_ud(v);
    }
    v->c.rflags = (v->c.rflags & ~FLAG_AC) | ac;
    vcpu_mem_select(v);
}

void sys_clac(struct vcpu *v, const struct insn *in)
{
    (void)in;
    set_ac(v, 0);
}

void sys_stac(struct vcpu *v, const struct insn *in)
{
    (void)in;
    set_ac(v, FLAG_AC);
}

static void check_v86(struct vcpu *v)
{
    if ((v->c.rflags & FLAG_VM) != 0 && iopl(&v->c) != 3) {
        cpu_gp0(v);
    }
}

void sys_pushf(struct vcpu *v, const struct insn *in)
{
    check_v86(v);
    mem_push(v, in->osz, v->c.rflags & ~(FLAG_VM | FLAG_RF));
}

void sys_popf(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;

    check_v86(v);
    uint64_t mask = sys_writable_flags(c, in->osz, cpu_cpl(c));
    uint64_t flags = mem_pop(v, in->osz);
    c->rflags = ((c->rflags & ~mask) | (flags & mask) | FLAG_ONE) & ~FLAG_RF;
    vcpu_mem_select(v);
    v->attention = true;
}

void sys_hlt(struct vcpu *v, const struct insn *in)
{
    (void)in;
    if (cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
    v->c.halted = 1;
    v->attention = true;
}
