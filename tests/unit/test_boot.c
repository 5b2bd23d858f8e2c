/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_boot.c - the loaders: placement, registers, and images that are short or lie.
 *
 * Hunts: reads beyond a truncated image, sums of sizes that wrap, segments over the loader's own
 * structures or outside of RAM, an error without a line that says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/layout.h"

enum { BZ_SETUP = 1024, BZ_CODE = 1024, BZ_LEN = BZ_SETUP + BZ_CODE, MIB = 1 << 20 };

struct fixture {
    struct machine m;
    struct cpu c;
    struct plx_err err;
};

static int setup(void **state)
{
    struct fixture *t = calloc(1, sizeof *t);

    *state = t;
    t->m.cfg.vcpus = 1;
    return t == NULL ? -1 : ram_create(64 * MIB, &t->m.ram, &t->err);
}

static int teardown(void **state)
{
    struct fixture *t = *state;

    ram_destroy(t->m.ram);
    free(t);
    return 0;
}

/* The smallest image of our kind: one setup sector, 1 KiB of code, 1 MiB wanted at 16 MiB. */
static void make_bzimage(uint8_t *p)
{
    memset(p, 0, BZ_SETUP);
    memset(p + BZ_SETUP, 0x90, BZ_CODE);
    p[0x1f1] = 1;
    put_le32(p + 0x1f4, BZ_CODE / 16);
    put_le16(p + 0x1fe, 0xaa55);
    p[0x200] = 0xeb;
    p[0x201] = 0x6a;
    memcpy(p + 0x202, "HdrS", 4);
    put_le16(p + 0x206, 0x020f);
    p[0x211] = 1;
    put_le32(p + 0x22c, 0x7fffffff);
    put_le32(p + 0x230, 0x200000);
    p[0x234] = 1;
    put_le16(p + 0x236, 1);
    put_le32(p + 0x238, 255);
    put_le64(p + 0x258, 16 * MIB);
    put_le32(p + 0x260, MIB);
}

/* A fresh copy of exactly @len bytes, so that a sanitizer sees any read beyond it. */
static int load_copy(struct fixture *t, const uint8_t *image, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    struct boot_config cfg = {.cmdline = "console=ttyS0"};
    int rc;

    assert_non_null(copy);
    memcpy(copy + 1, image, len);
    cfg.kernel = (struct boot_image){copy + 1, len};
    t->err.msg[0] = 0;
    rc = boot_load(&t->m, &t->c, &cfg, &t->err);
    if (rc != 0) {
        assert_true(rc < 0);
        assert_true(t->err.msg[0] != 0);
        assert_null(strchr(t->err.msg, '\n'));
    }
    free(copy);
    return rc;
}

static uint64_t guest64(struct fixture *t, gpa_t at)
{
    uint8_t b[8];

    assert_int_equal(ram_read(t->m.ram, at, b, sizeof b), 0);
    return get_le64(b);
}

