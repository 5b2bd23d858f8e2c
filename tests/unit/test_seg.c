/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a descriptor check that is missing, in the wrong order or with the wrong error code; a
 * limit off by one; an accessed bit not written back; an override that is lost. */
#include <inttypes.h>

#include "tests/unit/cpu_fixture.h"

static const struct load {
    uint8_t reg;
    uint16_t sel;
    uint8_t cpl;
    int vector; /* NO_FAULT: loads */
    uint32_t error;
} loads[] = {
    {SEG_DS, 0, 0, NO_FAULT, 0},
    {SEG_DS, 3, 3, NO_FAULT, 0},
    {SEG_DS, DS32, 0, NO_FAULT, 0},
    {SEG_DS, DS32 | 3, 0, VEC_GP, DS32}, /* RPL > DPL */
    {SEG_DS, DS32, 3, VEC_GP, DS32},     /* CPL > DPL */
    {SEG_DS, UDS | 3, 3, NO_FAULT, 0},
    {SEG_DS, UDS, 0, NO_FAULT, 0},
    {SEG_DS, CS64, 0, NO_FAULT, 0}, /* readable code */
    {SEG_DS, CS_EXECONLY, 0, VEC_GP, CS_EXECONLY},
    {SEG_DS, CS_CONFORMING | 3, 3, NO_FAULT, 0}, /* conforming: no privilege check */
    {SEG_DS, DS_ABSENT, 0, VEC_NP, DS_ABSENT},
    {SEG_DS, DS_ABSENT, 3, VEC_GP, DS_ABSENT}, /* privilege before presence */
    {SEG_DS, TSS_SEL, 0, VEC_GP, TSS_SEL},
    {SEG_DS, CS_OUTSIDE, 0, VEC_GP, CS_OUTSIDE},
    {SEG_DS, DS32 | 4, 0, VEC_GP, DS32 | 4}, /* no LDT */
    {SEG_DS, DS_READONLY, 0, NO_FAULT, 0},
    {SEG_SS, 0, 0, NO_FAULT, 0}, /* 64-bit mode, CPL < 3 */
    {SEG_SS, 3, 3, VEC_GP, 0},
    {SEG_SS, 1, 0, VEC_GP, 0},
    {SEG_SS, DS32, 0, NO_FAULT, 0},
    {SEG_SS, DS32 | 1, 0, VEC_GP, DS32},
    {SEG_SS, UDS, 0, VEC_GP, UDS},
    {SEG_SS, DS_READONLY, 0, VEC_GP, DS_READONLY},
    {SEG_SS, CS64, 0, VEC_GP, CS64},
    {SEG_SS, DS_ABSENT, 0, VEC_SS, DS_ABSENT},
    {SEG_SS, UDS | 3, 3, NO_FAULT, 0},
};

static int load(struct fixture *f, unsigned reg, uint16_t sel)
{
    if (setjmp(f->v.fault_jmp) != 0) {
        return f->v.fault_vector;
    }
    seg_load(&f->v, (enum cpu_segreg)reg, sel);
    return NO_FAULT;
}

static void loads_check_descriptors(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(loads); i++) {
        const struct load *l = &loads[i];
        fx_long(f, l->cpl);
        struct cpu_seg before = f->v.c.seg[l->reg];
        int vector = load(f, l->reg, l->sel);
        if (vector != l->vector || (vector != NO_FAULT && f->v.fault_error != l->error)) {
            fail_msg("row %zu: vector %d error %x", i, vector, f->v.fault_error);
        }
        if (vector == NO_FAULT) {
            assert_int_equal(f->v.c.seg[l->reg].sel, l->sel);
        } else {
            assert_memory_equal(&before, &f->v.c.seg[l->reg], sizeof before);
        }
    }
}

static void a_null_stack_keeps_the_privilege_level(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load(f, SEG_SS, 0), NO_FAULT);
    assert_int_equal(cpu_cpl(&f->v.c), 0);
}

/* In protected mode SS may not be null. */
static void a_null_stack_exists_only_in_64_bit_mode(void **state)
{
    struct fixture *f = *state;

    fx_prot32(f, 0);
    assert_int_equal(load(f, SEG_SS, 0), VEC_GP);
    assert_int_equal(f->v.fault_error, 0);
}

static void loading_sets_the_accessed_bit(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get64(f, GDT + DS_READONLY) >> 40 & 1, 0);
    assert_int_equal(load(f, SEG_ES, DS_READONLY), NO_FAULT);
    assert_int_equal(get64(f, GDT + DS_READONLY) >> 40 & 1, 1);
    assert_int_equal(f->v.c.seg[SEG_ES].attr & SEG_ACCESSED, 1);
}

