/* SPDX-License-Identifier: Apache-2.0
 * One test for each rule of determinism (ARCHITECTURE.md, "Determinism"), on the real machine and
 * the real interpreter. Each must fail when its rule is broken: broken_rules.sh shows that it does.
 * With an argument such as R4 only that rule's test runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/amount.h"
#include "tests/unit/sched_guest.h"
#include "tests/unit/smp_guest.h"

enum { SLICES = AMOUNT(240, 10), EVERY = 8, DIGESTS = SLICES / EVERY, SMP_SLICES = 960 };

/* What a device might do between two slices. */
typedef void meddle_fn(struct vm *vm, uint64_t seq);

static void play(struct vm *vm, meddle_fn *meddle, struct hash128 out[DIGESTS])
{
    struct output_list outputs;
    struct plx_err err;

    output_list_init(&outputs);
    for (unsigned i = 0; i < SLICES; i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        if (vm_slice(vm, &r, &outputs, &err) != 0) {
            fail_msg("%s", err.msg);
        }
        output_list_clear(&outputs);
        if (meddle != NULL) {
            meddle(vm, vm_seq(vm));
        }
        if ((i + 1) % EVERY == 0) {
            struct vm_digest d;
            vm_digest(vm, vm_scrub_pages(vm), &d, NULL, NULL);
            out[i / EVERY] = d.all;
        }
    }
    output_list_free(&outputs);
}

static void digests_of(uint64_t chaos, unsigned cache_entries, meddle_fn *meddle,
                       struct hash128 out[DIGESTS])
{
    struct vm *vm = guest_vm(chaos, cache_entries);

    play(vm, meddle, out);
    vm_destroy(vm);
}

static void same(const struct hash128 a[DIGESTS], const struct hash128 b[DIGESTS])
{
    for (unsigned i = 0; i < DIGESTS; i++) {
        if (!hash128_eq(a[i], b[i])) {
            fail_msg("digests differ after slice %u", (i + 1) * EVERY);
        }
    }
}

static uint32_t word(struct vm *vm, gpa_t gpa)
{
    uint32_t w;

    assert_int_equal(ram_read(vm_machine(vm)->ram, gpa, &w, sizeof w), 0);
    return w;
}

/* R1: save, power on anew, load, at random boundaries: what no section carries is gone. */
static void r1_state_is_what_the_sections_hold(void **state)
{
    struct hash128 calm[DIGESTS], wild[DIGESTS];

    (void)state;
    digests_of(0, 0, NULL, calm);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        digests_of(seed, 0, NULL, wild);
        same(calm, wild);
    }
}

/* R1: engines stop exactly at their budgets, whatever the size of the caches. */
static void r1_engines_stop_at_an_exact_budget(void **state)
{
    struct hash128 plain[DIGESTS], small[DIGESTS];

    (void)state;
    digests_of(0, 0, NULL, plain);
    digests_of(0, 16, NULL, small);
    same(plain, small);
    digests_of(0, 23, NULL, small);
    same(plain, small);
}

/* A program of smp_guest.h on two threads, to its end; digests after every slice. */
static void play_smp(const uint8_t *program, unsigned vcpus, uint32_t times, meddle_fn *meddle,
                     struct hash128 digests[DIGESTS], struct vm **out)
{
    const struct smp_config cfg = {
        .program = program, .vcpus = vcpus, .times = times, .threads = 2};
    struct vm *vm = smp_vm(&cfg);
    struct output_list outputs;

    output_list_init(&outputs);
    memset(digests, 0, DIGESTS * sizeof *digests);
    for (unsigned i = 0; i < SMP_SLICES && smp_slice(vm, &outputs); i++) {
        struct vm_digest d;
        if (meddle != NULL) {
            meddle(vm, vm_seq(vm));
        }
        vm_digest(vm, vm_scrub_pages(vm), &d, NULL, NULL);
        digests[i % DIGESTS] = hash128_add(digests[i % DIGESTS], d.all);
    }
    assert_true(vm_stopped(vm, NULL, NULL));
    output_list_free(&outputs);
    if (out != NULL) {
        *out = vm;
    } else {
        vm_destroy(vm);
    }
}

/* R2: what is not a vCPU's own stops it in a parallel part, so no update is lost. */
static void r2_pages_have_owners(void **state)
{
    struct hash128 digests[DIGESTS];
    struct vm_counters c;
    struct vm *vm;

    (void)state;
    play_smp(smp_locked, 2, 50000, NULL, digests, &vm);
    assert_int_equal(word(vm, SMP_SHARED), 100000);
    vm_counters(vm, &c);
    assert_true(c.vcpu[0].lacks_write > 0 && c.vcpu[1].lacks_write > 0);
    vm_destroy(vm);
}

