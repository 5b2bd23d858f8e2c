/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_stack.c - PUSH, POP, PUSHA, POPA, ENTER, LEAVE. */
#include "vmm/cpu/int.h"
#include "vmm/cpu/sys.h"

/* 64-bit mode, the usual forms. */
static void push_r8(struct vcpu *v, const struct insn *in)
{
    uint64_t sp = v->c.gpr[RSP] - 8;
    uint64_t *p = tlb_write(v, sp, 8);

    if (PLX_LIKELY(p != NULL)) {
        *p = v->c.gpr[in->opd[0].reg];
        v->c.gpr[RSP] = sp;
    } else {
        mem_push(v, 8, v->c.gpr[in->opd[0].reg]);
    }
}

static void pop_r8(struct vcpu *v, const struct insn *in)
{
    uint64_t sp = v->c.gpr[RSP];
    const uint64_t *p = tlb_read(v, sp, 8);

    if (PLX_LIKELY(p != NULL)) {
        v->c.gpr[RSP] = sp + 8;
        v->c.gpr[in->opd[0].reg] = *p;
    } else {
        v->c.gpr[in->opd[0].reg] = mem_pop(v, 8);
    }
}

static void push_any(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].kind == OPD_IMM ? in->ssz : in->opd[0].size;
    uint64_t value = in->opd[0].kind == OPD_IMM ? in->imm & size_mask(size) : opd_read(v, in, 0);

    mem_push(v, size, value);
}

/* The address of a memory destination is computed with the stack pointer already moved; if the
 * store faults, the stack pointer is as before (SDM Vol. 2, "POP"). */
static void pop_any(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    uint64_t before = v->c.gpr[RSP];
    uint64_t value = mem_pop(v, size);

    if (in->opd[0].kind != OPD_MEM) {
        opd_write(v, in, 0, value);
        return;
    }
    uint64_t after = v->c.gpr[RSP];
    uint64_t ea = mem_ea(v, in);
    v->c.gpr[RSP] = before;
    mem_write(v, in->seg, ea, size, value);
    v->c.gpr[RSP] = after;
}

insn_fn int_pick_push(const struct insn *in)
{
    if (in->opd[0].kind == OPD_SEG) {
        return sys_push_seg;
    }
    return in->opd[0].kind == OPD_REG && in->opd[0].size == 8 ? push_r8 : push_any;
}

insn_fn int_pick_pop(const struct insn *in)
{
    if (in->opd[0].kind == OPD_SEG) {
        return sys_pop_seg;
    }
    return in->opd[0].kind == OPD_REG && in->opd[0].size == 8 ? pop_r8 : pop_any;
}

/* Stack pointer arithmetic outside 64-bit mode and inside it. */
static uint64_t sp_mask(const struct vcpu *v)
{
    return cpu_is64(&v->c)                         ? UINT64_MAX
           : (v->c.seg[SEG_SS].attr & SEG_DB) != 0 ? UINT32_MAX
                                                   : 0xffff;
}

void int_pusha(struct vcpu *v, const struct insn *in)
{
    static const uint8_t order[] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI};
    uint64_t sp = v->c.gpr[RSP];

    mem_probe_write(v, SEG_SS, (sp - 8U * in->osz) & sp_mask(v), 8U * in->osz);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t value = order[i] == RSP ? sp : v->c.gpr[order[i]];
        mem_push(v, in->osz, value & size_mask(in->osz));
    }
}

void int_popa(struct vcpu *v, const struct insn *in)
{
    static const uint8_t order[] = {RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX};
    uint8_t probe[8 * 4];

    mem_read_bytes(v, SEG_SS, v->c.gpr[RSP] & sp_mask(v), probe, 8U * in->osz);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t value = mem_pop(v, in->osz);
        if (order[i] != RSP) {
            reg_write(v, order[i], in->osz, value);
        }
    }
}

/* SDM Vol. 2, "ENTER". No register changes unless all of it succeeds; what was pushed before the
 * last check fails stays in memory, as on processors. */
void int_enter(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->ssz;
    unsigned level = in->imm2 & 31;
    uint64_t mask = sp_mask(v);
    uint64_t sp = (v->c.gpr[RSP] - size) & mask;
    uint64_t bp = v->c.gpr[RBP];

    if (level > 0) {
        vcpu_need_serial(v);
    }
    mem_write(v, SEG_SS, sp, size, bp & size_mask(size));
    uint64_t frame = sp;
    for (unsigned i = 1; i < level; i++) {
        bp -= size;
        uint64_t link = mem_read(v, SEG_SS, bp & mask, size);
        sp = (sp - size) & mask;
        mem_write(v, SEG_SS, sp, size, link);
    }
    if (level > 0) {
        sp = (sp - size) & mask;
        mem_write(v, SEG_SS, sp, size, frame & size_mask(size));
    }
    sp = (sp - (in->imm & 0xffff)) & mask;
    mem_probe_write(v, SEG_SS, sp, size); /* "a write using the final value of the stack pointer" */
    reg_write(v, RBP, size, frame);
    reg_write(v, RSP, mask == 0xffff ? 2 : mask == UINT32_MAX ? 4 : 8, sp);
}

void int_leave(struct vcpu *v, const struct insn *in)
{
    uint64_t before = v->c.gpr[RSP];
    uint64_t mask = sp_mask(v);
    uint64_t value = mem_read(v, SEG_SS, v->c.gpr[RBP] & mask, in->ssz);

    v->c.gpr[RSP] =
        mask == 0xffff ? (before & ~mask) | (v->c.gpr[RBP] & mask) : v->c.gpr[RBP] & mask;
    (void)mem_pop(v, in->ssz);
    reg_write(v, RBP, in->ssz, value);
}
