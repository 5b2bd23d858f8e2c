/* SPDX-License-Identifier: Apache-2.0
 * FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR and the x87 environments: every image against the one
 * the host writes from the same state or against the SDM's layout, what is left alone, what faults.
 *
 * Hunts: a byte written that should stay, a header check missed, FIP or FDP of the wrong
 * instruction, tags that do not survive the round trip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/host_fpu.h"
#include "vmm/cpu/x87_soft.h"

enum { AREA = 576 };

static const uint8_t fxsave[] = {0x0f, 0xae, 0x06}, fxsave64[] = {0x48, 0x0f, 0xae, 0x06},
                     fxrstor[] = {0x0f, 0xae, 0x0e}, fxrstor64[] = {0x48, 0x0f, 0xae, 0x0e},
                     xsave[] = {0x0f, 0xae, 0x26}, xsaveopt[] = {0x0f, 0xae, 0x36},
                     xrstor[] = {0x0f, 0xae, 0x2e}, xrstor64[] = {0x48, 0x0f, 0xae, 0x2e};

#define RUN(code) cpu_run(v, code, sizeof(code), &in)

static void rnd_fpu(struct vcpu *v)
{
    struct cpu_fpu *f = &v->c.fpu;

    prng_fill(&host_prng, f->st, sizeof f->st);
    prng_fill(&host_prng, f->xmm, sizeof f->xmm);
    f->fcw = 0x37f;
    f->fsw = (uint16_t)(rnd() & 0x7f7f);
    f->ftw = (uint8_t)rnd();
    f->fop = rnd() & 0x7ff;
    f->fip = rnd();
    f->fdp = rnd();
    f->fcs = f->fds = 0;
    f->mxcsr = rnd() & 0xffff;
}

static void get_area(struct vcpu *v, uint8_t *area)
{
    assert_int_equal(ram_read(v->ram, GUEST_DATA, area, AREA), 0);
}

static void put_area(struct vcpu *v, const uint8_t *area)
{
    assert_int_equal(ram_write(v->ram, GUEST_DATA, area, AREA), 0);
}

static void put_u64(uint8_t *p, uint64_t x)
{
    memcpy(p, &x, 8);
}

/* Saved and restored in either form, the state is the same (FIP and FDP cut in the narrow form). */
static void fxsave_round_trip(bool wide)
{
    struct vcpu *v = cpu_fake();
    uint8_t area[AREA], image[AREA];
    struct cpu_fpu saved, zero = {0};
    struct insn in;

    for (unsigned i = 0; i < 200; i++) {
        rnd_fpu(v);
        saved = v->c.fpu;
        memset(area, 0xa5, sizeof area);
        put_area(v, area);
        v->c.gpr[RSI] = GUEST_DATA;
        assert_int_equal(wide ? RUN(fxsave64) : RUN(fxsave), 0);
        get_area(v, image);
        for (unsigned k = 416; k < AREA; k++) {
            assert_int_equal(image[k], 0xa5);
        }
        assert_int_equal(image[5], 0);
        assert_int_equal(image[4], saved.ftw);
        assert_int_equal(image[28] | image[29] << 8, 0xffff);
        assert_memory_equal(image + 160, saved.xmm, 256);
        assert_memory_equal(image + 32, saved.st[saved.fsw >> 11 & 7], 10);
        v->c.fpu = zero;
        assert_int_equal(wide ? RUN(fxrstor64) : RUN(fxrstor), 0);
        if (!wide) {
            saved.fip &= UINT32_MAX;
            saved.fdp &= UINT32_MAX;
        }
        assert_memory_equal(&v->c.fpu, &saved, sizeof saved);
    }
    cpu_fake_close(v);
}

static void fxsave_and_fxrstor_round_trip(void **state)
{
    (void)state;
    fxsave_round_trip(true);
    fxsave_round_trip(false);
}

/* The host's FXSAVE of the same state, pointers aside. */
static void fxsave_agrees_with_the_host(void **state)
{
    static const uint8_t nop[] = {0x90};
    struct vcpu *v = cpu_fake();
    struct host_state host;
    uint8_t image[AREA];
    struct insn in;

    (void)state;
    host_init();
    for (unsigned i = 0; i < 200; i++) {
        rnd_fpu(v);
        v->c.fpu.mxcsr |= 0x1f80;
        v->c.gpr[RSI] = GUEST_DATA;
        assert_int_equal(RUN(fxsave64), 0);
        get_area(v, image);
        memset(&host, 0, sizeof host);
        memcpy(host.fx, image, 512);
        host.rflags = FLAG_ONE;
        assert_int_equal(host_run(&host, nop, 1), 0);
        memset(host.fx + 6, 0, 18);
        memset(image + 6, 0, 18);
        memcpy(host.fx + 28, image + 28, 4); /* MXCSR_MASK: the host may know more bits */
        assert_memory_equal(host.fx, image, 416);
    }
    cpu_fake_close(v);
}

