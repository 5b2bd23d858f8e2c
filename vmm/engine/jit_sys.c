/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_sys.c - system instructions that a kernel executes all the time, without a call:
 * interrupt flag, EFLAGS on the stack, SMAP's AC, GS, time, PAUSE, SYSCALL and SYSRET. What they do
 * in common cases is emitted; whatever else they may do (faults, an interrupt that becomes
 * deliverable, traps) is left to the interpreter's function before anything has changed. See
 * jit_work.h. */
#include "vmm/engine/jit_work.h"

#include "vmm/cpu/sys_ops.h"
#include "vmm/tunables.h"

#define VCPU(field)   rm_vcpu(offsetof(struct vcpu, field))
#define VCPU_AT(f, n) rm_vcpu(offsetof(struct vcpu, f) + (n))
#define FLAG_BYTE(n)  VCPU_AT(c.rflags, n)

enum {
    OP_ALU_IMM32 = 0x81,
    OP_ALU8_IMM8 = 0x80,
    OP_GROUP3 = 0xf7, /* 0: test imm32, 2: not, 3: neg, 4: mul */
    OP_GROUP3_8 = 0xf6,
    OP_MOV_IMM32 = 0xc7,
    OP_MOV8_IMM8 = 0xc6,
    OP_OR_LOAD = 0x0b,
    OP_AND_LOAD = 0x23,
    OP_SUB_LOAD = 0x2b,
    OP_XOR_STORE = 0x31,
    OP_CMP_LOAD = 0x3b,
    ALU_ADD = 0,
    ALU_OR = 1,
    ALU_AND = 4,
    ALU_XOR = 6,
    ALU_CMP = 7,
    JZ = 0x84,
    JNZ = 0x85,
    JA = 0x87,
    JAE = 0x83,
};

static void alu_imm(struct jit_code *c, bool w, unsigned alu, struct rm rm, uint32_t imm)
{
    emit_op(c, (struct op){.op = OP_ALU_IMM32, .w = w}, alu, rm);
    emit_4(c, imm);
}

static void alu8_imm(struct jit_code *c, unsigned alu, struct rm rm, uint8_t imm)
{
    emit_op(c, (struct op){.op = OP_ALU8_IMM8}, alu, rm);
    emit_1(c, imm);
}

static void test_imm(struct jit_code *c, struct rm rm, uint32_t imm)
{
    emit_d(c, OP_GROUP3, 0, rm);
    emit_4(c, imm);
}

static void slow_if(struct jit_work *w, unsigned jcc)
{
    jit_slow_from(w, emit_jump(w->c, jcc, 0));
}

/* On only at CPL 0; in 64-bit mode CPL is SS.DPL. */
static void need_supervisor(struct jit_work *w)
{
    emit_op(w->c, (struct op){.op = OP_GROUP3_8}, 0, VCPU(c.seg[SEG_SS].attr)); /* test */
    emit_1(w->c, SEG_DPL);
    slow_if(w, JNZ);
}

/* No interrupt is waiting for IF. */
static void need_no_interrupt(struct jit_work *w)
{
    alu8_imm(w->c, ALU_CMP, VCPU(irq_pending), 0);
    slow_if(w, JNZ);
}

/* T0 = EFLAGS as the guest sees them, but for VM and RF, which are 0; uses T1. */
static void load_eflags(struct jit_code *c)
{
    emit_op(c, (struct op){.map = 1, .op = OP_MOVZX1}, HOST_T1, JIT_OVERFLOW);
    emit_shift(c, false, SHIFT_LEFT, HOST_T1, 11);
    emit_q(c, OP_MOV_LOAD, HOST_T0, JIT_RFLAGS);
    alu_imm(c, true, ALU_AND, rm_reg(HOST_T0), (uint32_t) ~(FLAG_OF | FLAG_VM | FLAG_RF));
    emit_d(c, OP_OR_LOAD, HOST_T0, rm_reg(HOST_T1));
}

/* EFLAGS.OF = bit 11 of @reg, which goes. */
static void store_overflow(struct jit_code *c, unsigned reg)
{
    emit_shift(c, false, SHIFT_RIGHT, reg, 11);
    alu_imm(c, false, ALU_AND, rm_reg(reg), 1);
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, reg, JIT_OVERFLOW);
}

/* Progress before the instruction under way. */
static void load_progress(struct jit_work *w, unsigned reg)
{
    struct jit_code *c = w->c;

    emit_q(c, OP_MOV_LOAD, reg, VCPU(stop_progress));
    emit_q(c, OP_SUB_LOAD, reg, jit_budget(w));
    alu_imm(c, true, 5, rm_reg(reg), w->n - w->i); /* sub */
}

