/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_block.c - one decoded block as host code. The rules are in jit.h. */
#include <string.h>

#include "base/alloc.h"
#include "vmm/cpu/int.h"
#include "vmm/cpu/seg.h"
#include "vmm/engine/jit.h"
#include "vmm/engine/jit_form.h"

enum { ALL = FLAGS_ARITH, SLOW_EACH = 4 /* at most, of one instruction */ };

/* Where the slow path of an instruction comes back, and from where it is reached. */
struct slow {
    uint32_t from; /* displacement of the jump to it */
    uint32_t back;
    unsigned insn;
    bool load; /* the flags are wanted in host flags */
};

struct work {
    struct vcpu *v;
    struct jit_code *c;
    const struct block *block;
    struct translation *t;
    unsigned n, i;      /* instructions, the one under way */
    uint64_t rip, next; /* of it, and of the one after it */
    struct form form[BLOCK_INSNS_MAX];
    uint32_t live[BLOCK_INSNS_MAX + 1]; /* flags wanted before it */
    bool in_host, no_af; /* the flags: in host flags only, and there AF means nothing */
    struct slow slow[BLOCK_INSNS_MAX * SLOW_EACH];
    uint32_t unlike[2]; /* of the edge being emitted */
    unsigned nslow;
    struct jit *j;
};

#define GPR(reg) (offsetof(struct vcpu, c.gpr) + (size_t)(reg) * sizeof(uint64_t))

/* The host's register for a guest's; -1: it is in memory. */
static int host_of(unsigned reg)
{
    static const int8_t host[16] = {0,  1,  2,  3, HOST_GUEST_RSP, 5, 6, 7, 8, 9, 10, -1,
                                    12, -1, -1, -1};
    return host[reg];
}

/* --- flags ------------------------------------------------------------------------------------ */

#define RFLAGS   rm_gs(offsetof(struct vcpu, c.rflags))
#define OVERFLOW rm_gs(offsetof(struct vcpu, jit_run.overflow))

enum {
    AH = 4,
    OP_MOV8_STORE = 0x88,
    OP_MOV8_LOAD = 0x8a,
    OP_OR8_STORE = 0x08,
    OP_MOVZX1 = 0xb6, /* 0F */
    OP_MOVZX2 = 0xb7,
};

/* RAX to T1, and the host's flags to AH, OF to memory. They stay. */
static void take_flags(struct jit_code *c)
{
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_1(c, 0x9f);                                            /* lahf */
    emit_op(c, (struct op){.map = 1, .op = 0x90}, 0, OVERFLOW); /* seto */
}

/* The host's flags from AH, OF from memory; uses AL. */
static void put_flags(struct jit_code *c)
{
    emit_op(c, (struct op){.op = OP_MOV8_LOAD}, RAX, OVERFLOW);
    emit_bytes(c, "\x04\x7f\x9e", 3); /* add al, 127: OF; sahf */
}

/* Host flags to memory; they stay. */
static void save_flags(struct work *w)
{
    struct jit_code *c = w->c;

    take_flags(c);
    if (w->no_af) {
        emit_bytes(c, "\x80\xe4\xef", 3); /* and ah, ~AF */
    }
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, AH, RFLAGS);
    if (w->no_af) {
        put_flags(c);
    }
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
    w->in_host = false;
}

static void load_flags(struct jit_code *c)
{
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_op(c, (struct op){.op = OP_MOV8_LOAD}, AH, RFLAGS);
    put_flags(c);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

/* The flags in memory but for those of @keep get lost, and byte register @from is or-ed in. */
static void merge_flags(struct jit_code *c, uint8_t keep, unsigned from)
{
    emit_op(c, (struct op){.op = 0x80}, 4, RFLAGS); /* and */
    emit_1(c, keep);
    emit_op(c, (struct op){.op = OP_OR8_STORE}, from, RFLAGS);
}

/* INC and DEC: everything but CF, which is in memory. */
static void save_but_cf(struct jit_code *c)
{
    take_flags(c);
    emit_bytes(c, "\x80\xe4\xfe", 3); /* and ah, ~CF */
    merge_flags(c, FLAG_CF, AH);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

/* CF and OF of a rotated register, of 32 or 64 bits in host register @r; uses T0 and T1. OF is that
 * of a rotation by 1, whatever the count (undefined.h). */
static void save_rotated(struct jit_code *c, const struct form *f, unsigned r)
{
    unsigned top = f->rm_size * 8U - 1;
    bool left = f->flags == FLAGS_ROL;

    if (left) { /* CF is bit 0 */
        emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(r));
        emit_d(c, 0x83, 4, rm_reg(HOST_T1)); /* and */
        emit_1(c, 1);
    }
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(r));
    emit_q(c, 0xc1, 5, rm_reg(HOST_T0)); /* shr */
    emit_1(c, left ? top : top - 1);
    if (!left) { /* CF is the highest bit, OF where the one below differs */
        emit_d(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
        emit_d(c, 0xd1, 5, rm_reg(HOST_T1));
        emit_d(c, 0x83, 4, rm_reg(HOST_T0));
        emit_1(c, 1);
    }
    emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T1));
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T0, OVERFLOW);
    merge_flags(c, (uint8_t)~FLAG_CF, HOST_T1);
}