static void linux_gets_its_protocol(void **state)
{
    struct fixture *t = *state;
    uint8_t image[BZ_LEN], initrd[5000], back[5000];
    struct boot_config cfg = {.kernel = {image, BZ_LEN},
                              .initrd = {initrd, sizeof initrd},
                              .cmdline = "console=ttyS0 quiet"};
    uint8_t zp[PAGE_SIZE], line[32];

    make_bzimage(image);
    memset(initrd, 0x5a, sizeof initrd);
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), 0);
    assert_int_equal(t->c.rip, 16 * MIB + 0x200);
    assert_int_equal(t->c.gpr[RSI], BOOT_ZERO_PAGE);
    assert_int_equal(t->c.rflags, FLAG_ONE);
    assert_int_equal(t->c.efer, EFER_LME | EFER_LMA);
    assert_int_equal(t->c.seg[SEG_CS].sel, 0x10);
    assert_int_equal(t->c.seg[SEG_DS].sel, 0x18);
    assert_true(cpu_is64(&t->c));
    assert_int_equal(cpu_cpl(&t->c), 0);
    /* the map: the entry's page through PML4, PDPT, PD */
    assert_int_equal(guest64(t, t->c.cr3) & ~0xfffull, BOOT_PAGE_TABLES + 0x1000);
    assert_int_equal(guest64(t, BOOT_PAGE_TABLES + 0x1000 + 8 * 3), BOOT_PAGE_TABLES + 0x5003);
    assert_int_equal(guest64(t, BOOT_PAGE_TABLES + 0x2000 + 8 * 8), 16 * MIB | 0x83);
    assert_int_equal(guest64(t, BOOT_PAGE_TABLES + 0x5000 + 8 * 511), 0xffe00083);
    /* the GDT agrees with the hidden parts */
    assert_int_equal(guest64(t, BOOT_GDT + 0x10), 0x00af9b000000ffff);
    assert_int_equal(guest64(t, BOOT_GDT + 0x18), 0x00cf93000000ffff);
    assert_int_equal(ram_read(t->m.ram, BOOT_ZERO_PAGE, zp, sizeof zp), 0);
    assert_int_equal(zp[0x210], 0xff);
    assert_int_equal(get_le64(zp + 0x70), BOOT_ACPI);
    assert_int_equal(ram_read(t->m.ram, get_le32(zp + 0x228), line, sizeof line), 0);
    assert_string_equal((char *)line, "console=ttyS0 quiet");
    assert_int_equal(get_le32(zp + 0x21c), sizeof initrd);
    assert_int_equal(get_le32(zp + 0x218), 64 * MIB - 0x2000);
    assert_int_equal(ram_read(t->m.ram, get_le32(zp + 0x218), back, sizeof back), 0);
    assert_memory_equal(back, initrd, sizeof back);
    /* e820: RAM, the hole below 1 MiB, tables, RAM */
    assert_int_equal(zp[0x1e8], 4);
    assert_int_equal(get_le64(zp + 0x2d0 + 60), MIB);
    assert_int_equal(get_le64(zp + 0x2d0 + 68), 63 * MIB);
    assert_int_equal(get_le32(zp + 0x2d0 + 76), 1);
}

static void linux_truncated_at_every_length(void **state)
{
    struct fixture *t = *state;
    uint8_t image[BZ_LEN];

    make_bzimage(image);
    for (size_t len = 0; len < BZ_LEN; len++) {
        assert_true(load_copy(t, image, len) < 0);
    }
    assert_int_equal(load_copy(t, image, BZ_LEN), 0);
}

static void linux_hostile_fields(void **state)
{
    struct fixture *t = *state;
    static const struct {
        unsigned at, size;
        uint64_t value;
        int rc;
    } cases[] = {
        {0x1f1, 1, 255, PLX_ETRUNCATED},
        {0x1f4, 4, 0, PLX_ECORRUPT},
        {0x1f4, 4, 0xffffffff, PLX_ETRUNCATED},
        {0x201, 1, 0xff, PLX_ECORRUPT},
        {0x201, 1, 0, PLX_ECORRUPT},
        {0x206, 2, 0x0200, PLX_ENOTSUP},
        {0x211, 1, 0, PLX_ENOTSUP},
        {0x236, 2, 0, PLX_ENOTSUP},
        {0x238, 4, 3, PLX_ERANGE},
        {0x258, 8, UINT64_MAX, 0 /* relocates */},
        {0x258, 8, 0, 0 /* relocates */},
        {0x260, 4, 0xffffffff, PLX_ERANGE},
        {0x260, 4, 64 * MIB, PLX_ERANGE},
        {0x260, 4, 0, 0},
    };
    uint8_t image[BZ_LEN];

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_bzimage(image);
        for (unsigned b = 0; b < cases[i].size; b++) {
            image[cases[i].at + b] = (uint8_t)(cases[i].value >> 8 * b);
        }
        assert_int_equal(load_copy(t, image, BZ_LEN), cases[i].rc);
    }
    make_bzimage(image);
    put_le64(image + 0x258, UINT64_MAX - 4096);
    image[0x234] = 0; /* not relocatable */
    assert_int_equal(load_copy(t, image, BZ_LEN), PLX_ERANGE);
}

static void linux_initrd_must_fit(void **state)
{
    struct fixture *t = *state;
    uint8_t image[BZ_LEN], *initrd = calloc(1, 48 * MIB);
    struct boot_config cfg = {.kernel = {image, BZ_LEN}, .initrd = {initrd, 47 * MIB}};

    assert_non_null(initrd);
    make_bzimage(image);
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), 0);
    cfg.initrd.len = 47 * MIB + 1;
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), PLX_ERANGE);
    assert_non_null(strstr(t->err.msg, "more memory"));
    cfg.initrd.len = 0;
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), PLX_ETRUNCATED);
    /* the kernel's own limit counts too */
    put_le32(image + 0x22c, 32 * MIB - 1);
    cfg.initrd.len = 15 * MIB + 1;
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), PLX_ERANGE);
    cfg.initrd.len = 15 * MIB;
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), 0);
    free(initrd);
}

