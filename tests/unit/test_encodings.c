/* SPDX-License-Identifier: Apache-2.0
 * Hunts: an instruction of AVX, AVX-512, XOP or 3DNow! that is taken for something of the model.
 * Every form with such an encoding that Zydis knows raises #UD, in each mode in which its first
 * byte does not mean LES, LDS, BOUND or POP. */
#include <stdio.h>

#include "tests/unit/cpu_fixture.h"

enum { M64, M32, M16, MODES };
enum { LENGTH = 15, MODRMS = 16 };

static const ZydisMachineMode machine[MODES] = {
    ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LEGACY_16};
static const ZydisStackWidth stack[MODES] = {ZYDIS_STACK_WIDTH_64, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_16};

struct tour {
    struct fixture *f;
    ZydisDecoder zydis;
    ZydisInstructionEncoding encoding; /* what is looked for */
    unsigned forms, mnemonics;
    bool seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static void begin(struct tour *t, struct fixture *f, unsigned mode,
                  ZydisInstructionEncoding encoding)
{
    memset(t, 0, sizeof *t);
    t->f = f;
    t->encoding = encoding;
    assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&t->zydis, machine[mode], stack[mode])));
    if (mode == M64) {
        fx_long(f, 0);
    } else {
        fx_prot32(f, 0);
        if (mode == M16) {
            f->v.c.seg[SEG_CS].attr &= (uint16_t)~SEG_DB;
            vcpu_context_changed(&f->v);
        }
    }
    f->v.c.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
}

/* @head, then every opcode with ModRMs that name each register field, a register and memory. */
static void try_opcodes(struct tour *t, const uint8_t *head, unsigned len)
{
    for (unsigned i = 0; i < 256 * MODRMS; i++) {
        uint8_t code[LENGTH] = {0};
        ZydisDecodedInstruction z;

        memcpy(code, head, len);
        code[len] = (uint8_t)(i / MODRMS);
        code[len + 1] = (uint8_t)((i & 8) != 0 ? 0xc1 | (i & 7) << 3 : 0x03 | (i & 7) << 3);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&t->zydis, NULL, code, LENGTH, &z)) ||
            z.encoding != t->encoding) {
            continue;
        }
        if (fx_run(t->f, code, LENGTH) != VEC_UD) {
            fail_msg("%s (%02x %02x %02x %02x %02x %02x) does not raise #UD",
                     ZydisMnemonicGetString(z.mnemonic), code[0], code[1], code[2], code[3],
                     code[4], code[5]);
        }
        t->forms++;
        t->mnemonics += !t->seen[z.mnemonic];
        t->seen[z.mnemonic] = true;
    }
}

static void end(const struct tour *t, unsigned mode, unsigned mnemonics_least)
{
    static const char *const names[MODES] = {"64", "32", "16"};

    print_message("%s-bit: %u encodings of %u instructions\n", names[mode], t->forms, t->mnemonics);
    assert_true(t->mnemonics >= mnemonics_least);
}

/* C5: R vvvv L pp. C4: R X B mmmmm, W vvvv L pp. Outside of 64-bit mode R and X must be ones. */
static void vex(void **state)
{
    struct tour t;

    for (unsigned mode = 0; mode < MODES; mode++) {
        begin(&t, *state, mode, ZYDIS_INSTRUCTION_ENCODING_VEX);
        for (unsigned p = 0; p < 16; p++) { /* vvvv of ones or zeros, L, pp */
            uint8_t low =
                (uint8_t)((p & 8) << 3 | (p & 8) << 2 | (p & 8) << 1 | (p & 8) | (p & 7) | 0x40);
            try_opcodes(&t, (uint8_t[]){0xc5, (uint8_t)(0x80 | low)}, 2);
            for (unsigned map = 0; map < 32; map++) {
                try_opcodes(&t, (uint8_t[]){0xc4, (uint8_t)(0xe0 | map), low}, 3);
                try_opcodes(&t, (uint8_t[]){0xc4, (uint8_t)(0xe0 | map), (uint8_t)(0x80 | low)}, 3);
            }
        }
        end(&t, mode, 400);
    }
}