static void loads_of_fs_replace_all_of_the_base(void **state)
{
    struct fixture *f = *state;

    f->v.c.seg[SEG_FS].base = UINT64_C(0xffff800000000000);
    assert_int_equal(load(f, SEG_FS, UDS), NO_FAULT);
    assert_true(f->v.c.seg[SEG_FS].base == 0);
    f->v.c.seg[SEG_GS].base = 5;
    assert_int_equal(load(f, SEG_GS, 0), NO_FAULT);
    assert_true(f->v.c.seg[SEG_GS].base == 0);
}

static void real_mode_loads_only_move_the_base(void **state)
{
    struct fixture *f = *state;

    cpu_reset(&f->v.c, 0);
    f->v.c.seg[SEG_DS].limit = UINT32_MAX;
    assert_int_equal(load(f, SEG_DS, 0x1234), NO_FAULT);
    assert_true(f->v.c.seg[SEG_DS].base == 0x12340);
    assert_true(f->v.c.seg[SEG_DS].limit == UINT32_MAX);
}

static int linear(struct fixture *f, unsigned seg, uint64_t off, unsigned size, bool write,
                  gva_t *out)
{
    if (setjmp(f->v.fault_jmp) != 0) {
        assert_int_equal(f->v.fault_error, 0);
        return f->v.fault_vector;
    }
    *out = seg_linear(&f->v, seg, off, size, write);
    return NO_FAULT;
}

static const struct access {
    uint16_t sel; /* loaded into DS */
    uint64_t off;
    uint8_t size;
    bool write;
    int vector;
} accesses[] = {
    {DS32, 0xfffffffc, 4, true, NO_FAULT},
    {DS32, 0xfffffffd, 4, true, VEC_GP},
    {DS_READONLY, 0, 4, false, NO_FAULT},
    {DS_READONLY, 0, 4, true, VEC_GP},
    {CS32, 0, 4, false, NO_FAULT},
    {CS32, 0, 4, true, VEC_GP},
    {0, 0, 1, false, VEC_GP},
    {DS_DOWN, 0x3fff, 1, false, VEC_GP},
    {DS_DOWN, 0x4000, 1, true, NO_FAULT},
    {DS_DOWN, 0xfffffffc, 4, true, NO_FAULT},
    {DS_DOWN, 0xfffffffd, 4, true, VEC_GP},
};

static void accesses_respect_type_and_limit(void **state)
{
    struct fixture *f = *state;
    gva_t lin;

    fx_prot32(f, 0);
    for (size_t i = 0; i < PLX_COUNT(accesses); i++) {
        const struct access *a = &accesses[i];
        assert_int_equal(load(f, SEG_DS, a->sel), NO_FAULT);
        int vector = linear(f, SEG_DS, a->off, a->size, a->write, &lin);
        if (vector != a->vector) {
            fail_msg("row %zu: %d", i, vector);
        }
    }
    f->v.c.seg[SEG_SS].limit = 0xffff;
    assert_int_equal(linear(f, SEG_SS, 0x10000, 1, false, &lin), VEC_SS);
}

static void long_mode_checks_only_that_addresses_are_canonical(void **state)
{
    struct fixture *f = *state;
    gva_t lin;

    f->v.c.seg[SEG_DS] = (struct cpu_seg){.attr = SEG_NULL};
    f->v.c.seg[SEG_GS].base = UINT64_C(0xffffffff81000000);
    assert_int_equal(linear(f, SEG_DS, 0x7ffffffffff8, 8, true, &lin), NO_FAULT);
    assert_int_equal(linear(f, SEG_DS, 0x7ffffffffff9, 8, true, &lin), VEC_GP);
    assert_int_equal(linear(f, SEG_SS, 0x800000000000, 1, true, &lin), VEC_SS);
    assert_int_equal(linear(f, SEG_GS, 0x1000, 8, false, &lin), NO_FAULT);
    assert_true(lin == UINT64_C(0xffffffff81001000));
    assert_int_equal(linear(f, SEG_GS, (uint64_t)-0x1000, 8, false, &lin), NO_FAULT);
    assert_true(lin == UINT64_C(0xffffffff80fff000));
}