/* CF and OF, or CF alone, from the host's flags; the others are in memory and stay. Uses T1. */
static void save_some(struct jit_code *c, const struct form *f)
{
    if (f->flags == FLAGS_CF_OF) {
        emit_op(c, (struct op){.map = 1, .op = 0x90}, 0, OVERFLOW); /* seto */
    }
    emit_op(c, (struct op){.map = 1, .op = 0x92}, 0, rm_reg(HOST_T1)); /* setc */
    merge_flags(c, (uint8_t)~FLAG_CF, HOST_T1);
}

/* T0 = the result of @f, with zeros above it; it is in host register @r, or in memory at T0. */
static void result_to_t0(struct jit_code *c, const struct form *f, unsigned r)
{
    struct op op = {.map = f->rm_size < 4, .w = f->rm_size == 8, .low_byte = f->rm_size == 1};

    op.op = f->rm_size >= 4 ? OP_MOV_LOAD : f->rm_size == 2 ? OP_MOVZX2 : OP_MOVZX1;
    emit_op(c, op, HOST_T0, f->mem ? rm_at(HOST_T0, 0) : rm_reg(r));
}

/* All flags of a shift by more than 1, whose OF is that of one by 1 (undefined.h); the result is in
 * host register @r or, with a memory operand, at T0. Uses T0 and T1. */
static void save_shifted(struct jit_code *c, const struct form *f, unsigned r)
{
    result_to_t0(c, f, r);
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(RAX));
    emit_1(c, 0x9f);             /* lahf */
    if (f->flags == FLAGS_SHR) { /* the highest bit of what was shifted */
        emit_q(c, 0xc1, 5, rm_reg(HOST_T0));
        emit_1(c, f->rm_size * 8U - 1 - f->count);
    } else if (f->flags == FLAGS_SHL) { /* SF unlike CF: bits 15 and 8 of EAX */
        emit_d(c, OP_MOV_LOAD, HOST_T0, rm_reg(RAX));
        emit_d(c, 0xc1, 5, rm_reg(HOST_T0));
        emit_1(c, 7);
        emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(RAX));
        emit_d(c, 0xc1, 5, rm_reg(HOST_T0));
        emit_1(c, 8);
        emit_d(c, 0x83, 4, rm_reg(HOST_T0)); /* and */
        emit_1(c, 1);
    } else {
        emit_d(c, OP_XOR_LOAD, HOST_T0, rm_reg(HOST_T0));
    }
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T0, OVERFLOW);
    emit_bytes(c, "\x80\xe4\xef", 3); /* and ah, ~AF */
    emit_op(c, (struct op){.op = OP_MOV8_STORE}, AH, RFLAGS);
    emit_q(c, OP_MOV_LOAD, RAX, rm_reg(HOST_T1));
}

static void want_host_flags(struct work *w)
{
    if (!w->in_host) {
        load_flags(w->c);
    }
}

/* --- operands --------------------------------------------------------------------------------- */

/* A guest register in a host register: its own, or @temp, loaded. */
static unsigned load_reg(struct work *w, unsigned reg, unsigned temp)
{
    int host = host_of(reg);

    if (host >= 0) {
        return (unsigned)host;
    }
    emit_q(w->c, OP_MOV_LOAD, temp, rm_gs(GPR(reg)));
    return temp;
}

static void store_reg(struct work *w, unsigned reg, unsigned temp)
{
    if (host_of(reg) < 0) {
        emit_q(w->c, OP_MOV_STORE, temp, rm_gs(GPR(reg)));
    }
}

/* T0 = the linear address of the memory operand, or (LEA) its offset. Changes no flag without a
 * segment base. */
static void address(struct work *w, const struct insn *in, bool linear)
{
    struct jit_code *c = w->c;
    bool wide = in->asz == 8;

    if (in->rip_relative) {
        uint64_t ea = w->next + (uint64_t)in->disp;
        emit_mov_imm(c, HOST_T0, wide ? ea : (uint32_t)ea);
    } else if (in->base == REG_NONE && in->index == REG_NONE) {
        emit_mov_imm(c, HOST_T0, wide ? (uint64_t)in->disp : (uint32_t)in->disp);
    } else {
        int base = in->base == REG_NONE ? -1 : (int)load_reg(w, in->base, HOST_T0);
        int index = in->index == REG_NONE ? -1 : (int)load_reg(w, in->index, HOST_T1);
        if (base >= 0 && index < 0 && in->disp == 0 && wide) {
            if (base != HOST_T0) {
                emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg((unsigned)base));
            }
        } else {
            emit_lea(c, wide, HOST_T0, base, index, in->scale_shift, (int32_t)in->disp);
        }
    }
    if (linear && in->seg >= SEG_FS) {
        emit_q(c, OP_ADD_LOAD, HOST_T0, rm_gs(in->seg_off));
    }
}

