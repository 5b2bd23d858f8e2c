/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/isa.h - every instruction form of the model against the processor of this host.
 *
 * enumerate.c lists forms with Zydis; native.c executes instructions on the host, in a child under
 * ptrace; ours.c executes them on an engine; values.c makes operands; exempt.c says
 * what need not be equal; main.c compares one instruction at a time, and prints the table; draft.c
 * makes single instructions, sequence.c makes programs. Both sides see the same addresses: code,
 * data and stack at fixed places. */
#ifndef TESTS_ISA_ISA_H
#define TESTS_ISA_ISA_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/hash.h"
#include "base/prng.h"

/* The model is pollux-v3 instead of pollux-v2: VEX-encoded forms too, and the upper halves of the
 * YMM registers. What was opened while it was set (ours.h) is used while it is; a host opened so
 * (native_open) serves both. */
extern bool isa_v3;

enum isa_mode { ISA_64, ISA_32, ISA_16, ISA_MODES };

#define CODE_AT  UINT64_C(0x10000000)
#define DATA_AT  UINT64_C(0x10010000)
#define STACK_AT UINT64_C(0x10020000)
enum { CODE_SIZE = 0x2000, DATA_SIZE = 0x4000, STACK_SIZE = 0x4000, INSN_OFFSET = 0x800 };

enum form_class {
    FORM_CHECKED,    /* executed on the host and here */
    FORM_REFUSED,    /* not in the model: #UD here */
    FORM_PRIVILEGED, /* needs ring 0 or a system's tables: the test in witness.c checks it */
    FORM_MISSING,    /* in the model, but nothing implements it: a failure */
};

struct form {
    char name[72]; /* mnemonic and operands */
    enum isa_mode mode;
    enum form_class class;
    ZydisMnemonic mnemonic;
    uint8_t bytes[15]; /* an example */
    uint8_t len;
    uint8_t imm_at[2], imm_len[2]; /* immediates within bytes, to be randomised */
    bool mem;                      /* has a memory operand */
    uint8_t modrm_at;              /* 0: none. Memory operands are rBX + disp8 there */
    uint8_t opcode_at, rex;        /* REX precedes the opcode; 0: none */
    bool reg_free, rm_free;        /* ModRM.reg, ModRM.rm name a general or vector register */
    bool vex, vvvv_free;           /* C4 at opcode_at; VEX.vvvv names a register */
    bool vsib;                     /* the memory operand has a vector of indices */
    bool rep;                      /* a string instruction with F2 or F3 */
    bool fp;                       /* touches x87, MMX or SSE */
    bool branch;                   /* target registers must be canonical */
    uint32_t flags_read, flags_written, flags_undefined; /* EFLAGS bits */
    unsigned trials, differ;
};

struct forms {
    struct form *items;
    unsigned n, cap;
};

void enumerate(enum isa_mode mode, struct forms *out);
/* The form of the instruction at @bytes, 15 of them. false: it is none of the legacy maps, nor of
 * those of VEX. */
bool form_of_bytes(enum isa_mode mode, const uint8_t *bytes, struct form *out);

/* The test that answers for a form of the column "privileged". */
struct witness {
    const char *file, *test;
};

/* NULL: no row names one. */
const struct witness *witness_of(const struct form *f);
/* Every row was used, and every test it names is where it says (from the tree's root). The number
 * of rows for which this is not so, each said on stdout. @all: every form was asked for. */
unsigned witnesses_check(bool all);

/* What one instruction starts from and leads to. */
struct isa_state {
    uint64_t gpr[16]; /* order of enum cpu_reg */
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base; /* of 64-bit mode */
    uint8_t fx[512];           /* FXSAVE64 image */
    uint8_t ymm_high[256];
    uint8_t data[DATA_SIZE], stack[STACK_SIZE];
};

/* The FPU as FNINIT leaves it, and MXCSR as at reset, in registers that are 0. */
static inline void isa_fx_reset(struct isa_state *s)
{
    s->fx[0] = 0x7f;
    s->fx[1] = 3;
    s->fx[24] = 0x80;
    s->fx[25] = 0x1f;
}

/* Random operands of all kinds: integers, floating-point numbers, an FXSAVE image. */
uint64_t random_value(struct prng *g);
void random_float(struct prng *g, uint8_t *at, unsigned size);
void random_x87(struct prng *g, uint8_t *at);
void random_fx(struct prng *g, uint8_t *fx);

/* An instruction as it is executed. */
struct isa_code {
    uint8_t bytes[20];
    unsigned len;
    uint8_t imm_at; /* of the first immediate */
};

/* One of the encodings of @f at random: prefixes, registers, addressing forms; points the registers
 * of @s at the operand. */
void make_variant(struct prng *g, const struct form *f, struct isa_state *s, struct isa_code *out);

/* Outcome: 0, or the signal the kernel would send for the exception. */
struct isa_outcome {
    int signal;
    bool page_fault, present; /* #PF, there though not for this access */
    uint64_t address;         /* of a #PF, else 0 */
    struct isa_state s;
};

/* --- exempt.c: where equality with this host is not asked for (ARCHITECTURE.md, R6) ------------
 */

struct exemption {
    ZydisMnemonic mnemonic;
    enum { SKIP_RESULT, SKIP_FSW, SKIP_C1, SKIP_NAN, SKIP_FORM } what;
    const char *why;
};
/* What is so whatever the operands; NULL: nothing. */
const struct exemption *exemption_of(const struct form *f);

/* MXCSR @a of the host is as @b here, but for a difference that is known. */
bool same_mxcsr(uint32_t a, uint32_t b);

/* With another W of VEX it need not be refused, nor executed. */
bool exempt_vex(const struct form *f);
/* Nothing is asked for, because one of them raises an exception, or another one, or what they do is
 * undefined. @in: before the instruction. */
bool exempt_fault(const struct form *f, const struct isa_state *in, const struct isa_code *code,
                  const struct isa_outcome *host, const struct isa_outcome *here);
/* Both ended alike: what is not asked for becomes in @host what it is in @here. */
void exempt_results(const struct form *f, const struct isa_code *code, struct isa_outcome *host,
                    const struct isa_outcome *here);

/* --- native.c: the host ------------------------------------------------------------------------
 */

/* This host has what the model has (isa_v3). */
bool native_has_model(void);
/* Some hypervisors run 64-bit programs only. After native_open. */
bool native_has_mode(enum isa_mode mode);
/* x87, XMM and, of pollux-v3, YMM registers of @pid, which is traced and stands. */
void native_fp(pid_t pid, struct isa_state *out);
int native_open(void);
void native_close(void);
void native_step(enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
                 const struct isa_state *in, struct isa_outcome *out);
/* A whole program (64-bit), until it faults. false: it runs on and on. */
bool native_run(const uint8_t code[CODE_SIZE], const struct isa_state *in, struct isa_outcome *out);

#endif
