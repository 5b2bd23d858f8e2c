/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a reserved bit or privilege check that control and debug registers, flags, ports or the
 * smaller system instructions lack; a mode transition that leaves state half changed. */
#include "tests/unit/cpu_fixture.h"

static int mov_cr(struct fixture *f, unsigned cr, uint64_t value)
{
    f->v.c.gpr[RAX] = value;
    return cr == 8 ? RUN(f, 0x44, 0x0f, 0x22, 0xc0) : RUN(f, 0x0f, 0x22, (uint8_t)(0xc0 | cr << 3));
}

#define LONG_CR0 (CR0_PE | CR0_PG | CR0_WP | CR0_ET)

static const struct cr {
    uint8_t cr, cpl;
    uint64_t value;
    int vector;
    uint64_t after; /* what the register holds if it was taken */
} writes[] = {
    {0, 0, LONG_CR0 | CR0_TS, NO_FAULT, LONG_CR0 | CR0_TS},
    {0, 0, LONG_CR0 & ~CR0_ET, NO_FAULT, LONG_CR0}, /* ET is fixed */
    {0, 0, LONG_CR0 | 0x40, NO_FAULT, LONG_CR0},    /* reserved low bits vanish */
    {0, 0, LONG_CR0 | UINT64_C(1) << 32, VEC_GP, 0},
    {0, 0, LONG_CR0 & ~CR0_PE, VEC_GP, 0},
    {0, 0, LONG_CR0 & ~CR0_PG, VEC_GP, 0}, /* in 64-bit mode */
    {0, 0, LONG_CR0 | CR0_NW, VEC_GP, 0},  /* NW without CD */
    {0, 3, LONG_CR0, VEC_GP, 0},
    {2, 0, UINT64_MAX, NO_FAULT, UINT64_MAX},
    {3, 0, TABLES | 0x18, NO_FAULT, TABLES | 0x18},
    {3, 0, UINT64_C(1) << CPU_PHYS_BITS, VEC_GP, 0},
    {3, 0, UINT64_C(1) << 63 | TABLES, VEC_GP, 0}, /* without PCIDE */
    {4, 0, CR4_OFFERED, NO_FAULT, CR4_OFFERED},
    {4, 0, CR4_PAE | CR4_VME, VEC_GP, 0}, /* not offered */
    {4, 0, CR4_PAE | 0x2000, VEC_GP, 0},  /* VMXE */
    {4, 0, UINT64_C(1) << 32 | CR4_PAE, VEC_GP, 0},
    {4, 0, CR4_PGE, VEC_GP, 0}, /* PAE in IA-32e mode */
};

static uint64_t cr_value(const struct cpu *c, unsigned cr)
{
    return cr == 0 ? c->cr0 : cr == 2 ? c->cr2 : cr == 3 ? c->cr3 : c->cr4;
}

static void control_registers_refuse_reserved_bits(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < PLX_COUNT(writes); i++) {
        const struct cr *w = &writes[i];
        fx_long(f, w->cpl);
        uint64_t before = cr_value(&f->v.c, w->cr);
        if (mov_cr(f, w->cr, w->value) != w->vector) {
            fail_msg("row %zu", i);
        }
        assert_true(cr_value(&f->v.c, w->cr) == (w->vector == NO_FAULT ? w->after : before));
    }
}

static void pcids_need_a_clean_cr3(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->cr3 = TABLES | 1 << 3;
    assert_int_equal(mov_cr(f, 4, CR4_PAE | CR4_PCIDE), VEC_GP);
    c->cr3 = TABLES;
    assert_int_equal(mov_cr(f, 4, CR4_PAE | CR4_PCIDE), NO_FAULT);
    assert_int_equal(mov_cr(f, 3, UINT64_C(1) << 63 | TABLES | 5), NO_FAULT);
    assert_true(c->cr3 == (TABLES | 5)); /* bit 63 is a request, not state */
}

