/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_form.c - see jit_form.h (SDM Vol. 2, "Instruction Format" and "Opcode Map"). */
#include "vmm/engine/jit_form.h"

#include "vmm/cpu/cpu.h"
#include "vmm/cpu/int.h"

/* What multiplications leave undefined; rotates keep it. */
enum { BUT_CF_OF = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF, BUT_CF = BUT_CF_OF | FLAG_OF };

/* The rest of a VEX prefix: REX. */
static uint8_t parse_vex(const uint8_t *b, unsigned *at, struct form *f)
{
    static const uint8_t rep[] = {0, 0, 0xf3, 0xf2};
    bool three = b[*at] == 0xc4;
    uint8_t first = b[*at + 1], last = three ? b[*at + 2] : first;

    f->vex = true;
    f->map = three ? first & 31 : 1;
    f->p66 = (last & 3) == 1;
    f->rep = rep[last & 3];
    f->wide = (last & 4) != 0;
    f->vvvv = ~last >> 3 & 15;
    *at += three ? 3 : 2;
    return (uint8_t)(three ? (~first >> 5 & 7) | (last >> 4 & 8) : ~first >> 5 & 4);
}

/* Prefixes, opcode, ModRM: sets what does not depend on the opcode. Returns where the opcode's
 * rest begins. */
static unsigned parse(const uint8_t *b, struct form *f, uint8_t *modrm)
{
    unsigned at = 0;
    uint8_t rex = 0;

    for (;; at++) {
        uint8_t p = b[at];
        if (p == 0x66) {
            f->p66 = true;
        } else if (p == 0xf2 || p == 0xf3) {
            f->rep = p;
        } else if (p != 0x26 && p != 0x2e && p != 0x36 && p != 0x3e && p != 0x64 && p != 0x65 &&
                   p != 0x67 && p != 0xf0) {
            break;
        }
    }
    if ((b[at] & 0xf0) == 0x40) {
        rex = b[at++];
        f->has_rex = true;
    }
    if (b[at] == 0xc4 || b[at] == 0xc5) {
        rex = parse_vex(b, &at, f);
    } else if (b[at] == 0x0f) {
        at++;
        f->map = 1;
        if (b[at] == 0x38 || b[at] == 0x3a) {
            f->map = b[at++] == 0x38 ? 2 : 3;
        }
    }
    f->op = b[at++];
    f->w = (rex & 8) != 0;
    *modrm = b[at];
    f->mem = (*modrm & 0xc0) != 0xc0;
    f->reg = (uint8_t)((*modrm >> 3 & 7) | (rex & 4) << 1);
    f->rm = (uint8_t)((*modrm & 7) | (rex & 1) << 3);
    return at;
}

static unsigned width(const struct form *f)
{
    return f->w ? 8 : f->p66 ? 2 : 4;
}

static void modrm_form(struct form *f, uint8_t reg_use, uint8_t rm_use, unsigned size)
{
    f->kind = FORM_MODRM;
    f->reg_use = reg_use;
    f->rm_use = rm_use;
    f->reg_size = f->rm_size = (uint8_t)size;
}

static void arith(struct form *f, uint32_t reads, enum form_flags flags)
{
    f->reads = reads;
    f->writes = FLAGS_ARITH;
    f->flags = flags;
}

/* The host leaves @unknown of what is written undefined. */
static void partly(struct form *f, uint32_t unknown, uint32_t *uncertain)
{
    f->writes = FLAGS_ARITH;
    *uncertain = unknown;
}

/* What is not written keeps its value, which the host's does not. */
static void keeping(struct form *f, uint32_t writes)
{
    f->writes = writes;
    f->flags = writes == FLAG_CF ? FLAGS_CF : FLAGS_CF_OF;
}

/* ADD OR ADC SBB AND SUB XOR CMP by number. */
static void alu_flags(struct form *f, unsigned n)
{
    arith(f, n == 2 || n == 3 ? (uint32_t)FLAG_CF : 0,
          n == 1 || n == 4 || n == 6 ? FLAGS_NO_AF : FLAGS_WHOLE);
}

