/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a field of a section that no digest sees; a section from a hostile state file that is
 * loaded and then kills the VM, or that comes back other than it was given.
 *
 * Every bit flip stands in a well-formed stream with right hashes, on the whole PC in the middle of
 * a run: with one vCPU, with two that share pages, and with firmware. What is loaded all the same
 * must show in the digest, and then runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/sched_guest.h"
#include "tests/unit/smp_guest.h"
#include "tests/unit/zero_disk.h"
#include "vmm/sched/sections.h"
#include "vmm/sched/state.h"
#include "vmm/sched/vm_internal.h"

static char doing[128];

static void say_what(void)
{
    (void)fprintf(stderr, "while doing: %s\n", doing);
}

static struct vm *pc_of(const struct machine_config *machine, const void *image, size_t len)
{
    struct vm_config cfg = {
        .machine = *machine, .host = {.disk_result = zero_disk}, .engine = &engine_interp};
    struct boot_config boot = {.kernel = {image, len}};
    struct vm *vm;

    assert_int_equal(vm_create(&cfg, &vm, NULL), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, NULL), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    return vm;
}

static struct vm *whole_pc(void)
{
    struct machine_config m = {.memory = GUEST_RAM, .vcpus = 1, .ndisks = 1, .nnics = 1};

    m.disks[0].sectors = 2048;
    return pc_of(&m, guest_image, guest_image_len());
}

/* Two vCPUs that take pages from each other all the time. */
static struct vm *pc_of_two(void)
{
    return smp_vm(&(struct smp_config){.program = smp_strings, .vcpus = 2, .times = 1U << 30});
}

extern const uint8_t fw_image[], fw_image_end[];

/* 64 KiB that reads its boot menu's time from fw_cfg, over and over. */
__asm__(".pushsection .rodata\n"
        ".global fw_image, fw_image_end\n"
        "fw_image:\n"
        ".code16\n"
        "1:  movw $0x510, %dx\n movw $0x19, %ax\n outw %ax, %dx\n"
        "    incw %dx\n movw $7, %cx\n"
        "2:  inb %dx, %al\n loop 2b\n"
        "    jmp 1b\n"
        "    .fill 0xfff0 - (. - fw_image), 1, 0x5a\n"
        "    .byte 0xea\n .word 0, 0xf000\n"
        "    .fill 0x10000 - (. - fw_image), 1, 0\n"
        "fw_image_end:\n"
        ".code64\n"
        ".popsection\n");

static struct vm *pc_with_firmware(void)
{
    const struct machine_config m = {.memory = GUEST_RAM, .vcpus = 1};

    return pc_of(&m, fw_image, (size_t)(fw_image_end - fw_image));
}

/* @only: the sections for which the machine is there; NULL: all. */
static const struct subject {
    const char *what;
    struct vm *(*make)(void);
    const char *only[5];
} one = {"one vCPU", whole_pc, {NULL}},
  two = {"two vCPUs", pc_of_two, {"cpu0", "cpu1", "lapic0", "lapic1", "owner"}},
  firmware = {"firmware", pc_with_firmware, {"rom", "fwcfg"}};

static bool concerns(const struct subject *of, const char *section)
{
    bool any = false;

    for (size_t i = 0; i < PLX_COUNT(of->only) && of->only[i] != NULL; i++) {
        if (strcmp(of->only[i], section) == 0) {
            return true;
        }
        any = true;
    }
    return !any;
}

/* A few short slices; what the guest does with its state is its own business. */
static void run(struct vm *vm, unsigned slices)
{
    struct output_list out;
    struct plx_err err;

    output_list_init(&out);
    for (unsigned i = 0; i < slices && !vm_stopped(vm, NULL, NULL); i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        r.span_ns = slices > 10 ? r.span_ns : 50000;
        if (vm_slice(vm, &r, &out, &err) != 0) {
            break; /* a clock near its end refuses records: a defined reaction */
        }
        output_list_clear(&out);
    }
    output_list_free(&out);
}

static struct hash128 digest_of(struct vm *vm)
{
    struct vm_digest d;

    vm_digest(vm, 0, &d, NULL, NULL);
    return d.all;
}

struct place {
    char name[32];
    size_t from, data, end; /* of the section, its bytes, and where its hash is */
};

