/* SPDX-License-Identifier: Apache-2.0
 * Firmware: ROM, fw_cfg and what is told through it. Bugs hunted: an image that is no firmware
 * taken for one, a ROM that can be written or is lost with a saved state, items that end in the
 * wrong place, ACPI tables whose pointers or sums are wrong once firmware has moved them. */
#include "tests/unit/dev_board.h"

#include "base/alloc.h"
#include "vmm/boot/firmware.h"
#include "vmm/boot/layout.h"
#include "vmm/dev/rom.h"

enum { IMAGE = 192 << 10 };

static struct board b;
static struct rom *rom;
static struct fwcfg *fw;
static uint8_t image[IMAGE];

static int setup(void **state)
{
    (void)state;
    board_open(&b);
    b.m.cfg.vcpus = 3;
    assert_int_equal(rom_create(&b.m, &rom, NULL), 0);
    assert_int_equal(fwcfg_create(&b.m, &fw, NULL), 0);
    assert_int_equal(firmware_describe(&b.m, fw, NULL), 0);
    for (size_t i = 0; i < sizeof image; i++) {
        image[i] = (uint8_t)(i * 7 + (i >> 8));
    }
    image[IMAGE - 16] = 0xea;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fwcfg_destroy(fw);
    rom_destroy(rom);
    board_close(&b);
    return 0;
}

static void load_image(void)
{
    const struct boot_config cfg = {.kernel = {image, sizeof image}};

    assert_int_equal(firmware_load(&b.m, &cfg, NULL), 0);
}

static void images_are_recognised(void **state)
{
    struct boot_image i = {image, IMAGE};

    (void)state;
    assert_true(firmware_recognise(&i));
    i.len--;
    assert_false(firmware_recognise(&i));
    i = (struct boot_image){NULL, 0};
    assert_false(firmware_recognise(&i));
    i = (struct boot_image){image, IMAGE};
    image[IMAGE - 16] = 0x90; /* NOPs before the jump */
    image[IMAGE - 15] = 0xe9;
    assert_true(firmware_recognise(&i));
    memset(image + IMAGE - 16, 0x90, 16);
    assert_false(firmware_recognise(&i));
}

static void what_is_no_rom_is_refused(void **state)
{
    struct boot_config cfg = {.kernel = {image, sizeof image}, .cmdline = "quiet"};
    struct plx_err err = {0};

    (void)state;
    assert_int_equal(firmware_load(&b.m, &cfg, &err), PLX_ENOTSUP);
    b.m.rom = NULL;
    cfg.cmdline = NULL;
    assert_int_equal(firmware_load(&b.m, &cfg, &err), PLX_ENOTSUP);
    b.m.rom = rom;
    assert_int_equal(rom_set(rom, image, 0, &err), PLX_ERANGE);
    assert_int_equal(rom_set(rom, image, 4095, &err), PLX_ERANGE);
    assert_int_equal(rom_set(rom, image, ROM_MAX + 4096, &err), PLX_ERANGE);
    load_image();
    assert_int_equal(rom_set(rom, image, sizeof image, &err), PLX_ESTATE);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - IMAGE, 1), image[0]);
}

static void rom_below_4_gib_and_ram_below_1_mib(void **state)
{
    uint8_t bytes[15];
    uint32_t last;

    (void)state;
    assert_false(rom_read(rom, ROM_END - 16, bytes, 1));
    load_image();
    memcpy(&last, image + IMAGE - 4, 4);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - 4, 4), last);
    bus_write(b.m.bus, BUS_MMIO, ROM_END - 4, 4, 0);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - 4, 4), last);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - IMAGE - 1, 1), 0xff);
    assert_true(rom_read(rom, ROM_END - 16, bytes, 15));
    assert_memory_equal(bytes, image + IMAGE - 16, 15);
    assert_false(rom_read(rom, ROM_END - 14, bytes, 15));
    assert_false(rom_read(rom, ROM_END - IMAGE - 1, bytes, 15));
    assert_false(rom_read(rom, ROM_END, bytes, 1));
    assert_memory_equal(ram_page_hva(b.m.ram, 0xe0000), image + IMAGE - (128 << 10), 128 << 10);
    assert_int_equal(*(ram_page_hva(b.m.ram, 0xdf000) + 0xfff), 0);
}

