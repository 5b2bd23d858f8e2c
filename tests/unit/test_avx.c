/* SPDX-License-Identifier: Apache-2.0
 * Hunts: an instruction of pollux-v3 that runs where its state is not enabled, or in pollux-v2; a
 * gather that forgets what it did before a fault, or does too much; software multiply-add and half
 * precision that differ from the processor's. (That each form computes what this host does is shown
 * by tests/isa.) */
#include "tests/unit/cpu_fixture.h"
#include "vmm/cpu/sse.h"
#include "vmm/cpu/vec_soft.h"

static const uint8_t vaddps[] = {0xc5, 0xf4, 0x58, 0xc2}, /* ymm0, ymm1, ymm2 */
    andn[] = {0xc4, 0xe2, 0x78, 0xf2, 0xc3},              /* eax, eax, ebx */
    movbe[] = {0x0f, 0x38, 0xf0, 0x03},                   /* eax, [rbx] */
    lzcnt[] = {0xf3, 0x0f, 0xbd, 0xc3}, xsetbv[] = {0x0f, 0x01, 0xd1};

#define GO(code) fx_run(f, code, sizeof(code))

static struct fixture *begin(void **state)
{
    struct fixture *f = *state;

    fx_long(f, 0);
    f->v.model = CPU_POLLUX_V3;
    f->v.c.cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
    f->v.c.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    f->v.c.cr0 &= ~(CR0_TS | CR0_EM);
    f->v.c.gpr[RBX] = DATA;
    return f;
}

static void avx_wants_its_state_enabled(void **state)
{
    struct fixture *f = begin(state);
    struct cpu *c = &f->v.c;

    assert_int_equal(GO(vaddps), NO_FAULT);
    c->cr0 |= CR0_EM; /* has no say, nor has CR4.OSFXSR */
    c->cr4 &= ~CR4_OSFXSR;
    assert_int_equal(GO(vaddps), NO_FAULT);
    c->xcr0 = XCR0_X87 | XCR0_SSE;
    assert_int_equal(GO(vaddps), VEC_UD);
    c->xcr0 |= XCR0_AVX;
    c->cr0 |= CR0_TS;
    assert_int_equal(GO(vaddps), VEC_NM);
    c->cr4 &= ~CR4_OSXSAVE;
    assert_int_equal(GO(vaddps), VEC_UD); /* goes before #NM */
    assert_int_equal(GO(andn), NO_FAULT); /* not a vector */
    assert_int_equal(GO(movbe), NO_FAULT);
    c->cr0 &= ~CR0_TS;
    assert_int_equal(GO(vaddps), VEC_UD);
}

static void vex_wants_protected_mode(void **state)
{
    struct fixture *f = begin(state);
    struct cpu *c = &f->v.c;

    fx_prot32(f, 0);
    c->cr4 |= CR4_OSXSAVE;
    c->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    assert_int_equal(GO(vaddps), NO_FAULT);
    assert_int_equal(GO(andn), NO_FAULT);
    c->rflags |= FLAG_VM;
    assert_int_equal(GO(vaddps), VEC_UD);
    assert_int_equal(GO(andn), VEC_UD);
    c->rflags &= ~FLAG_VM;
    c->cr0 &= ~CR0_PE;
    assert_int_equal(GO(vaddps), VEC_UD);
    assert_int_equal(GO(andn), VEC_UD);
    c->cr0 |= CR0_PE;
}

static void the_older_model_has_none_of_it(void **state)
{
    struct fixture *f = begin(state);

    assert_int_equal(GO(movbe), NO_FAULT);
    f->v.c.gpr[RBX] = 1;
    assert_int_equal(GO(lzcnt), NO_FAULT);
    assert_int_equal(f->v.c.gpr[RAX], 31);
    f->v.model = CPU_POLLUX_V2;
    f->v.c.xcr0 = XCR0_X87 | XCR0_SSE;
    assert_int_equal(GO(vaddps), VEC_UD);
    assert_int_equal(GO(andn), VEC_UD);
    assert_int_equal(GO(movbe), VEC_UD);
    assert_int_equal(GO(lzcnt), NO_FAULT); /* BSR */
    assert_int_equal(f->v.c.gpr[RAX], 0);
}

