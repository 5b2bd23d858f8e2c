/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/x87_ops.c - x87 instructions that load, store, compute and compare (SDM
 * Vol. 1, "Programming with the x87 FPU"; Vol. 2A, the instructions' own pages).
 *
 * Every handler has the same shape: checks; operands (memory is read before the stack is looked
 * at); the value, its exceptions gathering in an f80_env; stack faults; then, unless an unmasked
 * exception forbids it, the result; then x87_commit records flags and pointers. An unmasked
 * exception shows as #MF at the next waiting instruction.
 *
 * Threading: the vCPU's thread. Determinism: a function of state and memory. */
#include "base/check.h"
#include "vmm/cpu/operand.h"
#include "vmm/cpu/x87_ops.h"

void x87_begin(struct vcpu *v, struct f80_env *env)
{
    x87_check(v);
    x87_check_pending(v);
    *env = (struct f80_env){.cw = v->c.fpu.fcw};
}

void x87_commit(struct vcpu *v, const struct insn *in, const struct f80_env *env)
{
    struct cpu_fpu *f = &v->c.fpu;
    unsigned ex = env->ex;

    if (f80_blocked(env) != 0) { /* nothing was computed */
        ex &= ~(unsigned)(X87_OE | X87_UE | X87_PE | ((ex & X87_SF) != 0 ? 0 : X87_C1));
    }
    f->fsw = (uint16_t)((f->fsw & ~(unsigned)X87_C1) | ex);
    f->fip = v->c.rip;
    if ((ex & ~(unsigned)env->cw & X87_EXC) != 0) {
        f->fsw |= X87_ES | X87_B;
        if (in->nopd != 0 && in->opd[0].kind == OPD_MEM) {
            f->fdp = mem_ea(v, in);
        }
    }
}

bool x87_underflow(struct f80_env *env)
{
    env->ex = (uint16_t)((env->ex & ~(unsigned)X87_C1) | X87_IE | X87_SF);
    return (env->cw & X87_IE) != 0;
}

bool x87_overflow(struct f80_env *env)
{
    env->ex |= X87_IE | X87_SF | X87_C1;
    return (env->cw & X87_IE) != 0;
}

void x87_pop(struct vcpu *v)
{
    v->c.fpu.ftw &= (uint8_t) ~(1U << x87_top(v));
    x87_set_top(v, x87_top(v) + 1);
}

void x87_push_raw(struct vcpu *v, struct f80 x)
{
    x87_set_top(v, x87_top(v) - 1);
    x87_set_st(v, 0, x);
}

/* Push, or the masked response to a full stack. */
static void push(struct vcpu *v, struct f80_env *env, struct f80 x)
{
    if (x87_is_empty(v, 7)) {
        x87_push_raw(v, x);
    } else if (x87_overflow(env)) {
        x87_push_raw(v, F80_INDEFINITE);
    }
}

/* The stack register an operand names; a memory operand goes with ST(0). */
static unsigned st_of(const struct insn *in, unsigned i)
{
    return in->opd[i].kind == OPD_ST ? in->opd[i].reg : 0;
}

/* The source: the last operand. */
static unsigned src_st(const struct insn *in)
{
    return in->nopd != 0 ? st_of(in, in->nopd - 1U) : 1;
}

static bool src_is_mem(const struct insn *in)
{
    return in->nopd != 0 && in->opd[0].kind == OPD_MEM;
}

static struct f80 read_float(struct vcpu *v, const struct insn *in, struct f80_env *env)
{
    uint64_t q = opd_read(v, in, 0);

    return in->opd[0].size == 4 ? f80_from_f32(env, (uint32_t)q) : f80_from_f64(env, q);
}

static struct f80 read_int(struct vcpu *v, const struct insn *in)
{
    return f80_from_int((int64_t)sign_extend(opd_read(v, in, 0), in->opd[0].size));
}

/* --- arithmetic ------------------------------------------------------------------------------ */

enum arith { ADD, SUB, SUBR, MUL, DIV, DIVR };
enum { POP = 1, INT = 2 };

static inline __attribute__((always_inline)) void arith(struct vcpu *v, const struct insn *in,
                                                        enum arith op, unsigned how)
{
    struct f80_env env;
    struct f80 a, b, r = F80_INDEFINITE;
    unsigned d = st_of(in, 0), s = src_st(in);
    bool empty;

    x87_begin(v, &env);
    if (src_is_mem(in)) {
        b = (how & INT) != 0 ? read_int(v, in) : read_float(v, in, &env);
        empty = x87_is_empty(v, d);
    } else {
        b = x87_st(v, s);
        empty = x87_is_empty(v, d) || x87_is_empty(v, s);
    }
    a = x87_st(v, d);
    if (empty) {
        x87_underflow(&env);
    } else {
        switch (op) {
        case ADD:
            r = f80_add(&env, a, b, false);
            break;
        case SUB:
            r = f80_add(&env, a, b, true);
            break;
        case SUBR:
            r = f80_add(&env, b, a, true);
            break;
        case MUL:
            r = f80_mul(&env, a, b);
            break;
        case DIV:
            r = f80_div(&env, a, b);
            break;
        case DIVR:
            r = f80_div(&env, b, a);
            break;
        }
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, d, r);
        if ((how & POP) != 0) {
            x87_pop(v);
        }
    }
    x87_commit(v, in, &env);
}

