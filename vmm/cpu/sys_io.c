/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_io.c - IN, OUT, INS, OUTS and who may use them (SDM Vol. 1, "Input/Output").
 *
 * Ownership, threading: as exc.c; ports are reached in the serial part. Determinism: devices are
 * part of the machine. */
#include "vmm/cpu/operand.h"
#include "vmm/cpu/rep.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys_ops.h"

enum { TSS_IOMAP = 0x66 };

/* SDM Vol. 1, "I/O Permission Bit Map". 1, 2 or 4 ports never need more than 2 bytes of it. */
static void check_port(struct vcpu *v, uint16_t port, unsigned size)
{
    const struct cpu *c = &v->c;
    unsigned iopl = (unsigned)((c->rflags & FLAG_IOPL) >> 12);

    if ((c->cr0 & CR0_PE) == 0 || (cpu_cpl(c) <= iopl && (c->rflags & FLAG_VM) == 0)) {
        return;
    }
    if ((c->tr.attr & SEG_NULL) != 0 || (c->tr.attr & SEG_TYPE) != SYS_TSS32_BUSY ||
        c->tr.limit < TSS_IOMAP + 1) {
        cpu_gp0(v);
    }
    uint64_t mask = cpu_lma(c) ? UINT64_MAX : UINT32_MAX;
    uint32_t off = (uint32_t)mem_read_lin(v, (c->tr.base + TSS_IOMAP) & mask, 2, false) + port / 8U;
    if (off + 1 > c->tr.limit) {
        cpu_gp0(v);
    }
    uint64_t bits = mem_read_lin(v, (c->tr.base + off) & mask, 2, false);
    if ((bits >> port % 8 & ((1U << size) - 1)) != 0) {
        cpu_gp0(v);
    }
}

static uint64_t port_in(struct vcpu *v, uint16_t port, unsigned size)
{
    vcpu_need_serial(v);
    if (v->debug) {
        exc_io_access(v, port, size);
    }
    return v->ops->pio_read(v->ops_ctx, port, size) & size_mask(size);
}

static void port_out(struct vcpu *v, uint16_t port, unsigned size, uint64_t value)
{
    vcpu_need_serial(v);
    if (v->debug) {
        exc_io_access(v, port, size);
    }
    v->ops->pio_write(v->ops_ctx, port, size, value & size_mask(size));
}

/* The port operand: an immediate byte, or DX. */
static uint16_t port_of(const struct vcpu *v, const struct opd *o, const struct insn *in)
{
    return o->kind == OPD_IMM ? (uint16_t)(in->imm & 0xff) : (uint16_t)reg_read(v, RDX, 2);
}

/* Bit 0 of the opcode: byte, or operand size; 64-bit operands do not exist here. */
static unsigned io_size(const struct insn *in)
{
    return (in->opcode & 1) == 0 ? 1 : in->osz == 2 ? 2 : 4;
}

void sys_in(struct vcpu *v, const struct insn *in)
{
    unsigned size = io_size(in);
    uint16_t port = port_of(v, &in->opd[1], in);

    check_port(v, port, size);
    reg_write(v, RAX, size, port_in(v, port, size));
}

void sys_out(struct vcpu *v, const struct insn *in)
{
    unsigned size = io_size(in);
    uint16_t port = port_of(v, &in->opd[0], in);

    check_port(v, port, size);
    port_out(v, port, size, reg_read(v, RAX, size));
}

static void advance(struct vcpu *v, const struct insn *in, unsigned reg, unsigned size)
{
    uint64_t step = (v->c.rflags & FLAG_DF) != 0 ? -(uint64_t)size : size;

    reg_write(v, reg, in->asz, reg_read(v, reg, in->asz) + step);
}

static void ins_once(struct vcpu *v, const struct insn *in, unsigned size, uint16_t port)
{
    uint64_t off = reg_read(v, RDI, in->asz);

    mem_probe_write(v, SEG_ES, off, size); /* the port is read only if the store will succeed */
    mem_write(v, SEG_ES, off, size, port_in(v, port, size));
    advance(v, in, RDI, size);
}

static void outs_once(struct vcpu *v, const struct insn *in, unsigned size, uint16_t port)
{
    uint64_t value = mem_read(v, in->seg, reg_read(v, RSI, in->asz), size);

    port_out(v, port, size, value);
    advance(v, in, RSI, size);
}

static void string_io(struct vcpu *v, const struct insn *in,
                      void (*once)(struct vcpu *, const struct insn *, unsigned, uint16_t))
{
    unsigned size = io_size(in);
    uint16_t port = (uint16_t)reg_read(v, RDX, 2);
    struct rep r;

    check_port(v, port, size);
    if ((in->flags & (INSN_REP | INSN_REPNE)) == 0) {
        once(v, in, size, port);
        return;
    }
    if (!rep_begin(v, in, size, &r)) {
        return;
    }
    while (rep_next(v, in, &r)) {
        once(v, in, size, port);
        rep_done(v, in, &r, 1);
    }
    rep_end(v, &r, false);
}

void sys_ins(struct vcpu *v, const struct insn *in)
{
    string_io(v, in, ins_once);
}

void sys_outs(struct vcpu *v, const struct insn *in)
{
    string_io(v, in, outs_once);
}
