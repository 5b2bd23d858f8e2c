/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_shared.c - the code that all translations share: into translated code and out of
 * it, calls of C, on to an address that is known late. See jit.h. */
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/sse.h"
#include "vmm/engine/jit_work.h"

#define OFF(field) offsetof(struct vcpu, field)

enum { PUSH = 0x50, POP = 0x58, RETURN_ADDRESS = 8 };

static const struct {
    uint8_t guest, host;
} pinned[] = {
    {RAX, 0}, {RCX, 1}, {RDX, 2},  {RBX, 3},  {RSP, HOST_GUEST_RSP}, {RBP, 5}, {RSI, 6}, {RDI, 7},
    {R8, 8},  {R9, 9},  {R10, 10}, {R12, 12},
};

static void move_pinned(struct jit_code *c, unsigned op)
{
    for (unsigned i = 0; i < PLX_COUNT(pinned); i++) {
        emit_q(c, op, pinned[i].host, rm_vcpu(OFF(c.gpr) + pinned[i].guest * sizeof(uint64_t)));
    }
}

/* c.progress = stop_progress - @reg, c.retired by the bias; uses RAX. */
static void store_counts(struct jit_code *c, unsigned reg)
{
    emit_q(c, OP_MOV_LOAD, RAX, rm_vcpu(OFF(stop_progress)));
    emit_q(c, 0x2b, RAX, rm_reg(reg)); /* sub */
    emit_q(c, OP_MOV_STORE, RAX, rm_vcpu(OFF(c.progress)));
    emit_q(c, OP_ADD_LOAD, RAX, rm_vcpu(OFF(jit_run.bias)));
    emit_q(c, OP_MOV_STORE, RAX, rm_vcpu(OFF(c.retired)));
}

static void move_xmm(struct jit_code *c, unsigned op)
{
    for (unsigned i = 0; i < 16; i++) { /* movups */
        emit_op(c, (struct op){.map = 1, .op = (uint8_t)op}, i, rm_vcpu(OFF(c.fpu.xmm) + 16UL * i));
    }
}

static void move_mxcsr(struct jit_code *c, unsigned n, size_t off)
{
    emit_op(c, (struct op){.map = 1, .op = 0xae}, n, rm_vcpu(off)); /* 2: ldmxcsr, 3: stmxcsr */
}

static void set_vectors(struct jit_code *c, enum jit_vectors vectors)
{
    emit_op(c, (struct op){.op = 0xc6}, 0, rm_vcpu(OFF(jit_run.vectors)));
    emit_1(c, vectors);
}

/* The jump that is taken if the host has at most @vectors. */
static uint32_t jump_if_at_most(struct jit_code *c, enum jit_vectors vectors)
{
    emit_op(c, (struct op){.op = 0x80}, 7, rm_vcpu(OFF(jit_run.vectors))); /* cmp */
    emit_1(c, vectors);
    return emit_jump(c, 0x86, 0); /* jbe */
}

/* The upper halves of the YMM registers, beside which the lower ones stay: VINSERTF128 (18H),
 * VEXTRACTF128 (19H). */
static void move_ymm_high(struct jit_code *c, unsigned op)
{
    for (unsigned i = 0; i < 16; i++) {
        emit_vex(c, (struct op){.map = 3, .op = (uint8_t)op, .p66 = true}, true, op == 0x18 ? i : 0,
                 i, rm_vcpu(OFF(c.fpu.ymm_high) + 16UL * i));
        emit_1(c, 1);
    }
}

/* Back to the guest's state, as much as the host has. C code and the host's SSE are slow where
 * upper halves are in use. */
