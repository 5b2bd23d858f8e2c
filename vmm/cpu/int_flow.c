/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_flow.c - near branches, loops, BOUND, PAUSE and what does nothing. Far forms belong
 * to the system family (sys.h). In 64-bit mode near branches are 64 bits wide whatever 66H says
 * (SDM Vol. 1, "Branch Functions in 64-Bit Mode"; Vol. 2, the instructions' own pages). */
#include "vmm/cpu/int.h"
#include "vmm/cpu/seg.h"
#include "vmm/cpu/sys.h"
#include "vmm/tunables.h"

/* The target, checked: canonical in 64-bit mode, within CS elsewhere; raises #GP(0). */
static inline uint64_t check_target(struct vcpu *v, const struct insn *in, uint64_t target)
{
    if ((in->flags & INSN_LIN64) != 0) {
        if (PLX_UNLIKELY(!cpu_canonical(target))) {
            cpu_gp0(v);
        }
        return target;
    }
    target &= size_mask(in->osz);
    if (target > v->c.seg[SEG_CS].limit) {
        cpu_gp0(v);
    }
    return target;
}

static inline void branch(struct vcpu *v, const struct insn *in)
{
    v->next_rip = check_target(v, in, v->next_rip + in->imm);
}

#define DEF_JCC(cc)                                             \
    static void jcc_##cc(struct vcpu *v, const struct insn *in) \
    {                                                           \
        if (condition(v->c.rflags, cc)) {                       \
            branch(v, in);                                      \
        }                                                       \
    }
FOR_EACH_CC(DEF_JCC)

insn_fn int_pick_jcc(const struct insn *in)
{
#define JCC_ENTRY(cc) jcc_##cc,
    static const insn_fn fn[16] = {FOR_EACH_CC(JCC_ENTRY)};
    return fn[in->opcode & 15];
}

/* A far pointer in memory is a selector wider than the offset. */
static bool is_far(const struct insn *in)
{
    return in->opd[0].kind == OPD_MEM ? in->opd[0].size == in->osz + 2
                                      : in->opcode == 0xea || in->opcode == 0x9a;
}

static void jmp_rel(struct vcpu *v, const struct insn *in)
{
    branch(v, in);
}

static void jmp_indirect(struct vcpu *v, const struct insn *in)
{
    v->next_rip = check_target(v, in, opd_read(v, in, 0));
}

insn_fn int_pick_jmp(const struct insn *in)
{
    if (in->opd[0].kind == OPD_IMM) {
        return is_far(in) ? far_jmp : jmp_rel;
    }
    return is_far(in) ? far_jmp : jmp_indirect;
}

static inline void call_to(struct vcpu *v, const struct insn *in, uint64_t target)
{
    if ((in->flags & INSN_LIN64) != 0) {
        uint64_t sp = v->c.gpr[RSP] - 8;
        uint64_t *p = tlb_write(v, sp, 8);
        if (PLX_LIKELY(p != NULL)) {
            *p = v->next_rip;
            v->c.gpr[RSP] = sp;
        } else {
            mem_push(v, 8, v->next_rip);
        }
    } else {
        mem_push(v, in->osz, v->next_rip & size_mask(in->osz));
    }
    v->next_rip = target;
}

static void call_rel(struct vcpu *v, const struct insn *in)
{
    call_to(v, in, check_target(v, in, v->next_rip + in->imm));
}

static void call_indirect(struct vcpu *v, const struct insn *in)
{
    call_to(v, in, check_target(v, in, opd_read(v, in, 0)));
}

insn_fn int_pick_call(const struct insn *in)
{
    if (in->opd[0].kind == OPD_IMM) {
        return is_far(in) ? far_call : call_rel;
    }
    return is_far(in) ? far_call : call_indirect;
}

/* Near RET; the immediate is 0 where there is none. */
static void ret_near(struct vcpu *v, const struct insn *in)
{
    uint64_t before = v->c.gpr[RSP];
    uint64_t target = mem_pop(v, (in->flags & INSN_LIN64) != 0 ? 8 : in->osz);
    uint64_t after = v->c.gpr[RSP];

    v->c.gpr[RSP] = before; /* the check may raise */
    v->next_rip = check_target(v, in, target);
    uint64_t sp = after + (in->imm & 0xffff);
    unsigned width = cpu_is64(&v->c) ? 8 : (v->c.seg[SEG_SS].attr & SEG_DB) != 0 ? 4 : 2;
    v->c.gpr[RSP] = after;
    reg_write(v, RSP, width, sp);
}

static void ret_near64(struct vcpu *v, const struct insn *in)
{
    uint64_t sp = v->c.gpr[RSP];
    const uint64_t *p = tlb_read(v, sp, 8);

    if (PLX_LIKELY(p != NULL)) {
        v->next_rip = check_target(v, in, *p);
        v->c.gpr[RSP] = sp + 8;
    } else {
        ret_near(v, in);
    }
}

insn_fn int_pick_ret(const struct insn *in)
{
    enum { RETF = 0xcb, RETF_IMM = 0xca, RET = 0xc3 };

    if (in->opcode == RETF || in->opcode == RETF_IMM) {
        return far_ret;
    }
    return in->opcode == RET && (in->flags & INSN_LIN64) != 0 ? ret_near64 : ret_near;
}

static inline void loop_if(struct vcpu *v, const struct insn *in, bool also)
{
    uint64_t count = (reg_read(v, RCX, in->asz) - 1) & size_mask(in->asz);

    if (count != 0 && also) {
        branch(v, in);
    }
    reg_write(v, RCX, in->asz, count);
}

static void loop_plain(struct vcpu *v, const struct insn *in)
{
    loop_if(v, in, true);
}

static void loope(struct vcpu *v, const struct insn *in)
{
    loop_if(v, in, (v->c.rflags & FLAG_ZF) != 0);
}

static void loopne(struct vcpu *v, const struct insn *in)
{
    loop_if(v, in, (v->c.rflags & FLAG_ZF) == 0);
}

static void jcxz(struct vcpu *v, const struct insn *in)
{
    if (reg_read(v, RCX, in->asz) == 0) {
        branch(v, in);
    }
}

insn_fn int_pick_loop(const struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LOOP:
        return loop_plain;
    case ZYDIS_MNEMONIC_LOOPE:
        return loope;
    case ZYDIS_MNEMONIC_LOOPNE:
        return loopne;
    default:
        return jcxz;
    }
}