static void slow_from(struct work *w, uint32_t site)
{
    w->slow[w->nslow++] = (struct slow){.from = site, .insn = w->i};
}

/* T0 = the host's address of the @size bytes at linear address T0, or on to the slow path. The
 * flags are in memory. */
static void lookup(struct work *w, unsigned size, bool write)
{
    struct jit_code *c = w->c;
    uint32_t mask = (uint32_t)w->v->tlb_mask << 5;
    int32_t tag =
        (int32_t)(write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));

    _Static_assert(sizeof(struct tlb_entry) == 32, "1 << 5");
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_q(c, 0xc1, 5, rm_reg(HOST_T1)); /* shr */
    emit_1(c, PAGE_SHIFT - 5);
    emit_d(c, 0x81, 4, rm_reg(HOST_T1)); /* and */
    emit_4(c, mask);
    emit_q(c, OP_ADD_LOAD, HOST_T1, rm_gs(offsetof(struct vcpu, tlb)));
    emit_q(c, OP_XOR_LOAD, HOST_T0, rm_at(HOST_T1, tag));
    emit_q(c, 0x81, 7, rm_reg(HOST_T0)); /* cmp: beyond the page, or not of this page */
    emit_4(c, (uint32_t)(PAGE_SIZE - size));
    slow_from(w, emit_jump(c, 0x87, 0)); /* ja */
    emit_q(c, OP_ADD_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct tlb_entry, hva)));
}

/* --- instructions ----------------------------------------------------------------------------- */

static bool high_byte(const struct form *f, unsigned reg, unsigned size)
{
    return !f->sse && size == 1 && !f->has_rex && reg >= 4;
}

/* Needs the byte registers that only REX names. */
static bool low_byte(unsigned host, unsigned size)
{
    return size == 1 && host >= 4 && host < 8;
}

static void emit_imm(struct work *w, const struct form *f, const uint8_t *bytes)
{
    emit_bytes(w->c, bytes + f->imm_at, f->imm_len);
}

static void do_modrm(struct work *w, const struct insn *in, const struct form *f,
                     const uint8_t *bytes)
{
    struct jit_code *c = w->c;
    struct op op = {f->map, f->op, f->p66, f->w, f->rep, false};
    unsigned reg = f->reg & 7U;
    unsigned rm_guest = f->rm, rm_host = 0;
    bool rm_temp = false, reg_temp = false;
    struct rm rm;

    if (f->mem) {
        address(w, in, true);
        lookup(w, f->rm_size, (f->rm_use & USE_WRITE) != 0);
        if (f->aligned) {
            emit_bytes(c, "\x41\xf6\xc3\x0f", 4); /* test r11b, 15 */
            slow_from(w, emit_jump(c, 0x85, 0));
        }
        rm = rm_at(HOST_T0, 0);
    } else if (f->rm_xmm) {
        rm = rm_reg(f->rm);
    } else if (high_byte(f, f->rm, f->rm_size)) {
        rm = rm_reg(f->rm);
    } else {
        rm_temp = host_of(rm_guest) < 0;
        rm_host = rm_temp ? HOST_T0 : (unsigned)host_of(rm_guest);
        rm = rm_reg(rm_host);
        op.low_byte = low_byte(rm_host, f->rm_size);
    }
    if (f->reads != 0) {
        want_host_flags(w);
    }
    if (rm_temp && ((f->rm_use & USE_READ) != 0 || f->rm_size < 4)) {
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_gs(GPR(rm_guest)));
    }
    if (f->reg_xmm) {
        reg = f->reg;
    } else if (f->reg_use != USE_NONE) {
        if (high_byte(f, f->reg, f->reg_size)) {
            reg = f->reg;
        } else {
            reg_temp = host_of(f->reg) < 0;
            reg = reg_temp ? HOST_T1 : (unsigned)host_of(f->reg);
            op.low_byte |= low_byte(reg, f->reg_size);
            if (reg_temp && ((f->reg_use & USE_READ) != 0 || f->reg_size < 4)) {
                emit_q(c, OP_MOV_LOAD, HOST_T1, rm_gs(GPR(f->reg)));
            }
        }
    }
    emit_op(c, op, reg, rm);
    emit_imm(w, f, bytes);
    if (rm_temp && (f->rm_use & USE_WRITE) != 0) {
        store_reg(w, rm_guest, HOST_T0);
    }
    if (reg_temp && (f->reg_use & USE_WRITE) != 0) {
        store_reg(w, f->reg, HOST_T1);
    }
}

