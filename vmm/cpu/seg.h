/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/seg.h - descriptors, selectors and stacks, for the files that check and load them.
 *
 * Internal to the system instructions and to exception delivery. Not state. */
#ifndef VMM_CPU_SEG_H
#define VMM_CPU_SEG_H

#include "vmm/cpu/mem.h"

/* A descriptor as read from its table.
 *
 *   hi: 31..24    23 22 21 20  19..16      15 14-13 12 11..8  7..0
 *       base31:24  G DB  L AVL limit19:16   P  DPL   S  type   base23:16
 *   lo: base15:0 (31..16), limit15:0 (15..0) */
struct desc {
    uint32_t lo, hi;
    uint32_t hi2;  /* base 63:32 of a 16-byte system descriptor (desc_fetch_system), else 0 */
    uint32_t top;  /* its last doubleword */
    gva_t addr;    /* where it stands */
    uint16_t attr; /* as cpu_seg.attr */
    uint16_t sel;
};

/* System descriptor types (SDM Vol. 3A, "System Descriptor Types"). */
enum {
    SYS_TSS16 = 0x1,
    SYS_LDT = 0x2,
    SYS_TSS16_BUSY = 0x3,
    SYS_CALL16 = 0x4,
    SYS_TASK_GATE = 0x5,
    SYS_INT16 = 0x6,
    SYS_TRAP16 = 0x7,
    SYS_TSS32 = 0x9,
    SYS_TSS32_BUSY = 0xb,
    SYS_CALL32 = 0xc,
    SYS_INT32 = 0xe,
    SYS_TRAP32 = 0xf
};

static inline bool cpu_lma(const struct cpu *c)
{
    return (c->efer & EFER_LMA) != 0;
}

/* Protected mode proper: not real, not virtual-8086. */
static inline bool cpu_protected(const struct cpu *c)
{
    return (c->cr0 & CR0_PE) != 0 && (c->rflags & FLAG_VM) == 0;
}

static inline bool cpu_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static inline bool sel_null(uint16_t sel)
{
    return (sel & 0xfffc) == 0;
}

static inline unsigned desc_dpl(const struct desc *d)
{
    return (d->attr & SEG_DPL) >> SEG_DPL_SHIFT;
}

static inline unsigned desc_type(const struct desc *d)
{
    return d->attr & SEG_TYPE;
}

static inline bool desc_is_code(const struct desc *d)
{
    return (d->attr & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}

static inline bool desc_is_writable_data(const struct desc *d)
{
    return (d->attr & (SEG_S | SEG_CODE | SEG_RW)) == (SEG_S | SEG_RW);
}

/* Read the descriptor of a non-null selector. False: outside of its table. May raise #PF. */
bool desc_fetch(struct vcpu *v, uint16_t sel, struct desc *d);
/* In IA-32e mode a system descriptor has 16 bytes; reads the second half into hi2 and top. False:
 * it reaches beyond the table's limit. No-op outside of IA-32e mode. */
bool desc_fetch_system(struct vcpu *v, struct desc *d);
/* Set the accessed bit in memory and in @d, if it is clear. May raise #PF. */
void desc_mark_accessed(struct vcpu *v, struct desc *d);
struct cpu_seg desc_seg(const struct desc *d, uint16_t sel);

/* A stack under examination: pushes and pops go through it without touching the registers. */
struct stack {
    struct cpu_seg ss;
    uint64_t sp;
    uint8_t width;  /* of the stack pointer: 2, 4, 8 */
    bool user;      /* accesses with CPL 3 */
    uint32_t error; /* error code of a #SS */
};
/* The stack in use. */
struct stack stack_current(const struct vcpu *v);
void stack_push(struct vcpu *v, struct stack *s, unsigned size, uint64_t value);
uint64_t stack_pop(struct vcpu *v, struct stack *s, unsigned size);
/* Make it the current one: SS, and as much of RSP as its width covers. */
void stack_commit(struct vcpu *v, const struct stack *s);

/* A privilege level's stack from the 16- or 32-bit TSS, checked as for an inter-privilege call
 * or interrupt. @ext is added to error codes. Raises #TS, #SS. SDM Vol. 3A, "Stack Switching". */
struct stack stack_from_tss(struct vcpu *v, unsigned level, uint32_t ext);
/* RSPn (@n 0-2) or ISTn (@n 3-9 for IST1-7) of the 64-bit TSS. */
uint64_t stack_from_tss64(struct vcpu *v, unsigned n, uint32_t ext);

/* SS for a return to privilege @cpl (RET, IRET to an outer level, IRETQ). @to64: the code segment
 * returned to is 64-bit. */
struct cpu_seg seg_check_return_ss(struct vcpu *v, uint16_t sel, unsigned cpl, bool to64);
/* After a return to an outer level: data segments the new level may not use become null. */
void seg_drop_privileged(struct vcpu *v);

/* Change CS (and with it, through SS, the CPL) and tell the caches if it matters. */
void seg_set_cs_ss(struct vcpu *v, const struct cpu_seg *cs, const struct cpu_seg *ss);

/* The flat segments that SYSCALL and its relatives load. */
struct cpu_seg seg_flat_code(uint16_t sel, unsigned dpl, bool l);
struct cpu_seg seg_flat_stack(uint16_t sel, unsigned dpl);

/* Real-address and virtual-8086 mode. */
struct cpu_seg seg_v86(uint16_t sel);

#endif
