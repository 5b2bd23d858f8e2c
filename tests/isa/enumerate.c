/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/enumerate.c - walks the opcode maps with Zydis, legacy and VEX, and keeps one example
 * of every form: mnemonic, mandatory prefix, opcode, operand kinds and sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"
#include "vmm/cpu/decode.h"

/* The instruction sets of the model; a form of any other must be refused. */
static bool in_model(const ZydisDecodedInstruction *z)
{
    if (z->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ) {
        return false; /* counted to AVX, but a feature of its own */
    }
    switch (z->meta.isa_set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_FAT_NOP:
        return true;
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_MOVBE:
        return isa_v3;
    default:
        return false;
    }
}

/* Hints: of sets the model does not offer, but what every processor lets pass. (The NOP with two
 * registers in their opcode is not among them: AMD's processors raise #UD.) */
static bool hint(const ZydisDecodedInstruction *z)
{
    return z->mnemonic == ZYDIS_MNEMONIC_PREFETCH || z->mnemonic == ZYDIS_MNEMONIC_PREFETCHW ||
           z->mnemonic == ZYDIS_MNEMONIC_PREFETCHWT1;
}

/* Cannot be single-stepped in a user process, or means something only with a system's tables: what
 * checks each stands in witness.c. */
static bool privileged(const ZydisDecodedInstruction *z)
{
    static const ZydisMnemonic list[] = {
        ZYDIS_MNEMONIC_HLT,     ZYDIS_MNEMONIC_CLI,    ZYDIS_MNEMONIC_STI,
        ZYDIS_MNEMONIC_IN,      ZYDIS_MNEMONIC_OUT,    ZYDIS_MNEMONIC_INSB,
        ZYDIS_MNEMONIC_INSW,    ZYDIS_MNEMONIC_INSD,   ZYDIS_MNEMONIC_OUTSB,
        ZYDIS_MNEMONIC_OUTSW,   ZYDIS_MNEMONIC_OUTSD,  ZYDIS_MNEMONIC_LGDT,
        ZYDIS_MNEMONIC_LIDT,    ZYDIS_MNEMONIC_SGDT,   ZYDIS_MNEMONIC_SIDT,
        ZYDIS_MNEMONIC_LLDT,    ZYDIS_MNEMONIC_LTR,    ZYDIS_MNEMONIC_SLDT,
        ZYDIS_MNEMONIC_STR,     ZYDIS_MNEMONIC_LMSW,   ZYDIS_MNEMONIC_SMSW,
        ZYDIS_MNEMONIC_CLTS,    ZYDIS_MNEMONIC_INVD,   ZYDIS_MNEMONIC_WBINVD,
        ZYDIS_MNEMONIC_INVLPG,  ZYDIS_MNEMONIC_RDMSR,  ZYDIS_MNEMONIC_WRMSR,
        ZYDIS_MNEMONIC_RDPMC,   ZYDIS_MNEMONIC_RDTSC,  ZYDIS_MNEMONIC_RSM,
        ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSRET, ZYDIS_MNEMONIC_SYSENTER,
        ZYDIS_MNEMONIC_SYSEXIT, ZYDIS_MNEMONIC_SWAPGS, ZYDIS_MNEMONIC_INT,
        ZYDIS_MNEMONIC_INT1,    ZYDIS_MNEMONIC_INT3,   ZYDIS_MNEMONIC_INTO,
        ZYDIS_MNEMONIC_IRET,    ZYDIS_MNEMONIC_IRETD,  ZYDIS_MNEMONIC_IRETQ,
        ZYDIS_MNEMONIC_CPUID,   ZYDIS_MNEMONIC_LDS,    ZYDIS_MNEMONIC_LES,
        ZYDIS_MNEMONIC_LFS,     ZYDIS_MNEMONIC_LGS,    ZYDIS_MNEMONIC_LSS,
        ZYDIS_MNEMONIC_LAR,     ZYDIS_MNEMONIC_LSL,    ZYDIS_MNEMONIC_VERR,
        ZYDIS_MNEMONIC_VERW,    ZYDIS_MNEMONIC_PUSHF,  ZYDIS_MNEMONIC_PUSHFD,
        ZYDIS_MNEMONIC_PUSHFQ,  ZYDIS_MNEMONIC_POPF,   ZYDIS_MNEMONIC_POPFD,
        ZYDIS_MNEMONIC_POPFQ,
    };

    for (size_t i = 0; i < PLX_COUNT(list); i++) {
        if (z->mnemonic == list[i]) {
            return true;
        }
    }
    return z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
           (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0;
}

static bool segment_operand(const ZydisDecodedOperand *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
            return true;
        }
    }
    return false;
}

