/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a register Linux reads that is missing, a reserved bit that is taken, a write that sticks
 * although it faulted. */
#include "tests/unit/cpu_fixture.h"

#include "vmm/tunables.h"

enum { READ_FAULTS = 1, WRITE_FAULTS = 2 };

static const struct row {
    uint32_t msr;
    uint64_t reset; /* what it reads as at first */
    uint64_t good;  /* a value it takes */
    uint64_t bad;   /* one it refuses, unless equal to good */
    uint8_t flags;  /* READ_FAULTS; WRITE_FAULTS: takes no value at all */
} rows[] = {
    {MSR_PLATFORM_ID, 0, 0, 0, WRITE_FAULTS},
    {MSR_TSC_ADJUST, 0, UINT64_MAX, UINT64_MAX, 0},
    {MSR_SPEC_CTRL, 0, 0x403, 4, 0},
    {MSR_PRED_CMD, 0, 1, 2, READ_FAULTS},
    {MSR_MTRRCAP, 0x508, 0, 0, WRITE_FAULTS},
    {MSR_ARCH_CAPABILITIES, UINT64_C(0x400000000d10e17b), 0, 0, WRITE_FAULTS},
    {MSR_SYSENTER_CS, 0, 0x10, UINT64_C(1) << 32, 0},
    {MSR_SYSENTER_ESP, 0, UINT64_C(0xffff800000000000), UINT64_C(0x800000000000), 0},
    {MSR_SYSENTER_EIP, 0, UINT64_C(0x7fffffffffff), UINT64_C(0x800000000000), 0},
    {MSR_MCG_CAP, 0, 0, 0, WRITE_FAULTS},
    {MSR_MCG_STATUS, 0, 0, 1, 0},
    {MSR_MISC_ENABLE, MISC_ENABLE_RESET, MISC_ENABLE_RESET, UINT64_C(1) << 34, 0},
    {MSR_DEBUGCTL, 0, 0, 1, 0},
    {MSR_MTRR_PHYS, 0, 0x80000006, 0x80000002, 0},
    {MSR_MTRR_PHYS + 15, 0, UINT64_C(0xffc0000800), UINT64_C(1) << CPU_PHYS_BITS, 0},
    {MSR_MTRR_FIX64K, 0, UINT64_C(0x0606060606060606), 7, 0},
    {MSR_MTRR_FIX4K + 7, 0, UINT64_C(0x0505050505050505), 2, 0},
    {MSR_PAT, PAT_RESET, UINT64_C(0x0407050600070106), 0x0300, 0},
    {MSR_MTRR_DEF_TYPE, MTRR_DEF_TYPE_RESET, 0xc06, 0x1000, 0},
    {MSR_STAR, 0, UINT64_MAX, UINT64_MAX, 0},
    {MSR_LSTAR, 0, UINT64_C(0xffffffff81000000), UINT64_C(1) << 63, 0},
    {MSR_CSTAR, 0, 1, UINT64_C(1) << 47, 0},
    {MSR_SFMASK, 0, 0x47700, UINT64_C(1) << 32, 0},
    {MSR_FS_BASE, 0, UINT64_C(0xffff800000000000), UINT64_C(0x800000000000), 0},
    {MSR_GS_BASE, 0, 8, UINT64_C(0x800000000000), 0},
    {MSR_KERNEL_GS_BASE, 0, 8, UINT64_C(0x800000000000), 0},
    {MSR_TSC_AUX, 0, 1, UINT64_C(1) << 32, 0},
    {0xce, 0, 0, 0, READ_FAULTS | WRITE_FAULTS},  /* IA32_PLATFORM_INFO: not offered */
    {0x3a, 0, 0, 0, READ_FAULTS | WRITE_FAULTS},  /* IA32_FEATURE_CONTROL */
    {0x400, 0, 0, 0, READ_FAULTS | WRITE_FAULTS}, /* no machine-check banks */
    {0xda0, 0, 0, 0, READ_FAULTS | WRITE_FAULTS}, /* IA32_XSS */
    {0x210, 0, 0, 0, READ_FAULTS | WRITE_FAULTS},
    {0x270, 0, 0, 0, READ_FAULTS | WRITE_FAULTS},
};