static unsigned find_sections(const struct wbuf *stream, struct place *out)
{
    struct rbuf in;
    unsigned n = 0;

    rbuf_init(&in, stream->data, stream->len);
    while (rbuf_left(&in) > 0) {
        struct place *p = &out[n++];
        p->from = (size_t)(in.p - stream->data);
        rbuf_str(&in, p->name, sizeof p->name);
        (void)rbuf_u32(&in);
        size_t len = (size_t)rbuf_u64(&in);
        p->data = (size_t)(in.p - stream->data);
        p->end = p->data + len;
        (void)rbuf_take(&in, len + 16);
        assert_false(in.failed);
    }
    return n;
}

static void seal(struct wbuf *stream, const struct place *p)
{
    struct hash128 h = hash128(stream->data + p->from, p->end - p->from, STATE_SEED);

    memcpy(stream->data + p->end, &h.lo, 8);
    memcpy(stream->data + p->end + 8, &h.hi, 8);
}

static void restore(const struct subject *of, struct vm **vm, const struct wbuf *whole)
{
    vm_destroy(*vm);
    *vm = of->make();
    assert_int_equal(vm_load_buf(*vm, whole->data, whole->len, NULL), 0);
}

struct flips {
    const struct subject *of;
    struct vm *vm;
    struct wbuf stream, whole; /* the sections, and all of the VM */
    struct hash128 before;
    unsigned refused, seen;
};

/* Bit @bit of the byte at @at of the stream, in section @p of which @mine were loaded so far. True:
 * it is loaded. */
static bool flip(struct flips *f, const struct place *p, size_t at, unsigned bit, unsigned mine)
{
    struct plx_err err = {.msg = ""};
    struct rbuf in;
    bool loaded;

    (void)snprintf(doing, sizeof doing, "section %.31s, byte %zu, bit %u", p->name, at - p->data,
                   bit);
    f->stream.data[at] ^= (uint8_t)(1U << bit);
    seal(&f->stream, p);
    rbuf_init(&in, f->stream.data, f->stream.len);
    loaded = sections_load(f->vm, &in, &err) == 0;
    if (!loaded) {
        if (strstr(err.msg, p->name) == NULL) {
            fail_msg("%s: refused without its name: %s", doing, err.msg);
        }
        f->refused++;
    } else {
        if (hash128_eq(f->before, digest_of(f->vm))) {
            fail_msg("%s: no digest sees it", doing);
        }
        f->seen++;
        if (f->seen % 8 == 0 || mine < 64) {
            run(f->vm, 3);
            restore(f->of, &f->vm, &f->whole);
        }
    }
    f->stream.data[at] ^= (uint8_t)(1U << bit);
    seal(&f->stream, p);
    return loaded;
}

/* One bit in every byte; of a short section every bit; of a very long one some bytes, a prime apart
 * so that every bit of a byte has its turn. */
static void every_byte_of_every_section(void **state)
{
    struct flips f = {.of = *state};
    struct place places[64];
    unsigned n, concerned = 0, wanted = 0;

    f.vm = f.of->make();
    run(f.vm, 101);
    wbuf_init(&f.stream);
    wbuf_init(&f.whole);
    assert_int_equal(vm_save_buf(f.vm, &f.whole, NULL), 0);
    sections_save(f.vm, &f.stream);
    f.before = digest_of(f.vm);
    n = find_sections(&f.stream, places);
    assert_in_range(n, 12, 64);
    for (unsigned i = 0; i < n; i++) {
        size_t len = places[i].end - places[i].data, step = len > 16384 ? 61 : 1;
        unsigned mine = 0, bits = len <= 64 ? 8 : 1;
        if (!concerns(f.of, places[i].name)) {
            continue;
        }
        concerned++;
        for (size_t k = 0; k < len * bits; k += step) {
            size_t at = places[i].data + k / bits;
            mine += flip(&f, &places[i], at, (unsigned)(bits == 8 ? k : at) % 8, mine);
        }
        if (f.of->only[0] != NULL) {
            print_message("%s: %zu bytes, %u seen\n", places[i].name, len, mine);
            assert_true(mine > 0);
        }
    }
    for (size_t i = 0; i < PLX_COUNT(f.of->only); i++) {
        wanted += f.of->only[i] != NULL;
    }
    assert_true(wanted == 0 || concerned == wanted); /* each is there */
    (void)snprintf(doing, sizeof doing, "loading what was saved");
    print_message("%s, %u sections, %zu bytes: %u flips refused, %u seen in the digest\n",
                  f.of->what, n, f.stream.len, f.refused, f.seen);
    restore(f.of, &f.vm, &f.whole);
    assert_true(hash128_eq(f.before, digest_of(f.vm)));
    wbuf_free(&f.stream);
    wbuf_free(&f.whole);
    vm_destroy(f.vm);
}