/* 62: R X B R' 0 mmm, W vvvv 1 pp, z L'L b V' aaa. */
static void evex(void **state)
{
    struct tour t;

    for (unsigned mode = 0; mode < MODES; mode++) {
        begin(&t, *state, mode, ZYDIS_INSTRUCTION_ENCODING_EVEX);
        for (unsigned i = 0; i < 8 * 8 * 3 * 4; i++) {
            unsigned map = i % 8, wpp = i / 8 % 8, length = i / 64 % 3, mask = i / 192;
            uint8_t head[] = {0x62, (uint8_t)(0xf0 | map),
                              (uint8_t)((wpp & 4) << 5 | 0x7c | (wpp & 3)),
                              (uint8_t)(length << 5 | (mask & 2) << 3 | 8 | (mask & 1))};
            try_opcodes(&t, head, sizeof head);
        }
        end(&t, mode, 500);
    }
}

/* 8F: R X B mmmmm, W vvvv L pp; a map below 8 is POP. */
static void xop(void **state)
{
    struct tour t;

    for (unsigned mode = 0; mode < MODES; mode++) {
        begin(&t, *state, mode, ZYDIS_INSTRUCTION_ENCODING_XOP);
        for (unsigned map = 8; map < 16; map++) {
            for (unsigned p = 0; p < 4; p++) { /* W, L */
                uint8_t bits = (uint8_t)(0x78 | (p & 1) << 7 | (p & 2) << 1);
                try_opcodes(&t, (uint8_t[]){0x8f, (uint8_t)(0xe0 | map), bits}, 3);
            }
        }
        end(&t, mode, 60);
    }
}

/* 0F 0F, ModRM, and the opcode last. */
static void three_d_now(void **state)
{
    struct tour t;

    for (unsigned mode = 0; mode < MODES; mode++) {
        begin(&t, *state, mode, ZYDIS_INSTRUCTION_ENCODING_3DNOW);
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            ZydisDecodedInstruction z;
            uint8_t code[LENGTH] = {0x0f, 0x0f, 0xc1, (uint8_t)opcode};
            if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&t.zydis, NULL, code, LENGTH, &z))) {
                continue;
            }
            assert_int_equal(fx_run(t.f, code, LENGTH), VEC_UD);
            t.forms++;
            t.mnemonics += !t.seen[z.mnemonic];
            t.seen[z.mnemonic] = true;
        }
        end(&t, mode, 20);
    }
}

/* What stands before VEX or EVEX makes no difference: LOCK, 66, F2, F3 and REX are #UD there too.
 */
static void prefixes_before(void **state)
{
    static const uint8_t prefixes[] = {0xf0, 0x66, 0xf2, 0xf3, 0x48, 0x67, 0x2e};
    struct fixture *f = *state;

    fx_long(f, 0);
    for (size_t i = 0; i < sizeof prefixes; i++) {
        const uint8_t vaddps[] = {prefixes[i], 0xc5, 0xf0, 0x58, 0xc2};
        const uint8_t vaddps512[] = {prefixes[i], 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2};
        assert_int_equal(fx_run(f, vaddps, sizeof vaddps), VEC_UD);
        assert_int_equal(fx_run(f, vaddps512, sizeof vaddps512), VEC_UD);
    }
}

/* The same bytes where they are older instructions. */
static void old_meanings_stay(void **state)
{
    struct fixture *f = *state;

    fx_prot32(f, 0);
    f->v.c.gpr[RBX] = DATA;
    put64(f, DATA, (uint64_t)DS32 << 32 | 7);
    assert_int_equal(RUN(f, 0xc4, 0x03), NO_FAULT); /* les eax, [ebx] */
    assert_int_equal(RUN(f, 0xc5, 0x03), NO_FAULT); /* lds eax, [ebx] */
    put64(f, DATA, UINT64_C(9) << 32 | 7);
    f->v.c.gpr[RAX] = 8;
    assert_int_equal(RUN(f, 0x62, 0x03), NO_FAULT); /* bound eax, [ebx] */
    f->v.c.gpr[RAX] = 10;
    assert_int_equal(RUN(f, 0x62, 0x03), VEC_BR);
    put64(f, STACK0, 0x1234);
    assert_int_equal(RUN(f, 0x8f, 0xc1), NO_FAULT); /* pop ecx */
    assert_int_equal(f->v.c.gpr[RCX], 0x1234);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(vex),
        FX_TEST(evex),
        FX_TEST(xop),
        FX_TEST(three_d_now),
        FX_TEST(prefixes_before),
        FX_TEST(old_meanings_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