static void xsave_writes_what_was_asked_for(void **state)
{
    struct vcpu *v = cpu_fake();
    uint8_t area[AREA], image[AREA];
    struct insn in;

    (void)state;
    v->c.gpr[RSI] = GUEST_DATA;
    for (unsigned rfbm = 0; rfbm < 4; rfbm++) {
        for (unsigned opt = 0; opt < 2; opt++) {
            rnd_fpu(v);
            memset(area, 0xa5, sizeof area);
            put_u64(area + 512, 3 & ~rfbm); /* those not asked for stay */
            put_area(v, area);
            v->c.gpr[RAX] = rfbm | 0xfffffff8;
            v->c.gpr[RDX] = UINT32_MAX;
            assert_int_equal(opt != 0 ? RUN(xsaveopt) : RUN(xsave), 0);
            get_area(v, image);
            put_u64(area + 512, 3);
            if ((rfbm & 1) == 0) {
                assert_memory_equal(image, area, 24);
                assert_memory_equal(image + 32, area + 32, 128);
            } else {
                assert_memory_equal(image, &v->c.fpu.fcw, 2);
            }
            if ((rfbm & 2) == 0) {
                assert_memory_equal(image + 24, area + 24, 8);
                assert_memory_equal(image + 160, area + 160, 256);
            } else {
                assert_memory_equal(image + 24, &v->c.fpu.mxcsr, 4);
                assert_memory_equal(image + 160, v->c.fpu.xmm, 256);
            }
            assert_memory_equal(image + 416, area + 416, AREA - 416);
        }
    }
    cpu_fake_close(v);
}

static void xrstor_loads_or_initialises(void **state)
{
    struct vcpu *v = cpu_fake();
    uint8_t area[AREA];
    struct cpu_fpu saved, before;
    struct insn in;

    (void)state;
    v->c.gpr[RSI] = GUEST_DATA;
    v->c.gpr[RDX] = 0;
    for (unsigned i = 0; i < 16; i++) {
        unsigned rfbm = i & 3, bv = i >> 2;

        rnd_fpu(v);
        saved = v->c.fpu;
        memset(area, 0, sizeof area);
        put_area(v, area);
        v->c.gpr[RAX] = 3;
        assert_int_equal(RUN(xsave), 0);
        get_area(v, area);
        put_u64(area + 512, bv);
        put_area(v, area);
        rnd_fpu(v);
        before = v->c.fpu;
        v->c.gpr[RAX] = rfbm;
        assert_int_equal(RUN(xrstor64), 0);
        if ((rfbm & 2) == 0) {
            assert_memory_equal(v->c.fpu.xmm, before.xmm, 256);
            assert_int_equal(v->c.fpu.mxcsr, before.mxcsr);
        } else {
            static const uint8_t zero[256];
            assert_memory_equal(v->c.fpu.xmm, (bv & 2) != 0 ? (const void *)saved.xmm : zero, 256);
            assert_int_equal(v->c.fpu.mxcsr, saved.mxcsr); /* even if the component is not there */
        }
        if ((rfbm & 1) == 0) {
            assert_memory_equal(&v->c.fpu, &before, offsetof(struct cpu_fpu, mxcsr));
        } else if ((bv & 1) != 0) {
            assert_memory_equal(v->c.fpu.st, saved.st, sizeof saved.st);
            assert_int_equal(v->c.fpu.ftw, saved.ftw);
        } else {
            assert_int_equal(v->c.fpu.fcw, 0x37f);
            assert_int_equal(v->c.fpu.fsw, 0);
            assert_int_equal(v->c.fpu.ftw, 0);
            assert_int_equal(v->c.fpu.st[3][4], 0);
        }
    }
    cpu_fake_close(v);
}

