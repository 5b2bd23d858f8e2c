/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/decode.c - see decode.h. Vendor differences are resolved as Intel's (SDM Vol. 2,
 * "Instruction Format"): 64-bit near branches ignore 66H. */
#include "vmm/cpu/decode.h"

#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/vcpu.h"

static ZydisDecoder decoders[CPU_MODELS][DECODE_MODES];
/* Two tables may share a mnemonic: MOVSD and CMPSD are string and SSE instructions. The third is
 * what pollux-v3 adds. */
static const struct insn_bind *by_mnemonic[3][ZYDIS_MNEMONIC_MAX_VALUE + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void index_table(unsigned which, const struct insn_bind *b)
{
    for (; b->mnemonic != ZYDIS_MNEMONIC_INVALID; b++) {
        PLX_CHECK(by_mnemonic[which][b->mnemonic] == NULL);
        by_mnemonic[which][b->mnemonic] = b;
    }
}

static void init(void)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth width;
    } modes[DECODE_MODES] = {
        [DECODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
        [DECODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [DECODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
    };
    /* Extensions the models lack, the last two pollux-v2 only: their encodings mean what they meant
     * before. */
    static const ZydisDecoderMode absent[] = {
        ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYDIS_DECODER_MODE_KNC,      ZYDIS_DECODER_MODE_MPX,
        ZYDIS_DECODER_MODE_CET,          ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE,
        ZYDIS_DECODER_MODE_LZCNT,        ZYDIS_DECODER_MODE_TZCNT,
    };

    for (unsigned i = 0; i < CPU_MODELS * DECODE_MODES; i++) {
        ZydisDecoder *d = &decoders[i / DECODE_MODES][i % DECODE_MODES];
        unsigned n = PLX_COUNT(absent) - (i / DECODE_MODES == CPU_POLLUX_V2 ? 0 : 2);
        PLX_CHECK(ZYAN_SUCCESS(
            ZydisDecoderInit(d, modes[i % DECODE_MODES].mode, modes[i % DECODE_MODES].width)));
        for (unsigned k = 0; k < n; k++) {
            PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderEnableMode(d, absent[k], ZYAN_FALSE)));
        }
    }
    index_table(0, insn_bind_int);
    index_table(0, insn_bind_sys);
    index_table(1, insn_bind_sse);
    index_table(1, insn_bind_x87);
    index_table(2, insn_bind_v3);
}

void decode_init(void)
{
    PLX_CHECK(pthread_once(&once, init) == 0);
}

static void raise_ud(struct vcpu *v, const struct insn *in)
{
    (void)in;
    cpu_ud(v);
}

static void raise_too_long(struct vcpu *v, const struct insn *in)
{
    (void)in;
    cpu_gp0(v);
}

static void set_bad(struct insn *in, insn_fn fn)
{
    in->fn = fn;
    in->flags |= INSN_BAD | INSN_ENDS_BLOCK;
}

static bool is_string(const ZydisDecodedInstruction *z)
{
    return z->meta.category == ZYDIS_CATEGORY_STRINGOP ||
           z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static uint8_t seg_id(ZydisRegister r)
{
    return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_SEGMENT ? (uint8_t)ZydisRegisterGetId(r)
                                                              : (uint8_t)SEG_DS;
}

static struct opd reg_opd(ZydisRegister r)
{
    struct opd o = {.kind = OPD_NONE, .reg = (uint8_t)ZydisRegisterGetId(r)};

    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
        o.kind = OPD_REG;
        o.size = 1;
        if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
            o.kind = OPD_REG_HIGH;
            o.reg = (uint8_t)(r - ZYDIS_REGISTER_AH);
        } else if (r >= ZYDIS_REGISTER_SPL) {
            o.reg = (uint8_t)(r - ZYDIS_REGISTER_SPL + RSP);
        } else {
            o.reg = (uint8_t)(r - ZYDIS_REGISTER_AL);
        }
        break;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        o.kind = OPD_REG;
        o.size = ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR16   ? 2
                 : ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR32 ? 4
                                                                    : 8;
        break;
    case ZYDIS_REGCLASS_X87:
        o.kind = OPD_ST;
        o.size = 10;
        break;
    case ZYDIS_REGCLASS_MMX:
        o.kind = OPD_MM;
        o.size = 8;
        break;
    case ZYDIS_REGCLASS_XMM:
        o.kind = OPD_XMM;
        o.size = 16;
        break;
    case ZYDIS_REGCLASS_YMM:
        o.kind = OPD_XMM;
        o.size = 32;
        break;
    case ZYDIS_REGCLASS_SEGMENT:
        o.kind = OPD_SEG;
        o.size = 2;
        break;
    case ZYDIS_REGCLASS_CONTROL:
        o.kind = OPD_CR;
        o.size = 8;
        break;
    case ZYDIS_REGCLASS_DEBUG:
        o.kind = OPD_DR;
        o.size = 8;
        break;
    default:
        break;
    }
    return o;
}

