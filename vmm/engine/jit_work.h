/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_work.h - a translation being made, and what the files that do it use of each
 * other: jit_block.c takes the instructions in turn and keeps track of the flags. All emit code at
 * w->c. Threading: the vCPU's. */
#ifndef VMM_ENGINE_JIT_WORK_H
#define VMM_ENGINE_JIT_WORK_H

#include <stddef.h>

#include "vmm/engine/jit.h"
#include "vmm/engine/jit_access.h"
#include "vmm/engine/jit_form.h"
#include "vmm/mmu/shadow.h"

enum {
    JIT_SLOW_EACH = 6, /* at most, of one instruction */
    JIT_SLOW_MAX = 2 * JIT_INSNS_MAX * JIT_SLOW_EACH + 5 * JIT_GROUPS,
    JIT_MISS_MAX = JIT_INSNS_MAX * JIT_ACCESSES_EACH + 2 * JIT_GROUPS
};

/* A block with accesses that are checked by others (jit_access.h) is translated two ways. The first
 * is as planned; where one of those checks fails, or something had to be interpreted, it is the
 * plain way, where each access looks for itself, that goes on. */
enum jit_way { JIT_PLANNED, JIT_PLAIN, JIT_WAYS };

/* From where the slow path of an instruction is reached. */
struct jit_slow {
    uint32_t from; /* displacement of the jump to it */
    unsigned insn;
    enum jit_way way;
    uint8_t maker; /* 0: the flags are in memory; else they are lost there (struct jit_work) */
    bool skip;     /* on to the instruction the plain way, without executing it */
};

/* Before an instruction, or (after one) where its slow path comes back. */
struct jit_point {
    uint32_t at;  /* 0: none */
    bool in_host; /* the flags are */
};

/* A check of @span bytes, and what it does when they are not where they were found last. */
struct jit_miss {
    struct jit_place place;
    int64_t disp; /* for place.disp */
    unsigned span, insn;
    uint8_t group; /* that keeps what is found, if it is not @late */
    bool write;
    uint8_t aligned; /* bits that the address must not have */
    bool late;       /* what is loaded by the address waits for it */
    uint8_t maker;   /* as in jit_slow */
    bool skip;       /* if it fails the instruction is executed the plain way */
    uint32_t from[2], back;
    uint32_t site; /* the word that knows where that was */
};

enum { JIT_EXIT_FROM = 5, JIT_TIMES_MAX = 4 /* around a loop */ };

/* A way out in the middle: where its jumps are, and how the flags are there. */
struct jit_exit {
    uint32_t from[JIT_EXIT_FROM]; /* displacements of the jumps to it */
    unsigned n;
    uint64_t rip;
    unsigned insn;
    bool in_host, no_af;
};

/* Host register of @lender (a guest register or the budget), which @guest has for the time, or
 * (REG_NONE) groups of accesses. */
struct jit_lent {
    uint8_t host, guest, lender;
};
enum { JIT_LENT_MAX = 8 };

struct jit_work {
    struct vcpu *v;
    struct jit_code *c;
    struct translation *t;
    struct block *block[JIT_BLOCKS_MAX];
    unsigned nblocks;
    struct jit_span *span;
    bool loops, x87; /* it leads to itself; it uses x87 registers */
    uint8_t vectors; /* enum jit_vectors */
    unsigned n, i;   /* instructions, the one under way */
    uint64_t next;   /* the address behind it */
    const struct insn *insn[JIT_INSNS_MAX];
    uint64_t at[JIT_INSNS_MAX]; /* their addresses */
    const uint8_t *bytes[JIT_INSNS_MAX];
    struct form forms[JIT_INSNS_MAX]; /* if no flag is wanted; and which do not allow for it: */
    uint32_t uncertain[JIT_INSNS_MAX];
    struct form form[JIT_INSNS_MAX];
    uint32_t live[JIT_INSNS_MAX + 1]; /* flags wanted before it */
    struct jit_plan plan;
    unsigned reach; /* instructions of the planned way */
    enum jit_way way;
    unsigned nth;                               /* accesses of the instruction that were emitted */
    uint32_t checked;                           /* groups: a bit each */
    struct jit_point before[JIT_INSNS_MAX + 1]; /* on the plain way */
    struct jit_point after[JIT_WAYS][JIT_INSNS_MAX];
    struct rm rm;        /* of the last access */
    bool in_host, no_af; /* the flags: in host flags only, and there AF means nothing */
    bool lost;           /* the flags: neither there nor in memory, but they can be made again: */
    uint8_t maker;       /* 1 plus the instruction that made the flags, if they can; else 0 */
    uint32_t told_by;    /* the registers that tell them: a bit each */
    struct jit_slow slow[JIT_SLOW_MAX];
    struct jit_miss miss[JIT_MISS_MAX];
    unsigned nslow, nmiss;
    struct jit_exit exit[JIT_WAYS * (JIT_INSNS_MAX + JIT_TIMES_MAX)];
    unsigned nexits;
    uint32_t unlike[2]; /* of the edge being emitted */
    int8_t host[16];    /* of each guest register: its host register, -1: it is in memory */
    struct jit_lent lent[JIT_LENT_MAX];
    unsigned nlent, lenders; /* lenders that were looked at */
    bool budget_lent;
    uint8_t found[JIT_GROUPS]; /* the host register with what a group's check found; 0: its slot */
    uint32_t inner;            /* where a translation that leads to itself goes on */
    uint32_t body;             /* the same, behind the early checks of the planned way */
    struct jit *j;
};

