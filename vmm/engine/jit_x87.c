/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_x87.c - x87 in translated code: which instructions are the host's own, and how its
 * registers come to be the guest's. See jit_work.h.
 *
 * While every exception is masked, loads, stores, the four operations, square roots, comparisons
 * and moves have one result and one status word on every processor, stack faults included; the
 * interpreter, which computes in integers, has the same. What the SDM leaves undefined
 * (x87_ctl.c) is not the host's: FOP, FCS and FDS are never recorded, FDP not without an unmasked
 * exception, and FIP is stored from what is known of the way here. */
#include "vmm/cpu/x87.h"
#include "vmm/engine/jit_work.h"

enum { OP_FIRST = 0xd8, OP_WAIT = 0x9b };

/* --- which instructions ----------------------------------------------------------------------- */

/* Bytes of the memory operand, by opcode and ModRM.reg; 0: not the host's. */
enum { TO = 0x80 /* or-ed in: it is stored */, CW = 0x40 /* FLDCW */ };

static const uint8_t memory[8][8] = {
    {4, 4, 4, 4, 4, 4, 4, 4}, {4, 0, TO | 4, TO | 4, 0, CW | 2, 0, TO | 2},
    {4, 4, 4, 4, 4, 4, 4, 4}, {4, TO | 4, TO | 4, TO | 4, 0, 10, 0, TO | 10},
    {8, 8, 8, 8, 8, 8, 8, 8}, {8, TO | 8, TO | 8, TO | 8, 0, 0, 0, TO | 2},
    {2, 2, 2, 2, 2, 2, 2, 2}, {2, TO | 2, TO | 2, TO | 2, 0, 8, 0, TO | 8},
};

/* Without one: which ModRM.rm, a bit each. */
static const uint8_t registers[8][8] = {
    {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0xff, 0xff, 0x01, 0, 0x33, 0x7f, 0xc0, 0x14},
    {0xff, 0xff, 0xff, 0xff, 0, 0x02, 0, 0},          {0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0},
    {0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff},       {0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
    {0xff, 0xff, 0, 0x02, 0xff, 0xff, 0xff, 0xff},    {0, 0, 0, 0, 0x01, 0xff, 0xff, 0},
};

static void memory_form(struct form *f, unsigned n)
{
    uint8_t what = memory[f->op - OP_FIRST][n];

    if (what == 0) {
        return;
    }
    f->kind = (what & CW) != 0 ? FORM_X87_CW : FORM_MODRM;
    f->rm_use = (what & TO) != 0 ? USE_WRITE : USE_READ;
    f->rm_size = what & 15;
    f->fip = (what & 15) != 2 || f->op >= 0xde; /* not FLDCW, FNSTCW, FNSTSW */
    f->x87 = true;
}

static void register_form(struct form *f, unsigned n)
{
    bool nop = f->op == 0xd9 && n == 2, stack = f->op == 0xd9 && n == 6; /* FINCSTP, FDECSTP */
    bool status = f->op == 0xdf && n == 4;                               /* FNSTSW AX */

    if ((registers[f->op - OP_FIRST][n] >> f->rm & 1) == 0) {
        return;
    }
    f->kind = nop ? FORM_NOTHING : FORM_MODRM;
    f->rm_xmm = true; /* none of the general registers */
    f->also = status ? 1U << RAX : 0;
    f->fip = !nop && !stack && !status;
    f->x87 = true;
    if ((f->op == 0xdb || f->op == 0xdf) && (n == 5 || n == 6)) {
        f->kind = FORM_X87_FLAGS;
        f->writes = FLAGS_ARITH;
        f->flags = FLAGS_NO_AF;
    } else if ((f->op == 0xda || f->op == 0xdb) && n < 4) { /* FCMOVcc */
        f->reads = FLAGS_ARITH;
    }
}

void x87_form(struct form *f)
{
    unsigned n = f->reg & 7;

    f->p66 = f->w = false; /* operands have their size from the opcode */
    f->rm &= 7;
    if (f->op == OP_WAIT) {
        f->kind = FORM_NOTHING;
        f->x87 = true;
    } else if (f->mem) {
        memory_form(f, n);
    } else {
        register_form(f, n);
    }
}

/* --- code ------------------------------------------------------------------------------------- */

void jit_x87_settle(struct jit_work *w)
{
    unsigned n = 0, calls = 0;

    for (unsigned i = 0; i < w->n; i++) {
        n += w->forms[i].x87 && w->forms[i].kind != FORM_NOTHING;
        calls += w->forms[i].kind == FORM_CALL;
    }
    w->x87 = n >= JIT_X87_WORTH * (1 + calls) || (n != 0 && w->j->x87_always);
    for (unsigned i = 0; i < w->n && !w->x87; i++) {
        struct form *f = &w->forms[i];
        if (f->x87) {
            *f = (struct form){.kind = FORM_CALL};
        }
    }
}

void jit_x87_fip(struct jit_work *w, unsigned i)
{
    struct rm fip = rm_vcpu(offsetof(struct vcpu, c.fpu.fip));

    while (i-- > 0 && w->forms[i].kind != FORM_CALL) {
        if (w->forms[i].fip) {
            emit_mov_imm(w->c, HOST_T1, w->at[i]);
            emit_q(w->c, OP_MOV_STORE, HOST_T1, fip);
            return;
        }
    }
}

void jit_do_x87_cw(struct jit_work *w)
{
    struct jit_code *c = w->c;
    struct rm fcw = rm_vcpu(offsetof(struct vcpu, c.fpu.fcw));

    emit_op(c, (struct op){.map = 1, .op = OP_MOVZX2}, HOST_T0, jit_access(w));
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_d(c, 0x81, 4, rm_reg(HOST_T1)); /* and */
    emit_4(c, X87_EXC);
    emit_d(c, 0x83, 7, rm_reg(HOST_T1)); /* cmp */
    emit_1(c, X87_EXC);
    jit_slow_from(w, emit_jump(c, 0x85, 0));
    emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_d(c, 0x81, 4, rm_reg(HOST_T1));
    emit_4(c, X87_PC);
    emit_d(c, 0x81, 7, rm_reg(HOST_T1));
    emit_4(c, X87_PC_RESERVED);
    jit_slow_from(w, emit_jump(c, 0x84, 0));
    emit_d(c, 0x81, 4, rm_reg(HOST_T0));
    emit_4(c, X87_CW_VALID);
    emit_d(c, 0x83, 1, rm_reg(HOST_T0)); /* or */
    emit_1(c, X87_CW_ONE);
    emit_op(c, (struct op){.op = OP_MOV_STORE, .p66 = true}, HOST_T0, fcw);
    emit_d(c, 0xd9, 5, fcw);
}

/* C1 is 0 afterwards on all processors: FDECSTP and FINCSTP see to that where FCOMI does not; and
 * so are OF and SF, which not every manual says that it clears: XOR has cleared them before. AF of
 * XOR is undefined (FLAGS_NO_AF). */
void jit_do_x87_flags(struct jit_work *w, const struct form *f)
{
    emit_bytes(w->c, "\xd9\xf6\xd9\xf7", 4);
    emit_d(w->c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T0));
    emit_d(w->c, f->op, f->reg & 7U, rm_reg(f->rm));
}