/* Knights Corner had VEX forms of POPCNT, TZCNT and LZCNT. */
static void counts_have_no_vex_form(void **state)
{
    struct fixture *f = begin(state);
    uint8_t code[] = {0xc4, 0xe1, 0x7a, 0, 0xc3};

    for (unsigned w = 0; w < 2; w++, code[2] |= 0x80) {
        code[3] = 0xb8;
        assert_int_equal(GO(code), VEC_UD);
        code[3] = 0xbc;
        assert_int_equal(GO(code), VEC_UD);
        code[3] = 0xbd;
        assert_int_equal(GO(code), VEC_UD);
    }
}

static void xcr0_takes_what_the_model_has(void **state)
{
    struct fixture *f = begin(state);
    struct cpu *c = &f->v.c;

    for (unsigned model = 0; model < CPU_MODELS; model++) {
        for (uint64_t value = 0; value < 16; value++) {
            bool ok = value == 1 || value == 3 || (value == 7 && model == CPU_POLLUX_V3);
            f->v.model = (enum cpu_model)model;
            c->xcr0 = 1;
            c->gpr[RAX] = value;
            c->gpr[RCX] = c->gpr[RDX] = 0;
            assert_int_equal(GO(xsetbv), ok ? NO_FAULT : VEC_GP);
            assert_int_equal(c->xcr0, ok ? value : 1);
        }
    }
}

/* Indices, from DATA; the third is where nothing is mapped. */
static void a_gather_that_faults_keeps_what_it_did(void **state)
{
    static const uint8_t gather[] = {0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b}; /* xmm0, rbx+xmm1, xmm2 */
    static const uint32_t index[4] = {0, 8, 0x40000000, 4},
                          mask[4] = {1u << 31, 0, 1u << 31, 1u << 31};
    static const uint32_t numbers[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
    struct fixture *f = begin(state);
    union vec *xmm = sse_xmm(&f->v, 0);

    assert_int_equal(ram_write(f->ram, DATA, numbers, sizeof numbers), 0);
    memset(xmm, 0x55, 16);
    memset(f->v.c.fpu.ymm_high, 0x55, sizeof f->v.c.fpu.ymm_high);
    memcpy(&xmm[1], index, 16);
    memcpy(&xmm[2], mask, 16);
    assert_int_equal(GO(gather), VEC_PF);
    assert_int_equal(f->v.cr2, DATA + 0x40000000);
    assert_int_equal(xmm[0].d[0], 0x11111111);
    assert_int_equal(xmm[0].d[1], 0x55555555);
    assert_int_equal(xmm[0].d[3], 0x55555555); /* comes after the fault */
    assert_int_equal(xmm[2].d[0], 0);          /* done */
    assert_int_equal(xmm[2].d[1], 0);          /* never asked for */
    assert_int_equal(xmm[2].d[2], UINT32_MAX);
    assert_int_equal(xmm[2].d[3], UINT32_MAX);
    xmm[1].d[2] = 12; /* again, now that it can be read */
    assert_int_equal(GO(gather), NO_FAULT);
    assert_int_equal(xmm[0].d[0], 0x11111111);
    assert_int_equal(xmm[0].d[1], 0x55555555);
    assert_int_equal(xmm[0].d[2], 0x44444444);
    assert_int_equal(xmm[0].d[3], 0x22222222);
    assert_true(xmm[2].q[0] == 0 && xmm[2].q[1] == 0);
    assert_true(avx_high(&f->v, 0)->q[0] == 0 && avx_high(&f->v, 2)->q[1] == 0);
    assert_null(f->v.gather);
}

/* --- the software of hosts without such units ------------------------------------------------- */

enum { ROUNDS = 300000 };

static uint64_t operand(struct prng *g, const struct fp_format *fmt)
{
    unsigned bits = fmt->frac + (unsigned)__builtin_popcount(fmt->top) + 1;
    uint64_t x = prng_u64(g) & (UINT64_MAX >> (64 - bits)), top = fmt->top;
    /* Near each other, so that sums cancel; at the ends; any. */
    uint64_t exps[] = {0,
                       1,
                       top,
                       top - 1,
                       top / 2,
                       top / 2 + 1,
                       top / 2 - fmt->frac,
                       2,
                       prng_below(g, top + 1),
                       top / 2 + prng_below(g, 8),
                       fmt->frac};

    x = (x & ~(top << fmt->frac)) | exps[prng_below(g, PLX_COUNT(exps))] << fmt->frac;
    switch (prng_below(g, 4)) {
    case 0:
        return x & ~((UINT64_C(1) << fmt->frac) - 1);
    case 1:
        return x & ~((UINT64_C(1) << fmt->frac / 2) - 1);
    default:
        return x;
    }
}

static const uint32_t modes[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0x9fc0, 0xffc0};

static void multiply_add_is_the_hosts(const struct fp_format *fmt, bool wide)
{
    struct prng g;

    prng_seed(&g, wide ? 64 : 32);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t mode = modes[prng_below(&g, PLX_COUNT(modes))], flags = 0;
        uint64_t a = operand(&g, fmt), b = operand(&g, fmt), c = operand(&g, fmt), have;
        union vec x = {.q = {a}}, y = {.q = {b}}, z = {.q = {c}};
        struct fma_operands o = {a, b, c, false, false, {b, a, c}} /* 213 */;

        mxcsr_set(mode);
        if (wide) {
            __asm__ volatile("vfmadd213sd %2, %1, %0" : "+x"(x.x) : "x"(y.x), "x"(z.x));
        } else {
            __asm__ volatile("vfmadd213ss %2, %1, %0" : "+x"(x.x) : "x"(y.x), "x"(z.x));
        }
        uint32_t host = mxcsr_get() & MXCSR_FLAGS;
        mxcsr_set(MXCSR_HOST);
        have = soft_fma(fmt, &o, mode, &flags);
        if (have != (wide ? x.q[0] : x.d[0]) || flags != host) {
            fail_msg("%llx * %llx + %llx, mode %x: host %llx flags %x, here %llx flags %x",
                     (unsigned long long)a, (unsigned long long)b, (unsigned long long)c, mode,
                     (unsigned long long)(wide ? x.q[0] : x.d[0]), host, (unsigned long long)have,
                     flags);
        }
    }
}