/* What is at offset @off of struct vcpu. */
static inline struct rm rm_vcpu(size_t off)
{
    return (struct rm){
        .kind = RM_FRAME, .rm = RSP, .disp = (int32_t)off - (int32_t)offsetof(struct vcpu, c)};
}

#define JIT_GPR(reg) (offsetof(struct vcpu, c.gpr) + (size_t)(reg) * sizeof(uint64_t))
#define JIT_RFLAGS   rm_vcpu(offsetof(struct vcpu, c.rflags))
#define JIT_OVERFLOW rm_vcpu(offsetof(struct vcpu, jit_run.overflow))
#define JIT_KEPT     rm_vcpu(offsetof(struct vcpu, jit_run.kept))

enum {
    AH = 4,
    OP_MOV8_STORE = 0x88,
    OP_MOV8_LOAD = 0x8a,
    OP_OR8_STORE = 0x08,
    OP_MOVZX1 = 0xb6, /* 0F */
    OP_MOVZX2 = 0xb7,
};

/* jit_flags.c: the guest's arithmetic flags between host flags and memory. */

/* Host flags to memory; they stay if @keep. */
void jit_save_flags(struct jit_work *w, bool keep);
void jit_load_flags(struct jit_code *c);
/* AH to memory as all flags but OF; @no_af: AF means nothing there and is 0. */
void jit_store_ah(struct jit_code *c, bool no_af);
/* INC and DEC: everything but CF, which is in memory. */
void jit_save_but_cf(struct jit_code *c);
/* CF and OF of a rotated register, of 32 or 64 bits in host register @r; uses T0 and T1. OF is that
 * of a rotation by 1, whatever the count (undefined.h). */
void jit_save_rotated(struct jit_code *c, const struct form *f, unsigned r);
/* What @f leaves in the host's flags: CF and OF, or CF alone, the others being in memory already;
 * or those that are defined, zeros for the others. Uses T1. */
void jit_save_some(struct jit_code *c, const struct form *f);
/* For flags of shifts in AH: T0 = OF of a left shift by 1, SF unlike CF, bits 15 and 8 of EAX; and
 * OF in T0 and AH to memory, RAX back from T1. */
void jit_left_overflow(struct jit_code *c);
void jit_end_shifted(struct jit_code *c);
/* All flags of a shift by more than 1, whose OF is that of one by 1 (undefined.h); the result is
 * @result. Uses T0 and T1. */
void jit_save_shifted(struct jit_code *c, const struct form *f, struct rm result);
void jit_want_host_flags(struct jit_work *w);
/* In a test: host flags that nobody may rely on become others. */
void jit_poison(struct jit_work *w, uint32_t flags);
/* In a test, right behind the host's instruction: what the SDM leaves undefined does, of the flags
 * and of what is now in @result. */
void jit_poison_undefined(struct jit_work *w, const struct insn *in, struct rm result);

/* jit_remake.c: flags made again instead of saved. */

/* The instruction under way has made the flags, which are in host flags. */
void jit_note_flags(struct jit_work *w);
/* It has made none; the registers that it changes tell them no more. */
void jit_note_registers(struct jit_work *w);
/* The flags, in host flags before the instruction under way, may be lost there: until others take
 * their place they can be made again wherever they are wanted, within @n instructions. */