/* --- flags ------------------------------------------------------------------------------------ */

static void do_cli(struct jit_work *w, const struct insn *in)
{
    (void)in;
    need_supervisor(w);
    alu8_imm(w->c, ALU_AND, FLAG_BYTE(1), (uint8_t) ~(FLAG_IF >> 8));
}

/* The shadow over the next instruction can be seen only if that one stops before it has any effect:
 * what calls for it sets the shadow (jit_call_out). No other STI goes on to it here. */
static void do_sti(struct jit_work *w, const struct insn *in)
{
    (void)in;
    need_supervisor(w);
    emit_op(w->c, (struct op){.op = OP_GROUP3_8}, 0, FLAG_BYTE(1)); /* test */
    emit_1(w->c, (uint8_t)(FLAG_IF >> 8));
    slow_if(w, JNZ);
    need_no_interrupt(w);
    alu8_imm(w->c, ALU_OR, FLAG_BYTE(1), (uint8_t)(FLAG_IF >> 8));
}

static void do_pushf(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    load_eflags(c);
    emit_q(c, OP_MOV_STORE, HOST_T0, JIT_KEPT);
    emit_lea(c, true, HOST_T0, HOST_GUEST_RSP, -1, 0, -8);
    jit_lookup(w, 8, true);
    emit_q(c, OP_MOV_LOAD, HOST_T1, JIT_KEPT);
    emit_q(c, OP_MOV_STORE, HOST_T1, rm_at(HOST_T0, 0));
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

/* What changes but the arithmetic flags, IF and DF, and what lets an interrupt in, is rare. */
static void do_popf(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    need_supervisor(w);
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(jit_load_reg(w, RSP, HOST_T0)));
    jit_lookup(w, 8, false);
    emit_d(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T0, 0));
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_d(c, OP_XOR_LOAD, HOST_T1, JIT_RFLAGS);
    test_imm(c, rm_reg(HOST_T1), FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IOPL);
    slow_if(w, JNZ);
    test_imm(c, rm_reg(HOST_T0), FLAG_IF);
    uint32_t off = emit_jump(c, JZ, 0);
    need_no_interrupt(w);
    emit_aim(c, off, c->at);
    alu_imm(c, false, ALU_AND, rm_reg(HOST_T1), (FLAGS_ARITH & ~FLAG_OF) | FLAG_IF | FLAG_DF);
    emit_d(c, OP_XOR_STORE, HOST_T1, JIT_RFLAGS);
    store_overflow(c, HOST_T0);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8);
}

static void do_carry(struct jit_work *w, const struct insn *in)
{
    static const struct {
        uint16_t mnemonic;
        uint8_t alu, imm;
    } how[] = {{ZYDIS_MNEMONIC_STC, ALU_OR, FLAG_CF},
               {ZYDIS_MNEMONIC_CMC, ALU_XOR, FLAG_CF},
               {ZYDIS_MNEMONIC_CLC, ALU_AND, (uint8_t)~FLAG_CF}};
    unsigned i = 0;

    while (how[i].mnemonic != in->mnemonic) {
        i++;
    }
    alu8_imm(w->c, how[i].alu, FLAG_BYTE(0), how[i].imm);
}

static void do_lahf(struct jit_work *w, const struct insn *in)
{
    (void)in;
    emit_op(w->c, (struct op){.op = OP_MOV8_LOAD}, AH, FLAG_BYTE(0));
}

static void do_sahf(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    emit_d(c, OP_MOV_LOAD, HOST_T0, rm_reg(RAX));
    emit_shift(c, false, SHIFT_RIGHT, HOST_T0, 8);
    alu_imm(c, false, ALU_AND, rm_reg(HOST_T0), FLAGS_ARITH & ~FLAG_OF);
    alu_imm(c, false, ALU_OR, rm_reg(HOST_T0), FLAG_ONE);
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T0, FLAG_BYTE(0));
}

static void do_direction(struct jit_work *w, const struct insn *in)
{
    bool set = in->mnemonic == ZYDIS_MNEMONIC_STD;

    alu8_imm(w->c, set ? ALU_OR : ALU_AND, FLAG_BYTE(1),
             (uint8_t)(set ? FLAG_DF >> 8 : ~(FLAG_DF >> 8)));
}