/* The opcode with its prefixes, for operands that are the same registers on the host. */
static void do_fixed(struct work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;

    if (f->reads != 0) {
        want_host_flags(w);
    }
    if (f->p66) {
        emit_1(c, 0x66);
    }
    if (f->w) {
        emit_1(c, 0x48);
    }
    emit_1(c, f->op);
    emit_imm(w, f, bytes);
}

static void do_low3(struct work *w, const struct form *f, const uint8_t *bytes)
{
    struct jit_code *c = w->c;
    bool high = f->map == 0 && high_byte(f, f->reg, f->reg_size);
    bool temp = !high && host_of(f->reg) < 0;
    unsigned host = high ? f->reg : temp ? HOST_T0 : (unsigned)host_of(f->reg);
    unsigned rex = (f->w ? 8U : 0U) | (host >= 8 ? 1U : 0U);

    if (temp && ((f->reg_use & USE_READ) != 0 || f->reg_size < 4)) {
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_gs(GPR(f->reg)));
    }
    if (f->p66) {
        emit_1(c, 0x66);
    }
    if (rex != 0 || (!high && low_byte(host, f->reg_size))) {
        emit_1(c, 0x40 | rex);
    }
    if (f->map == 1) {
        emit_1(c, 0x0f);
    }
    emit_1(c, (f->op & 0xf8U) | (host & 7));
    emit_imm(w, f, bytes);
    if (temp) {
        store_reg(w, f->reg, HOST_T0);
    }
}

static void do_lea(struct work *w, const struct insn *in)
{
    unsigned reg = in->opd[0].reg, size = in->opd[0].size;
    int host = host_of(reg);

    address(w, in, false);
    if (host < 0) {
        if (size == 4) {
            emit_d(w->c, OP_MOV_LOAD, HOST_T0, rm_reg(HOST_T0));
        }
        emit_q(w->c, OP_MOV_STORE, HOST_T0, rm_gs(GPR(reg)));
    } else {
        emit_op(w->c, (struct op){.op = OP_MOV_LOAD, .w = size == 8}, (unsigned)host,
                rm_reg(HOST_T0));
    }
}

static void do_push(struct work *w, const struct form *f)
{
    struct jit_code *c = w->c;

    emit_lea(c, true, HOST_T0, HOST_GUEST_RSP, -1, 0, -8);
    lookup(w, 8, true);
    emit_q(c, OP_MOV_STORE, load_reg(w, f->reg, HOST_T1), rm_at(HOST_T0, 0));
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

static void do_pop(struct work *w, const struct form *f)
{
    struct jit_code *c = w->c;
    int host = host_of(f->reg);

    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(HOST_GUEST_RSP));
    lookup(w, 8, false);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8);
    emit_q(c, OP_MOV_LOAD, host < 0 ? HOST_T1 : (unsigned)host, rm_at(HOST_T0, 0));
    store_reg(w, f->reg, HOST_T1);
}

/* DIV and IDIV, if the quotient certainly fits. */
static void do_div(struct work *w, const struct insn *in, const struct form *f)
{
    struct jit_code *c = w->c;
    const struct op mov = {.op = OP_MOV_LOAD, .w = f->w}, cmp = {.op = 0x3b, .w = f->w};
    unsigned d = HOST_T0;
    bool sign = (in->mnemonic == ZYDIS_MNEMONIC_IDIV);

    if (f->mem) {
        address(w, in, true);
        lookup(w, f->rm_size, false);
        emit_op(c, mov, HOST_T0, rm_at(HOST_T0, 0));
    } else {
        d = load_reg(w, f->rm, HOST_T0);
    }
    if (sign) { /* the dividend is a sign-extended rAX, the divisor neither 0 nor -1 */
        emit_op(c, mov, HOST_T1, rm_reg(RAX));
        emit_op(c, (struct op){.op = 0xc1, .w = f->w}, 7, rm_reg(HOST_T1)); /* sar */
        emit_1(c, f->w ? 63 : 31);
        emit_op(c, cmp, HOST_T1, rm_reg(RDX));
        slow_from(w, emit_jump(c, 0x85, 0));
        emit_lea(c, f->w, HOST_T1, (int)d, -1, 0, 1);
        emit_op(c, (struct op){.op = 0x83, .w = f->w}, 7, rm_reg(HOST_T1)); /* cmp */
        emit_1(c, 1);
        slow_from(w, emit_jump(c, 0x86, 0)); /* jbe */
    } else {
        emit_op(c, cmp, RDX, rm_reg(d));
        slow_from(w, emit_jump(c, 0x83, 0)); /* jae */
    }
    emit_op(c, (struct op){.op = 0xf7, .w = f->w}, sign ? 7 : 6, rm_reg(d));
}