static const struct xlat {
    uint8_t code[3];
    enum decode_mode mode;
    uint32_t ebx;
    uint8_t seg, al;
    uint32_t off;
} xlats[] = {
    {{0xd7}, DECODE_16, 0x10, SEG_DS, 0xff, 0x10f}, /* AL has no sign */
    {{0x26, 0xd7}, DECODE_16, 0x10, SEG_ES, 2, 0x12},
    {{0x2e, 0xd7}, DECODE_16, 0x10, SEG_CS, 2, 0x12},
    {{0x36, 0xd7}, DECODE_16, 0x5ffff, SEG_SS, 2, 1},
    {{0x64, 0x66, 0xd7}, DECODE_16, 0x10, SEG_FS, 2, 0x12},
    {{0x65, 0x67, 0xd7}, DECODE_16, 0xffff, SEG_GS, 2, 0x10001},
    {{0x36, 0xd7}, DECODE_32, 0xffff, SEG_SS, 2, 0x10001},
    {{0x64, 0x67, 0xd7}, DECODE_32, 0x5ffff, SEG_FS, 2, 1},
    {{0x36, 0xd7}, DECODE_64, 0x10, SEG_DS, 2, 0x12},
    {{0x65, 0xd7}, DECODE_64, 0x10, SEG_GS, 2, 0x12},
};

/* SDM Vol. 2, "XLAT/XLATB": in DS unless overridden; rBX + AL is cut to the address size. */
static void xlat_takes_an_override(void **state)
{
    enum { BASE = 0x40000, APART = 0x18000 };
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(xlats); i++) {
        const struct xlat *x = &xlats[i];
        gpa_t at = BASE + x->seg * (gpa_t)APART;
        if (x->mode == DECODE_64) {
            fx_long(f, 0);
            at = x->seg < SEG_FS ? 0 : at;
        } else {
            fx_prot32(f, 0);
        }
        if (x->mode == DECODE_16) {
            f->v.c.seg[SEG_CS].attr &= (uint16_t)~SEG_DB;
        }
        for (unsigned s = 0; s < SEG_COUNT; s++) {
            f->v.c.seg[s].base = BASE + s * (gva_t)APART;
        }
        vcpu_context_changed(&f->v);
        put64(f, at + x->off, 0xa5);
        f->v.c.gpr[RAX] = x->al;
        f->v.c.gpr[RBX] = x->ebx;
        if (fx_run(f, x->code, sizeof x->code) != NO_FAULT || f->v.c.gpr[RAX] != 0xa5) {
            fail_msg("row %zu: rax %#" PRIx64, i, f->v.c.gpr[RAX]);
        }
        put64(f, at + x->off, 0);
    }
}

static void inspection_tells_by_zf(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RCX] = CS64;
    assert_int_equal(RUN(f, 0x0f, 0x02, 0xc1), NO_FAULT); /* lar eax, ecx */
    assert_true((f->v.c.rflags & FLAG_ZF) != 0);
    assert_int_equal(f->v.c.gpr[RAX], 0xa09b00);
    assert_int_equal(RUN(f, 0x0f, 0x03, 0xc1), NO_FAULT); /* lsl eax, ecx */
    assert_int_equal(f->v.c.gpr[RAX], UINT32_MAX);
    assert_int_equal(RUN(f, 0x0f, 0x00, 0xe1), NO_FAULT); /* verr cx */
    assert_true((f->v.c.rflags & FLAG_ZF) != 0);
    assert_int_equal(RUN(f, 0x0f, 0x00, 0xe9), NO_FAULT); /* verw cx */
    assert_true((f->v.c.rflags & FLAG_ZF) == 0);
    f->v.c.gpr[RCX] = GATE64;
    assert_int_equal(RUN(f, 0x0f, 0x03, 0xc1), NO_FAULT); /* lsl of a gate */
    assert_true((f->v.c.rflags & FLAG_ZF) == 0);
    assert_int_equal(f->v.c.gpr[RAX], UINT32_MAX);
}

static void moves_push_and_pop_segment_registers(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RAX] = UDS | 3;
    assert_int_equal(RUN(f, 0x8e, 0xe0), NO_FAULT); /* mov fs, eax */
    f->v.c.gpr[RCX] = UINT64_MAX;
    assert_int_equal(RUN(f, 0x8c, 0xe1), NO_FAULT); /* mov ecx, fs */
    assert_int_equal(f->v.c.gpr[RCX], UDS | 3);
    assert_int_equal(RUN(f, 0x0f, 0xa0), NO_FAULT); /* push fs */
    assert_int_equal(f->v.c.gpr[RSP], STACK0 - 8);
    assert_int_equal(get64(f, STACK0 - 8), UDS | 3);
    assert_int_equal(RUN(f, 0x0f, 0xa9), NO_FAULT); /* pop gs */
    assert_int_equal(f->v.c.seg[SEG_GS].sel, UDS | 3);
    assert_int_equal(f->v.c.gpr[RSP], STACK0);
    f->v.c.gpr[RAX] = DS32;
    assert_int_equal(RUN(f, 0x8e, 0xd0), NO_FAULT); /* mov ss, eax */
    assert_int_equal(f->v.c.movss_shadow, 1);
    put64(f, DATA, 0x12345678 | (uint64_t)(UDS | 3) << 32);
    f->v.c.gpr[RDI] = DATA;
    assert_int_equal(RUN(f, 0x0f, 0xb4, 0x07), NO_FAULT); /* lfs eax, [rdi] */
    assert_int_equal(f->v.c.gpr[RAX], 0x12345678);
    /* A failed pop moves nothing. */
    put64(f, STACK0 - 8, DS_ABSENT);
    f->v.c.gpr[RSP] = STACK0 - 8;
    assert_fault(f, VEC_NP, DS_ABSENT, 0x0f, 0xa9);
    assert_int_equal(f->v.c.gpr[RSP], STACK0 - 8);
}

