/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_misc.c - identification, model-specific registers, time, random numbers and cache
 * lines (SDM Vol. 2, the instructions' own pages).
 *
 * Ownership, threading, determinism: as exc.c. Time is virtual, randomness comes from the vCPU's
 * own generator. */
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/msr.h"
#include "vmm/cpu/operand.h"
#include "vmm/cpu/sys_ops.h"

void sys_cpuid(struct vcpu *v, const struct insn *in)
{
    struct cpu *c = &v->c;
    struct cpuid_regs r;

    (void)in;
    cpuid(v->model, c, v->id, v->vcpus, (uint32_t)c->gpr[RAX], (uint32_t)c->gpr[RCX], &r);
    c->gpr[RAX] = r.eax;
    c->gpr[RBX] = r.ebx;
    c->gpr[RCX] = r.ecx;
    c->gpr[RDX] = r.edx;
}

static void set_edx_eax(struct vcpu *v, uint64_t value)
{
    v->c.gpr[RAX] = value & UINT32_MAX;
    v->c.gpr[RDX] = value >> 32;
}

void sys_rdmsr(struct vcpu *v, const struct insn *in)
{
    uint64_t value;

    (void)in;
    if (cpu_cpl(&v->c) != 0 || msr_read(v, (uint32_t)v->c.gpr[RCX], &value) != 0) {
        cpu_gp0(v);
    }
    set_edx_eax(v, value);
}

void sys_wrmsr(struct vcpu *v, const struct insn *in)
{
    uint64_t value = reg_read(v, RDX, 4) << 32 | reg_read(v, RAX, 4);

    (void)in;
    if (cpu_cpl(&v->c) != 0 || msr_write(v, (uint32_t)v->c.gpr[RCX], value) != 0) {
        cpu_gp0(v);
    }
}

static void check_tsd(struct vcpu *v)
{
    if ((v->c.cr4 & CR4_TSD) != 0 && cpu_cpl(&v->c) != 0) {
        cpu_gp0(v);
    }
}

void sys_rdtsc(struct vcpu *v, const struct insn *in)
{
    (void)in;
    check_tsd(v);
    set_edx_eax(v, vcpu_tsc(v));
}

void sys_rdtscp(struct vcpu *v, const struct insn *in)
{
    (void)in;
    check_tsd(v);
    set_edx_eax(v, vcpu_tsc(v));
    v->c.gpr[RCX] = v->c.tsc_aux & UINT32_MAX;
}

/* There are no counters, so every index is out of range. */
void sys_rdpmc(struct vcpu *v, const struct insn *in)
{
    (void)in;
    cpu_gp0(v);
}

void sys_rdrand(struct vcpu *v, const struct insn *in)
{
    const struct opd *o = &in->opd[0];

#ifdef BREAK_R6 /* make/rules.mk: randomness of the host */
    v->c.rng.s[0] += __builtin_ia32_rdtsc();
#endif
    reg_write(v, o->reg, o->size, prng_u64(&v->c.rng));
    v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | FLAG_CF;
}

/* Faults as a one-byte load would; there is no cache to flush. */
void sys_clflush(struct vcpu *v, const struct insn *in)
{
    uint8_t byte;

    mem_read_bytes(v, in->seg, mem_ea(v, in), &byte, 1);
}