/* BSF and BSR. Flags go to memory if they are @wanted: ZF, and zeros (undefined.h). */
static void do_scan(struct work *w, const struct insn *in, const struct form *f, bool wanted)
{
    struct jit_code *c = w->c;
    struct rm rm = rm_at(HOST_T0, 0);

    if (f->mem) {
        address(w, in, true);
        lookup(w, f->rm_size, false);
    } else {
        rm = rm_reg(load_reg(w, f->rm, HOST_T0));
    }
    emit_op(c, (struct op){.map = 1, .op = f->op, .w = f->w}, HOST_T1, rm);
    uint32_t none = emit_jump(c, 0x84, 0);
    if (host_of(f->reg) >= 0) {
        emit_q(c, OP_MOV_LOAD, (unsigned)host_of(f->reg), rm_reg(HOST_T1));
    } else {
        store_reg(w, f->reg, HOST_T1);
    }
    emit_aim(c, none, c->at);
    if (wanted) {
        emit_op(c, (struct op){.map = 1, .op = 0x94}, 0, rm_reg(HOST_T1)); /* setz */
        emit_op(c, (struct op){.op = 0xc0}, 4, rm_reg(HOST_T1));           /* shl */
        emit_1(c, 6);
        emit_op(c, (struct op){.op = 0x80}, 1, rm_reg(HOST_T1)); /* or */
        emit_1(c, FLAG_ONE);
        emit_op(c, (struct op){.op = OP_MOV8_STORE}, HOST_T1, RFLAGS);
        emit_op(c, (struct op){.op = 0xc6}, 0, OVERFLOW); /* mov */
        emit_1(c, 0);
    }
}

static void set_rip(struct jit_code *c, uint64_t rip)
{
    emit_mov_imm(c, HOST_T1, rip);
    emit_q(c, OP_MOV_STORE, HOST_T1, rm_gs(offsetof(struct vcpu, c.rip)));
}

/* Out of translated code, by @e or (NULL) by none. */
static void leave(struct work *w, const struct jit_edge *e)
{
    emit_mov_imm(w->c, HOST_T0, (uint64_t)(uintptr_t)e);
    emit_jump(w->c, JUMP, w->j->leave);
}

/* Budget less or (@more) more @n instructions; sets the sign. */
static void charge(struct jit_code *c, bool more, uint32_t n)
{
    emit_q(c, 0x81, more ? 0 : 5, rm_reg(HOST_BUDGET)); /* add, sub */
    emit_4(c, n);
}

/* The interpreter's function for instruction @i, which stands at @rip. */
static void call_out(struct work *w, unsigned i, uint64_t rip)
{
    struct jit_code *c = w->c;

    set_rip(c, rip);
    emit_mov_imm(c, HOST_T0, (uint64_t)(uintptr_t)&w->block->insns[i]);
    emit_mov_imm(c, HOST_T1, w->n - 1 - i);
    emit_jump(c, CALL, w->t->sse ? w->j->call_sse : w->j->call);
}

static void count_called(struct work *w, const struct insn *in)
{
    emit_mov_imm(w->c, HOST_T0, (uint64_t)(uintptr_t)&w->j->called[in->mnemonic]);
    emit_q(w->c, 0xff, 0, rm_at(HOST_T0, 0)); /* inc */
}

static bool same_page(const struct work *w, uint64_t rip)
{
    return PAGE_BASE(rip) == PAGE_BASE(w->t->rip);
}

/* Leave for the page of @rip only if its fetch tag leads to memory whose address is filled in when
 * the edge is linked. */
static void look_at_page(struct work *w, struct jit_edge *e)
{
    struct jit_code *c = w->c;
    int32_t entry = (int32_t)((e->rip >> PAGE_SHIFT & w->v->tlb_mask) << 5);

    e->look = c->at;
    emit_mov_imm(c, HOST_T0, PAGE_BASE(e->rip));
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_gs(offsetof(struct vcpu, tlb_code)));
    emit_q(c, 0x3b, HOST_T0,
           rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, xtag))); /* cmp */
    w->unlike[0] = emit_jump(c, 0x85, 0);
    emit_1(c, 0x49); /* mov t0, imm64 */
    emit_1(c, 0xb8 | (HOST_T0 & 7));
    e->hva = c->at;
    emit_8(c, 0);
    emit_q(c, 0x3b, HOST_T0, rm_at(HOST_T1, entry + (int32_t)offsetof(struct tlb_entry, hva)));
    w->unlike[1] = emit_jump(c, 0x85, 0);
}

/* On to @rip; not linked yet. */
static void edge(struct work *w, uint64_t rip)
{
    struct jit_code *c = w->c;
    struct jit_edge *e = &w->t->edge[w->t->nedges++];

    *e = (struct jit_edge){.from = w->t, .rip = rip};
    if (!same_page(w, rip)) {
        look_at_page(w, e);
    }
    e->jump = c->at;
    charge(c, false, 0);
    emit_jump(c, 0x88, 0); /* js */
    emit_jump(c, JUMP, 0);
    e->undo = c->at;
    charge(c, true, 0);
    e->leave = c->at;
    if (e->look != 0) {
        emit_aim(c, w->unlike[0], e->leave);
        emit_aim(c, w->unlike[1], e->leave);
    }
    set_rip(c, rip);
    leave(w, e);
    jit_link(w->j, e, NULL, NULL);
}

