/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_boot_acpi.c - ACPI tables: pointers, checksums, lengths, and AML that nests.
 *
 * Hunts: a table that ends before its content does, a package length that lies, tables that
 * disagree with vmm/abi/pc_layout.h. Linux judges the meaning (tests/guests). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/layout.h"
#include "vmm/dev/hpet.h"

static const gpa_t base = 0xe0000;

static int setup(void **state)
{
    static struct wbuf tables;
    struct machine_config cfg = {.vcpus = 3};

    wbuf_init(&tables);
    *state = &tables;
    return acpi_build(&cfg, base, &tables, NULL);
}

static int teardown(void **state)
{
    wbuf_free(*state);
    return 0;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len-- > 0) {
        s = (uint8_t)(s + *p++);
    }
    return s;
}

/* The table at guest address @at, whole and with a good checksum. */
static const uint8_t *table(const struct wbuf *t, uint64_t at, const char *signature)
{
    const uint8_t *p = t->data + (at - base);

    assert_true(at >= base && at - base + 36 <= t->len);
    assert_memory_equal(p, signature, 4);
    assert_true(get_le32(p + 4) <= t->len - (at - base));
    assert_int_equal(sum(p, get_le32(p + 4)), 0);
    return p;
}

static void pointers_and_checksums(void **state)
{
    const struct wbuf *t = *state;
    const uint8_t *xsdt, *fadt, *hpet;

    assert_memory_equal(t->data, "RSD PTR ", 8);
    assert_int_equal(sum(t->data, 20), 0);
    assert_int_equal(sum(t->data, 36), 0);
    xsdt = table(t, get_le64(t->data + 24), "XSDT");
    assert_int_equal(get_le32(xsdt + 4), 36 + 3 * 8);
    fadt = table(t, get_le64(xsdt + 36), "FACP");
    table(t, get_le64(xsdt + 44), "APIC");
    hpet = table(t, get_le64(xsdt + 52), "HPET");
    assert_int_equal(get_le32(hpet + 4), 56);
    assert_int_equal(get_le32(hpet + 36), HPET_BLOCK_ID);
    assert_int_equal(get_le64(hpet + 44), HPET_BASE);
    assert_int_equal(get_le32(fadt + 4), 276); /* the size of revision 6 */
    assert_int_equal(get_le32(fadt + 36) % 64, 0);
    assert_memory_equal(t->data + get_le32(fadt + 36) - base, "FACS", 4);
    assert_int_equal(get_le32(fadt + 40), get_le64(fadt + 140));
    table(t, get_le64(fadt + 140), "DSDT");
    assert_int_equal(get_le16(fadt + 46), SCI_GSI);
    assert_int_equal(get_le32(fadt + 56), PM1A_EVT_PORT);
    assert_int_equal(get_le32(fadt + 64), PM1A_CNT_PORT);
    assert_int_equal(get_le32(fadt + 76), PM_TMR_PORT);
    assert_int_equal(get_le64(fadt + 116 + 4), ACPI_RESET_PORT);
    assert_int_equal(fadt[128], ACPI_RESET_VALUE);
    assert_int_equal(get_le64(fadt + 148 + 4), PM1A_EVT_PORT);
    assert_int_equal(get_le64(fadt + 172 + 4), PM1A_CNT_PORT);
    assert_int_equal(get_le64(fadt + 208 + 4), PM_TMR_PORT);
}

static void madt_lists_every_vcpu(void **state)
{
    const struct wbuf *t = *state;
    const uint8_t *xsdt = t->data + (get_le64(t->data + 24) - base);
    const uint8_t *madt = t->data + (get_le64(xsdt + 44) - base);
    unsigned count[5] = {0};
    uint32_t at = 44, end = get_le32(madt + 4);

    while (at < end) {
        assert_true(madt[at] < 5 && madt[at + 1] >= 6 && at + madt[at + 1] <= end);
        if (madt[at] == 0) {
            assert_int_equal(madt[at + 2], count[0]);
            assert_int_equal(madt[at + 3], count[0]);
            assert_int_equal(get_le32(madt + at + 4), 1); /* enabled */
        }
        count[madt[at]]++;
        at += madt[at + 1];
    }
    assert_int_equal(at, end);
    assert_int_equal(count[0], 3);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 2);
}

/* Walks the terms we emit; returns how many Name objects it saw. */
static unsigned walk(const uint8_t *p, size_t len)
{
    unsigned names = 0;
    size_t at = 0;

    while (at < len) {
        uint8_t op = p[at++];
        size_t pkg = at;

        switch (op) {
        case 0x00:
        case 0x01:
            break;
        case 0x0a:
            at += 1;
            break;
        case 0x0b:
            at += 2;
            break;
        case 0x0c:
            at += 4;
            break;
        case 0x08: /* Name */
            at += p[at] == '\\' ? 5 : 4;
            names++;
            break;
        case 0x5b: /* Device */
            assert_int_equal(p[at], 0x82);
            pkg = ++at;
            /* fall through */
        case 0x10:   /* Scope */
        case 0x11:   /* Buffer */
        case 0x12: { /* Package */
            size_t size;

            assert_int_equal(p[at] >> 6, 2);
            size = (size_t)(p[at] & 0xf) | (size_t)p[at + 1] << 4 | (size_t)p[at + 2] << 12;
            assert_true(size > 3 && pkg + size <= len);
            at += 3;
            if (op == 0x11) {
                assert_int_equal(p[at], 0x0b);
                assert_int_equal(get_le16(p + at + 1), pkg + size - at - 3);
                assert_int_equal(p[pkg + size - 2], 0x79);
            } else {
                at += op == 0x12 ? 1 : p[at] == '\\' ? 5 : 4;
                names += walk(p + at, pkg + size - at);
            }
            at = pkg + size;
            break;
        }
        default:
            fail_msg("opcode 0x%02x at %zu", op, at - 1);
        }
    }
    assert_int_equal(at, len);
    return names;
}

static void dsdt_nests(void **state)
{
    struct wbuf dsdt;

    (void)state;
    wbuf_init(&dsdt);
    acpi_dsdt(&dsdt);
    assert_true(walk(dsdt.data + 36, dsdt.len - 36) > 15);
    wbuf_free(&dsdt);
}

static void out_of_memory_is_reported(void **state)
{
    struct machine_config cfg = {.vcpus = 16};
    int k;

    (void)state;
    for (k = 0;; k++) {
        struct wbuf tables;
        int rc;

        wbuf_init(&tables);
        plx_heap_fail_at(k);
        rc = acpi_build(&cfg, base, &tables, NULL);
        plx_heap_fail_never();
        wbuf_free(&tables);
        if (rc == 0) {
            break;
        }
        assert_int_equal(rc, PLX_ENOMEM);
    }
    assert_true(k > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pointers_and_checksums, setup, teardown),
        cmocka_unit_test_setup_teardown(madt_lists_every_vcpu, setup, teardown),
        cmocka_unit_test(dsdt_nests),
        cmocka_unit_test(out_of_memory_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