/* Several bytes of a section at once, at random: whatever is loaded runs without harm to us. */
static void random_damage_is_survived(void **state)
{
    const uint64_t seed = 20260101;
    struct place places[64];
    struct wbuf stream, whole;
    const struct subject *of = *state;
    struct vm *vm = of->make();
    unsigned n, loaded = 0;
    struct prng g;

    print_message("seed %llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    run(vm, 101);
    wbuf_init(&stream);
    wbuf_init(&whole);
    assert_int_equal(vm_save_buf(vm, &whole, NULL), 0);
    sections_save(vm, &stream);
    n = find_sections(&stream, places);
    for (unsigned i = 0; i < 3000; i++) {
        const struct place *p = &places[prng_below(&g, n)];
        size_t len = p->end - p->data;
        struct wbuf w;
        struct rbuf in;
        if (len == 0 || !concerns(of, p->name)) {
            continue;
        }
        (void)snprintf(doing, sizeof doing, "damage %u, to section %.31s", i, p->name);
        wbuf_init(&w);
        wbuf_put(&w, stream.data, stream.len);
        for (uint64_t k = 1 + prng_below(&g, 6); k > 0; k--) {
            static const uint8_t extremes[] = {0, 0xff, 0x80, 1, 0x7f};
            size_t at = p->data + (size_t)prng_below(&g, len);
            w.data[at] = prng_below(&g, 2) == 0 ? extremes[prng_below(&g, sizeof extremes)]
                                                : (uint8_t)prng_u64(&g);
        }
        seal(&w, p);
        rbuf_init(&in, w.data, w.len);
        if (sections_load(vm, &in, NULL) == 0) {
            loaded++;
            run(vm, 5);
            restore(of, &vm, &whole);
        }
        wbuf_free(&w);
    }
    print_message("%s: %u of 3000 were loaded and ran\n", of->what, loaded);
    assert_true(loaded > (of->only[0] == NULL ? 300 : 30));
    wbuf_free(&stream);
    wbuf_free(&whole);
    vm_destroy(vm);
}

/* A section that is too short, too long, or empty. */
static void every_section_cut_and_padded(void **state)
{
    struct place places[64];
    struct wbuf stream;
    const struct subject *of = *state;
    struct vm *vm = of->make();
    unsigned n;

    run(vm, 50);
    wbuf_init(&stream);
    sections_save(vm, &stream);
    n = find_sections(&stream, places);
    for (unsigned i = 0; i < n; i++) {
        size_t len = places[i].end - places[i].data;
        for (int kind = 0; kind < 3; kind++) {
            uint64_t other = kind == 0 ? 0 : kind == 1 ? len - 1 : len + 1;
            struct wbuf w;
            struct rbuf in;
            if (len == 0) {
                continue;
            }
            (void)snprintf(doing, sizeof doing, "section %.31s with %zu bytes", places[i].name,
                           (size_t)other);
            wbuf_init(&w);
            wbuf_put(&w, stream.data, places[i].data);
            memcpy(w.data + places[i].data - 8, &other, 8);
            wbuf_put(&w, stream.data + places[i].data, (size_t)(other < len ? other : len));
            if (other > len) {
                wbuf_u8(&w, 0);
            }
            struct place p = {.from = places[i].from, .end = w.len};
            wbuf_u64(&w, 0);
            wbuf_u64(&w, 0);
            seal(&w, &p);
            wbuf_put(&w, stream.data + places[i].end + 16, stream.len - places[i].end - 16);
            rbuf_init(&in, w.data, w.len);
            if (sections_load(vm, &in, NULL) == 0) {
                fail_msg("%s is loaded", doing);
            }
            wbuf_free(&w);
        }
    }
    wbuf_free(&stream);
    vm_destroy(vm);
}

#define WITH(f, subject)                                            \
    {                                                               \
#f " " #subject, f, NULL, NULL, (void *)(uintptr_t)&subject \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(every_byte_of_every_section, one),       WITH(every_byte_of_every_section, two),
        WITH(every_byte_of_every_section, firmware),  WITH(random_damage_is_survived, one),
        WITH(random_damage_is_survived, two),         WITH(random_damage_is_survived, firmware),
        WITH(every_section_cut_and_padded, one),      WITH(every_section_cut_and_padded, two),
        WITH(every_section_cut_and_padded, firmware),
    };
    plx_check_set_hook(say_what);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