/* T1 = the jump (struct jit_jump) to address T0, which must be known there and still lead to the
 * same memory; the interpreter has the rest. */
static void look_up_jump(struct work *w)
{
    struct jit_code *c = w->c;
    uint32_t unlike;

    _Static_assert(sizeof(struct jit_jump) == 64, "1 << 6");
    emit_q(c, OP_MOV_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_q(c, 0xc1, 5, rm_reg(HOST_T1)); /* shr */
    emit_1(c, JIT_JUMPS_FOLD);
    emit_d(c, OP_XOR_LOAD, HOST_T1, rm_reg(HOST_T0));
    emit_d(c, 0x81, 4, rm_reg(HOST_T1)); /* and */
    emit_4(c, JIT_JUMPS - 1);
    emit_q(c, 0xc1, 4, rm_reg(HOST_T1)); /* shl */
    emit_1(c, 6);
    emit_q(c, OP_ADD_LOAD, HOST_T1, rm_gs(offsetof(struct vcpu, jit_run.jumps)));
    emit_q(c, 0x3b, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, rip)));
    slow_from(w, emit_jump(c, 0x85, 0));
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, slot)));
    emit_q(c, OP_ADD_LOAD, HOST_T0, rm_gs(offsetof(struct vcpu, tlb_code)));
    emit_1(c, 0x50); /* push rax */
    emit_q(c, OP_MOV_LOAD, RAX, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, page)));
    emit_q(c, 0x3b, RAX, rm_at(HOST_T0, (int32_t)offsetof(struct tlb_entry, xtag)));
    unlike = emit_jump(c, 0x85, 0);
    emit_q(c, OP_MOV_LOAD, RAX, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, hva)));
    emit_q(c, 0x3b, RAX, rm_at(HOST_T0, (int32_t)offsetof(struct tlb_entry, hva)));
    emit_aim(c, unlike, c->at);
    emit_1(c, 0x58); /* pop rax: the flags stay */
    slow_from(w, emit_jump(c, 0x85, 0));
}

#define KEPT rm_gs(offsetof(struct vcpu, jit_run.kept))

/* Near RET: to what is known of the address on the stack. */
static void do_ret(struct work *w, const struct insn *in)
{
    struct jit_code *c = w->c;

    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(HOST_GUEST_RSP));
    lookup(w, 8, false);
    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T0, 0));
    look_up_jump(w);
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, 8 + (int32_t)(in->imm & 0xffff));
    emit_d(c, 0xff, 4, rm_at(HOST_T1, (int32_t)offsetof(struct jit_jump, code))); /* jmp */
}

/* T0 = the 64-bit operand in ModRM.rm. */
static void load_rm(struct work *w, const struct insn *in, const struct form *f)
{
    struct jit_code *c = w->c;

    if (f->mem) {
        address(w, in, true);
        lookup(w, 8, false);
        emit_q(c, OP_MOV_LOAD, HOST_T0, rm_at(HOST_T0, 0));
    } else {
        unsigned reg = load_reg(w, f->rm, HOST_T0);
        if (reg != HOST_T0) {
            emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(reg));
        }
    }
}

/* Pushes what was kept, or (else) @imm. */
static void push_kept(struct work *w, bool kept, uint64_t imm)
{
    struct jit_code *c = w->c;

    emit_lea(c, true, HOST_T0, HOST_GUEST_RSP, -1, 0, -8);
    lookup(w, 8, true);
    if (kept) {
        emit_q(c, OP_MOV_LOAD, HOST_T1, KEPT);
    } else {
        emit_mov_imm(c, HOST_T1, imm);
    }
    emit_q(c, OP_MOV_STORE, HOST_T1, rm_at(HOST_T0, 0));
    emit_lea(c, true, HOST_GUEST_RSP, HOST_GUEST_RSP, -1, 0, -8);
}

static void do_push_mem(struct work *w, const struct insn *in, const struct form *f)
{
    load_rm(w, in, f);
    emit_q(w->c, OP_MOV_STORE, HOST_T0, KEPT);
    push_kept(w, true, 0);
}

static void do_leave(struct work *w)
{
    struct jit_code *c = w->c;

    emit_q(c, OP_MOV_LOAD, HOST_T0, rm_reg(RBP));
    lookup(w, 8, false);
    emit_lea(c, true, HOST_GUEST_RSP, RBP, -1, 0, 8);
    emit_q(c, OP_MOV_LOAD, RBP, rm_at(HOST_T0, 0));
}