static void select_item(uint16_t key)
{
    bus_write(b.m.bus, BUS_PIO, FWCFG_PORT, 2, key);
}

static uint64_t data(unsigned len)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < len; i++) {
        uint64_t byte = in8(&b.m, FWCFG_PORT + 1);

        v |= i < 8 ? byte << (i * 8) : 0;
    }
    return v;
}

static uint64_t big(unsigned len)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < len; i++) {
        v = v << 8 | in8(&b.m, FWCFG_PORT + 1);
    }
    return v;
}

static void items_end_where_they_end(void **state)
{
    (void)state;
    select_item(FWCFG_SIGNATURE);
    assert_int_equal(data(4), 0xffffffff); /* without firmware it is not there */
    load_image();
    select_item(FWCFG_SIGNATURE);
    assert_memory_equal(&(uint64_t){data(8)}, "QEMU\0\0\0\0", 8);
    select_item(FWCFG_ID);
    assert_int_equal(data(4), 1);
    select_item(FWCFG_NB_CPUS);
    assert_int_equal(data(8), 3);
    select_item(FWCFG_MAX_CPUS);
    assert_int_equal(data(2), 3);
    select_item(0x7777);
    assert_int_equal(data(8), 0);
}

/* Any bytes, in lines of any length. */
static void the_debug_port_takes_anything(void **state)
{
    (void)state;
    assert_int_equal(in8(&b.m, FIRMWARE_DEBUG_PORT), 0xff);
    load_image();
    assert_int_equal(in8(&b.m, FIRMWARE_DEBUG_PORT), 0xe9);
    for (unsigned i = 0; i < 5000; i++) {
        out8(&b.m, FIRMWARE_DEBUG_PORT, (uint8_t)(i < 1000 ? 'x' : i * 7));
    }
}

/* A file by its name: where it is and how long. */
static uint16_t find_file(const char *name, uint32_t *len)
{
    select_item(FWCFG_FILE_DIR);
    for (uint64_t n = big(4); n > 0; n--) {
        char text[56];
        *len = (uint32_t)big(4);
        uint16_t key = (uint16_t)big(2);

        (void)big(2);
        for (unsigned i = 0; i < sizeof text; i++) {
            text[i] = (char)in8(&b.m, FWCFG_PORT + 1);
        }
        if (strcmp(text, name) == 0) {
            return key;
        }
    }
    fail_msg("no file %s", name);
    return 0;
}

static uint8_t *read_file(const char *name, uint32_t *len)
{
    uint16_t key = find_file(name, len);
    uint8_t *bytes = plx_calloc(1, *len);

    assert_non_null(bytes);
    select_item(key);
    for (uint32_t i = 0; i < *len; i++) {
        bytes[i] = in8(&b.m, FWCFG_PORT + 1);
    }
    return bytes;
}

static void files_tell_of_memory_and_console(void **state)
{
    uint32_t len;
    uint8_t *map;

    (void)state;
    load_image();
    map = read_file("etc/e820", &len);
    assert_int_equal(len, 20);
    assert_int_equal(get_le64(map), 0);
    assert_int_equal(get_le64(map + 8), 16 << 20);
    assert_int_equal(get_le32(map + 16), 1);
    plx_free(map);
    map = read_file("etc/sercon-port", &len);
    assert_int_equal(len, 2);
    assert_int_equal(map[0] | map[1] << 8, COM1_PORT);
    plx_free(map);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len-- > 0) {
        s = (uint8_t)(s + *p++);
    }
    return s;
}