static void store_vectors(struct jit_code *c, bool v3)
{
    uint32_t none = jump_if_at_most(c, JIT_NO_VECTORS);

    if (v3) {
        uint32_t low = jump_if_at_most(c, JIT_XMM);
        move_ymm_high(c, 0x19);
        emit_bytes(c, "\xc5\xf8\x77", 3); /* vzeroupper */
        emit_aim(c, low, c->at);
    }
    move_xmm(c, 0x11);
    move_mxcsr(c, 3, OFF(c.fpu.mxcsr));
    move_mxcsr(c, 2, OFF(jit_run.mxcsr_host));
    set_vectors(c, JIT_NO_VECTORS);
    emit_aim(c, none, c->at);
}

/* What translated SSE and AVX rely on. */
static uint64_t cr4_wanted(enum jit_vectors vectors)
{
    return CR4_OSFXSR | (vectors == JIT_YMM ? CR4_OSXSAVE : 0);
}

static uint64_t xcr0_wanted(enum jit_vectors vectors)
{
    return vectors == JIT_YMM ? XCR0_SSE | XCR0_AVX : 0;
}

bool jit_vectors_usable(const struct vcpu *v, enum jit_vectors vectors)
{
    return vectors == JIT_NO_VECTORS ||
           ((v->c.cr0 & (CR0_EM | CR0_TS)) == 0 && (~v->c.cr4 & cr4_wanted(vectors)) == 0 &&
            (~v->c.xcr0 & xcr0_wanted(vectors)) == 0 && (~v->c.fpu.mxcsr & MXCSR_MASKS) == 0);
}

/* The jump that is taken if a bit of @mask is clear in the word at @off; uses T1. */
static uint32_t jump_unless_all(struct jit_code *c, size_t off, uint64_t mask)
{
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(off));
    emit_d(c, 0xf7, 2, rm_reg(HOST_T1)); /* not */
    emit_d(c, 0xf7, 0, rm_reg(HOST_T1)); /* test */
    emit_4(c, (uint32_t)mask);
    return emit_jump(c, 0x85, 0);
}

/* The same, and the registers to the host; ZF: they stay where they are. Uses T1. */
static void emit_load_vectors(struct jit_code *c, enum jit_vectors vectors)
{
    uint32_t no[4], have = 0;
    unsigned n = 0;

    c->pushed = RETURN_ADDRESS;
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_vcpu(OFF(c.cr0)));
    emit_d(c, 0xf7, 0, rm_reg(HOST_T1)); /* test */
    emit_4(c, CR0_EM | CR0_TS);
    no[n++] = emit_jump(c, 0x85, 0);
    no[n++] = jump_unless_all(c, OFF(c.cr4), cr4_wanted(vectors));
    no[n++] = jump_unless_all(c, OFF(c.fpu.mxcsr), MXCSR_MASKS);
    if (vectors == JIT_YMM) {
        no[n++] = jump_unless_all(c, OFF(c.xcr0), xcr0_wanted(vectors));
        uint32_t none = jump_if_at_most(c, JIT_NO_VECTORS);
        have = emit_jump(c, JUMP, 0);
        emit_aim(c, none, c->at);
    }
    move_xmm(c, 0x10);
    move_mxcsr(c, 2, OFF(c.fpu.mxcsr));
    if (vectors == JIT_YMM) {
        emit_aim(c, have, c->at);
        move_ymm_high(c, 0x18);
    }
    set_vectors(c, vectors);
    emit_q(c, 0x85, RSP, rm_reg(RSP)); /* not zero */
    emit_1(c, 0xc3);
    for (unsigned i = 0; i < n; i++) {
        emit_aim(c, no[i], c->at);
    }
    emit_d(c, OP_XOR_LOAD, HOST_T1, rm_reg(HOST_T1));
    emit_1(c, 0xc3);
    c->pushed = 0;
}

static const uint8_t saved[] = {RBX, RBP, R12, R13, R14, R15};

static void push_pop(struct jit_code *c, unsigned op, unsigned reg)
{
    if (reg >= 8) {
        emit_1(c, 0x41);
    }
    emit_1(c, op | (reg & 7));
}

static void add_rsp(struct jit_code *c, int n)
{
    emit_q(c, 0x83, 0, rm_reg(RSP));
    emit_1(c, (uint8_t)n);
}