void int_nop(struct vcpu *v, const struct insn *in)
{
    (void)v;
    (void)in;
}

/* pause_run: how many PAUSEs in a row in the low byte; above it, where the last one was, as the
 * low 24 bits of progress. A row is broken by more than PAUSE_GAP instructions between two. */
void int_pause(struct vcpu *v, const struct insn *in)
{
    enum { MARK_MASK = 0xffffff };
    uint32_t mark = (uint32_t)v->c.progress & MARK_MASK;
    uint32_t run = v->c.pause_run & 0xff;
    (void)in;

    if (((mark - (v->c.pause_run >> 8)) & MARK_MASK) > PAUSE_GAP) {
        run = 0;
    }
    if (++run >= PAUSE_YIELD) {
        run = 0;
        if (!v->alone) {
            v->yield = true;
            v->attention = true;
        }
    }
    v->c.pause_run = mark << 8 | run;
}

void int_ud(struct vcpu *v, const struct insn *in)
{
    (void)in;
    cpu_ud(v);
}

void int_bound(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opd[0].size;
    uint64_t ea = mem_ea(v, in);
    int64_t index = (int64_t)sign_extend(opd_read(v, in, 0), size);
    int64_t low = (int64_t)sign_extend(mem_read(v, in->seg, ea, size), size);
    int64_t high =
        (int64_t)sign_extend(mem_read(v, in->seg, (ea + size) & in->ea_mask, size), size);

    if (index < low || index > high) {
        cpu_raise(v, VEC_BR);
    }
}
