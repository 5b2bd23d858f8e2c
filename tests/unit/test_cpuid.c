/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a CPUID answer that changes by accident (guests and other replicas depend on every bit), a
 * feature that CR4 does not accept, a topology that does not fit the number of vCPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/cpuid.h"

static const struct golden {
    uint32_t leaf, sub;
    struct cpuid_regs r;
} golden[] = {
    {0x0, 0, {0x16, 0x756e6547, 0x6c65746e, 0x49656e69}},
    {0x1, 0, {0x000806f8, 0x00010800, 0xc5ba2201, 0x078bfbfd}},
    {0x2, 0, {0x0000ff01, 0, 0, 0}},
    {0x3, 0, {0, 0, 0, 0}},
    {0x4, 0, {0x121, 0x02c0003f, 63, 0}},
    {0x4, 1, {0x122, 0x01c0003f, 63, 0}},
    {0x4, 2, {0x143, 0x03c0003f, 2047, 0}},
    {0x4, 3, {0x163, 0x03c0003f, 16383, 0}},
    {0x4, 4, {0, 0, 0, 0}},
    {0x5, 0, {0, 0, 0, 0}},
    {0x6, 0, {4, 0, 0, 0}},
    {0x7, 0, {2, 0x001426c3, 0x00000004, 0x2c000010}},
    {0x7, 1, {0, 0, 0, 0}},
    {0x7, 2, {0, 0, 0, 0x10}},
    {0xa, 0, {0, 0, 0, 0}},
    {0xb, 0, {0, 1, 0x100, 0}},
    {0xb, 1, {0, 1, 0x201, 0}},
    {0xb, 2, {0, 0, 2, 0}},
    {0xd, 0, {3, 576, 576, 0}},
    {0xd, 1, {1, 0, 0, 0}},
    {0xd, 2, {0, 0, 0, 0}},
    {0x15, 0, {1, 40, 25000000, 0}},
    {0x16, 0, {1000, 1000, 100, 0}},
    {0x17, 0, {1000, 1000, 100, 0}}, /* beyond the last leaf: that of 16H */
    {0x80000009, 0, {1000, 1000, 100, 0}},
    {0x40000000, 0, {0x40000000, 0x6c6c6f50, 0x6f507875, 0x78756c6c}},
    {0x40000001, 0, {0, 0, 0, 0}},
    {0x80000000, 0, {0x80000008, 0, 0, 0}},
    {0x80000001, 0, {0, 0, 1, 0x2c100800}},
    {0x80000007, 0, {0, 0, 0, 0x100}},
    {0x80000008, 0, {0x3028, 0, 0, 0}},
};

static void is_answer(enum cpu_model model, const struct cpu *c, const struct golden *g)
{
    struct cpuid_regs r;

    cpuid(model, c, 0, 1, g->leaf, g->sub, &r);
    if (memcmp(&r, &g->r, sizeof r) != 0) {
        fail_msg("%s, leaf %x.%u: %08x %08x %08x %08x", cpu_model_name(model), g->leaf, g->sub,
                 r.eax, r.ebx, r.ecx, r.edx);
    }
}

/* What pollux-v3 has otherwise. */
static const struct golden golden_v3[] = {
    {0x1, 0, {0x000806f8, 0x00010800, 0xf5fa3201, 0x078bfbfd}},
    {0x7, 0, {2, 0x001427eb, 0x00000004, 0x2c000010}},
    {0xd, 0, {7, 576, 832, 0}},
    {0xd, 1, {1, 0, 0, 0}},
    {0xd, 2, {256, 576, 0, 0}},
    {0x80000001, 0, {0, 0, 0x21, 0x2c100800}},
};

static void the_models_are_these_tables(void **state)
{
    struct cpu c;

    (void)state;
    cpu_reset(&c, 0);
    for (size_t i = 0; i < PLX_COUNT(golden); i++) {
        const struct golden *g = &golden[i], *other = g;
        is_answer(CPU_POLLUX_V2, &c, g);
        for (size_t k = 0; k < PLX_COUNT(golden_v3); k++) {
            other =
                golden_v3[k].leaf == g->leaf && golden_v3[k].sub == g->sub ? &golden_v3[k] : other;
        }
        is_answer(CPU_POLLUX_V3, &c, other);
    }
    c.xcr0 = 7;
    is_answer(CPU_POLLUX_V3, &c, &(struct golden){0xd, 0, {7, 832, 832, 0}});
}

static void the_names_read_well(void **state)
{
    static const char *const want[] = {"Pollux virtual CPU (pollux-v2)",
                                       "Pollux virtual CPU (pollux-v3)"};
    struct cpu c;

    (void)state;
    cpu_reset(&c, 0);
    for (unsigned m = 0; m < CPU_MODELS; m++) {
        char text[49] = "";
        for (uint32_t i = 0; i < 3; i++) {
            struct cpuid_regs r;
            cpuid((enum cpu_model)m, &c, 0, 1, 0x80000002 + i, 0, &r);
            memcpy(text + i * 16, &r, sizeof r);
        }
        assert_string_equal(text, want[m]);
    }
}

static void osxsave_follows_cr4(void **state)
{
    struct cpu c;
    struct cpuid_regs r;

    (void)state;
    cpu_reset(&c, 0);
    c.cr4 = CR4_OSXSAVE;
    cpuid(CPU_POLLUX_V2, &c, 0, 1, 1, 0, &r);
    assert_true((r.ecx & 1u << 27) != 0);
}

/* Three vCPUs: APIC ids need two bits, every vCPU is a core. */
static void topology_counts_vcpus(void **state)
{
    struct cpu c;
    struct cpuid_regs r;

    (void)state;
    cpu_reset(&c, 2);
    cpuid(CPU_POLLUX_V2, &c, 2, 3, 1, 0, &r);
    assert_int_equal(r.ebx, 0x02040800);
    assert_true((r.edx & 1u << 28) != 0);
    cpuid(CPU_POLLUX_V2, &c, 2, 3, 0xb, 1, &r);
    assert_int_equal(r.eax, 2);
    assert_int_equal(r.ebx, 3);
    assert_int_equal(r.edx, 2);
    cpuid(CPU_POLLUX_V2, &c, 2, 3, 4, 3, &r);
    assert_int_equal(r.eax, 0x163 | 3 << 26 | 3 << 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_models_are_these_tables),
        cmocka_unit_test(the_names_read_well),
        cmocka_unit_test(osxsave_follows_cr4),
        cmocka_unit_test(topology_counts_vcpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