/* clang-format off */
#define ARITH_OPS(X)                                                                             \
    X(FADD, fadd, ADD, 0) X(FADDP, faddp, ADD, POP) X(FIADD, fiadd, ADD, INT)                    \
    X(FSUB, fsub, SUB, 0) X(FSUBP, fsubp, SUB, POP) X(FISUB, fisub, SUB, INT)                    \
    X(FSUBR, fsubr, SUBR, 0) X(FSUBRP, fsubrp, SUBR, POP) X(FISUBR, fisubr, SUBR, INT)           \
    X(FMUL, fmul, MUL, 0) X(FMULP, fmulp, MUL, POP) X(FIMUL, fimul, MUL, INT)                    \
    X(FDIV, fdiv, DIV, 0) X(FDIVP, fdivp, DIV, POP) X(FIDIV, fidiv, DIV, INT)                    \
    X(FDIVR, fdivr, DIVR, 0) X(FDIVRP, fdivrp, DIVR, POP) X(FIDIVR, fidivr, DIVR, INT)
/* clang-format on */

#define DEFINE_ARITH(M, name, op, how)                           \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        arith(v, in, op, how);                                   \
    }

ARITH_OPS(DEFINE_ARITH)

static struct f80 f_chs(struct f80_env *env, struct f80 a)
{
    (void)env;
    a.se ^= F80_SIGN;
    return a;
}

static struct f80 f_abs(struct f80_env *env, struct f80 a)
{
    (void)env;
    a.se &= F80_EXP_MAX;
    return a;
}

static void do_fchs(struct vcpu *v, const struct insn *in)
{
    x87_unary(v, in, f_chs);
}

static void do_fabs(struct vcpu *v, const struct insn *in)
{
    x87_unary(v, in, f_abs);
}

static void do_fsqrt(struct vcpu *v, const struct insn *in)
{
    x87_unary(v, in, f80_sqrt);
}

static void do_frndint(struct vcpu *v, const struct insn *in)
{
    x87_unary(v, in, f80_rndint);
}

static void do_fscale(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    struct f80 r = F80_INDEFINITE;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0) || x87_is_empty(v, 1)) {
        x87_underflow(&env);
    } else {
        r = f80_scale(&env, x87_st(v, 0), x87_st(v, 1));
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 0, r);
    }
    x87_commit(v, in, &env);
}

static void remainder_of(struct vcpu *v, const struct insn *in, bool nearest)
{
    struct f80_env env;
    struct f80 r = F80_INDEFINITE;
    unsigned cc = F80_NO_QUOTIENT;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0) || x87_is_empty(v, 1)) {
        x87_underflow(&env);
    } else {
        r = f80_rem(&env, x87_st(v, 0), x87_st(v, 1), nearest, &cc);
    }
    x87_commit(v, in, &env);
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 0, r);
    }
    if (cc != F80_NO_QUOTIENT && f80_blocked(&env) == 0) {
        v->c.fpu.fsw = (uint16_t)((v->c.fpu.fsw & ~(unsigned)X87_CC) | cc);
    } else { /* the quotient's bits stay as they were */
        v->c.fpu.fsw &= (uint16_t)~X87_C2;
    }
}

