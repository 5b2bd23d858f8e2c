/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_form.h - how one instruction of 64-bit code is encoded, and what the translator
 * does with it. Pure. */
#ifndef VMM_ENGINE_JIT_FORM_H
#define VMM_ENGINE_JIT_FORM_H

#include "vmm/cpu/insn.h"

enum form_kind {
    FORM_CALL, /* the interpreter's function */
    FORM_NOTHING,
    FORM_ZERO_YMM, /* VZEROUPPER, VZEROALL */
    FORM_MODRM,    /* an operand in ModRM.rm, perhaps one in ModRM.reg */
    FORM_FIXED,    /* operands in RAX and RDX, perhaps an immediate */
    FORM_LOW3,     /* the register in the opcode */
    FORM_LEA,
    FORM_PUSH, /* of a register */
    FORM_PUSH_IMM,
    FORM_PUSH_MEM,
    FORM_POP,
    FORM_LEAVE,
    FORM_DIV,       /* DIV, IDIV of 4 and 8 bytes */
    FORM_X87_CW,    /* FLDCW */
    FORM_SYS,       /* jit_sys.c; flags in memory */
    FORM_STI,       /* likewise; not the last of its block */
    FORM_SHIFT,     /* jit_bit.c, of 4 and 8 bytes; flags in memory */
    FORM_BIT,       /* likewise: BT, BTS, BTR, BTC of memory by a register */
    FORM_SCAN,      /* BSF, BSR of 4 and 8 bytes */
    FORM_X87_FLAGS, /* FCOMI and its like */
    FORM_JCC,
    FORM_JMP,
    FORM_CALL_NEAR,
    FORM_JMP_TO, /* what an operand says */
    FORM_CALL_TO,
    FORM_RET,
    FORM_SYS_GO, /* jit_sys.c: goes somewhere else */
};

/* Behind it the run loop looks before anything else is executed. A REP of memory alone that is
 * through has not changed what is to be looked at. */
static inline bool jit_ends(const struct insn *in)
{
    bool string = (in->flags & (INSN_REP | INSN_REPNE)) != 0 && in->opcode >= 0xa0;

    return (in->flags & (INSN_BRANCH | INSN_ENDS_BLOCK)) != 0 && !string;
}

/* What an operand is used for. */
enum { USE_NONE = 0, USE_READ = 1, USE_WRITE = 2, USE_BOTH = 3 };

/* What is left of the flags, beyond what @writes says. */
enum form_flags {
    FLAGS_WHOLE,   /* as the host has them */
    FLAGS_NO_AF,   /* AF is 0, whatever the host has */
    FLAGS_KEEP_CF, /* INC, DEC */
    FLAGS_ROL,     /* CF and OF follow from the result, the others stay */
    FLAGS_ROR,
    FLAGS_CF_OF, /* these two are the host's, the others stay */
    FLAGS_CF,    /* likewise */
    FLAGS_ZF,    /* this one is the host's, and so are the others, as they were before */
    FLAGS_SOME,  /* those of @defined are the host's, the others are 0 */
    FLAGS_SHL,   /* as FLAGS_NO_AF, and what OF is follows from the result and @count */
    FLAGS_SHR,
    FLAGS_SAR,
};

struct form {
    enum form_kind kind;
    uint8_t map, op;
    bool p66, w, has_rex;
    uint8_t rep;
    uint8_t reg;     /* ModRM.reg, extended; with FORM_LOW3 the register */
    uint8_t rm;      /* ModRM.rm, extended, if it is a register */
    bool mem;        /* it is memory */
    uint8_t reg_use; /* USE_*; USE_NONE: reg is part of the opcode */
    uint8_t rm_use;
    uint8_t reg_size, rm_size; /* bytes */
    bool sse;                  /* on XMM registers, which are the host's; also: */
    bool reg_xmm, rm_xmm;      /* reg, rm are such */
    uint8_t aligned;           /* bits that the memory operand's address must not have */
    bool vex, wide;            /* VEX-encoded; VEX.L */
    uint8_t vvvv;              /* the register of VEX.vvvv, 0 if it names none */
    uint8_t vvvv_use;          /* USE_NONE: it names no general register */
    uint8_t defined;           /* flags */
    bool x87;                  /* on x87 registers, likewise; what is not memory is rm_xmm; and */
    bool fip;                  /* its address is FIP after it */
    uint8_t imm_at, imm_len;   /* in the instruction's bytes */
    uint8_t count;             /* of a shift */
    uint16_t also;             /* general registers written beside the operands: a bit each */
    bool careful;           /* FORM_SHIFT serves where what the host leaves undefined is wanted */
    uint32_t reads, writes; /* arithmetic flags */
    enum form_flags flags;
};

/* @bytes are those of @in; without @v3 the host has not what pollux-v3 adds. Flags that the host
 * leaves undefined are in @uncertain: if one of them is still wanted, FORM_SHIFT serves (careful),
 * or FORM_CALL. */
void form_of(const struct insn *in, const uint8_t *bytes, bool v3, struct form *f,
             uint32_t *uncertain);

/* The register that operand @reg of @size bytes is, or (AH, CH, DH, BH) is part of. */
unsigned form_register(const struct form *f, unsigned reg, unsigned size);

/* form_of's part for SSE (jit_sse.c): @f has prefixes, opcode and ModRM. What is not the host's own
 * instruction is left as it is. */
void sse_form(const struct insn *in, struct form *f);

/* The same for x87 (jit_x87.c). */
void x87_form(struct form *f);

/* form_of's part for general registers of what pollux-v3 adds (jit_vex.c); likewise. */
void bmi_form(const struct insn *in, struct form *f);

/* form_of's part for system instructions (jit_sys.c): FORM_CALL: not one of its. */
enum form_kind jit_sys_kind(const struct insn *in);

#endif