bool jit_may_lose(const struct jit_work *w, unsigned n);
/* Those of @maker (struct jit_work) in host flags; uses T0 and T1. */
void jit_remake(struct jit_work *w, unsigned maker);
static inline uint8_t jit_lost(const struct jit_work *w)
{
    return w->lost ? w->maker : 0;
}

/* jit_operand.c: registers, addresses and the inline lookup of memory. */

/* The host's register for a guest's; -1: it is in memory. */
static inline int jit_host_of(const struct jit_work *w, unsigned reg)
{
    return w->host[reg];
}

/* A guest register in a host register: its own, or @temp, loaded. */
unsigned jit_load_reg(struct jit_work *w, unsigned reg, unsigned temp);
void jit_store_reg(struct jit_work *w, unsigned reg, unsigned temp);
/* T0 = the linear address of the memory operand, or (LEA) its offset. Changes no flag without a
 * segment base. */
void jit_address(struct jit_work *w, const struct insn *in, bool linear);
/* On to the slow path. */
void jit_slow_from(struct jit_work *w, uint32_t site);
/* On to the instruction under way the plain way; the flags are in memory. */
void jit_plain_from(struct jit_work *w, uint32_t site);
static inline int32_t jit_tag_of(bool write)
{
    return (int32_t)(write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
}
/* T1 = the offset of the entry of the shadow tables to which linear address T0 leads. */
void jit_hash(struct jit_work *w);
/* T1 = the entry at offset T1, T0 = the offset in its page of the @size bytes at linear address T0;
 * returns the jump that is taken if they are not all there. */
uint32_t jit_compare(struct jit_work *w, unsigned size, bool write);
/* T0 = the host's address of the @size bytes at linear address T0, or on to the slow path. The
 * flags are in memory. */
void jit_lookup(struct jit_work *w, unsigned size, bool write);

bool jit_high_byte(const struct form *f, unsigned reg, unsigned size);
/* Needs the byte registers that only REX names. */
bool jit_low_byte(unsigned host, unsigned size);
void jit_emit_imm(struct jit_work *w, const struct form *f, const uint8_t *bytes);
/* T0 = the 64-bit operand in ModRM.rm. */
void jit_load_rm(struct jit_work *w, const struct form *f);
/* Where jit_do_modrm leaves what it wrote to a register operand. */
unsigned jit_result_host(const struct jit_work *w, const struct form *f);

/* jit_trace.c: what a translation consists of. */

/* The instructions from @first on, which is at @rip. False: it cannot be translated there. */
bool jit_trace(struct jit_work *w, struct block *first, uint64_t rip);

/* jit_span.c */

/* The instruction at @rip, whose bytes to the end of the page are at @first, if it spans two pages
 * and can be executed by a translation. NULL: it does not, or no memory. */
struct jit_span *jit_span_find(const struct vcpu *v, const uint8_t *first, uint64_t rip);
static inline bool jit_spans(const struct jit_work *w, unsigned i)
{
    return w->span != NULL && w->insn[i] == &w->span->insn;
}
/* On to the instruction under way, which is w->span, if it is what it was. The flags go to memory.
 */
void jit_span_check(struct jit_work *w);

/* jit_lend.c: host registers lent to guest registers that live in memory else. */

/* Who lends to whom, for the instructions of @w. */
void jit_lend_choose(struct jit_work *w);
/* From what holds between translations to what holds within this one, and back. No flag changes,
 * nor do T0 and T1. */
void jit_lend(struct jit_work *w);
void jit_give_back(struct jit_work *w);

/* Where the budget is within the translation. */
static inline struct rm jit_budget(const struct jit_work *w)
{
    return w->budget_lent ? rm_vcpu(offsetof(struct vcpu, jit_run.budget)) : rm_reg(HOST_BUDGET);
}

/* jit_check.c: accesses as they were planned. */

/* The next access of the instruction under way: its operand on the host, which needs T0 and the
 * registers of the guest's operand, or on to the slow path. Changes flags, which are in memory, if
 * it is not covered. */
struct rm jit_access(struct jit_work *w);
/* The checks that stand before the first instruction, which is under way; and when all of the
 * planned way has been executed and goes around, without having called C: what they found then
 * serves as long as the page is the same. */
void jit_check_early(struct jit_work *w);
void jit_check_again(struct jit_work *w);
/* What checks do that miss. */
void jit_emit_misses(struct jit_work *w);

/* jit_insn.c: instructions that go on to the next one. */

void jit_do_modrm(struct jit_work *w, const struct form *f, const uint8_t *bytes);
/* The opcode with its prefixes, for operands that are the same registers on the host. */
void jit_do_fixed(struct jit_work *w, const struct form *f, const uint8_t *bytes);
void jit_do_low3(struct jit_work *w, const struct form *f, const uint8_t *bytes);
void jit_do_lea(struct jit_work *w, const struct insn *in);
void jit_do_push(struct jit_work *w, const struct form *f);
void jit_do_pop(struct jit_work *w, const struct form *f);
/* DIV and IDIV, if the quotient certainly fits. */
void jit_do_div(struct jit_work *w, const struct insn *in, const struct form *f);
/* BSF and BSR. Flags go to memory if they are @wanted: ZF, and zeros (undefined.h). */
void jit_do_scan(struct jit_work *w, const struct insn *in, const struct form *f, bool wanted);
/* Pushes what was kept, or (else) @imm. */
void jit_push_kept(struct jit_work *w, bool kept, uint64_t imm);
void jit_do_push_mem(struct jit_work *w, const struct form *f);
void jit_do_leave(struct jit_work *w);

/* jit_vex.c: FORM_MODRM and FORM_ZERO_YMM, VEX-encoded. */
void jit_do_vex(struct jit_work *w, const struct form *f, const uint8_t *bytes);

/* jit_bit.c. */

/* FORM_SHIFT. */
void jit_do_shift(struct jit_work *w, const struct insn *in, const struct form *f);
/* FORM_BIT. CF goes to memory if it is @wanted. */
void jit_do_bit(struct jit_work *w, const struct insn *in, const struct form *f, bool wanted);

/* jit_x87.c. */

/* A translation with so many instructions of it has the host's registers: to load them, and to
 * store them for a call, takes as long as that many calls. */
enum { JIT_X87_WORTH = 4 };
/* w->x87; if not, all of it is left to the interpreter. */
void jit_x87_settle(struct jit_work *w);
/* FIP as it is before instruction @i to memory, if it is not there. Uses T1; no flag changes. */
void jit_x87_fip(struct jit_work *w, unsigned i);
/* FORM_X87_CW, FORM_X87_FLAGS. */
void jit_do_x87_cw(struct jit_work *w);
void jit_do_x87_flags(struct jit_work *w, const struct form *f);

/* jit_sys.c: system instructions. */

/* FORM_SYS, FORM_STI, FORM_SYS_GO. */
void jit_do_sys(struct jit_work *w, const struct insn *in);

/* jit_flow.c: jumps, calls and returns; out of translated code and to the interpreter. */

void jit_set_rip(struct jit_code *c, uint64_t rip);
/* Out of translated code, by @e or (NULL) by none. */
void jit_leave(struct jit_work *w, const struct jit_edge *e);
/* Budget less or (@more) more @n instructions; sets the sign. */
void jit_charge(struct jit_code *c, bool more, uint32_t n);
/* The interpreter's function for instruction @i. What was lent is given back before it. */
void jit_call_out(struct jit_work *w, unsigned i);
void jit_count_called(struct jit_work *w, const struct insn *in);
/* On to @rip, with @refund instructions left out; not linked yet, unless it is where the
 * translation begins. */
void jit_edge(struct jit_work *w, uint64_t rip, unsigned refund);
/* T1 = the jump (struct jit_jump) to address T0, which must be known there and still lead to the
 * same memory, else on by the jumps @unlike, of which the second finds T0 in the jump. */
void jit_look_up_jump(struct jit_code *c, uint32_t unlike[2]);
/* Near RET: to what is known of the address on the stack. */
void jit_do_ret(struct jit_work *w, const struct insn *in);
void jit_do_jump_to(struct jit_work *w, const struct form *f);
/* At the end, where the flags are in memory; and before it: out, if it does not lead to the next
 * instruction. */
void jit_do_jcc(struct jit_work *w, const struct insn *in, bool in_host);
/* It is at the end of the planned way, leads to the beginning, where nobody wants the flags, and
 * they can be made again. */
bool jit_goes_around(const struct jit_work *w);
void jit_do_loop(struct jit_work *w, const struct insn *in);
void jit_do_inner_jcc(struct jit_work *w, const struct insn *in);
void jit_emit_exits(struct jit_work *w);
void jit_do_call(struct jit_work *w, const struct insn *in);

#endif