static void do_fprem(struct vcpu *v, const struct insn *in)
{
    remainder_of(v, in, false);
}

static void do_fprem1(struct vcpu *v, const struct insn *in)
{
    remainder_of(v, in, true);
}

/* The exponent replaces ST(0), then the significand is pushed. */
static void do_fxtract(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    struct f80 m = F80_INDEFINITE, e = F80_INDEFINITE;

    x87_begin(v, &env);
    if (x87_is_empty(v, 0)) {
        x87_underflow(&env);
    } else if (!x87_is_empty(v, 7)) {
        x87_overflow(&env);
    } else {
        m = f80_extract(&env, x87_st(v, 0), &e);
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 0, e);
        x87_push_raw(v, m);
    }
    x87_commit(v, in, &env);
}

/* --- comparison ------------------------------------------------------------------------------ */

enum { QUIET = 4, EFLAGS = 8, POP2 = 16, WITH_ZERO = 32 };

static void set_order(struct vcpu *v, enum f80_order order, bool eflags)
{
    static const uint16_t cc[] = {X87_C0, X87_C3, 0, X87_C0 | X87_C2 | X87_C3};
    static const uint8_t rf[] = {FLAG_CF, FLAG_ZF, 0, FLAG_CF | FLAG_PF | FLAG_ZF};

    if (eflags) {
        v->c.rflags = (v->c.rflags & ~FLAGS_ARITH) | rf[order];
    } else {
        v->c.fpu.fsw =
            (uint16_t)((v->c.fpu.fsw & ~(unsigned)(X87_C0 | X87_C2 | X87_C3)) | cc[order]);
    }
}

static inline __attribute__((always_inline)) void compare(struct vcpu *v, const struct insn *in,
                                                          unsigned how)
{
    struct f80_env env;
    enum f80_order order = F80_UNORDERED;
    struct f80 b = f80_zero(false);
    bool empty = false;

    x87_begin(v, &env);
    if (src_is_mem(in)) {
        b = (how & INT) != 0 ? read_int(v, in) : read_float(v, in, &env);
    } else if ((how & WITH_ZERO) == 0) {
        b = x87_st(v, src_st(in));
        empty = x87_is_empty(v, src_st(in));
    }
    if (empty || x87_is_empty(v, 0)) {
        x87_underflow(&env);
    } else {
        order = f80_compare(&env, x87_st(v, 0), b, (how & QUIET) != 0);
    }
    set_order(v, order, (how & EFLAGS) != 0);
    if (f80_blocked(&env) == 0) {
        if ((how & (POP | POP2)) != 0) {
            x87_pop(v);
        }
        if ((how & POP2) != 0) {
            x87_pop(v);
        }
    }
    x87_commit(v, in, &env);
}

/* clang-format off */
#define COMPARE_OPS(X)                                                                           \
    X(FCOM, fcom, 0) X(FCOMP, fcomp, POP) X(FCOMPP, fcompp, POP2) X(FICOM, ficom, INT)           \
    X(FICOMP, ficomp, INT | POP) X(FUCOM, fucom, QUIET) X(FUCOMP, fucomp, QUIET | POP)           \
    X(FUCOMPP, fucompp, QUIET | POP2) X(FCOMI, fcomi, EFLAGS) X(FCOMIP, fcomip, EFLAGS | POP)    \
    X(FUCOMI, fucomi, EFLAGS | QUIET) X(FUCOMIP, fucomip, EFLAGS | QUIET | POP)                  \
    X(FTST, ftst, WITH_ZERO)
/* clang-format on */

#define DEFINE_COMPARE(M, name, how)                             \
    static void do_##name(struct vcpu *v, const struct insn *in) \
    {                                                            \
        compare(v, in, how);                                     \
    }

COMPARE_OPS(DEFINE_COMPARE)