/* "add r32, m32 (66? F3? map.opcode)": what makes a form a form. */
static void name_form(struct form *f, const ZydisDecodedInstruction *z,
                      const ZydisDecodedOperand *ops)
{
    size_t at =
        (size_t)snprintf(f->name, sizeof f->name, "%s", ZydisMnemonicGetString(z->mnemonic));

    for (unsigned i = 0; i < z->operand_count_visible && at < sizeof f->name; i++) {
        const char *kind = "?";
        switch (ops[i].type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            switch (ZydisRegisterGetClass(ops[i].reg.value)) {
            case ZYDIS_REGCLASS_XMM:
                kind = "xmm";
                break;
            case ZYDIS_REGCLASS_YMM:
                kind = "ymm";
                break;
            case ZYDIS_REGCLASS_MMX:
                kind = "mm";
                break;
            case ZYDIS_REGCLASS_X87:
                kind = "st";
                break;
            case ZYDIS_REGCLASS_SEGMENT:
                kind = "seg";
                break;
            case ZYDIS_REGCLASS_CONTROL:
                kind = "cr";
                break;
            case ZYDIS_REGCLASS_DEBUG:
                kind = "dr";
                break;
            default:
                kind = "r";
                break;
            }
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            kind = ops[i].mem.type == ZYDIS_MEMOP_TYPE_AGEN ? "agen" : "m";
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            kind = "ptr";
            break;
        default:
            kind = "imm";
            break;
        }
        at += (size_t)snprintf(f->name + at, sizeof f->name - at, "%s%s%u", i == 0 ? " " : ", ",
                               kind, ops[i].size);
    }
    if (at < sizeof f->name) {
        (void)snprintf(f->name + at, sizeof f->name - at, " [%s%s%u.%02x]",
                       (z->attributes & ZYDIS_ATTRIB_HAS_REP) != 0     ? "rep "
                       : (z->attributes & ZYDIS_ATTRIB_HAS_REPE) != 0  ? "repe "
                       : (z->attributes & ZYDIS_ATTRIB_HAS_REPNE) != 0 ? "repne "
                                                                       : "",
                       z->operand_width == 16 ? "o16 " : "", (unsigned)z->opcode_map, z->opcode);
    }
}

static void note_details(struct form *f, const ZydisDecodedInstruction *z,
                         const ZydisDecodedOperand *ops)
{
    for (int i = 0; i < 2; i++) {
        f->imm_at[i] = z->raw.imm[i].offset;
        f->imm_len[i] = (uint8_t)(z->raw.imm[i].size / 8);
    }
    f->modrm_at = (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0 ? z->raw.modrm.offset : 0;
    f->vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    while (memchr("\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3", f->bytes[f->opcode_at], 11) !=
           NULL) {
        f->opcode_at++;
    }
    if (f->mode == ISA_64 && (f->bytes[f->opcode_at] & 0xf0) == 0x40) {
        f->rex = f->bytes[f->opcode_at];
    }
    for (unsigned i = 0; i < z->operand_count; i++) {
        ZydisRegisterClass c = ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER
                                   ? ZydisRegisterGetClass(ops[i].reg.value)
                                   : ZYDIS_REGCLASS_INVALID;
        bool free = c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 ||
                    c == ZYDIS_REGCLASS_GPR32 || c == ZYDIS_REGCLASS_GPR64 ||
                    c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_MMX;
        f->vvvv_free = f->vvvv_free || (free && ops[i].encoding == ZYDIS_OPERAND_ENCODING_NDSNDD);
        f->vsib = f->vsib || (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                              ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB);
        f->reg_free = f->reg_free || (free && ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG);
        f->rm_free = f->rm_free || (free && ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM);
    }
    f->rep = (z->attributes &
              (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
    f->branch = z->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
    if (z->cpu_flags != NULL) {
        f->flags_read = z->cpu_flags->tested;
        f->flags_written = z->cpu_flags->modified | z->cpu_flags->set_0 | z->cpu_flags->set_1;
        f->flags_undefined = z->cpu_flags->undefined;
    }
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            f->mem = true;
        }
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass c = ZydisRegisterGetClass(ops[i].reg.value);
            f->fp = f->fp || c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM ||
                    c == ZYDIS_REGCLASS_MMX || c == ZYDIS_REGCLASS_X87;
        }
    }
    f->fp = f->fp || z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.isa_ext == ZYDIS_ISA_EXT_MMX ||
            z->meta.isa_ext == ZYDIS_ISA_EXT_SSE || z->meta.isa_ext == ZYDIS_ISA_EXT_SSE2;
}