/* Call @fn of the vCPU on the host's stack. Guest registers are stored; uses RBX. */
static void call_c(struct jit_code *c, const void *fn)
{
    emit_lea(c, true, RDI, RSP, -1, 0, c->pushed - (int)OFF(c));
    emit_q(c, OP_MOV_LOAD, RBX, rm_reg(RSP));
    emit_q(c, OP_MOV_LOAD, RSP, rm_vcpu(OFF(jit_run.host_rsp)));
    emit_mov_imm(c, RAX, (uint64_t)(uintptr_t)fn);
    emit_d(c, 0xff, 2, rm_reg(RAX)); /* call */
    emit_q(c, OP_MOV_LOAD, RSP, rm_reg(RBX));
}

/* jit_x87_load; ZF: they stay where they are. XMM registers do then too. */
static void emit_load_x87(struct jit *j)
{
    struct jit_code *c = &j->code;

    c->pushed = RETURN_ADDRESS;
    move_pinned(c, OP_MOV_STORE);
    store_vectors(c, j->v3);
    call_c(c, (const void *)(uintptr_t)jit_x87_load);
    emit_d(c, 0x85, RAX, rm_reg(RAX)); /* test */
    move_pinned(c, OP_MOV_LOAD);
    emit_1(c, 0xc3);
    c->pushed = 0;
}

/* From translated code: execute @in with the interpreter's function. Nonzero: leave, with
 * v->cur as it is. */
static int interpret(struct vcpu *v, const struct insn *in)
{
    uint64_t next = v->c.rip + in->len;

    if (v->jit_run.x87_live) {
        jit_x87_store(v);
    }
    v->jit->calls++;
    v->c.rflags = (v->c.rflags & ~FLAG_OF) | (uint64_t)v->jit_run.overflow << 11;
    v->cur = in;
    v->next_rip = next;
    in->fn(v, in);
    v->c.rip = v->next_rip;
    v->c.retired++;
    v->c.progress++;
    v->c.sti_shadow = v->c.sti_shadow == 1;
    v->jit_run.overflow = (v->c.rflags & FLAG_OF) != 0;
    v->jit_run.bias = v->c.retired - v->c.progress;
    if (v->attention || v->c.rip != next || jit_ends(in)) {
        return 1;
    }
    v->cur = NULL;
    return 0;
}

/* The same, and on with x87 registers. */
static int interpret_x87(struct vcpu *v, const struct insn *in)
{
    return interpret(v, in) || !jit_x87_load(v);
}

/* Execute instruction T0 in C; T1 is how many of the block are behind it. They want @vectors and
 * (@x87) x87 registers back. */
static void emit_call(struct jit *j, uint32_t out, enum jit_vectors vectors, bool x87)
{
    struct jit_code *c = &j->code;
    int (*fn)(struct vcpu *, const struct insn *) = x87 ? interpret_x87 : interpret;
    uint32_t stop[3];

    j->call[vectors][x87] = c->at;
    c->pushed = RETURN_ADDRESS;
    move_pinned(c, OP_MOV_STORE);
    store_vectors(c, j->v3);
    emit_q(c, OP_MOV_STORE, HOST_T1, rm_vcpu(OFF(jit_run.rest)));
    emit_lea(c, true, HOST_T1, HOST_T1, HOST_BUDGET, 0, 1);
    store_counts(c, HOST_T1);
    emit_q(c, OP_MOV_LOAD, RSI, rm_reg(HOST_T0));
    call_c(c, (const void *)(uintptr_t)fn);
    emit_d(c, 0x85, RAX, rm_reg(RAX)); /* test */
    stop[0] = emit_jump(c, 0x85, 0);
    emit_q(c, OP_MOV_LOAD, HOST_BUDGET, rm_vcpu(OFF(stop_progress)));
    emit_q(c, 0x2b, HOST_BUDGET, rm_vcpu(OFF(c.progress)));
    emit_q(c, 0x2b, HOST_BUDGET, rm_vcpu(OFF(jit_run.rest)));
    stop[1] = emit_jump(c, 0x88, 0); /* js: a REP took much */
    if (vectors != JIT_NO_VECTORS) { /* at last: from here on the guest's are live */
        push_pop(c, POP, HOST_T0);
        emit_jump(c, CALL, j->load[vectors]);
        push_pop(c, PUSH, HOST_T0);
        stop[2] = emit_jump(c, 0x84, 0);
    }
    move_pinned(c, OP_MOV_LOAD);
    emit_1(c, 0xc3);
    emit_aim(c, stop[0], c->at);
    emit_aim(c, stop[1], c->at);
    if (vectors != JIT_NO_VECTORS) {
        emit_aim(c, stop[2], c->at);
    }
    c->pushed = 0;
    add_rsp(c, RETURN_ADDRESS);
    emit_d(c, 0x33, RAX, rm_reg(RAX)); /* no edge */
    emit_jump(c, JUMP, out);
}

