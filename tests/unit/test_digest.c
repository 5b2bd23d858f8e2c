/* SPDX-License-Identifier: Apache-2.0
 * Hunts: state that no digest sees; a changed page that is never reported, or late; a digest that
 * depends on how often it was taken, or on what RAM held before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "tests/unit/fake_pc.h"
#include "vmm/sched/cpu_section.h"

static struct vm_digest take(struct vm *vm)
{
    struct vm_digest d;

    vm_digest(vm, 0, &d, NULL, NULL);
    return d;
}

static void run(struct vm *vm, unsigned slices)
{
    struct output_list out;

    output_list_init(&out);
    for (unsigned i = 0; i < slices; i++) {
        struct record r = {
            .seq = vm_seq(vm) + 1, .start_ns = vm_now(vm), .span_ns = 100000, .rate = RATE_ONE};
        assert_int_equal(vm_slice(vm, &r, &out, NULL), 0);
    }
    output_list_free(&out);
}

/* One bit of every byte of every register: only the section of the vCPU differs, and putting the
 * bit back gives the old digest. */
static void every_register_counts(void **state)
{
    struct vm *vm = fake_vm(0);
    uint8_t *c = (uint8_t *)&vm_vcpu(vm, 0)->c;
    struct vm_digest before = take(vm), after;
    unsigned flipped = 0;

    (void)state;
    for (unsigned i = 0; i < cpu_nfields(CPU_POLLUX_V2); i++) {
        const struct cpu_field *f = &cpu_fields[i];
        for (unsigned byte = 0; byte < (unsigned)f->count * f->width; byte++, flipped++) {
            uint8_t *at = c + f->offset + byte / f->width * f->stride + byte % f->width;
            *at ^= (uint8_t)(1U << (flipped % 8));
            after = take(vm);
            if (hash128_eq(before.all, after.all)) {
                fail_msg("no digest sees byte %u of %s", byte, f->name);
            }
            for (unsigned k = 0; k < after.nsections; k++) {
                assert_int_equal(hash128_eq(before.sections[k].hash, after.sections[k].hash),
                                 strcmp(after.sections[k].name, "cpu0") != 0);
            }
            *at ^= (uint8_t)(1U << (flipped % 8));
        }
    }
    after = take(vm);
    assert_true(hash128_eq(before.all, after.all));
    assert_in_range(flipped, 1000, sizeof(struct cpu));
    vm_destroy(vm);
}

/* The table of fields leaves out nothing but padding: bytes of struct cpu that no field covers. */
static void the_table_covers_the_whole_struct(void **state)
{
    uint8_t covered[sizeof(struct cpu)] = {0};
    size_t open = 0;

    (void)state;
    for (unsigned i = 0; i < cpu_nfields(CPU_POLLUX_V3); i++) {
        const struct cpu_field *f = &cpu_fields[i];
        for (unsigned k = 0; k < f->count; k++) {
            for (unsigned b = 0; b < f->width; b++) {
                uint8_t *at = &covered[f->offset + k * f->stride + b];
                assert_int_equal(*at, 0); /* and nothing twice */
                *at = 1;
            }
        }
    }
    for (size_t i = 0; i < sizeof covered; i++) {
        open += covered[i] == 0;
    }
    /* struct cpu_dtable ends in 6 bytes of padding each, the FPU in 4 before mxcsr's vector
     * registers and 1 after ftw, the whole in 6. A new field of struct cpu shows up here. */
    struct cpu c;
    size_t padding =
        2 * (sizeof c.gdtr - 10) +
        (offsetof(struct cpu, fpu) - offsetof(struct cpu, mtrr_phys) - sizeof c.mtrr_phys) +
        (offsetof(struct cpu_fpu, fop) - offsetof(struct cpu_fpu, ftw) - 1) +
        (offsetof(struct cpu_fpu, fip) - offsetof(struct cpu_fpu, fop) - 2) +
        (offsetof(struct cpu_fpu, xmm) - offsetof(struct cpu_fpu, mxcsr) - 4) +
        (sizeof c - offsetof(struct cpu, wait_sipi) - 1);
    assert_int_equal(open, padding);
}

static void taking_digests_changes_none(void **state)
{
    struct vm *a = fake_vm(0), *b;
    struct vm_digest last, once;

    (void)state;
    for (int i = 0; i < 40; i++) {
        run(a, 1);
        vm_digest(a, 7, &last, NULL, NULL);
    }
    b = fake_vm(0);
    run(b, 40);
    once = take(b);
    assert_true(hash128_eq(last.all, once.all));
    assert_true(hash128_eq(last.ram, once.ram));
    vm_destroy(b);
    vm_destroy(a);
}

/* A page that is written and then zero again counts as one that was never touched. */
static void only_contents_count(void **state)
{
    struct vm *vm = fake_vm(0);
    struct vm_digest before = take(vm), after;

    (void)state;
    assert_int_equal(ram_write(vm_machine(vm)->ram, 0x5008, "x", 1), 0);
    after = take(vm);
    assert_false(hash128_eq(before.ram, after.ram));
    assert_int_equal(ram_write(vm_machine(vm)->ram, 0x5008, "", 1), 0);
    after = take(vm);
    assert_true(hash128_eq(before.all, after.all));
    vm_destroy(vm);
}

