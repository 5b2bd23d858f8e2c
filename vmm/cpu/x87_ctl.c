/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_ctl.c - x87 control: initialisation, control and status words, environments, stack
 * pointer and tags, WAIT (SDM Vol. 1, "x87 FPU Execution Environment", "x87 FPU Control
 * Instructions").
 *
 * What the SDM leaves to the processor, chosen once (R6):
 *
 *   FIP       address of the last non-control instruction
 *   FDP       address of its memory operand, only if it raised an unmasked exception
 *   FOP       never recorded: as loaded, else 0
 *   FCS, FDS  deprecated: never recorded, stored as 0 (CPUID.7.0:EBX bits 6 and 13 say both)
 *   C0 C2 C3  unchanged where undefined; C1 0 unless the instruction defines it
 *   images    reserved halves of the 32-bit environment are stored as FFFFH
 *
 * Threading: the vCPU's thread. Determinism: a function of state and memory. */
#include "vmm/cpu/operand.h"
#include "vmm/cpu/x87.h"

void x87_init(struct vcpu *v, bool clear)
{
    struct cpu_fpu *f = &v->c.fpu;

    f->fcw = X87_CW_INIT;
    f->fsw = 0;
    f->ftw = 0;
    f->fop = 0;
    f->fip = 0;
    f->fdp = 0;
    f->fcs = 0;
    f->fds = 0;
    if (clear) {
        memset(f->st, 0, sizeof f->st);
    }
}

/* The two-bit tags of FSTENV: valid, zero, special, empty. */
static uint16_t full_tags(const struct vcpu *v)
{
    uint16_t tags = 0;

    for (unsigned r = 0; r < 8; r++) {
        struct f80 f = x87_st(v, (r - x87_top(v)) & 7);
        unsigned e = f.se & 0x7fff, tag;

        if ((v->c.fpu.ftw >> r & 1) == 0) {
            tag = 3;
        } else if (e == 0 && f.m == 0) {
            tag = 1;
        } else if (e == 0 || e == 0x7fff || f.m >> 63 == 0) {
            tag = 2;
        } else {
            tag = 0;
        }
        tags |= (uint16_t)(tag << (2 * r));
    }
    return tags;
}

static bool real_format(const struct vcpu *v)
{
    return (v->c.cr0 & CR0_PE) == 0 || (v->c.rflags & FLAG_VM) != 0;
}

/* The environment in its four formats (SDM Vol. 1, "Saving the x87 FPU's State with FSTENV/FNSTENV
 * and FSAVE/FNSAVE"); returns its length. */
static unsigned env_store(const struct vcpu *v, unsigned osz, uint8_t *out)
{
    const struct cpu_fpu *f = &v->c.fpu;
    uint16_t tw = full_tags(v);
    uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;

    if (osz == 2) {
        uint16_t e[7] = {f->fcw, f->fsw, tw, (uint16_t)ip, f->fcs, (uint16_t)dp, f->fds};

        if (real_format(v)) {
            e[4] = (uint16_t)((ip >> 16 & 0xf) << 12 | f->fop);
            e[6] = (uint16_t)((dp >> 16 & 0xf) << 12);
        }
        memcpy(out, e, sizeof e);
        return sizeof e;
    }
    uint32_t hi = 0xffff0000;
    uint32_t e[7] = {hi | f->fcw, hi | f->fsw, hi | tw, ip, f->fcs | (uint32_t)f->fop << 16,
                     dp,          hi | f->fds};

    if (real_format(v)) {
        e[3] = hi | (ip & 0xffff);
        e[4] = (ip >> 16) << 12 | f->fop;
        e[5] = hi | (dp & 0xffff);
        e[6] = (dp >> 16) << 12;
    }
    memcpy(out, e, sizeof e);
    return sizeof e;
}

static void env_load(struct vcpu *v, unsigned osz, const uint8_t *in)
{
    struct cpu_fpu *f = &v->c.fpu;
    uint32_t e[7];

    if (osz == 2) {
        for (unsigned i = 0; i < 7; i++) {
            uint16_t w;
            memcpy(&w, in + 2 * i, 2);
            e[i] = w;
        }
    } else {
        memcpy(e, in, sizeof e);
    }
    x87_set_cw(v, (uint16_t)e[0]);
    f->fsw = (uint16_t)e[1];
    f->ftw = 0;
    for (unsigned r = 0; r < 8; r++) {
        f->ftw |= (uint8_t)((e[2] >> (2 * r) & 3) != 3 ? 1U << r : 0);
    }
    if (real_format(v)) {
        f->fip = (e[3] & 0xffff) | (e[4] & 0x0ffff000) << 4;
        f->fdp = (e[5] & 0xffff) | (e[6] & 0x0ffff000) << 4;
        f->fop = e[4] & 0x7ff;
    } else {
        f->fip = e[3];
        f->fdp = e[5];
        f->fop = osz == 2 ? f->fop : e[4] >> 16 & 0x7ff;
    }
    f->fcs = 0;
    f->fds = 0;
    x87_update_es(v);
}

static void do_fnstenv(struct vcpu *v, const struct insn *in)
{
    uint8_t buf[28];
    unsigned n;

    x87_check(v);
    n = env_store(v, in->osz, buf);
    mem_write_bytes(v, in->seg, mem_ea(v, in), buf, n);
    v->c.fpu.fcw |= X87_EXC;
    x87_update_es(v);
}

static void do_fldenv(struct vcpu *v, const struct insn *in)
{
    uint8_t buf[28];

    x87_check(v);
    x87_check_pending(v);
    mem_read_bytes(v, in->seg, mem_ea(v, in), buf, in->osz == 2 ? 14 : 28);
    env_load(v, in->osz, buf);
}

static void do_fnsave(struct vcpu *v, const struct insn *in)
{
    uint8_t buf[108];
    unsigned n;

    x87_check(v);
    n = env_store(v, in->osz, buf);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(buf + n + 10 * i, v->c.fpu.st[x87_phys(v, i)], 10);
    }
    mem_write_bytes(v, in->seg, mem_ea(v, in), buf, n + 80);
    x87_init(v, false);
}