/* Rotates touch CF and OF only; OF is defined for a count of 1, AF of shifts never. */
static void shift(struct form *f, unsigned n, unsigned count, unsigned size, uint32_t *uncertain)
{
    count &= size == 8 ? 63 : 31;
    bool high = !f->mem && size == 1 && !f->has_rex && f->rm >= 4;
    if (n == 2 || n == 3 || count == 0 || count >= size * 8 || (high && count != 1)) {
        f->kind = FORM_CALL;
        return;
    }
    if (n < 2 && !f->mem && size >= 4) {
        f->writes = FLAG_CF | FLAG_OF;
        f->flags = n == 0 ? FLAGS_ROL : FLAGS_ROR;
        return;
    }
    f->writes = FLAGS_ARITH;
    f->careful = size >= 4;
    if (n < 2) {
        f->flags = FLAGS_NO_AF;
        *uncertain = BUT_CF_OF | (count == 1 ? 0 : (uint32_t)FLAG_OF);
    } else if (count == 1) {
        f->flags = FLAGS_NO_AF;
    } else {
        f->flags = n == 5 ? FLAGS_SHR : n == 7 ? FLAGS_SAR : FLAGS_SHL;
        f->count = (uint8_t)count;
    }
}

static void group3(struct form *f, unsigned n, unsigned size)
{
    modrm_form(f, USE_NONE, n < 2 || n > 3 ? USE_READ : USE_BOTH, size);
    if (n < 2) {
        arith(f, 0, FLAGS_NO_AF);
    } else if (n == 3) {
        arith(f, 0, FLAGS_WHOLE);
    } else if (n == 4 || n == 5) {
        keeping(f, FLAG_CF | FLAG_OF);
        f->also = 1U << RAX | 1U << RDX;
    } else if (n > 5) {
        f->kind = size >= 4 ? FORM_DIV : FORM_CALL;
    }
}

static void one_byte(const struct insn *in, uint8_t modrm, struct form *f, uint32_t *uncertain)
{
    unsigned op = f->op, n = modrm >> 3 & 7, size = (op & 1) != 0 ? width(f) : 1;

    if (op < 0x40 && (op & 7) < 4) {
        bool cmp = op >> 3 == 7, to_reg = (op & 2) != 0;
        uint8_t dst = cmp ? USE_READ : USE_BOTH;
        modrm_form(f, to_reg ? dst : USE_READ, to_reg ? USE_READ : dst, size);
        alu_flags(f, op >> 3);
    } else if (op < 0x40 && (op & 7) < 6) {
        f->kind = FORM_FIXED;
        alu_flags(f, op >> 3);
    } else if (op >= 0x50 && op < 0x60 && !f->p66) {
        f->kind = op < 0x58 ? FORM_PUSH : FORM_POP;
        f->reg = in->opd[0].reg;
    } else if ((op == 0x68 || op == 0x6a) && !f->p66) {
        f->kind = FORM_PUSH_IMM;
    } else if (op == 0x63 && f->w) {
        modrm_form(f, USE_WRITE, USE_READ, 8);
        f->rm_size = 4;
    } else if (op == 0x69 || op == 0x6b) {
        modrm_form(f, USE_WRITE, USE_READ, width(f));
        keeping(f, FLAG_CF | FLAG_OF);
    } else if (op >= 0x70 && op < 0x80) {
        f->kind = FORM_JCC;
        f->reads = FLAGS_ARITH;
    } else if (op == 0x80 || op == 0x81 || op == 0x83) {
        modrm_form(f, USE_NONE, n == 7 ? USE_READ : USE_BOTH, size);
        alu_flags(f, n);
    } else if (op == 0x84 || op == 0x85) {
        modrm_form(f, USE_READ, USE_READ, size);
        arith(f, 0, FLAGS_NO_AF);
    } else if (op == 0x86 || op == 0x87) {
        modrm_form(f, USE_BOTH, USE_BOTH, size);
    } else if (op == 0x88 || op == 0x89) {
        modrm_form(f, USE_READ, USE_WRITE, size);
    } else if (op == 0x8a || op == 0x8b) {
        modrm_form(f, USE_WRITE, USE_READ, size);
    } else if (op == 0x8d && !f->p66) {
        f->kind = FORM_LEA;
    } else if (op == 0x98 || op == 0x99) {
        f->kind = FORM_FIXED;
    } else if (op == 0xa8 || op == 0xa9) {
        f->kind = FORM_FIXED;
        arith(f, 0, FLAGS_NO_AF);
    } else if (op >= 0xb0 && op < 0xc0) {
        f->kind = FORM_LOW3;
        f->reg = (uint8_t)(in->opd[0].reg | (in->opd[0].kind == OPD_REG_HIGH ? 4 : 0));
        f->reg_size = (uint8_t)(op < 0xb8 ? 1 : width(f));
        f->reg_use = USE_WRITE;
    } else if (op == 0xc0 || op == 0xc1 || op == 0xd0 || op == 0xd1) {
        modrm_form(f, USE_NONE, USE_BOTH, size);
        shift(f, n, op < 0xd0 ? (unsigned)in->imm : 1, size, uncertain);
    } else if ((op == 0xd2 || op == 0xd3) && n != 2 && n != 3) {
        modrm_form(f, USE_NONE, USE_BOTH, size);
        f->reads = f->writes = FLAGS_ARITH; /* a count of 0 keeps all */
        f->careful = size >= 4;
        *uncertain = FLAGS_ARITH;
    } else if (op == 0xc6 || op == 0xc7) {
        modrm_form(f, USE_NONE, USE_WRITE, size);
    } else if (op == 0xc2 || op == 0xc3) {
        f->kind = FORM_RET;
    } else if (op == 0xc9 && !f->p66) {
        f->kind = FORM_LEAVE;
    } else if (op == 0x9b || (op & 0xf8) == 0xd8) {
        x87_form(f);
    } else if (op == 0xe8) {
        f->kind = FORM_CALL_NEAR;
    } else if (op == 0xe9 || op == 0xeb) {
        f->kind = FORM_JMP;
    } else if (op == 0xf6 || op == 0xf7) {
        group3(f, n, size);
    } else if ((op == 0xfe || op == 0xff) && n < 2) {
        modrm_form(f, USE_NONE, USE_BOTH, size);
        f->writes = BUT_CF;
        f->flags = FLAGS_KEEP_CF;
    } else if (op == 0xff && (n == 2 || n == 4)) {
        f->kind = n == 2 ? FORM_CALL_TO : FORM_JMP_TO;
    } else if (op == 0xff && n == 6 && !f->p66) {
        f->kind = f->mem ? FORM_PUSH_MEM : FORM_PUSH;
        f->reg = f->rm;
    }
}