/* Class in C3, C2, C0; sign in C1. */
static void do_fxam(struct vcpu *v, const struct insn *in)
{
    static const uint16_t cc[] = {
        [F80_ZERO] = X87_C3,   [F80_DENORMAL] = X87_C3 | X87_C2,
        [F80_NORMAL] = X87_C2, [F80_INF] = X87_C2 | X87_C0,
        [F80_QNAN] = X87_C0,   [F80_SNAN] = X87_C0,
        [F80_UNSUPPORTED] = 0,
    };
    struct f80_env env;
    struct f80 a = x87_st(v, 0);
    unsigned bits;

    x87_begin(v, &env);
    bits = x87_is_empty(v, 0) ? X87_C3 | X87_C0 : cc[f80_class(a)];
    bits |= f80_neg(a) ? X87_C1 : 0;
    x87_commit(v, in, &env);
    v->c.fpu.fsw = (uint16_t)((v->c.fpu.fsw & ~(unsigned)X87_CC) | bits);
}

/* --- loads and moves ------------------------------------------------------------------------- */

static struct f80 read_raw(struct vcpu *v, const struct insn *in, uint8_t raw[10])
{
    struct f80 r;

    mem_read_bytes(v, in->seg, mem_ea(v, in), raw, 10);
    memcpy(&r.m, raw, 8);
    memcpy(&r.se, raw + 8, 2);
    return r;
}

static void do_fld(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    struct f80 x;
    uint8_t raw[10];

    x87_begin(v, &env);
    if (!src_is_mem(in)) {
        x = x87_st(v, src_st(in));
        if (x87_is_empty(v, src_st(in))) {
            x87_underflow(&env);
            x = F80_INDEFINITE;
        }
    } else if (in->opd[0].size == 10) {
        x = read_raw(v, in, raw);
    } else {
        x = read_float(v, in, &env);
    }
    if ((env.ex & X87_SF) == 0 && !x87_is_empty(v, 7)) {
        x87_overflow(&env);
        x = F80_INDEFINITE;
    } else if (src_is_mem(in) && in->opd[0].size != 10) {
        if (f80_class(x) == F80_SNAN) {
            env.ex |= X87_IE;
            x.m |= F80_INT >> 1;
        }
        env.ex |= env.denormal ? X87_DE : 0;
    }
    if ((f80_blocked(&env) & X87_IE) == 0) {
        x87_push_raw(v, x);
    }
    x87_commit(v, in, &env);
}

static void do_fild(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;

    x87_begin(v, &env);
    push(v, &env, read_int(v, in));
    x87_commit(v, in, &env);
}

static void do_fbld(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    uint8_t bcd[10];

    x87_begin(v, &env);
    read_raw(v, in, bcd);
    push(v, &env, f80_from_bcd(bcd));
    x87_commit(v, in, &env);
}

/* 128 bits of each, so that every rounding mode gets its own value. */
static const struct {
    ZydisMnemonic mnemonic;
    uint64_t m;
    int16_t e;
    bool nearest_up;
} constants[] = {
    {ZYDIS_MNEMONIC_FLD1, F80_INT, 0, false},
    {ZYDIS_MNEMONIC_FLDL2T, UINT64_C(0xd49a784bcd1b8afe), 1, false},
    {ZYDIS_MNEMONIC_FLDL2E, UINT64_C(0xb8aa3b295c17f0bb), 0, true},
    {ZYDIS_MNEMONIC_FLDPI, UINT64_C(0xc90fdaa22168c234), 1, true},
    {ZYDIS_MNEMONIC_FLDLG2, UINT64_C(0x9a209a84fbcff798), -2, true},
    {ZYDIS_MNEMONIC_FLDLN2, UINT64_C(0xb17217f7d1cf79ab), -1, true},
};

static void do_fld_constant(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    struct f80 x = f80_zero(false);
    unsigned rc;

    x87_begin(v, &env);
    rc = env.cw >> X87_RC_SHIFT & 3;
    for (size_t i = 0; i < PLX_COUNT(constants); i++) {
        if (constants[i].mnemonic == in->mnemonic) {
            bool up = (rc == 0 && constants[i].nearest_up) || (rc == 2 && i != 0);
            x = f80_make(false, (unsigned)(F80_BIAS + constants[i].e), constants[i].m + up);
        }
    }
    push(v, &env, x);
    x87_commit(v, in, &env);
}