static void do_frstor(struct vcpu *v, const struct insn *in)
{
    uint8_t buf[108];
    unsigned n = in->osz == 2 ? 14 : 28;

    x87_check(v);
    x87_check_pending(v);
    mem_read_bytes(v, in->seg, mem_ea(v, in), buf, n + 80);
    env_load(v, in->osz, buf);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(v->c.fpu.st[x87_phys(v, i)], buf + n + 10 * i, 10);
    }
}

static void do_fldcw(struct vcpu *v, const struct insn *in)
{
    x87_check(v);
    x87_check_pending(v);
    x87_set_cw(v, (uint16_t)opd_read(v, in, 0));
    x87_update_es(v);
}

static void do_fnstcw(struct vcpu *v, const struct insn *in)
{
    x87_check(v);
    opd_write(v, in, 0, v->c.fpu.fcw);
}

static void do_fnstsw(struct vcpu *v, const struct insn *in)
{
    x87_check(v);
    opd_write(v, in, 0, v->c.fpu.fsw);
}

static void do_fnclex(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
    v->c.fpu.fsw &= (uint16_t) ~(X87_EXC | X87_SF | X87_ES | X87_B);
}

static void do_fninit(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
    x87_init(v, false);
}

static void do_fincstp(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
    x87_check_pending(v);
    x87_set_top(v, x87_top(v) + 1);
    v->c.fpu.fsw &= (uint16_t)~X87_C1;
}

static void do_fdecstp(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
    x87_check_pending(v);
    x87_set_top(v, x87_top(v) - 1);
    v->c.fpu.fsw &= (uint16_t)~X87_C1;
}

static void do_ffree(struct vcpu *v, const struct insn *in)
{
    x87_check(v);
    x87_check_pending(v);
    v->c.fpu.ftw &= (uint8_t) ~(1U << x87_phys(v, in->opd[0].reg));
    v->c.fpu.fsw &= (uint16_t)~X87_C1;
    if (in->mnemonic == ZYDIS_MNEMONIC_FFREEP) { /* frees ST(0) too */
        v->c.fpu.ftw &= (uint8_t) ~(1U << x87_top(v));
        x87_set_top(v, x87_top(v) + 1);
    }
}

static void do_fnop(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
    x87_check_pending(v);
}

/* WAIT: CR0.MP and CR0.TS both set: #NM (SDM Vol. 3A, "Device Not Available Exception (#NM)"). */
static void do_fwait(struct vcpu *v, const struct insn *in)
{
    (void)in;
    if ((v->c.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) {
        cpu_raise(v, VEC_NM);
    }
    x87_check_pending(v);
}

/* FENI, FDISI, FSETPM: of the 8087 and 80287; without effect since. */
static void do_legacy_nop(struct vcpu *v, const struct insn *in)
{
    (void)in;
    x87_check(v);
}

static const struct x87_op ops[] = {
    {ZYDIS_MNEMONIC_FNSTENV, do_fnstenv},
    {ZYDIS_MNEMONIC_FLDENV, do_fldenv},
    {ZYDIS_MNEMONIC_FNSAVE, do_fnsave},
    {ZYDIS_MNEMONIC_FRSTOR, do_frstor},
    {ZYDIS_MNEMONIC_FLDCW, do_fldcw},
    {ZYDIS_MNEMONIC_FNSTCW, do_fnstcw},
    {ZYDIS_MNEMONIC_FNSTSW, do_fnstsw},
    {ZYDIS_MNEMONIC_FNCLEX, do_fnclex},
    {ZYDIS_MNEMONIC_FNINIT, do_fninit},
    {ZYDIS_MNEMONIC_FINCSTP, do_fincstp},
    {ZYDIS_MNEMONIC_FDECSTP, do_fdecstp},
    {ZYDIS_MNEMONIC_FFREE, do_ffree},
    {ZYDIS_MNEMONIC_FFREEP, do_ffree},
    {ZYDIS_MNEMONIC_FNOP, do_fnop},
    {ZYDIS_MNEMONIC_FWAIT, do_fwait},
    {ZYDIS_MNEMONIC_FENI8087_NOP, do_legacy_nop},
    {ZYDIS_MNEMONIC_FDISI8087_NOP, do_legacy_nop},
    {ZYDIS_MNEMONIC_FSETPM287_NOP, do_legacy_nop},
};

insn_fn x87_ctl_pick(const struct insn *in)
{
    return X87_OP_FIND(ops, in);
}