/* R3: those who are served after a parallel part are served in an order that is state. */
static void r3_the_serial_order_is_state(void **state)
{
    struct hash128 a[DIGESTS], b[DIGESTS];

    (void)state;
    play_smp(smp_racing, 3, 20000, NULL, a, NULL);
    play_smp(smp_racing, 3, 20000, NULL, b, NULL);
    same(a, b);
}

/* R5: what happened later, as seen through memory, has the later clock. */
static void r5_clocks_agree_with_memory(void **state)
{
    struct hash128 digests[DIGESTS];
    struct vm *vm;

    (void)state;
    play_smp(smp_warp, 3, 2000, NULL, digests, &vm);
    assert_int_equal(word(vm, SMP_OTHER + 16), 0);
    vm_destroy(vm);
}

/* R3: the clock of the PM timer moves while the vCPU runs; the guest counted when it did not. */
static void r3_devices_see_the_running_clock(void **state)
{
    struct vm *vm = guest_vm(0, 0);
    struct hash128 digests[DIGESTS];

    (void)state;
    play(vm, NULL, digests);
    assert_true(vm_vcpu(vm, 0)->c.gpr[RBP] > 1000);
    assert_int_equal(word(vm, 0x310064), 0);
    vm_destroy(vm);
}

/* R4: timers and the interrupts they raise come at the same boundaries however much was dropped. */
static void r4_interrupts_come_at_the_same_boundary(void **state)
{
    struct hash128 calm[DIGESTS], wild[DIGESTS];

    (void)state;
    digests_of(0, 16, NULL, calm);
    for (uint64_t seed = 11; seed <= 13; seed++) {
        digests_of(seed, 16, NULL, wild);
        same(calm, wild);
    }
}

/* R5: time is what records and progress say: exactly the end of every busy slice, in two runs. */
static void r5_time_is_virtual(void **state)
{
    struct hash128 a[DIGESTS], b[DIGESTS];

    (void)state;
    digests_of(0, 0, NULL, a);
    digests_of(0, 0, NULL, b);
    same(a, b);
}

/* R6: RDRAND comes from the generator that the entropy input seeded, and from nothing else. */
static void r6_randomness_is_an_input(void **state)
{
    struct vm *a = guest_vm(0, 0), *b = guest_vm(0, 0);
    struct hash128 digests[DIGESTS];

    (void)state;
    play(a, NULL, digests);
    play(b, NULL, digests);
    assert_int_not_equal(word(a, 0x310010), 0);
    assert_int_equal(word(a, 0x310010), word(b, 0x310010));
    vm_destroy(a);
    vm_destroy(b);
}

/* R7: what the guest computed through an instruction and a page table that it changes before every
 * use, without a flush: right to the last word, on large and small caches. */
static void r7_translations_are_never_stale(void **state)
{
    static const unsigned caches[] = {0, 16};

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(caches); i++) {
        struct vm *vm = guest_vm(0, caches[i]);
        struct hash128 digests[DIGESTS];
        play(vm, NULL, digests);
        uint32_t n = (uint32_t)vm_vcpu(vm, 0)->c.gpr[RBP];
        uint32_t sum = word(vm, 0x310020), want = n * (n + 1) / 2;
        assert_true(sum == want || sum == want - n); /* the last addition may be to come */
        uint32_t odd = word(vm, 0x800040), even = word(vm, 0x400040);
        assert_int_equal(odd & 1, 1);
        assert_int_equal(even & 1, 0);
        assert_true(odd + even == 2 * n - 1 || odd + even == 2 * n - 3);
        vm_destroy(vm);
    }
}

/* R7 on two vCPUs: what one changes, the other finds changed: a table entry, an instruction. */
static void r7_nor_on_another_vcpu(void **state)
{
    struct hash128 digests[DIGESTS];
    struct vm *vm;

    (void)state;
    play_smp(smp_derived, 2, 100, NULL, digests, &vm);
    assert_int_equal(word(vm, SMP_SHARED + 0x40), 100);
    assert_int_equal(word(vm, SMP_SHARED + 0x80), 0);
    assert_int_equal(word(vm, SMP_SHARED + 0x84), 0);
    vm_destroy(vm);
}

/* A device that writes, through its one door, over an instruction of the guest's loop. */
static void write_code(struct vm *vm, uint64_t seq)
{
    gpa_t at = GUEST_CODE + (gpa_t)(guest_constant - guest_image) + 2;
    uint32_t constant = 12345 + (uint32_t)seq;

    if (seq % 10 == 0) {
        assert_int_equal(ram_write(vm_machine(vm)->ram, at, &constant, sizeof constant), 0);
    }
}