static void table_registers_load_and_store(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RDI] = DATA;
    assert_int_equal(RUN(f, 0x0f, 0x01, 0x07), NO_FAULT); /* sgdt [rdi] */
    assert_int_equal(get64(f, DATA), GDT_LIMIT | (uint64_t)GDT << 16);
    put64(f, DATA, 0x7f | UINT64_C(0x5000) << 16);
    put64(f, DATA + 8, 0);
    assert_int_equal(RUN(f, 0x0f, 0x01, 0x1f), NO_FAULT); /* lidt [rdi] */
    assert_int_equal(f->v.c.idtr.limit, 0x7f);
    assert_true(f->v.c.idtr.base == 0x5000);
    put64(f, DATA + 2, UINT64_C(0x800000000000));
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0x1f);
    f->v.c.gpr[RAX] = TSS_NEW;
    assert_int_equal(RUN(f, 0x0f, 0x00, 0xd8), NO_FAULT); /* ltr ax */
    assert_int_equal(get64(f, GDT + TSS_NEW) >> 40 & 0xf, SYS_TSS32_BUSY);
    assert_fault(f, VEC_GP, TSS_NEW, 0x0f, 0x00, 0xd8); /* busy now */
    f->v.c.gpr[RAX] = LDT_SEL;
    assert_int_equal(RUN(f, 0x0f, 0x00, 0xd0), NO_FAULT); /* lldt ax */
    assert_true(f->v.c.ldtr.base == 0x5000);
    f->v.c.gpr[RAX] = CS64;
    assert_fault(f, VEC_GP, CS64, 0x0f, 0x00, 0xd0);
    fx_long(f, 3);
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0x1f);         /* lidt at CPL 3 */
    assert_int_equal(RUN(f, 0x0f, 0x01, 0x07), NO_FAULT); /* sgdt, no UMIP */
    f->v.c.cr4 |= CR4_UMIP;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0x07);
    assert_fault(f, VEC_GP, 0, 0x0f, 0x00, 0xc8); /* str eax */
}

static void fs_and_gs_bases(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RAX] = UINT64_C(0xffff888000000000);
    assert_fault(f, VEC_UD, 0, 0xf3, 0x48, 0x0f, 0xae, 0xd8); /* wrgsbase rax, CR4 off */
    f->v.c.cr4 |= CR4_FSGSBASE;
    assert_int_equal(RUN(f, 0xf3, 0x48, 0x0f, 0xae, 0xd8), NO_FAULT);
    f->v.c.kernel_gs_base = 7;
    assert_int_equal(RUN(f, 0x0f, 0x01, 0xf8), NO_FAULT); /* swapgs */
    assert_true(f->v.c.seg[SEG_GS].base == 7);
    assert_true(f->v.c.kernel_gs_base == UINT64_C(0xffff888000000000));
    f->v.c.gpr[RAX] = UINT64_C(0x800000000000);
    assert_fault(f, VEC_GP, 0, 0xf3, 0x48, 0x0f, 0xae, 0xd0);   /* wrfsbase rax */
    assert_int_equal(RUN(f, 0xf3, 0x0f, 0xae, 0xd0), NO_FAULT); /* wrfsbase eax */
    assert_true(f->v.c.seg[SEG_FS].base == 0);
    fx_long(f, 3);
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0xf8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(loads_check_descriptors),
        FX_TEST(a_null_stack_keeps_the_privilege_level),
        FX_TEST(a_null_stack_exists_only_in_64_bit_mode),
        FX_TEST(loading_sets_the_accessed_bit),
        FX_TEST(loads_of_fs_replace_all_of_the_base),
        FX_TEST(real_mode_loads_only_move_the_base),
        FX_TEST(accesses_respect_type_and_limit),
        FX_TEST(long_mode_checks_only_that_addresses_are_canonical),
        FX_TEST(xlat_takes_an_override),
        FX_TEST(inspection_tells_by_zf),
        FX_TEST(moves_push_and_pop_segment_registers),
        FX_TEST(table_registers_load_and_store),
        FX_TEST(fs_and_gs_bases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