static void do_smap(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;
    bool set = in->mnemonic == ZYDIS_MNEMONIC_STAC;

    need_supervisor(w);
    emit_q(c, OP_MOV_LOAD, HOST_T1, set ? VCPU(tlb_super_ac) : VCPU(tlb_super));
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(tlb));
    alu8_imm(c, set ? ALU_OR : ALU_AND, FLAG_BYTE(2),
             (uint8_t)(set ? FLAG_AC >> 16 : ~(FLAG_AC >> 16)));
}

/* --- bases, time, PAUSE ----------------------------------------------------------------------- */

static void do_swapgs(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    need_supervisor(w);
    emit_q(c, OP_MOV_LOAD, HOST_T0, VCPU(c.seg[SEG_GS].base));
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(c.kernel_gs_base));
    emit_q(c, OP_MOV_STORE, HOST_T0, VCPU(c.kernel_gs_base));
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(c.seg[SEG_GS].base));
}

/* As vcpu_tsc; RAX and RDX are the guest's and about to be written. */
static void do_rdtsc(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    test_imm(c, VCPU(c.cr4), CR4_TSD);
    slow_if(w, JNZ);
    load_progress(w, RAX);
    emit_q(c, OP_SUB_LOAD, RAX, VCPU(progress0));
    emit_d(c, OP_MOV_LOAD, HOST_T0, VCPU(rate));
    emit_q(c, OP_GROUP3, 4, rm_reg(HOST_T0));                                   /* mul: RDX:RAX */
    emit_op(c, (struct op){.map = 1, .op = 0xac, .w = true}, RDX, rm_reg(RAX)); /* shrd */
    emit_1(c, 16);
    emit_shift(c, true, SHIFT_RIGHT, RDX, 16);
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(t_end));
    emit_q(c, OP_SUB_LOAD, HOST_T1, VCPU(t0));
    emit_q(c, 0x85, RDX, rm_reg(RDX));                                              /* test */
    emit_op(c, (struct op){.map = 1, .op = 0x45, .w = true}, RAX, rm_reg(HOST_T1)); /* cmovnz */
    emit_q(c, OP_CMP_LOAD, RAX, rm_reg(HOST_T1));
    emit_op(c, (struct op){.map = 1, .op = 0x47, .w = true}, RAX, rm_reg(HOST_T1)); /* cmova */
    emit_q(c, OP_ADD_LOAD, RAX, VCPU(t0));
    emit_q(c, OP_ADD_LOAD, RAX, VCPU(c.tsc_adjust));
    emit_q(c, OP_MOV_LOAD, RDX, rm_reg(RAX));
    emit_shift(c, true, SHIFT_RIGHT, RDX, 32);
    emit_d(c, OP_MOV_LOAD, RAX, rm_reg(RAX));
    if (in->mnemonic == ZYDIS_MNEMONIC_RDTSCP) {
        emit_d(c, OP_MOV_LOAD, RCX, VCPU(c.tsc_aux));
    }
}

/* A PAUSE soon after the last, not the one that yields (int_pause). */
static void do_pause(struct jit_work *w, const struct insn *in)
{
    enum { MARK_SHIFT = 8 };
    struct jit_code *c = w->c;

    (void)in;
    load_progress(w, HOST_T1);
    emit_shift(c, false, SHIFT_LEFT, HOST_T1, MARK_SHIFT);
    alu8_imm(c, ALU_CMP, VCPU(c.pause_run), PAUSE_YIELD - 1);
    slow_if(w, JAE);
    emit_d(c, OP_MOV_LOAD, HOST_T0, VCPU(c.pause_run));
    alu_imm(c, false, ALU_AND, rm_reg(HOST_T0), ~UINT32_C(0xff));
    emit_d(c, OP_SUB_LOAD, HOST_T0, rm_reg(HOST_T1));
    emit_d(c, OP_GROUP3, 3, rm_reg(HOST_T0)); /* neg */
    alu_imm(c, false, ALU_CMP, rm_reg(HOST_T0), PAUSE_GAP << MARK_SHIFT);
    slow_if(w, JA);
    emit_op(c, (struct op){.op = OP_MOV8_LOAD}, HOST_T1, VCPU(c.pause_run));
    alu_imm(c, false, ALU_ADD, rm_reg(HOST_T1), 1);
    emit_d(c, OP_MOV_STORE, HOST_T1, VCPU(c.pause_run));
}

/* INVLPG at CPL 0 changes nothing (R7). */
static void do_invlpg(struct jit_work *w, const struct insn *in)
{
    (void)in;
    need_supervisor(w);
}

