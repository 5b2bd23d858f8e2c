/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/vcpu.h - one vCPU while it runs: its state, what it is connected to, how it faults.
 *
 * Ownership: created by an engine, which the VM owns. Threading: the thread that runs it.
 * Determinism: only v->c is state; everything else is derived or wiring. */
#ifndef VMM_CPU_VCPU_H
#define VMM_CPU_VCPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/cpu.h"
#include "vmm/cpu/insn.h"
#include "vmm/mmu/owner.h"
#include "vmm/mmu/ram.h"

/* How a vCPU reaches the machine. All are called in the serial part only (a vCPU in the parallel
 * part blocks before the instruction instead), except where something else is said. */
struct vcpu_ops {
    uint64_t (*pio_read)(void *ctx, uint16_t port, unsigned size);
    void (*pio_write)(void *ctx, uint16_t port, unsigned size, uint64_t value);
    uint64_t (*mmio_read)(void *ctx, gpa_t gpa, unsigned size);
    void (*mmio_write)(void *ctx, gpa_t gpa, unsigned size, uint64_t value);
    /* The @len bytes at @gpa, if all are in ROM: instructions are fetched from there too. NULL: no
     * ROM. May be called in the parallel part: they never change. */
    bool (*rom_read)(void *ctx, gpa_t gpa, uint8_t *out, unsigned len);
    /* Take the highest-priority interrupt (INTA); its vector, or -1: spurious, none after all. */
    int (*irq_take)(void *ctx);
    /* MSRs that belong to the LAPIC (APIC_BASE, x2APIC, TSC_DEADLINE). 0, or PLX_GUEST_FAULT: #GP.
     */
    int (*msr_read)(void *ctx, uint32_t msr, uint64_t *value);
    int (*msr_write)(void *ctx, uint32_t msr, uint64_t value);
    uint64_t (*cr8_read)(void *ctx);              /* TPR bits 7:4; in the parallel part too */
    void (*cr8_write)(void *ctx, uint64_t value); /* checked: 0-15; likewise */
    /* The vCPU's own LAPIC is part of the vCPU (R2). In the parallel part these say what touches
     * nothing beyond it and so may be done there; NULL: nothing. A function of the LAPIC's state.
     */
    int (*irq_peek)(void *ctx); /* the vector irq_take would give; 0: none, or it reaches further */
    bool (*mmio_own)(void *ctx, gpa_t gpa, unsigned size, bool write);
    bool (*msr_own)(void *ctx, uint32_t msr, bool write);
    void (*init)(void *ctx); /* v->init_pending was set: reset the vCPU, now between instructions */
};

/* Why run returns. */
enum vcpu_stop {
    VCPU_BUDGET,   /* the progress budget is used up, exactly, or ended (vcpu_end_at) */
    VCPU_HALT,     /* HLT executed, no interrupt pending */
    VCPU_YIELD,    /* PAUSE k times, or a device asked for the end of the round */
    VCPU_SERIAL,   /* parallel part: this instruction needs the serial part; no effect yet */
    VCPU_PAGES,    /* parallel part: lacks pages (vcpu.lack); no effect yet */
    VCPU_SHUTDOWN, /* triple fault */
    VCPU_STOPPED,  /* the machine stopped (power-off, reset, debug exit) */
};

/* Of an enum vcpu_stop, or of what delivered an event: the parallel part does not give what this
 * needs, and nothing has changed. */
static inline bool vcpu_blocks(int stop)
{
    return stop == VCPU_SERIAL || stop == VCPU_PAGES;
}

/* VCPU_PAGES: what the instruction lacks first. */
struct vcpu_lack {
    uint64_t page; /* of RAM */
    bool write;
};

struct vcpu_mem; /* translation caches: mem.h */
struct blocks;   /* decoded blocks: block.h */
struct block;
struct code_common;

struct code {
    struct blocks *blocks;
    struct jit *jit; /* what was translated of them; NULL: by the interpreter nothing */
};

enum { VCPU_STACK = 16 << 10 };

struct vcpu {
    /* Of translated code, which has RSP at its end: some words of its own, and what signals that
     * reach the thread meanwhile need. */
    _Alignas(16) uint8_t stack[VCPU_STACK];
    struct cpu c; /* the state */