static void classify(struct form *f, const ZydisDecodedInstruction *z,
                     const ZydisDecodedOperand *ops)
{
    static const enum decode_mode modes[] = {DECODE_64, DECODE_32, DECODE_16};
    struct insn in;
    bool bad = decode_insn(isa_v3 ? CPU_POLLUX_V3 : CPU_POLLUX_V2, modes[f->mode], f->bytes,
                           sizeof f->bytes, &in) != 0 ||
               (in.flags & INSN_BAD) != 0;
    bool ud = z->mnemonic == ZYDIS_MNEMONIC_UD0 || z->mnemonic == ZYDIS_MNEMONIC_UD1 ||
              z->mnemonic == ZYDIS_MNEMONIC_UD2;

    if (bad) {
        f->class = in_model(z) && !ud && z->mnemonic != ZYDIS_MNEMONIC_RSM &&
                           z->mnemonic != ZYDIS_MNEMONIC_SALC && /* in no manual */
                           z->mnemonic != ZYDIS_MNEMONIC_FSTPNCE /* nor this */
                       ? FORM_MISSING
                       : FORM_REFUSED;
    } else if (privileged(z) || segment_operand(ops, z->operand_count) ||
               (!in_model(z) && !hint(z))) {
        f->class = FORM_PRIVILEGED;
    } else {
        f->class = FORM_CHECKED;
    }
}

static bool known(const struct forms *l, const struct form *f)
{
    for (unsigned i = l->n; i-- > 0;) {
        if (l->items[i].mode == f->mode && strcmp(l->items[i].name, f->name) == 0) {
            return true;
        }
    }
    return false;
}

static const ZydisDecoder *decoder_of(enum isa_mode mode)
{
    static const ZydisMachineMode machine[] = {ZYDIS_MACHINE_MODE_LONG_64,
                                               ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                                               ZYDIS_MACHINE_MODE_LONG_COMPAT_16};
    static const ZydisStackWidth stack[] = {ZYDIS_STACK_WIDTH_64, ZYDIS_STACK_WIDTH_32,
                                            ZYDIS_STACK_WIDTH_16};
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX,      ZYDIS_DECODER_MODE_CET,
                                           ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE,
                                           ZYDIS_DECODER_MODE_LZCNT,    ZYDIS_DECODER_MODE_TZCNT};
    static ZydisDecoder decoders[2][ISA_MODES];
    static bool made[2][ISA_MODES];
    ZydisDecoder *d = &decoders[isa_v3][mode];

    if (!made[isa_v3][mode]) {
        PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderInit(d, machine[mode], stack[mode])));
        for (size_t i = 0; i < PLX_COUNT(off) - (isa_v3 ? 2 : 0); i++) {
            PLX_CHECK(ZYAN_SUCCESS(ZydisDecoderEnableMode(d, off[i], ZYAN_FALSE)));
        }
        decode_init();
        made[isa_v3][mode] = true;
    }
    return d;
}

bool form_of_bytes(enum isa_mode mode, const uint8_t *bytes, struct form *out)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(decoder_of(mode), bytes, sizeof out->bytes, &z, ops)) ||
        (z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
         !(isa_v3 && z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX))) {
        return false;
    }
    *out = (struct form){.mode = mode, .mnemonic = z.mnemonic, .len = z.length};
    memcpy(out->bytes, bytes, sizeof out->bytes);
    name_form(out, &z, ops);
    note_details(out, &z, ops);
    classify(out, &z, ops);
    return true;
}