static void every_register_takes_what_it_should(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        uint64_t value = 0;
        bool readable = (r->flags & READ_FAULTS) == 0;
        bool writable = (r->flags & WRITE_FAULTS) == 0;

        cpu_reset(&f->v.c, 0);
        if ((msr_read(&f->v, r->msr, &value) == 0) != readable || (readable && value != r->reset)) {
            fail_msg("read %x: %llx", r->msr, (unsigned long long)value);
        }
        if ((msr_write(&f->v, r->msr, r->good) == 0) != writable) {
            fail_msg("write %x", r->msr);
        }
        if (r->bad != r->good && msr_write(&f->v, r->msr, r->bad) != PLX_GUEST_FAULT) {
            fail_msg("reserved bits of %x", r->msr);
        }
        if (readable && writable) {
            assert_int_equal(msr_read(&f->v, r->msr, &value), 0);
            assert_true(value == r->good);
        }
    }
}

static void efer_fixes_lme_while_paging(void **state)
{
    struct fixture *f = *state;
    uint64_t value;

    assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_SCE | EFER_NX), PLX_GUEST_FAULT);
    assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | EFER_NX), 0);
    assert_int_equal(msr_read(&f->v, MSR_EFER, &value), 0);
    assert_true(value == (EFER_LME | EFER_LMA | EFER_NX)); /* LMA is not software's to clear */
    assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | 2), PLX_GUEST_FAULT);
    cpu_reset(&f->v.c, 0);
    assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | EFER_LMA), 0);
    assert_true(f->v.c.efer == EFER_LME);
}

static void the_tsc_is_virtual_time_plus_adjustment(void **state)
{
    struct fixture *f = *state;
    uint64_t value;

    f->v.t0 = 5000;
    assert_int_equal(RUN(f, 0x0f, 0x31), NO_FAULT); /* rdtsc */
    assert_int_equal(f->v.c.gpr[RAX], 5000 * TSC_HZ / 1000000000);
    assert_int_equal(msr_write(&f->v, MSR_TSC, 100), 0);
    assert_int_equal(msr_read(&f->v, MSR_TSC_ADJUST, &value), 0);
    assert_true(value == (uint64_t)-4900);
    assert_int_equal(msr_read(&f->v, MSR_TSC, &value), 0);
    assert_int_equal(value, 100);
}

static void lapic_registers_go_to_the_machine(void **state)
{
    struct fixture *f = *state;
    uint64_t value;

    assert_int_equal(msr_read(&f->v, MSR_X2APIC + 0x80, &value), 0);
    assert_int_equal(value, MSR_X2APIC + 0x80);
    assert_int_equal(msr_write(&f->v, MSR_TSC_DEADLINE, 13), PLX_GUEST_FAULT);
    assert_int_equal(msr_read(&f->v, MSR_APIC_BASE, &value), 0);
}

static void instructions_fault_where_the_registers_do(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RCX] = UINT64_C(0xdead0000c0000082); /* only ECX counts */
    f->v.c.gpr[RDX] = UINT64_C(0x1ffffffff);
    f->v.c.gpr[RAX] = UINT64_C(0x180000000);
    assert_int_equal(RUN(f, 0x0f, 0x30), NO_FAULT); /* wrmsr */
    assert_true(f->v.c.lstar == UINT64_C(0xffffffff80000000));
    f->v.c.gpr[RAX] = f->v.c.gpr[RDX] = UINT64_MAX;
    assert_int_equal(RUN(f, 0x0f, 0x32), NO_FAULT); /* rdmsr */
    assert_true(f->v.c.gpr[RAX] == 0x80000000 && f->v.c.gpr[RDX] == UINT32_MAX);
    f->v.c.gpr[RCX] = 0x12345;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x32);
    fx_long(f, 3);
    f->v.c.gpr[RCX] = MSR_TSC;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(every_register_takes_what_it_should),
        FX_TEST(efer_fixes_lme_while_paging),
        FX_TEST(the_tsc_is_virtual_time_plus_adjustment),
        FX_TEST(lapic_registers_go_to_the_machine),
        FX_TEST(instructions_fault_where_the_registers_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
