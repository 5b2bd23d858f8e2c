/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_flags.c - every instruction that the SDM leaves flags of undefined, or, for
 * some operands, the result: translated, with what the host made of them spoilt right behind it
 * (jit.h, poison), it ends as interpreted, to every flag. So it does with what the host made of
 * them, since the opposite of that may be right by chance. SEED= gives other operands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/ours.h"
#include "tests/isa/sequence.h"
#include "tests/unit/amount.h"
#include "vmm/cpu/undefined.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

enum { START = 0x400, HOT = 12, TURNS = 4, BUDGET = 200 };

static uint32_t undefined_of(const struct form *f)
{
    return f->class == FORM_CHECKED ? undefined_mask(f->mnemonic) : 0;
}

static void emit(struct sequence *s, const void *bytes, unsigned n)
{
    memcpy(s->code + s->end, bytes, n);
    s->end += n;
}
#define EMIT(s, ...) emit((s), (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

/* Flags of a comparison, the instruction, perhaps one that keeps some of what it left, and who
 * looks at what it left: all flags at once, each for itself, a branch, or nobody before the next
 * time. */
static void make_program(struct prng *g, const struct form *f, struct sequence *s)
{
    uint8_t bytes[15];

    memset(s, 0, sizeof *s);
    s->start = s->end = START;
    for (unsigned how = 0; how < 5; how++) {
        memcpy(bytes, f->bytes, sizeof bytes);
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned k = 0; k < f->imm_len[i]; k++) {
                bytes[f->imm_at[i] + k] = (uint8_t)prng_u64(g);
            }
        }
        if (prng_below(g, 2) == 0) {
            EMIT(s, 0x4d, 0x39, (uint8_t)(0xc0 | prng_below(g, 64))); /* cmp r8-r15, r8-r15 */
        }
        emit(s, bytes, f->len);
        switch (prng_below(g, 6)) {
        case 0:
            EMIT(s, 0x4d, 0x0f, 0xaf, 0xdb); /* imul r11, r11: CF and OF are its */
            break;
        case 1:
            EMIT(s, 0x4d, 0x0f, 0xa3, 0xdb); /* bt r11, r11: CF */
            break;
        case 2:
            EMIT(s, 0x49, 0xff, 0xc3); /* inc r11: all but CF */
            break;
        default:
            break;
        }
        switch (how) {
        case 0:
            EMIT(s, 0x9c, 0x41, 0x5e); /* pushfq; pop r14 */
            break;
        case 1:
            EMIT(s, 0x41, 0x0f, 0x90, 0xc6, 0x41, 0x0f, 0x98, 0xc0); /* seto r14b; sets r8b */
            EMIT(s, 0x41, 0x0f, 0x9a, 0xc1, 0x41, 0x0f, 0x94, 0xc2); /* setp r9b; setz r10b */
            break;
        case 2:
            EMIT(s, 0x9f, 0x41, 0x11, 0xc0); /* lahf; adc r8d, eax */
            break;
        case 3:
            EMIT(s, 0x0f, (uint8_t)(0x80 | prng_below(g, 16)), 3, 0, 0, 0); /* jcc over */
            EMIT(s, 0x49, 0xff, 0xc0);                                      /* inc r8 */
            break;
        default:
            break;
        }
    }
    EMIT(s, 0x0f, 0x0b); /* ud2 */
}

/* Until it is hot and beyond. How often it was translated to the end without an exception. */
static unsigned ends_alike(struct ours *a, struct ours *b, struct prng *g, const struct form *f)
{
    static struct sequence s;
    static struct isa_state in;
    unsigned whole = 0;

    make_program(g, f, &s);
    sequence_memory(g, &in);
    ours_forget(a);
    ours_forget(b);
    for (unsigned i = 0; i < HOT; i++) {
        sequence_registers(g, &s, false, &in);
        in.rflags |= prng_u64(g) & FLAGS_ARITH;
        if (f->mnemonic == ZYDIS_MNEMONIC_DIV || f->mnemonic == ZYDIS_MNEMONIC_IDIV) {
            in.gpr[RDX] = 0;
        }
        ours_begin(a, s.code, &in);
        ours_begin(b, s.code, &in);
        (void)ours_run(a, BUDGET);
        (void)ours_run(b, BUDGET);
        if (!ours_equal(a, b)) {
            printf("%s: flags %llx, translated %llx; ", f->name,
                   (unsigned long long)a->vcpu->c.rflags, (unsigned long long)b->vcpu->c.rflags);
            sequence_print(&s, &in);
            fail();
        }
        whole += b->vcpu->c.retired > 5 ? 1 : 0;
    }
    return whole;
}

static void all_forms(enum cpu_model model)
{
    static bool met[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    struct forms forms = {.n = 0};
    struct ours a, b;
    struct prng g;
    unsigned ran = 0;

    isa_v3 = model == CPU_POLLUX_V3;
    prng_seed(&g, from_env("SEED", 0x666c6167));
    memset(met, 0, sizeof met);
    enumerate(ISA_64, &forms);
    ours_open(&a, &engine_interp, 0);
    ours_open(&b, &engine_jit, 0);
    for (unsigned i = 0; i < forms.n; i++) {
        const struct form *f = &forms.items[i];
        if (undefined_of(f) != 0) {
            unsigned whole = 0;
            for (unsigned t = 0; t < TURNS; t++) {
                b.vcpu->jit->poison = t % 2 == 0;
                whole += ends_alike(&a, &b, &g, f);
            }
            met[f->mnemonic] = met[f->mnemonic] || whole != 0;
            ran++;
        }
    }
    for (unsigned i = 0; i < forms.n; i++) {
        if (undefined_of(&forms.items[i]) != 0 && !met[forms.items[i].mnemonic]) {
            fail_msg("%s never ran", forms.items[i].name);
        }
    }
    printf("%u forms\n", ran);
    assert_true(met[ZYDIS_MNEMONIC_SHLD] && met[ZYDIS_MNEMONIC_MUL] && met[ZYDIS_MNEMONIC_BSF]);
    assert_int_equal(met[ZYDIS_MNEMONIC_BEXTR], isa_v3);
    free(forms.items);
    ours_close(&a);
    ours_close(&b);
    isa_v3 = false;
}

static void undefined_flags_of_no_instruction_show(void **state)
{
    (void)state;
    all_forms(CPU_POLLUX_V2);
}

static void nor_of_one_of_v3(void **state)
{
    (void)state;
    all_forms(CPU_POLLUX_V3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undefined_flags_of_no_instruction_show),
        cmocka_unit_test(nor_of_one_of_v3),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
