/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_vex.c - VEX-encoded instructions, which have up to three registers as operands,
 * and what else pollux-v3 adds for general registers (BMI1, BMI2, LZCNT, MOVBE). See jit_work.h. */
#include "base/check.h"
#include "vmm/cpu/int.h"
#include "vmm/engine/jit_work.h"

/* @vvvv is for VEX.vvvv. Flags beside @defined are cleared (undefined.h), all if that is not 0. */
static const struct row {
    insn_fn fn;
    uint8_t reg, vvvv, rm;
    uint8_t defined;
} rows[] = {
    {bmi_andn, USE_WRITE, USE_READ, USE_READ, FLAG_SF | FLAG_ZF | FLAG_CF},
    {bmi_bextr, USE_WRITE, USE_READ, USE_READ, FLAG_ZF | FLAG_CF},
    {bmi_blsi, USE_NONE, USE_WRITE, USE_READ, FLAG_SF | FLAG_ZF | FLAG_CF},
    {bmi_blsmsk, USE_NONE, USE_WRITE, USE_READ, FLAG_SF | FLAG_ZF | FLAG_CF},
    {bmi_blsr, USE_NONE, USE_WRITE, USE_READ, FLAG_SF | FLAG_ZF | FLAG_CF},
    {bmi_bzhi, USE_WRITE, USE_READ, USE_READ, FLAG_SF | FLAG_ZF | FLAG_CF},
    {bmi_mulx, USE_WRITE, USE_WRITE, USE_READ, 0},
    {bmi_pdep, USE_WRITE, USE_READ, USE_READ, 0},
    {bmi_pext, USE_WRITE, USE_READ, USE_READ, 0},
    {bmi_rorx, USE_WRITE, USE_NONE, USE_READ, 0},
    {bmi_sarx, USE_WRITE, USE_READ, USE_READ, 0},
    {bmi_shlx, USE_WRITE, USE_READ, USE_READ, 0},
    {bmi_shrx, USE_WRITE, USE_READ, USE_READ, 0},
    {bmi_lzcnt, USE_WRITE, USE_NONE, USE_READ, FLAG_ZF | FLAG_CF},
    {bmi_tzcnt, USE_WRITE, USE_NONE, USE_READ, FLAG_ZF | FLAG_CF},
    {bmi_movbe, USE_WRITE, USE_NONE, USE_READ, 0},
};

void bmi_form(const struct insn *in, struct form *f)
{
    for (size_t i = 0; i < PLX_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        if (r->fn != in->fn || f->map == 0) {
            continue;
        }
        f->kind = FORM_MODRM;
        f->wide = false;
        f->reg_use = r->reg;
        f->vvvv_use = r->vvvv;
        f->rm_use = r->rm;
        f->reg_size = f->rm_size = (uint8_t)in->opd[0].size;
        if (r->defined != 0) {
            f->writes = FLAGS_ARITH;
            f->flags = FLAGS_SOME;
            f->defined = r->defined;
        }
        if (r->vvvv == USE_WRITE) {
            f->also = (uint16_t)(1U << f->vvvv);
        }
        if (in->fn == bmi_movbe && f->op == 0xf1) { /* to memory */
            f->reg_use = USE_READ;
            f->rm_use = USE_WRITE;
        }
        if (in->fn == bmi_movbe) {
            f->rep = 0;
        } else if (!f->vex) {
            f->rep = 0xf3;
        }
    }
}

/* The operand in ModRM.rm, T0 if it is a general register that is written and lives in memory. */
static struct rm operand_rm(struct jit_work *w, const struct form *f)
{
    if (f->mem) {
        return jit_access(w);
    }
    if (f->rm_xmm) {
        return rm_reg(f->rm);
    }
    if (jit_host_of(w, f->rm) >= 0) {
        return rm_reg((unsigned)jit_host_of(w, f->rm));
    }
    return f->rm_use == USE_READ ? rm_vcpu(JIT_GPR(f->rm)) : rm_reg(HOST_T0);
}

/* The host's register for what VEX.vvvv names. T1 serves for it and for that in ModRM.reg, unless
 * both are written and differ: then it is T0, of which the memory operand has been read by then. */
static unsigned operand_vvvv(struct jit_work *w, const struct form *f)
{
    if (f->vvvv_use == USE_NONE) {
        return f->vvvv;
    }
    if (f->vvvv_use == USE_READ) {
        return jit_load_reg(w, f->vvvv, HOST_T1);
    }
    bool both = f->reg_use == USE_WRITE && f->reg != f->vvvv;
    unsigned temp = both ? HOST_T0 : HOST_T1;
    return jit_host_of(w, f->vvvv) < 0 ? temp : (unsigned)jit_host_of(w, f->vvvv);
}

void jit_do_vex(struct jit_work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;
    struct op op = {.map = f->map, .op = f->op, .p66 = f->p66, .w = f->w, .rep = f->rep};
    bool general = !f->reg_xmm && f->reg_use != USE_NONE;

    if (f->kind == FORM_ZERO_YMM) {
        emit_bytes(c, f->wide ? "\xc5\xfc\x77" : "\xc5\xf8\x77", 3);
        return;
    }
    struct rm rm = operand_rm(w, f);
    unsigned vvvv = operand_vvvv(w, f), reg = f->reg_xmm ? f->reg : f->reg & 7U;
    if (general) {
        reg = jit_host_of(w, f->reg) < 0 ? (unsigned)HOST_T1 : (unsigned)jit_host_of(w, f->reg);
    }
    emit_vex(c, op, f->wide, vvvv, reg, rm);
    jit_emit_imm(w, f, bytes);
    if (general) { /* all such are written */
        jit_store_reg(w, f->reg, HOST_T1);
    }
    if (f->vvvv_use == USE_WRITE) {
        jit_store_reg(w, f->vvvv, vvvv);
    }
    if (!f->mem && !f->rm_xmm && f->rm_use == USE_WRITE) {
        jit_store_reg(w, f->rm, HOST_T0);
    }
}