static void what_must_fault_faults(void **state)
{
    struct vcpu *v = cpu_fake();
    uint8_t area[AREA] = {0};
    struct insn in;

    (void)state;
    v->c.gpr[RAX] = 3;
    v->c.gpr[RSI] = GUEST_DATA + 8;
    assert_int_equal(RUN(fxsave), 256 + VEC_GP);
    assert_int_equal(RUN(fxrstor), 256 + VEC_GP);
    v->c.gpr[RSI] = GUEST_DATA + 16;
    assert_int_equal(RUN(fxsave), 0);
    assert_int_equal(RUN(xsave), 256 + VEC_GP);
    assert_int_equal(RUN(xrstor), 256 + VEC_GP);
    v->c.gpr[RSI] = GUEST_DATA;
    for (unsigned k = 0; k < 5; k++) {
        static const unsigned where[5] = {512, 520, 527, 528, 535};

        put_area(v, area);
        assert_int_equal(RUN(xrstor), 0);
        area[where[k]] = 0x80;
        put_area(v, area);
        assert_int_equal(RUN(xrstor), 256 + VEC_GP);
        area[where[k]] = 0;
    }
    area[536] = 0xff; /* the rest of the header is ignored */
    put_area(v, area);
    assert_int_equal(RUN(xrstor), 0);
    area[26] = 1; /* MXCSR, reserved bits */
    put_area(v, area);
    assert_int_equal(RUN(xrstor), 256 + VEC_GP);
    assert_int_equal(RUN(fxrstor), 256 + VEC_GP);
    v->c.gpr[RAX] = 1;
    assert_int_equal(RUN(xrstor), 0);
    v->c.cr0 |= CR0_EM;
    assert_int_equal(RUN(xsave), 0);
    assert_int_equal(RUN(fxsave), 256 + VEC_NM);
    v->c.cr0 = (v->c.cr0 & ~CR0_EM) | CR0_TS;
    assert_int_equal(RUN(xsave), 256 + VEC_NM);
    assert_int_equal(RUN(fxrstor), 256 + VEC_NM);
    v->c.cr4 &= ~CR4_OSXSAVE;
    assert_int_equal(RUN(xsave), 256 + VEC_UD);
    assert_int_equal(RUN(xrstor), 256 + VEC_UD);
    cpu_fake_close(v);
}

/* FIP after every computing instruction, FDP only with an unmasked exception; WAIT and #MF. */
static void pointers_follow_the_table(void **state)
{
    static const uint8_t fld1[] = {0xd9, 0xe8}, fadd_mem[] = {0xd8, 0x06}, fnstcw[] = {0xd9, 0x3e},
                         fdiv_mem[] = {0xd8, 0x36}, fwait[] = {0x9b}, fnclex[] = {0xdb, 0xe2},
                         fnstenv[] = {0xd9, 0x36}, fninit[] = {0xdb, 0xe3};
    struct vcpu *v = cpu_fake();
    uint32_t env[7];
    struct insn in;

    (void)state;
    v->c.gpr[RSI] = GUEST_DATA;
    assert_int_equal(RUN(fninit), 0);
    assert_int_equal(v->c.fpu.fcw, 0x37f);
    assert_int_equal(RUN(fld1), 0);
    assert_int_equal(v->c.fpu.fip, 0x1000);
    v->c.fpu.fip = 0;
    assert_int_equal(RUN(fadd_mem), 0);
    assert_int_equal(v->c.fpu.fip, 0x1000);
    assert_int_equal(v->c.fpu.fdp, 0);
    v->c.fpu.fip = 0;
    assert_int_equal(RUN(fnstcw), 0);
    assert_int_equal(v->c.fpu.fip, 0);
    v->c.fpu.fcw = 0x37b; /* ZE unmasked */
    memset(env, 0, sizeof env);
    assert_int_equal(ram_write(v->ram, GUEST_DATA, env, sizeof env), 0);
    assert_int_equal(RUN(fdiv_mem), 0);
    assert_int_equal(v->c.fpu.fdp, GUEST_DATA);
    assert_int_equal(v->c.fpu.fsw & (X87_ES | X87_B | X87_ZE), X87_ES | X87_B | X87_ZE);
    assert_int_equal(RUN(fwait), 256 + VEC_MF);
    assert_int_equal(RUN(fld1), 256 + VEC_MF);
    assert_int_equal(RUN(fnstenv), 0);
    assert_int_equal(ram_read(v->ram, GUEST_DATA, env, sizeof env), 0);
    assert_int_equal(env[0], 0xffff037b);
    assert_int_equal(env[1], 0xffff0000 | X87_ES | X87_B | X87_ZE | 7 << 11);
    assert_int_equal(env[2], 0xffff3fff); /* R7 valid */
    assert_int_equal(env[3], 0x1000);
    assert_int_equal(env[4], 0);
    assert_int_equal(env[5], GUEST_DATA);
    assert_int_equal(env[6], 0xffff0000);
    assert_int_equal(v->c.fpu.fcw, 0x37f); /* FNSTENV masks all */
    assert_int_equal(RUN(fwait), 0);
    assert_int_equal(RUN(fnclex), 0);
    assert_int_equal(v->c.fpu.fsw & 0x80ff, 0);
    v->c.cr0 = (v->c.cr0 | CR0_TS) & ~CR0_MP;
    assert_int_equal(RUN(fwait), 0);
    v->c.cr0 |= CR0_MP;
    assert_int_equal(RUN(fwait), 256 + VEC_NM);
    assert_int_equal(RUN(fld1), 256 + VEC_NM);
    cpu_fake_close(v);
}