/* --- the host's registers --------------------------------------------------------------------- */

bool jit_x87_usable(const struct vcpu *v)
{
    const struct cpu_fpu *f = &v->c.fpu;

    return (v->c.cr0 & (CR0_EM | CR0_TS)) == 0 && (f->fsw & (X87_ES | X87_B)) == 0 &&
           (f->fcw & (X87_EXC | ~X87_CW_VALID)) == (X87_EXC | X87_CW_ONE) &&
           (f->fcw & X87_PC) != X87_PC_RESERVED;
}

/* What FXSAVE64 stores of it. */
struct image {
    _Alignas(16) uint16_t fcw;
    uint16_t fsw;
    uint8_t ftw, rsvd;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16], more[96];
};
_Static_assert(sizeof(struct image) == 512, "SDM Vol. 1, \"FXSAVE Area\"");

int jit_x87_load(struct vcpu *v)
{
    const struct cpu_fpu *f = &v->c.fpu;
    struct image a = {.fcw = f->fcw, .fsw = f->fsw, .ftw = f->ftw};

    if (!jit_x87_usable(v)) {
        return 0;
    }
    for (unsigned i = 0; i < 8; i++) {
        memcpy(a.st[i], f->st[x87_phys(v, i)], 10);
    }
    __asm__ volatile("stmxcsr %0\n\tfxrstor64 %1"
                     : "+m"(a.mxcsr)
                     : "m"(a)
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    v->jit_run.x87_live = true;
    return 1;
}

void jit_x87_store(struct vcpu *v)
{
    struct cpu_fpu *f = &v->c.fpu;
    struct image a;

    __asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(a));
    v->jit_run.x87_live = false;
    f->fsw = a.fsw;
    f->ftw = a.ftw;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(f->st[x87_phys(v, i)], a.st[i], 10);
    }
}