/* --- system calls ----------------------------------------------------------------------------- */

enum {
    FLAT = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | SEG_G,
    FLAT_CODE64 = FLAT | SEG_CODE | SEG_L,
    FLAT_STACK = FLAT | SEG_DB
};

/* CS and SS as SYSCALL and SYSRET load them (seg_flat_code, seg_flat_stack): @reg is CS's selector,
 * SS's is @ss_more more, with the same RPL. */
static void store_cs_ss(struct jit_code *c, unsigned reg, int ss_more, unsigned dpl)
{
    static const struct {
        enum cpu_segreg r;
        uint32_t attr;
    } load[] = {{SEG_CS, FLAT_CODE64}, {SEG_SS, FLAT_STACK}};

    for (unsigned i = 0; i < 2; i++) {
        size_t at = offsetof(struct vcpu, c.seg) + load[i].r * sizeof(struct cpu_seg);
        if (i == 1) {
            alu_imm(c, false, ALU_ADD, rm_reg(reg), (uint32_t)ss_more);
        }
        emit_d(c, OP_MOV_IMM32, 0, rm_vcpu(at)); /* selector and attributes */
        emit_4(c, (load[i].attr | dpl << SEG_DPL_SHIFT) << 16);
        emit_op(c, (struct op){.op = OP_MOV_STORE, .p66 = true}, reg, rm_vcpu(at));
        emit_d(c, OP_MOV_IMM32, 0, rm_vcpu(at + offsetof(struct cpu_seg, limit)));
        emit_4(c, UINT32_MAX);
        emit_q(c, OP_MOV_IMM32, 0, rm_vcpu(at + offsetof(struct cpu_seg, base)));
        emit_4(c, 0);
    }
}

static void need_sce(struct jit_work *w)
{
    test_imm(w->c, VCPU(c.efer), EFER_SCE);
    slow_if(w, JZ);
}

static void store_code_kind(struct jit_code *c, unsigned kind)
{
    alu8_imm(c, ALU_AND, VCPU(code_key), (uint8_t)-CODE_STEP);
    alu8_imm(c, ALU_OR, VCPU(code_key), (uint8_t)kind);
}

static void do_syscall(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    need_sce(w);
    jit_give_back(w);
    load_eflags(c);
    emit_mov_imm(c, RCX, w->next);
    emit_q(c, OP_MOV_STORE, HOST_T0, rm_vcpu(JIT_GPR(R11)));
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(c.sfmask));
    emit_q(c, OP_GROUP3, 2, rm_reg(HOST_T1)); /* not */
    emit_q(c, OP_AND_LOAD, HOST_T0, rm_reg(HOST_T1));
    alu_imm(c, false, ALU_OR, rm_reg(HOST_T0), FLAG_ONE);
    emit_q(c, OP_MOV_STORE, HOST_T0, JIT_RFLAGS);
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(tlb_super_code));
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(tlb_code));
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(tlb_super));
    test_imm(c, rm_reg(HOST_T0), FLAG_AC);
    emit_op(c, (struct op){.map = 1, .op = 0x45, .w = true}, HOST_T1,
            VCPU(tlb_super_ac)); /* cmovnz */
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(tlb));
    store_overflow(c, HOST_T0);
    store_code_kind(c, CODE_SUPER);
    emit_d(c, OP_MOV_LOAD, HOST_T0, VCPU_AT(c.star, 4));
    alu_imm(c, false, ALU_AND, rm_reg(HOST_T0), 0xfffc);
    store_cs_ss(c, HOST_T0, 8, 0);
    emit_q(c, OP_MOV_LOAD, HOST_T0, VCPU(c.lstar));
    emit_jump(c, JUMP, w->j->go_on);
}