static void write_code_and_drop(struct vm *vm, uint64_t seq)
{
    write_code(vm, seq);
    vm_machine(vm)->ram->flags[GUEST_CODE >> PAGE_SHIFT] |= RAM_DIRTY;
    engine_interp.drop(vm_vcpu(vm, 0));
}

/* R8: writes of devices reach everything that was derived from the page: as if all was dropped. */
static void r8_devices_write_before_the_watchers_eyes(void **state)
{
    struct hash128 kept[DIGESTS], dropped[DIGESTS], untouched[DIGESTS];

    (void)state;
    digests_of(0, 0, write_code, kept);
    digests_of(0, 0, write_code_and_drop, dropped);
    same(kept, dropped);
    digests_of(0, 0, NULL, untouched);
    assert_false(hash128_eq(kept[DIGESTS - 1], untouched[DIGESTS - 1]));
}

static void write_addend(struct vm *vm, uint64_t seq)
{
    gpa_t at = 0x200000 + (gpa_t)(smp_addend - smp_image) + 1;
    uint32_t addend = 12345 + (uint32_t)seq;

    if (seq % 3 == 0) {
        assert_int_equal(ram_write(vm_machine(vm)->ram, at, &addend, sizeof addend), 0);
    }
}

static void write_addend_and_drop(struct vm *vm, uint64_t seq)
{
    write_addend(vm, seq);
    vm_machine(vm)->ram->flags[0x200000 >> PAGE_SHIFT] |= RAM_DIRTY;
    for (unsigned i = 0; i < 2; i++) {
        engine_interp.drop(vm_vcpu(vm, i));
    }
}

/* R8 on two vCPUs that run in parallel: what a device writes reaches both. */
static void r8_and_of_every_vcpu(void **state)
{
    struct hash128 kept[DIGESTS], dropped[DIGESTS], untouched[DIGESTS];

    (void)state;
    play_smp(smp_compute, 2, 5000, write_addend, kept, NULL);
    play_smp(smp_compute, 2, 5000, write_addend_and_drop, dropped, NULL);
    same(kept, dropped);
    play_smp(smp_compute, 2, 5000, NULL, untouched, NULL);
    assert_false(hash128_eq(kept[DIGESTS - 1], untouched[DIGESTS - 1]));
}

/* R9: two VMs in different places of the host's memory, with different caches and drops. */
static void r9_the_same_log_gives_the_same_digests(void **state)
{
    struct vm *a = guest_vm(0, 0), *b = guest_vm(0, 64);
    struct hash128 da[DIGESTS], db[DIGESTS];

    (void)state;
    play(a, NULL, da);
    play(b, NULL, db);
    same(da, db);
    assert_false(hash128_eq(da[0], da[1]));
    vm_destroy(a);
    vm_destroy(b);
}

/* Engines are known by name; "auto" is one of them. */
static void engines_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(engine_find("interp"), &engine_interp);
    assert_ptr_equal(engine_find("jit"), &engine_jit);
    assert_ptr_equal(engine_find("switch"), &engine_switch);
    assert_ptr_equal(engine_find("auto"), &engine_jit);
    assert_null(engine_find("interpreter"));
    assert_null(engine_find(""));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(r1_state_is_what_the_sections_hold),
        cmocka_unit_test(r1_engines_stop_at_an_exact_budget),
        cmocka_unit_test(r2_pages_have_owners),
        cmocka_unit_test(r3_devices_see_the_running_clock),
        cmocka_unit_test(r3_the_serial_order_is_state),
        cmocka_unit_test(r4_interrupts_come_at_the_same_boundary),
        cmocka_unit_test(r5_time_is_virtual),
        cmocka_unit_test(r5_clocks_agree_with_memory),
        cmocka_unit_test(r6_randomness_is_an_input),
        cmocka_unit_test(r7_translations_are_never_stale),
        cmocka_unit_test(r7_nor_on_another_vcpu),
        cmocka_unit_test(r8_devices_write_before_the_watchers_eyes),
        cmocka_unit_test(r8_and_of_every_vcpu),
        cmocka_unit_test(r9_the_same_log_gives_the_same_digests),
        cmocka_unit_test(engines_are_found_by_name),
    };
    static char pattern[16];

    if (argc > 1 && isdigit((unsigned char)argv[1][1])) {
        (void)snprintf(pattern, sizeof pattern, "r%c_*", argv[1][1]);
        cmocka_set_test_filter(pattern);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