static void into_ia32e_mode_and_out(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_prot32(f, 0);
    c->efer = EFER_LME;
    c->cr3 = TABLES;
    assert_int_equal(mov_cr(f, 0, c->cr0 | CR0_PG), VEC_GP); /* PAE is off */
    assert_true((c->efer & EFER_LMA) == 0);
    c->cr4 = CR4_PAE;
    assert_int_equal(mov_cr(f, 0, c->cr0 | CR0_PG), NO_FAULT);
    assert_true((c->efer & EFER_LMA) != 0);
    assert_int_equal(cpu_mode_of(c), CPU_COMPAT32);
    assert_int_equal(mov_cr(f, 0, c->cr0 & ~CR0_PG), NO_FAULT);
    assert_true((c->efer & (EFER_LMA | EFER_LME)) == EFER_LME);
    assert_int_equal(cpu_mode_of(c), CPU_PROT32);
}

static void pae_paging_loads_and_checks_its_pointers(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    fx_prot32(f, 0);
    c->cr4 = CR4_PAE;
    c->cr3 = DATA;
    put64(f, DATA, 0x6001);
    put64(f, DATA + 8, 0xfff0);  /* not present: reserved bits do not count */
    put64(f, DATA + 16, 0x7003); /* reserved bit 1 */
    put64(f, DATA + 24, 0);
    assert_int_equal(mov_cr(f, 0, c->cr0 | CR0_PG), VEC_GP);
    assert_true((c->cr0 & CR0_PG) == 0);
    put64(f, DATA + 16, 0x7001);
    put64(f, 0x6000, 0x83); /* an identity 2-MiB page, for the instructions after */
    assert_int_equal(mov_cr(f, 0, c->cr0 | CR0_PG), NO_FAULT);
    assert_true(c->pdpte[0] == 0x6001 && c->pdpte[2] == 0x7001);
    put64(f, DATA + 16, 0x8001); /* not seen before the next load */
    assert_true(c->pdpte[2] == 0x7001);
    assert_int_equal(mov_cr(f, 3, DATA), NO_FAULT);
    assert_true(c->pdpte[2] == 0x8001);
}

static void cr8_is_the_lapics(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mov_cr(f, 8, 9), NO_FAULT);
    assert_int_equal(f->cr8, 9);
    assert_int_equal(mov_cr(f, 8, 16), VEC_GP);
    assert_int_equal(RUN(f, 0x44, 0x0f, 0x20, 0xc1), NO_FAULT); /* mov rcx, cr8 */
    assert_int_equal(f->v.c.gpr[RCX], 9);
}

static void lmsw_sets_pe_but_never_clears_it(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RAX] = 0xfff8 & ~1;
    assert_int_equal(RUN(f, 0x0f, 0x01, 0xf0), NO_FAULT); /* lmsw ax */
    assert_true(f->v.c.cr0 == (LONG_CR0 | CR0_TS));
    assert_int_equal(RUN(f, 0x0f, 0x06), NO_FAULT); /* clts */
    assert_true(f->v.c.cr0 == LONG_CR0);
    assert_int_equal(RUN(f, 0x0f, 0x01, 0xe1), NO_FAULT); /* smsw ecx */
    assert_true(f->v.c.gpr[RCX] == LONG_CR0);
}

static void debug_registers(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->gpr[RAX] = 0;
    assert_int_equal(RUN(f, 0x0f, 0x23, 0xf0), NO_FAULT); /* mov dr6, rax */
    assert_true(c->dr[6] == DR6_FIXED);
    assert_int_equal(RUN(f, 0x0f, 0x23, 0xe8), NO_FAULT); /* mov dr5, rax: DR7 */
    assert_true(c->dr[7] == DR7_FIXED && !f->v.debug);
    c->gpr[RAX] = UINT64_C(1) << 32;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x23, 0xf8);
    c->cr4 |= CR4_DE;
    assert_fault(f, VEC_UD, 0, 0x0f, 0x21, 0xe8); /* mov rax, dr5 */
    c->gpr[RAX] = 0x2000;
    assert_int_equal(RUN(f, 0x0f, 0x23, 0xf8), NO_FAULT); /* GD */
    assert_fault(f, VEC_DB, 0, 0x0f, 0x21, 0xc0);         /* mov rax, dr0 */
    assert_true((c->dr[6] & 0x2000) != 0);
    f->v.fault_kind = FAULT_EXCEPTION;
    assert_int_equal(exc_deliver_fault(&f->v), 0);
    assert_true((c->dr[7] & 0x2000) == 0);
}

