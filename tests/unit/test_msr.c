/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a register Linux reads that is missing, one that nobody meant to offer, a reserved bit
 * that is taken, a write that sticks although it faulted. */
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

/* --- all of them: a golden list ------------------------------------------------------------- */

#define ALL       UINT64_MAX
#define LOW       UINT64_C(0xffffffff)
#define CANONICAL UINT64_C(0x7fffffffffff) /* one bit alone above these is no canonical address */
#define EACH(b)   (UINT64_C(0x0101010101010101) * (b))

/* Every bit of the value after reset is inverted alone. */
static const struct golden {
    uint32_t first, count, stride;
    bool readable, writable; /* takes any value: the one it has, or 0 */
    uint64_t taken;          /* bits whose inversion is no #GP */
    uint64_t kept;           /* of these, those that then read inverted */
} golden[] = {
    {MSR_TSC, 1, 1, true, true, ALL, ALL},
    {MSR_PLATFORM_ID, 1, 1, true, false, 0, 0},
    {MSR_APIC_BASE, 1, 1, true, true, ALL, 0}, /* the machine's, here a stub */
    {MSR_TSC_ADJUST, 1, 1, true, true, ALL, ALL},
    {MSR_SPEC_CTRL, 1, 1, true, true, 0x403, 0x403}, /* IBRS, STIBP, BHI_DIS_S */
    {MSR_PRED_CMD, 1, 1, false, true, 1, 0},
    {MSR_BIOS_SIGN_ID, 1, 1, true, true, ALL, 0},
    {MSR_MTRRCAP, 1, 1, true, false, 0, 0},
    {MSR_ARCH_CAPABILITIES, 1, 1, true, false, 0, 0},
    {MSR_SYSENTER_CS, 1, 1, true, true, LOW, LOW},
    {MSR_SYSENTER_ESP, 2, 1, true, true, CANONICAL, CANONICAL},
    {MSR_MCG_CAP, 1, 1, true, false, 0, 0},
    {MSR_MCG_STATUS, 1, 1, true, true, 0, 0},
    {MSR_MISC_ENABLE, 1, 1, true, true, 0x1801, 1}, /* fast strings; 11 and 12 only say */
    {MSR_DEBUGCTL, 1, 1, true, true, 0, 0},
    {MSR_MTRR_PHYS, 8, 2, true, true, 0xfffffff005, 0xfffffff005}, /* base: UC to WC and WT */
    {MSR_MTRR_PHYS + 1, 8, 2, true, true, 0xfffffff800, 0xfffffff800},
    {MSR_MTRR_FIX64K, 1, 1, true, true, EACH(5), EACH(5)},
    {MSR_MTRR_FIX16K, 2, 1, true, true, EACH(5), EACH(5)},
    {MSR_MTRR_FIX4K, 8, 1, true, true, EACH(5), EACH(5)},
    /* From WB, WT, UC-, UC to a type that is there: masks 3, 7, 3, 5. */
    {MSR_PAT, 1, 1, true, true, 0x503070305030703, 0x503070305030703},
    {MSR_MTRR_DEF_TYPE, 1, 1, true, true, 0xc02, 0xc02}, /* WB to WP is bit 0 and 1 */
    {MSR_TSC_DEADLINE, 1, 1, true, true, ALL, 0},
    {MSR_X2APIC, 0x100, 1, true, true, ALL, 0},
    {MSR_EFER, 1, 1, true, true, 0xd01, 0x901}, /* SCE, LME, NXE; LMA is not software's */
    {MSR_STAR, 1, 1, true, true, ALL, ALL},
    {MSR_LSTAR, 2, 1, true, true, CANONICAL, CANONICAL},
    {MSR_SFMASK, 1, 1, true, true, LOW, LOW},
    {MSR_FS_BASE, 3, 1, true, true, CANONICAL, CANONICAL},
    {MSR_TSC_AUX, 1, 1, true, true, LOW, LOW},
};

static const struct golden *golden_of(uint32_t msr)
{
    for (size_t i = 0; i < PLX_COUNT(golden); i++) {
        const struct golden *g = &golden[i];
        if (msr >= g->first && (msr - g->first) % g->stride == 0 &&
            (msr - g->first) / g->stride < g->count) {
            return g;
        }
    }
    return NULL;
}

/* Which bits of @msr may be inverted, and which of them then are. */
static void try_bits(struct fixture *f, uint32_t msr, uint64_t *taken, uint64_t *kept)
{
    *taken = *kept = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t mask = UINT64_C(1) << bit, was = 0, now = 0;

        cpu_reset(&f->v.c, 0);
        (void)msr_read(&f->v, msr, &was);
        if (msr_write(&f->v, msr, was ^ mask) == 0) {
            *taken |= mask;
        }
        (void)msr_read(&f->v, msr, &now);
        if ((*taken & mask) != 0 && now == (was ^ mask)) {
            *kept |= mask;
        } else if (now != was) {
            fail_msg("msr %x, bit %u: %llx became %llx", msr, bit, (unsigned long long)was,
                     (unsigned long long)now);
        }
    }
}

static void sweep(struct fixture *f, uint32_t first, uint32_t last)
{
    for (uint32_t msr = first; msr <= last; msr++) {
        const struct golden *g = golden_of(msr);
        uint64_t was = 0, taken, kept;
        bool readable, writable;

        cpu_reset(&f->v.c, 0);
        readable = msr_read(&f->v, msr, &was) == 0;
        writable = msr_write(&f->v, msr, was) == 0;
        try_bits(f, msr, &taken, &kept);
        if (readable != (g != NULL && g->readable) || writable != (g != NULL && g->writable) ||
            taken != (g != NULL ? g->taken : 0) || kept != (g != NULL ? g->kept : 0)) {
            fail_msg("msr %x: readable %d, writable %d, takes %llx, keeps %llx", msr, readable,
                     writable, (unsigned long long)taken, (unsigned long long)kept);
        }
    }
}

static void no_register_and_no_bit_but_the_listed(void **state)
{
    struct fixture *f = *state;

    sweep(f, 0, 0x1fff);
    sweep(f, 0x40000000, 0x400001ff); /* a hypervisor's */
    sweep(f, 0xc0000000, 0xc0001fff);
    sweep(f, 0xc0010000, 0xc0011fff); /* AMD's */
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
    assert_int_equal(msr_write(&f->v, MSR_TSC_DEADLINE, FX_MSR_REFUSED), PLX_GUEST_FAULT);
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
        FX_TEST(no_register_and_no_bit_but_the_listed),
        FX_TEST(efer_fixes_lme_while_paging),
        FX_TEST(the_tsc_is_virtual_time_plus_adjustment),
        FX_TEST(lapic_registers_go_to_the_machine),
        FX_TEST(instructions_fault_where_the_registers_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