enum { ELF_LEN = 0x100 + 64 };

/* ELF32 with one segment at 1 MiB, 64 bytes in the file and a page in memory. */
static void make_elf(uint8_t *p)
{
    memset(p, 0, ELF_LEN);
    memcpy(p, "\177ELF\1\1\1", 7);
    put_le16(p + 16, 2);
    put_le16(p + 18, 3);
    put_le32(p + 24, MIB + 12);
    put_le32(p + 28, 52);
    put_le16(p + 42, 32);
    put_le16(p + 44, 1);
    uint8_t *ph = p + 52;
    put_le32(ph, 1);
    put_le32(ph + 4, 0x100);
    put_le32(ph + 12, MIB);
    put_le32(ph + 16, 64);
    put_le32(ph + 20, 4096);
    put_le32(p + 0x100, 0x1badb002);
    put_le32(p + 0x104, 3);
    put_le32(p + 0x108, (uint32_t) - (0x1badb002 + 3));
    memset(p + 0x10c, 0xf4, 52);
}

static void multiboot_gets_its_state(void **state)
{
    struct fixture *t = *state;
    uint8_t image[ELF_LEN], module[] = "a module", info[128], list[32], text[16];
    struct boot_module second = {{module, 8}, "two"};
    struct boot_config cfg = {.kernel = {image, ELF_LEN},
                              .initrd = {module, 3},
                              .cmdline = "arg",
                              .modules = &second,
                              .nmodules = 1};

    make_elf(image);
    assert_int_equal(boot_load(&t->m, &t->c, &cfg, &t->err), 0);
    assert_int_equal(t->c.rip, MIB + 12);
    assert_int_equal(t->c.gpr[RAX], 0x2badb002);
    assert_int_equal(t->c.cr0, CR0_PE | CR0_ET);
    assert_int_equal(t->c.efer, 0);
    assert_int_equal(t->c.seg[SEG_CS].attr & (SEG_DB | SEG_L), SEG_DB);
    assert_int_equal(ram_read(t->m.ram, t->c.gpr[RBX], info, sizeof info), 0);
    assert_int_equal(get_le32(info), 0x24d);
    assert_int_equal(get_le32(info + 8), 63 * 1024);
    assert_int_equal(ram_read(t->m.ram, get_le32(info + 16), text, sizeof text), 0);
    assert_string_equal((char *)text, "arg");
    assert_int_equal(get_le32(info + 20), 2);
    assert_int_equal(ram_read(t->m.ram, get_le32(info + 24), list, sizeof list), 0);
    assert_int_equal(get_le32(list), MIB + 4096);
    assert_int_equal(get_le32(list + 4), MIB + 4096 + 3);
    assert_int_equal(get_le32(list + 16), MIB + 8192);
    assert_int_equal(ram_read(t->m.ram, get_le32(list + 24), text, sizeof text), 0);
    assert_string_equal((char *)text, "two");
    assert_int_equal(get_le32(info + 44), 4 * 24);
    assert_int_equal(guest64(t, get_le32(info + 48) + 3 * 24 + 4), MIB);
}

static void multiboot_truncated_at_every_length(void **state)
{
    struct fixture *t = *state;
    uint8_t image[ELF_LEN];

    make_elf(image);
    for (size_t len = 0; len < ELF_LEN; len++) {
        assert_true(load_copy(t, image, len) < 0);
    }
    assert_int_equal(load_copy(t, image, ELF_LEN), 0);
}