    uint64_t next_rip;
    /* Set to make the run loop look up after the current instruction: an interrupt became
     * pending, code was overwritten, mode or paging changed, the machine stopped. */
    bool attention;
    bool irq_pending; /* level: the LAPIC or PIC has an interrupt for this vCPU */
    bool yield;       /* end the round after this instruction */
    bool stopping;    /* the machine has stopped */
    /* An instruction of this vCPU sent it an INIT: taken at the next boundary, before run returns,
     * and so no state. */
    bool init_pending;
    enum cpu_model model;
    bool parallel;   /* this run is a parallel part */
    bool alone;      /* the only runnable vCPU: PAUSE does not yield (R5) */
    bool until_user; /* this run ends with the instruction that enters ring 3 */
    unsigned id;     /* APIC id */
    unsigned vcpus;  /* of the whole VM, for CPUID's topology; 0 counts as 1 */

    /* TF, RF and DR0-7 (exc.c, "stepping"). debug follows c.dr[7]; the rest lives for one
     * instruction. */
    bool debug;         /* a breakpoint is enabled in DR7 */
    bool step_tf;       /* TF was set when the instruction began */
    bool step_rf;       /* RF was set when it began: cleared after it, IRET excepted */
    uint8_t debug_hits; /* DR6 bits 0-3: data and I/O breakpoints hit by the instruction */

    /* For tools: called on the vCPU's thread after every event and fault delivered, and after what
     * the engine executes in one piece: an instruction, of translated code a translation. Must
     * change nothing. NULL: none. */
    void (*trace)(void *ctx, const struct vcpu *v);
    void *trace_ctx;

    /* Virtual time (R5): now = t0 + ((c.progress - progress0) * rate >> 16), at most t_end. Set by
     * the scheduler before each run. */
    uint64_t t0, progress0, t_end;
    uint32_t rate;

    uint64_t stop_progress; /* run until c.progress reaches this */
    uint64_t withheld; /* for the trace's sake: so much later the run really ends (vcpu_end_at) */

    const struct vcpu_ops *ops;
    void *ops_ctx;
    struct ram *ram;
    struct owner *owner; /* who may touch which page in a parallel part; NULL: the only vCPU */
    struct vcpu_lack lack;
    struct vcpu_mem *mem;
    /* Code (block.h): this vCPU's own; that of the VM's serial parts (NULL: it is the only vCPU,
     * and runs its own there); and which of them this run uses. */
    struct code own;
    struct code_common *common;
    struct blocks *blocks;
    struct jit *jit;
    /* Of the engine: runs blocks until something may have to be looked at between two of them. */
    void (*run_blocks)(struct vcpu *v);
    /* What translated code keeps here while it runs (vmm/engine/jit.h). */
    struct {
        uint64_t host_rsp; /* of C code */
        void *jumps;
        uint64_t bias;       /* retired - progress */
        uint64_t rest;       /* instructions of the block behind the one that is called for */
        uint8_t vectors;     /* enum jit_vectors: what the host has; MXCSR with it */
        uint8_t x87_live;    /* likewise x87 registers, status and tags */
        uint32_t mxcsr_host; /* of C code */
        uint8_t overflow;   /* EFLAGS.OF, 0 or 1: c.rflags has it only outside of translated code */
        uint64_t budget;    /* while its host register is lent */
        uint64_t kept;      /* a value that an instruction needs again after a lookup */
        uint64_t found[16]; /* by group of accesses (jit_access.h): what its check found */
    } jit_run;
    /* Derived, for the inline paths of mem.h; kept by mem_translate.c. */
    struct tlb_entry *tlb;      /* data of the current address space, privilege and EFLAGS.AC */
    struct tlb_entry *tlb_code; /* the same for fetches: AC has no say there */
    /* What these may be in the current address space: user's, supervisor's, and with EFLAGS.AC. */
    struct tlb_entry *tlb_user, *tlb_user_code, *tlb_super, *tlb_super_code, *tlb_super_ac;
    uint64_t tlb_mask;
    uint8_t *use;      /* per page of RAM, what was derived from it: USE_* (shadow.h) */
    uint64_t code_key; /* CODE_*, and a count of dropped decoded blocks (CODE_STEP) */
    uint64_t zero;     /* always 0: stands for an absent base or index (insn.h) */

    /* Fault in flight: cpu_raise fills it and jumps. */
    jmp_buf fault_jmp;
    uint8_t fault_vector;
    bool fault_has_error;
    uint32_t fault_error;
    uint8_t fault_kind; /* enum fault_kind */
    uint8_t stop;       /* FAULT_STOP: enum vcpu_stop */
    /* The instruction being executed; NULL outside. Every engine sets it for what may reach MMIO:
     * a MOV may write its own LAPIC in the parallel part, as it does nothing after that. */
    const struct insn *cur;
    uint64_t cr2;          /* of a #PF in flight */
    struct gather *gather; /* a gather under way: it keeps what it did if it faults (avx_mem.c) */
};