/* On at linear address T0, which must be canonical: its code, if that is known and what may be
 * fetched there now, else out. */
static void emit_go_on(struct jit *j)
{
    struct jit_code *c = &j->code;
    uint32_t unlike[2];

    jit_look_up_jump(c, unlike);
    emit_d(c, 0xff, 4, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, code))); /* jmp */
    emit_aim(c, unlike[1], c->at);
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, rip)));
    emit_aim(c, unlike[0], c->at);
    emit_q(c, OP_MOV_STORE, HOST_T0, rm_vcpu(OFF(c.rip)));
    emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T0)); /* no edge */
    emit_jump(c, JUMP, j->leave);
}

void jit_emit_shared(struct jit *j)
{
    struct jit_code *c = &j->code;
    const void *enter = c->rx + c->at;

    memcpy(&j->enter, &enter, sizeof enter); /* RDI: vCPU, RSI: code */
    for (unsigned i = 0; i < PLX_COUNT(saved); i++) {
        push_pop(c, PUSH, saved[i]);
    }
    add_rsp(c, -8); /* so it is aligned for calls */
    emit_q(c, OP_MOV_STORE, RSP, rm_at(RDI, OFF(jit_run.host_rsp)));
    emit_lea(c, true, RSP, RDI, -1, 0, OFF(c));
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(RSI));
    emit_q(c, OP_MOV_LOAD, HOST_BUDGET, rm_vcpu(OFF(stop_progress)));
    emit_q(c, 0x2b, HOST_BUDGET, rm_vcpu(OFF(c.progress)));
    move_pinned(c, OP_MOV_LOAD);
    emit_d(c, 0xff, 4, rm_reg(HOST_T0)); /* jmp */

    /* leave: T0 is the edge, or 0; registers are live */
    j->leave = c->at;
    move_pinned(c, OP_MOV_STORE);
    store_vectors(c, j->v3);
    store_counts(c, HOST_BUDGET);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T0));
    uint32_t out = c->at;
    emit_q(c, OP_MOV_LOAD, RSP, rm_vcpu(OFF(jit_run.host_rsp)));
    add_rsp(c, 8);
    for (unsigned i = PLX_COUNT(saved); i-- > 0;) {
        push_pop(c, POP, saved[i]);
    }
    emit_1(c, 0xc3);
    j->go_on = c->at;
    emit_go_on(j);
    for (unsigned i = JIT_NO_VECTORS; i <= (j->v3 ? JIT_YMM : JIT_XMM); i++) {
        j->load[i] = c->at;
        if (i != JIT_NO_VECTORS) {
            emit_load_vectors(c, i);
        }
    }
    j->load_x87 = c->at;
    emit_load_x87(j);
    for (unsigned i = JIT_NO_VECTORS; i <= (j->v3 ? JIT_YMM : JIT_XMM); i++) {
        emit_call(j, out, i, false);
        emit_call(j, out, i, true);
    }
}