static void do_fxch(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    unsigned i = src_st(in);
    struct f80 a = x87_st(v, 0), b = x87_st(v, i);

    x87_begin(v, &env);
    if (x87_is_empty(v, 0) || x87_is_empty(v, i)) {
        x87_underflow(&env);
        a = x87_is_empty(v, 0) ? F80_INDEFINITE : a;
        b = x87_is_empty(v, i) ? F80_INDEFINITE : b;
    }
    if (f80_blocked(&env) == 0) {
        x87_set_st(v, 0, b);
        x87_set_st(v, i, a);
    }
    x87_commit(v, in, &env);
}

static void do_fcmov(struct vcpu *v, const struct insn *in)
{
    static const struct {
        ZydisMnemonic mnemonic;
        uint8_t flags;
        bool set;
    } conditions[] = {
        {ZYDIS_MNEMONIC_FCMOVB, FLAG_CF, true},
        {ZYDIS_MNEMONIC_FCMOVNB, FLAG_CF, false},
        {ZYDIS_MNEMONIC_FCMOVE, FLAG_ZF, true},
        {ZYDIS_MNEMONIC_FCMOVNE, FLAG_ZF, false},
        {ZYDIS_MNEMONIC_FCMOVBE, FLAG_CF | FLAG_ZF, true},
        {ZYDIS_MNEMONIC_FCMOVNBE, FLAG_CF | FLAG_ZF, false},
        {ZYDIS_MNEMONIC_FCMOVU, FLAG_PF, true},
        {ZYDIS_MNEMONIC_FCMOVNU, FLAG_PF, false},
    };
    struct f80_env env;
    unsigned i = src_st(in);
    bool taken = false;

    x87_begin(v, &env);
    for (size_t k = 0; k < PLX_COUNT(conditions); k++) {
        if (conditions[k].mnemonic == in->mnemonic) {
            taken = ((v->c.rflags & conditions[k].flags) != 0) == conditions[k].set;
        }
    }
    env.ex = v->c.fpu.fsw & X87_C1; /* stays */
    if (x87_is_empty(v, 0) || x87_is_empty(v, i)) {
        if (x87_underflow(&env)) {
            x87_set_st(v, 0, F80_INDEFINITE);
        }
    } else if (taken) {
        x87_set_st(v, 0, x87_st(v, i));
    }
    x87_commit(v, in, &env);
}

/* --- stores ---------------------------------------------------------------------------------- */

/* A page that cannot be written faults even if an unmasked exception would forbid the store. */
static void begin_store(struct vcpu *v, const struct insn *in, struct f80_env *env)
{
    x87_begin(v, env);
    if (src_is_mem(in)) {
        mem_probe_write(v, in->seg, mem_ea(v, in), in->opd[0].size);
    }
}

static void store(struct vcpu *v, const struct insn *in, bool pop)
{
    struct f80_env env;
    struct f80 x = x87_st(v, 0);
    bool stored = true;

    begin_store(v, in, &env);
    if (x87_is_empty(v, 0)) {
        stored = x87_underflow(&env);
        x = F80_INDEFINITE;
    }
    if (!src_is_mem(in)) {
        if (stored) {
            x87_set_st(v, src_st(in), x);
        }
    } else if (in->opd[0].size == 10) {
        uint8_t raw[10];

        memcpy(raw, &x.m, 8);
        memcpy(raw + 8, &x.se, 2);
        if (stored) {
            mem_write_bytes(v, in->seg, mem_ea(v, in), raw, 10);
        }
    } else {
        bool ok;
        uint64_t q = in->opd[0].size == 4 ? f80_to_f32(&env, x, &ok) : f80_to_f64(&env, x, &ok);

        stored = stored && ok;
        if (stored) {
            mem_write(v, in->seg, mem_ea(v, in), in->opd[0].size, q);
        }
    }
    if (stored && pop) {
        x87_pop(v);
    }
    x87_commit(v, in, &env);
}