static void interrupt_flag_needs_iopl(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    assert_int_equal(RUN(f, 0xfb), NO_FAULT); /* sti */
    assert_true((c->rflags & FLAG_IF) != 0 && c->sti_shadow == 1);
    c->sti_shadow = 0;
    assert_int_equal(RUN(f, 0xfb), NO_FAULT); /* already set: no shadow */
    assert_int_equal(c->sti_shadow, 0);
    assert_int_equal(RUN(f, 0xfa), NO_FAULT);
    assert_true((c->rflags & FLAG_IF) == 0);
    fx_long(f, 3);
    assert_fault(f, VEC_GP, 0, 0xfa);
    c->rflags |= FLAG_IOPL;
    assert_int_equal(RUN(f, 0xfb), NO_FAULT);
    assert_fault(f, VEC_GP, 0, 0xf4);             /* hlt */
    assert_fault(f, VEC_UD, 0, 0x0f, 0x01, 0xcb); /* stac */
}

static void popf_changes_what_its_privilege_allows(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->rflags = FLAG_ONE | FLAG_RF | FLAG_VIP;
    put64(f, STACK0, UINT64_MAX);
    assert_int_equal(RUN(f, 0x9d), NO_FAULT);
    assert_true(c->rflags == (FLAGS_ARITH | FLAG_ONE | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL |
                              FLAG_NT | FLAG_AC | FLAG_ID | FLAG_VIP));
    c->rflags |= FLAG_RF;
    assert_int_equal(RUN(f, 0x9c), NO_FAULT);
    assert_true((get64(f, c->gpr[RSP]) & (FLAG_RF | FLAG_VM)) == 0);
    fx_long(f, 3);
    c->rflags = FLAG_ONE | FLAG_IF;
    put64(f, STACK3, 0);
    assert_int_equal(RUN(f, 0x9d), NO_FAULT);
    assert_true(c->rflags == (FLAG_ONE | FLAG_IF));
}

static void ports_ask_iopl_then_the_bitmap(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->gpr[RDX] = 0x3f8;
    f->in = 0x41;
    assert_int_equal(RUN(f, 0xec), NO_FAULT); /* in al, dx */
    assert_int_equal(c->gpr[RAX] & 0xff, 0x41);
    assert_int_equal(f->port, 0x3f8);
    c->gpr[RAX] = 0x1234567890;
    assert_int_equal(RUN(f, 0xe7, 0x80), NO_FAULT); /* out 0x80, eax */
    assert_int_equal(f->port, 0x80);
    assert_true(f->out == 0x34567890);
    fx_long(f, 3);
    c->gpr[RDX] = 0x3f8;
    put64(f, TSS + 0x60, UINT64_C(0x0068) << 48); /* the bitmap starts at 0x68 */
    put64(f, TSS + 0x68 + 0x78, 0);
    put64(f, TSS + 0x68 + 0x80, 0);
    put64(f, TSS + 0x68 + 0x7f, 0xfe00 | 1); /* 0x3f8 taken, 0x3f9-0x400 free, 0x401.. taken */
    assert_fault(f, VEC_GP, 0, 0xec);
    c->gpr[RDX] = 0x3f9;
    assert_int_equal(RUN(f, 0xec), NO_FAULT);
    c->gpr[RDX] = 0x3fe;
    assert_fault(f, VEC_GP, 0, 0xed); /* in eax: 0x401 is not free */
    c->gpr[RDX] = 0xfff0;
    assert_fault(f, VEC_GP, 0, 0xec); /* beyond the limit */
    c->rflags |= FLAG_IOPL;
    assert_int_equal(RUN(f, 0xec), NO_FAULT);
}

