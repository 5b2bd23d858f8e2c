/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/insn.h - one decoded instruction, and the tables that bind mnemonics to semantics.
 *
 * decode.c turns bytes into a struct insn with Zydis; one file per family holds the semantics as
 * small functions and a table of bindings. A mnemonic in no table is #UD: that is how a model
 * is enforced. Not state: a decoded instruction may be dropped at any moment. */
#ifndef VMM_CPU_INSN_H
#define VMM_CPU_INSN_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct insn;

/* Semantics of one instruction. On entry v->c.rip is the instruction's own address and
 * v->next_rip the address after it; a branch changes v->next_rip. A fault does not return
 * (vcpu.h, cpu_raise), so everything that can fault happens before anything changes. */
typedef void (*insn_fn)(struct vcpu *v, const struct insn *in);

enum opd_kind {
    OPD_NONE,
    OPD_REG,      /* general register, low @size bytes (size 4 writes clear the upper half) */
    OPD_REG_HIGH, /* AH CH DH BH: reg 0-3 */
    OPD_MEM,      /* the instruction's one memory operand; size in bytes */
    OPD_IMM,      /* insn.imm, already sign- or zero-extended to 64 bits as the form demands */
    OPD_XMM,      /* XMM, or YMM: the size says */
    OPD_MM,
    OPD_ST,  /* ST(reg) */
    OPD_SEG, /* enum cpu_segreg */
    OPD_CR,
    OPD_DR,
};

struct opd {
    uint8_t kind; /* enum opd_kind */
    uint8_t reg;
    uint16_t size; /* bytes: 1 2 4 8 10 16 28 94 108 512 ... */
};

enum {
    INSN_LOCK = 1,
    INSN_REP = 2,         /* F3 on a string instruction (REP, REPE) */
    INSN_REPNE = 4,       /* F2 on a string instruction */
    INSN_BRANCH = 8,      /* ends a decoded block */
    INSN_ENDS_BLOCK = 16, /* may change mode, interrupts or paging: ends a block too */
    INSN_SINGLE = 32,     /* executed outside of a block: spans two pages, or CS has a limit */
    INSN_LIN64 = 64,      /* decoded for 64-bit mode: ea + segment base is the linear address */
    INSN_BAD = 128,       /* no such form: fn raises #UD, or #GP if longer than 15 bytes */
    INSN_VEX = 256,       /* VEX-encoded */
    INSN_VSIB = 512,      /* the memory operand's index is a vector register */
};

enum { REG_NONE = 0xff };

struct insn {
    insn_fn fn;
    uint64_t imm;      /* immediate; relative branch: the displacement, sign-extended */
    int64_t disp;      /* memory operand: displacement, or the absolute offset of a moffs */
    struct opd opd[4]; /* as in the SDM: destination first; implicit ones are left out, except the
                          accumulator where it stands in the syntax (ADD AL, imm8) */
    uint16_t mnemonic; /* ZydisMnemonic */
    uint16_t zflags;   /* unused by handlers but kept for isa-table and traces */
    uint8_t nopd;
    uint8_t len;
    uint8_t osz; /* operand size in bytes: 2, 4, 8 */
    uint8_t asz; /* address size in bytes: 2, 4, 8 */
    uint8_t ssz; /* stack width of the mode's pushes: 2, 4, 8 */
    uint16_t flags;
    uint8_t seg; /* memory operand: enum cpu_segreg after defaults and overrides; also the source
                    segment of string instructions */
    uint8_t base, index, scale; /* memory operand; REG_NONE where absent; scale 1 2 4 8 */
    bool index_wide;            /* INSN_VSIB: the index is YMM */
    bool rip_relative;          /* base is the address of the next instruction */
    uint8_t opcode;             /* last opcode byte, for families that share a function */
    uint8_t imm2;     /* second immediate (ENTER's level, far pointers' high part unused) */
    uint16_t far_sel; /* far direct JMP and CALL: selector; imm is the offset */
    /* The memory operand again, for the inline paths (mem.h): byte offsets in struct vcpu of what
     * is added, a mask for the address size, and where the segment base is in 64-bit mode. */
    uint8_t scale_shift;
    uint16_t base_off, index_off, seg_off;
    uint64_t ea_mask;
};

/* Binding of one mnemonic. Either fn serves every form, or pick chooses (and may specialise by
 * operand kinds and sizes); pick may return NULL: this form is #UD. */
struct insn_bind {
    ZydisMnemonic mnemonic;
    insn_fn fn;
    insn_fn (*pick)(const struct insn *in);
    uint8_t flags; /* INSN_BRANCH, INSN_ENDS_BLOCK */
};

extern const struct insn_bind insn_bind_int[]; /* integer, flow, strings: int_*.c */
extern const struct insn_bind insn_bind_sys[]; /* segments, system, I/O: sys_*.c */
extern const struct insn_bind insn_bind_sse[]; /* MMX, SSE to SSE4.2: sse_*.c */
extern const struct insn_bind insn_bind_x87[]; /* x87, FXSAVE, XSAVE: x87_*.c */
extern const struct insn_bind insn_bind_v3[];  /* what pollux-v3 adds: avx_table.c */
/* Each ends with mnemonic ZYDIS_MNEMONIC_INVALID. */

#endif