static void do_fst(struct vcpu *v, const struct insn *in)
{
    store(v, in, false);
}

static void do_fstp(struct vcpu *v, const struct insn *in)
{
    store(v, in, true);
}

static void store_int(struct vcpu *v, const struct insn *in, bool pop, bool truncate)
{
    struct f80_env env;
    unsigned size = in->opd[0].size;
    int64_t q = 0;

    begin_store(v, in, &env);
    if (x87_is_empty(v, 0)) {
        x87_underflow(&env);
        q = -1 - (int64_t)((UINT64_C(1) << (8 * size - 1)) - 1);
    } else {
        q = f80_to_int(&env, x87_st(v, 0), 8 * size, truncate);
    }
    if (f80_blocked(&env) == 0) {
        mem_write(v, in->seg, mem_ea(v, in), size, (uint64_t)q & size_mask(size));
        if (pop) {
            x87_pop(v);
        }
    }
    x87_commit(v, in, &env);
}

static void do_fist(struct vcpu *v, const struct insn *in)
{
    store_int(v, in, false, false);
}

static void do_fistp(struct vcpu *v, const struct insn *in)
{
    store_int(v, in, true, false);
}

static void do_fisttp(struct vcpu *v, const struct insn *in)
{
    store_int(v, in, true, true);
}

static void do_fbstp(struct vcpu *v, const struct insn *in)
{
    struct f80_env env;
    uint8_t bcd[10];
    struct f80 x = x87_st(v, 0);

    begin_store(v, in, &env);
    if (x87_is_empty(v, 0)) {
        x = F80_INDEFINITE;
        x87_underflow(&env);
    }
    f80_to_bcd(&env, x, bcd);
    if (f80_blocked(&env) == 0) {
        mem_write_bytes(v, in->seg, mem_ea(v, in), bcd, 10);
        x87_pop(v);
    }
    x87_commit(v, in, &env);
}

#define ROW(M, name, ...) {ZYDIS_MNEMONIC_##M, do_##name},

static const struct x87_op ops[] = {
    ARITH_OPS(ROW) COMPARE_OPS(ROW){ZYDIS_MNEMONIC_FCHS, do_fchs},
    {ZYDIS_MNEMONIC_FABS, do_fabs},
    {ZYDIS_MNEMONIC_FSQRT, do_fsqrt},
    {ZYDIS_MNEMONIC_FRNDINT, do_frndint},
    {ZYDIS_MNEMONIC_FSCALE, do_fscale},
    {ZYDIS_MNEMONIC_FPREM, do_fprem},
    {ZYDIS_MNEMONIC_FPREM1, do_fprem1},
    {ZYDIS_MNEMONIC_FXTRACT, do_fxtract},
    {ZYDIS_MNEMONIC_FXAM, do_fxam},
    {ZYDIS_MNEMONIC_FLD, do_fld},
    {ZYDIS_MNEMONIC_FILD, do_fild},
    {ZYDIS_MNEMONIC_FBLD, do_fbld},
    {ZYDIS_MNEMONIC_FLD1, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDL2T, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDL2E, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDPI, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDLG2, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDLN2, do_fld_constant},
    {ZYDIS_MNEMONIC_FLDZ, do_fld_constant},
    {ZYDIS_MNEMONIC_FXCH, do_fxch},
    {ZYDIS_MNEMONIC_FCMOVB, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVNB, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVE, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVNE, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVBE, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVNBE, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVU, do_fcmov},
    {ZYDIS_MNEMONIC_FCMOVNU, do_fcmov},
    {ZYDIS_MNEMONIC_FST, do_fst},
    {ZYDIS_MNEMONIC_FSTP, do_fstp},
    {ZYDIS_MNEMONIC_FIST, do_fist},
    {ZYDIS_MNEMONIC_FISTP, do_fistp},
    {ZYDIS_MNEMONIC_FISTTP, do_fisttp},
    {ZYDIS_MNEMONIC_FBSTP, do_fbstp},
};

insn_fn x87_ops_pick(const struct insn *in)
{
    return X87_OP_FIND(ops, in);
}