static void do_jump_to(struct work *w, const struct insn *in, const struct form *f)
{
    struct jit_code *c = w->c;
    int32_t code = (int32_t)offsetof(struct jit_jump, code);

    load_rm(w, in, f);
    look_up_jump(w);
    if (f->kind == FORM_CALL_TO) {
        emit_q(c, OP_MOV_LOAD, HOST_T1, rm_at(HOST_T1, code));
        emit_q(c, OP_MOV_STORE, HOST_T1, KEPT);
        push_kept(w, false, w->next);
        emit_d(c, 0xff, 4, KEPT); /* jmp */
    } else {
        emit_d(c, 0xff, 4, rm_at(HOST_T1, code)); /* jmp */
    }
}

static void do_jcc(struct work *w, const struct insn *in, bool in_host)
{
    if (!in_host) {
        load_flags(w->c);
    }
    uint32_t taken = emit_jump(w->c, 0x80 | (in->opcode & 15U), 0);
    edge(w, w->next);
    emit_aim(w->c, taken, w->c->at);
    edge(w, w->next + in->imm);
}

static void do_call(struct work *w, const struct insn *in)
{
    push_kept(w, false, w->next);
    edge(w, w->next + in->imm);
}

/* Where do_modrm leaves what it wrote to a register operand. */
static unsigned result_host(const struct form *f)
{
    return f->mem || host_of(f->rm) < 0 ? HOST_T0 : (unsigned)host_of(f->rm);
}

static bool accesses(const struct form *f)
{
    return (f->kind >= FORM_PUSH && f->kind <= FORM_DIV) || f->kind >= FORM_CALL_NEAR ||
           ((f->kind == FORM_MODRM || f->kind == FORM_SCAN) && f->mem);
}

/* Which flags are wanted where. A slow path wants them all: it may fault. */
static void find_live(struct work *w, const uint8_t *bytes)
{
    uint32_t uncertain[BLOCK_INSNS_MAX];

    for (unsigned i = 0; i < w->n; i++) {
        form_of(&w->block->insns[i], bytes, &w->form[i], &uncertain[i]);
        bytes += w->block->insns[i].len;
        w->t->sse |= w->form[i].sse;
    }
    w->live[w->n] = ALL;
    for (unsigned i = w->n; i-- > 0;) {
        struct form *f = &w->form[i];
        if ((w->live[i + 1] & uncertain[i]) != 0) {
            f->kind = FORM_CALL;
        } else if (uncertain[i] == ALL) {
            f->reads = 0;
        }
        bool whole = f->kind == FORM_CALL || accesses(f);
        w->live[i] = whole ? ALL : (w->live[i + 1] & ~f->writes) | f->reads;
    }
}

/* One instruction. True: the block's end has been emitted. */
static bool translate_one(struct work *w, const struct insn *in, const uint8_t *bytes)
{
    struct form *f = &w->form[w->i];
    struct jit_code *c = w->c;
    unsigned first_slow = w->nslow;
    bool keep_cf =
        f->flags == FLAGS_KEEP_CF && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_CF) != 0;
    bool rotated = (f->flags == FLAGS_ROL || f->flags == FLAGS_ROR) && f->kind == FORM_MODRM;
    bool merge = rotated && (w->live[w->i + 1] & (FLAG_CF | FLAG_OF)) != 0;
    bool shifted =
        f->flags >= FLAGS_SHL && f->kind == FORM_MODRM && (w->live[w->i + 1] & FLAG_OF) != 0;
    bool branch = f->kind >= FORM_JCC || (in->flags & (INSN_BRANCH | INSN_ENDS_BLOCK)) != 0;
    bool was_in_host = w->in_host;

    bool in_memory = f->flags == FLAGS_CF_OF || f->flags == FLAGS_CF || f->kind == FORM_SCAN;

    if (w->in_host && in_memory && w->live[w->i] == 0) {
        w->in_host = false; /* nobody wants them */
    }
    if (w->in_host &&
        (in_memory || f->kind == FORM_CALL || accesses(f) || keep_cf || merge || branch)) {
        save_flags(w); /* host flags stay until something else changes them */
    }
    switch (f->kind) {
    case FORM_NOTHING:
        break;
    case FORM_MODRM:
        do_modrm(w, in, f, bytes);
        break;
    case FORM_FIXED:
        do_fixed(w, f, bytes);
        break;
    case FORM_LOW3:
        do_low3(w, f, bytes);
        break;
    case FORM_LEA:
        do_lea(w, in);
        break;
    case FORM_PUSH:
        do_push(w, f);
        break;
    case FORM_PUSH_IMM:
        push_kept(w, false, in->imm);
        break;
    case FORM_PUSH_MEM:
        do_push_mem(w, in, f);
        break;
    case FORM_POP:
        do_pop(w, f);
        break;
    case FORM_LEAVE:
        do_leave(w);
        break;
    case FORM_DIV:
        do_div(w, in, f);
        break;
    case FORM_SCAN:
        do_scan(w, in, f, w->live[w->i + 1] != 0);
        break;
    case FORM_JCC:
        do_jcc(w, in, was_in_host);
        return true;
    case FORM_JMP:
        edge(w, w->next + in->imm);
        return true;
    case FORM_CALL_NEAR:
        do_call(w, in);
        return true;
    case FORM_JMP_TO:
    case FORM_CALL_TO:
        do_jump_to(w, in, f);
        return true;
    case FORM_RET:
        do_ret(w, in);
        return true;
    default:
        count_called(w, in);
        call_out(w, w->i, w->rip);
        if (branch) {
            leave(w, NULL);
            return true;
        }
        return false;
    }
    if (keep_cf) {
        save_but_cf(c);
    } else if (merge) {
        save_rotated(c, f, result_host(f));
    } else if (shifted) {
        save_shifted(c, f, result_host(f));
        w->in_host = false;
    } else if (in_memory) {
        if (f->kind == FORM_MODRM && (w->live[w->i + 1] & f->writes) != 0) {
            save_some(c, f);
        }
    } else if (f->writes != 0 && !rotated) {
        w->in_host = true;
        w->no_af = f->flags == FLAGS_NO_AF || f->flags >= FLAGS_SHL;
    }
    for (unsigned k = first_slow; k < w->nslow; k++) {
        w->slow[k].back = c->at;
        w->slow[k].load = w->in_host;
    }
    return false;
}