static void two_bytes(const struct insn *in, struct form *f, uint8_t modrm, uint32_t *uncertain)
{
    unsigned op = f->op, n = modrm >> 3 & 7;

    if (op >= 0x40 && op < 0x50) {
        modrm_form(f, USE_BOTH, USE_READ, width(f));
        f->reads = FLAGS_ARITH;
    } else if (op >= 0x80 && op < 0x90) {
        f->kind = FORM_JCC;
        f->reads = FLAGS_ARITH;
    } else if (op >= 0x90 && op < 0xa0) {
        modrm_form(f, USE_NONE, USE_WRITE, 1);
        f->reads = FLAGS_ARITH;
    } else if ((op == 0xa3 || op == 0xab || op == 0xb3 || op == 0xbb) && !f->mem) {
        modrm_form(f, USE_READ, op == 0xa3 ? USE_READ : USE_BOTH, width(f));
        keeping(f, FLAG_CF);
    } else if ((op == 0xa3 || op == 0xab || op == 0xb3 || op == 0xbb) && width(f) >= 4 &&
               in->asz == 8) {
        modrm_form(f, USE_READ, op == 0xa3 ? USE_READ : USE_BOTH, width(f));
        keeping(f, FLAG_CF);
        f->kind = FORM_BIT;
    } else if (op == 0xba && n >= 4) {
        modrm_form(f, USE_NONE, n == 4 ? USE_READ : USE_BOTH, width(f));
        keeping(f, FLAG_CF);
    } else if ((op == 0xa4 || op == 0xac) && width(f) >= 4) {
        unsigned count = (unsigned)in->imm & (f->w ? 63 : 31);
        modrm_form(f, USE_READ, USE_BOTH, width(f));
        f->flags = FLAGS_NO_AF;
        partly(f, count == 1 ? 0 : FLAG_OF, uncertain);
        f->kind = count == 0 ? FORM_CALL : FORM_MODRM;
        f->careful = count != 0;
    } else if ((op == 0xa5 || op == 0xad) && width(f) >= 4) {
        modrm_form(f, USE_READ, USE_BOTH, width(f));
        f->kind = FORM_SHIFT;
    } else if ((op == 0xbc || op == 0xbd) && width(f) >= 4) {
        f->kind = FORM_SCAN;
        f->rm_size = (uint8_t)width(f);
        f->writes = FLAGS_ARITH;
    } else if (op == 0xaf) {
        modrm_form(f, USE_BOTH, USE_READ, width(f));
        keeping(f, FLAG_CF | FLAG_OF);
    } else if ((op == 0xb0 || op == 0xb1) && f->mem) {
        modrm_form(f, USE_READ, USE_BOTH, op == 0xb0 ? 1 : width(f));
        arith(f, 0, FLAGS_WHOLE);
        f->also = 1U << RAX;
    } else if (op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf) {
        modrm_form(f, USE_WRITE, USE_READ, width(f));
        f->rm_size = (op & 1) != 0 ? 2 : 1;
    } else if (op == 0xb8 && f->rep == 0xf3) {
        modrm_form(f, USE_WRITE, USE_READ, width(f));
        arith(f, 0, FLAGS_WHOLE);
    } else if ((op == 0xc0 || op == 0xc1) && f->mem) {
        modrm_form(f, USE_BOTH, USE_BOTH, op == 0xc0 ? 1 : width(f));
        arith(f, 0, FLAGS_WHOLE);
    } else if (op == 0xc7 && n == 1 && f->mem) { /* CMPXCHG8B, CMPXCHG16B: ZF alone */
        modrm_form(f, USE_NONE, USE_BOTH, f->w ? 16 : 8);
        f->aligned = f->w ? 15 : 0;
        f->also = 1U << RAX | 1U << RDX;
        arith(f, FLAGS_ARITH, FLAGS_ZF);
    } else if (op >= 0xc8 && op < 0xd0 && !f->p66) {
        f->kind = FORM_LOW3;
        f->reg_use = USE_BOTH;
        f->reg_size = (uint8_t)width(f);
    }
}

