/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_lend.c - which host register a guest register has in a translation.
 *
 * Where translations begin and end, and wherever C is called, all is as jit.h says. Between, the
 * host's register of a guest register that the translation does not touch, or that of the budget,
 * is lent to one that it uses much and that would else live in memory; who lent it is in memory
 * meanwhile. See jit_work.h. */
#include "base/check.h"
#include "vmm/engine/jit_work.h"

enum {
    BUDGET = 16, /* after the guest's registers */
    WORTH = 4,   /* moves to lend a register and give it back */
};

static const int8_t pinned[16] = {0,  1,  2,  3, HOST_GUEST_RSP, 5, 6, 7, 8, 9, 10, -1,
                                  12, -1, -1, -1};

/* Who lends, the first that can. Of these RSP, RBP (LEAVE) and RBX (CMPXCHG8B) are operands of
 * instructions that do not name them: count_uses knows. */
static const uint8_t lenders[] = {RSP, R12, R10, R9, R8, RBX, RBP, BUDGET};

static struct rm home_of(unsigned who)
{
    return who == BUDGET ? rm_vcpu(offsetof(struct vcpu, jit_run.budget)) : rm_vcpu(JIT_GPR(who));
}

/* How often each register is an operand of @in, in @uses. */
static void count_uses(const struct insn *in, const struct form *f, unsigned *uses)
{
    bool stack = (f->kind >= FORM_PUSH && f->kind <= FORM_LEAVE) || f->kind == FORM_CALL_NEAR ||
                 f->kind == FORM_CALL_TO || f->kind == FORM_RET || f->kind == FORM_SYS;
    bool modrm = f->kind == FORM_MODRM || f->kind == FORM_LEA || f->kind == FORM_PUSH_MEM ||
                 f->kind == FORM_DIV || f->kind == FORM_X87_CW || f->kind == FORM_SCAN ||
                 f->kind == FORM_JMP_TO || f->kind == FORM_CALL_TO || f->kind == FORM_SHIFT ||
                 f->kind == FORM_BIT;

    uses[RBX] +=
        in->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || in->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    uses[RSP] += stack;
    uses[f->vvvv_use == USE_NONE ? BUDGET : f->vvvv]++;
    uses[RBP] += f->kind == FORM_LEAVE;
    if (modrm && f->mem) {
        uses[in->base == REG_NONE ? BUDGET : in->base]++;
        uses[in->index == REG_NONE ? BUDGET : in->index]++;
    } else if (modrm && !f->rm_xmm) {
        uses[form_register(f, f->rm, f->rm_size)]++;
    }
    if (f->kind == FORM_PUSH || f->kind == FORM_POP || f->kind == FORM_LOW3 ||
        f->kind == FORM_SCAN || f->kind == FORM_LEA ||
        ((f->kind == FORM_MODRM || f->kind == FORM_SHIFT || f->kind == FORM_BIT) &&
         f->reg_use != USE_NONE && !f->reg_xmm)) {
        uses[form_register(f, f->reg, f->reg_size)]++;
    }
}

/* A host register that is not in use. NULL: there is none. */
static struct jit_lent *borrow(struct jit_work *w, const unsigned *uses, unsigned guest)
{
    for (unsigned i = w->lenders; i < PLX_COUNT(lenders); i++) {
        unsigned lender = lenders[i];
        if (uses[lender] == 0) {
            unsigned host = lender == BUDGET ? (unsigned)HOST_BUDGET : (unsigned)pinned[lender];
            w->lenders = i + 1;
            w->budget_lent |= lender == BUDGET;
            w->lent[w->nlent] = (struct jit_lent){(uint8_t)host, (uint8_t)guest, (uint8_t)lender};
            return &w->lent[w->nlent++];
        }
    }
    return NULL;
}

static void lend_to_guest(struct jit_work *w, const unsigned *uses)
{
    for (;;) {
        unsigned best = R11;
        for (unsigned r = R12; r < 16; r++) {
            if (w->host[r] < 0 && (w->host[best] >= 0 || uses[r] > uses[best])) {
                best = r;
            }
        }
        if (w->host[best] >= 0 || uses[best] <= (w->loops ? 0U : (unsigned)WORTH)) {
            return;
        }
        const struct jit_lent *l = borrow(w, uses, best);
        if (l == NULL) {
            return;
        }
        w->host[best] = (int8_t)l->host;
    }
}

/* Both are in use at some instruction. */
static bool overlap(const struct jit_group *g, const struct jit_group *h)
{
    return (g->early || g->first <= h->last) && (h->early || h->first <= g->last);
}

/* A register lent to groups that is free as long as @g is in use; 0: none. */
static uint8_t shared_with(const struct jit_work *w, const struct jit_group *g)
{
    for (unsigned i = 0; i < w->nlent; i++) {
        bool is_free = w->lent[i].guest == REG_NONE;
        for (unsigned n = 0; n < w->plan.ngroups && is_free; n++) {
            is_free = w->found[n] != w->lent[i].host || !overlap(g, &w->plan.group[n]);
        }
        if (is_free) {
            return w->lent[i].host;
        }
    }
    return 0;
}

/* What checks find, the more often used first. */
static void lend_to_groups(struct jit_work *w, const unsigned *uses)
{
    bool seen[JIT_GROUPS] = {false};

    for (;;) {
        const struct jit_group *best = NULL;
        for (unsigned n = 0; n < w->plan.ngroups; n++) {
            const struct jit_group *g = &w->plan.group[n];
            if (g->slot && !seen[n] && (best == NULL || g->n > best->n)) {
                best = g;
            }
        }
        if (best == NULL) {
            return;
        }
        unsigned n = (unsigned)(best - w->plan.group);
        seen[n] = true;
        w->found[n] = shared_with(w, best);
        if (w->found[n] == 0 && (w->loops || best->n >= WORTH)) {
            const struct jit_lent *l = borrow(w, uses, REG_NONE);
            w->found[n] = l == NULL ? 0 : l->host;
        }
    }
}

void jit_lend_choose(struct jit_work *w)
{
    unsigned uses[BUDGET + 1] = {0};

    memcpy(w->host, pinned, sizeof w->host);
    for (unsigned i = 0; i < w->n; i++) {
        count_uses(w->insn[i], &w->forms[i], uses);
    }
    uses[BUDGET] = 0; /* absent operands */
    lend_to_guest(w, uses);
    lend_to_groups(w, uses);
}

void jit_lend(struct jit_work *w)
{
    for (unsigned i = 0; i < w->nlent; i++) {
        const struct jit_lent *l = &w->lent[i];
        emit_q(w->c, OP_MOV_STORE, l->host, home_of(l->lender));
        if (l->guest != REG_NONE) {
            emit_q(w->c, OP_MOV_LOAD, l->host, home_of(l->guest));
        }
    }
}

void jit_give_back(struct jit_work *w)
{
    for (unsigned i = 0; i < w->nlent; i++) {
        const struct jit_lent *l = &w->lent[i];
        if (l->guest != REG_NONE) {
            emit_q(w->c, OP_MOV_STORE, l->host, home_of(l->guest));
        }
        emit_q(w->c, OP_MOV_LOAD, l->host, home_of(l->lender));
    }
}