static void emit_slow_paths(struct work *w)
{
    for (unsigned k = 0; k < w->nslow; k++) {
        struct slow *s = &w->slow[k];
        uint64_t rip = w->t->rip;
        for (unsigned i = 0; i < s->insn; i++) {
            rip += w->block->insns[i].len;
        }
        emit_aim(w->c, s->from, w->c->at);
        call_out(w, s->insn, rip);
        if (s->back == 0) { /* a call, whose function has set RIP */
            leave(w, NULL);
            continue;
        }
        if (s->load) {
            load_flags(w->c);
        }
        emit_jump(w->c, JUMP, s->back);
    }
}

/* The guest's XMM registers are in the host's, or the block is left to the interpreter by @undo. */
static void want_xmm(struct work *w, uint32_t undo)
{
    struct jit_code *c = w->c;

    emit_op(c, (struct op){.op = 0x80}, 7,
            rm_gs(offsetof(struct vcpu, jit_run.xmm_live))); /* cmp */
    emit_1(c, 0);
    uint32_t live = emit_jump(c, 0x85, 0);
    emit_jump(c, CALL, w->j->load_xmm);
    emit_jump(c, 0x84, undo);
    emit_aim(c, live, c->at);
}

static bool targets_canonical(const struct block *b, uint64_t rip)
{
    const struct insn *last = &b->insns[b->n - 1];
    uint64_t end = rip;

    for (unsigned i = 0; i < b->n; i++) {
        end += b->insns[i].len;
    }
    return cpu_canonical(rip) && cpu_canonical(end) &&
           ((last->flags & INSN_BRANCH) == 0 || last->opd[0].kind != OPD_IMM ||
            cpu_canonical(end + last->imm));
}

struct translation *jit_translate(struct vcpu *v, struct jit *j, struct block *block)
{
    struct translation *t = plx_calloc(1, sizeof *t);
    struct work w = {.v = v, .c = &j->code, .block = block, .t = t, .n = block->n, .j = j};
    const uint8_t *bytes = ram_page_hva(v->ram, block->gpa);
    uint32_t start = j->code.at;
    bool ended = false;

    if (t == NULL || bytes == NULL || !targets_canonical(block, v->c.rip)) {
        plx_free(t);
        return NULL;
    }
    bytes += PAGE_OFFSET(block->gpa);
    t->block = block;
    t->rip = v->c.rip;
    t->n = block->n;
    find_live(&w, bytes);
    t->entry = w.c->at;
    charge(w.c, false, t->n);
    uint32_t enough = emit_jump(w.c, 0x89, 0); /* jns */
    uint32_t undo = w.c->at;
    charge(w.c, true, t->n);
    set_rip(w.c, t->rip);
    leave(&w, NULL);
    emit_aim(w.c, enough, w.c->at);
    t->body = w.c->at;
    w.rip = t->rip;
    if (t->sse) {
        want_xmm(&w, undo);
    }
    for (w.i = 0; w.i < w.n && !ended; w.i++) {
        const struct insn *in = &block->insns[w.i];
        w.next = w.rip + in->len;
        ended = translate_one(&w, in, bytes);
        bytes += in->len;
        w.rip = w.next;
    }
    if (!ended) {
        if (w.in_host) {
            save_flags(&w);
        }
        edge(&w, w.rip);
    }
    emit_slow_paths(&w);
    if (j->code.full) {
        j->code.at = start;
        plx_free(t);
        return NULL;
    }
    return t;
}