/* A SIB without a base (SDM Vol. 2, "32-Bit Addressing Forms with the SIB Byte"), whatever REX.B
 * is; Zydis 4.0 finds R13D there under an address-size prefix. */
static bool sib_without_base(const ZydisDecodedInstruction *z)
{
    return (z->attributes & ZYDIS_ATTRIB_HAS_SIB) != 0 && z->raw.modrm.mod == 0 &&
           z->raw.sib.base == 5;
}

static void set_mem(enum decode_mode mode, const ZydisDecodedInstruction *z,
                    const ZydisDecodedOperandMem *m, struct insn *in)
{
    bool no_base = sib_without_base(z);

    in->seg = seg_id(m->segment);
    in->disp = no_base ? z->raw.disp.value : m->disp.has_displacement ? m->disp.value : 0;
    in->rip_relative = m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP;
    in->base = m->base == ZYDIS_REGISTER_NONE || in->rip_relative || no_base
                   ? (uint8_t)REG_NONE
                   : (uint8_t)ZydisRegisterGetId(m->base);
    in->index =
        m->index == ZYDIS_REGISTER_NONE ? (uint8_t)REG_NONE : (uint8_t)ZydisRegisterGetId(m->index);
    in->scale = m->scale == 0 ? 1 : m->scale;
    if (m->type == ZYDIS_MEMOP_TYPE_VSIB) {
        in->flags |= INSN_VSIB;
        in->index_wide = ZydisRegisterGetClass(m->index) == ZYDIS_REGCLASS_YMM;
    }
    if (mode == DECODE_64 && in->seg < SEG_FS && in->seg != SEG_SS) {
        in->seg = SEG_DS; /* the others' overrides are ignored */
    }
}

_Static_assert(offsetof(struct vcpu, zero) <= UINT16_MAX, "insn.base_off and its like");

static uint16_t reg_off(uint8_t reg)
{
    return (uint16_t)(reg == REG_NONE ? offsetof(struct vcpu, zero)
                                      : offsetof(struct vcpu, c.gpr) + reg * sizeof(uint64_t));
}

/* What the inline paths of mem.h add up. */
static void set_inline(enum decode_mode mode, struct insn *in)
{
    in->base_off = in->rip_relative ? (uint16_t)offsetof(struct vcpu, next_rip) : reg_off(in->base);
    in->index_off = reg_off((in->flags & INSN_VSIB) != 0 ? (uint8_t)REG_NONE : in->index);
    in->scale_shift = (uint8_t)__builtin_ctz(in->scale);
    in->ea_mask = in->asz == 8 ? UINT64_MAX : in->asz == 4 ? UINT32_MAX : 0xffff;
    in->seg_off = (uint16_t)(in->seg < SEG_FS
                                 ? offsetof(struct vcpu, zero)
                                 : offsetof(struct vcpu, c.seg) + in->seg * sizeof(struct cpu_seg) +
                                       offsetof(struct cpu_seg, base));
    if (mode == DECODE_64) {
        in->flags |= INSN_LIN64;
    }
}

/* Of an operand that is not in the encoding. */
static uint8_t implicit_seg(enum decode_mode mode, ZydisInstructionAttributes a)
{
    static const struct {
        ZydisInstructionAttributes attribute;
        uint8_t seg;
    } overrides[] = {
        {ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS}, {ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS}, {ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES},
    };

    for (unsigned i = 0; i < PLX_COUNT(overrides); i++) {
        if ((a & overrides[i].attribute) != 0 && (mode != DECODE_64 || i < 2)) {
            return overrides[i].seg;
        }
    }
    return SEG_DS;
}

/* In 64-bit mode the prefixes of ES, CS, SS and DS are ignored: an FS or GS before one still
 * counts (AMD64 Architecture Programmer's Manual Vol. 3, "Segment-Override Prefixes"). */
static void skip_ignored_override(enum decode_mode mode, const ZydisDecodedInstruction *z,
                                  struct insn *in)
{
    if (mode != DECODE_64) {
        return;
    }
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        if (z->raw.prefixes[i].value == 0x64 || z->raw.prefixes[i].value == 0x65) {
            in->seg = z->raw.prefixes[i].value == 0x64 ? SEG_FS : SEG_GS;
        }
    }
}

static bool has_prefix(const ZydisDecodedInstruction *z, uint8_t byte)
{
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        if (z->raw.prefixes[i].value == byte) {
            return true;
        }
    }
    return false;
}