/* Runs the loader script as firmware would, the tables at 0x123400. */
static void acpi_tables_can_be_moved(void **state)
{
    const uint64_t at = 0x123400;
    uint32_t ntables, nrsdp, nscript;
    uint8_t *tables, *rsdp, *script;
    unsigned seen = 0;

    (void)state;
    load_image();
    tables = read_file("etc/acpi/tables", &ntables);
    rsdp = read_file("etc/acpi/rsdp", &nrsdp);
    script = read_file("etc/table-loader", &nscript);
    assert_int_equal(nscript % 128, 0);
    assert_int_equal(nrsdp, 36);
    for (uint8_t *c = script; c < script + nscript; c += 128) {
        bool is_rsdp = strcmp((char *)c + 4, "etc/acpi/rsdp") == 0;
        uint8_t *file = is_rsdp ? rsdp : tables;
        uint32_t len = is_rsdp ? nrsdp : ntables;

        assert_true(is_rsdp || strcmp((char *)c + 4, "etc/acpi/tables") == 0);
        if (get_le32(c) == 2) {
            uint32_t off = get_le32(c + 116), size = c[120];

            assert_string_equal((char *)c + 60, "etc/acpi/tables");
            assert_true((size == 4 || size == 8) && off + size <= len);
            if (size == 8) {
                put_le64(file + off, get_le64(file + off) + at);
            } else {
                put_le32(file + off, get_le32(file + off) + (uint32_t)at);
            }
        } else if (get_le32(c) == 3) {
            uint32_t off = get_le32(c + 60), start = get_le32(c + 64), n = get_le32(c + 68);

            assert_true(off < len && start + n <= len);
            file[off] = (uint8_t)(file[off] - sum(file + start, n));
        } else {
            assert_int_equal(get_le32(c), 1);
        }
    }
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    const uint8_t *xsdt = tables + (get_le64(rsdp + 24) - at);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(sum(xsdt, get_le32(xsdt + 4)), 0);
    for (uint32_t i = 36; i < get_le32(xsdt + 4); i += 8) {
        const uint8_t *t = tables + (get_le64(xsdt + i) - at);

        assert_int_equal(sum(t, get_le32(t + 4)), 0);
        if (memcmp(t, "FACP", 4) == 0) {
            const uint8_t *dsdt = tables + (get_le64(t + 140) - at);

            assert_memory_equal(dsdt, "DSDT", 4);
            assert_int_equal(sum(dsdt, get_le32(dsdt + 4)), 0);
            assert_int_equal(get_le32(t + 40), get_le64(t + 140));
            assert_memory_equal(tables + (get_le32(t + 36) - at), "FACS", 4);
            seen++;
        }
    }
    assert_int_equal(seen, 1);
    plx_free(tables);
    plx_free(rsdp);
    plx_free(script);
}

static void state_survives_anything(void **state)
{
    struct device *d = board_device(&b.m, "fwcfg"), *r = board_device(&b.m, "rom");
    struct wbuf none, full;
    struct prng g;

    (void)state;
    seed_open(&g, "firmware");
    wbuf_init(&none);
    wbuf_init(&full);
    r->ops->save(r->dev, &none);
    load_image();
    r->ops->save(r->dev, &full);
    assert_int_equal(full.len, IMAGE + 4);
    assert_int_equal(section_read(r, &none, none.len, 1), 0);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - 16, 1), 0xff);
    assert_int_equal(section_read(r, &full, full.len, 1), 0);
    assert_int_equal(bus_read(b.m.bus, BUS_MMIO, ROM_END - 16, 1), 0xea);
    assert_int_equal(section_read(r, &full, full.len - 1, 1), PLX_ETRUNCATED);
    assert_int_equal(section_read(r, &full, full.len, 2), PLX_EVERSION);
    put_le32(full.data, 4097);
    assert_int_equal(section_read(r, &full, full.len, 1), PLX_ECORRUPT);
    wbuf_free(&none);
    wbuf_free(&full);

    load_image();
    select_item(FWCFG_FILE_DIR);
    (void)data(100);
    check_round_trip(d);
    fuzz_ports(&b, d, &g, FWCFG_PORT, 2, 4000);
    check_hostile(d, &g, NULL, NULL);
    select_item(FWCFG_ID);
    assert_int_equal(data(4), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(images_are_recognised),
        TEST(what_is_no_rom_is_refused),
        TEST(rom_below_4_gib_and_ram_below_1_mib),
        TEST(items_end_where_they_end),
        TEST(the_debug_port_takes_anything),
        TEST(files_tell_of_memory_and_console),
        TEST(acpi_tables_can_be_moved),
        TEST(state_survives_anything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
