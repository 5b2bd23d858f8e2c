/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a field of a section that no digest sees; a section from a hostile state file that is
 * loaded and then kills the VM, or that comes back other than it was given.
 *
 * Every bit flip stands in a well-formed stream with right hashes, on the whole PC in the middle of
 * a run. What is loaded all the same must show in the digest, and then runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/sched_guest.h"
#include "vmm/sched/state.h"
#include "vmm/sched/vm_internal.h"

static char doing[128];

static void say_what(void)
{
    (void)fprintf(stderr, "while doing: %s\n", doing);
}

static int no_disk(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len, uint8_t *status,
                   struct plx_err *err)
{
    (void)ctx;
    (void)disk;
    (void)id;
    (void)err;
    memset(data, 0, len);
    *status = DISK_OK;
    return 0;
}

static struct vm *whole_pc(void)
{
    struct vm_config cfg = {.machine = {.memory = GUEST_RAM, .vcpus = 1, .ndisks = 1, .nnics = 1},
                            .host = {.disk_result = no_disk},
                            .engine = &engine_interp};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}};
    struct vm *vm;

    cfg.machine.disks[0].sectors = 2048;
    assert_int_equal(vm_create(&cfg, &vm, NULL), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, NULL), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    return vm;
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

static void restore(struct vm **vm, const struct wbuf *whole)
{
    vm_destroy(*vm);
    *vm = whole_pc();
    assert_int_equal(vm_load_buf(*vm, whole->data, whole->len, NULL), 0);
}

static void every_byte_of_every_section(void **state)
{
    struct place places[64];
    struct wbuf stream, whole;
    struct vm *vm = whole_pc();
    struct hash128 before;
    unsigned n, refused = 0, seen = 0;

    (void)state;
    run(vm, 101);
    wbuf_init(&stream);
    wbuf_init(&whole);
    assert_int_equal(vm_save_buf(vm, &whole, NULL), 0);
    sections_save(vm, &stream);
    before = digest_of(vm);
    n = find_sections(&stream, places);
    assert_in_range(n, 12, 64);
    for (unsigned i = 0; i < n; i++) {
        unsigned mine = 0;
        for (size_t at = places[i].data; at < places[i].end; at++) {
            uint8_t bit = (uint8_t)(1U << (at % 8));
            struct plx_err err = {.msg = ""};
            struct rbuf in;
            (void)snprintf(doing, sizeof doing, "section %.31s, byte %zu, bit %#x", places[i].name,
                           at - places[i].data, bit);
            stream.data[at] ^= bit;
            seal(&stream, &places[i]);
            rbuf_init(&in, stream.data, stream.len);
            if (sections_load(vm, &in, &err) != 0) {
                if (strstr(err.msg, places[i].name) == NULL) {
                    fail_msg("%s: refused without its name: %s", doing, err.msg);
                }
                refused++;
            } else {
                if (hash128_eq(before, digest_of(vm))) {
                    fail_msg("%s: no digest sees it", doing);
                }
                seen++;
                mine++;
                if (seen % 8 == 0 || mine < 64) {
                    run(vm, 3);
                    restore(&vm, &whole);
                }
            }
            stream.data[at] ^= bit;
            seal(&stream, &places[i]);
        }
    }
    (void)snprintf(doing, sizeof doing, "loading what was saved");
    print_message("%u sections, %zu bytes: %u flips refused, %u seen in the digest\n", n,
                  stream.len, refused, seen);
    restore(&vm, &whole);
    assert_true(hash128_eq(before, digest_of(vm)));
    wbuf_free(&stream);
    wbuf_free(&whole);
    vm_destroy(vm);
}

/* Several bytes of a section at once, at random: whatever is loaded runs without harm to us. */
static void random_damage_is_survived(void **state)
{
    const uint64_t seed = 20260101;
    struct place places[64];
    struct wbuf stream, whole;
    struct vm *vm = whole_pc();
    unsigned n, loaded = 0;
    struct prng g;

    (void)state;
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
        if (len == 0) {
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
            restore(&vm, &whole);
        }
        wbuf_free(&w);
    }
    print_message("%u of 3000 were loaded and ran\n", loaded);
    assert_true(loaded > 300);
    wbuf_free(&stream);
    wbuf_free(&whole);
    vm_destroy(vm);
}

/* A section that is too short, too long, or empty. */
static void every_section_cut_and_padded(void **state)
{
    struct place places[64];
    struct wbuf stream;
    struct vm *vm = whole_pc();
    unsigned n;

    (void)state;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_every_section),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(every_section_cut_and_padded),
    };
    plx_check_set_hook(say_what);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