static void software_multiplies_and_adds_like_the_host(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("fma")) {
        skip();
    }
    multiply_add_is_the_hosts(&fp_double, true);
    multiply_add_is_the_hosts(&fp_single, false);
}

static void half_precision_is_the_hosts(void **state)
{
    struct prng g;

    (void)state;
    if (!__builtin_cpu_supports("f16c")) {
        skip();
    }
    for (unsigned h = 0; h < 0x10000; h++) {
        union vec x = {.q = {h}};
        uint32_t flags = 0;

        mxcsr_set(MXCSR_HOST);
        __asm__ volatile("vcvtph2ps %0, %0" : "+x"(x.x));
        uint32_t host = mxcsr_get() & MXCSR_FLAGS;
        mxcsr_set(MXCSR_HOST);
        assert_int_equal(soft_half_to_single(h, &flags), x.d[0]);
        assert_int_equal(flags, host);
    }
    prng_seed(&g, 16);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t mode = modes[prng_below(&g, PLX_COUNT(modes))], flags = 0;
        uint64_t s = operand(&g, &fp_single);
        union vec x = {.q = {s}};

        if (i % 2 != 0) { /* about as large as halves are */
            s = (s & ~UINT64_C(0x7f800000)) | (100 + prng_below(&g, 45)) << 23;
            x.q[0] = s;
        }
        mxcsr_set(mode);
        __asm__ volatile("vcvtps2ph $4, %0, %0" : "+x"(x.x));
        uint32_t host = mxcsr_get() & MXCSR_FLAGS;
        mxcsr_set(MXCSR_HOST);
        assert_int_equal(soft_single_to_half(s, mode, &flags), x.w[0]);
        assert_int_equal(flags, host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(avx_wants_its_state_enabled),
        FX_TEST(vex_wants_protected_mode),
        FX_TEST(the_older_model_has_none_of_it),
        FX_TEST(counts_have_no_vex_form),
        FX_TEST(xcr0_takes_what_the_model_has),
        FX_TEST(a_gather_that_faults_keeps_what_it_did),
        cmocka_unit_test(software_multiplies_and_adds_like_the_host),
        cmocka_unit_test(half_precision_is_the_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