/* Two pages that exchange their contents: a sum of hashes of contents alone would not see it. */
static void where_a_page_is_counts(void **state)
{
    struct vm *vm = fake_vm(0);
    struct ram *ram = vm_machine(vm)->ram;
    struct vm_digest before, after;

    (void)state;
    assert_int_equal(ram_write(ram, 0x2000, "a", 1), 0);
    assert_int_equal(ram_write(ram, 0x3000, "b", 1), 0);
    before = take(vm);
    assert_int_equal(ram_write(ram, 0x2000, "b", 1), 0);
    assert_int_equal(ram_write(ram, 0x3000, "a", 1), 0);
    after = take(vm);
    assert_false(hash128_eq(before.ram, after.ram));
    vm_destroy(vm);
}

static void hashed_pages_come_in_order(void **state)
{
    struct vm *vm = fake_vm(0);
    struct ram *ram = vm_machine(vm)->ram;
    const struct digest_page *pages;
    struct vm_digest d;
    size_t n;

    (void)state;
    take(vm);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(ram_write(ram, (uint64_t)(i * 37 % 100) << PAGE_SHIFT, "q", 1), 0);
    }
    vm_digest(vm, 0, &d, &pages, &n);
    assert_int_equal(n, 50);
    for (size_t i = 1; i < n; i++) {
        assert_true(pages[i - 1].gpa < pages[i].gpa);
    }
    vm_digest(vm, 0, &d, &pages, &n);
    assert_int_equal(n, 0);
    vm_destroy(vm);
}

/* A bit that changes behind everybody's back, in used and in unused pages, is seen by the digest
 * whose stretch covers it, within one round over RAM, and named. */
static void scrubbing_finds_a_flipped_bit(void **state)
{
    const uint64_t seed = 5;
    struct prng g;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    for (int i = 0; i < 100; i++) {
        struct vm *vm = fake_vm(0);
        struct ram *ram = vm_machine(vm)->ram;
        uint64_t at = prng_below(&g, ram->size), stretch = 1 + prng_below(&g, 60), tries = 0;
        const struct digest_page *pages;
        struct vm_digest before, now;
        bool named = false;
        size_t n;

        run(vm, 1 + (unsigned)i % 3);
        before = take(vm);
        ram->hva[at] ^= (uint8_t)(1U << prng_below(&g, 8));
        do {
            vm_digest(vm, stretch, &now, &pages, &n);
            tries++;
            assert_true(tries <= (ram_pages(ram) + stretch - 1) / stretch);
        } while (hash128_eq(before.all, now.all));
        for (size_t k = 0; k < n; k++) {
            named = named || pages[k].gpa == PAGE_BASE(at);
        }
        assert_true(named);
        vm_destroy(vm);
    }
}

/* The stretch follows virtual time: all of RAM once in SCRUB_NS. */
static void scrubbing_covers_ram_in_time(void **state)
{
    struct vm *vm = fake_vm(0);
    uint64_t covered = 0, pages = ram_pages(vm_machine(vm)->ram);

    (void)state;
    for (unsigned i = 0; i < 600; i++) {
        static const struct input jump = {.kind = INPUT_JUMP};
        struct output_list out;
        struct record r = {.seq = vm_seq(vm) + 1,
                           .start_ns = vm_now(vm) + SCRUB_NS / 600,
                           .span_ns = 1,
                           .rate = RATE_ONE,
                           .inputs = &jump,
                           .ninputs = 1};
        struct vm_digest d;
        output_list_init(&out);
        assert_int_equal(vm_slice(vm, &r, &out, NULL), 0);
        output_list_free(&out);
        covered += vm_scrub_pages(vm);
        vm_digest(vm, vm_scrub_pages(vm), &d, NULL, NULL);
    }
    assert_in_range(covered, pages, pages + 600);
    vm_destroy(vm);
}

static void what_a_digest_costs(void **state)
{
    struct vm_config cfg = {.machine = {.memory = 64 << 20, .vcpus = 1}, .engine = &fake_engine};
    struct vm *vm;
    struct ram *ram;
    uint64_t t0, t1, pages;

    (void)state;
    assert_int_equal(vm_create(&cfg, &vm, NULL), 0);
    ram = vm_machine(vm)->ram;
    pages = ram_pages(ram);
    for (uint64_t i = 0; i < ram->size; i += 8) {
        ram->hva[i] = (uint8_t)(i >> 9);
    }
    memset(ram->flags, RAM_DIRTY, pages);
    take(vm);
    memset(ram->flags, RAM_DIRTY, pages);
    t0 = clock_thread_cpu_ns();
    take(vm);
    t1 = clock_thread_cpu_ns();
    print_message("digest: %llu ns per dirty page\n", (unsigned long long)((t1 - t0) / pages));
    t0 = clock_thread_cpu_ns();
    take(vm);
    t1 = clock_thread_cpu_ns();
    print_message("digest: %llu ns per 1000 clean pages, with the sections\n",
                  (unsigned long long)((t1 - t0) * 1000 / pages));
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_register_counts),
        cmocka_unit_test(the_table_covers_the_whole_struct),
        cmocka_unit_test(taking_digests_changes_none),
        cmocka_unit_test(only_contents_count),
        cmocka_unit_test(where_a_page_is_counts),
        cmocka_unit_test(hashed_pages_come_in_order),
        cmocka_unit_test(scrubbing_finds_a_flipped_bit),
        cmocka_unit_test(scrubbing_covers_ram_in_time),
        cmocka_unit_test(what_a_digest_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
