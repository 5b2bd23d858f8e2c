/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/vcpu.c - raising out of an instruction, and the vCPU's view of time. */
#include "vmm/cpu/vcpu.h"

#include "base/check.h"
#include "vmm/cpu/sys_ops.h"
#include "vmm/tunables.h"

uint64_t vcpu_now(const struct vcpu *v)
{
    unsigned __int128 ns = (unsigned __int128)(v->c.progress - v->progress0) * v->rate >> 16;

    return ns >= v->t_end - v->t0 ? v->t_end : v->t0 + (uint64_t)ns;
}

uint64_t vcpu_tsc(const struct vcpu *v)
{
    _Static_assert(TSC_HZ == 1000000000, "one tick is one virtual nanosecond");
    return vcpu_now(v) + v->c.tsc_adjust;
}

static _Noreturn void raise_now(struct vcpu *v, unsigned vector, bool has_error, uint32_t error)
{
    if (v->cur != NULL && v->cur->fn == sys_iret) {
        v->c.nmi_blocked = 0; /* "even if the instruction causes a fault" (SDM Vol. 2, "IRET") */
    }
    if (v->gather != NULL) {
        avx_gather_fault(v);
    }
    v->fault_kind = FAULT_EXCEPTION;
    v->fault_vector = (uint8_t)vector;
    v->fault_has_error = has_error;
    v->fault_error = error;
    longjmp(v->fault_jmp, 1);
}

void cpu_raise(struct vcpu *v, unsigned vector)
{
    raise_now(v, vector, false, 0);
}

void cpu_raise_error(struct vcpu *v, unsigned vector, uint32_t error)
{
    raise_now(v, vector, true, error);
}

void cpu_raise_pf(struct vcpu *v, gva_t cr2, uint32_t error)
{
    v->cr2 = cr2;
    raise_now(v, VEC_PF, true, error);
}

void vcpu_lacks_page(struct vcpu *v, uint64_t page, bool write)
{
    PLX_CHECK(v->parallel);
    v->gather = NULL;
    v->lack = (struct vcpu_lack){page, write};
    v->fault_kind = FAULT_STOP;
    v->stop = VCPU_PAGES;
    longjmp(v->fault_jmp, 1);
}

void vcpu_need_serial(struct vcpu *v)
{
    if (v->parallel) {
        v->gather = NULL;
        v->fault_kind = FAULT_STOP;
        v->stop = VCPU_SERIAL;
        longjmp(v->fault_jmp, 1);
    }
}