static void multiboot_hostile_fields(void **state)
{
    struct fixture *t = *state;
    static const struct {
        unsigned at, size;
        uint32_t value;
        int rc;
    } cases[] = {
        {4, 1, 2, PLX_ENOTSUP},              /* ELF64 */
        {18, 2, 62, PLX_ENOTSUP},            /* x86-64 */
        {28, 4, 0xffffffff, PLX_ETRUNCATED}, /* program headers */
        {42, 2, 16, PLX_ECORRUPT},
        {44, 2, 0xffff, PLX_ETRUNCATED},
        {44, 2, 0, PLX_ECORRUPT},            /* nothing to load */
        {56, 4, 0xffffffff, PLX_ETRUNCATED}, /* file offset */
        {64, 4, 0xfffff000, PLX_ERANGE},     /* address */
        {64, 4, 0x80000, PLX_ENOTSUP},       /* over the information */
        {64, 4, 0xdf800, PLX_ENOTSUP},       /* over the tables */
        {68, 4, 0xffffffff, PLX_ETRUNCATED}, /* size in the file */
        {72, 4, 63, PLX_ECORRUPT},           /* size in memory */
        {72, 4, 0xffffffff, PLX_ERANGE},
    };
    uint8_t image[ELF_LEN];

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_elf(image);
        for (unsigned b = 0; b < cases[i].size; b++) {
            image[cases[i].at + b] = (uint8_t)(cases[i].value >> 8 * b);
        }
        assert_int_equal(load_copy(t, image, ELF_LEN), cases[i].rc);
    }
    make_elf(image); /* a required feature nobody knows */
    put_le32(image + 0x104, 0x8003);
    put_le32(image + 0x108, (uint32_t) - (0x1badb002 + 0x8003));
    assert_int_equal(load_copy(t, image, ELF_LEN), PLX_ENOTSUP);
}

/* The same by address fields, with the header 16 bytes into the file. */
static void make_flat(uint8_t p[128])
{
    static const uint32_t fields[] = {0x1badb002, 0x10003, (uint32_t) - (0x1badb002 + 0x10003),
                                      MIB + 16,   MIB,     MIB + 128,
                                      MIB + 8192, MIB + 48};

    memset(p, 0, 128);
    for (unsigned i = 0; i < 8; i++) {
        put_le32(p + 16 + 4 * i, fields[i]);
    }
}

static void multiboot_flat_image(void **state)
{
    struct fixture *t = *state;
    uint8_t image[128];
    static const struct {
        unsigned at;
        uint32_t value;
        int rc;
    } cases[] = {
        {28, 0, PLX_ECORRUPT},        {32, MIB + 64, PLX_ECORRUPT},
        {32, 0, PLX_ECORRUPT},        {36, 0xffffffff, PLX_ECORRUPT},
        {36, MIB - 1, PLX_ECORRUPT},  {40, MIB, PLX_ECORRUPT},
        {40, 0, 0 /* no bss */},      {36, 0, 0 /* to the end of the file */},
        {40, 0xffffffff, PLX_ERANGE},
    };

    make_flat(image);
    for (size_t len = 0; len < sizeof image; len++) {
        assert_true(load_copy(t, image, len) < 0);
    }
    assert_int_equal(load_copy(t, image, sizeof image), 0);
    assert_int_equal(t->c.rip, MIB + 48);
    assert_int_equal(guest64(t, MIB + 16) & 0xffffffff, 0x1badb002);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_flat(image);
        put_le32(image + cases[i].at, cases[i].value);
        assert_int_equal(load_copy(t, image, sizeof image), cases[i].rc);
    }
}

static void something_else_is_refused(void **state)
{
    struct fixture *t = *state;
    uint8_t image[9000] = "#!/bin/sh";

    assert_int_equal(load_copy(t, image, sizeof image), PLX_ENOTSUP);
    make_elf(image + 8192); /* the header lies beyond the first 8 KiB */
    assert_int_equal(load_copy(t, image, sizeof image), PLX_ENOTSUP);
}

/* Random damage to whole images: defined reactions only (a sanitizer watches the bounds). */
static void random_damage(void **state)
{
    struct fixture *t = *state;
    struct prng g;
    uint64_t seed = 20240601;
    unsigned loaded = 0;

    print_message("seed %llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t image[BZ_LEN] = {0};
        bool elf = prng_below(&g, 2) == 0;
        size_t len = elf ? ELF_LEN : BZ_LEN;
        static const uint8_t extreme[] = {0, 1, 0x7f, 0x80, 0xff};

        elf ? make_elf(image) : make_bzimage(image);
        for (uint64_t n = prng_below(&g, 6); n > 0; n--) {
            size_t at = elf ? prng_below(&g, 0x110) : 0x1f1 + prng_below(&g, 0x78);

            image[at] = extreme[prng_below(&g, sizeof extreme)];
        }
        if (load_copy(t, image, len) == 0) {
            loaded++;
        }
    }
    assert_true(loaded > 100 && loaded < 2900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(linux_gets_its_protocol),   T(linux_truncated_at_every_length),
        T(linux_hostile_fields),      T(linux_initrd_must_fit),
        T(multiboot_gets_its_state),  T(multiboot_truncated_at_every_length),
        T(multiboot_hostile_fields),  T(multiboot_flat_image),
        T(something_else_is_refused), T(random_damage),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