static void set_prefixes(enum decode_mode mode, const ZydisDecodedInstruction *z, struct insn *in)
{
    if ((z->attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0) {
        in->flags |= INSN_LOCK;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || z->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
        z->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU || z->mnemonic == ZYDIS_MNEMONIC_XLAT) {
        in->seg = implicit_seg(mode, z->attributes); /* of the operand at rDI, or at rBX + AL */
    }
    if (is_string(z)) {
        in->seg = implicit_seg(mode, z->attributes);
        for (unsigned i = 0; i < z->raw.prefix_count; i++) { /* the last one counts */
            uint8_t p = z->raw.prefixes[i].value;
            if (p == 0xf2 || p == 0xf3) {
                in->flags &= (uint16_t) ~(INSN_REP | INSN_REPNE);
                in->flags |= p == 0xf3 ? INSN_REP : INSN_REPNE;
                in->flags |= INSN_ENDS_BLOCK;
            }
        }
    }
}

static void set_operands(enum decode_mode mode, const ZydisDecodedInstruction *z,
                         const ZydisDecodedOperand *ops, struct insn *in)
{
    unsigned nimm = 0;

    for (unsigned i = 0; i < z->operand_count_visible && i < PLX_COUNT(in->opd); i++) {
        const ZydisDecodedOperand *op = &ops[i];
        struct opd *o = &in->opd[i];

        switch (op->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            *o = reg_opd(op->reg.value);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            *o = (struct opd){.kind = OPD_MEM, .size = (uint16_t)(op->size / 8)};
            if (z->mnemonic == ZYDIS_MNEMONIC_MOVSXD && in->osz == 2) {
                o->size = 2; /* SDM Vol. 2, "MOVSXD": r16, r/m16. Zydis has AMD's r/m32 */
            }
            if (!is_string(z)) {
                set_mem(mode, z, &op->mem, in);
            }
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            *o = (struct opd){.kind = OPD_IMM, .size = in->osz};
            in->imm = op->ptr.offset;
            in->far_sel = op->ptr.segment;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            *o = (struct opd){.kind = OPD_IMM, .size = (uint16_t)(op->size / 8)};
            if (nimm++ == 0) {
                in->imm = op->imm.value.u;
            } else {
                in->imm2 = (uint8_t)op->imm.value.u;
            }
            break;
        default:
            break;
        }
        in->nopd = (uint8_t)(i + 1);
    }
}

/* Zydis 4.0 knows VEX encodings of these, of Knights Corner, also where it is not to. */
static bool of_knights_corner(const ZydisDecodedInstruction *z)
{
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
           (z->mnemonic == ZYDIS_MNEMONIC_LZCNT || z->mnemonic == ZYDIS_MNEMONIC_TZCNT ||
            z->mnemonic == ZYDIS_MNEMONIC_POPCNT);
}

static void bind(enum cpu_model model, const ZydisDecodedInstruction *z, struct insn *in)
{
    const struct insn_bind *b = by_mnemonic[is_string(z) ? 0 : 1][z->mnemonic];

    if (b == NULL) {
        b = by_mnemonic[is_string(z) ? 1 : 0][z->mnemonic];
    }
    if (b == NULL && model == CPU_POLLUX_V3) {
        b = by_mnemonic[2][z->mnemonic];
    }
    insn_fn fn = b == NULL ? NULL : b->pick != NULL ? b->pick(in) : b->fn;
    if (fn == NULL) {
        set_bad(in, raise_ud);
        return;
    }
    in->fn = fn;
    in->flags |= b->flags;
    if (in->opd[0].kind == OPD_SEG || in->opd[0].kind == OPD_CR || in->opd[0].kind == OPD_DR) {
        in->flags |= INSN_ENDS_BLOCK; /* MOV and POP to what the rest of a block depends on */
    }
}

int decode_insn(enum cpu_model model, enum decode_mode mode, const uint8_t *bytes, size_t len,
                struct insn *in)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    ZyanStatus status =
        ZydisDecoderDecodeFull(&decoders[model][mode], bytes,
                               len < INSN_BYTES_MAX ? len : (size_t)INSN_BYTES_MAX, &z, ops);

    memset(in, 0, sizeof *in);
    in->base = in->index = REG_NONE;
    in->scale = 1;
    in->len = 1;
    in->seg = SEG_DS;
    if (!ZYAN_SUCCESS(status)) {
        if (status == ZYDIS_STATUS_NO_MORE_DATA && len < INSN_BYTES_MAX) {
            return PLX_ETRUNCATED;
        }
        set_bad(in,
                status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA
                    ? raise_too_long
                    : raise_ud);
        return 0;
    }
    in->mnemonic = (uint16_t)z.mnemonic;
    in->len = z.length;
    in->asz = (uint8_t)(z.address_width / 8);
    in->opcode = z.opcode;
    bool prefix66 = has_prefix(&z, 0x66);
    in->ssz = mode == DECODE_64 ? (prefix66 && z.raw.rex.W == 0 ? 2 : 8)
                                : ((mode == DECODE_32) != prefix66 ? 4 : 2);
    /* Byte forms: what the prefixes would give a wider one. */
    in->osz = z.operand_width != 8              ? (uint8_t)(z.operand_width / 8)
              : (mode == DECODE_16) != prefix66 ? 2
                                                : 4;
    if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && model == CPU_POLLUX_V3 &&
        !of_knights_corner(&z)) {
        in->flags |= INSN_VEX;
    } else if (z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        set_bad(in, raise_ud);
        return 0;
    }
    set_prefixes(mode, &z, in);
    set_operands(mode, &z, ops, in);
    skip_ignored_override(mode, &z, in);
    set_inline(mode, in);
    bind(model, &z, in);
    return 0;
}
