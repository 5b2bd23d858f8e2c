/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_operand.c - registers, addresses and the inline lookup of memory. See jit_work.h.
 */
#include "base/check.h"
#include "vmm/engine/jit_work.h"

unsigned jit_load_reg(struct jit_work *w, unsigned reg, unsigned temp)
{
    int host = jit_host_of(w, reg);

    if (host >= 0) {
        return (unsigned)host;
    }
    emit_q(w->c, OP_MOV_LOAD, temp, rm_vcpu(JIT_GPR(reg)));
    return temp;
}

void jit_store_reg(struct jit_work *w, unsigned reg, unsigned temp)
{
    if (jit_host_of(w, reg) < 0) {
        emit_q(w->c, OP_MOV_STORE, temp, rm_vcpu(JIT_GPR(reg)));
    }
}

void jit_address(struct jit_work *w, const struct insn *in, bool linear)
{
    struct jit_code *c = w->c;
    bool wide = in->asz == 8;

    if (in->rip_relative) {
        uint64_t ea = w->next + (uint64_t)in->disp;
        emit_mov_imm(c, HOST_T0, wide ? ea : (uint32_t)ea);
    } else if (in->base == REG_NONE && in->index == REG_NONE) {
        emit_mov_imm(c, HOST_T0, wide ? (uint64_t)in->disp : (uint32_t)in->disp);
    } else {
        int base = in->base == REG_NONE ? -1 : (int)jit_load_reg(w, in->base, HOST_T0);
        int index = in->index == REG_NONE ? -1 : (int)jit_load_reg(w, in->index, HOST_T1);
        if (base >= 0 && index < 0 && in->disp == 0 && wide) {
            if (base != HOST_T0) {
                emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg((unsigned)base));
            }
        } else {
            emit_lea(c, wide, HOST_T0, base, index, in->scale_shift, (int32_t)in->disp);
        }
    }
    if (linear && in->seg >= SEG_FS) {
        emit_q(c, OP_ADD_LOAD, HOST_T0, rm_vcpu(in->seg_off));
    }
}

void jit_slow_from(struct jit_work *w, uint32_t site)
{
    PLX_CHECK(w->nslow < JIT_SLOW_MAX);
    w->slow[w->nslow++] =
        (struct jit_slow){.from = site, .insn = w->i, .way = w->way, .maker = jit_lost(w)};
}

void jit_plain_from(struct jit_work *w, uint32_t site)
{
    jit_slow_from(w, site);
    w->slow[w->nslow - 1].skip = true;
}

void jit_hash(struct jit_work *w)
{
    struct jit_code *c = w->c;

    _Static_assert(sizeof(struct tlb_entry) == 32, "1 << 5");
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_shift(c, true, SHIFT_RIGHT, HOST_T1, PAGE_SHIFT - 5);
    emit_d(c, 0x81, 4, rm_reg(HOST_T1)); /* and */
    emit_4(c, (uint32_t)w->v->tlb_mask << 5);
}

uint32_t jit_compare(struct jit_work *w, unsigned size, bool write)
{
    struct jit_code *c = w->c;

    emit_q(c, OP_ADD_LOAD, HOST_T1, rm_vcpu(offsetof(struct vcpu, tlb)));
    emit_q(c, OP_XOR_LOAD, HOST_T0, rm_at(HOST_T1, jit_tag_of(write)));
    emit_q(c, 0x81, 7, rm_reg(HOST_T0)); /* cmp: beyond the page, or not of this page */
    emit_4(c, (uint32_t)(PAGE_SIZE - size));
    return emit_jump(c, 0x87, 0); /* ja */
}

void jit_lookup(struct jit_work *w, unsigned size, bool write)
{
    jit_hash(w);
    jit_slow_from(w, jit_compare(w, size, write));
    emit_q(w->c, OP_ADD_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct tlb_entry, hva)));
}

bool jit_high_byte(const struct form *f, unsigned reg, unsigned size)
{
    return !f->sse && size == 1 && !f->has_rex && reg >= 4;
}

bool jit_low_byte(unsigned host, unsigned size)
{
    return size == 1 && host >= 4 && host < 8;
}

void jit_emit_imm(struct jit_work *w, const struct form *f, const uint8_t *bytes)
{
    emit_bytes(w->c, bytes + f->imm_at, f->imm_len);
}

void jit_load_rm(struct jit_work *w, const struct form *f)
{
    struct jit_code *c = w->c;

    if (f->mem) {
        emit_q(c, OP_MOV_LOAD, HOST_T0, jit_access(w));
    } else {
        unsigned reg = jit_load_reg(w, f->rm, HOST_T0);
        if (reg != HOST_T0) {
            emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(reg));
        }
    }
}

unsigned jit_result_host(const struct jit_work *w, const struct form *f)
{
    return f->mem || jit_host_of(w, f->rm) < 0 ? HOST_T0 : (unsigned)jit_host_of(w, f->rm);
}