/* The AVX component: behind the header, loaded, initialised or left alone as asked for. */
static void the_upper_halves_are_a_component(void **state)
{
    struct vcpu *v = cpu_fake();
    uint8_t area[AREA + 256], image[AREA + 256];
    struct cpu_fpu saved;
    struct insn in;

    (void)state;
    v->model = CPU_POLLUX_V3;
    v->c.gpr[RSI] = GUEST_DATA;
    for (unsigned rfbm = 0; rfbm < 8; rfbm++) {
        for (unsigned there = 0; there < 8; there++) {
            v->c.xcr0 = 7;
            rnd_fpu(v);
            prng_fill(&host_prng, v->c.fpu.ymm_high, sizeof v->c.fpu.ymm_high);
            saved = v->c.fpu;
            memset(area, 0xa5, sizeof area);
            memset(area + 512, 0, 64);
            assert_int_equal(ram_write(v->ram, GUEST_DATA, area, sizeof area), 0);
            v->c.gpr[RAX] = rfbm | 0xfffffff8;
            v->c.gpr[RDX] = UINT32_MAX;
            assert_int_equal((there & 1) != 0 ? RUN(xsaveopt) : RUN(xsave), 0);
            assert_int_equal(ram_read(v->ram, GUEST_DATA, image, sizeof image), 0);
            put_u64(area + 512, rfbm);
            assert_memory_equal(image + 512, area + 512, 64);
            assert_memory_equal(image + 576,
                                (rfbm & 4) != 0 ? (const void *)saved.ymm_high : area + 576, 256);
            assert_memory_equal(image + 160, (rfbm & 2) != 0 ? (const void *)saved.xmm : area + 160,
                                256);
            assert_memory_equal(image + 24,
                                (rfbm & 6) != 0 ? (const void *)&saved.mxcsr : area + 24, 4);
            /* All of it into memory, then back what is said to be there. */
            v->c.gpr[RAX] = 7;
            assert_int_equal(RUN(xsave), 0);
            assert_int_equal(ram_write(v->ram, GUEST_DATA + 512, &there, 1), 0);
            memset(v->c.fpu.ymm_high, 0x77, sizeof v->c.fpu.ymm_high);
            memset(v->c.fpu.xmm, 0x77, sizeof v->c.fpu.xmm);
            v->c.fpu.mxcsr = 0x1f80;
            v->c.gpr[RAX] = rfbm;
            assert_int_equal(RUN(xrstor), 0);
            for (unsigned i = 0; i < 256; i++) {
                const uint8_t *high = saved.ymm_high[0], *low = saved.xmm[0];
                assert_int_equal(v->c.fpu.ymm_high[i / 16][i % 16], (rfbm & 4) == 0    ? 0x77
                                                                    : (there & 4) != 0 ? high[i]
                                                                                       : 0);
                assert_int_equal(v->c.fpu.xmm[i / 16][i % 16], (rfbm & 2) == 0    ? 0x77
                                                               : (there & 2) != 0 ? low[i]
                                                                                  : 0);
            }
            assert_int_equal(v->c.fpu.mxcsr, (rfbm & 6) != 0 ? saved.mxcsr : 0x1f80);
            v->c.xcr0 = 3; /* a component that is not enabled cannot be there */
            assert_int_equal(RUN(xrstor), (there & 4) != 0 ? 256 + VEC_GP : 0);
        }
    }
    cpu_fake_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fxsave_and_fxrstor_round_trip),
        cmocka_unit_test(fxsave_agrees_with_the_host),
        cmocka_unit_test(xsave_writes_what_was_asked_for),
        cmocka_unit_test(the_upper_halves_are_a_component),
        cmocka_unit_test(xrstor_loads_or_initialises),
        cmocka_unit_test(what_must_fault_faults),
        cmocka_unit_test(pointers_follow_the_table),
    };

    host_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