enum fault_kind {
    FAULT_EXCEPTION, /* hardware exception: pushes rip of the instruction (fault) */
    FAULT_TRAP,      /* #DB after the instruction: pushes next_rip */
    FAULT_STOP, /* not a fault: leave the run loop with v->stop; no effect of the instruction */
};

/* The run under way ends no later than when c.progress reaches @end. */
static inline void vcpu_end_at(struct vcpu *v, uint64_t end)
{
    if (end < v->stop_progress + v->withheld) {
        v->stop_progress = end;
        v->withheld = 0;
        v->attention = true;
    }
}

/* The current virtual time of this vCPU, valid inside an instruction (block progress included). */
uint64_t vcpu_now(const struct vcpu *v);
/* The guest's TSC: TSC_HZ of virtual time, plus IA32_TSC_ADJUST. */
uint64_t vcpu_tsc(const struct vcpu *v);

/* Raise an exception in the middle of an instruction; does not return. */
_Noreturn void cpu_raise(struct vcpu *v, unsigned vector);
_Noreturn void cpu_raise_error(struct vcpu *v, unsigned vector, uint32_t error);
_Noreturn void cpu_raise_pf(struct vcpu *v, gva_t cr2, uint32_t error);
/* What a gather that faults has done until then becomes state (avx_mem.c). */
void avx_gather_fault(struct vcpu *v);
/* Leave the run loop with VCPU_SERIAL and no effect of the instruction, if this is a parallel
 * part. Called before every access to something the vCPUs share: PIO, MMIO, MSRs of the LAPIC. */
void vcpu_need_serial(struct vcpu *v);
/* Parallel part: leave the run loop with VCPU_PAGES and no effect of the instruction. */
_Noreturn void vcpu_lacks_page(struct vcpu *v, uint64_t page, bool write);
#define cpu_ud(v)  cpu_raise((v), VEC_UD)
#define cpu_gp0(v) cpu_raise_error((v), VEC_GP, 0)

/* --- exc.c: delivery (SDM Vol. 3A, "Interrupt and Exception Handling") --------------------- */

/* Deliver the fault in v->fault_*, folding contributory faults into #DF. Returns 0, or as a
 * positive value VCPU_SHUTDOWN on a triple fault, VCPU_SERIAL or VCPU_PAGES if a parallel part does
 * not reach far enough: then no register has changed. Called outside of any instruction. */
int exc_deliver_fault(struct vcpu *v);
/* Deliver external interrupt @vector or NMI; as above. */
int exc_deliver_interrupt(struct vcpu *v, unsigned vector);
int exc_deliver_nmi(struct vcpu *v);
/* INT n, INT3, INTO, INT1 from inside an instruction (may raise); @vector pushed with next_rip. */
void exc_software_interrupt(struct vcpu *v, unsigned vector, bool int_n);

/* Stepping: while exc_must_step, the run loop executes instructions one by one between before
 * (which may raise: an instruction breakpoint) and after (which delivers #DB for TF and data
 * breakpoints, when c.rip is already that of the next instruction; result as exc_deliver_fault).
 * After is not called for an instruction that faulted. */
static inline bool exc_must_step(const struct vcpu *v)
{
    return (v->c.rflags & (FLAG_TF | FLAG_RF)) != 0 || v->debug;
}
void exc_step_before(struct vcpu *v);
int exc_step_after(struct vcpu *v);
/* A data access while v->debug: notes the breakpoints it hits (mem.c). */
void exc_data_access(struct vcpu *v, gva_t lin, unsigned size, bool write);
/* IN and OUT while v->debug: I/O breakpoints (CR4.DE). */
void exc_io_access(struct vcpu *v, uint16_t port, unsigned size);
/* c.dr[7] changed, or v->c was replaced: derives v->debug. */
void exc_debug_update(struct vcpu *v);

/* --- seg.c ------------------------------------------------------------------------------- */

/* Load a data or stack segment register with all checks (MOV, POP, LDS...); may raise. */
void seg_load(struct vcpu *v, enum cpu_segreg r, uint16_t sel);
/* Linear address of @off in @seg for an access of @size bytes, with limit, type and canonical
 * checks; raises #GP(0) or #SS(0). @write: the access writes. */
gva_t seg_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, bool write);

/* --- called whenever CR0, CR3, CR4, EFER, CPL or CS attributes changed what a translation or a
 * decoded block means; drops what must be dropped and sets attention. mem_translate.c */
void vcpu_context_changed(struct vcpu *v);

#endif