/* Immediates are the last bytes; ModRM may be followed by SIB and displacement. */
static void find_imm(const struct insn *in, unsigned at, uint8_t modrm, const uint8_t *b,
                     struct form *f)
{
    if (f->kind == FORM_MODRM) {
        at++;
        if (f->mem) {
            unsigned mod = modrm >> 6;
            bool sib = (modrm & 7) == 4;
            bool disp32 = mod == 2 || (mod == 0 && (sib ? (b[at] & 7) == 5 : (modrm & 7) == 5));
            at += (sib ? 1U : 0U) + (mod == 1 ? 1U : disp32 ? 4U : 0U);
        }
    }
    f->imm_at = (uint8_t)at;
    f->imm_len = (uint8_t)(in->len - at);
}

unsigned form_register(const struct form *f, unsigned reg, unsigned size)
{
    return size == 1 && !f->has_rex && reg >= 4 ? reg - 4 : reg;
}

static void integer_form(const struct insn *in, uint8_t modrm, struct form *f, uint32_t *uncertain)
{
    if (f->map == 0 && (f->rep == 0 || f->op == 0xc3)) {
        one_byte(in, modrm, f, uncertain);
    } else if (f->map == 1 && (f->rep == 0 || (f->op == 0xb8 && f->rep == 0xf3) ||
                               in->fn == int_bsf || in->fn == int_bsr)) {
        two_bytes(in, f, modrm, uncertain);
        if (f->kind == FORM_LOW3) {
            f->reg = in->opd[0].reg;
        }
    }
    if (f->p66 && (f->kind >= FORM_JCC)) {
        f->kind = FORM_CALL;
    }
}

void form_of(const struct insn *in, const uint8_t *bytes, bool v3, struct form *f,
             uint32_t *uncertain)
{
    uint8_t modrm;

    *f = (struct form){.kind = FORM_CALL};
    *uncertain = 0;
    if ((in->flags & (INSN_BAD | INSN_SINGLE)) != 0) {
        return;
    }
    f->kind = jit_sys_kind(in);
    if (f->kind != FORM_CALL || (in->flags & INSN_ENDS_BLOCK) != 0) {
        return;
    }
    if (in->fn == int_nop) {
        f->kind = FORM_NOTHING;
        return;
    }
    unsigned at = parse(bytes, f, &modrm);
    /* parse takes a REX for the last prefix; one that more prefixes follow is ignored. */
    if (f->op != in->opcode || (f->vex && !v3)) {
        return;
    }
    if (v3) {
        bmi_form(in, f);
    }
    if (f->kind == FORM_CALL && !f->vex) {
        integer_form(in, modrm, f, uncertain);
    }
    if (f->kind == FORM_CALL) {
        sse_form(in, f);
    }
    find_imm(in, at, modrm, bytes, f);
    /* AH CH DH BH cannot stand beside the host's R11 or R15. */
    if (f->kind == FORM_MODRM && !f->has_rex && !f->sse &&
        ((f->mem && f->reg_use != USE_NONE && f->reg_size == 1 && f->reg >= 4) ||
         (!f->mem && f->rm_size == 1 && f->rm >= 4 && f->reg_size > 1 && f->reg == RSP))) {
        f->kind = FORM_CALL;
    }
}