static void try_bytes(enum isa_mode mode, const uint8_t *bytes, struct forms *out)
{
    struct form f;

    if (!form_of_bytes(mode, bytes, &f) || known(out, &f)) {
        return;
    }
    /* What a variant takes for a ModRM of ours (0x40 or 0xc0 and up) is one. */
    PLX_CHECK(f.modrm_at == 0 || f.bytes[f.modrm_at] >= 0x40);
    if (out->n == out->cap) {
        out->cap = out->cap == 0 ? 1024 : out->cap * 2;
        out->items = realloc(out->items, out->cap * sizeof out->items[0]);
        PLX_CHECK(out->items != NULL);
    }
    out->items[out->n++] = f;
}

/* All with the three-byte prefix: pp, L and W, the maps 0F, 0F 38, 0F 3A; vvvv 1111 (none, or
 * register 0), but register 2 for the forms that want three different ones: with a SIB byte. */
static void vex_forms(enum isa_mode mode, struct forms *out)
{
    enum { MEMORY = 8, MEMORY_SIB = 9 };

    for (unsigned map = 1; map < 4; map++) {
        for (unsigned op = 0; op < 256; op++) {
            for (unsigned v = 0; v < 16 * 8 * 10; v++) {
                unsigned pp = v % 4, l = v / 4 % 2, w = v / 8 % 2, reg = v / 16 % 8, rm = v / 128;
                uint8_t vvvv = rm == MEMORY_SIB ? 0xd : 0xf;
                uint8_t b[15] = {0};
                unsigned n = 0;

                if (mode == ISA_16 && rm >= MEMORY) { /* 16-bit addresses know no SIB */
                    b[n++] = 0x67;
                }
                b[n++] = 0xc4;
                b[n++] = (uint8_t)(0xe0 | map);
                b[n++] = (uint8_t)(w << 7 | (unsigned)vvvv << 3 | l << 2 | pp);
                b[n++] = (uint8_t)op;
                if (rm == MEMORY_SIB) {
                    b[n++] = (uint8_t)(0x44 | reg << 3);
                    b[n++] = 0x0b; /* rBX + register 1 */
                } else {
                    b[n++] = (uint8_t)(rm == MEMORY ? 0x43 | reg << 3 : 0xc0 | reg << 3 | rm);
                }
                try_bytes(mode, b, out);
            }
        }
    }
}

/* Prefixes, and what leads to another map: the byte behind them is an opcode and no ModRM. */
static bool no_opcode(enum isa_mode mode, unsigned map, unsigned op)
{
    if (map == 0) {
        return (op & 0xe7) == 0x26 || (op >= 0x64 && op <= 0x67) || op == 0xf0 || op == 0xf2 ||
               op == 0xf3 || op == 0x0f || (mode == ISA_64 && (op & 0xf0) == 0x40);
    }
    return map == 1 && (op == 0x38 || op == 0x3a);
}

void enumerate(enum isa_mode mode, struct forms *out)
{
    static const uint8_t maps[][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    unsigned rex_max = mode == ISA_64 ? 2 : 1;

    for (unsigned map = 0; map < 4; map++) {
        for (unsigned op = 0; op < 256; op++) {
            if (no_opcode(mode, map, op)) {
                continue;
            }
            for (unsigned v = 0; v < 4 * rex_max * 8 * 9; v++) {
                unsigned prefix = v % 4, rex = v / 4 % rex_max, reg = v / 4 / rex_max % 8;
                unsigned rm = v / 4 / rex_max / 8; /* 0-7: register; 8: memory at rBX + disp8 */
                uint8_t b[15] = {0};
                unsigned n = 0;

                if (prefixes[prefix] != 0) {
                    b[n++] = prefixes[prefix];
                }
                if (rex != 0) {
                    b[n++] = 0x48;
                }
                for (int k = 0; k < 2; k++) {
                    if (maps[map][k] != 0) {
                        b[n++] = maps[map][k];
                    }
                }
                b[n++] = (uint8_t)op;
                b[n++] = rm == 8 ? (uint8_t)(0x40 | reg << 3 | (mode == ISA_16 ? 7 : 3))
                                 : (uint8_t)(0xc0 | reg << 3 | rm);
                try_bytes(mode, b, out);
            }
        }
    }
    if (isa_v3) {
        vex_forms(mode, out);
    }
}
