/* SPDX-License-Identifier: Apache-2.0
 * Hunts: what a VM that has stopped keeps in no section and takes along when a state in which it
 * runs is loaded into it. On the real PC and the real interpreter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/sched_guest.h"
#include "vmm/sched/state.h"

/* Run one slice; with @key, type it first. */
static void step(struct vm *vm, uint8_t key)
{
    struct input inputs[2];
    struct record r = guest_record(vm, inputs);
    struct output_list out;

    if (key != 0) {
        inputs[0] = (struct input){
            .kind = INPUT_CONSOLE_RX, .dev = CONSOLE_SERIAL0, .data = &key, .len = 1};
        r.ninputs = 1;
    }
    output_list_init(&out);
    assert_int_equal(vm_slice(vm, &r, &out, NULL), 0);
    output_list_free(&out);
}

static struct hash128 digest(struct vm *vm)
{
    struct vm_digest d;

    vm_digest(vm, 0, &d, NULL, NULL);
    return d.all;
}

static void a_stopped_vm_runs_again_from_a_loaded_state(void **state)
{
    struct vm *vm = guest_vm(0, 0);
    struct hash128 want;
    struct wbuf saved;
    uint64_t retired, code;
    enum power_event event;

    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        step(vm, 0);
    }
    retired = vm_retired(vm);
    wbuf_init(&saved);
    assert_int_equal(vm_save_buf(vm, &saved, NULL), 0);
    for (unsigned i = 0; i < 10; i++) {
        step(vm, 0);
    }
    want = digest(vm);
    for (unsigned i = 0; i < 10 && !vm_stopped(vm, &event, &code); i++) {
        step(vm, 'q'); /* its debug exit */
    }
    assert_true(vm_stopped(vm, &event, &code));
    assert_int_equal(event, POWER_DEBUG_EXIT);

    assert_int_equal(vm_load_buf(vm, saved.data, saved.len, NULL), 0);
    assert_false(vm_stopped(vm, NULL, NULL));
    for (unsigned i = 0; i < 10; i++) {
        step(vm, 0);
    }
    assert_true(vm_retired(vm) > retired);
    assert_true(hash128_eq(digest(vm), want));
    wbuf_free(&saved);
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_vm_runs_again_from_a_loaded_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