static void string_ports_repeat(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    f->in = 0x11;
    c->gpr[RDX] = 0x1f0;
    c->gpr[RCX] = 3;
    c->gpr[RDI] = DATA;
    put64(f, DATA, 0);
    assert_int_equal(RUN(f, 0xf3, 0x66, 0x6d), NO_FAULT); /* rep insw */
    assert_true(get64(f, DATA) == UINT64_C(0x001300120011));
    assert_true(c->gpr[RCX] == 0 && c->gpr[RDI] == DATA + 6);
    c->gpr[RSI] = DATA + 4;
    assert_int_equal(RUN(f, 0x6e), NO_FAULT); /* outsb */
    assert_true(f->out == 0x13 && c->gpr[RSI] == DATA + 5);
    c->gpr[RDI] = 0x40001000; /* not mapped: the port is not read */
    uint64_t in = f->in;
    assert_int_equal(RUN(f, 0x6c), VEC_PF);
    assert_true(f->in == in);
}

static void smaller_instructions(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    c->gpr[RCX] = 0;
    assert_fault(f, VEC_UD, 0, 0x0f, 0x01, 0xd0); /* xgetbv without OSXSAVE */
    c->cr4 |= CR4_OSXSAVE;
    c->gpr[RAX] = 3;
    c->gpr[RDX] = 0;
    assert_int_equal(RUN(f, 0x0f, 0x01, 0xd1), NO_FAULT); /* xsetbv */
    assert_true(c->xcr0 == 3);
    c->gpr[RAX] = 7; /* AVX is not offered */
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0xd1);
    c->gpr[RAX] = 2;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0xd1);
    assert_int_equal(RUN(f, 0x48, 0x0f, 0xc7, 0xf0), NO_FAULT); /* rdrand rax */
    assert_true((c->rflags & FLAGS_ARITH) == FLAG_CF);
    assert_fault(f, VEC_UD, 0, 0x0f, 0x01, 0xc8); /* monitor */
    assert_fault(f, VEC_UD, 0, 0x0f, 0x01, 0xc1); /* vmcall */
    assert_fault(f, VEC_GP, 0, 0x0f, 0x33);       /* rdpmc */
    c->gpr[RDI] = DATA;
    c->gpr[RAX] = 4;
    assert_fault(f, VEC_GP, 0, 0x66, 0x0f, 0x38, 0x82, 0x07); /* invpcid, type 4 */
    c->gpr[RAX] = 2;
    put64(f, DATA, 0);
    assert_int_equal(RUN(f, 0x66, 0x0f, 0x38, 0x82, 0x07), NO_FAULT);
    put64(f, DATA, 0x1000);
    assert_fault(f, VEC_GP, 0, 0x66, 0x0f, 0x38, 0x82, 0x07);
    fx_long(f, 3);
    c->cr4 |= CR4_TSD;
    assert_fault(f, VEC_GP, 0, 0x0f, 0x31);       /* rdtsc */
    assert_fault(f, VEC_GP, 0, 0x0f, 0x01, 0x3f); /* invlpg [rdi] */
    assert_fault(f, VEC_GP, 0, 0x0f, 0x09);       /* wbinvd */
}

static void hlt_waits(void **state)
{
    struct fixture *f = *state;

    f->v.attention = false;
    assert_int_equal(RUN(f, 0xf4), NO_FAULT);
    assert_true(f->v.c.halted == 1 && f->v.attention);
}

static void reset_is_the_power_up_state(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    cpu_reset(c, 1);
    assert_int_equal(cpu_mode_of(c), CPU_REAL);
    assert_true(c->seg[SEG_CS].base + c->rip == 0xfffffff0);
    assert_true(c->gpr[RDX] == 0x806f8 && c->cr0 == 0x60000010 && c->rflags == 2);
    assert_int_equal(c->wait_sipi, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(control_registers_refuse_reserved_bits),
        FX_TEST(pcids_need_a_clean_cr3),
        FX_TEST(into_ia32e_mode_and_out),
        FX_TEST(pae_paging_loads_and_checks_its_pointers),
        FX_TEST(cr8_is_the_lapics),
        FX_TEST(lmsw_sets_pe_but_never_clears_it),
        FX_TEST(debug_registers),
        FX_TEST(interrupt_flag_needs_iopl),
        FX_TEST(popf_changes_what_its_privilege_allows),
        FX_TEST(ports_ask_iopl_then_the_bitmap),
        FX_TEST(string_ports_repeat),
        FX_TEST(smaller_instructions),
        FX_TEST(hlt_waits),
        FX_TEST(reset_is_the_power_up_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
