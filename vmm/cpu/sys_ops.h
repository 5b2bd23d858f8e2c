/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_ops.h - the one list of system instructions: mnemonic, function, flags. Makes their
 * prototypes here and insn_bind_sys in sys_table.c. */
#ifndef VMM_CPU_SYS_OPS_H
#define VMM_CPU_SYS_OPS_H

#include "vmm/cpu/insn.h"

#define SYS_FLOW (INSN_BRANCH | INSN_ENDS_BLOCK)
#define SYS_END  INSN_ENDS_BLOCK

#define SYS_OPS(X)                      \
    /* far.c */                         \
    X(IRET, sys_iret, SYS_FLOW)         \
    X(IRETD, sys_iret, SYS_FLOW)        \
    X(IRETQ, sys_iret, SYS_FLOW)        \
    X(SYSCALL, sys_syscall, SYS_FLOW)   \
    X(SYSRET, sys_sysret, SYS_FLOW)     \
    X(SYSENTER, sys_sysenter, SYS_FLOW) \
    X(SYSEXIT, sys_sysexit, SYS_FLOW)   \
    X(INT, sys_int, SYS_FLOW)           \
    X(INT3, sys_int3, SYS_FLOW)         \
    X(INT1, sys_int1, SYS_FLOW)         \
    X(INTO, sys_into, SYS_FLOW)         \
    /* sys_seg.c */                     \
    X(LDS, sys_lds, SYS_END)            \
    X(LES, sys_les, SYS_END)            \
    X(LFS, sys_lfs, SYS_END)            \
    X(LGS, sys_lgs, SYS_END)            \
    X(LSS, sys_lss, SYS_END)            \
    X(LAR, sys_lar, 0)                  \
    X(LSL, sys_lsl, 0)                  \
    X(VERR, sys_verr, 0)                \
    X(VERW, sys_verw, 0)                \
    X(ARPL, sys_arpl, 0)                \
    X(LLDT, sys_lldt, SYS_END)          \
    X(LTR, sys_ltr, SYS_END)            \
    X(SLDT, sys_sldt, 0)                \
    X(STR, sys_str, 0)                  \
    X(LGDT, sys_lgdt, SYS_END)          \
    X(LIDT, sys_lidt, SYS_END)          \
    X(SGDT, sys_sgdt, 0)                \
    X(SIDT, sys_sidt, 0)                \
    X(SWAPGS, sys_swapgs, 0)            \
    X(RDFSBASE, sys_rdfsbase, 0)        \
    X(RDGSBASE, sys_rdgsbase, 0)        \
    X(WRFSBASE, sys_wrfsbase, 0)        \
    X(WRGSBASE, sys_wrgsbase, 0)        \
    /* sys_ctl.c */                     \
    X(CLTS, sys_clts, SYS_END)          \
    X(LMSW, sys_lmsw, SYS_END)          \
    X(SMSW, sys_smsw, 0)                \
    X(INVLPG, sys_invlpg, SYS_END)      \
    X(INVPCID, sys_invpcid, SYS_END)    \
    X(INVD, sys_wbinvd, SYS_END)        \
    X(WBINVD, sys_wbinvd, SYS_END)      \
    X(XGETBV, sys_xgetbv, 0)            \
    X(XSETBV, sys_xsetbv, SYS_END)      \
    /* sys_flags.c */                   \
    X(CLI, sys_cli, 0)                  \
    X(STI, sys_sti, 0)                  \
    X(CLAC, sys_clac, 0)                \
    X(STAC, sys_stac, 0)                \
    X(PUSHF, sys_pushf, 0)              \
    X(PUSHFD, sys_pushf, 0)             \
    X(PUSHFQ, sys_pushf, 0)             \
    X(POPF, sys_popf, SYS_END)          \
    X(POPFD, sys_popf, SYS_END)         \
    X(POPFQ, sys_popf, SYS_END)         \
    X(HLT, sys_hlt, SYS_END)            \
    /* sys_misc.c */                    \
    X(CPUID, sys_cpuid, 0)              \
    X(RDMSR, sys_rdmsr, 0)              \
    X(WRMSR, sys_wrmsr, SYS_END)        \
    X(RDTSC, sys_rdtsc, 0)              \
    X(RDTSCP, sys_rdtscp, 0)            \
    X(RDPMC, sys_rdpmc, 0)              \
    X(RDRAND, sys_rdrand, 0)            \
    X(RDSEED, sys_rdrand, 0)            \
    X(CLFLUSH, sys_clflush, 0)          \
    /* sys_io.c */                      \
    X(IN, sys_in, SYS_END)              \
    X(OUT, sys_out, SYS_END)            \
    X(INSB, sys_ins, SYS_END)           \
    X(INSW, sys_ins, SYS_END)           \
    X(INSD, sys_ins, SYS_END)           \
    X(OUTSB, sys_outs, SYS_END)         \
    X(OUTSW, sys_outs, SYS_END)         \
    X(OUTSD, sys_outs, SYS_END)

#define SYS_DECLARE_(mnemonic, fn, flags) void fn(struct vcpu *v, const struct insn *in);
SYS_OPS(SYS_DECLARE_)
#undef SYS_DECLARE_

/* The part of sys_pick_mov for control and debug registers (sys_ctl.c). */
insn_fn sys_pick_mov_ctl(const struct insn *in);
/* Flags SYSRET loads from R11. */
#define SYSRET_FLAGS UINT64_C(0x3c7fd7)
/* Flags POPF and IRET of operand size @size may change at privilege @cpl; VM, RF aside. */
struct cpu;
uint64_t sys_writable_flags(const struct cpu *c, unsigned size, unsigned cpl);

#endif