/* To 64-bit code; flags that translated code does not run under are left to the interpreter. */
static void do_sysret(struct jit_work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    (void)in;
    need_sce(w);
    need_supervisor(w);
    alu8_imm(c, ALU_CMP, VCPU(until_user), 0);
    slow_if(w, JNZ);
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(RCX));
    emit_shift(c, true, SHIFT_LEFT, HOST_T0, 16);
    emit_shift(c, true, SHIFT_ARITHMETIC, HOST_T0, 16);
    emit_q(c, OP_CMP_LOAD, HOST_T0, rm_reg(RCX));
    slow_if(w, JNZ);
    emit_d(c, OP_MOV_LOAD, HOST_T0, rm_reg(jit_load_reg(w, R11, HOST_T0)));
    test_imm(c, rm_reg(HOST_T0), FLAG_TF | FLAG_AC);
    slow_if(w, JNZ);
    test_imm(c, rm_reg(HOST_T0), FLAG_IF);
    uint32_t off = emit_jump(c, JZ, 0);
    need_no_interrupt(w);
    emit_aim(c, off, c->at);
    jit_give_back(w);
    alu_imm(c, false, ALU_AND, rm_reg(HOST_T0), SYSRET_FLAGS);
    alu_imm(c, false, ALU_OR, rm_reg(HOST_T0), FLAG_ONE);
    emit_q(c, OP_MOV_STORE, HOST_T0, JIT_RFLAGS);
    store_overflow(c, HOST_T0);
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(tlb_user_code));
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(tlb_code));
    emit_q(c, OP_MOV_LOAD, HOST_T1, VCPU(tlb_user));
    emit_q(c, OP_MOV_STORE, HOST_T1, VCPU(tlb));
    store_code_kind(c, CODE_USER);
    emit_op(c, (struct op){.map = 1, .op = OP_MOVZX2}, HOST_T0, VCPU_AT(c.star, 6));
    alu_imm(c, false, ALU_ADD, rm_reg(HOST_T0), 16);
    alu_imm(c, false, ALU_OR, rm_reg(HOST_T0), 3);
    store_cs_ss(c, HOST_T0, -8, 3);
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(RCX));
    emit_jump(c, JUMP, w->j->go_on);
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct {
    uint16_t mnemonic;
    uint8_t kind;
    uint8_t osz; /* the one it is here for; 0: any */
    void (*emit)(struct jit_work *w, const struct insn *in);
} table[] = {
    {ZYDIS_MNEMONIC_CLI, FORM_SYS, 0, do_cli},
    {ZYDIS_MNEMONIC_STI, FORM_STI, 0, do_sti},
    {ZYDIS_MNEMONIC_PUSHFQ, FORM_SYS, 8, do_pushf},
    {ZYDIS_MNEMONIC_POPFQ, FORM_SYS, 8, do_popf},
    {ZYDIS_MNEMONIC_STC, FORM_SYS, 0, do_carry},
    {ZYDIS_MNEMONIC_CMC, FORM_SYS, 0, do_carry},
    {ZYDIS_MNEMONIC_CLC, FORM_SYS, 0, do_carry},
    {ZYDIS_MNEMONIC_LAHF, FORM_SYS, 0, do_lahf},
    {ZYDIS_MNEMONIC_SAHF, FORM_SYS, 0, do_sahf},
    {ZYDIS_MNEMONIC_CLD, FORM_SYS, 0, do_direction},
    {ZYDIS_MNEMONIC_STD, FORM_SYS, 0, do_direction},
    {ZYDIS_MNEMONIC_CLAC, FORM_SYS, 0, do_smap},
    {ZYDIS_MNEMONIC_STAC, FORM_SYS, 0, do_smap},
    {ZYDIS_MNEMONIC_SWAPGS, FORM_SYS, 0, do_swapgs},
    {ZYDIS_MNEMONIC_RDTSC, FORM_SYS, 0, do_rdtsc},
    {ZYDIS_MNEMONIC_RDTSCP, FORM_SYS, 0, do_rdtsc},
    {ZYDIS_MNEMONIC_PAUSE, FORM_SYS, 0, do_pause},
    {ZYDIS_MNEMONIC_INVLPG, FORM_SYS, 0, do_invlpg},
    {ZYDIS_MNEMONIC_LFENCE, FORM_NOTHING, 0, NULL},
    {ZYDIS_MNEMONIC_MFENCE, FORM_NOTHING, 0, NULL},
    {ZYDIS_MNEMONIC_SFENCE, FORM_NOTHING, 0, NULL},
    {ZYDIS_MNEMONIC_SYSCALL, FORM_SYS_GO, 0, do_syscall},
    {ZYDIS_MNEMONIC_SYSRET, FORM_SYS_GO, 8, do_sysret},
};

enum form_kind jit_sys_kind(const struct insn *in)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].mnemonic == in->mnemonic) {
            return table[i].osz == 0 || table[i].osz == in->osz ? (enum form_kind)table[i].kind
                                                                : FORM_CALL;
        }
    }
    return FORM_CALL;
}

void jit_do_sys(struct jit_work *w, const struct insn *in)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].mnemonic == in->mnemonic) {
            table[i].emit(w, in);
            return;
        }
    }
}
